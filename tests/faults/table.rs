//! The matrix for people: a line of a row, and the table of all that was run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use super::act::Act;
use super::matrix::{Change, Outcome, ROWS, Row};
use super::moment::Moment;
use super::run::Result;

/// The fault and when it comes, in a line.
pub fn describe(row: &Row) -> String {
    let nodes = if row.nodes == 1 { String::new() } else { format!(" ({} nodes)", row.nodes) };
    format!("{}; {}{nodes}", row.fault, place(row))
}

fn place(row: &Row) -> String {
    let change = match (row.change, row.is_swift) {
        (Change::Rest, _) => return "a node at rest".into(),
        (Change::Delete, _) => "the Setup is deleted",
        (Change::Good, false) => "good change",
        (Change::Good, true) => "good change, Swift",
        (Change::BadAuthority, false) => "bad CA",
        (Change::BadAuthority, true) => "bad CA, Swift",
        (Change::BadLog, false) => "bad log",
        (Change::BadLog, true) => "bad log, Swift",
    };
    let moment = match row.moment {
        Moment::Applied if matches!(row.act, Act::None | Act::HostAnother) => return change.into(),
        Moment::Applied => "once it is applied",
        Moment::After(time) => return format!("{change}: {:.1} s after it was applied", time.as_secs_f64()),
        Moment::Staging => "while its files are written",
        Moment::Staged => "once the journal has it",
        Moment::GuardRuns => "once the guard runs",
        Moment::Begun => "just before the manifest is touched",
        Moment::TakenOut => "while the manifest is taken out",
        Moment::Replaced => "right after the manifest was replaced",
        Moment::OldGone => "once the old process is gone",
        Moment::NewRuns => "once the new process runs",
        Moment::Serves => "once the new process answers",
        Moment::RollingBack => "once the rollback is decided",
        Moment::PutBack => "right after the old manifest came back",
        Moment::Finished => "right after the verdict",
    };
    format!("{change}: {moment}")
}

pub fn expected(row: &Row) -> &'static str {
    match row.outcome {
        Outcome::New => "the new Revision runs",
        Outcome::Old => "rolled back, and reported",
        Outcome::Without => "serves without our parts, and reported",
        Outcome::Either => "one or the other, and reported",
        Outcome::Original => "the original manifest is back",
    }
}

/// Keeps a result.
pub fn add(path: &Path, result: &Result) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    writeln!(file, "{}", serde_json::to_string(result).unwrap()).unwrap();
}

/// Writes the table from results: of each row the newest.
pub fn write(results: &Path, table: &Path) {
    let newest: BTreeMap<String, Result> = fs::read_to_string(results)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<Result>(line).unwrap())
        .map(|result| (result.fault.clone(), result))
        .collect();
    let mut ways_back = String::new();
    let mut text = String::from(include_str!("table.md"));
    for (row, result) in ROWS.iter().filter_map(|row| Some((row, newest.get(&describe(row))?))) {
        let nodes = if row.nodes == 1 { "one".to_string() } else { format!("{}", row.nodes) };
        let Result { expected, seen, away, settled, way_back, .. } = result;
        writeln!(text, "| {} | {} | {nodes} | {expected} | {seen} | {away:.0} | {settled:.0} |", row.fault, place(row))
            .unwrap();
        if let Some(seconds) = way_back {
            writeln!(ways_back, "| {} | {} | {nodes} | {seconds:.0} |", row.fault, place(row)).unwrap();
        }
    }
    text.push_str(include_str!("table_rollback.md"));
    text.push_str(&ways_back);
    #[expect(clippy::disallowed_methods, reason = "a document, not a node's file")]
    fs::write(table, text).unwrap();
}
