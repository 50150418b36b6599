//! Memory that goes ahead while the container runs: that what it wrote to since comes after, and
//! that what is not known to have stayed is not relied upon.

use carnet_agent::runtime::ContainerName;
use carnet_api::agent::CopiedAhead;
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;

use crate::scene::{COURSE, MEMORY, Move, NAME, SOURCE, Scene, files};

/// More than is worth only one round.
const LARGE: usize = 8 << 20;

fn pre_copy(scene: &Scene) -> Move {
    Move {
        strategy: Strategy::PreCopy,
        ..scene.a_move()
    }
}

/// Has the container hold `memory`.
fn remember(scene: &Scene, memory: &str) {
    let name = ContainerName::new(NAME).unwrap();
    scene.source().simulated().create(&name, memory).unwrap();
}

fn copied(done: serde_json::Value) -> CopiedAhead {
    serde_json::from_value(done).unwrap()
}

fn runs_with(scene: &Scene, memory: &str) {
    let found = scene.target().container();
    assert!(found == Some((ContainerState::Running, memory.to_owned())));
}

/// What of `memory` is among the images that lie at the target.
fn lies_at_target(scene: &Scene, memory: &str) -> Vec<String> {
    files(&scene.target().images())
        .into_iter()
        .filter(|(_, content)| {
            content
                .windows(memory.len())
                .any(|window| window == memory.as_bytes())
        })
        .map(|(path, _)| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn memory_goes_ahead_and_what_was_written_to_since_comes_after() {
    let scene = Scene::new();
    let mut a_move = pre_copy(&scene);
    scene.go_to(&mut a_move, "target/prepare");
    let ahead = copied(scene.go(&mut a_move, "source/copy-ahead"));
    let memory = ahead.memory.unwrap();
    assert_eq!(memory.rounds, 1, "little memory is sent once");
    assert_eq!(memory.last_round_bytes, MEMORY.len() as u64);
    assert!(scene.source().runs());
    assert_eq!(lies_at_target(&scene, MEMORY), ["ahead-1/memory"]);

    let since = format!("{MEMORY}, and what came since");
    remember(&scene, &since);
    scene.go(&mut a_move, "source/hand-over");
    // Once is enough.
    assert_eq!(lies_at_target(&scene, MEMORY), ["ahead-1/memory"]);
    assert_eq!(lies_at_target(&scene, ", and what came"), ["memory"]);
    for name in &COURSE[4..] {
        scene.go(&mut a_move, name);
    }
    runs_with(&scene, &since);
    assert!(scene.source().is_empty());
    assert!(!scene.target().images().exists());
}

#[test]
fn rounds_are_made_while_much_is_written_to() {
    let scene = Scene::new();
    let memory = "memory! ".repeat(LARGE / 8);
    remember(&scene, &memory);
    let mut a_move = pre_copy(&scene);
    scene.go_to(&mut a_move, "target/prepare");
    let ahead = copied(scene.go(&mut a_move, "source/copy-ahead"));
    let told = ahead.memory.unwrap();
    // Nothing was written to meanwhile, and the second round says so.
    assert_eq!((told.rounds, told.last_round_bytes), (2, 0));
    scene.go(&mut a_move, "source/hand-over");
    scene.go(&mut a_move, "target/restore");
    runs_with(&scene, &memory);
}

/// Told once more, it begins anew: the first time may have been broken off anywhere.
#[test]
fn what_went_ahead_goes_again_where_it_is_asked_for_again() {
    let scene = Scene::new();
    let mut a_move = pre_copy(&scene);
    scene.go_to(&mut a_move, "source/copy-ahead");
    remember(&scene, "something else");
    let ahead = copied(scene.go(&mut a_move, "source/copy-ahead"));
    assert_eq!(ahead.memory.unwrap().rounds, 1);
    assert_eq!(lies_at_target(&scene, MEMORY), [""; 0]);
    scene.go(&mut a_move, "source/hand-over");
    scene.go(&mut a_move, "target/restore");
    runs_with(&scene, "something else");
}

/// Nobody knows any more what was written to since.
#[test]
fn all_memory_goes_again_where_the_source_s_agent_was_started_anew() {
    let mut scene = Scene::new();
    let mut a_move = pre_copy(&scene);
    scene.go_to(&mut a_move, "source/copy-ahead");
    scene.edges[SOURCE].restart();
    let since = format!("{MEMORY}, and what came since");
    remember(&scene, &since);
    scene.go(&mut a_move, "source/hand-over");
    assert_eq!(lies_at_target(&scene, MEMORY), ["memory"]);
    scene.go(&mut a_move, "target/restore");
    runs_with(&scene, &since);
}

#[test]
fn a_move_that_is_called_off_leaves_no_memory_behind() {
    let scene = Scene::new();
    let mut a_move = pre_copy(&scene);
    scene.go_to(&mut a_move, "source/copy-ahead");
    scene.go(&mut a_move, "source/resume");
    scene.go(&mut a_move, "target/discard");
    assert!(scene.source().runs());
    assert!(!scene.source().images().exists());
    assert!(!scene.target().images().exists());
    assert!(scene.target().is_empty());
}
