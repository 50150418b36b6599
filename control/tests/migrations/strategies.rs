//! How memory goes over: what is chosen, and what becomes of a move whose memory is lost.

use carnet_api::v1::{DestinationSpec, Migration, MigrationState, StallPlace};
use carnet_core::ids::{ContainerId, EdgeId};
use carnet_core::migration::{Strategy, Terms, expected_downtime_ms};

use crate::edges::{Ask, BYTES_PER_S, MEMORY_AHEAD, MEMORY_BYTES, Process};
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
        .new_migration(container, DestinationSpec::Edge("target".to_owned()))
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
    assert_eq!(migration.expected_downtime_ms, expected);
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
        let expected = expected_downtime_ms(strategy, MEMORY_BYTES, Some(BYTES_PER_S)).unwrap();
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

/// Two edges, and a container at the source that runs, or is stopped.
struct Two {
    plane: Plane,
    container: ContainerId,
    source: EdgeId,
    target: EdgeId,
}

impl Two {
    async fn new(runs: bool) -> Self {
        let plane = Plane::new().await;
        let source = plane.edge("source").await;
        let target = plane.edge("target").await;
        let container = plane.container("web", source).await;
        if !runs {
            plane.edges.place(source, "web", Process::Stopped);
        }
        Self {
            plane,
            container,
            source,
            target,
        }
    }

    /// No live move can be made from or to the edge of this name.
    async fn without_criu(runs: bool, at: &str) -> Self {
        let two = Self::new(runs).await;
        let edge = match at {
            "source" => two.source,
            _ => two.target,
        };
        two.plane.edges.set_live_problem(edge, "no CRIU");
        two
    }

    /// Moves it, and waits for the end.
    async fn moved(&mut self, terms: Terms) -> Migration {
        let to = DestinationSpec::Edge("target".to_owned());
        let mut new = self.plane.new_migration(self.container, to).await;
        new.terms = terms;
        let id = new.id;
        self.plane.store.create_migration(&new).await.unwrap();
        self.plane.migrations().start(id);
        self.plane.ended(id).await;
        self.plane.newest_migration().await
    }

    fn strategies(&self) -> Vec<Strategy> {
        self.plane.edges.strategies()
    }

    fn process(&self, edge: EdgeId) -> Option<Process> {
        self.plane.edges.process(edge, "web")
    }
}

fn by(asked: Option<Strategy>) -> Terms {
    Terms {
        strategy: asked,
        ..Terms::default()
    }
}

#[tokio::test]
async fn a_cold_move_needs_no_criu_and_is_made_only_where_it_is_asked_for() {
    for at in ["source", "target"] {
        for asked in [None, Some(Strategy::StopAndCopy)] {
            let mut two = Two::without_criu(true, at).await;
            let migration = two.moved(by(asked)).await;
            let told = match at {
                // It has made ready, and nothing was sent.
                "source" => {
                    assert_eq!(migration.state, MigrationState::Failed);
                    migration.failure.unwrap()
                }
                // It is not even asked to.
                _ => {
                    assert_eq!(migration.state, MigrationState::Denied);
                    format!("{:?}", migration.attempts[0].outcome)
                }
            };
            assert!(told.contains("no CRIU"), "{told}");
            assert!(told.contains("--strategy cold"), "{told}");
            assert_eq!(two.plane.edges.times(Ask::CopyAhead), 0);
        }
        let mut two = Two::without_criu(true, at).await;
        let migration = two.moved(by(Some(Strategy::Cold))).await;
        assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
        assert_eq!(two.strategies(), [Strategy::Cold]);
        let reason = migration.strategy.unwrap().reason;
        assert!(reason.contains("lost"), "{reason}");
        // It stood still, and nobody could tell for how long.
        assert!(migration.stall_ms.is_some());
        assert_eq!(migration.expected_downtime_ms, None);
    }
}

#[tokio::test]
async fn a_container_that_is_stopped_is_moved_as_it_is() {
    for at in ["source", "target"] {
        for asked in [None, Some(Strategy::Cold)] {
            let mut two = Two::without_criu(false, at).await;
            let migration = two.moved(by(asked)).await;
            assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
            assert_eq!(two.strategies(), [Strategy::Cold]);
            assert_eq!(two.process(two.target), Some(Process::Stopped));
            assert_eq!(two.plane.edges.violations(), Vec::<String>::new());
            // It did not stand still for the move.
            assert_eq!(migration.stall_ms, None);
            assert_eq!(migration.stall_steps, Vec::new());
        }
    }
}

/// It stands still anyway.
#[tokio::test]
async fn what_is_stopped_may_take_longer_than_is_accepted_of_what_runs() {
    let mut two = Two::new(false).await;
    let terms = Terms {
        max_downtime_ms: Some(1),
        ..Terms::default()
    };
    let migration = two.moved(terms).await;
    assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
    assert_eq!(two.process(two.target), Some(Process::Stopped));
}

#[tokio::test]
async fn a_stopped_container_is_not_moved_in_a_way_that_needs_its_memory() {
    let mut two = Two::new(false).await;
    let migration = two.moved(by(Some(Strategy::StopAndCopy))).await;
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.unwrap();
    assert!(failure.contains("stop-and-copy was asked for"), "{failure}");
    assert!(failure.contains("is stopped"), "{failure}");
    assert_eq!(two.process(two.source), Some(Process::Stopped));
    assert_eq!(two.plane.edges.times(Ask::CopyAhead), 0);
}
