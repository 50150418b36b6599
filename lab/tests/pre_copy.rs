//! Moves of a real container on a kernel that tracks what is written to memory. Not every kernel
//! does: they run in a guest whose kernel does.
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

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carnet_lab::guest::{Guest, Job};
use carnet_lab::progress::Progress;

/// How long the guest may take, from power on to power off. It emulates its processors.
const LIMIT: Duration = Duration::from_secs(900);

#[test]
fn memory_that_is_written_to_is_tracked_in_a_guest() {
    let progress = Progress::new(Arc::default());
    let this = std::env::current_exe().unwrap();
    let lab = PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab"));
    let job = Job {
        programs: vec![lab.with_file_name("carnet"), lab, this.clone()],
        command: [
            this.to_str().unwrap(),
            "--ignored",
            "--exact",
            "inside::a_container_moves",
            "--nocapture",
        ]
        .map(str::to_owned)
        .to_vec(),
        limit: LIMIT,
    };
    let guest = Guest::ensure(&progress).unwrap();
    let outcome = guest
        .run(&job, &progress)
        .unwrap_or_else(|error| panic!("{error}"));
    println!("{}", outcome.output);
    assert_eq!(outcome.status, 0);
    assert!(outcome.output.contains("1 passed"));
}

/// What runs in the guest.
mod inside {
    use carnet_api::v1::{Migration, MigrationState, Strategy};

    use super::traces::traces;
    use super::world::{APP, EDGES, World};

    const LAB: &str = "t-pre-copy";

    /// One lab for all of it: what each part leaves is what the next begins with.
    #[test]
    #[ignore = "it needs a kernel that tracks memory; the test above runs it on one"]
    fn a_container_moves() {
        // As on many machines; the lab does without.
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        assert_eq!(apparmor.unwrap().trim(), "Y");
        let mut world = World::begin(LAB);
        // Its processors are emulated.
        world.patience = 5;
        for edge in EDGES {
            let told = world.on(edge, &["criu", "check", "--feature", "mem_dirty_track"]);
            assert!(told.contains("mem_dirty_track is supported"), "{told}");
        }
        // It is what is chosen where nobody asks for anything; and what moved so moves so again.
        for to in ["Edge2", "Edge1"] {
            let migration = world.go(APP, to);
            went_ahead(&migration);
            world.assert_whole(to, &format!("moved to {to}"));
        }
        memory_goes_again_where_the_source_s_agent_dies_meanwhile(&mut world);
        let ledger = world.sound_ledger();
        assert!(ledger.is_object(), "{ledger}");
        drop(world);
        assert_eq!(traces(LAB), Vec::<String>::new());
    }

    /// Its memory went ahead, and what is left for the standstill is less than went.
    fn went_ahead(migration: &Migration) {
        assert_eq!(migration.state, MigrationState::Completed, "{migration:?}");
        let chosen = migration.strategy.as_ref().unwrap();
        assert_eq!(chosen.strategy, Strategy::PreCopy, "{chosen:?}");
        let sent = migration.transferred;
        assert!(sent.memory_ahead_bytes > 1 << 20, "{sent:?}");
        assert!(sent.image_bytes < sent.memory_ahead_bytes, "{sent:?}");
    }

    /// What it dumped counts for nothing: nobody knows what was written to since.
    fn memory_goes_again_where_the_source_s_agent_dies_meanwhile(world: &mut World) {
        let begun = world.ask(APP, "Edge2", 0).unwrap();
        world.await_state(&begun, &[MigrationState::CopyingAhead]);
        world.fleet.agent("Edge1").unwrap().kill().unwrap();
        world.fleet.start_agent("Edge1").unwrap();
        let ended = world.end_of(&begun);
        // As in every move whose agent dies: it is carried through, or the source goes on.
        let edge = match ended.state {
            MigrationState::Failed => "Edge1",
            _ => {
                went_ahead(&ended);
                "Edge2"
            }
        };
        world.assert_whole(edge, "the source's agent was killed while copying ahead");
    }
}
