//! Is a sink alive? Three separate facts: it can be reached, events arrive, none was lost.
//!
//! [`target`] reads the sinks from a Revision. [`reach`] connects ([`dial`]) and verifies ([`certificate`]), and never
//! sends a request. [`canary`] looks for the event of the canary request. [`metrics`] reads the counters of the API
//! server. [`deliver`] judges all of these, purely. The agent calls them.

pub mod canary;
mod certificate;
pub mod deliver;
mod dial;
pub mod metrics;
pub mod reach;
pub mod target;

use crate::api::{Finding, Reason, Truth};

/// A true fact.
fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::True, reason, message: message.into() }
}

/// A false fact.
fn no(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::False, reason, message: message.into() }
}

/// An unknown fact.
pub fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::Unknown, reason, message: message.into() }
}
