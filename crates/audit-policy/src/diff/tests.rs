use super::*;
use crate::load;

fn policy(rules: &str) -> Policy {
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}");
    load(text.as_bytes(), 36).policy.unwrap_or_else(|| panic!("{text}"))
}

fn changes(old: &str, new: &str) -> Vec<((Level, Level), Change)> {
    let differences = generated(&policy(old), &policy(new));
    assert!(differences.is_complete);
    let mut changes: Vec<_> =
        differences.changes.into_iter().map(|((old, new), change)| ((old.level, new.level), change)).collect();
    changes.sort_by_key(|(levels, _)| *levels);
    changes
}

#[test]
fn policies_that_record_the_same_do_not_differ() {
    let one = "- {level: None, verbs: [get]}\n- {level: Metadata}\n";
    assert_eq!(changes(one, one), []);
    let split = "- {level: None, verbs: [get], users: [a]}\n- {level: None, verbs: [get], omitStages: [Panic]}\n\
                 - {level: Metadata, omitManagedFields: true}\n";
    assert_eq!(changes(one, split), []);
}

#[test]
fn a_difference_is_found_whatever_part_of_a_request_it_depends_on() {
    let all = "- {level: Metadata}\n";
    for rule in [
        "users: [a]",
        "userGroups: [g]",
        "verbs: [deletecollection]",
        "verbs: [watch]",
        "namespaces: [ns]",
        "nonResourceURLs: ['/a*']",
        "nonResourceURLs: [/a]",
        "resources: [{group: ''}]",
        "resources: [{group: apps, resources: [deployments/scale]}]",
        "resources: [{group: '', resources: [pods], resourceNames: [p]}]",
        "resources: [{group: '*', resources: ['*/status']}]",
        "namespaces: [kube-system], resources: [{group: '', resources: [namespaces]}]",
        "users: ['system:anonymous'], verbs: [get], nonResourceURLs: ['/livez']",
        "users: ['system:serviceaccount:n:s'], userGroups: ['system:serviceaccounts:n']",
    ] {
        let found = changes(all, &format!("- {{level: None, {rule}}}\n{all}"));
        let [((Level::Metadata, Level::None), change)] = found.as_slice() else { panic!("{rule}: {found:?}") };
        assert!(change.requests > 0 && !change.examples.is_empty(), "{rule}");
        assert_eq!(changes(&format!("- {{level: None, {rule}}}\n{all}"), all).len(), 1, "{rule}");
    }
}

#[test]
fn two_groups_of_one_user_are_tried_together() {
    let (a, b) = ("- {level: Metadata, userGroups: [a]}\n", "- {level: Request, userGroups: [b]}\n");
    let found = changes(&format!("{a}{b}"), &format!("{b}{a}"));
    let [((Level::Metadata, Level::Request), change)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(change.examples[0].user.as_ref().unwrap().groups, ["a", "b", "system:authenticated"]);
}

#[test]
fn a_rule_that_nobody_can_reach_makes_no_difference() {
    let all = "- {level: Metadata}\n";
    let rule = "users: ['system:anonymous'], userGroups: ['system:authenticated']";
    assert_eq!(changes(all, &format!("- {{level: None, {rule}}}\n{all}")), []);
}

#[test]
fn stages_and_managed_fields_are_differences_where_something_is_recorded() {
    let changed = |old: &str, new: &str| !changes(old, new).is_empty();
    assert!(changed("- {level: Metadata}\n", "- {level: Metadata, omitStages: [Panic]}\n"));
    assert!(changed("- {level: Request}\n", "- {level: Request, omitManagedFields: true}\n"));
    assert!(!changed("- {level: None}\n", "- {level: None, omitManagedFields: true, omitStages: [Panic]}\n"));
}

#[test]
fn events_of_a_log_are_counted_by_change_with_the_first_examples() {
    let (old, new) = (policy("- {level: Metadata}\n"), policy("- {level: None, verbs: [get]}\n- {level: Metadata}\n"));
    let (old, new) = (Evaluator::new(&old), Evaluator::new(&new));
    let line = |uri: &str, verb: &str, stage: &str| {
        format!(
            r#"{{"level":"Metadata","stage":"{stage}","requestURI":"{uri}","verb":"{verb}","user":{{"username":"u"}}}}"#
        )
    };
    let compare = |lines: &[String]| {
        let mut comparison = Comparison::new(&old, &new);
        lines.iter().for_each(|line| comparison.line(line.as_bytes(), |damage| panic!("{damage}")));
        comparison.into_differences()
    };
    let gets: Vec<String> = ["/d", "/b", "/c", "/a", "/a"].map(|uri| line(uri, "get", "ResponseComplete")).into();
    let mut found = compare(&gets);
    found.merge(compare(&[line("/a", "get", "RequestReceived"), line("/a", "post", "ResponseComplete")]));
    assert_eq!((found.events, found.requests, found.changes.len()), (7, 6, 1));
    let change = found.changes.values().next().unwrap();
    assert_eq!((change.events, change.requests), (6, 5));
    assert_eq!(change.examples.iter().map(|example| &*example.url).collect::<Vec<_>>(), ["/a", "/b", "/c"]);
}
