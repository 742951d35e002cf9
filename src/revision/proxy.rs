//! The proxy of a webhook, as client-go reads `proxy-url` in a kubeconfig.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::url::{NotAUrl, is_cluster_name, port_or, split_port};

/// A proxy that kube-apiserver connects through, instead of those of its environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy {
    pub scheme: ProxyScheme,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    pub port: u16,
}

/// The schemes that client-go accepts (kubernetes@v1.36.3
/// staging/src/k8s.io/client-go/tools/clientcmd/helpers.go, `parseProxyURL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyScheme {
    Http,
    Https,
    Socks5,
}

impl ProxyScheme {
    fn as_str(self) -> &'static str {
        match self {
            ProxyScheme::Http => "http",
            ProxyScheme::Https => "https",
            ProxyScheme::Socks5 => "socks5",
        }
    }

    /// As Go's http client has them (golang@go1.26.8 src/net/http/transport.go, `portMap`).
    fn default_port(self) -> u16 {
        match self {
            ProxyScheme::Http => 80,
            ProxyScheme::Https => 443,
            ProxyScheme::Socks5 => 1080,
        }
    }
}

/// Why a text is not such a proxy. No message repeats the text: it may have a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAProxy {
    #[error("must begin with http://, https:// or socks5://")]
    Scheme,
    #[error(
        "has a user or password before @, which everyone who can read the Setup would see: use a proxy without one"
    )]
    UserInfo,
    #[error("has a path, a query or a fragment, which a proxy does not have: remove it")]
    Path,
    #[error(
        "names a Service of the cluster, but kube-apiserver uses the node's DNS, which does not know it: use its ClusterIP"
    )]
    ClusterName,
    #[error("{0}")]
    Authority(NotAUrl),
}

impl Proxy {
    pub fn parse(text: &str) -> Result<Self, NotAProxy> {
        let (scheme, rest) = text.split_once("://").ok_or(NotAProxy::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => ProxyScheme::Http,
            "https" => ProxyScheme::Https,
            "socks5" => ProxyScheme::Socks5,
            _ => return Err(NotAProxy::Scheme),
        };
        if rest.contains('@') {
            return Err(NotAProxy::UserInfo);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(NotAProxy::Path);
        }
        let (host, port) = split_port(authority).map_err(NotAProxy::Authority)?;
        let port = port_or(port, scheme.default_port()).map_err(NotAProxy::Authority)?;
        if is_cluster_name(&host) {
            return Err(NotAProxy::ClusterName);
        }
        Ok(Self { scheme, host, port })
    }

    /// Host and port; an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Proxy {
    /// The `proxy-url` of a kubeconfig.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl TryFrom<String> for Proxy {
    type Error = NotAProxy;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> Self {
        proxy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_parsed() {
        for (text, want) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("HTTP://10.0.0.1/", "http://10.0.0.1:80"),
            ("https://proxy", "https://proxy:443"),
            ("socks5://[fd00::1]", "socks5://[fd00::1]:1080"),
            ("socks5://127.0.0.1:9050", "socks5://127.0.0.1:9050"),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            assert_eq!(proxy.to_string(), want);
            assert_eq!(Proxy::parse(want), Ok(proxy), "{text}");
        }
    }

    #[test]
    fn a_proxy_that_client_go_would_refuse_or_misread_is_rejected() {
        use NotAProxy::{Authority, ClusterName, Path, Scheme, UserInfo};
        for (text, want) in [
            ("", Scheme),
            ("proxy:3128", Scheme),
            ("socks4://proxy:1080", Scheme),
            ("socks5h://proxy:1080", Scheme),
            ("file:///etc/shadow", Scheme),
            ("http://me:s3cret@proxy:3128", UserInfo),
            ("http://me@proxy", UserInfo),
            ("http://proxy:3128/pac", Path),
            ("http://proxy:3128?x", Path),
            ("http://proxy:3128/#x", Path),
            ("http://", Authority(NotAUrl::NoHost)),
            ("http://:3128", Authority(NotAUrl::NoHost)),
            ("http://proxy:0", Authority(NotAUrl::BadPort)),
            ("http://proxy:", Authority(NotAUrl::BadPort)),
            ("http://fd00::1:3128", Authority(NotAUrl::BadPort)),
            ("http://127.1:3128", Authority(NotAUrl::BadHost)),
            ("http://pro xy:3128", Authority(NotAUrl::BadHost)),
            ("http://proxy\n:3128", Authority(NotAUrl::BadHost)),
            ("http://squid.proxies.svc:3128", ClusterName),
        ] {
            assert_eq!(Proxy::parse(text), Err(want), "{text}");
        }
    }
}
