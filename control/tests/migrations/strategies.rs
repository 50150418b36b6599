//! How memory goes over: what is chosen, and what becomes of a move whose memory is lost.

use carnet_api::v1::{MigrationState, StallPlace};
use carnet_core::migration::{Strategy, Terms, expected_downtime_ms};

use crate::edges::{Ask, BYTES_PER_S, MEMORY_AHEAD, MEMORY_BYTES};
use crate::plane::Plane;

/// The strategy that a source is told, and the reason that is shown.
async fn chosen(allow: bool, asked: Option<Strategy>, problem: Option<&str>) -> Plane {
    let terms = Terms {
        strategy: asked,
        ..Terms::default()
    };
    moved(allow, terms, problem).await
}

async fn moved(allow: bool, terms: Terms, problem: Option<&str>) -> Plane {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    if allow {
        plane.allow_post_copy(container).await;
    }
    if let Some(problem) = problem {
        plane.edges.set_post_copy_problem(target, problem);
    }
    let mut new = plane
        .new_migration(
            container,
            carnet_api::v1::DestinationSpec::Edge("target".to_owned()),
        )
        .await;
    new.terms = terms;
    let id = new.id;
    plane.store.create_migration(&new).await.unwrap();
    plane.migrations().start(id);
    plane.ended(id).await;
    plane
}

#[tokio::test]
async fn memory_follows_only_where_its_owner_allows_it() {
    let plane = chosen(false, None, None).await;
    assert_eq!(plane.edges.strategies(), [Strategy::StopAndCopy]);
    let plane = chosen(true, None, None).await;
    assert_eq!(plane.edges.strategies(), [Strategy::PostCopy]);
}

#[tokio::test]
async fn memory_goes_ahead_where_it_can_and_what_is_left_is_what_it_stands_still_for() {
    let mut plane = Plane::new().await;
    plane.edges.have_memory_go_ahead();
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.allow_post_copy(container).await;
    let to = carnet_api::v1::DestinationSpec::Edge("target".to_owned());
    let id = plane.request(container, to).await;
    plane.ended(id).await;
    assert_eq!(plane.edges.strategies(), [Strategy::PreCopy]);
    let migration = plane.newest_migration().await;
    assert_eq!(migration.transferred.memory_ahead_bytes, MEMORY_AHEAD.bytes);
    let left = MEMORY_AHEAD.last_round_bytes;
    let expected = expected_downtime_ms(Strategy::PreCopy, left, Some(BYTES_PER_S));
    assert_eq!(migration.expected_downtime_ms, Some(expected));
    assert!(left < MEMORY_BYTES);
}

#[tokio::test]
async fn what_was_asked_for_is_done() {
    let plane = chosen(true, Some(Strategy::StopAndCopy), None).await;
    assert_eq!(plane.edges.strategies(), [Strategy::StopAndCopy]);
}

#[tokio::test]
async fn an_edge_that_cannot_is_named_in_the_reason() {
    let plane = chosen(true, None, Some("no userfaultfd")).await;
    assert_eq!(plane.edges.strategies(), [Strategy::StopAndCopy]);
    let migration = plane.newest_migration().await;
    let reason = &migration.strategy.as_ref().unwrap().reason;
    assert!(reason.contains("on `target` no userfaultfd"), "{reason}");
}

#[tokio::test]
async fn what_was_asked_for_and_cannot_be_had_fails_before_anything_is_sent() {
    let plane = chosen(true, Some(Strategy::PostCopy), Some("no userfaultfd")).await;
    assert_eq!(plane.edges.times(Ask::CopyAhead), 0);
    assert_eq!(plane.edges.strategies(), []);
    let migration = plane.newest_migration().await;
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.as_deref().unwrap();
    assert!(failure.contains("no userfaultfd"), "{failure}");
}

#[tokio::test]
async fn what_a_stall_went_into_is_told_in_order() {
    let plane = chosen(true, None, None).await;
    let migration = plane.newest_migration().await;
    let stall = migration.stall_ms.unwrap();
    let steps = &migration.stall_steps;
    let places: Vec<StallPlace> = steps.iter().map(|step| step.place).collect();
    assert_eq!(
        places,
        [
            StallPlace::Source,
            StallPlace::Control,
            StallPlace::Target,
            StallPlace::Target
        ]
    );
    for step in steps {
        assert!(step.began_ms <= step.ended_ms, "{step:?}");
        assert!(step.ended_ms <= stall + 0.001, "{step:?} {stall}");
    }
}

/// With one millisecond less than what it takes, nothing is frozen.
#[tokio::test]
async fn a_container_that_would_stand_still_for_too_long_is_not_frozen() {
    for allow in [false, true] {
        let strategy = match allow {
            true => Strategy::PostCopy,
            false => Strategy::StopAndCopy,
        };
        let expected = expected_downtime_ms(strategy, MEMORY_BYTES, Some(BYTES_PER_S));
        for (most, state) in [
            (expected, MigrationState::Completed),
            (expected - 1, MigrationState::Failed),
        ] {
            let terms = Terms {
                max_downtime_ms: Some(most),
                ..Terms::default()
            };
            let plane = moved(allow, terms, None).await;
            let migration = plane.newest_migration().await;
            assert_eq!(migration.state, state, "{migration:?}");
            assert_eq!(migration.max_downtime_ms, Some(most));
            assert_eq!(migration.expected_downtime_ms, Some(expected));
            let is_frozen = state == MigrationState::Completed;
            assert_eq!(plane.edges.times(Ask::HandOver), usize::from(is_frozen));
            let failure = migration.failure.clone().unwrap_or_default();
            assert_eq!(
                failure.contains("it was not frozen"),
                !is_frozen,
                "{failure}"
            );
        }
    }
}
