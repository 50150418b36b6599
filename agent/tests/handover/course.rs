//! The course of a hand-over that goes well, and its orders given again.

use std::fs;
use std::time::{Duration, SystemTime};

use carnet_agent::runtime::ContainerName;
use carnet_api::agent::{CopiedAhead, HandedOver};
use carnet_api::v1::ContainerState;
use carnet_core::ids::MigrationId;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::scene::{COURSE, Caller, MEMORY, ORDERS, OTHER, SOURCE, Scene, TARGET, answer, files};

#[test]
fn a_container_moves_with_its_files_and_its_memory() {
    let scene = Scene::new();
    let (source, target) = (scene.source(), scene.target());
    let mut noise = vec![0; 3 << 20];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    fs::write(source.rootfs().join("large"), &noise).unwrap();
    // What has just changed would be sent once more.
    let written = SystemTime::now();
    while written.elapsed().is_ok_and(|age| age.as_millis() <= 101) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut a_move = scene.a_move();

    let described = scene.go(&mut a_move, "source/prepare");
    assert_eq!(described["memory_bytes"], MEMORY.len());
    scene.go(&mut a_move, "target/prepare");
    assert_eq!(
        target.container().map(|(state, _)| state),
        Some(ContainerState::Stopped)
    );

    let ahead = scene.go(&mut a_move, "source/copy-ahead");
    let ahead: CopiedAhead = serde_json::from_value(ahead).unwrap();
    assert_eq!(ahead.passes, 2);
    let noise = noise.len() as u64;
    assert!((noise..noise * 2).contains(&ahead.bytes), "{ahead:?}");
    assert!(source.runs());
    assert_eq!(files(&source.rootfs()), files(&target.rootfs()));

    // It runs on meanwhile.
    fs::write(source.rootfs().join("changing"), "after").unwrap();
    fs::remove_file(source.rootfs().join("var/lib/data")).unwrap();
    let before = files(&source.rootfs());
    let handed_over = scene.go(&mut a_move, "source/hand-over");
    let handed_over: HandedOver = serde_json::from_value(handed_over).unwrap();
    assert!(source.is_frozen());
    assert!(handed_over.image_bytes > 0);
    assert!(
        (1..noise / 10).contains(&handed_over.rootfs_difference_bytes),
        "{handed_over:?}"
    );
    assert!(handed_over.frozen_ms > 0.0);
    assert_eq!(files(&source.images()), files(&target.images()));
    assert_eq!(before, files(&target.rootfs()));
    assert!(!target.runs());

    scene.go(&mut a_move, "target/restore");
    assert!(target.runs());
    assert!(source.is_frozen());
    scene.go(&mut a_move, "source/release");
    assert!(source.is_empty());
    scene.go(&mut a_move, "target/clean");
    assert!(target.runs());
    assert!(!target.images().exists());
    assert_eq!(before, files(&target.rootfs()));
}

#[test]
fn it_moves_on_and_back() {
    let scene = Scene::new();
    let before = files(&scene.source().rootfs());
    for (from, to) in [(SOURCE, TARGET), (TARGET, OTHER), (OTHER, SOURCE)] {
        scene.go_to(&mut scene.a_move_between(from, to), "target/clean");
        assert!(scene.edges[from].is_empty());
        assert!(scene.edges[to].runs());
        assert_eq!(before, files(&scene.edges[to].rootfs()));
    }
}

#[test]
fn an_order_that_is_given_twice_at_once_is_done_once_and_answered_twice() {
    let scene = Scene::new();
    let a_move = scene.a_move();
    for name in COURSE {
        let twice = [(); 2].map(|()| answer(scene.request(Caller::Control, &a_move, name)));
        let answers: Vec<Value> = scene
            .block_on(join_all(twice))
            .into_iter()
            .map(|answer| without_times(answer.unwrap().unwrap()))
            .collect();
        // Joined or after another, it is the same hand-over.
        if name != "source/copy-ahead" {
            assert_eq!(answers[0], answers[1], "{name}");
        }
    }
    assert!(scene.source().is_empty());
    assert!(scene.target().runs());
}

fn without_times(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        for times in ["frozen_ms", "running_ms", "steps"] {
            fields.remove(times);
        }
    }
    answer
}

#[test]
fn an_order_that_is_given_again_finds_its_work_done() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    for name in COURSE {
        let first = scene.go(&mut a_move, name);
        let before = [scene.source().files(), scene.target().files()];
        let second = scene.go(&mut a_move, name);
        if name != "source/copy-ahead" {
            assert_eq!(without_times(first), without_times(second), "{name}");
        }
        let after = [scene.source().files(), scene.target().files()];
        assert_eq!(before, after, "{name}");
    }
}

/// A request may be on its way for long after the control plane has given it up and gone on.
#[test]
fn an_order_that_comes_late_touches_nothing() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    for (position, name) in COURSE.iter().enumerate() {
        scene.go(&mut a_move, name);
        for late in &COURSE[..position] {
            let before = [scene.source().files(), scene.target().files()];
            let answer = scene.give(&a_move, late);
            let after = [scene.source().files(), scene.target().files()];
            assert_eq!(before, after, "{late} after {name}: {answer:?}");
        }
    }
    assert!(scene.target().runs());
}

#[test]
fn nothing_is_sent_ahead_once_it_has_been_handed_over() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    assert_eq!(
        scene.go(&mut a_move, "source/copy-ahead"),
        json!({ "bytes": 0, "bytes_per_s": null, "memory": null, "passes": 0 })
    );
}

#[test]
fn hand_overs_of_other_containers_go_on_beside_it() {
    let scene = Scene::new();
    scene.go_to(&mut scene.a_move(), "source/hand-over");
    let name = ContainerName::new("App2").unwrap();
    scene
        .source()
        .simulated()
        .create(&name, "of another")
        .unwrap();
    let mut other = scene.a_move();
    other.order.container = "App2".to_owned();
    scene.go_to(&mut other, "target/clean");
    assert!(scene.source().is_frozen());
    assert!(!scene.target().runs());
}

#[test]
fn an_order_for_another_edge_or_another_path_is_refused() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    let before = [scene.source().files(), scene.target().files()];
    for name in ORDERS {
        // It says that it is for another edge than the one that it is sent to.
        let mut elsewhere = a_move.clone();
        let edge = match name.starts_with("source/") {
            true => std::mem::replace(&mut elsewhere.order.source, scene.edges[OTHER].id),
            false => std::mem::replace(&mut elsewhere.order.target, scene.edges[OTHER].id),
        };
        let body = scene.request(Caller::Control, &elsewhere, name);
        let body = body
            .build()
            .unwrap()
            .body()
            .unwrap()
            .as_bytes()
            .unwrap()
            .to_vec();
        let (client, base) = scene.client(Caller::Control, scene.edge(edge));
        let post = |migration: MigrationId| {
            let request = client.post(format!("{base}/v1/handovers/{migration}/{name}"));
            let request = request.header("content-type", "application/json");
            scene
                .block_on(answer(request.body(body.clone())))
                .unwrap()
                .unwrap_err()
        };
        let problem = post(a_move.order.migration);
        assert!(problem.detail.unwrap().contains("this order is for edge"));
        let problem = post(MigrationId::from_uuid(Uuid::now_v7()));
        assert!(problem.detail.unwrap().contains("different migrations"));
        let after = [scene.source().files(), scene.target().files()];
        assert_eq!(before, after, "{name}");
    }
}
