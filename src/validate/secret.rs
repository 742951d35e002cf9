//! Secrets that a Setup refers to, and what they may be used for.

use std::collections::BTreeMap;

use crate::floor::Destination;

/// Types of Secrets that are no credentials of a sink, whoever names them.
const NEVER: [&str; 7] = [
    "kubernetes.io/service-account-token",
    "bootstrap.kubernetes.io/token",
    "kubernetes.io/dockercfg",
    "kubernetes.io/dockerconfigjson",
    "helm.sh/release.v1",
    crate::revision::secret::REVISION_TYPE,
    crate::revision::secret::CREDENTIALS_TYPE,
];

/// Beginnings of the names of such Secrets, which `render` is given without their type.
const NEVER_NAMED: [&str; 3] = ["sh.helm.release.", "revision-r-", "audit-receiver-ca"];

/// What matters of a Secret.
#[derive(Clone, Default)]
pub struct SecretFacts {
    /// Empty where it is not known.
    pub type_: String,
    /// The annotation [`HOSTS_ANNOTATION`](crate::api::HOSTS_ANNOTATION).
    pub hosts: Option<String>,
    pub data: BTreeMap<String, Vec<u8>>,
}

impl SecretFacts {
    /// Whether a sink may use it at all.
    pub(crate) fn is_usable(&self, name: &str) -> bool {
        !NEVER.contains(&self.type_.as_str()) && !NEVER_NAMED.iter().any(|beginning| name.starts_with(beginning))
    }

    /// Whether its credentials may be sent there. Without the annotation: anywhere that the floor permits. `service` is the name for
    /// TLS of the Service whose address `host` is.
    pub(crate) fn is_for(&self, host: &str, port: u16, service: Option<&str>) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        hosts.split([',', ' ', '\n']).filter(|host| !host.is_empty()).any(|wanted| {
            // A word that is no destination permits none.
            let Ok(wanted) = Destination::try_from(wanted.to_string()) else { return false };
            wanted.matches(host, port, None) || service.is_some_and(|service| wanted.matches(service, port, None))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_for_the_hosts_that_it_names() {
        let secret = |hosts: &str| SecretFacts { hosts: Some(hosts.into()), ..SecretFacts::default() };
        for (hosts, host, service, want) in [
            ("siem.example.com", "siem.example.com", None, true),
            ("a.example.com, siem.example.com", "siem.example.com", None, true),
            ("siem.example.com:444", "siem.example.com", None, false),
            ("", "siem.example.com", None, false),
            ("https://siem.example.com", "siem.example.com", None, false),
            ("receiver.audit-system.svc", "10.96.0.7", Some("receiver.audit-system.svc"), true),
            ("receiver.audit-system.svc", "10.96.0.7", Some("receiver.other.svc"), false),
        ] {
            assert_eq!(secret(hosts).is_for(host, 443, service), want, "{hosts} {host}");
        }
        assert!(SecretFacts::default().is_for("anywhere.example", 1, None));
    }

    #[test]
    fn the_cluster_s_own_secrets_are_no_credentials() {
        let of_type = |type_: &str| SecretFacts { type_: type_.into(), ..SecretFacts::default() };
        assert!(of_type("Opaque").is_usable("token") && of_type("kubernetes.io/tls").is_usable("audit-receiver-tls"));
        for (type_, name) in [
            ("kubernetes.io/service-account-token", "default-token"),
            ("helm.sh/release.v1", "release"),
            ("", "sh.helm.release.v1.audit-operator.v1"),
            ("audit-operator.io/credentials", "x"),
            ("", "revision-r-0123456789"),
        ] {
            assert!(!of_type(type_).is_usable(name), "{type_} {name}");
        }
    }
}
