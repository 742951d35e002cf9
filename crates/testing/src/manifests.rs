//! Manifests of many shapes, drawn from a tape of bytes. After its end a tape gives zeros, and zero is the plainest
//! choice: to zero bytes of a tape is to simplify its manifest.

use serde_json::{Map, Value, json};

pub struct Tape<'a> {
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Tape<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter() }
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(*self.bytes.next().unwrap_or(&0)) % n
    }

    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }
}

pub struct Sample {
    pub text: String,
    /// The value that the text was written from. No parser was involved.
    pub pod: Value,
    /// The part that must keep it from being edited.
    pub poison: Option<&'static str>,
    /// Which of four further properties is checked.
    pub lot: usize,
    /// Whether a part that an edit changes, or something around it, is a flow collection.
    pub is_flow: bool,
    /// Comments that an edit must keep, in their order.
    pub comments: Vec<String>,
}

#[derive(Clone)]
enum Yaml {
    Null,
    Text(String),
    /// The text, and its value.
    Raw(&'static str, Value),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

fn text(text: &str) -> Yaml {
    Yaml::Text(text.into())
}

fn yes() -> Yaml {
    Yaml::Raw("true", json!(true))
}

fn map(entries: &[(&str, Yaml)]) -> Yaml {
    Yaml::Map(entries.iter().map(|(key, value)| ((*key).to_string(), value.clone())).collect())
}

impl Yaml {
    fn value(&self) -> Value {
        match self {
            Yaml::Null => Value::Null,
            Yaml::Text(text) => json!(text),
            Yaml::Raw(_, value) => value.clone(),
            Yaml::List(items) => items.iter().map(Yaml::value).collect(),
            Yaml::Map(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.clone(), value.value())).collect::<Map<_, _>>())
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Yaml::List(items) => items.is_empty(),
            Yaml::Map(entries) => entries.is_empty(),
            _ => false,
        }
    }
}

const FLAGS: &[&str] = &[
    "--advertise-address=172.30.0.11",
    "--secure-port=6443",
    "--authorization-mode=Node,RBAC",
    "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
    "--tls-cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "--v=2",
    "--v=4",
    "--profiling",
    "--oidc-username-prefix=grün🦀:",
    "--encryption-provider-config=/etc/kubernetes/with a space.yaml",
    "--oidc-groups-claim=it's",
    "--etcd-prefix=\"quoted\" and \\ slashed",
    "--oidc-client-id=a # no comment",
    "--runtime-config=api/all=true, x: y",
    "--advertise-address=$(HOST_IP)",
    "",
];

const AUDIT_FLAGS: &[&str] = &[
    "--audit-log-path=/var/log/kubernetes/audit/audit.log",
    "--audit-policy-file=/etc/kubernetes/audit-policy.yaml",
    "--audit-log-maxage=7",
    "--audit_log_maxbackup=3",
    "--audit-log-compress",
    "--audit-log-format=json",
    "--audit-webhook-config-file=/etc/kubernetes/audit webhook.yaml",
    "--audit-webhook-mode=batch",
    "--audit-log-truncate-enabled=true",
    "--shutdown-watch-termination-grace-period=10s",
    "--shutdown-delay-duration=0s",
];

/// Path in the container, path of the node, read-only.
const MOUNTS: &[(&str, &str, bool)] = &[
    ("/etc/kubernetes/pki", "/etc/kubernetes/pki", true),
    ("/etc/ssl/certs", "/etc/ssl/certs", true),
    ("/usr/share/ca-certificates", "/usr/share/ca-certificates", true),
    ("/srv/data", "/var/lib/data", false),
    ("/etc/kubernetes", "/etc/kubernetes", true),
    ("/var/log", "/var/log", false),
    ("/tmp", "", false),
];

