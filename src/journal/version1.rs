//! Journals of version 1: a stage, and beside it data that a stage may or may not need. Read only, and lifted to the
//! present form.
//!
//! Whatever version 1 could leave out and its guard relied on gets the value that the guard is safest with.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::{
    Cause, Clock, Confirmed, EndedKubelet, Endpoint, FileName, Progress, Rollback, Sha, Stage as Now, Verdict, Way,
};
use crate::api::{Reason, Rollout};
use crate::revision::RevisionId;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Journal {
    original: Option<Sha>,
    confirmed: Option<Confirmed>,
    change: Option<Change>,
    given_up: Option<Cause>,
    changes: u64,
    failures: Vec<Failure>,
    setup_uid: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    target: Option<RevisionId>,
    setup_generation: i64,
    cause: Cause,
    at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Change {
    number: u64,
    target: Option<RevisionId>,
    setup_generation: i64,
    before: Sha,
    after: Sha,
    #[serde(default)]
    is_in_place: bool,
    ours: Sha,
    argv_before: Vec<String>,
    argv_after: Vec<String>,
    probe: Endpoint,
    pod: Option<FileName>,
    container: Option<FileName>,
    pods_before: Vec<String>,
    rollout: Rollout,
    stage: Stage,
    staged: Clock,
    begun: Option<Clock>,
    rollback: Option<WayBack>,
    cause: Option<Cause>,
    finished: Option<Timestamp>,
}

#[derive(Deserialize)]
enum Stage {
    Staged,
    TakingOut,
    Verifying,
    RollingBack,
    Confirmed,
    RolledBack,
    Abandoned,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WayBack {
    way: Way,
    begun: Clock,
    starts: u32,
    ended_kubelet: Option<EndedKubelet>,
}

impl Journal {
    pub(super) fn lift(self) -> super::Journal {
        let ended = self.change.as_ref().and_then(|change| Some((change.finished?, change.has_ended_kubelet())));
        let lift = |failure: Failure| super::Failure {
            ended_kubelet: ended == Some((failure.at, true)),
            target: failure.target,
            setup_generation: generation(failure.setup_generation),
            cause: failure.cause,
            at: failure.at,
        };
        super::Journal {
            failures: self.failures.into_iter().map(lift).collect(),
            original: self.original,
            confirmed: self.confirmed,
            change: self.change.map(Change::lift),
            abandoned: self.given_up,
            changes: self.changes,
            setup_uid: self.setup_uid,
        }
    }
}

impl Change {
    fn has_ended_kubelet(&self) -> bool {
        self.rollback.as_ref().is_some_and(|rollback| rollback.ended_kubelet.is_some())
    }

    fn lift(self) -> super::Change {
        let begun = self.begun.unwrap_or_else(|| self.staged.clone());
        let at = self.finished.unwrap_or(self.staged.wall);
        let cause = self.cause.unwrap_or_else(|| Cause {
            reason: Reason::Interrupted,
            message: "the journal does not say why".into(),
            last_words: None,
        });
        let progress = match self.stage {
            Stage::Staged => Progress::UnderWay(Now::Staged),
            Stage::TakingOut => Progress::UnderWay(Now::TakingOut { begun }),
            Stage::Verifying => Progress::UnderWay(Now::Verifying { begun }),
            Stage::RollingBack => {
                // The gentlest way: where the kubelet ignores it, the next ones follow.
                let (way, since, starts, ended_kubelet) = match self.rollback {
                    Some(WayBack { way, begun, starts, ended_kubelet }) => (way, begun, starts, ended_kubelet),
                    None => (Way::Manifest, begun.clone(), 0, None),
                };
                Progress::UnderWay(Now::RollingBack(Rollback { begun, cause, way, since, starts, ended_kubelet }))
            }
            Stage::Confirmed => Progress::Ended { verdict: Verdict::Confirmed, at },
            Stage::RolledBack => Progress::Ended { verdict: Verdict::RolledBack(cause), at },
            Stage::Abandoned => Progress::Ended { verdict: Verdict::Abandoned(cause), at },
        };
        super::Change {
            number: self.number,
            target: self.target,
            setup_generation: generation(self.setup_generation),
            before: self.before,
            after: self.after,
            is_in_place: self.is_in_place,
            ours: self.ours,
            argv_before: self.argv_before,
            argv_after: self.argv_after,
            probe: self.probe,
            pod: self.pod.unwrap_or_else(kube_apiserver),
            container: self.container.unwrap_or_else(kube_apiserver),
            pods_before: self.pods_before,
            rollout: self.rollout,
            staged: self.staged,
            progress,
        }
    }
}

/// Generations begin at 1: version 1 wrote 0 where a person asked.
fn generation(number: i64) -> Option<i64> {
    Some(number).filter(|number| *number > 0)
}

/// The name that kubeadm gives both.
fn kube_apiserver() -> FileName {
    FileName("kube-apiserver".into())
}
