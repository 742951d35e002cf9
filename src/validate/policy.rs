//! The policy of a Setup: assembled from its parts, and checked as the file that the nodes would get.
//!
//! [`lint`] judges it once for the oldest and once for the newest API server. That is as good as
//! once for each node: what depends on the version is refused up to one version, or from one on.

use super::{Capabilities, Problems, References, ValidPolicy};
use crate::api::{GROUP, GroupResources, Level, Mode, PolicyRule, PolicySpec, Reason, Risk, SetupFinding, Stage};
use crate::floor::Floor;
use audit_policy::{Finding, Part, Severity, Terms, lint, preset, read, stanza, write};

/// The field of the floor's rules, as the administrator knows it.
const FLOOR: &str = "floor.rules";
/// A Secret holds 1 MiB. In its JSON a character of the policy may take two bytes, and the rest of the Revision needs
/// room too.
pub(super) const MAX_POLICY_BYTES: usize = 480 * 1024;
const CANARY: &str = "the operator's canary request";
/// The status shows no more findings.
const MAX_FINDINGS: usize = 32;

/// Rules of the policy and the field that they come from.
struct Source {
    part: Part,
    field: &'static str,
    /// The name of the rules' place, if the rules are not in the field itself.
    named: Option<String>,
}

pub(super) fn check(
    spec: &PolicySpec,
    references: &References,
    capabilities: Capabilities,
    mode: Mode,
    floor: &Floor,
    problems: &mut Problems,
) -> ValidPolicy {
    for (i, risk) in spec.acknowledge.iter().enumerate().filter(|(_, risk)| !floor.granted_risks.contains(risk)) {
        let message = format!(
            "{} is not granted. Have an administrator add it to floor.grantedRisks, or change the Setup so that it does not need it",
            risk.as_str()
        );
        problems.add(format!("spec.policy.acknowledge[{i}]"), Reason::BelowFloor, message);
    }
    let oldest = capabilities.oldest;
    let field = "spec.policy";
    let mut omit_stages = spec.omit_stages.clone().unwrap_or(vec![Stage::RequestReceived]);
    let mut omit_managed_fields = spec.omit_managed_fields.unwrap_or(true);
    let mut name = None;
    let source = |title: &str, field, named, rules: &[PolicyRule]| Source {
        part: Part { title: title.into(), rules: rules.to_vec() },
        field,
        named,
    };
    let mut base = None;
    match (&spec.preset, &spec.rules, &spec.config_map_ref) {
        (Some(wanted), None, None) => {
            let found = preset(*wanted);
            omit_stages = spec.omit_stages.clone().unwrap_or_else(|| found.policy.omit_stages.clone());
            omit_managed_fields = spec.omit_managed_fields.unwrap_or(found.policy.omit_managed_fields);
            name = Some(found.name.to_string());
            let title = format!("preset {}", found.name);
            let named = Some(title.clone());
            base = Some(source(&title, "spec.policy.preset", named, &found.policy.rules));
        }
        (None, Some(rules), None) => base = Some(source("rules", "spec.policy.rules", None, rules)),
        (None, None, Some(reference)) => {
            let field = "spec.policy.configMapRef";
            if spec.omit_stages.is_some() || spec.omit_managed_fields.is_some() {
                problems.add(
                    "spec.policy",
                    Reason::InvalidSetup,
                    "omitStages and omitManagedFields belong in the policy of the ConfigMap: remove them here",
                );
            }
            if let Some(text) = problems.config_map(references, &reference.name, &reference.key, field) {
                let place = format!("key {:?} of ConfigMap {:?}", reference.key, reference.name);
                match read(text) {
                    Ok(read) => {
                        omit_stages = read.omit_stages;
                        omit_managed_fields = read.omit_managed_fields;
                        base = Some(source("the ConfigMap", field, Some(place), &read.rules));
                    }
                    Err(error) => {
                        problems.add(field, Reason::InvalidPolicy, format!("{place}: {error}"));
                    }
                }
            }
        }
        _ => problems.add(field, Reason::InvalidSetup, "exactly one of preset, rules and configMapRef is required"),
    }
    // New in 1.23; older API servers drop the field.
    if oldest.minor() < 23 {
        if omit_managed_fields && spec.omit_managed_fields.is_some() {
            problems.add(
                format!("{field}.omitManagedFields"),
                Reason::InvalidSetup,
                format!("needs Kubernetes 1.23, but an API server here is {oldest}: remove it"),
            );
        }
        omit_managed_fields = false;
    }
    omit_stages.sort();
    omit_stages.dedup();
    let is_whole = base.as_ref().is_some_and(|base| !base.part.rules.is_empty());
    let canary = spec.canary_rule.then(canary_rule);
    let sources = [
        source("the floor of this cluster", FLOOR, Some(FLOOR.into()), &floor.rules),
        source(CANARY, "spec.policy.canaryRule", Some(CANARY.into()), canary.as_slice()),
        source("prepend", "spec.policy.prepend", None, &spec.prepend),
        base.unwrap_or(source("", field, None, &[])),
        source("append", "spec.policy.append", None, &spec.append),
    ];
    let mut policy = ValidPolicy {
        parts: sources.iter().map(|source| source.part.clone()).collect(),
        omit_stages,
        omit_managed_fields,
        preset: name,
        findings: Vec::new(),
    };
    let text = write(&policy.parts, &policy.omit_stages, policy.omit_managed_fields);
    if text.len() > MAX_POLICY_BYTES {
        let message = format!(
            "the complete policy has {} bytes, but at most {MAX_POLICY_BYTES} fit into the Secret that carries it to the nodes: shorten it",
            text.len()
        );
        problems.add(field, Reason::InvalidSetup, message);
    }
    let mut findings = findings(&text, spec, capabilities, mode, floor);
    // Without its middle the policy is incomplete, and the missing middle is reported already.
    findings.retain(|finding| is_whole || (finding.stops_start && finding.path.starts_with("rules[")));
    judge(&mut policy, findings, &sources, problems);
    warn_of_blind_spots(&sources, problems);
    policy
}

