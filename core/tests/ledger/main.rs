//! The ledger: the tree against a plain reading of RFC 6962, checkpoints against stock rules, and
//! the auditor against histories in which one thing is wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod audit;
mod history;
mod note;
mod tree;
