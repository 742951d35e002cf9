//! Splits rules into cases.

use std::collections::BTreeMap;

use super::table::{Joined, Table};
use crate::Attributes;
use crate::{GroupResources, PolicyRule};

/// The part of a rule that one set of strings for each attribute decides: the whole rule, or its entries for resources
/// that differ only in the group. A rule matches if one of its cases does.
pub(super) struct Case<'a> {
    /// Index of the rule.
    pub index: usize,
    pub rule: &'a PolicyRule,
    /// Empty: the rule names no resource.
    pub groups: Vec<&'a str>,
    /// Patterns. Empty: every resource.
    resources: &'a [String],
    names: &'a [String],
}

/// In the order of the rules.
pub(super) fn cases(rules: &[PolicyRule]) -> Vec<Case<'_>> {
    rules.iter().enumerate().flat_map(|(index, rule)| of_rule(index, rule)).collect()
}

fn of_rule(index: usize, rule: &PolicyRule) -> impl Iterator<Item = Case<'_>> {
    let mut alike: BTreeMap<(&[String], &[String]), Vec<&str>> = BTreeMap::new();
    for GroupResources { group, resources, resource_names } in &rule.resources {
        alike.entry((resources, resource_names)).or_default().push(group);
    }
    if alike.is_empty() {
        alike.insert((&[], &[]), Vec::new());
    }
    alike.into_iter().map(move |((resources, names), groups)| Case { index, rule, groups, resources, names })
}

impl<'a> Case<'a> {
    pub fn is_for_resources(&self) -> bool {
        !self.rule.namespaces.is_empty() || !self.rule.resources.is_empty()
    }

    /// Names of the objects. Without a pattern they do not matter (checker.go#L168-L217).
    pub fn names(&self) -> &'a [String] {
        if self.resources.is_empty() { &[] } else { self.names }
    }

    pub fn is_for_any_group(&self) -> bool {
        self.groups.is_empty() || self.groups.contains(&"*")
    }

    fn is_for_any_resource(&self) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|pattern| pattern == "*")
    }

    /// The parts of the patterns that `of` selects.
    fn patterns(&self, of: fn(&str) -> Option<&str>) -> impl Iterator<Item = &'a str> {
        self.resources.iter().filter_map(move |pattern| of(pattern))
    }
}

/// The cases for each resource.
#[derive(Debug)]
pub(super) struct ResourceTables {
    /// A resource without a subresource: `pods` from `pods` and `pods/*`.
    alone: Table,
    /// A resource with any subresource: `pods` from `pods/*`.
    every: Table,
    /// `scale` from `*/scale`.
    subresources: Table,
    /// `pods/log`, and every other literal pattern.
    whole: Table,
}

/// The rows of a resource in the tables.
#[derive(Clone, Copy)]
pub(super) enum ResourceRows {
    Alone(usize),
    WithSubresource { resource: usize, subresource: usize, whole: usize },
}

impl ResourceTables {
    pub fn new(cases: &[Case]) -> Self {
        Self {
            alone: Table::new(cases.iter().map(|case| {
                let every = case.patterns(|pattern| pattern.strip_suffix("/*"));
                (case.is_for_any_resource(), case.patterns(|pattern| Some(pattern)).chain(every))
            })),
            every: Self::table(cases, |pattern| pattern.strip_suffix("/*")),
            subresources: Self::table(cases, |pattern| pattern.strip_prefix("*/")),
            whole: Self::table(cases, |pattern| Some(pattern)),
        }
    }

    fn table(cases: &[Case], of: fn(&str) -> Option<&str>) -> Table {
        Table::new(cases.iter().map(|case| (case.is_for_any_resource(), case.patterns(of))))
    }

    #[inline]
    pub fn rows(&self, request: &Attributes) -> ResourceRows {
        let (resource, subresource) = (&*request.resource, &*request.subresource);
        if subresource.is_empty() {
            return ResourceRows::Alone(self.alone.row(resource));
        }
        ResourceRows::WithSubresource {
            resource: self.every.row(resource),
            subresource: self.subresources.row(subresource),
            whole: self.whole.row(Joined(resource, subresource)),
        }
    }

    #[inline]
    pub fn word(&self, rows: ResourceRows, word: usize) -> u64 {
        match rows {
            ResourceRows::Alone(row) => self.alone.word(row, word),
            ResourceRows::WithSubresource { resource, subresource, whole } => {
                self.every.word(resource, word)
                    | self.subresources.word(subresource, word)
                    | self.whole.word(whole, word)
            }
        }
    }
}
