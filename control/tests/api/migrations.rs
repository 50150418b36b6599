//! Moves as they are asked for, followed and listed.

use carnet_api::v1::{AttemptOutcome, Migration, MigrationState, Role, Strategy};
use carnet_core::ids::EdgeId;
use serde_json::{Value, json};

use crate::audits;
use crate::plane::{Plane, Someone};

struct People {
    plane: Plane,
    owner: Someone,
    ann: Someone,
    south: EdgeId,
}

/// A container `web` on `north`, and an edge `south` that it may go to.
async fn people() -> People {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let ann = plane.container_owner("ann").await;
    plane.edge(&owner, "north").await;
    let south = plane.edge(&owner, "south").await.id;
    plane.share(&owner, "north", &ann).await;
    plane.share(&owner, "south", &ann).await;
    plane.container(&ann, &owner, "north", "web").await;
    People {
        plane,
        owner,
        ann,
        south,
    }
}

/// Moves `container` and waits for the end.
async fn go(plane: &Plane, who: &Someone, container: &str, edge: &str) -> Migration {
    let body = json!({"container": container, "to": {"edge": edge}});
    plane
        .post(who, "/v1/migrations?wait=10", body)
        .await
        .read(200)
}

/// The data of each event, in order.
fn events(text: &str) -> Vec<Migration> {
    let mut events = Vec::new();
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        let (mut named, mut data) = (false, None);
        for line in event.lines() {
            match line.split_once(':') {
                Some(("event", name)) => named = name.trim() == "migration",
                Some(("data", json)) => data = Some(serde_json::from_str(json).unwrap()),
                Some(("", _)) => named = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(named, "{event}");
        events.extend(data);
    }
    events
}

#[tokio::test]
async fn a_move_that_is_waited_for_is_answered_with_its_whole_record() {
    let People {
        plane, ann, south, ..
    } = people().await;
    let body = json!({"container": "web", "to": {"edge": "south"}});
    let answer = plane.post(&ann, "/v1/migrations?wait=10", body).await;
    let migration: Migration = answer.read(200);
    assert_eq!(migration.state, MigrationState::Completed);
    assert_eq!(
        answer.headers["location"],
        format!("/v1/migrations/{}", migration.id)
    );
    assert_eq!(
        (
            migration.container_name.as_str(),
            migration.source_name.as_str()
        ),
        ("web", "north")
    );
    assert_eq!(
        (migration.target, migration.target_name.as_deref()),
        (Some(south), Some("south"))
    );
    assert_eq!(migration.attempts.len(), 1);
    assert_eq!(migration.attempts[0].outcome, AttemptOutcome::Permitted);
    assert_eq!((&migration.failure, &migration.waiting_for), (&None, &None));
    let states: Vec<MigrationState> = migration
        .timings
        .iter()
        .map(|timing| timing.state)
        .collect();
    use MigrationState::{
        Admitting, Committing, Completed, CopyingAhead, HandingOver, Preparing, Releasing,
        Restoring, Settling,
    };
    let all = [
        Admitting,
        Preparing,
        CopyingAhead,
        HandingOver,
        Committing,
        Restoring,
        Settling,
        Releasing,
        Completed,
    ];
    assert_eq!(states, all);
    assert!(
        migration
            .timings
            .iter()
            .all(|timing| timing.duration_ms.is_some())
    );
    let sent = migration.transferred;
    let bytes = (
        sent.rootfs_ahead_bytes,
        sent.rootfs_difference_bytes,
        sent.image_bytes,
    );
    assert_eq!(bytes, (1 << 24, 1 << 12, 1 << 20));
    assert!(
        migration.stall_ms.unwrap() >= 80.5,
        "what the source measured, and the rest"
    );
    assert!(migration.ended_at_ms.unwrap() >= migration.created_at_ms);

    let shown: Migration = plane
        .get(&ann, answer.headers["location"].to_str().unwrap())
        .await
        .read(200);
    assert_eq!(shown, migration);
    let web = plane.show_container(&ann, "web").await;
    assert_eq!((web.edge, web.generation, web.migration), (south, 2, None));
}

#[tokio::test]
async fn a_move_is_answered_at_once_and_followed_at_its_location() {
    let People { plane, ann, .. } = people().await;
    plane.agents.moves.close();
    let body = json!({"container": "web", "to": {"edge": "south"}});
    let answer = plane.post(&ann, "/v1/migrations", body).await;
    let migration: Migration = answer.read(202);
    let path = format!("/v1/migrations/{}", migration.id);
    assert_eq!(answer.headers["location"], path);
    plane.agents.moves.until_waiting(1).await;
    for query in ["", "?wait=0"] {
        let shown: Migration = plane.get(&ann, &format!("{path}{query}")).await.read(200);
        assert_eq!(shown.state, MigrationState::Preparing);
        assert_eq!(shown.ended_at_ms, None);
        assert_eq!(shown.timings.last().unwrap().duration_ms, None);
    }
    let waited = format!("{path}?wait=10");
    let waiting = plane.get(&ann, &waited);
    let opening = async {
        plane.get(&ann, &path).await.json(200);
        plane.agents.moves.open();
    };
    let (ended, ()) = tokio::join!(waiting, opening);
    assert_eq!(
        ended.read::<Migration>(200).state,
        MigrationState::Completed
    );
}

#[tokio::test]
async fn a_move_that_is_denied_tells_every_reason_and_moves_nothing() {
    let People {
        plane, ann, south, ..
    } = people().await;
    plane
        .agents
        .change(south, |edge| edge.used = Some((6_001, 5_001)));
    let migration = go(&plane, &ann, "web", "south").await;
    assert_eq!(migration.state, MigrationState::Denied);
    assert_eq!((migration.target, migration.stall_ms), (None, None));
    let AttemptOutcome::Denied { reasons } = &migration.attempts[0].outcome else {
        panic!("{migration:?}");
    };
    let elements: Vec<&str> = reasons
        .iter()
        .map(|reason| reason.element.as_str())
        .collect();
    assert_eq!(elements, ["max_cpu_percent", "max_memory_percent"]);
    let web = plane.show_container(&ann, "web").await;
    assert_eq!(
        (web.edge_name.as_str(), web.generation, web.migration),
        ("north", 1, None)
    );
}

#[tokio::test]
async fn a_move_goes_on_to_the_candidate_that_is_permitted() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    for name in ["jp-1", "jp-2"] {
        plane
            .edge_as(&owner, name, "B jp caA deB lxc 2.6 8 - - -")
            .await;
        plane.share(&owner, name, &ann).await;
    }
    let body = json!({"container": "web", "to": {"region": "B"}});
    let answer = plane.post(&ann, "/v1/migrations?wait=10", body).await;
    let migration: Migration = answer.read(200);
    assert_eq!(migration.target_name.as_deref(), Some("south"));
    let (last, before) = migration.attempts.split_last().unwrap();
    assert_eq!(last.edge_name, "south");
    for attempt in before {
        assert!(attempt.edge_name.starts_with("jp-"), "{attempt:?}");
        assert!(
            matches!(attempt.outcome, AttemptOutcome::Denied { .. }),
            "{attempt:?}"
        );
    }
}

