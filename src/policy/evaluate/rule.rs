//! One rule, compiled: what the sets of rules do not tell.

use super::table::Table;
use super::{Outcome, sorted};
use crate::api::PolicyRule;
use crate::policy::{Attributes, Policy};

/// The strings that resource patterns are made of. A rule is in the set of a string if one of its patterns may match by it,
/// whatever the group; and in the set of a group if one of its entries is for it.
#[derive(Debug)]
pub(super) struct ResourceTables {
    groups: Table,
    /// `pods`, `pods/log`, and every other pattern literally.
    whole: Table,
    /// `scale` of `*/scale`.
    subresources: Table,
    /// `pods` of `pods/*`.
    resources: Table,
    names: Table,
}

/// A request in terms of the tables.
pub(super) struct ResourceIds {
    group: usize,
    whole: usize,
    subresource: usize,
    resource: usize,
}

/// Longer patterns are compared piece by piece.
const WHOLE_MAX: usize = 192;

impl ResourceTables {
    pub fn new(rules: &[PolicyRule]) -> Self {
        let table = |strings: fn(&PolicyRule) -> Vec<&str>, is_any: fn(&PolicyRule) -> bool| {
            Table::new(rules.len(), rules.iter().map(|rule| (is_any(rule), strings(rule).into_iter())))
        };
        let never = |_: &PolicyRule| false;
        Self {
            groups: table(
                |rule| rule.resources.iter().map(|entry| entry.group.as_str()).collect(),
                |rule| rule.resources.is_empty() || rule.resources.iter().any(|entry| entry.group == "*"),
            ),
            whole: table(
                |rule| patterns(rule).filter(|pattern| pattern.len() <= WHOLE_MAX).collect(),
                |rule| {
                    rule.resources.is_empty()
                        || rule.resources.iter().any(|entry| entry.resources.is_empty())
                        || patterns(rule).any(|pattern| pattern == "*" || pattern.len() > WHOLE_MAX)
                },
            ),
            subresources: table(|rule| patterns(rule).filter_map(|p| p.strip_prefix("*/")).collect(), never),
            resources: table(|rule| patterns(rule).filter_map(|p| p.strip_suffix("/*")).collect(), never),
            names: table(
                |rule| {
                    rule.resources.iter().flat_map(|entry| entry.resource_names.iter().map(String::as_str)).collect()
                },
                never,
            ),
        }
    }

    pub fn rows(&self, request: &Attributes) -> ResourceIds {
        let Attributes { api_group, resource, subresource, .. } = request;
        let is_sub = !subresource.is_empty();
        ResourceIds {
            group: self.groups.row(api_group),
            whole: if is_sub { self.whole_row(resource, subresource) } else { self.whole.row(resource) },
            subresource: if is_sub { self.subresources.row(subresource) } else { Table::UNNAMED },
            resource: self.resources.row(resource),
        }
    }

    fn whole_row(&self, resource: &str, subresource: &str) -> usize {
        let length = resource.len() + 1 + subresource.len();
        if !self.whole.has_length(length) {
            return Table::UNNAMED;
        }
        let mut whole = [0; WHOLE_MAX];
        let Some(whole) = whole.get_mut(..length) else { return Table::UNNAMED };
        let (head, tail) = whole.split_at_mut(resource.len());
        head.copy_from_slice(resource.as_bytes());
        tail[0] = b'/';
        tail[1..].copy_from_slice(subresource.as_bytes());
        self.whole.row_of_bytes(whole)
    }

    pub fn word(&self, ids: &ResourceIds, word: usize) -> u64 {
        self.groups.word(ids.group, word)
            & (self.whole.word(ids.whole, word)
                | self.subresources.word(ids.subresource, word)
                | self.resources.word(ids.resource, word))
    }
}

fn patterns(rule: &PolicyRule) -> impl Iterator<Item = &str> {
    rule.resources.iter().flat_map(|entry| entry.resources.iter().map(String::as_str))
}

/// Whether a rule has the resources that it is in the sets of: no names, and the same patterns for each group.
pub(super) fn is_exact(rule: &PolicyRule) -> bool {
    let first = rule.resources.first().map(|entry| &entry.resources);
    rule.resources.iter().all(|entry| entry.resource_names.is_empty() && Some(&entry.resources) == first)
        && patterns(rule).all(|pattern| pattern.len() <= WHOLE_MAX)
}

