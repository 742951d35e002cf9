//! The floor: limits that the cluster's administrator sets and no Setup can go below.
//!
//! It comes from a file of the operator's installation (Helm values, a ConfigMap), which neither the controller nor an
//! agent can write. Both enforce it: the controller rejects a Setup below the floor, an agent a Revision below it, no
//! matter who wrote it. `render`, `apply` and `policy lint` read it too (`--floor FILE`).
//!
//! Pure, except for [`Floor::load`] and [`FloorFile`].

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::api::{GROUP, GroupResources, Level, PolicyRule, Risk, Stage};
use kube_yaml::{Place, fields};

mod destination;
mod directory;

pub use destination::{Destination, Forbidden};
pub use directory::{LogDirectory, clean_path};

/// The directory for logs, unless the administrator names others.
pub const DEFAULT_LOG_DIRECTORY: &str = "/var/log/kubernetes";

/// Limits for every Setup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Floor {
    /// Rules before all other rules of every policy, so they decide first. A Setup is rejected if one of its rules
    /// names what they protect and would record less of it.
    pub rules: Vec<PolicyRule>,
    /// Risks that a Setup may acknowledge. A Setup that takes any other risk is rejected.
    pub granted_risks: Vec<Risk>,
    /// Log files must be below one of these directories of the node, which the agent mounts read-only.
    pub log_directories: Vec<LogDirectory>,
    /// Whether a sink may use only Secrets that name their hosts ([`HOSTS_ANNOTATION`](crate::api::HOSTS_ANNOTATION)).
    pub require_secret_hosts: bool,
    /// Where webhooks may send events. Empty: anywhere, except where it is never permitted ([`Destination::never`]).
    pub destinations: Vec<Destination>,
}

impl Default for Floor {
    /// Changes of the auditing itself are recorded, no risk is granted, logs are below [`DEFAULT_LOG_DIRECTORY`].
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

/// Records changes of AuditSetups and NodeAudits by any user, but not of their status, which the operator writes.
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
        // These requests are answered only after they are carried out, so one stage is enough.
        omit_stages: vec![Stage::RequestReceived, Stage::ResponseStarted],
        omit_managed_fields: None,
    }]
}

/// Why a text is not a floor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}{}{message}", place.map(|Place { line, column }| format!("line {line}, column {column}: ")).unwrap_or_default(), if field.is_empty() { String::new() } else { format!("{field}: ") })]
pub struct NotAFloor {
    pub place: Option<Place>,
    /// Empty for the whole text.
    pub field: String,
    pub message: String,
}

/// Why a file cannot be used as a floor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the floor file {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("the floor file {} is invalid", .0.display())]
    Content(PathBuf, #[source] NotAFloor),
}

impl Floor {
    /// Reads a file; without a file, the default floor.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let Some(file) = file else { return Ok(Self::default()) };
        Self::read(&text(file)?).map_err(|error| Error::Content(file.into(), error))
    }

    /// Reads YAML or JSON. A missing field has its default. kube-apiserver must accept every rule.
    pub fn read(text: &str) -> Result<Self, NotAFloor> {
        let whole = |message: String| NotAFloor { place: None, field: String::new(), message };
        if text.trim().is_empty() {
            return Err(whole("the file is empty; write {} for the default floor".into()));
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
        // Checks the rules as a policy of their own: kube-apiserver would reject them in every policy too.
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

    /// The granted ones of the risks that a Setup acknowledges.
    pub fn granted(&self, acknowledged: &[Risk]) -> Vec<Risk> {
        acknowledged.iter().copied().filter(|risk| self.granted_risks.contains(risk)).collect()
    }

    /// Whether a log file may be at this path. The path must be clean: no `..`, no `//`.
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

    /// Whether events may be sent to this host and port. `service` is the name (`namespace/name`) of the Service whose
    /// address `host` is.
    pub fn permits_destination(&self, host: &str, port: u16, service: Option<&str>) -> Result<(), Forbidden> {
        if let Some(why) = Destination::never(host, port, service) {
            return Err(Forbidden::Always(why));
        }
        let is_permitted = self.destinations.is_empty()
            || self.destinations.iter().any(|destination| destination.matches(host, port, service));
        if is_permitted { Ok(()) } else { Err(Forbidden::ByFloor) }
    }
}

fn text(file: &Path) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|error| Error::Read(file.into(), error))
}

/// The floor of a running program. A mounted ConfigMap changes in place, so the file is read each time, and parsed
/// again if it has changed.
#[derive(Debug)]
pub struct FloorFile {
    path: Option<PathBuf>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    /// The last valid floor: a mistake in the file must not lower or remove it.
    floor: Floor,
    text: Option<String>,
    /// The last error, which is logged once.
    error: Option<String>,
}

impl FloorFile {
    /// Fails if the file cannot be used at the start.
    pub fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        let last = Last { floor: Floor::load(path.as_deref())?, text: None, error: None };
        Ok(Self { path, last: Mutex::new(last) })
    }

    pub fn current(&self) -> Floor {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = &self.path
            && let Err(error) = last.read(path)
        {
            let error = crate::error::chain(&error);
            if last.error.as_ref() != Some(&error) {
                tracing::error!(error, "cannot use the floor file; the last valid floor stays in force");
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
    fn a_floor_is_read_and_missing_fields_have_their_defaults() {
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
    fn a_text_that_is_not_a_floor_is_rejected_with_its_field_and_line() {
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
