//! The guard on a host directory whose kubelet and kube-apiserver are simulated, stopped and failed at every fault
//! point in turn, and at random ones.
//!
//! The files, the journal and every step are real. The simulation follows measurements of the kubelet of 1.36.3: a pod
//! that waits for its predecessor, the back-off of a crash loop, and a kubelet that ignores changed manifests until it
//! has seen an API server.

use std::panic::{AssertUnwindSafe, catch_unwind};

use k8s_openapi::jiff::SignedDuration;
use testing::number;
use testing::random::Random;

mod mutated;

use super::evidence::is_repaired;
use super::*;
use crate::api::{Method, RestartKubelet, Rollout};
use crate::fixture;
use crate::floor::Floor;
use crate::journal::{Rollback, Way};
use crate::node::faults::{Fault, Killed};
use crate::node::{MANIFESTS_DIR, STATE_DIR, observe as observe_host, stage};
use crate::plan::{self, Desired, GuardKind, JOURNAL_COPY, Plan, Requester};
use crate::verdict::{InPlace, Process, Runs};

const KUBEADM: &str = include_str!("../../../tests/cases/manifest/kubeadm-1.36/in.yaml");
const TICK_MS: u64 = 200;
/// More than the deadline, the way back by files, and a kubelet's slowest window take together.
const LIMIT_MS: u64 = 40 * 60 * 1000;

/// The fault of the new Revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Good,
    BadPolicy,
    BadFlag,
    NeverReady,
}

/// The node before the change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Before {
    Pristine,
    Confirmed,
    /// The new manifest is in place already, and the journal is lost.
    InPlace,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    fate: Fate,
    method: Method,
    before: Before,
    restart_kubelet: RestartKubelet,
}

/// A node without its processes.
struct World {
    directory: tempfile::TempDir,
    state: State,
    scenario: Scenario,
    now_ms: u64,
    boot: u32,
    kubelet: PlayedKubelet,
    server: Option<Server>,
    /// Starts of a container of the new pod.
    starts: u32,
    seen: Seen,
    /// The guard's container is not running before this moment.
    guard_not_before_ms: u64,
    seed: u64,
    random: Random,
    /// The disk, as it was after the guard's last step: nobody else writes.
    journal: Journal,
    in_place: InPlace,
    /// How far somebody set the wall clock.
    hours_ahead: i64,
    /// Whether the guard has done all that it has to.
    is_tidy: bool,
}

/// The kubelet, as far as it concerns the one static pod.
#[derive(Clone, Debug)]
struct PlayedKubelet {
    /// Not running before this moment.
    started_ms: u64,
    /// It has not read the manifests yet.
    is_new: bool,
    has_seen_api: bool,
    /// The manifest that this kubelet runs.
    runs: Option<Text>,
    /// It found a container of another manifest: nothing that it would wait for.
    found_other: bool,
    /// When the next container may be started.
    not_before_ms: u64,
    exits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Before,
    After,
}

#[derive(Clone, Copy, Debug)]
struct Server {
    of: Text,
    started_ms: u64,
    ready_ms: Option<u64>,
    ends_ms: Option<u64>,
}

/// One that the guard lets pass, with a text of its own.
fn policy_of(text: &str) -> String {
    let part = audit_policy::Part { title: text.into(), rules: Floor::default().rules };
    audit_policy::write(&[part], &[], false)
}

fn desired(policy: &str, scenario: Scenario) -> Desired {
    Desired {
        requester: Requester::Person,
        rollout: Rollout {
            method: scenario.method,
            restart_kubelet: scenario.restart_kubelet,
            confirm_timeout_seconds: 120,
            ..Rollout::default()
        },
        guard: GuardKind::StaticPod("kind: Pod\n".into()),
        ..fixture::desired(fixture::content(&policy_of(policy), serde_json::json!({"path": "-"})))
    }
}

fn clock(boot: u32, since_boot_ms: u64) -> Clock {
    let wall = k8s_openapi::jiff::Timestamp::from_second(1_800_000_000).unwrap();
    Clock { wall, boot_id: boot.to_string(), since_boot_ms }
}

