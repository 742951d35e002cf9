//! The Secrets of the receiver that the chart brings: its certificate and its token, made in the cluster.
//!
//! Not by Helm: where a chart is only rendered, as by Argo CD, each rendering would make new ones, and a new CA
//! restarts every API server before 1.36. [`plan`] decides which are missing or due, [`keep`] writes them. A Secret
//! that can serve is left alone, and so is one that somebody else made. A certificate is renewed by the same CA, so a
//! renewal changes nothing for those who trust it. The key of the CA is in a Secret of its own, which no pod mounts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use tokio::time::sleep;
use x509_parser::extensions::GeneralName;

use super::cache::Cache;
use super::{Context, DEBOUNCE, RETRY_MAX, now};
use crate::api::HOSTS_ANNOTATION;
use crate::error::LastError;

/// The Service of the receiver.
const SERVICE: &str = "audit-receiver";
const TLS_SECRET: &str = "audit-receiver-tls";
const TOKEN_SECRET: &str = "audit-receiver-token";
const CA_SECRET: &str = "audit-receiver-ca";
/// Type of the Secret with the key of the CA: no other program reads one of this type.
const CA_TYPE: &str = "audit-operator.io/receiver-ca";
/// Marks the Secrets that the operator made, and may replace.
const MANAGED_BY_LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "audit-operator");

const DAY: i64 = 24 * 3_600;
const CA_DAYS: i64 = 3_650;
const CERTIFICATE_DAYS: i64 = 365;
/// A certificate is renewed when it has less left.
const RENEWED_DAYS: i64 = 90;
/// A CA that has less left signs nothing more. More than [`RENEWED_DAYS`], or a new certificate would be due at once.
const CA_SIGNS_DAYS: i64 = 180;
/// How often to look when nothing changes: certificates are due on a day.
const PERIOD: Duration = Duration::from_secs(12 * 3_600);

/// A Secret that the controller makes for the receiver.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverSecret {
    /// Its certificate and key, with the CA.
    Tls,
    /// Its bearer token.
    Token,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Request(#[from] super::Error),
    #[error("cannot make {what}")]
    Make {
        what: &'static str,
        #[source]
        source: rcgen::Error,
    },
    #[error("cannot make a token: the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
    #[error("Secret {CA_SECRET} was not made by the operator, which needs the name for its CA: delete that Secret")]
    ForeignCa,
}

/// The Secret under a name.
#[derive(Debug, PartialEq, Eq)]
enum Stored<T> {
    Missing,
    Usable(T),
    /// The operator made it, and somebody damaged it.
    Damaged,
    /// Somebody else made it.
    Foreign,
}

/// The facts about a CA.
#[derive(Debug, PartialEq, Eq)]
struct Ca {
    certificate: Vec<u8>,
    not_after: Timestamp,
}

/// The facts about a certificate that a CA signed.
#[derive(Debug, PartialEq, Eq)]
struct Certificate {
    /// The part of the Secret that clients need to trust the receiver.
    ca: Vec<u8>,
    not_after: Timestamp,
    names: Vec<String>,
}

/// All three Secrets.
#[derive(Debug)]
struct AllStored {
    ca: Stored<Ca>,
    certificate: Stored<Certificate>,
    token: Stored<()>,
}

/// The Secrets to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Plan {
    ca: bool,
    certificate: Option<Why>,
    token: bool,
}

/// Why there is a new certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Missing,
    Damaged,
    EndsSoon,
    OtherName,
    OtherCa,
}

/// Decides what is missing or due for the receiver at `host`.
fn plan(stored: &AllStored, wanted: &[ReceiverSecret], host: &str, now: Timestamp) -> Plan {
    let wants = |secret| wanted.contains(&secret);
    let certificate = if wants(ReceiverSecret::Tls) { certificate_due(stored, host, now) } else { None };
    let can_sign = matches!(&stored.ca, Stored::Usable(ca) if days_left(ca.not_after, now) >= CA_SIGNS_DAYS);
    Plan {
        ca: certificate.is_some() && !can_sign,
        certificate,
        token: wants(ReceiverSecret::Token) && matches!(stored.token, Stored::Missing | Stored::Damaged),
    }
}

