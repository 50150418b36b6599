//! Moves of containers, carried out by the real runner over the real store, against a fake of the
//! agents: with loss, repetition, delay, failing databases and crashes in every state.
//!
//! `edges` is the fake, `plane` a control plane that can be killed, `invariants` what must hold
//! of every move. `matrix` goes through every state with every fault; `cancel`, `lost`,
//! `commit`, `admission`, `runner`, `monitor`, `crash` and `over_http` each test one part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod admission;
mod cancel;
mod commit;
mod crash;
mod edges;
mod invariants;
mod lost;
mod matrix;
mod monitor;
mod over_http;
mod plane;
mod renewal;
mod runner;
mod strategies;
mod telling;
