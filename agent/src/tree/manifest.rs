use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata, ReadDir};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::place::Place;

/// A file changed so shortly before it was looked at may be changed again without its time
/// telling: the kernel's file times tick, on some every 10 ms.
const SETTLED_NS: i128 = 100_000_000;

/// A path relative to a tree's root, and what is there.
pub(super) type Found = (PathBuf, Metadata);

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
    /// It has more names than one; they may be anywhere.
    is_linked: bool,
}

/// The time now, in nanoseconds since 1970.
pub(super) fn now_ns() -> i128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_nanos().cast_signed())
}

/// A file that a process has mapped into its memory to write to it there.
///
/// The file's time tells of the first write only, until the kernel has written the page out; and
/// no watch tells of any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapped {
    pub inode: u64,
    /// As the process sees it, from its own root.
    pub path: PathBuf,
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
            is_linked: is_linked(metadata),
        }
    }

    /// It was not sent after all, and is to be sent by the next pass, whatever it is like then.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// It is known not to have been changed since it was looked at.
    fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether what was sent under the stamp `sent` is still what is there.
    pub(super) fn is_unchanged_since(&self, sent: &Self) -> bool {
        sent.settled
            && (self.device, self.inode, self.size, self.changed_ns)
                == (sent.device, sent.inode, sent.size, sent.changed_ns)
    }
}

impl Manifest {
    /// Has no file be sent again for having been written shortly before it was sent.
    pub(super) fn trust(&mut self) {
        for stamp in self.files.values_mut() {
            stamp.settle();
        }
    }

    /// Has a file be sent again, whatever its times say; `false` where it was not sent.
    pub(super) fn distrust(&mut self, file: &Mapped) -> bool {
        let relative = file.path.strip_prefix("/").unwrap_or(&file.path);
        let mut is_known = false;
        for (path, stamp) in &mut self.files {
            if stamp.inode == file.inode || path == relative {
                stamp.unsettle();
                is_known = true;
            }
        }
        is_known
    }

    /// What is at or below `path`.
    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> {
        self.files
            .range(path.to_owned()..)
            .map(|(found, _)| found)
            .take_while(move |found| found.starts_with(path))
    }
}

fn is_linked(metadata: &Metadata) -> bool {
    metadata.nlink() > 1 && !metadata.is_dir()
}

/// Goes through all that is below a directory of a tree, one after the other, directories before what
/// they hold. What vanishes meanwhile is left out, and so are sockets.
pub(super) struct Walk<'a> {
    base: &'a File,
    /// Those that have not been read yet, relative to the base.
    directories: Vec<PathBuf>,
    /// What is being read, and its path.
    reading: Option<(PathBuf, ReadDir)>,
}

impl<'a> Walk<'a> {
    /// Below the directory `start`, which is itself left out.
    pub(super) fn below(base: &'a File, start: PathBuf) -> Self {
        Self {
            base,
            directories: vec![start],
            reading: None,
        }
    }

    /// What comes next in the directory that is being read; `None` at its end, and where none is.
    fn next_here(&mut self) -> io::Result<Option<Found>> {
        let Some((directory, entries)) = &mut self.reading else {
            return Ok(None);
        };
        for entry in entries {
            let entry = entry?;
            // Of the entry itself, not of what it may lead to.
            let Some(metadata) = if_sent(entry.metadata())? else {
                continue;
            };
            let path = directory.join(entry.file_name());
            if metadata.is_dir() {
                self.directories.push(path.clone());
            }
            return Ok(Some((path, metadata)));
        }
        Ok(None)
    }

    fn next_anywhere(&mut self) -> io::Result<Option<Found>> {
        loop {
            if let Some(found) = self.next_here()? {
                return Ok(Some(found));
            }
            let Some(directory) = self.directories.pop() else {
                return Ok(None);
            };
            self.reading = match Place::directory(self.base, &directory)? {
                Some(place) => match fs::read_dir(place.path()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                    entries => Some((directory, entries?)),
                },
                None => None,
            };
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = io::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_anywhere().transpose()
    }
}

/// What was found, if it is anything that is sent.
fn if_sent(found: io::Result<Metadata>) -> io::Result<Option<Metadata>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => Ok(Some(metadata?).filter(|metadata| !metadata.file_type().is_socket())),
    }
}

fn look_below(base: &File, path: &Path) -> io::Result<Option<Metadata>> {
    if path.as_os_str().is_empty() {
        return base.metadata().map(Some);
    }
    match Place::find(base, path)? {
        Some(place) => if_sent(fs::symlink_metadata(place.path())),
        None => Ok(None),
    }
}

/// What was looked at in a tree, because it may have changed.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// What is there, directories before what they hold.
    pub(super) found: BTreeMap<PathBuf, Metadata>,
    /// What was there before, and is not.
    pub(super) gone: BTreeSet<PathBuf>,
}

impl Looked {
    /// Looks where the tree below `base` may have changed since `sent`, and nowhere else.
    pub(super) fn at(
        base: &File,
        sent: &Manifest,
        paths: &HashSet<PathBuf>,
        subtrees: &HashSet<PathBuf>,
    ) -> io::Result<Self> {
        let mut looked = Self::default();
        for path in subtrees {
            looked.look_at_all(base, sent, path)?;
        }
        // What was changed as it was sent, and what another name may have changed.
        let anyhow = sent.files.iter();
        let anyhow = anyhow.filter(|(_, stamp)| !stamp.settled || stamp.is_linked);
        for path in paths.iter().chain(anyhow.map(|(path, _)| path)) {
            looked.look(base, sent, path)?;
        }
        // The names of a file are sent together.
        let linked: HashSet<u64> = looked
            .found
            .values()
            .filter(|metadata| is_linked(metadata))
            .map(MetadataExt::ino)
            .collect();
        for (path, stamp) in &sent.files {
            if linked.contains(&stamp.inode) {
                looked.look(base, sent, path)?;
            }
        }
        // What is put into a directory, or taken out, changes it.
        let parents: BTreeSet<PathBuf> = looked
            .found
            .keys()
            .chain(&looked.gone)
            .flat_map(|path| path.ancestors().skip(1))
            .map(Path::to_owned)
            .collect();
        for path in &parents {
            looked.look(base, sent, path)?;
        }
        Ok(looked)
    }

    fn knows(&self, path: &Path) -> bool {
        self.found.contains_key(path) || self.gone.contains(path)
    }

    fn look(&mut self, base: &File, sent: &Manifest, path: &Path) -> io::Result<()> {
        if self.knows(path) {
            return Ok(());
        }
        let before = sent.files.get(path);
        match look_below(base, path)? {
            Some(metadata) if before.is_some_and(|stamp| stamp.inode == metadata.ino()) => {
                self.found.insert(path.to_owned(), metadata);
                Ok(())
            }
            // New, or gone, or in another's place: with all that is or was below it.
            _ => self.look_at_all(base, sent, path),
        }
    }

    /// Looks at what is at and below `path`.
    fn look_at_all(&mut self, base: &File, sent: &Manifest, path: &Path) -> io::Result<()> {
        if let Some(metadata) = look_below(base, path)? {
            let is_directory = metadata.is_dir();
            self.found.insert(path.to_owned(), metadata);
            if is_directory {
                for found in Walk::below(base, path.to_owned()) {
                    self.found.extend([found?]);
                }
            }
        }
        let gone = sent
            .below(path)
            .filter(|path| !self.found.contains_key(*path));
        self.gone.extend(gone.cloned().collect::<Vec<_>>());
        Ok(())
    }
}
