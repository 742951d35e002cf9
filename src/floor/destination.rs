//! Where webhooks may send events.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A host, a pattern of hosts, a network or a Service, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Destination {
    /// As the administrator wrote it.
    text: String,
    hosts: Hosts,
    /// `None`: any port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    /// In lower case.
    Name(String),
    /// `.example.com` for `*.example.com`.
    Below(String),
    Network(IpNet),
    /// `namespace/name`, or `namespace/` for all of a namespace.
    Service(String),
}

/// Why events may not go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// No floor can permit it.
    Always(&'static str),
    /// The floor permits other destinations only.
    ByFloor,
}

/// Ports of the control plane on a node: etcd, kube-apiserver, kubelet, kube-proxy, controller-managers, scheduler
/// (kubernetes@v1.36.3 pkg/cluster/ports/ports.go, cmd/kubeadm/app/constants/constants.go).
const CONTROL_PLANE: [std::ops::RangeInclusive<u16>; 3] = [2379..=2382, 6443..=6443, 10248..=10260];

impl Destination {
    /// Why no events may ever be sent there: it is the control plane or a cloud's credentials, and not a receiver.
    pub fn never(host: &str, port: u16, service: Option<&str>) -> Option<&'static str> {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if service == Some("default/kubernetes")
            || name == "kubernetes"
            || name == "kubernetes.default"
            || name.starts_with("kubernetes.default.")
        {
            return Some(
                "the Service default/kubernetes is kube-apiserver itself, which would record its own deliveries endlessly",
            );
        }
        let address = address(&name);
        let is_metadata = match address {
            Some(address) => METADATA.iter().any(|known| known.parse() == Ok(address)),
            None => matches!(
                name.as_str(),
                "metadata" | "metadata.google.internal" | "instance-data" | "instance-data.ec2.internal"
            ),
        };
        if is_metadata {
            return Some("it is a cloud's metadata service");
        }
        let is_loopback = matches!(name.as_str(), "localhost" | "ip6-localhost" | "ip6-loopback")
            || name.ends_with(".localhost")
            || name.ends_with(".localdomain")
            || address.is_some_and(|address| address.is_loopback() || address.is_unspecified());
        if is_loopback && CONTROL_PLANE.iter().any(|ports| ports.contains(&port)) {
            return Some("it is a port of the control plane on the node itself");
        }
        match address {
            Some(IpAddr::V4(address)) if address.is_link_local() => {
                Some("link-local addresses belong to the cloud of the node, for example its metadata service")
            }
            Some(IpAddr::V6(address)) if address.is_unicast_link_local() => {
                Some("link-local addresses belong to the cloud of the node, for example its metadata service")
            }
            Some(address) if address.is_multicast() || address == IpAddr::from([255; 4]) => {
                Some("it is not the address of a single receiver")
            }
            _ => None,
        }
    }

    pub fn matches(&self, host: &str, port: u16, service: Option<&str>) -> bool {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let is_host = match &self.hosts {
            Hosts::Name(wanted) => *wanted == name,
            Hosts::Below(suffix) => address(&name).is_none() && name.ends_with(suffix) && name.len() > suffix.len(),
            Hosts::Network(network) => address(&name).is_some_and(|address| network.contains(&address)),
            Hosts::Service(wanted) => service.is_some_and(|service| match wanted.ends_with('/') {
                true => service.starts_with(wanted),
                false => service == wanted,
            }),
        };
        is_host && self.port.is_none_or(|wanted| wanted == port)
    }
}

/// Metadata services of clouds that are not link-local: Amazon and Google by IPv6, Azure, Alibaba, Oracle.
const METADATA: [&str; 5] = ["fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"];