#[tokio::test]
async fn a_move_that_failed_says_where_and_why() {
    let People {
        plane, ann, south, ..
    } = people().await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    let body = json!({"requirements": "jp * * * * * * * * * *"});
    plane
        .put(&ann, "/v1/containers/web/requirements", body)
        .await
        .json(200);
    plane.agents.moves.open();
    let ended = plane.end_of(&ann, &migration).await;
    assert_eq!(ended.state, MigrationState::Failed);
    assert_eq!(ended.target, Some(south), "which was permitted");
    let failure = ended.failure.unwrap();
    assert!(failure.contains("requirements have changed"), "{failure}");
    let web = plane.show_container(&ann, "web").await;
    assert_eq!((web.edge_name.as_str(), web.generation), ("north", 1));
}

#[tokio::test]
async fn a_destination_that_is_none_is_told_with_what_was_meant() {
    audits::refusals("/v1/migrations").await;
}

#[tokio::test]
async fn what_is_not_confirmed_does_not_move() {
    let People { plane, ann, .. } = people().await;
    plane.pending(&ann, "north", "job").await;
    let body = json!({"container": "job", "to": {"edge": "south"}});
    let refused = plane.post(&ann, "/v1/migrations", body).await;
    let detail = refused.detail(409, "conflict");
    assert!(detail.contains("carnet container claim"), "{detail}");
    let listed: Vec<Migration> = plane.get(&ann, "/v1/migrations").await.read(200);
    assert_eq!(listed, [], "what can only fail is not kept");
}

