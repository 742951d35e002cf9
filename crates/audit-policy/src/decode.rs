//! Decodes values to the fields of a policy as kube-apiserver's JSON decoder does: names are case-sensitive, null is
//! the same as an absent field, unknown and repeated fields are warnings, wrong types are errors.
//!
//! sigs.k8s.io/json@v0.0.0-20250730193827-2d320260d730/internal/golang/encoding/json/decode.go. A repeated field is
//! decoded on top of the first one, which only JSON files can show.

use std::collections::{HashMap, HashSet};

use super::finding::{Edit, Finding, MAX_FINDINGS, Severity};
use super::stanza::{DUPLICATE_FIELD, NULL_VALUE, UNKNOWN_FIELD, WRONG_TYPE};
use super::write::quoted;
use kube_yaml::scalar::is_rfc3339;
use kube_yaml::{Key, Place, Tree, Value, ValueId};

/// A decoded policy, not yet validated. An absent value has the place of its parent.
#[derive(Debug, Default)]
pub(super) struct RawPolicy {
    pub rules: List<RawRule>,
    pub omit_stages: List<Word>,
    pub omit_managed_fields: bool,
    pub api_version: Word,
    pub kind: Word,
    metadata: Metadata,
}

#[derive(Debug, Default)]
pub(super) struct RawRule {
    pub place: Place,
    pub level: Word,
    pub users: List<Word>,
    pub user_groups: List<Word>,
    pub verbs: List<Word>,
    pub resources: List<RawResources>,
    pub namespaces: List<Word>,
    pub non_resource_urls: List<Word>,
    pub omit_stages: List<Word>,
    pub omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct RawResources {
    pub place: Place,
    pub group: Word,
    pub resources: List<Word>,
    pub resource_names: List<Word>,
}

#[derive(Debug, Default)]
pub(super) struct Word {
    pub place: Place,
    pub text: String,
}

/// encoding/json treats the long s and the Kelvin sign as their ASCII letters.
pub(super) fn fold(key: &str) -> String {
    key.chars()
        .map(|c| match c {
            'ſ' => 's',
            '\u{212a}' => 'k',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

/// A Go slice: items of a longer list stay behind its end and are there again when it grows.
#[derive(Debug)]
pub(super) struct List<T> {
    pub place: Place,
    items: Vec<T>,
    length: usize,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { place: Place::default(), items: Vec::new(), length: 0 }
    }
}

impl<T> List<T> {
    pub fn items(&self) -> &[T] {
        &self.items[..self.length]
    }
}

impl List<Word> {
    pub fn texts(&self) -> Vec<String> {
        self.items().iter().map(|word| word.text.clone()).collect()
    }
}

/// The result of decoding, in the order of the values.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub policy: RawPolicy,
    pub findings: Vec<Finding>,
    /// As in [`Loaded`](super::Loaded).
    pub traps: Vec<Finding>,
    pub places: Places,
}

/// Places of the fields of a policy.
#[derive(Debug, Default)]
pub struct Places(HashMap<String, Place>);

impl Places {
    /// The place of a field such as `rules[3].resources[0].group`; if it is absent, of its nearest parent.
    pub fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Place { line: 1, column: 1 },
            }
        }
    }
}

/// Decodes the fields of a Policy. Its type is not judged here.
pub(super) fn decode(tree: &Tree) -> Decoded {
    let mut decoder = Decoder {
        tree,
        path: String::new(),
        findings: Vec::new(),
        errors: 0,
        warnings: 0,
        traps: Vec::new(),
        places: Places::default(),
    };
    for duplicate in tree.duplicates.iter().take(MAX_FINDINGS) {
        let message = format!("yaml: key {:?} already set in map", duplicate.key.text);
        let help = "kube-apiserver uses the last one and only logs a warning: remove the others";
        decoder.findings.push(Finding::new(DUPLICATE_FIELD, duplicate.key.place, String::new(), message).help(help));
    }
    let mut policy = RawPolicy::default();
    policy.fill(&mut decoder, tree.root);
    let Decoder { findings, traps, places, .. } = decoder;
    Decoded { policy, findings, traps, places }
}

struct Decoder<'a> {
    tree: &'a Tree,
    path: String,
    findings: Vec<Finding>,
    errors: usize,
    warnings: usize,
    traps: Vec<Finding>,
    places: Places,
}

/// A destination of a value.
trait Destination {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId);
}

