//! Bad input, item by item: field, reason and message.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use kube::CustomResourceExt;

use super::*;
use crate::api::Reason::*;

const POLICY: &str = "policy: {preset: metadata}";
const SECRETS: &str = "apiVersion: audit.k8s.io/v1\nrules: [{level: None, users: [a]}, {level: Request, resources: [{resources: [secrets]}]}, {level: Metadata}]";
const LOG: &str = "{name: l, log: {}}";

fn setup(spec: &str) -> AuditSetup {
    let spec: AuditSetupSpec = serde_saphyr::from_str(spec).unwrap_or_else(|error| panic!("{spec}\n{error}"));
    AuditSetup::new("cluster", spec)
}

/// A Setup with the preset and these sinks.
fn sinks(sinks: &str) -> AuditSetup {
    setup(&format!("{POLICY}\nsinks: [{sinks}]"))
}

/// With one webhook.
fn webhook(webhook: &str) -> AuditSetup {
    sinks(&format!("{{name: w, webhook: {webhook}}}"))
}

/// With this policy and a log.
fn policy(policy: &str) -> AuditSetup {
    setup(&format!("policy: {policy}\nsinks: [{LOG}]"))
}

fn references() -> References {
    let pair = || {
        let made = rcgen::generate_simple_self_signed(["a.example.com".to_string()]).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes())
    };
    let ((cert, key), (_, other)) = (pair(), pair());
    let text = |text: &str| text.as_bytes().to_vec();
    let service = |spec: &str| Service { spec: Some(serde_saphyr::from_str(spec).unwrap()), ..Service::default() };
    let secrets = [
        ("ca", vec![("ca.crt", cert.clone()), ("bad", text("s3cret")), ("ca.pem", cert.clone())]),
        ("token", vec![("token", text("abc\n")), ("two", text("s3cret\ns3cret")), ("empty", text("\n"))]),
        ("basic", vec![("username", text("me")), ("password", text("s3cret"))]),
        ("basic-colon", vec![("username", text("m:e")), ("password", text("s3c\x07ret"))]),
        ("client", vec![("tls.crt", cert.clone()), ("tls.key", key)]),
        ("client-other", vec![("tls.crt", cert), ("tls.key", other)]),
        ("empty", vec![]),
        (
            "url",
            vec![
                ("url", text("https://s3cret.example.com/\n")),
                ("query", text("https://a/?s3cret")),
                ("http", text("http://a")),
            ],
        ),
    ];
    let maps = [(
        "mine",
        vec![
            ("policy.yaml", "apiVersion: audit.k8s.io/v1\nrules: [{level: None}]"),
            ("bad", "rules: []"),
            ("secrets", SECRETS),
        ],
    )];
    let services = [
        ("plain", "{clusterIP: 10.0.0.1, ports: [{port: 80}, {port: 53, protocol: UDP}, {port: 443, protocol: TCP}]}"),
        ("six", "{clusterIP: 'fd00::1', ports: [{port: 80}]}"),
        ("node-port", "{type: NodePort, clusterIP: 10.0.0.2, ports: [{name: web, port: 80, nodePort: 30080}]}"),
        ("balanced", "{type: LoadBalancer, clusterIP: 10.0.0.3, ports: [{name: web, port: 80}]}"),
        ("local", "{clusterIP: 10.0.0.4, internalTrafficPolicy: Local, ports: [{port: 443}]}"),
        ("headless", "{clusterIP: None, ports: [{port: 80}]}"),
        ("pending", "{clusterIP: '', ports: [{port: 80}]}"),
        ("elsewhere", "{type: ExternalName, externalName: a.example.com}"),
    ];
    References {
        secrets: secrets
            .into_iter()
            .map(|(name, keys)| {
                let data = keys.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
                (name.to_string(), SecretFacts { data, ..SecretFacts::default() })
            })
            .collect(),
        config_maps: maps
            .into_iter()
            .map(|(name, keys)| {
                (name.to_string(), keys.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
            })
            .collect(),
        endpoints: [("local", true), ("balanced", false)]
            .map(|(name, has_endpoint)| (("ns".to_string(), name.to_string()), has_endpoint))
            .into(),
        api_server: Some("10.96.0.1".parse().unwrap()),
        services: services
            .into_iter()
            .map(|(name, spec)| (("ns".to_string(), name.to_string()), service(spec)))
            .collect(),
    }
}

fn problems(setup: &AuditSetup, minor: u32) -> Vec<Problem> {
    validate(setup, &references(), Capabilities::of(KubernetesVersion::new(minor)), &floor()).err().unwrap_or_default()
}

/// Every risk is granted; the rest is the default.
fn floor() -> Floor {
    Floor::read("grantedRisks: [BlockingWebhook, SecretsAboveMetadata, BlockingStrictLog, UnboundedLog]\nlogDirectories: [/var/log/kubernetes, /srv/audit logs]\n")
    .unwrap()
}

