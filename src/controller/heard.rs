//! When each agent was last heard, by the steady clock of this controller: those of the nodes may be wrong, and any may jump.
//! Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::time::Instant;

use crate::api::NodeAudit;

/// The last report of each agent, by its own time, and when it was first seen here. What a controller sees first after its start counts
/// as heard then.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<String, (Option<Time>, Instant)>);

impl Heard {
    /// For how long each agent has reported nothing. `since`: when the API last began to answer; nobody is silent because it was away.
    pub(super) fn listen(
        &mut self,
        audits: &BTreeMap<String, NodeAudit>,
        since: Instant,
        now: Instant,
    ) -> BTreeMap<String, Duration> {
        self.0.retain(|name, _| audits.contains_key(name));
        let unheard_for = |(name, audit): (&String, &NodeAudit)| {
            let said = audit.status.as_ref().and_then(|status| status.last_seen.clone());
            let heard = self.0.entry(name.clone()).or_insert((said.clone(), now));
            if heard.0 != said {
                *heard = (said, now);
            }
            (name.clone(), now.duration_since(heard.1.max(since)))
        };
        audits.iter().map(unheard_for).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_silent_by_our_clock_alone() {
        let start = Instant::now();
        let mut heard = Heard::default();
        // Seconds here; when the API began to answer; what the node calls its time; for how long it was not heard.
        for (now, since, said, want) in [
            (0, 0, Some("12:00:00"), 0),
            (50, 0, Some("12:00:00"), 50),
            (60, 0, Some("11:00:00"), 0),
            (100, 0, Some("11:00:00"), 40),
            (110, 0, Some("23:00:00"), 0),
            (300, 0, Some("23:00:00"), 190),
            (310, 305, Some("23:00:00"), 5),
            // Gone, and made anew.
            (320, 0, None, 0),
            (330, 0, Some("23:00:00"), 0),
        ] {
            let audit: NodeAudit = serde_json::from_value(serde_json::json!({
                "apiVersion": "audit-operator.io/v1alpha1", "kind": "NodeAudit", "metadata": {"name": "cp1"},
                "spec": {"setup": "cluster", "setupGeneration": 1},
                "status": {"lastSeen": said.map(|said| format!("2026-11-21T{said}Z"))},
            }))
            .unwrap();
            let at = |seconds| start + Duration::from_secs(seconds);
            let unheard_for = heard.listen(&[("cp1".to_string(), audit)].into(), at(since), at(now));
            assert_eq!(unheard_for["cp1"], Duration::from_secs(want), "{now}");
        }
        assert!(heard.listen(&BTreeMap::new(), start, start).is_empty() && heard.0.is_empty());
    }
}
