//! Share keys: the use of an edge, given and taken back.

use carnet_api::v1::{AuditReport, Edge, MigrationState, NewShareKey, Role, ShareKey};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::plane::{Plane, REQUIREMENTS, Someone};

async fn redeem(plane: &Plane, who: &Someone, key: &str) -> Answer {
    let path = "/v1/share-keys/redeem";
    plane.post(who, path, json!({"key": key})).await
}

async fn revoke(plane: &Plane, owner: &Someone, key: &ShareKey) -> ShareKey {
    let path = format!("/v1/share-keys/{}", key.id);
    plane.delete(owner, &path).await.read(200)
}

async fn keys(plane: &Plane, who: &Someone) -> Vec<ShareKey> {
    plane.get(who, "/v1/share-keys").await.read(200)
}

async fn edges(plane: &Plane, who: &Someone) -> Vec<String> {
    let edges: Vec<Edge> = plane.get(who, "/v1/edges").await.read(200);
    edges.into_iter().map(|edge| edge.name).collect()
}

struct People {
    plane: Plane,
    owner: Someone,
    ann: Someone,
    bob: Someone,
}

/// An edge `north`, its owner, and two who want to use it.
async fn people() -> People {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    plane.edge(&owner, "north").await;
    People {
        owner,
        ann: plane.container_owner("ann").await,
        bob: plane.container_owner("bob").await,
        plane,
    }
}

#[tokio::test]
async fn a_key_is_of_one_grantee_and_shown_once() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    let of_ann = plane.give_key(&owner, "north", &ann).await;
    let of_bob = plane.give_key(&owner, "north", &bob).await;
    assert_ne!(of_ann.key, of_bob.key);
    for given in [&of_ann, &of_bob] {
        assert_eq!(given.key.len(), 40);
        assert!(given.key.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
    assert_eq!(of_ann.share_key.grantee, "ann");
    assert_eq!(of_ann.share_key.redeemed_at_ms, None);

    let body = json!({"grantee": "ann"});
    let second = plane.post(&owner, "/v1/edges/north/share-keys", body).await;
    let detail = second.detail(409, "conflict");
    assert!(
        detail.contains("`ann`") && detail.contains("`north`"),
        "{detail}"
    );

    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    for who in [&owner, &auditor] {
        for path in ["/v1/share-keys", "/v1/edges/north/share-keys"] {
            let listed = plane.get(who, path).await;
            assert_eq!(listed.read::<Vec<ShareKey>>(200).len(), 2);
            assert!(!listed.text().contains(&of_ann.key));
        }
    }
}

#[tokio::test]
async fn a_key_is_given_to_a_container_owner() {
    let People { plane, owner, .. } = people().await;
    for name in ["owner", "administrator", "nobody", ""] {
        let body = json!({"grantee": name});
        let refused = plane.post(&owner, "/v1/edges/north/share-keys", body).await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        let told = (
            fault.place.as_str(),
            fault.found.as_str(),
            fault.problem.as_str(),
        );
        assert_eq!(told, ("grantee", name, "no container owner has this name"));
    }
}

#[tokio::test]
async fn only_its_grantee_enters_a_key_and_sees_the_edge_from_then_on() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    let given = plane.give_key(&owner, "north", &ann).await;
    // Held and not entered: nothing yet.
    assert_eq!(keys(&plane, &ann).await, []);
    assert_eq!(edges(&plane, &ann).await, Vec::<String>::new());
    plane
        .get(&ann, "/v1/edges/north")
        .await
        .problem(404, "not-found");

    let stolen = redeem(&plane, &bob, &given.key).await;
    let detail = stolen.detail(404, "not-found");
    assert!(!detail.contains(&given.key));
    assert_eq!(edges(&plane, &bob).await, Vec::<String>::new());
    for wrong in [
        "",
        "0",
        &given.key[1..],
        &format!("{}0", given.key),
        &given.share_key.id.to_string(),
    ] {
        redeem(&plane, &ann, wrong).await.problem(404, "not-found");
    }

    // As it is pasted.
    let entered = redeem(&plane, &ann, &format!(" {}\n", given.key)).await;
    let entered: ShareKey = entered.read(200);
    assert!(entered.redeemed_at_ms.is_some());
    assert_eq!(edges(&plane, &ann).await, ["north"]);
    assert_eq!(keys(&plane, &ann).await, std::slice::from_ref(&entered));
    let again: ShareKey = redeem(&plane, &ann, &given.key).await.read(200);
    assert_eq!(again, entered, "entered again it stays as it is");
    assert_eq!(edges(&plane, &bob).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_container_owner_never_learns_who_else_holds_a_key() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    plane.share(&owner, "north", &ann).await;
    plane.share(&owner, "north", &bob).await;
    let web = plane.container(&bob, &owner, "north", "web").await;
    plane.container(&ann, &owner, "north", "job").await;

    let refused = plane.get(&ann, "/v1/edges/north/share-keys").await;
    refused.problem(403, "forbidden");
    let paths = [
        "/v1/share-keys",
        "/v1/edges",
        "/v1/edges/north",
        "/v1/containers",
        "/v1/migrations",
    ];
    for path in paths {
        let seen = plane.get(&ann, path).await;
        assert_eq!(seen.status, 200);
        let (theirs, web, owners) = (bob.id.to_string(), web.id.to_string(), owner.id.to_string());
        for hidden in ["bob", &theirs, "\"web\"", &web, &owners] {
            assert!(!seen.text().contains(hidden), "{path}: {}", seen.text());
        }
    }
    let whose: Vec<String> = keys(&plane, &ann)
        .await
        .into_iter()
        .map(|key| key.grantee)
        .collect();
    assert_eq!(whose, ["ann"]);
    let mut whose: Vec<String> = keys(&plane, &owner)
        .await
        .into_iter()
        .map(|key| key.grantee)
        .collect();
    whose.sort();
    assert_eq!(whose, ["ann", "bob"]);
}

#[tokio::test]
async fn a_key_that_is_taken_back_ends_sight_and_use_at_once() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    plane.edge(&owner, "south").await;
    plane.share(&owner, "north", &ann).await;
    let of_south = plane.give_key(&owner, "south", &ann).await;
    redeem(&plane, &ann, &of_south.key).await.json(200);
    plane.share(&owner, "south", &bob).await;
    plane.container(&ann, &owner, "north", "web").await;
    let pending = plane.pending(&ann, "south", "job").await;
    let audit = || {
        plane.post(
            &ann,
            "/v1/audits",
            json!({"container": "web", "to": {"anywhere": true}}),
        )
    };
    assert_eq!(
        audit().await.read::<AuditReport>(200).attempts[0].edge_name,
        "south"
    );

    let revoked = revoke(&plane, &owner, &of_south.share_key).await;
    assert!(revoked.revoked_at_ms.is_some());
    assert_eq!(edges(&plane, &ann).await, ["north"]);
    plane
        .get(&ann, "/v1/edges/south")
        .await
        .problem(404, "not-found");
    audit().await.problem(409, "conflict");
    let to_south = json!({"container": "web", "to": {"edge": "south"}});
    for route in ["/v1/audits", "/v1/migrations"] {
        let refused = plane.post(&ann, route, to_south.clone()).await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!((fault.place.as_str(), fault.suggestion), ("to.edge", None));
    }
    let register = json!({"name": "new", "edge": "south", "requirements": REQUIREMENTS});
    let refused = plane.post(&ann, "/v1/containers", register).await;
    refused.problem(404, "not-found");
    let path = format!("/v1/containers/{}/confirm-claim", pending.id);
    let refused = plane.post(&ann, &path, json!({})).await;
    refused.problem(404, "not-found");
    redeem(&plane, &ann, &of_south.key)
        .await
        .problem(404, "not-found");
    // Taken back again it stays as it is; others' stay good.
    assert_eq!(revoke(&plane, &owner, &of_south.share_key).await, revoked);
    assert_eq!(edges(&plane, &bob).await, ["south"]);
    // Another can be given, and is another.
    let given: NewShareKey = plane.give_key(&owner, "south", &ann).await;
    assert_ne!(given.key, of_south.key);
    redeem(&plane, &ann, &of_south.key)
        .await
        .problem(404, "not-found");
    redeem(&plane, &ann, &given.key).await.json(200);
    assert_eq!(edges(&plane, &ann).await, ["north", "south"]);
}

