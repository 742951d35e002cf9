//! Which Setup has which nodes, where several select the same one: the older wins. Pure.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::api::{AuditSetup, CONTROL_PLANE_LABEL};

/// The nodes of a Setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// It has these nodes.
    Nodes(Vec<String>),
    /// An older Setup has one of its nodes: it changes nothing at all, on no node, so that half a Setup is never in
    /// force.
    Conflict { older: String, node: String },
}

/// The nodes of a Setup as a label selector of the API.
pub(super) fn selector(setup: &AuditSetup) -> String {
    if setup.spec.node_selector.is_empty() {
        return CONTROL_PLANE_LABEL.into();
    }
    setup.spec.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Judges the Setups from the oldest on. `claims`: for each Setup, by name, the nodes that it selects, or those that it
/// still has to restore if it is being deleted.
pub(super) fn cover(
    setups: &[impl Borrow<AuditSetup>],
    claims: &BTreeMap<String, Vec<String>>,
) -> BTreeMap<String, Cover> {
    let mut by_age: Vec<_> = setups
        .iter()
        .filter_map(|setup| {
            let setup: &AuditSetup = setup.borrow();
            let created = setup.metadata.creation_timestamp.as_ref().map(|time| time.0);
            Some((created, setup.metadata.name.as_deref()?))
        })
        .collect();
    by_age.sort();

    let mut holders: BTreeMap<&str, &str> = BTreeMap::new();
    let mut covers = BTreeMap::new();
    for (_, name) in by_age {
        let nodes = claims.get(name).map(Vec::as_slice).unwrap_or_default();
        let taken = nodes.iter().find_map(|node| Some((node, *holders.get(node.as_str())?)));
        let cover = match taken {
            Some((node, older)) => Cover::Conflict { older: older.into(), node: node.clone() },
            None => {
                holders.extend(nodes.iter().map(|node| (node.as_str(), name)));
                Cover::Nodes(nodes.to_vec())
            }
        };
        covers.insert(name.to_string(), cover);
    }
    covers
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn setup(name: &str, created: &str) -> AuditSetup {
        serde_json::from_value(json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "AuditSetup",
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"policy": {"preset": "metadata"}, "sinks": [{"name": "local", "log": {}}]},
        }))
        .unwrap()
    }

    fn conflict(older: &str, node: &str) -> Cover {
        Cover::Conflict { older: older.into(), node: node.into() }
    }

    fn nodes(names: &[&str]) -> Cover {
        Cover::Nodes(names.iter().map(|name| name.to_string()).collect())
    }

    /// Name, created, claimed nodes, verdict.
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], Cover);

    #[test]
    fn the_older_setup_wins_and_the_newer_has_nothing() {
        let (early, late) = ("2026-11-21T10:00:00Z", "2026-11-21T11:00:00Z");
        // The verdict must not depend on the order.
        let cases: &[&[Case]] = &[
            &[("one", early, &["cp1", "cp2"], nodes(&["cp1", "cp2"]))],
            &[("one", early, &["cp1"], nodes(&["cp1"])), ("two", late, &["cp2"], nodes(&["cp2"]))],
            &[("zz", early, &["cp1"], nodes(&["cp1"])), ("aa", late, &["cp1", "cp2"], conflict("zz", "cp1"))],
            // Created in the same second: by name.
            &[("zz", early, &["cp1"], conflict("aa", "cp1")), ("aa", early, &["cp1"], nodes(&["cp1"]))],
            // A Setup without nodes takes none from others.
            &[
                ("one", "2026-11-21T09:00:00Z", &["cp1"], nodes(&["cp1"])),
                ("two", early, &["cp1", "cp2"], conflict("one", "cp1")),
                ("three", late, &["cp2"], nodes(&["cp2"])),
            ],
            &[("none", early, &[], nodes(&[]))],
        ];
        for case in cases {
            let mut setups: Vec<_> = case.iter().map(|(name, created, ..)| setup(name, created)).collect();
            let claims = case
                .iter()
                .map(|(name, _, nodes, _)| (name.to_string(), nodes.iter().map(|node| node.to_string()).collect()))
                .collect();
            let want: BTreeMap<_, _> = case.iter().map(|(name, _, _, want)| (name.to_string(), want.clone())).collect();
            assert_eq!(cover(&setups, &claims), want);
            setups.reverse();
            assert_eq!(cover(&setups, &claims), want);
        }
    }

    #[test]
    fn a_setup_without_a_selector_selects_the_control_plane() {
        let mut setup = setup("one", "2026-11-21T10:00:00Z");
        assert_eq!(selector(&setup), "node-role.kubernetes.io/control-plane");
        setup.spec.node_selector = [("b", "2"), ("a", "1")].map(|(key, value)| (key.into(), value.into())).into();
        assert_eq!(selector(&setup), "a=1,b=2");
    }
}
