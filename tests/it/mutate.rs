//! Mutations of what lies in `tests/cases`, by a seeded generator: bits, ranges, lines and tokens, dropped, doubled, moved, and taken from
//! one another.

use std::fs;
use std::path::Path;

/// Longer ones are cut: what grows with the square of the length must show within the time.
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
/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).unwrap()
    }

    fn range(&mut self, text: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(text.len() + 1);
        // Mostly short.
        let longest = if self.below(4) == 0 { text.len() + 1 } else { 12 };
        let length = self.below(longest);
        start..(start + length).min(text.len())
    }

    /// The range of some whole lines.
    fn lines(&mut self, text: &[u8]) -> std::ops::Range<usize> {
        let ends: Vec<usize> = std::iter::once(0)
            .chain(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1))
            .chain([text.len()])
            .collect();
        let first = self.below(ends.len());
        let last = (first + self.below(4)).min(ends.len() - 1);
        ends[first]..ends[last]
    }
}

pub fn mutated(random: &mut Random, corpus: &[Vec<u8>], tokens: &[&str]) -> Vec<u8> {
    let mut text = corpus[random.below(corpus.len())].clone();
    let most = if random.below(8) == 0 { 40 } else { 4 };
    for _ in 0..=random.below(most) {
        let range = random.range(&text);
        let lines = random.lines(&text);
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
                let (copy, to) = (text[lines].to_vec(), random.lines(&text).start);
                text.splice(to..to, copy);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.range(other);
                text.splice(range, other[from].to_vec());
            }
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.lines(other);
                text.splice(lines.start..lines.start, other[from].to_vec());
            }
            7 if random.below(20) == 0 => {
                let many = tokens[random.below(tokens.len())].repeat(random.below(5000));
                text.splice(range.start..range.start, many.into_bytes());
            }
            _ => {
                let end = if random.below(2) == 0 { range.start } else { range.end };
                text.splice(range.start..end, tokens[random.below(tokens.len())].bytes());
            }
        }
    }
    text.truncate(MAX_BYTES);
    text
}

/// Every file of that kind below `tests/cases`, in an order that does not change.
pub fn files(directory: &Path, name: &str) -> Vec<Vec<u8>> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path().join(name)).collect();
    found.sort();
    found.iter().filter_map(|path| fs::read(path).ok()).collect()
}
