//! Decides about requests exactly as kube-apiserver does.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go. The rules are compiled once, to
//! [cases](case). For every string that some case names there is the set of cases that it satisfies. The first case in
//! the intersection of these sets decides. The most selective sets are looked up first, the others only if a candidate
//! for the first case depends on them. A decision allocates nothing.

mod case;
mod table;

use std::collections::BTreeSet;

use case::{Case, ResourceRows, ResourceTables, cases};
use table::Table;

use super::{Attributes, Policy, Text};
use crate::{Level, Stage};

/// The decision about a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision<'a> {
    pub level: Level,
    /// Stages without an event, sorted by name, without repetition.
    pub omit_stages: &'a [Stage],
    pub omit_managed_fields: bool,
    /// Index of the rule that decides. `None`: no rule matches.
    pub rule: Option<usize>,
}

/// A compiled policy.
#[derive(Debug)]
pub struct Evaluator {
    blocks: Vec<Block>,
    /// The decisions of the rules, and last the one for requests that no rule matches.
    decisions: Vec<RuleDecision>,
}

/// Cases of a block. Tables grow with their square. No real policy needs a second block.
const BLOCK: usize = 1024;

/// Consecutive cases.
#[derive(Debug)]
struct Block {
    users: Table,
    groups: Table,
    verbs: Table,
    namespaces: Table,
    api_groups: Table,
    resources: ResourceTables,
    names: Table,
    words: Vec<CaseSets>,
    /// The paths of each case. Empty: every path.
    paths: Vec<Vec<PathPattern>>,
    /// The rule of each case.
    rules: Vec<usize>,
}

/// The parts of a request for a resource that are always looked up.
struct Rows {
    verb: usize,
    api_group: usize,
    resource: ResourceRows,
}

/// Sets of up to 64 cases, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct CaseSets {
    /// Cases that may match a request for a resource, and one for something else.
    for_resources: u64,
    for_others: u64,
    /// Cases that depend on the user, the group, and so on.
    user: u64,
    group: u64,
    namespace: u64,
    name: u64,
    path: u64,
}

#[derive(Debug)]
enum PathPattern {
    Whole(String),
    Prefix(String),
}

#[derive(Debug)]
struct RuleDecision {
    level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    rule: Option<usize>,
}

impl Evaluator {
    pub fn new(policy: &Policy) -> Self {
        let Policy { rules, omit_stages, omit_managed_fields } = policy;
        let decisions = rules.iter().enumerate().map(|(index, rule)| RuleDecision {
            level: rule.level,
            omit_stages: sorted(omit_stages.iter().chain(&rule.omit_stages)),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(*omit_managed_fields),
            rule: Some(index),
        });
        let unmatched = RuleDecision {
            level: Level::None,
            omit_stages: sorted(omit_stages.iter()),
            omit_managed_fields: *omit_managed_fields,
            rule: None,
        };
        Self {
            blocks: cases(rules).chunks(BLOCK).map(Block::new).collect(),
            decisions: decisions.chain([unmatched]).collect(),
        }
    }

    /// The decision about one request.
    pub fn decide(&self, request: &Attributes) -> Decision<'_> {
        let rule = self.blocks.iter().find_map(|block| block.rule(request));
        let RuleDecision { level, omit_stages, omit_managed_fields, rule } =
            &self.decisions[rule.unwrap_or(self.decisions.len() - 1)];
        Decision { level: *level, omit_stages, omit_managed_fields: *omit_managed_fields, rule: *rule }
    }
}

