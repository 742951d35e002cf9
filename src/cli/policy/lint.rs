//! `audit-operator policy lint`: findings in policy files, and `--fix` for the safe corrections.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::Serialize;
use similar::TextDiff;

use super::{is_stdin, lines_of, policy_minor, read_policy};
use crate::api::{Mode, Risk};
use crate::cli::excerpt::visible;
use crate::cli::print;
use crate::floor::Floor;
use crate::node::files::Host;
use audit_policy::{Declined, Finding, Fixed, Linted, Severity, Terms};

mod sarif;
mod text;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Policy files; - is standard input.
    #[arg(value_name = "FILE", required_unless_present = "explain")]
    files: Vec<PathBuf>,
    /// Version of kube-apiserver that loads the files: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// A risk that you accept, as in `policy.acknowledge` of an AuditSetup. Can be given several times.
    #[arg(long, value_enum, value_name = "RISK")]
    acknowledge: Vec<Risk>,
    /// File with the floor of the cluster, from the ConfigMap audit-operator-floor: also report rules that go below it.
    /// It decides which risks can be acknowledged.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// How kube-apiserver delivers the events. More can go wrong in the blocking modes.
    #[arg(long, value_name = "MODE", default_value = "batch", value_parser = mode())]
    mode: Mode,
    /// Form of the findings. JSON: one object per file, {"valid": bool, "findings": [...]}; valid means that
    /// kube-apiserver starts with the file. SARIF: one log for all files.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
    /// Apply the safe corrections to the files and show them. A file is written as a whole or not at all, and only if
    /// kube-apiserver then starts with it. Corrections that would leave another rule without requests, or record
    /// credentials, are shown but not applied.
    #[arg(long)]
    fix: bool,
    /// Explain a finding by its id: its meaning, why it matters and what to do.
    #[arg(long, value_name = "ID", conflicts_with_all = ["files", "fix", "output"])]
    explain: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
enum Output {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

impl ValueEnum for Risk {
    fn value_variants<'a>() -> &'a [Self] {
        &[Risk::SecretsAboveMetadata]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Risk::SecretsAboveMetadata => Some(PossibleValue::new("SecretsAboveMetadata")),
            // Findings of the sinks, not of the policy.
            Risk::BlockingWebhook | Risk::BlockingStrictLog | Risk::UnboundedLog => None,
        }
    }
}

fn mode() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::as_flag)).map(|flag| {
        Mode::ALL.into_iter().find(|mode| mode.as_flag() == flag).expect("it is one of the possible values")
    })
}

/// A contract: other programs read it.
#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    findings: &'a [Finding],
    /// Corrections that `--fix` has applied, and those that it has not, because each would cause another finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declined: Option<&'a [Declined]>,
    file: String,
}

/// Exit status 1 if there is an error or a warning; 2 if a file cannot be read or written, after all others were
/// checked.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(id) = &args.explain {
        let Some(stanza) = audit_policy::stanza(id) else {
            let ids: Vec<&str> = audit_policy::STANZAS.iter().map(|stanza| stanza.id).collect();
            bail!("unknown finding {id:?}; known: {}", ids.join(", "));
        };
        print(&audit_policy::manual(stanza))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.files.iter().filter(|path| is_stdin(path)).count() > 1 {
        bail!("standard input (-) can be given only once");
    }
    let mut is_clean = true;
    let mut failed = None;
    let mut fail = |error: anyhow::Error| {
        if let Some(earlier) = failed.replace(error) {
            eprintln!("audit-operator: {earlier:#}");
        }
    };
    let mut of_all: Vec<(String, Finding)> = Vec::new();
    let floor = args.floor.as_deref().map(|file| Floor::load(Some(file))).transpose()?;
    let acknowledged = floor.as_ref().map_or(args.acknowledge.clone(), |floor| floor.granted(&args.acknowledge));
    let terms = Terms {
        minor: args.kubernetes_version,
        secrets_accepted: acknowledged.contains(&Risk::SecretsAboveMetadata),
        mode: args.mode,
        floor: floor.as_ref().map_or(&[], |floor| &floor.rules),
    };
    for path in &args.files {
        let mut bytes = match read_policy(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                fail(error);
                continue;
            }
        };
        let fixed = if args.fix { fix(path, &bytes, &terms) } else { Ok(Fixed::default()) };
        let fixed = fixed.unwrap_or_else(|error| {
            fail(error);
            Fixed::default()
        });
        let mut shown = String::new();
        if args.output == Output::Text {
            changes(&mut shown, path, &bytes, &fixed);
        }
        let Fixed { text, applied, declined } = fixed;
        bytes = text.unwrap_or(bytes);
        let linted = audit_policy::lint(&bytes, &terms);
        is_clean &= linted.findings.iter().all(|finding| finding.severity == Severity::Info);
        let file = path.display().to_string();
        match args.output {
            Output::Sarif => of_all.extend(linted.findings.into_iter().map(|finding| (file.clone(), finding))),
            Output::Json => {
                let (fixed, declined) = (args.fix.then_some(&*applied), args.fix.then_some(&*declined));
                let valid = linted.policy.is_some();
                let report = Report { valid, findings: &linted.findings, fixed, declined, file };
                print(&format!("{}\n", serde_json::to_string(&report)?))?;
            }
            Output::Text => {
                show(&mut shown, &file, &bytes, &linted, args.kubernetes_version);
                print(&shown)?;
            }
        }
    }
    if args.output == Output::Sarif {
        print(&format!("{:#}\n", sarif::log(&of_all)))?;
    }
    match failed {
        Some(error) => Err(error),
        None if is_clean => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(1)),
    }
}

