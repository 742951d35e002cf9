//! The size of an event under another policy.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, Judgement};
use crate::log::Scanned;
use crate::{Level, Stage};

/// The size and bodies of an event as the policy would have written it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct KeptEvent {
    pub bytes: u64,
    /// Whether the event may have a body that the log lacks.
    pub lacks_body: bool,
    /// Whether it keeps a body that could have managed fields.
    pub has_body: bool,
    pub has_managed_fields: bool,
}

/// Written only at `Request` and above (plugin/webhook/mutating/dispatcher.go#L439-L458).
const PATCH_ANNOTATION: &str = "patch.webhook.admission.k8s.io/";
/// The bodies were too large (plugin/pkg/audit/truncate/truncate.go#L74-L136).
const TRUNCATED: &str = "audit.k8s.io/truncated";

pub(super) fn kept(event: &Event, judgement: &Judgement, scanned: Option<Scanned>) -> KeptEvent {
    let mut bytes = event.bytes + level_bytes(judgement.level) - level_bytes(event.level);
    let mut lacks_body = false;
    if judgement.level != event.level {
        if judgement.level < Level::RequestResponse {
            bytes -= event.response_object_bytes;
        }
        if judgement.level < Level::Request {
            bytes -= event.request_object_bytes;
        }
        if judgement.level < Level::Request && event.level >= Level::Request {
            bytes -= annotation_bytes(event.annotations);
        }
        // An event of the first stage has no body.
        if judgement.level > event.level && event.stage != Stage::RequestReceived {
            lacks_body = judgement.may_have.request && event.level < Level::Request
                || judgement.may_have.response && judgement.level == Level::RequestResponse;
        }
    }
    if judgement.level >= Level::Request && event.level >= Level::Request {
        lacks_body |= memmem::find(event.annotations, TRUNCATED.as_bytes()).is_some();
    }
    let mut kept = KeptEvent { bytes, lacks_body, ..KeptEvent::default() };
    if judgement.level >= Level::Request && !judgement.may_have.is_patch {
        kept.body(event.request_object, judgement, || scanned?.managed_request_bytes());
    }
    if judgement.level >= Level::RequestResponse {
        kept.body(event.response_object, judgement, || scanned?.managed_response_bytes());
    }
    kept
}

impl KeptEvent {
    fn body(&mut self, body: &[u8], judgement: &Judgement, scanned: impl Fn() -> Option<u64>) {
        if body.is_empty() {
            return;
        }
        self.has_body = true;
        if self.has_managed_fields && !judgement.omits_managed_fields
            || memmem::find(body, b"\"managedFields\"").is_none()
        {
            return;
        }
        self.has_managed_fields = true;
        if judgement.omits_managed_fields {
            self.bytes -= scanned().unwrap_or_else(|| managed_bytes(body));
        }
    }
}

fn level_bytes(level: Level) -> u64 {
    match level {
        Level::None => 4,
        Level::Metadata => 8,
        Level::Request => 7,
        Level::RequestResponse => 15,
    }
}

/// Bytes of the annotations that an event at `Metadata` lacks.
fn annotation_bytes(annotations: &[u8]) -> u64 {
    let has = |name: &str| memmem::find(annotations, name.as_bytes()).is_some();
    if !has(PATCH_ANNOTATION) && !has(TRUNCATED) {
        return 0;
    }
    let Ok(all) = serde_json::from_slice::<BTreeMap<Cow<str>, &RawValue>>(annotations) else { return 0 };
    let is_gone = |name: &str| name.starts_with(PATCH_ANNOTATION) || name == TRUNCATED;
    let member = |(name, value): (&Cow<str>, &&RawValue)| (name.len() + value.get().len() + 4) as u64;
    let gone: u64 = all.iter().filter(|(name, _)| is_gone(name)).map(member).sum();
    // Without annotations the member is absent. Braces, and one comma less than annotations.
    if all.keys().all(|name| is_gone(name)) { gone + 1 + ("annotations".len() + 4) as u64 } else { gone }
}

/// The same result as the scan's, for any JSON.
fn managed_bytes(body: &[u8]) -> u64 {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, rename = "managedFields")]
        managed_fields: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        metadata: Option<Metadata<'a>>,
    }
    #[derive(Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        object: Option<Object<'a>>,
    }
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        items: Option<Vec<Object<'a>>>,
        #[serde(borrow)]
        rows: Option<Vec<Row<'a>>>,
    }
    // Other members stay, so the comma goes too.
    let of = |object: &Object| {
        let fields = object.metadata.as_ref().and_then(|metadata| metadata.managed_fields);
        fields.map_or(0, |fields| ("managedFields".len() + fields.get().len() + 4) as u64)
    };
    let own = serde_json::from_slice::<Object>(body).as_ref().map_or(0, of);
    let List { items, rows } = serde_json::from_slice(body).unwrap_or(List { items: None, rows: None });
    let items: u64 = items.iter().flatten().map(of).sum();
    let rows: u64 = rows.iter().flatten().filter_map(|row| row.object.as_ref()).map(of).sum();
    own + items + rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Reader;

    /// The result of the scan for this response.
    fn scanned(body: &str) -> Option<u64> {
        let start = r#"{"level":"RequestResponse","stage":"Panic","requestURI":"/","requestObject":{"metadata":{"managedFields":[]}}"#;
        let mut found = None;
        Reader::default().read(format!(r#"{start},"responseObject":{body}}}"#).as_bytes(), |_, scanned| {
            found = scanned.and_then(|scanned| scanned.managed_response_bytes());
        });
        found
    }

    #[test]
    fn managed_fields_go_with_name_and_comma_from_objects_lists_and_tables() {
        let fields = r#""managedFields":[{"a":"}"}],"#;
        let meta = |fields: &str| format!(r#""metadata":{{{fields}"name":"n"}}"#);
        for shape in [
            r#"{META,"spec":{"managedFields":[]}}"#,
            r#"{"items":[{META},{META}],"metadata":{}}"#,
            r#"{"rows":[{"cells":[],"object":{META}}]}"#,
        ] {
            let (with, without) = (shape.replace("META", &meta(fields)), shape.replace("META", &meta("")));
            assert_eq!(managed_bytes(with.as_bytes()) as usize, with.len() - without.len(), "{shape}");
            assert_eq!(scanned(&with).map(|bytes| bytes as usize), Some(with.len() - without.len()), "{shape}");
        }
        let none =
            r#"{"items":[1,"a",[2]],"a":{},"b":[],"c":null,"d":-1.5,"metadata":{"name":"managedFields","x":true}}"#;
        assert_eq!((managed_bytes(none.as_bytes()), scanned(none)), (0, Some(0)));
    }

    #[test]
    fn annotations_of_patches_go_below_request() {
        let one = r#""patch.webhook.admission.k8s.io/round_0_index_0":"{\"a\":1}""#;
        let other = r#""authorization.k8s.io/decision":"allow""#;
        assert_eq!(annotation_bytes(format!("{{{one},{other}}}").as_bytes()) as usize, one.len() + 1);
        assert_eq!(annotation_bytes(format!("{{{other}}}").as_bytes()), 0);
        let whole = format!("{{{one}}}");
        assert_eq!(annotation_bytes(whole.as_bytes()) as usize, format!(r#""annotations":{whole},"#).len());
    }
}
