//! The policies that come with the operator, as data files. A released file never changes: a new version gets a new
//! file and name, which the rendered policy and status contain.

use serde::{Deserialize, Serialize};

use super::{Policy, read};

/// A policy that comes with the operator; `audit-operator policy presets` lists them. `stig-literal` records Secrets
/// and tokens in plain text, and needs `SecretsAboveMetadata` in `acknowledge`.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Preset {
    /// Every request at level Metadata, except health, metrics and version endpoints and leases.
    #[serde(rename = "metadata")]
    Metadata,
    /// The policy of Google's GCE scripts, brought up to date: noise dropped, bodies of writes recorded, Secrets,
    /// ConfigMaps and tokens at Metadata only.
    #[serde(rename = "gce")]
    Gce,
    /// CIS Kubernetes Benchmark 3.2.2: Secrets, ConfigMaps and tokens at Metadata, changes of workloads with their
    /// bodies, everything else at Metadata.
    #[serde(rename = "cis")]
    Cis,
    /// The policy of the NSA and CISA Kubernetes Hardening Guide: everything with both bodies, Secrets and tokens at
    /// Metadata.
    #[serde(rename = "nsa")]
    Nsa,
    /// V-242403 of the DISA Kubernetes STIG to the letter: everything with both bodies, Secrets and tokens in plain
    /// text. Needs `SecretsAboveMetadata` in `acknowledge`.
    #[serde(rename = "stig-literal")]
    StigLiteral,
    /// The same without the bodies of Secrets and tokens; the file states the deviation for an assessor.
    #[serde(rename = "stig-tailored")]
    StigTailored,
    /// OpenShift's profile Default: everything at Metadata, without discovery and probes.
    #[serde(rename = "openshift-default")]
    OpenshiftDefault,
    /// OpenShift's profile WriteRequestBodies: writes with both bodies, reads and credentials at Metadata.
    #[serde(rename = "openshift-write-request-bodies")]
    OpenshiftWriteRequestBodies,
    /// OpenShift's profile AllRequestBodies: everything with both bodies, credentials at Metadata.
    #[serde(rename = "openshift-all-request-bodies")]
    OpenshiftAllRequestBodies,
    /// The events that the rules of Falco's k8saudit plugin use. ConfigMaps are recorded with their content.
    #[serde(rename = "falco")]
    Falco,
    /// Only the events that attack detection needs: an idle cluster writes almost nothing.
    #[serde(rename = "quiet")]
    Quiet,
}

/// A policy that comes with the operator.
#[derive(Clone, Debug)]
pub struct PresetPolicy {
    /// Name and version, such as `gce-2026.1`.
    pub name: &'static str,
    /// The file, with a comment for each rule.
    pub text: &'static str,
    pub policy: Policy,
}

impl PresetPolicy {
    /// The name that a Setup uses for the newest version.
    pub fn unversioned(&self) -> &'static str {
        self.name.rsplit_once('-').map_or(self.name, |(name, _)| name)
    }

    /// The first sentence of the file, without its full stop.
    pub fn about(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
        let text = lines.collect::<Vec<_>>().join(" ");
        text.split_once(". ").map_or(text.trim_end_matches('.'), |(first, _)| first).to_string()
    }
}

/// In the order of the list: general presets, then those of benchmarks, then those of products.
const ALL: [Preset; 11] = [
    Preset::Metadata,
    Preset::Quiet,
    Preset::Gce,
    Preset::Cis,
    Preset::Nsa,
    Preset::StigTailored,
    Preset::StigLiteral,
    Preset::Falco,
    Preset::OpenshiftDefault,
    Preset::OpenshiftWriteRequestBodies,
    Preset::OpenshiftAllRequestBodies,
];

/// The newest version of each preset.
pub fn presets() -> Vec<PresetPolicy> {
    ALL.map(preset).into()
}

/// The newest version of a preset.
pub fn preset(preset: Preset) -> PresetPolicy {
    macro_rules! file {
        ($name:literal) => {
            ($name, include_str!(concat!("presets/", $name, ".yaml")))
        };
    }
    let (name, text) = match preset {
        Preset::Metadata => file!("metadata-2026.1"),
        Preset::Gce => file!("gce-2026.1"),
        Preset::Cis => file!("cis-2026.1"),
        Preset::Nsa => file!("nsa-2026.1"),
        Preset::StigLiteral => file!("stig-literal-2026.1"),
        Preset::StigTailored => file!("stig-tailored-2026.1"),
        Preset::OpenshiftDefault => file!("openshift-default-2026.1"),
        Preset::OpenshiftWriteRequestBodies => file!("openshift-write-request-bodies-2026.1"),
        Preset::OpenshiftAllRequestBodies => file!("openshift-all-request-bodies-2026.1"),
        Preset::Falco => file!("falco-2026.1"),
        Preset::Quiet => file!("quiet-2026.1"),
    };
    PresetPolicy { name, text, policy: read(text).expect("the tests read every preset") }
}

#[cfg(test)]
mod tests;