impl Block {
    fn new(cases: &[Case]) -> Self {
        let table = |values: for<'c> fn(&'c Case) -> &'c [String]| {
            Table::new(cases.iter().map(|case| (values(case).is_empty(), values(case).iter().map(String::as_str))))
        };
        Self {
            users: table(|case| &case.rule.users),
            groups: table(|case| &case.rule.user_groups),
            verbs: table(|case| &case.rule.verbs),
            namespaces: table(|case| &case.rule.namespaces),
            api_groups: Table::new(cases.iter().map(|case| (case.is_for_any_group(), case.groups.iter().copied()))),
            resources: ResourceTables::new(cases),
            names: table(|case| case.names()),
            words: cases.chunks(64).map(CaseSets::of).collect(),
            paths: cases
                .iter()
                .map(|case| case.rule.non_resource_urls.iter().map(|url| PathPattern::new(url)).collect())
                .collect(),
            rules: cases.iter().map(|case| case.index).collect(),
        }
    }

    #[inline]
    fn rule(&self, request: &Attributes) -> Option<usize> {
        let case = if request.is_resource_request { self.resource_case(request) } else { self.other_case(request) };
        case.map(|case| self.rules[case])
    }

    fn resource_case(&self, request: &Attributes) -> Option<usize> {
        let rows = Rows {
            verb: self.verbs.row(&*request.verb),
            api_group: self.api_groups.row(&*request.api_group),
            resource: self.resources.rows(request),
        };
        (0..self.words.len()).find_map(|index| self.resource_case_of(request, &rows, index))
    }

    /// Not part of the loop over the words, since there is usually one word: nothing is prepared for the next one.
    #[inline(never)]
    fn resource_case_of(&self, request: &Attributes, rows: &Rows, index: usize) -> Option<usize> {
        let word = &self.words[index];
        let left = word.for_resources
            & self.verbs.word(rows.verb, index)
            & self.api_groups.word(rows.api_group, index)
            & self.resources.word(rows.resource, index);
        let mut left = up_to_first(left, left & !(word.user | word.group | word.namespace | word.name));
        if left & word.namespace != 0 {
            left &= self.namespaces.word(self.namespaces.row(&*request.namespace), index);
        }
        if left & word.name != 0 {
            left &= self.names.word(self.names.row(&*request.name), index);
        }
        if left & (word.user | word.group) != 0 {
            left &= self.for_user(request, left, index);
        }
        (left != 0).then(|| index * 64 + left.trailing_zeros() as usize)
    }

    fn other_case(&self, request: &Attributes) -> Option<usize> {
        let verb = self.verbs.row(&*request.verb);
        for (index, word) in self.words.iter().enumerate() {
            let left = word.for_others & self.verbs.word(verb, index);
            let left = up_to_first(left, left & !(word.user | word.group | word.path));
            let mut left = left & self.for_user(request, left, index);
            while left != 0 {
                let case = index * 64 + left.trailing_zeros() as usize;
                let paths = &self.paths[case];
                if paths.is_empty() || paths.iter().any(|pattern| pattern.matches(&request.path)) {
                    return Some(case);
                }
                left &= left - 1;
            }
        }
        None
    }

    /// The cases that match the user. Without a user, these are the cases without users and groups.
    fn for_user(&self, request: &Attributes, left: u64, index: usize) -> u64 {
        let CaseSets { user: users, group: groups, .. } = self.words[index];
        let Some(user) = &request.user else { return !(users | groups) };
        let mut named = !0;
        if left & users != 0 {
            named = self.users.word(self.users.row(&*user.name), index);
        }
        if left & named & groups != 0 {
            let of_group = |cases, group: &Text| cases | self.groups.word(self.groups.row(&**group), index);
            named &= user.groups.iter().fold(!groups, of_group);
        }
        named
    }
}

impl CaseSets {
    fn of(cases: &[Case]) -> Self {
        let bits = |is_in: fn(&Case) -> bool| {
            cases.iter().enumerate().fold(0, |bits, (index, case)| bits | u64::from(is_in(case)) << index)
        };
        Self {
            for_resources: bits(|case| case.is_for_resources() || case.rule.non_resource_urls.is_empty()),
            for_others: bits(|case| !case.is_for_resources()),
            user: bits(|case| !case.rule.users.is_empty()),
            group: bits(|case| !case.rule.user_groups.is_empty()),
            namespace: bits(|case| !case.rule.namespaces.is_empty()),
            name: bits(|case| !case.names().is_empty()),
            path: bits(|case| !case.rule.non_resource_urls.is_empty()),
        }
    }
}

/// Removes the cases after the first certain one: they do not matter.
#[inline]
fn up_to_first(left: u64, certain: u64) -> u64 {
    left & (certain ^ certain.wrapping_sub(1))
}

impl PathPattern {
    /// Strips all trailing stars, so `*` is a prefix of everything.
    fn new(url: &str) -> Self {
        if url.ends_with('*') {
            Self::Prefix(url.trim_end_matches('*').to_string())
        } else {
            Self::Whole(url.to_string())
        }
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Whole(whole) => whole == path,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
        }
    }
}

/// Sorted by name without repetition: kube-apiserver has them in any order.
fn sorted<'a>(stages: impl Iterator<Item = &'a Stage>) -> Vec<Stage> {
    let named: BTreeSet<(String, Stage)> = stages.map(|stage| (format!("{stage:?}"), *stage)).collect();
    named.into_iter().map(|(_, stage)| stage).collect()
}

#[cfg(test)]
pub(super) mod tests;
