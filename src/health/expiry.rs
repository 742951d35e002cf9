//! When the certificates and the token of a webhook expire. Pure.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// When the first certificate expires: a client shows that one, and the rest only leads to its authority.
pub fn of_certificate(pem: &[u8]) -> Option<Timestamp> {
    not_after(&CertificateDer::pem_slice_iter(pem).next()?.ok()?)
}

/// When the last of the authorities expires. A bundle may still have the one before.
pub fn of_authorities(pem: &[u8]) -> Option<Timestamp> {
    CertificateDer::pem_slice_iter(pem).filter_map(|certificate| not_after(&certificate.ok()?)).max()
}

/// When a JSON Web Token expires, if that is one and it has an `exp` (RFC 7519 section 4.1.4).
pub fn of_token(token: &str) -> Option<Timestamp> {
    let mut parts = token.trim().split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "a moment in seconds")]
    Timestamp::from_second(claims.get("exp")?.as_f64()? as i64).ok()
}

fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> String {
        let mut params = CertificateParams::new(vec!["sink.test".to_string()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_first_certificate_counts_and_the_last_authority() {
        let pem = format!("{}{}{}", certificate(2027), certificate(2029), certificate(2028));
        let year = |year: i32| Some(format!("{year}-01-01T00:00:00Z").parse::<Timestamp>().unwrap());
        assert_eq!((of_certificate(pem.as_bytes()), of_authorities(pem.as_bytes())), (year(2027), year(2029)));
        assert_eq!((of_certificate(b"no PEM"), of_authorities(b"")), (None, None));
    }

    #[test]
    fn only_a_web_token_with_an_end_has_one() {
        let token = |claims: &str| format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let end = of_token(&format!("{}\n", token(r#"{"sub":"a","exp":1800000000}"#)));
        assert_eq!(end, Some(Timestamp::from_second(1_800_000_000).unwrap()));
        for token in [token(r#"{"sub":"a"}"#), token("[]"), "a.b.c".into(), "s3cret".into(), "a.b.c.d".into()] {
            assert_eq!(of_token(&token), None, "{token}");
        }
    }
}
