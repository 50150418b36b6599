//! An edge that is gone for good: who is asked, what an operator can say, and what becomes of an
//! edge that comes back after all.

use std::time::Duration;

use carnet_api::v1::{Migration, MigrationState};
use carnet_control::store::migrations::NotLost;
use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::ledger::{Actor, Entry, Event};
use carnet_core::migration::Phase;
use carnet_core::permit::Part;

use crate::edges::{Ask, Fate, Process, When};
use crate::invariants::{Before, assert_hold};
use crate::plane::{Plane, to_edge};

/// A move that is about to lose one of its edges.
struct Scene {
    plane: Plane,
    before: Before,
    container: ContainerId,
    source: EdgeId,
    target: EdgeId,
    id: MigrationId,
}

impl Scene {
    /// The move of a container `web` to `target`, held at `ask`. A move needs an operator as soon as
    /// it asks in vain.
    async fn held_at(ask: Ask, prepare: impl Fn(&Plane, EdgeId)) -> Self {
        let mut plane = Plane::new().await;
        plane.limits.waiting = Duration::ZERO;
        plane.kill().await;
        let source = plane.edge("source").await;
        let target = plane.edge("target").await;
        let container = plane.container("web", source).await;
        prepare(&plane, source);
        plane.edges.script(When::NthOf(ask, 0), Fate::Held);
        let id = plane.request(container, to_edge("target")).await;
        plane.edges.until_held(1).await;
        Self {
            before: Before {
                edge: source,
                generation: 1,
            },
            plane,
            container,
            source,
            target,
            id,
        }
    }

    /// The edge cannot be reached any more; waits until an operator is asked.
    async fn lose(&mut self, edge: EdgeId) -> Migration {
        self.plane.edges.set_reachable(edge, false);
        self.plane.edges.let_go();
        self.plane
            .until(self.id, |migration| migration.needs_operator.is_some())
            .await
    }

    async fn declare(&self, part: Part) -> Result<(), NotLost> {
        let edge = match part {
            Part::Source => self.source,
            Part::Target => self.target,
        };
        let migrations = self.plane.migrations();
        let by = self.plane.owner;
        // First, since what follows comes at once.
        self.plane.edges.set_lost(edge, true);
        migrations.declare_lost(self.id, part, by).await.unwrap()
    }

    /// Waits for the end of the move; kills the control plane, with something owed; lets the edge
    /// come back, and waits until nothing is.
    async fn ends_and_comes_back(&mut self, part: Part, state: MigrationState) -> Migration {
        let ended = self.plane.ended(self.id).await;
        assert_eq!(ended.state, state, "{}", self.plane.edges.trail());
        assert_eq!(ended.needs_operator, None);
        self.is_in_the_ledger(part).await;
        assert_eq!(self.plane.kill().await, 1, "what is owed is taken up");
        let edge = match part {
            Part::Source => self.source,
            Part::Target => self.target,
        };
        self.plane.edges.set_reachable(edge, true);
        self.plane.until_nothing_is_owed(self.id).await;
        self.plane.edges.set_lost(edge, false);
        assert_hold(&self.plane, &ended, self.before, "it has come back").await;
        assert_eq!(self.plane.kill().await, 0);
        ended
    }

    /// Who has declared it lost is there, once.
    async fn is_in_the_ledger(&self, part: Part) {
        let entries: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT entry FROM ledger_entries WHERE kind = 'lost'")
                .fetch_all(&self.plane.ledger)
                .await
                .unwrap();
        let [entry] = entries.as_slice() else {
            panic!("{} entries", entries.len());
        };
        let entry = Entry::from_bytes(entry).unwrap();
        let event = Event::Lost {
            migration: self.id,
            container: self.container,
            edge: match part {
                Part::Source => self.source,
                Part::Target => self.target,
            },
            part,
        };
        assert_eq!(entry.by, Actor::Account(self.plane.owner));
        assert_eq!(entry.event, event);
    }
}

fn commands(migration: &Migration) -> Vec<&str> {
    let needs = migration.needs_operator.as_ref().unwrap();
    needs.ways.iter().map(|way| way.command.as_str()).collect()
}

