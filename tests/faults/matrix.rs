//! The fault matrix: each act, its moment, and the outcome that must follow.

use std::time::Duration;

use super::act::Act;
use super::moment::Moment;
use super::node::Program;

/// The change that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Another policy.
    Good,
    /// The certificate of an authority that kube-apiserver does not start with.
    BadAuthority,
    /// A log that kube-apiserver cannot write.
    BadLog,
    /// A good one that nobody makes: the fault comes to a node at rest.
    Rest,
    /// The Setup is deleted.
    Delete,
}

/// The outcome that must follow. In every case all API servers serve, nothing half done is left, and the next change
/// succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new Revision runs.
    New,
    /// The old manifest is back, and status says why.
    Old,
    /// Somebody else's manifest without our parts, and status says why.
    Without,
    /// Either, by how far it was; where it is the old one, status says why.
    Either,
    /// The manifest is as kubeadm wrote it, and nothing of ours is left.
    Original,
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub fault: &'static str,
    pub change: Change,
    pub is_swift: bool,
    pub moment: Moment,
    pub act: Act,
    pub outcome: Outcome,
    /// Nodes that it takes.
    pub nodes: usize,
    /// Whether `make test` has it too.
    pub is_chosen: bool,
}

const fn row(fault: &'static str, change: Change, moment: Moment, act: Act, outcome: Outcome) -> Row {
    Row { fault, change, is_swift: false, moment, act, outcome, nodes: 1, is_chosen: false }
}

impl Row {
    const fn swift(self) -> Self {
        Self { is_swift: true, ..self }
    }

    const fn chosen(self) -> Self {
        Self { is_chosen: true, ..self }
    }

