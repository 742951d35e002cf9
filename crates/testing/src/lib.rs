//! What the test programs share.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

pub mod random;
