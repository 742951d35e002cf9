//! Tests of the whole program.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod apply_cases;
mod dockerfile;
mod hostile;
mod intents;
mod manifest_cases;
mod monitoring;
mod mutations;
mod policy;
mod receiver;
mod render_cases;
mod replay;