/// Stages a change as the agent does.
fn stage_policy(state: &State, scenario: Scenario, policy: &str) {
    let desired = desired(policy, scenario);
    let observed = observe_host(&state.host, desired.revision.as_ref().map(|revision| &revision.content)).unwrap();
    let Plan::Change(mut steps) = plan::plan(&desired, &observed) else { panic!("there is something to do") };
    steps.change.staged = clock(1, 1_000_000);
    stage(&state.lock().unwrap(), &steps).unwrap();
}

/// A host on which a change is staged, to be copied for each run: staging proves the edit, which takes its time.
struct Template {
    scenario: Scenario,
    directory: tempfile::TempDir,
}

/// In memory: a sync of a disk takes longer than all the rest.
fn directory() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Template {
    fn new(scenario: Scenario) -> Self {
        let directory = directory();
        let host = Host::open(directory.path()).unwrap();
        host.make_directory(MANIFESTS_DIR, 0o700).unwrap();
        host.replace(MANIFEST, KUBEADM.as_bytes(), 0o600).unwrap();
        let state = State::new(host);
        if scenario.before == Before::Confirmed {
            stage_policy(&state, scenario, "the first policy");
            let locked = state.lock().unwrap();
            put(&locked, AFTER).unwrap();
            let journal = locked.journal().unwrap();
            end(&locked, journal.under_way().unwrap(), Verdict::Confirmed, &clock(1, 0)).unwrap();
        }
        stage_policy(&state, scenario, "the new policy");
        if scenario.before == Before::InPlace {
            put(&state.lock().unwrap(), AFTER).unwrap();
            for name in ["journal.json", JOURNAL_COPY] {
                state.host.remove(&state::path(name)).unwrap();
            }
            stage_policy(&state, scenario, "the new policy");
        }
        Self { scenario, directory }
    }

    fn all() -> Vec<Self> {
        scenarios().map(Self::new).collect()
    }

    fn world(&self, seed: u64) -> World {
        let directory = directory();
        copy(self.directory.path(), directory.path());
        let state = State::new(Host::open(directory.path()).unwrap());
        let journal = state.journal().unwrap();
        // The kubelet has read the manifest, and waits to start it.
        let (runs, server) = match self.scenario.before {
            Before::InPlace => (Text::After, None),
            _ => (
                Text::Before,
                Some(Server { of: Text::Before, started_ms: 10_000, ready_ms: Some(14_000), ends_ms: None }),
            ),
        };
        let mut world = World {
            directory,
            state,
            scenario: self.scenario,
            now_ms: 1_000_000,
            boot: 1,
            kubelet: PlayedKubelet {
                started_ms: 5_000,
                is_new: false,
                has_seen_api: true,
                runs: Some(runs),
                found_other: false,
                not_before_ms: 0,
                exits: 0,
            },
            server,
            starts: 0,
            seen: Seen::default(),
            guard_not_before_ms: 0,
            seed,
            random: Random::new(seed),
            journal,
            in_place: InPlace::Before,
            hours_ahead: 0,
            is_tidy: false,
        };
        world.refresh();
        world
    }
}

impl World {
    /// Reads the disk again.
    fn refresh(&mut self) {
        self.journal = self.state.journal().unwrap();
        self.in_place = in_place(&self.state, self.change()).unwrap();
        assert_ne!(self.in_place, InPlace::Foreign, "nobody else writes here, so this is half a manifest: {self:?}");
    }

    fn change(&self) -> &Change {
        self.journal.change.as_ref().unwrap()
    }

    fn verdict(&self) -> Option<&Verdict> {
        self.change().verdict()
    }

    fn clock(&self) -> Clock {
        let now = clock(self.boot, self.now_ms);
        Clock { wall: now.wall + SignedDuration::from_hours(self.hours_ahead), ..now }
    }

    fn there(&self) -> Option<Text> {
        match self.in_place {
            InPlace::Before => Some(Text::Before),
            InPlace::After => Some(Text::After),
            InPlace::Missing | InPlace::Foreign => None,
        }
    }

