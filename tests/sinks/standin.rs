//! Stand-ins for receivers and for proxies: each does one thing with every connection, most of them the wrong one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Events that a stand-in has answered with 2xx, by audit ID and stage, and how often it has.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<BTreeMap<(String, String), Event>>>);

#[derive(Clone, Copy, Default)]
pub struct Event {
    pub times: u64,
    /// It has lost its request object on the way.
    pub is_truncated: bool,
}

impl Kept {
    pub fn events(&self) -> BTreeMap<(String, String), Event> {
        self.0.lock().unwrap().clone()
    }

    fn add(&self, body: &[u8]) {
        let list: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(list["kind"], "EventList");
        for event in list["items"].as_array().unwrap() {
            let text = |field: &str| event[field].as_str().unwrap().to_string();
            let mut kept = self.0.lock().unwrap();
            let kept = kept.entry((text("auditID"), text("stage"))).or_default();
            kept.times += 1;
            kept.is_truncated |= event["annotations"]["audit.k8s.io/truncated"] == "true";
            assert!(!kept.is_truncated || event["requestObject"].is_null());
        }
    }
}

#[derive(Clone)]
pub enum Talk {
    /// Reads each request and answers it.
    Answers {
        code: u16,
        headers: Vec<(String, String)>,
    },
    NeverAnswers,
    ClosesAtOnce,
    /// Greets as a mail server does.
    SpeaksSmtp,
    /// A proxy that takes every request, whatever its host, to this receiver.
    ProxyTo(SocketAddr),
}

/// A port of its own, at which nothing listens yet: connections are refused.
pub struct Reserved(TcpSocket);

impl Reserved {
    pub fn v4() -> Self {
        Self::at(TcpSocket::new_v4(), "127.0.0.1:0")
    }

    pub fn v6() -> Self {
        Self::at(TcpSocket::new_v6(), "[::1]:0")
    }

    fn at(socket: std::io::Result<TcpSocket>, address: &str) -> Self {
        let socket = socket.unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Listens from now on. Must be called within a runtime.
    pub fn serve(self, talk: Talk, tls: Option<TlsAcceptor>, kept: &Kept) -> SocketAddr {
        let address = self.address();
        let listener = self.0.listen(64).unwrap();
        let kept = kept.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (talk, tls, kept) = (talk.clone(), tls.clone(), kept.clone());
                tokio::spawn(async move {
                    let Some(tls) = tls else { return converse(stream, talk, kept).await };
                    match tls.accept(stream).into_fallible().await {
                        Ok(stream) => converse(stream, talk, kept).await,
                        // A handshake that fails is one of the cases. The end of the input is awaited: to close with
                        // unread input is a reset, which may overtake the alert.
                        Err((_, mut stream)) => {
                            let _ = stream.shutdown().await;
                            converse(stream, Talk::NeverAnswers, kept).await;
                        }
                    }
                });
            }
        });
        address
    }
}

/// Errors end the conversation: many a client does not wait for its end.
async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, talk: Talk, kept: Kept) {
    match talk {
        Talk::Answers { code, headers } => {
            let answer = |request| answer(request, code, &headers, &kept);
            let service = service_fn(async |request| Ok::<_, hyper::Error>(answer(request).await?));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
        Talk::NeverAnswers => drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await),
        Talk::ClosesAtOnce => {}
        Talk::SpeaksSmtp => {
            if stream.write_all(b"220 mail.example ESMTP\r\n").await.is_ok() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
        Talk::ProxyTo(receiver) => drop(forward(stream, receiver).await),
    }
}

async fn answer(
    request: Request<Incoming>,
    code: u16,
    headers: &[(String, String)],
    kept: &Kept,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let is_post = request.method() == Method::POST;
    let body = request.into_body().collect().await?.to_bytes();
    if is_post && (200..300).contains(&code) {
        kept.add(&body);
    }
    let mut response = Response::builder().status(code);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let text = if code == 204 { "" } else { "text of the receiver" };
    Ok(response.body(Full::from(text)).unwrap())
}

/// The request's first line decides, as in any proxy, or it is a SOCKS proxy; then bytes go both ways.
async fn forward(stream: impl AsyncRead + AsyncWrite + Unpin, receiver: SocketAddr) -> std::io::Result<()> {
    let mut client = BufReader::new(stream);
    let mut server = TcpStream::connect(receiver).await?;
    if client.fill_buf().await?.first() == Some(&5) {
        accept_socks(&mut client).await?;
        copy_bidirectional(&mut client, &mut server).await?;
        return Ok(());
    }
    let mut first = String::new();
    client.read_line(&mut first).await?;
    if first.starts_with("CONNECT ") {
        while first != "\r\n" {
            first.clear();
            client.read_line(&mut first).await?;
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        let (method, rest) = first.split_once(" http://").unwrap();
        let path = &rest[rest.find('/').unwrap()..];
        server.write_all(format!("{method} {path}").as_bytes()).await?;
    }
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Accepts a connection to a name, without authentication (RFC 1928).
async fn accept_socks(client: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    client.read_exact(&mut vec![0; head[1].into()]).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 5];
    client.read_exact(&mut request).await?;
    assert_eq!(request[..4], [5, 1, 0, 3], "to connect to a name");
    client.read_exact(&mut vec![0; usize::from(request[4]) + 2]).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await
}
