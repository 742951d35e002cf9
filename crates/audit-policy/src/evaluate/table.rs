//! Maps strings to sets of cases.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hint::select_unpredictable;

/// The cases that each string satisfies, for all strings that some case names.
///
/// A lookup uses the length and one byte of a string, which rarely leave more than one candidate, and compares the
/// candidate last. Most strings of a request have a length that no named string has.
#[derive(Debug)]
pub(super) struct Table {
    /// The last element is for all longer strings.
    lengths: Box<[Length; LENGTHS]>,
    /// For each length, one slot for each byte. The first slot is for all lengths without a string.
    slots: Vec<Slot>,
    /// One row of words for each string. The first row is for all strings that no case names.
    rows: Vec<u64>,
}

/// How to distinguish the strings of a length.
#[derive(Clone, Copy, Debug, Default)]
struct Length {
    slots: u32,
    /// Position of the byte, counted from the end, and the bits of it that count.
    place: u8,
    mask: u8,
}

/// The strings with the same byte.
#[derive(Debug, Default)]
struct Slot {
    one: Named,
    /// Sorted.
    others: Vec<Named>,
}

#[derive(Debug, Default)]
struct Named {
    key: Box<[u8]>,
    row: usize,
}

const LENGTHS: usize = 64;

/// A key of a lookup: a string, or two with a slash between them.
pub(super) trait Key: Copy {
    fn length(self) -> usize;
    /// The byte at this position from the end; any value if there is none.
    fn byte(self, place: u8) -> u8;
    fn is(self, key: &[u8]) -> bool;
    fn compare(self, key: &[u8]) -> Ordering;
}

impl Key for &str {
    #[inline]
    fn length(self) -> usize {
        self.len()
    }

    #[inline]
    fn byte(self, place: u8) -> u8 {
        // The processor cannot predict which string is empty.
        let text = select_unpredictable(self.is_empty(), &[0][..], self.as_bytes());
        text[text.len() - 1 - usize::from(place)]
    }

    #[inline]
    fn is(self, key: &[u8]) -> bool {
        self.as_bytes() == key
    }

