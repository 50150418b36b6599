//! Carnet on a lab: what runs there can be ended, killed and started again, each by itself.
//!
//! It runs the program `carnet` beside `carnet-lab`: `cargo build -p carnet` first, as `./test`
//! does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod traces;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use carnet_api::v1::{Account, Edge, Role};
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::{ADMINISTRATOR, EdgeSpec, Fleet, FleetSpec};
use carnet_lab::progress::Progress;
use nix::sys::signal::Signal;
use traces::traces;

fn edge(name: &str, owner: &str) -> EdgeSpec {
    EdgeSpec {
        name: name.to_owned(),
        owner: owner.to_owned(),
        attributes: "A jp caA deA lxc 2.6 8 - - -".to_owned(),
    }
}

fn edges_seen_by(fleet: &Fleet, account: &str) -> Vec<String> {
    let edges: Vec<Edge> = fleet.account(account).unwrap().get("/v1/edges").unwrap();
    edges.into_iter().map(|edge| edge.name).collect()
}

#[test]
fn each_program_of_a_fleet_can_be_killed_and_started_again() {
    let name = "t-fleet";
    let progress = Progress::new(Arc::default());
    let spec = FleetSpec {
        lab: name.to_owned(),
        edges: vec![edge("Edge1", "erin"), edge("Edge2", "olga")],
        unregistered: Vec::new(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab")),
        own_disks: false,
    };
    let mut fleet = Fleet::start(&spec, &progress).unwrap();
    fleet.create_account("carol", Role::ContainerOwner).unwrap();
    let carol = fleet.account("carol").unwrap();
    fleet.share(&spec.edges[1], carol).unwrap();
    assert_eq!(edges_seen_by(&fleet, "erin"), ["Edge1"]);
    assert_eq!(edges_seen_by(&fleet, "carol"), ["Edge2"]);
    assert_eq!(fleet.await_healthy(&progress).unwrap().len(), 2);

    // The control plane: killed, it comes back at the same address, with what it knew.
    let program =
        |pid: nix::unistd::Pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let url = fleet.url().unwrap();
    let first = fleet.control().unwrap().pid().unwrap();
    assert!(program(first).contains("serve"));
    fleet.control().unwrap().kill().unwrap();
    assert!(fleet.control().unwrap().pid().is_err());
    fleet.start_control().unwrap();
    assert_ne!(fleet.control().unwrap().pid().unwrap(), first);
    assert_eq!(fleet.url().unwrap(), url);
    assert_eq!(edges_seen_by(&fleet, "carol"), ["Edge2"]);
    fleet.control().unwrap().stop().unwrap();
    fleet.start_control().unwrap();

    // An agent: the program itself is killed, not what stands before it.
    let first = fleet.agent("Edge2").unwrap().pid().unwrap();
    assert!(program(first).contains("agent\0run"));
    fleet.agent("Edge2").unwrap().kill().unwrap();
    assert!(!PathBuf::from(format!("/proc/{first}")).exists());
    wait_until("the loss of Edge2", 30, || {
        let edge: Edge = fleet
            .account("olga")
            .unwrap()
            .get("/v1/edges/Edge2")
            .unwrap();
        edge.health.state == carnet_api::v1::HealthState::Unreachable
    })
    .unwrap();
    fleet.start_agent("Edge2").unwrap();
    fleet.await_healthy(&progress).unwrap();
    fleet.agent("Edge1").unwrap().stop().unwrap();
    assert!(
        fleet
            .agent("Edge1")
            .unwrap()
            .signal(Signal::SIGTERM)
            .is_err()
    );

    let whoami: Account = fleet
        .account(ADMINISTRATOR)
        .unwrap()
        .get("/v1/whoami")
        .unwrap();
    assert_eq!(whoami.name, ADMINISTRATOR);
    drop(fleet);
    assert_eq!(traces(name), Vec::<String>::new());
}
