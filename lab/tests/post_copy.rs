//! Moves of a real container whose memory follows after it runs, and what becomes of it where
//! something dies, or the link is cut, before all of it is over.
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

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr};

use carnet_api::v1::{AllowPostCopy, Container, Migration, MigrationState, Strategy};
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::CLIENT;
use carnet_lab::host::ContainerSpec;
use nix::sys::signal::Signal;
use serde_json::json;
use traces::traces;
use world::{APP, EDGES, World};

const LAB: &str = "t-post-copy";
/// A container with so much memory that it takes a while to go over.
const LARGE: &str = "Large";
const LARGE_BYTES: u64 = 150 << 20;

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn memory_follows_or_the_container_goes_on_at_its_source() {
    let mut world = World::begin(LAB);
    allow(&world, APP);
    nothing_is_lost_where_nothing_fails(&world);
    begin_large(&world);
    who_is_asked_to_end_passes_all_memory_on_first(&mut world);
    a_killed_control_plane_takes_it_up(&mut world);
    what_dies_on_the_way_is_told_and_the_source_goes_on(&mut world);
    a_link_that_is_cut_for_a_moment_loses_nothing(&mut world);
    a_link_that_stays_cut_brings_the_source_back(&mut world);
    world.sound_ledger();
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

fn allow(world: &World, name: &str) {
    let _: Container = world
        .fleet
        .account("carol")
        .unwrap()
        .put(
            &format!("/v1/containers/{name}/allow-post-copy"),
            &AllowPostCopy {
                allow_post_copy: true,
            },
        )
        .unwrap();
}

fn assert_moved(migration: &Migration) {
    assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
    let chosen = migration.strategy.as_ref().unwrap();
    assert_eq!(chosen.strategy, Strategy::PostCopy, "{}", chosen.reason);
}

fn nothing_is_lost_where_nothing_fails(world: &World) {
    for to in ["Edge2", "Edge3", "Edge1", "Edge2", "Edge1"] {
        let migration = world.go(APP, to);
        assert_moved(&migration);
        world.assert_whole(to, &format!("moved to {to}"));
    }
}

/// What it answers: a line.
#[track_caller]
fn ask(world: &World, command: &str) -> String {
    let address = SocketAddr::from((Ipv4Addr::new(10, 88, 2, 3), 6379));
    let mut answer = String::new();
    wait_until("an answer", 20, || {
        let stream = world.fleet.host(CLIENT).unwrap().connect(address);
        let Ok(mut stream) = stream else {
            return false;
        };
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        answer.clear();
        write!(stream, "{command}\r\n").is_ok()
            && BufReader::new(stream).read_line(&mut answer).is_ok()
            && !answer.is_empty()
    })
    .unwrap();
    answer.trim_end().to_owned()
}

fn begin_large(world: &World) {
    let edge = world.fleet.host("Edge1").unwrap();
    let address = Ipv4Addr::new(10, 88, 2, 3);
    edge.start(&ContainerSpec::redis(LARGE, address)).unwrap();
    world.register(LARGE);
    let path = format!("/v1/containers/{LARGE}/confirm");
    let erin = world.fleet.account("erin").unwrap();
    let _: Container = erin.post(&path, &json!({})).unwrap();
    allow(world, LARGE);
    let last = LARGE_BYTES - 1;
    assert_eq!(
        ask(world, &format!("SETRANGE pad {last} x")),
        format!(":{LARGE_BYTES}")
    );
}

/// It runs on `edge` alone, and nothing of it is anywhere else.
fn assert_at(world: &World, edge: &str, what: &str) {
    assert_eq!(world.running_on(LARGE), [edge], "{what}");
    for other in EDGES.into_iter().filter(|other| *other != edge) {
        assert_eq!(world.left_on(LARGE, other), "", "{what}: left on {other}");
    }
    assert_eq!(
        ask(world, "STRLEN pad"),
        format!(":{LARGE_BYTES}"),
        "{what}"
    );
}

/// Begins a move, and waits until its memory is on its way.
fn begin_and_settle(world: &World, to: &str) -> Migration {
    let begun = world.ask(LARGE, to, 0).unwrap();
    let path = format!("/v1/migrations/{}", begun.id);
    wait_until("memory on its way", 60, || {
        let now: Migration = world.fleet.account("carol").unwrap().get(&path).unwrap();
        assert!(!now.state.is_ended(), "it was too fast: {now:?}");
        now.state == MigrationState::Settling
    })
    .unwrap();
    begun
}

fn who_is_asked_to_end_passes_all_memory_on_first(world: &mut World) {
    for (victim, to) in [("Edge1", "Edge2"), ("Edge1", "Edge1")] {
        let what = format!("the agent of {victim} was asked to end");
        ask(world, &format!("SET seen {to}"));
        let begun = begin_and_settle(world, to);
        let agent = world.fleet.agent(victim).unwrap();
        agent.signal(Signal::SIGTERM).unwrap();
        agent.await_end(30).unwrap();
        world.fleet.start_agent(victim).unwrap();
        assert_moved(&world.end_of(&begun));
        assert_at(world, to, &what);
    }
}

fn a_killed_control_plane_takes_it_up(world: &mut World) {
    let begun = begin_and_settle(world, "Edge2");
    world.fleet.control().unwrap().kill().unwrap();
    world.fleet.start_control().unwrap();
    assert_moved(&world.end_of(&begun));
    assert_at(world, "Edge2", "the control plane was killed");
    assert_moved(&world.go(LARGE, "Edge1"));
}

/// The target's copy is killed at once, and what it did since the freeze is lost: which the
/// container's owner has accepted, and is told.
fn what_dies_on_the_way_is_told_and_the_source_goes_on(world: &mut World) {
    let kill = |pattern: &'static str, edge: &'static str| {
        move |world: &mut World| {
            world.on(edge, &["pkill", "-9", "-f", pattern]);
        }
    };
    let agent = |edge: &'static str| {
        move |world: &mut World| {
            world.fleet.agent(edge).unwrap().kill().unwrap();
            world.fleet.start_agent(edge).unwrap();
        }
    };
    type Strike = Box<dyn Fn(&mut World)>;
    let cases: Vec<(&str, Strike)> = vec![
        ("the source's agent was killed", Box::new(agent("Edge1"))),
        ("the target's agent was killed", Box::new(agent("Edge2"))),
        (
            "the source's page server was killed",
            Box::new(kill("^criu dump", "Edge1")),
        ),
        (
            "the target's page daemon was killed",
            Box::new(kill("^criu lazy-pages", "Edge2")),
        ),
        (
            "the target's guard was killed",
            Box::new(kill("agent guard", "Edge2")),
        ),
    ];
    for (what, strike) in cases {
        ask(world, "SET before kept");
        let begun = begin_and_settle(world, "Edge2");
        strike(world);
        let ended = world.end_of(&begun);
        assert_eq!(ended.state, MigrationState::Failed, "{what}: {ended:?}");
        let failure = ended.failure.unwrap();
        assert!(failure.starts_with("settling: "), "{what}: {failure}");
        assert!(failure.contains("killed"), "{what}: {failure}");
        assert_at(world, "Edge1", what);
        ask(world, "GET before");
        world.fleet.await_healthy(&world.progress).unwrap();
    }
}

fn a_link_that_is_cut_for_a_moment_loses_nothing(world: &mut World) {
    let begun = begin_and_settle(world, "Edge2");
    world.cut("Edge1", "Edge2", true);
    world.await_silence("Edge1");
    world.cut("Edge1", "Edge2", false);
    assert_moved(&world.end_of(&begun));
    assert_at(world, "Edge2", "the link was cut for a moment");
    assert_moved(&world.go(LARGE, "Edge1"));
}

fn a_link_that_stays_cut_brings_the_source_back(world: &mut World) {
    let begun = begin_and_settle(world, "Edge2");
    world.cut("Edge1", "Edge2", true);
    let ended = world.end_of(&begun);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.starts_with("settling: "), "{failure}");
    world.cut("Edge1", "Edge2", false);
    assert_at(world, "Edge1", "the link stayed cut");
}
