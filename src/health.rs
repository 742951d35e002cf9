//! Is a sink alive? Evidence first: the counters of kube-apiserver ([`sample`]) and the canary in the log ([`canary`]).
//!
//! [`target`] reads the sinks from a Revision, [`way`] how kube-apiserver connects to a webhook. [`webhook`] and
//! [`log`] judge whether events arrive, [`loss`] counts those that were lost, [`explain`] puts the verdict into words,
//! [`expiry`] finds the ends of certificates and tokens. Only where requests get no answer, [`reach`] connects
//! ([`dial`]) and verifies ([`certificate`]), and never sends a request; [`error_line`] finds kube-apiserver's own
//! error. The agent calls them.

mod ask;
pub mod canary;
mod certificate;
mod dial;
pub mod error_line;
pub mod expiry;
pub mod explain;
pub mod load;
pub mod log;
pub mod loss;
pub mod reach;
pub mod sample;
pub mod target;
pub mod way;
pub mod webhook;

use crate::api::{Finding, Reason, Truth};

/// A true fact.
pub fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::True, reason, message: message.into() }
}

/// A false fact.
pub fn no(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::False, reason, message: message.into() }
}

/// An unknown fact.
pub fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { status: Truth::Unknown, reason, message: message.into() }
}
