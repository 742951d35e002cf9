//! Which requests are recorded.

use audit_policy::{PolicyRule, Preset, Stage};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The audit policy: exactly one of `preset`, `rules` and `configMapRef`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default = "PolicySpec::default")]
#[x_kube(
    validation = Rule::new("[has(self.preset), has(self.rules), has(self.configMapRef)].filter(x, x).size() == 1")
        .message("exactly one of preset, rules and configMapRef is required"),
    validation = Rule::new("!has(self.configMapRef) || !(has(self.omitStages) || has(self.omitManagedFields))")
        .message("omitStages and omitManagedFields belong in the policy of the ConfigMap")
)]
pub struct PolicySpec {
    /// Name of a policy that comes with the operator. `audit-operator policy presets` lists and prints them.
    /// `stig-literal` records Secrets and tokens in plain text, and needs `SecretsAboveMetadata` in `acknowledge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// A complete policy of your own. The first rule that matches a request decides; a request that matches no rule is
    /// not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub rules: Option<Vec<PolicyRule>>,
    /// A complete policy (`audit.k8s.io/v1`) in a ConfigMap in the operator's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
    /// Rules before those of `preset`, `rules` or `configMapRef`. They are evaluated first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub prepend: Vec<PolicyRule>,
    /// Rules after those of `preset`, `rules` or `configMapRef`. They apply only to requests that match no earlier
    /// rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub append: Vec<PolicyRule>,
    /// Stages at which no event is written, for all rules. Default: those of the preset; RequestReceived with `rules`.
    /// With `configMapRef`, set them in the policy itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4))]
    pub omit_stages: Option<Vec<Stage>>,
    /// Whether `metadata.managedFields` is left out of recorded bodies. Default: that of the preset; true with `rules`.
    /// With `configMapRef`, set it in the policy itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omit_managed_fields: Option<bool>,
    /// Whether to add a rule that records the operator's own canary request (a `get` of a NodeAudit). If false, the
    /// operator cannot tell whether events arrive, and the condition SinksHealthy stays Unknown.
    pub canary_rule: bool,
    /// Risks that you accept. An AuditSetup that takes a risk not listed here is rejected, and so is one that lists a
    /// risk that the administrator has not granted (`floor.grantedRisks` of the operator). `SecretsAboveMetadata`:
    /// Secrets or tokens are recorded with their content. `BlockingWebhook`: while the receiver is down, every audited
    /// request waits for it. `BlockingStrictLog`: while the log cannot be written, every audited request is rejected.
    /// `UnboundedLog`: the size of the log is unlimited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub acknowledge: Vec<Risk>,
}

impl Default for PolicySpec {
    fn default() -> Self {
        Self {
            preset: None,
            rules: None,
            config_map_ref: None,
            prepend: Vec::new(),
            append: Vec::new(),
            omit_stages: None,
            omit_managed_fields: None,
            canary_rule: true,
            acknowledge: Vec::new(),
        }
    }
}

/// A risk that an AuditSetup must acknowledge.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Risk {
    /// A webhook in mode Blocking or BlockingStrict: while its receiver is down, every audited request waits for it,
    /// health checks fail, and the kubelet restarts kube-apiserver again and again.
    BlockingWebhook,
    /// A policy that records Secrets or tokens with their content, which every reader of the log or of a sink then has
    /// in plain text. The preset stig-literal does, and your own rules may.
    SecretsAboveMetadata,
    /// A log in mode BlockingStrict: while the log cannot be written, for example because its disk is full,
    /// kube-apiserver rejects every audited request.
    BlockingStrictLog,
    /// A log file of unlimited size (`maxBackups: 0`): it can fill the disk, which etcd often shares.
    UnboundedLog,
}

impl Risk {
    pub fn as_str(self) -> &'static str {
        match self {
            Risk::BlockingWebhook => "BlockingWebhook",
            Risk::SecretsAboveMetadata => "SecretsAboveMetadata",
            Risk::BlockingStrictLog => "BlockingStrictLog",
            Risk::UnboundedLog => "UnboundedLog",
        }
    }
}

/// A key of a ConfigMap in the operator's namespace.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key of the policy in the ConfigMap.
    #[serde(default = "policy_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn policy_key() -> String {
    "policy.yaml".into()
}
