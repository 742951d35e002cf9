//! Is a sink alive? Three separate facts: it can be reached, it takes what is sent, nothing was lost.
//!
//! [`target`] is what a Revision sends to. [`reach`] connects ([`dial`]) and verifies ([`certificate`]), and never sends a request. [`canary`] looks for an event that was caused on purpose.
//! [`metrics`] reads what the API server itself counts. [`deliver`] judges from those, purely. The agent calls all of them.

pub mod canary;
mod certificate;
pub mod deliver;
mod dial;
pub mod metrics;
pub mod reach;
pub mod target;

use crate::api::{Finding, Reason, Truth};

/// A fact that holds.
fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::True, reason, message: message.into() }
}

/// A fact that does not hold.
fn no(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::False, reason, message: message.into() }
}

/// Not enough is known.
pub fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::Unknown, reason, message: message.into() }
}
