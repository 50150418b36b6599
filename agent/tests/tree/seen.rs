//! What a tree looks like, to compare two.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(PathBuf),
    Fifo,
    Socket,
    /// The type's bits of its mode, and its number.
    Device(u32, u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: Kind,
    pub mode: u32,
    pub owner: (u32, u32),
    /// In seconds since 1970.
    pub modified: i64,
    pub attributes: BTreeMap<OsString, Vec<u8>>,
    /// Every name in the tree that the same file has; of directories none.
    pub names: BTreeSet<PathBuf>,
}

/// Everything below `root`, and `root` itself under the empty path.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut names = BTreeMap::<_, BTreeSet<_>>::new();
    walk(root, &mut |path, metadata| {
        if !metadata.is_dir() {
            names
                .entry(metadata.ino())
                .or_default()
                .insert(path.to_owned());
        }
    });
    walk(root, &mut |path, metadata| {
        let full = root.join(path);
        let kind = metadata.file_type();
        let attributes = xattr::list(&full)
            .unwrap()
            .filter_map(|name| Some((name.clone(), xattr::get(&full, &name).unwrap()?)))
            .collect();
        seen.insert(
            path.to_owned(),
            Seen {
                kind: if kind.is_dir() {
                    Kind::Directory
                } else if kind.is_file() {
                    Kind::File(fs::read(&full).unwrap())
                } else if kind.is_symlink() {
                    Kind::Symlink(fs::read_link(&full).unwrap())
                } else if kind.is_fifo() {
                    Kind::Fifo
                } else if kind.is_socket() {
                    Kind::Socket
                } else {
                    Kind::Device(metadata.mode() & 0o170_000, metadata.rdev())
                },
                mode: metadata.mode() & 0o7777,
                owner: (metadata.uid(), metadata.gid()),
                modified: metadata.mtime(),
                attributes,
                names: match kind.is_dir() {
                    true => BTreeSet::new(),
                    false => names[&metadata.ino()].clone(),
                },
            },
        );
    });
    seen
}

/// When anything below `root`, or `root` itself, was last changed in any way: content, owner,
/// mode, times, attributes, links. In nanoseconds since 1970, per path.
pub fn changes(root: &Path) -> BTreeMap<PathBuf, i128> {
    let mut changes = BTreeMap::new();
    walk(root, &mut |path, metadata| {
        let changed = i128::from(metadata.ctime()) * 1_000_000_000;
        changes.insert(path.to_owned(), changed + i128::from(metadata.ctime_nsec()));
    });
    changes
}

fn walk(root: &Path, visit: &mut impl FnMut(&Path, &fs::Metadata)) {
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).unwrap();
        visit(&path, &metadata);
        if metadata.is_dir() {
            for entry in fs::read_dir(&full).unwrap() {
                waiting.push(path.join(entry.unwrap().file_name()));
            }
        }
    }
}
