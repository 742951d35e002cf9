//! Mutations of the files in `tests/cases` by a seeded generator: bits, ranges, lines and tokens are dropped, doubled,
//! moved and exchanged.

use std::fs;

use crate::golden::cases;
use crate::random::Random;

/// Longer inputs are cut. This is long enough to show a reader whose time grows with the square of the length.
const MAX_BYTES: usize = 64 << 10;

pub const YAML_TOKENS: &[&str] = &[
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "  ",
    "- ",
    "-",
    ": ",
    ":",
    ", ",
    ",",
    "[",
    "]",
    "{",
    "}",
    "[]",
    "{}",
    "#",
    " # x",
    "'",
    "\"",
    "|",
    ">-",
    "|2",
    "&a ",
    "*a",
    "!!str ",
    "! ",
    "<<: ",
    "? ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "~",
    "null",
    "yes",
    "off",
    "0x1F",
    "1e3",
    ".inf",
    "0644",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\0",
    "\\",
    "\\x2f",
    "\\u0000",
    "🦀",
    "é",
    "metadata:",
    "annotations: {}",
    "spec:",
    "volumes: []",
    "volumeMounts:",
    "uid: a",
    "command: []",
    "args: []",
    "name: audit-operator-log",
    "audit-operator.io/revision: r-aaaaaaaaaa",
    "--audit-log-path=/x",
    "--audit_log_maxage=1",
    "--audit-log-compress",
    "--",
    "$(A)",
    "apiVersion: v1",
    "kind: Pod",
    "level: None",
    "rules:",
    "users: [on]",
    "resources: [{group: ''}]",
    "nonResourceURLs: ['/*']",
    "omitStages: [Panic]",
];

fn span(random: &mut Random, text: &[u8]) -> std::ops::Range<usize> {
    let start = random.below(text.len() + 1);
    // Mostly short.
    let longest = if random.one_in(4) { text.len() + 1 } else { 12 };
    let length = random.below(longest);
    start..(start + length).min(text.len())
}

/// The range of some whole lines.
fn whole_lines(random: &mut Random, text: &[u8]) -> std::ops::Range<usize> {
    let ends: Vec<usize> = std::iter::once(0)
        .chain(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
        .chain([text.len()])
        .collect();
    let first = random.below(ends.len());
    let last = (first + random.below(4)).min(ends.len() - 1);
    ends[first]..ends[last]
}

pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut text = corpus[random.below(corpus.len())].clone();
    let most = if random.one_in(8) { 40 } else { 4 };
    for _ in 0..=random.below(most) {
        let range = span(random, &text);
        let lines = whole_lines(random, &text);
        match random.below(10) {
            0 if !text.is_empty() => {
                let at = random.below(text.len());
                text[at] ^= 1 << random.below(8);
            }
            1 => drop(text.drain(range)),
            2 => drop(text.drain(lines)),
            3 => {
                let copy = text[lines.clone()].to_vec();
                text.splice(lines.start..lines.start, copy);
            }
            4 => {
                let (copy, to) = (text[lines].to_vec(), whole_lines(random, &text).start);
                text.splice(to..to, copy);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = span(random, other);
                text.splice(range, other[from].to_vec());
            }
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = whole_lines(random, other);
                text.splice(lines.start..lines.start, other[from].to_vec());
            }
            7 if random.one_in(20) => {
                let many = random.pick(tokens).repeat(random.below(5000));
                text.splice(range.start..range.start, many.into_bytes());
            }
            _ => {
                let end = if random.one_in(2) { range.start } else { range.end };
                text.splice(range.start..end, random.pick(tokens).bytes());
            }
        }
    }
    text.truncate(MAX_BYTES);
    text
}

/// The manifests of the golden cases, edited and not.
pub fn manifests() -> Vec<Vec<u8>> {
    [files("tests/cases/manifest", "in.yaml"), files("tests/cases/manifest", "want.yaml")].concat()
}

/// Every file of that name below a directory of cases, in an order that does not change.
pub fn files(directory: &str, name: &str) -> Vec<Vec<u8>> {
    cases(directory).iter().filter_map(|case| fs::read(case.join(name)).ok()).collect()
}