/// Mounts of auditing that was set up by hand. They may conflict with ours.
const AUDIT_MOUNTS: &[(&str, &str, bool)] = &[
    ("/etc/kubernetes/audit-policy.yaml", "/etc/kubernetes/audit-policy.yaml", true),
    ("/var/log/kubernetes/audit", "/var/log/kubernetes/audit", false),
    ("/var/log/kubernetes/audit/", "/var/log/kubernetes/audit/", false),
    ("/etc/kubernetes/audit", "/etc/kubernetes/audit", false),
    ("/var/log/kubernetes", "/srv/log", false),
    ("/etc/kubernetes/audit/webhook.yaml", "/etc/kubernetes/audit/webhook.yaml", true),
    ("/var/log/kubernetes/audit", "/var/log/kubernetes/audit", true),
    ("/var/log/kubernetes/audit", "/srv/log", false),
    ("/var/log/kubernetes/audit/audit.log", "/var/log/kubernetes/audit/audit.log", false),
    ("/etc/kubernetes/audit/policy.yaml", "/etc/kubernetes/audit-policy.yaml", true),
];

const POISONS: &[&str] = &[
    "anchor",
    "tag",
    "merge",
    "key twice",
    "document",
    "tab",
    "api server",
    "uid",
    "shell",
    "split flag",
    "flag twice",
    "line end",
    "end of flags",
    "variable",
    "flow",
    "deployment",
];

pub fn sample(tape: &mut Tape<'_>) -> Sample {
    let poison = if tape.once_in(16) { Some(*tape.pick(POISONS)) } else { None };
    let pod = pod(tape, poison);
    let mut out = Out::new(tape, poison);
    out.document(&pod);
    let lot = out.tape.below(4);
    Sample { text: out.finished(), lot, pod: pod.value(), poison, is_flow: out.is_flow, comments: out.comments }
}

fn pod(tape: &mut Tape<'_>, poison: Option<&'static str>) -> Yaml {
    let (container, volumes) = api_server(tape, poison);
    let mut containers = vec![container.clone()];
    if tape.once_in(5) {
        containers.push(sidecar("after", volumes.first()));
    }
    if tape.once_in(6) {
        containers.insert(0, sidecar("before", None));
    }
    if poison == Some("api server") {
        containers.push(container);
    }
    let mut spec = vec![("containers".to_string(), Yaml::List(containers))];
    if tape.once_in(8) {
        spec.push(("initContainers".into(), Yaml::List(vec![sidecar("first", volumes.last())])));
    }
    if tape.once_in(2) {
        spec.push(("hostNetwork".into(), yes()));
    }
    if tape.once_in(3) {
        spec.push(("priorityClassName".into(), text("system-node-critical")));
    }
    if tape.once_in(4) {
        spec.push(("securityContext".into(), map(&[("seccompProfile", map(&[("type", text("RuntimeDefault"))]))])));
    }
    list(tape, &mut spec, "volumes", volumes);
    turn(tape, &mut spec);
    let mut metadata = vec![("name".to_string(), text("kube-apiserver")), ("namespace".into(), text("kube-system"))];
    match tape.below(5) {
        0 => {}
        1 => metadata.push(("annotations".into(), Yaml::Map(Vec::new()))),
        2 => metadata.push(("annotations".into(), Yaml::Null)),
        _ => {
            let all = [
                ("kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint", text("172.30.0.11:6443")),
                ("example.org/owner", text("Plattform-Team „Süd“, über 100 Knoten")),
                ("example.org/note", text("two lines\nof text\n")),
                ("empty", text("")),
                ("number", text("12")),
            ];
            let mut all: Vec<_> = all.iter().map(|(key, value)| ((*key).to_string(), value.clone())).collect();
            turn(tape, &mut all);
            all.truncate(1 + tape.below(all.len()));
            metadata.push(("annotations".into(), Yaml::Map(all)));
        }
    }
    if tape.once_in(3) {
        metadata
            .push(("labels".into(), map(&[("component", text("kube-apiserver")), ("tier", text("control-plane"))])));
    }
    match poison {
        Some("anchor") => metadata.push(("labels2".into(), Yaml::Raw("[&x a, *x]", Value::Null))),
        Some("tag") => metadata.push(("labels2".into(), Yaml::Raw("!!str a", Value::Null))),
        Some("merge") => metadata.push(("labels2".into(), Yaml::Raw("{<<: {a: b}}", Value::Null))),
        Some("key twice") => metadata.push(("name".into(), text("kube-apiserver"))),
        Some("uid") => metadata.push(("uid".into(), text("a"))),
        _ => {}
    }
    if tape.once_in(5) {
        metadata.push(("creationTimestamp".into(), Yaml::Null));
    }
    turn(tape, &mut metadata);
    let kind = if poison == Some("deployment") { "Deployment" } else { "Pod" };
    let mut pod = vec![
        ("apiVersion".to_string(), text("v1")),
        ("kind".into(), text(kind)),
        ("metadata".into(), Yaml::Map(metadata)),
        ("spec".into(), Yaml::Map(spec)),
    ];
    if tape.once_in(3) {
        pod.push(("status".into(), Yaml::Map(Vec::new())));
    }
    if tape.once_in(6) {
        turn(tape, &mut pod);
    }
    Yaml::Map(pod)
}

