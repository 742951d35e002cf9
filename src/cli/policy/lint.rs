//! `audit-operator policy lint`: what is wrong with policy files, and `--fix` for what is certain.

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
    /// Version of kube-apiserver that would load them: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// A risk that is taken knowingly, as in `policy.acknowledge` of an AuditSetup.
    #[arg(long, value_enum, value_name = "RISK")]
    acknowledge: Vec<Risk>,
    /// The floor of the cluster that the policy is for, as in the ConfigMap audit-operator-floor: report what it would refuse. It also
    /// decides which risks can be acknowledged.
    #[arg(long, value_name = "FILE")]
    floor: Option<PathBuf>,
    /// How the events are delivered. The blocking modes have more that can go wrong.
    #[arg(long, value_name = "MODE", default_value = "batch", value_parser = mode())]
    mode: Mode,
    /// Form of the findings. As JSON there is one object a file: {"valid": bool, "findings": [...]}, where valid means that
    /// kube-apiserver would start with it. As SARIF there is one log of all files.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
    /// Correct in the files what is certain, and show it. A file is written whole or not at all, and only if kube-apiserver
    /// starts with it then; what would leave other rules without requests, or record credentials, is told and not corrected.
    #[arg(long)]
    fix: bool,
    /// Print what a finding means, why it matters and what to do, by its id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["files", "fix", "output"])]
    explain: Option<String>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq)]
enum Output {
    /// For people.
    Text,
    /// One JSON object a line.
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
            // Told from the sinks, not from the policy.
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
    /// What `--fix` has corrected, and what not for what it would have brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a [Finding]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    declined: Option<&'a [Declined]>,
    file: String,
}

/// Exit status 1 where there is an error or a warning; 2 where a file cannot be read or written, after the others were looked at.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(id) = &args.explain {
        let Some(stanza) = audit_policy::stanza(id) else {
            let ids: Vec<&str> = audit_policy::STANZAS.iter().map(|stanza| stanza.id).collect();
            bail!("there is no finding {id:?}; there are: {}", ids.join(", "));
        };
        print(&audit_policy::manual(stanza))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.files.iter().filter(|path| is_stdin(path)).count() > 1 {
        bail!("standard input can be read once only");
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
        bail!("--fix corrects files, and not standard input");
    }
    let fixed = audit_policy::fix(bytes, terms).with_context(|| format!("{shown} was left as it is"))?;
    if let Some(text) = &fixed.text {
        // By its real name, so that a link to a file stays one.
        let real = path.canonicalize().with_context(|| format!("cannot find {shown}"))?;
        let name =
            real.file_name().and_then(|name| name.to_str()).with_context(|| format!("{shown} has no name in UTF-8"))?;
        let directory = real.parent().context("a file lies in a directory")?;
        Host::open(directory)?.replace(name, text, 0o600)?;
    }
    Ok(fixed)
}

/// What was corrected, and why; and what was not.
fn changes(out: &mut String, path: &Path, old: &[u8], fixed: &Fixed) {
    let mut told = |what: &str, finding: &Finding, more: String| {
        let Finding { id, message, place, .. } = finding;
        writeln!(out, "{what}[{id}]: {}:{}:{}: {}{more}", path.display(), place.line, place.column, visible(message))
            .expect("a String takes everything");
    };
    for finding in &fixed.applied {
        told("fixed", finding, String::new());
    }
    for Declined { finding, would_bring: Finding { id, path, message, .. } } in &fixed.declined {
        told(
            "not fixed",
            finding,
            format!("; with the correction there would be {id} at {path}: {}", visible(message)),
        );
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
    let outcome = if linted.policy.is_some() { "starts" } else { "would not start" };
    writeln!(out, "{file}: kube-apiserver 1.{version} {outcome} with it{counts}").expect("a String takes everything");
}
