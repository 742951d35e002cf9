//! The attributes of a request that a policy decides by.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer};

/// Attributes of one request (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/authorization/authorizer/interfaces.go).
///
/// Their JSON is a contract: other programs write it. Absent strings count as empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attributes<'a> {
    /// The authenticated user, before impersonation. `None`: authentication failed.
    #[serde(borrow)]
    pub user: Option<User<'a>>,
    #[serde(borrow)]
    pub verb: Text<'a>,
    /// Empty for cluster-scoped objects and for all namespaces at once.
    #[serde(borrow)]
    pub namespace: Text<'a>,
    #[serde(borrow)]
    pub api_group: Text<'a>,
    /// Rules do not use it.
    #[serde(borrow)]
    pub api_version: Text<'a>,
    #[serde(borrow)]
    pub resource: Text<'a>,
    #[serde(borrow)]
    pub subresource: Text<'a>,
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(rename = "resourceRequest", deserialize_with = "or_default")]
    pub is_resource_request: bool,
    /// Decoded, without the query.
    #[serde(borrow)]
    pub path: Text<'a>,
}

/// An authenticated user, or the anonymous one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct User<'a> {
    #[serde(borrow)]
    pub name: Text<'a>,
    #[serde(borrow, deserialize_with = "or_default")]
    pub groups: Vec<Text<'a>>,
}

impl User<'static> {
    /// A user as kube-apiserver's authenticators create it: with the groups that follow from the name, and the group of
    /// all authenticated or of all unauthenticated users. Groups from a certificate or an identity provider are
    /// unknown.
    ///
    /// kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/authentication: group/authenticated_group_adder.go#L38-L58,
    /// request/anonymous/anonymous.go#L28-L55, serviceaccount/util.go#L84-L109.
    pub fn authenticated(name: &str, given: &[&str]) -> Self {
        const AUTHENTICATED: &str = "system:authenticated";
        const UNAUTHENTICATED: &str = "system:unauthenticated";
        let mut groups: Vec<String> = given.iter().map(|group| group.to_string()).collect();
        let is_anonymous = name == "system:anonymous" || given.contains(&UNAUTHENTICATED);
        let mut add = |group: String| {
            if !groups.contains(&group) {
                groups.push(group);
            }
        };
        let account = name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
        if let Some((namespace, name)) = account
            && !namespace.is_empty()
            && !name.is_empty()
            && !name.contains(':')
        {
            add("system:serviceaccounts".into());
            add(format!("system:serviceaccounts:{namespace}"));
        }
        add(if is_anonymous { UNAUTHENTICATED } else { AUTHENTICATED }.into());
        Self { name: name.to_string().into(), groups: groups.into_iter().map(Text::from).collect() }
    }
}

/// A string, borrowed if possible.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text<'a>(pub Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Borrowed<'a>(#[serde(borrow)] Cow<'a, str>);
        Ok(Option::<Borrowed>::deserialize(deserializer)?.map_or_else(Self::default, |Borrowed(text)| Self(text)))
    }
}

/// Null is the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_its_authenticator_adds() {
        for (name, given, want) in [
            ("alice", &[][..], &["system:authenticated"][..]),
            ("alice", &["devs"], &["devs", "system:authenticated"]),
            ("alice", &["system:authenticated"], &["system:authenticated"]),
            ("alice", &["system:unauthenticated"], &["system:unauthenticated"]),
            ("system:anonymous", &[], &["system:unauthenticated"]),
            ("system:node:n", &[], &["system:authenticated"]),
            (
                "system:serviceaccount:a:b",
                &["system:serviceaccounts"],
                &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            ),
            ("system:serviceaccount:a:", &[], &["system:authenticated"]),
            ("system:serviceaccount:a:b:c", &[], &["system:authenticated"]),
        ] {
            let user = User::authenticated(name, given);
            assert_eq!(user.groups.iter().map(|group| &**group).collect::<Vec<_>>(), want, "{name} {given:?}");
        }
    }

    #[test]
    fn absent_and_null_are_empty_but_a_user_without_a_name_is_a_user() {
        let read = |json: &'static str| serde_json::from_str::<Attributes>(json).unwrap();
        assert_eq!(read("{}"), Attributes::default());
        assert_eq!(read(r#"{"user":null,"verb":null,"resourceRequest":null,"other":1}"#), Attributes::default());
        assert_eq!(read(r#"{"user":{}}"#).user, Some(User::default()));
        let full = read(r#"{"user":{"name":"a","groups":["b","c\n"]},"apiGroup":"apps","resourceRequest":true}"#);
        assert_eq!(
            full,
            Attributes {
                user: Some(User { name: "a".into(), groups: vec!["b".into(), "c\n".into()] }),
                api_group: "apps".into(),
                is_resource_request: true,
                ..Attributes::default()
            }
        );
        assert!(matches!(full.api_group, Text(Cow::Borrowed(_))), "nothing is copied without need");
    }
}
