//! Cold moves of a real container: one that is stopped, and one that is shut down for it and started
//! anew, with all that it has acknowledged; whatever fails, it runs again where it was.
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
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use carnet_api::v1::{
    AttemptOutcome, Container, ContainerState, CreateMigration, DestinationSpec, Migration,
    MigrationState, Strategy,
};
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::CLIENT;
use carnet_lab::host::ContainerSpec;
use serde_json::json;
use traces::traces;
use world::{EDGES, World};

const LAB: &str = "t-cold";
/// A Redis that writes what it acknowledges to a file before it does.
const KEEPER: &str = "Keeper";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 2, 4);

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn a_container_is_moved_without_its_memory_and_loses_nothing_that_it_wrote() {
    let mut world = World::begin(LAB);
    begin(&world);
    what_is_stopped_moves_and_stays_stopped(&world);
    what_runs_is_started_anew_with_all_that_it_acknowledged(&world);
    it_moves_cold_and_live_in_turn(&world);
    what_was_started_by_hand_meanwhile_is_left_alone(&world);
    a_cancelled_move_starts_it_again(&world);
    a_target_that_dies_on_the_way_costs_a_restart(&mut world);
    an_agent_that_is_killed_while_it_stops_it_or_after_starts_it_again(&mut world);
    a_source_whose_power_fails_starts_it_again_or_stays_down(&mut world);
    what_does_not_start_at_the_target_is_started_at_its_source(&world);
    a_container_is_told_to_shut_down_as_it_hears_it(&world);
    edges_without_criu_make_cold_moves_and_no_others(&mut world);
    world.assert_whole("Edge1", "another container was moved all the while");
    world.sound_ledger();
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

fn begin(world: &World) {
    let keeper = ContainerSpec {
        name: KEEPER.to_owned(),
        address: ADDRESS,
        command: "/usr/bin/redis-server --bind 0.0.0.0 --protected-mode no --save \"\" --dir /tmp \
                  --appendonly yes --appendfsync always"
            .to_owned(),
        port: 6379,
    };
    world.fleet.host("Edge1").unwrap().start(&keeper).unwrap();
    world.register(KEEPER);
    let erin = world.fleet.account("erin").unwrap();
    let path = format!("/v1/containers/{KEEPER}/confirm");
    let _: Container = erin.post(&path, &json!({})).unwrap();
}

fn connect(world: &World) -> Option<TcpStream> {
    let address = SocketAddr::from((ADDRESS, 6379));
    let stream = world.fleet.host(CLIENT).unwrap().connect(address).ok()?;
    let limit = Some(Duration::from_secs(30));
    stream.set_read_timeout(limit).unwrap();
    Some(stream)
}

/// What it answers on one line; `None` where it does not.
fn say(stream: &TcpStream, command: &str) -> Option<String> {
    let mut answer = String::new();
    let mut stream = BufReader::new(stream);
    write!(stream.get_mut(), "{command}\r\n").ok()?;
    stream.read_line(&mut answer).ok()?;
    let answer = answer.trim_end();
    (!answer.is_empty()).then(|| answer.to_owned())
}

/// What it answers, once it does.
#[track_caller]
fn ask(world: &World, command: &str) -> String {
    let mut answer = None;
    wait_until("an answer", 30, || {
        answer = connect(world).and_then(|stream| say(&stream, command));
        answer
            .as_ref()
            .is_some_and(|answer| !answer.starts_with("-LOADING"))
    })
    .unwrap();
    answer.unwrap()
}

/// How far it has counted, as somebody knows who was told.
struct Counter(JoinHandle<u64>);

impl Counter {
    /// Counts until nobody answers any more.
    fn start(world: &World) -> Self {
        let stream = connect(world).unwrap();
        let first = count(&say(&stream, "INCR counter").unwrap());
        Self(std::thread::spawn(move || {
            let mut last = first;
            while let Some(answer) = say(&stream, "INCR counter") {
                last = count(&answer);
            }
            last
        }))
    }

    /// Everything that was acknowledged is there; one more may be, whose answer was lost.
    fn assert_kept(self, world: &World, what: &str) {
        let last = self.0.join().unwrap();
        let kept = count(&ask(world, "INCRBY counter 0"));
        assert!(
            (last..=last + 1).contains(&kept),
            "{what}: {kept}, not {last}"
        );
    }
}

/// `:7`
fn count(answer: &str) -> u64 {
    let number = answer
        .strip_prefix(':')
        .unwrap_or_else(|| panic!("{answer}"));
    number.parse().unwrap()
}

fn begun(world: &World, to: &str, strategy: Option<Strategy>, rate: Option<u64>) -> Migration {
    let asked = CreateMigration {
        container: KEEPER.to_owned(),
        to: DestinationSpec::Edge(to.to_owned()),
        strategy,
        max_downtime_ms: None,
        bandwidth_bytes_per_s: rate,
    };
    world.post("/v1/migrations", &json!(asked)).unwrap()
}

fn go(world: &World, to: &str, strategy: Option<Strategy>) -> Migration {
    world.end_of(&begun(world, to, strategy, None))
}

/// It is on `edge`, running or not, and nothing of it is anywhere else.
#[track_caller]
fn assert_at(world: &World, edge: &str, runs: bool, what: &str) {
    let running: &[&str] = if runs { &[edge] } else { &[] };
    assert_eq!(world.running_on(KEEPER), running, "{what}");
    for other in EDGES.into_iter().filter(|other| *other != edge) {
        assert_eq!(world.left_on(KEEPER, other), "", "{what}: left on {other}");
    }
    let there = "ls /var/lib/lxc/Keeper; ls -d /run/carnet/images/Keeper 2>/dev/null || true";
    assert_eq!(
        world.on(edge, &["sh", "-c", there]),
        "config\nrootfs\n",
        "{what}"
    );
    let state = match runs {
        true => ContainerState::Running,
        false => ContainerState::Stopped,
    };
    let carol = world.fleet.account("carol").unwrap();
    wait_until("the monitor to see it", 30, || {
        let container: Container = carol.get(&format!("/v1/containers/{KEEPER}")).unwrap();
        assert_eq!(container.edge_name, edge, "{what}");
        container.state == state
    })
    .unwrap_or_else(|error| panic!("{what}: {error}"));
}

fn assert_moved(migration: &Migration, strategy: Strategy) {
    assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
    let chosen = migration.strategy.as_ref().unwrap();
    assert_eq!(chosen.strategy, strategy, "{}", chosen.reason);
}

fn what_is_stopped_moves_and_stays_stopped(world: &World) {
    let counter = Counter::start(world);
    world.on("Edge1", &["lxc-stop", "-n", KEEPER, "-k"]);
    for (to, strategy) in [
        ("Edge2", None),
        ("Edge3", Some(Strategy::Cold)),
        ("Edge2", None),
    ] {
        let moved = go(world, to, strategy);
        assert_moved(&moved, Strategy::Cold);
        assert_eq!(moved.transferred.image_bytes, 0);
        assert_eq!(moved.stall_ms, None);
        assert_at(world, to, false, "it was stopped");
    }
    let refused = go(world, "Edge1", Some(Strategy::StopAndCopy));
    assert_eq!(refused.state, MigrationState::Failed);
    let failure = refused.failure.unwrap();
    assert!(failure.contains("the container is stopped"), "{failure}");
    assert_at(world, "Edge2", false, "it was refused");
    // Whoever may starts it there.
    start_by_hand(world, "Edge2");
    counter.assert_kept(world, "it was started where it had moved to");
    assert_at(world, "Edge2", true, "it was started by hand");
}

fn start_by_hand(world: &World, edge: &str) {
    let start = "lxc-start -n Keeper -d > /dev/null 2>&1";
    world.on(edge, &["sh", "-c", start]);
}

fn what_runs_is_started_anew_with_all_that_it_acknowledged(world: &World) {
    for to in ["Edge3", "Edge1"] {
        let counter = Counter::start(world);
        let moved = go(world, to, Some(Strategy::Cold));
        assert_moved(&moved, Strategy::Cold);
        counter.assert_kept(world, to);
        assert_at(world, to, true, "it was moved cold");
        assert_eq!(moved.transferred.image_bytes, 0);
        assert_eq!(moved.expected_downtime_ms, None);
        assert!(moved.stall_ms.is_some());
        let steps: Vec<&str> = moved.stall_steps.iter().map(|step| &*step.step).collect();
        for step in [
            "stopping it",
            "sending what has changed of its files",
            "starting it",
        ] {
            assert!(steps.contains(&step), "{step}: {steps:?}");
        }
    }
}

/// What one leaves of a network the other does not stumble over.
fn it_moves_cold_and_live_in_turn(world: &World) {
    let mut strategies = [None, Some(Strategy::Cold)].into_iter().cycle();
    for to in ["Edge2", "Edge1", "Edge3", "Edge2", "Edge1"] {
        let strategy = strategies.next().unwrap();
        ask(world, "INCR moves");
        let moved = go(world, to, strategy);
        assert_moved(&moved, strategy.unwrap_or(Strategy::StopAndCopy));
        assert_at(world, to, true, "it was moved in turn");
    }
    assert_eq!(ask(world, "INCRBY moves 0"), ":5");
    // What was made from memory is stopped, and started, as any other.
    assert_moved(&go(world, "Edge2", None), Strategy::StopAndCopy);
    world.on("Edge2", &["lxc-stop", "-n", KEEPER, "-k"]);
    assert_moved(&go(world, "Edge1", None), Strategy::Cold);
    assert_at(world, "Edge1", false, "it was stopped after a live move");
    start_by_hand(world, "Edge1");
    ask(world, "PING");
}

/// Where it was stopped as it was made ready, and runs when it is to be handed over.
fn what_was_started_by_hand_meanwhile_is_left_alone(world: &World) {
    world.on("Edge1", &["lxc-stop", "-n", KEEPER, "-k"]);
    large_file(world, "Edge1", 40);
    let move_it = begun(world, "Edge2", None, Some(5_000_000));
    world.await_state(&move_it, &[MigrationState::CopyingAhead]);
    start_by_hand(world, "Edge1");
    let ended = world.end_of(&move_it);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.contains("runs now"), "{failure}");
    ask(world, "PING");
    assert_at(world, "Edge1", true, "it was started by hand meanwhile");
}

