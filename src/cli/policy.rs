//! `audit-operator policy …`: policy files and requests as kube-apiserver reads them. Needs no cluster.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Subcommand;

use audit_policy::{Finding, MAX_BYTES, Places, Policy, load};

use crate::validate::KubernetesVersion;

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
    /// Check whether kube-apiserver starts with a policy file, and point out rules that probably do not do what you
    /// intended.
    ///
    /// Exits with 1 if there is an error or a warning.
    Lint(lint::Args),
    /// Decide about requests as kube-apiserver does: level, omitted stages and the deciding rule.
    Eval(eval::Args),
    /// Explain which rule decides about a request, and why the rules before it do not match.
    Explain(explain::Args),
    /// Show the attributes that kube-apiserver derives from requests and compares with rules.
    ///
    /// Reads requests from standard input, one JSON object per line: {"method": "GET", "url":
    /// "/api/v1/pods?watch=true"}.
    Request(request::Args),
    /// Show which events of a log a policy would have kept, and what they cost.
    ///
    /// Give the logs of one API server at a time: each has its own log rotation and its own webhook queue. Exits with 1
    /// if lines of a log are damaged.
    Replay(replay::Args),
    /// Show which requests another policy records differently, and how.
    ///
    /// Without a log, compares generated requests, made of the names in both policies. Exits with 1 if there is a
    /// difference or lines of a log are damaged.
    Diff(diff::Args),
    /// List the policies that come with the operator, or print one.
    Presets(presets::Args),
}

#[derive(clap::ValueEnum, Clone, Copy, PartialEq)]
enum Output {
    /// For people.
    Text,
    /// One JSON object per line.
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

/// A version whose rules this program knows.
fn policy_minor(text: &str) -> Result<u32, String> {
    match text.parse::<KubernetesVersion>().map_err(|error| error.to_string())?.minor() {
        minor @ 26..=37 => Ok(minor),
        _ => Err("give a version from 1.26 to 1.37".into()),
    }
}

/// Whether a path means standard input.
fn is_stdin(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdin")
}

/// The policy of a file, as kube-apiserver of a version loads it.
fn load_file(path: &Path, minor: u32) -> anyhow::Result<Policy> {
    let (policy, _) = load_text(&path.display().to_string(), &read_policy(path)?, minor)?;
    Ok(policy)
}

/// A policy that kube-apiserver starts with, and its places. Prints kube-apiserver's complaints on standard error.
fn load_text(name: &str, text: &[u8], minor: u32) -> anyhow::Result<(Policy, Places)> {
    let loaded = load(text, minor);
    for finding in &loaded.findings {
        let Finding { severity, place, message, .. } = finding;
        eprintln!("{name}:{}:{}: {}: {message}", place.line, place.column, severity.as_str());
    }
    match loaded.policy {
        Some(policy) => Ok((policy, loaded.places)),
        None => bail!("kube-apiserver 1.{minor} would not start with {name}"),
    }
}

/// The lines of a policy, with the line ends of YAML 1.1.
fn lines_of(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n");
    let is_break = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
    text.trim_start_matches('\u{feff}').split(is_break).map(str::to_string).collect()
}

/// Reads a regular file or standard input, at most [`MAX_BYTES`].
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
        bail!("{shown} is larger than {} MiB, so it is not a policy", MAX_BYTES >> 20);
    }
    Ok(text)
}

/// Opens a regular file: a FIFO would block until somebody writes to it, and a device may never end.
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
        bail!("cannot read {shown}: it is not a regular file");
    }
    Ok(file)
}