    /// Lets time pass for the kubelet and kube-apiserver.
    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        let now = self.now_ms;
        if let Some(server) = &mut self.server
            && server.ends_ms.is_some_and(|end| end <= now)
        {
            if self.kubelet.runs == Some(server.of) {
                self.kubelet.exits += 1;
                // 10, 20, 40, 80, 160, 300 s.
                self.kubelet.not_before_ms = now + (5_000 << self.kubelet.exits.min(6)).min(300_000);
            }
            self.server = None;
        }
        if now < self.kubelet.started_ms {
            return;
        }
        if self.is_serving() {
            self.kubelet.has_seen_api = true;
        }
        let there = self.there();
        if std::mem::take(&mut self.kubelet.is_new) {
            // It takes the first manifest that it sees, with the container that may be running. A container of another
            // manifest is ended, not waited for.
            self.kubelet.runs = there;
            if let Some(server) = self.server.as_mut().filter(|server| Some(server.of) != there) {
                self.kubelet.found_other = true;
                server.ready_ms = None;
                server.ends_ms = Some(server.ends_ms.unwrap_or(u64::MAX).min(now + 6_000));
            }
        }
        if self.kubelet.runs != there {
            let may_follow = self.kubelet.has_seen_api || self.kubelet.runs.is_none();
            if !may_follow {
                // It lets go of nothing, and starts nothing either.
                return;
            }
            let was_missing = self.kubelet.runs.is_none();
            self.kubelet.runs = there;
            self.kubelet.found_other = false;
            self.kubelet.exits = 0;
            let wait = if was_missing && self.server.is_none() { 600 } else { 12_000 };
            self.kubelet.not_before_ms = now + wait;
            if let Some(server) = &mut self.server
                && Some(server.of) != there
            {
                let grace = if self.scenario.before == Before::Confirmed { 1_200 } else { 30_000 };
                server.ready_ms = None;
                server.ends_ms = Some(server.ends_ms.unwrap_or(u64::MAX).min(now + grace));
            }
        }
        let Some(wanted) = self.kubelet.runs else { return };
        if now < self.kubelet.not_before_ms {
            return;
        }
        match self.server {
            None => self.start(wanted),
            Some(server) if server.of != wanted && self.kubelet.found_other => {
                // The port is taken: it ends at once, and the first time it is started again at once.
                self.starts += u32::from(wanted == Text::After);
                self.kubelet.exits += 1;
                self.kubelet.not_before_ms = now + if self.kubelet.exits == 1 { 1_000 } else { 10_000 };
            }
            Some(_) => {}
        }
    }

    fn start(&mut self, of: Text) {
        if of == Text::After {
            self.starts += 1;
        }
        let policy = self.change().target.as_ref().map(|target| format!("{}/policy.yaml", revision::directory(target)));
        let policy = policy.and_then(|path| self.state.host.read(&path).unwrap());
        let is_bad = of == Text::After
            && match self.scenario.fate {
                Fate::Good | Fate::NeverReady => false,
                Fate::BadFlag => true,
                Fate::BadPolicy => policy.as_deref() == Some(policy_of("the new policy").as_bytes()),
            };
        // A file that is named and not there ends it too.
        let is_missing = of == Text::After && policy.is_none();
        let is_ready = of == Text::Before || self.scenario.fate != Fate::NeverReady;
        let now = self.now_ms;
        self.server = Some(if is_bad || is_missing {
            Server { of, started_ms: now, ready_ms: None, ends_ms: Some(now + 200) }
        } else {
            Server { of, started_ms: now, ready_ms: is_ready.then_some(now + 3_000), ends_ms: None }
        });
    }

    fn is_serving(&self) -> bool {
        self.server.is_some_and(|server| server.ready_ms.is_some_and(|ready| ready <= self.now_ms))
    }

    /// The evidence, as [`super::look`] would find it.
    fn gather(&mut self, change: UnderWay) -> Evidence {
        let seen = &mut self.seen;
        let is_serving = self.server.is_some_and(|server| server.ready_ms.is_some_and(|ready| ready <= self.now_ms));
        let pid = self.server.map(|server| i32::try_from(server.started_ms).unwrap());
        let kubelet = (self.now_ms >= self.kubelet.started_ms).then_some((1, self.kubelet.started_ms));
        let old_runs = self.server.is_some_and(|server| server.of == Text::Before);
        Evidence {
            in_place: self.in_place,
            process: self.server.map(|server| Process {
                runs: match server.of {
                    Text::Before => Runs::Before,
                    Text::After => Runs::After,
                },
                started_since_boot_ms: server.started_ms,
            }),
            released: seen.is_released(self.now_ms, pid),
            is_repaired: is_repaired(&self.state, change).unwrap(),
            serving_ms: seen.serving_ms(self.now_ms, pid, is_serving),
            starts: self.starts,
            starts_beside_old: seen.starts_beside_old(self.starts, old_runs),
            last_words: (self.starts > 0).then(|| "boom".to_string()),
            kubelet: seen.kubelet(kubelet, is_serving),
        }
    }

    /// One look of the guard, and one step; false where there was none to take.
    fn look(&mut self) -> Result<bool, Error> {
        let journal = self.journal.clone();
        let Some(change) = journal.under_way() else {
            tidy(&self.state.lock()?, &journal)?;
            self.is_tidy = true;
            return Ok(true);
        };
        let evidence = self.gather(change);
        let now = self.clock();
        let step = decide(&self.state, change, &evidence, &now)?;
        if step == Step::Wait {
            return Ok(false);
        }
        let locked = self.state.lock()?;
        carry_out(&locked, locked.journal()?.under_way().unwrap(), &step, &evidence, &now, None)?;
        if matches!(step, Step::EndKubelet(_)) {
            self.restart_kubelet(10_000);
        }
        Ok(true)
    }

    /// The kubelet is gone, and its service manager brings it back. Containers stay.
    fn restart_kubelet(&mut self, after_ms: u64) {
        self.kubelet = PlayedKubelet {
            started_ms: self.now_ms + after_ms,
            is_new: true,
            has_seen_api: false,
            runs: None,
            found_other: false,
            not_before_ms: self.now_ms + after_ms,
            exits: 0,
        };
    }

    fn restart_guard(&mut self) {
        self.seen = Seen::default();
        // It is a static pod: there is none without a kubelet.
        self.guard_not_before_ms = self.now_ms.max(self.kubelet.started_ms) + 3_000;
    }

    /// Power off and on.
    fn reboot(&mut self) {
        self.boot += 1;
        self.now_ms = 5_000;
        self.server = None;
        self.restart_kubelet(5_000);
        self.restart_guard();
    }

    /// Runs the guard until the change is over, with what `happen` does before each look; then lets the node settle.
    fn run(&mut self, mut happen: impl FnMut(&mut World)) {
        let mut passed = 0;
        while !self.is_tidy {
            passed += TICK_MS;
            assert!(passed < LIMIT_MS, "{self:?} does not come to an end");
            self.tick();
            happen(self);
            if self.now_ms < self.guard_not_before_ms {
                continue;
            }
            match catch_unwind(AssertUnwindSafe(|| self.look())) {
                Ok(Ok(false)) => continue,
                Ok(Ok(true)) => {}
                // The guard ends, and the kubelet restarts it.
                Ok(Err(_)) => self.restart_guard(),
                Err(panic) if panic.is::<Killed>() => self.restart_guard(),
                Err(panic) => std::panic::resume_unwind(panic),
            }
            self.refresh();
            self.check_manifest();
        }
        for _ in 0..LIMIT_MS / TICK_MS {
            self.tick();
            if self.is_serving() {
                break;
            }
        }
    }

    /// At any moment: a whole manifest, or none while it is taken out; and a journal that can be read.
    fn check_manifest(&self) {
        if self.in_place == InPlace::Missing {
            assert_eq!(self.scenario.method, Method::Swift, "{self:?}: the manifest is gone");
            assert!(self.verdict().is_none(), "{self:?}: it ended without a manifest");
        }
    }

    /// At the end: the API server serves, with what the journal says.
    fn check_end(&self) {
        let change = self.change();
        assert!(self.is_serving(), "{self:?}: the API server stays down");
        let there = self.there();
        let journal = self.state.journal().unwrap();
        match self.verdict() {
            Some(Verdict::Confirmed) => {
                assert_eq!((there, self.scenario.fate), (Some(Text::After), Fate::Good), "{self:?}");
                assert_eq!(journal.confirmed.unwrap().manifest, change.after);
            }
            Some(verdict) => {
                assert_eq!(there, Some(Text::Before), "{self:?}");
                let failure = journal.failures.last().map(|failure| &failure.target);
                let is_rolled_back = matches!(verdict, Verdict::RolledBack(_));
                assert_eq!(failure == Some(&change.target), is_rolled_back, "{self:?}");
            }
            None => panic!("{self:?} has not ended"),
        }
        let server = self.server.unwrap();
        assert_eq!(Some(server.of), there, "{self:?}: kube-apiserver runs the manifest in place");
        let left: Vec<String> = self.state.host.list(MANIFESTS_DIR).unwrap();
        let ours = |name: &String| name.starts_with('.');
        assert!(!left.iter().any(ours), "{self:?}: left behind: {left:?}");
        let state = self.state.host.list(STATE_DIR).unwrap();
        assert!(
            !state.iter().any(|name| name.starts_with('.') || name == CHANGE_DIR),
            "{self:?}: left behind: {state:?}"
        );
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {}, {:?} at {} ms of boot {}, {:?}, {:?}, server {:?}, fault at {:?}, in {}",
            self.seed,
            self.scenario,
            self.now_ms,
            self.boot,
            self.change().progress,
            self.kubelet,
            self.server,
            self.state.host.faults.happened(),
            self.directory.path().display()
        )
    }
}

