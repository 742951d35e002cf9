//! What changes from one policy to another: requests of which another amount is recorded.
//!
//! With a log, its requests are compared ([`Comparison::line`]); without one, requests that are made of the words of
//! both policies ([`generated`]). What counts is what is recorded: another rule that decides the same is no difference,
//! nor are stages of a request of which nothing is recorded.

mod vocabulary;

use std::collections::BTreeMap;

use serde::Serialize;

use super::log::{Damage, Memo, Reader, Request};
use super::{Evaluator, Policy};
use crate::{Level, Stage};

/// What a policy does with a request. Its JSON is a contract.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// None where no rule matches.
    pub rule: Option<usize>,
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// A request, as a person would make it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Example {
    pub url: String,
    pub method: String,
    /// None for a request that fails to authenticate.
    pub user: Option<Who>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Who {
    pub name: String,
    pub groups: Vec<String>,
}

/// Requests that go from one outcome to another.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Change {
    /// Of a log; of generated requests there are no events.
    pub events: u64,
    /// Of a log, those that ended in it.
    pub requests: u64,
    /// The first few in their order.
    pub examples: Vec<Example>,
}

/// Two policies, and what was found to be different so far.
pub struct Comparison<'p> {
    old: &'p Evaluator,
    new: &'p Evaluator,
    reader: Reader,
    memo: Memo<Option<usize>>,
    places: BTreeMap<(Outcome, Outcome), usize>,
    changes: Vec<Change>,
    all: Change,
}

/// The differences that were found.
#[derive(Debug, Default, PartialEq)]
pub struct Differences {
    pub changes: BTreeMap<(Outcome, Outcome), Change>,
    /// All that was compared.
    pub events: u64,
    pub requests: u64,
    /// False where there are more combinations of words than were tried.
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

    /// Compares what becomes of the events of a line.
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

/// Compares two policies by requests made of their own words.
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
    /// Keeps the first examples in their order, so that it does not matter who came upon them first.
    fn show(&mut self, example: Example) {
        if let Err(at) = self.examples.binary_search(&example) {
            self.examples.insert(at, example);
            self.examples.truncate(EXAMPLES);
        }
    }
}

/// Where requests like this one are counted; none where nothing changes.
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
        user: user.map(|user| Who {
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

/// What an outcome means for the log.
fn recorded(outcome: &Outcome) -> (Level, &[Stage], bool) {
    match outcome.level {
        Level::None => (Level::None, &[], false),
        level => (level, &outcome.omit_stages, level >= Level::Request && outcome.omit_managed_fields),
    }
}

#[cfg(test)]
mod tests;
