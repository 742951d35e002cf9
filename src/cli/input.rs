//! The input of `-f`: YAML documents with one AuditSetup and the Secrets, ConfigMaps and Services that it refers to.
//!
//! Every message names file, line, column and field, as far as they exist. Objects of other kinds are skipped, so that
//! a whole bundle can be given. The content of a Secret is never printed.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::excerpt::excerpt;
use crate::api::{AuditSetup, HOSTS_ANNOTATION, Reason};
use crate::floor::Floor;
use crate::validate::{
    Capabilities, Problem, References, SchemaCheck, SecretFacts, ValidPolicy, ValidSetup, check_schema, needs,
    validate, validate_policy,
};
use kube_yaml::Place;
use kube_yaml::fields::{self, Fields, Places};

/// Limit for one file. Everything that a Setup can refer to is far smaller.
const MAX_BYTES: u64 = 32 << 20;

/// The objects of all files.
pub(super) struct Input {
    /// The Setup without the fields that break the schema; [`Input::validate`] reports those.
    pub setup: AuditSetup,
    pub references: References,
    document: SetupDocument,
}

/// The document of a Setup: the violations of its schema, and its places.
struct SetupDocument {
    name: String,
    check: SchemaCheck,
    /// Fields that are given twice, with the place of the second.
    twice: Vec<(String, Place)>,
    file: String,
    places: Places,
}

impl SetupDocument {
    fn is_clean(&self) -> bool {
        self.check.problems.is_empty() && self.twice.is_empty()
    }

    /// The problems, with their places as far as they have their own.
    fn problems(&self) -> impl Iterator<Item = (Option<Place>, Problem)> {
        let twice = self.twice.iter().map(|(field, place)| {
            let message = "is given twice".to_string();
            (Some(*place), Problem { field: field.clone(), reason: Reason::InvalidSetup, message })
        });
        twice.chain(self.check.problems.iter().map(|problem| (None, problem.clone())))
    }

    /// All problems of the Setup, in the order of the file.
    fn explain(&self, problems: impl Iterator<Item = (Option<Place>, Problem)>) -> String {
        let Self { name, file, places, .. } = self;
        let mut found: Vec<_> =
            problems.map(|(place, problem)| (place.or_else(|| places.of_field(&problem.field)), problem)).collect();
        found.sort_by(|(a, one), (b, other)| (a, &one.field).cmp(&(b, &other.field)));
        let mut out = format!("AuditSetup/{name} is rejected");
        for (place, problem) in found {
            let place = place.map(|Place { line, column }| format!(":{line}:{column}")).unwrap_or_default();
            write!(out, "\n{file}{place}: {problem} ({})", problem.reason).expect("a String takes everything");
        }
        out
    }
}

/// Reads a text up to [`MAX_BYTES`], because a device never ends. It may be a pipe, such as the shell's `<(kubectl get
/// …)`.
fn read(file: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        bail!("the file is larger than {} MiB", MAX_BYTES >> 20);
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        anyhow!("line {} is not UTF-8", 1 + before.iter().filter(|byte| **byte == b'\n').count())
    })
}

