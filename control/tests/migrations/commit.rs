//! What changes between the permit and the commit stops the move, and the source runs on.

use carnet_api::v1::{DestinationSpec, Migration, MigrationState, Role};
use carnet_control::store::migrations::{Facts, Step};
use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId, ShareKeyId};
use carnet_core::migration::{Candidate, Cause, MigrationPlan, Phase, State, Subject};
use carnet_core::policy::{Attributes, Requirements};
use serde_json::json;
use uuid::Uuid;

use crate::edges::{Ask, Fate, Process, When};
use crate::invariants::{Before, assert_hold};
use crate::plane::{Plane, now, to_edge};

/// A move of which one order waits for the test.
struct Held {
    plane: Plane,
    source: EdgeId,
    target: EdgeId,
    key: ShareKeyId,
    container: ContainerId,
    before: Before,
    id: MigrationId,
}

/// Whose source is asked to hand over.
async fn held() -> Held {
    held_at(Ask::HandOver).await
}

async fn held_at(ask: Ask) -> Held {
    let plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.declared_edge("target", json!({})).await;
    plane.enrol(target).await;
    let key = plane.share(target).await;
    let container = plane.container("web", source).await;
    plane.edges.script(When::NthOf(ask, 0), Fate::Held);
    let id = plane.request(container, to_edge("target")).await;
    plane.edges.until_held(1).await;
    let before = Before {
        edge: source,
        generation: 1,
    };
    Held {
        plane,
        source,
        target,
        key,
        container,
        before,
        id,
    }
}

impl Held {
    /// Lets the source hand over, and waits for the end.
    async fn ended(&mut self) -> Migration {
        self.plane.edges.let_go();
        self.plane.ended(self.id).await
    }

    /// The move must end at its commit, with these words, and the source runs on.
    async fn stops_at_the_commit(mut self, words: &str) {
        let migration = self.ended().await;
        assert_eq!(migration.state, MigrationState::Failed);
        assert_eq!(
            migration.failure.as_deref(),
            Some(format!("committing: {words}").as_str())
        );
        assert_eq!(self.plane.edges.times(Ask::Restore), 0);
        assert_hold(&self.plane, &migration, self.before, words).await;
    }

    async fn put_into_the_database(&self, sql: &'static str) {
        let done = sqlx::query(sql)
            .bind(self.container.to_string())
            .execute(&self.plane.ledger)
            .await
            .unwrap();
        assert_eq!(done.rows_affected(), 1);
    }

