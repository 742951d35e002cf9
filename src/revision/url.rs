//! The URL of a webhook, as client-go reads it. `policy::request` reads request URIs, another grammar: a path and a
//! query without scheme and host, as net/http parses them.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::api::Scheme;

/// A URL that kube-apiserver posts to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url {
    pub scheme: Scheme,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
}

/// Why a text is not such a URL. No message repeats the text: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAUrl {
    #[error("has no scheme: begin with https://, because kube-apiserver would use http and send no credentials")]
    NoScheme,
    #[error("has a scheme other than https and http")]
    UnknownScheme,
    #[error("has a query, which kube-apiserver drops, so a token in it never arrives: use auth")]
    Query,
    #[error("has a fragment, which kube-apiserver drops: remove it")]
    Fragment,
    #[error("has a user or password before @: use auth.basicAuthSecretRef")]
    UserInfo,
    #[error("has no host")]
    NoHost,
    #[error("has a host that is neither a DNS name nor an IP address (IPv6 needs brackets)")]
    BadHost,
    #[error("has a port that is not a number from 1 to 65535")]
    BadPort,
    #[error("has a character that must be percent-encoded, or a % without two hexadecimal digits")]
    BadEncoding,
    #[error(
        "names a Service of the cluster, but kube-apiserver uses the node's DNS, which does not know it: use service instead"
    )]
    ClusterName,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, NotAUrl> {
        // First, because these characters would change the meaning of the rest.
        if !text.bytes().all(|b| {
            b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
        }) {
            return Err(NotAUrl::BadEncoding);
        }
        let (scheme, rest) = text.split_once("://").ok_or(NotAUrl::NoScheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(NotAUrl::UnknownScheme),
        };
        if rest.contains('#') {
            return Err(NotAUrl::Fragment);
        }
        if rest.contains('?') {
            return Err(NotAUrl::Query);
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.contains('@') {
            return Err(NotAUrl::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let port = port_or(port, if scheme == Scheme::Https { 443 } else { 80 })?;
        let escapes_ok = path
            .split('%')
            .skip(1)
            .all(|after| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
        if !escapes_ok {
            return Err(NotAUrl::BadEncoding);
        }
        if is_cluster_name(&host) {
            return Err(NotAUrl::ClusterName);
        }
        Ok(Self { scheme, host, port, path: path.to_string() })
    }

    /// The same receiver at another path.
    pub fn with_path(&self, path: &str) -> Result<Self, NotAUrl> {
        // Without its first slash the path would be a part of the host.
        if !path.starts_with('/') {
            return Err(NotAUrl::BadEncoding);
        }
        Self::parse(&Self { path: path.into(), ..self.clone() }.server())
    }

    /// The `server` of a kubeconfig. A default port is left out: it would be in the Host header, where some receivers
    /// do not expect it.
    pub fn server(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Https => "https",
            Scheme::Http => "http",
        };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Host and port as `server` has them: an IPv6 address in brackets, and no default port. kube-apiserver's metrics
    /// name the host like this.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.scheme, self.port) {
            (Scheme::Https, 443) | (Scheme::Http, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl TryFrom<String> for Url {
    type Error = NotAUrl;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.server()
    }
}

/// The number of a port, or the default if the text has none.
pub(super) fn port_or(port: Option<&str>, default: u16) -> Result<u16, NotAUrl> {
    match port {
        Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
            port.parse().ok().filter(|port| *port != 0).ok_or(NotAUrl::BadPort)
        }
        Some(_) => Err(NotAUrl::BadPort),
        None => Ok(default),
    }
}

/// The host without brackets, and the text after the colon.
pub(super) fn split_port(authority: &str) -> Result<(String, Option<&str>), NotAUrl> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, after) = rest.split_once(']').ok_or(NotAUrl::BadHost)?;
        address.parse::<Ipv6Addr>().map_err(|_| NotAUrl::BadHost)?;
        return match after {
            "" => Ok((address.to_string(), None)),
            _ => Ok((address.to_string(), Some(after.strip_prefix(':').ok_or(NotAUrl::BadPort)?))),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() {
        return Err(NotAUrl::NoHost);
    }
    if !is_host(host) {
        return Err(NotAUrl::BadHost);
    }
    Ok((host.to_string(), port))
}

/// A DNS name or an IP address without brackets.
pub fn is_host(host: &str) -> bool {
    if host.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // Some resolvers take a name whose last label is a number for an address (0x7f000001, 127.1)
    // (https://url.spec.whatwg.org/#ends-in-a-number-checker).
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_number = last.bytes().all(|b| b.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .or(last.strip_prefix("0X"))
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    name.len() <= 253 && name.split('.').all(is_label) && !is_number
}

pub(super) fn is_cluster_name(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name.ends_with(".svc") || name.ends_with(".cluster.local")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_parsed() {
        for (text, host, port, path, server) in [
            ("https://sink.example.com", "sink.example.com", 443, "/", "https://sink.example.com/"),
            ("http://10.0.0.1:8080/a/b", "10.0.0.1", 8080, "/a/b", "http://10.0.0.1:8080/a/b"),
            ("https://[fd00::1]:9443/x%20y", "fd00::1", 9443, "/x%20y", "https://[fd00::1]:9443/x%20y"),
            ("https://[fd00::1]/", "fd00::1", 443, "/", "https://[fd00::1]/"),
            ("HTTPS://localhost:1/", "localhost", 1, "/", "https://localhost:1/"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host.as_str(), url.port, url.path.as_str()), (host, port, path), "{text}");
            assert_eq!(url.server(), server);
            assert_eq!(Url::parse(&url.server()), Ok(url), "{text}");
        }
    }

    #[test]
    fn a_url_that_client_go_would_misread_is_rejected() {
        for (text, want) in [
            ("", NotAUrl::NoScheme),
            ("sink:8443", NotAUrl::NoScheme),
            ("//sink/x", NotAUrl::NoScheme),
            ("ftp://sink/", NotAUrl::UnknownScheme),
            ("://sink/", NotAUrl::UnknownScheme),
            ("https://sink/x?token=1", NotAUrl::Query),
            ("https://sink?x", NotAUrl::Query),
            ("https://sink/#x", NotAUrl::Fragment),
            ("https://sink/#x?y", NotAUrl::Fragment),
            ("https://u:p@sink/", NotAUrl::UserInfo),
            ("https:///x", NotAUrl::NoHost),
            ("https://:443/", NotAUrl::NoHost),
            ("https://fd00::1/", NotAUrl::BadPort),
            ("https://[fd00::g]/", NotAUrl::BadHost),
            ("https://[fd00::1/", NotAUrl::BadHost),
            ("https://10.0.0.256/", NotAUrl::BadHost),
            ("https://0x7f000001:2379/", NotAUrl::BadHost),
            ("https://127.1/", NotAUrl::BadHost),
            ("https://2130706433/", NotAUrl::BadHost),
            ("https://a.0x1f/", NotAUrl::BadHost),
            ("https://-a/", NotAUrl::BadHost),
            ("https://a..b/", NotAUrl::BadHost),
            ("https://sink:0/", NotAUrl::BadPort),
            ("https://sink:65536/", NotAUrl::BadPort),
            ("https://sink:/", NotAUrl::BadPort),
            ("https://sink:+1/", NotAUrl::BadPort),
            ("https://[fd00::1]x/", NotAUrl::BadPort),
            ("https://sink/a b", NotAUrl::BadEncoding),
            ("https://sink/%zz", NotAUrl::BadEncoding),
            ("https://sink/%2", NotAUrl::BadEncoding),
            ("https://sink/ü", NotAUrl::BadEncoding),
            ("https://sink/\n", NotAUrl::BadEncoding),
            ("https://falco.falco.svc:9765/", NotAUrl::ClusterName),
            ("https://falco.falco.svc.cluster.local.:9765/", NotAUrl::ClusterName),
        ] {
            assert_eq!(Url::parse(text), Err(want), "{text}");
        }
    }
}
