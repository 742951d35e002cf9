//! Finds the requests that a rule is the first to match, and so the rules and names without effect.
//!
//! The result is exact, by trial. Of all requests that match a rule by the same names of its lists, one is the hardest
//! for an earlier rule to take, because it has nothing else that a rule could name: no user if the rule names none, a
//! single group, and a [fresh](Fresh) verb, namespace, resource or path where the rule leaves them open. A rule that
//! matches this request matches all of them. So the [`Evaluator`] decides about one request for each combination of
//! names. If earlier rules, one or several, decide all of them, the rule is unreachable. If they decide all with a
//! certain name, the name is dead. The search relies on one fact about URLs: no segment of a path contains a slash.
//!
//! The number of combinations is the product of the lengths of the lists, hence the bounds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;

use crate::PolicyRule;
use crate::{Attributes, Evaluator, Policy, User};

/// Combinations that are tried for one rule, and for all rules of a policy.
const MAX_OF_RULE: usize = 1 << 16;
pub(super) const MAX_OF_POLICY: usize = 1 << 20;

/// At most this many rules are named as those that take the requests of another.
const MAX_TAKERS: usize = 3;

/// A character that no string of the policy contains, as a string: a name that no rule knows.
#[derive(Debug)]
pub(super) struct Fresh(String);

impl Fresh {
    pub fn of(policy: &Policy) -> Self {
        let mut used = HashSet::new();
        for rule in &policy.rules {
            let lists = [&rule.users, &rule.user_groups, &rule.verbs, &rule.namespaces, &rule.non_resource_urls];
            let of_resources = rule.resources.iter().flat_map(|entry| [&entry.resources, &entry.resource_names]);
            used.extend(lists.into_iter().chain(of_resources).flatten().flat_map(|text| text.chars()));
            used.extend(rule.resources.iter().flat_map(|entry| entry.group.chars()));
        }
        let unused = ('\u{e000}'..=char::MAX).find(|c| !used.contains(c));
        Self(unused.expect("a policy file is shorter than the list of characters").to_string())
    }
}

/// One of the names that a rule lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    User(usize),
    Group(usize),
    Verb(usize),
    Namespace(usize),
    Url(usize),
    /// An entry of `resources` for its whole group.
    Entry(usize),
    Pattern(usize, usize),
    Object(usize, usize),
}

impl fmt::Display for Name {
    /// As a path below the rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::User(i) => write!(f, "users[{i}]"),
            Name::Group(i) => write!(f, "userGroups[{i}]"),
            Name::Verb(i) => write!(f, "verbs[{i}]"),
            Name::Namespace(i) => write!(f, "namespaces[{i}]"),
            Name::Url(i) => write!(f, "nonResourceURLs[{i}]"),
            Name::Entry(i) => write!(f, "resources[{i}]"),
            Name::Pattern(i, j) => write!(f, "resources[{i}].resources[{j}]"),
            Name::Object(i, j) => write!(f, "resources[{i}].resourceNames[{j}]"),
        }
    }
}

/// The target of a request, and the names of a rule that match it.
#[derive(Debug)]
enum Target<'a> {
    Resource { names: [Option<Name>; 2], group: &'a str, resource: &'a str, subresource: &'a str, object: &'a str },
    Path { name: Option<Name>, path: String },
}

/// The hardest request for each combination of the names of a rule.
pub(super) struct Witnesses<'a> {
    rule: &'a PolicyRule,
    fresh: &'a str,
    targets: Vec<Target<'a>>,
    /// Lengths of the lists; an empty one counts as one.
    lengths: [usize; 5],
    /// Whether every request has a user who is in system:authenticated.
    is_authenticated: bool,
}

impl<'a> Witnesses<'a> {
    /// `None`: there are too many.
    pub fn of(rule: &'a PolicyRule, Fresh(fresh): &'a Fresh, is_authenticated: bool) -> Option<Self> {
        let lengths = [&rule.users, &rule.user_groups, &rule.verbs, &rule.namespaces].map(|list| list.len().max(1));
        let per_entry = rule.resources.iter().map(|entry| {
            // `*/*` has two.
            (2 * entry.resources.len()).max(1).saturating_mul(entry.resource_names.len().max(1))
        });
        // Counted before they are made.
        let targets = per_entry.fold(2 + rule.non_resource_urls.len(), usize::saturating_add);
        let count = lengths.iter().fold(targets, |count, length| count.saturating_mul(*length));
        if count > MAX_OF_RULE {
            return None;
        }
        let targets = targets_of(rule, fresh);
        let [users, groups, verbs, namespaces] = lengths;
        let lengths = [users, groups, verbs, namespaces, targets.len()];
        Some(Self { rule, fresh, targets, lengths, is_authenticated })
    }

