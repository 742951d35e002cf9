use proptest::prelude::*;

use super::*;
use crate::{GroupResources, PolicyRule};
use crate::{User, explain, read};

/// Rules in YAML flow style to a policy.
fn policy(rules: &str) -> Policy {
    read(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n")).unwrap()
}

fn request(resource: &'static str, subresource: &'static str) -> Attributes<'static> {
    Attributes {
        user: Some(User { name: "alice".into(), groups: vec!["devs".into(), "ops".into()] }),
        verb: "get".into(),
        namespace: "default".into(),
        api_group: "".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: "x".into(),
        is_resource_request: true,
        path: "/api/v1/…".into(),
        ..Attributes::default()
    }
}

fn path(path: &'static str) -> Attributes<'static> {
    Attributes { is_resource_request: false, path: path.into(), ..request("", "") }
}

fn matches(rule: &str, request: &Attributes) -> bool {
    Evaluator::new(&policy(&format!("- {{level: Metadata, {rule}}}"))).decide(request).rule.is_some()
}

#[test]
fn every_condition_of_a_rule_must_hold() {
    let pods = request("pods", "");
    for (rule, want) in [
        ("", true),
        ("users: []", true),
        ("users: [bob, alice]", true),
        ("users: [Alice]", false),
        ("users: ['*']", false),
        ("userGroups: [ops]", true),
        ("userGroups: [nobody]", false),
        ("users: [alice], userGroups: [nobody]", false),
        ("users: [bob], userGroups: [devs]", false),
        ("verbs: [list, get]", true),
        ("verbs: ['*']", false),
        ("verbs: [GET]", false),
        ("namespaces: [default]", true),
        ("namespaces: ['']", false),
        ("namespaces: ['*']", false),
        ("nonResourceURLs: ['*']", false),
        ("resources: [{}]", true),
        ("resources: [{group: ''}]", true),
        ("resources: [{group: core}]", false),
        ("resources: [{group: '*'}]", true),
        ("resources: [{group: apps}, {group: '', resources: [pods]}]", true),
        ("resources: [{group: apps, resources: [pods]}, {group: '', resources: [secrets]}]", false),
        ("resources: [{resources: [pods], resourceNames: [z, x]}]", true),
        ("resources: [{resources: [pods], resourceNames: [z]}]", false),
        ("resources: [{resources: [pods], resourceNames: [z]}, {resources: ['*'], resourceNames: [x]}]", true),
        ("namespaces: [default], resources: [{resources: [secrets]}]", false),
        ("namespaces: [other], resources: [{resources: [pods]}]", false),
    ] {
        assert_eq!(matches(rule, &pods), want, "{rule}");
    }
}

#[test]
fn resource_patterns_match_as_upstreams_do() {
    let long = "p".repeat(300);
    let long: &'static str = long.leak();
    for (pattern, resource, subresource, want) in [
        ("pods", "pods", "", true),
        ("pods", "pods", "log", false),
        ("pods/log", "pods", "log", true),
        ("pods/log", "pods", "", false),
        // Not in the documentation.
        ("pods/*", "pods", "", true),
        ("pods/*", "pods", "log", true),
        ("pods/*", "podsx", "log", false),
        ("*", "pods", "log", true),
        ("*/scale", "deployments", "scale", true),
        ("*/scale", "deployments", "", false),
        ("*/scale", "scale", "", false),
        ("*/*", "pods", "log", false),
        // A path may contain %2A.
        ("*/*", "*", "", true),
        ("*/*", "pods", "*", true),
        ("*/", "pods", "", false),
        ("/*", "", "", true),
        ("", "", "", true),
        ("pods/log", "pods/log", "", true),
        ("a/b/c", "a", "b/c", true),
        ("a/b/c", "a/b", "c", true),
        ("*/b/c", "a", "b/c", true),
        ("a/b/*", "a/b", "", true),
        (long, long, "", true),
        (long, long, "log", false),
        (format!("{long}/log").leak(), long, "log", true),
        (format!("{long}/*").leak(), long, "log", true),
        (format!("*/{long}").leak(), "pods", long, true),
    ] {
        let rule = format!("resources: [{{resources: ['{pattern}']}}]");
        assert_eq!(matches(&rule, &request(resource, subresource)), want, "{pattern} {resource} {subresource}");
    }
}

#[test]
fn paths_match_whole_or_by_their_beginning() {
    for (url, asked, want) in [
        ("/healthz", "/healthz", true),
        ("/healthz", "/healthz/etcd", false),
        ("/healthz*", "/healthz", true),
        ("/healthz*", "/healthz/etcd", true),
        ("/healthz/*", "/healthz", false),
        ("*", "", true),
        ("*", "/x", true),
        ("/a**", "/a", false),
    ] {
        if url == "/a**" {
            // Invalid; upstream's evaluator would strip every star.
            let rule =
                PolicyRule { non_resource_urls: vec![url.into()], ..policy("- level: Metadata").rules.remove(0) };
            let policy = Policy { rules: vec![rule], ..Policy::default() };
            assert_eq!(Evaluator::new(&policy).decide(&path(asked)).rule, Some(0));
            continue;
        }
        assert_eq!(matches(&format!("nonResourceURLs: ['{url}']"), &path(asked)), want, "{url} {asked}");
    }
    assert!(!matches("namespaces: ['default']", &path("/x")));
    assert!(!matches("resources: [{}]", &path("/x")));
    assert!(matches("verbs: [get]", &path("/x")));
}

#[test]
fn without_a_user_only_rules_that_ask_for_none_match() {
    let nobody = Attributes { user: None, ..request("pods", "") };
    let unnamed = Attributes { user: Some(User::default()), ..request("pods", "") };
    for (rule, for_nobody, for_unnamed) in [
        ("verbs: [get]", true, true),
        ("users: ['']", false, true),
        ("userGroups: ['']", false, false),
        ("userGroups: ['system:unauthenticated']", false, false),
    ] {
        assert_eq!(matches(rule, &nobody), for_nobody, "{rule}");
        assert_eq!(matches(rule, &unnamed), for_unnamed, "{rule}");
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = read(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [ResponseStarted, RequestReceived]\nomitManagedFields: true\nrules:\n\
         - {level: None, users: [bob]}\n\
         - {level: Request, verbs: [get], omitStages: [Panic, RequestReceived], omitManagedFields: false}\n\
         - {level: Metadata, verbs: [list]}\n",
    )
    .unwrap();
    let evaluator = Evaluator::new(&policy);
    let decide = |verb: &'static str| {
        let request = Attributes { verb: verb.into(), ..request("pods", "") };
        let Decision { level, omit_stages, omit_managed_fields, rule } = evaluator.decide(&request);
        (level, omit_stages.to_vec(), omit_managed_fields, rule)
    };
    use Stage::{Panic, RequestReceived, ResponseStarted};
    assert_eq!(decide("get"), (Level::Request, vec![Panic, RequestReceived, ResponseStarted], false, Some(1)));
    assert_eq!(decide("list"), (Level::Metadata, vec![RequestReceived, ResponseStarted], true, Some(2)));
    assert_eq!(decide("watch"), (Level::None, vec![RequestReceived, ResponseStarted], true, None));
    assert_eq!(Evaluator::new(&Policy::default()).decide(&path("/")).rule, None);
}

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(from).prop_map(str::to_string)
}

