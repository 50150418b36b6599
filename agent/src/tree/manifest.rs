use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::place::Place;

/// A file changed so shortly before it was looked at may be changed again without its time
/// telling: the kernel's file times tick, on some every 10 ms.
const SETTLED_NS: i128 = 100_000_000;

/// What each file of a tree was like when it was sent.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    pub(super) files: BTreeMap<PathBuf, Stamp>,
}

/// What tells whether a file has changed: any change of content, owner, mode, attributes or
/// links changes its ctime, which no program can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed_ns: i128,
    settled: bool,
}

/// The time now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos().cast_signed())
}

impl Stamp {
    /// Of a file that was looked at after `now_ns`. All files of a pass have the same `now_ns`,
    /// from before the first was looked at: so the names of one file are all sent again or none,
    /// and stay links to each other.
    pub(super) fn new(metadata: &Metadata, now_ns: i128) -> Self {
        let changed_ns =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_ns,
            settled: now_ns - changed_ns > SETTLED_NS,
        }
    }

    /// It was not sent after all, and is to be sent by the next pass, whatever it is like then.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// Whether what was sent under the stamp `sent` is still what is there.
    pub(super) fn is_unchanged_since(&self, sent: &Self) -> bool {
        sent.settled
            && (self.device, self.inode, self.size, self.changed_ns)
                == (sent.device, sent.inode, sent.size, sent.changed_ns)
    }
}

/// Every path below `base`, relative to it, directories before what they hold; `base` itself is
/// the empty path. What vanishes meanwhile is left out, and so are sockets.
pub(super) fn walk(base: &File) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = vec![(PathBuf::new(), base.metadata()?)];
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let Some(place) = Place::directory(base, &directory)? else {
            continue;
        };
        let entries = match fs::read_dir(place.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let metadata = match fs::symlink_metadata(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.file_type().is_socket() {
                continue;
            }
            let path = directory.join(entry.file_name());
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            found.push((path, metadata));
        }
    }
    Ok(found)
}
