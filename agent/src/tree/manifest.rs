use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

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

impl Stamp {
    pub(super) fn new(metadata: &Metadata) -> Self {
        let changed_ns =
            i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        let now_ns = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos().cast_signed());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed_ns,
            settled: now_ns - changed_ns > SETTLED_NS,
        }
    }

    /// Whether what was sent under the stamp `sent` is still what is there.
    pub(super) fn is_unchanged_since(&self, sent: &Self) -> bool {
        sent.settled
            && (self.device, self.inode, self.size, self.changed_ns)
                == (sent.device, sent.inode, sent.size, sent.changed_ns)
    }
}

/// Every path below `root`, relative to it, directories before what they hold; `root` itself is
/// the empty path. What vanishes meanwhile is left out.
pub(super) fn walk(root: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut found = vec![(PathBuf::new(), fs::symlink_metadata(root)?)];
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(root.join(&directory)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let path = directory.join(entry.file_name());
            let metadata = match fs::symlink_metadata(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if metadata.is_dir() {
                directories.push(path.clone());
            }
            found.push((path, metadata));
        }
    }
    Ok(found)
}