#[tokio::test]
async fn an_operator_is_asked_until_the_edge_comes_back_by_itself() {
    let mut scene = Scene::held_at(Ask::HandOver, |_, _| ()).await;
    let waiting = scene.lose(scene.target).await;
    assert_eq!(waiting.state, MigrationState::Restoring);
    let id = scene.id;
    assert_eq!(
        commands(&waiting),
        [
            format!("carnet migration show {id}"),
            format!("carnet migration give-up {id} --target-is-lost")
        ]
    );
    let when = &waiting.needs_operator.as_ref().unwrap().ways[1].when;
    assert!(when.contains("two running copies"), "{when}");
    // Also after another control plane has taken it up.
    scene.plane.kill().await;
    let still = scene
        .plane
        .until(id, |migration| migration.needs_operator.is_some())
        .await;
    let since = |migration: &Migration| migration.needs_operator.as_ref().unwrap().since_ms;
    assert_eq!(since(&still), since(&waiting));
    scene.plane.edges.set_reachable(scene.target, true);
    let ended = scene.plane.ended(id).await;
    assert_eq!(ended.state, MigrationState::Completed);
    assert_eq!(ended.needs_operator, None);
    assert_hold(&scene.plane, &ended, scene.before, "by itself").await;
}

#[tokio::test]
async fn a_move_that_waits_for_a_short_time_needs_nobody() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("target").await;
    let container = plane.container("web", source).await;
    plane.edges.set_cannot(source, Ask::Release, true);
    let id = plane.request(container, to_edge("target")).await;
    let waiting = plane
        .until(id, |migration| migration.waiting_for.is_some())
        .await;
    assert_eq!(waiting.needs_operator, None);
    plane.edges.set_cannot(source, Ask::Release, false);
    plane.ended(id).await;
}

#[tokio::test]
async fn a_target_lost_before_it_restored_leaves_the_container_to_its_source() {
    let mut scene = Scene::held_at(Ask::HandOver, |_, _| ()).await;
    scene.lose(scene.target).await;
    assert_eq!(scene.declare(Part::Target).await, Ok(()));
    assert_eq!(scene.declare(Part::Target).await, Ok(()), "asked again");
    let ended = scene
        .ends_and_comes_back(Part::Target, MigrationState::Failed)
        .await;
    let failure = ended.failure.unwrap();
    assert_eq!(failure, "restoring: its target was declared lost");
}

/// It runs there, cut off from the control plane: the operator was wrong, and two copies run until
/// it can be reached.
#[tokio::test]
async fn a_target_that_was_only_cut_off_ends_its_copy_when_it_is_there_again() {
    let mut scene = Scene::held_at(Ask::Settle, |_, _| ()).await;
    let (source, target) = (scene.source, scene.target);
    scene.plane.edges.set_reachable(target, false);
    // The asking that is held has got there: with the control plane goes its answer.
    scene.plane.kill().await;
    scene.lose(target).await;
    assert_eq!(scene.declare(Part::Target).await, Ok(()));
    let ended = scene.plane.ended(scene.id).await;
    assert_eq!(ended.state, MigrationState::Failed);
    let process = |edge| scene.plane.edges.process(edge, "web");
    assert_eq!(process(source), Some(Process::Running));
    assert_eq!(process(target), Some(Process::Running));
    let ended = scene
        .ends_and_comes_back(Part::Target, MigrationState::Failed)
        .await;
    assert_eq!(scene.plane.edges.process(target, "web"), None);
    let failure = ended.failure.unwrap();
    assert_eq!(failure, "settling: its target was declared lost");
}

#[tokio::test]
async fn a_source_lost_before_it_was_released_is_cleared_when_it_is_there_again() {
    let mut scene = Scene::held_at(Ask::Settle, |_, _| ()).await;
    let source = scene.source;
    let waiting = scene.lose(source).await;
    assert_eq!(waiting.state, MigrationState::Releasing);
    assert!(commands(&waiting)[1].ends_with("--source-is-lost"));
    assert_eq!(scene.declare(Part::Source).await, Ok(()));
    let ended = scene.plane.ended(scene.id).await;
    assert_eq!(ended.state, MigrationState::Completed);
    let process = scene.plane.edges.process(source, "web");
    assert_eq!(process, Some(Process::Frozen), "it is not reached yet");
    scene
        .ends_and_comes_back(Part::Source, MigrationState::Completed)
        .await;
    assert_eq!(scene.plane.edges.process(source, "web"), None);
}