/// Writes so many MB that cannot be compressed.
fn large_file(world: &World, edge: &str, megabytes: u32) {
    let count = format!("count={megabytes}");
    let file = "of=/var/lib/lxc/Keeper/rootfs/large";
    world.on(edge, &["dd", "if=/dev/urandom", file, "bs=1M", &count]);
}

/// Whether a move holds it on an edge, and whether anything of it runs there.
fn held(world: &World, edge: &str) -> bool {
    let edge = world.fleet.host(edge).unwrap();
    edge.run("test", &["-e", "/var/lib/lxc/Keeper/config.held"])
        .is_ok()
}

fn is_over(world: &World, edge: &str) -> bool {
    let cgroup = "/sys/fs/cgroup/lxc.payload.Keeper";
    let edge = world.fleet.host(edge).unwrap();
    edge.run("test", &["!", "-e", cgroup]).is_ok()
}

/// Sends a signal to its first process.
fn signal(world: &World, edge: &str, signal: &str) {
    let first = world.on(edge, &["lxc-info", "-n", KEEPER, "-p", "-H"]);
    world.on(edge, &["kill", signal, first.trim()]);
}

/// Begins a cold move from an edge to Edge2, and waits until the container has been told to shut
/// down: it hears that once it is sent SIGCONT.
fn begin_and_hold(world: &World, edge: &str) -> (Migration, Counter) {
    let large = "/var/lib/lxc/Keeper/rootfs/large";
    world.on(edge, &["rm", "-f", large]);
    let counter = Counter::start(world);
    signal(world, edge, "-STOP");
    let move_it = begun(world, "Edge2", Some(Strategy::Cold), Some(10_000_000));
    wait_until("it to be held", 30, || held(world, edge)).unwrap();
    assert!(!is_over(world, edge), "it was too fast");
    (move_it, counter)
}

