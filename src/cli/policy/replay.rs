//! `audit-operator policy replay`: the events of a log that a policy would have kept.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use super::{Output, is_stdin, load_file, log, policy_minor, presets};
use crate::cli::excerpt::visible;
use crate::cli::print;
use audit_policy::Evaluator;
use audit_policy::replay::{Basis, Batching, Damages, Noise, Replay, Report, Rotation, Rule, Tally};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The policy file; - is standard input.
    #[arg(long, value_name = "FILE", required_unless_present = "preset")]
    policy: Option<PathBuf>,
    /// A policy that comes with the operator, instead of a file; see `policy presets`.
    #[arg(long, value_name = "NAME", conflicts_with = "policy")]
    preset: Option<String>,
    #[command(flatten)]
    log: log::Logs,
    /// Size in MiB at which the log file is rotated.
    #[arg(long, value_name = "MIB", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_048_576))]
    max_size: u64,
    /// Number of rotated files that are kept; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    max_backups: u64,
    /// Number of users, resources and verbs to show: those with the most bytes.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Version of kube-apiserver that loads the policy: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// Form of the result: tables, or one JSON document.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.log.logs.is_empty() {
        bail!("name a log; - is standard input");
    }
    if args.policy.as_deref().is_some_and(is_stdin) && args.log.logs.iter().any(|log| is_stdin(log)) {
        bail!("--policy and a log cannot both be standard input");
    }
    let (name, policy) = match (&args.policy, &args.preset) {
        (Some(path), _) => (path.display().to_string(), load_file(path, args.kubernetes_version)?),
        (None, name) => {
            let preset = presets::named(name.as_deref().unwrap_or_default())?;
            (preset.name.to_string(), preset.policy)
        }
    };
    let evaluator = Evaluator::new(&policy);
    let replay = || Replay::new(&evaluator, policy.rules.len());
    let (counted, damages) = log::read(&args.log, replay, |replay, line, damaged| replay.line(line, damaged))?;
    let mut tally = Tally::new(policy.rules.len());
    counted.into_iter().for_each(|replay| tally.merge(replay.into_tally()));
    let rotation = Rotation { max_size_megabytes: args.max_size, max_backups: args.max_backups };
    let basis = Basis { rotation, batching: Batching::default(), top: args.top };
    let report = Report::new(tally, &policy, &basis, damages);
    print(&match args.output {
        Output::Json => serde_json::to_string(&report)? + "\n",
        Output::Text => text(&name, &report)?,
    })?;
    Ok(ExitCode::from(u8::from(report.damaged > 0)))
}

/// For people.
fn text(name: &str, report: &Report) -> anyhow::Result<String> {
    let Report { log, kept, rotation, sink, .. } = report;
    let mut out = String::new();
    if log.events == 0 {
        out.push_str("The log has no events.\n");
        damage(&mut out, &Damages { count: report.damaged, first: report.damage.clone() });
        return Ok(out);
    }
    write!(out, "The log: {}, {}", amount(log.events, "event"), bytes(log.bytes as f64))?;
    match (&log.from, &log.to, log.seconds) {
        (Some(from), Some(to), Some(seconds)) => {
            writeln!(out, ", {from} to {to} ({})", hours(seconds as f64 / 3_600.0))?;
        }
        _ => writeln!(out, ", over an unknown period")?,
    }
    let at_least = if kept.at_least { "at least " } else { "" };
    write!(
        out,
        "{name} keeps {} of them ({}): {at_least}{}",
        count(kept.events),
        percent(kept.share_of_events),
        bytes(kept.bytes as f64)
    )?;
    if let (Some(events), Some(day)) = (kept.events_per_second, kept.bytes_per_day) {
        write!(out, ", {} events/s, {at_least}{} a day", rate(events), bytes(day))?;
    }
    out.push_str("\n\n");
    rules(&mut out, &report.rules);
    for (what, noise) in
        [("USERS", &report.top.users), ("RESOURCES", &report.top.resources), ("VERBS", &report.top.verbs)]
    {
        top(&mut out, what, noise);
    }
    writeln!(
        out,
        "Log file: {} MiB and {} rotated files hold {}",
        rotation.max_size_megabytes,
        if rotation.max_backups == 0 { "all".to_string() } else { count(rotation.max_backups) },
        match (rotation.bytes, rotation.hours) {
            (None, _) => "everything".to_string(),
            (Some(_), None) => "an unknown time".to_string(),
            (Some(_), Some(fit)) => format!("{}{}", if kept.at_least { "at most " } else { "" }, hours(fit)),
        }
    )?;
    if let (Some(mean), Some(second), Some(minute)) =
        (sink.events_per_second.mean, sink.events_per_second.peak_second, sink.events_per_second.peak_minute)
    {
        let per_second = |rate: Option<f64>| rate.map(|rate| bytes(rate) + "/s").unwrap_or_default();
        writeln!(
            out,
            "A sink: {} events/s ({second} in the busiest second, {} in the busiest minute), {at_least}{} ({} in the busiest minute)",
            rate(mean),
            rate(minute),
            per_second(sink.bytes_per_second.mean),
            per_second(sink.bytes_per_second.peak_minute),
        )?;
        writeln!(
            out,
            "A webhook with kube-apiserver's defaults ({} events a batch, {} batches/s, a queue of {}): {}, the longest queue is {}",
            sink.batch_max_size,
            sink.throttle_qps,
            count(sink.batch_buffer_size),
            if sink.suffices { "enough" } else { "NOT enough, events are lost" },
            count(sink.longest_queue)
        )?;
        if let (Some(events), Some(mean), Some(full)) = (sink.batch_events, sink.batch_bytes, sink.full_batch_bytes) {
            writeln!(
                out,
                "Its requests: {} events and {} on average, {} when full; the largest event has {}",
                rate(events),
                bytes(mean),
                bytes(full),
                bytes(sink.largest_event_bytes as f64)
            )?;
        }
    }
    out.push_str("\nLimits of this estimate:\n");
    for unknown in &report.unknown {
        writeln!(out, "- {}", unknown.message)?;
    }
    damage(&mut out, &Damages { count: report.damaged, first: report.damage.clone() });
    Ok(out)
}

