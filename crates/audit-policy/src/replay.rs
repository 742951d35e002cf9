//! Counts the events of a log that a policy would have kept.
//!
//! Lines come in, a [`Tally`] goes out. Tallies of parts of a log are merged in any order, and [`Report`] computes
//! rates, rotation and limits of the whole. Each event has its own stage and is judged on its own, so the events of a
//! request need not be close to each other. Memory does not grow with the log.
//!
//! The size of an event at a lower level is known to the byte. At a higher level it is not: the bytes are then a lower
//! bound, and [`Report`] says so.

mod kept;
mod report;
mod tally;
mod times;

pub use report::{Basis, Batching, DamageReport, Damages, Noise, Rate, Report, Rotation, Rule};
pub use tally::Tally;

use super::log::{Damage, Event, Memo, Reader, Request};
use super::{Decision, Evaluator};
use crate::{Level, Stage};

/// Applies a policy to the lines of a log or of a part of it.
pub struct Replay<'p> {
    evaluator: &'p Evaluator,
    reader: Reader,
    memo: Memo<Judgement>,
    tally: Tally,
}

/// The policy's decision about a request, and the names that it is counted for.
#[derive(Clone, Copy, Debug)]
struct Judgement {
    /// Index in the tally: that of the rule, or the one after all rules.
    rule: usize,
    level: Level,
    omitted_stages: Stages,
    omits_managed_fields: bool,
    /// A request without a user has one event only, of the stage `ResponseStarted` (filters/authn_audit.go#L33-L84).
    is_authenticated: bool,
    may_have: Bodies,
    user: u32,
    resource: u32,
    verb: u32,
}

/// Bodies that kube-apiserver records of a request at the highest level (endpoints/handlers).
#[derive(Clone, Copy, Debug)]
struct Bodies {
    request: bool,
    response: bool,
    /// A patch is recorded as sent, including any managed fields (audit/request.go).
    is_patch: bool,
}

/// A set of stages, one bit each.
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
    /// `rules` is the number of rules of the policy.
    pub fn new(evaluator: &'p Evaluator, rules: usize) -> Self {
        Self { evaluator, reader: Reader::default(), memo: Memo::default(), tally: Tally::new(rules) }
    }

    /// Counts the events of a line.
    pub fn line(&mut self, line: &[u8], mut damaged: impl FnMut(Damage)) {
        let Self { evaluator, reader, memo, tally } = self;
        reader.read(line, |event, scanned| {
            let counted = event.and_then(|event| {
                let judgement = memo.value(&event, |request| judge(evaluator, tally, request))?;
                tally.count(&event, &judgement, scanned);
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

fn judge(evaluator: &Evaluator, tally: &mut Tally, request: &Request) -> Judgement {
    let attributes = &request.attributes;
    let Decision { level, omit_stages, omit_managed_fields, rule } = evaluator.decide(attributes);
    let is_write = matches!(&*attributes.verb, "create" | "update" | "patch" | "delete" | "deletecollection");
    // The bodies of long-running subresources are not recorded.
    let is_stream = matches!(&*attributes.subresource, "attach" | "exec" | "proxy" | "log" | "portforward");
    let is_plain = attributes.is_resource_request && !is_stream;
    Judgement {
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
        resource: tally.resources.id(&subject(request)),
        verb: tally.verbs.id(&attributes.verb),
    }
}

/// The subject of a request in short: `deployments.apps/scale`, or the first parts of a path.
fn subject(request: &Request) -> String {
    let attributes = &request.attributes;
    if !attributes.is_resource_request {
        return attributes.path.split('/').take(3).collect::<Vec<_>>().join("/");
    }
    let mut subject = attributes.resource.to_string();
    for (before, part) in [('.', &attributes.api_group), ('/', &attributes.subresource)] {
        if !part.is_empty() {
            subject.push(before);
            subject.push_str(part);
        }
    }
    subject
}
