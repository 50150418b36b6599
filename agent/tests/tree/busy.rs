//! Trees that change while they are packed: they belong to containers that run, and that may
//! mean harm.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use carnet_agent::tree::{Changes, Previous, Watch, pack, unpack};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::change::{directory_in_memory, settle};
use crate::seen::{self, Kind};

/// Calls `work` again and again until dropped.
struct Meanwhile<'scope> {
    stop: &'scope AtomicBool,
    thread: Option<std::thread::ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Meanwhile<'scope> {
    fn run<'env>(
        scope: &'scope std::thread::Scope<'scope, 'env>,
        stop: &'scope AtomicBool,
        mut work: impl FnMut(usize) + Send + 'scope,
    ) -> Self {
        let thread = scope.spawn(move || {
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                work(turn);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Meanwhile<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What busy programs do: files come and go, under one name and two, links and pipes take each
/// other's places, and whole directories are renamed to and fro.
fn bustle(root: &Path, turn: usize) {
    let renewed = |path: String| {
        let path = root.join(path);
        let _ = fs::remove_file(&path);
        path
    };
    let name = renewed(format!("name{}", turn % 4));
    let second = renewed(format!("second{}", turn % 40));
    fs::write(&name, format!("turn {turn}")).unwrap();
    fs::hard_link(&name, &second).unwrap();
    symlink("nowhere", renewed(format!("link{}", turn % 3))).unwrap();
    let changing = renewed(format!("changing{}", turn % 3));
    match turn % 4 {
        0 => fs::write(&changing, "a file").unwrap(),
        1 => symlink("nowhere", &changing).unwrap(),
        2 => mkfifo(&changing, Mode::from_bits_truncate(0o600)).unwrap(),
        _ => drop(UnixListener::bind(&changing).unwrap()),
    }
    let (here, there) = (root.join("here"), root.join("there"));
    let (from, to) = if here.exists() {
        (&here, &there)
    } else {
        (&there, &here)
    };
    fs::rename(from, to).unwrap();
}

#[test]
fn a_tree_that_changes_meanwhile_is_packed_and_the_last_pass_makes_it_equal() {
    let directory = directory_in_memory();
    let (source, target) = (directory.path().join("s"), directory.path().join("t"));
    fs::create_dir_all(source.join("here/deep")).unwrap();
    for n in 0..20 {
        fs::write(source.join(format!("here/deep/{n}")), "settled").unwrap();
    }
    settle([source.as_path()]);
    for turn in 0..100 {
        let _ = fs::remove_dir_all(&target);
        fs::create_dir(&target).unwrap();
        let is_watched = turn % 2 == 0;
        let watch = is_watched.then(|| Watch::begin(&source).unwrap());
        let mut manifest = None;
        let mut pass = || {
            let mut stream = Vec::new();
            let changes = match &watch {
                Some(watch) => watch.changes(),
                None => Changes::Anywhere,
            };
            let previous = manifest.take();
            let previous = previous.map(|manifest| Previous::new(manifest, changes, []));
            manifest = Some(pack(&source, previous.as_ref(), &mut stream).unwrap());
            unpack(&target, stream.as_slice()).unwrap();
        };
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _bustle = Meanwhile::run(scope, &stop, |turn| bustle(&source, turn));
            pass();
            pass();
        });
        pass();
        let mut there = seen::tree(&source);
        there.retain(|_, seen| seen.kind != Kind::Socket);
        assert_eq!(there, seen::tree(&target));
    }
}

/// A container could put a link to the edge's own files where there was a file of its own, just
/// when the agent, root on the edge, reads it.
#[test]
fn a_link_that_is_put_in_the_way_meanwhile_leads_nowhere() {
    const SECRET: &[u8] = b"of the edge, not of the container";
    let directory = directory_in_memory();
    let (source, outside) = (directory.path().join("s"), directory.path().join("o"));
    fs::create_dir_all(source.join("directory")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    for place in ["directory/secret", "secret"] {
        // As long as what must not take its place.
        fs::write(source.join(place), [b'x'; SECRET.len()]).unwrap();
    }
    fs::write(outside.join("secret"), SECRET).unwrap();
    symlink(&outside, source.join("directory-link")).unwrap();
    symlink(outside.join("secret"), source.join("secret-link")).unwrap();
    let exchange = |one: &str, other: &str| {
        renameat2(
            AT_FDCWD,
            &source.join(one),
            AT_FDCWD,
            &source.join(other),
            RenameFlags::RENAME_EXCHANGE,
        )
        .unwrap();
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _exchange = Meanwhile::run(scope, &stop, |_| {
            exchange("directory", "directory-link");
            exchange("secret", "secret-link");
        });
        for _ in 0..2_000 {
            let mut stream = Vec::new();
            pack(&source, None, &mut stream).unwrap();
            let leaked = stream.windows(SECRET.len()).any(|window| window == SECRET);
            assert!(!leaked, "a file of the edge was packed");
        }
    });
}
