//! What is asked in a form that the API does not know.

use carnet_api::v1::Role;
use carnet_control::http::MAX_BODY;
use carnet_control::http::access::ROUTES;
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::http::{Answer, Ask};
use crate::plane::{Plane, Someone};

async fn everyone(plane: &Plane) -> Someone {
    let roles = [
        Role::EdgeOwner,
        Role::ContainerOwner,
        Role::Auditor,
        Role::Administrator,
    ];
    plane.account("everyone", &roles).await
}

/// Asks every operation that takes a body, with the body that `with` gives it; holds each answer
/// to be the problem, and to say `told`.
async fn every_taker(with: impl Fn(Ask) -> Ask, status: u16, told: &str) {
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    let takers = plane.contract().takers();
    assert_eq!(takers.len(), 14, "{takers:?}");
    for (method, path) in takers {
        let ask = plane.ask(method, &path.replace(['{', '}'], ""));
        let answer: Answer = with(ask.by(&everyone)).send().await;
        let problem = answer.problem(status, "unfit-body");
        let (title, detail) = (problem.title, problem.detail.unwrap());
        assert!(detail.contains(told), "{detail}");
        for text in [title, detail] {
            let internal = ["Rejection", "struct", "deserialize", "target type", "::"];
            assert!(!internal.iter().any(|word| text.contains(word)), "{text}");
        }
    }
}

fn json_type(ask: Ask) -> Ask {
    ask.header("content-type", "application/json")
}

#[tokio::test]
async fn a_body_that_is_not_json_is_told_where_it_ends_to_be_json() {
    every_taker(|ask| json_type(ask).body("{name: 1}"), 400, "line 1 column").await;
    every_taker(|ask| json_type(ask).body(""), 400, "line 1 column 0").await;
    every_taker(
        |ask| json_type(ask).body(vec![0xff, 0xfe, 0x00]),
        400,
        "line 1 column 1",
    )
    .await;
    every_taker(|ask| json_type(ask).body("{} {}"), 422, "missing field").await;
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_is_not_read() {
    let told = "Content-Type: application/json";
    every_taker(|ask| ask.body("{}"), 415, told).await;
    let other = |ask: Ask| ask.header("content-type", "text/plain").body("{}");
    every_taker(other, 415, told).await;
    let form = "application/x-www-form-urlencoded";
    every_taker(
        |ask| ask.header("content-type", form).body("name=x"),
        415,
        told,
    )
    .await;
    let charset = "application/json; charset=utf-8";
    let declared = |ask: Ask| ask.header("content-type", charset).body("{}");
    every_taker(declared, 422, "missing field").await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read() {
    let told = format!("{MAX_BODY} bytes at most");
    let large = format!("{{{}}}", " ".repeat(MAX_BODY - 1));
    every_taker(|ask| json_type(ask).body(large.clone()), 413, &told).await;
    // Nor where its length is not told before.
    let chunked = |ask: Ask| {
        let chunks = (0..65).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1 << 10]));
        json_type(ask).body(reqwest::Body::wrap_stream(stream::iter(chunks)))
    };
    every_taker(chunked, 413, &told).await;
    let once = |ask: Ask| json_type(ask).body(large.clone()).once("a-key");
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    for (method, route, _) in ROUTES {
        if *method == Method::POST && *route != "/v1/enrolments" {
            let path = route.replace(['{', '}'], "");
            let ask = plane.ask(method.clone(), &path).by(&everyone);
            once(ask).send().await.problem(413, "unfit-body");
        }
    }
    // One byte less is read.
    let all = format!("{{{}}}", " ".repeat(MAX_BODY - 2));
    every_taker(|ask| json_type(ask).body(all.clone()), 422, "missing field").await;
}

#[tokio::test]
async fn a_body_that_is_no_object_does_not_fit() {
    let told = "an object is expected";
    for body in [json!(null), json!(true), json!(7), json!("x"), json!([])] {
        every_taker(|ask| ask.json(body.clone()), 422, told).await;
    }
    // The values alone, in their order.
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    for (path, body) in [
        ("/v1/edges", json!(["north", "192.0.2.7:7443", {}])),
        ("/v1/accounts", json!(["ann", ["auditor"]])),
        ("/v1/tokens", json!(["laptop", null, null])),
    ] {
        let refused = plane.post(&everyone, path, body).await;
        assert_eq!(refused.detail(422, "unfit-body"), told);
    }
}

