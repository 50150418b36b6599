//! The lab itself: it comes up, holds what it promises, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod traces;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use carnet_lab::error::LabError;
use carnet_lab::host::ContainerSpec;
use carnet_lab::lab::{Lab, LabSpec, down};
use carnet_lab::progress::Progress;
use traces::traces;

fn spec(name: &str) -> LabSpec {
    LabSpec {
        name: name.to_owned(),
        edges: vec!["Edge1".to_owned(), "Edge2".to_owned()],
        others: vec!["client".to_owned()],
        program: PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab")),
        programs: PathBuf::from("/usr/share/doc"),
        own_disks: false,
    }
}

fn start(name: &str) -> Lab {
    Lab::start(&spec(name), &progress()).unwrap()
}

fn progress() -> Progress {
    Progress::new(Arc::default())
}

#[test]
fn a_lab_holds_what_it_promises_and_leaves_nothing() {
    let name = "t-whole";
    let links_before = Command::new("ip")
        .args(["-o", "link"])
        .output()
        .unwrap()
        .stdout;
    let lab = start(name);
    let (edge, other) = (lab.host("Edge1").unwrap(), lab.host("Edge2").unwrap());

    assert_eq!(edge.run("hostname", &[]).unwrap().trim(), "Edge1");
    // The first process of the host, seen from within.
    assert!(
        edge.run("cat", &["/proc/1/cmdline"])
            .unwrap()
            .contains("second")
    );
    assert!(edge.run("ls", &["/opt/carnet"]).unwrap().contains("bash"));
    assert!(edge.run("touch", &["/opt/carnet/x"]).is_err());
    edge.run("criu", &["check"]).unwrap();
    let rate = edge.run("tc", &["qdisc", "show", "dev", "up0"]).unwrap();
    assert!(rate.contains("rate 1Gbit"), "{rate}");

    let address = Ipv4Addr::new(10, 88, 2, 1);
    edge.start(&ContainerSpec::redis("App1", address)).unwrap();
    assert_eq!(
        edge.run("lxc-info", &["-n", "App1", "-sH"]).unwrap().trim(),
        "RUNNING"
    );
    let redis = SocketAddr::from((address, 6379));
    lab.host("client").unwrap().connect(redis).unwrap();
    other.connect(redis).unwrap();

    assert!(matches!(
        Lab::start(&spec(name), &progress()),
        Err(LabError::InUse(_))
    ));
    // Another lab, whose name begins as this one's does, is another lab.
    let beside = start("t-whole-2");
    assert!(beside.host("Edge1").unwrap().connect(redis).is_err());
    let of_beside = traces("t-whole-2");

    drop(lab);
    assert_eq!(traces(name), Vec::<String>::new());
    assert_eq!(traces("t-whole-2"), of_beside);
    for host in ["Edge1", "client"] {
        let links = beside.host(host).unwrap().run("ip", &["link"]).unwrap();
        assert!(links.contains("up0"), "{host}: {links}");
    }
    drop(beside);
    assert_eq!(traces("t-whole-2"), Vec::<String>::new());
    let links_after = Command::new("ip")
        .args(["-o", "link"])
        .output()
        .unwrap()
        .stdout;
    assert_eq!(links_before, links_after);
}

#[test]
fn a_lab_that_is_left_up_is_ended_later() {
    let name = "t-stays";
    start(name).leave_up().unwrap();
    assert!(!traces(name).is_empty());
    assert!(matches!(
        Lab::start(&spec(name), &progress()),
        Err(LabError::LeftUp(_))
    ));
    down(name).unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
    down(name).unwrap();
}

#[test]
fn a_name_that_leads_out_of_the_labs_directories_is_refused() {
    for name in ["", "..", "a/b", "a.b", "a b", &"a".repeat(33)] {
        assert!(matches!(down(name), Err(LabError::Name(_))), "{name}");
        let started = Lab::start(&spec(name), &progress());
        assert!(matches!(started, Err(LabError::Name(_))), "{name}");
    }
}
