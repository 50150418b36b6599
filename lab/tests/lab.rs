//! The lab itself: it comes up, holds what it promises, and leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use carnet_lab::error::LabError;
use carnet_lab::lab::{Lab, LabSpec, down};

fn spec(name: &str) -> LabSpec {
    LabSpec {
        name: name.to_owned(),
        edges: vec!["Edge1".to_owned(), "Edge2".to_owned()],
        others: vec!["client".to_owned()],
        program: PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab")),
        programs: PathBuf::from("/usr/share/doc"),
    }
}

fn start(name: &str) -> Lab {
    Lab::start(&spec(name), &|what| eprintln!("{what}")).unwrap()
}

/// Everything on this machine that carries a lab's name.
fn traces(name: &str) -> Vec<String> {
    let mut traces = Vec::new();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8(namespaces.stdout).unwrap().lines() {
        if line.starts_with(&format!("carnet-{name}-")) {
            traces.push(line.to_owned());
        }
    }
    for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
        if line.contains(&format!("/{name}/")) || line.contains(&format!("carnet-{name}-")) {
            traces.push(line.to_owned());
        }
    }
    for path in [
        format!("/sys/fs/cgroup/carnet-lab-{name}"),
        format!("/sys/fs/cgroup/unified/carnet-lab-{name}"),
        format!("/sys/fs/cgroup/memory/carnet-lab-{name}"),
        format!("/run/carnet-lab/{name}"),
        format!("/var/lib/carnet-lab/{name}"),
    ] {
        if Path::new(&path).exists() {
            traces.push(path);
        }
    }
    traces
}

#[test]
fn a_lab_holds_what_it_promises_and_leaves_nothing() {
    let name = "t-whole";
    let links_before = Command::new("ip").args(["-o", "link"]).output().unwrap().stdout;
    let lab = start(name);
    let (edge, other) = (lab.host("Edge1").unwrap(), lab.host("Edge2").unwrap());

    assert_eq!(edge.run("hostname", &[]).unwrap().trim(), "Edge1");
    // The first process of the host, seen from within.
    assert!(edge.run("cat", &["/proc/1/cmdline"]).unwrap().contains("second"));
    assert!(edge.run("ls", &["/opt/carnet"]).unwrap().contains("bash"));
    assert!(edge.run("touch", &["/opt/carnet/x"]).is_err());
    edge.run("criu", &["check"]).unwrap();
    let rate = edge.run("tc", &["qdisc", "show", "dev", "up0"]).unwrap();
    assert!(rate.contains("rate 1Gbit"), "{rate}");

    let address = Ipv4Addr::new(10, 88, 2, 1);
    edge.start_redis(lab.root(), "App1", address).unwrap();
    assert_eq!(
        edge.run("lxc-info", &["-n", "App1", "-sH"]).unwrap().trim(),
        "RUNNING"
    );
    let redis = SocketAddr::from((address, 6379));
    lab.host("client").unwrap().connect(redis).unwrap();
    other.connect(redis).unwrap();

    assert!(matches!(
        Lab::start(&spec(name), &|_| {}),
        Err(LabError::InUse(_))
    ));
    let beside = start("t-beside");
    assert!(beside.host("Edge1").unwrap().connect(redis).is_err());
    drop(beside);
    assert_eq!(traces("t-beside"), Vec::<String>::new());

    drop(lab);
    assert_eq!(traces(name), Vec::<String>::new());
    let links_after = Command::new("ip").args(["-o", "link"]).output().unwrap().stdout;
    assert_eq!(links_before, links_after);
}

#[test]
fn a_lab_that_is_left_up_is_ended_later() {
    let name = "t-stays";
    start(name).leave_up().unwrap();
    assert!(!traces(name).is_empty());
    assert!(matches!(
        Lab::start(&spec(name), &|_| {}),
        Err(LabError::LeftUp(_))
    ));
    down(name).unwrap();
    assert_eq!(traces(name), Vec::<String>::new());
    down(name).unwrap();
}
