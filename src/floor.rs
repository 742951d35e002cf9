//! The floor: what the cluster's administrator has fixed, and no Setup can weaken.
//!
//! It comes from a file of the operator's own installation (Helm values, a ConfigMap), which neither controller nor agent can
//! write. Both enforce it: the controller refuses a Setup that goes below it, the agent a Revision that does, whoever wrote it.
//! `render` and `policy lint` know it too (`--floor FILE`).
//!
//! Pure but for [`Floor::load`] and [`FloorFile`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::api::{GROUP, GroupResources, Level, PolicyRule, Risk, Stage};
use kube_yaml::{Place, fields};

mod destination;
mod directory;

pub use destination::{Destination, Refused};
pub use directory::{LogDirectory, clean_path};

/// The directory below which logs may be written, where the administrator names no other.
pub const DEFAULT_LOG_DIRECTORY: &str = "/var/log/kubernetes";

/// What no Setup can weaken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Floor {
    /// Stand before all other rules of every policy, so they decide first. No rule of a Setup may be aimed at recording less of what
    /// they record.
    pub rules: Vec<PolicyRule>,
    /// Risks that a Setup may acknowledge. Every other one is refused.
    pub granted_risks: Vec<Risk>,
    /// Log files lie below one of these directories of the node, which the agent mounts read-only.
    pub log_directories: Vec<LogDirectory>,
    /// Whether a Secret is only used by a sink if it names the hosts that it is for ([`HOSTS_ANNOTATION`](crate::api::HOSTS_ANNOTATION)).
    pub require_secret_hosts: bool,
    /// Where webhooks may send events. Empty: anywhere, but for what is never permitted ([`Destination::never`]).
    pub destinations: Vec<Destination>,
}

impl Default for Floor {
    /// Without an administrator's word: whoever changes what is audited is recorded, no risk is granted, logs lie below
    /// [`DEFAULT_LOG_DIRECTORY`].
    fn default() -> Self {
        Self {
            rules: default_rules(),
            granted_risks: Vec::new(),
            log_directories: vec![LogDirectory::default()],
            require_secret_hosts: false,
            destinations: Vec::new(),
        }
    }
}

/// Changes of AuditSetups and NodeAudits, by anybody. Their status is written by the operator itself and does not count.
fn default_rules() -> Vec<PolicyRule> {
    let verbs = ["create", "update", "patch", "delete", "deletecollection"];
    vec![PolicyRule {
        level: Level::Metadata,
        users: vec![],
        user_groups: vec![],
        verbs: verbs.map(str::to_string).to_vec(),
        resources: vec![GroupResources {
            group: GROUP.into(),
            resources: vec!["auditsetups".into(), "nodeaudits".into()],
            resource_names: vec![],
        }],
        namespaces: vec![],
        non_resource_urls: vec![],
        // None of these requests is answered before it is carried out.
        omit_stages: vec![Stage::RequestReceived, Stage::ResponseStarted],
        omit_managed_fields: None,
    }]
}

/// Why a text is no floor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{}{message}", place.map(|Place { line, column }| format!("line {line}, column {column}: ")).unwrap_or_default(), if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct NotAFloor {
    pub place: Option<Place>,
    /// Empty where the whole text is meant.
    pub field: String,
    pub message: String,
}

/// Why a file gives no floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the floor {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the floor {} cannot be used", .0.display())]
    Content(PathBuf, #[source] NotAFloor),
}

impl Floor {
    /// Reads a file; without one, the default.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let Some(file) = file else { return Ok(Self::default()) };
        Self::read(&text(file)?).map_err(|error| Error::Content(file.into(), error))
    }

    /// Reads YAML or JSON. A field that is left out has its default. Every rule is one that kube-apiserver would load.
    pub fn read(text: &str) -> Result<Self, NotAFloor> {
        let whole = |message: String| NotAFloor { place: None, field: String::new(), message };
        if text.trim().is_empty() {
            return Err(whole("the file is empty; {} stands for the default".into()));
        }
        let fields::Fields { value, twice, places } = fields::read(text)
            .map_err(|complaint| NotAFloor { place: Some(complaint.place), ..whole(complaint.message) })?;
        if let Some((field, place)) = twice.into_iter().next() {
            return Err(NotAFloor { place: Some(place), field, message: "is given twice".into() });
        }
        let at = |field: String, message: String| NotAFloor { place: places.of_field(&field), field, message };
        let floor: Self = serde_path_to_error::deserialize(&value).map_err(|error| {
            let path = error.path().to_string();
            at(if path == "." { String::new() } else { path }, error.into_inner().to_string())
        })?;
        // The rules as a policy of their own: what kube-apiserver would refuse in them, it would refuse in every policy.
        let part = audit_policy::Part { title: "floor".into(), rules: floor.rules.clone() };
        let text = audit_policy::write(&[part], &[], false);
        let terms = audit_policy::Terms {
            minor: u32::MAX,
            secrets_accepted: floor.granted_risks.contains(&Risk::SecretsAboveMetadata),
            mode: crate::api::Mode::Batch,
            floor: &[],
        };
        let linted = audit_policy::lint(text.as_bytes(), &terms);
        if let Some(finding) = linted.findings.iter().find(|finding| finding.stops_start && !floor.rules.is_empty()) {
            return Err(at(finding.path.clone(), finding.message.clone()));
        }
        Ok(floor)
    }

    /// What a Setup acknowledges, as far as it is granted.
    pub fn granted(&self, acknowledged: &[Risk]) -> Vec<Risk> {
        acknowledged.iter().copied().filter(|risk| self.granted_risks.contains(risk)).collect()
    }

    /// Whether a log file may lie at this path. It is a clean path: no `..`, no `//`.
    pub fn permits_log(&self, path: &str) -> bool {
        path == "-" || self.log_directories.iter().any(|directory| directory.holds(path))
    }

    /// The permitted directories, for a message.
    pub fn log_directories_listed(&self) -> String {
        match self.log_directories.as_slice() {
            [] => "none".into(),
            some => some.iter().map(LogDirectory::as_str).collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether events may go to this host and port. `service` is the name (`namespace/name`) of the Service whose address `host` is.
    pub fn permits_destination(&self, host: &str, port: u16, service: Option<&str>) -> Result<(), Refused> {
        if let Some(why) = Destination::never(host, port, service) {
            return Err(Refused::Never(why));
        }
        let is_permitted = self.destinations.is_empty()
            || self.destinations.iter().any(|destination| destination.matches(host, port, service));
        if is_permitted { Ok(()) } else { Err(Refused::NotPermitted) }
    }
}

fn text(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|error| Error::Read(file.into(), error))
}

