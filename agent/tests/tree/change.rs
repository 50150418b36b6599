//! Changes of a tree, at random.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tempfile::TempDir;

use crate::seen;

#[derive(Debug, Clone)]
pub enum Change {
    Directory(PathBuf),
    /// Replaces what it holds.
    Write(PathBuf, Vec<u8>),
    /// Makes it longer by a hole and some text.
    Extend(PathBuf, u16, Vec<u8>),
    Symlink(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Fifo(PathBuf),
    Socket(PathBuf),
    Device(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    Mode(PathBuf, u32),
    Owner(PathBuf, u32, u32),
    Modified(PathBuf, u32),
    Attribute(PathBuf, OsString, Vec<u8>),
    NoAttribute(PathBuf, OsString),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd: Vec<Vec<u8>> = vec![
        b"\xff\xfe".to_vec(),
        b" ".to_vec(),
        b"new\nline".to_vec(),
        b"back\\slash".to_vec(),
        b"..x".to_vec(),
        "ä".as_bytes().to_vec(),
        b"-rf *".to_vec(),
        b"path=x".to_vec(),
        // Around the length from which on a path has no room in an archive's header.
        vec![b'l'; 99],
        vec![b'm'; 100],
        vec![b'n'; 101],
        [b"\xff".as_slice(), &[b'o'; 200]].concat(),
    ];
    prop_oneof![
        5 => select(vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]),
        1 => select(odd),
    ]
}

fn path() -> impl Strategy<Value = PathBuf> {
    vec(name(), 1..4).prop_map(|names| {
        names
            .into_iter()
            .map(OsString::from_vec)
            .collect::<PathBuf>()
    })
}

fn target() -> impl Strategy<Value = PathBuf> {
    let long = "t/".repeat(120);
    let targets = ["a", "../a", "/etc/passwd", "b//c/./", "..", "/", "a\nb"];
    prop_oneof![
        6 => select(targets.to_vec()).prop_map(PathBuf::from),
        1 => Just(PathBuf::from(long)),
        1 => name().prop_map(|name| PathBuf::from(OsString::from_vec(name))),
    ]
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40),
        // Around the blocks of an archive.
        2 => select(vec![511, 512, 513, 1_024]).prop_map(|length| vec![7; length]),
        // Longer than a block in which holes are looked for.
        1 => (65_000_usize..70_000).prop_map(|length| {
            let mut content = vec![0; length];
            content.extend_from_slice(b"end");
            content
        }),
    ]
}

fn attribute() -> impl Strategy<Value = OsString> {
    select(vec!["user.a", "user.b", "user.x=y", "user.%3D \n"]).prop_map(OsString::from)
}

fn change() -> impl Strategy<Value = Change> {
    // Whoever is not root needs what the owner may.
    let least = match nix::unistd::geteuid().is_root() {
        true => 0,
        false => 0o700,
    };
    prop_oneof![
        4 => path().prop_map(Change::Directory),
        8 => (path(), content()).prop_map(|(path, content)| Change::Write(path, content)),
        2 => (path(), any::<u16>(), content())
            .prop_map(|(path, hole, content)| Change::Extend(path, hole, content)),
        3 => (path(), target()).prop_map(|(path, target)| Change::Symlink(path, target)),
        4 => (path(), path()).prop_map(|(from, to)| Change::Link(from, to)),
        1 => path().prop_map(Change::Fifo),
        1 => path().prop_map(Change::Socket),
        1 => path().prop_map(Change::Device),
        4 => path().prop_map(Change::Remove),
        4 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        3 => (path(), 0..=0o7777_u32).prop_map(move |(path, mode)| {
            Change::Mode(path, mode | least)
        }),
        1 => (path(), 0..=70_000_u32, 0..=70_000_u32)
            .prop_map(|(path, user, group)| Change::Owner(path, user, group)),
        2 => (path(), any::<u32>()).prop_map(|(path, time)| Change::Modified(path, time)),
        3 => (path(), attribute(), content()).prop_map(|(path, name, mut value)| {
            value.truncate(1_000);
            Change::Attribute(path, name, value)
        }),
        1 => (path(), attribute()).prop_map(|(path, name)| Change::NoAttribute(path, name)),
    ]
}

