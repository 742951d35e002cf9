//! Receivers with TLS, and what can be wrong with it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trust {
    Holds,
    UnknownAuthority,
    Expired,
    NotYetValid,
    /// For another name, where the URL has a name.
    OtherName,
    /// For a name, where the URL has an address.
    NoAddress,
    ClientCertificate(Client),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Client {
    Known,
    Missing,
    OfUnknownAuthority,
}

/// The receiver's side, and the kubeconfig's additions to the cluster and to the user.
pub struct Made {
    pub acceptor: TlsAcceptor,
    pub cluster: Value,
    pub user: Value,
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

pub fn make(trust: Trust) -> Made {
    let (ours, other) = (authority("ours"), authority("other"));
    let names: &[&str] = match trust {
        Trust::OtherName | Trust::NoAddress => &["other.example"],
        _ => &["127.0.0.1", "localhost"],
    };
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    match trust {
        Trust::Expired => params.not_after = date_time_ymd(2020, 1, 1),
        Trust::NotYetValid => params.not_before = date_time_ymd(2090, 1, 1),
        _ => {}
    }
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ours).unwrap();

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = if let Trust::ClientCertificate(_) = trust {
        let mut clients = RootCertStore::empty();
        clients.add(ours.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();

    let known = if trust == Trust::UnknownAuthority { &other } else { &ours };
    Made {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        cluster: json!({"certificate-authority-data": STANDARD.encode(known.pem())}),
        user: match trust {
            Trust::ClientCertificate(Client::Known) => client(&ours),
            Trust::ClientCertificate(Client::OfUnknownAuthority) => client(&other),
            _ => json!({}),
        },
    }
}

fn client(issuer: &Authority) -> Value {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().signed_by(&key, issuer).unwrap();
    json!({
        "client-certificate-data": STANDARD.encode(certificate.pem()),
        "client-key-data": STANDARD.encode(key.serialize_pem()),
    })
}
