//! What can go wrong around a move of a real container that nobody has asked for: links that are
//! cut, programs that are asked to end, a disk that runs full, machines whose power fails.
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
mod world;

use std::net::Ipv4Addr;

use carnet_api::v1::{AllowPostCopy, Container, ContainerState, Migration, MigrationState};
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::CONTROL;
use carnet_lab::host::ContainerSpec;
use nix::sys::signal::Signal;
use serde_json::json;
use traces::traces;
use world::{APP, EDGES, World};

const LAB: &str = "t-faults";
/// A container on Edge3, whose power fails; App1 stays away from it.
const OTHER: &str = "Other";
const OTHER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 2, 4);
/// So slow that there is time for what is done in the midst of a move.
const SLOW: &str = "100mbit";
/// What takes seconds then, in megabytes, and cannot be compressed.
const FILES: &str = "10";

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn a_container_outlives_cuts_endings_a_full_disk_and_failures_of_power() {
    let mut world = World::begin(LAB);
    slow_down(&world, "Edge1");
    slow_down(&world, "Edge2");
    fill(&world);
    a_link_that_is_cut_for_a_moment_loses_nothing(&world);
    a_link_between_edges_that_stays_cut_fails_the_move(&world);
    a_control_plane_that_is_cut_off_fails_the_move_and_resumes_once_it_is_not(&world);
    a_disk_that_runs_full_in_the_midst_fails_the_move(&world);
    whoever_is_asked_to_end_does_so_in_order(&mut world);
    begin_other(&world);
    a_source_whose_power_fails_has_what_was_on_its_disk(&mut world);
    a_target_whose_power_fails_costs_nothing(&mut world);
    world.assert_whole("Edge1", "the power of others failed");
    world.sound_ledger();
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

fn slow_down(world: &World, edge: &str) {
    let change = ["tc", "qdisc", "change", "dev", "up0", "root", "tbf"];
    let rate = ["rate", SLOW, "burst", "256kb", "latency", "50ms"];
    world.on(edge, &[&change[..], &rate].concat());
}

fn fill(world: &World) {
    let file = format!("of=/var/lib/lxc/{APP}/rootfs/large");
    let count = format!("count={FILES}");
    world.on("Edge1", &["dd", "if=/dev/urandom", &file, "bs=1M", &count]);
}

/// Where it is after a move that may have gone either way.
fn place_after(ended: &Migration) -> &str {
    match ended.state {
        MigrationState::Completed => ended.target_name.as_deref().unwrap(),
        MigrationState::Failed => &ended.source_name,
        _ => panic!("{ended:?}"),
    }
}

/// Back to Edge1, for the next.
fn bring_home(world: &World) {
    if world.container().edge_name != "Edge1" {
        assert_eq!(world.go(APP, "Edge1").state, MigrationState::Completed);
    }
}

fn a_link_that_is_cut_for_a_moment_loses_nothing(world: &World) {
    for (edge, other) in [("Edge1", "Edge2"), ("Edge1", CONTROL), ("Edge2", CONTROL)] {
        for state in [MigrationState::CopyingAhead, MigrationState::HandingOver] {
            let what = format!("{edge} and {other} were cut off while {state:?}");
            println!("{what}");
            let begun = world.ask(APP, "Edge2", 0).unwrap();
            world.await_state(&begun, &[state]);
            world.cut(edge, other, true);
            world.await_silence(edge);
            world.cut(edge, other, false);
            let ended = world.end_of(&begun);
            assert_eq!(ended.state, MigrationState::Completed, "{what}: {ended:?}");
            world.assert_whole("Edge2", &what);
            bring_home(world);
        }
    }
}

fn a_link_between_edges_that_stays_cut_fails_the_move(world: &World) {
    for state in [MigrationState::CopyingAhead, MigrationState::HandingOver] {
        let what = format!("the edges were cut off from each other while {state:?}");
        println!("{what}");
        let begun = world.ask(APP, "Edge2", 0).unwrap();
        world.await_state(&begun, &[state]);
        world.cut("Edge1", "Edge2", true);
        let ended = world.end_of(&begun);
        assert_eq!(ended.state, MigrationState::Failed, "{what}: {ended:?}");
        world.assert_whole("Edge1", &what);
        world.cut("Edge1", "Edge2", false);
    }
}

/// The source is frozen, and nobody tells it what to do, until somebody can.
fn a_control_plane_that_is_cut_off_fails_the_move_and_resumes_once_it_is_not(world: &World) {
    println!("the control plane was cut off from the source while HandingOver");
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    world.await_state(&begun, &[MigrationState::HandingOver]);
    world.cut("Edge1", CONTROL, true);
    let left = world.await_state(&begun, &[MigrationState::ResumingSource]);
    assert_eq!(left.state, MigrationState::ResumingSource, "{left:?}");
    assert_eq!(world.running_on(APP), Vec::<&str>::new());
    world.cut("Edge1", CONTROL, false);
    let ended = world.end_of(&begun);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.starts_with("handing over: "), "{failure}");
    world.assert_whole("Edge1", "the control plane was cut off from the source");
}

