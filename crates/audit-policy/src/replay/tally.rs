//! Counts of a log or of a part of it.

use std::collections::HashMap;

use super::kept::kept;
use super::times::Times;
use super::{Event, Judgement};
use crate::log::Scanned;
use crate::{Level, Stage};

/// Counts. Those of parts of a log can be merged.
#[derive(Debug)]
pub struct Tally {
    /// One for each rule, and a last one for requests that no rule matches.
    pub(super) rules: Vec<RuleTally>,
    /// All events of the log.
    pub(super) log: Count,
    /// Events of the log by stage and by level.
    pub(super) stages: [u64; 4],
    pub(super) levels: [u64; 4],
    pub(super) users: Names,
    pub(super) resources: Names,
    pub(super) verbs: Names,
    pub(super) times: Times,
    /// The largest kept event.
    pub(super) largest: u64,
    /// Kept bodies of objects, and how many of them have managed fields.
    pub(super) bodies: u64,
    pub(super) managed_bodies: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub events: u64,
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.events += 1;
        self.bytes += bytes;
    }

    fn merge(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct RuleTally {
    /// Events of the log that the rule decides about.
    pub events: u64,
    /// First and last events of requests among them.
    pub received: u64,
    pub ended: u64,
    pub kept: Count,
    /// Kept events that may be larger than counted.
    pub lacking_bodies: u64,
    /// Events of the stage `RequestReceived` that the rule would keep: those in the log, and the expected ones.
    pub first_stages: u64,
    pub owed_first_stages: Count,
}

impl RuleTally {
    /// Requests whose first or last event is in the log.
    pub fn requests(&self) -> u64 {
        self.received.max(self.ended)
    }
}

/// Strings with their counts.
#[derive(Debug)]
pub(super) struct Names {
    ids: HashMap<Box<str>, u32>,
    counts: Vec<Count>,
}

/// More names than a cluster has. Further names are counted together, so that random ones cannot fill the memory.
const MAX_NAMES: usize = 100_000;
/// Longest name in bytes. Parts of a URL may be longer than any name.
const MAX_NAME: usize = 256;
pub(super) const OTHERS: &str = "(others)";

impl Default for Names {
    fn default() -> Self {
        Self { ids: HashMap::from([(OTHERS.into(), 0)]), counts: vec![Count::default()] }
    }
}

impl Names {
    /// The id of a name.
    pub fn id(&mut self, name: &str) -> u32 {
        let name = &name[..name.floor_char_boundary(MAX_NAME)];
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        if self.counts.len() >= MAX_NAMES {
            return 0;
        }
        let id = u32::try_from(self.counts.len()).expect("there are at most MAX_NAMES");
        self.ids.insert(name.into(), id);
        self.counts.push(Count::default());
        id
    }

    fn merge(&mut self, other: &Self) {
        for (name, id) in &other.ids {
            let own = self.id(name);
            self.counts[own as usize].merge(other.counts[*id as usize]);
        }
    }

    /// The names with the most bytes first.
    pub fn ranked(&self) -> Vec<(&str, Count)> {
        let counts = self.ids.iter().map(|(name, id)| (&**name, self.counts[*id as usize]));
        let mut counts: Vec<_> = counts.filter(|(_, count)| count.events > 0).collect();
        counts.sort_by_key(|(name, count)| (std::cmp::Reverse((count.bytes, count.events)), *name));
        counts
    }
}

impl Tally {
    pub fn new(rules: usize) -> Self {
        Self {
            rules: vec![RuleTally::default(); rules + 1],
            log: Count::default(),
            stages: [0; 4],
            levels: [0; 4],
            users: Names::default(),
            resources: Names::default(),
            verbs: Names::default(),
            times: Times::default(),
            largest: 0,
            bodies: 0,
            managed_bodies: 0,
        }
    }

    pub(super) fn count(&mut self, event: &Event, judgement: &Judgement, scanned: Option<Scanned>) {
        self.log.add(event.bytes);
        self.stages[event.stage as usize] += 1;
        self.levels[event.level as usize] += 1;
        let rule = &mut self.rules[judgement.rule];
        rule.events += 1;
        let is_kept = judgement.level > Level::None;
        let is_first = event.stage == Stage::RequestReceived;
        rule.received += u64::from(is_first);
        let is_last = matches!(event.stage, Stage::ResponseComplete | Stage::Panic);
        rule.ended += u64::from(is_last || (!judgement.is_authenticated && event.stage == Stage::ResponseStarted));
        if is_kept && !judgement.omitted_stages.has(Stage::RequestReceived) {
            rule.first_stages += u64::from(is_first);
            if is_last {
                rule.owed_first_stages.add(first_stage_bytes(event));
            }
        }
        if !is_kept || judgement.omitted_stages.has(event.stage) {
            self.times.count(event.time, None);
            return;
        }
        let kept = kept(event, judgement, scanned);
        rule.kept.add(kept.bytes);
        rule.lacking_bodies += u64::from(kept.lacks_body);
        self.bodies += u64::from(kept.has_body);
        self.managed_bodies += u64::from(kept.has_managed_fields);
        self.largest = self.largest.max(kept.bytes);
        self.times.count(event.time, Some(kept.bytes));
        for (names, id) in [
            (&mut self.users, judgement.user),
            (&mut self.resources, judgement.resource),
            (&mut self.verbs, judgement.verb),
        ] {
            names.counts[id as usize].add(kept.bytes);
        }
    }

    pub fn merge(&mut self, other: Self) {
        for (rule, other) in self.rules.iter_mut().zip(&other.rules) {
            rule.events += other.events;
            rule.received += other.received;
            rule.ended += other.ended;
            rule.kept.merge(other.kept);
            rule.lacking_bodies += other.lacking_bodies;
            rule.first_stages += other.first_stages;
            rule.owed_first_stages.merge(other.owed_first_stages);
        }
        self.log.merge(other.log);
        for (sum, other) in self.stages.iter_mut().zip(other.stages) {
            *sum += other;
        }
        for (sum, other) in self.levels.iter_mut().zip(other.levels) {
            *sum += other;
        }
        self.users.merge(&other.users);
        self.resources.merge(&other.resources);
        self.verbs.merge(&other.verbs);
        self.times.merge(other.times);
        self.largest = self.largest.max(other.largest);
        self.bodies += other.bodies;
        self.managed_bodies += other.managed_bodies;
    }
}

/// Estimates the size of a request's first event from its last one.
fn first_stage_bytes(event: &Event) -> u64 {
    let stage_bytes = if event.stage == Stage::Panic { "Panic".len() } else { "ResponseComplete".len() };
    (event.bytes - event.later_bytes + "RequestReceived".len() as u64) - stage_bytes as u64
}
