//! Moves of a real container between real edges, with luck and without: what is denied, what
//! fails and why, what is killed in the midst, and that the container, its connection and its
//! writes outlive all of it.
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
use std::path::PathBuf;
use std::process::Command;

use carnet_api::v1::{
    AttemptOutcome, AuditReport, Container, CreateAudit, DestinationSpec, Migration, MigrationState,
};
use carnet_lab::error::LabError;
use carnet_lab::exec::wait_until;
use carnet_lab::host::ContainerSpec;
use serde_json::{Value, json};
use traces::traces;
use world::{APP, EDGES, World};

const LAB: &str = "t-moves";

impl World {
    fn problems(migration: &Migration) -> String {
        match migration.attempts.last().map(|attempt| &attempt.outcome) {
            Some(AttemptOutcome::NotReady { problems }) => problems.join("; "),
            other => panic!("{other:?}"),
        }
    }
}

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn a_container_outlives_moves_denials_failures_and_crashes() {
    let mut world = World::begin(LAB);
    it_moves_again_and_again(&world);
    what_it_writes_to_its_files_as_it_moves_is_there(&world);
    what_cannot_be_asked_is_refused_with_a_reason(&world);
    a_container_that_is_missing_stays_where_it_is(&world);
    a_full_target_takes_nothing(&world);
    a_target_without_criu_is_not_ready(&mut world);
    a_target_that_is_down_is_denied(&mut world);
    a_target_that_cannot_make_ready_costs_no_stall(&world);
    a_failing_restore_brings_the_source_back(&world);
    a_failing_dump_lets_the_source_run_on(&world);
    a_killed_control_plane_takes_its_moves_up(&mut world);
    a_killed_agent_does_not_lose_the_container(&mut world);
    the_runtime_keeps_its_promises_on_lxc(&world);
    the_ledger_tells_all_of_it_truly(&mut world);
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

fn it_moves_again_and_again(world: &World) {
    const TEN: [&str; 10] = [
        "Edge2", "Edge3", "Edge1", "Edge2", "Edge1", "Edge3", "Edge2", "Edge3", "Edge2", "Edge1",
    ];
    for to in TEN {
        let migration = world.go(APP, to);
        assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
        assert_eq!(migration.target_name.as_deref(), Some(to));
        assert!(migration.transferred.image_bytes > 0);
        world.assert_whole(to, &format!("moved to {to}"));
    }
    assert_eq!(world.container().generation, 11);
}

/// From here on Redis writes what it is told to a file too, before it answers.
fn what_it_writes_to_its_files_as_it_moves_is_there(world: &World) {
    let place = world.container().edge_name;
    let ask = |edge: &str, words: &[&str]| {
        let redis = [["redis-cli", "-h", "10.88.2.1"].as_slice(), words].concat();
        world.on(edge, &redis)
    };
    ask(&place, &["CONFIG", "SET", "appendonly", "yes"]);
    wait_until("a file", 10, || {
        let info = ask(&place, &["INFO", "persistence"]);
        info.contains("aof_enabled:1") && info.contains("aof_rewrite_in_progress:0")
    })
    .unwrap();
    // What another Redis makes of the file.
    let read_back = format!(
        "rm -rf /tmp/copy; mkdir /tmp/copy; cd /tmp/copy; \
         cp -a /var/lib/lxc/{APP}/rootfs/tmp/appendonlydir .; \
         redis-server --port 7777 --bind 127.0.0.1 --appendonly yes --save '' --dir /tmp/copy \
           --daemonize yes > /dev/null; \
         until redis-cli -p 7777 PING | grep -q PONG; do sleep 0.05; done; \
         redis-cli -p 7777 DBSIZE; redis-cli -p 7777 SHUTDOWN NOSAVE"
    );
    let count = |text: String| text.trim().parse::<u64>().unwrap();
    for edge in EDGES
        .into_iter()
        .filter(|edge| *edge != place)
        .chain([place.as_str()])
    {
        let moved = world.go(APP, edge);
        assert_eq!(moved.state, MigrationState::Completed, "{moved:?}");
        let before = count(ask(edge, &["DBSIZE"]));
        let in_file = count(world.on(edge, &["timeout", "20", "sh", "-c", &read_back]));
        let after = count(ask(edge, &["DBSIZE"]));
        assert!(
            (before..=after).contains(&in_file),
            "{in_file} keys are in the file, {before} to {after} in memory"
        );
    }
    ask(&place, &["CONFIG", "SET", "appendonly", "no"]);
}

fn what_cannot_be_asked_is_refused_with_a_reason(world: &World) {
    let refusal = |container: &str, to: &str| {
        let error = world.ask(container, to, 0).unwrap_err();
        let LabError::Api { source, .. } = error else {
            panic!("{error}");
        };
        source.to_string()
    };
    assert!(refusal(APP, "Edge1").contains("is on `Edge1` already"));
    assert!(refusal(APP, "Edge4").contains("did you mean `Edge"));
    assert!(refusal("App2", "Edge2").contains("no container `App2`"));
    let first = world.ask(APP, "Edge2", 0).unwrap();
    assert!(refusal(APP, "Edge3").contains(&first.id.to_string()));
    wait_until("the end of the first move", 60, || {
        world.container().migration.is_none()
    })
    .unwrap();
    world.assert_whole("Edge2", "two moves at once");
    world.go(APP, "Edge1");
}

fn a_container_that_is_missing_stays_where_it_is(world: &World) {
    let erin = world.fleet.account("erin").unwrap();
    world.register("Ghost");
    let _: Container = erin
        .post("/v1/containers/Ghost/confirm", &json!({}))
        .unwrap();
    let migration = world.go("Ghost", "Edge2");
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    let words = "there is no container `Ghost` on this edge";
    assert!(failure.contains(words), "{failure}");
    world.assert_whole("Edge1", "another failed to move");
}

fn a_full_target_takes_nothing(world: &World) {
    let full = "/var/lib/lxc";
    world.on(
        "Edge2",
        &["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", full],
    );
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    assert!(failure.contains("/var/lib/lxc has 1 MB free"), "{failure}");
    world.on("Edge2", &["umount", full]);
    world.assert_whole("Edge1", "the target is full");
}

fn a_target_without_criu_is_not_ready(world: &mut World) {
    world.on("Edge2", &["mv", "/usr/sbin/criu", "/usr/sbin/criu.away"]);
    // What an agent found out about its machine it believes for a while.
    world.fleet.agent("Edge2").unwrap().stop().unwrap();
    world.fleet.start_agent("Edge2").unwrap();
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Denied);
    let problems = World::problems(&migration);
    assert!(
        problems.contains("criu is missing: apt install criu"),
        "{problems}"
    );
    world.on("Edge2", &["mv", "/usr/sbin/criu.away", "/usr/sbin/criu"]);
    world.fleet.agent("Edge2").unwrap().stop().unwrap();
    world.fleet.start_agent("Edge2").unwrap();
    world.fleet.await_healthy(&world.progress).unwrap();
    world.assert_whole("Edge1", "the target lacks CRIU");
}

