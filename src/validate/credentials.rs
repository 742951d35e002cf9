//! The contents of Secrets: certificates, keys, tokens, passwords. Checked so that kube-apiserver starts with them. No
//! message repeats the content.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

/// At least one certificate, all of them readable.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut found = Vec::new();
    for next in CertificateDer::pem_slice_iter(pem) {
        let certificate = next.map_err(|_| "is not PEM".to_string())?;
        let n = found.len() + 1;
        X509Certificate::from_der(&certificate).map_err(|_| format!("has an unreadable certificate (number {n})"))?;
        found.push(certificate);
    }
    if found.is_empty() {
        return Err("has no certificate: it must be PEM with -----BEGIN CERTIFICATE-----".into());
    }
    Ok(found)
}

/// A private key that belongs to the first of the certificates.
pub(super) fn key_of(pem: &[u8], certificates: Vec<CertificateDer<'static>>) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        "has no private key: it must be PEM with -----BEGIN PRIVATE KEY-----, not encrypted".to_string()
    })?;
    match any_supported_type(&key) {
        Ok(key) => match CertifiedKey::new(certificates, key).keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err("does not belong to the certificate in tls.crt".into())
            }
            _ => Ok(()),
        },
        // kube-apiserver accepts kinds of keys that our TLS library cannot load. They are accepted without a
        // comparison.
        Err(_) if is_foreign(&certificates[0]) => Ok(()),
        Err(_) => Err("has a private key that cannot be read".into()),
    }
}

/// Whether the key of the certificate is of a kind that ring cannot load: small RSA, P-521, DSA.
fn is_foreign(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => key.key_size() < 2048,
        Ok(PublicKey::EC(point)) => point.key_size() > 384,
        // x509-parser does not know Ed25519, but ring does.
        Ok(PublicKey::Unknown(_)) => false,
        _ => true,
    }
}

/// One line of visible ASCII, as in a header, without trailing line ends.
pub(super) fn token(bytes: &[u8]) -> Result<String, String> {
    let text = one_line(bytes)?;
    if text.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err("must be one line of visible ASCII without spaces, because it goes into a header".into());
    }
    Ok(text)
}

/// One line of text, without trailing line ends.
pub(super) fn one_line(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_string())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("must be one line without control characters".into());
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["sink".to_string()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_key_belongs_to_its_certificate_and_to_no_other() {
        let ((cert, key), (_, other)) = (pair(), pair());
        let parsed = certificates(cert.as_bytes()).unwrap();
        assert_eq!(key_of(key.as_bytes(), parsed.clone()), Ok(()));
        assert_eq!(
            key_of(other.as_bytes(), parsed.clone()).unwrap_err(),
            "does not belong to the certificate in tls.crt"
        );
        assert!(key_of(cert.as_bytes(), parsed.clone()).unwrap_err().starts_with("has no private key"));
        let broken = "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(key_of(broken.as_bytes(), parsed).unwrap_err(), "has a private key that cannot be read");
    }

    #[test]
    fn certificates_are_really_read() {
        let (cert, key) = pair();
        assert_eq!(certificates(format!("# one\n{cert}\n{cert}").as_bytes()).unwrap().len(), 2);
        for (pem, want) in [
            ("", "has no certificate"),
            ("hello", "has no certificate"),
            (key.as_str(), "has no certificate"),
            ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n", "is not PEM"),
            (
                "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
                "has an unreadable certificate (number 1)",
            ),
        ] {
            assert!(certificates(pem.as_bytes()).unwrap_err().starts_with(want), "{pem}");
        }
    }

    #[test]
    fn a_token_is_one_line() {
        assert_eq!(token(b"abc\n").unwrap(), "abc");
        assert_eq!(token(b"abc\r\n\n").unwrap(), "abc");
        for bad in [&b""[..], b"\n", b"a b", b"a\nb", b" a", b"a\tb", b"a\0", "tök".as_bytes(), b"\xff"] {
            assert!(token(bad).is_err(), "{bad:?}");
        }
        assert_eq!(one_line("pässword 1\n".as_bytes()).unwrap(), "pässword 1");
    }
}
