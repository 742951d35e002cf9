//! Asks this node's API server whether it is ready.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::journal::Endpoint;
use crate::tls::AnyCertificate;

/// An API server that answers at all does so within milliseconds; one that hangs must not hide that it does.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the API server says that it is ready. One that forbids anonymous requests answers 401: it serves too.
pub async fn is_serving(endpoint: &Endpoint) -> bool {
    Prober::default().is_serving(endpoint).await
}

/// Asks an API server over a connection that stays open: its end shows without a request that the process is gone.
#[derive(Default)]
pub(super) struct Prober(Option<Connection>);

struct Connection {
    endpoint: Endpoint,
    requests: SendRequest<Empty<Bytes>>,
    _driver: AbortOnDropHandle<hyper::Result<()>>,
}

impl Prober {
    /// Whether the connection of the last answer is still open.
    pub(super) fn is_connected(&self, endpoint: &Endpoint) -> bool {
        self.0.as_ref().is_some_and(|it| it.endpoint == *endpoint && !it.requests.is_closed())
    }

    /// Whether the API server says that it is ready. One that forbids anonymous requests answers 401: it serves too.
    pub(super) async fn is_serving(&mut self, endpoint: &Endpoint) -> bool {
        let kept = self.0.take().filter(|it| it.endpoint == *endpoint && !it.requests.is_closed());
        let asked = async {
            if let Some(mut kept) = kept
                && let Some(status) = kept.status().await
            {
                return Some((kept, status));
            }
            // None was kept, or it was idle for so long that the API server closed it.
            let mut connection = Connection::open(endpoint).await?;
            let status = connection.status().await?;
            Some((connection, status))
        };
        let Ok(Some((connection, status))) = tokio::time::timeout(TIMEOUT, asked).await else { return false };
        self.0 = Some(connection);
        matches!(status, 200 | 401)
    }
}

impl Connection {
    async fn open(endpoint: &Endpoint) -> Option<Self> {
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.ok()?;
        let name = ServerName::try_from("kubernetes").expect("a DNS name");
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config())).connect(name, stream).await.ok()?;
        let (requests, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = AbortOnDropHandle::new(tokio::spawn(driver));
        Some(Self { endpoint: endpoint.clone(), requests, _driver: driver })
    }

    async fn status(&mut self) -> Option<u16> {
        let request = http::Request::get("/readyz")
            .header("host", "kubernetes")
            .body(Empty::<Bytes>::new())
            .expect("a plain request");
        self.requests.ready().await.ok()?;
        let answer = self.requests.send_request(request).await.ok()?;
        let status = answer.status().as_u16();
        // To its end, or the connection could not take another request.
        answer.into_body().collect().await.ok()?;
        Some(status)
    }
}

/// The kubelet's own probes do not verify either: the request carries nothing, and the address is the node's own.
fn config() -> ClientConfig {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// An API server that answers with the status in `status`, and closes its connections where that is 0.
    async fn serve(listener: TcpListener, status: watch::Receiver<u16>, connections: Arc<AtomicUsize>) {
        let key = rcgen::generate_simple_self_signed(["kubernetes".to_string()]).unwrap();
        let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, connections) = (acceptor.clone(), Arc::clone(&connections));
            let (status, mut ending) = (status.clone(), status.clone());
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let mut request = [0; 1024];
                let mut ended = pin!(async move { ending.wait_for(|status| *status == 0).await.map(drop) });
                loop {
                    tokio::select! {
                        read = stream.read(&mut request) => if read.is_ok_and(|bytes| bytes > 0) {
                            let code = *status.borrow();
                            let answer = format!("HTTP/1.1 {code} x\r\ncontent-length: 2\r\n\r\nok");
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        } else {
                            return;
                        },
                        _ = &mut ended => return,
                    }
                }
            });
        }
    }

    #[tokio::test]
    async fn one_connection_serves_many_questions_and_its_end_is_noticed() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (status, answers) = watch::channel(200);
        let connections = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(serve(listener, answers, Arc::clone(&connections)));

        let mut prober = Prober::default();
        assert!(!prober.is_connected(&endpoint));
        for (code, want) in [(200, true), (500, false), (401, true), (403, false), (200, true)] {
            status.send_replace(code);
            assert_eq!(prober.is_serving(&endpoint).await, want, "{code}");
        }
        assert_eq!((prober.is_connected(&endpoint), connections.load(Ordering::Relaxed)), (true, 1));
        assert!(!prober.is_connected(&Endpoint { port: 1, ..endpoint.clone() }), "another endpoint");

        status.send_replace(0);
        let closed = async {
            while prober.is_connected(&endpoint) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
        status.send_replace(200);
        assert!(prober.is_serving(&endpoint).await, "by another connection");
        assert_eq!(connections.load(Ordering::Relaxed), 2);

        server.abort();
        drop(server.await);
        status.send_replace(0);
        assert!(!prober.is_serving(&endpoint).await, "nothing is there any more");
    }
}