fn a_target_that_is_down_is_denied(world: &mut World) {
    world.fleet.agent("Edge2").unwrap().kill().unwrap();
    let audit = CreateAudit {
        container: APP.to_owned(),
        to: DestinationSpec::Edge("Edge2".to_owned()),
    };
    let report: AuditReport = world.post("/v1/audits", &json!(audit)).unwrap();
    let AttemptOutcome::Denied { reasons } = &report.attempts[0].outcome else {
        panic!("{report:?}");
    };
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    for reason in reasons {
        let found = &reason.found;
        assert!(
            found.starts_with("no reading: asked edge `Edge2`"),
            "{found}"
        );
    }
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Denied);
    world.fleet.start_agent("Edge2").unwrap();
    world.fleet.await_healthy(&world.progress).unwrap();
    world.assert_whole("Edge1", "the target is down");
}

/// Before the freeze: the target cannot even make ready.
fn a_target_that_cannot_make_ready_costs_no_stall(world: &World) {
    let tool = "/usr/bin/lxc-checkpoint";
    world.on("Edge2", &["mount", "--bind", "/usr/bin/false", tool]);
    let generation = world.container().generation;
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    assert!(failure.starts_with("handing over: "), "{failure}");
    assert!(failure.contains("lxc-checkpoint"), "{failure}");
    assert_eq!(world.container().generation, generation);
    assert_eq!(migration.stall_ms, None);
    world.on("Edge2", &["umount", tool]);
    world.assert_whole("Edge1", "the target cannot make ready");
}

/// Has an edge's CRIU fail at one thing, and at no other.
fn let_criu_fail(world: &World, edge: &str, at: &str) {
    let tool = "/usr/sbin/criu";
    let failing = format!("/tmp/criu-that-cannot-{at}");
    let script = format!(
        "cp {tool} /tmp/criu; printf '#!/bin/sh\n[ $1 = {at} ] && exit 1\nexec /tmp/criu \"$@\"\n' \
         > {failing}; chmod +x {failing}; mount --bind {failing} {tool}"
    );
    world.on(edge, &["sh", "-c", &script]);
}

