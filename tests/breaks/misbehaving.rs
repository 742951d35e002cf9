//! A stand-in for a receiver that misbehaves on command, in the network of the nodes: a port with TLS and one without,
//! a name server that knows its name, and a proxy to it. A real receiver would have to be broken in as many ways.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The host of `testbed lan`, and the name server of the nodes.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
pub const HTTPS: u16 = 8443;
pub const HTTP: u16 = 8080;
pub const PROXY: u16 = 3128;
pub const NAME: &str = "hook.breaks.test";
pub const SERVICE_NAME: &str = "stand-in.audit-system.svc";
pub const PATH: &str = "/audit";
pub const TOKEN: &str = "the-token-of-the-stand-in";
/// Attempts of kube-apiserver before it drops a batch (kubernetes@v1.36.3
/// staging/src/k8s.io/apiserver/pkg/server/options/audit.go).
const ATTEMPTS: u32 = 5;

/// For how long a port may still be taken.
const BIND: Duration = Duration::from_secs(5);

/// The conditions under which events are accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Demands {
    pub token: &'static str,
    pub path: &'static str,
    pub most_bytes: usize,
}

pub const MET: Demands = Demands { token: TOKEN, path: PATH, most_bytes: usize::MAX };

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Talk {
    Takes(Demands),
    /// Reads each request, and answers it with this code and these headers.
    Answers(u16, &'static [(&'static str, &'static str)]),
    /// Reads, and never answers.
    NeverAnswers,
    /// Greets as a mail server does, instead of a TLS handshake.
    SpeaksSmtp,
    /// Nothing listens.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Certificate {
    Good,
    Expired,
    OfOtherAuthority,
    ForOtherName,
}

#[derive(Clone, Copy)]
struct State {
    talk: Talk,
    certificate: Certificate,
    knows_name: bool,
    has_proxy: bool,
}

const WELL: State = State { talk: Talk::Takes(MET), certificate: Certificate::Good, knows_name: true, has_proxy: true };

/// An event: its audit ID and stage.
pub type EventId = (String, String);

/// What the stand-in has seen.
#[derive(Default)]
struct Seen {
    /// Events that it has answered with 2xx.
    kept: BTreeSet<EventId>,
    /// How often the first event of a batch was sent in vain.
    in_vain: BTreeMap<EventId, u32>,
    /// When a batch was last sent in vain for the last time.
    given_up: Option<Instant>,
}

pub struct Misbehaving {
    state: watch::Sender<State>,
    seen: Arc<Mutex<Seen>>,
}

impl Misbehaving {
    pub fn begin(runtime: &Runtime, ours: &Authority) -> Self {
        let ours = Issuer::from_ca_cert_pem(&ours.certificate, KeyPair::from_pem(&ours.key).unwrap()).unwrap();
        let other = authority("other");
        let (state, _) = watch::channel(WELL);
        let seen = Arc::<Mutex<Seen>>::default();
        let certificates: BTreeMap<usize, TlsAcceptor> =
            [Certificate::Good, Certificate::Expired, Certificate::OfOtherAuthority, Certificate::ForOtherName]
                .into_iter()
                .map(|certificate| (certificate as usize, acceptor(certificate, &ours, &other)))
                .collect();
        runtime.spawn(listen(HTTPS, Some(certificates), state.subscribe(), seen.clone()));
        runtime.spawn(listen(HTTP, None, state.subscribe(), seen.clone()));
        runtime.spawn(proxy(state.subscribe()));
        runtime.spawn(answer_names(state.subscribe()));
        Self { state, seen }
    }

    /// Every open connection ends, so that the next request meets the new state.
    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = WELL;
        change(&mut state);
        self.state.send_replace(state);
    }

    pub fn behave(&self) {
        self.set(|_| {});
    }

    pub fn talk(&self, talk: Talk) {
        self.set(|state| state.talk = talk);
    }

    pub fn show(&self, certificate: Certificate) {
        self.set(|state| state.certificate = certificate);
    }

    pub fn forget_name(&self) {
        self.set(|state| state.knows_name = false);
    }

    pub fn end_proxy(&self) {
        self.set(|state| state.has_proxy = false);
    }

    pub fn kept(&self) -> BTreeSet<EventId> {
        self.seen.lock().unwrap().kept.clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().kept.len()
    }

    /// When kube-apiserver last gave a batch up.
    pub fn given_up(&self) -> Option<Instant> {
        self.seen.lock().unwrap().given_up
    }
}

async fn listen(
    port: u16,
    certificates: Option<BTreeMap<usize, TlsAcceptor>>,
    state: watch::Receiver<State>,
    seen: Arc<Mutex<Seen>>,
) {
    let answer = |stream, State { talk, certificate, .. }: State| {
        let tls = certificates.as_ref().map(|all| all[&(certificate as usize)].clone());
        greet(stream, talk, tls, seen.clone())
    };
    accept(port, state, |state| state.talk != Talk::Closed, answer).await;
}

