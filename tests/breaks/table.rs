//! The matrix for people: a line of a row, and the table of all that was run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::matrix::{ROWS, Row, Setup, Sink};
use super::run::Outcome;

/// A row in a line.
pub fn describe(row: &Row) -> String {
    let rest = if row.is_at_rest { "; at rest" } else { "" };
    format!("{}; {}{rest}", place(row), row.fault)
}

/// The sink that breaks.
fn place(row: &Row) -> &'static str {
    match (row.sink, row.setup) {
        (Sink::Log, Setup::Service) => "log, `Batch`",
        (Sink::Log, _) => "log, `Blocking`",
        (Sink::Webhook, Setup::Url) => "URL with https",
        (Sink::Webhook, Setup::Http) => "URL with http",
        (Sink::Webhook, Setup::Service) => "Service",
        (Sink::Webhook, Setup::Receiver) => "Service of the chart's receiver",
        (Sink::Webhook, Setup::Blocking) => "URL with https, `Blocking`",
    }
}

/// Keeps an outcome.
pub fn add(path: &Path, outcome: &Outcome) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{}", serde_json::to_string(outcome).unwrap()).unwrap();
}

/// Writes the table from outcomes: of each row the newest.
pub fn write(outcomes: &Path, table: &Path) {
    let newest: BTreeMap<String, Outcome> = fs::read_to_string(outcomes)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Outcome>(line).unwrap())
        .map(|outcome| (outcome.row.clone(), outcome))
        .collect();
    let mut text = String::from(include_str!("table.md"));
    for (row, outcome) in ROWS.iter().filter_map(|row| Some((row, newest.get(&describe(row))?))) {
        let Outcome { broken, repaired, complete, failure, .. } = outcome;
        let reason = match failure {
            None => format!("`{}`", row.reason),
            Some(failure) => format!("`{}` expected: {failure}", row.reason),
        };
        let state = if row.is_at_rest { ", at rest" } else { "" };
        writeln!(
            text,
            "| {} | {}{state} | {reason} | {broken:.0} | {repaired:.0} | {complete} |",
            place(row),
            row.fault
        )
        .unwrap();
    }
    #[expect(clippy::disallowed_methods, reason = "a document, not a node's file")]
    fs::write(table, text).unwrap();
}
