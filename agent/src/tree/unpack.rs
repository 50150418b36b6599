use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tar::{Archive, Entry, EntryType};

use super::head::{Head, malformed};
use super::pack::XATTR;

/// How much of a file is copied at a time. A block of zeros becomes a hole.
const BLOCK: usize = 64 << 10;

/// Makes the tree below `root`, a directory, what the stream `input` says.
///
/// The stream comes from another machine. Nothing outside of `root` is ever touched: every path
/// is resolved below it, through no symbolic link.
///
/// # Errors
/// Where the stream is broken, tries to leave `root`, or something cannot be written. What was
/// written stays.
pub fn unpack(root: &Path, mut input: impl Read) -> io::Result<()> {
    let base = File::open(root)?;
    let head = Head::read(&mut input)?;
    if head.whole {
        for entry in fs::read_dir(root)? {
            remove(&entry?.path())?;
        }
    }
    // What is deepest goes first.
    let mut removed = head.removed()?;
    removed.sort();
    for path in removed.iter().rev() {
        if let Some(place) = Place::find(&base, path)? {
            remove(&place.path())?;
        }
    }
    let mut archive = Archive::new(input);
    let mut directories = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = clean(&entry.path()?)?;
        let attributes = attributes(&mut entry)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::Directory {
            make_directory(&base, &path)?;
            directories.push((path, Owner::of(&entry)?, attributes));
            continue;
        }
        let place = Place::find(&base, &path)?
            .ok_or_else(|| malformed(format!("{} is in no directory", path.display())))?;
        make(&mut entry, kind, &place, &base)?;
        if kind != EntryType::Link {
            finish(&place.path(), kind, Owner::of(&entry)?, &attributes)?;
        }
    }
    // A directory's time and mode are set when nothing changes in it any more.
    for (path, owner, attributes) in directories.iter().rev() {
        let full = match Place::find(&base, path)? {
            Some(place) => place.path(),
            None => root.to_owned(),
        };
        finish(&full, EntryType::Directory, *owner, attributes)?;
    }
    Ok(())
}

/// A path without `.`; anything that leads up or to a root is refused.
fn clean(path: &Path) -> io::Result<PathBuf> {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => cleaned.push(name),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(malformed(format!("`{}` leaves the tree", path.display())));
            }
        }
    }
    Ok(cleaned)
}

/// A name in a directory below the root.
struct Place {
    directory: File,
    name: PathBuf,
}

impl Place {
    /// Where `path` is, or can be; `None` for the root itself, and where its directory is not
    /// there.
    fn find(base: &File, path: &Path) -> io::Result<Option<Self>> {
        let path = clean(path)?;
        let Some(name) = path.file_name() else {
            return Ok(None);
        };
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => Path::new("."),
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(base, parent, how) {
            Ok(descriptor) => Ok(Some(Self {
                directory: File::from(descriptor),
                name: PathBuf::from(name),
            })),
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR) => Ok(None),
            Err(error) => Err(io::Error::new(
                io::Error::from(error).kind(),
                format!(
                    "`{}` cannot be reached below the tree: {error}",
                    path.display()
                ),
            )),
        }
    }

    /// A path by which this one name can be reached, whatever happens to the directories above.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }
}

/// Removes a file, or a directory with all that it holds; fine where there is none.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_directory(base: &File, path: &Path) -> io::Result<()> {
    let Some(place) = Place::find(base, path)? else {
        // The root itself is there.
        return Ok(());
    };
    let full = place.path();
    if fs::symlink_metadata(&full).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    remove(&full)?;
    DirBuilder::new().mode(0o700).create(full)
}

fn make(
    entry: &mut Entry<'_, impl Read>,
    kind: EntryType,
    place: &Place,
    base: &File,
) -> io::Result<()> {
    let full = place.path();
    remove(&full)?;
    let link = || {
        entry
            .link_name()?
            .map(|name| name.into_owned())
            .ok_or_else(|| malformed("a link to nothing"))
    };
    match kind {
        EntryType::Regular => {
            let size = entry.header().size()?;
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(full)?;
            copy_with_holes(entry, file, size)
        }
        EntryType::Symlink => symlink(link()?, full),
        EntryType::Link => {
            let target = Place::find(base, &link()?)?
                .ok_or_else(|| malformed("a hard link to what is not there"))?;
            fs::hard_link(target.path(), full)
        }
        EntryType::Fifo => node(&full, SFlag::S_IFIFO, 0),
        EntryType::Char | EntryType::Block => {
            let header = entry.header();
            let number = |part: io::Result<Option<u32>>| -> io::Result<u64> {
                part?
                    .map(u64::from)
                    .ok_or_else(|| malformed("a device without a number"))
            };
            let device = makedev(
                number(header.device_major())?,
                number(header.device_minor())?,
            );
            let flag = if kind == EntryType::Char {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFBLK
            };
            node(&full, flag, device)
        }
        other => Err(malformed(format!("an entry of an unknown kind: {other:?}"))),
    }
}

fn node(path: &Path, kind: SFlag, device: u64) -> io::Result<()> {
    mknod(path, kind, Mode::from_bits_truncate(0o600), device).map_err(Into::into)
}

fn copy_with_holes(input: &mut impl Read, mut file: File, size: u64) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match input.read(rest)? {
                0 => break,
                count => filled += count,
            }
        }
        let content = block.get(..filled).unwrap_or_default();
        if content.is_empty() {
            return file.set_len(size);
        }
        if content.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(filled as i64))?;
        } else {
            file.write_all(content)?;
        }
    }
}

#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
    mode: u32,
    modified: u64,
}

impl Owner {
    fn of(entry: &Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let number = |id: u64| u32::try_from(id).map_err(malformed);
        Ok(Self {
            uid: number(header.uid()?)?,
            gid: number(header.gid()?)?,
            mode: header.mode()?,
            modified: header.mtime()?,
        })
    }
}

type Attributes = Vec<(String, Vec<u8>)>;

fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Attributes> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().map_err(malformed)?.strip_prefix(XATTR) {
            found.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Owner, mode, attributes and time, in the order in which the one does not undo the other.
fn finish(path: &Path, kind: EntryType, owner: Owner, attributes: &Attributes) -> io::Result<()> {
    lchown(path, Some(owner.uid), Some(owner.gid))?;
    if kind != EntryType::Symlink {
        fs::set_permissions(path, Permissions::from_mode(owner.mode))?;
    }
    for (name, value) in attributes {
        xattr::set(path, name, value)?;
    }
    if matches!(kind, EntryType::Regular | EntryType::Directory) {
        let modified = UNIX_EPOCH + Duration::from_secs(owner.modified);
        File::open(path)?.set_times(FileTimes::new().set_modified(modified))?;
    }
    Ok(())
}