#[tokio::test]
async fn what_is_being_moved_is_not_moved_a_second_time() {
    let People { plane, ann, .. } = people().await;
    plane.agents.moves.close();
    let body = json!({"container": "web", "to": {"edge": "south"}});
    let ask = || plane.post(&ann, "/v1/migrations", body.clone());
    let answers = tokio::join!(ask(), ask(), ask());
    let mut answers = [answers.0, answers.1, answers.2];
    answers.sort_by_key(|answer| answer.status);
    let migration: Migration = answers[0].read(202);
    for refused in &answers[1..] {
        let detail = refused.detail(409, "conflict");
        assert!(detail.contains(&migration.id.to_string()), "{detail}");
    }
    plane.agents.moves.open();
    plane.end_of(&ann, &migration).await;
    let back = go(&plane, &ann, "web", "north").await;
    assert_eq!(back.state, MigrationState::Completed);
    let web = plane.show_container(&ann, "web").await;
    assert_eq!((web.edge_name.as_str(), web.generation), ("north", 3));
}

#[tokio::test]
async fn moves_are_listed_the_newest_first_by_container_and_up_to_a_limit() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    plane.container(&ann, &owner, "north", "job").await;
    let first = go(&plane, &ann, "web", "south").await;
    let second = go(&plane, &ann, "job", "south").await;
    let third = go(&plane, &ann, "web", "north").await;
    let list = async |who: &Someone, query: &str| -> Vec<Migration> {
        plane
            .get(who, &format!("/v1/migrations{query}"))
            .await
            .read(200)
    };
    let all = [third.clone(), second.clone(), first.clone()];
    assert_eq!(list(&ann, "").await, all);
    assert_eq!(
        list(&ann, "?container=web").await,
        [third.clone(), first.clone()]
    );
    let by_id = format!("?container={}", second.container);
    assert_eq!(list(&ann, &by_id).await, std::slice::from_ref(&second));
    assert_eq!(list(&ann, "?limit=2").await, [third.clone(), second]);
    assert_eq!(list(&ann, "?limit=1&container=web").await, [third]);
    assert_eq!(list(&ann, "?container=nothing").await, []);
    assert_eq!(list(&ann, "?limit=1000").await.len(), 3);
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    assert_eq!(list(&auditor, "").await, all);
    assert_eq!(list(&plane.administrator, "?container=web").await.len(), 2);

    for limit in ["0", "1001"] {
        let refused = plane
            .get(&ann, &format!("/v1/migrations?limit={limit}"))
            .await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        let told = (
            fault.place.as_str(),
            fault.found.as_str(),
            fault.allowed.as_str(),
        );
        assert_eq!(told, ("limit", limit, "1 to 1,000"));
    }
    for query in [
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=4294967296",
        "limits=1",
        "limit=1&limit=2",
    ] {
        let refused = plane.get(&ann, &format!("/v1/migrations?{query}")).await;
        let detail = refused.detail(400, "unfit-query");
        assert!(detail.contains("limit"), "{detail}");
    }
}

#[tokio::test]
async fn a_wait_has_a_limit() {
    let People { plane, ann, .. } = people().await;
    let migration = go(&plane, &ann, "web", "south").await;
    let path = format!("/v1/migrations/{}", migration.id);
    let body = json!({"container": "web", "to": {"edge": "north"}});
    let refused = [
        plane.get(&ann, &format!("{path}?wait=601")).await,
        plane
            .post(&ann, "/v1/migrations?wait=601", body.clone())
            .await,
    ];
    for refused in refused {
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!(
            (fault.place.as_str(), fault.found.as_str()),
            ("wait", "601")
        );
    }
    for query in ["wait=x", "wait=-1", "wait=1.5", "what=1"] {
        let refused = [
            plane.get(&ann, &format!("{path}?{query}")).await,
            plane
                .post(&ann, &format!("/v1/migrations?{query}"), body.clone())
                .await,
        ];
        for refused in refused {
            refused.problem(400, "unfit-query");
        }
    }
    let listed: Vec<Migration> = plane.get(&ann, "/v1/migrations").await.read(200);
    assert_eq!(listed.len(), 1);
    plane.get(&ann, &format!("{path}?wait=600")).await.json(200);
}

