//! Creation that is done once, however often it is asked for.

use carnet_api::v1::{ApiToken, Claim, Container, Edge, Migration, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::agents::PATIENCE;
use crate::http::Answer;
use crate::plane::{ATTRIBUTES, Plane, REQUIREMENTS, Someone};

async fn once(plane: &Plane, who: &Someone, path: &str, key: &str, body: Value) -> Answer {
    let ask = plane.ask(Method::POST, path).by(who).json(body);
    ask.once(key).send().await
}

fn is_replayed(answer: &Answer) -> bool {
    let header = answer.headers.get("idempotency-replayed");
    header.is_some_and(|value| value == "true")
}

async fn tokens(plane: &Plane, who: &Someone) -> Vec<ApiToken> {
    plane.get(who, "/v1/tokens").await.read(200)
}

/// An edge `north`, and one who is everything on it.
async fn plane_with_an_edge() -> (Plane, Someone) {
    let plane = Plane::start().await;
    let roles = [Role::EdgeOwner, Role::ContainerOwner, Role::Administrator];
    let all = plane.account("all", &roles).await;
    plane.edge(&all, "north").await;
    plane.share(&all, "north", &all).await;
    (plane, all)
}

#[tokio::test]
async fn whatever_is_created_is_created_once_and_its_secret_shown_once() {
    let (plane, all) = plane_with_an_edge().await;
    plane.edge(&all, "south").await;
    plane.share(&all, "south", &all).await;
    plane.container_owner("ann").await;
    plane.container(&all, &all, "north", "moves").await;
    plane.pending(&all, "north", "pending").await;
    let edge = json!({"name": "east", "address": "192.0.2.99:1", "attributes": ATTRIBUTES});
    let container = json!({"name": "web", "edge": "north", "requirements": REQUIREMENTS});
    let to_south = json!({"container": "moves", "to": {"edge": "south"}});
    for (path, body, secret) in [
        (
            "/v1/accounts",
            json!({"name": "bob", "roles": ["auditor"]}),
            None,
        ),
        (
            "/v1/accounts/ann/tokens",
            json!({"label": "x"}),
            Some("secret"),
        ),
        ("/v1/tokens", json!({"label": "x"}), Some("secret")),
        ("/v1/edges", edge, None),
        ("/v1/edges/north/enrolment-tokens", json!({}), Some("token")),
        (
            "/v1/edges/north/share-keys",
            json!({"grantee": "ann"}),
            Some("key"),
        ),
        ("/v1/containers", container, None),
        ("/v1/containers/pending/claims", json!({}), Some("code")),
        ("/v1/migrations?wait=10", to_south, None),
    ] {
        let first = once(&plane, &all, path, path, body.clone()).await;
        assert!(first.status.is_success(), "{first:?}");
        assert!(!is_replayed(&first));
        let again = once(&plane, &all, path, path, body).await;
        assert!(is_replayed(&again), "{again:?}");
        assert_eq!(again.status, first.status);
        assert_eq!(again.headers.get("location"), first.headers.get("location"));
        let (mut first, again) = (
            first.json(first.status.into()),
            again.json(again.status.into()),
        );
        if let Some(secret) = secret {
            let secret = first.as_object_mut().unwrap().remove(secret);
            assert!(secret.unwrap().as_str().unwrap().len() >= 40);
        }
        assert_eq!(again, first, "but for the secret, the same");
    }
    let edges: Vec<Edge> = plane.get(&all, "/v1/edges").await.read(200);
    assert_eq!(edges.len(), 3);
    let containers: Vec<Container> = plane.get(&all, "/v1/containers").await.read(200);
    assert_eq!(containers.len(), 3);
    let migrations: Vec<Migration> = plane.get(&all, "/v1/migrations").await.read(200);
    assert_eq!(migrations.len(), 1);
    assert_eq!(
        tokens(&plane, &all).await.len(),
        2,
        "its first, and the one made here"
    );
}

#[tokio::test]
async fn a_key_is_of_one_request_of_one_account() {
    let (plane, all) = plane_with_an_edge().await;
    let other = plane.edge_owner("other").await;
    let x = json!({"label": "x"});
    once(&plane, &all, "/v1/tokens", "k", x.clone())
        .await
        .json(201);
    for (path, body) in [
        ("/v1/tokens", json!({"label": "y"})),
        ("/v1/accounts/all/tokens", x.clone()),
        ("/v1/edges/north/enrolment-tokens", json!({})),
    ] {
        let refused = once(&plane, &all, path, "k", body).await;
        assert!(!is_replayed(&refused));
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!(
            (fault.place.as_str(), fault.found.as_str()),
            ("Idempotency-Key", "k")
        );
    }
    let theirs = once(&plane, &other, "/v1/tokens", "k", x.clone()).await;
    theirs.json(201);
    assert!(!is_replayed(&theirs), "another account's key is another");
    // Still the first one's.
    assert!(is_replayed(
        &once(&plane, &all, "/v1/tokens", "k", x.clone()).await
    ));
    // Another key, another token; and none, another each time.
    assert!(!is_replayed(
        &once(&plane, &all, "/v1/tokens", "l", x.clone()).await
    ));
    plane.post(&all, "/v1/tokens", x).await.json(201);
    assert_eq!(tokens(&plane, &all).await.len(), 4);
}

#[tokio::test]
async fn a_key_is_good_for_nothing_without_a_token() {
    let (plane, all) = plane_with_an_edge().await;
    let body = json!({"label": "x"});
    once(&plane, &all, "/v1/tokens", "k", body.clone())
        .await
        .json(201);
    let ask = || {
        plane
            .ask(Method::POST, "/v1/tokens")
            .json(body.clone())
            .once("k")
    };
    ask().send().await.problem(401, "unauthenticated");
    // Nor for who may not ask any more.
    once(
        &plane,
        &all,
        "/v1/accounts",
        "m",
        json!({"name": "x", "roles": ["auditor"]}),
    )
    .await
    .json(201);
    plane
        .change(r#"UPDATE accounts SET roles = '["auditor"]' WHERE name = 'all'"#)
        .await;
    let again = json!({"name": "x", "roles": ["auditor"]});
    let refused = once(&plane, &all, "/v1/accounts", "m", again).await;
    refused.problem(403, "forbidden");
}

#[tokio::test]
async fn what_was_refused_is_refused_again_and_what_failed_here_is_tried_again() {
    let (plane, all) = plane_with_an_edge().await;
    let web = plane.pending(&all, "north", "web").await;
    // Refused: the answer stands, whatever has become of the reason.
    let migrate = json!({"container": "web", "to": {"anywhere": true}});
    let refused = once(&plane, &all, "/v1/migrations", "k", migrate.clone()).await;
    let first = refused.problem(409, "conflict");
    plane
        .post(&all, "/v1/containers/web/confirm", json!({}))
        .await
        .json(200);
    let again = once(&plane, &all, "/v1/migrations", "k", migrate).await;
    assert!(is_replayed(&again));
    assert_eq!(again.problem(409, "conflict"), first);

    // Failed on the edge's side: nothing is kept.
    let job = plane.pending(&all, "north", "job").await;
    let claim: Claim = plane
        .post(&all, "/v1/containers/job/claims", json!({}))
        .await
        .read(201);
    plane.agents.place(job.edge, "job", &claim.code);
    plane.agents.change(web.edge, |edge| edge.reachable = false);
    let path = "/v1/containers/job/confirm-claim";
    once(&plane, &all, path, "l", json!({}))
        .await
        .problem(502, "edge-failed");
    plane.agents.change(web.edge, |edge| edge.reachable = true);
    let done = once(&plane, &all, path, "l", json!({})).await;
    assert!(!is_replayed(&done));
    done.json(200);
}

#[tokio::test]
async fn of_many_at_the_same_time_one_creates() {
    let (plane, all) = plane_with_an_edge().await;
    let before = tokens(&plane, &all).await.len();
    let asks = (0..16).map(|_| once(&plane, &all, "/v1/tokens", "k", json!({"label": "x"})));
    let answers = futures_util::future::join_all(asks).await;
    let mut made = 0;
    for answer in &answers {
        if answer.status == 409 {
            let detail = answer.detail(409, "conflict");
            assert!(detail.contains("under way"), "{detail}");
        } else {
            let token = answer.json(201);
            made += usize::from(!is_replayed(answer));
            assert_eq!(token.get("secret").is_some(), !is_replayed(answer));
        }
    }
    assert_eq!(made, 1);
    assert_eq!(tokens(&plane, &all).await.len(), before + 1);
}

#[tokio::test]
async fn who_hangs_up_and_asks_again_is_answered() {
    let (plane, all) = plane_with_an_edge().await;
    let web = plane.pending(&all, "north", "web").await;
    let claim: Claim = plane
        .post(&all, "/v1/containers/web/claims", json!({}))
        .await
        .read(201);
    plane.agents.place(web.edge, "web", &claim.code);
    plane.agents.claims.close();

    let path = "/v1/containers/web/confirm-claim";
    let address = plane.base().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = json!({}).to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         idempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        all.token,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    plane.agents.claims.until_waiting(1).await;
    drop(stream);
    // Asked again meanwhile: it is under way.
    for _ in 0..3 {
        let meanwhile = once(&plane, &all, path, "k", json!({})).await;
        let detail = meanwhile.detail(409, "conflict");
        assert!(detail.contains("under way"), "{detail}");
    }
    plane.agents.claims.open();
    let answered = async {
        loop {
            let answer = once(&plane, &all, path, "k", json!({})).await;
            if answer.status != 409 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answered).await;
    let answer = answer.expect("what nobody waited for was carried out all the same");
    assert!(is_replayed(&answer));
    assert_eq!(answer.json(200)["registration"], "confirmed");
}

#[tokio::test]
async fn what_the_control_planes_end_cut_off_is_not_guessed() {
    let (plane, all) = plane_with_an_edge().await;
    let body = json!({"label": "x"});
    once(&plane, &all, "/v1/tokens", "k", body.clone())
        .await
        .json(201);
    plane
        .change("UPDATE idempotency_keys SET status = NULL, body = NULL")
        .await;
    let unclear = once(&plane, &all, "/v1/tokens", "k", body.clone()).await;
    let detail = unclear.detail(409, "conflict");
    assert!(
        detail.contains("look whether it was carried out"),
        "{detail}"
    );
    // After a day nothing is known of it any more.
    plane
        .change("UPDATE idempotency_keys SET created_at = created_at - 24 * 3600 * 1000 - 1")
        .await;
    let anew = once(&plane, &all, "/v1/tokens", "k", body).await;
    anew.json(201);
    assert!(!is_replayed(&anew));
}

#[tokio::test]
async fn a_key_has_a_form() {
    let (plane, all) = plane_with_an_edge().await;
    let ask = async |key: &str| -> Answer {
        once(&plane, &all, "/v1/tokens", key, json!({"label": "x"})).await
    };
    for bad in ["", &"k".repeat(256), "é"] {
        let refused = ask(bad).await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!(fault.place, "Idempotency-Key");
        assert_eq!(fault.allowed, "1 to 255 visible ASCII characters");
    }
    let most = "k".repeat(255);
    ask(&most).await.json(201);
    assert!(is_replayed(&ask(&most).await));
}

#[tokio::test]
async fn what_replaces_reads_or_ends_takes_no_key() {
    let (plane, all) = plane_with_an_edge().await;
    let describe = |row: &str| {
        let ask = plane
            .ask(Method::PUT, "/v1/edges/north/attributes")
            .by(&all);
        ask.json(json!({"attributes": row})).once("k").send()
    };
    for revision in 2..4 {
        let answer = describe(ATTRIBUTES).await;
        assert!(!is_replayed(&answer));
        assert_eq!(answer.read::<Edge>(200).attributes_revision, revision);
    }
    let ask = plane.ask(Method::GET, "/v1/whoami").by(&all);
    assert!(!is_replayed(&ask.once("k").send().await));
    once(&plane, &all, "/v1/tokens", "k", json!({"label": "x"}))
        .await
        .json(201);
}