/// Corrects a file, or leaves it as it is.
fn fix(path: &Path, bytes: &[u8], terms: &Terms) -> anyhow::Result<Fixed> {
    let shown = path.display();
    if is_stdin(path) {
        bail!("--fix needs a file: it cannot correct standard input");
    }
    let fixed = audit_policy::fix(bytes, terms).with_context(|| format!("{shown} was not changed"))?;
    if let Some(text) = &fixed.text {
        // By its real name, so that a link to a file stays one.
        let real = path.canonicalize().with_context(|| format!("cannot find {shown}"))?;
        let name =
            real.file_name().and_then(|name| name.to_str()).with_context(|| format!("{shown} has no name in UTF-8"))?;
        let directory = real.parent().context("a file is in a directory")?;
        Host::open(directory)?.replace(name, text, 0o600)?;
    }
    Ok(fixed)
}

/// Applied corrections with their reason, and those that were left out.
fn changes(out: &mut String, path: &Path, old: &[u8], fixed: &Fixed) {
    let mut report = |what: &str, finding: &Finding, more: String| {
        let Finding { id, message, place, .. } = finding;
        writeln!(out, "{what}[{id}]: {}:{}:{}: {}{more}", path.display(), place.line, place.column, visible(message))
            .expect("a String takes everything");
    };
    for finding in &fixed.applied {
        report("fixed", finding, String::new());
    }
    for Declined { finding, would_bring: Finding { id, path, message, .. } } in &fixed.declined {
        report("not fixed", finding, format!("; the correction would cause {id} at {path}: {}", visible(message)));
    }
    if let Some(new) = &fixed.text {
        let (old, new) = (String::from_utf8_lossy(old), String::from_utf8_lossy(new));
        let diff = TextDiff::from_lines(old.as_ref(), new.as_ref()).unified_diff().context_radius(1).to_string();
        writeln!(out, "\n{diff}").expect("a String takes everything");
    } else if !fixed.declined.is_empty() {
        out.push('\n');
    }
}

fn show(out: &mut String, file: &str, bytes: &[u8], linted: &Linted, version: u32) {
    let lines = lines_of(bytes);
    let view = text::View { file, lines: &lines, is_coloured: std::io::stdout().is_terminal() };
    for finding in &linted.findings {
        view.show(out, finding);
    }
    let count = |severity, one: &str| {
        let count = linted.findings.iter().filter(|finding| finding.severity == severity).count();
        (count > 0).then(|| format!("{count} {one}{}", if count == 1 { "" } else { "s" }))
    };
    let counts = [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Info, "info")];
    let counts: Vec<String> = counts.into_iter().filter_map(|(severity, one)| count(severity, one)).collect();
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let outcome = if linted.policy.is_some() { "starts" } else { "does not start" };
    writeln!(out, "{file}: kube-apiserver 1.{version} {outcome} with it{counts}").expect("a String takes everything");
}