/// A wrong flag on a node that may not end its kubelet is left out: after a reboot it waits for a person, as was asked
/// for.
fn scenarios() -> impl Iterator<Item = Scenario> {
    let fates = [
        (Fate::Good, RestartKubelet::WhenStuck),
        (Fate::BadPolicy, RestartKubelet::WhenStuck),
        (Fate::BadPolicy, RestartKubelet::Never),
        (Fate::BadFlag, RestartKubelet::WhenStuck),
        (Fate::NeverReady, RestartKubelet::WhenStuck),
    ];
    fates.into_iter().flat_map(|(fate, restart_kubelet)| {
        [Method::Replace, Method::Swift].into_iter().flat_map(move |method| {
            [Before::Pristine, Before::Confirmed, Before::InPlace].into_iter().map(move |before| Scenario {
                fate,
                method,
                before,
                restart_kubelet,
            })
        })
    })
}

#[test]
fn without_a_fault_a_good_revision_is_confirmed_and_a_bad_one_is_rolled_back() {
    for template in Template::all() {
        let mut world = template.world(1);
        world.run(|_| ());
        world.check_end();
        let is_confirmed = world.verdict() == Some(&Verdict::Confirmed);
        assert_eq!(is_confirmed, template.scenario.fate == Fate::Good, "{world:?}");
        assert!(!matches!(world.verdict(), Some(Verdict::Abandoned(_))), "{world:?}");
    }
}