/// Past the commit: the target cannot bring it to life, and gives it back.
fn a_failing_restore_brings_the_source_back(world: &World) {
    let tool = "/usr/sbin/criu";
    let_criu_fail(world, "Edge2", "restore");
    let generation = world.container().generation;
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    assert!(failure.starts_with("restoring: "), "{failure}");
    assert!(failure.contains("lxc-checkpoint"), "{failure}");
    assert_eq!(world.container().generation, generation + 2);
    world.on("Edge2", &["umount", tool]);
    world.assert_whole("Edge1", "the restore failed");
}

fn a_failing_dump_lets_the_source_run_on(world: &World) {
    let tool = "/usr/sbin/criu";
    let_criu_fail(world, "Edge1", "dump");
    let generation = world.container().generation;
    let migration = world.go(APP, "Edge2");
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    assert!(failure.starts_with("handing over: "), "{failure}");
    assert!(failure.contains("criu dump"), "{failure}");
    assert_eq!(world.container().generation, generation);
    world.on("Edge1", &["umount", tool]);
    world.assert_whole("Edge1", "the dump failed");
}

fn a_killed_control_plane_takes_its_moves_up(world: &mut World) {
    for (to, state) in [
        ("Edge2", MigrationState::CopyingAhead),
        ("Edge3", MigrationState::HandingOver),
        ("Edge1", MigrationState::Restoring),
    ] {
        let begun = world.ask(APP, to, 0).unwrap();
        world.await_state(&begun, &[state]);
        world.fleet.control().unwrap().kill().unwrap();
        world.fleet.start_control().unwrap();
        let ended = world.end_of(&begun);
        assert_eq!(ended.state, MigrationState::Completed, "{ended:?}");
        world.assert_whole(to, &format!("the control plane was killed while {state:?}"));
    }
}

fn a_killed_agent_does_not_lose_the_container(world: &mut World) {
    for (victim, state) in [
        ("Edge1", MigrationState::CopyingAhead),
        ("Edge2", MigrationState::CopyingAhead),
        ("Edge1", MigrationState::HandingOver),
        ("Edge2", MigrationState::HandingOver),
        ("Edge2", MigrationState::Restoring),
        ("Edge1", MigrationState::Releasing),
    ] {
        let what = format!("the agent of {victim} was killed while {state:?}");
        let begun = world.ask(APP, "Edge2", 0).unwrap();
        world.await_state(&begun, &[state]);
        world.fleet.agent(victim).unwrap().kill().unwrap();
        world.fleet.start_agent(victim).unwrap();
        let ended = world.end_of(&begun);
        let edge = match ended.state {
            MigrationState::Completed => "Edge2",
            MigrationState::Failed => "Edge1",
            other => panic!("{what}: {other:?}"),
        };
        world.assert_whole(edge, &what);
        world.fleet.await_healthy(&world.progress).unwrap();
        if edge == "Edge2" {
            assert_eq!(world.go(APP, "Edge1").state, MigrationState::Completed);
        }
    }
}

/// After all that was killed and that failed: every move has its permit, every permit its decision.
fn the_ledger_tells_all_of_it_truly(world: &mut World) {
    let report = world.sound_ledger();
    let permits = report["kinds"]["permit"].as_u64();
    assert!(permits.is_some_and(|permits| permits > 10), "{report:#}");
}

/// The suite that the simulated runtime passes, run on an edge, against a container of its own.
fn the_runtime_keeps_its_promises_on_lxc(world: &World) {
    let edge = world.fleet.host("Edge3").unwrap();
    let suite = ContainerSpec::redis("Suite", Ipv4Addr::new(10, 88, 2, 9));
    edge.start(&suite).unwrap();
    let built = Command::new(env!("CARGO"))
        .args(["test", "--locked", "--no-run", "--workspace"])
        .args(["--test", "runtime", "--message-format=json"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&built.stdout).into_owned();
    let program = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .expect("the agent's test of its runtimes");
    let target = PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab"));
    let below = program.strip_prefix(target.parent().unwrap()).unwrap();
    let inside = format!("/opt/carnet/{}", below.display());
    // What a test says that fails, it says on standard output.
    let script = format!(
        "told=$(CARNET_TEST_LXC_CONTAINER=Suite CARNET_TEST_PROGRAM=/opt/carnet/carnet {inside} \
         --ignored --test-threads=1 2>&1) && echo \"$told\" || {{ echo \"$told\" >&2; exit 1; }}"
    );
    let told = edge.run("sh", &["-c", &script]);
    let told = told.unwrap();
    assert!(told.contains("test result: ok. 1 passed"), "{told}");
}
