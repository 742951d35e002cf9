//! The target of one node, and its Change, for the tests of the modules that plan it, carry it out and report it.

use serde_json::Value;

use crate::api::Rollout;
use crate::floor::Floor;
use crate::journal::{Change, Clock, Endpoint, Progress, Sha, Stage};
use crate::plan::{Desired, GuardKind, Requester};
use crate::revision::{Content, Revision};
use crate::verdict::{Evidence, InPlace, Kubelet};

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

/// The first Change of a node, to a Revision that logs to standard output.
pub fn change(target: &str, staged: Clock, stage: Stage) -> Change {
    Change {
        number: 1,
        target: Some(target.to_string().try_into().unwrap()),
        setup_generation: Some(1),
        before: Sha::of(b"before"),
        after: Sha::of(b"after"),
        is_in_place: false,
        ours: Sha::of(b"after"),
        argv_before: vec!["kube-apiserver".into()],
        argv_after: vec!["kube-apiserver".into(), "--audit-log-path=-".into()],
        probe: Endpoint { host: "127.0.0.1".into(), port: 6443 },
        pod: "kube-apiserver".to_string().try_into().unwrap(),
        container: "kube-apiserver".to_string().try_into().unwrap(),
        pods_before: vec![],
        rollout: Rollout::default(),
        staged,
        progress: Progress::UnderWay(stage),
    }
}

/// No kube-apiserver runs, and the kubelet would start one.
pub fn evidence(in_place: InPlace) -> Evidence {
    Evidence {
        in_place,
        process: None,
        released: false,
        is_repaired: false,
        serving_ms: None,
        starts: 0,
        starts_beside_old: 0,
        last_words: None,
        kubelet: Some(Kubelet { started_since_boot_ms: 10_000, has_seen_api: true }),
    }
}
