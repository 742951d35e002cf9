//! Which rule decides about a request, and what it decides: exactly as kube-apiserver does it.
//!
//! kubernetes@v1.36.3 staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go. The rules are compiled once, to
//! [cases](case): for every string that some case names there is the set of cases that it satisfies, and a decision is
//! the first case in the intersection of these sets. What tells most is looked up first, and the rest only where a case
//! depends on it that may be the first. A decision allocates nothing.

mod case;
mod table;

use std::collections::BTreeSet;

use case::{Case, ResourceRows, Resources, cases};
use table::Table;

use super::{Attributes, Policy, Text};
use crate::{Level, Stage};

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
    blocks: Vec<Block>,
    /// Of the rules, and the policy's own for requests that no rule matches.
    outcomes: Vec<Outcome>,
}

/// Cases of a block: the tables grow with their square. No policy that people write has a second block.
const BLOCK: usize = 1024;

/// Some cases, one after the other.
#[derive(Debug)]
struct Block {
    users: Table,
    groups: Table,
    verbs: Table,
    namespaces: Table,
    api_groups: Table,
    resources: Resources,
    names: Table,
    words: Vec<Word>,
    /// Of each case, the paths that it is for; none for all.
    paths: Vec<Vec<PathPattern>>,
    /// Of each case, its rule.
    rules: Vec<usize>,
}

/// A request for a resource, as far as it is always looked up.
struct Rows {
    verb: usize,
    api_group: usize,
    resource: ResourceRows,
}

/// Sets of up to 64 cases, a bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    /// Those that may match a request for a resource, and for something else.
    for_resources: u64,
    for_others: u64,
    /// Those for which it matters what it is.
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
struct Outcome {
    level: Level,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
    rule: Option<usize>,
}

impl Evaluator {
    pub fn new(policy: &Policy) -> Self {
        let Policy { rules, omit_stages, omit_managed_fields } = policy;
        let outcomes = rules.iter().enumerate().map(|(index, rule)| Outcome {
            level: rule.level,
            omit_stages: sorted(omit_stages.iter().chain(&rule.omit_stages)),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(*omit_managed_fields),
            rule: Some(index),
        });
        let unmatched = Outcome {
            level: Level::None,
            omit_stages: sorted(omit_stages.iter()),
            omit_managed_fields: *omit_managed_fields,
            rule: None,
        };
        Self {
            blocks: cases(rules).chunks(BLOCK).map(Block::new).collect(),
            outcomes: outcomes.chain([unmatched]).collect(),
        }
    }

    /// The decision about one request.
    pub fn decide(&self, request: &Attributes) -> Decision<'_> {
        let rule = self.blocks.iter().find_map(|block| block.rule(request));
        let Outcome { level, omit_stages, omit_managed_fields, rule } =
            &self.outcomes[rule.unwrap_or(self.outcomes.len() - 1)];
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
            resources: Resources::new(cases),
            names: table(|case| case.names()),
            words: cases.chunks(64).map(Word::of).collect(),
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

    /// Apart from the loop over the words, of which there is mostly one: nothing is made ready for the next one.
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
            left &= self.asked_by(request, left, index);
        }
        (left != 0).then(|| index * 64 + left.trailing_zeros() as usize)
    }

    fn other_case(&self, request: &Attributes) -> Option<usize> {
        let verb = self.verbs.row(&*request.verb);
        for (index, word) in self.words.iter().enumerate() {
            let left = word.for_others & self.verbs.word(verb, index);
            let left = up_to_first(left, left & !(word.user | word.group | word.path));
            let mut left = left & self.asked_by(request, left, index);
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

    /// Those of the cases that are for whoever asks. Without a user these are those that ask for none.
    fn asked_by(&self, request: &Attributes, left: u64, index: usize) -> u64 {
        let Word { user: users, group: groups, .. } = self.words[index];
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

impl Word {
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

/// Without the cases behind the first one that is certain: they do not matter.
#[inline]
fn up_to_first(left: u64, certain: u64) -> u64 {
    left & (certain ^ certain.wrapping_sub(1))
}

impl PathPattern {
    /// All trailing stars go, so that `*` is a prefix of everything.
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

/// By name, each once: kube-apiserver holds them in any order.
fn sorted<'a>(stages: impl Iterator<Item = &'a Stage>) -> Vec<Stage> {
    let named: BTreeSet<(String, Stage)> = stages.map(|stage| (format!("{stage:?}"), *stage)).collect();
    named.into_iter().map(|(_, stage)| stage).collect()
}

#[cfg(test)]
pub(super) mod tests;