    const fn on(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const ROWS: &[Row] = {
    use Act::*;
    use Change::*;
    use Moment::*;
    use Outcome::*;
    use Program::*;
    &[
        row("nothing", Good, Applied, None, New),
        row("nothing", Good, Applied, None, New).swift(),
        row("a CA that kube-apiserver refuses", BadAuthority, Applied, None, Old).chosen(),
        row("a CA that kube-apiserver refuses", BadAuthority, Applied, None, Old).swift(),
        row("a log that kube-apiserver cannot write", BadLog, Applied, None, Old),
        row("the new policy file is deleted", Good, Staged, DeletePolicy, Old),
        // The agent.
        row("agent killed", Good, Staging, Kill(Agent), New),
        row("agent killed", Good, Staged, Kill(Agent), New),
        row("agent killed", Good, Replaced, Kill(Agent), New),
        row("agent's pod deleted", Good, NewRuns, DeleteAgentPod, New),
        // The guard.
        row("guard killed", Good, GuardRuns, Kill(Guard), New),
        row("guard killed", Good, Replaced, Kill(Guard), New).chosen(),
        row("guard killed", Good, OldGone, Kill(Guard), New),
        row("guard killed again and again for 20 s", Good, Replaced, KillFor(Guard, s(20)), New),
        row("guard killed", BadAuthority, Replaced, Kill(Guard), Old).chosen(),
        row("guard killed", BadAuthority, RollingBack, Kill(Guard), Old),
        row("guard killed", BadAuthority, PutBack, Kill(Guard), Old),
        row("guard killed", Good, TakenOut, Kill(Guard), New).swift().chosen(),
        row("guard frozen for 30 s", BadAuthority, Replaced, Freeze(Guard, s(30)), Old),
        row("the guard's manifest is deleted", Good, GuardRuns, DeleteGuard, Either),
        // Power.
        row("power cut", Good, Staging, PowerCut(s(1)), New),
        row("power cut", Good, Staged, PowerCut(s(1)), Either),
        row("power cut", Good, Replaced, PowerCut(s(1)), New).chosen(),
        row("power cut", Good, Serves, PowerCut(s(1)), New),
        row("power cut", Good, Finished, PowerCut(s(1)), New),
        row("power cut", Good, TakenOut, PowerCut(s(1)), Either).swift().chosen(),
        row("power cut", Good, Replaced, PowerCut(s(1)), New).swift(),
        row("power cut", BadAuthority, Replaced, PowerCut(s(1)), Old).chosen(),
        row("power cut", BadLog, Replaced, PowerCut(s(1)), Old),
        row("power cut", BadAuthority, RollingBack, PowerCut(s(1)), Old),
        row("power cut", BadAuthority, PutBack, PowerCut(s(1)), Old),
        row("three power cuts in a row", BadAuthority, Replaced, PowerCuts(3), Old),
        // The kubelet, the runtime, etcd, kube-apiserver itself.
        row("kubelet killed", Good, Replaced, Kill(Kubelet), New),
        row("kubelet killed", Good, OldGone, Kill(Kubelet), New).chosen(),
        row("kubelet killed", BadAuthority, OldGone, Kill(Kubelet), Old).chosen(),
        row("kubelet killed", Good, TakenOut, Kill(Kubelet), New).swift(),
        row("kubelet killed, and another one runs in a container", BadLog, OldGone, KillKubeletBesideNested, Old),
        row("kubelet frozen for 40 s", Good, Begun, Freeze(Kubelet, s(40)), New),
        row("kubelet frozen for longer than the deadline", Good, Begun, Freeze(Kubelet, s(150)), Old),
        row("containerd killed", Good, Replaced, Kill(Containerd), New),
        row("containerd killed", Good, OldGone, Kill(Containerd), New),
        row("etcd killed", Good, Replaced, Kill(Etcd), New),
        row("etcd frozen for 25 s", Good, NewRuns, Freeze(Etcd, s(25)), New),
        row("kube-apiserver killed once", Good, Serves, Kill(ApiServer), New).chosen(),
        // Disks.
        row("our state's disk is full for 20 s", Good, Applied, FullDisk(s(20)), New),
        row("our state's disk is full for 30 s", BadAuthority, Replaced, FullDisk(s(30)), Old).chosen(),
        row("our state's disk is read-only for 30 s", BadAuthority, Replaced, ReadOnlyDisk(s(30)), Old),
        row("the manifests cannot be changed for 20 s", Good, GuardRuns, ImmutableManifests(s(20)), Either),
        row("the manifests cannot be changed for 20 s", Good, TakenOut, ImmutableManifests(s(20)), New).swift(),
        row("the manifests cannot be changed for 40 s", BadAuthority, Replaced, ImmutableManifests(s(40)), Old),
        row("our files get another owner", Good, Replaced, WrongOwner, New),
        row("all Revisions are deleted", Rest, Applied, DeleteRevisions, New),
        row("the journal is lost", Rest, Applied, LoseJournal, New),
        row("the journal is lost", Good, Replaced, LoseJournal, New),
        row("the journal is lost", BadAuthority, Replaced, LoseJournal, Old),
        row("a stage of the journal loses a part, and the guard is killed", Good, Replaced, LosePartOfJournal, New),
        row(
            "a stage of the journal loses a part, and the guard is killed",
            BadAuthority,
            RollingBack,
            LosePartOfJournal,
            Old,
        ),
        row("the journal is one of version 1, and the guard is killed", Good, Replaced, OldJournal, New),
        row("the journal is one of version 1, and the guard is killed", BadAuthority, RollingBack, OldJournal, Old),
        row("the directory of our state is deleted", Rest, Applied, LoseState, New),
        // Other people.
        row("somebody edits another part of the manifest", Rest, Applied, EditOtherPart, New),
        row("somebody edits another part of the manifest", Good, Replaced, EditOtherPart, New),
        row("somebody edits another part of the manifest", BadAuthority, Replaced, EditOtherPart, Without),
        row("somebody deletes our flags", Rest, Applied, EditOurPart, New).chosen(),
        row(
            "kubeadm init phase control-plane",
            Good,
            Replaced,
            Kubeadm("init phase control-plane apiserver --config /root/kubeadm.yaml"),
            New,
        ),
        row("kubeadm certs renew", Good, Replaced, Kubeadm("certs renew all"), New),
        row(
            "kubeadm upgrade apply",
            Rest,
            Applied,
            Kubeadm("upgrade apply v1.36.3 --yes --force --ignore-preflight-errors=all"),
            New,
        ),
        row(
            "kubeadm upgrade apply",
            Good,
            Replaced,
            Kubeadm("upgrade apply v1.36.3 --yes --force --ignore-preflight-errors=all"),
            New,
        ),
        row("kubeadm upgrade node", Rest, Applied, Kubeadm("upgrade node --ignore-preflight-errors=all"), New),
        row("the node is cordoned", Good, Begun, Cordon, New),
        row("the node hosts the API server of another cluster", Good, Applied, HostAnother, New),
        row("the node hosts the API server of another cluster", BadAuthority, Applied, HostAnother, Old).swift(),
        // The controller.
        row("controller killed, and two of them afterwards", Good, Begun, TwoControllers, New),
        row("the Setup changes again", Good, Replaced, ApplyAgain(1), New),
        row("the Setup changes again", BadAuthority, Replaced, ApplyAgain(1), New).chosen(),
        row("the Setup changes ten times in a row", Good, Replaced, ApplyAgain(10), New),
        row("the Setup is deleted", Good, Replaced, DeleteSetup, Original),
        row("guard killed", Delete, Replaced, Kill(Guard), Original),
        row("power cut", Delete, Replaced, PowerCut(s(1)), Original),
        // Several nodes.
        row("nothing", Good, Applied, None, New).on(3),
        row("nothing", Good, Applied, None, New).on(3).swift(),
        row("a CA that kube-apiserver refuses", BadAuthority, Applied, None, Old).on(3),
        row("guard killed", Good, Replaced, Kill(Guard), New).on(3),
        row("power cut for 30 s", Good, Replaced, PowerCut(s(30)), New).on(3),
        row("power cut for 30 s", BadAuthority, Replaced, PowerCut(s(30)), Old).on(3),
        row("controller killed, and two of them afterwards", Good, Replaced, TwoControllers, New).on(3),
        row("etcd frozen for 25 s", Good, OldGone, Freeze(Etcd, s(25)), New).on(3),
        row("the Setup changes again", BadAuthority, Replaced, ApplyAgain(1), New).on(3),
        row("kubeadm upgrade node", Good, Replaced, Kubeadm("upgrade node --ignore-preflight-errors=all"), New).on(3),
        row("another node is without power for 60 s", Good, Staged, OtherOff(s(60)), New).on(3),
        row("another node's API server is killed for 60 s", Good, Staged, OtherApiServerDown(s(60)), New).on(3),
        row("somebody deletes our flags on all nodes at once", Rest, Applied, EditOurPartEverywhere, New).on(3),
        row("somebody deletes our flags on another node", Good, Begun, EditOurPartOfOther, New).on(3),
        row("the NodeAudit of another node is deleted", Good, Replaced, ForgetOther, New).on(3),
        row("all NodeAudits are deleted", Rest, Applied, ForgetAll, New).on(3),
        row("all NodeAudits are deleted", Good, Staged, ForgetAll, New).on(3),
        row("another node is reset, and a new machine joins under its name", Rest, Applied, ReplaceOther, New).on(3),
        row("another node is reset, and a new machine joins under its name", Good, Replaced, ReplaceOther, New).on(3),
        row("the Setup is deleted", Good, Replaced, DeleteSetup, Original).on(3),
    ]
};
