//! The expected events of a request, and the differences from the recorded ones.
//!
//! The policy engine decides whether there are events, at which level, without which stages and with which object. The
//! rest of an event follows from the answer of kube-apiserver; the run that records everything shows what it can
//! record.

use audit_operator::api::{Level, Stage};
use audit_policy::{Attributes, Evaluator, User, attributes};
use serde_json::{Value, json};

use crate::exchange::Answer;
use crate::script::Request;

/// The policy engine's decision on a request, or the reason why it is answered before auditing.
pub type Verdict = Result<Audited, String>;

#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    pub attributes: Attributes<'static>,
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
    pub rule: Option<usize>,
}

/// By the library.
pub fn verdict(request: &Request, evaluator: &Evaluator) -> Verdict {
    let mut attributes = attributes(&request.method, &request.target).map_err(|why| why.to_string())?;
    attributes.user = user(request, &attributes);
    let decision = evaluator.decide(&attributes);
    Ok(Audited {
        level: decision.level,
        omit_stages: decision.omit_stages.to_vec(),
        omit_managed_fields: decision.omit_managed_fields,
        rule: decision.rule,
        attributes,
    })
}

/// As the policy sees it: a request with a timeout that cannot be read is refused before anybody asks who sent it
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/filters/request_deadline.go#L64-L80).
pub fn user(request: &Request, attributes: &Attributes) -> Option<User<'static>> {
    if has_bad_timeout(request) && !is_long_running(attributes) { None } else { request.identity.user() }
}

/// The first `timeout` of the query counts; pairs that net/url cannot read are none.
fn has_bad_timeout(request: &Request) -> bool {
    let Some((_, query)) = request.target.split_once('?') else { return false };
    let mut pairs = query.split('&').filter(|pair| !pair.contains(';')).filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((unescape(key)?, unescape(value)?))
    });
    let value = pairs.find(|(key, _)| key == b"timeout").map(|(_, value)| value).unwrap_or_default();
    !value.is_empty() && !is_duration(&String::from_utf8_lossy(&value))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.replace('+', " ").into_bytes();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        out.extend(part[2..].replace('+', " ").into_bytes());
    }
    Some(out)
}

/// As Go's `time.ParseDuration` takes it: a sign, then numbers with units, or nothing but `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let mut is_any = false;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, behind) = rest.split_at(number);
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"].iter().find_map(|unit| behind.strip_prefix(unit));
        let (Some(behind), Ok(_)) = (unit, number.parse::<f64>()) else { return false };
        (rest, is_any) = (behind, true);
    }
    is_any
}

/// Whether the answer is a stream: for an authenticated client its beginning is an event.
fn is_long_running(attributes: &Attributes) -> bool {
    let asked = Attributes { user: Some(User::default()), ..attributes.clone() };
    audit_policy::stages(&asked).contains(&Stage::ResponseStarted)
}

/// Whether the events of a request's answer are lost: from the level Request on, kube-apiserver holds a patch as it was
/// sent for the JSON of its event, and then cannot write the event when the patch is none: a YAML apply that succeeds,
/// or a broken patch (endpoints/handlers/patch.go#L133, pkg/audit/context.go#L178-L185,
/// plugin/pkg/audit/log/backend.go#L68-L78). 1.37 refuses or converts such a patch first
/// (kubernetes/kubernetes#139419).
fn is_lost(seen: &Exchange, attributes: &Attributes, level: Level) -> bool {
    let is_patch = seen.request.headers.iter().any(|(name, value)| *name == "Content-Type" && value.contains("patch"));
    let is_read = !matches!(seen.answer.status, Some(401 | 403 | 415));
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&seen.request.body).is_ok();
    *attributes.verb == *"patch" && level >= Level::Request && is_patch && is_read && !is_json
}

/// One request, its answer and its events.
pub struct Exchange<'a> {
    pub request: &'a Request,
    pub answer: &'a Answer,
    pub events: &'a [Value],
}

/// The stages that there must be events of.
pub fn stages(seen: &Exchange, verdict: &Verdict) -> Vec<Stage> {
    let Ok(Audited { attributes, level, omit_stages, .. }) = verdict else { return Vec::new() };
    let is_lost = is_lost(seen, attributes, *level);
    let is_there = |stage: &&Stage| {
        *level != Level::None && !omit_stages.contains(stage) && (!is_lost || **stage == Stage::RequestReceived)
    };
    audit_policy::stages(attributes).iter().filter(is_there).copied().collect()
}

