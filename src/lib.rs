//! Manages the auditing of kube-apiserver on self-hosted control planes.
//!
//! The modules stand in the order of the data: a Setup comes in, a Revision is rendered from it, a Plan says what a node
//! still has to change, the guard carries it out and its Verdict goes back into status.
//!
//! - [`floor`] is what the cluster's administrator has fixed, and no Setup can weaken: controller, agent and guard ask it.
//! - Pure, the clock passed in: [`api`], [`policy`], [`validate`], [`revision`], [`render`], [`manifest`], [`plan`],
//!   [`journal`], [`verdict`], [`rollout`], [`status`].
//! - The only code that touches a host: [`node`]. The only code that writes to the Kubernetes API: [`controller`] and the
//!   agent's report in [`node`].
//! - [`sink`] probes destinations, [`receiver`] is one.
//! - `yaml` reads YAML and JSON as kube-apiserver and kubectl do.

pub mod api;
pub mod cli;
pub mod controller;
#[cfg(test)]
mod fixture;
pub mod floor;
pub mod journal;
pub mod manifest;
pub mod node;
mod outage;
pub mod plan;
pub mod policy;
#[cfg(test)]
#[path = "../tests/it/random.rs"]
mod random;
pub mod receiver;
pub mod render;
pub mod revision;
pub mod rollout;
pub mod sink;
pub mod status;
pub mod telemetry;
mod tls;
pub mod validate;
pub mod verdict;
mod yaml;
