//! Audit logs: lines to events, and events to the original requests.
//!
//! [`Reader::read`] reads a line. An Event in the form that kube-apiserver writes is only scanned for the needed
//! members (`scan`); any other text is parsed in full (`event`), with the same result. [`Memo`] remembers a result for
//! each request, because clusters repeat the same requests. Nothing here keeps more than one line.

mod event;
mod memo;
mod request;
mod scan;

pub use event::{Damage, Event};
pub use memo::Memo;
pub use request::{Request, method_of};
use scan::Marks;
pub use scan::Scanned;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Reads lines of a log, and reuses its buffers.
#[derive(Debug, Default)]
pub struct Reader {
    marks: Marks,
}

/// An `EventList`, as kube-apiserver sends it to a webhook.
#[derive(Deserialize)]
struct List<'a> {
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

impl Reader {
    /// Visits the events of one line, which is an Event or an EventList. Each is an event or its damage, with its scan
    /// if it was not parsed in full.
    pub fn read<'a>(&mut self, line: &'a [u8], mut each: impl FnMut(Result<Event<'a>, Damage>, Option<Scanned>)) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some((event, scanned)) = scan::scan(&mut self.marks, line) {
            return each(Ok(event), Some(scanned));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match event::parse(line) {
            // An EventList has no stage and no level either.
            Err(Damage::NoEvent(_)) => match serde_json::from_slice(line) {
                Ok(List { kind, items }) if kind == "EventList" => {
                    for item in items.unwrap_or_default() {
                        let item = item.get().as_bytes();
                        match scan::scan(&mut self.marks, item) {
                            Some((event, scanned)) => each(Ok(event), Some(scanned)),
                            None => each(event::parse(item), None),
                        }
                    }
                }
                _ => each(event::parse(line), None),
            },
            read => each(read, None),
        }
    }
}

#[cfg(test)]
mod tests;
