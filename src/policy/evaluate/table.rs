//! Strings to sets of rules.

/// A set of rules, a bit each.
#[derive(Clone, Debug)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub fn of(rules: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut words = vec![0; rules.len().div_ceil(64)];
        for (index, _) in rules.enumerate().filter(|(_, is_in)| *is_in) {
            words[index / 64] |= 1 << (index % 64);
        }
        Self(words)
    }

    pub fn words(&self) -> usize {
        self.0.len()
    }

    pub fn word(&self, word: usize) -> u64 {
        self.0[word]
    }
}

/// For each string that some rule names, the rules that it satisfies. An open hash table, an eighth full at most, so that hardly
/// any search takes a second step.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    keys: Vec<u8>,
    /// A row of words for each string; the first row is for all strings that no rule names.
    rows: Vec<u64>,
    words: usize,
    count: usize,
    /// Lengths of the strings, a bit each; the last one for all longer ones. Most strings of a request are of none.
    lengths: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    digest: Digest,
    /// Of the head, in the keys.
    start: usize,
    /// [`Table::UNNAMED`] = free.
    row: usize,
}

/// A string, by its length, its last 16 bytes, and a hash of what is before them, the head.
#[derive(Clone, Copy, Debug, Default)]
struct Digest {
    length: usize,
    tail: [u64; 2],
    head: u64,
}

const TAIL: usize = 16;

impl Table {
    /// The row of a string that no rule names.
    pub const UNNAMED: usize = 0;

    /// From rules in their order: whether every string will do, and else which.
    pub fn new<S: AsRef<str>>(count: usize, rules: impl Iterator<Item = (bool, impl Iterator<Item = S>)>) -> Self {
        let words = count.div_ceil(64);
        let mut table = Self {
            slots: vec![Slot::default(); 8],
            keys: Vec::new(),
            rows: vec![0; words],
            words,
            count: 0,
            lengths: 0,
        };
        let mut always = vec![0; words];
        let mut named = Vec::new();
        for (index, (is_any, strings)) in rules.enumerate() {
            if is_any {
                always[index / 64] |= 1 << (index % 64);
            }
            named.extend(strings.map(|string| (index, string)));
        }
        for (index, string) in named {
            let row = table.insert(string.as_ref().as_bytes());
            table.rows[row * words + index / 64] |= 1 << (index % 64);
        }
        for row in table.rows.chunks_mut(words.max(1)) {
            for (word, always) in row.iter_mut().zip(&always) {
                *word |= always;
            }
        }
        table
    }

    fn insert(&mut self, key: &[u8]) -> usize {
        if let row @ 1.. = self.find(key) {
            return row;
        }
        if (self.count + 1) * 8 > self.slots.len() {
            let grown = vec![Slot::default(); self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, grown).into_iter().filter(|slot| slot.row != Self::UNNAMED) {
                self.place(slot);
            }
        }
        self.count += 1;
        self.lengths |= length_bit(key.len());
        let row = self.count;
        self.place(Slot { digest: Digest::of(key), start: self.keys.len(), row });
        self.keys.extend_from_slice(head(key));
        self.rows.extend(std::iter::repeat_n(0, self.words));
        row
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut at = slot.digest.hash() as usize & mask;
        while self.slots[at].row != Self::UNNAMED {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    #[inline]
    pub fn row_of_bytes(&self, key: &[u8]) -> usize {
        if self.has_length(key.len()) { self.find(key) } else { Self::UNNAMED }
    }

    /// The row of a string, by which it is known from here on.
    #[inline]
    pub fn row(&self, key: &str) -> usize {
        self.row_of_bytes(key.as_bytes())
    }

    /// Whether a string of this length may be named.
    #[inline]
    pub fn has_length(&self, length: usize) -> bool {
        self.lengths & length_bit(length) != 0
    }

    #[inline]
    fn find(&self, key: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let digest = Digest::of(key);
        let mut at = digest.hash() as usize & mask;
        loop {
            let slot = &self.slots[at];
            let is_free = slot.row == Self::UNNAMED;
            // One branch for both: whether a string is named cannot be foreseen.
            if is_free | slot.digest.is(digest)
                && (key.len() <= TAIL || is_free || self.keys[slot.start..].starts_with(head(key)))
            {
                return slot.row;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    pub fn word(&self, row: usize, word: usize) -> u64 {
        self.rows[row * self.words + word]
    }
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

fn head(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(TAIL)]
}

impl Digest {
    #[inline]
    fn of(key: &[u8]) -> Self {
        let length = key.len();
        // Pieces that overlap, as there is no reading beyond the end.
        let tail = if let Some(last) = key.last_chunk::<8>() {
            let start = length.saturating_sub(TAIL);
            let first = key[start..].first_chunk::<8>().expect("there are eight bytes");
            [u64::from_le_bytes(*first), u64::from_le_bytes(*last)]
        } else if let (Some(first), Some(last)) = (key.first_chunk::<4>(), key.last_chunk::<4>()) {
            [first, last].map(|piece| u64::from(u32::from_le_bytes(*piece)))
        } else if let (Some(first), Some(last)) = (key.first(), key.last()) {
            [u64::from(*first), u64::from(*last) | u64::from(key[length / 2]) << 8]
        } else {
            [0; 2]
        };
        let head = head(key).chunks(8).fold(0, |state, chunk| {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            mix(state, u64::from_le_bytes(bytes))
        });
        Self { length, tail, head }
    }

    /// Without a branch for each part.
    #[inline]
    fn is(self, other: Self) -> bool {
        (self.length == other.length)
            & (self.tail[0] == other.tail[0])
            & (self.tail[1] == other.tail[1])
            & (self.head == other.head)
    }

    /// Good enough to tell a few hundred strings apart. Whoever wrote the policy may make it slow, nobody else.
    #[inline]
    fn hash(self) -> u64 {
        mix(self.tail[0] ^ (self.length as u64) << 32 ^ self.head, self.tail[1])
    }
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_has_the_rules_that_name_it_and_those_that_take_any() {
        let long = |rule| format!("{rule}@a.domain.that.all.of.them.have");
        let rules: Vec<Vec<String>> = (0..150)
            .map(|rule| {
                if rule % 10 == 0 { vec![] } else { vec![format!("only {rule}"), format!("{}", rule % 3), long(rule)] }
            })
            .collect();
        let table = Table::new(rules.len(), rules.iter().map(|names| (names.is_empty(), names.iter())));
        let names = (0..150).flat_map(|rule| [format!("only {rule}"), long(rule), long(rule + 1000)]);
        for name in names.chain(["0", "1", "2", "3", ""].map(String::from)) {
            let row = table.row(&name);
            for (index, names) in rules.iter().enumerate() {
                let is_in = table.word(row, index / 64) >> (index % 64) & 1 == 1;
                assert_eq!(is_in, names.is_empty() || names.contains(&name), "{name:?} in rule {index}");
            }
        }
    }
}
