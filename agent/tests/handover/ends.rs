//! How hand-overs end, and what comes after the end.

use std::fs;

use carnet_agent::runtime::ContainerName;
use carnet_api::v1::ContainerState;

use crate::scene::{MEMORY, Move, ORDERS, OTHER, Scene, TARGET};

/// After `end`: given again it is done, every other order for that edge is refused, and neither
/// touches anything.
fn assert_ended(scene: &Scene, a_move: &Move, end: &str) {
    let (side, _) = end.split_once('/').unwrap();
    let before = scene.edges.each_ref().map(|edge| edge.files());
    scene
        .give(a_move, end)
        .unwrap_or_else(|problem| panic!("{end} again: {problem:?}"));
    for late in ORDERS.iter().filter(|order| order.starts_with(side)) {
        if *late != end {
            let problem = scene.give(a_move, late).expect_err(late);
            assert!([403, 409].contains(&problem.status), "{late} after {end}");
        }
    }
    let after = scene.edges.each_ref().map(|edge| edge.files());
    assert_eq!(before, after, "after {end}");
}

#[test]
fn an_end_that_is_the_first_to_be_heard_ends_it_and_touches_nothing() {
    for end in [
        "source/resume",
        "source/release",
        "target/clean",
        "target/discard",
    ] {
        let scene = Scene::new();
        // Containers of that name that no hand-over has to do with.
        scene.target().create();
        let a_move = scene.a_move();
        scene.give(&a_move, end).unwrap();
        assert!(scene.source().runs(), "{end}");
        assert!(scene.target().runs(), "{end}");
        assert_ended(&scene, &a_move, end);
    }
}

#[test]
fn an_end_on_the_way_ends_it() {
    // How far it had gone, and how it ended on either side; the state at the source then.
    let ways = [
        ("source/prepare", "source/resume", Some("running")),
        ("target/prepare", "source/resume", Some("running")),
        ("target/prepare", "target/discard", Some("running")),
        ("source/copy-ahead", "source/resume", Some("running")),
        ("source/copy-ahead", "target/discard", Some("running")),
        ("source/hand-over", "source/resume", Some("running")),
        ("source/hand-over", "target/discard", Some("frozen")),
        ("target/restore", "source/release", None),
        ("target/restore", "target/clean", Some("frozen")),
    ];
    for (last, end, at_source) in ways {
        let scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, last);
        scene.go(&mut a_move, end);
        let source = scene.source();
        match at_source {
            Some("running") => assert!(source.runs(), "{end} after {last}"),
            Some(_) => assert!(source.is_frozen(), "{end} after {last}"),
            None => assert!(source.is_empty(), "{end} after {last}"),
        }
        if end == "source/resume" {
            assert!(!source.images().exists());
        }
        if end == "target/discard" {
            assert!(scene.target().is_empty(), "{end} after {last}");
        }
        assert_ended(&scene, &a_move, end);
    }
}

#[test]
fn what_has_run_at_the_target_is_never_discarded() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/restore");
    a_move.raised = 1;
    for _ in 0..2 {
        let problem = scene.give(&a_move, "target/discard").unwrap_err();
        assert_eq!(problem.status, 409);
        assert!(problem.detail.unwrap().contains("has run here"));
        assert!(scene.target().runs());
    }
    // Whatever became of it since: its files may be all that is left.
    let record = scene.target().rootfs().with_file_name("container.json");
    let stopped = serde_json::json!({ "state": ContainerState::Stopped, "memory": MEMORY, "memory_follows": false });
    fs::write(&record, stopped.to_string()).unwrap();
    for _ in 0..2 {
        scene.give(&a_move, "target/discard").unwrap_err();
        assert!(record.exists());
        scene.edges[TARGET].restart();
    }
}

#[test]
fn restore_is_answered_as_done_once_it_has_run_whatever_became_of_it() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/restore");
    fs::remove_dir_all(scene.target().rootfs().parent().unwrap()).unwrap();
    for _ in 0..2 {
        scene.go(&mut a_move, "target/restore");
        // It is not brought back: it may have been ended by whoever it belongs to.
        assert_eq!(scene.target().container(), None);
        scene.edges[TARGET].restart();
    }
}

#[test]
fn a_container_that_was_there_before_is_not_discarded() {
    let scene = Scene::new();
    scene.target().create();
    let mut a_move = scene.a_move();
    scene.go(&mut a_move, "source/prepare");
    let problem = scene.give(&a_move, "target/prepare").unwrap_err();
    assert_eq!(problem.status, 409);
    assert!(problem.detail.unwrap().contains("on this edge already"));
    // As the control plane does then.
    scene.go(&mut a_move, "source/resume");
    scene.go(&mut a_move, "target/discard");
    assert!(scene.source().runs());
    assert!(scene.target().runs());
}

#[test]
fn an_order_about_another_container_than_was_prepared_is_refused() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    let other = ContainerName::new("App2").unwrap();
    for edge in [scene.source(), scene.target()] {
        edge.simulated().create(&other, "of another").unwrap();
    }
    let before = scene.edges.each_ref().map(|edge| edge.files());
    let mut wrong = a_move.clone();
    wrong.order.container = "App2".to_owned();
    for name in ORDERS {
        let problem = scene.give(&wrong, name).expect_err(name);
        assert_eq!(problem.status, 409, "{name}");
    }
    // Nor between other edges.
    let mut wrong = a_move.clone();
    wrong.order.target = scene.edges[OTHER].id;
    for name in ORDERS.iter().filter(|name| name.starts_with("source")) {
        let problem = scene.give(&wrong, name).expect_err(name);
        assert_eq!(problem.status, 409, "{name}");
    }
    let after = scene.edges.each_ref().map(|edge| edge.files());
    assert_eq!(before, after);
    scene.go(&mut a_move, "target/restore");
}

/// An operator has declared it lost, and it is there again: the container is the source's, under a
/// newer generation.
#[test]
fn a_copy_that_runs_is_discarded_once_the_container_was_taken_back() {
    for restarted in [false, true] {
        let mut scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "target/restore");
        for raised in [0, 1] {
            a_move.raised = raised;
            scene.give(&a_move, "target/discard").expect_err("it runs");
            assert!(scene.target().runs());
        }
        if restarted {
            scene.edges[TARGET].restart();
        }
        a_move.raised = 2;
        scene.go(&mut a_move, "source/resume");
        scene.go(&mut a_move, "target/discard");
        assert!(scene.target().is_empty());
        assert!(scene.source().runs());
        assert_ended(&scene, &a_move, "target/discard");
    }
}
