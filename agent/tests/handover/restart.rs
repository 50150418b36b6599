//! Agents that are killed and started anew: what they have to do with a hand-over is on disk.

use std::fs::{self, File};
use std::time::{Duration, Instant, SystemTime};

use carnet_agent::runtime::ContainerName;
use carnet_api::v1::ContainerState;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use crate::scene::{
    BOUND, COURSE, Caller, Move, SOURCE, Scene, TARGET, Way, answer, files, stream as sent,
};

#[test]
fn an_agent_started_anew_between_any_two_orders_goes_on() {
    for edges in [[true, false], [false, true], [true, true]] {
        // Once after each order, and once after every one.
        for position in 0..=COURSE.len() {
            let mut scene = Scene::new();
            let mut a_move = scene.a_move();
            let before = files(&scene.source().rootfs());
            for (step, name) in COURSE.iter().enumerate() {
                scene.go(&mut a_move, name);
                if step == position || position == COURSE.len() {
                    for edge in [SOURCE, TARGET] {
                        if edges[edge] {
                            scene.edges[edge].restart();
                        }
                    }
                    // Not sure whether the order was done, the control plane asks again.
                    scene.go(&mut a_move, name);
                }
            }
            assert!(scene.source().is_empty());
            assert!(scene.target().runs());
            assert_eq!(before, files(&scene.target().rootfs()));
        }
    }
}

#[test]
fn an_end_is_remembered_by_an_agent_started_anew() {
    for (last, end, refused) in [
        ("source/hand-over", "source/resume", "source/hand-over"),
        ("source/hand-over", "target/discard", "target/prepare"),
        ("target/restore", "source/release", "source/resume"),
        ("target/restore", "target/clean", "target/discard"),
    ] {
        let mut scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, last);
        scene.go(&mut a_move, end);
        for edge in [SOURCE, TARGET] {
            scene.edges[edge].restart();
        }
        let before = scene.edges.each_ref().map(|edge| edge.files());
        scene.go(&mut a_move, end);
        scene.give(&a_move, refused).expect_err(refused);
        let after = scene.edges.each_ref().map(|edge| edge.files());
        assert_eq!(before, after, "after {end}");
    }
}

/// Puts so much into the container that its streams do not fit into any buffer.
fn fill(scene: &Scene) {
    let mut noise = vec![0; 4 << 20];
    StdRng::seed_from_u64(1).fill_bytes(&mut noise);
    fs::write(scene.source().rootfs().join("large"), &noise).unwrap();
}

#[test]
fn an_agent_killed_in_the_midst_of_an_order_goes_on_when_it_is_given_again() {
    // Before the TLS handshake, before the request, early and late in the stream.
    for bytes in [1, 2_000, 100_000, 3_000_000] {
        for name in ["source/copy-ahead", "source/hand-over"] {
            for killed in [SOURCE, TARGET] {
                let mut scene = Scene::new();
                fill(&scene);
                let before = files(&scene.source().rootfs());
                let mut a_move = scene.a_move();
                scene.go_to(&mut a_move, "target/prepare");
                let way = Way::new(&scene, &scene.target().address(), bytes);
                a_move.by_way_of = Some(way.address.clone());
                let asked = scene.request(Caller::Control, &a_move, name);
                let asked =
                    scene.spawn(async move { answer(asked).await.is_ok_and(|a| a.is_ok()) });
                way.wait();
                scene.edges[killed].kill();
                // Where the target died, the source notices, and says that it failed.
                drop(way);
                assert!(!scene.block_on(asked).unwrap());
                scene.edges[killed].start();
                a_move.by_way_of = None;
                let frozen = scene.source().is_frozen();
                match (name, bytes) {
                    // It freezes after the target stands by, which takes that much or less.
                    ("source/hand-over", 100_000..) => assert!(frozen),
                    ("source/hand-over", 2_000) => assert!(frozen || scene.source().runs()),
                    _ => assert!(scene.source().runs()),
                }
                scene.go(&mut a_move, name);
                for name in &COURSE[3..] {
                    scene.go(&mut a_move, name);
                }
                assert!(scene.source().is_empty());
                assert!(scene.target().runs());
                assert_eq!(before, files(&scene.target().rootfs()));
            }
        }
    }
}