/// A Go struct.
trait Fields {
    const NAMES: &'static [&'static str];
    /// The field with exactly this name.
    fn field(&mut self, name: &str) -> Option<&mut dyn Destination>;
    /// The place of the value, even if it is null.
    fn set_place(&mut self, place: Place);
}

impl<T: Fields> Destination for T {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        self.set_place(decoder.tree.place(id));
        match decoder.tree.value(id) {
            Value::Null => decoder.null(id, "an object"),
            Value::Map(entries) => {
                let mut known: Vec<&str> = Vec::new();
                for (key, value) in entries {
                    let Some(field) = self.field(&key.text) else {
                        // Of two similar names it is unknown which one was meant.
                        let is_missing = |name: &&&str| {
                            let is_meant =
                                |(one, _): &&(Key, ValueId)| is_near(&one.text, name) && one.text != key.text;
                            entries.iter().all(|(key, _)| key.text != **name)
                                && !entries.iter().any(|one| is_meant(&one))
                        };
                        let names: Vec<&str> = Self::NAMES.iter().filter(is_missing).copied().collect();
                        decoder.unknown(key, *value, &names);
                        continue;
                    };
                    if known.contains(&key.text.as_str()) {
                        decoder.repeated(&key.text, key.place);
                    }
                    known.push(&key.text);
                    decoder.below(&key.text, |decoder| decoder.fill(field, *value));
                }
            }
            _ => decoder.mismatch(id, "an object"),
        }
    }
}

impl Destination for Word {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        self.place = decoder.tree.place(id);
        match decoder.tree.value(id) {
            Value::Null => decoder.null(id, "a string"),
            Value::Text(text) => self.text.clone_from(text),
            _ => decoder.mismatch(id, "a string"),
        }
    }
}

impl Destination for bool {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        match decoder.tree.value(id) {
            Value::Null => {}
            Value::Bool(value) => *self = *value,
            _ => decoder.mismatch(id, "true or false"),
        }
    }
}

impl Destination for Option<bool> {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        match decoder.tree.value(id) {
            Value::Null => *self = None,
            Value::Bool(value) => *self = Some(*value),
            _ => decoder.mismatch(id, "true or false"),
        }
    }
}

impl<T: Destination + Default> Destination for List<T> {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        self.place = decoder.tree.place(id);
        match decoder.tree.value(id) {
            Value::Null => {
                *self = Self { place: self.place, ..Self::default() };
                decoder.null(id, "a list");
            }
            Value::List(children) => {
                if children.is_empty() {
                    self.items.clear();
                }
                for (i, child) in children.iter().enumerate() {
                    if i == self.items.len() {
                        self.items.push(T::default());
                    }
                    let item = &mut self.items[i];
                    decoder.at(i, |decoder| decoder.fill(item, *child));
                }
                self.length = children.len();
            }
            _ => decoder.mismatch(id, "a list"),
        }
    }
}

const RULE_FIELDS: &[&str] = &[
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
];

/// Whether two words differ only in case or in a letter or two.
fn is_near(word: &str, name: &str) -> bool {
    word.eq_ignore_ascii_case(name)
        || (name.len() >= 4 && word.len() <= 32 && strsim::levenshtein(word, name) <= 1 + name.len() / 8)
}

impl Fields for RawPolicy {
    const NAMES: &'static [&'static str] =
        &["rules", "omitStages", "omitManagedFields", "apiVersion", "kind", "metadata"];

    fn field(&mut self, name: &str) -> Option<&mut dyn Destination> {
        Some(match name {
            "rules" => &mut self.rules,
            "omitStages" => &mut self.omit_stages,
            "omitManagedFields" => &mut self.omit_managed_fields,
            "apiVersion" => &mut self.api_version,
            "kind" => &mut self.kind,
            "metadata" => &mut self.metadata,
            _ => return None,
        })
    }

    fn set_place(&mut self, _: Place) {}
}

impl Fields for RawRule {
    const NAMES: &'static [&'static str] = RULE_FIELDS;

    fn field(&mut self, name: &str) -> Option<&mut dyn Destination> {
        Some(match name {
            "level" => &mut self.level,
            "users" => &mut self.users,
            "userGroups" => &mut self.user_groups,
            "verbs" => &mut self.verbs,
            "resources" => &mut self.resources,
            "namespaces" => &mut self.namespaces,
            "nonResourceURLs" => &mut self.non_resource_urls,
            "omitStages" => &mut self.omit_stages,
            "omitManagedFields" => &mut self.omit_managed_fields,
            _ => return None,
        })
    }

    fn set_place(&mut self, place: Place) {
        self.place = place;
        if self.level.text.is_empty() {
            self.level.place = place;
        }
    }
}