    fn compare(self, key: &[u8]) -> Ordering {
        self.as_bytes().cmp(key)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Joined<'a>(pub &'a str, pub &'a str);

impl Key for Joined<'_> {
    #[inline]
    fn length(self) -> usize {
        self.0.len() + 1 + self.1.len()
    }

    #[inline]
    fn byte(self, place: u8) -> u8 {
        let [head, tail] = [self.0.as_bytes(), self.1.as_bytes()];
        match usize::from(place).checked_sub(tail.len()) {
            None => tail[tail.len() - 1 - usize::from(place)],
            Some(0) => b'/',
            Some(place) => head[head.len() - place],
        }
    }

    #[inline]
    fn is(self, key: &[u8]) -> bool {
        let rest = key.strip_prefix(self.0.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        rest == Some(self.1.as_bytes())
    }

    fn compare(self, key: &[u8]) -> Ordering {
        self.0.bytes().chain([b'/']).chain(self.1.bytes()).cmp(key.iter().copied())
    }
}

impl Table {
    /// The row of a string that no case names.
    const UNNAMED: usize = 0;

    /// Built from the cases in their order: whether every string satisfies the case, or else which ones.
    pub fn new<'a, S: Iterator<Item = &'a str>>(cases: impl ExactSizeIterator<Item = (bool, S)>) -> Self {
        let words = cases.len().div_ceil(64);
        let mut rows = vec![0; words];
        let mut by_length: BTreeMap<usize, BTreeMap<&str, Vec<usize>>> = BTreeMap::new();
        for (index, (is_any, strings)) in cases.enumerate() {
            if is_any {
                rows[index / 64] |= 1 << (index % 64);
            }
            for string in strings {
                let named = by_length.entry(string.len().min(LENGTHS - 1)).or_default();
                named.entry(string).or_default().push(index);
            }
        }
        let mut table = Self { lengths: Box::new([Length::default(); LENGTHS]), slots: vec![Slot::default()], rows };
        for (length, named) in by_length {
            let (place, mask) = place(&named.keys().copied().collect::<Vec<_>>(), length);
            let slots = table.slots.len();
            table.lengths[length] = Length { slots: slots.try_into().expect("a byte has 256 values"), place, mask };
            table.slots.resize_with(slots + usize::from(mask) + 1, Slot::default);
            for (key, cases) in named {
                let row = table.rows.len();
                table.rows.extend_from_within(..words);
                for index in cases {
                    table.rows[row + index / 64] |= 1 << (index % 64);
                }
                let Slot { one, others } = &mut table.slots[slots + usize::from(key.byte(place) & mask)];
                let named = Named { key: key.as_bytes().into(), row };
                if one.row == Self::UNNAMED { *one = named } else { others.push(named) }
            }
        }
        table
    }

    /// The row of a string.
    #[inline(always)]
    pub fn row(&self, key: impl Key) -> usize {
        let Length { slots, place, mask } = self.lengths[key.length().min(LENGTHS - 1)];
        if slots == 0 {
            return Self::UNNAMED;
        }
        let Slot { one, others } = &self.slots[slots as usize + usize::from(key.byte(place) & mask)];
        if key.is(&one.key) {
            one.row
        } else if others.is_empty() {
            Self::UNNAMED
        } else {
            row_among(others, key)
        }
    }

    #[inline]
    pub fn word(&self, row: usize, word: usize) -> u64 {
        self.rows[row + word]
    }
}

/// Not inlined, so that the likely path is short.
#[inline(never)]
fn row_among(named: &[Named], key: impl Key) -> usize {
    let found = named.binary_search_by(|named| key.compare(&named.key).reverse());
    found.map_or(Table::UNNAMED, |at| named[at].row)
}

/// The position, and the fewest bits of its byte, that distinguish most of the strings. All have this length, or at
/// least this length.
fn place(keys: &[&str], length: usize) -> (u8, u8) {
    let mut best = (0, 0);
    let mut apart = 1;
    for mask in (0..=8).map(|bits| (0xff_u16 >> (8 - bits)) as u8) {
        for place in 0..length as u8 {
            if apart == keys.len() {
                return best;
            }
            let distinct = keys.iter().map(|key| key.byte(place) & mask).collect::<BTreeSet<_>>().len();
            if distinct > apart {
                (best, apart) = ((place, mask), distinct);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_has_the_cases_that_name_it_and_those_that_take_any() {
        let long = |case| format!("{case}@a.domain.that.all.of.them.have.and.that.is.longer.than.what.is.looked.at");
        let cases: Vec<Vec<String>> = (0..150)
            .map(|case| {
                if case % 10 == 0 { vec![] } else { vec![format!("only {case}"), format!("{}", case % 3), long(case)] }
            })
            .collect();
        let cases: Vec<Vec<&str>> = cases.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
        let table = Table::new(cases.iter().map(|names| (names.is_empty(), names.iter().copied())));
        let names = (0..150).flat_map(|case| [format!("only {case}"), long(case), long(case + 1000)]);
        for name in names.chain(["0", "1", "2", "3", ""].map(String::from)) {
            let row = table.row(name.as_str());
            for (index, names) in cases.iter().enumerate() {
                let is_in = table.word(row, index / 64) >> (index % 64) & 1 == 1;
                assert_eq!(is_in, names.is_empty() || names.contains(&&*name), "{name:?} in case {index}");
            }
        }
    }

    #[test]
    fn two_strings_are_found_as_if_a_slash_were_between_them() {
        let named = [
            "a/b/c",
            "pods/log",
            "/",
            "pods/",
            "",
            "a/b",
            "an.odd.resource/with.a.subresource.that.makes.it.longer.than.64",
        ];
        let table = Table::new(named.iter().map(|name| (false, std::iter::once(*name))));
        for (head, tail) in [
            ("a", "b/c"),
            ("a/b", "c"),
            ("pods", "log"),
            ("", ""),
            ("", "pods"),
            ("pods", ""),
            named[6].split_once('/').unwrap(),
        ] {
            assert_eq!(table.row(Joined(head, tail)), table.row(&*format!("{head}/{tail}")), "{head} {tail}");
        }
        assert!(table.row("") != Table::UNNAMED && table.row(Joined("pods", "log")) != Table::UNNAMED);
    }
}
