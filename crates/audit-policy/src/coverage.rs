//! What of the benchmarks a policy meets, decided and not claimed: each item is data, a set of requests with the level
//! that it demands of each, and the evaluator judges them.
//!
//! An item is a sample of what its text means, in our reading: what fails here is not met, what passes here still wants
//! an assessor. What is a matter of flags (how long a log is kept, where it lies) is not in here.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{Attributes, Decision, Evaluator, Policy, User, attributes, stages};
use crate::Level;

/// One item of a benchmark, judged. A contract: other programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Item {
    pub standard: &'static str,
    pub id: &'static str,
    pub title: &'static str,
    pub outcome: Outcome,
    /// Indices of the rules that do what is asked, as far as it is done.
    pub rules: BTreeSet<usize>,
    /// How many requests were judged.
    pub requests: usize,
    /// Those of which too little is recorded, or too much.
    pub shortfalls: Vec<Shortfall>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    Met,
    Partly,
    NotMet,
}

/// A request that is not recorded as an item asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shortfall {
    /// None where authentication failed.
    pub user: Option<String>,
    pub method: &'static str,
    pub url: &'static str,
    /// What is asked.
    pub least: Level,
    pub most: Level,
    /// What is recorded; None where the stage with the outcome is omitted.
    pub level: Level,
    /// The rule that decides.
    pub rule: Option<usize>,
}

/// The file of a benchmark.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Standard {
    standard: String,
    items: Vec<Asked>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    id: String,
    title: String,
    demands: Vec<Demand>,
}

/// Every request by every user.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Demand {
    by: Vec<By>,
    #[serde(default = "metadata")]
    least: Level,
    #[serde(default = "request_response")]
    most: Level,
    /// Method and URL.
    requests: Vec<String>,
}

/// Who asks.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Person,
    Administrator,
    /// A ServiceAccount that is not part of Kubernetes.
    Workload,
    /// One that is.
    Controller,
    Kubelet,
    Anonymous,
    /// Authentication failed.
    Nobody,
}

fn metadata() -> Level {
    Level::Metadata
}

fn request_response() -> Level {
    Level::RequestResponse
}

impl By {
    fn user(self) -> Option<User<'static>> {
        let (name, groups): (_, &[&str]) = match self {
            Self::Person => ("alice", &["developers"]),
            Self::Administrator => ("kubernetes-admin", &["kubeadm:cluster-admins"]),
            Self::Workload => ("system:serviceaccount:shop:web", &[]),
            Self::Controller => ("system:serviceaccount:kube-system:replicaset-controller", &[]),
            Self::Kubelet => ("system:node:worker-1", &["system:nodes"]),
            Self::Anonymous => ("system:anonymous", &[]),
            Self::Nobody => return None,
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

/// Every item of every benchmark, in their order.
pub fn coverage(policy: &Policy) -> Vec<Item> {
    let evaluator = Evaluator::new(policy);
    let items = STANDARDS.iter().flat_map(|s| s.items.iter().map(|item| (s.standard.as_str(), item)));
    items.map(|(standard, item)| judge(&evaluator, standard, item)).collect()
}

fn judge(evaluator: &Evaluator, standard: &'static str, item: &'static Asked) -> Item {
    let mut rules = BTreeSet::new();
    let mut shortfalls = Vec::new();
    let mut requests = 0;
    for demand in &item.demands {
        for (by, request) in demand.by.iter().flat_map(|by| demand.requests.iter().map(move |request| (by, request))) {
            let (method, url) = request.split_once(' ').expect("the tests judge every item");
            let found = attributes(method, url).expect("the tests judge every item");
            let found = Attributes { user: by.user(), ..found };
            let Decision { level, omit_stages, rule, .. } = evaluator.decide(&found);
            // The last stage has the outcome.
            let is_told = stages(&found).last().is_some_and(|last| !omit_stages.contains(last));
            let level = if is_told { level } else { Level::None };
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
        0 => Outcome::Met,
        missed if missed == requests => Outcome::NotMet,
        _ => Outcome::Partly,
    };
    let Asked { id, title, .. } = item;
    Item { standard, id, title, outcome, rules, requests, shortfalls }
}

#[cfg(test)]
mod tests;