fn sidecar(name: &str, volume: Option<&Yaml>) -> Yaml {
    let mut entries = vec![
        ("name".to_string(), text(name)),
        ("image".into(), text("registry.example/sidecar:1")),
        ("command".into(), Yaml::List(vec![text("/sidecar"), text("--audit-log-path=/not/ours")])),
    ];
    if let Some(Yaml::Map(volume)) = volume {
        let name = volume.iter().find(|(key, _)| key == "name").map(|(_, name)| name.clone()).unwrap();
        let mount = map(&[("name", name), ("mountPath", text("/shared"))]);
        entries.push(("volumeMounts".into(), Yaml::List(vec![mount])));
    }
    Yaml::Map(entries)
}

/// The container and the volumes that it mounts.
fn api_server(tape: &mut Tape<'_>, poison: Option<&str>) -> (Yaml, Vec<Yaml>) {
    let mut flags: Vec<&str> = FLAGS.iter().copied().filter(|_| tape.once_in(3)).collect();
    if !flags.is_empty() && tape.once_in(2) {
        flags.truncate(1 + tape.below(flags.len()));
    }
    if tape.once_in(4) {
        flags.extend(["--bind-address", "0.0.0.0"]);
    }
    let is_by_hand = tape.once_in(3);
    if is_by_hand {
        for flag in AUDIT_FLAGS {
            if tape.once_in(2) {
                flags.insert(if tape.once_in(2) { tape.below(flags.len() + 1) } else { flags.len() }, flag);
            }
        }
        // No flag comes between another and its value.
        if let Some(at) = flags.iter().position(|flag| *flag == "--bind-address") {
            flags.remove(at);
            flags.retain(|flag| *flag != "0.0.0.0");
            flags.extend(["--bind-address", "0.0.0.0"]);
        }
    }
    match poison {
        Some("split flag") => flags.extend(["--audit-webhook-version", "audit.k8s.io/v1"]),
        Some("flag twice") => flags.extend(["--audit-log-version=a", "--audit_log_version=b"]),
        Some("end of flags") => flags.push("--"),
        Some("variable") => flags.push("$(FLAG)=1"),
        _ => {}
    }
    let flags: Vec<Yaml> = flags.into_iter().map(text).collect();
    let mut entries = Vec::new();
    let program = text(tape.pick::<&str>(&["kube-apiserver", "/usr/local/bin/kube-apiserver"]));
    let with_program = |flags: &[Yaml]| Yaml::List([std::slice::from_ref(&program), flags].concat());
    let command = |list: Yaml| ("command".to_string(), list);
    let args = |list: Yaml| ("args".to_string(), list);
    match if poison == Some("shell") { 9 } else { tape.below(9) } {
        0..3 => entries.push(command(with_program(&flags))),
        3 => entries.extend([command(with_program(&[])), args(Yaml::List(flags))]),
        4 => {
            let (first, second) = flags.split_at(tape.below(flags.len() + 1));
            entries.extend([command(with_program(first)), args(Yaml::List(second.to_vec()))]);
        }
        5 => entries.push(args(Yaml::List(flags))),
        6 if flags.is_empty() => {}
        6 => entries.extend([command(Yaml::Null), args(Yaml::List(flags))]),
        7 => entries.extend([command(with_program(&flags)), args(Yaml::List(Vec::new()))]),
        8 => entries.extend([args(Yaml::Null), command(with_program(&flags))]),
        _ => entries.push(command(Yaml::List(["sh", "-c", "exec kube-apiserver"].map(text).to_vec()))),
    }
    entries.push(("image".into(), text("registry.k8s.io/kube-apiserver:v1.36.3")));
    entries.push(("name".into(), text("kube-apiserver")));
    if tape.once_in(2) {
        let probe = map(&[
            (
                "httpGet",
                map(&[
                    ("host", text("172.30.0.11")),
                    ("path", text("/livez")),
                    ("port", Yaml::Raw("6443", json!(6443))),
                ]),
            ),
            ("failureThreshold", Yaml::Raw("8", json!(8))),
        ]);
        entries.push(("livenessProbe".into(), probe));
    }
    if tape.once_in(3) {
        let env = |name, value| map(&[("name", text(name)), ("value", text(value))]);
        let all = [env("A", "yes"), env("B", "0644"), env("C", " padded "), env("D", "null"), env("E", "# no comment")];
        entries.push(("env".into(), Yaml::List(all[..=tape.below(all.len())].to_vec())));
    }
    let (mounts, volumes) = mounts(tape, is_by_hand);
    list(tape, &mut entries, "volumeMounts", mounts);
    turn(tape, &mut entries);
    (Yaml::Map(entries), volumes)
}

