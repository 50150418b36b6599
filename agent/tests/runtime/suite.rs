//! The promises. Each function finds the container running and leaves it so.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek, Write};
use std::path::Path;

use carnet_agent::runtime::{ContainerName, Done, Runtime};
use carnet_agent::tree;
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;

const STOP: Strategy = Strategy::StopAndCopy;

/// A container that runs, as those know it who use it.
pub trait Inside {
    fn name(&self) -> &ContainerName;

    /// Has it hold `text` in memory, and nowhere else.
    fn remember(&self, text: &str);

    /// What it was made to hold in memory. It answers only while it runs and can be heard.
    fn recall(&self) -> String;

    /// Writes `text` to `/run/carnet-claim` inside it; `None`: removes that.
    fn place_claim(&self, text: Option<&str>);
}

async fn state(runtime: &impl Runtime, name: &ContainerName) -> Option<ContainerState> {
    let containers = runtime.containers().await.unwrap();
    let mut found = containers
        .into_iter()
        .filter(|container| container.name == name.as_str());
    let state = found.next().map(|container| container.state);
    assert!(found.next().is_none(), "`{name}` is listed twice");
    state
}

/// Does it, and again: both must succeed.
async fn twice<F: Future<Output = Done>>(operation: impl Fn() -> F) {
    operation().await.unwrap();
    operation().await.unwrap();
}

/// All of it, one after the other, on one container.
pub async fn all(runtime: &impl Runtime, container: &impl Inside) {
    it_is_listed_and_described(runtime, container).await;
    it_tells_the_claim(runtime, container).await;
    it_is_frozen_and_thawed(runtime, container).await;
    it_is_dumped_while_frozen_and_runs_on(runtime, container).await;
    its_memory_is_given_out_and_it_runs_on(runtime, container).await;
    its_memory_is_dumped_while_it_runs(runtime, container).await;
    it_ends_and_comes_back_to_life_as_it_was(runtime, container).await;
    it_is_stopped_and_started_anew(runtime, container).await;
    it_comes_without_its_memory(runtime, container).await;
    what_is_not_there_is_not_there(runtime, container).await;
}

pub async fn it_is_listed_and_described(runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    assert_eq!(runtime.problems().await, Vec::<String>::new());
    assert_eq!(runtime.live_problems().await, Vec::<String>::new());
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    container.remember("something");
    let described = runtime.describe(name).await.unwrap();
    assert!(described.memory_bytes > 0);
    assert!(!described.is_stopped && !runtime.is_stopped(name));
    assert!(runtime.rootfs(name).is_dir());
    // Its place is taken.
    let refusal = runtime.check(name, &described).await.unwrap_err();
    assert!(refusal.to_string().contains("already"), "{refusal}");
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
}

pub async fn it_tells_the_claim(runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    container.place_claim(None);
    assert_eq!(runtime.placed_claim(name).await.unwrap(), None);
    container.place_claim(Some("a-code\n"));
    let code = runtime.placed_claim(name).await.unwrap();
    assert_eq!(code.as_deref(), Some("a-code"));
    container.place_claim(None);
    assert_eq!(runtime.placed_claim(name).await.unwrap(), None);
}

pub async fn it_is_frozen_and_thawed(runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    container.remember("before the freeze");
    twice(|| runtime.freeze(name)).await;
    assert_eq!(state(runtime, name).await, Some(ContainerState::Frozen));
    // Frozen, it can still be described: it has not ended.
    runtime.describe(name).await.unwrap();
    twice(|| runtime.thaw(name)).await;
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    assert_eq!(container.recall(), "before the freeze");
    // Thawing what runs changes nothing.
    runtime.thaw(name).await.unwrap();
    assert_eq!(container.recall(), "before the freeze");
}

pub async fn it_is_dumped_while_frozen_and_runs_on(
    runtime: &impl Runtime,
    container: &impl Inside,
) {
    let name = container.name();
    runtime.dump(name, STOP).await.unwrap_err();
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    container.remember("before the dump");
    // What is made ready is used, or not, and counts for nothing once it runs on.
    twice(|| runtime.ready_to_freeze(name)).await;
    runtime.thaw(name).await.unwrap();
    assert_eq!(container.recall(), "before the dump");
    runtime.ready_to_freeze(name).await.unwrap();
    runtime.freeze(name).await.unwrap();
    for _ in 0..2 {
        assert!(runtime.dump(name, STOP).await.unwrap().is_none());
    }
    assert_eq!(state(runtime, name).await, Some(ContainerState::Frozen));
    assert!(holds_something(&runtime.images(name)));
    runtime.thaw(name).await.unwrap();
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    assert_eq!(container.recall(), "before the dump");
    // What was memory is not left lying about.
    assert!(!holds_something(&runtime.images(name)));
}