/// An IPv4 address within IPv6 is the IPv4 address.
fn address(host: &str) -> Option<IpAddr> {
    host.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

impl From<Destination> for String {
    fn from(destination: Destination) -> Self {
        destination.text
    }
}

impl TryFrom<String> for Destination {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        const FORMS: &str = "a host (siem.example.com), a pattern (*.example.com), a network (10.0.0.0/8) or a Service \
                             (service:namespace/name), each with or without :port";
        let no = || format!("{text:?} is not a destination: {FORMS}");
        let split = |text: &str| -> Result<(String, Option<u16>), String> {
            match text.rsplit_once(':') {
                Some((rest, port)) => {
                    Ok((rest.into(), Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(no)?)))
                }
                None => Ok((text.into(), None)),
            }
        };
        if let Some(rest) = text.strip_prefix("service:") {
            let (service, port) = split(rest)?;
            let is_service = service.split_once('/').is_some_and(|(namespace, name)| {
                audit_policy::is_dns_label(namespace)
                    && (name.is_empty() || name == "*" || audit_policy::is_dns_label(name))
            });
            return match is_service {
                true => Ok(Self { hosts: Hosts::Service(service.trim_end_matches('*').into()), port, text }),
                false => Err(no()),
            };
        }
        // An IPv6 network or address with a port is in brackets, as in a URL.
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host.to_string(), None),
            Some((host, rest)) => {
                let port = rest.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|port| *port != 0);
                (host.to_string(), Some(port.ok_or_else(no)?))
            }
            None if text.parse::<Ipv6Addr>().is_ok() || text.parse::<ipnet::Ipv6Net>().is_ok() => (text.clone(), None),
            None => split(&text)?,
        };
        let hosts = if let Ok(network) = host.parse::<IpNet>() {
            Hosts::Network(network)
        } else if let Some(address) = address(&host) {
            Hosts::Network(IpNet::from(address))
        } else if let Some(rest) = host.strip_prefix("*.").filter(|rest| crate::revision::is_host(rest)) {
            Hosts::Below(format!(".{}", rest.to_ascii_lowercase()))
        } else if crate::revision::is_host(&host) {
            Hosts::Name(host.trim_end_matches('.').to_ascii_lowercase())
        } else {
            return Err(no());
        };
        Ok(Self { hosts, port, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_matches_what_it_names() {
        for (text, host, port, service, want) in [
            ("siem.example.com", "SIEM.example.com.", 443, None, true),
            ("siem.example.com", "a.siem.example.com", 443, None, false),
            ("siem.example.com:443", "siem.example.com", 8443, None, false),
            ("*.example.com", "siem.example.com", 443, None, true),
            ("*.example.com", "example.com", 443, None, false),
            ("*.example.com", "evilexample.com", 443, None, false),
            ("10.0.0.0/8", "10.1.2.3", 443, None, true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", 443, None, true),
            ("10.0.0.0/8", "11.1.2.3", 443, None, false),
            ("10.0.0.0/8:443", "10.1.2.3", 80, None, false),
            ("fd00::/8", "fd00::1", 443, None, true),
            ("[fd00::/8]:443", "fd00::1", 443, None, true),
            ("[fd00::/8]:443", "fd00::1", 80, None, false),
            ("fd00::1", "fd00::1", 80, None, true),
            ("service:logging/collector", "10.96.0.7", 8443, Some("logging/collector"), true),
            ("service:logging/collector", "10.96.0.7", 8443, Some("logging/collector2"), false),
            ("service:logging/*", "10.96.0.7", 8443, Some("logging/any"), true),
            ("service:logging/*:443", "10.96.0.7", 8443, Some("logging/any"), false),
            ("service:logging/*", "10.96.0.7", 8443, None, false),
        ] {
            let destination = Destination::try_from(text.to_string()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(destination.matches(host, port, service), want, "{text} {host}:{port} {service:?}");
        }
        for text in [
            "",
            "*",
            "https://a",
            "a/b",
            "a:0",
            "a:x",
            "10.0.0.0/33",
            "*.*",
            "service:a",
            "service:a/b/c",
            "[::1",
            "a b",
        ] {
            assert!(Destination::try_from(text.to_string()).is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_sends_events_to_the_control_plane_or_to_a_metadata_service() {
        for (host, port, service) in [
            ("169.254.169.254", 80, None),
            ("::ffff:169.254.169.254", 80, None),
            ("fe80::1", 80, None),
            ("fd00:ec2::254", 80, None),
            ("168.63.129.16", 80, None),
            ("ip6-localhost", 2379, None),
            ("metadata.google.internal", 80, None),
            ("METADATA.google.internal.", 80, None),
            ("127.0.0.1", 2379, None),
            ("127.8.9.10", 10250, None),
            ("localhost", 10250, None),
            ("::1", 6443, None),
            ("::ffff:127.0.0.1", 6443, None),
            ("0.0.0.0", 10257, None),
            ("::", 10259, None),
            ("10.96.0.1", 443, Some("default/kubernetes")),
            ("kubernetes.default", 443, None),
            ("224.0.0.1", 443, None),
        ] {
            assert!(Destination::never(host, port, service).is_some(), "{host}:{port}");
        }
        for (host, port) in [("127.0.0.1", 9000), ("10.0.0.1", 2379), ("kubernetes.example.com", 443), ("fd00::1", 443)]
        {
            assert_eq!(Destination::never(host, port, None), None, "{host}:{port}");
        }
    }
}
