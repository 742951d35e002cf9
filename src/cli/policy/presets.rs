//! `audit-operator policy presets`: the policies that come with the operator.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use serde::Serialize;

use super::Output;
use crate::api::{Level, Mode, Risk};
use crate::cli::print;
use audit_policy::{Coverage, Finding, Item, PresetPolicy, Severity, Shortfall, Terms, coverage, lint, load, presets};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Preset to print, with the reason for each rule. Without a name, all presets are listed.
    name: Option<String>,
    /// Show instead which items of the CIS benchmark, the NSA guide, the STIG and PCI DSS it meets, and with which
    /// rules. Each item is a set of requests that the policy decides about.
    #[arg(long, requires = "name")]
    coverage: bool,
    /// Form of the output.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// A contract: other programs read it.
#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    version: &'a str,
    rules: usize,
    about: String,
    /// Risks that a Setup must name in `policy.acknowledge`.
    acknowledge: Vec<Risk>,
    /// The highest level of a rule.
    level: Level,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<Vec<Item>>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let chosen = match &args.name {
        None => presets(),
        Some(name) => vec![named(name)?],
    };
    let mut out = String::new();
    if (args.output, &args.name) == (Output::Text, &None) {
        writeln!(out, "{:30} {:7} {:>5}  PURPOSE", "NAME", "VERSION", "RULES")?;
    }
    for preset in &chosen {
        match (args.output, &args.name) {
            (Output::Text, Some(_)) if args.coverage => out.push_str(&covered(preset)?),
            (Output::Text, Some(_)) => out.push_str(preset.text),
            (Output::Text, None) => {
                let name = preset.unversioned();
                let version = preset.name[name.len()..].trim_start_matches('-');
                writeln!(out, "{name:30} {version:7} {:5}  {}", preset.policy.rules.len(), preset.about())?;
                if !acknowledge(preset).is_empty() {
                    writeln!(out, "{:46}records Secrets: needs SecretsAboveMetadata in policy.acknowledge", "")?;
                }
            }
            (Output::Json, name) => {
                let record = Record {
                    name: preset.unversioned(),
                    version: preset.name,
                    rules: preset.policy.rules.len(),
                    about: format!("{}.", preset.about()),
                    acknowledge: acknowledge(preset),
                    level: preset.policy.rules.iter().map(|rule| rule.level).max().unwrap_or(Level::None),
                    policy: (name.is_some() && !args.coverage).then_some(preset.text),
                    coverage: args.coverage.then(|| coverage(&preset.policy)),
                };
                writeln!(out, "{}", serde_json::to_string(&record)?)?;
            }
        }
    }
    print(&out)?;
    Ok(ExitCode::SUCCESS)
}

/// Finds a preset by its name, with or without the version.
pub(super) fn named(name: &str) -> anyhow::Result<PresetPolicy> {
    let all = presets();
    let names: Vec<_> = all.iter().map(PresetPolicy::unversioned).collect();
    let found = all.into_iter().find(|preset| [preset.name, preset.unversioned()].contains(&name));
    found.with_context(|| format!("unknown preset {name:?}; known: {}", names.join(", ")))
}

fn acknowledge(preset: &PresetPolicy) -> Vec<Risk> {
    let terms = Terms { minor: 36, secrets_accepted: false, mode: Mode::Batch, floor: &[] };
    let is_risk = |finding: &Finding| finding.severity == Severity::Error && !finding.stops_start;
    let has_risk = lint(preset.text.as_bytes(), &terms).findings.iter().any(is_risk);
    if has_risk { vec![Risk::SecretsAboveMetadata] } else { Vec::new() }
}

/// Examples of requests that are recorded at a wrong level.
const FEW: usize = 3;

/// Each item with the rules that meet it, and the requests that are recorded at a wrong level.
fn covered(preset: &PresetPolicy) -> anyhow::Result<String> {
    let places = load(preset.text.as_bytes(), u32::MAX).places;
    let rule = |index: &usize| format!("rules[{index}] (line {})", places.of(&format!("rules[{index}]")).line);
    let mut out = format!("{}, {}\n", preset.name, preset.about());
    let mut standard = "";
    for item in coverage(&preset.policy) {
        if item.standard != standard {
            standard = item.standard;
            writeln!(out, "\n{standard}")?;
        }
        let outcome = match item.outcome {
            Coverage::Met => "met",
            Coverage::Partly => "partly",
            Coverage::NotMet => "not met",
        };
        writeln!(out, "  {outcome:8} {}: {}", item.id, item.title)?;
        if !item.rules.is_empty() {
            writeln!(out, "           by {}", item.rules.iter().map(rule).collect::<Vec<_>>().join(", "))?;
        }
        let mut short: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for Shortfall { user, method, url, least, most, level, rule: by } in &item.shortfalls {
            let asked = if level < least { format!("at least {least:?}") } else { format!("at most {most:?}") };
            let user = user.as_deref().unwrap_or("a user whose authentication failed");
            short.entry((by, *level, asked)).or_default().push(format!("{method} {url} by {user}"));
        }
        for ((by, level, asked), requests) in short {
            let by = by.as_ref().map(rule).unwrap_or_else(|| "no rule".into());
            let count = requests.len();
            writeln!(
                out,
                "           should be {asked}, but {by} has {level:?}, for {count} of {} requests:",
                item.requests
            )?;
            for request in requests.iter().take(FEW) {
                writeln!(out, "             {request}")?;
            }
            if count > FEW {
                writeln!(out, "             … (--output json has all)")?;
            }
        }
    }
    Ok(out)
}