/// What is different from the verdict. `full` is the same request in the run that records everything.
pub fn differences(seen: &Exchange, verdict: &Verdict, full: Option<&Exchange>) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: &str, expected: Value, seen: Value| {
        if expected != seen {
            found.push(format!("{what}: expected {expected}, seen {seen}"));
        }
    };
    let expected: Value = stages(seen, verdict).iter().map(|stage| format!("{stage:?}")).collect();
    compare("stages", expected, seen.events.iter().map(|event| event["stage"].clone()).collect());
    if let Some(full) = full {
        compare("status, as where everything is recorded", full.answer.status.into(), seen.answer.status.into());
    }
    let Ok(Audited { attributes, level, omit_managed_fields, .. }) = verdict else {
        // net/http or an early filter has answered.
        let status = seen.answer.status;
        let is_refused = status.is_none_or(|status| status >= 400) || seen.request.target == "*";
        compare("refused", true.into(), is_refused.into());
        return found;
    };
    for event in seen.events {
        let stage = event["stage"].as_str().unwrap_or_default().to_string();
        let mut compare =
            |what: &str, expected: Value, seen: Value| compare(&format!("{stage}: {what}"), expected, seen);
        let is_received = stage == "RequestReceived";
        compare("level", format!("{level:?}").into(), event["level"].clone());
        compare("verb", (&*attributes.verb).into(), event["verb"].clone());
        let user = &event["user"];
        compare("user", shown_user(attributes), json!([user["username"], user["groups"]]));
        let full_event = full.and_then(|full| full.events.last()).unwrap_or(event);
        let sent = &full_event["requestObject"];
        compare("objectRef", object_ref(attributes, (!is_received).then_some(sent)), shown_ref(&event["objectRef"]));
        let has_status = !is_received && seen.answer.status.is_some();
        if has_status {
            compare("status", seen.answer.status.into(), event["responseStatus"]["code"].clone());
        }
        // Bodies come with the answer, and only where the server has them.
        for (body, from) in [("requestObject", Level::Request), ("responseObject", Level::RequestResponse)] {
            let there = &full_event[body];
            let is_recorded = !is_received && *level >= from && !there.is_null();
            compare(&format!("has {body}"), is_recorded.into(), (!event[body].is_null()).into());
            // A patch is recorded as it was sent (endpoints/handlers/patch.go#L133).
            let is_omitted = *omit_managed_fields && !(body == "requestObject" && *attributes.verb == *"patch");
            let has_managers = is_recorded && has_managed_fields(there) && !is_omitted;
            compare(&format!("{body} has managedFields"), has_managers.into(), has_managed_fields(&event[body]).into());
        }
        if !is_received && *level >= Level::Request {
            let is_patch = *attributes.verb == *"patch";
            let expected = if *omit_managed_fields && !is_patch { without_managed_fields(sent) } else { sent.clone() };
            compare("requestObject", expected, event["requestObject"].clone());
        }
    }
    found
}