#[tokio::test]
async fn events_tell_every_change_until_the_end() {
    let People { plane, ann, .. } = people().await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    let path = format!("/v1/migrations/{}/events", migration.id);
    let stream = plane.follow(&ann, &path).await;
    plane.agents.moves.open();
    let text = stream.text().await.unwrap();
    let told = events(&text);
    assert_eq!(
        told[0].state,
        MigrationState::Preparing,
        "first, how it stands"
    );
    let last = told.last().unwrap();
    assert_eq!(last.state, MigrationState::Completed);
    let (_, before) = told.split_last().unwrap();
    assert!(before.iter().all(|each| !each.state.is_ended()), "one end");
    assert!(told.is_sorted_by_key(|each| each.timings.len()), "in order");
    for each in &told {
        let each = serde_json::to_value(each).unwrap();
        plane
            .contract()
            .fits("/components/schemas/Migration", &each);
    }
    let path = format!("/v1/migrations/{}", migration.id);
    assert_eq!(*last, plane.get(&ann, &path).await.read::<Migration>(200));

    // Of what has ended there is one thing to tell.
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    for who in [&ann, &auditor, &plane.administrator] {
        let stream = plane.follow(who, &format!("{path}/events")).await;
        assert_eq!(
            events(&stream.text().await.unwrap()),
            std::slice::from_ref(last)
        );
    }
}

#[tokio::test]
async fn whoever_waits_is_answered_when_the_control_plane_stops() {
    let People { plane, ann, .. } = people().await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    let path = format!("/v1/migrations/{}", migration.id);
    let stream = plane.follow(&ann, &format!("{path}/events")).await;
    let waited = format!("{path}?wait=600");
    let waiting = plane.get(&ann, &waited);
    let stopping = async {
        plane.get(&ann, &path).await.json(200);
        plane.stop.send(()).unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, stopping);
    assert_eq!(
        answer.read::<Migration>(200).state,
        MigrationState::Preparing
    );
    let text = stream.text().await.unwrap();
    assert_eq!(events(&text).len(), 1);
}

#[tokio::test]
async fn an_auditor_reads_everything_and_changes_nothing() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let migration = go(&plane, &ann, "web", "south").await;
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let one = format!("/v1/migrations/{}", migration.id);
    for (path, theirs) in [
        ("/v1/accounts", &plane.administrator),
        ("/v1/edges", &owner),
        ("/v1/edges/north", &owner),
        ("/v1/edges/north/share-keys", &owner),
        ("/v1/share-keys", &owner),
        ("/v1/containers", &ann),
        ("/v1/containers/web", &ann),
        ("/v1/migrations", &ann),
        (&one, &ann),
    ] {
        let seen: Value = plane.get(&auditor, path).await.json(200);
        assert_eq!(seen, plane.get(theirs, path).await.json(200), "{path}");
        assert_ne!(seen, json!([]), "{path}");
    }
    let body = json!({"container": "web", "to": {"edge": "north"}});
    for (path, body) in [
        ("/v1/migrations", body.clone()),
        ("/v1/audits", body),
        ("/v1/containers/web/confirm", json!({})),
        ("/v1/edges/north/enrolment-tokens", json!({})),
        ("/v1/accounts", json!({"name": "x", "roles": ["auditor"]})),
    ] {
        plane
            .post(&auditor, path, body)
            .await
            .problem(403, "forbidden");
    }
    plane
        .delete(&auditor, "/v1/containers/web")
        .await
        .problem(403, "forbidden");
}

#[tokio::test]
async fn a_move_is_cancelled_by_the_containers_owner_or_an_administrator() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let stranger = plane.container_owner("stranger").await;
    let auditor = plane
        .account("auditor", &[Role::Auditor, Role::ContainerOwner])
        .await;
    for who in [&ann, &plane.administrator] {
        plane.agents.moves.close();
        let migration = plane.start_move(&ann, "web", "south").await;
        plane.agents.moves.until_waiting(1).await;
        let path = format!("/v1/migrations/{}/cancel", migration.id);
        for other in [&stranger, &auditor] {
            plane
                .post(other, &path, json!({}))
                .await
                .problem(404, "not-found");
        }
        plane
            .post(&owner, &path, json!({}))
            .await
            .problem(403, "forbidden");
        let cancelled: Migration = plane
            .post(who, &format!("{path}?wait=10"), json!({}))
            .await
            .read(200);
        // The agent has not answered: the gate is closed.
        assert_eq!(cancelled.state, MigrationState::Cancelled);
        assert_eq!(cancelled.failure, None);
        assert!(cancelled.cancel_asked_at_ms.is_some());
        let again: Migration = plane.post(who, &path, json!({})).await.read(200);
        assert_eq!(again, cancelled, "asked again, nothing changes");
        plane.agents.moves.open();
        let web = plane.show_container(&ann, "web").await;
        assert_eq!(
            (web.edge_name.as_str(), web.generation, web.migration),
            ("north", 1, None)
        );
    }
}

