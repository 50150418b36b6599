//! What is packed and unpacked is what was there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use carnet_agent::tree::{Manifest, pack, unpack};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::Config;
use tempfile::TempDir;

use crate::change::{Change, changes, settle};
use crate::seen::{self, Kind, Seen};

/// A tree and its copy.
struct Pair {
    directory: TempDir,
    manifest: Option<Manifest>,
}

impl Pair {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for name in ["source", "target"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self {
            directory,
            manifest: None,
        }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// Sends everything the first time, then what has changed. Returns the stream's length.
    fn send(&mut self) -> usize {
        let mut stream = Vec::new();
        let manifest = pack(&self.source(), self.manifest.as_ref(), &mut stream).unwrap();
        unpack(&self.target(), stream.as_slice()).unwrap();
        self.manifest = Some(manifest);
        stream.len()
    }

    fn source_without_sockets(&self) -> BTreeMap<PathBuf, Seen> {
        let mut seen = seen::tree(&self.source());
        seen.retain(|_, seen| seen.kind != Kind::Socket);
        seen
    }
}

/// What a tree is made of, and how it changes before each later pass.
fn passes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    (changes(0..30), vec(changes(0..12), 0..3)).prop_map(|(first, later)| {
        let mut passes = vec![first];
        passes.extend(later);
        passes
    })
}

proptest! {
    // Every case is many trees: they wait together for their times to settle.
    #![proptest_config(Config::with_cases(6))]

    #[test]
    fn a_tree_arrives_as_it_was_however_it_changes(trees in vec((passes(), any::<bool>()), 16)) {
        let mut pairs: Vec<_> = trees.iter().map(|_| Pair::new()).collect();
        for pass in 0..3 {
            for ((passes, _), pair) in trees.iter().zip(&pairs) {
                for change in passes.get(pass).into_iter().flatten() {
                    change.make(&pair.source());
                }
            }
            let settling: Vec<_> = trees
                .iter()
                .zip(&pairs)
                .filter(|((_, settles), _)| *settles)
                .map(|(_, pair)| pair.source())
                .collect();
            if !settling.is_empty() {
                settle(settling.iter().map(PathBuf::as_path));
            }
            for ((passes, _), pair) in trees.iter().zip(&mut pairs) {
                if pass < passes.len() {
                    pair.send();
                    prop_assert_eq!(pair.source_without_sockets(), seen::tree(&pair.target()));
                }
            }
        }
    }
}

#[test]
fn what_the_target_had_before_is_gone_after_a_whole_pass() {
    let mut pair = Pair::new();
    fs::write(pair.source().join("kept"), "new").unwrap();
    fs::write(pair.target().join("kept"), "old").unwrap();
    fs::create_dir_all(pair.target().join("other/deep")).unwrap();
    symlink("/etc", pair.target().join("link")).unwrap();
    xattr::set(pair.target(), "user.old", b"x").unwrap();
    pair.send();
    assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
}

#[test]
fn a_difference_holds_what_has_changed_and_no_more() {
    const LARGE: usize = 1 << 20;
    let mut pair = Pair::new();
    let large: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
    fs::write(pair.source().join("large"), &large).unwrap();
    fs::write(pair.source().join("small"), "1").unwrap();
    settle([pair.source().as_path()]);
    assert!(pair.send() > LARGE);
    fs::write(pair.source().join("small"), "2").unwrap();
    let difference = pair.send();
    assert!(difference < LARGE / 10, "{difference} bytes");
    assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
    // What has not settled is sent once more: it may have changed without its time telling.
    let unsettled = pair.source().join("large");
    fs::write(&unsettled, &large).unwrap();
    pair.send();
    assert!(pair.send() > LARGE);
}

#[test]
fn a_file_that_changes_within_a_tick_of_the_clock_is_sent_again() {
    let mut pair = Pair::new();
    let file = pair.source().join("file");
    for n in 0..50 {
        // The same length, and most often the same time.
        fs::write(&file, format!("{n:02}")).unwrap();
        pair.send();
        fs::write(&file, format!("{:02}", n + 1)).unwrap();
        pair.send();
        assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
    }
}

#[test]
fn sockets_stay_and_what_they_replace_goes() {
    let mut pair = Pair::new();
    let place = pair.source().join("place");
    fs::write(&place, "a file").unwrap();
    pair.send();
    assert!(pair.target().join("place").exists());
    fs::remove_file(&place).unwrap();
    let _socket = UnixListener::bind(&place).unwrap();
    pair.send();
    assert!(!pair.target().join("place").exists());
    fs::remove_file(&place).unwrap();
    fs::write(&place, "a file again").unwrap();
    pair.send();
    assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
}

#[test]
fn an_attribute_that_is_taken_away_goes_at_the_target_too() {
    let mut pair = Pair::new();
    for place in ["", "directory"] {
        let path = pair.source().join(place);
        fs::create_dir_all(&path).unwrap();
        xattr::set(&path, "user.taken", b"x").unwrap();
        xattr::set(&path, "user.kept", b"x").unwrap();
    }
    pair.send();
    for place in ["", "directory"] {
        let path = pair.source().join(place);
        xattr::remove(&path, "user.taken").unwrap();
    }
    pair.send();
    let seen = seen::tree(&pair.target());
    assert_eq!(seen[Path::new("directory")].attributes.len(), 1);
    assert_eq!(seen::tree(&pair.source()), seen);
}

#[test]
fn a_root_that_is_not_there_is_an_error() {
    let pair = Pair::new();
    let missing = pair.directory.path().join("missing");
    assert!(pack(&missing, None, Vec::new()).is_err());
    let mut stream = Vec::new();
    pack(&pair.source(), None, &mut stream).unwrap();
    assert!(unpack(&missing, stream.as_slice()).is_err());
    assert!(!Path::new(&missing).exists());
}
