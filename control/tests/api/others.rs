//! What is another's answers as if it did not exist.

use carnet_api::v1::{Container, Edge, Migration, NewApiToken, NewShareKey, Role, ShareKey};
use carnet_control::http::access::ROUTES;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::http::Answer;
use crate::plane::{ATTRIBUTES, Plane, REQUIREMENTS, Someone};

/// Edges, a container that moves, and all that belongs to it, of people who have no part in this.
struct Others {
    north: Edge,
    south: Edge,
    container: Container,
    migration: Migration,
    key: NewShareKey,
    token: NewApiToken,
}

async fn others(plane: &Plane) -> Others {
    let lender = plane.edge_owner("lender").await;
    let mover = plane.container_owner("mover").await;
    let north = plane.edge(&lender, "north").await;
    let row = ATTRIBUTES.replacen('B', "far", 1);
    let south = plane.edge_as(&lender, "south", &row).await;
    plane.share(&lender, "north", &mover).await;
    plane.share(&lender, "south", &mover).await;
    let container = plane.container(&mover, &lender, "north", "web").await;
    plane.agents.moves.close();
    let migration = plane.start_move(&mover, "web", "south").await;
    let third = plane.container_owner("third").await;
    let key = plane.give_key(&lender, "north", &third).await;
    let token = plane
        .post(&mover, "/v1/tokens", json!({"label": "x"}))
        .await;
    Others {
        north,
        south,
        container,
        migration,
        key,
        token: token.read(201),
    }
}

/// Somebody with both owners' roles, and things of their own.
async fn stranger(plane: &Plane) -> Someone {
    let roles = [Role::EdgeOwner, Role::ContainerOwner];
    let stranger = plane.account("stranger", &roles).await;
    plane.edge(&stranger, "mine").await;
    plane.share(&stranger, "mine", &stranger).await;
    plane.container(&stranger, &stranger, "mine", "job").await;
    stranger
}

/// A body with which the request would succeed on a thing of one's own.
fn body(route: &str) -> Value {
    match route {
        "/v1/edges/{edge}/attributes" => json!({"attributes": ATTRIBUTES}),
        "/v1/edges/{edge}/share-keys" => json!({"grantee": "stranger"}),
        "/v1/containers/{container}/allow-post-copy" => json!({"allow_post_copy": true}),
        "/v1/containers/{container}/requirements" => json!({"requirements": REQUIREMENTS}),
        _ => json!({}),
    }
}