    pub fn len(&self) -> usize {
        self.lengths.iter().product()
    }

    /// Visits the requests, each with its names. The first ones together contain every name.
    pub fn visit<B>(&self, mut visit: impl FnMut(&[Option<Name>], &Attributes) -> ControlFlow<B>) -> Option<B> {
        let longest = self.lengths.iter().max().copied().unwrap_or(0);
        let first = (0..longest).map(|n| self.lengths.map(|length| n % length.max(1)));
        let all = (0..self.len()).map(|n| {
            let mut rest = n;
            self.lengths.map(|length| {
                let digit = rest % length;
                rest /= length;
                digit
            })
        });
        // No target, no request.
        first
            .chain(all)
            .filter(|_| !self.targets.is_empty())
            .find_map(|digits| self.visit_one(digits, &mut visit).break_value())
    }

    fn visit_one<B>(
        &self,
        [user, group, verb, namespace, target]: [usize; 5],
        visit: &mut impl FnMut(&[Option<Name>], &Attributes) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let Self { rule, fresh, .. } = self;
        let at = |list: &'a [String], i: usize| list.get(i).map(String::as_str);
        let named = (at(&rule.users, user), at(&rule.user_groups, group));
        let user_name = named.0.unwrap_or(fresh);
        let mut groups: Vec<&str> = named.1.into_iter().collect();
        if self.is_authenticated {
            groups.push(if user_name == "system:anonymous" {
                "system:unauthenticated"
            } else {
                "system:authenticated"
            });
        }
        let has_user = self.is_authenticated || named != (None, None);
        let mut request = Attributes {
            user: has_user
                .then(|| User { name: user_name.into(), groups: groups.into_iter().map(Into::into).collect() }),
            verb: at(&rule.verbs, verb).unwrap_or(fresh).into(),
            ..Attributes::default()
        };
        let some = |list: &[String], name: Name| (!list.is_empty()).then_some(name);
        let mut names = [
            some(&rule.users, Name::User(user)),
            some(&rule.user_groups, Name::Group(group)),
            some(&rule.verbs, Name::Verb(verb)),
            None,
            None,
            None,
        ];
        match &self.targets[target] {
            Target::Resource { names: of_target, group, resource, subresource, object } => {
                request.is_resource_request = true;
                request.namespace = at(&rule.namespaces, namespace).unwrap_or(fresh).into();
                (request.api_group, request.name) = ((*group).into(), (*object).into());
                (request.resource, request.subresource) = ((*resource).into(), (*subresource).into());
                names[3] = some(&rule.namespaces, Name::Namespace(namespace));
                (names[4], names[5]) = (of_target[0], of_target[1]);
            }
            Target::Path { name, path } => {
                request.path = path.as_str().into();
                names[4] = *name;
            }
        }
        visit(&names, &request)
    }
}

fn targets_of<'a>(rule: &'a PolicyRule, fresh: &'a str) -> Vec<Target<'a>> {
    let resource = |names, group, (resource, subresource), object| Target::Resource {
        names,
        group,
        resource,
        subresource,
        object,
    };
    let mut targets = Vec::new();
    for (i, entry) in rule.resources.iter().enumerate() {
        let group = if entry.group == "*" { fresh } else { entry.group.as_str() };
        if entry.resources.is_empty() {
            targets.push(resource([Some(Name::Entry(i)), None], group, (fresh, fresh), fresh));
        }
        for (j, pattern) in entry.resources.iter().enumerate() {
            for pair in hardest(pattern, fresh) {
                let pattern = Some(Name::Pattern(i, j));
                if entry.resource_names.is_empty() {
                    targets.push(resource([pattern, None], group, pair, fresh));
                }
                let objects = entry.resource_names.iter().enumerate();
                targets
                    .extend(objects.map(|(k, name)| resource([pattern, Some(Name::Object(i, k))], group, pair, name)));
            }
        }
    }
    let is_open = rule.resources.is_empty() && rule.non_resource_urls.is_empty();
    if is_open || (rule.resources.is_empty() && !rule.namespaces.is_empty()) {
        targets.push(resource([None, None], fresh, (fresh, fresh), fresh));
    }
    if is_open && rule.namespaces.is_empty() {
        targets.push(Target::Path { name: None, path: fresh.to_string() });
    }
    // In a rule with namespaces or resources the URLs are ignored.
    if rule.resources.is_empty() && rule.namespaces.is_empty() {
        targets.extend(rule.non_resource_urls.iter().enumerate().map(|(i, url)| Target::Path {
            name: Some(Name::Url(i)),
            path: match url.strip_suffix('*') {
                Some(_) => format!("{}{fresh}", url.trim_end_matches('*')),
                None => url.clone(),
            },
        }));
    }
    targets
}

