//! The REST API: who may do what, what is answered to whom, and what comes of every input.
//!
//! `contract` holds the served OpenAPI document, and every answer against it; `http` asks, and
//! has every answer held. `plane` is a control plane in this process, on edges out of `agents`.
//! The other modules test: one per noun, `start` the whole program with TLS,
//! and `witnesses` the same with witnesses beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod access;
mod accounts;
mod agents;
mod arbitrary;
mod audits;
mod containers;
mod contract;
mod edges;
mod enrolments;
mod http;
mod idempotency;
mod input;
mod ledger;
mod migrations;
mod others;
mod plane;
mod secrets;
mod share_keys;
mod start;
mod tokens;
mod witnesses;
