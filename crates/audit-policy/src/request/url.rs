//! Parses the URL of a request as Go 1.26's `net/url` does.

use std::net::Ipv6Addr;

/// The target of a request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Target {
    /// Decoded: an escape can represent any byte.
    pub path: Vec<u8>,
    /// Not decoded.
    pub query: Vec<u8>,
}

impl Target {
    /// `url.ParseRequestURI`: no fragment, and a path begins with a slash.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return Err("invalid control character in URL");
        }
        if text.is_empty() {
            return Err("empty URL");
        }
        if text == "*" {
            return Ok(Self { path: b"*".to_vec(), query: Vec::new() });
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let query = query.as_bytes().to_vec();
        if !rest.starts_with('/') {
            // Something like `mailto:x` has no path.
            return if scheme.is_empty() {
                Err("invalid URI for request")
            } else {
                Ok(Self { path: Vec::new(), query })
            };
        }
        let mut path = rest;
        if !scheme.is_empty()
            && let Some(rest) = rest.strip_prefix("//")
        {
            let end = rest.find('/').unwrap_or(rest.len());
            check_authority(&scheme, &rest[..end])?;
            path = &rest[end..];
        }
        Ok(Self { path: unescape(path.as_bytes(), Mode::Path)?, query })
    }
}

/// The scheme in lower case, empty if absent, and the rest.
fn scheme(text: &str) -> Result<(String, &str), &'static str> {
    for (i, c) in text.bytes().enumerate() {
        match c {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((text[..i].to_ascii_lowercase(), &text[i + 1..])),
            _ => break,
        }
    }
    Ok((String::new(), text))
}

fn check_authority(scheme: &str, authority: &str) -> Result<(), &'static str> {
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    check_host(scheme, host)?;
    let is_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user.chars().all(is_user) {
        return Err("invalid userinfo");
    }
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    unescape(name.as_bytes(), Mode::Path)?;
    unescape(password.as_bytes(), Mode::Path)?;
    Ok(())
}

fn check_host(scheme: &str, host: &str) -> Result<(), &'static str> {
    let check_port = |port: &str| {
        let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
        if is_port { Ok(()) } else { Err("invalid port after host") }
    };
    match host.rfind('[') {
        Some(1..) => return Err("invalid IP-literal"),
        Some(0) => {
            let end = host.rfind(']').ok_or("missing ']' in host")?;
            check_port(&host[end + 1..])?;
            let (address, zone) = match host[1..end].split_once("%25") {
                Some((address, zone)) => (address, Some(zone)),
                None => (&host[1..end], None),
            };
            let address = unescape(address.as_bytes(), Mode::Host)?;
            let address = str::from_utf8(&address).map_err(|_| "invalid host")?;
            // The zone may also come without an escape.
            let (address, plain_zone) = match address.split_once('%') {
                Some((address, zone)) => (address, Some(zone)),
                None => (address, None),
            };
            let zone = match zone {
                Some(zone) => Some(unescape(zone.as_bytes(), Mode::Zone)?),
                None => plain_zone.map(|zone| zone.as_bytes().to_vec()),
            };
            if address.parse::<Ipv6Addr>().is_err() || zone.is_some_and(|zone| zone.is_empty()) {
                return Err("invalid host");
            }
            return Ok(());
        }
        None => {}
    }
    let colon = if matches!(scheme, "http" | "https") { host.find(':') } else { host.rfind(':') };
    if let Some(colon) = colon {
        check_port(&host[colon..])?;
    }
    unescape(host.as_bytes(), Mode::Host).map(drop)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Path,
    Query,
    Host,
    Zone,
}

fn is_host_byte(b: u8) -> bool {
    b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b)
}

fn unescape(text: &[u8], mode: Mode) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'%' => {
                let [high, low, after @ ..] = rest else { return Err("invalid URL escape") };
                let hex = |b: u8| char::from(b).to_digit(16);
                let (Some(h), Some(l)) = (hex(*high), hex(*low)) else { return Err("invalid URL escape") };
                let byte = (h << 4 | l) as u8;
                // A host may escape bytes that are not ASCII, and a zone those that a host may contain.
                let is_allowed = match mode {
                    Mode::Path | Mode::Query => true,
                    Mode::Host => h >= 8 || byte == b'%',
                    Mode::Zone => byte == b'%' || byte == b' ' || (byte < 0x80 && is_host_byte(byte)),
                };
                if !is_allowed {
                    return Err("invalid URL escape");
                }
                out.push(byte);
                rest = after;
            }
            b'+' if mode == Mode::Query => out.push(b' '),
            b if matches!(mode, Mode::Host | Mode::Zone) && !is_host_byte(*b) => {
                return Err("invalid character in host name");
            }
            b => out.push(*b),
        }
    }
    Ok(out)
}

/// Keys and values in their order (`url.Values`), without unreadable ones.
pub(super) fn query(text: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    const MAX_PARAMETERS: usize = 10_000;
    if text.iter().filter(|b| **b == b'&').count() >= MAX_PARAMETERS {
        return Vec::new();
    }
    let pairs = text.split(|b| *b == b'&').filter(|pair| !pair.is_empty() && !pair.contains(&b';'));
    pairs
        .filter_map(|pair| {
            let equals = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
            let value = pair.get(equals + 1..).unwrap_or_default();
            Some((unescape(&pair[..equals], Mode::Query).ok()?, unescape(value, Mode::Query).ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_gos_server_reads_it() {
        let path = |text: &str| Target::parse(text).map(|target| String::from_utf8_lossy(&target.path).into_owned());
        for (text, want) in [
            ("/a%2Fb/c?d", "/a/b/c"),
            ("//host/path", "//host/path"),
            ("/a#b", "/a#b"),
            ("/a b+c", "/a b+c"),
            ("*", "*"),
            ("https://user:p%40ss@[fe80::1%25eth0]:443/api", "/api"),
            ("HTTP://host:80", ""),
            ("http:///api", "/api"),
            ("mailto:x", ""),
            ("http:/api", "/api"),
            ("/%ff", "/\u{fffd}"),
        ] {
            assert_eq!(path(text), Ok(want.to_string()), "{text}");
        }
        for text in [
            "",
            "api",
            "?watch",
            ":/a",
            "/%2",
            "/%zz",
            "/a\n",
            "/\u{7f}",
            "http://a:b/",
            "http://a:1:2/",
            "http://[::1/",
            "http://[1.2.3.4]/",
            "http://a[::1]/",
            "http://a b/",
            "http://%41/",
            "http://u ser@host/",
        ] {
            assert!(path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_query_keeps_its_readable_parts() {
        let read = |text: &str| {
            let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            query(text.as_bytes())
                .into_iter()
                .map(|(k, v)| format!("{}={}", text_of(k), text_of(v)))
                .collect::<Vec<_>>()
        };
        assert_eq!(read("a=b&&c&d=%zz&e=f;g&h=1+2%3D=&a=z"), ["a=b", "c=", "h=1 2==", "a=z"]);
        assert_eq!(read(&"a&".repeat(9_999)).len(), 9_999);
        assert_eq!(read(&"a&".repeat(10_000)), [""; 0]);
    }
}
