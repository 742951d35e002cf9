//! The journal of a node: what it runs, what it is in the middle of, and what failed before.
//!
//! It lies in `/var/lib/audit-operator/journal.json` and is written ahead: an intent is durable before the step it names is
//! taken, so that whoever starts next knows what may have happened. Pure data and transitions; [`crate::node`] reads and
//! writes it under a file lock.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{Reason, Rollout};
use crate::revision::RevisionId;

/// Failures that are remembered; the oldest go first.
const FAILURES_KEPT: usize = 10;

/// SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sha(String);

impl Sha {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl std::fmt::Display for Sha {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0[..12])
    }
}

/// A moment, on the two clocks of a node. The wall clock is for people: it may jump. Durations are counted on the
/// boot clock, which goes on while the machine sleeps and starts anew with each boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    pub wall: Timestamp,
    pub boot_id: String,
    pub since_boot_ms: u64,
}

impl Clock {
    /// Milliseconds from `earlier` to `self`. After a reboot the time before it is not known: counted is the time since the
    /// boot, so that a deadline stays bounded and no jump of the wall clock can shorten it.
    pub fn ms_since(&self, earlier: &Clock) -> u64 {
        if self.boot_id == earlier.boot_id {
            self.since_boot_ms.saturating_sub(earlier.since_boot_ms)
        } else {
            self.since_boot_ms
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    pub version: u32,
    /// The manifest as it was before us, kept as `original.yaml`.
    pub original: Option<Sha>,
    /// What was last confirmed.
    pub confirmed: Option<Confirmed>,
    /// The change that is under way, or was finished and not yet reported.
    pub change: Option<Change>,
    /// Why the last change was given up before it touched the manifest for good. Until one comes to a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given_up: Option<Cause>,
    /// Number of the last change.
    pub changes: u64,
    /// The newest last.
    pub failures: Vec<Failure>,
    /// Uid of the Setup that they are of. None in old journals: they count for the Setup that is taken up next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_uid: Option<String>,
}

/// A manifest of ours that kube-apiserver was seen to serve with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confirmed {
    pub revision: RevisionId,
    /// Of the manifest that the original gives. Whatever else lies there was changed by somebody else, and is kept.
    pub manifest: Sha,
    pub at: Timestamp,
}

/// A change that was taken back. The same Revision is not tried again under the same generation of its Setup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// `None`: the restoring of the original manifest.
    pub target: Option<RevisionId>,
    pub setup_generation: i64,
    pub cause: Cause,
    pub at: Timestamp,
}

/// Why a change was taken back or given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    pub reason: Reason,
    pub message: String,
    /// The last line that kube-apiserver wrote.
    pub last_words: Option<String>,
}

/// One change of the manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub number: u64,
    /// The Revision to run; `None` restores the original manifest.
    pub target: Option<RevisionId>,
    pub setup_generation: i64,
    /// Hashes of the manifest before and after, kept as `change/before.yaml` and `change/after.yaml`.
    pub before: Sha,
    pub after: Sha,
    /// Whether `after` lay there before the change, for nobody knows how long: it is only watched, and `before` is the way back.
    #[serde(default)]
    pub is_in_place: bool,
    /// Of the manifest that the original would give. Another one than `after` where somebody else had changed the manifest.
    pub ours: Sha,
    /// Command lines of kube-apiserver before and after: how its process is recognised.
    pub argv_before: Vec<String>,
    pub argv_after: Vec<String>,
    /// Where this node's API server is asked for `/readyz`.
    pub probe: Endpoint,
    /// Pod and container of kube-apiserver: where its logs lie.
    #[serde(default = "kube_apiserver")]
    pub pod: String,
    #[serde(default = "kube_apiserver")]
    pub container: String,
    /// Log directories of the API server's pods at the start: any other one belongs to a new pod.
    pub pods_before: Vec<String>,
    pub rollout: Rollout,
    pub stage: Stage,
    pub staged: Clock,
    /// When the manifest was about to be taken out or replaced.
    pub begun: Option<Clock>,
    pub rollback: Option<Rollback>,
    /// Why the change ended other than confirmed.
    pub cause: Option<Cause>,
    pub finished: Option<Timestamp>,
}

/// As kubeadm calls both.
fn kube_apiserver() -> String {
    "kube-apiserver".into()
}

/// Address of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// How far a change is. Written ahead: the step may or may not have been taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The files lie ready; the manifest is untouched.
    Staged,
    /// Swift: the manifest is being taken out, and the old process has to go.
    TakingOut,
    /// The new manifest is being put in place, and watched.
    Verifying,
    /// The old manifest is being put back, and watched.
    RollingBack,
    Confirmed,
    RolledBack,
    /// Ended before the manifest was replaced, or because somebody else replaced it.
    Abandoned,
}

