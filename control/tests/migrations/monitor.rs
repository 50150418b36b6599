//! What the monitor sees, and what it keeps of it.

use std::sync::Arc;
use std::time::Duration;

use carnet_api::agent::{Reading, Refused};
use carnet_api::v1::{ContainerState, DetectedFacts, Health, HealthState, MigrationState};
use carnet_control::monitor::{self, Detected};
use carnet_control::store::sightings::EdgeSighting;
use carnet_core::ids::{ContainerId, EdgeId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{Actor, Entry, Event, Refusal};
use carnet_core::permit::Fingerprint;
use carnet_core::policy::Utilization;
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::edges::{Ask, Fate, Process, When, reading};
use crate::plane::{Plane, certificate_of, now, to_edge};
use crate::telling::Told;

/// Longer than any test: what happens does not happen because of it.
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// A monitor that watches until it is dropped.
struct Watching {
    task: JoinHandle<()>,
    look_now: Arc<Notify>,
}

impl Watching {
    fn start(plane: &Plane, interval: Duration) -> Self {
        let look_now = Arc::new(Notify::new());
        let task = tokio::spawn(monitor::watch(
            plane.store.clone(),
            plane.agents(),
            plane.key.clone(),
            interval,
            look_now.clone(),
        ));
        Self { task, look_now }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plane {
    async fn look(&self) {
        monitor::look(&self.store, &self.agents()).await.unwrap();
    }

    async fn health(&self, edge: EdgeId) -> Health {
        self.edge_now(edge).await.health
    }

    async fn seen(&self, container: ContainerId) -> (ContainerState, UnixMillis) {
        let container = self.container_now(container).await;
        (container.state, container.state_since_at_ms)
    }

    /// Waits until the store has so many readings of edges that were taken after `instant`.
    async fn until_read(&self, count: usize, instant: UnixMillis) {
        let waiting = async {
            loop {
                let edges = self.edges().await;
                let read = edges.iter().filter_map(|edge| edge.utilization.as_ref());
                if read.filter(|read| read.read_at_ms >= instant).count() >= count {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(crate::edges::LIMIT, waiting)
            .await
            .expect("edges are read");
    }
}

/// Waits until the clock shows another millisecond.
async fn tick() {
    let before = now();
    while now() == before {
        tokio::task::yield_now().await;
    }
}

fn lacking(problem: &str) -> Reading {
    let mut lacking = reading(1_000, 2_000);
    lacking.problems = vec![problem.to_owned()];
    lacking
}

#[tokio::test]
async fn an_edges_health_has_a_since_that_changes_only_with_it() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    let health = plane.health(edge).await;
    assert_eq!(health.state, HealthState::Unknown);

    let mut since = health.since_at_ms;
    let mut after = async |what: &str, state, problems: &[&str], is_new| {
        tick().await;
        let before = now();
        plane.look().await;
        let health = plane.health(edge).await;
        assert_eq!(health.state, state, "{what}");
        assert_eq!(health.problems, problems, "{what}");
        if is_new {
            assert!(health.since_at_ms >= before, "{what}");
        } else {
            assert_eq!(health.since_at_ms, since, "{what}");
        }
        since = health.since_at_ms;
    };
    after("seen", HealthState::Healthy, &[], true).await;
    after("seen again", HealthState::Healthy, &[], false).await;
    plane.edges.set_reading(edge, lacking("no bridge"));
    after("lacking", HealthState::Degraded, &["no bridge"], true).await;
    plane.edges.set_reading(edge, lacking("no CRIU"));
    after("lacking else", HealthState::Degraded, &["no CRIU"], false).await;
    let mut cold_only = reading(1_000, 2_000);
    cold_only.live_problems = vec!["CRIU too old".to_owned()];
    plane.edges.set_reading(edge, cold_only);
    after("cold only", HealthState::Degraded, &["CRIU too old"], false).await;
    plane.edges.set_reachable(edge, false);
    let silent =
        "asked edge `edge` (edge:1) to read its utilization: no answer: the connection broke";
    after("silent", HealthState::Unreachable, &[silent], true).await;
    after("silent still", HealthState::Unreachable, &[silent], false).await;
    plane.edges.set_reachable(edge, true);
    plane.edges.set_reading(edge, reading(0, 0));
    after("back", HealthState::Healthy, &[], true).await;
    let nothing = Reading {
        utilization: None,
        problems: Vec::new(),
        live_problems: Vec::new(),
    };
    plane.edges.set_reading(edge, nothing);
    after("no reading", HealthState::Degraded, &[], true).await;
}

#[tokio::test]
async fn an_unwell_agent_is_unreachable() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    for (nth, fate) in [Fate::Unwell, Fate::Refused].into_iter().enumerate() {
        plane.edges.script(When::NthOf(Ask::Reading, nth), fate);
        plane.look().await;
        let health = plane.health(edge).await;
        assert_eq!(health.state, HealthState::Unreachable, "{fate:?}");
        assert_eq!(health.problems.len(), 1);
    }
}

#[tokio::test]
async fn the_last_reading_is_kept_while_there_is_no_newer_one() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    plane.edges.set_reading(edge, reading(1_234, 5_678));
    plane.look().await;
    let read = plane.edge_now(edge).await.utilization.unwrap();
    assert_eq!((read.cpu_percent, read.memory_percent), (12.34, 56.78));
    plane.edges.set_reachable(edge, false);
    tick().await;
    plane.look().await;
    assert_eq!(plane.edge_now(edge).await.utilization, Some(read.clone()));
    plane.edges.set_reachable(edge, true);
    plane.edges.set_reading(edge, reading(100, 200));
    plane.look().await;
    let newer = plane.edge_now(edge).await.utilization.unwrap();
    assert_eq!((newer.cpu_percent, newer.memory_percent), (1.0, 2.0));
    assert!(newer.read_at_ms > read.read_at_ms);
}

#[tokio::test]
async fn an_edge_without_an_agent_is_not_looked_at() {
    let plane = Plane::new().await;
    let edge = plane.declared_edge("edge", json!({})).await;
    let container = plane.container("web", edge).await;
    plane.look().await;
    assert_eq!(plane.edges.asked().len(), 0);
    assert_eq!(plane.health(edge).await.state, HealthState::Unknown);
    assert_eq!(plane.seen(container).await.0, ContainerState::Unknown);
}

#[tokio::test]
async fn containers_have_the_state_that_their_edge_tells() {
    let plane = Plane::new().await;
    let (edge, silent) = (plane.edge("edge").await, plane.edge("silent").await);
    let running = plane.container("running", edge).await;
    let frozen = plane.container("frozen", edge).await;
    plane.edges.place(edge, "frozen", Process::Frozen);
    let stopped = plane.container("stopped", edge).await;
    plane.edges.place(edge, "stopped", Process::Stopped);
    let missing = plane.container("missing", edge).await;
    plane.edges.remove(edge, "missing");
    // Runs, but elsewhere.
    plane.edges.place(silent, "missing", Process::Running);
    let unknown = plane.container("unknown", silent).await;
    plane.edges.set_reachable(silent, false);
    let all = [
        (running, ContainerState::Running),
        (frozen, ContainerState::Frozen),
        (stopped, ContainerState::Stopped),
        (missing, ContainerState::Missing),
        (unknown, ContainerState::Unknown),
    ];
    let looked_at = now();
    plane.look().await;
    let mut since = Vec::new();
    for (container, state) in all {
        let seen = plane.seen(container).await;
        assert_eq!(seen.0, state);
        assert!(seen.1 >= looked_at, "{state:?}");
        since.push(seen.1);
    }
    assert_eq!(plane.edge_now(edge).await.active_containers, 1);

    tick().await;
    plane.look().await;
    for ((container, state), since) in all.into_iter().zip(since) {
        assert_eq!(plane.seen(container).await, (state, since), "{state:?}");
    }

    tick().await;
    let thawed_at = now();
    plane.edges.place(edge, "frozen", Process::Running);
    plane.look().await;
    let (state, since) = plane.seen(frozen).await;
    assert_eq!(state, ContainerState::Running);
    assert!(since >= thawed_at);
    assert_eq!(plane.edge_now(edge).await.active_containers, 2);
}

/// Its reading came, what runs there did not.
#[tokio::test]
async fn containers_of_an_edge_that_does_not_list_them_are_unknown() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    let container = plane.container("web", edge).await;
    plane.look().await;
    assert_eq!(plane.seen(container).await.0, ContainerState::Running);
    plane
        .edges
        .script(When::NthOf(Ask::Containers, 1), Fate::RequestLost);
    plane.look().await;
    assert_eq!(plane.health(edge).await.state, HealthState::Healthy);
    assert_eq!(plane.seen(container).await.0, ContainerState::Unknown);
}

#[tokio::test]
async fn what_has_moved_meanwhile_is_not_overwritten_by_an_older_look() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.look().await;
    let seen = plane.seen(container).await;
    assert_eq!(seen.0, ContainerState::Running);
    // A look that hears what runs at the source only after the container has gone from there.
    plane
        .edges
        .script(When::Every(Ask::Containers, source), Fate::Held);
    let (store, agents) = (plane.store.clone(), plane.agents());
    let looking = tokio::spawn(async move { monitor::look(&store, &agents).await });
    plane.edges.until_held(1).await;
    let id = plane.request(container, to_edge("target")).await;
    assert_eq!(plane.ended(id).await.state, MigrationState::Completed);
    plane.edges.let_go();
    looking.await.unwrap().unwrap();
    assert_eq!(plane.seen(container).await, seen);
    assert_eq!(plane.edge_now(target).await.active_containers, 1);
}

#[tokio::test]
async fn an_audits_reading_is_kept_as_a_sighting() {
    let plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    let mut lacking = lacking("no bridge");
    lacking.utilization = reading(1_234, 5_678).utilization;
    plane.edges.set_reading(target, lacking);
    let to = to_edge("target");
    plane
        .migrations()
        .dry_run(container, &to, plane.owner)
        .await
        .unwrap();
    let seen = plane.edge_now(target).await;
    assert_eq!(seen.health.state, HealthState::Degraded);
    assert_eq!(seen.health.problems, ["no bridge"]);
    assert_eq!(seen.utilization.unwrap().cpu_percent, 12.34);
    assert_eq!(plane.health(source).await.state, HealthState::Unknown);
}

#[tokio::test]
async fn it_looks_at_once_and_then_at_an_interval() {
    let plane = Plane::new().await;
    plane.edge("edge").await;
    let _watching = Watching::start(&plane, Duration::from_millis(5));
    plane
        .edges
        .until("five looks", |edges| edges.times(Ask::Reading) >= 5)
        .await;
}

#[tokio::test]
async fn it_looks_when_there_is_something_new() {
    let plane = Plane::new().await;
    plane.edge("first").await;
    let watching = Watching::start(&plane, NEVER);
    plane.until_read(1, UnixMillis(0)).await;
    plane.edge("second").await;
    watching.look_now.notify_one();
    plane.until_read(2, UnixMillis(0)).await;
}

#[tokio::test]
async fn what_is_new_during_a_look_is_looked_at_after_it() {
    let plane = Plane::new().await;
    plane.edge("first").await;
    plane.edges.script(When::NthOf(Ask::Reading, 0), Fate::Held);
    let watching = Watching::start(&plane, NEVER);
    plane.edges.until_held(1).await;
    plane.edge("second").await;
    watching.look_now.notify_one();
    plane.edges.let_go();
    plane.until_read(2, UnixMillis(0)).await;
}

#[tokio::test]
async fn an_edge_that_hangs_does_not_keep_the_others_from_being_seen() {
    let plane = Plane::new().await;
    let hanging = plane.edge("hanging").await;
    for name in ["a", "b", "c"] {
        plane.edge(name).await;
    }
    plane
        .edges
        .script(When::Every(Ask::Reading, hanging), Fate::Held);
    let _watching = Watching::start(&plane, NEVER);
    plane.until_read(3, UnixMillis(0)).await;
    assert_eq!(plane.health(hanging).await.state, HealthState::Unknown);
}

#[tokio::test]
async fn a_fleet_larger_than_what_is_asked_at_a_time_is_seen_whole() {
    let plane = Plane::new().await;
    for number in 0..70 {
        let edge = plane
            .declared_edge(&format!("edge-{number}"), json!({}))
            .await;
        plane.enrol(edge).await;
    }
    plane.look().await;
    let edges = plane.edges().await;
    let healthy = edges
        .iter()
        .filter(|edge| edge.health.state == HealthState::Healthy);
    assert_eq!(healthy.count(), 70);
}

#[tokio::test]
async fn a_store_that_cannot_write_does_not_end_the_watch() {
    let (told, _guard) = Told::listen();
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    sqlx::query(
        "CREATE TRIGGER disk_is_full BEFORE INSERT ON edge_sightings
         BEGIN SELECT RAISE(ABORT, 'the disk is full'); END",
    )
    .execute(&plane.ledger)
    .await
    .unwrap();
    let _watching = Watching::start(&plane, Duration::from_millis(5));
    told.until("cannot keep what it sees", 2).await;
    assert_eq!(plane.health(edge).await.state, HealthState::Unknown);
    plane.save_again().await;
    plane.until_read(1, UnixMillis(0)).await;
}

fn refused(number: u64, check: &str) -> Refused {
    Refused {
        number,
        check: check.to_owned(),
        asked: "source/prepare".to_owned(),
        migration: None,
        peer: None,
        refused_at_ms: UnixMillis(number.cast_signed()),
    }
}

impl Plane {
    /// The refusals in the ledger: who entered each, and what it was.
    async fn refusals(&self) -> Vec<(Actor, Refusal)> {
        let entries = self.store.entries(0, 10_000).await.unwrap();
        let entries = entries
            .iter()
            .map(|entry| Entry::from_bytes(&entry.bytes).unwrap());
        entries
            .filter_map(|entry| match entry.event {
                Event::Refusal(refusal) => Some((entry.by, refusal)),
                _ => None,
            })
            .collect()
    }

    async fn checks(&self) -> Vec<String> {
        let refusals = self.refusals().await.into_iter();
        refusals.map(|(_, refusal)| refusal.check).collect()
    }
}

#[tokio::test]
async fn refusals_come_into_the_ledger_and_are_forgotten_at_the_edge() {
    let plane = Plane::new().await;
    let (edge, other) = (plane.edge("edge").await, plane.edge("other").await);
    let peer = Some(certificate_of(other));
    let first = Refused {
        peer,
        ..refused(1, "signature")
    };
    plane.edges.refuse(edge, first);
    plane.edges.refuse(edge, refused(2, "expired"));
    plane.edges.refuse(other, refused(1, "used"));
    plane.look().await;
    let mut found = plane.refusals().await;
    found.sort_by_key(|(_, refusal)| refusal.check.clone());
    let told = |edge, number: i64, check: &str, peer| {
        let refusal = Refusal {
            edge,
            check: check.to_owned(),
            asked: "source/prepare".to_owned(),
            migration: None,
            peer,
            refused_at_ms: UnixMillis(number),
        };
        (Actor::Edge(edge), refusal)
    };
    assert_eq!(
        found,
        [
            told(edge, 2, "expired", None),
            told(edge, 1, "signature", peer),
            told(other, 1, "used", None),
        ]
    );
    assert_eq!(plane.edges.kept_refusals(edge), []);
    assert_eq!(plane.edges.kept_refusals(other), []);
    plane.look().await;
    assert_eq!(plane.refusals().await.len(), 3);
}

/// As after a crash between the entry and the edge's forgetting.
#[tokio::test]
async fn a_refusal_that_is_told_again_stands_in_the_ledger_once() {
    let mut plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    plane.edges.set_forgets(edge, false);
    plane.edges.refuse(edge, refused(1, "a"));
    plane.edges.refuse(edge, refused(2, "b"));
    plane.look().await;
    plane.kill().await;
    plane.edges.refuse(edge, refused(3, "c"));
    plane.look().await;
    assert_eq!(plane.checks().await, ["a", "b", "c"]);
    plane.edges.set_forgets(edge, true);
    plane.look().await;
    assert_eq!(plane.edges.kept_refusals(edge), []);
    assert_eq!(plane.checks().await, ["a", "b", "c"]);
}

#[tokio::test]
async fn an_agent_that_was_enrolled_anew_counts_from_the_beginning() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    plane.edges.refuse(edge, refused(7, "a"));
    plane.look().await;
    let another = Fingerprint::of(b"another");
    plane.enrol_with(edge, another, UnixMillis(i64::MAX)).await;
    plane.edges.refuse(edge, refused(1, "b"));
    plane.look().await;
    plane.edges.refuse(edge, refused(2, "c"));
    plane.look().await;
    assert_eq!(plane.checks().await, ["a", "b", "c"]);
}

