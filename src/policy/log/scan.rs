//! An event from a line as kube-apiserver writes it, without looking closely at what nobody asks for.
//!
//! Blocks of 64 bytes become bit masks, a bit a byte: where strings begin and end, and where objects and lists do, outside of
//! strings. The walk over the members of the event then leaps from mark to mark. A value that is not needed is only skipped: its
//! strings are closed, its brackets balanced and its text valid UTF-8; its grammar is not looked at.
//!
//! Gives nothing where there is anything out of the ordinary - blanks between tokens, control characters, a name twice, an escape
//! in a name, a missing member - and the line is parsed in full. Where it gives something, it is what parsing would give.

use wide::u8x16;

use super::event::{self, Event, KIND, TYPE_BYTES, member_bytes};

/// Where the strings, objects and lists of a line are.
#[derive(Debug, Default)]
pub(in crate::policy) struct Marks {
    blocks: Vec<Block>,
}

/// 64 bytes of a line, a bit a byte.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Quotes that begin or end a string.
    quotes: u64,
    /// Brackets and braces outside of strings.
    opening: u64,
    closing: u64,
}

const BLOCK: usize = 64;

impl Marks {
    /// False where something is not as kube-apiserver writes it.
    fn mark(&mut self, line: &[u8]) -> bool {
        let mut state = State::default();
        let (whole, rest) = line.as_chunks::<BLOCK>();
        self.blocks.clear();
        self.blocks.extend(whole.iter().map(|block| state.block(block)));
        if !rest.is_empty() {
            // Something that means nothing.
            let mut block = [b'_'; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            self.blocks.push(state.block(&block));
        }
        let is_ascii = state.all.to_bitmask() == 0;
        state.in_string == 0
            && state.blanks == 0
            && state.control.to_bitmask() == 0
            && (is_ascii || str::from_utf8(line).is_ok())
    }

    /// The first quote at or after a position.
    #[inline]
    fn quote(&self, from: usize) -> Option<usize> {
        let mut word = from / BLOCK;
        let mut marks = self.blocks.get(word)?.quotes & (!0 << (from % BLOCK));
        while marks == 0 {
            word += 1;
            marks = self.blocks.get(word)?.quotes;
        }
        Some(word * BLOCK + marks.trailing_zeros() as usize)
    }

    /// The end of the object or list that begins at a position: where its closing bracket is.
    #[inline]
    fn closing(&self, from: usize) -> Option<usize> {
        let mut depth = 0;
        let mut kept = !0 << (from % BLOCK);
        for (word, Block { opening, closing, .. }) in self.blocks.iter().enumerate().skip(from / BLOCK) {
            let (opening, mut closing) = (opening & kept, closing & kept);
            kept = !0;
            // With fewer closing brackets than open ones the end cannot be here.
            if closing.count_ones() < depth {
                depth = depth + opening.count_ones() - closing.count_ones();
                continue;
            }
            let mut closed = 0;
            while closing != 0 {
                let at = closing.trailing_zeros();
                closed += 1;
                if depth + (opening & !(!0 << at)).count_ones() == closed {
                    return Some(word * BLOCK + at as usize);
                }
                closing &= closing - 1;
            }
            depth = depth + opening.count_ones() - closed;
        }
        None
    }
}

/// An object or a list, as a walk over it finds it: bytes of the managed fields in it.
///
/// Of an object, of the items of a list, and of the objects in the rows of a table (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/audit/request.go#L237-L275). None where the text is not as kube-apiserver writes it.
pub(in crate::policy) fn managed_bytes(marks: &mut Marks, body: &[u8]) -> Option<u64> {
    if !marks.mark(body) {
        return None;
    }
    let mut bytes = 0;
    // Other members than these stay, so there is a comma too.
    let mut of_object = |at: usize| {
        marks.elements(body, at, |name, at, _| match name {
            b"metadata" => marks.elements(body, at, |name, at, end| {
                if name == b"managedFields" {
                    bytes += member_bytes(name.len(), end - at);
                }
                Some(())
            }),
            _ => Some(()),
        })
    };
    of_object(0)?;
    marks.elements(body, 0, |name, at, _| match name {
        b"items" => marks.elements(body, at, |_, at, _| of_object(at)),
        b"rows" => marks.elements(body, at, |_, at, _| {
            marks.elements(body, at, |name, at, _| if name == b"object" { of_object(at) } else { Some(()) })
        }),
        _ => Some(()),
    })?;
    Some(bytes)
}

impl Marks {
    /// Visits what is directly in an object or a list: name (empty in a list), start and end of each value. Nothing is in other values.
    fn elements<'a>(
        &self,
        text: &'a [u8],
        at: usize,
        mut visit: impl FnMut(&'a [u8], usize, usize) -> Option<()>,
    ) -> Option<()> {
        let (is_object, end) = match text.get(at)? {
            b'{' => (true, self.closing(at)?),
            b'[' => (false, self.closing(at)?),
            _ => return Some(()),
        };
        let mut next = at + 1;
        while next < end {
            let mut name = &text[..0];
            if is_object {
                let quote = self.quote(next + 1)?;
                name = text.get(next + 1..quote)?;
                next = quote + 2;
            }
            let last = match text.get(next)? {
                b'"' => self.quote(next + 1)?,
                b'{' | b'[' => self.closing(next)?,
                _ => next + memchr::memchr3(b',', b'}', b']', &text[next..])? - 1,
            };
            visit(name, next, last + 1)?;
            next = last + 2;
        }
        Some(())
    }
}

/// What goes from one block to the next.
#[derive(Default)]
struct State {
    /// All ones within a string.
    in_string: u64,
    /// 1 if the first byte is escaped by the last one of the block before.
    escape: u64,
    blanks: u64,
    control: u8x16,
    all: u8x16,
}

impl State {
    #[inline]
    fn block(&mut self, block: &[u8; BLOCK]) -> Block {
        let (parts, _) = block.as_chunks::<16>();
        let parts: [u8x16; 4] = std::array::from_fn(|i| u8x16::new(parts[i]));
        let equal = |byte: u8| mask(parts.map(|part| part.simd_eq(u8x16::splat(byte))));
        let mut quotes = equal(b'"');
        let backslashes = equal(b'\\');
        if backslashes | self.escape != 0 {
            quotes &= !escaped(backslashes, &mut self.escape);
        }
        // Set from the opening quote up to before the closing one.
        let in_string = prefix_xor(quotes) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        // `[` and `{` differ in one bit only, and so do `]` and `}`.
        let folded = parts.map(|part| part | u8x16::splat(0x20));
        let bracket = |byte: u8| mask(folded.map(|part| part.simd_eq(u8x16::splat(byte)))) & !in_string;
        self.blanks |= equal(b' ') & !in_string;
        for part in parts {
            self.all |= part;
            self.control |= part.min(u8x16::splat(0x1f)).simd_eq(part);
        }
        Block { quotes, opening: bracket(b'{'), closing: bracket(b'}') }
    }
}

#[inline]
fn mask(parts: [u8x16; 4]) -> u64 {
    let [a, b, c, d] = parts.map(|part| u64::from(part.to_bitmask()));
    a | b << 16 | c << 32 | d << 48
}

/// Bytes that a backslash stands before which is not escaped itself (simdjson's find_escaped).
#[inline]
fn escaped(backslashes: u64, escape: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslashes = backslashes & !*escape;
    let follows = backslashes << 1 | *escape;
    let odd_starts = backslashes & !EVEN & !follows;
    let (runs, carry) = odd_starts.overflowing_add(backslashes);
    *escape = u64::from(carry);
    (EVEN ^ (runs << 1)) & follows
}

#[inline]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Members in the order in which kube-apiserver writes them (audit/v1/types.go#L71-L153), each as it begins. Not all of them are
/// needed, but one that is not among them could be there twice.
const MEMBERS: [&[u8]; 19] = [
    b"\"kind\":",
    b"\"apiVersion\":",
    b"\"level\":",
    b"\"auditID\":",
    b"\"stage\":",
    b"\"requestURI\":",
    b"\"verb\":",
    b"\"user\":",
    b"\"impersonatedUser\":",
    b"\"authenticationMetadata\":",
    b"\"sourceIPs\":",
    b"\"userAgent\":",
    b"\"objectRef\":",
    b"\"responseStatus\":",
    b"\"requestObject\":",
    b"\"responseObject\":",
    b"\"requestReceivedTimestamp\":",
    b"\"stageTimestamp\":",
    b"\"annotations\":",
];

/// The member that begins here. The next one in the order is the likely one.
#[inline]
fn member(text: &[u8], next: usize) -> Option<usize> {
    let found = MEMBERS[next..].iter().position(|member| text.starts_with(member)).map(|at| next + at);
    found.or_else(|| MEMBERS[..next].iter().position(|member| text.starts_with(member)))
}

pub(super) fn scan<'a>(marks: &mut Marks, line: &'a [u8]) -> Option<Event<'a>> {
    if line.first() != Some(&b'{') || !marks.mark(line) {
        return None;
    }
    let mut values = [&line[..0]; MEMBERS.len()];
    let (mut at, mut next) = (1, 0);
    loop {
        let member = member(&line[at..], next)?;
        next = member + 1;
        let start = at + MEMBERS[member].len();
        let last = match line.get(start)? {
            b'"' => marks.quote(start + 1)?,
            b'{' | b'[' => marks.closing(start)?,
            _ => return None,
        };
        if !values[member].is_empty() {
            return None;
        }
        values[member] = &line[start..=last];
        match line.get(last + 1)? {
            b',' => at = last + 2,
            b'}' if last + 2 == line.len() => break,
            _ => return None,
        }
    }
    let [
        kind,
        _,
        level,
        _,
        stage,
        uri,
        verb,
        user,
        impersonated,
        authentication,
        _,
        _,
        _,
        status,
        request_object,
        response_object,
        received,
        staged,
        annotations,
    ] = values;
    let has_kind = match kind {
        kind if kind == KIND.as_bytes() => true,
        [] => false,
        _ => return None,
    };
    if uri.is_empty() {
        return None;
    }
    let bytes = |name: &str, value: &[u8]| if value.is_empty() { 0 } else { member_bytes(name.len(), value.len()) };
    let request_object_bytes = bytes("requestObject", request_object);
    let response_object_bytes = bytes("responseObject", response_object);
    Some(Event {
        level: event::level(level)?,
        stage: event::stage(stage)?,
        verb,
        uri,
        user,
        annotations,
        request_object,
        response_object,
        request_object_bytes,
        response_object_bytes,
        time: event::time(staged).or_else(|| event::time(received)),
        bytes: line.len() as u64 + 1 + if has_kind { 0 } else { TYPE_BYTES },
        later_bytes: request_object_bytes
            + response_object_bytes
            + bytes("responseStatus", status)
            + bytes("annotations", annotations)
            + bytes("impersonatedUser", impersonated)
            + bytes("authenticationMetadata", authentication),
    })
}
