//! The journal of a node: the Revision it runs, the Change in progress, and earlier failures.
//!
//! It is `/var/lib/audit-operator/journal.json`, and it is written ahead: an intent is durable before its step is
//! taken, so the next program to start knows what may have happened. Each state is legal by its type: the data of a
//! stage is in the stage, and only a Change that has not ended is [`UnderWay`]. Pure data and transitions;
//! [`crate::node`] reads and writes it under a file lock.

mod version1;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::{Reason, Rollout};
use crate::revision::RevisionId;

/// The number of failures kept; the oldest go first.
const FAILURES_KEPT: usize = 10;

/// SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha(String);

impl Sha {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect())
    }
}

/// A text that is not a SHA-256 in lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("not a SHA-256")]
pub struct NotASha;

impl TryFrom<String> for Sha {
    type Error = NotASha;

    fn try_from(text: String) -> Result<Self, NotASha> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 64 && text.bytes().all(is_digit) { Ok(Self(text)) } else { Err(NotASha) }
    }
}

impl std::fmt::Display for Sha {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.12}", self.0)
    }
}

/// A moment, on the two clocks of a node. The wall clock is for people: it may jump. Durations are counted on the boot
/// clock, which runs on while the machine sleeps and starts at zero with each boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Clock {
    pub wall: Timestamp,
    pub boot_id: String,
    pub since_boot_ms: u64,
}

impl Clock {
    /// Milliseconds from `earlier` to `self`. After a reboot the time before it is unknown: the result is the time
    /// since the boot, so a deadline stays bounded and no jump of the wall clock can shorten it. The same holds for a
    /// moment that this boot has not reached.
    pub fn ms_since(&self, earlier: &Clock) -> u64 {
        let is_of_this_boot = self.boot_id == earlier.boot_id;
        let elapsed = self.since_boot_ms.checked_sub(earlier.since_boot_ms).filter(|_| is_of_this_boot);
        elapsed.unwrap_or(self.since_boot_ms)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// The manifest before ours, kept as `original.yaml`.
    #[serde(deserialize_with = "required")]
    pub original: Option<Sha>,
    /// The last confirmed manifest.
    #[serde(deserialize_with = "required")]
    pub confirmed: Option<Confirmed>,
    /// The Change in progress, or else the last one.
    #[serde(deserialize_with = "required")]
    pub change: Option<Change>,
    /// Why the last Change was abandoned. Kept while the next one is in progress, and until one is confirmed or rolled
    /// back.
    #[serde(deserialize_with = "required")]
    pub abandoned: Option<Cause>,
    /// Number of the last Change.
    pub changes: u64,
    /// The newest last.
    pub failures: Vec<Failure>,
    /// UID of the Setup that the failures belong to. None in old journals: they count for the next Setup that takes the
    /// node.
    #[serde(deserialize_with = "required")]
    pub setup_uid: Option<String>,
}

/// A manifest of ours that kube-apiserver has served with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Confirmed {
    pub revision: RevisionId,
    /// Hash of the manifest rendered from the original. If the manifest differs, somebody else changed it, and their
    /// edits are kept.
    pub manifest: Sha,
    pub at: Timestamp,
}

/// A Change that was rolled back. The same Revision is not tried again under the same generation of its Setup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// `None`: restoring the original manifest failed.
    #[serde(deserialize_with = "required")]
    pub target: Option<RevisionId>,
    /// `None`: a person asked for the Change.
    #[serde(deserialize_with = "required")]
    pub setup_generation: Option<i64>,
    pub cause: Cause,
    pub at: Timestamp,
    /// Whether the kubelet had to be ended for the rollback.
    pub ended_kubelet: bool,
}

