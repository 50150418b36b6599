//! Containers: registering, showing whose they are, and forgetting.

use carnet_api::v1::{Claim, Container, ContainerRegistration, ContainerState, Role};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::plane::{Plane, REQUIREMENTS, Someone};

struct People {
    plane: Plane,
    owner: Someone,
    ann: Someone,
    bob: Someone,
}

/// An edge `north`, its owner, and two who use it.
async fn people() -> People {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    plane.edge(&owner, "north").await;
    let ann = plane.container_owner("ann").await;
    let bob = plane.container_owner("bob").await;
    plane.share(&owner, "north", &ann).await;
    plane.share(&owner, "north", &bob).await;
    People {
        plane,
        owner,
        ann,
        bob,
    }
}

async fn register(plane: &Plane, who: &Someone, name: &str) -> Answer {
    let body = json!({"name": name, "edge": "north", "requirements": REQUIREMENTS});
    plane.post(who, "/v1/containers", body).await
}

async fn act(plane: &Plane, who: &Someone, container: &Container, action: &str) -> Answer {
    let path = format!("/v1/containers/{}/{action}", container.id);
    plane.post(who, &path, json!({})).await
}

async fn claim(plane: &Plane, who: &Someone, container: &Container) -> Claim {
    act(plane, who, container, "claims").await.read(201)
}

async fn is_confirmed(plane: &Plane, who: &Someone, container: &Container) -> bool {
    let shown = plane.show_container(who, &container.id.to_string()).await;
    shown.registration == ContainerRegistration::Confirmed
}

#[tokio::test]
async fn a_container_is_registered_by_long_names_or_by_a_compact_row() {
    let People {
        plane, ann, bob, ..
    } = people().await;
    let web: Container = register(&plane, &ann, "web").await.read(201);
    let long = json!({
        "allowed_locations": ["DE"], "virtualization": "lxc", "max_cpu_percent": 60,
        "max_memory_percent": "50", "min_cpu_ghz": 1.6, "min_memory_gb": 4,
    });
    let body = json!({"name": "job", "edge": web.edge, "requirements": long});
    let job: Container = plane.post(&ann, "/v1/containers", body).await.read(201);
    assert_eq!(web.requirements, job.requirements);
    assert_eq!(web.registration, ContainerRegistration::Pending);
    assert_eq!((web.requirements_revision, web.generation), (1, 1));
    assert_eq!((web.owner, web.edge_name.as_str()), (ann.id, "north"));
    assert_eq!(web.state, ContainerState::Unknown);
    assert_eq!(web.migration, None);

    let detail = register(&plane, &ann, "web").await.detail(409, "conflict");
    assert_eq!(detail, "you have a container `web` already");
    // Another's of that name is another's business while both are pending.
    register(&plane, &bob, "web").await.json(201);
    let listed: Vec<Container> = plane.get(&ann, "/v1/containers").await.read(200);
    assert_eq!(listed, [job, web]);
}

#[tokio::test]
async fn every_fault_of_a_container_is_told_at_once_with_its_place() {
    let People { plane, ann, .. } = people().await;
    let requirements = json!({"allowed_locations": ["japan", "-jp"], "cDAo": [], "min_cpu_ghz": 0});
    let body = json!({"name": "no/name", "edge": "nowhere", "requirements": requirements});
    let refused = plane.post(&ann, "/v1/containers", body).await;
    let faults = refused.problem(422, "faulty-input").faults;
    let mut told: Vec<(&str, Option<&str>)> = faults
        .iter()
        .map(|fault| (fault.place.as_str(), fault.suggestion.as_deref()))
        .collect();
    told.sort();
    let expected = [
        ("allowed_locations", Some("jp")),
        ("cDAo", Some("allowed_organizations")),
        ("min_cpu_ghz", None),
        ("name", None),
    ];
    assert_eq!(told, expected);

    let row = json!({"name": "web", "edge": "north", "requirements": "de * *"});
    let refused = plane.post(&ann, "/v1/containers", row).await;
    let fault = refused.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(fault.problem, "3 fields instead of 11");
    let body = json!({"name": "web", "edge": "nowhere", "requirements": REQUIREMENTS});
    let refused = plane.post(&ann, "/v1/containers", body).await;
    let detail = refused.detail(404, "not-found");
    assert!(detail.contains("edge `nowhere`"), "{detail}");
}

#[tokio::test]
async fn who_sees_every_edge_uses_none_without_a_key() {
    let People { plane, owner, .. } = people().await;
    for role in [Role::Auditor, Role::Administrator] {
        let reader = format!("reader-{role:?}");
        let reader = plane.account(&reader, &[Role::ContainerOwner, role]).await;
        plane.show_edge(&reader, "north").await;
        let detail = register(&plane, &reader, "web").await;
        let detail = detail.detail(403, "forbidden");
        assert!(detail.contains("no share key"), "{detail}");
        plane.share(&owner, "north", &reader).await;
        register(&plane, &reader, "web").await.json(201);
    }
}