#[tokio::test]
async fn a_source_lost_while_it_is_to_resume_resumes_when_it_is_there_again() {
    let mut scene = Scene::held_at(Ask::HandOver, |plane, source| {
        plane.edges.set_cannot(source, Ask::HandOver, true);
    })
    .await;
    let waiting = scene.lose(scene.source).await;
    assert_eq!(waiting.state, MigrationState::ResumingSource);
    assert_eq!(scene.declare(Part::Source).await, Ok(()));
    scene
        .ends_and_comes_back(Part::Source, MigrationState::Failed)
        .await;
}

#[tokio::test]
async fn a_target_lost_while_it_is_to_discard_discards_when_it_is_there_again() {
    let mut scene = Scene::held_at(Ask::Resume, |plane, source| {
        plane.edges.set_cannot(source, Ask::HandOver, true);
    })
    .await;
    let waiting = scene.lose(scene.target).await;
    assert_eq!(waiting.state, MigrationState::DiscardingTarget);
    assert_eq!(scene.declare(Part::Target).await, Ok(()));
    scene
        .ends_and_comes_back(Part::Target, MigrationState::Failed)
        .await;
}

/// A wish that is kept is found by whoever takes the move up.
#[tokio::test]
async fn what_an_operator_has_said_is_kept_by_a_control_plane_that_is_killed() {
    let mut scene = Scene::held_at(Ask::HandOver, |_, _| ()).await;
    scene.lose(scene.target).await;
    scene.plane.migrations().stop().await;
    scene.plane.edges.set_lost(scene.target, true);
    let (store, by) = (scene.plane.store.clone(), scene.plane.owner);
    let kept = store.declare_lost(scene.id, Part::Target, by).await;
    assert_eq!(kept.unwrap(), Ok(()));
    scene.plane.kill().await;
    scene
        .ends_and_comes_back(Part::Target, MigrationState::Failed)
        .await;
}

#[tokio::test]
async fn an_edge_that_is_not_waited_for_in_vain_is_not_declared_lost() {
    let mut scene = Scene::held_at(Ask::CopyAhead, |_, _| ()).await;
    for part in [Part::Source, Part::Target] {
        let refused = scene.declare(part).await.unwrap_err();
        assert_eq!(refused, NotLost::NotWaitedFor(Phase::CopyingAhead));
    }
    scene
        .plane
        .edges
        .script(When::NthOf(Ask::Restore, 0), Fate::Held);
    scene.plane.edges.let_go();
    scene.plane.edges.until_held(1).await;
    let refused = scene.declare(Part::Source).await.unwrap_err();
    assert_eq!(refused, NotLost::NotWaitedFor(Phase::Restoring));
    assert_eq!(
        scene.declare(Part::Target).await.unwrap_err(),
        NotLost::NotInVain
    );
    scene.plane.edges.let_go();
    let ended = scene.plane.ended(scene.id).await;
    assert_eq!(ended.state, MigrationState::Completed);
}

/// It has no stale copy: it was prepared for the container again since.
#[tokio::test]
async fn an_edge_that_has_seen_a_newer_generation_owes_nothing_any_more() {
    let mut scene = Scene::held_at(Ask::HandOver, |_, _| ()).await;
    scene.lose(scene.target).await;
    assert_eq!(scene.declare(Part::Target).await, Ok(()));
    let ended = scene.plane.ended(scene.id).await;
    assert_eq!(ended.state, MigrationState::Failed);
    scene.plane.edges.set_ahead(scene.target);
    scene.plane.edges.set_reachable(scene.target, true);
    scene.plane.until_nothing_is_owed(scene.id).await;
    assert_eq!(scene.plane.kill().await, 0);
}
