//! Who may go where: candidates are drawn and audited until one is permitted.

use std::collections::BTreeSet;

use carnet_api::agent::{Reading, Utilization};
use carnet_api::v1::{
    AttemptOutcome, DestinationSpec, HealthState, Migration, MigrationState, Role,
};
use carnet_control::store::listing::Search;
use carnet_core::ids::{AccountId, ContainerId, EdgeId};
use carnet_core::policy::Element;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::edges::{Ask, Fate, Process, When, reading};
use crate::invariants::{Before, assert_hold};
use crate::plane::{MAX_READING_AGE_MS, Plane, now, to_edge};

fn to_region(name: &str) -> DestinationSpec {
    DestinationSpec::Region(name.to_owned())
}

/// One move from `source` to `target`, of which only the first audit matters.
async fn attempt(
    requirements: Value,
    make: impl AsyncFn(&Plane) -> EdgeId,
) -> (Plane, AttemptOutcome) {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = make(&plane).await;
    let container = plane.container_with("web", source, requirements).await;
    let id = plane.request(container, to_edge("target")).await;
    let migration = plane.ended(id).await;
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "one candidate").await;
    assert_eq!(migration.attempts.len(), 1);
    assert_eq!(migration.attempts[0].edge, target);
    assert_eq!(migration.attempts[0].edge_name, "target");
    let permitted = migration.attempts[0].outcome == AttemptOutcome::Permitted;
    assert_eq!(permitted, migration.state == MigrationState::Completed);
    assert_eq!(!permitted, migration.state == MigrationState::Denied);
    (plane, migration.attempts[0].outcome.clone())
}

fn found(outcome: &AttemptOutcome) -> Vec<(&str, &str)> {
    match outcome {
        AttemptOutcome::Denied { reasons } => reasons
            .iter()
            .map(|reason| (reason.paper_name.as_str(), reason.found.as_str()))
            .collect(),
        other => panic!("not denied: {other:?}"),
    }
}

fn problems(outcome: &AttemptOutcome) -> Vec<&str> {
    match outcome {
        AttemptOutcome::NotReady { problems } => problems.iter().map(String::as_str).collect(),
        other => panic!("it is not that it is not ready: {other:?}"),
    }
}

/// Three edges in region A of which one is permitted, and one in B that would be.
async fn regions() -> (Plane, ContainerId) {
    let plane = Plane::new().await;
    let source = plane.edge_with("source", json!({ "region": "A" })).await;
    for (name, region, country) in [
        ("a1", "A", "us"),
        ("a2", "A", "jp"),
        ("a3", "A", "us"),
        ("b1", "B", "jp"),
    ] {
        let attributes = json!({ "region": region, "location": country });
        plane.edge_with(name, attributes).await;
    }
    let requirements = json!({ "allowed_locations": ["jp"] });
    let container = plane.container_with("web", source, requirements).await;
    (plane, container)
}

fn drawn(migration: &Migration) -> Vec<&str> {
    let attempts = migration.attempts.iter();
    attempts.map(|attempt| attempt.edge_name.as_str()).collect()
}

#[tokio::test]
async fn a_region_is_drawn_from_until_an_edge_is_permitted() {
    let (mut plane, container) = regions().await;
    let before = plane.container_now(container).await;
    let id = plane.request(container, to_region("A")).await;
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Completed);
    assert_eq!(migration.target_name.as_deref(), Some("a2"));
    let drawn = drawn(&migration);
    assert_eq!(drawn.last(), Some(&"a2"));
    let once: BTreeSet<_> = drawn.iter().collect();
    assert_eq!(once.len(), drawn.len(), "{drawn:?}");
    assert!(!drawn.contains(&"b1") && !drawn.contains(&"source"));
    for attempt in &migration.attempts[..drawn.len() - 1] {
        assert_eq!(found(&attempt.outcome), [("cDAl", "`us`")]);
    }
    assert_eq!(plane.edges.times(Ask::Reading), drawn.len());
    let before = Before {
        edge: before.edge,
        generation: before.generation,
    };
    assert_hold(&plane, &migration, before, "a region").await;
}