/// Resource and subresource that match a pattern and as little else as possible. Those of a dead pattern do not match
/// it either.
fn hardest<'a>(pattern: &'a str, fresh: &'a str) -> Vec<(&'a str, &'a str)> {
    if pattern == "*" {
        return vec![(fresh, fresh)];
    }
    let of_any = pattern.strip_prefix("*/").filter(|rest| !rest.is_empty()).map(|subresource| (fresh, subresource));
    let any_of = pattern.strip_suffix("/*").map(|resource| (resource, fresh));
    let mut found: Vec<_> = of_any.into_iter().chain(any_of).collect();
    if found.is_empty() {
        found.push(pattern.split_once('/').unwrap_or((pattern, "")));
    }
    found
}

/// The effect of a rule.
#[derive(Debug, PartialEq)]
pub(super) enum Reach {
    /// The rule decides about at least one request. Its dead names, each with the indices of rules that take its
    /// requests.
    Reached {
        dead: Vec<(Name, Vec<usize>)>,
    },
    Unreachable {
        takers: Vec<usize>,
    },
    TooLarge,
}

/// The effect of every rule, in their order.
pub(super) fn reach(policy: &Policy, evaluator: &Evaluator, fresh: &Fresh) -> Vec<Reach> {
    let mut left = MAX_OF_POLICY;
    let rules = policy.rules.iter().enumerate();
    rules
        .map(|(index, rule)| match Witnesses::of(rule, fresh, false).filter(|witnesses| witnesses.len() <= left) {
            Some(witnesses) => reach_of(index, &witnesses, evaluator, &mut left),
            None => Reach::TooLarge,
        })
        .collect()
}

fn reach_of(index: usize, witnesses: &Witnesses, evaluator: &Evaluator, left: &mut usize) -> Reach {
    let mut is_reached = false;
    let mut takers: Vec<usize> = Vec::new();
    // `None`: the name is alive.
    let mut dead: HashMap<Name, Option<Vec<usize>>> = HashMap::new();
    let of_rule = witnesses.rule.names();
    let mut alive = 0;
    witnesses.visit(|names, request| {
        *left = left.saturating_sub(1);
        let note = |list: &mut Vec<usize>, taker| {
            if list.len() < MAX_TAKERS && !list.contains(&taker) {
                list.push(taker);
            }
        };
        match evaluator.decide(request).rule {
            Some(rule) if rule == index => {
                is_reached = true;
                for name in names.iter().flatten() {
                    if dead.insert(*name, None).is_none_or(|before| before.is_some()) {
                        alive += 1;
                    }
                }
                if alive == of_rule.len() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
            Some(taker) if taker < index => {
                note(&mut takers, taker);
                for name in names.iter().flatten() {
                    if let Some(list) = dead.entry(*name).or_insert_with(|| Some(Vec::new())) {
                        note(list, taker);
                    }
                }
                ControlFlow::Continue(())
            }
            // The pattern matches nothing, not even the request that was made for it.
            _ => ControlFlow::Continue(()),
        }
    });
    if !is_reached {
        takers.sort_unstable();
        return Reach::Unreachable { takers };
    }
    Reach::Reached { dead: of_rule.into_iter().filter_map(|name| Some((name, dead.remove(&name)??))).collect() }
}

impl PolicyRule {
    /// Every name of the rule that has a meaning.
    pub(super) fn names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = (0..self.users.len()).map(Name::User).collect();
        names.extend((0..self.user_groups.len()).map(Name::Group));
        names.extend((0..self.verbs.len()).map(Name::Verb));
        names.extend((0..self.namespaces.len()).map(Name::Namespace));
        for (i, entry) in self.resources.iter().enumerate() {
            if entry.resources.is_empty() {
                names.push(Name::Entry(i));
            }
            names.extend((0..entry.resources.len()).map(|j| Name::Pattern(i, j)));
            names.extend((0..entry.resource_names.len()).map(|j| Name::Object(i, j)));
        }
        if self.resources.is_empty() && self.namespaces.is_empty() {
            names.extend((0..self.non_resource_urls.len()).map(Name::Url));
        }
        names
    }

    /// The string of a name.
    pub(super) fn name(&self, name: Name) -> &str {
        match name {
            Name::User(i) => &self.users[i],
            Name::Group(i) => &self.user_groups[i],
            Name::Verb(i) => &self.verbs[i],
            Name::Namespace(i) => &self.namespaces[i],
            Name::Url(i) => &self.non_resource_urls[i],
            Name::Entry(i) => &self.resources[i].group,
            Name::Pattern(i, j) => &self.resources[i].resources[j],
            Name::Object(i, j) => &self.resources[i].resource_names[j],
        }
    }
}
