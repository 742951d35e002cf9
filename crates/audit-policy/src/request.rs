//! Derives the attributes of a request from its method and URL, as kube-apiserver does.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go#L127-L274. The URL is the
//! target of the request as it arrives: Go's `url.ParseRequestURI` parses it, and the path is not cleaned before
//! auditing. Neither kube-apiserver nor this module uses the body.

mod selector;

pub use selector::{is_label_key, is_label_value};
mod url;

use super::decode::fold;
use super::{Attributes, Text};
use kube_yaml::scalar::text_of;
use url::{Target, query};

/// Why kube-apiserver answers a request without auditing it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unaudited {
    #[error("{0}")]
    BadRequest(&'static str),
    /// The filter that derives the attributes comes before the one for auditing (server/config.go#L1110).
    #[error("unable to determine kind and namespace from url")]
    NoResource,
    /// net/http answers it.
    #[error("the HTTP server itself answers OPTIONS *")]
    Options,
}

/// The attributes of a request, without the user.
pub fn attributes(method: &str, target: &str) -> Result<Attributes<'static>, Unaudited> {
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(Unaudited::BadRequest("the method is not a token"));
    }
    if method == "OPTIONS" && target == "*" {
        return Err(Unaudited::Options);
    }
    let is_authority = method == "CONNECT" && !target.starts_with('/');
    let parsed = if is_authority { Target::parse(&format!("http://{target}")) } else { Target::parse(target) };
    let target = parsed.map_err(Unaudited::BadRequest)?;
    RequestInfo::of(method, &target).map(|info| info.attributes(&target.path)).ok_or(Unaudited::NoResource)
}

/// Parts of the path are bytes, because an escape can represent any byte.
#[derive(Default)]
struct RequestInfo<'a> {
    is_resource_request: bool,
    verb: String,
    api_group: &'a [u8],
    api_version: &'a [u8],
    namespace: &'a [u8],
    resource: &'a [u8],
    subresource: &'a [u8],
    name: &'a [u8],
    /// From a field selector, if the path has no name.
    selected_name: Option<String>,
}

impl<'a> RequestInfo<'a> {
    fn of(method: &str, target: &'a Target) -> Option<Self> {
        let mut info = Self { verb: method.to_ascii_lowercase(), ..Self::default() };
        let parts = split(&target.path);
        let (api_group, mut parts) = match parts.as_slice() {
            [b"api", rest @ ..] if rest.len() >= 2 => (&b""[..], rest),
            [b"apis", group, rest @ ..] if rest.len() >= 2 => (*group, rest),
            _ => return Some(info),
        };
        info.is_resource_request = true;
        info.api_group = api_group;
        info.api_version = parts[0];
        parts = &parts[1..];
        // The deprecated /api/v1/watch/… and /proxy/….
        if let verb @ (b"proxy" | b"watch") = parts[0] {
            if parts.len() < 2 {
                return None;
            }
            info.verb = text_of(verb);
            parts = &parts[1..];
        } else {
            info.verb = match method {
                "POST" => "create",
                "GET" | "HEAD" => "get",
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => "",
            }
            .to_string();
        }
        if let [b"namespaces", namespace, rest @ ..] = parts {
            info.namespace = namespace;
            if rest.first().is_some_and(|first| !matches!(*first, b"status" | b"finalize")) {
                parts = rest;
            }
        }
        info.resource = parts[0];
        info.name = parts.get(1).copied().unwrap_or_default();
        if info.verb != "proxy" {
            info.subresource = parts.get(2).copied().unwrap_or_default();
        }
        if info.name.is_empty() && info.verb == "get" {
            info.list_or_watch(&target.query);
        }
        // The name in a selector does not count: only a `get` uses it.
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".to_string();
        }
        Some(info)
    }

    /// A `get` without a name. Unreadable options make the field selector void, but not the watch.
    fn list_or_watch(&mut self, raw_query: &[u8]) {
        let query = query(raw_query);
        let first =
            |key: &str| query.iter().find(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice());
        let is_number = |key: &str| first(key).is_none_or(|value| text_of(value).parse::<i64>().is_ok());
        let fields = selector::fields(first("fieldSelector").unwrap_or_default());
        let is_readable = is_number("timeoutSeconds")
            && is_number("limit")
            && selector::is_label_selector(first("labelSelector").unwrap_or_default())
            && fields.is_some();
        let is_watch = first("watch").is_some_and(|value| {
            let value = text_of(value);
            let value = if is_readable { fold(&value) } else { value.to_lowercase() };
            value != "0" && value != "false"
        });
        self.verb = if is_watch { "watch" } else { "list" }.to_string();
        let is_path_segment =
            |name: &[u8]| name != b"." && name != b".." && !name.iter().any(|b| matches!(b, b'/' | b'%'));
        if let Some(fields) = fields.filter(|_| is_readable) {
            self.selected_name = fields.name.filter(|name| is_path_segment(name)).map(|name| text_of(&name));
        }
    }

    fn attributes(self, path: &[u8]) -> Attributes<'static> {
        let text = |bytes: &[u8]| Text::from(text_of(bytes));
        Attributes {
            user: None,
            verb: self.verb.into(),
            namespace: text(self.namespace),
            api_group: text(self.api_group),
            api_version: text(self.api_version),
            resource: text(self.resource),
            subresource: text(self.subresource),
            name: self.selected_name.map_or_else(|| text(self.name), Text::from),
            is_resource_request: self.is_resource_request,
            path: text(path),
        }
    }
}

/// Segments between slashes, without the slashes at both ends.
fn split(path: &[u8]) -> Vec<&[u8]> {
    let start = path.iter().take_while(|b| **b == b'/').count();
    let end = path.len() - path[start..].iter().rev().take_while(|b| **b == b'/').count();
    let trimmed = &path[start..end.max(start)];
    if trimmed.is_empty() { Vec::new() } else { trimmed.split(|b| *b == b'/').collect() }
}

#[cfg(test)]
mod tests;
