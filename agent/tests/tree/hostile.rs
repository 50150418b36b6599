//! Streams from another machine that means harm, or that break off.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carnet_agent::tree::{pack, unpack};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use crate::change::{directory_in_memory, from_bytes};
use crate::seen;

/// A directory to unpack into, and beside it one that nothing may happen to.
struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = directory_in_memory();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::create_dir_all(directory.path().join("outside/inner")).unwrap();
        for place in ["outside/secret", "outside/inner/secret", "secret"] {
            fs::write(directory.path().join(place), "secret").unwrap();
        }
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// A path outside, as it reads from anywhere.
    fn outside(&self, below: &str) -> Vec<u8> {
        let path = self.directory.path().join("outside").join(below);
        path.as_os_str().as_bytes().to_vec()
    }

    /// When everything that is not below the root was last changed.
    fn changes(&self) -> Vec<(PathBuf, i128)> {
        let mut changes = seen::changes(self.directory.path());
        changes.retain(|path, _| !path.starts_with("root"));
        changes.into_iter().collect()
    }

    /// Unpacks, and sees that nothing happened outside.
    fn unpack(&self, stream: &[u8]) -> io::Result<()> {
        let before = self.changes();
        let outcome = unpack(&self.root(), stream);
        assert_eq!(before, self.changes(), "{outcome:?}");
        outcome
    }
}

/// An entry with its name and link exactly as given, whatever they are.
#[derive(Debug, Clone)]
struct Hostile {
    kind: EntryType,
    name: Vec<u8>,
    link: Vec<u8>,
    /// Name and link stand in records before the entry, and overrule those in its header.
    by_records: bool,
}

impl Hostile {
    fn new(kind: EntryType, name: impl AsRef<[u8]>) -> Self {
        Self::link(kind, name, "")
    }

    fn link(kind: EntryType, name: impl AsRef<[u8]>, link: impl AsRef<[u8]>) -> Self {
        Self {
            kind,
            name: name.as_ref().to_vec(),
            link: link.as_ref().to_vec(),
            by_records: false,
        }
    }

    fn by_records(self) -> Self {
        Self {
            by_records: true,
            ..self
        }
    }

