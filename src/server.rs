//! What the TLS servers of the programs have in common: a [`certificate`] that is loaded again when its files change,
//! and [`places`] for connections.

pub(crate) mod certificate;
pub(crate) mod places;
