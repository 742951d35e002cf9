//! An event in, its line out.

use std::borrow::Cow;
use std::fmt::{self, Write};

use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Format;
use super::metrics::EventLabels;

/// Longest text of one field in a summary. A client chooses some of them, a URI above all, and control characters grow
/// when they are written out.
const FIELD_MAX_BYTES: usize = 4096;

/// The fields of an event that a summary shows.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event<'a> {
    #[serde(borrow)]
    stage_timestamp: Cow<'a, str>,
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
    #[serde(borrow)]
    verb: Cow<'a, str>,
    #[serde(borrow)]
    user: User<'a>,
    #[serde(borrow, rename = "requestURI")]
    request_uri: Cow<'a, str>,
    response_status: Status,
    #[serde(borrow, rename = "auditID")]
    audit_id: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User<'a> {
    #[serde(borrow)]
    username: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Option<u16>,
}

/// The fields that events are counted by.
#[derive(Deserialize, Default)]
#[serde(default)]
struct LabelFields<'a> {
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    stage: Cow<'a, str>,
}

/// Appends the line of an event, with its line end, if the event is JSON. Returns the labels that it is counted by.
pub(super) fn push_line(lines: &mut String, event: &str, format: Format) -> serde_json::Result<EventLabels> {
    // To read some fields is to check the others: the event is parsed once.
    if format == Format::Summary
        && let Ok(event) = serde_json::from_str::<Event<'_>>(event)
    {
        writeln!(lines, "{}", Summary(&event)).expect("a String takes what is written");
        return Ok(EventLabels::new(&event.level, &event.stage));
    }
    let labels = match serde_json::from_str::<LabelFields<'_>>(event) {
        Ok(fields) => EventLabels::new(&fields.level, &fields.stage),
        // Not JSON, or fields of an unusual type.
        Err(_) => {
            serde_json::from_str::<IgnoredAny>(event)?;
            EventLabels::new("", "")
        }
    };
    // As it arrived, even if its form is unusual.
    push_whole(lines, event);
    Ok(labels)
}

fn push_whole(lines: &mut String, event: &str) {
    // Line ends in JSON are only between tokens: without them it is the same event.
    let mut rest = event;
    while let Some(at) = memchr2(b'\n', b'\r', rest.as_bytes()) {
        lines.push_str(&rest[..at]);
        lines.push(' ');
        rest = &rest[at + 1..];
    }
    lines.push_str(rest);
    lines.push('\n');
}

struct Summary<'a>(&'a Event<'a>);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary(event) = self;
        write!(
            f,
            "{} level={} stage={} verb={} user={} uri={} code=",
            Safe(&event.stage_timestamp),
            Safe(&event.level),
            Safe(&event.stage),
            Safe(&event.verb),
            Safe(&event.user.username),
            Safe(&event.request_uri),
        )?;
        match event.response_status.code {
            Some(code) => write!(f, "{code}")?,
            None => f.write_str("-")?,
        }
        write!(f, " auditID={}", Safe(&event.audit_id))
    }
}

/// A text from the client: it must not end the line or look like another field.
struct Safe<'a>(&'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Safe(text) = self;
        if text.len() > FIELD_MAX_BYTES {
            return write!(f, "{:?}…", &text[..text.floor_char_boundary(FIELD_MAX_BYTES)]);
        }
        let is_plain = if text.is_ascii() {
            text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
        } else {
            text.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '"')
        };
        if is_plain && !text.is_empty() { f.write_str(text) } else { write!(f, "{text:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/pods?limit=5","verb":"list",
        "user":{"username":"eve\nlevel=None"},"responseStatus":{"code":200},"stageTimestamp":"2026-11-21T00:00:00.000000Z"}"#;

    fn line(event: &str, format: Format) -> String {
        let mut lines = String::new();
        push_line(&mut lines, event, format).unwrap();
        lines
    }

    #[test]
    fn a_summary_is_one_line_whatever_a_client_puts_into_its_name() {
        assert_eq!(
            line(EVENT, Format::Summary),
            "2026-11-21T00:00:00.000000Z level=Metadata stage=ResponseComplete verb=list user=\"eve\\nlevel=None\" uri=/api/v1/pods?limit=5 code=200 auditID=a-1\n"
        );
        assert_eq!(line(EVENT, Format::Json), EVENT.replace('\n', " ") + "\n");
    }

    #[test]
    fn an_event_of_unusual_form_is_written_as_it_came_and_only_json_is() {
        for format in [Format::Summary, Format::Json] {
            // A type, a number and a text that no field of an event has.
            for (event, want) in [
                ("{\"level\":1,\r\n\"a\":2}", "{\"level\":1,  \"a\":2}\n"),
                (r#"{"responseStatus":{"code":1e999}}"#, "{\"responseStatus\":{\"code\":1e999}}\n"),
                (r#"{"verb":"\ud800"}"#, "{\"verb\":\"\\ud800\"}\n"),
                (r#"{"level":"a","level":"b"}"#, "{\"level\":\"a\",\"level\":\"b\"}\n"),
            ] {
                assert_eq!(line(event, format), want, "{format:?}");
            }
            let mut lines = String::new();
            for event in [r#"{"level":"a""b"}"#, r#"{"level":1,"a"}"#, r#"{"verb":[}]}"#, "{} {}"] {
                assert!(push_line(&mut lines, event, format).is_err(), "{event}");
            }
            assert_eq!(lines, "");
        }
    }

    #[test]
    fn a_text_is_quoted_unless_it_is_one_plain_word() {
        for (text, want) in [
            ("a%20b", "a%20b"),
            ("größe", "größe"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("a\u{7f}", "\"a\\u{7f}\""),
            ("ö\u{2028}", "\"ö\\u{2028}\""),
            ("a\"b", "\"a\\\"b\""),
        ] {
            assert_eq!(Safe(text).to_string(), want);
        }
    }

    #[test]
    fn a_field_that_is_very_long_is_cut() {
        let uri = "é".repeat(FIELD_MAX_BYTES);
        let line = line(&format!(r#"{{"requestURI":"{uri}"}}"#), Format::Summary);
        assert!(line.contains(&format!("uri=\"{}\"… code=-", "é".repeat(FIELD_MAX_BYTES / 2))), "{line}");
    }
}
