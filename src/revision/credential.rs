//! Credentials of a webhook: files that kube-apiserver re-reads, in their own directory below
//! [`CREDENTIALS_DIR`].

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{CA_FILE, CREDENTIALS_DIR, Url, hex};

/// The token that kube-apiserver sends.
pub const TOKEN_FILE: &str = "token";
/// The client certificate of kube-apiserver, and its key.
pub const CERTIFICATE_FILE: &str = "tls.crt";
pub const KEY_FILE: &str = "tls.key";

/// All possible names of credential files.
const FILES: [&str; 4] = [CA_FILE, TOKEN_FILE, CERTIFICATE_FILE, KEY_FILE];

/// `<sink>-<eight hexadecimal digits>`. It becomes a path segment on a host, so nothing else is accepted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Directory(String);

/// The text is not the name of a credential directory.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a credential directory: it must be the name of a sink, a dash and eight hexadecimal digits")]
pub struct NotADirectory(String);

impl Directory {
    /// The name contains a hash of the destination. If the host and the token of a sink change together, a node that
    /// still uses the old host must not send it the new token.
    pub(crate) fn of(sink: &str, url: &Url) -> Self {
        let hash = hex(&Sha256::digest(format!("{}:{}", url.host, url.port)));
        Self(format!("{sink}-{}", &hash[..8]))
    }

    /// Whether the name is for this destination.
    pub(crate) fn is_for(&self, url: &Url) -> bool {
        self.0.rsplit_once('-').is_some_and(|(sink, _)| *self == Self::of(sink, url))
    }

    /// On the node.
    pub fn path(&self) -> String {
        format!("{CREDENTIALS_DIR}/{self}")
    }

    /// A file in it, on the node.
    pub fn file(&self, name: &str) -> String {
        format!("{CREDENTIALS_DIR}/{self}/{name}")
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Directory {
    type Error = NotADirectory;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_name = text.rsplit_once('-').is_some_and(|(sink, hash)| {
            let is_word = |text: &str, allowed: fn(u8) -> bool| !text.is_empty() && text.bytes().all(allowed);
            is_word(sink, |b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && sink.len() <= 63
                && is_word(hash, |b| matches!(b, b'a'..=b'f' | b'0'..=b'9'))
                && hash.len() == 8
        });
        if is_name { Ok(Self(text)) } else { Err(NotADirectory(text)) }
    }
}

impl From<Directory> for String {
    fn from(directory: Directory) -> Self {
        directory.0
    }
}

/// One credential file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    pub directory: Directory,
    /// One of [`FILES`].
    file: &'static str,
}

impl Path {
    /// `None` if no credential file has this name.
    pub fn new(directory: Directory, file: &str) -> Option<Self> {
        FILES.into_iter().find(|known| *known == file).map(|file| Self { directory, file })
    }

    pub fn file(&self) -> &'static str {
        self.file
    }

    /// On the node.
    pub fn on_node(&self) -> String {
        self.directory.file(self.file)
    }

    /// Whether anyone may see it: certificates are public.
    pub fn is_public(&self) -> bool {
        matches!(self.file, CA_FILE | CERTIFICATE_FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_path_segment_of_our_own_form() {
        for name in ["w-2cdc7443", "a-b-0-01234567"] {
            assert!(Directory::try_from(name.to_string()).is_ok(), "{name}");
        }
        for name in [
            "",
            "-01234567",
            "w",
            "w-0123456",
            "w-0123456g",
            "../x-01234567",
            "w/-01234567",
            "W-01234567",
            "w-01234567/",
        ] {
            assert!(Directory::try_from(name.to_string()).is_err(), "{name}");
        }
    }

    #[test]
    fn the_destination_is_part_of_the_name() {
        let (here, there) = (Url::parse("https://a.example/").unwrap(), Url::parse("https://b.example/").unwrap());
        let directory = Directory::of("hook", &here);
        assert!(directory.is_for(&here) && !directory.is_for(&there));
    }
}
