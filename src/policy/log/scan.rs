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

/// Where the strings, objects and lists of a line are; a bit a byte.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Quotes that begin or end a string.
    quotes: Vec<u64>,
    /// Brackets and braces outside of strings.
    opening: Vec<u64>,
    closing: Vec<u64>,
}

const BLOCK: usize = 64;

impl Marks {
    /// False where something is not as kube-apiserver writes it.
    fn mark(&mut self, line: &[u8]) -> bool {
        self.quotes.clear();
        self.opening.clear();
        self.closing.clear();
        let mut state = State::default();
        let (blocks, rest) = line.as_chunks::<BLOCK>();
        for block in blocks {
            self.block(block, &mut state);
        }
        if !rest.is_empty() {
            // Something that means nothing.
            let mut block = [b'_'; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            self.block(&block, &mut state);
        }
        let is_ascii = state.all.to_bitmask() == 0;
        state.in_string == 0
            && state.blanks == 0
            && state.control.to_bitmask() == 0
            && (is_ascii || str::from_utf8(line).is_ok())
    }

    #[inline]
    fn block(&mut self, block: &[u8; BLOCK], state: &mut State) {
        let (parts, _) = block.as_chunks::<16>();
        let parts: [u8x16; 4] = std::array::from_fn(|i| u8x16::new(parts[i]));
        let equal = |byte: u8| mask(parts.map(|part| part.simd_eq(u8x16::splat(byte))));
        let mut quotes = equal(b'"');
        let backslashes = equal(b'\\');
        if backslashes | state.escape != 0 {
            quotes &= !escaped(backslashes, &mut state.escape);
        }
        // Set from the opening quote up to before the closing one.
        let in_string = prefix_xor(quotes) ^ state.in_string;
        state.in_string = ((in_string as i64) >> 63) as u64;
        // `[` and `{` differ in one bit only, and so do `]` and `}`.
        let folded = parts.map(|part| part | u8x16::splat(0x20));
        let bracket = |byte: u8| mask(folded.map(|part| part.simd_eq(u8x16::splat(byte)))) & !in_string;
        self.quotes.push(quotes);
        self.opening.push(bracket(b'{'));
        self.closing.push(bracket(b'}'));
        state.blanks |= equal(b' ') & !in_string;
        for part in parts {
            state.all |= part;
            state.control |= part.min(u8x16::splat(0x1f)).simd_eq(part);
        }
    }

    /// The first quote at or after a position.
    #[inline]
    fn quote(&self, from: usize) -> Option<usize> {
        let mut word = from / BLOCK;
        let mut marks = self.quotes.get(word)? & (!0 << (from % BLOCK));
        while marks == 0 {
            word += 1;
            marks = *self.quotes.get(word)?;
        }
        Some(word * BLOCK + marks.trailing_zeros() as usize)
    }

    /// The end of the object or list that begins at a position: where its closing bracket is.
    #[inline]
    fn closing(&self, from: usize) -> Option<usize> {
        let mut depth = 0;
        let mut kept = !0 << (from % BLOCK);
        for (word, (opening, closing)) in self.opening.iter().zip(&self.closing).enumerate().skip(from / BLOCK) {
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

/// Members of which each may be there once.
#[derive(Clone, Copy)]
enum Member {
    Kind,
    Level,
    Stage,
    Uri,
    Verb,
    User,
    Annotations,
    RequestObject,
    ResponseObject,
    Received,
    Staged,
    ResponseStatus,
    ImpersonatedUser,
    AuthenticationMetadata,
    ApiVersion,
    AuditId,
    SourceIps,
    UserAgent,
    ObjectRef,
}

impl Member {
    #[inline]
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"kind" => Self::Kind,
            b"apiVersion" => Self::ApiVersion,
            b"level" => Self::Level,
            b"auditID" => Self::AuditId,
            b"stage" => Self::Stage,
            b"requestURI" => Self::Uri,
            b"verb" => Self::Verb,
            b"user" => Self::User,
            b"impersonatedUser" => Self::ImpersonatedUser,
            b"authenticationMetadata" => Self::AuthenticationMetadata,
            b"sourceIPs" => Self::SourceIps,
            b"userAgent" => Self::UserAgent,
            b"objectRef" => Self::ObjectRef,
            b"responseStatus" => Self::ResponseStatus,
            b"requestObject" => Self::RequestObject,
            b"responseObject" => Self::ResponseObject,
            b"requestReceivedTimestamp" => Self::Received,
            b"stageTimestamp" => Self::Staged,
            b"annotations" => Self::Annotations,
            // A name that is not known could be there twice.
            _ => return None,
        })
    }

    /// As [`event::is_later`] has it.
    #[inline]
    fn is_later(self) -> bool {
        matches!(
            self,
            Self::RequestObject
                | Self::ResponseObject
                | Self::ResponseStatus
                | Self::Annotations
                | Self::ImpersonatedUser
                | Self::AuthenticationMetadata
        )
    }
}

pub(super) fn scan<'a>(marks: &mut Marks, line: &'a [u8]) -> Option<Event<'a>> {
    if line.first() != Some(&b'{') || !marks.mark(line) {
        return None;
    }
    let mut values = [&line[..0]; Member::ObjectRef as usize + 1];
    let mut later_bytes = 0;
    let mut at = 1;
    loop {
        if line.get(at) != Some(&b'"') {
            return None;
        }
        let name_end = marks.quote(at + 1)?;
        let name = &line[at + 1..name_end];
        let member = Member::of(name)?;
        if line.get(name_end + 1) != Some(&b':') {
            return None;
        }
        let start = name_end + 2;
        let last = match line.get(start)? {
            b'"' => marks.quote(start + 1)?,
            b'{' | b'[' => marks.closing(start)?,
            _ => return None,
        };
        let value = &line[start..=last];
        let slot = &mut values[member as usize];
        if !slot.is_empty() {
            return None;
        }
        *slot = value;
        if member.is_later() {
            later_bytes += member_bytes(name.len(), value.len());
        }
        match line.get(last + 1)? {
            b',' => at = last + 2,
            b'}' if last + 2 == line.len() => break,
            _ => return None,
        }
    }
    let value = |member: Member| values[member as usize];
    let bytes_of = |member: Member, name: &str| match value(member) {
        [] => 0,
        value => member_bytes(name.len(), value.len()),
    };
    let uri = value(Member::Uri);
    let has_kind = match value(Member::Kind) {
        kind if kind == KIND.as_bytes() => true,
        [] => false,
        _ => return None,
    };
    if uri.is_empty() {
        return None;
    }
    Some(Event {
        level: event::level(value(Member::Level))?,
        stage: event::stage(value(Member::Stage))?,
        verb: value(Member::Verb),
        uri,
        user: value(Member::User),
        annotations: value(Member::Annotations),
        request_object: value(Member::RequestObject),
        response_object: value(Member::ResponseObject),
        request_object_bytes: bytes_of(Member::RequestObject, "requestObject"),
        response_object_bytes: bytes_of(Member::ResponseObject, "responseObject"),
        time: event::time(value(Member::Staged)).or_else(|| event::time(value(Member::Received))),
        bytes: line.len() as u64 + 1 + if has_kind { 0 } else { TYPE_BYTES },
        later_bytes,
    })
}
