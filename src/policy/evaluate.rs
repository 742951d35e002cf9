//! Which rule decides about a request, and what it decides: exactly as kube-apiserver does it.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go. The rules are compiled once: for every string that some rule
//! names there is the set of rules that it satisfies, and a decision is the first rule in the intersection of these sets. Of the
//! resources only a superset is kept that way; [`rule::matches_resource`] looks closely at the few rules that are left. A decision
//! allocates nothing.

mod rule;
mod table;

use std::collections::BTreeSet;

use rule::{ResourceTables, Rule};
use table::{Bits, Table};

use super::{Attributes, Policy, Text};
use crate::api::{Level, PolicyRule, Stage};

/// What is recorded of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'a> {
    pub level: Level,
    /// Stages without an event, sorted by name, each once.
    pub omit_stages: &'a [Stage],
    pub omit_managed_fields: bool,
    /// Index of the rule that decided; none where no rule matches.
    pub rule: Option<usize>,
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Evaluator {
    users: Table,
    groups: Table,
    verbs: Table,
    namespaces: Table,
    resources: ResourceTables,
    /// Rules that may match a request for a resource, and for something else.
    for_resources: Bits,
    for_others: Bits,
    /// Rules about whose resources the sets tell all.
    exact: Bits,
    rules: Vec<Rule>,
    /// The policy's own, for requests that no rule matches.
    unmatched: Outcome,
}

#[derive(Debug)]
struct Outcome {
    level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

impl Evaluator {
    pub fn new(policy: &Policy) -> Self {
        let Policy { rules, omit_stages, omit_managed_fields } = policy;
        let table = |values: fn(&PolicyRule) -> &[String]| {
            Table::new(rules.len(), rules.iter().map(|rule| (values(rule).is_empty(), values(rule).iter())))
        };
        let is_for_resources = |rule: &PolicyRule| !rule.namespaces.is_empty() || !rule.resources.is_empty();
        Self {
            users: table(|rule| &rule.users),
            groups: table(|rule| &rule.user_groups),
            verbs: table(|rule| &rule.verbs),
            namespaces: table(|rule| &rule.namespaces),
            for_resources: Bits::of(
                rules.iter().map(|rule| is_for_resources(rule) || rule.non_resource_urls.is_empty()),
            ),
            for_others: Bits::of(rules.iter().map(|rule| !is_for_resources(rule))),
            exact: Bits::of(rules.iter().map(rule::is_exact)),
            resources: ResourceTables::new(rules),
            rules: rules.iter().map(|rule| Rule::new(rule, policy)).collect(),
            unmatched: Outcome {
                level: Level::None,
                omit_stages: sorted(omit_stages.iter()),
                omit_managed_fields: *omit_managed_fields,
            },
        }
        .with_resource_ids(rules)
    }

    fn with_resource_ids(mut self, rules: &[PolicyRule]) -> Self {
        for (compiled, rule) in self.rules.iter_mut().zip(rules) {
            compiled.set_entries(&self.resources, rule);
        }
        self
    }

    /// The decision about one request.
    pub fn decide(&self, request: &Attributes) -> Decision<'_> {
        let found = if request.is_resource_request { self.resource_rule(request) } else { self.other_rule(request) };
        let outcome = found.map_or(&self.unmatched, |index| &self.rules[index].outcome);
        Decision {
            level: outcome.level,
            omit_stages: &outcome.omit_stages,
            omit_managed_fields: outcome.omit_managed_fields,
            rule: found,
        }
    }

    fn resource_rule(&self, request: &Attributes) -> Option<usize> {
        let verb = self.verbs.row(&request.verb);
        let user = self.user_row(request);
        let namespace = self.namespaces.row(&request.namespace);
        let resource = self.resources.rows(request);
        for word in 0..self.for_resources.words() {
            let mut left = self.for_resources.word(word)
                & self.verbs.word(verb, word)
                & self.users.word(user, word)
                & self.namespaces.word(namespace, word)
                & self.resources.word(&resource, word);
            left = self.asked_by(request, left, word);
            while left != 0 {
                let index = word * 64 + left.trailing_zeros() as usize;
                let is_exact = self.exact.word(word) & left & left.wrapping_neg() != 0;
                if is_exact || self.rules[index].matches_resource(&self.resources, &resource, request) {
                    return Some(index);
                }
                left &= left - 1;
            }
        }
        None
    }

    fn other_rule(&self, request: &Attributes) -> Option<usize> {
        let verb = self.verbs.row(&request.verb);
        let user = self.user_row(request);
        for word in 0..self.for_others.words() {
            let mut left = self.for_others.word(word) & self.verbs.word(verb, word) & self.users.word(user, word);
            left = self.asked_by(request, left, word);
            while left != 0 {
                let index = word * 64 + left.trailing_zeros() as usize;
                if self.rules[index].matches_path(&request.path) {
                    return Some(index);
                }
                left &= left - 1;
            }
        }
        None
    }

    /// Without a user there is no rule but those that ask for none.
    fn user_row(&self, request: &Attributes) -> usize {
        request.user.as_ref().map_or(Table::UNNAMED, |user| self.users.row(&user.name))
    }

    /// Those of the rules that are for the groups of whoever asks. These are looked up only where a rule depends on them.
    fn asked_by(&self, request: &Attributes, left: u64, word: usize) -> u64 {
        let unnamed = self.groups.word(Table::UNNAMED, word);
        if left & !unnamed == 0 {
            return left;
        }
        let groups = request.user.as_ref().map_or(&[][..], |user| &user.groups);
        let in_group = |rules, group: &Text| rules | self.groups.word(self.groups.row(group), word);
        left & groups.iter().fold(unnamed, in_group)
    }
}

/// By name, each once: kube-apiserver holds them in any order.
fn sorted<'a>(stages: impl Iterator<Item = &'a Stage>) -> Vec<Stage> {
    let named: BTreeSet<(String, Stage)> = stages.map(|stage| (format!("{stage:?}"), *stage)).collect();
    named.into_iter().map(|(_, stage)| stage).collect()
}

#[cfg(test)]
pub(super) mod tests;
