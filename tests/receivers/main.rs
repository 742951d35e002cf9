//! Every way of shipping audit events that docs/sinks describes, with the real receiver: some thousand events go in,
//! and the receiver is asked for what it has, by `auditID` and `stage`.
//!
//! `tests/receivers/build` gets the receivers: Go modules, Maven's and Debian's packages, each at an exact version. The
//! configurations are the ones in `examples/collectors`. Logstash cannot be had that way: its part is played by
//! [`logstash_stand_in`].

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]

mod accepted_and_lost;
mod events;
mod http;
mod logstash_stand_in;
mod opensearch;
mod rsyslog;
mod start;
mod tail;
mod victoria_logs;
mod webhook;

use std::time::Duration;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);
