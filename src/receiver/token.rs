//! The bearer token that clients must send.

use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;

use super::Error;

pub(super) struct Token {
    file: PathBuf,
}

impl Token {
    /// An unusable file is an error at the start, not at the first request.
    pub(super) fn open(file: &Path) -> Result<Self, Error> {
        let token = Self { file: file.into() };
        match token.read() {
            Ok(text) if text.trim().is_empty() => Err(Error::TokenEmpty(token.file)),
            Ok(_) => Ok(token),
            Err(error) => Err(Error::Read(token.file, error)),
        }
    }

    /// Whether the value of an Authorization header has the token. The file is read for each request, because it may be
    /// rotated.
    pub(super) fn is_shown(&self, authorization: &str) -> std::io::Result<bool> {
        let token = self.read()?;
        let sent = authorization.strip_prefix("Bearer ").unwrap_or_default();
        Ok(is_equal(sent.trim(), token.trim()))
    }

    fn read(&self) -> std::io::Result<String> {
        std::fs::read_to_string(&self.file)
    }
}

/// Compares in constant time. An empty token never matches.
fn is_equal(sent: &str, token: &str) -> bool {
    !token.is_empty() && bool::from(sent.as_bytes().ct_eq(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_as_a_whole() {
        assert!(is_equal("secret", "secret"));
        for (sent, token) in
            [("", "secret"), ("secre", "secret"), ("secret ", "secret"), ("Secret", "secret"), ("", "")]
        {
            assert!(!is_equal(sent, token), "{sent:?} {token:?}");
        }
    }

    #[test]
    fn an_unusable_file_is_an_error_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(Token::open(&path), Err(Error::Read(..))));
        crate::node::files::Host::open(directory.path()).unwrap().replace("/token", b" \n", 0o600).unwrap();
        assert!(matches!(Token::open(&path), Err(Error::TokenEmpty(..))));
    }
}