/// Edges are others': none fills the ledger, or keeps the others from being seen.
#[tokio::test]
async fn what_an_edge_says_of_refusals_is_bounded() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    let long = "x".repeat(1 << 20);
    for number in 1..=1_005 {
        plane.edges.refuse(edge, refused(number, "check"));
    }
    let last = Refused {
        asked: long.clone(),
        ..refused(1, &long)
    };
    let other = plane.edge("other").await;
    plane.edges.refuse(other, last);
    plane.look().await;
    let found = plane.refusals().await;
    assert_eq!(found.len(), 1_001);
    let longest = found
        .iter()
        .map(|(_, refusal)| refusal.asked.len().max(refusal.check.len()));
    assert_eq!(longest.max(), Some(200));
    assert_eq!(plane.health(edge).await.state, HealthState::Healthy);
}

#[tokio::test]
async fn every_agent_is_told_the_signing_key_and_told_anew_when_it_changes() {
    let plane = Plane::new().await;
    let (edge, silent) = (plane.edge("edge").await, plane.edge("silent").await);
    plane.edges.set_reachable(silent, false);
    let public = || plane.key.current().signer.public();
    let first = public();
    let _watching = Watching::start(&plane, Duration::from_millis(5));
    let told = |edge, keys: &[_]| {
        let keys = keys.to_vec();
        plane.edges.until("an agent that was told", move |edges| {
            edges.keys(edge) == keys
        })
    };
    told(edge, &[first]).await;
    plane.key.rotate().unwrap();
    let second = public();
    assert_ne!(first, second);
    told(edge, &[first, second]).await;
    assert_eq!(plane.edges.keys(silent), []);
    // Once it is there again.
    plane.edges.set_reachable(silent, true);
    told(silent, &[second]).await;
}

