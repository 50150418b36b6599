//! The hand-over explored: every order that a migration gives, with loss, repetition, delay and
//! crashes at every point, against a plain model of the two edges and the control plane.
//!
//! `model` is what the edges promise (`carnet_api::agent`) and the invariants; `exploration`
//! walks through all that can happen; `run` keeps what was found, to
//! replay it; `steps` holds the table of `step`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod exploration;
mod model;
mod run;
mod steps;
