//! Memory that follows after the container runs: that it comes, and what happens where it does
//! not.

use std::fs;

use carnet_agent::runtime::ContainerName;
use carnet_api::agent::StandBy;
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;
use reqwest::header::{CONNECTION, UPGRADE};
use tempfile::TempDir;

use crate::scene::{
    BOUND, COURSE, Caller, MEMORY, Move, NAME, OTHER, SOURCE, Scene, TARGET, Way, answer,
    stream as sent,
};

/// A move after which memory follows.
fn post_copy(scene: &Scene) -> Move {
    Move {
        strategy: Strategy::PostCopy,
        ..scene.a_move()
    }
}

/// What fits into no buffer on the way, and what a connection may carry before it is held: more
/// than everything but that memory.
const LARGE: usize = 8 << 20;
const HELD_AFTER: usize = 100_000;

/// A container with much memory that runs at the target, while its memory is held on the way.
fn restored_and_held() -> (Scene, Move, Way, String) {
    let scene = Scene::new();
    let memory = "memory! ".repeat(LARGE / 8);
    let name = ContainerName::new(NAME).unwrap();
    scene.source().simulated().create(&name, &memory).unwrap();
    let mut a_move = post_copy(&scene);
    let way = Way::new(&scene, &scene.target().address(), HELD_AFTER);
    a_move.by_way_of = Some(way.address.clone());
    scene.go_to(&mut a_move, "target/restore");
    way.wait();
    (scene, a_move, way, memory)
}

fn refused(scene: &Scene, a_move: &Move, name: &str) -> String {
    let problem = scene.give(a_move, name).expect_err(name);
    assert_eq!(problem.status, 409, "{name}: {problem:?}");
    problem.detail.unwrap()
}

#[test]
fn memory_follows_after_the_container_runs_and_is_in_no_image() {
    let scene = Scene::new();
    let mut a_move = post_copy(&scene);
    for name in COURSE {
        scene.go(&mut a_move, name);
        if name == "source/hand-over" {
            assert!(scene.source().is_frozen());
            for edge in [scene.source(), scene.target()] {
                let images = crate::scene::files(&edge.images());
                assert!(!images.is_empty());
                let holds = |content: &Vec<u8>| {
                    let memory = MEMORY.as_bytes();
                    content.windows(memory.len()).any(|window| window == memory)
                };
                assert!(!images.values().any(holds), "{images:?}");
            }
        }
        if name == "target/settle" {
            assert!(scene.target().runs());
            assert!(scene.source().is_frozen());
        }
    }
    assert!(scene.source().is_empty());
    assert!(!scene.target().images().exists());
}

#[test]
fn it_is_settled_once_all_memory_is_over_and_not_before() {
    let (scene, a_move, way, memory) = restored_and_held();
    let running = |memory: &str| Some((ContainerState::Running, memory.to_owned()));
    assert_eq!(scene.target().container(), running(""));
    let settled = scene.spawn(answer(scene.request(
        Caller::Control,
        &a_move,
        "target/settle",
    )));
    assert!(!settled.is_finished());
    way.open();
    scene.block_on(settled).unwrap().unwrap().unwrap();
    assert_eq!(scene.target().container(), running(&memory));
    // Again, it is done.
    scene.give(&a_move, "target/settle").unwrap();
}

#[test]
fn where_memory_is_lost_it_is_killed_and_goes_on_at_the_source_as_it_was() {
    for lost in ["source", "link", "target"] {
        let (mut scene, mut a_move, way, memory) = restored_and_held();
        a_move.raised = 1;
        // It runs, and may answer clients.
        let text = refused(&scene, &a_move, "target/discard");
        assert!(text.contains("has run here"), "{lost}: {text}");
        match lost {
            "source" => scene.edges[SOURCE].restart(),
            "target" => scene.edges[TARGET].restart(),
            _ => (),
        }
        drop(way);
        for _ in 0..2 {
            let text = refused(&scene, &a_move, "target/settle");
            assert!(text.contains("lost on its way"), "{lost}: {text}");
            let (state, _) = scene.target().container().unwrap();
            assert_eq!(state, ContainerState::Stopped, "{lost}");
        }
        // It is not brought back with what is missing.
        refused(&scene, &a_move, "target/restore");
        scene.go(&mut a_move, "target/discard");
        assert!(scene.target().is_empty(), "{lost}");
        a_move.raised = 2;
        scene.go(&mut a_move, "source/resume");
        let as_it_was = Some((ContainerState::Running, memory));
        assert_eq!(scene.source().container(), as_it_was, "{lost}");
        // What it was given up for comes too late.
        refused(&scene, &a_move, "target/settle");
    }
}