#[test]
fn a_good_change_is_confirmed_though_the_kubelet_was_restarted_at_any_moment_of_it() {
    for template in Template::all().iter().filter(|template| template.scenario.fate == Fate::Good) {
        for moment in (0..200).step_by(3) {
            let mut world = template.world(1);
            let mut ticks = 0;
            world.run(|world| {
                if ticks == moment {
                    world.restart_kubelet(10_000);
                }
                ticks += 1;
            });
            world.check_end();
            assert_eq!(world.verdict(), Some(&Verdict::Confirmed), "restarted at tick {moment}: {world:?}");
        }
    }
}

#[test]
fn a_stop_or_a_failure_at_any_file_operation_leaves_a_node_that_serves() {
    for template in Template::all() {
        let points = {
            let mut world = template.world(1);
            let before = world.state.host.faults.reached_so_far();
            world.run(|_| ());
            world.state.host.faults.reached_so_far() - before
        };
        assert!(points > 10, "{:?} passes {points} fault points", template.scenario);
        for point in 0..points {
            // The process is killed, the machine stops, the operation fails.
            for (fault, reboots) in
                [(Fault::Kill, false), (Fault::Kill, true), (Fault::Fail(std::io::ErrorKind::StorageFull), false)]
            {
                let mut world = template.world(1);
                world.state.host.faults.arm(point, fault);
                let mut has_rebooted = !reboots;
                world.run(|world| {
                    if !has_rebooted && world.state.host.faults.happened().is_some() {
                        has_rebooted = true;
                        world.reboot();
                    }
                });
                assert!(world.state.host.faults.happened().is_some(), "{world:?}: point {point} was not reached");
                world.check_end();
            }
        }
    }
}

