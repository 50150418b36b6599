//! What goes over Carnet's wires, and how: the types of the public API ([`v1`]) and of the API
//! that agents serve ([`agent`]), the client for the former, and TLS identities ([`tls`]).
//!
//! Control plane, agents and command line share these, and nothing else.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod agent;
pub mod client;
pub mod tls;
pub mod v1;
