//! How the programs in the cluster can be observed: [`log`] lines, and [`http`] with metrics and [`health`].

pub mod health;
pub mod http;
pub mod log;

use prometheus_client::registry::{Metric, Registry};

pub use health::Health;
pub use http::{EXPOSITION_TYPE, ServeError, exposition, serve};
pub use log::LogFormat;

/// A new metric or family of metrics, registered.
pub(crate) fn family<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let family = M::default();
    registry.register(name, help, family.clone());
    family
}
