//! Shared code of the test programs.
//!
//! Unit tests of the crates use it too. It must not depend on the root package: its unit tests would see two copies of
//! its own types.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

pub mod cluster;
pub mod golden;
pub mod intent;
pub mod manifests;
pub mod mutate;
pub mod policies;
pub mod process;
pub mod random;
pub mod upstream;
pub mod wait;
pub mod webhook;

use std::path::Path;

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// A test has no command line of its own: its settings are environment variables. An empty one counts as unset.
#[expect(clippy::disallowed_methods, reason = "it is the one place where tests read the environment")]
pub fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A setting that is a number.
pub fn number(name: &str) -> Option<u64> {
    setting(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}
