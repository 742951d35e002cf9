//! The way from kube-apiserver to a webhook: direct, through a proxy, or through an egress selector. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use static_pod::Facts;

use crate::api::Scheme;
use crate::revision::{Proxy, Url};

/// How kube-apiserver connects to a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// To these addresses if there are any (`hostAliases` of the manifest), else to those of the name.
    Direct(Vec<IpAddr>),
    /// Through a proxy. Shown without its credentials.
    Proxy { named_by: NamedBy, proxy: String },
    /// `--egress-selector-config-file` names a file that decides.
    Egress,
}

/// What names the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// `proxyURL` of the webhook, which no `NO_PROXY` limits.
    Setup,
    /// A variable of the manifest.
    Manifest(&'static str),
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamedBy::Setup => f.write_str("proxyURL"),
            NamedBy::Manifest(variable) => write!(f, "{variable} in its manifest"),
        }
    }
}

impl Way {
    /// The way that a manifest and the kubeconfig of the webhook give. `configured`: the proxy in the kubeconfig
    /// (kubernetes@v1.36.3 staging/src/k8s.io/client-go/transport/cache.go, `tlsTransportCache.get`).
    pub fn of(facts: &Facts, url: &Url, configured: Option<&Proxy>) -> Self {
        if facts.flags.get("egress-selector-config-file").is_some_and(|file| !file.is_empty()) {
            return Way::Egress;
        }
        if let Some(proxy) = configured {
            return Way::Proxy { named_by: NamedBy::Setup, proxy: proxy.authority() };
        }
        if let Some((variable, proxy)) = proxy(&facts.env, url) {
            return Way::Proxy { named_by: NamedBy::Manifest(variable), proxy };
        }
        let aliases = facts.host_aliases.get(&url.host).into_iter().flatten();
        Way::Direct(aliases.filter_map(|address| address.parse().ok()).collect())
    }
}

/// The variable that names a proxy for this URL, and the host of the proxy, as Go's http client decides
/// (golang.org/x/net@v0.57.0 http/httpproxy/proxy.go).
fn proxy(env: &BTreeMap<String, String>, url: &Url) -> Option<(&'static str, String)> {
    let any = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, env.get(name).filter(|value| !value.is_empty())?.as_str())))
    };
    let (variable, proxy) = match url.scheme {
        Scheme::Https => any(["HTTPS_PROXY", "https_proxy"])?,
        Scheme::Http => any(["HTTP_PROXY", "http_proxy"])?,
    };
    let exceptions = any(["NO_PROXY", "no_proxy"]).map_or("", |(_, value)| value);
    if is_exception(exceptions, &url.host, url.port) {
        return None;
    }
    let rest = proxy.split_once("://").map_or(proxy, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    Some((variable, authority.rsplit('@').next().unwrap_or(authority).to_string()))
}

/// Whether NO_PROXY excludes the host.
fn is_exception(no_proxy: &str, host: &str, port: u16) -> bool {
    let host = host.to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    let matches = |entry: &str| {
        if let Ok(network) = entry.parse::<IpNet>() {
            return ip.is_some_and(|ip| network.contains(&ip));
        }
        let (name, only) = split_port(entry);
        let is_port = only.is_none_or(|only| only == port.to_string());
        is_port
            && match (name.parse::<IpAddr>().ok(), ip) {
                (Some(named), Some(ip)) => named == ip,
                (None, None) => is_domain(name, &host),
                _ => false,
            }
    };
    no_proxy.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| match entry.as_str() {
        "" => false,
        "*" => true,
        entry => matches(entry),
    })
}

/// An entry without its port, and the port.
fn split_port(entry: &str) -> (&str, Option<&str>) {
    match entry.rsplit_once(':') {
        // An IPv6 address without brackets has no port.
        Some((host, port)) if !host.contains(':') || host.starts_with('[') && host.ends_with(']') => {
            (host.trim_start_matches('[').trim_end_matches(']'), Some(port))
        }
        _ => (entry, None),
    }
}

