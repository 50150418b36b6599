//! A move that is cancelled, or takes longer than it may: in every phase, whatever it waits for,
//! whoever dies meanwhile.

use std::time::Duration;

use carnet_api::v1::MigrationState;
use carnet_core::ids::MigrationId;
use carnet_core::ledger::{Actor, Entry, Event};
use carnet_core::migration::Phase;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::edges::{Ask, Fate, When};
use crate::invariants::{Before, assert_hold};
use crate::plane::{Plane, now, to_edge};
use crate::telling::Told;

/// A plane with a container `web` on `source`, which can go to `target`.
struct Scene {
    plane: Plane,
    before: Before,
    container: carnet_core::ids::ContainerId,
}

impl Scene {
    async fn new() -> Self {
        let plane = Plane::new().await;
        let source = plane.edge("source").await;
        plane.edge("target").await;
        let container = plane.container("web", source).await;
        let before = Before {
            edge: source,
            generation: 1,
        };
        Self {
            plane,
            before,
            container,
        }
    }

    async fn request(&self) -> MigrationId {
        self.plane.request(self.container, to_edge("target")).await
    }

    async fn cancel(&self, id: MigrationId) -> Result<(), Phase> {
        let by = self.plane.owner;
        self.plane.migrations().cancel(id, by).await.unwrap()
    }

    /// Waits for the end, which must be `Cancelled`, with every invariant, also when what was
    /// given up arrives after it.
    async fn is_cancelled(&mut self, id: MigrationId, what: &str) {
        let ended = self.plane.ended(id).await;
        assert_eq!(ended.state, MigrationState::Cancelled, "{what}");
        assert_eq!(ended.failure, None, "{what}");
        assert_hold(&self.plane, &ended, self.before, what).await;
        self.plane.edges.deliver_the_late();
        assert_hold(&self.plane, &ended, self.before, what).await;
        self.is_in_the_ledger(id).await;
    }

    /// Who cancelled it is there, once.
    async fn is_in_the_ledger(&self, id: MigrationId) {
        let entries: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT entry FROM ledger_entries WHERE kind = 'cancel'")
                .fetch_all(&self.plane.ledger)
                .await
                .unwrap();
        let [entry] = entries.as_slice() else {
            panic!("{} cancels", entries.len());
        };
        let entry = Entry::from_bytes(entry).unwrap();
        let event = Event::Cancel {
            migration: id,
            container: self.container,
        };
        assert_eq!(entry.by, Actor::Account(self.plane.owner));
        assert_eq!(entry.event, event);
    }
}

/// Before the commit, in order.
const ASKS: [Ask; 5] = [
    Ask::Reading,
    Ask::PrepareSource,
    Ask::PrepareTarget,
    Ask::CopyAhead,
    Ask::HandOver,
];

#[tokio::test]
async fn a_cancel_does_not_wait_for_what_an_edge_is_doing() {
    for ask in ASKS {
        let mut scene = Scene::new().await;
        scene.plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = scene.request().await;
        scene.plane.edges.until_held(1).await;
        assert_eq!(scene.cancel(id).await, Ok(()), "{ask:?}");
        // It is held still: nobody has let it go.
        scene.is_cancelled(id, &format!("{ask:?}")).await;
        assert_eq!(scene.cancel(id).await, Ok(()), "asked again");
        assert_eq!(scene.plane.edges.times(ask), 1, "{ask:?}");
        // The container is free for another move.
        let again = scene.request().await;
        let done = scene.plane.ended(again).await;
        assert_eq!(done.state, MigrationState::Completed, "{ask:?}");
    }
}

#[tokio::test]
async fn a_cancel_is_kept_by_a_control_plane_that_is_killed() {
    for ask in ASKS {
        let mut scene = Scene::new().await;
        scene.plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = scene.request().await;
        scene.plane.edges.until_held(1).await;
        // Kept, and its runner does not live to hear of it.
        scene.plane.migrations().stop().await;
        let (store, owner) = (scene.plane.store.clone(), scene.plane.owner);
        let kept = store.cancel_migration(id, owner, now()).await.unwrap();
        assert_eq!(kept, Ok(()));
        assert_eq!(scene.plane.kill().await, 1);
        scene.is_cancelled(id, &format!("{ask:?}")).await;
        assert_eq!(scene.plane.edges.times(ask), 1, "nothing more is asked");
    }
}

/// The commit and the cancel are transactions of one database: one of both comes first.
#[tokio::test]
async fn a_cancel_that_comes_before_the_commit_keeps_it_from_being_made() {
    let (told, _guard) = Told::listen();
    let mut scene = Scene::new().await;
    scene.plane.refuse_to_save("restoring").await;
    let id = scene.request().await;
    told.until("cannot commit a move; trying again", 1).await;
    // Past the runner: only the commit itself can see it.
    let (store, owner) = (scene.plane.store.clone(), scene.plane.owner);
    let kept = store.cancel_migration(id, owner, now()).await.unwrap();
    assert_eq!(kept, Ok(()));
    scene.plane.save_again().await;
    scene.is_cancelled(id, "committing").await;
    assert_eq!(scene.plane.edges.times(Ask::Restore), 0);
}

#[tokio::test]
async fn after_the_commit_it_is_too_late() {
    for (ask, phase) in [
        (Ask::Restore, Phase::Restoring),
        (Ask::Settle, Phase::Settling),
        (Ask::Release, Phase::Releasing),
    ] {
        let mut scene = Scene::new().await;
        scene.plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = scene.request().await;
        scene.plane.edges.until_held(1).await;
        assert_eq!(scene.cancel(id).await, Err(phase));
        scene.plane.edges.let_go();
        let done = scene.plane.ended(id).await;
        assert_eq!(done.state, MigrationState::Completed);
        assert_eq!(done.cancel_asked_at_ms, None);
        assert_hold(&scene.plane, &done, scene.before, "too late").await;
        assert_eq!(scene.cancel(id).await, Err(Phase::Completed));
    }
}