/// The key is replaced while a move is under way.
#[tokio::test]
async fn a_move_goes_on_with_a_key_that_was_replaced_meanwhile() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane
        .edges
        .script(When::Every(Ask::HandOver, source), Fate::Held);
    let id = plane.request(container, to_edge("target")).await;
    plane.edges.until_held(1).await;
    let first = plane.key.current().signer.public();
    plane.key.rotate().unwrap();
    let second = plane.key.current().signer.public();
    plane.edges.let_go();
    assert_eq!(plane.ended(id).await.state, MigrationState::Completed);
    assert_eq!(plane.edges.violations(), Vec::<String>::new());
    assert_eq!(plane.edges.keys(target), [first, second]);
    assert_eq!(plane.edges.keys(source), [first, second]);
}

/// What an agent finds is asked for when this process first meets it, and not at each look.
#[tokio::test]
async fn what_machines_are_is_asked_at_the_first_look_and_kept() {
    let plane = Plane::new().await;
    let (edge, dead) = (plane.edge("edge").await, plane.edge("dead").await);
    let found = |kernel: &str| DetectedFacts {
        kernel: Some(kernel.to_owned()),
        ..DetectedFacts::default()
    };
    plane.edges.set_detected(edge, found("6.18"));
    plane.edges.set_reachable(dead, false);
    let mut detected = Detected::default();
    let mut look = async || {
        let answered = monitor::look(&plane.store, &plane.agents()).await.unwrap();
        let agents = plane.agents();
        let done = monitor::detect(&plane.store, &agents, &mut detected, answered);
        done.await.unwrap();
    };
    look().await;
    let kernel = async |edge| plane.edge_now(edge).await.detected.unwrap().kernel;
    assert_eq!(kernel(edge).await.as_deref(), Some("6.18"));
    plane.edges.set_detected(edge, found("6.19"));
    plane.edges.set_reachable(dead, true);
    plane.edges.set_detected(dead, found("6.17"));
    look().await;
    look().await;
    assert_eq!(plane.edges.described(edge), 1);
    assert_eq!(plane.edges.described(dead), 1);
    assert_eq!(kernel(edge).await.as_deref(), Some("6.18"));
    assert_eq!(kernel(dead).await.as_deref(), Some("6.17"));
    // Another certificate: it may be another machine.
    let other = Fingerprint::of(b"another certificate");
    plane.enrol_with(edge, other, UnixMillis(i64::MAX)).await;
    look().await;
    assert_eq!(kernel(edge).await.as_deref(), Some("6.19"));
    // Another process.
    let _watching = Watching::start(&plane, NEVER);
    plane
        .edges
        .until("asked again", |edges| edges.described(dead) == 2)
        .await;
}

