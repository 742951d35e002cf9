//! Sinks that break on the real control plane of the testbed, and how they are reported.
//!
//! `make test-sink-breaks` runs every row of the matrix and writes `docs/sink-breaks.md`. `make test-quiet` watches an
//! idle cluster for an hour and fails with each false alarm. `make test-loss` compares the number of events that are
//! reported as lost with those that a receiver has missed. All run in the network of the nodes (`testbed lan`), on one
//! node.

#![allow(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod act;
mod loss;
mod matrix;
mod misbehaving;
mod quiet;
mod run;
mod status;
mod table;

use std::path::PathBuf;
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
    /// Run the rows.
    Matrix {
        /// Only those with this number.
        #[arg(long)]
        only: Vec<usize>,
        /// From this one on.
        #[arg(long, default_value_t = 0)]
        from: usize,
        /// Up to this one, exclusively.
        #[arg(long, default_value_t = ROWS.len())]
        to: usize,
        /// Keep what was seen in this file (a JSON object a line).
        #[arg(long)]
        results: Option<PathBuf>,
    },
    /// Write the table from results.
    Table { results: PathBuf, table: PathBuf },
    /// Look for false alarms: in a rollout, when the receiver restarts, and on an idle cluster.
    Quiet {
        #[arg(long, default_value_t = 60)]
        minutes: u64,
    },
    /// Stop the receiver under load, and compare the reported loss with the events that it has missed.
    Loss {
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Requests a second.
        #[arg(long, default_value_t = 75)]
        rate: u32,
        /// Kill kube-apiserver in the middle.
        #[arg(long)]
        restart: bool,
    },
}

fn main() -> ExitCode {
    let is_passed = match Args::parse().command {
        Command::List => {
            for (number, row) in ROWS.iter().enumerate() {
                println!("{number:3}  {}: {}", table::describe(row), row.reason);
            }
            true
        }
        Command::Matrix { only, from, to, results } => {
            let mut runner = Runner::connect();
            let is_chosen = |number: &usize| (from..to).contains(number) && (only.is_empty() || only.contains(number));
            let mut failed = 0;
            for (_, row) in ROWS.iter().enumerate().filter(|(number, _)| is_chosen(number)) {
                let outcome = runner.run(row);
                failed += usize::from(outcome.failure.is_some());
                if let Some(path) = &results {
                    table::add(path, &outcome);
                }
            }
            println!("{failed} rows failed");
            failed == 0
        }
        Command::Table { results, table } => {
            table::write(&results, &table);
            true
        }
        Command::Quiet { minutes } => quiet::quiet(minutes),
        Command::Loss { minutes, rate, restart } => loss::loss(minutes, rate, restart),
    };
    if is_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