fn a_disk_that_runs_full_in_the_midst_fails_the_move(world: &World) {
    println!("the target's disk ran full");
    let disk = "/var/lib/lxc";
    let size = "size=400m";
    world.on(
        "Edge2",
        &["mount", "-t", "tmpfs", "-o", size, "tmpfs", disk],
    );
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    world.await_state(&begun, &[MigrationState::CopyingAhead]);
    // All that is left of it; that this ends with an error is what it is for.
    let full = format!("cat /dev/zero > {disk}/full 2>/dev/null; test -s {disk}/full");
    world.on("Edge2", &["sh", "-c", &full]);
    let ended = world.end_of(&begun);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.contains("No space left on device"), "{failure}");
    world.on("Edge2", &["umount", disk]);
    world.assert_whole("Edge1", "the target's disk ran full");
}

fn whoever_is_asked_to_end_does_so_in_order(world: &mut World) {
    for state in [MigrationState::CopyingAhead, MigrationState::HandingOver] {
        for victim in ["Edge1", "Edge2", CONTROL] {
            let what = format!("{victim} was asked to end while {state:?}");
            println!("{what}");
            let begun = world.ask(APP, "Edge2", 0).unwrap();
            world.await_state(&begun, &[state]);
            let program = match victim {
                CONTROL => world.fleet.control().unwrap(),
                edge => world.fleet.agent(edge).unwrap(),
            };
            program.signal(Signal::SIGTERM).unwrap();
            program.await_end(30).unwrap();
            match victim {
                CONTROL => world.fleet.start_control().unwrap(),
                edge => world.fleet.start_agent(edge).unwrap(),
            }
            let ended = world.end_of(&begun);
            world.assert_whole(place_after(&ended), &what);
            world.fleet.await_healthy(&world.progress).unwrap();
            bring_home(world);
        }
    }
}

fn begin_other(world: &World) {
    let edge = world.fleet.host("Edge3").unwrap();
    let spec = ContainerSpec::redis(OTHER, OTHER_ADDRESS);
    edge.start(&spec).unwrap();
    world.register_on(OTHER, "Edge3");
    let path = format!("/v1/containers/{OTHER}/confirm");
    let erin = world.fleet.account("erin").unwrap();
    let _: Container = erin.post(&path, &json!({})).unwrap();
    let _: Container = world
        .fleet
        .account("carol")
        .unwrap()
        .put(
            &format!("/v1/containers/{OTHER}/allow-post-copy"),
            &AllowPostCopy {
                allow_post_copy: true,
            },
        )
        .unwrap();
    slow_down(world, "Edge3");
    // Memory that takes seconds.
    remember(world, "SETRANGE", "pad", "40000000 x");
}

fn redis(world: &World, words: &str) -> String {
    let command = format!("redis-cli -h {OTHER_ADDRESS} {words}");
    let mut answer = String::new();
    wait_until("an answer", 20, || {
        let asked = world
            .fleet
            .host("Edge1")
            .unwrap()
            .run("sh", &["-c", &command]);
        asked.is_ok_and(|told| {
            answer = told.trim().to_owned();
            !answer.is_empty() && !answer.contains("Could not connect")
        })
    })
    .unwrap();
    answer
}