#[tokio::test]
async fn readings_are_kept_for_an_hour_one_a_minute() {
    let plane = Plane::new().await;
    let edge = plane.edge("edge").await;
    let minute = 60_000;
    let begin = 1_800_000_000_000;
    for step in 0..300 {
        // Two a minute.
        let at = UnixMillis(begin + step * minute / 2);
        let used = u16::try_from(step).unwrap();
        let sighting = EdgeSighting {
            edge,
            health: HealthState::Healthy,
            problems: Vec::new(),
            utilization: Utilization::new(used, 2 * used, at),
        };
        plane.store.see_edge(&sighting, at).await.unwrap();
    }
    let last = begin + 299 * minute / 2;
    let history = async |now: i64| {
        let edges = [edge].into();
        let kept = plane.store.utilization_of(&edges, UnixMillis(now)).await;
        kept.unwrap().remove(&edge).unwrap_or_default()
    };
    let kept = history(last).await;
    assert_eq!(kept.len(), 60);
    for (reading, minutes) in kept.iter().rev().zip(0..) {
        let step = 299 - 2 * minutes;
        assert_eq!(reading.read_at_ms, UnixMillis(begin + step * minute / 2));
        assert_eq!(reading.cpu_percent, step as f64 / 100.0);
        assert_eq!(reading.memory_percent, 2.0 * step as f64 / 100.0);
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM utilization_samples")
        .fetch_one(&plane.ledger)
        .await
        .unwrap();
    assert_eq!(rows, 60);
    assert_eq!(history(last + 30 * minute).await.len(), 30);
    assert!(history(last + 60 * minute).await.is_empty());
    // Where nothing was read there is nothing.
    let unreachable = EdgeSighting {
        edge,
        health: HealthState::Unreachable,
        problems: Vec::new(),
        utilization: None,
    };
    let now = UnixMillis(last + minute);
    plane.store.see_edge(&unreachable, now).await.unwrap();
    assert_eq!(history(last).await.len(), 60);
}