/// Runs of random faults at random moments: `TORTURE_RUNS` (default 400) from `TORTURE_SEED` (default 1) on.
#[test]
fn random_faults_at_random_moments_leave_a_node_that_serves() {
    let first = number("TORTURE_SEED").unwrap_or(1);
    let all = Template::all();
    for seed in first..first + number("TORTURE_RUNS").unwrap_or(400) {
        let mut world = all[usize::try_from(seed).unwrap() % all.len()].world(seed);
        let mut faults = 1 + world.random.below(4);
        world.run(|world| {
            // On average one in 20 s.
            if faults == 0 || !world.random.one_in(200) {
                return;
            }
            faults -= 1;
            let at = world.random.below(6) as u64;
            match world.random.below(6) {
                0 => world.reboot(),
                1 => world.restart_kubelet(10_000),
                2 => world.seen = Seen::default(),
                3 => world.state.host.faults.arm(at, Fault::Fail(std::io::ErrorKind::Other)),
                4 => world.hours_ahead += world.random.pick(&[1, -1]),
                _ => world.state.host.faults.arm(at, Fault::Kill),
            }
        });
        world.check_end();
    }
}

/// A node whose change has come to a stage, with a manifest that was taken out.
fn taken_out(stage: Stage) -> World {
    let (fate, method, before) = (Fate::Good, Method::Swift, Before::Pristine);
    let scenario = Scenario { fate, method, before, restart_kubelet: RestartKubelet::WhenStuck };
    let world = Template::new(scenario).world(1);
    let locked = world.state.lock().unwrap();
    locked.record(&locked.journal().unwrap().under_way().unwrap().at(stage)).unwrap();
    let path = world.directory.path().join(MANIFEST.trim_start_matches('/'));
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    world.state.host.rename(MANIFEST, TAKEN_OUT).unwrap();
    drop(locked);
    world
}

fn verifying() -> Stage {
    Stage::Verifying { begun: clock(1, 1_000_000) }
}

#[test]
fn a_manifest_that_cannot_be_put_in_leaves_the_old_one_there_meanwhile() {
    use std::os::unix::fs::PermissionsExt;
    let world = taken_out(verifying());
    let locked = world.state.lock().unwrap();
    let change = locked.journal().unwrap().change.unwrap();
    world.state.host.faults.arm(1, Fault::Fail(std::io::ErrorKind::StorageFull));
    assert!(put_in(&locked).is_err());
    assert_eq!(in_place(&locked, &change).unwrap(), InPlace::Before);
    put_in(&locked).unwrap();
    assert_eq!(in_place(&locked, &change).unwrap(), InPlace::After);
    let mode = |path: &str| world.state.host.metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(MANIFEST), 0o640, "as the one that was taken out");
    assert_eq!(world.state.host.read(TAKEN_OUT).unwrap(), None);
}