#[tokio::test]
async fn a_container_is_whose_code_is_read_from_inside_it() {
    let People { plane, ann, .. } = people().await;
    let web: Container = register(&plane, &ann, "web").await.read(201);

    // None has been given out, and there is none inside.
    let none = act(&plane, &ann, &web, "confirm-claim").await;
    let detail = none.detail(409, "conflict");
    assert!(detail.contains("/run/carnet-claim"), "{detail}");

    let given = claim(&plane, &ann, &web).await;
    assert_eq!(given.path, "/run/carnet-claim");
    let wrong = given
        .code
        .replace(|digit: char| digit.is_ascii_digit(), "0");
    for placed in ["", "carnet-claim-", &wrong, &given.code.to_uppercase()] {
        plane.agents.place(web.edge, "web", placed);
        let refused = act(&plane, &ann, &web, "confirm-claim").await;
        let detail = refused.detail(409, "conflict");
        assert!(detail.contains("does not hold the claim code"), "{detail}");
    }
    // The right one, inside another.
    plane.agents.place(web.edge, "job", &given.code);
    act(&plane, &ann, &web, "confirm-claim")
        .await
        .problem(409, "conflict");
    assert!(!is_confirmed(&plane, &ann, &web).await);

    plane.agents.place(web.edge, "web", &given.code);
    let confirmed: Container = act(&plane, &ann, &web, "confirm-claim").await.read(200);
    assert_eq!(confirmed.registration, ContainerRegistration::Confirmed);
    // Once more it is as it is, whatever is inside; and there is no more to claim.
    plane.agents.place(web.edge, "web", "x");
    act(&plane, &ann, &web, "confirm-claim").await.json(200);
    let detail = act(&plane, &ann, &web, "claims")
        .await
        .detail(409, "conflict");
    assert!(detail.ends_with("is confirmed already"), "{detail}");
}

#[tokio::test]
async fn a_claim_code_ends_when_its_time_is_over_or_another_is_given_out() {
    let People { plane, ann, .. } = people().await;
    let web: Container = register(&plane, &ann, "web").await.read(201);
    let older = claim(&plane, &ann, &web).await;
    let newer = claim(&plane, &ann, &web).await;
    plane.agents.place(web.edge, "web", &older.code);
    act(&plane, &ann, &web, "confirm-claim")
        .await
        .problem(409, "conflict");
    plane.agents.place(web.edge, "web", &newer.code);
    plane
        .change("UPDATE containers SET claim_expires_at = claim_expires_at - 15 * 60 * 1000")
        .await;
    let expired = act(&plane, &ann, &web, "confirm-claim").await;
    let detail = expired.detail(409, "conflict");
    assert!(detail.contains("expired; ask for another"), "{detail}");
    assert!(!is_confirmed(&plane, &ann, &web).await);
}

#[tokio::test]
async fn a_code_that_was_given_to_another_container_confirms_nothing() {
    let People {
        plane, ann, bob, ..
    } = people().await;
    let of_ann: Container = register(&plane, &ann, "web").await.read(201);
    let of_bob: Container = register(&plane, &bob, "web").await.read(201);
    claim(&plane, &bob, &of_bob).await;
    let code = claim(&plane, &ann, &of_ann).await.code;
    plane.agents.place(of_ann.edge, "web", &code);
    act(&plane, &bob, &of_bob, "confirm-claim")
        .await
        .problem(409, "conflict");
    act(&plane, &ann, &of_ann, "confirm-claim").await.json(200);
}

#[tokio::test]
async fn an_edge_that_cannot_read_the_code_is_named() {
    let People { plane, ann, .. } = people().await;
    let web: Container = register(&plane, &ann, "web").await.read(201);
    plane.agents.change(web.edge, |edge| edge.reachable = false);
    let failed = act(&plane, &ann, &web, "confirm-claim").await;
    let detail = failed.detail(502, "edge-failed");
    assert!(
        detail.contains("`north`") && detail.contains("connection refused"),
        "{detail}"
    );
}

#[tokio::test]
async fn the_edges_owner_confirms_in_the_owners_place() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let web: Container = register(&plane, &ann, "web").await.read(201);
    // Nobody else does.
    act(&plane, &ann, &web, "confirm")
        .await
        .problem(403, "forbidden");
    let other = plane.edge_owner("other").await;
    act(&plane, &other, &web, "confirm")
        .await
        .problem(404, "not-found");
    let listed: Vec<Container> = plane.get(&owner, "/v1/containers").await.read(200);
    assert_eq!(listed, std::slice::from_ref(&web));
    let confirmed: Container = act(&plane, &owner, &web, "confirm").await.read(200);
    assert_eq!(confirmed.registration, ContainerRegistration::Confirmed);
    act(&plane, &owner, &web, "confirm").await.json(200);
    // The edge's owner sees it and does nothing else to it.
    let path = format!("/v1/containers/{}", web.id);
    plane.get(&owner, &path).await.json(200);
    plane.delete(&owner, &path).await.problem(403, "forbidden");
    plane.get(&other, &path).await.problem(404, "not-found");
}

