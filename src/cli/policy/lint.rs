//! `audit-operator policy lint`: what kube-apiserver would say about policy files.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Output, policy_minor, read_policy};
use crate::cli::print;
use crate::policy::{Finding, Severity, load};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Policy files; - is standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Version of kube-apiserver that would load them: 1.26 to 1.37.
    #[arg(long, value_name = "VERSION", default_value = "1.36", value_parser = policy_minor)]
    kubernetes_version: u32,
    /// Form of the findings. As JSON there is one object a file: {"valid": bool, "findings": [...]}, where valid means that
    /// kube-apiserver would start with it.
    #[arg(long, value_enum, value_name = "FORM", default_value = "text")]
    output: Output,
}

/// A contract: other programs read it.
#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    findings: &'a [Finding],
    file: String,
}

/// Exit status 1 where there is a finding; 2 where a file cannot be read, after the others were looked at.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let is_coloured = std::io::stdout().is_terminal();
    let mut is_clean = true;
    let mut unreadable = None;
    for path in &args.files {
        let bytes = match read_policy(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                if let Some(earlier) = unreadable.replace(error) {
                    eprintln!("audit-operator: {earlier:#}");
                }
                continue;
            }
        };
        let loaded = load(&bytes, args.kubernetes_version);
        is_clean &= loaded.findings.is_empty();
        let file = path.display().to_string();
        match args.output {
            Output::Json => {
                let report = Report { valid: loaded.policy.is_some(), findings: &loaded.findings, file };
                print(&format!("{}\n", serde_json::to_string(&report)?))?;
            }
            Output::Text => {
                let lines = Lines::of(&bytes);
                let mut out = String::new();
                for finding in &loaded.findings {
                    show(&mut out, &file, &lines, finding, is_coloured);
                }
                let version = args.kubernetes_version;
                let outcome = if loaded.policy.is_some() { "starts" } else { "would not start" };
                writeln!(out, "{file}: kube-apiserver 1.{version} {outcome} with it")
                    .expect("a String takes everything");
                print(&out)?;
            }
        }
    }
    match unreadable {
        Some(error) => Err(error),
        None if is_clean => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(1)),
    }
}

/// The lines of a file, ended as YAML 1.1 has it.
struct Lines(Vec<String>);

impl Lines {
    fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        let is_break = |c: char| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}');
        Self(text.trim_start_matches('\u{feff}').split(is_break).map(str::to_string).collect())
    }
}

/// A finding as compilers show them: where, the line, a caret below it.
fn show(out: &mut String, file: &str, lines: &Lines, finding: &Finding, is_coloured: bool) {
    let (name, colour) = match finding.severity {
        Severity::Error => ("error", "31"),
        Severity::Warning => ("warning", "33"),
        Severity::Info => ("info", "36"),
    };
    let paint = |text: &str, colour: &str| {
        if is_coloured { format!("\u{1b}[1;{colour}m{text}\u{1b}[0m") } else { text.to_string() }
    };
    let Finding { place, message, .. } = finding;
    let head = format!("{name}[{}]", finding.id);
    let mut add = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    add(format!("{}: {}", paint(&head, colour), visible(message)));
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    add(format!("{margin}{} {file}:{}:{}", paint("-->", "34"), place.line, place.column));
    if let Some(line) = lines.0.get(place.line as usize - 1).filter(|line| !line.is_empty()) {
        let (shown, caret) = excerpt(line, place.column as usize - 1);
        let bar = paint("|", "34");
        add(format!("{margin} {bar}"));
        add(format!("{} {bar} {shown}", paint(&number, "34")));
        add(format!("{margin} {bar} {}{}", " ".repeat(caret), paint("^", colour)));
    }
    if let Some(help) = &finding.help {
        add(format!("{margin} {} help: {}", paint("=", "34"), visible(help)));
    }
    add(String::new());
}

/// At most so many characters around a column, and where the column is in them. Tabs and control characters take one column.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 100;
    let start = if column < WIDTH { 0 } else { column - WIDTH / 2 };
    let shown: String = line.chars().skip(start).take(WIDTH).collect();
    (visible(&shown), column - start)
}

/// Nothing that a terminal would take for a command.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Place;

    #[test]
    fn a_finding_is_shown_with_its_line() {
        let text = b"apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: None\n\tverb: x\n";
        let finding = Finding {
            id: "unknown-field",
            severity: Severity::Warning,
            message: "unknown \u{1b}[31mfield".into(),
            place: Place { line: 5, column: 2 },
            path: "rules[0].verb".into(),
            help: Some("remove it".into()),
        };
        let mut out = String::new();
        show(&mut out, "p.yaml", &Lines::of(text), &finding, false);
        let want = "warning[unknown-field]: unknown \u{fffd}[31mfield\n --> p.yaml:5:2\n  |\n5 |  verb: x\n  |  ^\n  = help: remove it\n\n";
        assert_eq!(out, want);
    }

    #[test]
    fn of_a_long_line_a_part_is_shown() {
        let line = format!("{}x{}", "a".repeat(500), "b".repeat(500));
        let (shown, caret) = excerpt(&line, 500);
        assert_eq!((shown.chars().count(), shown.chars().nth(caret)), (100, Some('x')));
    }
}