#[test]
fn a_new_manifest_is_like_the_one_that_was_taken_out() {
    use std::os::unix::fs::PermissionsExt;
    type Put = fn(&LockedState, &Change) -> Result<(), Error>;
    let put_in: Put = |state, _| super::put_in(state);
    for put in [put_in, put_back] {
        let world = taken_out(verifying());
        let locked = world.state.lock().unwrap();
        put(&locked, &locked.journal().unwrap().change.unwrap()).unwrap();
        let mode = world.state.host.metadata(MANIFEST).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }
}

#[test]
fn the_only_manifest_is_never_tidied_away() {
    let cause = Cause { reason: Reason::ManifestChanged, message: "gone".into(), last_words: None };
    let abandoned = Verdict::Abandoned(cause);
    for (verdict, is_taken_out, want) in [
        (abandoned.clone(), true, InPlace::Before),
        (Verdict::Confirmed, true, InPlace::Before),
        // Somebody removed it, before the Change touched it or after it had ended.
        (abandoned, false, InPlace::Missing),
        (Verdict::Confirmed, false, InPlace::Missing),
    ] {
        let world = taken_out(Stage::Staged);
        if !is_taken_out {
            world.state.host.remove(TAKEN_OUT).unwrap();
        }
        let locked = world.state.lock().unwrap();
        let journal = locked.journal().unwrap();
        let ended = end(&locked, journal.under_way().unwrap(), verdict, &clock(1, 1_100_000)).unwrap();
        tidy(&locked, &ended).unwrap();
        assert_eq!(in_place(&locked, journal.change.as_ref().unwrap()).unwrap(), want);
        assert_eq!(locked.host.list(MANIFESTS_DIR).unwrap().iter().filter(|name| name.starts_with('.')).count(), 0);
    }
}

#[test]
fn what_somebody_wrote_between_the_look_and_the_deed_is_not_replaced() {
    let begun = || clock(1, 1_000_000);
    let cause = Cause { reason: Reason::CrashLoop, message: "it exits".into(), last_words: None };
    let (way, since) = (Way::Manifest, begun());
    let rollback = Rollback { begun: begun(), cause, way, since, starts: 2, ended_kubelet: None };
    for (stage, step) in [
        (verifying(), Step::PutIn),
        (Stage::RollingBack(rollback), Step::PutBack),
        (Stage::TakingOut { begun: begun() }, Step::TakeOut),
    ] {
        let mut world = taken_out(stage);
        let journal = world.state.journal().unwrap();
        let change = journal.under_way().unwrap();
        let evidence = world.gather(change);
        let locked = world.state.lock().unwrap();
        locked.host.replace(MANIFEST, b"theirs", 0o600).unwrap();
        carry_out(&locked, change, &step, &evidence, &clock(1, 1_100_000), None).unwrap();
        assert_eq!(locked.host.read(MANIFEST).unwrap().unwrap(), b"theirs", "{step}");
    }
}

/// Writes below our state.
fn overwrite(state: &State, name: &str, bytes: &[u8]) {
    state.host.replace(&state::path(name), bytes, 0o600).unwrap();
}

