//! Hand-overs between real agents on loopback, containers simulated: certificates, orders,
//! streams and records are what they are on an edge. The test is the control plane.
//!
//! `scene` holds the authority, the edges and the orders; each other module is one kind of
//! promise out of `carnet_api::agent`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cold;
mod course;
mod ends;
mod enrolment;
mod entitlement;
mod failure;
mod post_copy;
mod pre_copy;
mod questions;
mod renewal;
mod restart;
mod scene;
mod statements;
