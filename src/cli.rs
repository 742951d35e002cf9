//! The command line: parses arguments, calls the parts, and turns an error into text and an exit status. It decides
//! nothing.
//!
//! Exit status: 0 = clean, 1 = findings, differences or a failed change, 2 = could not run.

use std::future::Future;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::controller;
use crate::node::{agent, guard};
use crate::receiver;
use crate::telemetry::{self, LogFormat};

mod apply;
mod crds;
mod excerpt;
mod input;
mod policy;
mod render;
mod status;

/// Manages the auditing of kube-apiserver on self-hosted control planes.
#[derive(Parser)]
#[command(name = "audit-operator", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of the log lines.
    #[arg(long, global = true, value_enum, default_value = "text", help_heading = "Logs (on standard error)")]
    log_format: LogFormat,
    /// Lowest level to log, or directives such as info,kube=debug.
    #[arg(
        long,
        global = true,
        default_value = "info",
        value_name = "FILTER",
        help_heading = "Logs (on standard error)"
    )]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// In the cluster: render AuditSetups, roll them out one node at a time, report.
    Controller(controller::Args),
    /// In the cluster: carry out the recorded change on this node, confirm it or roll it back.
    Guard(guard::Args),
    /// In the cluster: bring this node to the Revision that its NodeAudit assigns.
    Agent(agent::Args),
    /// Run a webhook target that writes one line per event.
    Receiver(receiver::Args),
    /// Apply an AuditSetup to this node without the operator. Rolls back if kube-apiserver does not start.
    Apply(apply::ApplyArgs),
    /// Restore the original manifest of this node.
    Restore(apply::RestoreArgs),
    /// Show the Revision that this node runs, and how its last change ended.
    Status(status::Args),
    /// Print the CRDs, or write them to a directory.
    Crds(crds::Args),
    /// Show the files, the flags and the manifest that an AuditSetup gives, without a cluster.
    Render(render::Args),
    /// Check, explain and compare audit policies as kube-apiserver reads them, without a cluster.
    Policy(policy::Args),
}

/// Parses the command line and runs what it names.
pub fn main() -> ExitCode {
    // clap ends with 2 for bad usage and 0 for help by itself.
    let cli = Cli::parse();
    let outcome = telemetry::log::init(cli.log_format, &cli.log).context("--log").and_then(|()| match cli.command {
        Command::Controller(args) => program(async |stop| controller::run(args, stop).await),
        Command::Guard(args) => program(async |stop| guard::run(args, stop).await),
        Command::Agent(args) => program(async |stop| agent::run(args, stop).await),
        Command::Receiver(args) => {
            program(async |stop| receiver::run(args, |address| tracing::info!(%address, "listening"), stop).await)
        }
        Command::Apply(args) => tenacious(async |stop| apply::apply(&args, stop).await),
        Command::Restore(args) => tenacious(async |stop| apply::restore(&args, stop).await),
        Command::Status(args) => status::run(&args),
        Command::Crds(args) => crds::run(&args),
        Command::Render(args) => render::run(&args),
        Command::Policy(args) => policy::run(&args),
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            say(&format!("audit-operator: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Runs a program of the cluster until a signal stops it.
fn program<E, F>(run: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    E: std::error::Error + Send + Sync + 'static,
    F: Future<Output = Result<(), E>>,
{
    interruptible(async |stop| {
        run(stop).await?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Runs with a token that SIGTERM or SIGINT cancels.
fn interruptible<F>(run: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    with_signals(run, async |mut interrupts, stop| {
        interrupts.next().await;
        stop.cancel();
    })
}

/// Runs with a token that only the second SIGTERM or SIGINT cancels; SIGHUP does nothing. Only this process watches its
/// change: a terminal that closes must not leave a node with a change that nobody rolls back.
fn tenacious<F>(run: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    with_signals(run, async |mut interrupts, stop| {
        // Holds the signal for as long as the process lives.
        let _hangup = signal(SignalKind::hangup());
        interrupts.next().await;
        say("Still watching the change until it is confirmed or rolled back. Interrupt again to leave it unwatched.");
        interrupts.next().await;
        stop.cancel();
        std::future::pending::<()>().await;
    })
}

/// SIGTERM and SIGINT.
struct Interrupts {
    terminate: Signal,
    interrupt: Signal,
}

impl Interrupts {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn with_signals<F, G>(
    run: impl FnOnce(CancellationToken) -> F,
    listen: impl FnOnce(Interrupts, CancellationToken) -> G,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
    G: Future<Output = ()>,
{
    // One thread is plenty for every program of ours, and keeps the memory small.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let interrupts = Interrupts {
            terminate: signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?,
        };
        let (listening, running) = (listen(interrupts, stop.clone()), run(stop));
        tokio::pin!(listening, running);
        tokio::select! {
            biased;
            () = &mut listening => running.await,
            done = &mut running => done,
        }
    })
}

/// Prints a message on standard error. A closed terminal is no error.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Writes a result to standard output. A reader that has closed the pipe wants no more: no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // EIO: the terminal is gone.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(5) => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}
