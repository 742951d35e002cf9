//! From an event to the request that the policy decided about.
//!
//! The `objectRef` of an event is not used: `LogRequestObject` fills it from the body later, so a create has a name
//! there that the policy did not see (kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/request.go#L124-L152).
//! The policy saw the attributes from the verb and the URI, as in [`attributes()`], and the authenticated user without
//! impersonation: the filter for impersonation comes after the one for auditing (server/config.go#L1036-L1116).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::event::{Damage, Event};
use crate::{Attributes, Text, User, attributes};

/// A request to kube-apiserver.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    pub method: Cow<'static, str>,
    pub uri: Cow<'a, str>,
    pub attributes: Attributes<'a>,
}

impl<'a> Request<'a> {
    pub fn of(event: &Event<'a>) -> Result<Self, Damage> {
        let verb = string(event.verb).map_err(|error| Damage::Uri(error.to_string()))?;
        let uri = string(event.uri).map_err(|error| Damage::Uri(error.to_string()))?;
        let derive = |method: &str| attributes(method, &uri).map_err(|error| Damage::Uri(error.to_string()));
        let mut method = method_of(&verb);
        let mut attributes = derive(&method)?;
        if !attributes.is_resource_request {
            // The verb of such a request is its method in lower case.
            method = Cow::Owned(verb.to_ascii_uppercase());
        }
        // The verb of the event is right. The derived one is a guess for some methods.
        attributes.verb = Text(verb);
        attributes.user = user(event.user)?;
        Ok(Self { method, uri, attributes })
    }
}

/// A possible method of a request for a resource with this verb.
pub fn method_of(verb: &str) -> Cow<'static, str> {
    Cow::Borrowed(match verb {
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        // One of the methods without a verb for resources.
        "" => "OPTIONS",
        _ => "GET",
    })
}

fn string(text: &[u8]) -> serde_json::Result<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
    if text.is_empty() {
        return Ok(Cow::Borrowed(""));
    }
    serde_json::from_slice(text).map(|Borrowed(text)| text)
}

/// `None` for `{}`, the user of a request without an authenticated user (audit/request.go#L62-L69).
fn user(text: &[u8]) -> Result<Option<User<'_>>, Damage> {
    if text.is_empty() {
        return Ok(None);
    }
    #[derive(Deserialize)]
    struct Plain<'a> {
        #[serde(borrow)]
        username: Text<'a>,
        #[serde(borrow)]
        groups: Vec<Text<'a>>,
    }
    if let Ok(Plain { username, groups }) = serde_json::from_slice(text) {
        return Ok((!username.is_empty() || !groups.is_empty()).then_some(User { name: username, groups }));
    }
    // Of equal names the last one counts, which a struct does not allow. Any member may be absent.
    let user: Value = serde_json::from_slice(text).map_err(|error| Damage::User(error.to_string()))?;
    let wrong = || Damage::User("kube-apiserver does not write this form".into());
    let string = |value: &Value| match value {
        Value::String(text) => Ok(Text::from(text.clone())),
        Value::Null => Ok(Text::default()),
        _ => Err(wrong()),
    };
    let user = user.as_object().ok_or_else(wrong)?;
    let name = user.get("username").map_or(Ok(Text::default()), string)?;
    let groups = match user.get("groups") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(groups)) => groups.iter().map(string).collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    Ok((!name.is_empty() || !groups.is_empty()).then_some(User { name, groups }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Reader;

    fn asked(line: &str) -> Result<Request<'static>, Damage> {
        let mut found = None;
        Reader::default().read(line.as_bytes(), |event, _| {
            found = Some(event.and_then(|event| {
                let Request { method, uri, attributes } = Request::of(&event)?;
                let user = attributes.user.map(|user| User {
                    name: user.name.to_string().into(),
                    groups: user.groups.iter().map(|group| group.to_string().into()).collect(),
                });
                let verb = attributes.verb.to_string().into();
                let own = |text: &Text| Text::from(text.to_string());
                Ok(Request {
                    method,
                    uri: Cow::Owned(uri.into_owned()),
                    attributes: Attributes {
                        user,
                        verb,
                        namespace: own(&attributes.namespace),
                        api_group: own(&attributes.api_group),
                        api_version: own(&attributes.api_version),
                        resource: own(&attributes.resource),
                        subresource: own(&attributes.subresource),
                        name: own(&attributes.name),
                        is_resource_request: attributes.is_resource_request,
                        path: own(&attributes.path),
                    },
                })
            }));
        });
        found.unwrap()
    }

    fn event(members: &str) -> String {
        format!(r#"{{"level":"Metadata","stage":"ResponseComplete",{members}}}"#)
    }

    #[test]
    fn a_create_has_no_name_though_the_event_says_so() {
        let request = asked(&event(
            r#""requestURI":"/api/v1/namespaces/a/pods","verb":"create","objectRef":{"resource":"pods","name":"p"}"#,
        ))
        .unwrap();
        let Attributes { namespace, resource, name, .. } = request.attributes;
        assert_eq!((&*namespace, &*resource, &*name, &*request.method), ("a", "pods", "", "POST"));
    }

    #[test]
    fn the_user_is_who_was_authenticated_and_nobody_where_nobody_was() {
        let of =
            |user: &str| asked(&event(&format!(r#""requestURI":"/api","verb":"get"{user}"#))).unwrap().attributes.user;
        let both = r#","user":{"username":"root","groups":["a","b"]},"impersonatedUser":{"username":"alice"}"#;
        assert_eq!(of(both), Some(User { name: "root".into(), groups: vec!["a".into(), "b".into()] }));
        assert_eq!(of(r#","user":{}"#), None);
        assert_eq!(of(r#","user":{"username":""}"#), None);
        assert_eq!(of(""), None);
        assert_eq!(of(r#","user":{"groups":["g"]}"#).unwrap().groups.len(), 1);
        let twice = r#","user":{"username":"a","username":"b\n","extra":{"username":["c"]}}"#;
        assert_eq!(of(twice).unwrap().name, "b\n".into());
    }

    #[test]
    fn a_request_for_a_path_keeps_its_method_and_a_watch_its_verb() {
        let request = asked(&event(r#""requestURI":"/metrics?a","verb":"post""#)).unwrap();
        assert_eq!((&*request.method, &*request.attributes.verb), ("POST", "post"));
        let watch =
            asked(&event(r#""requestURI":"/api/v1/nodes?watch=1&fieldSelector=metadata.name%3Dn","verb":"watch""#));
        let watch = watch.unwrap();
        assert_eq!((&*watch.attributes.verb, &*watch.attributes.name, &*watch.method), ("watch", "n", "GET"));
    }

    #[test]
    fn what_cannot_be_asked_about_is_damage() {
        let damage = asked(&event(r#""requestURI":"/a%zz","verb":"get""#)).unwrap_err();
        assert_eq!(damage, Damage::Uri("invalid URL escape".into()));
        assert!(matches!(asked(&event(r#""requestURI":"/api","user":[]"#)), Err(Damage::User(_))));
        assert!(matches!(asked(&event(r#""requestURI":5"#)), Err(Damage::Uri(_))));
    }
}