/// It comes to the same, and its own cause is told.
#[tokio::test]
async fn a_move_that_is_being_undone_anyway_fails_as_it_would_have() {
    let mut scene = Scene::new().await;
    let source = scene.before.edge;
    scene.plane.edges.set_cannot(source, Ask::HandOver, true);
    scene
        .plane
        .edges
        .script(When::NthOf(Ask::Resume, 0), Fate::Held);
    let id = scene.request().await;
    scene.plane.edges.until_held(1).await;
    assert_eq!(scene.cancel(id).await, Ok(()));
    scene.plane.edges.let_go();
    let ended = scene.plane.ended(id).await;
    assert_eq!(ended.state, MigrationState::Failed);
    assert_hold(&scene.plane, &ended, scene.before, "undone anyway").await;
    assert_eq!(scene.cancel(id).await, Err(Phase::Failed));
}

/// What undoes it is as stubborn as after a failure.
#[tokio::test]
async fn a_cancelled_move_is_undone_however_often_that_fails() {
    for fate in [
        Fate::Refused,
        Fate::Half,
        Fate::AnswerLost,
        Fate::RequestLost,
        Fate::KilledBefore,
        Fate::KilledAfter,
    ] {
        for undoing in [Ask::Resume, Ask::Discard] {
            let mut scene = Scene::new().await;
            let edges = scene.plane.edges.clone();
            edges.script(When::NthOf(Ask::HandOver, 0), Fate::Held);
            edges.script(When::NthOf(undoing, 0), fate);
            let id = scene.request().await;
            edges.until_held(1).await;
            assert_eq!(scene.cancel(id).await, Ok(()));
            let what = format!("{undoing:?}: {fate:?}");
            scene.is_cancelled(id, &what).await;
        }
    }
}

#[tokio::test]
async fn a_move_cancelled_at_any_moment_is_cancelled_or_completes() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut ends = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..60 {
        let mut scene = Scene::new().await;
        let id = scene.request().await;
        let moment = Duration::from_micros(random.random_range(0..12_000));
        let _ = tokio::time::timeout(moment, scene.plane.ended(id)).await;
        let answer = scene.cancel(id).await;
        if random.random_bool(0.5) {
            scene.plane.kill().await;
        }
        let ended = scene.plane.ended(id).await;
        let what = format!("seed {seed}: {answer:?}");
        let expected = match answer {
            Ok(()) => MigrationState::Cancelled,
            Err(_) => MigrationState::Completed,
        };
        assert_eq!(ended.state, expected, "{what}");
        assert_hold(&scene.plane, &ended, scene.before, &what).await;
        *ends.entry(format!("{expected:?}")).or_default() += 1;
    }
    println!("{ends:?}");
}

/// A scene on which the phase of `ask` may take hardly any time.
async fn hurried(ask: Ask) -> Scene {
    let mut scene = Scene::new().await;
    let brief = Duration::from_millis(20);
    let limits = &mut scene.plane.limits;
    match ask {
        Ask::Reading => limits.admitting = brief,
        Ask::PrepareSource | Ask::PrepareTarget => limits.preparing = brief,
        Ask::CopyAhead => limits.copying_ahead = brief,
        Ask::HandOver => limits.handing_over = brief,
        _ => panic!("{ask:?} is asked after the commit"),
    }
    scene.plane.kill().await;
    scene
}

#[tokio::test]
async fn a_phase_that_takes_longer_than_it_may_ends_the_move() {
    for (ask, phase) in [
        (Ask::Reading, "admitting"),
        (Ask::PrepareSource, "preparing"),
        (Ask::PrepareTarget, "preparing"),
        (Ask::CopyAhead, "copying ahead"),
        (Ask::HandOver, "handing over"),
    ] {
        let mut scene = hurried(ask).await;
        // For good: an answer would never come.
        scene.plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = scene.request().await;
        let ended = scene.plane.ended(id).await;
        assert_eq!(ended.state, MigrationState::Failed, "{ask:?}");
        let failure = format!("{phase}: it took longer than 0.02 s");
        assert_eq!(ended.failure, Some(failure));
        assert_hold(&scene.plane, &ended, scene.before, phase).await;
        scene.plane.edges.deliver_the_late();
        assert_hold(&scene.plane, &ended, scene.before, phase).await;
    }
}

/// It counts from when the phase began, not from when it was taken up again.
#[tokio::test]
async fn the_time_that_no_control_plane_was_there_counts() {
    for ask in [Ask::PrepareSource, Ask::CopyAhead, Ask::HandOver] {
        let mut scene = Scene::new().await;
        scene.plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = scene.request().await;
        scene.plane.edges.until_held(1).await;
        scene.plane.migrations().stop().await;
        sqlx::query(
            "UPDATE migrations SET facts = json_set(facts, '$.timings[#-1].started_at_ms',
                 json_extract(facts, '$.timings[#-1].started_at_ms') - 3600000)",
        )
        .execute(&scene.plane.ledger)
        .await
        .unwrap();
        scene.plane.kill().await;
        let ended = scene.plane.ended(id).await;
        assert_eq!(ended.state, MigrationState::Failed, "{ask:?}");
        let failure = ended.failure.unwrap();
        assert!(failure.contains("it took longer than"), "{failure}");
        assert_eq!(scene.plane.edges.times(ask), 1, "it is not asked again");
        assert_eq!(scene.plane.edges.times(Ask::Resume), 1);
    }
}
