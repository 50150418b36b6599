//! The API that every agent serves, to the control plane and, for what goes from edge to edge,
//! to another agent. TLS 1.3 with both sides' certificates; JSON, but for the streams.
//!
//! ```text
//! GET  /v1/facts                            what the machine is
//! GET  /v1/reading                          utilization now, and what keeps it from taking a container
//! GET  /v1/containers                       what runs
//! GET  /v1/containers/{name}/claim          the claim code placed inside a container
//! POST /v1/handovers/{id}/source/prepare    check; describe the container
//! POST /v1/handovers/{id}/target/prepare    check; make directories and network ready
//! POST /v1/handovers/{id}/source/copy-ahead send the root file system, container running
//! POST /v1/handovers/{id}/source/hand-over  freeze, dump, send difference and memory
//! POST /v1/handovers/{id}/target/restore    bring it to life (only after the commit)
//! POST /v1/handovers/{id}/source/release    kill the frozen copy, remove it
//! POST /v1/handovers/{id}/target/clean      remove the memory images
//! POST /v1/handovers/{id}/source/resume     thaw: it runs on as it was
//! POST /v1/handovers/{id}/target/discard    remove all that this hand-over brought
//! PUT  /v1/handovers/{id}/rootfs            from the source's agent: a pass of the root file system
//! PUT  /v1/handovers/{id}/images            from the source's agent: the memory images
//! ```
//!
//! Every POST is idempotent: asked again while it is under way it waits for the same outcome;
//! asked again later it finds its work done.
//!
//! An error is a [`Problem`](crate::v1::Problem). With a status of 4xx it says that the order was
//! refused or failed; anything else, as no answer at all, leaves open what was done.
//!
//! Requests may arrive late, after the control plane has given them up. So that none does harm:
//!
//! - `resume` and `release` at the source, `clean` and `discard` at the target *end* the
//!   hand-over there, also where they are the first that the agent hears of it. The agent
//!   remembers that it ended, and how. The same order again is answered as done and touches
//!   nothing; every other order of that hand-over is refused.
//! - `restore` that is answered with 4xx has left nothing running. Once the container has run at
//!   the target, `restore` is answered as done, whatever has become of it since.
//! - `discard` is refused once the container has run at the target: it never removes a copy that
//!   may have answered clients.
//! - `hand-over` that failed may leave the container frozen: `resume` follows.

use carnet_core::ids::{EdgeId, MigrationId};
use serde::{Deserialize, Serialize};

use crate::v1::{ContainerState, DetectedFacts};

/// An edge's own facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub edge: EdgeId,
    pub detected: DetectedFacts,
}

/// An edge's utilization.
///
/// It carries its age and no instant, so that the two machines' clocks need not agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Absent where it could not be had; `problems` then says why.
    pub utilization: Option<Utilization>,
    /// What keeps the edge from taking part in a migration now; empty: it is ready.
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utilization {
    /// Hundredths of a percent, 0 to 10,000.
    pub cpu_hundredths: u16,
    /// Hundredths of a percent, 0 to 10,000.
    pub memory_hundredths: u16,
    /// How old the reading was when it was sent, in milliseconds.
    pub age_ms: u64,
}

/// A container as the runtime sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub name: String,
    pub state: ContainerState,
}

/// What stands in `/run/carnet-claim` inside a container; `None` where there is no such file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedClaim {
    pub code: Option<String>,
}

/// Which move an order belongs to. The body of every POST but `target/prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub migration: MigrationId,
    /// The container's name in the runtime.
    pub container: String,
    /// The generation under which the order is given.
    pub generation: u64,
    pub source: EdgeId,
    pub target: EdgeId,
    /// Where the target's agent listens, `ip:port`.
    pub target_address: String,
}

/// The body of `target/prepare`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrepareTarget {
    pub order: Order,
    /// What `source/prepare` described.
    pub container: Described,
}

/// A container as its source describes it to the target, through the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Described {
    /// The runtime's own description; only another agent reads it.
    pub description: serde_json::Value,
    pub memory_bytes: u64,
    pub rootfs_bytes: u64,
}

/// The outcome of `source/copy-ahead`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedAhead {
    /// As sent, compressed where that helped.
    pub bytes: u64,
    pub passes: u32,
}

/// The outcome of `source/hand-over`. The container is frozen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HandedOver {
    pub rootfs_difference_bytes: u64,
    pub image_bytes: u64,
    /// How long it had been frozen when the answer was sent.
    pub frozen_ms: f64,
}

/// The outcome of orders that have nothing else to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {}