#[test]
fn a_journal_that_is_lost_or_damaged_in_the_middle_of_a_change_is_written_again() {
    type Spoil = fn(&State, &str);
    let spoils: [Spoil; 4] = [
        |state, name| state.host.remove(&state::path(name)).unwrap(),
        |state, name| overwrite(state, name, b""),
        |state, name| overwrite(state, name, br#"{"version": 2}"#),
        |state, name| overwrite(state, name, b"\xff\xfe{"),
    ];
    for spoil in spoils {
        let world = taken_out(verifying());
        let locked = world.state.lock().unwrap();
        let whole = locked.journal().unwrap();
        // By a guard that was just started, from the copy; and with the copy spoilt too, by one that knows the journal.
        for (known, names) in [(None, &["journal.json"][..]), (Some(whole.clone()), &["journal.json", JOURNAL_COPY])] {
            names.iter().for_each(|name| spoil(&locked, name));
            let mut known = known;
            if known.is_some() {
                // An error is no reason to forget.
                world.state.host.faults.arm(0, Fault::Fail(std::io::ErrorKind::StorageFull));
                assert!(recall(&locked, &mut known).is_err() && known.is_some());
            }
            assert!(recall(&locked, &mut known).unwrap());
            assert_eq!(known.as_ref(), Some(&whole));
            let (found, damage) = locked.journal_or_copy().unwrap();
            assert!(found == whole && damage.is_none(), "{damage:?}");
        }
    }
}

#[test]
fn without_a_journal_that_can_be_read_the_old_manifest_returns_and_nothing_else_changes() {
    let newer = &br#"{"version": 99}"#[..];
    for (journal, copy, is_error) in [
        (Some(&b"{"[..]), None, true),
        (Some(newer), None, true),
        (None, Some(&b"{"[..]), true),
        (None, Some(newer), true),
        (None, None, false),
    ] {
        let world = taken_out(verifying());
        let locked = world.state.lock().unwrap();
        let change = locked.journal().unwrap().change.unwrap();
        for (name, text) in [("journal.json", journal), (JOURNAL_COPY, copy)] {
            match text {
                Some(text) => overwrite(&locked, name, text),
                None => locked.forget(name).unwrap(),
            }
        }
        let state = locked.host.list(STATE_DIR).unwrap();
        let found = recall(&locked, &mut None);
        assert_eq!(found.is_err(), is_error, "{found:?}");
        assert_eq!(in_place(&locked, &change).unwrap(), InPlace::Before);
        assert_eq!(locked.host.list(STATE_DIR).unwrap(), state);
        // And once more, with a manifest in place.
        locked.host.replace(MANIFEST, b"theirs", 0o600).unwrap();
        assert_eq!(recall(&locked, &mut None).is_err(), is_error);
        assert_eq!(locked.host.read(MANIFEST).unwrap().unwrap(), b"theirs");
    }
}

#[test]
fn what_was_staged_and_may_not_run_never_touches_the_manifest() {
    let template = Template::new(Scenario {
        fate: Fate::Good,
        method: Method::Replace,
        before: Before::Pristine,
        restart_kubelet: RestartKubelet::WhenStuck,
    });
    type Tamper = fn(&str) -> String;
    let cases: [(&'static str, Tamper, &str); 5] = [
        (CONTENT, |text| text.replace("\"path\":\"-\"", "\"path\":\"/etc/cron.d/audit\""), "are those of revision"),
        (CONTENT, |text| text.replace('{', "{\"flags\":{\"token-auth-file\":\"x\"},"), "cannot be read"),
        (FLOOR, |text| text.replace("auditsetups", "secrets"), "does not begin with the rules of the floor"),
        (
            AFTER,
            |text| text.replace("--audit-log-mode", "--anonymous-auth=true\n    - --audit-log-mode"),
            "is not the one that revision",
        ),
        (
            AFTER,
            |text| text.replace("hostNetwork: true", "hostPID: true\n  hostNetwork: true"),
            "is not the one that revision",
        ),
    ];
    for (name, tamper, want) in cases {
        let mut world = template.world(1);
        let locked = world.state.lock().unwrap();
        let staged = locked.kept(name).unwrap().unwrap();
        let tampered = tamper(&staged);
        assert_ne!(staged, tampered, "{name}");
        locked.keep(name, &tampered).unwrap();
        let mut journal = locked.journal().unwrap();
        if name == AFTER {
            // A program that can write there can write the hash too.
            journal.change.as_mut().unwrap().after = Sha::of(tampered.as_bytes());
            locked.record(&journal).unwrap();
        }
        drop(locked);
        world.refresh();
        world.run(|_| ());
        let Some(Verdict::Abandoned(cause)) = world.verdict().cloned() else { panic!("{world:?}") };
        assert_eq!(cause.reason, Reason::RevisionUnreadable, "{cause:?}");
        assert!(
            cause.message.contains(want) && cause.message.ends_with("the manifest was not touched"),
            "{}",
            cause.message
        );
        assert_eq!(world.state.manifest().unwrap().unwrap(), KUBEADM.as_bytes());
        world.check_end();
    }
}
