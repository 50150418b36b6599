//! The pages: who sees what, what forms do, and what they refuse.
//!
//! `browser` asks as a browser does, with cookies and forms, of the control plane in this process
//! that the API's tests use too. The other modules test: one per part of the pages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../api/agents.rs"]
#[allow(dead_code)]
mod agents;
#[path = "../api/contract.rs"]
#[allow(dead_code)]
mod contract;
#[path = "../api/http.rs"]
#[allow(dead_code)]
mod http;
#[path = "../api/plane.rs"]
#[allow(dead_code)]
mod plane;

mod access;
mod admin;
mod browser;
mod containers;
mod edges;
mod forgery;
mod ledger;
mod live;
mod log_in;
mod map;
mod markup;
mod migrations;
mod paging;
mod sessions;
