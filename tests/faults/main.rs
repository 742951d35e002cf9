//! Faults on the real control plane of the testbed: kubeadm, etcd, kube-apiserver, the kubelet and containerd, the
//! chart by real Helm.
//!
//! `make test-faults` runs every row of the matrix and writes `docs/faults.md`; `make torture RUNS=200 SEED=1` makes
//! changes with random faults at random moments. Both run in the network of the nodes (`testbed lan`).

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod act;
mod matrix;
mod moment;
mod node;
mod observer;
mod run;
mod table;
mod torture;

use std::process::ExitCode;

use clap::Parser;
use matrix::ROWS;
use run::Runner;

#[derive(clap::Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the rows of the matrix.
    List,
    /// Run the rows for as many nodes as the testbed has.
    Matrix {
        /// Only those that `make test` has.
        #[arg(long)]
        chosen: bool,
        /// Only those with this number.
        #[arg(long)]
        only: Vec<usize>,
        /// From this one on.
        #[arg(long, default_value_t = 0)]
        from: usize,
        /// Keep what was seen in this file (a JSON object a line), and write the table from all that it holds.
        #[arg(long)]
        results: Option<std::path::PathBuf>,
    },
    /// Write the table from results.
    Table { results: std::path::PathBuf, table: std::path::PathBuf },
    /// Random changes with random faults at random moments.
    Torture {
        #[arg(long, default_value_t = 10)]
        runs: u64,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::List => {
            for (number, row) in ROWS.iter().enumerate() {
                println!("{number:3}  {}", table::describe(row));
            }
        }
        Command::Matrix { chosen, only, from, results } => {
            let mut runner = Runner::connect();
            let count = runner.nodes.len();
            let rows = ROWS.iter().enumerate().filter(|(number, row)| {
                row.nodes == count
                    && (!chosen || row.is_chosen)
                    && *number >= from
                    && (only.is_empty() || only.contains(number))
            });
            let mut failed = 0;
            for (number, row) in rows {
                let result = runner.run(number, row);
                failed += usize::from(result.failure.is_some());
                if let Some(path) = &results {
                    table::add(path, &result);
                }
            }
            if failed > 0 {
                println!("{failed} rows did not end as they should");
                return ExitCode::FAILURE;
            }
        }
        Command::Table { results, table } => table::write(&results, &table),
        Command::Torture { runs, seed } => torture::torture(runs, seed),
    }
    ExitCode::SUCCESS
}