impl Input {
    /// Reads the files; `-` is standard input.
    pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        let mut objects = Objects::default();
        for path in files {
            let (name, text) = if path.as_os_str() == "-" {
                ("standard input".to_string(), read(std::io::stdin().lock()))
            } else {
                (path.display().to_string(), std::fs::File::open(path).map_err(Into::into).and_then(read))
            };
            let text = text.with_context(|| format!("cannot read {name}"))?;
            for document in documents(&name, &text) {
                objects.add(document)?;
            }
        }
        let Objects { setup, references, skipped } = objects;
        let mut document = setup.ok_or_else(|| {
            let found = if skipped.is_empty() { String::new() } else { format!("; found: {}", skipped.join(", ")) };
            anyhow!("the files given with -f have no AuditSetup{found}")
        })?;
        match document.check.setup.take() {
            Some(setup) => Ok(Self { setup, references, document }),
            None => Err(anyhow!(document.explain(document.problems()))),
        }
    }

    /// Validates the Setup. The error has every problem with its place, including violations of the schema.
    pub(super) fn validate(&self, capabilities: Capabilities, floor: &Floor) -> anyhow::Result<ValidSetup> {
        self.with_places(validate(&self.setup, &self.references, capabilities, floor))
    }

    /// Validates only its policy, which needs no Secret.
    pub(super) fn validate_policy(&self, capabilities: Capabilities, floor: &Floor) -> anyhow::Result<ValidPolicy> {
        self.with_places(validate_policy(&self.setup, &self.references, capabilities, floor))
    }

    fn with_places<T>(&self, judged: Result<T, Vec<Problem>>) -> anyhow::Result<T> {
        let judged = match judged {
            Ok(valid) if self.document.is_clean() => return Ok(valid),
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        };
        let is_missing = judged.iter().any(|problem| problem.reason == Reason::ReferenceNotFound);
        let judged = judged.into_iter().filter(|problem| !self.document.check.may_have_caused(problem));
        let problems = self.document.problems().chain(judged.map(|problem| (None, problem)));
        let mut out = self.document.explain(problems);
        if is_missing {
            out.push_str(&self.how_to_give_references());
        }
        Err(anyhow!(out))
    }

    /// The command that gives the missing references.
    fn how_to_give_references(&self) -> String {
        let needs = needs(&self.setup);
        let have = &self.references;
        let secrets = needs.secrets.iter().filter(|name| !have.secrets.contains_key(*name));
        let config_maps = needs.config_maps.iter().filter(|name| !have.config_maps.contains_key(*name));
        let own: Vec<_> = secrets
            .map(|name| format!("secret/{name}"))
            .chain(config_maps.map(|name| format!("configmap/{name}")))
            .collect();
        let get = |namespace: &str, names: &str| format!("kubectl -n {namespace} get {names} -o yaml");
        let mut commands = Vec::new();
        if !own.is_empty() {
            commands.push(get("OPERATOR-NAMESPACE", &own.join(" ")));
        }
        let services = needs.services.iter().filter(|name| !have.services.contains_key(*name));
        commands.extend(services.map(|(namespace, name)| get(namespace, &format!("service/{name}"))));
        match commands.as_slice() {
            // A given object lacks a key.
            [] => String::new(),
            _ => format!(
                "\nGive the objects that it refers to with -f too, for example:\n  ({}) | audit-operator render -f {} -f -",
                commands.join("; echo ---; "),
                self.document.file
            ),
        }
    }
}

/// One YAML document. Empty lines before its text keep the line numbers of the file.
struct Document {
    file: String,
    text: String,
}

impl Document {
    fn at(&self, Place { line, column }: Place) -> String {
        format!("{}:{line}:{column}", self.file)
    }

    /// A message with its place, and the line.
    fn error(&self, place: Place, message: &str) -> anyhow::Error {
        let line = place.line.to_string();
        let text = self.text.lines().nth(place.line.saturating_sub(1) as usize).unwrap_or_default();
        let (shown, caret) = excerpt(text, place.column.saturating_sub(1) as usize);
        let (margin, caret) = (" ".repeat(line.len()), " ".repeat(caret));
        anyhow!("{}: {message}\n{margin} |\n{line} | {shown}\n{margin} | {caret}^", self.at(place))
    }

    /// Whether text that is not YAML, and so has no known kind, may contain a secret.
    fn may_be_secret(&self) -> bool {
        self.text.lines().any(|line| line.contains("kind") && (line.contains("Secret") || line.contains("List")))
    }
}

/// Splits a file at its `---` lines, which always separate documents in YAML, even in a block scalar.
fn documents(file: &str, text: &str) -> Vec<Document> {
    let mut found = vec![String::new()];
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line.trim_end() == "---" || line.starts_with("--- ");
        if is_marker {
            found.push("\n".repeat(n));
        }
        found.last_mut().expect("there is always one").push_str(if line.trim_end() == "---" { "\n" } else { line });
    }
    let has_content = |text: &&String| text.lines().any(|l| !l.trim_start().starts_with('#') && !l.trim().is_empty());
    found.iter().filter(has_content).map(|text| Document { file: file.to_string(), text: text.clone() }).collect()
}

#[derive(Default)]
struct Objects {
    setup: Option<SetupDocument>,
    references: References,
    /// Kinds of the objects that were skipped.
    skipped: Vec<String>,
}

/// A Secret or a ConfigMap. Binary data of a ConfigMap is not a policy, so it is ignored.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysDocument {
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    string_data: Option<BTreeMap<String, String>>,
}