#[test]
fn a_source_killed_in_the_midst_of_a_hand_over_can_resume() {
    let mut scene = Scene::new();
    fill(&scene);
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let way = Way::new(&scene, &scene.target().address(), 100_000);
    a_move.by_way_of = Some(way.address.clone());
    let asked = scene.request(Caller::Control, &a_move, "source/hand-over");
    scene.spawn(answer(asked));
    way.wait();
    scene.edges[SOURCE].restart();
    assert!(scene.source().is_frozen());
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
}

/// A stream of the source's that stops in its midst, as that of a source whose machine died: the
/// connection is open, and nothing comes any more.
struct Stuck {
    rest: tokio::sync::mpsc::UnboundedSender<Result<Vec<u8>, std::io::Error>>,
    answer: tokio::task::JoinHandle<Option<u16>>,
    bytes: Vec<u8>,
}

impl Stuck {
    fn new(scene: &Scene, a_move: &Move) -> Self {
        let directory = tempfile::TempDir::new().unwrap();
        for name in ["changing", "stale"] {
            fs::write(directory.path().join(name), "stale").unwrap();
        }
        // Header and content of the second file, and the end of the archive, do not come.
        let [beginning, end] = sent(directory.path(), 4 * 512);
        let (rest, mut pieces) = tokio::sync::mpsc::unbounded_channel();
        let (client, base) = scene.client(Caller::Edge(a_move.order.source), scene.target());
        let url = format!("{base}/v1/handovers/{}/rootfs", a_move.order.migration);
        let body = stream::poll_fn(move |context| pieces.poll_recv(context));
        let request = client.put(url).body(reqwest::Body::wrap_stream(body));
        let answer = scene.spawn(async move {
            match answer(request).await {
                Ok(Ok(_)) => Some(200),
                Ok(Err(problem)) => Some(problem.status),
                Err(_) => None,
            }
        });
        rest.send(Ok(beginning)).unwrap();
        let stuck = Self {
            rest,
            answer,
            bytes: end,
        };
        let deadline = Instant::now() + BOUND;
        let has_arrived = || {
            let files = files(&scene.target().rootfs());
            files.values().any(|content| content == b"stale")
        };
        while !has_arrived() {
            assert!(Instant::now() < deadline, "nothing arrives");
            std::thread::sleep(Duration::from_millis(5));
        }
        stuck
    }

    /// Sends the rest after all. Returns the status that was answered, if any was.
    fn go_on(self, scene: &Scene) -> Option<u16> {
        let _ = self.rest.send(Ok(self.bytes));
        drop(self.rest);
        scene.block_on(self.answer).unwrap()
    }
}

#[test]
fn a_stream_that_is_stuck_gives_way_to_the_next_and_writes_nothing_any_more() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let stuck = Stuck::new(&scene, &a_move);
    scene.go(&mut a_move, "source/copy-ahead");
    assert_eq!(stuck.go_on(&scene), Some(409));
    assert_eq!(
        files(&scene.source().rootfs()),
        files(&scene.target().rootfs())
    );
    for name in &COURSE[3..] {
        scene.go(&mut a_move, name);
    }
    assert!(scene.target().runs());
}

#[test]
fn a_stream_that_is_stuck_ends_when_the_hand_over_is_discarded() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let stuck = Stuck::new(&scene, &a_move);
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
    assert_eq!(stuck.go_on(&scene), Some(409));
    assert!(scene.target().is_empty());
}

/// Puts a record on disk back to what it was before the last order was noted down.
fn put_back(scene: &Scene, a_move: &Move, from: &str, to: &str) {
    let path = scene.target().record(a_move.order.migration);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&path, text.replace(from, to)).unwrap();
}