#[tokio::test]
async fn of_several_of_one_name_the_edges_owner_names_one_by_its_id() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    register(&plane, &ann, "web").await.json(201);
    register(&plane, &bob, "web").await.json(201);
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let unclear = [
        plane
            .post(&owner, "/v1/containers/web/confirm", json!({}))
            .await,
        plane.get(&owner, "/v1/containers/web").await,
        plane.get(&auditor, "/v1/containers/web").await,
    ];
    for answer in unclear {
        let detail = answer.detail(409, "conflict");
        assert!(detail.contains("name one by its id"), "{detail}");
    }
    // Each owner has but one.
    assert_eq!(plane.show_container(&ann, "web").await.owner, ann.id);
    assert_eq!(plane.show_container(&bob, "web").await.owner, bob.id);
}

#[tokio::test]
async fn what_is_confirmed_is_nobody_elses_to_register_or_to_claim() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    let of_ann: Container = register(&plane, &ann, "web").await.read(201);
    let of_bob: Container = register(&plane, &bob, "web").await.read(201);
    act(&plane, &owner, &of_ann, "confirm").await.json(200);
    // Who was too late, by either way.
    let code = claim(&plane, &bob, &of_bob).await.code;
    plane.agents.place(of_bob.edge, "web", &code);
    let late = act(&plane, &bob, &of_bob, "confirm-claim").await;
    let detail = late.detail(409, "conflict");
    assert!(detail.contains("confirmed first"), "{detail}");
    act(&plane, &owner, &of_bob, "confirm")
        .await
        .problem(409, "conflict");
    assert!(!is_confirmed(&plane, &bob, &of_bob).await);
    // Who comes afterwards.
    let carl = plane.container_owner("carl").await;
    plane.share(&owner, "north", &carl).await;
    let detail = register(&plane, &carl, "web").await.detail(409, "conflict");
    assert!(detail.contains("another owner's"), "{detail}");
    // On another edge the name is free.
    plane.edge(&owner, "south").await;
    plane.share(&owner, "south", &carl).await;
    plane.container(&carl, &owner, "south", "web").await;
    // And here once it is forgotten.
    plane.delete(&ann, "/v1/containers/web").await.json(200);
    act(&plane, &bob, &of_bob, "confirm-claim").await.json(200);
}

#[tokio::test]
async fn of_two_who_are_confirmed_at_the_same_time_one_has_it() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    // A code has been read, and before that is kept the edge's owner confirms another's.
    let of_ann: Container = register(&plane, &ann, "web").await.read(201);
    let of_bob: Container = register(&plane, &bob, "web").await.read(201);
    let code = claim(&plane, &ann, &of_ann).await.code;
    plane.agents.place(of_ann.edge, "web", &code);
    plane.agents.claims.close();
    let claiming = act(&plane, &ann, &of_ann, "confirm-claim");
    let confirming = async {
        plane.agents.claims.until_waiting(1).await;
        let confirmed = act(&plane, &owner, &of_bob, "confirm").await;
        plane.agents.claims.open();
        confirmed
    };
    let (claimed, confirmed) = tokio::join!(claiming, confirming);
    confirmed.json(200);
    claimed.problem(409, "conflict");
    assert!(!is_confirmed(&plane, &ann, &of_ann).await);

    // Several at once.
    let mut pending = Vec::new();
    for number in 0..4 {
        let someone = plane.container_owner(&format!("someone-{number}")).await;
        plane.share(&owner, "north", &someone).await;
        pending.push(
            register(&plane, &someone, "job")
                .await
                .read::<Container>(201),
        );
    }
    let confirm = |container| act(&plane, &owner, container, "confirm");
    let [a, b, c, d] = &pending[..] else {
        unreachable!()
    };
    let answers = tokio::join!(confirm(a), confirm(b), confirm(c), confirm(d));
    let answers = [answers.0, answers.1, answers.2, answers.3];
    let mut statuses = answers.map(|answer| answer.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409, 409]);
}