/// And waits until it has shut down, and its files are on their way, which takes a while.
fn begin_and_stop(world: &World, edge: &str) -> (Migration, Counter) {
    let (move_it, counter) = begin_and_hold(world, edge);
    large_file(world, edge, 60);
    signal(world, edge, "-CONT");
    wait_until("it to shut down", 30, || is_over(world, edge)).unwrap();
    let now = world.await_state(&move_it, &[MigrationState::HandingOver]);
    assert_eq!(now.state, MigrationState::HandingOver, "{now:?}");
    (move_it, counter)
}

/// Nobody starts it by hand.
fn assert_cannot_be_started(world: &World, edge: &str) {
    let host = world.fleet.host(edge).unwrap();
    host.run("lxc-start", &["-n", KEEPER]).unwrap_err();
    assert!(held(world, edge) && is_over(world, edge));
}

fn a_cancelled_move_starts_it_again(world: &World) {
    let (move_it, counter) = begin_and_stop(world, "Edge1");
    assert_cannot_be_started(world, "Edge1");
    let path = format!("/v1/migrations/{}/cancel?wait=50", move_it.id);
    let cancelled: Migration = world.post(&path, &json!({})).unwrap();
    assert_eq!(cancelled.state, MigrationState::Cancelled, "{cancelled:?}");
    counter.assert_kept(world, "cancelled");
    assert_at(world, "Edge1", true, "cancelled");
}

