//! Who may do what.

use carnet_agent::runtime::ContainerName;
use carnet_core::ids::EdgeId;

use crate::scene::{Caller, Edge, Move, ORDERS, OTHER, Scene, TARGET, answer, stream as sent};

const QUESTIONS: [&str; 4] = [
    "/v1/facts",
    "/v1/reading",
    "/v1/containers",
    "/v1/containers/App1/claim",
];

#[test]
fn nobody_gives_orders_but_the_control_plane() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    let before = scene.edges.each_ref().map(|edge| edge.files());
    let ids = scene.edges.each_ref().map(|edge| edge.id);
    for id in ids {
        // Any edge's certificate, also the source's, the target's and the agent's own.
        for name in ORDERS {
            let request = scene.request(Caller::Edge(id), &a_move, name);
            let problem = scene.block_on(answer(request)).unwrap().unwrap_err();
            assert_eq!(problem.status, 403, "{name}");
        }
        for path in QUESTIONS {
            let (client, base) = scene.client(Caller::Edge(id), scene.source());
            let request = client.get(format!("{base}{path}"));
            let problem = scene.block_on(answer(request)).unwrap().unwrap_err();
            assert_eq!(problem.status, 403, "{path}");
        }
    }
    // The way in which it is asked whether they are heard lets the control plane be.
    let (client, base) = scene.client(Caller::Control, scene.source());
    let request = client.get(format!("{base}/v1/reading"));
    assert!(scene.is_heard(Caller::Control, scene.source(), request));
    // These are not even heard.
    for caller in [Caller::Nobody, Caller::Stranger] {
        for name in ORDERS {
            let edge = match name.starts_with("source/") {
                true => scene.source(),
                false => scene.target(),
            };
            let request = scene.request(caller, &a_move, name);
            assert!(!scene.is_heard(caller, edge, request), "{caller:?} {name}");
        }
        for path in QUESTIONS {
            let (client, base) = scene.client(caller, scene.source());
            let request = client.get(format!("{base}{path}"));
            assert!(
                !scene.is_heard(caller, scene.source(), request),
                "{caller:?} {path}"
            );
        }
    }
    let after = scene.edges.each_ref().map(|edge| edge.files());
    assert_eq!(before, after);
}

/// A stream of an empty tree, as the source's agent sends it.
fn stream() -> Vec<u8> {
    let empty = tempfile::TempDir::new().unwrap();
    sent(empty.path(), 512).concat()
}

fn put(
    scene: &Scene,
    caller: Caller,
    edge: &Edge,
    a_move: &Move,
    what: &str,
) -> reqwest::RequestBuilder {
    let (client, base) = scene.client(caller, edge);
    let url = format!("{base}/v1/handovers/{}/{what}", a_move.order.migration);
    client.put(url).body(stream())
}

/// The status that `edge` answers to a stream.
fn send(scene: &Scene, caller: Caller, edge: &Edge, a_move: &Move, what: &str) -> u16 {
    let request = put(scene, caller, edge, a_move, what);
    match scene.block_on(answer(request)).expect("no answer at all") {
        Ok(_) => 200,
        Err(problem) => problem.status,
    }
}

#[test]
fn only_the_source_that_was_named_sends_and_only_while_it_is_expected() {
    let scene = Scene::new();
    let target = scene.target();
    let mut a_move = scene.a_move();
    let source = Caller::Edge(a_move.order.source);
    let expect = |caller, a_move: &Move, status: u16| {
        for what in ["rootfs", "memory-ahead", "images"] {
            assert_eq!(
                send(&scene, caller, target, a_move, what),
                status,
                "{caller:?} {what}"
            );
        }
    };
    expect(source, &a_move, 403);
    let noted = scene.refusals(target).refusals;
    let noted: Vec<_> = noted
        .iter()
        .map(|refused| (refused.check.as_str(), refused.asked.as_str()))
        .collect();
    assert_eq!(
        noted,
        ["rootfs", "memory-ahead", "images"].map(|what| ("permit", what))
    );
    scene.go_to(&mut a_move, "source/hand-over");
    let before = target.files();
    expect(Caller::Control, &a_move, 403);
    expect(Caller::Edge(target.id), &a_move, 403);
    expect(Caller::Edge(scene.edges[OTHER].id), &a_move, 403);
    for caller in [Caller::Stranger, Caller::Nobody] {
        let request = put(&scene, caller, target, &a_move, "images");
        assert!(!scene.is_heard(caller, target, request), "{caller:?}");
    }
    // Another migration of the same source's.
    expect(source, &scene.a_move(), 403);
    // The source itself expects nothing.
    let to_source = send(&scene, source, scene.source(), &a_move, "rootfs");
    assert_eq!(to_source, 404);
    assert_eq!(before, target.files());

    scene.go(&mut a_move, "target/restore");
    let before = target.files();
    expect(source, &a_move, 404);
    assert_eq!(before, target.files());

    let mut discarded = scene.a_move_between(OTHER, TARGET);
    discarded.order.container = "App2".to_owned();
    scene.go(&mut discarded, "target/prepare");
    let other = Caller::Edge(scene.edges[OTHER].id);
    expect(source, &discarded, 403);
    expect(other, &discarded, 200);
    scene.go(&mut discarded, "target/discard");
    expect(other, &discarded, 404);
    assert!(!target.root().join("containers/App2").exists());
}

#[test]
fn a_name_that_is_no_name_is_refused_and_becomes_no_path() {
    let long = "x".repeat(64);
    let names = [
        "",
        ".",
        "..",
        "../App1",
        "../../state/agent",
        "App1/../../x",
        "/etc",
        "a/b",
        ".hidden",
        "-f",
        "_",
        "a b",
        "a\0b",
        "a\nb",
        "ä",
        "App1\u{202e}",
        &long,
    ];
    let scene = Scene::new();
    let before = scene.edges.each_ref().map(|edge| edge.files());
    for name in names {
        assert!(ContainerName::new(name).is_err(), "{name:?}");
        let mut a_move = scene.a_move();
        a_move.order.container = name.to_owned();
        for order in ORDERS {
            let problem = scene.give(&a_move, order).expect_err(order);
            assert_eq!(problem.status, 409, "{order} of {name:?}");
            let detail = problem.detail.unwrap();
            assert!(detail.contains("is not a container's name"), "{detail}");
        }
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        // Where the URL does not even have that shape, there is nothing.
        let claim = scene.get(scene.source(), &format!("/v1/containers/{encoded}/claim"));
        let status = claim.unwrap_err().status;
        assert!([404, 409].contains(&status), "claim of {name:?}: {status}");
    }
    let after = scene.edges.each_ref().map(|edge| edge.files());
    assert_eq!(before, after);
    for name in ["App1", "a", "0", "web-1.example_com", &long[..63]] {
        assert!(ContainerName::new(name).is_ok(), "{name:?}");
    }
}

#[test]
fn an_edge_is_nobody_but_itself() {
    // Whoever has a certificate of the authority for another name is not heard as an edge.
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let unknown = EdgeId::from_uuid(uuid::Uuid::now_v7());
    for what in ["rootfs", "memory-ahead", "images"] {
        let status = send(&scene, Caller::Edge(unknown), scene.target(), &a_move, what);
        assert_eq!(status, 403);
    }
}
