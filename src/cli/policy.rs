//! `audit-operator policy …`: what kube-apiserver makes of a policy file and of requests. Needs no cluster.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;

use audit_policy::{Finding, MAX_BYTES, Places, Policy, load};

mod diff;
mod eval;
mod explain;
mod lines;
mod lint;
mod log;
mod presets;
mod replay;
mod request;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Tell whether kube-apiserver would start with a policy file, and what it would do with it that is hardly meant.
    Lint(lint::Args),
    /// Decide about requests as kube-apiserver would: level, omitted stages, and the rule that decides.
    Eval(eval::Args),
    /// Tell which rule decides about a request, and why those before it do not.
    Explain(explain::Args),
    /// Tell what kube-apiserver makes of requests: the attributes that rules are compared with.
    ///
    /// Reads requests from standard input, one JSON object a line: {"method": "GET", "url": "/api/v1/pods?watch=true"}.
    Request(request::Args),
    /// Tell what a policy would have kept of the events of a log, and what that costs.
    ///
    /// Give the logs of one API server at a time: the rotation of a log and the queue of a webhook are for each. Exit status 1
    /// where lines of a log are damaged.
    Replay(replay::Args),
    /// Tell which requests are recorded differently under another policy, and how.
    ///
    /// Without a log, requests made of the words of both policies are compared. Exit status 1 where there is a difference, or
    /// where lines of a log are damaged.
    Diff(diff::Args),
    /// List the policies that come with the operator, or print one.
    Presets(presets::Args),
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Lint(args) => lint::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Request(args) => request::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Presets(args) => presets::run(args),
    }
}

/// A version whose rules are known here.
fn policy_minor(text: &str) -> Result<u32, String> {
    match super::input::kubernetes_minor(text)? {
        minor @ 26..=37 => Ok(minor),
        _ => Err("a version from 1.26 to 1.37".into()),
    }
}

/// Whether a path stands for standard input.
fn is_stdin(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin")
}

/// The policy of a file, as kube-apiserver of a version holds it.
fn held(path: &Path, minor: u32) -> anyhow::Result<Policy> {
    let (policy, _) = loaded(&path.display().to_string(), &read_policy(path)?, minor)?;
    Ok(policy)
}

/// A policy that kube-apiserver starts with. What it would complain about goes to standard error.
fn loaded(name: &str, text: &[u8], minor: u32) -> anyhow::Result<(Policy, Places)> {
    let held = load(text, minor);
    for finding in &held.findings {
        let Finding { severity, place, message, .. } = finding;
        eprintln!("{name}:{}:{}: {}: {message}", place.line, place.column, severity.as_str());
    }
    match held.policy {
        Some(policy) => Ok((policy, held.places)),
        None => bail!("kube-apiserver 1.{minor} would not start with {name}"),
    }
}

/// The lines of a policy, ended as YAML 1.1 has it.
fn lines_of(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let is_break = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.trim_start_matches('\u{feff}').split(is_break).map(str::to_string).collect()
}

/// A regular file or standard input, up to the size of any policy.
fn read_policy(path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let mut text = Vec::new();
    let limit = MAX_BYTES as u64 + 1;
    if is_stdin(path) {
        std::io::stdin().take(limit).read_to_end(&mut text).context("cannot read standard input")?;
    } else {
        open_regular(path)?.take(limit).read_to_end(&mut text).with_context(|| format!("cannot read {shown}"))?;
    }
    if text.len() > MAX_BYTES {
        bail!("{shown} is larger than {} MiB: no policy is that long", MAX_BYTES >> 20);
    }
    Ok(text)
}

/// Opens a regular file; a FIFO would keep us waiting for its writer, a device never end.
fn open_regular(path: &Path) -> anyhow::Result<File> {
    let shown = path.display();
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).context("a flag of open(2) fits")?;
    let opened = OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let file = opened.with_context(|| format!("cannot read {shown}"))?;
    let kind = file.metadata().with_context(|| format!("cannot read {shown}"))?.file_type();
    if kind.is_dir() {
        bail!("cannot read {shown}: it is a directory");
    }
    if !kind.is_file() {
        bail!("cannot read {shown}: it is no regular file");
    }
    Ok(file)
}