#[tokio::test]
async fn a_field_that_there_is_not_is_named() {
    every_taker(
        |ask| ask.json(json!({"surprise": 1})),
        422,
        "unknown field `surprise`",
    )
    .await;
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    let twice = r#"{"label": "x", "label": "y"}"#;
    let ask = plane.ask(Method::POST, "/v1/tokens").by(&everyone);
    let refused = json_type(ask).body(twice).send().await;
    let detail = refused.detail(422, "unfit-body");
    assert!(detail.contains("duplicate field `label`"), "{detail}");
    // The field, and what may stand there.
    let body = json!({"label": "x", "roles": ["edge_owner", "boss"]});
    let refused = plane.post(&everyone, "/v1/tokens", body).await;
    let detail = refused.detail(422, "unfit-body");
    assert!(
        detail.starts_with("roles[1]: unknown variant `boss`"),
        "{detail}"
    );
}

#[tokio::test]
async fn a_body_has_a_depth() {
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"name": "north", "address": "192.0.2.7:1", "attributes": {open}{close}}}"#)
    };
    let ask = |body: String| {
        let ask = plane.ask(Method::POST, "/v1/edges").by(&everyone);
        json_type(ask).body(body).send()
    };
    let refused = ask(deep(30_000)).await;
    let detail = refused.detail(400, "unfit-body");
    assert!(detail.contains("recursion limit exceeded"), "{detail}");
    // As deep as is read: it means nothing, and is told so.
    let refused = ask(deep(100)).await;
    let fault = refused.problem(422, "faulty-input").faults.remove(0);
    assert!(fault.found.len() <= 100, "not all of it is repeated");
    for (method, path) in plane.contract().takers() {
        let ask = plane.ask(method, &path.replace(['{', '}'], ""));
        let answer = json_type(ask.by(&everyone))
            .body("[".repeat(60_000))
            .send()
            .await;
        assert!([400, 422].contains(&answer.status.as_u16()), "{answer:?}");
    }
}

#[tokio::test]
async fn a_number_is_one_that_can_be_kept() {
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    for seconds in [json!(-1), json!(1.5), json!(1e30), json!("60"), json!([60])] {
        let body = json!({"label": "x", "valid_for_seconds": seconds});
        let refused = plane.post(&everyone, "/v1/tokens", body).await;
        let detail = refused.detail(422, "unfit-body");
        assert!(detail.starts_with("valid_for_seconds: invalid"), "{detail}");
    }
    let body = json!({"label": "x", "valid_for_seconds": u64::MAX});
    let made = plane.post(&everyone, "/v1/tokens", body).await.json(201);
    assert_eq!(made["expires_at_ms"], i64::MAX);
    let listed: Value = plane.get(&everyone, "/v1/tokens").await.json(200);
    assert_eq!(listed[0]["expires_at_ms"], i64::MAX);
}

#[tokio::test]
async fn every_text_may_be_asked_for_as_a_name() {
    let plane = Plane::start().await;
    let everyone = everyone(&plane).await;
    let long = "n".repeat(5_000);
    for name in [
        "%00",
        "..%2f..%2fetc",
        "'%20OR%201=1%20--",
        "%25",
        "%E2%98%83",
        "%0D%0Ax",
        "*",
        &long,
    ] {
        for path in ["/v1/edges/", "/v1/containers/", "/v1/migrations/"] {
            let answer = plane.get(&everyone, &format!("{path}{name}")).await;
            let detail = answer.detail(404, "not-found");
            assert!(
                detail.chars().count() < 200,
                "not all of it is repeated: {detail}"
            );
        }
        for path in ["/v1/tokens/", "/v1/share-keys/"] {
            let answer = plane.delete(&everyone, &format!("{path}{name}")).await;
            answer.problem(404, "not-found");
        }
    }
}

#[tokio::test]
async fn lists_are_given_in_parts_and_what_is_no_part_is_refused() {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    for name in ["a", "b", "c", "d"] {
        plane.edge(&owner, name).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let answer = plane.get(&owner, &format!("/v1/edges?{query}")).await;
        let edges = answer.json(200);
        let edges = edges.as_array().unwrap().iter();
        edges
            .map(|edge| edge["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("").await, ["a", "b", "c", "d"]);
    assert_eq!(names("limit=2").await, ["a", "b"]);
    assert_eq!(names("limit=2&offset=3").await, ["d"]);
    assert_eq!(names("offset=1").await, ["b", "c", "d"]);
    assert_eq!(names("offset=9").await, Vec::<String>::new());
    let everyone = plane.account("everyone", &[Role::Auditor]).await;
    for list in [
        "/v1/edges",
        "/v1/containers",
        "/v1/accounts",
        "/v1/migrations",
    ] {
        let long = format!("search={}", "x".repeat(201));
        for (query, status) in [
            ("limit=0", 422),
            ("limit=1001", 422),
            (long.as_str(), 422),
            ("limit=x", 400),
            ("page=2", 400),
            ("search=%27%22%25_&limit=1000", 200),
        ] {
            let answer = plane.get(&everyone, &format!("{list}?{query}")).await;
            assert_eq!(answer.status, status, "{list} {query}");
        }
    }
}