/// Each of these Setups has exactly one problem.
fn bad() -> Vec<(AuditSetup, &'static str, Reason, &'static str)> {
    let long = "a".repeat(64);
    let mut named = policy("{preset: metadata}");
    named.metadata.name = Some(long.clone());
    vec![
        (named, "metadata.name", InvalidSetup, "must have at most 63 characters"),
        (
            setup(&format!("nodeSelector: {{a: b, c: 'd,e'}}\n{POLICY}\nsinks: [{LOG}]")),
            "spec.nodeSelector",
            InvalidSetup,
            "\"c=d,e\" is not a valid label, so no node can have it",
        ),
        // The policy.
        (policy("{}"), "spec.policy", InvalidSetup, "exactly one of preset, rules and configMapRef is required"),
        (
            policy("{preset: gce, rules: [{level: None}]}"),
            "spec.policy",
            InvalidSetup,
            "exactly one of preset, rules and configMapRef is required",
        ),
        (policy("{rules: []}"), "spec.policy.rules", InvalidSetup, "needs at least one entry"),
        (
            policy("{rules: [{level: None, nonResourceURLs: [/a], resources: [{}]}]}"),
            "spec.policy.rules[0].nonResourceURLs",
            InvalidPolicy,
            "Invalid value: [\"/a\"]: rules cannot apply to both regular resources and non-resource URLs: split it into two rules (mixed-rule)",
        ),
        (
            policy("{preset: gce, prepend: [{level: None, resources: [{resourceNames: [a]}]}]}"),
            "spec.policy.prepend[0].resources[0].resourceNames",
            InvalidPolicy,
            "Invalid value: [\"a\"]: using resourceNames requires at least one resource (resource-names)",
        ),
        (
            policy("{preset: gce, append: [{level: None}, {level: None, nonResourceURLs: [a]}]}"),
            "spec.policy.append[1].nonResourceURLs[0]",
            InvalidPolicy,
            "Invalid value: \"a\": non-resource URL rules must begin with a '/' character (non-resource-url)",
        ),
        (
            policy("{configMapRef: {name: mine}, omitStages: []}"),
            "spec.policy",
            InvalidSetup,
            "omitStages and omitManagedFields belong in the policy of the ConfigMap",
        ),
        (
            policy("{configMapRef: {name: none}}"),
            "spec.policy.configMapRef",
            ReferenceNotFound,
            "the operator's namespace has no ConfigMap \"none\"",
        ),
        (
            policy("{configMapRef: {name: mine, key: other}}"),
            "spec.policy.configMapRef",
            ReferenceNotFound,
            "ConfigMap \"mine\" has no key \"other\"; it has: bad, policy.yaml",
        ),
        (
            policy("{configMapRef: {name: mine, key: bad}}"),
            "spec.policy.configMapRef",
            InvalidPolicy,
            "key \"bad\" of ConfigMap \"mine\": line 1, column 1: unknown group version field",
        ),
        (
            policy("{configMapRef: {name: mine, key: secrets}}"),
            "spec.policy.configMapRef",
            RiskNotAcknowledged,
            "key \"secrets\" of ConfigMap \"mine\": rules[1].level: secrets are recorded at Request, with their content: put a rule of level Metadata for secrets before it",
        ),
        (
            policy(
                "{preset: metadata, prepend: [{level: Request, verbs: [create], resources: [{resources: [serviceaccounts/*]}]}]}",
            ),
            "spec.policy.prepend[0].level",
            RiskNotAcknowledged,
            "serviceaccounts/token are recorded at Request",
        ),
        // Sinks as a whole.
        (setup(&format!("{POLICY}\nsinks: []")), "spec.sinks", InvalidSetup, "needs at least one entry"),
        (sinks("{name: a}"), "spec.sinks[0]", InvalidSetup, "exactly one of log and webhook is required"),
        (
            sinks("{name: a, log: {}, webhook: {url: 'https://a/'}}"),
            "spec.sinks[0]",
            InvalidSetup,
            "exactly one of log and webhook is required",
        ),
        (
            sinks("{name: a, log: {}}, {name: b, log: {}}"),
            "spec.sinks",
            InvalidSetup,
            "at most one log sink: kube-apiserver has one log backend, but sinks[0] and sinks[1]",
        ),
        (
            sinks("{name: a, webhook: {url: 'https://a/'}}, {name: b, webhook: {url: 'https://a/'}}"),
            "spec.sinks",
            InvalidSetup,
            "at most one webhook sink: kube-apiserver has one webhook backend, but sinks[0] and sinks[1]",
        ),
        (
            sinks("{name: a, log: {}}, {name: a, webhook: {url: 'https://a/'}}"),
            "spec.sinks[1].name",
            InvalidSetup,
            "\"a\" is also the name of sinks[0]",
        ),
        (sinks("{name: A, log: {}}"), "spec.sinks[0].name", InvalidSetup, "\"A\" must consist of lower-case letters"),
        (
            sinks("{name: a/../b, log: {}}"),
            "spec.sinks[0].name",
            InvalidSetup,
            "\"a/../b\" must consist of lower-case letters",
        ),
        (
            sinks(&format!("{{name: {long}, log: {{}}}}")),
            "spec.sinks[0].name",
            InvalidSetup,
            "has 64 characters; at most 63 are allowed",
        ),
        // The log.
        (
            sinks("{name: a, log: {path: a.log}}"),
            "spec.sinks[0].log.path",
            InvalidSetup,
            "must be an absolute path, or - for standard output",
        ),
        (
            sinks("{name: a, log: {path: /var/log/audit/}}"),
            "spec.sinks[0].log.path",
            InvalidSetup,
            "\"/var/log/audit/\" is a directory",
        ),
        (
            sinks("{name: a, log: {path: /etc/kubernetes/manifests/a.log}}"),
            "spec.sinks[0].log.path",
            BelowFloor,
            "\"/etc/kubernetes/manifests/a.log\" is outside the permitted log directories (/var/log/kubernetes, /srv/audit logs)",
        ),
        (
            sinks("{name: a, log: {path: /var/log/kubernetes/$$/audit.log}}"),
            "spec.sinks[0].log.path",
            InvalidSetup,
            "\"/var/log/kubernetes/$$/audit.log\" has a $: the kubelet expands it in flags but not in mounts, so they would name different places",
        ),
        (
            sinks("{name: a, log: {maxAgeDays: -1}}"),
            "spec.sinks[0].log.maxAgeDays",
            InvalidSetup,
            "must be from 0 to 36500, not -1",
        ),
        (
            sinks("{name: a, log: {maxBackups: -1}}"),
            "spec.sinks[0].log.maxBackups",
            InvalidSetup,
            "must be from 0 to 100000, not -1",
        ),
        (
            sinks("{name: a, log: {maxSizeMegabytes: 0}}"),
            "spec.sinks[0].log.maxSizeMegabytes",
            InvalidSetup,
            "must be from 1 to 1048576, not 0",
        ),
        (
            sinks("{name: a, log: {delivery: {truncate: {maxEventBytes: 8192, maxBatchBytes: 4096}}}}"),
            "spec.sinks[0].log.delivery.truncate",
            InvalidSetup,
            "maxBatchBytes must not be below maxEventBytes",
        ),
        (
            sinks("{name: a, log: {delivery: {batch: {maxSize: 3}}}}"),
            "spec.sinks[0].log.delivery.batch",
            InvalidSetup,
            "has no effect in mode Blocking: set mode to Batch",
        ),
        (
            sinks("{name: a, log: {delivery: {mode: Batch, batch: {throttleQPS: 1}}}}"),
            "spec.sinks[0].log.delivery.batch.throttleBurst",
            InvalidSetup,
            "is required with throttleQPS: the default of the log backend is 0",
        ),
        (
            sinks("{name: a, log: {delivery: {mode: Batch, batch: {throttleBurst: 1}}}}"),
            "spec.sinks[0].log.delivery.batch.throttleQPS",
            InvalidSetup,
            "is required with throttleBurst",
        ),
        (
            sinks("{name: a, log: {delivery: {mode: Batch, batch: {throttleQPS: 0, throttleBurst: 1}}}}"),
            "spec.sinks[0].log.delivery.batch.throttleBurst",
            InvalidSetup,
            "has no effect, because throttleQPS: 0 switches throttling off",
        ),
        (
            sinks("{name: a, log: {delivery: {mode: Batch, batch: {throttleQPS: 1e-60, throttleBurst: 1}}}}"),
            "spec.sinks[0].log.delivery.batch.throttleQPS",
            InvalidSetup,
            "is too small",
        ),
        (
            sinks("{name: a, log: {delivery: {mode: Batch, batch: {throttleQPS: -1}}}}"),
            "spec.sinks[0].log.delivery.batch.throttleQPS",
            InvalidSetup,
            "must be from 0 to 100000, not -1",
        ),
        (
            setup(
                "policy: {preset: gce, acknowledge: [BlockingStrictLog]}\nsinks: [{name: a, log: {delivery: {mode: BlockingStrict}}}]",
            ),
            "spec.sinks[0].log.delivery.mode",
            InvalidSetup,
            "BlockingStrict rejects requests at the stage RequestReceived, but the policy omits that stage",
        ),
        // Where the webhook is.
        (
            webhook("{}"),
            "spec.sinks[0].webhook",
            InvalidSetup,
            "exactly one of url, urlSecretRef and service is required",
        ),
        (
            webhook("{url: 'https://a/', urlSecretRef: {name: url}}"),
            "spec.sinks[0].webhook",
            InvalidSetup,
            "exactly one of url, urlSecretRef and service is required: remove the others",
        ),
        (
            webhook("{url: 'https://a/', service: {namespace: ns, name: plain, port: 80}}"),
            "spec.sinks[0].webhook",
            InvalidSetup,
            "exactly one of url, urlSecretRef and service is required: remove the others",
        ),
        (
            webhook("{url: 'a:80/x'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL has no scheme: begin with https://",
        ),
        (
            webhook("{url: 'https://a/?x'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL has a query, which kube-apiserver drops",
        ),
        (
            webhook("{url: 'https://a/#x'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL has a fragment, which kube-apiserver drops",
        ),
        (
            webhook("{url: 'https://u:p@a/'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL has a user or password before @: use auth.basicAuthSecretRef",
        ),
        (
            webhook("{url: 'https://a:0/'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL has a port that is not a number from 1 to 65535",
        ),
        (
            webhook("{url: 'https://a.b.svc/'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "the URL names a Service of the cluster, but kube-apiserver uses the node's DNS, which does not know it: use service instead",
        ),
        (
            webhook("{urlSecretRef: {name: none}}"),
            "spec.sinks[0].webhook.urlSecretRef",
            ReferenceNotFound,
            "the operator's namespace has no Secret \"none\" with the key \"url\"",
        ),
        (
            webhook("{urlSecretRef: {name: url, key: x}}"),
            "spec.sinks[0].webhook.urlSecretRef",
            ReferenceNotFound,
            "the operator's namespace has no Secret \"url\" with the key \"x\" that a sink may use",
        ),
        (
            webhook("{urlSecretRef: {name: url, key: query}}"),
            "spec.sinks[0].webhook.urlSecretRef",
            InvalidSetup,
            "the URL has a query",
        ),
        (
            webhook("{urlSecretRef: {name: url, key: http}, auth: {bearerTokenSecretRef: {name: token}}}"),
            "spec.sinks[0].webhook.auth",
            InvalidSetup,
            "credentials need https: kube-apiserver does not send them over http",
        ),
        // The probe.
        (
            webhook("{url: 'https://a/', probe: {path: k8s-audit}}"),
            "spec.sinks[0].webhook.probe.path",
            InvalidSetup,
            "must start with / and have no query and no fragment",
        ),
        (
            webhook("{url: 'https://a/', probe: {path: '/a b'}}"),
            "spec.sinks[0].webhook.probe.path",
            InvalidSetup,
            "the path has a character that must be percent-encoded",
        ),
        (
            webhook("{url: 'https://a/', probe: {expectedCodes: [405, 100]}}"),
            "spec.sinks[0].webhook.probe.expectedCodes[1]",
            InvalidSetup,
            "must be from 200 to 599, not 100",
        ),
        // The proxy.
        (
            webhook("{url: 'https://a/', proxyURL: 'http://me:s3cret@proxy:3128'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "the URL of the proxy has a user or password before @",
        ),
        (
            webhook("{url: 'https://a/', proxyURL: 'http://proxy:3128/x?y'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "the URL of the proxy has a path, a query or a fragment",
        ),
        (
            webhook("{url: 'https://a/', proxyURL: 'ftp://proxy:3128'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "the URL of the proxy must begin with http://, https:// or socks5://",
        ),
        (
            webhook("{url: 'https://a/', proxyURL: 'http://169.254.169.254'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "169.254.169.254:80 cannot be a proxy: link-local addresses",
        ),
        (
            webhook("{url: 'https://a/', proxyURL: 'socks5://localhost:2379'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "localhost:2379 cannot be a proxy: it is a port of the control plane",
        ),
        (
            webhook("{url: 'https://a/', proxyURL: 'https://10.96.0.1'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "10.96.0.1:443 cannot be a proxy: the Service default/kubernetes is kube-apiserver itself",
        ),
        (
            webhook(
                "{url: 'https://a/', proxyURL: 'http://p', tls: {insecureSkipVerify: true}, auth: {bearerTokenSecretRef: {name: token}}}",
            ),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "with tls.insecureSkipVerify, the proxy could read the credentials",
        ),
        (
            webhook("{urlSecretRef: {name: url, key: http}, proxyURL: 'http://p'}"),
            "spec.sinks[0].webhook.proxyURL",
            InvalidSetup,
            "the proxy could read the URL, which comes from a Secret",
        ),
        // The Service.
        (
            webhook("{service: {namespace: ns, name: none, port: 80}}"),
            "spec.sinks[0].webhook.service",
            ReferenceNotFound,
            "the Service ns/none does not exist",
        ),
        (
            webhook("{service: {namespace: ns, name: headless, port: 80}}"),
            "spec.sinks[0].webhook.service",
            UnusableService,
            "the Service ns/headless is headless (clusterIP: None)",
        ),
        (
            webhook("{service: {namespace: ns, name: pending, port: 80}}"),
            "spec.sinks[0].webhook.service",
            UnusableService,
            "the Service ns/pending has no ClusterIP",
        ),
        (
            webhook("{service: {namespace: ns, name: elsewhere, port: 80}}"),
            "spec.sinks[0].webhook.service",
            UnusableService,
            "the Service ns/elsewhere has the type ExternalName",
        ),
        (
            webhook("{service: {namespace: ns, name: plain, port: 81}}"),
            "spec.sinks[0].webhook.service.port",
            UnusableService,
            "the Service ns/plain has no TCP port 81; it has: 80, 443",
        ),
        (
            webhook("{service: {namespace: ns, name: node-port, port: 30080}}"),
            "spec.sinks[0].webhook.service.port",
            UnusableService,
            "the Service ns/node-port has no TCP port 30080; it has: 80 (web)",
        ),
        (
            webhook("{service: {namespace: ns, name: plain, port: 53}}"),
            "spec.sinks[0].webhook.service.port",
            UnusableService,
            "the Service ns/plain has no TCP port 53",
        ),
        (
            webhook("{service: {namespace: ns, name: plain, port: 80, path: x}}"),
            "spec.sinks[0].webhook.service.path",
            InvalidSetup,
            "must start with / and have no query and no fragment",
        ),
        (
            webhook("{service: {namespace: ns, name: plain, port: 80, path: /x?y}}"),
            "spec.sinks[0].webhook.service.path",
            InvalidSetup,
            "must start with / and have no query and no fragment",
        ),
        (
            webhook("{service: {namespace: ns, name: plain, port: 80, path: '/x y'}}"),
            "spec.sinks[0].webhook.service.path",
            InvalidSetup,
            "the path has a character that must be percent-encoded",
        ),
        (
            webhook(
                "{service: {namespace: ns, name: plain, port: 80, scheme: http}, auth: {basicAuthSecretRef: {name: basic}}}",
            ),
            "spec.sinks[0].webhook.auth",
            InvalidSetup,
            "credentials need https",
        ),
        // TLS.
        (
            webhook("{url: 'https://a/', tls: {caSecretRef: {name: none}}}"),
            "spec.sinks[0].webhook.tls.caSecretRef",
            ReferenceNotFound,
            "the operator's namespace has no Secret \"none\"",
        ),
        (
            webhook("{url: 'https://a/', tls: {caSecretRef: {name: empty}}}"),
            "spec.sinks[0].webhook.tls.caSecretRef",
            ReferenceNotFound,
            "the operator's namespace has no Secret \"empty\" with the key \"ca.crt\"",
        ),
        (
            webhook("{url: 'https://a/', tls: {caSecretRef: {name: ca, key: bad}}}"),
            "spec.sinks[0].webhook.tls.caSecretRef",
            InvalidSetup,
            "key \"bad\" of Secret \"ca\" has no certificate",
        ),
        (
            webhook("{url: 'https://a/', tls: {caSecretRef: {name: ca}, insecureSkipVerify: true}}"),
            "spec.sinks[0].webhook.tls",
            InvalidSetup,
            "insecureSkipVerify and caSecretRef exclude each other",
        ),
        (
            webhook("{url: 'https://a/', tls: {serverName: 'a b'}}"),
            "spec.sinks[0].webhook.tls.serverName",
            InvalidSetup,
            "\"a b\" is neither a DNS name nor an IP address",
        ),
        (
            webhook("{url: 'http://a/', tls: {serverName: a}}"),
            "spec.sinks[0].webhook.tls",
            InvalidSetup,
            "has no effect over http",
        ),
        // Credentials.
        (
            webhook(
                "{url: 'https://a/', auth: {bearerTokenSecretRef: {name: token}, basicAuthSecretRef: {name: basic}}}",
            ),
            "spec.sinks[0].webhook.auth",
            InvalidSetup,
            "at most one of bearerTokenSecretRef, basicAuthSecretRef and clientCertificateSecretRef",
        ),
        (
            webhook("{url: 'https://a/', auth: {bearerTokenSecretRef: {name: token, key: two}}}"),
            "spec.sinks[0].webhook.auth.bearerTokenSecretRef",
            InvalidSetup,
            "key \"two\" of Secret \"token\" must be one line",
        ),
        (
            webhook("{url: 'https://a/', auth: {bearerTokenSecretRef: {name: token, key: empty}}}"),
            "spec.sinks[0].webhook.auth.bearerTokenSecretRef",
            InvalidSetup,
            "key \"empty\" of Secret \"token\" is empty",
        ),
        (
            webhook("{url: 'https://a/', auth: {clientCertificateSecretRef: {name: client-other}}}"),
            "spec.sinks[0].webhook.auth.clientCertificateSecretRef",
            InvalidSetup,
            "key \"tls.key\" of Secret \"client-other\" does not belong to the certificate in tls.crt",
        ),
        // Delivery.
        (
            webhook("{url: 'https://a/', delivery: {mode: Blocking}}"),
            "spec.sinks[0].webhook.delivery.mode",
            RiskNotAcknowledged,
            "Blocking: while the receiver is down, every audited request waits for it",
        ),
        (
            setup(
                "policy: {preset: gce, acknowledge: [BlockingWebhook]}\nsinks: [{name: w, webhook: {service: {name: plain, namespace: ns, port: 80, scheme: http}, delivery: {mode: Blocking}}}]",
            ),
            "spec.sinks[0].webhook.delivery.mode",
            InvalidSetup,
            "Blocking with a Service of this cluster: after a restart its pods may need the API server to start",
        ),
        (
            webhook("{url: 'https://a/', delivery: {truncate: {maxEventBytes: 20000000}}}"),
            "spec.sinks[0].webhook.delivery.truncate",
            InvalidSetup,
            "maxBatchBytes must not be below maxEventBytes, or kube-apiserver would not start; they are 10485760 and 20000000",
        ),
        (
            setup(
                "policy: {preset: gce, acknowledge: [BlockingWebhook]}\nsinks: [{name: w, webhook: {url: 'https://a/', delivery: {mode: BlockingStrict}}}]",
            ),
            "spec.sinks[0].webhook.delivery.mode",
            InvalidSetup,
            "BlockingStrict rejects requests at the stage RequestReceived, but the policy omits that stage",
        ),
        // What can never work.
        (
            setup("policy: {preset: gce, omitStages: []}\nsinks: [{name: a, log: {delivery: {mode: BlockingStrict}}}]"),
            "spec.sinks[0].log.delivery.mode",
            RiskNotAcknowledged,
            "BlockingStrict: while the log cannot be written",
        ),
        (
            sinks("{name: a, log: {maxBackups: 0, maxAgeDays: 36500}}"),
            "spec.sinks[0].log",
            RiskNotAcknowledged,
            "maxBackups: 0 keeps every rotated file, and removes them only after maxAgeDays: 36500",
        ),
        (
            sinks("{name: a, log: {delivery: {truncate: {maxEventBytes: 1}}}}"),
            "spec.sinks[0].log.delivery.truncate.maxEventBytes",
            InvalidSetup,
            "must be from 4096 to 1073741824, not 1",
        ),
        (
            webhook("{url: 'https://a/', delivery: {batch: {bufferSize: 10000000}}}"),
            "spec.sinks[0].webhook.delivery.batch.bufferSize",
            InvalidSetup,
            "must be from 1 to 100000, not 10000000",
        ),
        (
            webhook("{url: 'https://a/', delivery: {batch: {maxSize: 1, throttleQPS: 0.000001, throttleBurst: 1}}}"),
            "spec.sinks[0].webhook.delivery.batch.throttleQPS",
            InvalidSetup,
            "0.000001 batches a second of at most 1 events are 0.000001 events a second",
        ),
        (
            setup(&format!("{POLICY}\nsinks: [{LOG}]\nrollout: {{minReadySeconds: 60, confirmTimeoutSeconds: 60}}")),
            "spec.rollout.minReadySeconds",
            InvalidSetup,
            "minReadySeconds must be below confirmTimeoutSeconds: otherwise no change could be confirmed; they are 60 and 60",
        ),
        (
            setup(&format!("{POLICY}\nsinks: [{LOG}]\nrollout: {{shutdownDelaySeconds: 20, drainWatchesSeconds: 6}}")),
            "spec.rollout",
            InvalidSetup,
            "shutdownDelaySeconds and drainWatchesSeconds together must be at most 25: the kubelet kills a kube-apiserver that takes longer than 30 s to stop; they are 20 and 6",
        ),
        // The floor.
        (
            webhook("{url: 'http://169.254.169.254/latest/api/token'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "169.254.169.254:80 cannot be a sink: link-local addresses",
        ),
        (
            webhook("{url: 'https://10.96.0.1/'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "10.96.0.1:443 cannot be a sink: the Service default/kubernetes is kube-apiserver itself",
        ),
        (
            webhook("{url: 'https://localhost:10250/x'}"),
            "spec.sinks[0].webhook.url",
            InvalidSetup,
            "localhost:10250 cannot be a sink: it is a port of the control plane",
        ),
        (
            policy("{rules: [{level: None, resources: [{group: audit-operator.io}]}, {level: Metadata}]}"),
            "spec.policy.rules[0]",
            BelowFloor,
            "the rule would record nothing of the requests that floor.rules[0] (auditsetups.audit-operator.io and nodeaudits.audit-operator.io) records at Metadata",
        ),
        (
            policy(
                "{preset: gce, prepend: [{level: None, users: [mallory], verbs: [patch], resources: [{group: audit-operator.io, resources: [auditsetups]}]}]}",
            ),
            "spec.policy.prepend[0]",
            BelowFloor,
            "the rule would record nothing of the requests that floor.rules[0]",
        ),
        // The rollout.
        (
            setup(&format!("{POLICY}\nsinks: [{LOG}]\nrollout: {{minReadySeconds: 9, confirmTimeoutSeconds: 10}}")),
            "spec.rollout.confirmTimeoutSeconds",
            InvalidSetup,
            "must be from 60 to 3600, not 10",
        ),
    ]
}

#[test]
fn bad_input_is_refused_with_field_reason_and_message() {
    for (setup, field, reason, message) in bad() {
        let found = problems(&setup, 36);
        let [Problem { field: have, reason: why, message: text }] = found.as_slice() else {
            panic!("wanted one problem, {field}: {message}\ngot {found:#?}");
        };
        assert_eq!((have.as_str(), *why), (field, reason), "{text}");
        assert!(text.starts_with(message), "{field}\nwant {message}\ngot  {text}");
        assert!(!text.contains("s3c"), "a message holds a secret: {text}");
    }
}

#[test]
fn both_keys_of_a_pair_are_judged_at_once() {
    let found = problems(&webhook("{url: 'https://a/', auth: {basicAuthSecretRef: {name: basic-colon}}}"), 36);
    let messages: Vec<_> = found.iter().map(|p| p.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "key \"username\" of Secret \"basic-colon\" contains a colon, which ends the name in basic authentication",
            "key \"password\" of Secret \"basic-colon\" must be one line without control characters",
        ]
    );
    let found = problems(&webhook("{url: 'https://a/', auth: {clientCertificateSecretRef: {name: empty}}}"), 36);
    assert_eq!(found.len(), 2, "{found:?}");
}

/// A Setup that passes the CRD's schema but not this, or the other way round, would surprise users of the command line.
#[test]
fn every_cel_rule_of_the_crd_has_a_twin_here() {
    fn messages(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for rule in
                    fields.get("x-kubernetes-validations").and_then(|rules| rules.as_array()).into_iter().flatten()
                {
                    found.insert(rule["message"].as_str().expect("every rule has a message").to_string());
                }
                fields.values().for_each(|value| messages(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
            _ => {}
        }
    }
    let schema = serde_json::to_value(AuditSetup::crd()).unwrap();
    let mut rules = BTreeSet::new();
    messages(&schema, &mut rules);
    assert!(rules.len() > 10, "{rules:?}");
    // The parser of URLs says more precisely what is wrong.
    rules.remove("must be http://host:port, https://host:port or socks5://host:port, without user, path and query");
    rules.remove("must be http://host[:port]/path or https://host[:port]/path, without user, query and fragment");
    let tested: Vec<_> = bad().into_iter().map(|(_, _, _, message)| message).collect();
    for rule in rules {
        let rule = rule.strip_prefix("metadata.name: ").unwrap_or(&rule);
        // A message may say more before and behind, or the table may hold its beginning.
        assert!(tested.iter().any(|message| rule.starts_with(message) || message.contains(rule)), "no twin of: {rule}");
    }
}

#[test]
fn good_input_passes() {
    for setup in [
        webhook(
            "{url: 'https://a.example.com:8443/x', tls: {caSecretRef: {name: ca, key: ca.pem}, serverName: b}, auth: {bearerTokenSecretRef: {name: token}}}",
        ),
        webhook("{urlSecretRef: {name: url}, auth: {basicAuthSecretRef: {name: basic}}}"),
        webhook("{service: {namespace: ns, name: six, port: 80}, auth: {clientCertificateSecretRef: {name: client}}}"),
        webhook("{service: {namespace: ns, name: plain, port: 443, path: '/a%20b'}, auth: {}}"),
        webhook("{url: 'https://a/', proxyURL: 'socks5://[fd00::1]', auth: {bearerTokenSecretRef: {name: token}}}"),
        webhook("{urlSecretRef: {name: url}, proxyURL: 'http://proxy:3128/'}"),
        webhook("{service: {namespace: ns, name: node-port, port: 80}}"),
        webhook("{service: {namespace: ns, name: balanced, port: 80}}"),
        webhook("{url: 'https://a/', probe: {}}"),
        webhook("{service: {namespace: ns, name: six, port: 80}, probe: {path: /healthz, expectedCodes: [200, 204]}}"),
        webhook("{url: 'https://a/', delivery: {batch: {throttleQPS: 1}}}"),
        webhook(
            "{url: 'https://a/', delivery: {batch: {throttleBurst: 1}, truncate: {maxEventBytes: 4096, maxBatchBytes: 4096}}}",
        ),
        policy("{configMapRef: {name: mine}, prepend: [{level: None}]}"),
        policy("{preset: stig-literal, acknowledge: [SecretsAboveMetadata]}"),
        policy(
            "{preset: stig-literal, prepend: [{level: Metadata, resources: [{group: '', resources: [secrets, serviceaccounts/token]}, \
             {group: authentication.k8s.io, resources: [tokenreviews]}]}]}",
        ),
        // Never reached.
        policy("{preset: gce, append: [{level: RequestResponse}]}"),
        setup(
            "policy: {preset: gce, omitStages: [], acknowledge: [BlockingWebhook]}\nsinks: [{name: w, webhook: {url: 'https://a/', delivery: {mode: BlockingStrict}}}]",
        ),
        sinks("{name: a, log: {path: '-', delivery: {mode: Batch, batch: {throttleQPS: 0.5, throttleBurst: 2}}}}"),
    ] {
        assert_eq!(problems(&setup, 36), [], "{:?}", setup.spec);
    }
}

#[test]
fn what_needs_a_newer_api_server_is_refused_or_left_out() {
    let every_group = policy("{rules: [{level: None, resources: [{group: '*'}]}]}");
    assert_eq!(problems(&every_group, 36), []);
    assert_eq!(problems(&every_group, 35)[0].field, "spec.policy.rules[0].resources[0].group");
    let managed = |given: &str| policy(&format!("{{preset: gce{given}}}"));
    assert_eq!(problems(&managed(", omitManagedFields: true"), 22)[0].field, "spec.policy.omitManagedFields");
    let valid = |setup: &AuditSetup, minor| {
        validate(setup, &references(), Capabilities::of(KubernetesVersion::new(minor)), &floor()).unwrap()
    };
    assert!(!valid(&managed(""), 22).policy.omit_managed_fields);
    assert!(valid(&managed(""), 23).policy.omit_managed_fields);
    assert_eq!(valid(&managed(""), 26).drain_watches_seconds, 0);
    assert_eq!(valid(&managed(""), 27).drain_watches_seconds, 3);
}

#[test]
fn stages_and_managed_fields_are_the_presets_where_the_setup_says_nothing() {
    let found = |given: &str| {
        let valid = validate(
            &policy(&format!("{{{given}}}")),
            &references(),
            Capabilities::of(KubernetesVersion::new(36)),
            &floor(),
        )
        .unwrap();
        (valid.policy.omit_stages, valid.policy.omit_managed_fields)
    };
    let literal = "preset: stig-literal, acknowledge: [SecretsAboveMetadata]";
    assert_eq!(found("preset: gce"), (vec![Stage::RequestReceived], true));
    assert_eq!(found(literal), (vec![], false));
    assert_eq!(found(&format!("{literal}, omitStages: [Panic], omitManagedFields: true")), (vec![Stage::Panic], true));
    assert_eq!(found("preset: gce, omitStages: [], omitManagedFields: false"), (vec![], false));
    assert_eq!(found("rules: [{level: None}]"), (vec![Stage::RequestReceived], true));
}

#[test]
fn what_does_not_stand_in_the_way_is_told() {
    let found = |setup: &AuditSetup, oldest, newest| {
        let valid = validate(
            setup,
            &references(),
            Capabilities { oldest: KubernetesVersion::new(oldest), newest: KubernetesVersion::new(newest) },
            &floor(),
        )
        .unwrap();
        let told = valid.policy.findings.into_iter().map(|f| format!("{} {} {}", f.severity, f.id, f.field));
        told.collect::<Vec<_>>()
    };
    assert_eq!(found(&policy("{preset: gce}"), 26, 37), [""; 0]);
    assert_eq!(
        found(&policy("{preset: metadata, append: [{level: None, users: [a]}]}"), 36, 36),
        ["warning unreachable-rule spec.policy.append[0]"]
    );
    assert_eq!(
        found(&policy("{configMapRef: {name: mine, key: secrets}, acknowledge: [SecretsAboveMetadata]}"), 36, 36),
        ["info secret-bodies spec.policy.configMapRef"]
    );
    // Served by the older of the nodes' API servers, and not by the newer.
    let classes = policy(
        "{preset: metadata, prepend: [{level: Request, resources: [{group: resource.k8s.io, resources: [resourceclasses]}]}]}",
    );
    let gone = "warning removed-resource spec.policy.prepend[0].resources[0].resources[0]";
    assert_eq!((found(&classes, 30, 30), found(&classes, 30, 31)), (vec![], vec![gone.to_string()]));
    // And the other way round.
    let every_group = policy("{rules: [{level: Metadata, resources: [{group: '*'}]}]}");
    let problems = validate(
        &every_group,
        &references(),
        Capabilities { oldest: KubernetesVersion::new(35), newest: KubernetesVersion::new(36) },
        &floor(),
    )
    .unwrap_err();
    assert_eq!((problems.len(), problems[0].reason), (1, InvalidPolicy));
}

#[test]
fn needs_names_everything_once() {
    let setup = webhook(
        "{service: {namespace: ns, name: s, port: 1}, tls: {caSecretRef: {name: b}}, auth: {bearerTokenSecretRef: {name: a}, basicAuthSecretRef: {name: b}, clientCertificateSecretRef: {name: c}}}",
    );
    let strings = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    let want =
        Needs { secrets: strings(&["a", "b", "c"]), config_maps: vec![], services: vec![("ns".into(), "s".into())] };
    assert_eq!(needs(&setup), want);
    assert_eq!(needs(&webhook("{urlSecretRef: {name: u}}")).secrets, ["u"]);
    assert_eq!(needs(&policy("{configMapRef: {name: m}}")).config_maps, ["m"]);
}

#[test]
fn debug_output_holds_no_secret() {
    let setup = webhook("{urlSecretRef: {name: url}, auth: {basicAuthSecretRef: {name: basic}}}");
    let valid = validate(&setup, &references(), Capabilities::of(KubernetesVersion::new(36)), &floor()).unwrap();
    let rendered = crate::render::render(&valid);
    assert!(rendered.revision.content.is_kubeconfig_secret());
    assert!(rendered.revision.files()["webhook.kubeconfig"].contains("s3cret"));
    for text in [format!("{:?}", references()), format!("{valid:?}"), format!("{rendered:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn what_the_floor_does_not_grant_or_permit_is_refused() {
    let floor = Floor::read("destinations: ['*.example.com', 'service:ns/plain']").unwrap();
    for (setup, want) in [
        (
            policy("{preset: stig-literal, acknowledge: [SecretsAboveMetadata]}"),
            Some(("spec.policy.acknowledge[0]", BelowFloor)),
        ),
        (policy("{preset: metadata, acknowledge: [UnboundedLog]}"), Some(("spec.policy.acknowledge[0]", BelowFloor))),
        (webhook("{url: 'https://siem.example.com/'}"), None),
        (webhook("{url: 'https://evil.example/'}"), Some(("spec.sinks[0].webhook.url", BelowFloor))),
        (webhook("{service: {namespace: ns, name: plain, port: 443}}"), None),
        (
            webhook("{service: {namespace: ns, name: six, port: 80}}"),
            Some(("spec.sinks[0].webhook.service", BelowFloor)),
        ),
        (webhook("{urlSecretRef: {name: url}}"), None),
        (webhook("{url: 'https://siem.example.com/', proxyURL: 'http://proxy.example.com:3128'}"), None),
        (
            webhook("{url: 'https://siem.example.com/', proxyURL: 'http://proxy.evil.example:3128'}"),
            Some(("spec.sinks[0].webhook.proxyURL", BelowFloor)),
        ),
    ] {
        let found = validate(&setup, &references(), Capabilities::of(KubernetesVersion::new(36)), &floor)
            .err()
            .unwrap_or_default();
        let found: Vec<_> = found.iter().map(|problem| (problem.field.as_str(), problem.reason)).collect();
        assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{:?}", setup.spec);
    }
}

#[test]
fn a_secret_is_sent_only_to_the_hosts_that_it_names() {
    let mut references = references();
    references.secrets.get_mut("token").unwrap().hosts = Some("siem.example.com".into());
    let auth = "auth: {bearerTokenSecretRef: {name: token}}";
    let (own, other) = ("proxyURL: 'http://evil.example'", "tls: {serverName: evil.example}");
    for (host, more, want) in [
        ("siem.example.com", String::new(), vec![]),
        ("evil.example", String::new(), vec![SecretNotForHost]),
        ("siem.example.com", format!(", {own}"), vec![]),
        ("siem.example.com", format!(", {other}"), vec![]),
        // The proxy could answer in the name of the receiver.
        ("siem.example.com", format!(", {own}, {other}"), vec![SecretNotForHost]),
    ] {
        let setup = webhook(&format!("{{url: 'https://{host}/', {auth}{more}}}"));
        let found = validate(&setup, &references, Capabilities::of(KubernetesVersion::new(36)), &floor())
            .err()
            .unwrap_or_default();
        assert_eq!(found.iter().map(|problem| problem.reason).collect::<Vec<_>>(), want, "{host} {more}");
    }
}

#[test]
fn a_secret_that_must_not_be_used_reads_as_one_that_is_not_there() {
    let mut references = references();
    let told = |references: &References, name: &str| {
        let setup = webhook(&format!("{{url: 'https://a/', auth: {{bearerTokenSecretRef: {{name: {name}}}}}}}"));
        let found = validate(&setup, references, Capabilities::of(KubernetesVersion::new(36)), &floor()).unwrap_err();
        (found.len(), found[0].message.replace(&format!("{name:?}"), "NAME"))
    };
    let missing = told(&references, "nowhere");
    references.secrets.get_mut("basic").unwrap().type_ = "kubernetes.io/service-account-token".into();
    assert_eq!(told(&references, "basic"), missing);
}

#[test]
fn what_is_worth_knowing_is_told() {
    let ids = |setup: &AuditSetup| {
        let valid = validate(setup, &references(), Capabilities::of(KubernetesVersion::new(36)), &floor()).unwrap();
        valid.findings.iter().map(|finding| format!("{} {}", finding.id, finding.field)).collect::<Vec<_>>()
    };
    assert_eq!(ids(&webhook("{url: 'http://a:8080/'}")), ["plain-http spec.sinks[0].webhook.url"]);
    assert_eq!(
        ids(&webhook("{url: 'http://a/'}")),
        ["plain-http spec.sinks[0].webhook.url", "may-redirect spec.sinks[0].webhook.url"]
    );
    for path in [
        "v1/logs",
        "services/collector/event",
        "insert/jsonline",
        "loki/api/v1/push",
        "_bulk",
        "audit/_doc",
        "Audit/_Create/1",
        "insert/opentelemetry/v1/logs",
    ] {
        let found = ids(&webhook(&format!("{{url: 'https://a/{path}'}}")));
        assert_eq!(found, ["foreign-path spec.sinks[0].webhook.url"], "{path}");
    }
    let none: &[&str] = &[];
    // Receiver, delivery -> findings.
    let (falco, loggly) = ("https://falco:9765/k8s-audit", "https://logs-01.loggly.com/inputs/t/tag/http/");
    let delivery = "spec.sinks[0].webhook.delivery";
    let event = format!("receiver-limits {delivery}.truncate.maxEventBytes");
    let batch = format!("receiver-limits {delivery}");
    let backoff = format!("long-backoff {delivery}.initialBackoffSeconds");
    for (url, settings, want) in [
        ("https://a/", "{}", none),
        (falco, "{}", &[&*batch]),
        (falco, "{truncate: {maxEventBytes: 262144}, batch: {maxSize: 48}}", none),
        (falco, "{truncate: {maxEventBytes: 262144}, batch: {maxSize: 49}}", &[&*batch]),
        (falco, "{truncate: {maxEventBytes: 262145}, batch: {maxSize: 10}}", &[&*event]),
        (loggly, "{}", &[&*batch]),
        (loggly, "{truncate: {maxEventBytes: 100000}, batch: {maxSize: 50}}", none),
        ("https://a/", "{initialBackoffSeconds: 29}", none),
        ("https://a/", "{initialBackoffSeconds: 30}", &[&*backoff]),
    ] {
        assert_eq!(ids(&webhook(&format!("{{url: '{url}', delivery: {settings}}}"))), want, "{url} {settings}");
    }
    assert_eq!(
        ids(&webhook("{service: {namespace: ns, name: plain, port: 443}, proxyURL: 'http://proxy:3128'}")),
        ["proxy-to-service spec.sinks[0].webhook.proxyURL"]
    );
    for (name, want) in [("plain", none), ("local", &["local-traffic-policy"]), ("balanced", &["no-endpoints"])] {
        let port = if name == "balanced" { 80 } else { 443 };
        let want: Vec<_> = want.iter().map(|id| format!("{id} spec.sinks[0].webhook.service")).collect();
        assert_eq!(
            ids(&webhook(&format!("{{service: {{namespace: ns, name: {name}, port: {port}}}}}"))),
            want,
            "{name}"
        );
    }
    assert_eq!(
        ids(&webhook("{url: 'https://a/', proxyURL: 'http://proxy:3128', probe: {}}")),
        ["probe-through-proxy spec.sinks[0].webhook.probe"]
    );
    assert_eq!(
        ids(&webhook("{url: 'https://a/', tls: {insecureSkipVerify: true}}")),
        ["unverified-tls spec.sinks[0].webhook.tls.insecureSkipVerify"]
    );
    let unbounded = "policy: {preset: metadata, acknowledge: [UnboundedLog]}\nsinks: [{name: a, log: {maxBackups: 0, maxAgeDays: 0}}]";
    assert_eq!(ids(&setup(unbounded)), ["acknowledged-risk spec.sinks[0].log"]);
}
