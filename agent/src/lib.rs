//! Carnet's agent: one on every edge. It reads utilization, runs LXC and CRIU, and sends
//! containers to other agents.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod detect;
pub mod enrol;
pub mod exec;
pub mod handover;
pub mod lxc;
pub mod orders;
pub mod pace;
pub mod permits;
pub mod problem;
pub mod refusals;
pub mod renewal;
pub mod runtime;
pub mod server;
pub mod state;
pub mod transfer;
pub mod tree;
pub mod utilization;
