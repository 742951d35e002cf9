//! The version of a kube-apiserver, as far as its behaviour depends on it.

use std::fmt;
use std::str::FromStr;

/// A minor version: 36 for `1.36`, `v1.36.3` and `v1.36.3+k3s1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesVersion(u32);

/// The text is not a version of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a version such as 1.36")]
pub struct NotAVersion;

impl KubernetesVersion {
    /// `new(36)` is 1.36.
    pub const fn new(minor: u32) -> Self {
        Self(minor)
    }

    pub fn minor(self) -> u32 {
        self.0
    }
}

impl FromStr for KubernetesVersion {
    type Err = NotAVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix('v').unwrap_or(text).strip_prefix("1.").ok_or(NotAVersion)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (minor, suffix) = rest.split_at(end);
        let is_version = suffix.is_empty() || suffix.starts_with(['.', '-', '+']);
        minor.parse().ok().filter(|_| is_version).map(Self).ok_or(NotAVersion)
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_in_every_form_that_kubernetes_writes() {
        for (text, want) in [
            ("1.36", Some(36)),
            ("v1.29.4", Some(29)),
            ("v1.36.3+k3s1", Some(36)),
            ("v1.33.0-rc.1+k3s1", Some(33)),
            ("v1.36+", Some(36)),
            ("1", None),
            ("1.", None),
            ("2.1", None),
            ("v2.1", None),
            ("", None),
            ("1.x", None),
            ("1.36x", None),
            ("latest", None),
            ("1.99999999999", None),
        ] {
            assert_eq!(text.parse::<KubernetesVersion>().ok().map(KubernetesVersion::minor), want, "{text}");
        }
    }
}
