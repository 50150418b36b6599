//! Carnet's control plane: the policy store, the audit, the monitor, and the migrations, behind a
//! REST API.
//!
//! [`server::run`] puts the parts together. A request for a move goes through them in one
//! direction: [`http`] reads it, [`migrate`] admits and carries it out by way of [`agents`],
//! [`store`] keeps every step.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod agents;
pub mod authority;
mod clock;
pub mod http;
mod key_place;
pub mod keys;
pub mod migrate;
pub mod monitor;
mod names;
mod passwords;
pub mod renewal;
mod secret;
pub mod server;
pub mod store;
pub mod web;
pub mod witnesses;
