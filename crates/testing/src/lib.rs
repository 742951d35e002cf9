//! What the test programs of audit-operator share.
//!
//! Unit tests of the crates use it too, so nothing here may need the root package: they would see two copies of its types.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

pub mod cluster;
pub mod golden;
pub mod intent;
pub mod manifests;
pub mod mutate;
pub mod policies;
pub mod random;
pub mod upstream;
pub mod wait;

use std::path::Path;

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// A test has no command line of its own: its settings are in the environment. An empty one is none.
#[expect(clippy::disallowed_methods, reason = "it is the one place where tests read the environment")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A setting that is a number.
pub fn number(name: &str) -> Option<u64> {
    setting(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}