#[tokio::test]
async fn requirements_are_replaced_and_their_revision_raised() {
    let People { plane, ann, .. } = people().await;
    register(&plane, &ann, "web").await.json(201);
    let path = "/v1/containers/web/requirements";
    let fr = json!({"allowed_locations": ["fr"]});
    for (revision, requirements) in [(2, fr.clone()), (3, json!(REQUIREMENTS)), (4, fr.clone())] {
        let body = json!({"requirements": requirements});
        let required: Container = plane.put(&ann, path, body).await.read(200);
        assert_eq!(required.requirements_revision, revision);
        assert_eq!(required, plane.show_container(&ann, "web").await);
    }
    let body = json!({"requirements": {"allowed_locations": ["france"]}});
    let refused = plane.put(&ann, path, body).await;
    let fault = refused.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(fault.suggestion.as_deref(), Some("fr"));
    let shown = plane.show_container(&ann, "web").await;
    assert_eq!((shown.requirements_revision, shown.requirements), (4, fr));
}

#[tokio::test]
async fn what_is_forgotten_is_not_there_any_more() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let web = plane.container(&ann, &owner, "north", "web").await;
    assert_eq!(
        plane.delete(&ann, "/v1/containers/web").await.json(200),
        json!({})
    );
    for path in [
        "/v1/containers/web".to_owned(),
        format!("/v1/containers/{}", web.id),
    ] {
        plane.get(&ann, &path).await.problem(404, "not-found");
        plane.delete(&ann, &path).await.problem(404, "not-found");
    }
    let again = plane.pending(&ann, "north", "web").await;
    assert_eq!(again.registration, ContainerRegistration::Pending);
    assert_ne!(again.id, web.id);
}

#[tokio::test]
async fn what_is_being_moved_is_not_forgotten() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    plane.edge(&owner, "south").await;
    plane.share(&owner, "south", &ann).await;
    plane.container(&ann, &owner, "north", "web").await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    let shown = plane.show_container(&ann, "web").await;
    assert_eq!(shown.migration, Some(migration.id));
    let refused = plane.delete(&ann, "/v1/containers/web").await;
    let detail = refused.detail(409, "conflict");
    assert!(detail.contains("being moved"), "{detail}");
    plane.agents.moves.open();
    plane.end_of(&ann, &migration).await;
    let moved = plane.show_container(&ann, "web").await;
    assert_eq!(
        (moved.edge_name.as_str(), moved.generation, moved.migration),
        ("south", 2, None)
    );
    plane.delete(&ann, "/v1/containers/web").await.json(200);
}

#[tokio::test]
async fn a_container_shows_what_the_monitor_saw_last() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    let web = plane.container(&ann, &owner, "north", "web").await;
    plane.pending(&ann, "north", "job").await;
    let state = async |name: &str| plane.show_container(&ann, name).await.state;
    plane.agents.run(web.edge, "web", ContainerState::Frozen);
    plane.look().await;
    assert_eq!(state("web").await, ContainerState::Frozen);
    assert_eq!(state("job").await, ContainerState::Missing);
    let seen: Value = plane.get(&ann, "/v1/containers/web").await.json(200);
    plane.look().await;
    let again: Value = plane.get(&ann, "/v1/containers/web").await.json(200);
    assert_eq!(seen, again, "since when changes with the state alone");
    plane.agents.change(web.edge, |edge| edge.reachable = false);
    plane.look().await;
    assert_eq!(state("web").await, ContainerState::Unknown);
}

/// Said again, nothing is entered into the ledger again; and without it nobody can ask for it.
#[tokio::test]
async fn memory_follows_only_once_its_owner_says_so() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let ann = plane.container_owner("ann").await;
    for edge in ["north", "south"] {
        plane.edge(&owner, edge).await;
        plane.share(&owner, edge, &ann).await;
    }
    plane.container(&ann, &owner, "north", "web").await;
    let body = json!({"container": "web", "to": {"edge": "south"}, "strategy": "post_copy"});
    let refused = plane.post(&ann, "/v1/migrations", body.clone()).await;
    let problem = refused.json(409);
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("carnet container allow-post-copy web"),
        "{detail}"
    );
    for allow in [true, true, false] {
        let path = "/v1/containers/web/allow-post-copy";
        let answer = plane
            .put(&ann, path, json!({"allow_post_copy": allow}))
            .await;
        assert_eq!(answer.json(200)["allow_post_copy"], allow);
    }
    let auditor = plane.account("audrey", &[Role::Auditor]).await;
    let entries = plane.get(&auditor, "/v1/ledger/entries?kind=allowed").await;
    let said: Vec<bool> = entries
        .json(200)
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["entry"]["allow_post_copy"].as_bool().unwrap())
        .collect();
    assert_eq!(said, [true, false]);
    let other = plane.container_owner("bob").await;
    let path = "/v1/containers/web/allow-post-copy";
    let answer = plane
        .put(&other, path, json!({"allow_post_copy": true}))
        .await;
    answer.json(404);
    let wrong = json!({"container": "web", "to": {"edge": "south"}, "strategy": "teleport"});
    plane.post(&ann, "/v1/migrations", wrong).await.json(422);
}
