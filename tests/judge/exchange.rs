//! One request a connection, sent byte by byte as it is written: no client library would send the odd ones.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::script::{Identity, Request};
use crate::server::{Credentials, TOKENS};

/// Longer than any answer takes; a server that is not ready may give none.
const LIMIT: Duration = Duration::from_secs(60);
/// A watch ends after this time.
const WATCH_LIMIT: Duration = Duration::from_millis(2000);

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// `None`: the server closed the connection without an answer.
    pub status: Option<u16>,
    /// Headers and body.
    pub text: String,
}

pub struct Client {
    port: u16,
    plain: Arc<ClientConfig>,
    carol: Arc<ClientConfig>,
    forged: Arc<ClientConfig>,
    /// Of a service account; known when the server has issued it.
    robot: OnceLock<String>,
}

impl Client {
    pub fn new(credentials: &Credentials, port: u16) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(credentials.ca.as_bytes()).unwrap()).unwrap();
        let roots = Arc::new(roots);
        let builder = || ClientConfig::builder().with_root_certificates(roots.clone());
        let with = |(certificate, key): &(String, String)| {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            Arc::new(builder().with_client_auth_cert(chain, key).unwrap())
        };
        Self {
            port,
            plain: Arc::new(builder().with_no_client_auth()),
            carol: with(&credentials.carol),
            forged: with(&credentials.forged),
            robot: OnceLock::new(),
        }
    }

    pub fn send(&self, request: &Request, audit_id: &str) -> Answer {
        let Request { method, target, identity, headers, body, .. } = request;
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAudit-ID: {audit_id}\r\n");
        let token = match identity {
            Identity::Token(index) => Some(TOKENS[*index].0),
            Identity::Robot => Some(self.robot.get().expect("the robot's token was asked for first").as_str()),
            Identity::ForgedToken => Some("made-up"),
            Identity::Carol | Identity::ForgedCertificate | Identity::Anonymous => None,
        };
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(token) = token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let config = match identity {
            Identity::Carol => &self.carol,
            Identity::ForgedCertificate => &self.forged,
            _ => &self.plain,
        };
        let answer = self.exchange(config, &[head.as_bytes(), body].concat(), request.is_waiting);
        if target.ends_with("/serviceaccounts/robot/token") && answer.status == Some(201) {
            let token = answer.text.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next());
            _ = self.robot.set(token.expect("a TokenRequest has a token").to_string());
        }
        answer
    }

    fn exchange(&self, config: &Arc<ClientConfig>, bytes: &[u8], is_waiting: bool) -> Answer {
        let socket = TcpStream::connect(("127.0.0.1", self.port));
        let Ok(socket) = socket else { return Answer { status: None, text: String::new() } };
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // Otherwise the kernel holds the request back until the server has acknowledged the handshake.
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket);
        let mut seen = Vec::new();
        // The server may answer and close before it has read everything, and it does not always say goodbye.
        _ = stream.write_all(bytes).and_then(|()| stream.flush());
        let end = Instant::now() + LIMIT;
        let enough = Instant::now() + WATCH_LIMIT;
        let mut buffer = [0; 1 << 16];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => seen.extend(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
            if Instant::now() > if is_waiting { enough } else { end } {
                break;
            }
        }
        let text = String::from_utf8_lossy(&seen).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer { status, text }
    }
}