impl Fields for RawResources {
    const NAMES: &'static [&'static str] = &["group", "resources", "resourceNames"];

    fn field(&mut self, name: &str) -> Option<&mut dyn Destination> {
        Some(match name {
            "group" => &mut self.group,
            "resources" => &mut self.resources,
            "resourceNames" => &mut self.resource_names,
            _ => return None,
        })
    }

    fn set_place(&mut self, place: Place) {
        self.place = place;
        if self.group.text.is_empty() {
            self.group.place = place;
        }
    }
}

/// Decoded only for its type errors.
#[derive(Debug, Default)]
pub(super) struct Metadata;

impl Destination for Metadata {
    fn fill(&mut self, decoder: &mut Decoder, id: ValueId) {
        check(METADATA, decoder, id);
    }
}

/// The type of a field that is checked but not kept.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Bool,
    Int,
    /// RFC 3339.
    Time,
    /// Any value.
    Any,
    List(&'static Shape),
    /// From names to strings.
    Texts,
    Object(&'static [(&'static str, Shape)]),
}

/// metav1.ObjectMeta (kubernetes@v1.36.3 staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go).
const METADATA: Shape = Shape::Object(&[
    ("name", Shape::Text),
    ("generateName", Shape::Text),
    ("namespace", Shape::Text),
    ("selfLink", Shape::Text),
    ("uid", Shape::Text),
    ("resourceVersion", Shape::Text),
    ("generation", Shape::Int),
    ("creationTimestamp", Shape::Time),
    ("deletionTimestamp", Shape::Time),
    ("deletionGracePeriodSeconds", Shape::Int),
    ("labels", Shape::Texts),
    ("annotations", Shape::Texts),
    (
        "ownerReferences",
        Shape::List(&Shape::Object(&[
            ("apiVersion", Shape::Text),
            ("kind", Shape::Text),
            ("name", Shape::Text),
            ("uid", Shape::Text),
            ("controller", Shape::Bool),
            ("blockOwnerDeletion", Shape::Bool),
        ])),
    ),
    ("finalizers", Shape::List(&Shape::Text)),
    (
        "managedFields",
        Shape::List(&Shape::Object(&[
            ("manager", Shape::Text),
            ("operation", Shape::Text),
            ("apiVersion", Shape::Text),
            ("time", Shape::Time),
            ("fieldsType", Shape::Text),
            ("fieldsV1", Shape::Any),
            ("subresource", Shape::Text),
        ])),
    ),
]);

/// The shapes, and so the recursion, are a few levels deep.
fn check(shape: Shape, decoder: &mut Decoder, id: ValueId) {
    let tree = decoder.tree;
    match (shape, tree.value(id)) {
        (_, Value::Null) | (Shape::Any, _) | (Shape::Text, Value::Text(_)) | (Shape::Bool, Value::Bool(_)) => {}
        (Shape::Int, Value::Number(number)) if number.parse::<i64>().is_ok() => {}
        (Shape::Time, Value::Text(text)) if is_rfc3339(text) => {}
        (Shape::List(item), Value::List(children)) => {
            for (i, child) in children.iter().enumerate() {
                decoder.at(i, |decoder| check(*item, decoder, *child));
            }
        }
        (Shape::Texts, Value::Map(entries)) => {
            let mut known = HashSet::new();
            for (key, child) in entries {
                if !known.insert(&key.text) {
                    decoder.repeated(&key.text, key.place);
                }
                decoder.below(&key.text, |decoder| check(Shape::Text, decoder, *child));
            }
        }
        (Shape::Object(fields), Value::Map(entries)) => {
            let mut known = HashSet::new();
            for (key, child) in entries {
                let Some((_, shape)) = fields.iter().find(|(name, _)| *name == key.text) else {
                    decoder.unknown(key, *child, &[]);
                    continue;
                };
                if !known.insert(&key.text) {
                    decoder.repeated(&key.text, key.place);
                }
                decoder.below(&key.text, |decoder| check(*shape, decoder, *child));
            }
        }
        (Shape::Text, _) => decoder.mismatch(id, "a string"),
        (Shape::Bool, _) => decoder.mismatch(id, "true or false"),
        (Shape::Int, _) => decoder.mismatch(id, "a whole number"),
        (Shape::Time, _) => decoder.mismatch(id, "a time such as 2006-01-02T15:04:05Z"),
        (Shape::List(_), _) => decoder.mismatch(id, "a list"),
        (Shape::Texts | Shape::Object(_), _) => decoder.mismatch(id, "an object"),
    }
}