#[tokio::test]
async fn every_edge_of_a_region_may_be_drawn_first() {
    let (plane, container) = regions().await;
    let mut first = BTreeSet::new();
    // Each is missing with a probability of (2/3)^60, some 3 in 10^11.
    for _ in 0..60 {
        let region = to_region("A");
        let attempts = plane
            .migrations()
            .dry_run(container, &region, plane.owner)
            .await;
        let attempts = attempts.unwrap();
        assert_eq!(attempts.len(), 3, "all of them, in a dry run");
        first.insert(attempts[0].edge_name.clone());
    }
    assert_eq!(first, ["a1", "a2", "a3"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_dry_run_moves_nothing_and_keeps_nothing_but_what_was_seen() {
    let (plane, container) = regions().await;
    let before = plane.container_now(container).await;
    let anywhere = DestinationSpec::Anywhere(true);
    let attempts = plane
        .migrations()
        .dry_run(container, &anywhere, plane.owner)
        .await;
    let permitted = attempts.unwrap().into_iter();
    let permitted = permitted.filter(|a| a.outcome == AttemptOutcome::Permitted);
    assert_eq!(permitted.count(), 2);
    assert_eq!(plane.edges.times(Ask::Reading), plane.edges.asked().len());
    assert_eq!(plane.container_now(container).await, before);
    let all = Search::default();
    let kept = plane.store.migrations(None, None, &all).await.unwrap();
    assert_eq!(kept.count, 0);
}

#[tokio::test]
async fn a_denied_edge_is_recorded_with_every_reason() {
    let everything = json!({
        "allowed_locations": ["jp"],
        "allowed_organizations": ["oiu"],
        "allowed_manufacturers": ["fjt"],
        "virtualization": "lxc",
        "max_cpu_percent": 5.0,
        "max_memory_percent": 5.0,
        "min_cpu_ghz": 4.0,
        "min_memory_gb": 64,
        "ai_support": true,
        "ai_accessories": ["tpu"],
        "ai_frameworks": ["tf"],
    });
    let (_, outcome) = attempt(everything, async |plane| plane.edge("target").await).await;
    let AttemptOutcome::Denied { reasons } = outcome else {
        panic!("{outcome:?}");
    };
    let names: Vec<_> = reasons
        .iter()
        .map(|reason| (reason.element.as_str(), reason.paper_name.as_str()))
        .collect();
    let all = Element::ALL.map(|element| (element.name(), element.paper_name()));
    assert_eq!(names, all);
    for reason in &reasons {
        for words in [&reason.required, &reason.found, &reason.satisfied_by] {
            assert!(!words.is_empty(), "{reason:?}");
        }
    }
    assert_eq!(reasons[4].found, "10 % now");
    assert_eq!(reasons[4].required, "at most 5 %");
}

#[tokio::test]
async fn where_every_edge_is_denied_no_agent_is_asked_but_for_readings() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    for name in ["a", "b", "c", "d"] {
        plane.edge_with(name, json!({ "location": "us" })).await;
    }
    let requirements = json!({ "allowed_locations": ["jp"] });
    let container = plane.container_with("web", source, requirements).await;
    let id = plane
        .request(container, DestinationSpec::Anywhere(true))
        .await;
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Denied);
    assert_eq!((migration.target, migration.failure.clone()), (None, None));
    let mut drawn = drawn(&migration);
    drawn.sort_unstable();
    assert_eq!(drawn, ["a", "b", "c", "d"]);
    assert_eq!(plane.edges.times(Ask::Reading), 4);
    assert_eq!(plane.edges.asked().len(), 4);
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "all denied").await;
    assert_eq!(plane.edges.process(source, "web"), Some(Process::Running));
}

#[tokio::test]
async fn without_a_reading_what_asks_for_one_is_denied() {
    let limits = json!({ "max_cpu_percent": 50.0, "max_memory_percent": 50.0 });
    let (_, outcome) = attempt(limits, async |plane| {
        let target = plane.edge("target").await;
        let nothing = Reading {
            utilization: None,
            problems: vec!["/proc is gone".to_owned()],
            live_problems: Vec::new(),
        };
        plane.edges.set_reading(target, nothing);
        target
    })
    .await;
    assert_eq!(
        found(&outcome),
        [
            ("cHRcu", "no reading: /proc is gone"),
            ("cHRmu", "no reading: /proc is gone")
        ]
    );
}

#[tokio::test]
async fn a_reading_that_is_too_old_counts_as_none() {
    let limits = json!({ "max_cpu_percent": 50.0 });
    let aged = async |age_ms| {
        attempt(limits.clone(), async |plane: &Plane| {
            let target = plane.edge("target").await;
            let utilization = Utilization {
                cpu_hundredths: 1_000,
                memory_hundredths: 1_000,
                age_ms,
            };
            let reading = Reading {
                utilization: Some(utilization),
                problems: Vec::new(),
                live_problems: Vec::new(),
            };
            plane.edges.set_reading(target, reading);
            target
        })
        .await
        .1
    };
    for age_ms in [MAX_READING_AGE_MS + 1, u64::MAX] {
        assert_eq!(
            found(&aged(age_ms).await),
            [("cHRcu", "a reading that is too old or from the future")]
        );
    }
    assert_eq!(
        aged(MAX_READING_AGE_MS / 2).await,
        AttemptOutcome::Permitted
    );
}

