//! Scans a line in kube-apiserver's own form for an event, without parsing the members that are not needed.
//!
//! Blocks of 64 bytes become bit masks, one bit for each byte: where strings begin and end, and, outside of strings,
//! objects and lists. The walk over the members of the event then jumps from mark to mark. A value that is not needed
//! is skipped: its strings are closed, its brackets balanced and its text is valid UTF-8, but its grammar is not
//! checked.
//!
//! The scan gives no result for an unusual line - blanks between tokens, control characters, a repeated name, an escape
//! in a name, a missing member - and the line is then parsed in full. A result is always the same as that of the
//! parser.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::event::{self, Event, KIND, TYPE_BYTES, member_bytes};

/// Where the strings, objects and lists of a line are.
#[derive(Debug, Default)]
pub(super) struct Marks {
    blocks: Vec<Block>,
}

/// 64 bytes of a line, one bit for each byte.
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
    /// False if the line is not in kube-apiserver's own form.
    fn mark(&mut self, line: &[u8]) -> bool {
        dispatch!(Level::new(), simd => self.mark_with(simd, line))
    }

    /// Uses the widest registers of the processor. All callees must be inlined to use them too, hence no iterator.
    #[inline(always)]
    fn mark_with<S: Simd>(&mut self, simd: S, line: &[u8]) -> bool {
        let mut state = State::new(simd);
        let (whole, rest) = line.as_chunks::<BLOCK>();
        self.blocks.clear();
        self.blocks.reserve(whole.len() + 1);
        for block in whole {
            self.blocks.push(state.block(simd, block));
        }
        if !rest.is_empty() {
            // Padding without a meaning.
            let mut block = [b'_'; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            self.blocks.push(state.block(simd, &block));
        }
        let is_ascii = state.all.simd_ge(0x80).to_bitmask() == 0;
        state.in_string == 0
            && state.blanks == 0
            && state.least.simd_lt(b' ').to_bitmask() == 0
            && (is_ascii || simdutf8::basic::from_utf8(line).is_ok())
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

    /// The closing bracket of the object or list that begins at a position.
    #[inline]
    fn closing(&self, from: usize) -> Option<usize> {
        let mut depth = 0;
        let mut kept = !0 << (from % BLOCK);
        for (word, Block { opening, closing, .. }) in self.blocks.iter().enumerate().skip(from / BLOCK) {
            let (opening, mut closing) = (opening & kept, closing & kept);
            kept = !0;
            // With fewer closing brackets than open ones, the end is not in this block.
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

/// A line that was scanned, for a closer look at the bodies in it.
#[derive(Clone, Copy, Debug)]
pub struct Scanned<'a> {
    marks: &'a Marks,
    line: &'a [u8],
    /// Start of each body; 0 if there is none.
    bodies: BodyStarts,
}

#[derive(Clone, Copy, Debug)]
struct BodyStarts {
    request: usize,
    response: usize,
}

impl Scanned<'_> {
    /// `managed_bytes` of the body of the request.
    pub fn managed_request_bytes(&self) -> Option<u64> {
        self.managed_bytes(self.bodies.request)
    }

    pub fn managed_response_bytes(&self) -> Option<u64> {
        self.managed_bytes(self.bodies.response)
    }

    /// Bytes of the managed fields in a body: of an object, of the items of a list, and of the objects in the rows of a
    /// table (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/request.go#L237-L275). `None`: the text is not
    /// in kube-apiserver's own form.
    fn managed_bytes(&self, body: usize) -> Option<u64> {
        let Self { marks, line, .. } = self;
        let mut bytes = 0;
        // Other members stay, so the comma goes too.
        let mut of_metadata = |at: usize| {
            marks.elements(line, at, |name, at, end| {
                if name == b"managedFields" {
                    bytes += member_bytes(name.len(), end - at);
                }
                Some(())
            })
        };
        marks.elements(line, body, |name, at, _| match name {
            b"metadata" => of_metadata(at),
            b"items" => marks.elements(line, at, |_, at, _| {
                marks.elements(line, at, |name, at, _| if name == b"metadata" { of_metadata(at) } else { Some(()) })
            }),
            b"rows" => marks.elements(line, at, |_, at, _| {
                marks.elements(line, at, |name, at, _| match name {
                    b"object" => marks.elements(
                        line,
                        at,
                        |name, at, _| {
                            if name == b"metadata" { of_metadata(at) } else { Some(()) }
                        },
                    ),
                    _ => Some(()),
                })
            }),
            _ => Some(()),
        })?;
        Some(bytes)
    }
}

impl Marks {
    /// Visits the values directly in an object or a list: name (empty in a list), start and end. Other values contain
    /// nothing.
    fn elements<'a>(
        &self,
        text: &'a [u8],
        at: usize,
        mut visit: impl FnMut(&'a [u8], usize, usize) -> Option<()>,
    ) -> Option<()> {
        let (is_object, end) = match text.get(at)? {
            b'{' => (true, b'}'),
            b'[' => (false, b']'),
            _ => return Some(()),
        };
        let mut next = at + 1;
        if *text.get(next)? == end {
            return Some(());
        }
        loop {
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
            match *text.get(last + 1)? {
                b',' => next = last + 2,
                found => return (found == end).then_some(()),
            }
        }
    }
}

/// State that one block hands to the next.
struct State<S: Simd> {
    /// All ones within a string.
    in_string: u64,
    /// 1 if the last byte of the previous block escapes the first one of this block.
    escape: u64,
    blanks: u64,
    /// At each position, the least of all bytes, and the bits of all bytes.
    least: u8x64<S>,
    all: u8x64<S>,
}

impl<S: Simd> State<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self { in_string: 0, escape: 0, blanks: 0, least: u8x64::splat(simd, 0xff), all: u8x64::splat(simd, 0) }
    }

    #[inline(always)]
    fn block(&mut self, simd: S, block: &[u8; BLOCK]) -> Block {
        let bytes = u8x64::from_slice(simd, block);
        let mut quotes = bytes.simd_eq(b'"').to_bitmask();
        let backslashes = bytes.simd_eq(b'\\').to_bitmask();
        if backslashes | self.escape != 0 {
            quotes &= !escaped(backslashes, &mut self.escape);
        }
        // Set from the opening quote up to before the closing one.
        let in_string = prefix_xor(quotes) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        self.blanks |= bytes.simd_eq(b' ').to_bitmask() & !in_string;
        self.least = self.least.min(bytes);
        self.all |= bytes;
        // `[` and `{` differ in one bit only, and so do `]` and `}`.
        let folded = bytes | 0x20;
        Block {
            quotes,
            opening: folded.simd_eq(b'{').to_bitmask() & !in_string,
            closing: folded.simd_eq(b'}').to_bitmask() & !in_string,
        }
    }
}