fn a_target_that_dies_on_the_way_costs_a_restart(world: &mut World) {
    let (move_it, counter) = begin_and_stop(world, "Edge1");
    world.fleet.agent("Edge2").unwrap().kill().unwrap();
    world.await_state(&move_it, &[MigrationState::DiscardingTarget]);
    counter.assert_kept(world, "the target's agent was killed");
    assert_eq!(world.running_on(KEEPER), ["Edge1"]);
    world.fleet.start_agent("Edge2").unwrap();
    let ended = world.end_of(&move_it);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    world.fleet.await_healthy(&world.progress).unwrap();
    assert_at(world, "Edge1", true, "the target's agent was killed");
}

fn an_agent_that_is_killed_while_it_stops_it_or_after_starts_it_again(world: &mut World) {
    for is_stopped in [false, true] {
        let what = format!("the source's agent was killed, stopped: {is_stopped}");
        // What is known here of how it came is of no matter.
        for to in ["Edge2", "Edge1"] {
            assert_moved(&go(world, to, Some(Strategy::Cold)), Strategy::Cold);
        }
        let (move_it, counter) = match is_stopped {
            true => begin_and_stop(world, "Edge1"),
            false => begin_and_hold(world, "Edge1"),
        };
        world.fleet.agent("Edge1").unwrap().kill().unwrap();
        assert!(held(world, "Edge1"), "{what}");
        if !is_stopped {
            // What it was told it hears now, and nobody is there to see it end.
            signal(world, "Edge1", "-CONT");
            wait_until("it to shut down", 30, || is_over(world, "Edge1")).unwrap();
        }
        world.fleet.start_agent("Edge1").unwrap();
        let ended = world.end_of(&move_it);
        assert_eq!(ended.state, MigrationState::Failed, "{what}: {ended:?}");
        counter.assert_kept(world, &what);
        world.fleet.await_healthy(&world.progress).unwrap();
        assert_at(world, "Edge1", true, &what);
    }
}

