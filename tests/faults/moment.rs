//! Moments of a change, as the node's own files and processes show them.

use std::time::{Duration, Instant};

use audit_operator::journal::{Progress, Stage, Verdict};
use audit_operator::node::probe;
use testing::wait;

use super::node::{Node, Program};

/// A change has each of them at most once, in this order; a way back is only taken by one that fails.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Moment {
    /// The Setup was applied; nothing else is known.
    Applied,
    /// So long after that.
    After(Duration),
    /// The first file of the change exists, the journal does not know of it.
    Staging,
    /// The journal knows; the manifest is as it was.
    Staged,
    /// The guard's process is there.
    GuardRuns,
    /// The journal says that the manifest is about to be touched.
    Begun,
    /// Swift: there is no manifest.
    TakenOut,
    /// The new manifest is in place.
    Replaced,
    /// The old process is gone.
    OldGone,
    /// The new process is there.
    NewRuns,
    /// The new process answers.
    Serves,
    /// The journal says that it is rolled back.
    RollingBack,
    /// The old manifest is in place again.
    PutBack,
    /// The journal has the verdict.
    Finished,
}

/// The state before the change.
pub struct Before {
    pub manifest: String,
    pub changes: u64,
    pub api_server: Vec<i32>,
    pub applied: Instant,
}

impl Before {
    pub fn of(node: &Node) -> Self {
        Self {
            manifest: node.manifest().expect("a node at rest has a manifest"),
            changes: node.journal().map_or(0, |journal| journal.changes),
            api_server: node.processes(Program::ApiServer).into_keys().collect(),
            applied: Instant::now(),
        }
    }

    pub fn has_come(&self, moment: Moment, node: &Node) -> bool {
        let change = || node.change().filter(|(number, _)| *number > self.changes);
        let is_back = || {
            let is = |progress| {
                matches!(
                    progress,
                    Progress::UnderWay(Stage::RollingBack(_)) | Progress::Ended { verdict: Verdict::RolledBack(_), .. }
                )
            };
            change().is_some_and(|(_, progress)| is(progress))
        };
        let old_runs = || node.processes(Program::ApiServer).keys().any(|pid| self.api_server.contains(pid));
        match moment {
            Moment::Applied => true,
            Moment::After(time) => self.applied.elapsed() >= time,
            Moment::Staging => node.exists("/var/lib/audit-operator/change/before.yaml") || change().is_some(),
            Moment::Staged => change().is_some(),
            Moment::GuardRuns => !node.processes(Program::Guard).is_empty(),
            Moment::Begun => change().is_some_and(|(_, progress)| progress != Progress::UnderWay(Stage::Staged)),
            Moment::TakenOut => node.exists("/etc/kubernetes/manifests") && node.manifest().is_none(),
            Moment::Replaced => node.manifest().is_some_and(|text| text != self.manifest),
            Moment::OldGone => change().is_some() && !old_runs(),
            Moment::NewRuns => {
                node.processes(Program::ApiServer).keys().any(|pid| !self.api_server.contains(pid)) && !old_runs()
            }
            Moment::Serves => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                self.has_come(Moment::NewRuns, node) && runtime.block_on(probe::is_serving(&node.endpoint()))
            }
            Moment::RollingBack => is_back(),
            Moment::PutBack => is_back() && node.manifest().as_ref() == Some(&self.manifest),
            Moment::Finished => change().is_some_and(|(_, progress)| matches!(progress, Progress::Ended { .. })),
        }
    }

    /// Waits for a moment, closely. False: it did not come in the time that any change takes.
    pub fn wait(&self, moment: Moment, node: &Node) -> bool {
        let come = || self.has_come(moment, node).then_some(());
        wait::poll(Duration::from_secs(180), Duration::from_millis(1), come).is_some()
    }
}
