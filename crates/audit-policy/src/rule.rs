//! A rule of an audit policy, as in `audit.k8s.io/v1`.
//!
//! With the feature `schema`, the types implement `schemars::JsonSchema`, for a CustomResourceDefinition that contains
//! rules. Their docs become its descriptions.

use serde::{Deserialize, Serialize};

/// A rule of an audit policy, as in `audit.k8s.io/v1`. A request must match every list that is given; an absent list
/// matches everything. Names are compared literally: only `resources`, `resources[].group` (since 1.36) and
/// `nonResourceURLs` have wildcards.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.nonResourceURLs) || !(has(self.resources) || has(self.namespaces))", "message": "rules cannot apply to both regular resources and non-resource URLs"}])))]
pub struct PolicyRule {
    /// How much of a matching request is recorded. `None`: nothing. `Metadata`: user, time, object and outcome, without
    /// bodies. `Request`: also the body of the request. `RequestResponse`: also the body of the response.
    pub level: Level,
    /// Names of users, as authenticated, before impersonation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub users: Vec<String>,
    /// Groups of users. The user must be in one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub user_groups: Vec<String>,
    /// Verbs, such as get, list, watch, create, update, patch, delete and deletecollection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub verbs: Vec<String>,
    /// Resources, by API group. Excludes `nonResourceURLs`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub resources: Vec<GroupResources>,
    /// Namespaces. `""` matches requests without a namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub namespaces: Vec<String>,
    /// Paths outside the resource API, such as `/healthz*`. A `*` is allowed only at the end.
    #[serde(default, rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub non_resource_urls: Vec<String>,
    /// Stages at which this rule writes no event, in addition to those of the policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 4)))]
    pub omit_stages: Vec<Stage>,
    /// Whether `metadata.managedFields` is left out of recorded bodies. Absent: as in the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
}

/// Resources of one API group.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "!has(self.resourceNames) || has(self.resources)", "message": "using resourceNames requires at least one resource"}])))]
pub struct GroupResources {
    /// Name of the API group without a version. Empty: the core group.
    #[serde(default)]
    #[cfg_attr(feature = "schema", schemars(length(max = 253)))]
    pub group: String,
    /// Resources and subresources: `pods`, `pods/log`, `pods/*` (the resource and all its subresources), `*/scale`,
    /// `*`. Empty: every resource of the group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub resources: Vec<String>,
    /// Names of objects. A `create` has no name in its URL, so it never matches. Absent: every object.
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
    /// User, time, object and outcome, without bodies.
    Metadata,
    /// Also the body of the request.
    Request,
    /// Also the body of the response.
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
    /// In the background; events are dropped if the buffer is full.
    Batch,
    /// Each request waits until its event is handed over. A failure is counted, and the request continues.
    Blocking,
    /// Like Blocking, but a request is rejected if its first event cannot be handed over.
    BlockingStrict,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Batch, Self::Blocking, Self::BlockingStrict];

    /// The value of the flags `--audit-log-mode` and `--audit-webhook-mode`.
    pub fn as_flag(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Blocking => "blocking",
            Self::BlockingStrict => "blocking-strict",
        }
    }
}
