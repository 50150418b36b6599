//! Moves of a real container that are cancelled while its files or its memory are on their way, and
//! one whose target is declared lost.
//!
//! It runs the program `carnet` beside `carnet-lab`: `cargo build -p carnet` first, as `./test`
//! does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod traces;
mod world;

use carnet_api::v1::{GiveUp, LostEdge, Migration, MigrationState};
use carnet_lab::error::LabError;
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::ADMINISTRATOR;
use serde_json::json;
use traces::traces;
use world::{APP, World};

const LAB: &str = "t-cancel";

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn a_container_outlives_moves_that_are_cancelled_or_given_up() {
    let mut world = World::begin(LAB);
    fill(&world);
    a_copy_of_many_files_is_not_waited_for(&world);
    a_cancel_while_it_is_handed_over_leaves_one_copy(&world);
    a_target_that_was_declared_lost_clears_up_when_it_is_there_again(&mut world);
    the_ledger_tells_all_of_it_truly(&mut world);
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

/// So much that cannot be compressed that it takes seconds to go over.
fn fill(world: &World) {
    let file = format!("of=/var/lib/lxc/{APP}/rootfs/large");
    let blocks = ["if=/dev/urandom", &file, "bs=1M", "count=500"];
    world.on("Edge1", &[&["dd"][..], &blocks].concat());
}

fn cancel(world: &World, migration: &Migration) -> Result<Migration, LabError> {
    let path = format!("/v1/migrations/{}/cancel?wait=50", migration.id);
    world.post(&path, &json!({}))
}

fn a_copy_of_many_files_is_not_waited_for(world: &World) {
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    world.await_state(&begun, &[MigrationState::CopyingAhead]);
    // It is told how much has gone over, and how fast.
    let path = format!("/v1/migrations/{}", begun.id);
    wait_until("what is on its way", 20, || {
        let now: Migration = world.fleet.account("carol").unwrap().get(&path).unwrap();
        assert_eq!(now.state, MigrationState::CopyingAhead, "it was too fast");
        now.sending
            .is_some_and(|sending| sending.bytes > 1 << 20 && sending.bytes_per_s > 1 << 20)
    })
    .unwrap();
    let cancelled = cancel(world, &begun).unwrap();
    assert_eq!(cancelled.state, MigrationState::Cancelled, "{cancelled:?}");
    // The source has not told how much went over: it did not come to its end.
    assert_eq!(cancelled.transferred.rootfs_ahead_bytes, 0);
    world.assert_whole("Edge1", "cancelled while copying ahead");
}

/// Whichever of both comes first, the cancel or the commit.
fn a_cancel_while_it_is_handed_over_leaves_one_copy(world: &World) {
    let mut source = "Edge1";
    for _ in 0..3 {
        let target = if source == "Edge3" { "Edge2" } else { "Edge3" };
        let begun = world.ask(APP, target, 0).unwrap();
        world.await_state(&begun, &[MigrationState::HandingOver]);
        let what = format!("cancelled while it was handed over to {target}");
        match cancel(world, &begun) {
            Ok(cancelled) => assert_eq!(cancelled.state, MigrationState::Cancelled, "{what}"),
            Err(_) => {
                let ended = world.end_of(&begun);
                assert_eq!(ended.state, MigrationState::Completed, "{what}");
                source = target;
            }
        }
        world.assert_whole(source, &what);
    }
    if source != "Edge1" {
        assert_eq!(world.go(APP, "Edge1").state, MigrationState::Completed);
    }
}

fn a_target_that_was_declared_lost_clears_up_when_it_is_there_again(world: &mut World) {
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    world.await_state(&begun, &[MigrationState::CopyingAhead]);
    world.fleet.agent("Edge2").unwrap().kill().unwrap();
    world.await_state(&begun, &[MigrationState::DiscardingTarget]);
    let path = format!("/v1/migrations/{}/give-up?wait=50", begun.id);
    let lost = json!(GiveUp {
        lost: LostEdge::Target
    });
    let mut given_up: Option<Migration> = None;
    // Refused until it has been asked in vain.
    wait_until("the move to be given up", 60, || {
        let administrator = world.fleet.account(ADMINISTRATOR).unwrap();
        given_up = administrator.post(&path, &lost).ok();
        given_up.is_some()
    })
    .unwrap();
    let given_up = given_up.unwrap();
    assert_eq!(given_up.state, MigrationState::Failed, "{given_up:?}");
    assert_eq!(world.running_on(APP), ["Edge1"]);
    assert_ne!(
        world.left_on(APP, "Edge2"),
        "",
        "nobody was there to clear up"
    );
    world.fleet.start_agent("Edge2").unwrap();
    wait_until("it to be cleared up", 60, || {
        world.left_on(APP, "Edge2").is_empty()
    })
    .unwrap();
    world.assert_whole("Edge1", "its target was declared lost");
    world.fleet.await_healthy(&world.progress).unwrap();
    assert_eq!(world.go(APP, "Edge2").state, MigrationState::Completed);
    world.assert_whole("Edge2", "moved to where it was lost before");
}

fn the_ledger_tells_all_of_it_truly(world: &mut World) {
    let report = world.sound_ledger();
    assert!(report["kinds"]["cancel"].as_u64().is_some_and(|n| n >= 1));
    assert_eq!(report["kinds"]["lost"], json!(1), "{report:#}");
}
