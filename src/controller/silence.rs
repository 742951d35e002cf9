//! The contact with each agent, by the steady clock of this controller: those of the nodes may be wrong, and any may
//! jump. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use crate::api::NodeAudit;
use crate::rollout::Contact;

/// When each agent last gave a sign of life, and since when it reports the same about its API server, as this
/// controller saw it. A sign that it finds at its own start counts as given then.
#[derive(Debug, Default)]
pub(super) struct Silence(BTreeMap<String, Seen>);

#[derive(Debug)]
struct Seen {
    /// The time in its last report, and the version of its Lease.
    sign: (Option<Time>, Option<String>),
    signed_at: Instant,
    ready_since: Option<Time>,
    same_since: Instant,
}

impl Silence {
    /// The contact with the agents of `audits`. `leases`: the version of the Lease of each agent. `since`: when the API
    /// last began to respond; no agent is silent because it was away.
    pub(super) fn listen<'a>(
        &mut self,
        audits: impl IntoIterator<Item = (&'a String, &'a NodeAudit)>,
        leases: &BTreeMap<String, String>,
        since: Instant,
        now: Instant,
    ) -> BTreeMap<String, Contact> {
        let mut before = std::mem::take(&mut self.0);
        let mut contacts = BTreeMap::new();
        for (name, audit) in audits {
            let status = audit.status.as_ref();
            let sign = (status.and_then(|status| status.last_seen.clone()), leases.get(name).cloned());
            let ready_since = status.and_then(|status| status.ready_since.clone());
            let seen = match before.remove(name) {
                None => Seen { sign, signed_at: now, ready_since, same_since: now },
                Some(seen) => Seen {
                    signed_at: if seen.sign == sign { seen.signed_at } else { now },
                    same_since: if seen.ready_since == ready_since { seen.same_since } else { now },
                    sign,
                    ready_since,
                },
            };
            let contact = Contact {
                silent_for: now.duration_since(seen.signed_at.max(since)),
                same_ready_for: now.duration_since(seen.same_since),
            };
            contacts.insert(name.clone(), contact);
            self.0.insert(name.clone(), seen);
        }
        contacts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_agent_is_silent_by_our_clock_alone() {
        let start = Instant::now();
        let mut silence = Silence::default();
        // Seconds here; when the API began to respond; the time in the report; the version of the Lease; for how long
        // it is silent.
        for (now, since, reported, lease, want) in [
            (0, 0, Some("12:00:00"), None, 0),
            (50, 0, Some("12:00:00"), None, 50),
            (60, 0, Some("11:00:00"), None, 0),
            (100, 0, Some("11:00:00"), None, 40),
            (110, 0, Some("23:00:00"), None, 0),
            (200, 0, Some("23:00:00"), Some("1"), 0),
            (245, 0, Some("23:00:00"), Some("1"), 45),
            (250, 0, Some("23:00:00"), Some("2"), 0),
            (300, 0, Some("23:00:00"), Some("2"), 50),
            (310, 305, Some("23:00:00"), Some("2"), 5),
            // Deleted, and created again.
            (320, 0, None, None, 0),
            (330, 0, Some("23:00:00"), None, 0),
        ] {
            let (name, audit) = ("cp1".to_string(), audit(json!({"lastSeen": reported.map(time)})));
            let leases = lease.map(|version: &str| (name.clone(), version.to_string())).into_iter().collect();
            let at = |seconds| start + Duration::from_secs(seconds);
            let contacts = silence.listen([(&name, &audit)], &leases, at(since), at(now));
            assert_eq!(contacts["cp1"].silent_for, Duration::from_secs(want), "{now}");
        }
        assert!(silence.listen([], &BTreeMap::new(), start, start).is_empty() && silence.0.is_empty());
    }

    #[test]
    fn a_report_is_the_same_until_the_api_server_was_away() {
        let start = Instant::now();
        let mut silence = Silence::default();
        for (now, ready_since, want) in
            [(0, "12:00:00", Some(0)), (30, "12:00:00", Some(30)), (40, "09:00:00", Some(0)), (45, "09:00:00", Some(5))]
        {
            let (name, audit) = ("cp1".to_string(), audit(json!({"readySince": time(ready_since)})));
            let now = start + Duration::from_secs(now);
            let contacts = silence.listen([(&name, &audit)], &BTreeMap::new(), start, now);
            assert_eq!(Some(contacts["cp1"].same_ready_for.as_secs()), want);
        }
    }

    fn time(text: &str) -> String {
        format!("2026-11-21T{text}Z")
    }

    fn audit(status: Value) -> NodeAudit {
        serde_json::from_value(json!({
            "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp1"},
            "spec": {"setup": "cluster", "setupGeneration": 1}, "status": status,
        }))
        .unwrap()
    }
}
