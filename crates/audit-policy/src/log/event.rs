//! An Event, with what replay needs of it, and how it is found by parsing all of it.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/apis/audit/v1/types.go#L71-L153. Names are compared as they are
//! written, and of members with the same name the last one counts, as the API machinery reads JSON (sigs.k8s.io/json).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::{Level, Stage};

/// One event of a log. What is a JSON text here is as it stands in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    pub level: Level,
    pub stage: Stage,
    /// JSON texts; empty where absent.
    pub verb: &'a [u8],
    pub uri: &'a [u8],
    /// Who was authenticated; nobody is impersonated yet when the policy is asked (server/config.go#L1064).
    pub user: &'a [u8],
    pub annotations: &'a [u8],
    pub request_object: &'a [u8],
    pub response_object: &'a [u8],
    /// Bytes that go if a body is not written.
    pub request_object_bytes: u64,
    pub response_object_bytes: u64,
    /// When it was written, in seconds since 1970; none where there is no time in it.
    pub time: Option<i64>,
    /// As a line of a log: without insignificant blanks, with `kind` and `apiVersion`, and with the end of the line.
    pub bytes: u64,
    /// Of these, what the first stage of the same request cannot have: bodies, the outcome, annotations, impersonation.
    pub later_bytes: u64,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("{0}")]
    NoJson(String),
    #[error("not an audit event: {0}")]
    NoEvent(&'static str),
    #[error("{0} NUL bytes")]
    Nul(usize),
    #[error("an event in the legacy format, which has too few fields")]
    Legacy,
    #[error("the request URI cannot be read: {0}")]
    Uri(String),
    #[error("the user cannot be read: {0}")]
    User(String),
}

/// The members of an event that matter, by name.
pub(super) const KIND: &str = "\"Event\"";
/// `"kind":"Event","apiVersion":"audit.k8s.io/v1",`, which items of an EventList do not have.
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

/// Members that an event of the stage `RequestReceived` does not have.
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

/// An event from any JSON text of one. The scan must give the same wherever it gives something.
pub(super) fn parse(line: &[u8]) -> Result<Event<'_>, Damage> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(line).map_err(|error| damage_of(line, &error))?;
    let text = |name: &str| members.get(name).map_or("", |value| value.get()).trim();
    let present = |name: &str| Some(text(name)).filter(|text| *text != "null").unwrap_or_default().as_bytes();
    // Escapes in these are read, though kube-apiserver writes none.
    let plain = |name: &str| {
        let value: Option<String> = serde_json::from_str(text(name)).ok();
        value.map(|value| format!("\"{value}\"")).unwrap_or_default()
    };
    let has_kind = !present("kind").is_empty();
    if has_kind && plain("kind") != KIND {
        return Err(Damage::NoEvent("an object of another kind"));
    }
    let level = level(plain("level").as_bytes()).ok_or(Damage::NoEvent("an unknown level"))?;
    let stage = stage(plain("stage").as_bytes()).ok_or(Damage::NoEvent("an unknown stage"))?;
    let uri = present("requestURI");
    if uri.is_empty() {
        return Err(Damage::NoEvent("no requestURI"));
    }
    let time = ["stageTimestamp", "requestReceivedTimestamp"].into_iter().find_map(|name| time(present(name)));
    // Braces, the end of the line, and one comma less than there are members.
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
    // The line that serde_json counts is always the first.
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    Damage::NoJson(format!("not JSON: {what} at column {}", error.column()))
}

/// Length of a JSON text without the blanks between its tokens.
pub(super) fn compact(text: &[u8]) -> usize {
    let mut length = text.len();
    let mut rest = text;
    // Outside of strings, up to the next one.
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
    // What is rare is for the calendar to judge: the ends of months, leap seconds.
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
