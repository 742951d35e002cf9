//! Why the certificate of a receiver is rejected. Pure.

use k8s_openapi::jiff::Timestamp;
use rustls::CertificateError;
use rustls::pki_types::UnixTime;

use super::target::TlsTarget;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// Without a CA in the Setup, kube-apiserver verifies with the authorities of its own image and mounts.
pub(super) const UNKNOWN_AUTHORITY: &str = "the server answers over TLS, but the agent cannot check whether kube-apiserver trusts its certificate: the Setup names no CA, so kube-apiserver uses the authorities of its own image. Set tls.caSecretRef to have it checked";

/// Why a certificate is not valid for `tls` at `now`.
pub(super) fn refused(why: &CertificateError, tls: &TlsTarget, now: Timestamp) -> String {
    match why {
        CertificateError::ExpiredContext { not_after, .. } => ended(timestamp(*not_after), now),
        CertificateError::NotValidYetContext { not_before, .. } => {
            let begin = timestamp(*not_before);
            let wait = span(begin.as_second() - now.as_second());
            format!("the certificate is not valid before {begin}, in {wait}, unless the clock of this node is slow")
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            // Such as `DnsName("a.example")` and `IpAddress(10.0.0.1)`.
            let bare = |name: &String| match name.split_once('(') {
                Some((_, rest)) => rest.trim_end_matches(')').trim_matches('"').to_string(),
                None => name.clone(),
            };
            let names: Vec<_> = presented.iter().map(bare).collect();
            let names = if names.is_empty() { "no name".to_string() } else { names.join(", ") };
            format!("the certificate is for {names}, not for {}. Correct tls.serverName or the certificate", tls.server_name)
        }
        CertificateError::UnknownIssuer => {
            "none of the authorities in tls.caSecretRef has issued the certificate".into()
        }
        // There is an authority of that name, but with another key.
        CertificateError::BadSignature => {
            "the authority in tls.caSecretRef with the issuer's name did not sign the certificate: was the authority replaced?".into()
        }
        other => format!("the certificate is not valid for {}: {other}", tls.server_name),
    }
}

/// For a certificate that is not valid any more.
pub(super) fn ended(not_after: Timestamp, now: Timestamp) -> String {
    format!("the certificate expired at {not_after}, {} ago", span(now.as_second() - not_after.as_second()))
}

fn timestamp(time: UnixTime) -> Timestamp {
    Timestamp::from_second(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
}

/// Days if there are at least two, else hours.
pub(super) fn span(seconds: i64) -> String {
    match seconds {
        ..HOUR => "less than an hour".into(),
        HOUR..=7_199 => "1 hour".into(),
        7_200..=172_799 => format!("{} hours", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(NOW + seconds).unwrap()
    }

    fn unix(seconds: i64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(NOW + seconds).unwrap()))
    }

    #[test]
    fn a_span_is_shown_in_days_or_hours() {
        for (seconds, want) in [
            (365 * DAY, "365 days"),
            (2 * DAY, "2 days"),
            (2 * DAY - 1, "47 hours"),
            (5 * HOUR, "5 hours"),
            (2 * HOUR - 1, "1 hour"),
            (0, "less than an hour"),
        ] {
            assert_eq!(span(seconds), want, "{seconds}");
        }
        assert_eq!(ended(at(-3 * DAY), at(0)), "the certificate expired at 2027-01-12T08:00:00Z, 3 days ago");
    }

    #[test]
    fn a_refusal_says_what_to_look_at() {
        let expected = ServerName::try_from("sink.test").unwrap();
        let own =
            TlsTarget { server_name: "sink.test".into(), ca_file: Some("/ca.crt".into()), insecure_skip_verify: false };
        let names = |presented: &[&str]| CertificateError::NotValidForNameContext {
            expected: expected.clone(),
            presented: presented.iter().map(ToString::to_string).collect(),
        };
        for (why, tls, want) in [
            (
                CertificateError::ExpiredContext { time: unix(0), not_after: unix(-30 * HOUR) },
                &own,
                "the certificate expired at 2027-01-14T02:00:00Z, 30 hours ago",
            ),
            (
                CertificateError::NotValidYetContext { time: unix(0), not_before: unix(90) },
                &own,
                "the certificate is not valid before 2027-01-15T08:01:30Z, in less than an hour, unless the clock of this node is slow",
            ),
            (
                names(&["DnsName(\"a.test\")", "IpAddress(10.0.0.1)"]),
                &own,
                "the certificate is for a.test, 10.0.0.1, not for sink.test. Correct tls.serverName or the certificate",
            ),
            (
                names(&[]),
                &own,
                "the certificate is for no name, not for sink.test. Correct tls.serverName or the certificate",
            ),
            (
                CertificateError::UnknownIssuer,
                &own,
                "none of the authorities in tls.caSecretRef has issued the certificate",
            ),
            (
                CertificateError::BadSignature,
                &own,
                "the authority in tls.caSecretRef with the issuer's name did not sign the certificate: was the authority replaced?",
            ),
            (CertificateError::Revoked, &own, "the certificate is not valid for sink.test: Revoked"),
        ] {
            assert_eq!(refused(&why, tls, at(0)), want);
        }
    }
}
