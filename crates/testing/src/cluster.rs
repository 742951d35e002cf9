//! The testbed as a test uses it: through its own command, kubectl, Helm, and the disks of its nodes.
//!
//! Tests call kubectl and no client library: the API server can be reached only in the network of the nodes, and a
//! person would use kubectl too. When a test panics, its [`Cluster`] prints the state of Setups, nodes and the
//! operator.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{root, wait};

const MANIFEST: &str = "/etc/kubernetes/manifests/kube-apiserver.yaml";
const LOG: &str = "/var/log/kubernetes/audit/audit.log";
const JOURNAL: &str = "var/lib/audit-operator/journal.json";

pub struct Cluster {
    pub testbed: PathBuf,
    disk: PathBuf,
    /// The Setup that questions about "the Setup" are about.
    setup: &'static str,
    begin: Instant,
}

impl Cluster {
    /// The testbed that `make` brought up, with the operator's image loaded.
    pub fn connect(setup: &'static str) -> Self {
        let testbed = root().join("tests/testbed/testbed");
        let disk = run(Command::new(&testbed).args(["disk", "cp1"]));
        let cluster = Self { testbed, disk: PathBuf::from(text(&disk).trim()), setup, begin: Instant::now() };
        assert!(cluster.is_serving(), "no testbed is up: `make testbed` brings one up");
        cluster
    }

    pub fn saw(&self, what: &str) {
        println!("{:6.1} s  {what}", self.begin.elapsed().as_secs_f64());
    }

    /// Prints Setups, NodeAudits, the end of the operator's logs and the journal of every node, as far as they can be
    /// read.
    pub fn print_state(&self) {
        for question in [
            &["get", "auditsetup,nodeaudit", "-o", "yaml"][..],
            &["-n", "audit-system", "get", "pods", "-o", "wide"],
            &["-n", "audit-system", "logs", "ds/audit-operator-agent", "--tail=40"],
            &["-n", "audit-system", "logs", "deploy/audit-operator-controller", "--tail=40"],
        ] {
            println!("--- kubectl {}", question.join(" "));
            match Command::new(&self.testbed).arg("kubectl").args(question).output() {
                Ok(output) => println!("{}{}", text(&output), errors(&output)),
                Err(error) => println!("{error}"),
            }
        }
        // The nodes' disks are beside each other: nodes/cp1/rootfs.
        let nodes = self.disk.ancestors().nth(2).and_then(|nodes| std::fs::read_dir(nodes).ok());
        for node in nodes.into_iter().flatten().flatten() {
            let journal = node.path().join("rootfs").join(JOURNAL);
            println!("--- journal of {}", node.file_name().display());
            println!("{}", std::fs::read_to_string(journal).unwrap_or_else(|error| error.to_string()));
        }
    }

    pub fn testbed(&self, arguments: &[&str]) -> String {
        text(&run(Command::new(&self.testbed).args(arguments)))
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.testbed(&[&["kubectl"], arguments].concat())
    }

    /// kubectl while the API server may be down.
    fn try_kubectl(&self, arguments: &[&str]) -> Option<String> {
        let output = Command::new(&self.testbed).arg("kubectl").args(arguments).output().unwrap();
        output.status.success().then(|| text(&output))
    }

    /// Repeats kubectl until it succeeds. Only for commands that may run twice.
    pub fn kubectl_until(&self, arguments: &[&str]) {
        let what = format!("kubectl {}", arguments.join(" "));
        self.wait(&what, Duration::from_secs(120), || self.try_kubectl(arguments).map(|_| ()));
    }

    pub fn install_chart(&self) {
        self.install_chart_with(&[]);
    }

