mod oracle;
mod properties;

use super::*;

fn intent(revision: &str) -> Intent {
    let mount = |name: &str, path: &str, read_only| Mount { name: name.into(), path: path.into(), read_only };
    Intent {
        revision: revision.into(),
        flags: [
            ("audit-log-path".to_string(), "/var/log/kubernetes/audit/audit.log".to_string()),
            ("audit-policy-file".to_string(), format!("/etc/kubernetes/audit/revisions/{revision}/policy.yaml")),
        ]
        .into(),
        defaults: [
            ("shutdown-delay-duration".to_string(), "2s".to_string()),
            ("shutdown-watch-termination-grace-period".to_string(), "3s".to_string()),
        ]
        .into(),
        mounts: vec![
            mount("audit-operator-config", "/etc/kubernetes/audit", true),
            mount("audit-operator-log", "/var/log/kubernetes/audit", false),
        ],
    }
}

const KUBEADM: &str = "\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: 172.30.0.11:6443
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-apiserver
    - --advertise-address=172.30.0.11
    - --secure-port=6443
    image: registry.k8s.io/kube-apiserver:v1.36.3
    name: kube-apiserver
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: k8s-certs
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: k8s-certs
status: {}
";

#[test]
fn an_edit_twice_is_an_edit_once_and_another_revision_takes_its_place() {
    let (a, b) = (intent("r-aaaaaaaaaa"), intent("r-bbbbbbbbbb"));
    let once = edit(KUBEADM, &a).unwrap().text;
    assert_eq!(edit(&once, &a).unwrap().text, once);
    assert_eq!(edit(&once, &b).unwrap().text, edit(KUBEADM, &b).unwrap().text);
}

#[test]
fn what_was_edited_and_removed_again_is_the_original() {
    // A comment that does not become part of a block scalar before it stays in place.
    let commented =
        KUBEADM.replace("    name: k8s-certs\nstatus", "    name: >-\n      k8s-certs\n    # a comment\nstatus");
    for original in [KUBEADM, &commented] {
        let edited = edit(original, &intent("r-aaaaaaaaaa")).unwrap().text;
        assert_eq!(remove(&edited, original).unwrap(), original);
    }
}

#[test]
fn removing_keeps_what_somebody_else_changed_meanwhile() {
    let edited = edit(KUBEADM, &intent("r-aaaaaaaaaa")).unwrap().text;
    let changed = edited.replace("--secure-port=6443", "--secure-port=6444 # moved");
    assert_eq!(remove(&changed, KUBEADM).unwrap(), KUBEADM.replace("--secure-port=6443", "--secure-port=6444 # moved"));
}

#[test]
fn hand_made_audit_flags_are_taken_over_and_given_back() {
    let by_hand = KUBEADM.replace(
        "    - --secure-port=6443\n",
        "    - --audit-log-maxage=7\n    - '--audit_log-path=/var/log/kubernetes/audit/audit.log'\n    - --secure-port=6443\n",
    );
    let edited = edit(&by_hand, &intent("r-aaaaaaaaaa")).unwrap();
    assert_eq!(edited.taken_over, ["--audit-log-maxage=7"]);
    assert!(!edited.text.contains("maxage"), "{}", edited.text);
    let changed = edited.text.replace("secure-port=6443", "secure-port=6444");
    let back = read(&remove(&changed, &by_hand).unwrap()).unwrap();
    assert_eq!(back.flags["audit-log-maxage"], "7");
    assert_eq!(back.flags["secure-port"], "6444");
}

#[test]
fn a_second_file_is_recognised_by_its_pod_whatever_its_form() {
    let pod = ("kube-system".to_string(), "kube-apiserver".to_string());
    assert_eq!(pod_of(KUBEADM.as_bytes()), Some(pod.clone()));
    let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"kube-apiserver","namespace":"kube-system"}}"#;
    assert_eq!(pod_of(json.as_bytes()), Some(pod.clone()));
    // Text that other readers reject and the kubelet accepts.
    for (what, text) in [
        ("a key twice", format!("{KUBEADM}kind: Pod\n")),
        ("a second document", format!("{KUBEADM}---\nkind: ConfigMap\n")),
        ("a separator at the end", format!("{KUBEADM}---\n")),
        ("a name twice", KUBEADM.replace("\n  name:", "\n  name: other\n  name:")),
        ("a second document that is broken", format!("{KUBEADM}---\nno: [yaml\n")),
        ("an alias", "x: &x {name: kube-apiserver, namespace: kube-system}\nkind: Pod\nmetadata: *x\n".into()),
        ("a merge", "x: &x {name: kube-apiserver}\nkind: Pod\nmetadata: {<<: *x, namespace: kube-system}\n".into()),
        ("JSON with a key twice", json.replace("{\"name\"", "{\"name\":\"a\",\"name\"")),
    ] {
        assert_eq!(pod_of(text.as_bytes()), Some(pod.clone()), "{what}");
    }
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(KUBEADM.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert_eq!(pod_of(&utf16), Some(pod), "UTF-16");
    assert_eq!(pod_of(b"kind: ConfigMap\nmetadata: {name: x}\n"), None);
    assert_eq!(pod_of(b"no: [yaml"), None);
}

