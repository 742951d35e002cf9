//! Compares a policy with the benchmarks. Each item is data: requests with the level that the benchmark demands. The
//! evaluator decides whether the policy meets it.
//!
//! The requests of an item are a sample, in our reading of its text. An item that fails here is not met; one that
//! passes still needs an assessor. Demands on flags, such as the retention or the path of a log, are not covered.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{Attributes, Decision, Evaluator, Policy, User, attributes, stages};
use crate::Level;

/// The verdict on one item of a benchmark. A contract: other programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    pub standard: &'static str,
    pub id: &'static str,
    pub title: &'static str,
    pub outcome: Coverage,
    /// Indices of the rules that meet a demand of the item.
    pub rules: BTreeSet<usize>,
    /// Number of judged requests.
    pub requests: usize,
    /// Requests of which too little or too much is recorded.
    pub shortfalls: Vec<Shortfall>,
}

/// How far a policy meets an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Coverage {
    Met,
    Partly,
    NotMet,
}

/// A request that is not recorded as an item demands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shortfall {
    /// `None`: authentication failed.
    pub user: Option<String>,
    pub method: &'static str,
    pub url: &'static str,
    /// The demanded levels.
    pub least: Level,
    pub most: Level,
    /// The recorded level; `Level::None` if the stage with the outcome is omitted.
    pub level: Level,
    /// The rule that decides.
    pub rule: Option<usize>,
}

/// The file of a benchmark.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Standard {
    standard: String,
    items: Vec<Requirement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    title: String,
    demands: Vec<Demand>,
}

/// A demand on every request by every user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Demand {
    by: Vec<Requester>,
    #[serde(default = "metadata")]
    least: Level,
    #[serde(default = "request_response")]
    most: Level,
    /// Method and URL.
    requests: Vec<String>,
}

/// The user of a request.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Requester {
    Person,
    Administrator,
    /// A ServiceAccount that is not part of Kubernetes.
    Workload,
    /// A ServiceAccount that is part of Kubernetes.
    Controller,
    Kubelet,
    Anonymous,
    /// Authentication failed.
    #[serde(rename = "nobody")]
    Unauthenticated,
}

fn metadata() -> Level {
    Level::Metadata
}

fn request_response() -> Level {
    Level::RequestResponse
}

impl Requester {
    fn user(self) -> Option<User<'static>> {
        let (name, groups): (_, &[&str]) = match self {
            Self::Person => ("alice", &["developers"]),
            Self::Administrator => ("kubernetes-admin", &["kubeadm:cluster-admins"]),
            Self::Workload => ("system:serviceaccount:shop:web", &[]),
            Self::Controller => ("system:serviceaccount:kube-system:replicaset-controller", &[]),
            Self::Kubelet => ("system:node:worker-1", &["system:nodes"]),
            Self::Anonymous => ("system:anonymous", &[]),
            Self::Unauthenticated => return None,
        };
        Some(User::authenticated(name, groups))
    }
}

static STANDARDS: LazyLock<[Standard; 4]> = LazyLock::new(|| {
    let files = [
        include_str!("coverage/cis.yaml"),
        include_str!("coverage/nsa.yaml"),
        include_str!("coverage/stig.yaml"),
        include_str!("coverage/pci.yaml"),
    ];
    files.map(|text| kube_yaml::from_str(text).expect("the tests read every benchmark"))
});

/// Judges every item of every benchmark, in their order.
pub fn coverage(policy: &Policy) -> Vec<Item> {
    let evaluator = Evaluator::new(policy);
    let items = STANDARDS.iter().flat_map(|s| s.items.iter().map(|item| (s.standard.as_str(), item)));
    items.map(|(standard, item)| judge(&evaluator, standard, item)).collect()
}

fn judge(evaluator: &Evaluator, standard: &'static str, item: &'static Requirement) -> Item {
    let mut rules = BTreeSet::new();
    let mut shortfalls = Vec::new();
    let mut requests = 0;
    for demand in &item.demands {
        for (by, request) in demand.by.iter().flat_map(|by| demand.requests.iter().map(move |request| (by, request))) {
            let (method, url) = request.split_once(' ').expect("the tests judge every item");
            let found = attributes(method, url).expect("the tests judge every item");
            let found = Attributes { user: by.user(), ..found };
            let Decision { level, omit_stages, rule, .. } = evaluator.decide(&found);
            // The last stage contains the outcome.
            let has_outcome = stages(&found).last().is_some_and(|last| !omit_stages.contains(last));
            let level = if has_outcome { level } else { Level::None };
            requests += 1;
            if (demand.least..=demand.most).contains(&level) {
                rules.extend(rule);
            } else {
                let user = found.user.map(|user| user.name.to_string());
                let Demand { least, most, .. } = *demand;
                shortfalls.push(Shortfall { user, method, url, least, most, level, rule });
            }
        }
    }
    let outcome = match shortfalls.len() {
        0 => Coverage::Met,
        missed if missed == requests => Coverage::NotMet,
        _ => Coverage::Partly,
    };
    let Requirement { id, title, .. } = item;
    Item { standard, id, title, outcome, rules, requests, shortfalls }
}

#[cfg(test)]
mod tests;
