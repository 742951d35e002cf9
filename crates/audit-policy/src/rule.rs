//! A rule of an audit policy, in the words of `audit.k8s.io/v1`.
//!
//! With the feature `schema` the types describe themselves (`schemars::JsonSchema`), for a CustomResourceDefinition that has rules in it.

use serde::{Deserialize, Serialize};

/// One rule of an audit policy, as in `audit.k8s.io/v1`. Every list that is given must match; an absent list matches
/// everything. Names are compared literally: only `resources`, `resources[].group` (from 1.36) and `nonResourceURLs` know wildcards.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.nonResourceURLs) || !(has(self.resources) || has(self.namespaces))", "message": "rules cannot apply to both regular resources and non-resource URLs"}])))]
pub struct PolicyRule {
    /// How much of a matching request is recorded.
    pub level: Level,
    /// User names, as authenticated (before impersonation).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub users: Vec<String>,
    /// Groups; the user must be in one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub user_groups: Vec<String>,
    /// Verbs: get, list, watch, create, update, patch, delete, deletecollection, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub verbs: Vec<String>,
    /// Resources, by API group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub resources: Vec<GroupResources>,
    /// Namespaces. `""` stands for requests without one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub namespaces: Vec<String>,
    /// Paths outside the resource API, such as `/healthz*`. A `*` is allowed at the end only.
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub non_resource_urls: Vec<String>,
    /// Stages for which this rule writes no event, beside those of the whole policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 4)))]
    pub omit_stages: Vec<Stage>,
    /// Overrides `omitManagedFields` of the policy for this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
}

/// Resources of one API group.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.resourceNames) || has(self.resources)", "message": "using resourceNames requires at least one resource"}])))]
pub struct GroupResources {
    /// API group without a version; empty for the core group.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    pub group: String,
    /// `pods`, `pods/log`, `pods/*` (the resource and all its subresources), `*/scale`, `*`. Empty: every resource of the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub resources: Vec<String>,
    /// Names of objects. A `create` has no name in its URL and never matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub resource_names: Vec<String>,
}

/// How much of a request is recorded.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Level {
    /// Nothing.
    None,
    /// Who, what, when and the outcome, without bodies.
    Metadata,
    /// And the request's body.
    Request,
    /// And the response's body.
    RequestResponse,
}

/// A stage of a request at which an event may be written.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// How kube-apiserver hands events to a backend.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mode {
    /// Collected and sent in the background; events are dropped when the buffer is full.
    Batch,
    /// Each request waits until its event is handed over; a failure is counted and the request goes on.
    Blocking,
    /// As Blocking, and a request whose first event cannot be handed over is refused.
    BlockingStrict,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Batch, Self::Blocking, Self::BlockingStrict];

    /// As the flags `--audit-log-mode` and `--audit-webhook-mode` have it.
    pub fn as_flag(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Blocking => "blocking",
            Self::BlockingStrict => "blocking-strict",
        }
    }
}