fn mounts(tape: &mut Tape<'_>, is_by_hand: bool) -> (Vec<Yaml>, Vec<Yaml>) {
    let mut all: Vec<_> = MOUNTS
        .iter()
        .enumerate()
        .filter(|(index, _)| !tape.once_in(if *index < 4 { 3 } else { 1 }) || tape.once_in(8))
        .collect();
    for (index, mount) in AUDIT_MOUNTS.iter().enumerate() {
        // The later ones conflict with ours.
        let is_taken = all.iter().any(|(_, (path, ..))| path.trim_end_matches('/') == mount.0.trim_end_matches('/'));
        let odds = match index {
            0..2 => 2,
            2..6 => 6,
            _ => 20,
        };
        if !is_taken && is_by_hand && tape.once_in(odds) {
            all.push((20 + index, mount));
        }
    }
    turn(tape, &mut all);
    let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
    for (index, (path, host_path, read_only)) in all {
        let name = text(&format!("volume-{index}"));
        let mut mount = vec![("mountPath".to_string(), text(path)), ("name".into(), name.clone())];
        if *read_only {
            mount.push(("readOnly".into(), yes()));
        } else if tape.once_in(5) {
            mount.push(("readOnly".into(), Yaml::Raw("false", json!(false))));
        }
        turn(tape, &mut mount);
        mounts.push(Yaml::Map(mount));
        let source = if host_path.is_empty() {
            ("emptyDir".to_string(), Yaml::Map(Vec::new()))
        } else {
            let mut host_path = vec![("path".to_string(), text(host_path))];
            match tape.below(4) {
                0 => host_path.push(("type".into(), text("DirectoryOrCreate"))),
                1 => host_path.push(("type".into(), text(""))),
                _ => {}
            }
            ("hostPath".into(), Yaml::Map(host_path))
        };
        let mut volume = vec![source, ("name".into(), name)];
        turn(tape, &mut volume);
        volumes.push(Yaml::Map(volume));
    }
    turn(tape, &mut volumes);
    (mounts, volumes)
}

/// A list under its key; an empty list in one of its spellings.
fn list(tape: &mut Tape<'_>, parent: &mut Vec<(String, Yaml)>, key: &str, items: Vec<Yaml>) {
    match (items.is_empty(), tape.below(3)) {
        (true, 0) => {}
        (true, 1) => parent.push((key.into(), Yaml::Null)),
        _ => parent.push((key.into(), Yaml::List(items))),
    }
}

