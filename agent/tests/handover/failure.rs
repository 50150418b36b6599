//! What fails is as it was, or can be made so.

use std::fs;

use carnet_agent::runtime::ContainerName;
use carnet_api::v1::ContainerState;

use crate::scene::{Caller, Move, OTHER, SOURCE, Scene, TARGET, Way, answer, files};

/// Gives an order that must be refused or fail, and returns what was said.
fn fails(scene: &Scene, a_move: &Move, name: &str) -> String {
    let problem = scene.give(a_move, name).expect_err(name);
    assert!((400..500).contains(&problem.status), "{problem:?}");
    problem.detail.unwrap()
}

#[test]
fn what_cannot_move_is_not_prepared() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    a_move.order.container = "App2".to_owned();
    let text = fails(&scene, &a_move, "source/prepare");
    assert!(text.contains("there is no container `App2`"), "{text}");
    // What was refused has begun nothing: put right, it goes.
    let name = ContainerName::new("App2").unwrap();
    scene.source().simulated().create(&name, "").unwrap();
    scene.go(&mut a_move, "source/prepare");
}

#[test]
fn an_edge_that_is_not_ready_takes_no_container() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go(&mut a_move, "source/prepare");
    fs::create_dir_all(scene.target().root()).unwrap();
    fs::write(scene.target().root().join("problems"), "criu is missing\n").unwrap();
    let text = fails(&scene, &a_move, "target/prepare");
    assert!(text.contains("criu is missing"), "{text}");
    assert!(scene.target().is_empty());
    fs::remove_file(scene.target().root().join("problems")).unwrap();
    scene.go(&mut a_move, "target/prepare");
}

#[test]
fn what_could_be_prepared_by_half_only_is_discarded() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    fs::create_dir_all(scene.target().root()).unwrap();
    let in_the_way = scene.target().root().join("cannot-prepare");
    fs::write(&in_the_way, "").unwrap();
    fails(&scene, &a_move, "target/prepare");
    assert!(scene.target().rootfs().exists());
    fs::remove_file(&in_the_way).unwrap();
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
}

#[test]
fn a_container_is_handed_over_by_one_migration_at_a_time() {
    let scene = Scene::new();
    let (mut one, mut other) = (scene.a_move(), scene.a_move_between(SOURCE, OTHER));
    scene.go_to(&mut one, "source/copy-ahead");
    let text = fails(&scene, &other, "source/prepare");
    assert!(text.contains(&one.order.migration.to_string()), "{text}");
    scene.go(&mut one, "source/resume");
    scene.go_to(&mut other, "target/clean");
    assert!(scene.edges[OTHER].runs());
}

#[test]
fn nothing_is_done_that_was_not_prepared() {
    let scene = Scene::new();
    let before = scene.source().files();
    for name in ["source/copy-ahead", "source/hand-over", "target/restore"] {
        fails(&scene, &scene.a_move(), name);
    }
    assert_eq!(before, scene.source().files());
    assert!(scene.target().is_empty());
    // Nor is anything sent to a target that does not expect it.
    let mut a_move = scene.a_move();
    scene.go(&mut a_move, "source/prepare");
    let text = fails(&scene, &a_move, "source/copy-ahead");
    assert!(text.contains("no permit for migration"), "{text}");
    assert!(scene.source().runs());
    assert!(scene.target().is_empty());
}

#[test]
fn a_hand_over_that_the_target_is_not_there_for_does_not_even_freeze_it() {
    let mut scene = Scene::new();
    // The target is gone; it is there and knows nothing more of it.
    for is_gone in [true, false] {
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "source/copy-ahead");
        let before = files(&scene.source().rootfs());
        if is_gone {
            scene.edges[TARGET].kill();
        } else {
            scene.go(&mut a_move, "target/discard");
        }
        let text = fails(&scene, &a_move, "source/hand-over");
        match is_gone {
            true => assert!(text.contains("cannot be reached"), "{text}"),
            false => assert!(text.contains("was not asked to receive"), "{text}"),
        }
        assert!(scene.source().runs());
        scene.go(&mut a_move, "source/resume");
        assert!(scene.source().runs());
        assert!(!scene.source().images().exists());
        assert_eq!(before, files(&scene.source().rootfs()));
        if is_gone {
            scene.edges[TARGET].start();
            scene.go(&mut a_move, "target/discard");
        }
    }
}

#[test]
fn a_container_that_would_stand_still_for_too_long_runs_on() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/copy-ahead");
    a_move.within_ms = Some(0);
    // Whatever is to be sent takes longer than nothing.
    let text = fails(&scene, &a_move, "source/hand-over");
    assert!(text.contains("within 0 ms"), "{text}");
    assert!(text.contains("max_downtime_ms"), "{text}");
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
    scene.go(&mut a_move, "target/discard");
}

