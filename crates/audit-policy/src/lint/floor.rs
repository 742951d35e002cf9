//! Rules that are meant to record less than the floor.
//!
//! The floor's rules come before all others and decide, whatever a policy says. A rule that names the subject of the
//! floor in order to record less of it is an error nevertheless, because its author would believe that it works. A rule
//! about something else that happens to include the subject of the floor (`level: None` for a user, or for everything)
//! is not: there the floor wins.

use super::Linter;
use crate::finding::Finding;
use crate::stanza;
use crate::{GroupResources, Level, PolicyRule, Stage};

impl Linter<'_> {
    pub(super) fn floor(&mut self) {
        let floor = self.terms.floor;
        for (i, rule) in self.policy.rules.iter().enumerate().filter(|(_, rule)| !floor.contains(rule)) {
            let Some((n, broken)) = floor.iter().enumerate().find(|(_, floor)| is_aimed_below(rule, floor)) else {
                continue;
            };
            let path = format!("rules[{i}]");
            let message = format!(
                "the rule would record {} of the requests that floor.rules[{n}] ({}) records at {:?}",
                if rule.level == Level::None { "nothing".into() } else { format!("only {:?}", rule.level) },
                subject(broken),
                broken.level
            );
            self.add(Finding::new(stanza::BELOW_FLOOR, self.places.of(&path), path, message));
        }
        // RequestReceived comes before the outcome is known, and a panic is not a choice.
        for stage in [Stage::ResponseStarted, Stage::ResponseComplete] {
            let records = |floor: &PolicyRule| floor.level > Level::None && !floor.omit_stages.contains(&stage);
            let Some((n, broken)) = floor.iter().enumerate().find(|(_, floor)| records(floor)) else { continue };
            if !self.policy.omit_stages.contains(&stage) {
                continue;
            }
            let path = "omitStages".to_string();
            let message = format!(
                "{stage:?} is omitted from all rules, but floor.rules[{n}] ({}) records at this stage",
                subject(broken)
            );
            let finding = Finding::new(stanza::BELOW_FLOOR, self.places.of(&path), path, message);
            self.add(finding.help(format!("remove {stage:?} from omitStages")));
        }
    }
}

/// The subject of a rule of the floor, in a few words.
fn subject(rule: &PolicyRule) -> String {
    let names: Vec<String> = if !rule.resources.is_empty() {
        rule.resources
            .iter()
            .flat_map(|of| {
                let group = if of.group.is_empty() { String::new() } else { format!(".{}", of.group) };
                let all = [format!("all of group {:?}", of.group)];
                let named = of.resources.iter().map(move |name| format!("{name}{group}"));
                if of.resources.is_empty() { all.to_vec() } else { named.collect() }
            })
            .collect()
    } else if !rule.non_resource_urls.is_empty() {
        rule.non_resource_urls.clone()
    } else if !rule.users.is_empty() {
        rule.users.iter().map(|user| format!("user {user}")).collect()
    } else if !rule.user_groups.is_empty() {
        rule.user_groups.iter().map(|group| format!("group {group}")).collect()
    } else if !rule.namespaces.is_empty() {
        rule.namespaces.iter().map(|namespace| format!("namespace {namespace:?}")).collect()
    } else {
        vec!["every request".into()]
    };
    match names.as_slice() {
        [some @ .., last] if !some.is_empty() => format!("{} and {last}", some.join(", ")),
        _ => names.concat(),
    }
}

/// Whether a rule names the subject of a rule of the floor and would record less of it.
fn is_aimed_below(rule: &PolicyRule, floor: &PolicyRule) -> bool {
    rule.level < floor.level && names_the_same(rule, floor) && may_match_the_same(rule, floor)
}

/// Whether a rule names the same as each list of the floor's rule, verbs aside. Every rule names a floor under all
/// requests.
fn names_the_same(rule: &PolicyRule, floor: &PolicyRule) -> bool {
    fn any<T>(ours: &[T], theirs: &[T], share: fn(&T, &T) -> bool) -> bool {
        theirs.is_empty() || ours.iter().any(|one| theirs.iter().any(|other| share(one, other)))
    }
    let share_path = |one: &String, other: &String| share_paths(one, other);
    any(&rule.resources, &floor.resources, share_resources)
        && any(&rule.non_resource_urls, &floor.non_resource_urls, share_path)
        && any(&rule.users, &floor.users, String::eq)
        && any(&rule.user_groups, &floor.user_groups, String::eq)
        && any(&rule.namespaces, &floor.namespaces, String::eq)
}

/// False only if no request can match both. Groups do not decide this: a user may be in several.
fn may_match_the_same(rule: &PolicyRule, floor: &PolicyRule) -> bool {
    let overlap = |one: &[String], other: &[String]| {
        one.is_empty() || other.is_empty() || one.iter().any(|name| other.contains(name))
    };
    overlap(&rule.verbs, &floor.verbs)
        && overlap(&rule.users, &floor.users)
        && overlap(&rule.namespaces, &floor.namespaces)
}

/// Whether `one` names something of `other`.
fn share_resources(one: &GroupResources, other: &GroupResources) -> bool {
    // Every group (`*`) names none.
    let share_group = one.group == other.group || other.group == "*";
    let share_name = |a: &str, b: &str| covers(a, b) || covers(b, a);
    share_group
        && (one.resources.is_empty()
            || other.resources.is_empty()
            || one.resources.iter().any(|a| other.resources.iter().any(|b| share_name(a, b))))
}

/// Whether `pattern` includes everything that `name` includes (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/audit/policy/checker.go, ruleMatchesResource).
fn covers(pattern: &str, name: &str) -> bool {
    if pattern == "*" || pattern == name {
        return true;
    }
    match (pattern.split_once('/'), name.split_once('/')) {
        (Some(("*", sub)), Some((_, named))) => sub == named,
        (Some((resource, "*")), Some((named, _))) => resource == named,
        (Some((resource, "*")), None) => resource == name,
        _ => false,
    }
}

fn share_paths(one: &str, other: &str) -> bool {
    let covers = |pattern: &str, path: &str| match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    };
    covers(one, other) || covers(other, one)
}