/// Bytes after a backslash that is not escaped itself (simdjson's find_escaped).
#[inline(always)]
fn escaped(backslashes: u64, escape: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslashes = backslashes & !*escape;
    let follows = backslashes << 1 | *escape;
    let odd_starts = backslashes & !EVEN & !follows;
    let (runs, carry) = odd_starts.overflowing_add(backslashes);
    *escape = u64::from(carry);
    (EVEN ^ (runs << 1)) & follows
}

#[inline(always)]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// Members in the order in which kube-apiserver writes them (audit/v1/types.go#L71-L153), each with its beginning. Not
/// all are needed, but a member that is not listed could be repeated unnoticed.
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

/// Index of the body of the request; that of the response follows.
const REQUEST_OBJECT: usize = 14;

/// The member that begins here, most likely the next one in the order.
#[inline]
fn member(text: &[u8], next: usize) -> Option<usize> {
    let found = MEMBERS[next..].iter().position(|member| text.starts_with(member)).map(|at| next + at);
    found.or_else(|| MEMBERS[..next].iter().position(|member| text.starts_with(member)))
}

pub(super) fn scan<'a, 'm>(marks: &'m mut Marks, line: &'a [u8]) -> Option<(Event<'a>, Scanned<'m>)>
where
    'a: 'm,
{
    if line.first() != Some(&b'{') || !marks.mark(line) {
        return None;
    }
    let marks = &*marks;
    let mut values = [&line[..0]; MEMBERS.len()];
    let mut starts = [0; MEMBERS.len()];
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
        starts[member] = start;
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
    let event = Event {
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
    };
    let bodies = BodyStarts { request: starts[REQUEST_OBJECT], response: starts[REQUEST_OBJECT + 1] };
    Some((event, Scanned { marks, line, bodies }))
}