#[test]
fn what_was_made_and_not_started_never_runs_after_the_agent_was_started_anew() {
    for strategy in [Strategy::StopAndCopy, Strategy::PostCopy] {
        let mut scene = Scene::new();
        let mut a_move = Move {
            strategy,
            ..scene.a_move()
        };
        scene.go_to(&mut a_move, "source/hand-over");
        scene.edges[TARGET].kill();
        // As if it had died when it was about to let it run.
        let record = scene.target().record(a_move.order.migration);
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains(r#""prepared""#), "{text}");
        fs::write(&record, text.replace(r#""prepared""#, r#""restored""#)).unwrap();
        scene.edges[TARGET].start();
        let (state, _) = scene.target().container().unwrap();
        assert_eq!(state, ContainerState::Stopped);
        if strategy == Strategy::StopAndCopy {
            scene.go(&mut a_move, "target/restore");
            assert!(scene.target().runs());
            continue;
        }
        refused(&scene, &a_move, "target/restore");
        let (state, _) = scene.target().container().unwrap();
        assert_eq!(state, ContainerState::Stopped);
        a_move.raised = 1;
        scene.go(&mut a_move, "target/discard");
        assert!(scene.target().is_empty());
        a_move.raised = 2;
        scene.go(&mut a_move, "source/resume");
        assert!(scene.source().runs());
    }
}

#[test]
fn a_hand_over_that_lost_its_target_is_repeated_with_its_memory() {
    for strategy in [Strategy::StopAndCopy, Strategy::PostCopy] {
        let mut scene = Scene::new();
        let mut noise = vec![0; 4 << 20];
        rand::RngCore::fill_bytes(
            &mut <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1),
            &mut noise,
        );
        fs::write(scene.source().rootfs().join("large"), &noise).unwrap();
        let mut a_move = Move {
            strategy,
            ..scene.a_move()
        };
        scene.go_to(&mut a_move, "target/prepare");
        let way = Way::new(&scene, &scene.target().address(), HELD_AFTER);
        a_move.by_way_of = Some(way.address.clone());
        let asked = scene.request(Caller::Control, &a_move, "source/hand-over");
        let asked = scene.spawn(answer(asked));
        way.wait();
        scene.edges[TARGET].restart();
        drop(way);
        scene.block_on(asked).unwrap().unwrap().unwrap_err();
        assert!(scene.source().is_frozen());
        a_move.by_way_of = None;
        for name in &COURSE[3..] {
            scene.go(&mut a_move, name);
        }
        assert!(scene.target().runs());
        assert!(scene.source().is_empty());
    }
}

/// What only a source sends, and the target's answer.
fn ask(scene: &Scene, caller: Caller, a_move: &Move, what: &str) -> u16 {
    let (client, base) = scene.client(caller, scene.target());
    let url = format!("{base}/v1/handovers/{}/{what}", a_move.order.migration);
    let request = match what {
        "pages" => client
            .post(url)
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "carnet-pages"),
        _ => client.put(url).json(&StandBy {
            strategy: a_move.strategy,
            is_stopped: false,
        }),
    };
    scene.block_on(request.send()).unwrap().status().as_u16()
}

#[test]
fn stand_by_and_pages_are_for_the_source_that_was_named_and_only_while_it_is_expected() {
    let scene = Scene::new();
    let mut a_move = post_copy(&scene);
    let source = Caller::Edge(a_move.order.source);
    let expect = |caller, a_move: &Move, status: u16, check: Option<&str>| {
        for what in ["stand-by", "pages"] {
            let before = (scene.target().files(), scene.refusals(scene.target()));
            assert_eq!(
                ask(&scene, caller, a_move, what),
                status,
                "{caller:?} {what}"
            );
            assert_eq!(before.0, scene.target().files(), "{caller:?} {what}");
            let noted = scene.refusals(scene.target()).refusals;
            let new: Vec<_> = noted[before.1.refusals.len()..]
                .iter()
                .map(|refused| (refused.check.as_str(), refused.asked.as_str()))
                .collect();
            let expected: Vec<_> = check.iter().map(|check| (*check, what)).collect();
            assert_eq!(new, expected, "{caller:?} {what}");
        }
    };
    expect(source, &a_move, 403, Some("permit"));
    scene.go_to(&mut a_move, "source/copy-ahead");
    for other in [
        Caller::Control,
        Caller::Edge(scene.target().id),
        Caller::Edge(scene.edges[OTHER].id),
        Caller::Double(a_move.order.source),
    ] {
        expect(other, &a_move, 403, Some("peer"));
    }
    scene.go(&mut a_move, "source/hand-over");
    scene.go(&mut a_move, "target/restore");
    expect(source, &a_move, 404, None);
    for name in &COURSE[5..] {
        scene.go(&mut a_move, name);
    }
    expect(source, &a_move, 404, None);
    assert!(scene.target().runs());
}

#[test]
fn stand_by_asked_twice_and_images_that_come_twice_change_nothing() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    let source = Caller::Edge(a_move.order.source);
    scene.go_to(&mut a_move, "source/copy-ahead");
    for _ in 0..2 {
        assert_eq!(ask(&scene, source, &a_move, "stand-by"), 200);
    }
    scene.go(&mut a_move, "source/hand-over");
    let images = sent(&scene.source().images(), 512).concat();
    for _ in 0..2 {
        let (client, base) = scene.client(source, scene.target());
        let url = format!("{base}/v1/handovers/{}/images", a_move.order.migration);
        let sent = answer(client.put(url).body(images.clone()));
        scene.block_on(sent).unwrap().unwrap();
    }
    for name in &COURSE[4..] {
        scene.go(&mut a_move, name);
    }
    assert!(scene.target().runs());
}