/// As in the paper's example: at most 50 % means that 50 % is allowed.
#[tokio::test]
async fn utilization_is_as_it_is_when_the_candidate_is_audited() {
    let limits = json!({ "max_cpu_percent": 50.0, "max_memory_percent": 60.0 });
    let used = async |cpu, memory| {
        attempt(limits.clone(), async |plane: &Plane| {
            let target = plane.edge("target").await;
            plane.edges.set_reading(target, reading(cpu, memory));
            target
        })
        .await
        .1
    };
    assert_eq!(used(5_000, 6_000).await, AttemptOutcome::Permitted);
    assert_eq!(
        found(&used(5_001, 6_001).await),
        [("cHRcu", "50.01 % now"), ("cHRmu", "60.01 % now")]
    );
}

#[tokio::test]
async fn a_reading_out_of_range_is_told() {
    let (_, outcome) = attempt(json!({}), async |plane| {
        let target = plane.edge("target").await;
        plane.edges.set_reading(target, reading(10_001, 0));
        target
    })
    .await;
    assert_eq!(
        problems(&outcome),
        ["its reading is out of range: 10001 and 0 hundredths of a percent"]
    );
}

#[tokio::test]
async fn an_edge_that_is_not_enrolled_is_not_ready_and_not_asked() {
    let (plane, outcome) = attempt(json!({}), async |plane| {
        let target = plane.declared_edge("target", json!({})).await;
        plane.share(target).await;
        target
    })
    .await;
    assert_eq!(
        problems(&outcome),
        ["`target` has not been enrolled: it has no agent yet"]
    );
    assert_eq!(plane.edges.asked().len(), 0);
}

#[tokio::test]
async fn an_edge_that_does_not_answer_is_not_ready() {
    let make = async |plane: &Plane| {
        let target = plane.edge("target").await;
        plane.edges.set_reachable(target, false);
        target
    };
    let (plane, outcome) = attempt(json!({}), make).await;
    let told =
        "asked edge `target` (target:1) to read its utilization: no answer: the connection broke";
    assert_eq!(problems(&outcome), [told]);
    let target = plane.store.edge("target").await.unwrap().unwrap();
    assert_eq!(target.health.state, HealthState::Unreachable);
    assert_eq!(target.health.problems, [told]);
    // Where the policy denies it, that is what counts.
    let (_, outcome) = attempt(json!({ "max_cpu_percent": 50.0 }), make).await;
    let why = format!("no reading: {told}");
    assert_eq!(found(&outcome), [("cHRcu", why.as_str())]);
}

#[tokio::test]
async fn an_edge_that_is_permitted_but_lacks_something_is_not_ready() {
    let make = async |plane: &Plane| {
        let target = plane.edge("target").await;
        let mut lacking = reading(0, 0);
        lacking.problems = vec!["CRIU is missing".to_owned(), "no bridge".to_owned()];
        plane.edges.set_reading(target, lacking);
        target
    };
    let (_, outcome) = attempt(json!({}), make).await;
    assert_eq!(problems(&outcome), ["CRIU is missing", "no bridge"]);
    let (_, outcome) = attempt(json!({ "min_cpu_ghz": 1.0 }), make).await;
    assert_eq!(found(&outcome), [("cHRc", "nothing known")]);
}

#[tokio::test]
async fn an_edge_with_another_container_of_that_name_is_not_ready() {
    let (_, outcome) = attempt(json!({}), async |plane| {
        let target = plane.edge("target").await;
        let other = AccountId::from_uuid(Uuid::now_v7());
        plane.account(other, "other", Role::ContainerOwner).await;
        let taken = plane.pending_container("web", other, target).await;
        plane
            .store
            .confirm_container(taken, plane.owner, now())
            .await
            .unwrap();
        target
    })
    .await;
    assert_eq!(problems(&outcome), ["`target` has another container `web`"]);
}

#[tokio::test]
async fn the_next_edge_is_drawn_where_one_is_not_ready() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("left").await;
    plane.edge("right").await;
    let container = plane.container("web", source).await;
    plane
        .edges
        .script(When::NthOf(Ask::Reading, 0), Fate::RequestLost);
    let id = plane
        .request(container, DestinationSpec::Anywhere(true))
        .await;
    let migration = plane.ended(id).await;
    assert_eq!(migration.state, MigrationState::Completed);
    assert_eq!(migration.attempts.len(), 2);
    assert_eq!(problems(&migration.attempts[0].outcome).len(), 1);
    assert_eq!(migration.attempts[1].outcome, AttemptOutcome::Permitted);
}