/// The findings of lint in the file, for the oldest and for the newest API server.
fn findings(text: &str, spec: &PolicySpec, capabilities: Capabilities, mode: Mode, floor: &Floor) -> Vec<Finding> {
    let Capabilities { oldest, newest } = capabilities;
    let mut findings: Vec<Finding> = Vec::new();
    for version in [oldest].into_iter().chain(Some(newest).filter(|newest| *newest != oldest)) {
        let minor = version.minor();
        let linted = lint(
            text.as_bytes(),
            &Terms {
                minor,
                secrets_accepted: spec.acknowledge.contains(&Risk::SecretsAboveMetadata),
                mode,
                floor: &floor.rules,
            },
        );
        let is_known = |one: &Finding| findings.iter().any(|known| known.id == one.id && known.path == one.path);
        let new: Vec<Finding> = linted.findings.into_iter().filter(|one| !is_known(one)).collect();
        findings.extend(new);
    }
    findings
}

/// Errors become problems, so that no node is touched. The status shows warnings and acknowledged risks.
fn judge(policy: &mut ValidPolicy, mut findings: Vec<Finding>, sources: &[Source], problems: &mut Problems) {
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    for finding in findings {
        let (field, place) = origin(&finding.path, sources);
        let is_below_floor = finding.id == audit_policy::BELOW_FLOOR;
        // The administrator answers for the rules of the floor, and they win over a preset's.
        if (field.starts_with(FLOOR) && !finding.stops_start) || (is_below_floor && field == "spec.policy.preset") {
            continue;
        }
        // Upstream's messages begin with the path in the file, and may end with examples.
        let message = match finding.message.split_once(": ") {
            Some((_, rest)) if finding.stops_start => rest.split(" (e.g. ").next().unwrap_or(rest),
            _ => &finding.message,
        };
        let help = finding.help.iter().map(|help| format!(": {help}")).collect::<String>();
        let message = format!("{place}{message}{help} ({})", finding.id);
        // An error that is acknowledged is still shown.
        let is_shown = stanza(finding.id).is_some_and(|stanza| stanza.severity > Severity::Info);
        if finding.severity == Severity::Error {
            let reason = match (finding.stops_start, is_below_floor) {
                (true, _) => Reason::InvalidPolicy,
                (false, true) => Reason::BelowFloor,
                (false, false) => Reason::RiskNotAcknowledged,
            };
            problems.add(field, reason, message);
        } else if is_shown && policy.findings.len() < MAX_FINDINGS {
            let severity = finding.severity.as_str().into();
            policy.findings.push(SetupFinding { id: finding.id.into(), severity, field, message });
        }
    }
}

/// Rules of the author that switch off all recording of a person. Users and groups of the system are excepted: they
/// make the noise of a cluster.
fn warn_of_blind_spots(sources: &[Source], problems: &mut Problems) {
    let is_authors = |source: &&Source| source.field != FLOOR && source.field != "spec.policy.preset";
    for Source { part, field, named } in sources.iter().filter(is_authors) {
        for (i, rule) in part.rules.iter().enumerate() {
            let PolicyRule { level, users, user_groups, verbs, resources, namespaces, non_resource_urls, .. } = rule;
            let is_whole =
                verbs.is_empty() && resources.is_empty() && namespaces.is_empty() && non_resource_urls.is_empty();
            let people: Vec<&str> = users
                .iter()
                .chain(user_groups)
                .map(String::as_str)
                .filter(|name| !name.starts_with("system:"))
                .collect();
            if *level == Level::None && is_whole && !people.is_empty() {
                let field = if named.is_some() { field.to_string() } else { format!("{field}[{i}]") };
                let message =
                    format!("no request of {} is recorded, except by the rules of the floor", people.join(", "));
                problems.warn("unrecorded-user", field, message);
            }
        }
    }
}

/// The field of the Setup that a path in the file comes from, and a prefix that names the place in a preset or
/// ConfigMap.
fn origin(path: &str, sources: &[Source]) -> (String, String) {
    let split = path.strip_prefix("rules[").and_then(|rest| rest.split_once(']'));
    let Some((mut index, rest)) = split.and_then(|(index, rest)| Some((index.parse::<usize>().ok()?, rest))) else {
        return ("spec.policy".into(), String::new());
    };
    for Source { part, field, named } in sources {
        match (index.checked_sub(part.rules.len()), named) {
            (Some(left), _) => index = left,
            (None, None) => return (format!("{field}[{index}]{rest}"), String::new()),
            (None, Some(named)) => return (field.to_string(), format!("{named}: rules[{index}]{rest}: ")),
        }
    }
    unreachable!("every rule of the file comes from a part")
}

/// Records the agent's `get` of its NodeAudit, once, when it is answered.
fn canary_rule() -> PolicyRule {
    PolicyRule {
        level: Level::Metadata,
        verbs: vec!["get".into()],
        resources: vec![GroupResources {
            group: GROUP.into(),
            resources: vec!["nodeaudits".into()],
            resource_names: vec![],
        }],
        omit_stages: vec![Stage::RequestReceived],
        users: vec![],
        user_groups: vec![],
        namespaces: vec![],
        non_resource_urls: vec![],
        omit_managed_fields: None,
    }
}
