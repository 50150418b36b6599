//! Carnet's decisions, and nothing else: what a policy says, whether an edge satisfies it, which
//! candidate's turn it is, and how a migration goes on.
//!
//! Pure: no clock, no I/O, no randomness, no async. Instants and random numbers are handed in.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod ids;
pub mod instant;
pub mod ledger;
pub mod migration;
pub mod permit;
pub mod placement;
pub mod policy;