#[test]
fn facts_are_what_the_manifest_says() {
    let facts = read(KUBEADM).unwrap();
    assert_eq!((facts.namespace.as_str(), facts.pod.as_str(), facts.revision), ("kube-system", "kube-apiserver", None));
    assert_eq!(facts.argv, ["kube-apiserver", "--advertise-address=172.30.0.11", "--secure-port=6443"]);
    let more = "    env:\n    - {name: NO_PROXY, value: a}\n    - {name: NO_PROXY, value: 'b,c'}\n    - {name: POD_IP, valueFrom: {}}\n  \
                hostAliases:\n  - {ip: 10.0.0.1, hostnames: [sink, log]}\n  - {ip: 10.0.0.2, hostnames: [sink]}\n  hostNetwork: true\n";
    let more = read(&KUBEADM.replace("  hostNetwork: true\n", more)).unwrap();
    assert_eq!(more.env, [("NO_PROXY".to_string(), "b,c".to_string())].into());
    let aliases = [("sink", vec!["10.0.0.1", "10.0.0.2"]), ("log", vec!["10.0.0.1"])];
    let owned = |(name, addresses): (&str, Vec<&str>)| {
        (name.to_string(), addresses.into_iter().map(ToString::to_string).collect())
    };
    assert_eq!(more.host_aliases, aliases.map(owned).into());
    assert_eq!(read(&edit(KUBEADM, &intent("r-aaaaaaaaaa")).unwrap().text).unwrap().revision.unwrap(), "r-aaaaaaaaaa");
}

#[test]
fn size_and_depth_are_bounded() {
    let large = format!("{KUBEADM}# {}\n", "x".repeat(MAX_BYTES));
    assert!(matches!(read(&large), Err(Error::TooLarge)));
    let deep = format!("{}x: {}{}\n", KUBEADM, "[".repeat(5000), "]".repeat(5000));
    assert!(read(&deep).is_err());
}

#[test]
fn an_escape_that_only_json_has_is_refused_with_its_line() {
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\",\n\"metadata\": {\"name\": \"a\"}, \"spec\": {\"containers\": [\n\
                {\"name\": \"kube-apiserver\", \"command\": [\"kube-apiserver\"], \"image\": \"a\"}]}}\n";
    assert!(read(json).is_ok());
    for escape in [r"a\/b", r"\ud83d\ude00"] {
        let text = json.replace("\"image\": \"a\"", &format!("\"image\": \"{escape}\""));
        let refused = read(&text).unwrap_err();
        assert!(
            matches!(refused, Error::Layout { line: 3, what: "an escape that only JSON has" }),
            "{escape}: {refused}"
        );
    }
}

#[test]
fn a_key_without_a_colon_is_no_part_of_the_next_one() {
    let text = "---\n{apiVersion: v1, kind: Pod, metadata: {name: a, \"annotations\": {}}, spec: {containers: [\n  \
                {name: kube-apiserver, image: \"kube-apiserver:v1.36.3\",\n  odd, even: 1, last # it: is\n  }]}}\n";
    let edited = edit(text, &intent("r-0123456789")).unwrap().text;
    assert_eq!(remove(&edited, text).unwrap(), text);
}

#[test]
fn what_is_at_the_end_does_not_become_a_part_of_a_block_scalar() {
    for end in ["        ", "          # how many\n", "\n          # how many\n"] {
        at_the_end(end);
    }
}

fn at_the_end(end: &str) {
    let text = &format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: a\n    args:\n    - --v=1\n    command:\n    \
         - kube-apiserver\n    - >-\n      --v=2\n    - --audit-log-maxbackup=3\n{end}"
    );
    let edited = edit(text, &intent("r-0123456789")).unwrap().text;
    let removed = remove(&edited, text).unwrap();
    assert_eq!(removed.contains("# how many"), text.contains("# how many"));
    let command = &serde_saphyr::from_str::<Value>(&removed).unwrap()["spec"]["containers"][0]["command"];
    assert_eq!(*command, serde_json::json!(["kube-apiserver", "--v=2", "--audit-log-maxbackup=3"]));
}