fn certificate_due(stored: &AllStored, host: &str, now: Timestamp) -> Option<Why> {
    let have = match &stored.certificate {
        Stored::Foreign => return None,
        Stored::Missing => return Some(Why::Missing),
        Stored::Damaged => return Some(Why::Damaged),
        Stored::Usable(have) => have,
    };
    match &stored.ca {
        _ if days_left(have.not_after, now) < RENEWED_DAYS => Some(Why::EndsSoon),
        _ if !have.names.iter().any(|name| name == host) => Some(Why::OtherName),
        Stored::Usable(ca) if ca.certificate != have.ca => Some(Why::OtherCa),
        // Without the key of the CA nothing can be renewed, and what is there serves until then.
        _ => None,
    }
}

fn days_left(not_after: Timestamp, now: Timestamp) -> i64 {
    (not_after.as_second() - now.as_second()) / DAY
}

/// The name that kube-apiserver expects of a sink that is a Service.
fn host(namespace: &str) -> String {
    format!("{SERVICE}.{namespace}.svc")
}

/// A certificate or CA with its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

fn make_ca(now: Timestamp) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("{SERVICE} CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, CA_DAYS);
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

fn make_certificate(ca: &Pair, namespace: &str, now: Timestamp) -> Result<Pair, rcgen::Error> {
    let host = host(namespace);
    let names = [format!("{host}.cluster.local"), format!("{SERVICE}.{namespace}"), SERVICE.to_string()];
    let mut params = CertificateParams::new([vec![host], names.into()].concat())?;
    params.distinguished_name.push(DnType::CommonName, SERVICE);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // Not longer than the CA, without which it is worth nothing.
    set_validity(&mut params, now, CERTIFICATE_DAYS.min(days_left(not_after(ca.certificate.as_bytes()), now)));
    let issuer = Issuer::from_ca_cert_pem(&ca.certificate, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate()?;
    Ok(Pair { certificate: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

/// 256 random bits: 43 characters.
fn make_token() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// From yesterday, for clocks that are slow, to the beginning of the day that is `days` away.
fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i64) {
    let day = |days: i64| {
        let date = (now + SignedDuration::from_secs(days * DAY)).to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    params.not_before = day(-1);
    params.not_after = day(days);
}

/// When the first certificate of a PEM text ends. One that cannot be read has ended.
fn not_after(pem: &[u8]) -> Timestamp {
    read_certificate(pem).map_or(Timestamp::MIN, |certificate| certificate.not_after)
}

/// The first certificate of a PEM text.
struct Read {
    der: Vec<u8>,
    not_after: Timestamp,
    names: Vec<String>,
    is_ca: bool,
}

fn read_certificate(pem: &[u8]) -> Option<Read> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let names = certificate.subject_alternative_name().ok()?.map_or_else(Vec::new, |names| {
        let names = names.value.general_names.iter();
        names
            .filter_map(|name| if let GeneralName::DNSName(name) = name { Some(name.to_string()) } else { None })
            .collect()
    });
    Some(Read {
        not_after: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
        names,
        is_ca: certificate.is_ca(),
        der: der.to_vec(),
    })
}

/// Judges a Secret. One that somebody else made is not looked into.
fn judge<T>(secret: Option<&Secret>, read: impl FnOnce(&BTreeMap<String, ByteString>) -> Option<T>) -> Stored<T> {
    let Some(secret) = secret else { return Stored::Missing };
    let (label, operator) = MANAGED_BY_LABEL;
    if secret.labels().get(label).is_none_or(|manager| manager != operator) {
        return Stored::Foreign;
    }
    secret.data.as_ref().and_then(read).map_or(Stored::Damaged, Stored::Usable)
}

fn ca(data: &BTreeMap<String, ByteString>) -> Option<Ca> {
    let pair = ca_pair(data)?;
    let read = read_certificate(pair.certificate.as_bytes()).filter(|read| read.is_ca)?;
    let key = KeyPair::from_pem(&pair.key).ok()?;
    Issuer::from_ca_cert_pem(&pair.certificate, key).ok()?;
    Some(Ca { certificate: read.der, not_after: read.not_after })
}

fn ca_pair(data: &BTreeMap<String, ByteString>) -> Option<Pair> {
    let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
    Some(Pair { certificate: text("ca.crt")?, key: text("ca.key")? })
}

fn certificate(data: &BTreeMap<String, ByteString>) -> Option<Certificate> {
    let read = read_certificate(&data.get("tls.crt")?.0)?;
    KeyPair::from_pem(std::str::from_utf8(&data.get("tls.key")?.0).ok()?).ok()?;
    let ca = read_certificate(&data.get("ca.crt")?.0)?;
    Some(Certificate { ca: ca.der, not_after: read.not_after, names: read.names })
}

fn token(data: &BTreeMap<String, ByteString>) -> Option<()> {
    data.get("token").filter(|token| !token.0.trim_ascii().is_empty()).map(drop)
}

/// Keeps the Secrets for as long as this controller leads. `shown`: the Secrets of the namespace. Ends only by being
/// dropped.
pub(super) async fn keep(
    context: &Context,
    shown: &Cache<Secret>,
    mut changes: watch::Receiver<()>,
    wanted: &[ReceiverSecret],
) -> Infallible {
    if wanted.is_empty() {
        return std::future::pending().await;
    }
    let mut last_error = LastError::default();
    loop {
        changes.mark_unchanged();
        match make_missing(context, shown, wanted, now()).await {
            Ok(()) => {
                last_error.clear();
                tokio::select! {
                    _ = changes.changed() => sleep(DEBOUNCE).await,
                    () = sleep(PERIOD) => {}
                }
            }
            Err(error) => {
                // The passes report an outage.
                let is_outage = matches!(&error, Error::Request(error) if error.is_outage());
                if let Some(error) = last_error.changed(&error).filter(|_| !is_outage) {
                    tracing::warn!(error, "cannot make the Secrets of the receiver; retrying");
                }
                sleep(RETRY_MAX).await;
            }
        }
    }
}

async fn make_missing(
    context: &Context,
    shown: &Cache<Secret>,
    wanted: &[ReceiverSecret],
    now: Timestamp,
) -> Result<(), Error> {
    shown.synced().await?;
    let api = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let secrets = shown.objects();
    let read = |name: &str| secrets.get(name).map(|secret| Secret::clone(secret));
    let (ca_secret, tls_secret, token_secret) = (read(CA_SECRET), read(TLS_SECRET), read(TOKEN_SECRET));
    let stored = AllStored {
        ca: judge(ca_secret.as_ref(), ca),
        certificate: judge(tls_secret.as_ref(), certificate),
        token: judge(token_secret.as_ref(), token),
    };
    let host = host(&context.namespace);
    let plan = plan(&stored, wanted, &host, now);
    if plan.ca && stored.ca == Stored::Foreign {
        return Err(Error::ForeignCa);
    }
    if let Some(why) = plan.certificate {
        // The CA first: a certificate whose CA was lost could not be renewed.
        let signs = match ca_secret.as_ref().and_then(|secret| ca_pair(secret.data.as_ref()?)) {
            Some(pair) if !plan.ca => pair,
            _ => {
                let made = make_ca(now).map_err(|source| Error::Make { what: "a CA", source })?;
                let data = [("ca.crt", &made.certificate), ("ca.key", &made.key)];
                write(shown, &api, secret(ca_secret, CA_SECRET, CA_TYPE, None, &data)).await?;
                made
            }
        };
        let made = make_certificate(&signs, &context.namespace, now)
            .map_err(|source| Error::Make { what: "a certificate", source })?;
        let data = [("ca.crt", &signs.certificate), ("tls.crt", &made.certificate), ("tls.key", &made.key)];
        write(shown, &api, secret(tls_secret, TLS_SECRET, "kubernetes.io/tls", Some(&host), &data)).await?;
        tracing::info!(secret = TLS_SECRET, ?why, new_ca = plan.ca, "made a certificate for the receiver");
    }
    if plan.token {
        let made = make_token().map_err(Error::Random)?;
        write(shown, &api, secret(token_secret, TOKEN_SECRET, "Opaque", Some(&host), &[("token", &made)])).await?;
        tracing::info!(secret = TOKEN_SECRET, "made a token for the receiver");
    }
    Ok(())
}

/// The Secret with new data. Of one that is there its metadata stays; without an owner, so that it outlives a new
/// installation.
fn secret(before: Option<Secret>, name: &str, type_: &str, hosts: Option<&str>, data: &[(&str, &String)]) -> Secret {
    let mut secret = before.unwrap_or_else(|| Secret {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        type_: Some(type_.into()),
        ..Secret::default()
    });
    // Not app.kubernetes.io/instance: Argo CD removes what has it and is not in its repository.
    let labels =
        [("app.kubernetes.io/name", "audit-operator"), ("app.kubernetes.io/component", "receiver"), MANAGED_BY_LABEL];
    secret.labels_mut().extend(labels.map(|(key, value)| (key.to_string(), value.to_string())));
    let annotations = hosts.map(|hosts| (HOSTS_ANNOTATION.to_string(), hosts.to_string()));
    secret.annotations_mut().extend(annotations);
    secret.data =
        Some(data.iter().map(|(key, value)| (key.to_string(), ByteString(value.as_bytes().into()))).collect());
    secret
}

/// Creates a Secret, or replaces the version that was read.
async fn write(shown: &Cache<Secret>, api: &Api<Secret>, secret: Secret) -> Result<(), super::Error> {
    let name = secret.name_any();
    let written = match secret.resource_version() {
        Some(_) => api.replace(&name, &PostParams::default(), &secret).await,
        None => api.create(&PostParams::default(), &secret).await,
    };
    shown.wrote(written.map_err(super::Error::request("write", format!("Secret {name}")))?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};
    use rustls::server::ParsedCertificate;

    use super::*;

    const BOTH: [ReceiverSecret; 2] = [ReceiverSecret::Tls, ReceiverSecret::Token];
    const HOST: &str = "audit-receiver.audit-system.svc";

    fn day(days: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + days * DAY).unwrap()
    }

    fn all() -> AllStored {
        AllStored {
            ca: Stored::Usable(Ca { certificate: vec![1], not_after: day(CA_DAYS) }),
            certificate: Stored::Usable(Certificate {
                ca: vec![1],
                not_after: day(CERTIFICATE_DAYS),
                names: vec![HOST.into()],
            }),
            token: Stored::Usable(()),
        }
    }

    #[test]
    fn only_what_is_missing_or_due_is_made() {
        type Change = fn(&mut AllStored);
        let ours = |change: fn(&mut Certificate)| {
            let mut stored = all();
            if let Stored::Usable(certificate) = &mut stored.certificate {
                change(certificate);
            }
            stored
        };
        let with = |change: Change| {
            let mut stored = all();
            change(&mut stored);
            stored
        };
        let nothing = Plan::default();
        let renewed = |why, ca| Plan { ca, certificate: Some(why), token: false };
        let none = || AllStored { ca: Stored::Missing, certificate: Stored::Missing, token: Stored::Missing };
        for (what, stored, at, want) in [
            ("all is there", all(), 0, nothing),
            ("nothing is there", none(), 0, Plan { ca: true, certificate: Some(Why::Missing), token: true }),
            ("nothing is due yet", all(), CERTIFICATE_DAYS - RENEWED_DAYS, nothing),
            ("renewed by the same CA", all(), CERTIFICATE_DAYS - RENEWED_DAYS + 1, renewed(Why::EndsSoon, false)),
            ("no CA is needed yet", with(|s| s.ca = Stored::Missing), 0, nothing),
            ("a CA is needed", with(|s| s.ca = Stored::Damaged), 300, renewed(Why::EndsSoon, true)),
            ("the CA ends", all(), CA_DAYS - CA_SIGNS_DAYS + 1, renewed(Why::EndsSoon, true)),
            ("the CA still signs", all(), CA_DAYS - CA_SIGNS_DAYS, renewed(Why::EndsSoon, false)),
            ("another CA", ours(|c| c.ca = vec![2]), 0, renewed(Why::OtherCa, false)),
            ("another namespace", ours(|c| c.names = vec!["x".into()]), 0, renewed(Why::OtherName, false)),
            ("damaged", with(|s| s.certificate = Stored::Damaged), 0, renewed(Why::Damaged, false)),
            ("a person's", with(|s| s.certificate = Stored::Foreign), 5000, nothing),
            ("a person's token", with(|s| s.token = Stored::Foreign), 0, nothing),
            ("no token", with(|s| s.token = Stored::Missing), 0, Plan { token: true, ..nothing }),
        ] {
            assert_eq!(plan(&stored, &BOTH, HOST, day(at)), want, "{what}");
        }
        assert_eq!(plan(&none(), &[], HOST, day(0)), nothing);
        assert_eq!(plan(&none(), &[ReceiverSecret::Token], HOST, day(0)), Plan { token: true, ..nothing });
    }

    /// The Secrets as they are written first.
    fn made() -> (Secret, Secret, Secret) {
        let signs = make_ca(day(0)).unwrap();
        let made = make_certificate(&signs, "audit-system", day(0)).unwrap();
        let data = [("ca.crt", &signs.certificate), ("tls.crt", &made.certificate), ("tls.key", &made.key)];
        (
            secret(None, CA_SECRET, CA_TYPE, None, &[("ca.crt", &signs.certificate), ("ca.key", &signs.key)]),
            secret(None, TLS_SECRET, "kubernetes.io/tls", Some(HOST), &data),
            secret(None, TOKEN_SECRET, "Opaque", Some(HOST), &[("token", &make_token().unwrap())]),
        )
    }

    fn stored(ca_secret: &Secret, tls_secret: &Secret, token_secret: &Secret) -> AllStored {
        AllStored {
            ca: judge(Some(ca_secret), ca),
            certificate: judge(Some(tls_secret), certificate),
            token: judge(Some(token_secret), token),
        }
    }

    #[test]
    fn what_was_made_is_found_good_and_the_ca_lasts_as_certificates_come_and_go() {
        let (ca_secret, mut tls_secret, token_secret) = made();
        let ca_pem = tls_secret.data.as_ref().unwrap()["ca.crt"].clone();
        let signs = ca_pair(ca_secret.data.as_ref().unwrap()).unwrap();
        let mut renewals = 0;
        for at in (0..CA_DAYS - CA_SIGNS_DAYS).step_by(30) {
            let plan = plan(&stored(&ca_secret, &tls_secret, &token_secret), &BOTH, HOST, day(at));
            assert!(!plan.ca && !plan.token, "{at}: {plan:?}");
            if plan.certificate.is_some() {
                renewals += 1;
                let made = make_certificate(&signs, "audit-system", day(at)).unwrap();
                let data = [("ca.crt", &signs.certificate), ("tls.crt", &made.certificate), ("tls.key", &made.key)];
                tls_secret = secret(Some(tls_secret), TLS_SECRET, "kubernetes.io/tls", Some(HOST), &data);
            }
            let data = tls_secret.data.as_ref().unwrap();
            assert_eq!(data["ca.crt"], ca_pem, "a new CA would be a new Revision");
            verify(&data["ca.crt"].0, &data["tls.crt"].0, day(at));
        }
        assert!((10..15).contains(&renewals), "{renewals}");
        assert_eq!(token_secret.data.as_ref().unwrap()["token"].0.len(), 43);
    }

    /// As kube-apiserver checks it.
    fn verify(ca: &[u8], certificate: &[u8], now: Timestamp) {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca).unwrap()).unwrap();
        let leaf = CertificateDer::from_pem_slice(certificate).unwrap();
        let leaf = ParsedCertificate::try_from(&leaf).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap()));
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], now, algorithms.all).unwrap();
        rustls::client::verify_server_name(&leaf, &ServerName::try_from(HOST).unwrap()).unwrap();
    }

    #[test]
    fn what_a_person_put_there_is_left_alone_and_what_was_ours_is_mended() {
        let (mut ca_secret, mut tls_secret, mut token_secret) = made();
        let spoil = |secret: &mut Secret, key: &str| {
            secret.data.as_mut().unwrap().insert(key.into(), ByteString(b" ".to_vec()));
        };
        spoil(&mut ca_secret, "ca.key");
        spoil(&mut tls_secret, "tls.crt");
        spoil(&mut token_secret, "token");
        let all = stored(&ca_secret, &tls_secret, &token_secret);
        let want = Plan { ca: true, certificate: Some(Why::Damaged), token: true };
        assert_eq!(plan(&all, &BOTH, HOST, day(0)), want);
        for secret in [&mut ca_secret, &mut tls_secret, &mut token_secret] {
            secret.labels_mut().clear();
        }
        let all = stored(&ca_secret, &tls_secret, &token_secret);
        assert_eq!((plan(&all, &BOTH, HOST, day(5000)), all.ca), (Plan::default(), Stored::Foreign));
    }

    #[test]
    fn a_secret_that_is_replaced_keeps_its_metadata() {
        let (_, tls_secret, _) = made();
        let mut before = tls_secret.clone();
        before.metadata.resource_version = Some("7".into());
        before.annotations_mut().insert("theirs".into(), "kept".into());
        let after = secret(Some(before), TLS_SECRET, "kubernetes.io/tls", Some(HOST), &[]);
        assert_eq!(after.resource_version().as_deref(), Some("7"));
        assert_eq!((&*after.annotations()["theirs"], &*after.annotations()[HOSTS_ANNOTATION]), ("kept", HOST));
        assert!(after.owner_references().is_empty() && !after.labels().contains_key("app.kubernetes.io/instance"));
    }
}