/// Why a Change was rolled back or abandoned.
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
    #[serde(deserialize_with = "required")]
    pub target: Option<RevisionId>,
    /// `None`: a person asked for the Change.
    #[serde(deserialize_with = "required")]
    pub setup_generation: Option<i64>,
    /// Hashes of the manifest before and after, kept as `change/before.yaml` and `change/after.yaml`.
    pub before: Sha,
    pub after: Sha,
    /// Whether `after` was in place before the Change, for an unknown time: the guard only watches it, and `before` is
    /// the way back.
    pub is_in_place: bool,
    /// Hash of the manifest rendered from the original. It differs from `after` if somebody else had changed the
    /// manifest.
    pub ours: Sha,
    /// Command lines of kube-apiserver before and after, by which its process is recognised.
    pub argv_before: Vec<String>,
    pub argv_after: Vec<String>,
    /// The address at which this node's API server is asked for `/readyz`.
    pub probe: Endpoint,
    /// Pod and container of kube-apiserver, which name the directories of its logs.
    pub pod: FileName,
    pub container: FileName,
    /// Log directories of the API server's pods at the start: any other one belongs to a new pod.
    pub pods_before: Vec<String>,
    pub rollout: Rollout,
    pub staged: Clock,
    pub progress: Progress,
}

impl Change {
    /// `None`: it is in progress.
    pub fn verdict(&self) -> Option<&Verdict> {
        match &self.progress {
            Progress::UnderWay(_) => None,
            Progress::Ended { verdict, .. } => Some(verdict),
        }
    }
}

/// One segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct FileName(String);

/// A text that cannot name a file.
#[derive(Debug, thiserror::Error)]
#[error("not the name of a file")]
pub struct NotAFileName;

impl TryFrom<String> for FileName {
    type Error = NotAFileName;

    fn try_from(text: String) -> Result<Self, NotAFileName> {
        let is_name = (1..=255).contains(&text.len()) && !text.contains(['/', '\0']) && text != "." && text != "..";
        if is_name { Ok(Self(text)) } else { Err(NotAFileName) }
    }
}

impl std::ops::Deref for FileName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Address of an API server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

/// Whether a Change is in progress, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    UnderWay(Stage),
    Ended { verdict: Verdict, at: Timestamp },
}

/// How far a Change in progress is. Written ahead: the step may or may not have been taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The files are ready; the manifest is untouched.
    Staged,
    /// Swift: the manifest is being taken out, and the old process has to go.
    TakingOut { begun: Clock },
    /// The new manifest is being put in place, and watched.
    Verifying { begun: Clock },
    /// The old manifest is being put back, and watched.
    RollingBack(Rollback),
}

/// How a Change ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// kube-apiserver serves with the new manifest.
    Confirmed,
    /// The last confirmed manifest is back.
    RolledBack(Cause),
    /// Ended before the manifest was replaced, or because somebody else replaced it.
    Abandoned(Cause),
}

impl Verdict {
    /// `None`: it was confirmed.
    pub fn cause(&self) -> Option<&Cause> {
        match self {
            Verdict::Confirmed => None,
            Verdict::RolledBack(cause) | Verdict::Abandoned(cause) => Some(cause),
        }
    }
}

/// The way back to the old manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// When the Change first touched the manifest.
    pub begun: Clock,
    pub cause: Cause,
    pub way: Way,
    /// When this way was chosen. [`Way::Files`]: or when the files were first repaired in a later boot.
    pub since: Clock,
    /// Starts of the container until then.
    pub starts: u32,
    /// The kubelet that was ended. A later one is not.
    #[serde(deserialize_with = "required")]
    pub ended_kubelet: Option<EndedKubelet>,
}

/// A kubelet, by its start in the boot of `at`. Written ahead: it may still run, and then has to be ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedKubelet {
    pub started_since_boot_ms: u64,
    pub at: Clock,
}

/// The ways back, from the gentlest to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Way {
    /// The old manifest is put back, and the kubelet follows it.
    Manifest,
    /// The kubelet ignores manifests until it has seen an API server: the manifest stays, and the files it mounts are
    /// repaired.
    Files,
    /// The old manifest is put back, and the kubelet is ended so that its service manager restarts it.
    Kubelet,
}

/// A Change in progress. The guard acts on nothing else, and [`Journal::under_way`] alone gives one.
#[derive(Clone, Copy, Debug)]
pub struct UnderWay<'a> {
    journal: &'a Journal,
    change: &'a Change,
    pub stage: &'a Stage,
}

impl std::ops::Deref for UnderWay<'_> {
    type Target = Change;

    fn deref(&self) -> &Change {
        self.change
    }
}