    fn append(&self, archive: &mut Builder<&mut Vec<u8>>) {
        let content: &[u8] = match self.kind {
            EntryType::Regular => b"written",
            _ => b"",
        };
        let mut header = Header::new_gnu();
        header.set_entry_type(self.kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        let long = |archive: &mut Builder<&mut Vec<u8>>, kind: EntryType, text: &[u8]| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(text.len() as u64);
            header.set_cksum();
            archive.append(&header, text).unwrap();
        };
        if self.by_records {
            header.as_old_mut().name[0] = b'x';
            archive
                .append_pax_extensions([("path", &*self.name), ("linkpath", &*self.link)])
                .unwrap();
        } else {
            long(archive, EntryType::GNULongName, &self.name);
            long(archive, EntryType::GNULongLink, &self.link);
        }
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
}

fn stream(whole: bool, removed: &[Vec<u8>], entries: &[Hostile]) -> Vec<u8> {
    let removed: Vec<_> = removed.iter().map(hex::encode).collect();
    let head = serde_json::to_vec(&serde_json::json!({ "whole": whole, "removed": removed }));
    let head = head.unwrap();
    let mut stream = u32::try_from(head.len()).unwrap().to_be_bytes().to_vec();
    stream.extend(head);
    let mut archive = Builder::new(&mut stream);
    for entry in entries {
        entry.append(&mut archive);
    }
    archive.into_inner().unwrap();
    stream
}

const KINDS: [EntryType; 5] = [
    EntryType::Regular,
    EntryType::Directory,
    EntryType::Symlink,
    EntryType::Link,
    EntryType::Fifo,
];

#[test]
fn a_stream_as_the_others_but_harmless_is_unpacked() {
    let scene = Scene::new();
    let entries = [
        Hostile::new(EntryType::Directory, "."),
        Hostile::new(EntryType::Directory, "d"),
        Hostile::new(EntryType::Regular, "d/file"),
        Hostile::link(EntryType::Link, "second", "d/file"),
        Hostile::link(EntryType::Symlink, "link", scene.outside("secret")),
        Hostile::new(EntryType::Fifo, "./fifo").by_records(),
    ];
    scene
        .unpack(&stream(true, &[b"gone".to_vec()], &entries))
        .unwrap();
    let names: Vec<_> = seen::tree(&scene.root()).into_keys().collect();
    assert_eq!(
        names,
        ["", "d", "d/file", "fifo", "link", "second"].map(PathBuf::from)
    );
}

#[test]
fn no_name_leads_out() {
    let scene = Scene::new();
    let names = [
        b"../new".to_vec(),
        b"..".to_vec(),
        b"d/../../new".to_vec(),
        b"./../outside/secret".to_vec(),
        b"/new-at-the-root".to_vec(),
        b"/".to_vec(),
        scene.outside("secret"),
        scene.outside("inner"),
        b"link/secret".to_vec(),
        b"link/inner".to_vec(),
        b"link/new".to_vec(),
        b"inner-link/../secret".to_vec(),
        b"d/missing/new".to_vec(),
    ];
    for name in names {
        for kind in KINDS {
            for last in [
                Hostile::link(kind, &name, "d"),
                Hostile::link(kind, &name, "d").by_records(),
            ] {
                let entries = [
                    Hostile::new(EntryType::Directory, "d"),
                    Hostile::link(EntryType::Symlink, "link", "../outside"),
                    Hostile::link(EntryType::Symlink, "inner-link", "../outside/inner"),
                    last,
                ];
                let outcome = scene.unpack(&stream(true, &[], &entries));
                assert!(
                    outcome.is_err(),
                    "{kind:?} {}",
                    String::from_utf8_lossy(&name)
                );
            }
        }
    }
}

#[test]
fn no_hard_link_is_made_to_what_is_outside() {
    let scene = Scene::new();
    for target in [
        b"../outside/secret".to_vec(),
        b"../secret".to_vec(),
        b"d/../../secret".to_vec(),
        scene.outside("secret"),
        b"link/secret".to_vec(),
        b"d/link/secret".to_vec(),
        b"missing".to_vec(),
        b"missing/secret".to_vec(),
        b"".to_vec(),
        b".".to_vec(),
    ] {
        let entries = [
            Hostile::new(EntryType::Directory, "d"),
            Hostile::link(EntryType::Symlink, "link", scene.outside("")),
            Hostile::link(EntryType::Symlink, "d/link", "../../outside"),
            Hostile::link(EntryType::Link, "hard", &target),
        ];
        let outcome = scene.unpack(&stream(true, &[], &entries));
        assert!(outcome.is_err(), "{}", String::from_utf8_lossy(&target));
        assert!(!scene.root().join("hard").exists());
    }
}

#[test]
fn a_directory_that_becomes_a_link_is_not_followed() {
    let scene = Scene::new();
    // Its mode, owner, attributes and time are set last, when it has become something else.
    for target in [scene.outside(""), scene.outside("secret")] {
        let entries = [
            Hostile::new(EntryType::Directory, "d"),
            Hostile::link(EntryType::Symlink, "d", &target),
        ];
        assert!(scene.unpack(&stream(true, &[], &entries)).is_err());
    }
    let entries = [
        Hostile::new(EntryType::Directory, "d"),
        Hostile::new(EntryType::Directory, "d/secret"),
        Hostile::link(EntryType::Symlink, "d", "../outside"),
    ];
    assert!(scene.unpack(&stream(true, &[], &entries)).is_err());
}

#[test]
fn what_follows_a_directory_that_was_replaced_is_in_the_new_one() {
    let scene = Scene::new();
    let entries = [
        Hostile::new(EntryType::Directory, "d"),
        Hostile::new(EntryType::Regular, "d/first"),
        Hostile::new(EntryType::Regular, "d"),
        Hostile::new(EntryType::Directory, "d"),
        Hostile::new(EntryType::Regular, "d/second"),
    ];
    scene.unpack(&stream(true, &[], &entries)).unwrap();
    assert!(!scene.root().join("d/first").exists());
    assert_eq!(fs::read(scene.root().join("d/second")).unwrap(), b"written");
}

#[test]
fn nothing_outside_is_removed() {
    let scene = Scene::new();
    for gone in [
        b"../outside/secret".to_vec(),
        b"..".to_vec(),
        b"/".to_vec(),
        scene.outside("secret"),
        b"d/../../secret".to_vec(),
    ] {
        let outcome = scene.unpack(&stream(false, std::slice::from_ref(&gone), &[]));
        assert!(outcome.is_err(), "{}", String::from_utf8_lossy(&gone));
    }
    // What is behind a link is not there; the link itself may go.
    let link = [Hostile::link(EntryType::Symlink, "link", "../outside")];
    scene.unpack(&stream(true, &[], &link)).unwrap();
    let behind = [b"link/secret".to_vec(), b"link/inner".to_vec()];
    scene.unpack(&stream(false, &behind, &[])).unwrap();
    assert!(scene.root().join("link").is_symlink());
    scene
        .unpack(&stream(false, &[b"link".to_vec()], &[]))
        .unwrap();
    assert!(!scene.root().join("link").is_symlink());
}

#[test]
fn kinds_that_no_tree_has_are_refused() {
    for kind in [
        EntryType::Continuous,
        EntryType::GNUSparse,
        EntryType::XGlobalHeader,
        EntryType::new(b'Z'),
    ] {
        let entries = [Hostile::new(kind, "x")];
        let outcome = Scene::new().unpack(&stream(true, &[], &entries));
        assert!(outcome.is_err(), "{kind:?}");
    }
}

#[test]
fn numbers_beyond_all_measure_are_refused() {
    type Set = fn(&mut Header);
    let sets: [(&str, Set); 4] = [
        ("time", |header| header.set_mtime(u64::MAX >> 1)),
        ("user", |header| header.set_uid(u64::from(u32::MAX) + 1)),
        ("group", |header| header.set_gid(u64::MAX >> 1)),
        ("size", |header| header.set_size(u64::MAX >> 1)),
    ];
    for (what, set) in sets {
        let scene = Scene::new();
        let mut bytes = stream(true, &[], &[]);
        bytes.truncate(bytes.len() - 1_024);
        let mut header = Header::new_gnu();
        header.set_path("file").unwrap();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        set(&mut header);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[0; 1_024]);
        let outcome = scene.unpack(&bytes);
        // A time that no file system knows is one that it rounds.
        assert!(outcome.is_err() || what == "time", "{what}");
    }
}

