//! What a policy would have kept of the events of a log.
//!
//! Lines come in, a [`Tally`] goes out; tallies of parts of a log are merged in any order, and [`Report`] makes rates,
//! rotation and limits of the whole. Every event is judged by itself: it has its own stage, so events of one request
//! that are at both ends of a log need not find each other. Memory does not grow with the log.
//!
//! What an event would have been at a lower level is known to the byte. What it would have been at a higher one is not:
//! then the bytes are a lower bound, and [`Report`] says so.

mod kept;
mod report;
mod tally;
mod times;

pub use report::{Basis, Batching, Damages, Noise, Placed, Rate, Report, Rotation, Rule};
pub use tally::Tally;

use super::log::{Damage, Event, Memo, Reader, Request};
use super::{Decision, Evaluator};
use crate::{Level, Stage};

/// A policy, applied to the lines of a log or of a part of it.
pub struct Replay<'p> {
    evaluator: &'p Evaluator,
    reader: Reader,
    memo: Memo<Asked>,
    tally: Tally,
}

/// What counts of a request: the policy's decision, and whom and what it is counted for.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// Place in the tally: the rule, or the place behind all rules.
    rule: usize,
    level: Level,
    omitted_stages: Stages,
    omits_managed_fields: bool,
    /// Without a user there is one event only, of the stage `ResponseStarted` (filters/authn_audit.go#L33-L84).
    is_authenticated: bool,
    may_have: Bodies,
    user: u32,
    resource: u32,
    verb: u32,
}

/// Bodies that kube-apiserver records for such a request at the highest level (endpoints/handlers).
#[derive(Clone, Copy, Debug)]
struct Bodies {
    request: bool,
    response: bool,
    /// A patch is recorded as it was sent, with managed fields if there are any (audit/request.go).
    is_patch: bool,
}

/// A set of stages, a bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Stages(u8);

impl Stages {
    fn of(stages: &[Stage]) -> Self {
        Self(stages.iter().fold(0, |bits, stage| bits | 1 << *stage as u8))
    }

    fn has(self, stage: Stage) -> bool {
        self.0 >> stage as u8 & 1 == 1
    }
}

impl<'p> Replay<'p> {
    /// `rules` is how many rules the policy has.
    pub fn new(evaluator: &'p Evaluator, rules: usize) -> Self {
        Self { evaluator, reader: Reader::default(), memo: Memo::default(), tally: Tally::new(rules) }
    }

    /// Counts the events of a line.
    pub fn line(&mut self, line: &[u8], mut damaged: impl FnMut(Damage)) {
        let Self { evaluator, reader, memo, tally } = self;
        reader.read(line, |event, scanned| {
            let counted = event.and_then(|event| {
                let asked = memo.value(&event, |request| asked(evaluator, tally, request))?;
                tally.count(&event, &asked, scanned);
                Ok(())
            });
            if let Err(damage) = counted {
                damaged(damage);
            }
        });
    }

    pub fn into_tally(self) -> Tally {
        self.tally
    }
}

fn asked(evaluator: &Evaluator, tally: &mut Tally, request: &Request) -> Asked {
    let attributes = &request.attributes;
    let Decision { level, omit_stages, omit_managed_fields, rule } = evaluator.decide(attributes);
    let is_write = matches!(&*attributes.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    // Long-running subresources have no body to record.
    let is_stream = matches!(&*attributes.subresource, "attach" | "exec" | "proxy" | "log" | "portforward");
    let is_plain = attributes.is_resource_request && !is_stream;
    Asked {
        rule: rule.unwrap_or(tally.rules.len() - 1),
        level,
        omitted_stages: Stages::of(omit_stages),
        omits_managed_fields: omit_managed_fields,
        is_authenticated: attributes.user.is_some(),
        may_have: Bodies {
            request: is_plain && is_write,
            response: is_plain && &*attributes.verb != "watch",
            is_patch: &*attributes.verb == "patch",
        },
        user: tally.users.id(attributes.user.as_ref().map_or("(not authenticated)", |user| &user.name)),
        resource: tally.resources.id(&what(request)),
        verb: tally.verbs.id(&attributes.verb),
    }
}

/// What was asked for, as a person would say it: `deployments.apps/scale`, or the first parts of a path.
fn what(request: &Request) -> String {
    let attributes = &request.attributes;
    if !attributes.is_resource_request {
        return attributes.path.split('/').take(3).collect::<Vec<_>>().join("/");
    }
    let mut what = attributes.resource.to_string();
    for (before, part) in [('.', &attributes.api_group), ('/', &attributes.subresource)] {
        if !part.is_empty() {
            what.push(before);
            what.push_str(part);
        }
    }
    what
}