#[test]
fn a_hand_over_that_failed_can_be_asked_for_again() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/copy-ahead");
    scene.edges[TARGET].kill();
    fails(&scene, &a_move, "source/hand-over");
    scene.edges[TARGET].start();
    scene.go(&mut a_move, "source/hand-over");
    scene.go(&mut a_move, "target/restore");
    assert!(scene.target().runs());
    assert_eq!(
        files(&scene.source().rootfs()),
        files(&scene.target().rootfs())
    );
}

#[test]
fn a_restore_that_fails_leaves_nothing_running_and_the_source_can_go_on() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    // What was made from it already goes with the agent.
    scene.edges[TARGET].restart();
    let memory = scene.target().images().join("memory");
    let held = fs::read(&memory).unwrap();
    fs::remove_file(&memory).unwrap();
    for _ in 0..2 {
        fails(&scene, &a_move, "target/restore");
        let (state, _) = scene.target().container().unwrap();
        assert_eq!(state, ContainerState::Stopped);
    }
    // Put right, it goes, and from then on it has run.
    fs::write(&memory, held).unwrap();
    scene.go(&mut a_move, "target/restore");
    assert!(scene.target().runs());

    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    scene.edges[TARGET].restart();
    fs::remove_file(scene.target().images().join("memory")).unwrap();
    fails(&scene, &a_move, "target/restore");
    a_move.raised = 1;
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
    a_move.raised = 2;
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
}

#[test]
fn a_target_that_is_not_the_one_named_gets_nothing() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let before = scene.edges[OTHER].files();
    // There it is not the edge that the order names: its certificate says so.
    a_move.by_way_of = Some(scene.edges[OTHER].address());
    for name in ["source/copy-ahead", "source/hand-over"] {
        let text = fails(&scene, &a_move, name);
        assert!(text.contains("cannot be reached"), "{text}");
    }
    assert_eq!(before, scene.edges[OTHER].files());
    for nowhere in ["", "localhost:1", "edge.example:7443", "127.0.0.1"] {
        a_move.by_way_of = Some(nowhere.to_owned());
        let text = fails(&scene, &a_move, "source/hand-over");
        assert!(text.contains("is not an address"), "{text}");
    }
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
}

#[test]
fn a_record_that_cannot_be_read_leaves_open_what_was_done() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    for (edge, names) in [
        (scene.source(), ["source/resume", "source/release"]),
        (scene.target(), ["target/restore", "target/discard"]),
    ] {
        fs::write(edge.record(a_move.order.migration), "{").unwrap();
        for name in names {
            let problem = scene.give(&a_move, name).unwrap_err();
            assert_eq!(problem.status, 500, "{name}: {problem:?}");
        }
    }
    assert!(scene.source().is_frozen());
    assert!(!scene.target().runs());
}

/// As much as does not fit into any buffer on the way.
fn fill(scene: &Scene) {
    let noise: Vec<u8> = (0_u64..1 << 19)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    fs::write(scene.source().rootfs().join("large"), noise).unwrap();
}

#[test]
fn a_move_that_is_called_off_is_not_sent_to_its_end() {
    for name in ["source/copy-ahead", "source/hand-over"] {
        let scene = Scene::new();
        fill(&scene);
        let before = files(&scene.source().rootfs());
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "target/prepare");
        // Never opened: what is sent is on its way for as long as anybody waits.
        let way = Way::new(&scene, &scene.target().address(), 100_000);
        a_move.by_way_of = Some(way.address.clone());
        let asked = scene.request(Caller::Control, &a_move, name);
        let asked = scene.spawn(answer(asked));
        way.wait();
        scene.go(&mut a_move, "source/resume");
        assert!(scene.source().runs());
        let said = scene.block_on(asked).unwrap().unwrap().unwrap_err();
        let said = said.detail.unwrap();
        assert!(said.contains("called off"), "{said}");
        scene.go(&mut a_move, "target/discard");
        assert!(scene.target().is_empty());
        assert_eq!(before, files(&scene.source().rootfs()));
    }
}

/// Only what the control plane has signed calls a move off.
#[test]
fn a_bad_order_to_resume_breaks_nothing_off() {
    let scene = Scene::new();
    fill(&scene);
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let way = Way::new(&scene, &scene.target().address(), 100_000);
    a_move.by_way_of = Some(way.address.clone());
    let asked = scene.request(Caller::Control, &a_move, "source/copy-ahead");
    let asked = scene.spawn(answer(asked));
    way.wait();
    let mut forged = a_move.clone();
    forged.statement = Some(scene.statement(&a_move, "source/copy-ahead"));
    let resume = scene.request(Caller::Control, &forged, "source/resume");
    let resume = scene.spawn(answer(resume));
    let mut stranger = a_move.clone();
    stranger.jti = "another".to_owned();
    let other = scene.request(Caller::Control, &stranger, "source/resume");
    let other = scene.spawn(answer(other));
    // Both have reached the agent, which sees to them in turn: a question is answered after them.
    scene.get(scene.source(), "/v1/containers").unwrap();
    way.open();
    scene.block_on(asked).unwrap().unwrap().unwrap();
    for refused in [resume, other] {
        scene.block_on(refused).unwrap().unwrap().unwrap_err();
    }
}