#[tokio::test]
async fn what_cannot_be_cancelled_any_more_is_told_with_what_can_be_done() {
    let People { plane, ann, .. } = people().await;
    let done = go(&plane, &ann, "web", "south").await;
    let path = format!("/v1/migrations/{}/cancel", done.id);
    let refused = plane.post(&ann, &path, json!({})).await;
    let detail = refused.detail(409, "conflict");
    assert!(detail.contains("`web` is on `south`"), "{detail}");
    assert!(detail.contains("carnet migrate web --to north"), "{detail}");
    // Nothing of it is kept.
    let shown: Migration = plane
        .get(&ann, &format!("/v1/migrations/{}", done.id))
        .await
        .read(200);
    assert_eq!(shown, done);
    plane
        .post(&ann, &format!("{path}?wait=601"), json!({}))
        .await
        .problem(422, "faulty-input");
}

#[tokio::test]
async fn an_administrator_gives_up_on_an_edge_that_is_lost() {
    let People {
        plane, ann, south, ..
    } = people().await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    let path = format!("/v1/migrations/{}", migration.id);
    let give_up = format!("{path}/give-up");
    let body = json!({"lost": "target"});
    let refused = plane.post(&plane.administrator, &give_up, body.clone());
    let detail = refused.await.detail(409, "conflict");
    assert!(detail.contains("does not wait for `south`"), "{detail}");
    // Nothing can be prepared there, and nothing discarded.
    plane.agents.change(south, |edge| edge.reachable = false);
    plane.agents.moves.open();
    loop {
        let shown: Migration = plane.get(&ann, &path).await.read(200);
        if shown.state == MigrationState::DiscardingTarget && shown.waiting_for.is_some() {
            break;
        }
        assert!(!shown.state.is_ended(), "{shown:?}");
        tokio::task::yield_now().await;
    }
    plane
        .post(&ann, &give_up, body.clone())
        .await
        .problem(403, "forbidden");
    let ended: Migration = plane
        .post(&plane.administrator, &format!("{give_up}?wait=10"), body)
        .await
        .read(200);
    assert_eq!(ended.state, MigrationState::Failed);
    let failure = ended.failure.unwrap();
    assert!(failure.starts_with("preparing: "), "its own: {failure}");
    for wrong in [
        json!({"lost": "both"}),
        json!({}),
        json!({"lost": "target", "x": 1}),
    ] {
        plane
            .post(&plane.administrator, &give_up, wrong)
            .await
            .problem(422, "unfit-body");
    }
}

#[tokio::test]
async fn a_cold_move_is_made_where_it_is_asked_for_and_no_downtime_is_promised() {
    let People { plane, ann, .. } = people().await;
    let body = |most: Option<u64>| {
        let mut body = json!({"container": "web", "to": {"edge": "south"}, "strategy": "cold"});
        if let Some(most) = most {
            body["max_downtime_ms"] = json!(most);
        }
        body
    };
    let refused = plane.post(&ann, "/v1/migrations", body(Some(60_000))).await;
    let fault = refused.json(422)["faults"][0].clone();
    assert_eq!(fault["place"], "max_downtime_ms");
    let told = fault["problem"].as_str().unwrap();
    assert!(told.contains("cannot be promised of a cold move"), "{told}");
    let moved: Migration = plane
        .post(&ann, "/v1/migrations?wait=10", body(None))
        .await
        .read(200);
    assert_eq!(moved.state, MigrationState::Completed);
    let chosen = moved.strategy.unwrap();
    assert_eq!(chosen.strategy, Strategy::Cold);
    assert!(
        chosen.reason.contains("its connections are lost"),
        "{}",
        chosen.reason
    );
    assert_eq!(moved.expected_downtime_ms, None);
}