fn rules(out: &mut String, rules: &[Rule]) {
    let mut rows = vec![
        ["RULE", "LEVEL", "REQUESTS", "HITS", "KEPT", "BYTES", "SHARE", "EVENTS/S", "A DAY", ""].map(String::from),
    ];
    rows.extend(rules.iter().map(|rule| {
        let unless_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let about: String = visible(&rule.about).chars().take(60).collect();
        [
            rule.rule.map_or("-".into(), |rule| rule.to_string()),
            format!("{:?}", rule.level),
            count(rule.requests),
            count(rule.hits),
            count(rule.events),
            format!("{}{}", if rule.at_least { ">=" } else { "" }, bytes(rule.bytes as f64)),
            percent(rule.share_of_bytes),
            unless_none(rule.events_per_second.map(rate)),
            unless_none(rule.bytes_per_day.map(bytes)),
            if about.len() < rule.about.len() { about + "…" } else { about },
        ]
    }));
    table(out, &rows, |column| (2..9).contains(&column));
}

fn top(out: &mut String, what: &str, noise: &[Noise]) {
    if noise.is_empty() {
        return;
    }
    let mut rows = vec![[what, "KEPT", "BYTES", "SHARE"].map(String::from)];
    rows.extend(noise.iter().map(|noise| {
        [visible(&noise.name), count(noise.events), bytes(noise.bytes as f64), percent(noise.share_of_bytes)]
    }));
    table(out, &rows, |column| column > 0);
}

/// Damaged lines, after an empty line.
pub(super) fn damage(out: &mut String, damages: &Damages) {
    if damages.count == 0 {
        return;
    }
    out.push_str(&format!("\n{}:\n", amount(damages.count, "damaged line")));
    for damage in &damages.first {
        let line = damage.line.map(|line| format!(":{line}")).unwrap_or_default();
        let offset = damage.offset.map(|offset| format!(" (byte {offset})")).unwrap_or_default();
        out.push_str(&format!("{}{line}{offset}: {}\n", damage.file, damage.message));
    }
    if damages.count > damages.first.len() as u64 {
        out.push_str(&format!("and {} more\n", count(damages.count - damages.first.len() as u64)));
    }
}

/// Columns as wide as their longest cell, then an empty line.
fn table<const N: usize>(out: &mut String, rows: &[[String; N]], is_number: impl Fn(usize) -> bool) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if is_number(column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out.push('\n');
}

/// `1 event`, `2 events`.
pub(super) fn amount(number: u64, one: &str) -> String {
    format!("{} {one}{}", count(number), if number == 1 { "" } else { "s" })
}

/// With a comma between groups of three digits.
fn count(count: u64) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits are ASCII")).collect();
    groups.join(",")
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1_000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

fn rate(rate: f64) -> String {
    if rate >= 99.95 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn hours(hours: f64) -> String {
    match hours {
        ..0.1 => format!("{:.0} s", hours * 3_600.0),
        ..2.0 => format!("{:.0} min", hours * 60.0),
        ..72.0 => format!("{hours:.1} h"),
        _ => format!("{:.1} days", hours / 24.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 999.0, 999.6, 123_456.0, 5e15].map(bytes), ["0 B", "999 B", "1.0 kB", "123 kB", "5000 TB"]);
        assert_eq!([0.01, 0.5, 30.0, 100.0].map(hours), ["36 s", "30 min", "30.0 h", "4.2 days"]);
    }
}