#[test]
fn a_stream_that_breaks_off_anywhere_is_an_error() {
    let scene = Scene::new();
    let source = scene.directory.path().join("source");
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("file"), [7; 300]).unwrap();
    std::os::unix::fs::symlink("t".repeat(120), source.join("link")).unwrap();
    let mut whole = Vec::new();
    pack(&source, None, &mut whole).unwrap();
    for length in 0..whole.len() {
        let outcome = unpack(&scene.root(), &whole[..length]);
        assert!(outcome.is_err(), "the first {length} of {}", whole.len());
    }
    unpack(&scene.root(), whole.as_slice()).unwrap();
    assert_eq!(seen::tree(&source), seen::tree(&scene.root()));
}

/// Names that are harmless by themselves, and some that are not: a stream is refused at the
/// first of those, so that what harmless ones do together shows only where they are few.
fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        12 => select(vec!["d", "l", "d/l", "x"]),
        2 => select(vec!["", "d/x", "l/secret", "l/inner", "l/x", "d/l/secret", "l/inner/x"]),
        1 => select(vec!["..", "/", "l/..", "../outside", "../secret", "OUTSIDE/secret"]),
    ]
}

fn target() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        2 => select(vec!["OUTSIDE", "OUTSIDE/secret", "../outside", "../../outside", ".."]),
        1 => select(vec!["d", "l", "x", "d/l", "l/secret", "l/inner/secret", "d/l/secret"]),
    ]
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let kind = select(KINDS.to_vec());
    (kind, name(), target(), any::<bool>()).prop_map(|(kind, name, link, by_records)| Hostile {
        by_records,
        ..Hostile::link(kind, name, link)
    })
}

/// Where the scene is, is known only in the test.
fn placed(scene: &Scene, text: &[u8]) -> Vec<u8> {
    match text.strip_prefix(b"OUTSIDE") {
        Some(below) => [&scene.outside("")[..], below].concat(),
        None => text.to_vec(),
    }
}

proptest! {
    #[test]
    fn no_stream_changes_anything_outside(
        passes in vec((any::<bool>(), vec(name(), 0..3), vec(hostile(), 0..8)), 1..3)
    ) {
        let scene = Scene::new();
        for (whole, removed, entries) in passes {
            let removed: Vec<_> = removed
                .iter()
                .map(|path| placed(&scene, path.as_bytes()))
                .collect();
            let entries: Vec<_> = entries
                .into_iter()
                .map(|entry| Hostile {
                    name: placed(&scene, &entry.name),
                    link: placed(&scene, &entry.link),
                    ..entry
                })
                .collect();
            // Refused or not: that nothing happens outside is all.
            let _ = scene.unpack(&stream(whole, &removed, &entries));
        }
    }

    #[test]
    fn bytes_at_random_are_an_error(bytes in vec(any::<u8>(), 0..3_000)) {
        prop_assert!(Scene::new().unpack(&bytes).is_err());
        let mut behind_a_head = stream(true, &[], &[]);
        behind_a_head.truncate(behind_a_head.len() - 1_024);
        behind_a_head.extend(&bytes);
        prop_assert!(Scene::new().unpack(&behind_a_head).is_err());
    }

    #[test]
    fn bytes_that_are_altered_do_no_harm(
        alterations in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let scene = Scene::new();
        let mut bytes = stream(true, &[b"x".to_vec()], &[
            Hostile::new(EntryType::Directory, "d"),
            Hostile::new(EntryType::Regular, "d/x"),
            Hostile::link(EntryType::Symlink, "l", "../outside"),
            Hostile::link(EntryType::Link, "d/l", "l").by_records(),
        ]);
        for (at, byte) in alterations {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = scene.unpack(&bytes);
    }
}

#[test]
fn odd_names_of_a_hostile_stream_stay_names() {
    let scene = Scene::new();
    for name in [b"\xff\xfe".as_slice(), b"a\\..\\b", b"~", b"$HOME", b"a\nb"] {
        let entries = [Hostile::new(EntryType::Regular, name)];
        scene.unpack(&stream(true, &[], &entries)).unwrap();
        let written = fs::read(scene.root().join(from_bytes(name))).unwrap();
        assert_eq!(written, b"written");
        assert_eq!(
            fs::read_dir(scene.root()).unwrap().count(),
            1,
            "{}",
            Path::new(from_bytes(name)).display()
        );
    }
}
