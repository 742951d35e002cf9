//! Which Secrets a sink may use, and for which hosts.

use std::collections::BTreeMap;

use crate::floor::{Destination, Floor};

/// Types of Secrets that users create for credentials. Every other type has its own purpose: tokens of service accounts
/// and bootstrap tokens, image pull secrets, Helm releases, the operator's own Secrets.
const CREDENTIALS: [&str; 4] = ["", "Opaque", "kubernetes.io/basic-auth", "kubernetes.io/tls"];

/// Prefixes of names of the others, because `render` may get them without their type.
const NEVER_NAMED: [&str; 3] = ["sh.helm.release.", "revision-r-", "audit-receiver-ca"];

/// The parts of a Secret that validation needs.
#[derive(Clone, Default)]
pub struct SecretFacts {
    /// Empty if unknown.
    pub type_: String,
    /// The annotation [`HOSTS_ANNOTATION`](crate::api::HOSTS_ANNOTATION).
    pub hosts: Option<String>,
    pub data: BTreeMap<String, Vec<u8>>,
}

impl SecretFacts {
    /// Whether a sink may use a Secret of this type at all.
    pub(crate) fn is_usable_type(type_: &str) -> bool {
        CREDENTIALS.contains(&type_)
    }

    /// Whether a sink may use it at all.
    pub(crate) fn is_usable(&self, name: &str) -> bool {
        Self::is_usable_type(&self.type_) && !NEVER_NAMED.iter().any(|beginning| name.starts_with(beginning))
    }

    /// Whether its credentials may be sent to this host. Without the annotation: to every permitted destination, unless
    /// the floor requires the annotation. `service` is the name (`namespace/name`) of the Service whose address `host`
    /// is.
    pub(crate) fn is_for(&self, host: &str, port: u16, service: Option<&str>, floor: &Floor) -> bool {
        let Some(hosts) = &self.hosts else { return !floor.require_secret_hosts };
        let name = service.and_then(|service| service.split_once('/'));
        let name = name.map(|(namespace, name)| format!("{name}.{namespace}.svc"));
        hosts.split([',', ' ', '\n']).filter(|host| !host.is_empty()).any(|wanted| {
            // A word that is not a destination permits nothing.
            let Ok(wanted) = Destination::try_from(wanted.to_string()) else { return false };
            wanted.matches(host, port, service) || name.as_ref().is_some_and(|name| wanted.matches(name, port, None))
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
            ("receiver.audit-system.svc", "10.96.0.7", Some("audit-system/receiver"), true),
            ("service:audit-system/receiver", "10.96.0.7", Some("audit-system/receiver"), true),
            ("receiver.audit-system.svc", "10.96.0.7", Some("other/receiver"), false),
        ] {
            assert_eq!(secret(hosts).is_for(host, 443, service, &Floor::default()), want, "{hosts} {host}");
        }
        let strict = Floor { require_secret_hosts: true, ..Floor::default() };
        assert!(SecretFacts::default().is_for("anywhere.example", 1, None, &Floor::default()));
        assert!(!SecretFacts::default().is_for("anywhere.example", 1, None, &strict));
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
