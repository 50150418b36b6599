//! Edge servers out of namespaces, on one machine: for the demo, and for tests on real
//! containers.
//!
//! Each host has mounts, processes, a network, a name, IPC and cgroups of its own, over an
//! overlay of one Debian 13 root. All that a lab makes carries its name, so that it can be
//! removed whatever happened to its owner: cgroups `carnet-lab-NAME`, network namespaces
//! `carnet.NAME.*`, `/var/lib/carnet-lab/NAME`, `/run/carnet-lab/NAME`. Of the machine's own
//! interfaces, cgroups and mounts none is touched.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

pub mod cgroup;
pub mod demo;
pub mod error;
pub mod exec;
pub mod fleet;
pub mod guest;
pub mod host;
pub mod init;
pub mod lab;
pub mod progress;
pub mod root;
pub mod service;
pub mod signals;