/// On Edge3, where nothing else runs.
fn a_source_whose_power_fails_starts_it_again_or_stays_down(world: &mut World) {
    assert_moved(&go(world, "Edge3", Some(Strategy::Cold)), Strategy::Cold);
    let (move_it, counter) = begin_and_stop(world, "Edge3");
    world.fleet.restart_edge("Edge3").unwrap();
    let ended = world.end_of(&move_it);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    counter.assert_kept(world, "the source's power failed");
    world.fleet.await_healthy(&world.progress).unwrap();
    assert_at(world, "Edge3", true, "the source's power failed");

    // After the commit: the target takes a while.
    world.on("Edge3", &["rm", "-f", "/var/lib/lxc/Keeper/rootfs/large"]);
    let slow = "cp /usr/bin/lxc-start /tmp/lxc-start; mkfifo /tmp/go; \
                printf '#!/bin/sh\nread -r go < /tmp/go\nexec /tmp/lxc-start \"$@\"\n' > /tmp/slow; \
                chmod +x /tmp/slow; mount --bind /tmp/slow /usr/bin/lxc-start";
    world.on("Edge2", &["sh", "-c", slow]);
    let counter = Counter::start(world);
    let move_it = begun(world, "Edge2", Some(Strategy::Cold), None);
    let now = world.await_state(&move_it, &[MigrationState::Restoring]);
    assert_eq!(now.state, MigrationState::Restoring, "{now:?}");
    world.fleet.restart_edge("Edge3").unwrap();
    assert_cannot_be_started(world, "Edge3");
    world.on("Edge2", &["sh", "-c", "echo go > /tmp/go"]);
    let ended = world.end_of(&move_it);
    assert_moved(&ended, Strategy::Cold);
    world.on("Edge2", &["umount", "/usr/bin/lxc-start"]);
    counter.assert_kept(world, "the source's power failed after the commit");
    world.fleet.await_healthy(&world.progress).unwrap();
    assert_at(
        world,
        "Edge2",
        true,
        "the source's power failed after the commit",
    );
    assert_moved(&go(world, "Edge1", Some(Strategy::Cold)), Strategy::Cold);
}

/// Past the commit: it is given back.
fn what_does_not_start_at_the_target_is_started_at_its_source(world: &World) {
    let tool = "/usr/bin/lxc-start";
    world.on("Edge2", &["mount", "--bind", "/usr/bin/false", tool]);
    let counter = Counter::start(world);
    let ended = go(world, "Edge2", Some(Strategy::Cold));
    world.on("Edge2", &["umount", tool]);
    assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
    let failure = ended.failure.unwrap();
    assert!(failure.starts_with("restoring: "), "{failure}");
    assert!(failure.contains("lxc-start"), "{failure}");
    counter.assert_kept(world, "it was given back");
    assert_at(world, "Edge1", true, "it was given back");
}

/// What its first process runs, and what that has written once it has shut down in order.
const INITS: [(&str, &str, &str); 3] = [
    (
        "Powered",
        "10.88.2.11",
        "trap 'echo power > /tmp/told; exit 0' PWR; : > /tmp/ready; while :; do sleep 0.1; done",
    ),
    (
        "Ended",
        "10.88.2.12",
        "trap 'echo ended > /tmp/told; exit 0' TERM; : > /tmp/ready; while :; do sleep 0.1; done",
    ),
    // Its first process hears nothing, and another has something to put in order.
    (
        "Deaf",
        "10.88.2.13",
        "sh -c 'trap \"echo deaf > /tmp/told; exit 0\" TERM; : > /tmp/ready; while :; do sleep 0.1; done' & \
         exec sleep 1000000",
    ),
];