#[tokio::test]
async fn a_key_that_is_taken_back_stops_the_move_that_it_allowed() {
    let People {
        plane, owner, ann, ..
    } = people().await;
    plane.edge(&owner, "south").await;
    plane.share(&owner, "north", &ann).await;
    let of_south = plane.share(&owner, "south", &ann).await;
    let web = plane.container(&ann, &owner, "north", "web").await;
    plane.agents.moves.close();
    let migration = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    revoke(&plane, &owner, &of_south).await;
    plane.agents.moves.open();
    let ended = plane.end_of(&ann, &migration).await;
    assert_eq!(ended.state, MigrationState::Failed);
    let failure = ended.failure.unwrap();
    assert!(
        failure.contains("share key") && failure.contains("revoked"),
        "{failure}"
    );
    let after = plane.show_container(&ann, "web").await;
    assert_eq!((after.edge, after.generation), (web.edge, web.generation));
}

#[tokio::test]
async fn an_edge_owner_sees_the_keys_of_that_edge_alone_at_that_edge() {
    let People {
        plane,
        owner,
        ann,
        bob,
    } = people().await;
    plane.edge(&owner, "south").await;
    plane.share(&owner, "north", &ann).await;
    plane.give_key(&owner, "south", &bob).await;
    let of = async |edge: &str| -> Vec<Value> {
        let path = format!("/v1/edges/{edge}/share-keys");
        plane.get(&owner, &path).await.read(200)
    };
    let (north, south) = (of("north").await, of("south").await);
    assert_eq!((north.len(), south.len()), (1, 1));
    assert_eq!(
        (&north[0]["grantee"], &north[0]["edge_name"]),
        (&json!("ann"), &json!("north"))
    );
    assert_eq!(
        (&south[0]["grantee"], &south[0]["edge_name"]),
        (&json!("bob"), &json!("south"))
    );
    assert_eq!(south[0].get("redeemed_at_ms"), None);
}