#[tokio::test]
async fn an_attempt_says_what_was_audited_and_how_long_it_took() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.edge("target").await;
    plane
        .store
        .set_attributes(target, &json!({ "location": "jp" }))
        .await
        .unwrap();
    plane.edges.set_reading(target, reading(1_234, 5_678));
    plane.edges.script(When::NthOf(Ask::Reading, 0), Fate::Slow);
    let container = plane.container("web", source).await;
    let asked_at = now();
    let id = plane.request(container, to_edge("target")).await;
    let migration = plane.ended(id).await;
    let attempt = &migration.attempts[0];
    assert_eq!(attempt.attributes_revision, 2);
    let read = attempt.utilization.as_ref().unwrap();
    assert_eq!((read.cpu_percent, read.memory_percent), (12.34, 56.78));
    assert!(read.read_at_ms >= asked_at && read.read_at_ms <= attempt.audited_at_ms);
    assert!(attempt.reading_micros > 0.0 && attempt.compare_micros > 0.0);
}

/// Only a living key that has been entered counts.
#[tokio::test]
async fn edges_without_a_living_share_key_are_no_candidates() {
    let plane = Plane::new().await;
    let source = plane.edge("source").await;
    let container = plane.container("web", source).await;
    let unshared = plane.declared_edge("unshared", json!({})).await;
    let revoked = plane.declared_edge("revoked", json!({})).await;
    let unentered = plane.declared_edge("unentered", json!({})).await;
    for edge in [unshared, revoked, unentered] {
        plane.enrol(edge).await;
    }
    let key = plane.share(revoked).await;
    plane
        .store
        .revoke_share_key(key, plane.lender, now())
        .await
        .unwrap();
    plane
        .store
        .create_share_key(
            carnet_core::ids::ShareKeyId::from_uuid(Uuid::now_v7()),
            unentered,
            plane.owner,
            b"unentered",
            now(),
        )
        .await
        .unwrap();
    let check = async |to| {
        let fault = plane.migrations().check(container, &to).await;
        fault.expect_err("no candidate").to_string()
    };
    assert_eq!(
        check(DestinationSpec::Anywhere(true)).await,
        "there is no edge to go to: `web` is on `source`, and you may use no other there"
    );
    for name in ["unshared", "revoked", "unentered", "nowhere"] {
        let told = check(to_edge(name)).await;
        assert!(told.contains("there is no such edge"), "{told}");
    }
    let told = check(to_edge("source")).await;
    assert_eq!(told, "`web` is on `source` already");
    let told = check(to_region("A")).await;
    assert!(told.contains("is in such a region"), "{told}");
    let told = check(DestinationSpec::Anywhere(false)).await;
    assert!(told.contains("to.anywhere: means nothing"), "{told}");
    assert_eq!(plane.edges.asked().len(), 0);
}

#[tokio::test]
async fn an_edge_is_named_by_its_id_as_well() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    plane.edge("other").await;
    let target = plane.edge("target").await;
    let container = plane.container("web", source).await;
    let id = plane.request(container, to_edge(&target.to_string())).await;
    assert_eq!(plane.ended(id).await.target, Some(target));
}

/// The request was good when it was made; what it named is gone when its turn comes.
#[tokio::test]
async fn a_destination_that_vanishes_before_the_draw_fails_the_move() {
    let mut plane = Plane::new().await;
    let source = plane.edge("source").await;
    let target = plane.declared_edge("target", json!({})).await;
    plane.enrol(target).await;
    let key = plane.share(target).await;
    let container = plane.container("web", source).await;
    let new = plane.new_migration(container, to_edge("target")).await;
    plane.store.create_migration(&new).await.unwrap();
    plane
        .store
        .revoke_share_key(key, plane.lender, now())
        .await
        .unwrap();
    plane.migrations().start(new.id);
    let migration = plane.ended(new.id).await;
    assert_eq!(migration.state, MigrationState::Failed);
    let failure = migration.failure.as_deref().unwrap();
    assert!(failure.starts_with("admitting: "), "{failure}");
    assert!(failure.contains("there is no such edge"), "{failure}");
    assert_eq!(plane.edges.asked().len(), 0);
    let before = Before {
        edge: source,
        generation: 1,
    };
    assert_hold(&plane, &migration, before, "no candidate").await;
}
