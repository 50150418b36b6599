//! What is packed and unpacked is what was there.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use carnet_agent::tree::{Changes, Manifest, Mapped, Previous, Watch, pack, unpack};
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
    /// Where there is none, all of the tree is looked at in each pass.
    watch: Option<Watch>,
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
            watch: None,
        }
    }

    /// One whose tree is watched.
    fn watched() -> Self {
        let mut pair = Self::new();
        pair.watch = Some(Watch::begin(&pair.source()).unwrap());
        pair
    }

    /// One of each kind.
    fn both() -> [Self; 2] {
        [Self::new(), Self::watched()]
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// Sends everything the first time, then what has changed. Returns the stream's length.
    fn send(&mut self) -> usize {
        self.send_with(&[])
    }

    /// The same, of a tree of which files are written to in memory.
    fn send_with(&mut self, mapped: &[Mapped]) -> usize {
        let changes = match &self.watch {
            Some(watch) => watch.changes(),
            None => Changes::Anywhere,
        };
        let previous = self.manifest.take();
        let previous = previous.map(|manifest| Previous::new(manifest, changes, mapped));
        let mut stream = Vec::new();
        let manifest = pack(&self.source(), previous.as_ref(), &mut stream).unwrap();
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
    #![proptest_config(Config { cases: 6, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_tree_arrives_as_it_was_however_it_changes(trees in vec((passes(), any::<bool>()), 16)) {
        // Every second one is watched.
        let mut pairs: Vec<_> = trees.iter().flat_map(|_| Pair::both()).collect();
        let trees: Vec<_> = trees.iter().flat_map(|tree| [tree, tree]).collect();
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

/// The file itself has not changed then: only where one of its names is.
#[test]
fn names_of_a_file_stay_its_names_where_a_directory_above_one_is_renamed() {
    for mut pair in Pair::both() {
        let at = |path: &str| pair.source().join(path);
        for directory in ["here", "there"] {
            fs::create_dir(at(directory)).unwrap();
        }
        fs::write(at("here/file"), "text").unwrap();
        fs::hard_link(at("here/file"), at("there/name")).unwrap();
        settle([pair.source().as_path()]);
        pair.send();
        fs::rename(pair.source().join("there"), pair.source().join("elsewhere")).unwrap();
        settle([pair.source().as_path()]);
        pair.send();
        assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
    }
}

#[test]
fn a_difference_holds_what_has_changed_and_no_more() {
    const LARGE: usize = 1 << 20;
    for mut pair in Pair::both() {
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
}

#[test]
fn a_file_that_changes_within_a_tick_of_the_clock_is_sent_again() {
    for mut pair in Pair::both() {
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
}

#[test]
fn sockets_stay_and_what_they_replace_goes() {
    for mut pair in Pair::both() {
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
}

#[test]
fn an_attribute_that_is_taken_away_goes_at_the_target_too() {
    for mut pair in Pair::both() {
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

#[test]
fn a_watch_knows_where_a_tree_has_changed() {
    let mut pair = Pair::new();
    for name in ["kept", "changed", "gone"] {
        fs::create_dir_all(pair.source().join(name).join("deep")).unwrap();
        fs::write(pair.source().join(name).join("deep/file"), "1").unwrap();
    }
    pair.watch = Some(Watch::begin(&pair.source()).unwrap());
    let watch = pair.watch.as_ref().unwrap();
    let none = Changes::At {
        paths: HashSet::new(),
        subtrees: HashSet::new(),
    };
    assert_eq!(watch.changes(), none);
    fs::read(pair.source().join("kept/deep/file")).unwrap();
    fs::write(pair.source().join("changed/deep/file"), "2").unwrap();
    fs::remove_dir_all(pair.source().join("gone")).unwrap();
    fs::create_dir_all(pair.source().join("new/deep")).unwrap();
    let Changes::At { paths, subtrees } = watch.changes() else {
        panic!("it has lost count");
    };
    assert!(paths.contains(Path::new("changed/deep/file")));
    assert!(!paths.iter().any(|path| path.starts_with("kept")));
    for path in ["gone", "new"] {
        assert!(subtrees.contains(Path::new(path)), "{path}: {subtrees:?}");
    }
}

/// The kernel keeps 16,384 events by default, and whoever reads them is not always in time.
#[test]
fn more_changes_than_are_counted_are_changes_anywhere() {
    let mut pair = Pair::watched();
    pair.send();
    let deep = pair.source().join("deep");
    fs::create_dir(&deep).unwrap();
    pair.watch = Some(Watch::begin(&pair.source()).unwrap());
    let file = deep.join("file");
    fs::write(&file, "").unwrap();
    let mut now = file;
    for n in 0..100_001 {
        let next = deep.join(n.to_string());
        fs::rename(&now, &next).unwrap();
        now = next;
    }
    let watch = pair.watch.as_ref().unwrap();
    assert_eq!(watch.changes(), Changes::Anywhere);
    pair.send();
    assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
}

#[test]
fn what_is_written_to_in_memory_is_sent_whatever_its_time_says() {
    for mut pair in Pair::both() {
        let path = pair.source().join("mapped");
        fs::write(&path, "before").unwrap();
        let times = fs::metadata(&path).unwrap();
        settle([pair.source().as_path()]);
        pair.send();
        // As a write to memory does, it changes what is there, and not its time: the clock of the
        // file system is not ours to set, so another file stands in for the copy that is stale.
        fs::write(pair.target().join("mapped"), "stale!").unwrap();
        pair.send();
        assert_eq!(fs::read(pair.target().join("mapped")).unwrap(), b"stale!");
        let mapped = |inode, path: &str| Mapped {
            inode,
            path: PathBuf::from(path),
        };
        for file in [mapped(times.ino(), "/elsewhere"), mapped(0, "/mapped")] {
            fs::write(pair.target().join("mapped"), "stale!").unwrap();
            pair.send_with(&[file]);
            assert_eq!(fs::read(pair.target().join("mapped")).unwrap(), b"before");
        }
        // One that is nowhere known: all of the tree is looked at.
        fs::write(pair.source().join("new"), "new").unwrap();
        pair.send_with(&[mapped(0, "/unknown")]);
        assert_eq!(seen::tree(&pair.source()), seen::tree(&pair.target()));
    }
}

#[test]
fn what_is_changed_under_a_name_outside_of_the_tree_is_sent() {
    for is_watched in [false, true] {
        let mut pair = Pair::new();
        let (inside, outside) = (
            pair.source().join("file"),
            pair.directory.path().join("name"),
        );
        fs::write(&inside, "before").unwrap();
        fs::hard_link(&inside, &outside).unwrap();
        settle([pair.source().as_path()]);
        pair.watch = is_watched.then(|| Watch::begin(&pair.source()).unwrap());
        pair.send();
        fs::write(&outside, "after!").unwrap();
        pair.send();
        assert_eq!(fs::read(pair.target().join("file")).unwrap(), b"after!");
    }
}
