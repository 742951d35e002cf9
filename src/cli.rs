//! The command line: parses arguments, calls the parts, turns an error into text and an exit status. Nothing is decided here.
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
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value = "text", help_heading = "Logs (on standard error)")]
    log_format: LogFormat,
    /// Level, or directives as info,kube=debug.
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
    /// In the cluster: render Setups, roll them out node by node, report.
    Controller(controller::Args),
    /// In the cluster: carry a change out on this node, then remove itself.
    Guard(guard::Args),
    /// In the cluster: bring this node to what its NodeAudit asks for.
    Agent(agent::Args),
    /// A webhook target that writes a line per event.
    Receiver(receiver::Args),
    /// Bring this node to what a Setup says, without a cluster; take it back if kube-apiserver does not come up.
    Apply(apply::ApplyArgs),
    /// Give this node its original manifest back.
    Restore(apply::RestoreArgs),
    /// Show what this node runs and what became of the last change.
    Status(status::Args),
    /// Print the CRDs, or write them into a directory.
    Crds(crds::Args),
    /// Show what a Setup comes to, without a cluster: the files, the flags and the manifest.
    Render(render::Args),
    /// What kube-apiserver makes of audit policies and requests, without a cluster.
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

/// Runs a program of the cluster until it is asked to end.
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

/// Runs with a token that only the second SIGTERM or SIGINT cancels; SIGHUP does nothing. A change that is under way is watched by
/// this process and by nobody else: the end of a terminal must not leave a node with what nobody takes back.
fn tenacious<F>(run: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    with_signals(run, async |mut interrupts, stop| {
        // Holds the signal for as long as the process lives.
        let _hangup = signal(SignalKind::hangup());
        interrupts.next().await;
        say(
            "A change that has begun is watched until it is confirmed or taken back. Interrupt again to leave it unwatched.",
        );
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

/// Tells a person something, on standard error. A terminal that has gone away ends nothing.
fn say(text: &str) {
    drop(writeln!(std::io::stderr(), "{text}"));
}

/// Writes a result to standard output. A reader that has gone away has what it wanted.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // EIO: the terminal is gone.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(5) => Ok(()),
        done => done.context("cannot write to standard output"),
    }
}