pub fn changes(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Change>> {
    vec(change(), count)
}

/// Where `path` is below `root`, with the directories above it; `None` where something else is
/// in the way. Goes through no symbolic link: the links that are made lead anywhere.
fn place(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut directory = root.to_owned();
    for name in path.parent()?.components() {
        directory.push(name);
        match fs::symlink_metadata(&directory) {
            Ok(metadata) => metadata.is_dir().then_some(())?,
            Err(_) => fs::create_dir(&directory).ok()?,
        }
    }
    Some(directory.join(path.file_name()?))
}

impl Change {
    /// Makes the change below `root`, where it can be made.
    pub fn make(&self, root: &Path) {
        let (Self::Directory(path)
        | Self::Write(path, _)
        | Self::Extend(path, ..)
        | Self::Symlink(path, _)
        | Self::Link(path, _)
        | Self::Fifo(path)
        | Self::Socket(path)
        | Self::Device(path)
        | Self::Remove(path)
        | Self::Rename(path, _)
        | Self::Mode(path, _)
        | Self::Owner(path, ..)
        | Self::Modified(path, _)
        | Self::Attribute(path, ..)
        | Self::NoAttribute(path, _)) = self;
        if let Some(full) = place(root, path) {
            // What cannot be made is none of the test's business.
            let _ = self.try_make(root, &full);
        }
    }

    fn try_make(&self, root: &Path, full: &Path) -> io::Result<()> {
        let is_symlink = full.is_symlink();
        match self {
            Self::Directory(_) => fs::create_dir(full),
            Self::Write(_, content) => {
                let mut file = open(full, OpenOptions::new().truncate(true))?;
                file.write_all(content)
            }
            Self::Extend(_, hole, content) => {
                let mut file = open(full, OpenOptions::new().append(true))?;
                file.set_len(file.metadata()?.len() + u64::from(*hole))?;
                file.write_all(content)
            }
            Self::Symlink(_, target) => symlink(target, full),
            Self::Link(_, to) => match place(root, to) {
                Some(to) => fs::hard_link(full, to),
                None => Ok(()),
            },
            Self::Fifo(_) => node(full, SFlag::S_IFIFO, 0),
            // Relative, as the name of a socket must not be long.
            Self::Socket(_) => UnixListener::bind(full).map(drop),
            // The null device.
            Self::Device(_) => node(full, SFlag::S_IFCHR, makedev(1, 3)),
            Self::Remove(_) if full.is_dir() && !is_symlink => fs::remove_dir_all(full),
            Self::Remove(_) => fs::remove_file(full),
            Self::Rename(_, to) => match place(root, to) {
                Some(to) => fs::rename(full, to),
                None => Ok(()),
            },
            Self::Mode(..) if is_symlink => Ok(()),
            Self::Mode(_, mode) => fs::set_permissions(full, Permissions::from_mode(*mode)),
            Self::Owner(_, user, group) => lchown(full, Some(*user), Some(*group)),
            Self::Modified(_, time) => Ok(utimensat(
                AT_FDCWD,
                full,
                &TimeSpec::UTIME_OMIT,
                &TimeSpec::new(i64::from(*time), 500_000_000),
                UtimensatFlags::NoFollowSymlink,
            )?),
            Self::Attribute(_, name, value) => xattr::set(full, name, value),
            Self::NoAttribute(_, name) => xattr::remove(full, name),
        }
    }
}

fn open(full: &Path, options: &mut OpenOptions) -> io::Result<fs::File> {
    options
        .write(true)
        .create(true)
        // A pipe without a reader, a link to anywhere.
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(full)
}

fn node(full: &Path, kind: SFlag, device: u64) -> io::Result<()> {
    Ok(mknod(full, kind, Mode::from_bits_truncate(0o640), device)?)
}

/// Waits until the times of all that is below `roots` are so old that they tell of every change
/// to come.
pub fn settle<'a>(roots: impl IntoIterator<Item = &'a Path>) {
    let last = roots
        .into_iter()
        .flat_map(|root| seen::changes(root).into_values())
        .max()
        .unwrap();
    let settled = UNIX_EPOCH + Duration::from_nanos(u64::try_from(last).unwrap() + 101_000_000);
    let deadline = Instant::now() + Duration::from_secs(10);
    while SystemTime::now() <= settled {
        assert!(Instant::now() < deadline, "the clock stands still");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A directory in memory, where the machine has such: for tests that make files by the thousand,
/// and no extended attributes, which not every tmpfs takes.
pub fn directory_in_memory() -> TempDir {
    TempDir::new_in("/dev/shm").unwrap_or_else(|_| TempDir::new().unwrap())
}

/// A path of any bytes.
pub fn from_bytes(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
