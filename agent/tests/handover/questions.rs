//! What agents tell when they are asked, and how they say that they do not understand.

use std::fs;

use carnet_api::agent::{Facts, Reading};
use carnet_api::v1::Problem;
use reqwest::Method;
use serde_json::json;

use crate::scene::{BOUND, Caller, Scene, answer};

#[test]
fn an_agent_says_who_it_is_and_what_its_machine_is() {
    let scene = Scene::new();
    for edge in &scene.edges {
        let facts: Facts = serde_json::from_value(scene.get(edge, "/v1/facts").unwrap()).unwrap();
        assert_eq!(facts.edge, edge.id);
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.detected.kernel.as_deref(), Some(kernel.trim()));
    }
}

#[test]
fn an_agent_tells_its_utilization_and_what_is_wrong_with_its_edge() {
    let scene = Scene::new();
    let deadline = std::time::Instant::now() + BOUND;
    let reading = || -> Reading {
        serde_json::from_value(scene.get(scene.source(), "/v1/reading").unwrap()).unwrap()
    };
    // An agent that has just started has nothing to compare with yet, and says so.
    let utilization = loop {
        let reading = reading();
        match reading.utilization {
            Some(utilization) => break utilization,
            None => assert!(!reading.problems.is_empty()),
        }
        assert!(std::time::Instant::now() < deadline, "no reading");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert!((1..=10_000).contains(&utilization.memory_hundredths));
    assert!(utilization.cpu_hundredths <= 10_000);
    assert_eq!(reading().problems, Vec::<String>::new());
    let problems = scene.source().root().join("problems");
    fs::write(problems, "criu is missing\nno cgroup\n").unwrap();
    assert_eq!(reading().problems, ["criu is missing", "no cgroup"]);
}

#[test]
fn an_agent_lists_its_containers_as_they_are() {
    let scene = Scene::new();
    let list = |edge| scene.get(edge, "/v1/containers").unwrap();
    assert_eq!(
        list(scene.source()),
        json!([{ "name": "App1", "state": "running" }])
    );
    assert_eq!(list(scene.target()), json!([]));
    scene.go_to(&mut scene.a_move(), "source/hand-over");
    assert_eq!(
        list(scene.source()),
        json!([{ "name": "App1", "state": "frozen" }])
    );
    assert_eq!(
        list(scene.target()),
        json!([{ "name": "App1", "state": "stopped" }])
    );
}

#[test]
fn an_agent_tells_the_claim_that_stands_inside_a_container() {
    let scene = Scene::new();
    let claim = || scene.get(scene.source(), "/v1/containers/App1/claim");
    assert_eq!(claim().unwrap(), json!({ "code": null }));
    fs::create_dir(scene.source().rootfs().join("run")).unwrap();
    fs::write(scene.source().rootfs().join("run/carnet-claim"), "code\n").unwrap();
    assert_eq!(claim().unwrap(), json!({ "code": "code" }));
    let problem = scene
        .get(scene.source(), "/v1/containers/App2/claim")
        .unwrap_err();
    assert!(problem.detail.unwrap().contains("`App2`"));
}

#[test]
fn what_an_agent_does_not_understand_it_says_as_a_problem() {
    let scene = Scene::new();
    let a_move = scene.a_move();
    let order = format!("/v1/handovers/{}/source/prepare", a_move.order.migration);
    let json = "application/json";
    let cases = [
        (Method::POST, order.as_str(), json, "{", 400),
        (Method::POST, &order, json, "{}", 422),
        (Method::POST, &order, "text/plain", "{}", 415),
        (Method::GET, &order, json, "", 405),
        (
            Method::POST,
            "/v1/handovers/none/source/prepare",
            json,
            "{}",
            400,
        ),
        (Method::POST, "/v1/handovers", json, "{}", 404),
        (Method::GET, "/", json, "", 404),
    ];
    for (method, path, kind, body, status) in cases {
        let (client, base) = scene.client(Caller::Control, scene.source());
        let request = client
            .request(method, format!("{base}{path}"))
            .header("content-type", kind)
            .body(body);
        let problem: Problem = scene.block_on(answer(request)).unwrap().unwrap_err();
        assert_eq!(problem.status, status, "{path}: {problem:?}");
        assert!(problem.kind.starts_with("urn:carnet:problem:"));
    }
}
