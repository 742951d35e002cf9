//! Warnings before a certificate or a token of a sink expires. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::{AuditSetup, Expiring, Expiry, SetupFinding, SinkStatus};

/// Id of these findings.
pub(super) const ID: &str = "expires-soon";

/// The times before the end at which a warning is due, in days, the last one first.
const WARN_BEFORE: [(i64, &str); 3] = [(1, "1 day"), (7, "7 days"), (30, "30 days")];

/// One finding for each credential that expires soon.
pub(super) fn findings(setup: &AuditSetup, sinks: &[SinkStatus], now: Timestamp) -> Vec<SetupFinding> {
    let of_sink = |sink: &SinkStatus| {
        let index = setup.spec.sinks.iter().position(|spec| spec.name == sink.name)?;
        let finding = |expiry: &Expiry| {
            let message = message(&sink.name, expiry, now)?;
            let field = match expiry.of {
                Expiring::ServerCertificate => format!("spec.sinks[{index}].webhook"),
                Expiring::CertificateAuthority => format!("spec.sinks[{index}].webhook.tls.caSecretRef"),
                Expiring::ClientCertificate => format!("spec.sinks[{index}].webhook.auth.clientCertificateSecretRef"),
                Expiring::Token => format!("spec.sinks[{index}].webhook.auth.bearerTokenSecretRef"),
            };
            Some(SetupFinding { id: ID.into(), severity: "warning".into(), field, message })
        };
        Some(sink.expires.iter().filter_map(finding).collect::<Vec<_>>())
    };
    sinks.iter().filter_map(of_sink).flatten().collect()
}

/// The same on every day of a threshold, so that the status is not written for it.
fn message(sink: &str, Expiry { of, at }: &Expiry, now: Timestamp) -> Option<String> {
    let left = at.0.duration_since(now);
    let (what, advice) = match of {
        Expiring::ServerCertificate => ("the certificate of the receiver", "Renew it at the receiver"),
        Expiring::ClientCertificate => ("the client certificate", "Write a new one to its Secret"),
        Expiring::CertificateAuthority => ("the certificate authority", "Add the next one to its Secret"),
        Expiring::Token => ("the token", "Write a new one to its Secret"),
    };
    let at = at.0;
    if left.is_negative() {
        return Some(format!("sink {sink}: {what} expired at {at}. {advice}"));
    }
    let (_, within) = WARN_BEFORE.into_iter().find(|(days, _)| left < SignedDuration::from_hours(24 * days))?;
    Some(format!("sink {sink}: {what} expires at {at}, in less than {within}. {advice}"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_warning_changes_30_7_and_1_days_ahead_and_at_the_end() {
        let end: Timestamp = "2026-12-31T00:00:00Z".parse().unwrap();
        let hours = |hours: i64| {
            let expiry = Expiry { of: Expiring::Token, at: Time(end) };
            message("siem", &expiry, end - SignedDuration::from_hours(hours))
        };
        assert_eq!(hours(30 * 24), None);
        let cases = [
            (30 * 24 - 1, "expires at 2026-12-31T00:00:00Z, in less than 30 days"),
            (8 * 24, "expires at 2026-12-31T00:00:00Z, in less than 30 days"),
            (7 * 24 - 1, "expires at 2026-12-31T00:00:00Z, in less than 7 days"),
            (23, "expires at 2026-12-31T00:00:00Z, in less than 1 day"),
            (-1, "expired at 2026-12-31T00:00:00Z"),
        ];
        for (left, want) in cases {
            let want = format!("sink siem: the token {want}. Write a new one to its Secret");
            assert_eq!(hours(left), Some(want), "{left}");
        }
    }
}
