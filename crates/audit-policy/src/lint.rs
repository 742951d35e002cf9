//! What is wrong with a policy that kube-apiserver would start with, and with one that it would not.
//!
//! [`lint`] takes a file and gives what [`load`](super::load()) found and, where kube-apiserver starts with it, what it
//! would do that hardly anybody means: [`names`] rule by rule, [`reach`] for rules that decide nothing, [`coverage`]
//! for what is recorded and what is not. [`fix()`] applies the edits that findings carry. Each finding belongs to a
//! [`Stanza`]. audit-operator lints the file that the nodes would get, before it touches any of them.

mod coverage;
mod fix;
mod floor;
mod names;
mod reach;
mod resources;

use std::collections::HashMap;

pub use fix::{Declined, FixError, Fixed, fix};

use super::finding::{Edit, Finding, MAX_FINDINGS, Note, Severity};
use super::load::{Loaded, load};
use super::stanza::{self, Stanza};
use super::{Evaluator, Places, Policy};
use crate::{Level, Mode, PolicyRule, Stage};

/// Of one kind so many findings are kept.
const MAX_OF_STANZA: usize = 100;

/// What a policy is judged by.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Minor version of kube-apiserver; 36 means 1.36.
    pub minor: u32,
    /// Whether the author accepts that Secrets and tokens are recorded with their bodies: that is an info then, not an
    /// error.
    pub secrets_accepted: bool,
    /// How the events are delivered, where that is known.
    pub mode: Mode,
    /// Rules that stand before every policy and decide first; empty where there are none, or they are not known.
    pub floor: &'a [PolicyRule],
}

/// A file that was judged.
#[derive(Debug)]
pub struct Linted {
    /// What kube-apiserver holds; none where it would not start.
    pub policy: Option<Policy>,
    /// Sorted by place.
    pub findings: Vec<Finding>,
}

/// Everything there is to say about a policy file.
pub fn lint(text: &[u8], terms: &Terms) -> Linted {
    let Loaded { policy, mut findings, traps, places } = load(text, terms.minor);
    findings.extend(traps);
    // A file that does not start is corrected first: what its rules would do is not known before.
    if let Some(policy) = &policy {
        findings.extend(lint_policy(policy, &places, terms));
    }
    findings.sort_by_key(|finding| (finding.place, std::cmp::Reverse(finding.severity)));
    // What stands once and is used twice, by an alias, is told once.
    findings.dedup_by(|a, b| (a.place, a.id, &a.message) == (b.place, b.id, &b.message));
    Linted { policy, findings }
}

/// What a policy would do that hardly anybody means.
fn lint_policy(policy: &Policy, places: &Places, terms: &Terms) -> Vec<Finding> {
    let fresh = reach::Fresh::of(policy);
    let mut linter = Linter {
        policy,
        places,
        terms,
        evaluator: Evaluator::new(policy),
        fresh: &fresh,
        findings: Vec::new(),
        counts: HashMap::new(),
    };
    linter.names();
    linter.reach();
    linter.coverage();
    linter.floor();
    linter.more();
    linter.findings
}

/// The state of a run: what is judged, and what was found.
struct Linter<'a> {
    policy: &'a Policy,
    places: &'a Places,
    terms: &'a Terms<'a>,
    evaluator: Evaluator,
    fresh: &'a reach::Fresh,
    findings: Vec<Finding>,
    counts: HashMap<&'static str, usize>,
}

impl Linter<'_> {
    fn find(&mut self, stanza: &'static Stanza, path: String, message: String) {
        self.add(Finding::new(stanza, self.places.of(&path), path, message));
    }

    fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.id).or_default();
        *count += 1;
        // Of its own kind at least one error is always kept, however much else there is: whoever asks whether there is
        // one must not be told that there is none.
        let has_room = self.findings.len() < MAX_FINDINGS || finding.severity == Severity::Error;
        if *count <= MAX_OF_STANZA && has_room {
            self.findings.push(finding);
        }
    }

    /// Tells how many are not kept, with the last one of a kind that is.
    fn more(&mut self) {
        for (id, count) in &self.counts {
            let left = count.saturating_sub(MAX_OF_STANZA);
            if let Some(last) = self.findings.iter_mut().rfind(|finding| finding.id == *id && left > 0) {
                let message = format!("{left} more of this kind are not shown");
                last.notes.push(Note { message, place: last.place, path: last.path.clone() });
            }
        }
    }

    /// Notes that point at rules.
    fn rules(&self, rules: &[usize], message: &str) -> Vec<Note> {
        let note = |rule: &usize| {
            let path = format!("rules[{rule}]");
            Note { message: message.to_string(), place: self.places.of(&path), path }
        };
        rules.iter().map(note).collect()
    }

    /// Rules, and names in rules, that decide nothing.
    fn reach(&mut self) {
        use reach::Reach;
        for (i, reach) in reach::reach(self.policy, &self.evaluator, self.fresh).into_iter().enumerate() {
            let path = format!("rules[{i}]");
            match reach {
                Reach::TooLarge => {
                    let message = "the rule combines too many values to tell whether it is reached".to_string();
                    self.find(stanza::RULE_TOO_LARGE, path, message);
                }
                // Nothing of it can match, which was told by name.
                Reach::Unreachable { takers } if takers.is_empty() => {}
                Reach::Unreachable { takers } => {
                    let message = "no request reaches this rule: rules before it match all of its requests".to_string();
                    let mut finding = Finding::new(stanza::UNREACHABLE_RULE, self.places.of(&path), path, message);
                    let part = if takers.len() == 1 { "all" } else { "some" };
                    finding.notes = self.rules(&takers, &format!("this rule takes {part} of them"));
                    self.add(finding);
                }
                Reach::Reached { dead } => {
                    for (name, takers) in dead {
                        self.dead_name(i, name, &takers);
                    }
                }
            }
        }
    }

    /// Rules are often written so that a later one is a little too broad: only what is recorded otherwise than it says
    /// is told.
    fn dead_name(&mut self, index: usize, name: reach::Name, takers: &[usize]) {
        let rule = &self.policy.rules[index];
        let is_alike = |taker: &usize| {
            let taker = &self.policy.rules[*taker];
            let omits = |rule: &PolicyRule, stage| {
                rule.omit_stages.contains(&stage) || self.policy.omit_stages.contains(&stage)
            };
            let stages = [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic];
            taker.level == rule.level
                && (rule.level == Level::None
                    || stages.into_iter().all(|stage| omits(taker, stage) == omits(rule, stage)))
        };
        if takers.is_empty() || takers.iter().all(is_alike) {
            return;
        }
        let path = format!("rules[{index}].{name}");
        let shown = super::quoted(rule.name(name));
        let message = format!("{shown} has no effect here: rules before this one match all of its requests");
        let mut finding = Finding::new(stanza::PARTLY_SHADOWED, self.places.of(&path), path, message);
        let is_of_level = takers.iter().any(|taker| self.policy.rules[*taker].level != rule.level);
        let otherwise = if is_of_level { format!("at {:?}", rule.level) } else { "at other stages".to_string() };
        let message = format!("this rule takes requests of it, and the other would have recorded them {otherwise}");
        finding.notes = self.rules(takers, &message);
        self.add(finding);
    }
}

#[cfg(test)]
mod tests;
