//! How the programs in the cluster can be observed: [`log`] lines, [`http`] with metrics and [`health`], and [`secure`]
//! with metrics for those who may read them.

mod access;
pub mod health;
pub mod http;
pub mod log;
mod review;
pub mod secure;

use std::net::SocketAddr;
use std::sync::Arc;

use futures::TryFutureExt;
use kube::Client;
use tokio_util::sync::CancellationToken;

use prometheus_client::registry::{Metric, Registry};

pub use health::Health;
pub use http::{EXPOSITION_TYPE, exposition};
pub use log::LogFormat;

/// The addresses of the metrics and the health of a program of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) plain: SocketAddr,
    pub(crate) secure: secure::SecureArgs,
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Plain(#[from] http::Error),
    #[error(transparent)]
    Secure(#[from] secure::Error),
}

/// Serves until `stop`. `client` asks the API server who may read the metrics.
pub(crate) async fn serve(
    addresses: Addresses,
    registry: Registry,
    health: Health,
    client: Client,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let registry = Arc::new(registry);
    let plain = http::serve(addresses.plain, registry.clone(), health, stop.clone());
    let secure = secure::serve(addresses.secure, registry, client, stop);
    tokio::try_join!(plain.map_err(ServeError::from), secure.map_err(ServeError::from))?;
    Ok(())
}

/// A new metric or family of metrics, registered.
pub(crate) fn family<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let family = M::default();
    registry.register(name, help, family.clone());
    family
}

/// Compares the metrics of a program with tests/monitoring/samples, which Prometheus scrapes in `make test-monitoring`.
/// The order within a family is not fixed, so it is sorted.
#[cfg(test)]
pub(crate) fn compare_with_sample(registry: &Registry, program: &str) {
    let text = exposition(registry);
    let mut lines: Vec<&str> = text.lines().collect();
    for samples in lines.chunk_by_mut(|a, b| a.starts_with('#') == b.starts_with('#')) {
        if !samples[0].starts_with('#') {
            samples.sort_unstable();
        }
    }
    let mut differences = testing::golden::Differences::default();
    let path = testing::root().join(format!("tests/monitoring/samples/{program}.txt"));
    differences.compare(&path, Some((lines.join("\n") + "\n").as_bytes()));
    differences.end();
}