#[test]
fn a_target_killed_between_restoring_and_noting_it_down_has_not_been_heard() {
    for end in ["target/restore", "target/discard"] {
        let mut scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "target/restore");
        scene.edges[TARGET].kill();
        put_back(&scene, &a_move, "restored", "prepared");
        scene.edges[TARGET].start();
        a_move.raised = 1;
        scene.go(&mut a_move, end);
        match end {
            // It runs already, and that is found.
            "target/restore" => {
                assert!(scene.target().runs());
                scene.give(&a_move, "target/discard").unwrap_err();
            }
            // Nobody has heard it: it may go.
            _ => {
                assert!(scene.target().is_empty());
                a_move.raised = 2;
                scene.go(&mut a_move, "source/resume");
                assert!(scene.source().runs());
            }
        }
    }
}

#[test]
fn a_target_killed_while_it_prepares_begins_again_or_discards() {
    for end in ["target/prepare", "target/discard"] {
        let mut scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, "target/prepare");
        scene.edges[TARGET].kill();
        put_back(&scene, &a_move, "prepared", "preparing");
        let half = scene.target().rootfs().join("half");
        fs::write(&half, "made").unwrap();
        scene.edges[TARGET].start();
        // Nothing is received, or brought to life, from what was prepared by half.
        scene.give(&a_move, "source/copy-ahead").unwrap_err();
        scene.give(&a_move, "target/restore").unwrap_err();
        scene.go(&mut a_move, end);
        assert!(!half.exists());
        if end == "target/discard" {
            assert!(scene.target().is_empty());
            continue;
        }
        let (state, _) = scene.target().container().unwrap();
        assert_eq!(state, ContainerState::Stopped);
        for name in &COURSE[2..] {
            scene.go(&mut a_move, name);
        }
        assert!(scene.target().runs());
    }
}

#[test]
fn an_agent_that_is_asked_to_end_carries_out_what_it_was_ordered_though_the_caller_hung_up() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/copy-ahead");
    let way = Way::new(&scene, &scene.target().address(), 1);
    a_move.by_way_of = Some(way.address.clone());
    let asked = scene.request(Caller::Control, &a_move, "source/hand-over");
    let asked = scene.spawn(answer(asked));
    way.wait();
    asked.abort();
    assert!(scene.block_on(asked).unwrap_err().is_cancelled());

    let address = scene.source().address();
    let ended = scene.edges[SOURCE].stop();
    // It hears nobody any more, so that the end has begun.
    let deadline = Instant::now() + BOUND;
    while std::net::TcpStream::connect(&address).is_ok() {
        assert!(Instant::now() < deadline, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    way.open();
    ended.join().unwrap().unwrap();
    let record = fs::read_to_string(scene.source().record(a_move.order.migration)).unwrap();
    assert!(record.contains("image_bytes"), "{record}");
    scene.go(&mut a_move, "target/restore");
    assert!(scene.target().runs());
}

#[test]
fn hand_overs_that_ended_long_ago_are_forgotten_and_no_others() {
    let mut scene = Scene::new();
    let day = Duration::from_secs(24 * 3_600);
    // Days since, whether it ended, and whether it is remembered.
    let cases = [
        (0, true, true),
        (29, true, true),
        (31, true, false),
        (31, false, true),
    ];
    let moves = cases.map(|(days, is_ended, is_remembered)| {
        let mut a_move = scene.a_move_between(TARGET, SOURCE);
        a_move.order.container = format!("App-{days}-{is_ended}");
        match is_ended {
            true => scene.go(&mut a_move, "source/resume"),
            false => {
                let name = ContainerName::new(&a_move.order.container).unwrap();
                scene.target().simulated().create(&name, "").unwrap();
                scene.go(&mut a_move, "source/prepare")
            }
        };
        let record = scene.target().record(a_move.order.migration);
        File::options()
            .write(true)
            .open(&record)
            .unwrap()
            .set_modified(SystemTime::now() - day * days)
            .unwrap();
        (record, is_remembered)
    });
    scene.edges[TARGET].restart();
    for (record, is_remembered) in moves {
        assert_eq!(record.exists(), is_remembered, "{}", record.display());
    }
}
