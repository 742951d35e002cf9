//! The command line: parses arguments, calls the parts, turns an error into text and an exit status. Nothing is decided here.
//!
//! Exit status: 0 = clean, 1 = findings, differences or a failed change, 2 = could not run.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

mod crds;
mod input;
mod render;

/// Manages the auditing of kube-apiserver on self-hosted control planes.
#[derive(Parser)]
#[command(name = "audit-operator", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the CRDs, or write them into a directory.
    Crds(crds::Args),
    /// Show what a Setup comes to, without a cluster: the files, the flags and the manifest.
    Render(render::Args),
}

/// Parses the command line and runs what it names.
pub fn main() -> ExitCode {
    // clap ends with 2 for bad usage and 0 for help by itself.
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Crds(args) => crds::run(&args),
        Command::Render(args) => render::run(&args),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("audit-operator: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Writes a result to standard output. A reader that has gone away has what it wanted.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}
