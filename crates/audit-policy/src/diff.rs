//! Compares two policies by the requests that they record differently.
//!
//! The requests come from a log ([`Comparison::line`]) or are made of the words of both policies ([`generated`]). Only
//! the record counts: it is no difference if another rule decides the same, or if stages of an unrecorded request
//! change.

mod vocabulary;

use std::collections::BTreeMap;

use serde::Serialize;

use super::log::{Damage, Memo, Reader, Request};
use super::{Evaluator, Policy};
use crate::{Level, Stage};

/// The decision of a policy about a request. Its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// `None`: no rule matches.
    pub rule: Option<usize>,
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A request in the form of an example.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Example {
    pub url: String,
    pub method: String,
    /// `None`: the request fails to authenticate.
    pub user: Option<ExampleUser>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ExampleUser {
    pub name: String,
    pub groups: Vec<String>,
}

/// Requests whose outcome changes in the same way.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// Events of a log; 0 for generated requests.
    pub events: u64,
    /// With a log, the requests that end in it.
    pub requests: u64,
    /// The first few in sort order.
    pub examples: Vec<Example>,
}

/// Two policies, and the differences found so far.
pub struct Comparison<'p> {
    old: &'p Evaluator,
    new: &'p Evaluator,
    reader: Reader,
    memo: Memo<Option<usize>>,
    places: BTreeMap<(Outcome, Outcome), usize>,
    changes: Vec<Change>,
    all: Change,
}

/// The differences between two policies.
#[derive(Debug, Default, PartialEq)]
pub struct Differences {
    pub changes: BTreeMap<(Outcome, Outcome), Change>,
    /// All compared events and requests, different or not.
    pub events: u64,
    pub requests: u64,
    /// False if there were more combinations of words than were tried.
    pub is_complete: bool,
}

const EXAMPLES: usize = 3;
/// A second or two of work.
const MAX_GENERATED: usize = 1_000_000;

impl<'p> Comparison<'p> {
    pub fn new(old: &'p Evaluator, new: &'p Evaluator) -> Self {
        Self {
            old,
            new,
            reader: Reader::default(),
            memo: Memo::default(),
            places: BTreeMap::new(),
            changes: Vec::new(),
            all: Change::default(),
        }
    }

    /// Compares the outcomes of the events of a line.
    pub fn line(&mut self, line: &[u8], mut damaged: impl FnMut(Damage)) {
        let Self { old, new, reader, memo, places, changes, all } = self;
        reader.read(line, |event, _| {
            let counted = event.and_then(|event| {
                let place = memo.value(&event, |request| place(old, new, places, changes, request))?;
                let is_last = matches!(event.stage, Stage::ResponseComplete | Stage::Panic);
                for change in place.map(|place| &mut changes[place]).into_iter().chain([&mut *all]) {
                    change.events += 1;
                    change.requests += u64::from(is_last);
                }
                Ok(())
            });
            if let Err(damage) = counted {
                damaged(damage);
            }
        });
    }

    pub fn into_differences(self) -> Differences {
        let mut differences = Differences {
            events: self.all.events,
            requests: self.all.requests,
            is_complete: true,
            ..Differences::default()
        };
        for (outcomes, place) in self.places {
            differences.changes.insert(outcomes, self.changes[place].clone());
        }
        differences
    }
}

/// Compares two policies by requests that are made of their own words.
pub fn generated(old: &Policy, new: &Policy) -> Differences {
    let evaluators = [Evaluator::new(old), Evaluator::new(new)];
    let [old_evaluator, new_evaluator] = &evaluators;
    let mut comparison = Comparison::new(old_evaluator, new_evaluator);
    let mut is_complete = true;
    for (number, request) in vocabulary::requests([old, new]).enumerate() {
        if number == MAX_GENERATED {
            is_complete = false;
            break;
        }
        let Comparison { old, new, places, changes, all, .. } = &mut comparison;
        all.requests += 1;
        if let Some(place) = place(old, new, places, changes, &request) {
            changes[place].requests += 1;
        }
    }
    Differences { is_complete, ..comparison.into_differences() }
}

impl Differences {
    pub fn merge(&mut self, other: Self) {
        self.events += other.events;
        self.requests += other.requests;
        self.is_complete &= other.is_complete;
        for (outcomes, other) in other.changes {
            let change = self.changes.entry(outcomes).or_default();
            change.events += other.events;
            change.requests += other.requests;
            other.examples.into_iter().for_each(|example| change.show(example));
        }
    }
}

impl Change {
    /// Keeps the first examples in sort order, so that the order of the parts does not matter.
    fn show(&mut self, example: Example) {
        if let Err(at) = self.examples.binary_search(&example) {
            self.examples.insert(at, example);
            self.examples.truncate(EXAMPLES);
        }
    }
}

/// Index of the change that counts this request. `None`: its record does not change.
fn place(
    old: &Evaluator,
    new: &Evaluator,
    places: &mut BTreeMap<(Outcome, Outcome), usize>,
    changes: &mut Vec<Change>,
    request: &Request,
) -> Option<usize> {
    let outcomes = (outcome(old, request), outcome(new, request));
    if recorded(&outcomes.0) == recorded(&outcomes.1) {
        return None;
    }
    let place = *places.entry(outcomes).or_insert_with(|| {
        changes.push(Change::default());
        changes.len() - 1
    });
    let user = request.attributes.user.as_ref();
    changes[place].show(Example {
        url: request.uri.to_string(),
        method: request.method.to_string(),
        user: user.map(|user| ExampleUser {
            name: user.name.to_string(),
            groups: user.groups.iter().map(|group| group.to_string()).collect(),
        }),
    });
    Some(place)
}

fn outcome(evaluator: &Evaluator, request: &Request) -> Outcome {
    let decision = evaluator.decide(&request.attributes);
    Outcome {
        rule: decision.rule,
        level: decision.level,
        omit_stages: decision.omit_stages.to_vec(),
        omit_managed_fields: decision.omit_managed_fields,
    }
}

/// The record that an outcome leaves in the log.
fn recorded(outcome: &Outcome) -> (Level, &[Stage], bool) {
    match outcome.level {
        Level::None => (Level::None, &[], false),
        level => (level, &outcome.omit_stages, level >= Level::Request && outcome.omit_managed_fields),
    }
}

#[cfg(test)]
mod tests;