/// What is answered, without the name that was asked for and without what differs each time.
fn told(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let kept = |name: &str| !["date", "content-length"].contains(&name);
    let headers = answer.headers.iter();
    let headers = headers
        .filter(|(name, _)| kept(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let body = answer.text().replace(name, "NAME");
    (answer.status.as_u16(), headers.collect(), body)
}

#[tokio::test]
async fn on_every_route_what_is_anothers_answers_as_what_is_not_there() {
    let plane = Plane::start().await;
    let others = others(&plane).await;
    let stranger = stranger(&plane).await;
    let mut compared = 0;
    for (method, route, _) in ROUTES.iter().filter(|(_, route, _)| route.contains('{')) {
        let (parameter, theirs) = match *route {
            route if route.contains("{edge}") => {
                let edge = &others.north;
                ("{edge}", vec![edge.name.clone(), edge.id.to_string()])
            }
            route if route.contains("{container}") => {
                let container = &others.container;
                (
                    "{container}",
                    vec![container.name.clone(), container.id.to_string()],
                )
            }
            // An operator's, for everyone's.
            "/v1/migrations/{migration}/give-up" => continue,
            route if route.contains("{migration}") => {
                ("{migration}", vec![others.migration.id.to_string()])
            }
            route if route.contains("{key}") => {
                ("{key}", vec![others.key.share_key.id.to_string()])
            }
            route if route.contains("{token}") => {
                ("{token}", vec![others.token.token.id.to_string()])
            }
            // Accounts are the administrator's, the ledger the auditors', all of it.
            "/v1/accounts/{account}/tokens"
            | "/v1/accounts/{account}/password"
            | "/ledger/{*path}"
            | "/v1/ledger/entries/{number}" => {
                continue;
            }
            unknown => panic!("whose is {unknown}?"),
        };
        for theirs in theirs {
            let id = Uuid::parse_str(&theirs).is_ok();
            let nobodys = if id {
                Uuid::now_v7().to_string()
            } else {
                "zz".to_owned()
            };
            let ask = |named: &str| {
                let path = route.replace(parameter, named).replace("{number}", "1");
                let ask = plane.ask(method.clone(), &path);
                let ask = if [Method::POST, Method::PUT].contains(method) {
                    ask.json(body(route))
                } else {
                    ask
                };
                ask.by(&stranger).send()
            };
            let (theirs_answer, nobodys_answer) = (ask(&theirs).await, ask(&nobodys).await);
            theirs_answer.problem(404, "not-found");
            let theirs_told = told(&theirs_answer, &theirs);
            assert_eq!(
                theirs_told,
                told(&nobodys_answer, &nobodys),
                "{method} {route}"
            );
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
    // And nothing of theirs has changed.
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    let container = plane
        .show_container(&auditor, &others.container.id.to_string())
        .await;
    assert_eq!(container.requirements_revision, 1);
    assert_eq!(
        plane.show_edge(&auditor, "north").await.attributes_revision,
        1
    );
    let keys: Vec<ShareKey> = plane
        .get(&auditor, "/v1/edges/north/share-keys")
        .await
        .read(200);
    assert!(keys.iter().all(|key| key.revoked_at_ms.is_none()));
    plane
        .get(&others.token.secret, "/v1/whoami")
        .await
        .json(200);
}

#[tokio::test]
async fn in_every_body_what_is_anothers_is_answered_as_what_is_not_there() {
    let plane = Plane::start().await;
    let others = others(&plane).await;
    let stranger = stranger(&plane).await;
    let (container, id) = (&others.container.name, others.container.id.to_string());
    let (south, south_id) = (&others.south.name, others.south.id.to_string());
    let nobody = Uuid::now_v7().to_string();
    let register = |edge: &str| json!({"name": "x", "edge": edge, "requirements": {}});
    let to_edge = |edge: &str| json!({"container": "job", "to": {"edge": edge}});
    let to_region = |region: &str| json!({"container": "job", "to": {"region": region}});
    let of = |container: &str| json!({"container": container, "to": {"edge": "mine"}});
    let key = |key: &str| json!({"key": key});
    let mut pairs = vec![
        (
            "/v1/containers",
            register(south),
            register("zz"),
            south.as_str(),
            "zz",
        ),
        (
            "/v1/containers",
            register(&south_id),
            register(&nobody),
            &south_id,
            &nobody,
        ),
        (
            "/v1/share-keys/redeem",
            key(&others.key.key),
            key("00"),
            "-",
            "-",
        ),
    ];
    for route in ["/v1/audits", "/v1/migrations"] {
        pairs.push((route, to_edge(south), to_edge("zz"), south, "zz"));
        pairs.push((
            route,
            to_edge(&south_id),
            to_edge(&nobody),
            &south_id,
            &nobody,
        ));
        pairs.push((route, to_region("far"), to_region("zz"), "far", "zz"));
        pairs.push((route, of(container), of("zz"), container, "zz"));
        pairs.push((route, of(&id), of(&nobody), &id, &nobody));
    }
    for (route, theirs, nobodys, their_name, no_name) in pairs {
        let theirs = plane.post(&stranger, route, theirs).await;
        let nobodys = plane.post(&stranger, route, nobodys).await;
        assert!(theirs.status.is_client_error(), "{theirs:?}");
        assert_eq!(
            told(&theirs, their_name),
            told(&nobodys, no_name),
            "{route}"
        );
    }
    // Nothing that is another's is suggested, however near it is.
    let near = plane.post(&stranger, "/v1/audits", to_edge("southh")).await;
    let fault = near.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(fault.suggestion, None);
    let near = plane.post(&stranger, "/v1/audits", to_region("farr")).await;
    let fault = near.problem(422, "faulty-input").faults.remove(0);
    assert_eq!(fault.suggestion, None);
}

#[tokio::test]
async fn no_list_shows_what_is_anothers() {
    let plane = Plane::start().await;
    let others = others(&plane).await;
    let stranger = stranger(&plane).await;
    let edges: Vec<Edge> = plane.get(&stranger, "/v1/edges").await.read(200);
    let names: Vec<&str> = edges.iter().map(|edge| edge.name.as_str()).collect();
    assert_eq!(names, ["mine"]);
    let containers: Vec<Container> = plane.get(&stranger, "/v1/containers").await.read(200);
    let names: Vec<&str> = containers.iter().map(|each| each.name.as_str()).collect();
    assert_eq!(names, ["job"]);
    let keys: Vec<ShareKey> = plane.get(&stranger, "/v1/share-keys").await.read(200);
    let of: Vec<&str> = keys.iter().map(|key| key.edge_name.as_str()).collect();
    assert_eq!(of, ["mine"]);
    let id = others.container.id;
    for query in ["", "?container=web", &format!("?container={id}")] {
        let path = format!("/v1/migrations{query}");
        let listed: Vec<Migration> = plane.get(&stranger, &path).await.read(200);
        assert_eq!(listed, []);
    }
    let tokens: Value = plane.get(&stranger, "/v1/tokens").await.json(200);
    assert!(
        !tokens
            .to_string()
            .contains(&others.token.token.id.to_string())
    );
}