/// `example.com` is the domain and all below it; `.example.com` and `*.example.com` only what is below.
fn is_domain(entry: &str, host: &str) -> bool {
    let entry = entry.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(entry);
    match entry.strip_prefix('.') {
        Some(_) => host.ends_with(entry),
        None => host == entry || host.strip_suffix(entry).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(env: &str, aliases: &str, flags: &str) -> Facts {
        static_pod::read(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: kube-apiserver}}\nspec:\n  hostAliases: [{aliases}]\n  containers:\n  \
             - name: kube-apiserver\n    image: kube-apiserver\n    command: [kube-apiserver{flags}]\n    env: [{env}]\n"
        ))
        .unwrap()
    }

    fn way(env: &[(&str, &str)], url: &str) -> Option<String> {
        let env: Vec<_> = env.iter().map(|(name, value)| format!("{{name: {name}, value: {value:?}}}")).collect();
        match Way::of(&facts(&env.join(", "), "", ""), &Url::parse(url).unwrap(), None) {
            Way::Proxy { named_by: NamedBy::Manifest(variable), proxy } => Some(format!("{variable} {proxy}")),
            Way::Direct(addresses) if addresses.is_empty() => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_proxy_is_used_as_go_uses_it() {
        let https: &[_] = &[("HTTPS_PROXY", "http://user:secret@proxy:3128/")];
        assert_eq!(way(https, "https://sink/").unwrap(), "HTTPS_PROXY proxy:3128");
        assert_eq!(way(&[("https_proxy", "proxy:3128")], "https://sink/").unwrap(), "https_proxy proxy:3128");
        assert_eq!(way(https, "http://sink/"), None);
        assert_eq!(way(&[("HTTPS_PROXY", "")], "https://sink/"), None);
        assert_eq!(way(https, "https://127.0.0.1/"), None);
        assert_eq!(way(https, "https://[::1]/"), None);
        assert_eq!(way(https, "https://localhost/"), None);
        // NO_PROXY, URL -> whether the proxy is used.
        let cases = [
            ("*", "https://sink.example.com/", false),
            ("example.com", "https://sink.example.com/", false),
            ("example.com", "https://example.com/", false),
            ("example.com", "https://badexample.com/", true),
            (".example.com", "https://sink.example.com/", false),
            (".example.com", "https://example.com/", true),
            ("*.example.com", "https://sink.example.com/", false),
            ("a, Example.COM", "https://sink.example.com/", false),
            ("example.com:443", "https://example.com/", false),
            ("example.com:8443", "https://example.com/", true),
            ("10.0.0.0/8", "https://10.96.0.7/", false),
            ("10.0.0.0/8", "https://11.96.0.7/", true),
            ("10.0.0.0/8", "https://sink.example.com/", true),
            ("10.96.0.7", "https://10.96.0.7/", false),
            ("10.96.0.7:8443", "https://10.96.0.7/", true),
            ("fd00::/8", "https://[fd00::7]/", false),
            ("fd00::7", "https://[fd00::7]:8443/", false),
            ("[fd00::7]:8443", "https://[fd00::7]:8443/", false),
            ("[fd00::7]:8443", "https://[fd00::7]/", true),
            ("", "https://sink.example.com/", true),
        ];
        for (no_proxy, url, is_used) in cases {
            let found = way(&[https[0], ("NO_PROXY", no_proxy)], url);
            assert_eq!(found.is_some(), is_used, "{no_proxy} {url}");
        }
    }

    #[test]
    fn aliases_and_an_egress_selector_are_ways_too() {
        let url = Url::parse("https://sink:8443/").unwrap();
        let aliases = facts("", "{ip: 10.0.0.1, hostnames: [sink]}", "");
        assert_eq!(Way::of(&aliases, &url, None), Way::Direct(vec!["10.0.0.1".parse().unwrap()]));
        let egress = facts("", "", ", --egress-selector-config-file=/etc/egress.yaml");
        assert_eq!(Way::of(&egress, &url, None), Way::Egress);
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_comes_before_that_of_the_environment_and_its_exceptions() {
        let proxy = Proxy::parse("socks5://[fd00::1]").unwrap();
        let want = Way::Proxy { named_by: NamedBy::Setup, proxy: "[fd00::1]:1080".into() };
        let no_proxy = "{name: HTTPS_PROXY, value: 'other:3128'}, {name: NO_PROXY, value: '*'}";
        for (env, url) in [(no_proxy, "https://sink:8443/"), ("", "https://127.0.0.1/"), ("", "http://localhost/")] {
            let facts = facts(env, "{ip: 10.0.0.1, hostnames: [sink]}", "");
            assert_eq!(Way::of(&facts, &Url::parse(url).unwrap(), Some(&proxy)), want, "{url}");
        }
    }
}