/// Nobody takes what is given out: that needs another edge. Where it is not taken, nothing is lost.
pub async fn its_memory_is_given_out_and_it_runs_on(
    runtime: &impl Runtime,
    container: &impl Inside,
) {
    let name = container.name();
    let described = runtime.describe(name).await.unwrap();
    if !described.post_copy_problems.is_empty() {
        return;
    }
    let text = "before memory is given out";
    container.remember(text);
    runtime.freeze(name).await.unwrap();
    for _ in 0..2 {
        let pages = runtime.dump(name, Strategy::PostCopy).await.unwrap();
        assert!(pages.is_some(), "its memory is not given out");
        assert_eq!(state(runtime, name).await, Some(ContainerState::Frozen));
        assert!(holds_something(&runtime.images(name)));
        // With the stream the giving out ends, and another may begin.
        drop(pages);
    }
    assert_eq!(state(runtime, name).await, Some(ContainerState::Frozen));
    runtime.thaw(name).await.unwrap();
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    assert_eq!(container.recall(), text);
    assert!(!holds_something(&runtime.images(name)));
}

/// Whether memory can go ahead from here.
async fn can_go_ahead(runtime: &impl Runtime, name: &ContainerName) -> bool {
    let described = runtime.describe(name).await.unwrap();
    described.pre_copy_problems.is_empty()
}

pub async fn its_memory_is_dumped_while_it_runs(runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    if !can_go_ahead(runtime, name).await {
        return;
    }
    container.remember("before it is dumped");
    runtime.dump_ahead(name, false).await.unwrap_err();
    for is_first in [true, false, true] {
        runtime.dump_ahead(name, is_first).await.unwrap();
        assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
        assert!(holds_something(&runtime.images(name)));
        assert_eq!(container.recall(), "before it is dumped");
    }
    // It is off: nothing of it is left, and nothing counts.
    runtime.thaw(name).await.unwrap();
    assert!(!holds_something(&runtime.images(name)));
    runtime.dump_ahead(name, false).await.unwrap_err();
    assert_eq!(container.recall(), "before it is dumped");
}

pub async fn it_ends_and_comes_back_to_life_as_it_was(
    runtime: &impl Runtime,
    container: &impl Inside,
) {
    let ahead = can_go_ahead(runtime, container.name()).await;
    // What came to life once moves again.
    for strategy in [STOP, Strategy::PreCopy, STOP] {
        if ahead || strategy != Strategy::PreCopy {
            it_moves_by(strategy, runtime, container).await;
        }
    }
}

async fn it_moves_by(strategy: Strategy, runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    if strategy == Strategy::PreCopy {
        for text in ["long before the move", "a while before the move"] {
            container.remember(text);
            let is_first = text.starts_with("long");
            runtime.dump_ahead(name, is_first).await.unwrap();
        }
    }
    container.remember("before the move");
    let described = runtime.describe(name).await.unwrap();
    runtime.freeze(name).await.unwrap();
    runtime.dump(name, strategy).await.unwrap();
    let mut rootfs = set_aside(&runtime.rootfs(name));
    let mut images = set_aside(&runtime.images(name));

    twice(|| runtime.remove(name)).await;
    assert_eq!(state(runtime, name).await, None);
    assert!(!runtime.rootfs(name).exists());
    assert!(!runtime.images(name).exists());
    runtime.describe(name).await.unwrap_err();

    runtime.check(name, &described).await.unwrap();
    assert_eq!(state(runtime, name).await, None, "a check makes nothing");
    twice(|| runtime.prepare(name, &described)).await;
    assert_eq!(state(runtime, name).await, Some(ContainerState::Stopped));
    runtime.check(name, &described).await.unwrap_err();
    // It does not run, and there is nothing to bring it to life from.
    assert!(runtime.describe(name).await.unwrap().is_stopped);
    runtime.freeze(name).await.unwrap_err();
    runtime.dump(name, STOP).await.unwrap_err();
    for strategy in [STOP, Strategy::PostCopy, Strategy::PreCopy] {
        runtime.restore(name, strategy, None).await.unwrap_err();
    }
    assert_eq!(state(runtime, name).await, Some(ContainerState::Stopped));

    put_back(&mut rootfs, &runtime.rootfs(name));
    twice(async || runtime.expect_images(name)).await;
    put_back(&mut images, &runtime.images(name));
    twice(|| runtime.stand_by(name, strategy)).await;
    twice(|| runtime.restore(name, strategy, None)).await;
    // All but the last word.
    assert!(!runtime.has_started(name));
    assert_ne!(state(runtime, name).await, Some(ContainerState::Running));
    twice(|| runtime.start(name)).await;
    assert!(runtime.has_started(name));
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    assert_eq!(container.recall(), "before the move");
    twice(|| runtime.forget_images(name)).await;
    assert!(!holds_something(&runtime.images(name)));
    // It runs already, and what it did since is not undone.
    container.remember("after the move");
    runtime.restore(name, strategy, None).await.unwrap();
    assert_eq!(container.recall(), "after the move");
}

