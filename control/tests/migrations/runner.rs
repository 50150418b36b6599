//! How a move is carried out: once, beside others, with pauses, and with what it tells meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use carnet_api::v1::{DestinationSpec, MigrationState};
use carnet_control::migrate::Pace;

use crate::edges::{Ask, FROZEN_MS, Fate, When};
use crate::invariants::{Before, assert_hold};
use crate::plane::{Plane, to_edge};
use crate::telling::Told;

/// A control plane serves before it takes up what the last one left: a request may come first.
#[tokio::test]
async fn a_move_that_is_started_and_taken_up_is_carried_out_once() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("left").await;
    plane.edge("right").await;
    let container = plane.container("web", source).await;
    plane.edges.script(When::NthOf(Ask::Reading, 0), Fate::Held);
    let id = plane
        .request(container, DestinationSpec::Anywhere(true))
        .await;
    assert_eq!(plane.migrations().recover().await.unwrap(), 0);
    plane.migrations().start(id);
    plane.edges.until_held(1).await;
    plane.edges.let_go();
    let migration = plane.ended(id).await;
    for ask in [Ask::Reading, Ask::PrepareSource, Ask::HandOver, Ask::Clean] {
        assert_eq!(plane.edges.times(ask), 1, "{ask:?}");
    }
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "started and taken up").await;
}

#[tokio::test]
async fn moves_of_different_containers_run_beside_each_other() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let first = plane.container("first", source).await;
    let second = plane.container("second", source).await;
    plane
        .edges
        .script(When::NthOf(Ask::CopyAhead, 0), Fate::Held);
    let before = Before {
        edge: source,
        generation: 1,
    };
    let held = plane.request(first, to_edge("target")).await;
    plane.edges.until_held(1).await;
    let free = plane.request(second, to_edge("target")).await;
    let done = plane.ended(free).await;
    assert_eq!(done.state, MigrationState::Completed);
    assert_hold(&plane, &done, before, "second").await;
    let still = plane.migration(held).await;
    assert_eq!(still.state, MigrationState::CopyingAhead);
    let names = |under_way: &carnet_api::v1::Container| under_way.migration;
    assert_eq!(names(&plane.container_now(first).await), Some(held));
    assert_eq!(names(&plane.container_now(second).await), None);
    plane.edges.let_go();
    let done = plane.ended(held).await;
    assert_eq!(done.state, MigrationState::Completed);
    assert_hold(&plane, &done, before, "first").await;
}

#[tokio::test]
async fn two_moves_of_one_container_never_overlap() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane
        .edges
        .script(When::NthOf(Ask::CopyAhead, 0), Fate::Held);
    let first = plane.request(container, to_edge("target")).await;
    plane.edges.until_held(1).await;
    let second = plane.new_migration(container, to_edge("target")).await;
    let refused = plane.store.create_migration(&second).await.unwrap_err();
    assert!(refused.is_duplicate(), "{refused}");
    plane.edges.let_go();
    plane.ended(first).await;
    let third = plane.request(container, to_edge("source")).await;
    assert_eq!(plane.ended(third).await.state, MigrationState::Completed);
    assert_eq!(plane.edges.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn what_an_edge_does_not_do_is_told_until_it_does() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.edges.set_cannot(source, Ask::Release, true);
    let id = plane.request(container, to_edge("target")).await;
    let waiting = plane
        .until(id, |migration| migration.waiting_for.is_some())
        .await;
    assert_eq!(waiting.state, MigrationState::Releasing);
    assert_eq!(
        waiting.waiting_for.as_deref(),
        Some("asked edge `source` (source:1) to remove its copy: it cannot")
    );
    plane
        .edges
        .until("it to be asked again", |edges| {
            edges.times(Ask::Release) > 3
        })
        .await;
    plane.edges.set_cannot(source, Ask::Release, false);
    let migration = plane.ended(id).await;
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "released late").await;
}

/// A target that neither restores nor lets go has the container for itself, and nothing can be
/// done but ask again: at the pace of everything that is in vain, not as fast as it answers.
#[tokio::test]
async fn a_target_that_neither_restores_nor_lets_go_is_asked_ever_more_rarely() {
    let pace = Pace {
        first: Duration::from_millis(20),
        longest: Duration::from_secs(3_600),
    };
    let mut plane = Plane::with_pace(pace).await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    for ask in [Ask::Restore, Ask::Discard] {
        plane.edges.set_cannot(target, ask, true);
    }
    let id = plane.request(container, to_edge("target")).await;
    plane
        .edges
        .until("the target to be asked three times to let go", |edges| {
            edges.times(Ask::Discard) == 3
        })
        .await;
    let asked = plane.edges.asked().into_iter();
    let discards: Vec<_> = asked.filter(|a| a.ask == Ask::Discard).collect();
    // Twice in vain each time: the pause before the next is four times the last.
    for (pair, times) in discards.windows(2).zip([4, 16]) {
        assert!(pair[1].at - pair[0].at >= pace.first * times, "{times}");
    }
    let waiting = plane
        .until(id, |migration| {
            migration.state == MigrationState::Restoring && migration.waiting_for.is_some()
        })
        .await;
    assert_eq!(
        waiting.waiting_for.as_deref(),
        Some("asked edge `target` (target:1) to remove what was sent: it cannot")
    );
    plane.edges.set_cannot(target, Ask::Restore, false);
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Completed);
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "restored late").await;
}

