//! Moves of a container that is stopped, or is stopped for it: what is started where, whatever
//! fails or dies on the way.

use std::fs;

use carnet_agent::runtime::{ContainerName, Runtime};
use carnet_api::agent::{Described, Prepared};
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;
use serde_json::{Value, json};

use crate::scene::{
    COURSE, Caller, Edge, MEMORY, Move, NAME, SOURCE, Scene, TARGET, Way, answer, files,
};

fn cold(scene: &Scene) -> Move {
    Move {
        strategy: Strategy::Cold,
        ..scene.a_move()
    }
}

fn name() -> ContainerName {
    ContainerName::new(NAME).unwrap()
}

/// Somebody ends the container by hand, or starts it.
fn by_hand(edge: &Edge, runs: bool) {
    let path = edge.rootfs().with_file_name("container.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_ne!(record["is_held"], json!(true), "nobody can start it");
    record["state"] = json!(if runs { "running" } else { "stopped" });
    fs::write(&path, record.to_string()).unwrap();
}

fn is_held(edge: &Edge) -> bool {
    let path = edge.rootfs().with_file_name("container.json");
    let record: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    record["is_held"] == json!(true)
}

/// A scene with the container running at the source, or stopped.
fn scene(runs: bool) -> Scene {
    let scene = Scene::new();
    if !runs {
        by_hand(scene.source(), false);
    }
    scene
}

/// It is on `edge`, whoever may can start it there, and it runs, as it was started anew, or is
/// stopped.
fn assert_is_there(edge: &Edge, runs: bool, what: &str) {
    let (state, memory) = edge.container().unwrap();
    match runs {
        true => assert_eq!(
            (state, memory.as_str()),
            (ContainerState::Running, ""),
            "{what}"
        ),
        false => assert_eq!(state, ContainerState::Stopped, "{what}"),
    }
    assert!(!is_held(edge), "{what}");
}

fn refused(scene: &Scene, a_move: &Move, name: &str) -> String {
    let problem = scene.give(a_move, name).expect_err(name);
    assert_eq!(problem.status, 409, "{name}: {problem:?}");
    problem.detail.unwrap()
}

#[test]
fn what_ran_runs_at_the_target_and_what_was_stopped_stays_stopped() {
    for runs in [true, false] {
        let scene = scene(runs);
        let before = files(&scene.source().rootfs());
        let mut a_move = cold(&scene);
        for name in COURSE {
            let said = scene.go(&mut a_move, name);
            match name {
                "source/copy-ahead" => {
                    let state = scene.source().container().unwrap().0;
                    assert_eq!(state == ContainerState::Running, runs);
                    fs::write(scene.source().rootfs().join("changing"), "after").unwrap();
                }
                "source/hand-over" => {
                    assert!(is_held(scene.source()));
                    assert_eq!(
                        scene.source().container().unwrap().0,
                        ContainerState::Stopped
                    );
                    assert_eq!(
                        scene.target().container().unwrap().0,
                        ContainerState::Stopped
                    );
                    assert_eq!(said["image_bytes"], json!(0));
                    let steps: Vec<&str> = said["steps"]
                        .as_array()
                        .unwrap()
                        .iter()
                        .map(|step| step["step"].as_str().unwrap())
                        .collect();
                    assert_eq!(
                        steps,
                        ["stopping it", "sending what has changed of its files"]
                    );
                }
                "target/restore" => assert_is_there(scene.target(), runs, name),
                _ => {}
            }
            // Asked again, nothing changes.
            scene.go(&mut a_move, name);
        }
        assert!(scene.source().is_empty());
        assert_is_there(scene.target(), runs, "at the end");
        assert!(!scene.target().images().exists());
        let mut after = files(&scene.target().rootfs());
        let changed = after.insert("changing".into(), b"before".to_vec());
        assert_eq!(changed.unwrap(), b"after");
        assert_eq!(before, after);
    }
}

#[test]
fn a_move_that_is_called_off_leaves_it_as_it_was() {
    for runs in [true, false] {
        for last in &COURSE[..4] {
            let scene = scene(runs);
            let mut a_move = cold(&scene);
            scene.go_to(&mut a_move, last);
            for _ in 0..2 {
                scene.go(&mut a_move, "source/resume");
                match (runs, *last) {
                    (true, "source/hand-over") | (false, _) => {
                        assert_is_there(scene.source(), runs, last);
                    }
                    // It was not touched.
                    (true, _) => assert!(scene.source().runs(), "{last}"),
                }
            }
            scene.go(&mut a_move, "target/discard");
            assert!(scene.target().is_empty(), "{last}");
            // It can move again.
            let mut next = cold(&scene);
            scene.go_to(&mut next, "target/clean");
            assert_is_there(scene.target(), runs, last);
        }
    }
}

#[test]
fn an_agent_started_anew_between_any_two_orders_goes_on() {
    for runs in [true, false] {
        for after in COURSE {
            let mut scene = scene(runs);
            let before = files(&scene.source().rootfs());
            let mut a_move = cold(&scene);
            for name in COURSE {
                scene.go(&mut a_move, name);
                if name == after {
                    for edge in [SOURCE, TARGET] {
                        scene.edges[edge].restart();
                    }
                    scene.go(&mut a_move, name);
                }
            }
            assert!(scene.source().is_empty(), "{after}");
            assert_is_there(scene.target(), runs, after);
            assert_eq!(before, files(&scene.target().rootfs()));
        }
    }
}

#[test]
fn a_source_killed_while_its_files_go_over_starts_it_again_or_goes_on() {
    for runs in [true, false] {
        for goes_on in [true, false] {
            let mut scene = scene(runs);
            let noise: Vec<u8> = (0_u64..1 << 19)
                .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
                .collect();
            fs::write(scene.source().rootfs().join("large"), noise).unwrap();
            let before = files(&scene.source().rootfs());
            let mut a_move = cold(&scene);
            scene.go_to(&mut a_move, "target/prepare");
            let way = Way::new(&scene, &scene.target().address(), 100_000);
            a_move.by_way_of = Some(way.address.clone());
            let asked = scene.request(Caller::Control, &a_move, "source/hand-over");
            let asked = scene.spawn(async move { answer(asked).await.is_ok_and(|a| a.is_ok()) });
            way.wait();
            assert!(is_held(scene.source()));
            scene.edges[SOURCE].kill();
            assert!(!scene.block_on(asked).unwrap());
            drop(way);
            a_move.by_way_of = None;
            // It is not started by an agent that does not know whether it is the container still.
            scene.edges[SOURCE].start();
            assert!(is_held(scene.source()));
            // What comes late does not make it forget whether it ran.
            refused(&scene, &a_move, "source/prepare");
            if goes_on {
                for name in &COURSE[3..] {
                    scene.go(&mut a_move, name);
                }
                assert!(scene.source().is_empty());
                assert_is_there(scene.target(), runs, "it went on");
                assert_eq!(before, files(&scene.target().rootfs()));
            } else {
                scene.go(&mut a_move, "source/resume");
                assert_is_there(scene.source(), runs, "it was called off");
                scene.go(&mut a_move, "target/discard");
                assert_eq!(before, files(&scene.source().rootfs()));
            }
        }
    }
}

#[test]
fn a_source_killed_before_it_stopped_anything_lets_it_run_on() {
    let mut scene = Scene::new();
    let mut a_move = cold(&scene);
    scene.go_to(&mut a_move, "source/copy-ahead");
    scene.edges[SOURCE].kill();
    let path = scene.source().record(a_move.order.migration);
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["role"]["is_held"] = json!(true);
    fs::write(&path, record.to_string()).unwrap();
    scene.edges[SOURCE].start();
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
}

#[test]
fn what_was_started_or_ended_by_hand_since_it_was_made_ready_is_left_as_it_is() {
    for (runs, words) in [(true, "is stopped now"), (false, "runs now")] {
        let scene = scene(runs);
        let mut a_move = cold(&scene);
        scene.go_to(&mut a_move, "source/copy-ahead");
        by_hand(scene.source(), !runs);
        let before = scene.source().container();
        for _ in 0..2 {
            let text = refused(&scene, &a_move, "source/hand-over");
            assert!(text.contains(words), "{text}");
        }
        scene.go(&mut a_move, "source/resume");
        assert_eq!(scene.source().container(), before);
        assert!(!is_held(scene.source()));
        scene.go(&mut a_move, "target/discard");
    }
}

#[test]
fn what_does_not_start_at_the_target_is_started_again_at_its_source() {
    let scene = Scene::new();
    let mut a_move = cold(&scene);
    scene.go_to(&mut a_move, "source/hand-over");
    fs::write(scene.target().root().join("cannot-start"), "").unwrap();
    for _ in 0..2 {
        let text = refused(&scene, &a_move, "target/restore");
        assert!(text.contains("does not start"), "{text}");
        assert_eq!(
            scene.target().container().unwrap().0,
            ContainerState::Stopped
        );
    }
    a_move.raised = 1;
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
    a_move.raised = 2;
    scene.go(&mut a_move, "source/resume");
    assert_is_there(scene.source(), true, "taken back");
}

/// It may have been started there, by whoever may, as soon as it is the target's.
#[test]
fn what_is_the_targets_is_not_discarded_though_it_was_not_started() {
    let scene = scene(false);
    let mut a_move = cold(&scene);
    scene.go_to(&mut a_move, "target/restore");
    a_move.raised = 1;
    let text = refused(&scene, &a_move, "target/discard");
    assert!(text.contains("has run here"), "{text}");
    // Unless it was taken back.
    a_move.raised = 2;
    scene.go(&mut a_move, "source/resume");
    assert_is_there(scene.source(), false, "taken back");
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
}

#[test]
fn what_only_memory_needs_keeps_nothing_from_being_made_ready() {
    let scene = Scene::new();
    for (edge, problem) in [
        (scene.source(), "no CRIU here"),
        (scene.target(), "nor there"),
    ] {
        fs::create_dir_all(edge.root()).unwrap();
        fs::write(edge.root().join("live-problems"), problem).unwrap();
    }
    let mut a_move = cold(&scene);
    let described = scene.go(&mut a_move, "source/prepare");
    let described: Described = serde_json::from_value(described).unwrap();
    assert_eq!(described.live_problems, ["no CRIU here"]);
    let prepared = scene.go(&mut a_move, "target/prepare");
    let prepared: Prepared = serde_json::from_value(prepared).unwrap();
    assert_eq!(prepared.live_problems, ["nor there"]);
    for name in &COURSE[2..] {
        scene.go(&mut a_move, name);
    }
    assert_is_there(scene.target(), true, "moved");
}

#[test]
fn nobody_sends_memory_in_a_cold_move() {
    let scene = Scene::new();
    let mut a_move = cold(&scene);
    scene.go_to(&mut a_move, "source/hand-over");
    let source = Caller::Edge(a_move.order.source);
    let (client, base) = scene.client(source, scene.target());
    for stream in ["memory-ahead", "images"] {
        let url = format!("{base}/v1/handovers/{}/{stream}", a_move.order.migration);
        let answer = client.put(url).body(MEMORY).send();
        let answer = scene.block_on(answer).unwrap();
        assert_eq!(answer.status().as_u16(), 409, "{stream}");
    }
    assert!(!scene.target().images().exists());
    assert!(scene.target().simulated().is_stopped(&name()));
}

/// The container's own end is waited for, and counts as the time in which it stood still.
#[test]
fn what_takes_too_long_to_be_sent_is_started_again() {
    let scene = Scene::new();
    let mut a_move = cold(&scene);
    scene.go_to(&mut a_move, "source/copy-ahead");
    a_move.within_ms = Some(0);
    let text = refused(&scene, &a_move, "source/hand-over");
    assert!(text.contains("within 0 ms"), "{text}");
    scene.go(&mut a_move, "source/resume");
    assert_is_there(scene.source(), true, "it took too long");
}
