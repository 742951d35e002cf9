//! `audit-operator render` on every directory below `tests/cases/render` and on every Setup in `examples`.
//!
//! A case holds `in.yaml`, perhaps `args` (further arguments), and either `want.out` (standard output; exit 0, or 1
//! with `--diff`) with `want.stderr` if there are notes, or `want.err` (standard error; exit 2).
//! `UPDATE_CASES=1 cargo test` writes the wanted files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use testing::golden::{self, Differences, cases};
use testing::root;

fn render(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_audit-operator")).arg("render").args(args).current_dir(directory).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_case_comes_out_as_it_should() {
    let mut differences = Differences::default();
    for case in cases("tests/cases/render") {
        let args = fs::read_to_string(case.join("args")).unwrap_or_default();
        let args: Vec<_> = ["-f", "in.yaml"].into_iter().chain(args.split_whitespace()).collect();
        let output = render(&case, &args);
        let code = output.status.code();
        let (out, err) = (text(output.stdout), text(output.stderr));
        let failed = code == Some(2);
        differences.compare(&case.join("want.out"), (!failed).then_some(out.as_bytes()));
        differences.compare(&case.join("want.err"), failed.then_some(err.as_bytes()));
        differences.compare(&case.join("want.stderr"), (!failed && !err.is_empty()).then_some(err.as_bytes()));
        let differs = args.contains(&"--diff") && !out.is_empty();
        if failed && !out.is_empty() || !failed && code != Some(i32::from(differs)) {
            differences.add(format!("{}: exit {code:?}, and printed {out}", case.display()));
        }
    }
    differences.end();
}

/// Secrets and Services for the examples that refer to some.
fn references(directory: &Path) -> PathBuf {
    let made = rcgen::generate_simple_self_signed(["audit.example.com".to_string()]).unwrap();
    let indented = |pem: String| pem.replace('\n', "\n    ");
    let (cert, key) = (indented(made.cert.pem()), indented(made.signing_key.serialize_pem()));
    let secret = |name: &str, data: &str| {
        format!("---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n{data}\n")
    };
    let service = |namespace: &str, name: &str, port: u16| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: 10.96.0.77, ports: [{{port: {port}}}]}}\n"
        )
    };
    let text = [
        secret("audit-collector-ca", &format!("  ca.crt: |\n    {cert}")),
        secret("audit-collector-token", "  token: abc"),
        secret("siem-ca", &format!("  ca.crt: |\n    {cert}")),
        secret("siem-client", &format!("  tls.crt: |\n    {cert}\n  tls.key: |\n    {key}")),
        secret("audit-receiver-tls", &format!("  ca.crt: |\n    {cert}")),
        secret("audit-receiver-token", "  token: abc"),
        secret("logstash-ca", &format!("  ca.crt: |\n    {cert}")),
        secret("logstash-login", "  username: kube-apiserver\n  password: abc"),
        secret("loggly", "  url: https://logs-01.loggly.com/inputs/abc/tag/kubernetes-audit"),
        service("logging", "audit-collector", 8443),
        service("logging", "logstash-audit", 8080),
        service("falco", "falco-k8saudit-webhook", 9765),
        service("crowdsec", "crowdsec-k8s-audit", 9876),
        service("audit-system", "audit-receiver", 443),
    ]
    .concat();
    let path = directory.join("references.yaml");
    golden::write(&path, text);
    path
}

#[test]
fn every_example_can_be_rendered_for_old_and_new_api_servers() {
    let directory = tempfile::tempdir().unwrap();
    let references = references(directory.path());
    // Beside them is a directory with configurations of collectors.
    for example in cases("examples").into_iter().filter(|example| example.is_file()) {
        for version in ["1.27", "1.36"] {
            let args =
                ["-f", example.to_str().unwrap(), "-f", references.to_str().unwrap(), "--kubernetes-version", version];
            let output = render(root(), &args);
            assert!(output.status.success(), "{}: {}", example.display(), text(output.stderr));
        }
    }
}

#[test]
fn files_are_written_with_their_paths_on_a_node_and_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let references = references(directory.path());
    let out = directory.path().join("out");
    let args = [
        "-f",
        "examples/webhook-token.yaml",
        "-f",
        references.to_str().unwrap(),
        "--output-dir",
        out.to_str().unwrap(),
    ];
    let output = render(root(), &args);
    assert!(output.status.success(), "{}", text(output.stderr));
    assert_eq!(output.stdout, b"");
    let audit = out.join("etc/kubernetes/audit");
    let credentials = fs::read_dir(audit.join("credentials")).unwrap().next().unwrap().unwrap().path();
    assert!(credentials.file_name().unwrap().to_string_lossy().starts_with("collector-"), "{credentials:?}");
    let token = credentials.join("token");
    assert_eq!(fs::read_to_string(&token).unwrap(), "abc");
    assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
    let revision = fs::read_dir(audit.join("revisions")).unwrap().next().unwrap().unwrap().path();
    let kubeconfig = fs::read_to_string(revision.join("webhook.kubeconfig")).unwrap();
    assert!(kubeconfig.contains("server: \"https://10.96.0.77:8443/audit\""), "{kubeconfig}");
    assert!(kubeconfig.contains("tls-server-name: \"audit-collector.logging.svc\""), "{kubeconfig}");
    assert!(revision.join("policy.yaml").is_file());
}

#[test]
fn what_a_setup_refers_to_may_come_from_standard_input_as_a_list() {
    use std::io::Write;
    use std::process::Stdio;
    let setup = "apiVersion: audit-operator.io/v1alpha1\nkind: AuditSetup\nmetadata: {name: a}\nspec:\n  policy: {preset: metadata}\n  sinks:\n  - name: a\n    webhook: {url: 'https://a.example.com/', auth: {bearerTokenSecretRef: {name: t}}}\n---\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Secret\n  metadata: {name: t}\n  data: {token: c2VjcmV0\n    }\n";
    let mut child = Command::new(env!("CARGO_BIN_EXE_audit-operator"))
        .args(["render", "-f", "-", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{setup}{list}").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let secret_files = report["secretFiles"].as_object().unwrap();
    let (path, size) = secret_files.iter().next().unwrap();
    assert!(path.starts_with("/etc/kubernetes/audit/credentials/a-") && path.ends_with("/token"), "{path}");
    assert_eq!((secret_files.len(), size.as_u64()), (1, Some(6)));
    assert_eq!(report["flags"]["audit-webhook-mode"], "batch");
    assert!(!text(output.stdout).contains("secret\""), "the token is not shown");
}