/// The floor of a running program. A mounted ConfigMap changes in place, so the file is read again each time, and judged again when it
/// has changed.
#[derive(Debug)]
pub struct FloorFile {
    path: Option<PathBuf>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    /// Of the last one that could be read: no mistake in the file lowers the floor, or takes it away.
    floor: Floor,
    text: Option<String>,
    /// What was told of the file since.
    error: Option<String>,
}

impl FloorFile {
    /// Fails where the first reading does.
    pub fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        let last = Last { floor: Floor::load(path.as_deref())?, text: None, error: None };
        Ok(Self { path, last: Mutex::new(last) })
    }

    pub fn current(&self) -> Floor {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path
            && let Err(error) = last.read(path)
        {
            let error = crate::telemetry::chain(&error).to_string();
            if last.error.as_ref() != Some(&error) {
                tracing::error!(error, "the last good floor stays in force");
                last.error = Some(error);
            }
        }
        last.floor.clone()
    }
}

impl Last {
    fn read(&mut self, path: &Path) -> Result<(), Error> {
        let text = text(path)?;
        if self.text.as_ref() != Some(&text) {
            let floor = Floor::read(&text).map_err(|error| Error::Content(path.into(), error))?;
            if self.floor != floor {
                tracing::info!("the floor has changed");
            }
            *self = Self { floor, text: Some(text), error: None };
        }
        self.error = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_read_and_what_is_left_out_has_its_default() {
        let floor = Floor::read(
            "grantedRisks: [BlockingWebhook]\nlogDirectories: [/var/log/kubernetes, /data/audit]\ndestinations: ['*.example.com', 10.0.0.0/8]\n",
        )
        .unwrap();
        assert_eq!(floor.rules, default_rules());
        assert_eq!(floor.granted(&[Risk::BlockingWebhook]), [Risk::BlockingWebhook]);
        assert_eq!(floor.granted(&[]), []);
        assert_eq!(floor.granted(&[Risk::SecretsAboveMetadata]), []);
        assert!(floor.permits_log("/data/audit/a.log") && !floor.permits_log("/data/a.log"));
        assert_eq!(Floor::read("{}").unwrap(), Floor::default());
        for floor in [floor, Floor::default()] {
            assert_eq!(Floor::read(&serde_json::to_string(&floor).unwrap()).unwrap(), floor);
        }
    }

    #[test]
    fn a_text_that_is_no_floor_is_refused_with_its_field_and_line() {
        for (text, want) in [
            ("", "the file is empty"),
            ("rules: []\ngrants: []\n", "line 2, column 1: grants: unknown field `grants`"),
            (
                "grantedRisks:\n- BlockingWebhok\n",
                "line 2, column 3: grantedRisks[0]: unknown variant `BlockingWebhok`",
            ),
            (
                "logDirectories: [var/log]\n",
                "line 1, column 18: logDirectories[0]: \"var/log\" is not an absolute path",
            ),
            ("logDirectories: [/]\n", "line 1, column 18: logDirectories[0]: "),
            ("logDirectories: [/etc/cron.d]\n", "line 1, column 18: logDirectories[0]: "),
            ("destinations: ['https://a/']\n", "line 1, column 16: destinations[0]: "),
            ("rules:\n- level: Meta\n", "line 2, column 3: rules[0].level: unknown variant `Meta`"),
            ("rules: []\nrules: []\n", "line 2, column 1: rules: is given twice"),
            (
                "rules:\n- level: Metadata\n  nonResourceURLs: ['/a*b']\n",
                "line 3, column 21: rules[0].nonResourceURLs[0]: ",
            ),
            ("a: [\n", "line 2, column 1: "),
        ] {
            let error = Floor::read(text).expect_err(text).to_string();
            assert!(error.starts_with(want), "{text}\nwant {want}\ngot  {error}");
        }
    }

    #[test]
    fn a_file_that_changes_is_taken_up_and_one_that_cannot_be_read_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let host = crate::node::files::Host::open(directory.path()).unwrap();
        let write = |text: &str| host.replace("/floor.yaml", text.as_bytes(), 0o600).unwrap();
        write("destinations: [a.example]");
        let file = FloorFile::open(Some(directory.path().join("floor.yaml"))).unwrap();
        let permits = |host: &str| file.current().permits_destination(host, 443, None).is_ok();
        assert!(permits("a.example") && !permits("b.example"));
        write("destinations: [b.example]");
        assert!(!permits("a.example") && permits("b.example"));
        write("destinations: [a.example");
        assert!(!permits("a.example") && permits("b.example"), "a mistake");
        host.remove("/floor.yaml").unwrap();
        assert!(!permits("a.example") && permits("b.example"), "no file");
        write("destinations: [a.example]");
        assert!(permits("a.example") && !permits("b.example"));
    }
}