fn few(from: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(pick(from), 0..3)]
}

pub(crate) fn any_rule() -> impl Strategy<Value = PolicyRule> {
    let entry = (
        pick(&["", "apps", "*"]),
        few(&["pods", "pods/log", "pods/*", "*", "*/log", "*/*", "", "a/b"]),
        few(&["x", "", "y"]),
    )
        .prop_map(|(group, resources, resource_names)| GroupResources { group, resources, resource_names });
    let resources = prop_oneof![Just(Vec::new()), prop::collection::vec(entry, 0..3)];
    let level = prop::sample::select(vec![Level::None, Level::Metadata, Level::Request]);
    let subjects = (few(&["alice", "bob", ""]), few(&["devs", "ops", ""]), few(&["get", "list", ""]));
    (level, subjects, resources, few(&["default", "", "a"]), few(&["/healthz", "/*", "*", "/a**"])).prop_map(
        |(level, (users, user_groups, verbs), resources, namespaces, non_resource_urls)| PolicyRule {
            level,
            users,
            user_groups,
            verbs,
            resources,
            namespaces,
            non_resource_urls,
            omit_stages: Vec::new(),
            omit_managed_fields: None,
        },
    )
}

pub(crate) fn any_request() -> impl Strategy<Value = Attributes<'static>> {
    let text = |from| pick(from).prop_map(Text::from);
    let groups = few(&["devs", "ops", "", "x"]).prop_map(|groups| groups.into_iter().map(Text::from).collect());
    let user = (text(&["alice", "bob", "", "x"]), groups).prop_map(|(name, groups)| User { name, groups });
    (
        prop::option::of(user),
        (text(&["get", "list", "", "x"]), text(&["default", "", "x"]), text(&["", "apps", "x"])),
        (text(&["pods", "", "*", "a", "pods/log"]), text(&["", "", "log", "*", "b"]), text(&["x", "", "z"])),
        (any::<bool>(), text(&["/healthz", "/", "", "/a"])),
    )
        .prop_map(
            |(user, (verb, namespace, api_group), (resource, subresource, name), (is_resource_request, path))| {
                Attributes {
                    user,
                    verb,
                    namespace,
                    api_group,
                    api_version: "v1".into(),
                    resource,
                    subresource,
                    name,
                    is_resource_request,
                    path,
                }
            },
        )
}

