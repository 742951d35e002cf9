//! Manages the auditing of kube-apiserver on self-hosted control planes.
//!
//! The modules are listed in the order of the data: a Setup comes in, a Revision is rendered from it, a Plan names the
//! steps that a node still needs, the guard carries them out, and its Verdict goes back into status. [`floor`] holds
//! the limits that the cluster's administrator has fixed and no Setup can weaken: controller, agent and guard check it.
//!
//! The groups of modules below are pure, with the clock passed in, up to `status`. Only [`node`] touches a host; only
//! [`controller`] and the agent's report in [`node`] write to the Kubernetes API. [`health`] judges sinks,
//! [`receiver`] is one.
//!
//! Three crates of the workspace know nothing of Kubernetes' API or of this operator: `kube_yaml` reads YAML and JSON
//! as kube-apiserver, the kubelet and kubectl do; `audit_policy` loads, lints and evaluates audit policies;
//! `static_pod` edits the manifest of kube-apiserver.

// What a user writes, and the Revision that is rendered from it.
pub mod api;
pub mod floor;
pub mod validate;

pub mod revision;

pub mod render;

// One node: what has to change, how far a Change is, and what happens next.
pub mod plan;

pub mod journal;

pub mod verdict;

// All nodes.
pub mod rollout;
pub mod status;

// The programs: these touch the world.
pub mod node;

mod client;
pub mod controller;
pub mod error;
pub mod health;
mod heartbeat;
pub mod receiver;
mod server;
mod tls;

pub mod cli;
pub mod telemetry;

#[cfg(test)]
mod fixture;