impl Objects {
    fn add(&mut self, document: Document) -> anyhow::Result<()> {
        let fields = fields::read(&document.text).map_err(|error| match document.may_be_secret() {
            true => anyhow!("{}: {NOT_SHOWN}", document.at(error.place)),
            false => document.error(error.place, &error.message),
        })?;
        let value = &fields.value;
        match (text_at(value, "/apiVersion"), text_at(value, "/kind")) {
            ("audit-operator.io/v1alpha1", "AuditSetup") => {
                if let Some(first) = &self.setup {
                    bail!("{}: a second AuditSetup; the first is in {}. Give one at a time", document.file, first.file);
                }
                let name = text_at(value, "/metadata/name").to_string();
                let Fields { value, twice, places } = fields;
                self.setup =
                    Some(SetupDocument { name, check: check_schema(value), twice, file: document.file, places });
            }
            (version, "AuditSetup") => {
                bail!("{}: apiVersion must be audit-operator.io/v1alpha1, not {version:?}", document.file)
            }
            ("v1", "Secret") => {
                let object: KeysDocument = parse(&document, &fields, Snippet::Hidden)?;
                let name = name_of(&document, &object.metadata)?;
                let mut keys = BTreeMap::new();
                for (key, value) in object.data.unwrap_or_default() {
                    // A block scalar may have line ends.
                    let compact: String = value.split_whitespace().collect();
                    let bytes = base64::engine::general_purpose::STANDARD.decode(compact);
                    let bytes =
                        bytes.map_err(|_| anyhow!("{}: Secret {name:?}: data.{key} is not base64", document.file))?;
                    keys.insert(key, bytes);
                }
                keys.extend(
                    object.string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes())),
                );
                let facts = SecretFacts {
                    type_: text_at(value, "/type").to_string(),
                    hosts: object.metadata.annotations.and_then(|mut all| all.remove(HOSTS_ANNOTATION)),
                    data: keys,
                };
                if self.references.secrets.insert(name.clone(), facts).is_some() {
                    bail!("{}: the Secret {name:?} is given twice", document.file);
                }
            }
            ("v1", "ConfigMap") => {
                let object: KeysDocument = parse(&document, &fields, Snippet::Shown)?;
                let name = name_of(&document, &object.metadata)?;
                if self.references.config_maps.insert(name.clone(), object.data.unwrap_or_default()).is_some() {
                    bail!("{}: the ConfigMap {name:?} is given twice", document.file);
                }
            }
            ("v1", "Service") => {
                let object: Service = parse(&document, &fields, Snippet::Shown)?;
                let name = name_of(&document, &object.metadata)?;
                let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".into());
                self.references.services.insert((namespace, name), object);
            }
            // The output of `kubectl get` with several objects.
            ("v1", "List") => {
                let items = value["items"].as_array();
                let items = items.with_context(|| format!("{}: the List has no items", document.file))?;
                for (i, item) in items.iter().enumerate() {
                    self.add(Document { file: format!("{} items[{i}]", document.file), text: item.to_string() })?;
                }
            }
            ("", "") => bail!("{}: a document has no apiVersion and no kind", document.file),
            (_, kind) => self.skipped.push(kind.to_string()),
        }
        Ok(())
    }
}

/// A string in a document; empty if missing.
fn text_at<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn name_of(document: &Document, metadata: &ObjectMeta) -> anyhow::Result<String> {
    metadata.name.clone().with_context(|| format!("{}: metadata.name is required", document.file))
}

/// Replaces a message that may contain a secret.
const NOT_SHOWN: &str = "cannot be read (details are not shown, because they may be secret)";

#[derive(Clone, Copy, PartialEq)]
enum Snippet {
    Shown,
    /// The lines may hold a secret.
    Hidden,
}

/// Reads the type from the JSON that kubectl would send.
fn parse<T: DeserializeOwned>(document: &Document, fields: &Fields, snippet: Snippet) -> anyhow::Result<T> {
    let failed = |field: &str, place: Place, message: &str| match snippet {
        Snippet::Hidden => anyhow!("{}: {field}: {NOT_SHOWN}", document.at(place)),
        Snippet::Shown => document.error(place, &format!("{field}: {message}")),
    };
    if let Some((field, place)) = fields.twice.first() {
        return Err(failed(field, *place, "is given twice"));
    }
    serde_path_to_error::deserialize(&fields.value).map_err(|error| {
        let field = error.path().to_string();
        let place = fields.places.of_field(&field).unwrap_or_default();
        failed(&field, place, &error.into_inner().to_string())
    })
}

/// The path of a file on the node, below another root.
pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_split_into_documents_that_keep_their_line_numbers() {
        let text = "# head\n---\na: 1\n---\n# nothing\n--- {b: 2}\n---\nc: |\n  --- no marker\n";
        let found: Vec<_> = documents("x", text).into_iter().map(|d| d.text).collect();
        assert_eq!(
            found,
            ["\n\na: 1\n", "\n\n\n\n\n--- {b: 2}\n", "\n\n\n\n\n\n\nc: |\n  --- no marker\n"].map(|s| {
                // The marker line itself is one of the empty lines in front.
                s.to_string()
            })
        );
    }
}
