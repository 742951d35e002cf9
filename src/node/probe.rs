//! Asks this node's API server whether it is ready.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use crate::journal::Endpoint;
use crate::tls::AnyCertificate;

/// An API server that answers at all does so within milliseconds; one that hangs must not hide that it does.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the API server says that it is ready. One that forbids anonymous requests answers 401: it serves too.
pub async fn is_serving(endpoint: &Endpoint) -> bool {
    tokio::time::timeout(TIMEOUT, status(endpoint)).await.is_ok_and(|status| matches!(status, Some(200 | 401)))
}

async fn status(endpoint: &Endpoint) -> Option<u16> {
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.ok()?;
    let name = ServerName::try_from("kubernetes").expect("a DNS name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config())).connect(name, stream).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/readyz")
        .header("host", "kubernetes")
        .body(Empty::<Bytes>::new())
        .expect("a plain request");
    let status = sender.send_request(request).await.ok().map(|response| response.status().as_u16());
    connection.abort();
    status
}

/// The kubelet's own probes do not verify either: the request carries nothing, and the address is the node's own.
fn config() -> ClientConfig {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth()
}
