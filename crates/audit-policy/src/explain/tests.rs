use proptest::prelude::*;

use super::*;
use crate::evaluate::tests::{any_request, any_rule};
use crate::{Evaluator, Policy, User, attributes};

fn rule(conditions: &str) -> PolicyRule {
    kube_yaml::from_str(&format!("--- {{level: Metadata, {conditions}}}")).unwrap()
}

fn request(url: &'static str) -> Attributes<'static> {
    let user = User { name: "alice".into(), groups: vec!["devs".into(), "ops".into()] };
    Attributes { user: Some(user), ..attributes("GET", url).unwrap() }
}

#[test]
fn the_first_condition_that_fails_is_named_with_both_values() {
    let log = request("/api/v1/namespaces/shop/pods/web/log");
    for (conditions, want) in [
        ("users: [bob], verbs: [list]", r#"users ["bob"]: user "alice""#),
        ("users: [alice], userGroups: [a, b]", r#"userGroups ["a", "b"]: groups "devs", "ops""#),
        ("verbs: [list], namespaces: [other]", r#"verbs ["list"]: verb "get""#),
        ("namespaces: ['', other]", r#"namespaces ["", "other"]: namespace "shop""#),
        ("resources: [{group: apps}, {group: batch}]", r#"resources ["apps", "batch"]: group """#),
        (
            "resources: [{group: apps}, {group: '', resources: [pods, '*/exec']}]",
            r#"resources[1].resources ["pods", "*/exec"]: resource "pods/log""#,
        ),
        (
            "resources: [{group: '', resources: [pods]}, {group: '', resources: ['pods/*'], resourceNames: [db]}]",
            r#"resources[1].resourceNames ["db"]: name "web""#,
        ),
        ("nonResourceURLs: ['*']", r#"nonResourceURLs ["*"]: a resource"#),
    ] {
        let Mismatch { field, wanted, found } = mismatch(&rule(conditions), &log).expect(conditions);
        assert_eq!(format!("{field} {wanted:?}: {found}"), want);
    }
    let healthz = request("/healthz/etcd");
    for (conditions, want) in [
        ("nonResourceURLs: [/healthz, '/livez*']", r#"nonResourceURLs: path "/healthz/etcd""#),
        ("resources: [{group: ''}]", r#"resources: path "/healthz/etcd", which is not a resource"#),
        ("namespaces: [a], resources: [{group: ''}]", r#"namespaces: path "/healthz/etcd", which is not a resource"#),
    ] {
        let Mismatch { field, found, .. } = mismatch(&rule(conditions), &healthz).expect(conditions);
        assert_eq!(format!("{field}: {found}"), want);
    }
    let nobody = Attributes { user: None, ..healthz };
    for conditions in ["users: ['']", "userGroups: ['system:unauthenticated']"] {
        assert_eq!(mismatch(&rule(conditions), &nobody).unwrap().found, NO_USER);
    }
}

#[test]
fn stages_are_those_of_the_kind_of_request() {
    use Stage::{RequestReceived, ResponseComplete, ResponseStarted};
    for (url, is_long) in [
        ("/api/v1/pods", false),
        ("/api/v1/pods?watch=1", true),
        ("/api/v1/namespaces/a/pods/p/exec?command=sh", true),
        ("/api/v1/namespaces/a/pods/p/log", true),
        ("/api/v1/namespaces/a/pods/p/status", false),
        ("/api/v1/nodes/n/proxy/metrics", true),
        ("/debug/pprof/heap", true),
        ("/healthz", false),
    ] {
        let want = [RequestReceived, ResponseStarted, ResponseComplete];
        let want: Vec<_> = want.into_iter().filter(|stage| is_long || *stage != ResponseStarted).collect();
        assert_eq!(stages(&request(url)), want, "{url}");
        assert_eq!(stages(&Attributes { user: None, ..request(url) }), [ResponseStarted], "{url}");
    }
}

proptest! {
    /// The tests of the evaluator check that the rules agree.
    #[test]
    fn the_condition_that_is_named_refuses_the_request_by_itself(
        rules in prop::collection::vec(any_rule(), 1..8),
        requests in prop::collection::vec(any_request(), 1..20),
    ) {
        for request in requests {
            let Explanation { passed_over, rule } = explain(&rules, &request);
            prop_assert_eq!(rule.unwrap_or(rules.len()), passed_over.len());
            for (mismatch, rule) in passed_over.iter().zip(&rules) {
                let mut alone = PolicyRule { level: rule.level, ..kube_yaml::from_str("level: None").unwrap() };
                match mismatch.field.split('[').next().unwrap() {
                    "users" => alone.users = rule.users.clone(),
                    "userGroups" => alone.user_groups = rule.user_groups.clone(),
                    "verbs" => alone.verbs = rule.verbs.clone(),
                    "namespaces" => alone.namespaces = rule.namespaces.clone(),
                    "resources" => alone.resources = rule.resources.clone(),
                    "nonResourceURLs" => alone.non_resource_urls = rule.non_resource_urls.clone(),
                    other => prop_assert!(false, "{}", other),
                }
                let alone = Policy { rules: vec![alone], ..Policy::default() };
                prop_assert_eq!(Evaluator::new(&alone).decide(&request).rule, None, "{:?}", mismatch);
            }
        }
    }
}
