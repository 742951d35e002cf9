//! Findings about a policy file, whether kube-apiserver would start with it or not.
//!
//! [`lint`] returns the findings of [`load`](super::load()). If kube-apiserver would start with the file, it adds rules
//! that probably do not do what their author meant: [`names`] judges rule by rule, [`reach`] finds rules without
//! effect, [`coverage`] asks the policy about requests that should or should not be recorded. [`fix()`] applies the
//! edits that findings carry. Each finding belongs to a [`Stanza`]. audit-operator lints the file for the nodes before
//! it touches any of them.

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

/// Findings that are kept of one stanza.
const MAX_OF_STANZA: usize = 100;

/// The circumstances under which a policy is judged.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// Minor version of kube-apiserver; 36 means 1.36.
    pub minor: u32,
    /// Whether the author accepts that Secrets and tokens are recorded with their bodies. The finding is then an info,
    /// not an error.
    pub secrets_accepted: bool,
    /// How kube-apiserver delivers the events.
    pub mode: Mode,
    /// Rules that come before those of every policy and decide first. Empty: there are none, or they are not known.
    pub floor: &'a [PolicyRule],
}

/// The result of [`lint`].
#[derive(Debug)]
pub struct Linted {
    /// The policy of kube-apiserver. `None`: it would not start.
    pub policy: Option<Policy>,
    /// Sorted by place.
    pub findings: Vec<Finding>,
}

/// All findings about a policy file.
pub fn lint(text: &[u8], terms: &Terms) -> Linted {
    let Loaded { policy, mut findings, traps, places } = load(text, terms.minor);
    findings.extend(traps);
    // With an invalid file the effect of its rules is not known yet.
    if let Some(policy) = &policy {
        findings.extend(lint_policy(policy, &places, terms));
    }
    findings.sort_by_key(|finding| (finding.place, std::cmp::Reverse(finding.severity)));
    // Text that an alias uses twice is reported once.
    findings.dedup_by(|a, b| (a.place, a.id, &a.message) == (b.place, b.id, &b.message));
    Linted { policy, findings }
}

/// The findings about a policy that kube-apiserver would start with.
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

/// A run of lint: the policy and the findings so far.
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
        // Errors are kept even when there is no room: a caller that looks for an error of this stanza must find one.
        let has_room = self.findings.len() < MAX_FINDINGS || finding.severity == Severity::Error;
        if *count <= MAX_OF_STANZA && has_room {
            self.findings.push(finding);
        }
    }

    /// Notes at the last kept finding of each stanza how many more there are.
    fn more(&mut self) {
        for (id, count) in &self.counts {
            let left = count.saturating_sub(MAX_OF_STANZA);
            if let Some(last) = self.findings.iter_mut().rfind(|finding| finding.id == *id && left > 0) {
                let message = format!("{left} more findings of this kind are not shown");
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

    /// Rules, and names in rules, without effect.
    fn reach(&mut self) {
        use reach::Reach;
        for (i, reach) in reach::reach(self.policy, &self.evaluator, self.fresh).into_iter().enumerate() {
            let path = format!("rules[{i}]");
            match reach {
                Reach::TooLarge => {
                    let message = "the rule combines too many values: lint cannot decide whether a request reaches it"
                        .to_string();
                    self.find(stanza::RULE_TOO_LARGE, path, message);
                }
                // No name of it can match; `names` has reported that.
                Reach::Unreachable { takers } if takers.is_empty() => {}
                Reach::Unreachable { takers } => {
                    let message = "no request reaches this rule: earlier rules take all its requests".to_string();
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

    /// Later rules are often a little too broad, so a name is reported only if its requests are recorded differently.
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
        let message = format!("{shown} has no effect here: earlier rules take all its requests");
        let mut finding = Finding::new(stanza::PARTLY_SHADOWED, self.places.of(&path), path, message);
        let is_of_level = takers.iter().any(|taker| self.policy.rules[*taker].level != rule.level);
        let otherwise = if is_of_level { format!("at {:?}", rule.level) } else { "at other stages".to_string() };
        let message = format!("this rule takes some of its requests; the other rule would record them {otherwise}");
        finding.notes = self.rules(takers, &message);
        self.add(finding);
    }
}

#[cfg(test)]
mod tests;