impl Decoder<'_> {
    fn below(&mut self, field: &str, fill: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path = self.path_of(field);
        fill(self);
        self.path.truncate(length);
    }

    fn at(&mut self, index: usize, fill: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(&format!("[{index}]"));
        fill(self);
        self.path.truncate(length);
    }

    /// Fills a named field and records the place of its value.
    fn fill(&mut self, destination: &mut dyn Destination, id: ValueId) {
        self.places.0.insert(self.path.clone(), self.tree.place(id));
        destination.fill(self, id);
    }

    /// Reports a null, which reads as an absent field. An empty file is reported elsewhere.
    fn null(&mut self, id: ValueId, wanted: &str) {
        let written = self.tree.written(id).unwrap_or("null");
        if self.traps.len() == MAX_FINDINGS || self.path.is_empty() {
            return;
        }
        let message = if written.is_empty() {
            format!("no value: kube-apiserver reads null, not {wanted}")
        } else {
            format!("kube-apiserver reads {} as null, not {wanted}", quoted(written))
        };
        let help = match (wanted, self.path.ends_with(']')) {
            ("a string", true) => "quote it if it is a name, or remove it",
            ("a string", false) => "quote it if it is a name, or leave the field out",
            (_, true) => "remove it",
            _ => "leave the field out",
        };
        self.traps.push(Finding::new(NULL_VALUE, self.tree.place(id), self.path.clone(), message).help(help));
    }

    fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_string() } else { format!("{}.{field}", self.path) }
    }

    fn find(&mut self, finding: Finding) {
        let count = if finding.severity == Severity::Error { &mut self.errors } else { &mut self.warnings };
        *count += 1;
        if *count <= MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// A field that is unknown here. `names` are the known fields that are not given.
    fn unknown(&mut self, Key { text, place }: &Key, value: ValueId, names: &[&'static str]) {
        let path = self.path_of(text);
        let message = format!("unknown field {}", quoted(&path));
        let finding = Finding::new(UNKNOWN_FIELD, *place, path, message);
        let folded = fold(text);
        if self.path.is_empty()
            && let Some(name) = ["apiVersion", "kind"].into_iter().find(|name| folded == name.to_lowercase())
        {
            // If both are there, the one that counts is judged elsewhere.
            let edit = names.contains(&name).then(|| Edit::new(*place, text, name));
            let help = format!("kube-apiserver reads it as {name} and logs a warning: write {name}, once");
            return self.find(finding.help(help).edit(edit));
        }
        let is_list = matches!(self.tree.value(value), Value::List(_));
        let is_meant =
            |name: &&&str| is_near(text, name) && is_list == name.ends_with('s') && **name != "omitManagedFields";
        let finding = match names.iter().find(is_meant) {
            Some(name) => {
                let help = format!("kube-apiserver drops it and only logs a warning: write {name}");
                finding.help(help).edit(Some(Edit::new(*place, text, name)))
            }
            None if self.path.ends_with(']')
                && self.path.contains(".resources[")
                && RULE_FIELDS.contains(&text.as_str()) =>
            {
                let help = format!(
                    "kube-apiserver drops it and only logs a warning: {text} is a field of the rule, two levels up"
                );
                finding.help(help)
            }
            None => finding,
        };
        self.find(finding);
    }

    fn repeated(&mut self, field: &str, place: Place) {
        let path = self.path_of(field);
        let message = format!("duplicate field {}", quoted(&path));
        let help = "kube-apiserver reads the second on top of the first and only logs a warning: keep one";
        self.find(Finding::new(DUPLICATE_FIELD, place, path, message).help(help));
    }

    /// The field does not accept the value.
    fn mismatch(&mut self, id: ValueId, wanted: &str) {
        let found = match self.tree.value(id) {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::Text(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        };
        let place = self.tree.place(id);
        let (message, help, edit) = match self.tree.written(id) {
            Some(written) if wanted == "a string" => {
                let message = format!("kube-apiserver reads {} as {found}, not a string", quoted(written));
                (message, "quote it".to_string(), Some(Edit::new(place, written, written)))
            }
            _ => (format!("{found}, where kube-apiserver expects {wanted}"), format!("write {wanted}"), None),
        };
        self.find(Finding::new(WRONG_TYPE, place, self.path.clone(), message).help(help).edit(edit));
    }
}
