//! An Event with the members that replay needs, and the full parser.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go#L71-L153. Names are
//! case-sensitive, and of equal names the last one counts, as the API machinery reads JSON (sigs.k8s.io/json).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::{Level, Stage};

/// One event of a log. JSON texts are slices of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub level: Level,
    pub stage: Stage,
    /// JSON texts; empty if absent.
    pub verb: &'a [u8],
    pub uri: &'a [u8],
    /// The authenticated user. The policy decides before impersonation (server/config.go#L1064).
    pub user: &'a [u8],
    pub annotations: &'a [u8],
    pub request_object: &'a [u8],
    pub response_object: &'a [u8],
    /// Bytes that an event without this body saves.
    pub request_object_bytes: u64,
    pub response_object_bytes: u64,
    /// When the event was written, in seconds since 1970. `None`: it contains no time.
    pub time: Option<i64>,
    /// Size as a line of a log: without insignificant blanks, with `kind`, `apiVersion` and the line end.
    pub bytes: u64,
    /// The part of it that the first event of the same request cannot have: bodies, status, annotations, impersonation.
    pub later_bytes: u64,
}

/// Why a line or an event cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("{0}")]
    NoJson(String),
    #[error("not an audit event: {0}")]
    NoEvent(&'static str),
    #[error("{0} NUL bytes")]
    Nul(usize),
    #[error("an event in the legacy format, which lacks the necessary fields")]
    Legacy,
    #[error("the request URI cannot be read: {0}")]
    Uri(String),
    #[error("the user cannot be read: {0}")]
    User(String),
}

/// The kind of an event, as a JSON text.
pub(super) const KIND: &str = "\"Event\"";
/// `"kind":"Event","apiVersion":"audit.k8s.io/v1",`, which items of an EventList lack.
pub(super) const TYPE_BYTES: u64 = 46;

pub(super) fn level(text: &[u8]) -> Option<Level> {
    Some(match text {
        b"\"Metadata\"" => Level::Metadata,
        b"\"Request\"" => Level::Request,
        b"\"RequestResponse\"" => Level::RequestResponse,
        b"\"None\"" => Level::None,
        _ => return None,
    })
}

pub(super) fn stage(text: &[u8]) -> Option<Stage> {
    Some(match text {
        b"\"RequestReceived\"" => Stage::RequestReceived,
        b"\"ResponseStarted\"" => Stage::ResponseStarted,
        b"\"ResponseComplete\"" => Stage::ResponseComplete,
        b"\"Panic\"" => Stage::Panic,
        _ => return None,
    })
}

/// Members that an event of the stage `RequestReceived` lacks.
pub(super) fn is_later(name: &[u8]) -> bool {
    matches!(
        name,
        b"requestObject"
            | b"responseObject"
            | b"responseStatus"
            | b"annotations"
            | b"impersonatedUser"
            | b"authenticationMetadata"
    )
}

/// Bytes of a member with its name, colon and comma.
pub(super) fn member_bytes(name: usize, value: usize) -> u64 {
    (name + value + 4) as u64
}

/// Parses any JSON text of an event. If the scan gives a result, it is the same.
pub(super) fn parse(line: &[u8]) -> Result<Event<'_>, Damage> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(line).map_err(|error| damage_of(line, &error))?;
    let text = |name: &str| members.get(name).map_or("", |value| value.get()).trim();
    let present = |name: &str| Some(text(name)).filter(|text| *text != "null").unwrap_or_default().as_bytes();
    // kube-apiserver writes no escapes in these, but they are read.
    let plain = |name: &str| {
        let value: Option<String> = serde_json::from_str(text(name)).ok();
        value.map(|value| format!("\"{value}\"")).unwrap_or_default()
    };
    let has_kind = !present("kind").is_empty();
    if has_kind && plain("kind") != KIND {
        return Err(Damage::NoEvent("the object has another kind"));
    }
    let level = level(plain("level").as_bytes()).ok_or(Damage::NoEvent("unknown or missing level"))?;
    let stage = stage(plain("stage").as_bytes()).ok_or(Damage::NoEvent("unknown or missing stage"))?;
    let uri = present("requestURI");
    if uri.is_empty() {
        return Err(Damage::NoEvent("no requestURI"));
    }
    let time = ["stageTimestamp", "requestReceivedTimestamp"].into_iter().find_map(|name| time(present(name)));
    // Braces, line end, and one comma less than members.
    let mut bytes = 2;
    let mut later_bytes = 0;
    let [mut request_object_bytes, mut response_object_bytes] = [0; 2];
    for (name, value) in &members {
        let name_bytes = serde_json::to_string(name).expect("a string is JSON").len() - 2;
        let member = member_bytes(name_bytes, compact(value.get().as_bytes()));
        bytes += member;
        if is_later(name.as_bytes()) {
            later_bytes += member;
        }
        match name.as_str() {
            "requestObject" => request_object_bytes = member,
            "responseObject" => response_object_bytes = member,
            _ => {}
        }
    }
    Ok(Event {
        level,
        stage,
        verb: present("verb"),
        uri,
        user: present("user"),
        annotations: present("annotations"),
        request_object: present("requestObject"),
        response_object: present("responseObject"),
        request_object_bytes,
        response_object_bytes,
        time,
        bytes: bytes + if has_kind { 0 } else { TYPE_BYTES },
        later_bytes,
    })
}

