//! An event in, its line out.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Format;

/// A batch, as far as it is looked into.
#[derive(Deserialize)]
pub(super) struct EventList<'a> {
    #[serde(default)]
    pub(super) kind: &'a str,
    #[serde(default, rename = "apiVersion")]
    pub(super) api_version: &'a str,
    #[serde(borrow)]
    pub(super) items: Vec<&'a RawValue>,
}

/// The fields of an event that a summary shows.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    stage_timestamp: String,
    level: String,
    stage: String,
    verb: String,
    user: User,
    #[serde(rename = "requestURI")]
    request_uri: String,
    response_status: Status,
    #[serde(rename = "auditID")]
    audit_id: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    code: Option<u16>,
}

/// Some lines, and how many.
pub(super) struct Piece {
    pub(super) lines: String,
    pub(super) events: u64,
}

/// The lines of a batch, in their order, in pieces of about `bytes`.
pub(super) fn pieces(body: &[u8], format: Format, bytes: usize) -> impl Iterator<Item = Piece> {
    let list: EventList<'_> = serde_json::from_slice(body).expect("it was read when it was taken");
    let mut events = list.items.into_iter().peekable();
    std::iter::from_fn(move || {
        events.peek()?;
        let mut piece = Piece { lines: String::new(), events: 0 };
        while piece.lines.len() < bytes
            && let Some(event) = events.next()
        {
            piece.lines.push_str(&line(event, format));
            piece.events += 1;
        }
        Some(piece)
    })
}

fn line(event: &RawValue, format: Format) -> String {
    // Line ends in JSON can only stand between tokens: without them it is the same event.
    let whole = || format!("{}\n", event.get().replace(['\n', '\r'], " "));
    if format == Format::Json {
        return whole();
    }
    let Ok(event) = serde_json::from_str::<Event>(event.get()) else { return whole() };
    let code = event.response_status.code.map_or_else(|| "-".to_string(), |code| code.to_string());
    format!(
        "{} level={} stage={} verb={} user={} uri={} code={code} auditID={}\n",
        safe(&event.stage_timestamp),
        safe(&event.level),
        safe(&event.stage),
        safe(&event.verb),
        safe(&event.user.username),
        safe(&event.request_uri),
        safe(&event.audit_id)
    )
}

/// Whoever makes a request chooses some of these texts: none may end the line or pretend to be another field.
fn safe(text: &str) -> String {
    let is_plain = !text.is_empty() && text.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '"');
    if is_plain { text.to_string() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"level":"Metadata","auditID":"a-1","stage":"ResponseComplete","requestURI":"/api/v1/pods?limit=5","verb":"list",
        "user":{"username":"eve\nlevel=None"},"responseStatus":{"code":200},"stageTimestamp":"2026-11-21T00:00:00.000000Z"}"#;

    #[test]
    fn a_summary_is_one_line_whatever_a_client_puts_into_its_name() {
        let event: &RawValue = serde_json::from_str(EVENT).unwrap();
        assert_eq!(
            line(event, Format::Summary),
            "2026-11-21T00:00:00.000000Z level=Metadata stage=ResponseComplete verb=list user=\"eve\\nlevel=None\" uri=/api/v1/pods?limit=5 code=200 auditID=a-1\n"
        );
        assert_eq!(line(event, Format::Json).matches('\n').count(), 1);
    }
}