/// In the run that records everything: bodies are where the documentation has them.
pub fn undocumented(seen: &Exchange, verdict: &Verdict) -> Vec<String> {
    let (Ok(Audited { attributes, .. }), Some(event)) = (verdict, seen.events.last()) else { return Vec::new() };
    let has = |body: &str| !event[body].is_null();
    let is_good = seen.answer.status.is_some_and(|status| (200..300).contains(&status));
    let is_write = matches!(&*attributes.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    let is_handled = attributes.is_resource_request
        && !is_long_running(attributes)
        && *attributes.api_group != *"absent.example.com";
    let mut found = Vec::new();
    // The lists of groups, versions and resources are objects, though of no resource (endpoints/discovery).
    let is_discovery = !attributes.is_resource_request
        && ["/api", "/apis"].iter().any(|root| {
            attributes.path.trim_end_matches('/') == *root || attributes.path.starts_with(&format!("{root}/"))
        });
    let has_body = !seen.request.body.is_empty();
    let is_lost = is_lost(seen, attributes, Level::RequestResponse);
    if has("requestObject") && !(is_write && is_handled && has_body && attributes.user.is_some()) {
        found.push("a requestObject where none can be".to_string());
    }
    if is_good && is_write && is_handled && has_body && !is_lost && !has("requestObject") {
        found.push("no requestObject of a write that was carried out".to_string());
    }
    if is_good && (is_handled || is_discovery) && !is_lost && !has("responseObject") {
        found.push("no responseObject of an answer with one".to_string());
    }
    if is_good && !is_handled && !is_discovery && has("responseObject") {
        found.push("a responseObject of a stream, a proxied answer or plain text".to_string());
    }
    found
}

/// Compares an event of a request that the server made to itself: the policy engine must record it in the same way.
/// `None`: the event does not show the method.
pub fn own_difference(event: &Value, evaluator: &Evaluator) -> Option<Result<(), String>> {
    let text = |field: &str| event[field].as_str().unwrap_or_default();
    let is_resource = !event["objectRef"].is_null();
    let method = match text("verb") {
        "get" | "list" | "watch" => "GET".to_string(),
        "create" if is_resource => "POST".to_string(),
        "update" if is_resource => "PUT".to_string(),
        "deletecollection" => "DELETE".to_string(),
        "" => return None,
        verb => verb.to_ascii_uppercase(),
    };
    let mut attributes = match attributes(&method, text("requestURI")) {
        Ok(attributes) => attributes,
        Err(why) => return Some(Err(format!("{event}\nis not audited: {why}"))),
    };
    let groups = event["user"]["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let groups = groups.map(|group| group.to_string().into()).collect();
    attributes.user = event["user"]["username"].as_str().map(|name| User { name: name.to_string().into(), groups });
    let decision = evaluator.decide(&attributes);
    let is_omitted = decision.omit_stages.iter().any(|stage| format!("{stage:?}") == text("stage"));
    let is_same = format!("{:?}", decision.level) == text("level") && !is_omitted;
    Some(if is_same { Ok(()) } else { Err(format!("{event}\n{attributes:?}\n{decision:?}")) })
}

fn shown_user(attributes: &Attributes) -> Value {
    match &attributes.user {
        None => json!([null, null]),
        Some(user) => {
            let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
            json!([&*user.name, groups])
        }
    }
}

/// Empty fields are left out. `sent` is the decoded body, from which kube-apiserver takes what the path does not tell
/// (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/request.go#L124-L152); but for a patch, and for options
/// that have no metadata.
fn object_ref(attributes: &Attributes, sent: Option<&Value>) -> Value {
    if !attributes.is_resource_request {
        return Value::Null;
    }
    let is_object = matches!(&*attributes.verb, "create" | "update");
    let metadata = sent.filter(|_| is_object).map(|sent| &sent["metadata"]);
    let of_body = |field: &str| metadata.and_then(|metadata| metadata[field].as_str()).unwrap_or_default().to_string();
    let or_body = |text: &str, field: &str| if text.is_empty() { of_body(field) } else { text.to_string() };
    let fields = [
        ("resource", attributes.resource.to_string()),
        ("subresource", attributes.subresource.to_string()),
        ("apiGroup", attributes.api_group.to_string()),
        ("apiVersion", attributes.api_version.to_string()),
        ("namespace", or_body(&attributes.namespace, "namespace")),
        ("name", or_body(&attributes.name, "name")),
        ("uid", of_body("uid")),
        ("resourceVersion", of_body("resourceVersion")),
    ];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    Value::Object(fields.map(|(field, value)| (field.to_string(), value.into())).collect())
}

/// Without fields that are empty.
fn shown_ref(seen: &Value) -> Value {
    let Value::Object(fields) = seen else { return seen.clone() };
    fields.iter().filter(|(_, value)| *value != "").map(|(field, value)| (field.clone(), value.clone())).collect()
}

/// The metadata of an object, of the items of a list and of the rows of a table.
fn metadatas(object: &Value) -> Vec<&Value> {
    let parts = |field: &str| object[field].as_array().map(Vec::as_slice).unwrap_or_default();
    let items = parts("items").iter().map(|item| &item["metadata"]);
    let rows = parts("rows").iter().map(|row| &row["object"]["metadata"]);
    std::iter::once(&object["metadata"]).chain(items).chain(rows).collect()
}

fn has_managed_fields(object: &Value) -> bool {
    metadatas(object).iter().any(|metadata| !metadata["managedFields"].is_null())
}

/// Of an object that is sent, which is no list.
fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}
