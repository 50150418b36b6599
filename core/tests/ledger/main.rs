//! The ledger: the tree against a plain reading of RFC 6962, checkpoints against stock rules, the
//! auditor against histories in which one thing is wrong, and the witness against a list that it
//! has seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod audit;
mod cosignature;
mod history;
mod note;
mod tree;
mod witness;