#[tokio::test]
async fn every_state_is_news_once_it_is_saved() {
    let plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    let mut news = plane.migrations().news();
    let id = plane.request(container, to_edge("target")).await;
    let mut heard = 0;
    // Eight states after the first, each of which is in the store when it is heard of.
    while heard < 8 {
        let about = tokio::time::timeout(crate::edges::LIMIT, news.recv())
            .await
            .expect("there is news")
            .unwrap();
        assert_eq!(about, id);
        heard += 1;
        let saved = plane.migration(id).await.timings.len();
        assert!(saved > heard, "{saved} states are saved at news {heard}");
    }
    assert!(plane.migration(id).await.state.is_ended());
}

#[tokio::test]
async fn the_stall_goes_from_the_freeze_to_the_restored_container() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.edges.script(When::NthOf(Ask::Restore, 0), Fate::Slow);
    let id = plane.request(container, to_edge("target")).await;
    let migration = plane.ended(id).await;
    let of = |state| {
        let mut timings = migration.timings.iter();
        let timing = timings.find(|timing| timing.state == state).unwrap();
        timing.duration_ms.unwrap()
    };
    let stall = migration.stall_ms.unwrap();
    let committing = of(MigrationState::Committing);
    let restoring = of(MigrationState::Restoring);
    assert!(
        stall >= FROZEN_MS + committing,
        "{stall} ms, with {committing} ms for the commit"
    );
    assert!(
        stall <= FROZEN_MS + of(MigrationState::HandingOver) + committing + restoring,
        "{stall} ms, with {restoring} ms for restoring"
    );
}

/// Who did not see the freeze cannot say how long it was.
#[tokio::test]
async fn a_control_plane_killed_during_the_stall_does_not_guess_it() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane
        .edges
        .script(When::NthOf(Ask::Restore, 0), Fate::KilledBefore);
    let id = plane.request(container, to_edge("target")).await;
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Completed);
    assert_eq!(plane.kills, 1);
    assert_eq!(migration.stall_ms, None);
}

#[tokio::test]
async fn stopped_moves_ask_nothing_more_and_are_taken_up_where_they_stand() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let mut ids = BTreeSet::new();
    for name in ["a", "b", "c"] {
        let container = plane.container(name, source).await;
        plane
            .edges
            .script(When::NthOf(Ask::HandOver, ids.len()), Fate::Held);
        ids.insert(plane.request(container, to_edge("target")).await);
    }
    plane.edges.until_held(3).await;
    plane.migrations().stop().await;
    let asked = plane.edges.asked().len();
    plane.edges.let_go();
    for &id in &ids {
        let stopped = plane.migration(id).await;
        assert_eq!(stopped.state, MigrationState::HandingOver);
    }
    assert_eq!(plane.edges.asked().len(), asked);
    assert_eq!(plane.kill().await, 3);
    for &id in &ids {
        let migration = plane.ended(id).await;
        assert_eq!(migration.state, MigrationState::Completed);
        let before = Before {
            edge: source,
            generation: 1,
        };
        assert_hold(&plane, &migration, before, "taken up").await;
    }
    assert_eq!(plane.kill().await, 0);
}

/// A full disk must not leave a container half way.
#[tokio::test]
async fn a_store_that_cannot_write_is_asked_again_until_it_can() {
    let (told, _guard) = Told::listen();
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.refuse_to_save("restoring").await;
    let id = plane.request(container, to_edge("target")).await;
    told.until("cannot commit a move; trying again", 4).await;
    let now = plane.container_now(container).await;
    assert_eq!((now.edge, now.generation), (source, 1));
    assert_eq!(plane.edges.times(Ask::Restore), 0);
    plane.save_again().await;
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Completed);
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "saved late").await;
    // Its state lasted until it was left, with at least the pauses of 1, 2 and 4 ms.
    let mut timings = migration.timings.iter();
    let committing = timings.find(|timing| timing.state == MigrationState::Committing);
    assert!(committing.unwrap().duration_ms.unwrap() >= 7.0);
}