    fn runs_at_the_source_alone(&self) {
        let edges = &self.plane.edges;
        assert_eq!(edges.process(self.source, "web"), Some(Process::Running));
        assert_eq!(edges.process(self.target, "web"), None);
        let part = edges.part(self.target, self.id);
        assert!(!part.prepared && !part.images, "{part:?}");
        assert_eq!(edges.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn nothing_that_changes_lets_the_move_commit() {
    let mut held = held().await;
    let migration = held.ended().await;
    assert_eq!(migration.state, MigrationState::Completed);
    assert_hold(&held.plane, &migration, held.before, "unchanged").await;
}

#[tokio::test]
async fn new_requirements_stop_it_even_where_they_ask_for_the_same() {
    let held = held().await;
    let store = &held.plane.store;
    store
        .set_requirements(held.container, &json!({}))
        .await
        .unwrap();
    held.stops_at_the_commit(
        "the container's requirements have changed since the move was permitted",
    )
    .await;
}

/// What has changed before the container is frozen is found before any of its memory goes.
#[tokio::test]
async fn nothing_more_is_sent_on_a_permit_whose_ground_has_changed() {
    for (held_at_order, phase, asked) in [
        (Ask::PrepareSource, "copying ahead", [0, 0]),
        (Ask::PrepareTarget, "copying ahead", [0, 0]),
        (Ask::CopyAhead, "handing over", [1, 0]),
    ] {
        let mut held = held_at(held_at_order).await;
        let store = &held.plane.store;
        store
            .set_requirements(held.container, &json!({}))
            .await
            .unwrap();
        let migration = held.ended().await;
        assert_eq!(migration.state, MigrationState::Failed);
        let words = format!(
            "{phase}: the container's requirements have changed since the move was permitted"
        );
        assert_eq!(migration.failure.as_deref(), Some(words.as_str()));
        let edges = &held.plane.edges;
        assert_eq!(
            [Ask::CopyAhead, Ask::HandOver].map(|ask| edges.times(ask)),
            asked
        );
        assert_eq!(migration.transferred.image_bytes, 0);
        held.runs_at_the_source_alone();
        assert_hold(&held.plane, &migration, held.before, &words).await;
    }
}

#[tokio::test]
async fn new_attributes_of_the_target_stop_it() {
    let held = held().await;
    let store = &held.plane.store;
    store
        .set_attributes(held.target, &json!({ "location": "us" }))
        .await
        .unwrap();
    held.stops_at_the_commit("the target's attributes have changed since the move was permitted")
        .await;
}

#[tokio::test]
async fn new_attributes_of_the_source_do_not_matter() {
    let mut held = held().await;
    let store = &held.plane.store;
    store
        .set_attributes(held.source, &json!({ "location": "us" }))
        .await
        .unwrap();
    assert_eq!(held.ended().await.state, MigrationState::Completed);
}

#[tokio::test]
async fn a_revoked_share_key_stops_it() {
    let held = held().await;
    held.plane
        .store
        .revoke_share_key(held.key, held.plane.lender, now())
        .await
        .unwrap();
    held.stops_at_the_commit(
        "the owner's share key of the target has been revoked since the move was permitted",
    )
    .await;
}

#[tokio::test]
async fn a_share_key_given_anew_but_not_entered_stops_it() {
    let held = held().await;
    let store = &held.plane.store;
    store
        .revoke_share_key(held.key, held.plane.lender, now())
        .await
        .unwrap();
    let again = ShareKeyId::from_uuid(Uuid::now_v7());
    store
        .create_share_key(again, held.target, held.plane.owner, b"again", now())
        .await
        .unwrap();
    held.stops_at_the_commit(
        "the owner's share key of the target has been revoked since the move was permitted",
    )
    .await;
}

#[tokio::test]
async fn a_share_key_that_stands_in_for_a_revoked_one_lets_it_commit() {
    let mut held = held().await;
    held.plane
        .store
        .revoke_share_key(held.key, held.plane.lender, now())
        .await
        .unwrap();
    held.plane.share(held.target).await;
    assert_eq!(held.ended().await.state, MigrationState::Completed);
}

#[tokio::test]
async fn a_container_that_is_not_confirmed_any_more_stops_it() {
    let held = held().await;
    held.put_into_the_database("UPDATE containers SET confirmed_at = NULL WHERE id = ?")
        .await;
    held.stops_at_the_commit("the container's registration is not confirmed any more")
        .await;
}

#[tokio::test]
async fn a_raised_generation_stops_it() {
    let mut held = held().await;
    held.plane.edges.do_not_compare();
    held.put_into_the_database("UPDATE containers SET generation = 9 WHERE id = ?")
        .await;
    let migration = held.ended().await;
    assert_eq!(
        migration.failure.as_deref(),
        Some("committing: the container has been moved meanwhile")
    );
    held.runs_at_the_source_alone();
    let container = held.plane.container_now(held.container).await;
    assert_eq!((container.edge, container.generation), (held.source, 9));
}

#[tokio::test]
async fn another_place_stops_it() {
    let mut held = held().await;
    let elsewhere = held.plane.edge("elsewhere").await;
    held.plane.edges.do_not_compare();
    held.put_into_the_database(
        "UPDATE containers SET edge = (SELECT id FROM edges WHERE name = 'elsewhere')
         WHERE id = ?",
    )
    .await;
    let migration = held.ended().await;
    assert_eq!(
        migration.failure.as_deref(),
        Some("committing: the container has been moved meanwhile")
    );
    held.runs_at_the_source_alone();
    let container = held.plane.container_now(held.container).await;
    assert_eq!((container.edge, container.generation), (elsewhere, 1));
}

#[tokio::test]
async fn its_name_taken_on_the_target_stops_it() {
    let held = held().await;
    let plane = &held.plane;
    let other = AccountId::from_uuid(Uuid::now_v7());
    plane.account(other, "other", Role::ContainerOwner).await;
    let taken = plane.pending_container("web", other, held.target).await;
    plane
        .store
        .confirm_container(taken, plane.owner, now())
        .await
        .unwrap();
    held.stops_at_the_commit("another container of that name has been confirmed on the target")
        .await;
}

#[tokio::test]
async fn a_pending_container_of_its_name_on_the_target_does_not_matter() {
    let mut held = held().await;
    let other = AccountId::from_uuid(Uuid::now_v7());
    held.plane
        .account(other, "other", Role::ContainerOwner)
        .await;
    held.plane
        .pending_container("web", other, held.target)
        .await;
    assert_eq!(held.ended().await.state, MigrationState::Completed);
}

#[tokio::test]
async fn a_container_cannot_be_forgotten_while_it_is_moved() {
    let mut held = held().await;
    let store = held.plane.store.clone();
    assert!(
        !store
            .delete_container(held.container, held.plane.owner)
            .await
            .unwrap()
    );
    assert_eq!(held.ended().await.state, MigrationState::Completed);
    assert!(
        store
            .delete_container(held.container, held.plane.owner)
            .await
            .unwrap()
    );
}

/// Its migration's row goes with it; what is under way is undone all the same.
#[tokio::test]
async fn a_container_that_vanishes_from_the_database_runs_on_at_the_source() {
    let held = held().await;
    held.put_into_the_database("DELETE FROM containers WHERE id = ?")
        .await;
    let edges = &held.plane.edges;
    edges.let_go();
    edges
        .until("the target to discard", |edges| {
            edges.part(held.target, held.id).ended == Some(Ask::Discard)
        })
        .await;
    assert_eq!(edges.times(Ask::Restore), 0);
    held.runs_at_the_source_alone();
    assert!(held.plane.store.migration(held.id).await.unwrap().is_none());
}

/// After the commit its place at the source is free: another's container of that name may be
/// confirmed there before it is taken back.
#[tokio::test]
async fn its_name_taken_at_the_source_keeps_it_from_being_taken_back_and_that_is_told() {
    let mut held = held().await;
    let plane = &mut held.plane;
    plane.edges.set_cannot(held.target, Ask::Restore, true);
    plane.edges.script(When::NthOf(Ask::Discard, 0), Fate::Held);
    plane.edges.let_go();
    plane.edges.until_held(1).await;
    let other = AccountId::from_uuid(Uuid::now_v7());
    plane.account(other, "other", Role::ContainerOwner).await;
    let taken = plane.pending_container("web", other, held.source).await;
    plane
        .store
        .confirm_container(taken, plane.owner, now())
        .await
        .unwrap();
    plane.edges.let_go();

    let waiting = plane
        .until(held.id, |migration| {
            migration.state == MigrationState::TakingBack && migration.waiting_for.is_some()
        })
        .await;
    assert_eq!(
        waiting.waiting_for.as_deref(),
        Some("another container of that name has been confirmed on the source")
    );
    assert!(
        plane
            .store
            .delete_container(taken, plane.owner)
            .await
            .unwrap()
    );
    let migration = plane.ended(held.id).await;
    assert_eq!(migration.state, MigrationState::Failed);
    assert_hold(plane, &migration, held.before, "taken back").await;
}

/// What nobody does but somebody with access to the file.
#[tokio::test]
async fn a_generation_changed_by_a_stranger_keeps_it_from_being_taken_back_and_that_is_told() {
    let mut held = held().await;
    held.plane.edges.set_cannot(held.target, Ask::Restore, true);
    held.plane
        .edges
        .script(When::NthOf(Ask::Discard, 0), Fate::Held);
    held.plane.edges.let_go();
    held.plane.edges.until_held(1).await;
    held.put_into_the_database("UPDATE containers SET generation = 9 WHERE id = ?")
        .await;
    held.plane.edges.let_go();
    let waiting = held
        .plane
        .until(held.id, |migration| migration.waiting_for.is_some())
        .await;
    assert_eq!(waiting.state, MigrationState::TakingBack);
    assert_eq!(
        waiting.waiting_for.as_deref(),
        Some("the container's generation is not what this migration made it")
    );
    assert_eq!(held.plane.edges.times(Ask::Resume), 0);
    held.put_into_the_database("UPDATE containers SET generation = 2 WHERE id = ?")
        .await;
    let migration = held.plane.ended(held.id).await;
    assert_hold(&held.plane, &migration, held.before, "taken back").await;
}

/// Whoever is told that the commit failed although it did not must not find itself refused: it
/// would let the source run on beside the target.
#[tokio::test]
async fn a_commit_made_twice_is_one() {
    let plane = Plane::new().await;
    let (source, target) = (plane.edge("source").await, plane.edge("target").await);
    let container = plane.container("web", source).await;
    let new = plane.new_migration(container, to_edge("target")).await;
    plane.store.create_migration(&new).await.unwrap();
    let plan = MigrationPlan::from_audit(
        &Subject {
            container,
            generation: 1,
            source,
            requirements: &Requirements::default(),
            requirements_revision: 1,
        },
        &Candidate {
            edge: target,
            attributes: &Attributes::default(),
            attributes_revision: 1,
            utilization: None,
        },
        now(),
        0,
    )
    .unwrap();
    let facts = Facts::default();
    let step = |state| Step {
        id: new.id,
        state,
        facts: &facts,
        attempt: None,
        waiting_for: None,
        waiting_since: None,
        needs_operator: false,
        owed: None,
        now: now(),
    };
    let store = &plane.store;
    let committing = State::Committing { plan: plan.clone() };
    store.save_step(step(&committing)).await.unwrap();
    let restoring = State::Restoring {
        plan: plan.clone(),
        failures: Vec::new(),
    };
    for _ in 0..2 {
        let done = store.commit(&plan, step(&restoring)).await.unwrap();
        assert_eq!(done, Ok(()));
        let now = plane.container_now(container).await;
        assert_eq!((now.edge, now.generation), (target, 2));
        let shown = plane.migration(new.id).await;
        assert_eq!(shown.state, MigrationState::Restoring);
    }

    let cause = Cause::failed(Phase::Restoring, "no room".to_owned());
    let taking_back = State::TakingBack {
        plan: plan.clone(),
        cause: cause.clone(),
    };
    store.save_step(step(&taking_back)).await.unwrap();
    let resuming = State::ResumingSource {
        plan: plan.clone(),
        cause,
    };
    for _ in 0..2 {
        let done = store.take_back(&plan, step(&resuming)).await.unwrap();
        assert_eq!(done, Ok(()));
        let now = plane.container_now(container).await;
        assert_eq!((now.edge, now.generation), (source, 3));
        let shown = plane.migration(new.id).await;
        assert_eq!(shown.state, MigrationState::ResumingSource);
    }
}

/// Between the question where a container is and the request to move it, another move of it may
/// have ended.
#[tokio::test]
async fn a_move_starts_from_where_the_container_is_when_it_is_permitted() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("left").await;
    let right = plane.edge("right").await;
    let container = plane.container("web", source).await;
    let asked_for = plane.new_migration(container, to_edge("right")).await;
    let first = plane.request(container, to_edge("left")).await;
    let first = plane.ended(first).await;
    plane.store.create_migration(&asked_for).await.unwrap();
    plane.migrations().start(asked_for.id);
    let second = plane.ended(asked_for.id).await;
    assert_eq!(second.state, MigrationState::Completed);
    assert_eq!(Some(second.source), first.target);
    assert_eq!(second.source_name, "left");
    assert_eq!(plane.edges.process(right, "web"), Some(Process::Running));
}

#[tokio::test]
async fn a_container_goes_there_and_back_again() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    let places = [(source, "target"), (target, "source")].repeat(2);
    for (generation, (edge, to)) in (1..).zip(places) {
        let id = plane.request(container, to_edge(to)).await;
        let migration = plane.ended(id).await;
        assert_eq!(migration.state, MigrationState::Completed);
        assert_hold(&plane, &migration, Before { edge, generation }, to).await;
    }
    let anywhere = DestinationSpec::Anywhere(true);
    let id = plane.request(container, anywhere).await;
    assert_eq!(plane.ended(id).await.target, Some(target));
}