/// Answers each connection while the port `is_open`. A change of the state ends the connections that there are.
async fn accept<T>(
    port: u16,
    mut state: watch::Receiver<State>,
    is_open: fn(State) -> bool,
    answer: impl Fn(TcpStream, State) -> T,
) where
    T: Future<Output: Send + 'static> + Send + 'static,
{
    loop {
        let now = *state.borrow_and_update();
        if !is_open(now) {
            if state.changed().await.is_err() {
                return;
            }
            continue;
        }
        let listener = bind(port).await;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                changed = state.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Ok((stream, _)) = listener.accept() => {
                    connections.spawn(answer(stream, now));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// A process that is being started has a copy of the socket before until it runs its program.
async fn bind(port: u16) -> TcpListener {
    let begin = Instant::now();
    loop {
        match TcpListener::bind((ADDRESS, port)).await {
            Ok(listener) => return listener,
            Err(error) if begin.elapsed() > BIND => panic!("port {port}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn greet(mut stream: TcpStream, talk: Talk, tls: Option<TlsAcceptor>, seen: Arc<Mutex<Seen>>) {
    match tls {
        _ if talk == Talk::SpeaksSmtp => {
            if stream.write_all(b"220 mail.example ESMTP\r\n").await.is_ok() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
        None => converse(stream, talk, false, seen).await,
        Some(tls) => match tls.accept(stream).into_fallible().await {
            Ok(stream) => converse(stream, talk, true, seen).await,
            // To close with unread input is a reset, which may overtake the alert.
            Err((_, mut stream)) => {
                let _ = stream.shutdown().await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        },
    }
}

/// Errors end the conversation: many a client does not wait for its end.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    talk: Talk,
    asks_for_token: bool,
    seen: Arc<Mutex<Seen>>,
) {
    if talk == Talk::NeverAnswers {
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        return;
    }
    let answer = |request| answer(request, talk, asks_for_token, &seen);
    let service = service_fn(answer);
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    talk: Talk,
    asks_for_token: bool,
    seen: &Mutex<Seen>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let token = request.headers().get("Authorization").and_then(|value| value.to_str().ok()).map(str::to_string);
    let path = request.uri().path().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    let (code, headers): (u16, &[(&str, &str)]) = match talk {
        Talk::Takes(demands) if path != demands.path => (404, &[]),
        Talk::Takes(demands) if asks_for_token && token != Some(format!("Bearer {}", demands.token)) => (401, &[]),
        Talk::Takes(demands) if body.len() > demands.most_bytes => (413, &[]),
        Talk::Takes(_) => (200, &[]),
        Talk::Answers(code, headers) => (code, headers),
        Talk::NeverAnswers | Talk::SpeaksSmtp | Talk::Closed => unreachable!("it answers nothing"),
    };
    note(&body, talk, code, seen);
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    Ok(response.body(Full::from("text of the stand-in")).expect("a code and plain headers"))
}

fn note(body: &[u8], talk: Talk, code: u16, seen: &Mutex<Seen>) {
    #[derive(Deserialize)]
    struct EventList {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Item {
        #[serde(rename = "auditID")]
        audit_id: String,
        stage: String,
    }
    let list: EventList = serde_json::from_slice(body).expect("kube-apiserver sends an EventList");
    let mut ids = list.items.into_iter().map(|item| (item.audit_id, item.stage));
    let mut seen = seen.lock().unwrap();
    if code == 200 && matches!(talk, Talk::Takes(_)) {
        seen.kept.extend(ids);
    } else if let Some(first) = ids.next() {
        let times = seen.in_vain.entry(first).or_default();
        *times += 1;
        if *times == ATTEMPTS {
            seen.given_up = Some(Instant::now());
        }
    }
}

/// Connects whoever asks to the port with TLS.
async fn proxy(state: watch::Receiver<State>) {
    accept(PROXY, state, |state| state.has_proxy, |stream, _| connect(stream)).await;
}

async fn connect(stream: TcpStream) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
    }
    let mut server = TcpStream::connect((ADDRESS, HTTPS)).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The name server of the nodes: one name, with one address (RFC 1035, section 4).
async fn answer_names(state: watch::Receiver<State>) {
    let socket = UdpSocket::bind(SocketAddrV4::new(ADDRESS, 53)).await.expect("port 53 of the network is free");
    let mut buffer = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let knows_name = state.borrow().knows_name;
        if let Some(response) = respond(&buffer[..length], knows_name) {
            let _ = socket.send_to(&response, client).await;
        }
    }
}

fn respond(query: &[u8], knows_name: bool) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(std::str::from_utf8(query.get(at..at + length)?).ok()?);
        name.push('.');
        at += length;
    }
    let question = query.get(HEADER..at + 4)?;
    let is_known = knows_name && name.trim_end_matches('.').eq_ignore_ascii_case(NAME);
    let is_for_address = query.get(at..at + 2)? == [0, 1];
    let has_answer = is_known && is_for_address;
    let mut response = query[..2].to_vec();
    // A response with authority, recursion desired and available; NXDOMAIN for any other name.
    response.extend([0x85, if is_known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(has_answer), 0, 0, 0, 0]);
    response.extend(question);
    if has_answer {
        // The name of the question, an IPv4 address of the Internet, valid for 0 s.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        response.extend(ADDRESS.octets());
    }
    Some(response)
}

/// The authority that the nodes trust, as PEM.
pub struct Authority {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let issuer = authority("ours");
        Self { certificate: issuer.pem(), key: issuer.key().serialize_pem() }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn acceptor(certificate: Certificate, ours: &Issuer<'_, KeyPair>, other: &Issuer<'_, KeyPair>) -> TlsAcceptor {
    let names: &[&str] =
        if certificate == Certificate::ForOtherName { &["other.example"] } else { &[NAME, SERVICE_NAME] };
    let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    if certificate == Certificate::Expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let key = KeyPair::generate().unwrap();
    let issuer = if certificate == Certificate::OfOtherAuthority { other } else { ours };
    let signed = params.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}