fn damage_of(line: &[u8], error: &serde_json::Error) -> Damage {
    let nuls = line.iter().filter(|b| **b == 0).count();
    if nuls > 0 {
        return Damage::Nul(nuls);
    }
    // kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/format.go#L30-L64
    if memchr::memmem::find(line, b" AUDIT: id=\"").is_some() {
        return Damage::Legacy;
    }
    if error.is_eof() {
        return Damage::NoJson(format!("cut off after {} bytes", line.len()));
    }
    // serde_json's line is always the first.
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    Damage::NoJson(format!("not JSON: {what} at column {}", error.column()))
}

/// Length of a JSON text without the blanks between its tokens.
pub(super) fn compact(text: &[u8]) -> usize {
    let mut length = text.len();
    let mut rest = text;
    // Up to the next string.
    while let Some(quote) = memchr::memchr(b'"', rest) {
        length -= rest[..quote].iter().filter(|b| b.is_ascii_whitespace()).count();
        rest = &rest[quote + 1..];
        while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
            let is_end = rest[at] == b'"';
            rest = rest.get(at + if is_end { 1 } else { 2 }..).unwrap_or_default();
            if is_end {
                break;
            }
        }
    }
    length - rest.iter().filter(|b| b.is_ascii_whitespace()).count()
}

/// Seconds since 1970 of a timestamp in quotes.
pub(super) fn time(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    micro_time(text).or_else(|| Some(str::from_utf8(text).ok()?.parse::<Timestamp>().ok()?.as_second()))
}

/// `2006-01-02T15:04:05.000000Z`, the form in which kube-apiserver writes it.
fn micro_time(text: &[u8]) -> Option<i64> {
    let text: &[u8; 27] = text.try_into().ok()?;
    let number = |range: std::ops::Range<usize>| {
        text[range].iter().try_fold(0, |sum: i64, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
    };
    let is_form = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    if !is_form.into_iter().all(|(at, b)| text[at] == b) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    number(20..26)?;
    // Rare times are left to the calendar: ends of months, leap seconds.
    if year < 1970 || !(1..=12).contains(&month) || !(1..=28).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    // Days since 1970, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_the_calendar_has_it() {
        for year in [1970, 1999, 2000, 2024, 2026, 2100, 2399] {
            for (month, day) in [(1, 1), (2, 28), (2, 29), (3, 1), (12, 31), (7, 14), (13, 1)] {
                for rest in ["T00:00:00.000000Z", "T23:59:59.999999Z", "T12:30:15Z", "T24:00:00.000000Z", "t1", ""] {
                    let text = format!("{year}-{month:02}-{day:02}{rest}");
                    let want = text.parse::<Timestamp>().ok().map(|time| time.as_second());
                    assert_eq!(time(format!("\"{text}\"").as_bytes()), want, "{text}");
                }
            }
        }
        assert_eq!(time(b"\"2026-11-21T08:30:22.000000+01:00\""), time(b"\"2026-11-21T07:30:22.000000Z\""));
        assert_eq!(time(b"12"), None);
    }

    #[test]
    fn blanks_between_tokens_have_no_bytes() {
        for (text, want) in [("{ \"a b\" : [ 1 , \"c \\\" d\" ]\n}", r#"{"a b":[1,"c \" d"]}"#), (" 1 ", "1"), ("", "")]
        {
            assert_eq!(compact(text.as_bytes()), want.len(), "{text}");
        }
    }

    #[test]
    fn the_type_of_an_event_has_its_length() {
        assert_eq!(TYPE_BYTES as usize, r#""kind":"Event","apiVersion":"audit.k8s.io/v1","#.len());
    }
}