pub async fn it_is_stopped_and_started_anew(runtime: &impl Runtime, container: &impl Inside) {
    let name = container.name();
    let file = runtime.rootfs(name).join("tmp/kept");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, "kept").unwrap();
    container.remember("lost");
    // That it ran is for whoever stopped it to know.
    for runs in [false, true] {
        twice(|| runtime.stop(name)).await;
        assert_eq!(state(runtime, name).await, Some(ContainerState::Stopped));
        assert!(runtime.is_stopped(name));
        assert!(runtime.mapped(name).unwrap().is_empty());
        twice(|| runtime.boot(name, runs)).await;
        assert_eq!(runtime.is_stopped(name), !runs);
        let described = runtime.describe(name).await.unwrap();
        assert_eq!(described.is_stopped, !runs);
    }
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    container.remember("anew");
    assert_eq!(container.recall(), "anew");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    std::fs::remove_file(&file).unwrap();
}

pub async fn it_comes_without_its_memory(runtime: &impl Runtime, container: &impl Inside) {
    const COLD: Strategy = Strategy::Cold;
    let name = container.name();
    for runs in [false, true] {
        runtime.stop(name).await.unwrap();
        runtime.boot(name, false).await.unwrap();
        let described = runtime.describe(name).await.unwrap();
        let mut rootfs = set_aside(&runtime.rootfs(name));
        runtime.remove(name).await.unwrap();
        twice(|| runtime.prepare(name, &described)).await;
        put_back(&mut rootfs, &runtime.rootfs(name));
        twice(|| runtime.stand_by(name, COLD)).await;
        twice(|| runtime.restore(name, COLD, None)).await;
        assert!(!runtime.has_started(name));
        assert_eq!(state(runtime, name).await, Some(ContainerState::Stopped));
        twice(|| runtime.boot(name, runs)).await;
        // It may have been started by others since, where it was not started here.
        assert!(runtime.has_started(name));
        assert_eq!(runtime.is_stopped(name), !runs);
        runtime.forget_images(name).await.unwrap();
    }
    assert_eq!(state(runtime, name).await, Some(ContainerState::Running));
    container.remember("anew");
    assert_eq!(container.recall(), "anew");
}

pub async fn what_is_not_there_is_not_there(runtime: &impl Runtime, container: &impl Inside) {
    let name = ContainerName::new("carnet-suite-absent").unwrap();
    runtime.describe(&name).await.unwrap_err();
    runtime.placed_claim(&name).await.unwrap_err();
    runtime.freeze(&name).await.unwrap_err();
    runtime.dump_ahead(&name, true).await.unwrap_err();
    runtime.stop(&name).await.unwrap_err();
    assert!(!runtime.is_stopped(&name));
    for strategy in [STOP, Strategy::PostCopy, Strategy::PreCopy] {
        runtime.dump(&name, strategy).await.unwrap_err();
        runtime.restore(&name, strategy, None).await.unwrap_err();
    }
    // What undoes has nothing to do.
    runtime.thaw(&name).await.unwrap();
    runtime.start(&name).await.unwrap();
    runtime.boot(&name, true).await.unwrap();
    runtime.forget_images(&name).await.unwrap();
    runtime.remove(&name).await.unwrap();
    assert_eq!(state(runtime, &name).await, None);
    assert!(!runtime.rootfs(&name).exists());
    assert!(!runtime.images(&name).exists());
    // Nor has any of it touched another.
    let other = container.name();
    assert_eq!(state(runtime, other).await, Some(ContainerState::Running));
    assert_ne!(runtime.rootfs(&name), runtime.rootfs(other));
    assert_ne!(runtime.images(&name), runtime.images(other));
}

fn holds_something(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// A tree as it goes to another edge.
fn set_aside(directory: &Path) -> File {
    let mut aside = BufWriter::new(tempfile::tempfile().unwrap());
    tree::pack(directory, None, &mut aside).unwrap();
    aside.flush().unwrap();
    aside.into_inner().unwrap()
}

fn put_back(aside: &mut File, directory: &Path) {
    aside.rewind().unwrap();
    tree::unpack(directory, BufReader::new(aside)).unwrap();
}