/// Sends the target images whose memory is a pipe: they are being read until it is written.
fn making(scene: &Scene, a_move: &Move) -> fs::File {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("memory");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let images = sent(directory.path(), 512).concat();
    let source = Caller::Edge(a_move.order.source);
    assert_eq!(ask(scene, source, a_move, "stand-by"), 200);
    let (client, base) = scene.client(source, scene.target());
    let url = format!("{base}/v1/handovers/{}/images", a_move.order.migration);
    let sent = answer(client.put(url).body(images));
    scene.block_on(sent).unwrap().unwrap();
    // Opened once somebody reads.
    let pipe = scene.target().images().join("memory");
    let (opened, is_open) = std::sync::mpsc::channel();
    std::thread::spawn(move || opened.send(fs::File::options().write(true).open(pipe)));
    is_open.recv_timeout(BOUND).unwrap().unwrap()
}

#[test]
fn what_is_still_being_made_is_waited_for_by_whatever_comes_next() {
    for next in ["target/restore", "target/discard"] {
        let scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "source/copy-ahead");
        let mut pipe = making(&scene, &a_move);
        let asked = scene.spawn(answer(scene.request(Caller::Control, &a_move, next)));
        let image = serde_json::json!({ "stayed": null, "rest": MEMORY });
        serde_json::to_writer(&mut pipe, &image).unwrap();
        drop(pipe);
        scene.block_on(asked).unwrap().unwrap().unwrap();
        match next {
            "target/restore" => assert!(scene.target().runs()),
            _ => assert!(scene.target().is_empty()),
        }
    }
}

#[test]
fn images_of_hand_overs_that_ended_are_removed_at_the_start_and_no_others() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    let leave = |scene: &Scene| {
        let ended = scene.target().root().join("images/App2");
        fs::create_dir_all(&ended).unwrap();
        fs::write(ended.join("memory"), "secret").unwrap();
        ended
    };
    let ended = leave(&scene);
    let needed = crate::scene::files(&scene.target().images());
    scene.edges[TARGET].restart();
    scene.edges[SOURCE].restart();
    assert!(!ended.exists());
    assert_eq!(crate::scene::files(&scene.target().images()), needed);
    assert!(scene.source().images().join("memory").exists());
    for name in &COURSE[4..] {
        scene.go(&mut a_move, name);
    }
    assert!(scene.target().runs());
    // Of one that has ended.
    fs::create_dir_all(scene.target().images()).unwrap();
    fs::write(scene.target().images().join("memory"), "secret").unwrap();
    scene.edges[TARGET].restart();
    assert!(!scene.target().images().exists());
}

#[test]
fn an_agent_that_is_asked_to_end_waits_for_memory_on_its_way() {
    for edge in [SOURCE, TARGET] {
        let (mut scene, _, way, memory) = restored_and_held();
        let ended = scene.edges[edge].stop();
        assert!(!ended.is_finished());
        way.open();
        ended.join().unwrap().unwrap();
        if edge == TARGET {
            let all = Some((ContainerState::Running, memory));
            assert_eq!(scene.target().container(), all);
        }
    }
}
