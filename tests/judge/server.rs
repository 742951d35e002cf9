//! Real etcd and kube-apiserver as plain child processes: on loopback, with all their files in one directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use testing::process::{Process, free_port};
use testing::{root, wait};

/// A start takes four seconds, or fifty on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(180);

/// The directory with etcd and kube-apiserver.
pub fn programs() -> PathBuf {
    let found =
        Command::new(root().join("tests/testbed/testbed")).arg("bin").output().expect("the testbed cannot be run");
    let directory = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim_end());
    let is_there = |name: &str| directory.join(name).exists();
    assert!(is_there("etcd") && is_there("kube-apiserver"), "not built yet: `make test-judge` does it");
    directory
}

/// Authenticated by `--token-auth-file`: token, name, groups. An empty column of groups is one group, without a name.
pub const TOKENS: [(&str, &str, &[&str]); 4] = [
    ("token-of-root", "root", &["system:masters"]),
    ("token-of-alice", "alice", &["devs", "ops"]),
    ("token-of-bob", "bob", &[""]),
    ("token-of-n1", "system:node:n1", &["system:nodes"]),
];
/// Authenticated by a certificate.
pub const CAROL: (&str, &str) = ("carol", "devs");

/// Keys and certificates of both sides, as files and as PEM.
pub struct Credentials {
    pub directory: PathBuf,
    pub ca: String,
    /// Certificate and key.
    pub carol: (String, String),
    /// Names Carol, but another authority signed it.
    pub forged: (String, String),
}

impl Credentials {
    #[expect(clippy::disallowed_methods, reason = "a test writes its own files")]
    pub fn make(directory: &Path) -> Self {
        let (ca, issuer) = authority();
        let mut server = CertificateParams::new(Vec::new()).unwrap();
        server.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let (certificate, key) = signed(server, &issuer);
        let service_accounts = KeyPair::generate().unwrap();
        let tokens = TOKENS.map(|(token, name, groups)| format!("{token},{name},,\"{}\"\n", groups.join(",")));
        for (name, content) in [
            ("ca.crt", &ca),
            ("server.crt", &certificate),
            ("server.key", &key),
            ("sa.key", &service_accounts.serialize_pem()),
            ("sa.pub", &service_accounts.public_key_pem()),
            ("tokens.csv", &tokens.concat()),
        ] {
            fs::write(directory.join(name), content).unwrap();
        }
        let carol = || {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, CAROL.0);
            params.distinguished_name.push(DnType::OrganizationName, CAROL.1);
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            params
        };
        let forged = signed(carol(), &authority().1);
        Self { directory: directory.into(), carol: signed(carol(), &issuer), forged, ca }
    }
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "judge");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    (certificate, Issuer::new(params, key))
}

fn signed(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

pub struct Etcd {
    pub url: String,
    _process: Process,
}

impl Etcd {
    pub fn start(programs: &Path, directory: &Path) -> Self {
        let (url, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let data = directory.join("etcd").display().to_string();
        let args = [
            ("data-dir", data.as_str()),
            ("listen-client-urls", &url),
            ("advertise-client-urls", &url),
            ("listen-peer-urls", &peer),
            ("initial-advertise-peer-urls", &peer),
            ("initial-cluster", &format!("default={peer}")),
            ("unsafe-no-fsync", "true"),
            ("log-level", "error"),
        ]
        .map(|(name, value)| format!("--{name}={value}"));
        // kube-apiserver waits until it answers.
        Self { url, _process: Process::start(&programs.join("etcd"), &args, directory.join("etcd.log")) }
    }
}

/// The arguments of every kube-apiserver here; where to record events is not among them.
pub fn api_server_args(credentials: &Credentials, etcd: &str, prefix: &str, port: u16, policy: &Path) -> Vec<String> {
    let file = |name: &str| credentials.directory.join(name).display().to_string();
    let certs = file(&format!("certs-{prefix}"));
    [
        ("etcd-servers", etcd),
        // Every server has a cluster of its own in the one etcd.
        ("etcd-prefix", &format!("/{prefix}")),
        ("bind-address", "127.0.0.1"),
        ("advertise-address", "127.0.0.1"),
        ("secure-port", &port.to_string()),
        ("cert-dir", &certs),
        ("tls-cert-file", &file("server.crt")),
        ("tls-private-key-file", &file("server.key")),
        ("client-ca-file", &file("ca.crt")),
        ("token-auth-file", &file("tokens.csv")),
        ("service-account-issuer", "https://judge"),
        ("service-account-key-file", &file("sa.pub")),
        ("service-account-signing-key-file", &file("sa.key")),
        ("service-cluster-ip-range", "10.96.0.0/16"),
        // It cannot publish loopback as an endpoint.
        ("endpoint-reconciler-type", "none"),
        ("authorization-mode", "RBAC"),
        // No controller makes the service accounts that it would require.
        ("disable-admission-plugins", "ServiceAccount"),
        ("audit-policy-file", &policy.display().to_string()),
    ]
    .map(|(name, value)| format!("--{name}={value}"))
    .to_vec()
}

pub struct ApiServer {
    pub port: u16,
    pub events: PathBuf,
    process: Process,
}

impl ApiServer {
    /// `name` is a part of file names.
    pub fn start(programs: &Path, credentials: &Credentials, etcd: &Etcd, name: &str, policy: &Path) -> Self {
        let port = free_port();
        let events = credentials.directory.join(format!("{name}.audit"));
        let mut args = api_server_args(credentials, &etcd.url, name, port, policy);
        args.push(format!("--audit-log-path={}", events.display()));
        // An event is in the file before its request is answered.
        args.push("--audit-log-mode=blocking".into());
        args.push("--audit-log-maxsize=0".into());
        let log = credentials.directory.join(format!("{name}.log"));
        Self { port, events, process: Process::start(&programs.join("kube-apiserver"), &args, log) }
    }

    pub fn wait_for(&mut self, what: impl Fn() -> String, is_so: impl Fn() -> bool) {
        wait::until(what, START_LIMIT, || {
            assert!(!self.process.has_ended(), "kube-apiserver has ended:\n{}", self.process.said());
            is_so().then_some(())
        });
    }
}
