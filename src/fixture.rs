//! The target of one node, for the tests of the modules that plan its change and carry it out.

use serde_json::Value;

use crate::api::Rollout;
use crate::floor::Floor;
use crate::plan::{Desired, GuardKind, Requester};
use crate::revision::{Content, Revision};

/// A policy and a log sink; kube-apiserver keeps its own settings of the shutdown.
pub fn content(policy: &str, log: Value) -> Content {
    Content {
        policy: policy.into(),
        log: Some(serde_json::from_value(log).unwrap()),
        webhook: None,
        shutdown_delay_seconds: 0,
        drain_watches_seconds: 0,
    }
}

/// A Setup of the first generation asks for it, the node has the slot, and no guard is needed.
pub fn desired(content: Content) -> Desired {
    Desired {
        revision: Some(Revision::new(content)),
        requester: Requester::Setup { generation: 1, has_slot: true },
        rollout: Rollout::default(),
        floor: Floor::default(),
        guard: GuardKind::ThisProcess,
    }
}