proptest! {
    #[test]
    fn the_sets_find_the_rule_that_a_search_finds(
        rules in prop_oneof![prop::collection::vec(any_rule(), 0..8), prop::collection::vec(any_rule(), 60..140)],
        requests in prop::collection::vec(any_request(), 1..20),
    ) {
        let policy = Policy { rules, ..Policy::default() };
        let evaluator = Evaluator::new(&policy);
        for request in requests {
            prop_assert_eq!(evaluator.decide(&request).rule, explain(&policy.rules, &request).rule, "{:?}", request);
        }
    }

    #[test]
    fn a_rule_that_is_appended_never_changes_a_request_that_was_decided(
        rules in prop::collection::vec(any_rule(), 1..70),
        more in any_rule(),
        requests in prop::collection::vec(any_request(), 1..20),
    ) {
        let before = Policy { rules: rules.clone(), ..Policy::default() };
        let after = Policy { rules: [rules, vec![more]].concat(), ..Policy::default() };
        let (before, after) = (Evaluator::new(&before), Evaluator::new(&after));
        for request in requests {
            let decided = before.decide(&request);
            if decided.rule.is_some() {
                prop_assert_eq!(after.decide(&request), decided);
            }
        }
    }
}

#[test]
fn rules_decide_in_their_order_however_many_there_are() {
    let rules = (0..3 * BLOCK).map(|rule| format!("- {{level: Request, users: [user-{rule}]}}\n"));
    let policy = policy(&rules.chain(["- level: Metadata\n".into(), "- level: None\n".into()]).collect::<String>());
    let evaluator = Evaluator::new(&policy);
    for (name, rule) in [("user-0", 0), ("user-1023", 1023), ("user-1024", 1024), ("user-3071", 3071), ("alice", 3072)]
    {
        let user = Some(User { name: name.into(), groups: Vec::new() });
        for request in
            [Attributes { user: user.clone(), ..request("pods", "") }, Attributes { user, ..path("/version") }]
        {
            assert_eq!(evaluator.decide(&request).rule, Some(rule), "{name}");
        }
    }
}
