//! The small HTTP server of a program of the cluster: `/metrics`, `/healthz` and `/readyz`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Health;

#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics and health on {address}")]
pub struct Error {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Serves /metrics, /healthz and /readyz until `stop`.
pub(super) async fn serve(
    address: SocketAddr,
    registry: Arc<Registry>,
    health: Health,
    stop: CancellationToken,
) -> Result<(), Error> {
    let served = async {
        let listener = TcpListener::bind(address).await?;
        axum::serve(listener, router(registry, health)).with_graceful_shutdown(stop.cancelled_owned()).await
    };
    served.await.map_err(|source| Error { address, source })
}

fn router(registry: Arc<Registry>, health: Health) -> Router {
    let metrics = move || {
        let registry = registry.clone();
        async move { ([("content-type", EXPOSITION_TYPE)], exposition(&registry)) }
    };
    let for_healthz = health.clone();
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async move || for_healthz.healthz(Instant::now())))
        .route("/readyz", get(async move || health.readyz()))
}

/// Content type of [`exposition`].
pub const EXPOSITION_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics, as OpenMetrics text.
pub fn exposition(registry: &Registry) -> String {
    let mut text = String::new();
    let written = prometheus_client::encoding::text::encode(&mut text, registry);
    written.expect("a String takes what is written");
    text
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::error::chain;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_program_is_ready_when_it_says_so_and_its_metrics_are_served_before() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        registry.register("answer", "A number", prometheus_client::metrics::gauge::ConstGauge::new(42_i64));
        let health = Health::begin();
        let server = tokio::spawn(axum::serve(listener, router(Arc::new(registry), health.clone())).into_future());
        assert!(get(address, "/metrics").await.contains("\nanswer 42\n"));
        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("has not completed a pass"), "{answer}");
        health.ready();
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = serve(address, Arc::default(), Health::begin(), CancellationToken::new()).await.unwrap_err();
        assert!(chain(&error).starts_with(&format!("cannot serve metrics and health on {address}: ")), "{error:?}");
    }
}