fn a_container_is_told_to_shut_down_as_it_hears_it(world: &World) {
    let erin = world.fleet.account("erin").unwrap();
    for (name, address, init) in INITS {
        let directory = format!("/var/lib/lxc/{name}");
        let make = format!(
            "set -e; mkdir {directory}; cp -a /var/lib/lxc/Keeper/rootfs {directory}/rootfs; \
             sed -e s/Keeper/{name}/g -e 's#^lxc.init.cmd.*#lxc.init.cmd = /bin/sh /init#' \
               -e 's#^lxc.net.0.veth.pair.*##' -e 's#{ADDRESS}/#{address}/#' \
               -e 's#02:88:.*#02:88:00:00:00:{}#' /var/lib/lxc/Keeper/config > {directory}/config; \
             cat > {directory}/rootfs/init <<'END'\n{init}\nEND\n\
             lxc-start -n {name} -d > /dev/null 2>&1",
            address.rsplit('.').next().unwrap()
        );
        world.on("Edge1", &["sh", "-c", &make]);
        let ready = format!("{directory}/rootfs/tmp/ready");
        let edge = world.fleet.host("Edge1").unwrap();
        wait_until("its first process", 20, || {
            edge.run("test", &["-e", &ready]).is_ok()
        })
        .unwrap();
        world.register(name);
        let path = format!("/v1/containers/{name}/confirm");
        let _: Container = erin.post(&path, &json!({})).unwrap();
        let asked = CreateMigration {
            container: name.to_owned(),
            to: DestinationSpec::Edge("Edge2".to_owned()),
            strategy: Some(Strategy::Cold),
            max_downtime_ms: None,
            bandwidth_bytes_per_s: None,
        };
        let begun = world.post("/v1/migrations", &json!(asked)).unwrap();
        assert_moved(&world.end_of(&begun), Strategy::Cold);
        assert_eq!(world.running_on(name), ["Edge2"]);
        let told = format!("{directory}/rootfs/tmp/told");
        let expected = name.to_lowercase();
        let told = world.on("Edge2", &["cat", &told]);
        assert!(expected.starts_with(told.trim()), "{name}: {told}");
    }
}

fn edges_without_criu_make_cold_moves_and_no_others(world: &mut World) {
    for edge in ["Edge1", "Edge2"] {
        world.on(edge, &["mv", "/usr/sbin/criu", "/usr/sbin/criu.away"]);
        // What an agent found out about its machine it believes for a while.
        world.fleet.agent(edge).unwrap().stop().unwrap();
        world.fleet.start_agent(edge).unwrap();
    }
    let denied = go(world, "Edge2", None);
    assert_eq!(denied.state, MigrationState::Denied);
    let AttemptOutcome::NotReady { problems } = &denied.attempts[0].outcome else {
        panic!("{denied:?}");
    };
    let problems = problems.join("; ");
    assert!(problems.contains("criu is missing"), "{problems}");
    assert!(problems.contains("--strategy cold"), "{problems}");
    // This target could.
    let failed = go(world, "Edge3", None);
    assert_eq!(failed.state, MigrationState::Failed);
    let failure = failed.failure.unwrap();
    assert!(failure.contains("on `Edge1` criu is missing"), "{failure}");
    assert!(failure.contains("--strategy cold"), "{failure}");
    let counter = Counter::start(world);
    assert_moved(&go(world, "Edge2", Some(Strategy::Cold)), Strategy::Cold);
    counter.assert_kept(world, "no CRIU on either edge");
    assert_at(world, "Edge2", true, "no CRIU on either edge");
    for edge in ["Edge1", "Edge2"] {
        world.on(edge, &["mv", "/usr/sbin/criu.away", "/usr/sbin/criu"]);
        world.fleet.agent(edge).unwrap().stop().unwrap();
        world.fleet.start_agent(edge).unwrap();
    }
    world.fleet.await_healthy(&world.progress).unwrap();
}
