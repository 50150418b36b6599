//! A guest: what is run in it is told truly, and it ends whatever happens in it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carnet_lab::error::LabError;
use carnet_lab::guest::{Guest, Job, Outcome};
use carnet_lab::progress::Progress;

const PROGRAM: &str = env!("CARGO_BIN_EXE_carnet-lab");

fn run(script: &str, seconds: u64) -> Result<Outcome, LabError> {
    let progress = Progress::new(Arc::default());
    let job = Job {
        programs: vec![PathBuf::from(PROGRAM)],
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        limit: Duration::from_secs(seconds),
    };
    Guest::ensure(&progress).unwrap().run(&job, &progress)
}

/// One after the other: only one guest runs at a time.
#[test]
fn a_guest_tells_what_became_of_its_command_and_ends() {
    what_a_command_says_and_how_it_ends_is_told();
    a_guest_that_falls_is_told_with_what_its_kernel_said();
    a_guest_that_does_not_end_is_ended();
}

fn what_a_command_says_and_how_it_ends_is_told() {
    let script = format!("{PROGRAM} --version; echo 'it failed' >&2; exit 7");
    let outcome = run(&script, 120).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(outcome.status, 7, "{}", outcome.output);
    let version = concat!("carnet-lab ", env!("CARGO_PKG_VERSION"));
    assert_eq!(outcome.output, format!("{version}\nit failed\n"));
}

fn a_guest_that_falls_is_told_with_what_its_kernel_said() {
    let error = run("echo c > /proc/sysrq-trigger", 120).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("ended before its time"), "{error}");
    assert!(error.contains("sysrq triggered crash"), "{error}");
}

fn a_guest_that_does_not_end_is_ended() {
    let error = run("sleep 1000", 15).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("did not end within 15 s"), "{error}");
    assert_eq!(children(), "", "it is still there");
}

/// The processes that this one has begun and that have not been waited for.
fn children() -> String {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| {
            std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default()
        })
        .collect()
}
