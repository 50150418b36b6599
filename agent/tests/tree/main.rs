//! Directory trees as streams: what is packed arrives as it was, whole and difference by
//! difference, and no stream, and no container, leads out of its tree.
//!
//! `seen` says what is compared; `change` makes trees, and changes them, at random.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod busy;
mod change;
mod hostile;
mod round_trip;
mod seen;