    /// Installs or upgrades the chart, with additional arguments for Helm.
    pub fn install_chart_with(&self, more: &[&str]) {
        let chart = root().join("charts/audit-operator");
        self.apply(&json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "audit-system", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}));
        let install = [
            "helm",
            "upgrade",
            "--install",
            "audit-operator",
            chart.to_str().unwrap(),
            "--namespace=audit-system",
            "--set=image.repository=audit-operator.io/audit-operator,image.tag=dev,image.pullPolicy=Never,logFormat=text,receiver.enabled=true",
            "--wait",
            "--timeout=120s",
        ];
        self.testbed(&[&install[..], more].concat());
        self.saw("chart installed");
    }

    /// Uninstalls the chart and waits until its pods are gone.
    pub fn uninstall_chart(&self) {
        self.testbed(&["helm", "uninstall", "audit-operator", "--namespace=audit-system", "--wait", "--timeout=120s"]);
        self.wait("its pods gone", Duration::from_secs(120), || {
            self.kubectl(&["-n", "audit-system", "get", "pods", "-o", "name"]).is_empty().then_some(())
        });
        self.saw("chart uninstalled");
    }

    /// Files of ours on the node's disk, other than the log.
    pub fn left_behind(&self) -> Vec<String> {
        let found = Command::new("find")
            .args([
                "etc/kubernetes/audit",
                "var/lib/audit-operator",
                "etc/kubernetes/manifests/audit-operator-guard.yaml",
            ])
            .args(["-not", "-type", "d"])
            .current_dir(&self.disk)
            .output()
            .unwrap();
        text(&found).lines().map(str::to_string).collect()
    }

    fn with_object(&self, object: &Value, arguments: &[&str]) -> Output {
        let mut child = Command::new(&self.testbed)
            .arg("kubectl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// kubectl for a client that has only this token. Returns standard output, or standard error if it fails.
    pub fn kubectl_with_token(
        &self,
        token: &str,
        arguments: &[&str],
        object: Option<&Value>,
    ) -> Result<String, String> {
        let config = self.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(config.to_string().as_bytes()).unwrap();
        let path = format!("--kubeconfig={}", file.path().display());
        let output = self.with_object(object.unwrap_or(&Value::Null), &[&[path.as_str()], arguments].concat());
        let said = errors(&output);
        if output.status.success() { Ok(text(&output)) } else { Err(said) }
    }

    /// A token that the API server issues for one of the operator's service accounts.
    pub fn service_account_token(&self, name: &str, bound_to: &[&str]) -> String {
        let create = ["-n", "audit-system", "create", "token", name];
        self.kubectl(&[&create[..], bound_to].concat()).trim().to_string()
    }

    pub fn apply(&self, object: &Value) {
        self.wait("apply", Duration::from_secs(90), || {
            self.with_object(object, &["apply", "-f", "-"]).status.success().then_some(())
        });
    }

    /// The API server's message if it rejects the object. Nothing is stored.
    pub fn try_refused(&self, object: &Value) -> Option<String> {
        let output = self.with_object(object, &["apply", "--dry-run=server", "-f", "-"]);
        (!output.status.success()).then(|| errors(&output))
    }

    /// The message with which the API server must reject the object.
    pub fn refused(&self, object: &Value) -> String {
        self.try_refused(object).unwrap_or_else(|| panic!("this was taken: {object}"))
    }

    /// Runs our program on the node. Returns its exit status and both of its outputs.
    pub fn program(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.node_command().args(arguments).output().unwrap();
        let said = format!("{}{}", text(&output), errors(&output));
        (output.status.code().unwrap_or(-1), said)
    }

    fn node_command(&self) -> Command {
        let copy = self.disk.join("opt/audit-operator");
        if !copy.exists() {
            std::fs::copy(root().join("target/x86_64-unknown-linux-gnu/release/audit-operator"), copy).unwrap();
        }
        let mut command = Command::new(&self.testbed);
        command.args(["exec", "cp1", "/opt/audit-operator"]);
        command
    }

    /// Runs our program on the node, and sends it SIGHUP and SIGINT in the middle of its Change.
    pub fn hang_up_during(&self, arguments: &[&str]) -> String {
        let before = self.manifest();
        let child = self.node_command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.wait("the manifest replaced", Duration::from_secs(30), || (self.manifest() != before).then_some(()));
        for signal in ["HUP", "INT"] {
            self.testbed(&["exec", "cp1", "pkill", &format!("-{signal}"), "-f", "^/opt/audit-operator"]);
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", errors(&output));
        text(&output)
    }

    /// The kubelet reads no manifest meanwhile.
    pub fn with_kubelet_stopped(&self, act: impl FnOnce()) {
        self.testbed(&["exec", "cp1", "pkill", "-STOP", "-x", "kubelet"]);
        act();
        self.testbed(&["exec", "cp1", "pkill", "-CONT", "-x", "kubelet"]);
    }

    pub fn node_audit(&self, node: &str) -> Option<Value> {
        serde_json::from_str(&self.try_kubectl(&["get", "nodeaudit", node, "-o", "json"])?).ok()
    }

    /// Replaces a file of the node by rename: readers see the old content or the new. The kubelet ignores the temporary
    /// name.
    pub fn write_node_file(&self, path: &str, content: &str) {
        let path = self.on_disk(path);
        let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.as_file().set_permissions(PermissionsExt::from_mode(0o644)).unwrap();
        file.persist(path).unwrap();
    }

    pub fn wait<T>(&self, what: &str, limit: Duration, condition: impl FnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        let value = wait::poll(limit, Duration::from_millis(300), condition)
            .unwrap_or_else(|| panic!("waited {} s in vain for {what}", limit.as_secs()));
        if begin.elapsed() > Duration::from_secs(5) {
            self.saw(&format!("- waited {:.0} s for {what}", begin.elapsed().as_secs_f64()));
        }
        value
    }

    fn setup(&self) -> Option<Value> {
        serde_json::from_str(&self.try_kubectl(&["get", "auditsetup", self.setup, "-o", "json"])?).ok()
    }

    /// Whether the API server answers that the Setup does not exist.
    pub fn is_gone(&self) -> bool {
        let answer = self.try_kubectl(&["get", "auditsetup", self.setup, "--ignore-not-found", "-o", "name"]);
        answer.is_some_and(|names| names.trim().is_empty())
    }

    pub fn setup_field(&self, pointer: &str) -> Value {
        self.wait("the Setup", Duration::from_secs(60), || self.setup())
            .pointer(pointer)
            .cloned()
            .unwrap_or(Value::Null)
    }

    pub fn condition(&self, kind: &str) -> Option<Value> {
        let setup = self.setup()?;
        let observed = setup["status"]["observedGeneration"] == setup["metadata"]["generation"];
        setup["status"]["conditions"]
            .as_array()?
            .iter()
            .find(|condition| observed && condition["type"] == kind)
            .cloned()
    }

    /// Waits until status describes the current generation.
    pub fn wait_generation(&self) {
        self.wait("the generation observed", Duration::from_secs(60), || {
            let setup = self.setup()?;
            (setup["status"]["observedGeneration"] == setup["metadata"]["generation"]).then_some(())
        });
    }

    pub fn wait_condition(&self, kind: &str, status: &str, limit: Duration) {
        self.wait(&format!("{kind}={status}"), limit, || (self.condition(kind)?["status"] == status).then_some(()));
    }

    pub fn disk(&self) -> &Path {
        &self.disk
    }

    fn on_disk(&self, path: &str) -> PathBuf {
        self.disk.join(path.trim_start_matches('/'))
    }

    pub fn node_file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.on_disk(path)).ok()
    }

    /// The token of the sink `receiver` on the node.
    pub fn token(&self) -> Option<String> {
        let directories = std::fs::read_dir(self.disk.join("etc/kubernetes/audit/credentials")).ok()?;
        let mut directories = directories.map(|entry| entry.unwrap().path());
        let own = directories.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("receiver-"))?;
        std::fs::read_to_string(own.join("token")).ok()
    }

    pub fn manifest(&self) -> String {
        self.node_file(MANIFEST).unwrap_or_default()
    }

    pub fn log(&self) -> String {
        self.node_file(LOG).unwrap_or_default()
    }

    pub fn receiver_log(&self) -> String {
        self.try_kubectl(&["-n", "audit-system", "logs", "deploy/audit-receiver", "--tail=-1"]).unwrap_or_default()
    }

    pub fn is_serving(&self) -> bool {
        self.try_kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_some()
    }

    pub fn api_server_pid(&self) -> String {
        self.testbed(&["exec", "cp1", "pgrep", "-x", "kube-apiserver"]).trim().to_string()
    }

    pub fn api_server_command(&self) -> String {
        let pid = self.api_server_pid();
        self.testbed(&["exec", "cp1", "cat", &format!("/proc/{pid}/cmdline")]).replace('\0', " ")
    }

    /// Makes a request with an audit ID of our own, and returns that ID.
    pub fn request_with_audit_id(&self, name: &str) -> String {
        let id = format!("e2e-{name}-{}", std::process::id());
        let script = format!(
            "cd /etc/kubernetes/pki && curl -s --cacert ca.crt --cert apiserver-kubelet-client.crt --key apiserver-kubelet-client.key \
             -H 'Audit-ID: {id}' -o /dev/null https://172.30.0.11:6443/api/v1/namespaces/default/configmaps"
        );
        self.testbed(&["exec", "cp1", "sh", "-c", &script]);
        id
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_state();
        }
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output), errors(&output));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
