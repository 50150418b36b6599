//! What every runtime promises (`carnet_agent::runtime::Runtime`), checked on each.
//!
//! `suite` knows no runtime. The simulated one is tested here. LXC needs a host with LXC, CRIU
//! and a bridge: there, with a container that runs redis-server,
//! `CARNET_TEST_LXC_CONTAINER=NAME CARNET_TEST_PROGRAM=/PATH/TO/carnet runtime --ignored` runs the same suite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod lxc;
mod simulated;
mod suite;