impl UnderWay<'_> {
    /// When the Change first touched the manifest; `None`: it has not.
    pub fn begun(&self) -> Option<&Clock> {
        match self.stage {
            Stage::Staged => None,
            Stage::TakingOut { begun } | Stage::Verifying { begun } => Some(begun),
            Stage::RollingBack(rollback) => Some(&rollback.begun),
        }
    }

    pub fn rollback(&self) -> Option<&Rollback> {
        match self.stage {
            Stage::RollingBack(rollback) => Some(rollback),
            _ => None,
        }
    }

    /// The journal once the Change is at that stage.
    pub fn at(&self, stage: Stage) -> Journal {
        self.with(Progress::UnderWay(stage))
    }

    /// The journal once the Change has ended.
    pub fn ended(&self, mut verdict: Verdict, at: Timestamp) -> Journal {
        let ended_kubelet = self.rollback().is_some_and(|rollback| rollback.ended_kubelet.is_some());
        // This never happens silently.
        if let Verdict::RolledBack(cause) | Verdict::Abandoned(cause) = &mut verdict
            && ended_kubelet
        {
            cause.message += "; the kubelet was ended so that it followed the old manifest";
        }
        let mut journal = self.with(Progress::Ended { verdict: verdict.clone(), at });
        journal.abandoned = None;
        match verdict {
            Verdict::Confirmed => match &self.change.target {
                Some(revision) => {
                    let (revision, manifest) = (revision.clone(), self.change.ours.clone());
                    journal.confirmed = Some(Confirmed { revision, manifest, at });
                }
                None => journal.let_go(),
            },
            Verdict::RolledBack(cause) => {
                let (target, setup_generation) = (self.change.target.clone(), self.change.setup_generation);
                journal.failures.push(Failure { target, setup_generation, cause, at, ended_kubelet });
                let surplus = journal.failures.len().saturating_sub(FAILURES_KEPT);
                journal.failures.drain(..surplus);
            }
            Verdict::Abandoned(cause) => journal.abandoned = Some(cause),
        }
        journal
    }

    fn with(&self, progress: Progress) -> Journal {
        Journal { change: Some(Change { progress, ..self.change.clone() }), ..self.journal.clone() }
    }
}

/// A field that may be null, but not missing: without it the journal is damaged.
fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(field)
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("it is damaged")]
    Unreadable(#[source] serde_json::Error),
    #[error("it is of version {0}, which is newer than this program")]
    TooNew(u32),
}

impl Journal {
    const VERSION: u32 = 2;

    /// Reads a journal of this version or an older one.
    pub fn read(json: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        // The version comes first: an older program must not guess at the content of a newer journal.
        let Version { version } = serde_json::from_slice(json).map_err(Error::Unreadable)?;
        match version {
            0 | 1 => Ok(serde_json::from_slice::<version1::Journal>(json).map_err(Error::Unreadable)?.lift()),
            Self::VERSION => serde_json::from_slice(json).map_err(Error::Unreadable),
            newer => Err(Error::TooNew(newer)),
        }
    }

    /// The journal as [`Journal::read`] takes it.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Versioned<'a> {
            version: u32,
            #[serde(flatten)]
            journal: &'a Journal,
        }
        let versioned = Versioned { version: Self::VERSION, journal: self };
        serde_json::to_string_pretty(&versioned).expect("strings, numbers and lists only") + "\n"
    }

    /// The Change in progress: the guard has work.
    pub fn under_way(&self) -> Option<UnderWay<'_>> {
        let change = self.change.as_ref()?;
        match &change.progress {
            Progress::UnderWay(stage) => Some(UnderWay { journal: self, change, stage }),
            Progress::Ended { .. } => None,
        }
    }

    /// The failure that keeps `target` from being tried again under this generation.
    pub fn quarantine(&self, target: Option<&RevisionId>, setup_generation: i64) -> Option<&Failure> {
        self.failures
            .iter()
            .rev()
            .find(|failure| failure.target.as_ref() == target && failure.setup_generation == Some(setup_generation))
    }

    /// Assigns the node to a Setup. A failure under another Setup keeps nothing from being tried, though its generation
    /// may be the same.
    pub fn take_up(&mut self, setup_uid: &str) {
        if self.setup_uid.replace(setup_uid.into()).is_some_and(|before| before != setup_uid) {
            self.failures.clear();
        }
    }

    /// The manifest has no parts of ours any more, no matter who removed them.
    pub fn let_go(&mut self) {
        self.confirmed = None;
        self.original = None;
    }
}

#[cfg(test)]
mod tests;