#[derive(Debug)]
pub(super) struct Rule {
    pub outcome: Outcome,
    paths: Vec<PathPattern>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum PathPattern {
    Whole(String),
    Prefix(String),
}

/// One `GroupResources`.
#[derive(Debug)]
struct Entry {
    /// None for `*`.
    group: Option<usize>,
    is_every_resource: bool,
    whole: Vec<usize>,
    subresources: Vec<usize>,
    resources: Vec<usize>,
    /// Patterns that are too long for the table.
    long: Vec<String>,
    /// Empty for every name.
    names: Vec<usize>,
}

impl Rule {
    pub fn new(rule: &PolicyRule, policy: &Policy) -> Self {
        let paths = rule.non_resource_urls.iter().map(|url| match url.strip_suffix('*') {
            // All trailing stars go, so that `*` is a prefix of everything.
            Some(_) => PathPattern::Prefix(url.trim_end_matches('*').to_string()),
            None => PathPattern::Whole(url.clone()),
        });
        Self {
            outcome: Outcome {
                level: rule.level,
                omit_stages: sorted(policy.omit_stages.iter().chain(&rule.omit_stages)),
                omit_managed_fields: rule.omit_managed_fields.unwrap_or(policy.omit_managed_fields),
            },
            paths: paths.collect(),
            entries: Vec::new(),
        }
    }

    /// Strings become rows of the tables, which hold every string of every rule.
    pub fn set_entries(&mut self, tables: &ResourceTables, rule: &PolicyRule) {
        let entries = rule.resources.iter().map(|entry| {
            let patterns = || entry.resources.iter().map(String::as_str);
            Entry {
                group: (entry.group != "*").then(|| tables.groups.row(&entry.group)),
                is_every_resource: patterns().any(|pattern| pattern == "*"),
                whole: patterns().filter(|p| p.len() <= WHOLE_MAX).map(|p| tables.whole.row(p)).collect(),
                subresources: patterns()
                    .filter_map(|p| p.strip_prefix("*/"))
                    .map(|p| tables.subresources.row(p))
                    .collect(),
                resources: patterns().filter_map(|p| p.strip_suffix("/*")).map(|p| tables.resources.row(p)).collect(),
                long: patterns().filter(|p| p.len() > WHOLE_MAX).map(String::from).collect(),
                names: entry.resource_names.iter().map(|name| tables.names.row(name)).collect(),
            }
        });
        self.entries = entries.collect();
    }

    /// Whether a request that is not for a resource has one of the paths.
    pub fn matches_path(&self, path: &str) -> bool {
        self.paths.is_empty()
            || self.paths.iter().any(|pattern| match pattern {
                PathPattern::Whole(whole) => whole == path,
                PathPattern::Prefix(prefix) => path.starts_with(prefix.as_str()),
            })
    }

    /// Whether one of the entries matches (checker.go#L168-L217).
    pub fn matches_resource(&self, tables: &ResourceTables, ids: &ResourceIds, request: &Attributes) -> bool {
        let mut name = None;
        let mut has_name = |names: &[usize]| {
            names.is_empty() || {
                let name = *name.get_or_insert_with(|| tables.names.row(&request.name));
                name != Table::UNNAMED && names.contains(&name)
            }
        };
        self.entries.is_empty()
            || self.entries.iter().any(|entry| {
                let is_group = entry.group.is_none_or(|group| group == ids.group);
                is_group && (entry.has_no_pattern() || (entry.matches_pattern(ids, request) && has_name(&entry.names)))
            })
    }
}

impl Entry {
    /// Then the names do not matter either.
    fn has_no_pattern(&self) -> bool {
        self.whole.is_empty() && self.long.is_empty()
    }

    fn matches_pattern(&self, ids: &ResourceIds, request: &Attributes) -> bool {
        let has = |rows: &[usize], row: usize| row != Table::UNNAMED && rows.contains(&row);
        self.is_every_resource
            || has(&self.whole, ids.whole)
            || has(&self.subresources, ids.subresource)
            || has(&self.resources, ids.resource)
            || self.long.iter().any(|pattern| is_whole(pattern, request))
    }
}

/// `resource`, or `resource/subresource` where there is one.
fn is_whole(pattern: &str, request: &Attributes) -> bool {
    let Attributes { resource, subresource, .. } = request;
    match pattern.strip_prefix(&**resource) {
        None => false,
        Some(rest) if subresource.is_empty() => rest.is_empty(),
        Some(rest) => rest.strip_prefix('/') == Some(&**subresource),
    }
}
