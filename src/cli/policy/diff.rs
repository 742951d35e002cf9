//! `audit-operator policy diff`: the differences between two policies.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::replay::{amount, damage};
use super::{Output, is_stdin, load_file, log, policy_minor};
use crate::cli::excerpt::visible;
use crate::cli::print;
use audit_policy::Evaluator;
use audit_policy::diff::{Change, Comparison, Differences, Example, Outcome, generated};
use audit_policy::replay::{DamageReport, Damages};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The present policy; - is standard input.
    old: PathBuf,
    /// The new policy.
    new: PathBuf,
    #[command(flatten)]
    log: log::Logs,
    /// Version of kube-apiserver that loads the policies: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// Form of the result: text, or one JSON document.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// A contract: other programs read it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    /// Whether the requests were generated, because there is no log.
    generated: bool,
    /// False if not all combinations were tried.
    complete: bool,
    events: u64,
    requests: u64,
    changes: Vec<ChangeRecord<'a>>,
    damaged: u64,
    damage: &'a [DamageReport],
}

#[derive(Serialize)]
struct ChangeRecord<'a> {
    old: &'a Outcome,
    new: &'a Outcome,
    #[serde(flatten)]
    change: &'a Change,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let inputs = [&args.old, &args.new].into_iter().chain(&args.log.logs);
    if inputs.filter(|path| is_stdin(path)).count() > 1 {
        bail!("standard input (-) can be given only once");
    }
    let old = load_file(&args.old, args.kubernetes_version)?;
    let new = load_file(&args.new, args.kubernetes_version)?;
    let is_generated = args.log.logs.is_empty();
    let (differences, damages) = if is_generated {
        (generated(&old, &new), Damages::default())
    } else {
        let (old, new) = (Evaluator::new(&old), Evaluator::new(&new));
        let compare = || Comparison::new(&old, &new);
        let (compared, damages) =
            log::read(&args.log, compare, |comparison, line, damaged| comparison.line(line, damaged))?;
        let mut all = Differences { is_complete: true, ..Differences::default() };
        compared.into_iter().for_each(|comparison| all.merge(comparison.into_differences()));
        (all, damages)
    };
    print(&match args.output {
        Output::Json => {
            let changes = differences.changes.iter().map(|((old, new), change)| ChangeRecord { old, new, change });
            let record = Record {
                generated: is_generated,
                complete: differences.is_complete,
                events: differences.events,
                requests: differences.requests,
                changes: changes.collect(),
                damaged: damages.count,
                damage: &damages.first,
            };
            serde_json::to_string(&record)? + "\n"
        }
        Output::Text => text(args, &differences, &damages)?,
    })?;
    Ok(ExitCode::from(u8::from(!differences.changes.is_empty() || damages.count > 0)))
}

/// For people, the changes with the most events first.
fn text(args: &Args, differences: &Differences, damages: &Damages) -> anyhow::Result<String> {
    let mut out = String::new();
    let is_generated = args.log.logs.is_empty();
    let concerned = |events: u64, requests: u64| {
        if is_generated {
            format!("{} of request", amount(requests, "kind"))
        } else {
            format!("{}, {}", amount(events, "event"), amount(requests, "request"))
        }
    };
    let mut changes: Vec<_> = differences.changes.iter().collect();
    changes.sort_by_key(|(_, change)| std::cmp::Reverse((change.events, change.requests)));
    for ((old, new), change) in changes {
        writeln!(out, "{} -> {}: {}", outcome(old), outcome(new), concerned(change.events, change.requests))?;
        for example in &change.examples {
            writeln!(out, "    {}", command(&args.new.display().to_string(), example))?;
        }
    }
    let all = concerned(differences.events, differences.requests);
    if !differences.changes.is_empty() {
        writeln!(out, "\nTotal compared: {all}.")?;
    } else if !is_generated && differences.events == 0 {
        writeln!(out, "The log has no events: nothing was compared.")?;
    } else {
        writeln!(out, "No difference in {all}.")?;
    }
    if is_generated {
        writeln!(
            out,
            "The requests were generated from the names in both policies. Give a log to compare real requests."
        )?;
    }
    if !differences.is_complete {
        writeln!(out, "NOT ALL requests were tried: the policies have too many names. There may be more differences.")?;
    }
    damage(&mut out, damages);
    Ok(out)
}

fn outcome(outcome: &Outcome) -> String {
    let mut text = match outcome.rule {
        Some(rule) => format!("rule {rule} {:?}", outcome.level),
        None => "no rule".to_string(),
    };
    if !outcome.omit_stages.is_empty() {
        let stages: Vec<String> = outcome.omit_stages.iter().map(|stage| format!("{stage:?}")).collect();
        text.push_str(&format!(" without {}", stages.join(" and ")));
    }
    if outcome.omit_managed_fields {
        text.push_str(" without managed fields");
    }
    text
}

/// The command that explains an example.
fn command(policy: &str, example: &Example) -> String {
    let mut command = format!("audit-operator policy explain --policy {}", quoted(policy));
    if let Some(user) = &example.user {
        command.push_str(&format!(" --as {}", quoted(&user.name)));
        for group in &user.groups {
            command.push_str(&format!(" --as-group {}", quoted(group)));
        }
    }
    format!("{command} {} {}", quoted(&example.method), quoted(&example.url))
}

/// For a shell.
fn quoted(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._/:@%+,".contains(&b);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_string();
    }
    format!("'{}'", visible(text).replace('\'', r"'\''"))
}
