//! The demo, as a user runs it: what it shows, and that it leaves nothing, however it ends.
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

use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use carnet_lab::lab::down;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use traces::traces;

const LAB: &str = env!("CARGO_BIN_EXE_carnet-lab");

/// A lab's name. Dropped, the lab is removed, if it is there.
struct Name(&'static str);

impl Drop for Name {
    fn drop(&mut self) {
        if let Err(error) = down(self.0) {
            eprintln!("{error}");
        }
    }
}

/// A demo that is under way, as on a terminal of its own. Dropped, it is killed.
struct Demo(Child);

impl Demo {
    fn start(name: &Name) -> Self {
        // Whoever starts the tests may have had them ignore Ctrl-C, and they would pass it on.
        let child = Command::new("env")
            .args(["--default-signal=INT", LAB])
            .args(["demo", "--name", name.0])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until it tells `text`.
    fn await_step(&mut self, text: &str) {
        // What is read ahead is lost, and not missed: the next thing is its end.
        let mut lines = BufReader::new(self.0.stderr.as_mut().unwrap()).lines();
        assert!(
            lines.any(|line| line.unwrap().contains(text)),
            "it ended before `{text}`"
        );
    }

    /// As Ctrl-C does: to all that its terminal has in the foreground. Returns what it ends with.
    fn end_by(mut self, signal: Signal) -> Option<i32> {
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        killpg(group, signal).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended already where its test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn everything_comes_out_as_in_the_paper_and_the_lab_can_be_used_on() {
    let name = Name("t-demo");
    let demo = |options: &[&str]| -> Output {
        Command::new(LAB)
            .args(["demo", "--name", name.0])
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let output = demo(&["--stay"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{shown}\n{told}");
    for part in [
        "8 edges in 4 regions",
        "Figure 19",
        "Table 7",
        "Table 8",
        "Edge2 denied: cDAl requires",
        "Edge4 denied: cDAo requires",
        "All 15 runs came out as in the paper",
        "App1 moved 24 times",
        "./demo down --name t-demo",
        "In a browser: https://127.0.0.1:",
        "audrey, password ",
    ] {
        assert!(shown.contains(part), "`{part}` is missing in:\n{shown}");
    }

    // What is shown is all that it takes to go on.
    let carnet = |arguments: &[&str]| -> Output {
        let environment = shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("export ")?.split_once('='))
            .filter(|(name, _)| name.starts_with("CARNET_"));
        Command::new(Path::new(LAB).with_file_name("carnet"))
            .args(arguments)
            .envs(environment)
            .output()
            .unwrap()
    };
    let denied = carnet(&["audit", "App1", "--to", "Edge2"]);
    assert_eq!(denied.status.code(), Some(3), "{denied:?}");
    let moved = carnet(&["migrate", "App1", "--to", "Edge3"]);
    assert!(moved.status.success(), "{moved:?}");
    let container = carnet(&["container", "show", "App1"]);
    let container = String::from_utf8(container.stdout).unwrap();
    assert!(container.contains("Edge3"), "{container}");

    // Another demo does not take its place.
    let refused = demo(&[]);
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(told.contains("./demo down --name t-demo"), "{told}");
    assert!(carnet(&["edge", "list"]).status.success());

    let downed = Command::new(LAB)
        .args(["down", "--name", name.0])
        .status()
        .unwrap();
    assert!(downed.success());
    assert_eq!(traces(name.0), Vec::<String>::new());
}

#[test]
fn a_demo_that_is_ended_by_a_signal_leaves_nothing() {
    let name = Name("t-ended");
    for (step, signal, code) in [
        ("starting carnet agent", Signal::SIGINT, 130),
        ("the client outside connects", Signal::SIGTERM, 143),
        // In the middle of the move back.
        ("case 1: App1 to Edge3", Signal::SIGINT, 130),
    ] {
        let mut demo = Demo::start(&name);
        demo.await_step(step);
        assert!(!traces(name.0).is_empty());
        assert_eq!(demo.end_by(signal), Some(code), "{step}");
        assert_eq!(traces(name.0), Vec::<String>::new(), "{step}");
    }
}

#[test]
fn what_a_killed_demo_leaves_goes_with_the_next_one() {
    let name = Name("t-killed");
    let mut killed = Demo::start(&name);
    killed.await_step("case 1: App1 to Edge2");
    killed.0.kill().unwrap();
    assert_eq!(killed.0.wait().unwrap().signal(), Some(9));
    assert!(!traces(name.0).is_empty());

    let mut next = Demo::start(&name);
    next.await_step("starting App1");
    assert_eq!(next.end_by(Signal::SIGINT), Some(130));
    assert_eq!(traces(name.0), Vec::<String>::new());
}