/// Another one first.
fn turn<T>(tape: &mut Tape<'_>, items: &mut [T]) {
    if !items.is_empty() {
        items.rotate_left(tape.below(items.len()));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Block,
    /// Flow style behind a document marker; `kubectl get -o kyaml` writes the like over many lines.
    Flow,
    Json,
}

struct Out<'t, 'a> {
    tape: &'t mut Tape<'a>,
    poison: Option<&'static str>,
    text: String,
    form: Form,
    /// How far a list is indented below its key, and a mapping.
    offset: usize,
    step: usize,
    /// Between a dash and what follows.
    gap: usize,
    /// One value in so many is a flow collection, one line in so many has a comment: 1 is none.
    flows: usize,
    comment_every: usize,
    is_over_lines: bool,
    has_trailing_commas: bool,
    is_flow: bool,
    comments: Vec<String>,
    count: usize,
    /// A comment may not be indented further than this: it would belong to the block scalar before it.
    deepest: usize,
}

impl<'t, 'a> Out<'t, 'a> {
    fn new(tape: &'t mut Tape<'a>, poison: Option<&'static str>) -> Self {
        let form = match tape.below(12) {
            10 => Form::Json,
            11 => Form::Flow,
            _ => Form::Block,
        };
        Self {
            poison,
            text: String::new(),
            form: if poison == Some("flow") { Form::Flow } else { form },
            offset: *tape.pick(&[0, 2, 0, 4, 1]),
            step: *tape.pick(&[2, 2, 4, 3]),
            gap: *tape.pick(&[1, 1, 1, 3]),
            flows: *tape.pick(&[1, 1, 8, 3]),
            comment_every: *tape.pick(&[1, 8, 3]),
            is_over_lines: tape.once_in(2),
            has_trailing_commas: tape.once_in(2),
            is_flow: form != Form::Block,
            comments: Vec::new(),
            count: 0,
            deepest: usize::MAX,
            tape,
        }
    }

    fn document(&mut self, pod: &Yaml) {
        if self.poison == Some("tab") {
            // Where a key may begin, go-yaml takes no tab, not even on a line that is blank otherwise.
            self.text += " \t\n---\n";
        }
        let has_marker = self.form == Form::Flow || (self.form == Form::Block && self.tape.once_in(4));
        if self.form != Form::Json && self.poison != Some("flow") {
            if self.tape.once_in(4) {
                self.comment_lines(0);
            }
            if has_marker && self.tape.once_in(8) {
                self.text += "%YAML 1.1\n";
            }
            if has_marker {
                self.text += "---";
                self.line_end(true);
            }
        }
        match (self.form, pod) {
            (Form::Block, Yaml::Map(entries)) => self.block_map(entries, 0, false),
            (Form::Json, _) => {
                let multi = self.is_over_lines.then_some(0);
                self.flow(pod, multi);
                self.text.push('\n');
            }
            _ => {
                self.flow_anew(pod, 0);
                self.line_end(true);
            }
        }
        if self.poison == Some("line end") {
            self.text += "# a\u{2028}# b\n";
        }
        if self.form == Form::Block && self.tape.once_in(5) {
            self.comment_lines(0);
        }
        match self.poison {
            Some("document") => self.text += "---\nkind: Pod\n",
            _ if self.form != Form::Json && self.tape.once_in(8) => self.text += "...\n",
            // Nothing behind a separator is no second document.
            _ if self.form != Form::Json && self.tape.once_in(16) => self.text += "---\n",
            _ => {}
        }
    }

    fn finished(&mut self) -> String {
        let mut text = std::mem::take(&mut self.text);
        if self.tape.once_in(5) {
            text.truncate(text.trim_end_matches('\n').len());
        }
        if self.tape.once_in(6) {
            text = text.replace('\n', "\r\n");
        }
        // JSON has none, and for the kubelet what begins with it is none.
        if self.form == Form::Block && self.tape.once_in(10) {
            text.insert(0, '\u{feff}');
        }
        text
    }

    fn wants_flow(&mut self) -> bool {
        self.flows > 1 && self.tape.once_in(self.flows)
    }

    fn comment(&mut self, is_kept: bool) {
        self.count += 1;
        let tricky = *self.tape.pick(&["", " - --audit-log-path=/x", ", ]", " key: value:", " ‚it's“ \"q"]);
        let comment = format!("# c{};{tricky}", self.count);
        self.text += &comment;
        if is_kept {
            self.comments.push(comment);
        }
    }

    /// Ends a line, perhaps with a comment.
    fn line_end(&mut self, is_kept: bool) {
        if self.form != Form::Json && self.comment_every > 1 && self.tape.once_in(self.comment_every) {
            // A key may begin after a dash, and no tab may be where a key may begin.
            let gap = *self.tape.pick(&[" ", "   ", if self.text.ends_with('-') { " " } else { "\t" }]);
            self.text += gap;
            self.comment(is_kept);
        } else if self.form != Form::Json && self.tape.once_in(40) {
            self.text += "  ";
        }
        self.text.push('\n');
    }

    /// Comment lines and blank lines before an item at a column.
    fn comment_lines(&mut self, column: usize) {
        if self.form == Form::Json || self.comment_every == 1 {
            return;
        }
        while self.tape.once_in(self.comment_every + 1) {
            let columns = [column, 0, column + 2, column + 6];
            let column = (*self.tape.pick(&columns)).min(self.deepest);
            if self.deepest == usize::MAX && self.tape.once_in(5) {
                self.text += *self.tape.pick(&["\n", "  \n"]);
            }
            self.text += &" ".repeat(column);
            self.comment(true);
            self.text.push('\n');
        }
    }

    fn key(&mut self, key: &str) {
        match if self.form == Form::Json { 1 } else { self.tape.below(16) } {
            15 => self.text += &format!("'{key}'"),
            1 => self.text += &json!(key).to_string(),
            _ => self.text += key,
        }
    }

    fn block_map(&mut self, entries: &[(String, Yaml)], column: usize, begins_in_line: bool) {
        for (index, (key, value)) in entries.iter().enumerate() {
            if index > 0 || !begins_in_line {
                self.comment_lines(column);
                self.text += &" ".repeat(column);
            }
            self.key(key);
            self.text.push(':');
            self.block_value(value, column, is_touched(key));
        }
    }

    fn block_value(&mut self, value: &Yaml, column: usize, is_touched: bool) {
        // An edit that empties a value leaves one blank before it.
        let gap = if self.tape.once_in(30) && !value.is_empty() { "\t" } else { " " };
        match value {
            Yaml::List(_) | Yaml::Map(_) if !value.is_empty() && self.wants_flow() => {
                self.is_flow |= is_touched;
                self.text += gap;
                self.flow_anew(value, column + 2);
                self.line_end(true);
            }
            Yaml::List(items) if !items.is_empty() => {
                self.line_end(true);
                self.deepest = usize::MAX;
                self.block_list(items, column + self.offset);
            }
            Yaml::Map(entries) if !entries.is_empty() => {
                self.line_end(true);
                self.deepest = usize::MAX;
                self.block_map(entries, column + self.step, false);
            }
            Yaml::Null => {
                let null = *self.tape.pick(&["", " null", " ~"]);
                self.text += null;
                self.line_end(true);
            }
            Yaml::Text(text) => {
                self.text += gap;
                self.block_scalar(text, column, true);
            }
            other => {
                self.text += gap;
                self.flow(other, None);
                self.line_end(true);
            }
        }
    }

    fn block_list(&mut self, items: &[Yaml], column: usize) {
        for item in items {
            self.comment_lines(column);
            self.text += &" ".repeat(column);
            self.text.push('-');
            match item {
                Yaml::Map(_) if self.wants_flow() => {
                    self.is_flow = true;
                    self.text.push(' ');
                    self.flow_anew(item, column + 2);
                    self.line_end(true);
                }
                Yaml::Map(entries) if self.tape.once_in(60) => {
                    self.line_end(true);
                    self.block_map(entries, column + 2, false);
                }
                Yaml::Map(entries) => {
                    self.text += &" ".repeat(self.gap);
                    self.block_map(entries, column + 1 + self.gap, true);
                }
                Yaml::Text(text) => {
                    self.text += &" ".repeat(self.gap);
                    self.block_scalar(text, column, !is_audit(text));
                }
                other => {
                    self.text.push(' ');
                    self.flow(other, None);
                    self.line_end(true);
                }
            }
        }
    }

    /// A string in one of its styles, to the end of the line. Continuation lines are indented further than `column`.
    fn block_scalar(&mut self, value: &str, column: usize, is_kept: bool) {
        self.deepest = usize::MAX;
        let indent = " ".repeat(column + 2);
        let is_one_line =
            !value.contains('\n') && !value.starts_with(' ') && !value.ends_with(' ') && !value.is_empty();
        match self.tape.below(24) {
            20 if is_one_line && is_kept => {
                self.text += *self.tape.pick(&[">-", "|-"]);
                self.line_end(is_kept);
                self.text += &format!("{indent}{value}\n");
                self.deepest = column;
            }
            _ if value.ends_with('\n') && !value.starts_with(' ') && self.tape.once_in(2) => {
                self.text += *self.tape.pick(&["|", "|+"]);
                self.text.push('\n');
                for line in value.lines() {
                    self.text += &format!("{indent}{line}\n");
                }
                self.deepest = column;
            }
            21 if is_plain(value, false) && is_kept && value.contains(' ') => {
                self.text += &value.replacen(' ', &format!("\n{indent}"), 1);
                self.line_end(is_kept);
            }
            _ => {
                self.scalar(value, false);
                self.line_end(is_kept);
            }
        }
    }

    fn scalar(&mut self, value: &str, is_in_flow: bool) {
        let style = if self.form == Form::Json { 2 } else { self.tape.below(8) };
        let can_be_single = !value.contains('\n');
        match style {
            1 if can_be_single => self.text += &format!("'{}'", value.replace('\'', "''")),
            2 => self.text += &json!(value).to_string(),
            3 if value.is_ascii() && self.form != Form::Json => {
                self.text += &json!(value).to_string().replacen('/', "\\x2f", 1);
            }
            _ if is_plain(value, is_in_flow) => self.text += value,
            _ => self.text += &json!(value).to_string(),
        }
    }

    /// A flow collection, on one line or on several that begin at `column`.
    fn flow_anew(&mut self, value: &Yaml, column: usize) {
        self.is_over_lines = self.tape.once_in(2);
        self.has_trailing_commas = self.tape.once_in(2);
        let multi = self.is_over_lines.then_some(column);
        self.flow(value, multi);
    }

    fn flow(&mut self, value: &Yaml, column: Option<usize>) {
        match value {
            Yaml::Null => {
                let null = if self.form == Form::Json { "null" } else { *self.tape.pick(&["null", "~"]) };
                self.text += null;
            }
            Yaml::Text(text) => self.scalar(text, true),
            Yaml::Raw(text, _) => self.text += text,
            Yaml::List(items) => {
                let items: Vec<_> = items.iter().map(|item| (None, item)).collect();
                self.collection(['[', ']'], &items, column);
            }
            Yaml::Map(entries) => {
                let entries: Vec<_> = entries.iter().map(|(key, value)| (Some(key.as_str()), value)).collect();
                self.collection(['{', '}'], &entries, column);
            }
        }
    }

    fn collection(&mut self, brackets: [char; 2], items: &[(Option<&str>, &Yaml)], column: Option<usize>) {
        self.text.push(brackets[0]);
        // Over several lines as a whole, or with its small parts on one.
        let column = column.filter(|_| !items.is_empty() && (self.form == Form::Json || !self.tape.once_in(4)));
        for (index, (key, value)) in items.iter().enumerate() {
            let is_last = index + 1 == items.len();
            let is_kept = !matches!(value, Yaml::Text(text) if is_audit(text));
            if let Some(column) = column {
                if index == 0 {
                    self.line_end(true);
                }
                self.comment_lines(column + 2);
                self.text += &" ".repeat(column + 2);
            }
            if let Some(key) = key {
                self.key(key);
                self.text += ": ";
            }
            self.flow(value, column.map(|column| column + 2).filter(|_| !value.is_empty()));
            if !is_last || (column.is_some() && self.has_trailing_commas && self.form != Form::Json) {
                self.text.push(',');
            }
            match column {
                Some(_) => self.line_end(is_kept),
                None if !is_last => self.text.push(' '),
                None => {}
            }
        }
        if let Some(column) = column {
            self.comment_lines(column + 2);
            self.text += &" ".repeat(column);
        }
        self.text.push(brackets[1]);
    }
}

/// Whether an edit changes what is below this key.
fn is_touched(key: &str) -> bool {
    matches!(key, "metadata" | "annotations" | "spec" | "containers" | "command" | "args" | "volumeMounts" | "volumes")
}

/// Whether an edit may take the line away.
pub fn is_audit(text: &str) -> bool {
    ["--audit-", "--audit_", "--shutdown-"].iter().any(|flag| text.starts_with(flag))
}

fn is_plain(text: &str, is_in_flow: bool) -> bool {
    let is_safe =
        |c: char| c.is_alphanumeric() || "-_./=@+(){}[]$;'\"🦀 ".contains(c) || (!is_in_flow && matches!(c, ','));
    let begins_safely = text.starts_with("--") && text.len() > 2
        || text.starts_with('/')
        || (text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.len() > 4);
    let is_safe = begins_safely && text.chars().all(is_safe) && !text.ends_with(' ') && !matches!(text, "false");
    is_safe && !(is_in_flow && text.contains(['{', '}', '[', ']']))
}