fn remember(world: &World, command: &str, key: &str, value: &str) {
    redis(world, &format!("{command} {key} {value}"));
}

fn other_state(world: &World) -> (String, ContainerState) {
    let path = format!("/v1/containers/{OTHER}");
    let other: Container = world.fleet.account("carol").unwrap().get(&path).unwrap();
    (other.edge_name, other.state)
}

/// Nothing of it is anywhere but on `edge`, and there all that is needed to start it.
fn assert_can_be_started(world: &World, edge: &str, what: &str) {
    assert_eq!(world.running_on(OTHER), Vec::<&str>::new(), "{what}");
    for away in EDGES.into_iter().filter(|away| *away != edge) {
        assert_eq!(world.left_on(OTHER, away), "", "{what}: left on {away}");
    }
    wait_until("the monitor to see that it is stopped", 20, || {
        other_state(world) == (edge.to_owned(), ContainerState::Stopped)
    })
    .unwrap();
    let log = format!("/tmp/start-{OTHER}.log");
    let start = format!("lxc-start -n {OTHER} -d -o {log} -l ERROR > /dev/null 2>&1 || cat {log}");
    let told = world.on(edge, &["sh", "-c", &start]);
    assert_eq!(told, "", "{what}");
    wait_until("it to run", 20, || world.running_on(OTHER) == [edge]).unwrap();
    // On its files: what was in memory went with the power.
    let file = format!("/var/lib/lxc/{OTHER}/rootfs/kept");
    assert_eq!(world.on(edge, &["cat", &file]).trim(), "kept", "{what}");
    remember(world, "SETRANGE", "pad", "40000000 x");
}

fn a_source_whose_power_fails_has_what_was_on_its_disk(world: &mut World) {
    let file = format!("echo kept > /var/lib/lxc/{OTHER}/rootfs/kept");
    world.on("Edge3", &["sh", "-c", &file]);
    for state in [
        MigrationState::CopyingAhead,
        MigrationState::HandingOver,
        MigrationState::Settling,
    ] {
        let what = format!("the source's power failed while {state:?}");
        println!("{what}");
        let begun = world.ask(OTHER, "Edge2", 0).unwrap();
        world.await_state(&begun, &[state]);
        world.fleet.restart_edge("Edge3").unwrap();
        let ended = world.end_of(&begun);
        assert_eq!(ended.state, MigrationState::Failed, "{what}: {ended:?}");
        let failure = ended.failure.unwrap();
        assert!(
            failure.contains("does not run on `Edge3` any more"),
            "{what}: {failure}"
        );
        world.fleet.await_healthy(&world.progress).unwrap();
        assert_can_be_started(world, "Edge3", &what);
        slow_down(world, "Edge3");
    }
}

fn a_target_whose_power_fails_costs_nothing(world: &mut World) {
    for state in [
        MigrationState::CopyingAhead,
        MigrationState::HandingOver,
        MigrationState::Settling,
    ] {
        let what = format!("the target's power failed while {state:?}");
        println!("{what}");
        remember(world, "SET", "before", "kept");
        let begun = world.ask(OTHER, "Edge2", 0).unwrap();
        world.await_state(&begun, &[state]);
        world.fleet.restart_edge("Edge2").unwrap();
        let ended = world.end_of(&begun);
        assert_eq!(ended.state, MigrationState::Failed, "{what}: {ended:?}");
        let failure = ended.failure.unwrap();
        assert!(!failure.contains("does not run"), "{what}: {failure}");
        assert_eq!(world.running_on(OTHER), ["Edge3"], "{what}");
        for away in ["Edge1", "Edge2"] {
            assert_eq!(world.left_on(OTHER, away), "", "{what}: left on {away}");
        }
        assert_eq!(redis(world, "GET before"), "kept", "{what}");
        world.fleet.await_healthy(&world.progress).unwrap();
        slow_down(world, "Edge2");
    }
}