impl Stage {
    pub fn is_final(self) -> bool {
        matches!(self, Stage::Confirmed | Stage::RolledBack | Stage::Abandoned)
    }
}

/// The way back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    pub way: Way,
    /// When this way was taken up; the files also when they were first made good in a later boot.
    pub begun: Clock,
    /// Starts of the container until then.
    pub starts: u32,
    /// The kubelet that was ended: another one is not.
    #[serde(default)]
    pub ended_kubelet: Option<EndedKubelet>,
}

/// A kubelet, by its start in the boot of `at`. Written ahead: it may run on, and then has to be ended still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedKubelet {
    pub started_since_boot_ms: u64,
    pub at: Clock,
}

/// The ways back, from the gentlest to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The old manifest is put back and the kubelet takes it up.
    Manifest,
    /// The kubelet ignores manifests until it has seen an API server: the manifest stays, the files it mounts are made good.
    Files,
    /// The old manifest is put back and the kubelet is ended, so that its service manager starts it anew.
    Kubelet,
}

impl Change {
    /// Whether the kubelet was told to end for the way back.
    pub fn ended_kubelet(&self) -> bool {
        self.rollback.as_ref().is_some_and(|rollback| rollback.ended_kubelet.is_some())
    }
}

impl Journal {
    pub const VERSION: u32 = 1;

    /// Whether a change is under way: the guard has work.
    pub fn unconfirmed(&self) -> Option<&Change> {
        self.change.as_ref().filter(|change| !change.stage.is_final())
    }

    /// The failure that keeps `target` from being tried again under this generation.
    pub fn quarantine(&self, target: Option<&RevisionId>, setup_generation: i64) -> Option<&Failure> {
        self.failures
            .iter()
            .rev()
            .find(|failure| failure.target.as_ref() == target && failure.setup_generation == setup_generation)
    }

    /// From here on the node is under that Setup. What failed under another one keeps nothing from being tried, though its
    /// generation may be the same.
    pub fn take_up(&mut self, setup_uid: &str) {
        if self.setup_uid.replace(setup_uid.into()).is_some_and(|before| before != setup_uid) {
            self.failures.clear();
        }
    }

    /// Nothing of ours lies in the manifest any more, whoever removed it.
    pub fn let_go(&mut self) {
        self.confirmed = None;
        self.original = None;
    }

    /// Ends the change that is under way. What it was is kept until the next one begins.
    pub fn finish(&mut self, stage: Stage, mut cause: Option<Cause>, now: Timestamp) {
        let Some(change) = self.change.as_mut() else { return };
        // That never happens in silence.
        if let Some(cause) = cause.as_mut().filter(|_| change.ended_kubelet()) {
            cause.message += "; the kubelet was ended, so that it took up the old manifest";
        }
        change.stage = stage;
        change.finished = Some(now);
        change.cause.clone_from(&cause);
        self.given_up = cause.clone().filter(|_| stage == Stage::Abandoned);
        match (stage, &change.target) {
            (Stage::Confirmed, Some(revision)) => {
                self.confirmed = Some(Confirmed { revision: revision.clone(), manifest: change.ours.clone(), at: now });
            }
            (Stage::Confirmed, None) => self.let_go(),
            (Stage::RolledBack, _) => {
                let cause = cause.expect("a rollback has a cause");
                let failure = Failure {
                    target: change.target.clone(),
                    setup_generation: change.setup_generation,
                    cause,
                    at: now,
                };
                self.failures.push(failure);
                let surplus = self.failures.len().saturating_sub(FAILURES_KEPT);
                self.failures.drain(..surplus);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_that_is_created_anew_is_not_kept_from_what_failed_before() {
        let failure = serde_json::json!({
            "target": "r-0123456789", "setupGeneration": 5, "at": "2026-11-21T12:00:00Z",
            "cause": {"reason": "CrashLoop", "message": "", "lastWords": null},
        });
        // As it was written before there was a uid in it.
        let old = serde_json::json!({"version": 1, "changes": 1, "failures": [failure]});
        let mut journal: Journal = serde_json::from_value(old).unwrap();
        let target: RevisionId = "r-0123456789".to_string().try_into().unwrap();
        let is_kept = |journal: &Journal, generation| journal.quarantine(Some(&target), generation).is_some();
        for (uid, generation, want) in
            [("a", 5, true), ("a", 6, false), ("a", 1, false), ("a", 5, true), ("b", 5, false)]
        {
            journal.take_up(uid);
            assert_eq!(is_kept(&journal, generation), want, "{uid} {generation}");
        }
        assert!(journal.failures.is_empty());
    }
}
