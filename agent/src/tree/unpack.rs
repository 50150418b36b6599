use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, futimens, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use tar::{Archive, Entry, EntryType};
use xattr::{FileExt, XAttrs};

use super::head::{Head, malformed};
use super::pack::XATTR;
use super::place::{Place, Places, clean};

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
    let mut archive = Archive::new(&mut input);
    let mut directories = Vec::new();
    let mut places = Places::below(&base);
    let mut block = vec![0; BLOCK];
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
        let place = places.find(&path)?.ok_or_else(|| in_no_directory(&path))?;
        if kind == EntryType::Regular {
            let (owner, size) = (Owner::of(&entry)?, entry.size());
            let file = create(&place, owner.mode)?;
            copy_with_holes(&mut entry, &file, size, &mut block)?;
            finish_file(&file, owner, &attributes)?;
            continue;
        }
        make(&mut entry, kind, &place, &base)?;
        if kind != EntryType::Link {
            finish(&place.path(), kind, Owner::of(&entry)?, &attributes)?;
        }
    }
    read_end(&mut input)?;
    // A directory's time and mode are set when nothing changes in it any more.
    for (path, owner, attributes) in directories.iter().rev() {
        // It may have been replaced meanwhile, by a link to somewhere else at the worst.
        let place = Place::directory(&base, path)?
            .ok_or_else(|| malformed(format!("`{}` is no directory in the end", path.display())))?;
        finish(&place.path(), EntryType::Directory, *owner, attributes)?;
    }
    Ok(())
}

fn in_no_directory(path: &Path) -> io::Error {
    malformed(format!("`{}` is in no directory", path.display()))
}

/// Reads the second of the two blocks of zeros that end an archive. The first is the reader's;
/// it takes the end of the stream for one.
fn read_end(input: &mut impl Read) -> io::Result<()> {
    let mut block = [0; 512];
    input.read_exact(&mut block)?;
    if block.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(malformed("the archive does not end as it should"))
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
    if path.as_os_str().is_empty() {
        // The root itself is there.
        return Ok(());
    }
    let place = Place::find(base, path)?.ok_or_else(|| in_no_directory(path))?;
    let full = place.path();
    if fs::symlink_metadata(&full).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    remove(&full)?;
    DirBuilder::new().mode(0o700).create(full)
}

/// Makes an empty file in the place of whatever is there, with no more than the permissions of
/// `mode`.
fn create(place: &Place, mode: u32) -> io::Result<File> {
    match place.create(mode) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            remove(&place.path())?;
            place.create(mode)
        }
        opened => opened,
    }
}

/// Makes what is neither a directory nor a file with something in it.
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

/// By way of `block`.
fn copy_with_holes(
    input: &mut impl Read,
    mut file: &File,
    size: u64,
    block: &mut [u8],
) -> io::Result<()> {
    let mut ends_with_hole = false;
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
            return match ends_with_hole {
                true => file.set_len(size),
                false => Ok(()),
            };
        }
        ends_with_hole = content.iter().all(|byte| *byte == 0);
        if ends_with_hole {
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
    /// In seconds since 1970.
    modified: i64,
}

impl Owner {
    fn of(entry: &Entry<'_, impl Read>) -> io::Result<Self> {
        let header = entry.header();
        let number = |id: u64| u32::try_from(id).map_err(malformed);
        Ok(Self {
            uid: number(header.uid()?)?,
            gid: number(header.gid()?)?,
            mode: header.mode()?,
            modified: i64::try_from(header.mtime()?).map_err(malformed)?,
        })
    }
}

type Attributes = Vec<(OsString, Vec<u8>)>;

fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Attributes> {
    let mut found = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().map_err(malformed)?.strip_prefix(XATTR) {
            found.push((
                OsString::from_vec(hex::decode(name).map_err(malformed)?),
                hex::decode(extension.value_bytes()).map_err(malformed)?,
            ));
        }
    }
    Ok(found)
}

/// Owner, mode, attributes and time, in the order in which the one does not undo the other.
fn finish_file(file: &File, owner: Owner, attributes: &Attributes) -> io::Result<()> {
    // Most files are as they are to be from the start, and to look is cheaper than to write it down.
    let made = file.metadata()?;
    let is_owned = (made.uid(), made.gid()) == (owner.uid, owner.gid);
    if !is_owned {
        fchown(file, Some(owner.uid), Some(owner.gid))?;
    }
    // A new owner takes a part of the mode away.
    if !is_owned || made.mode() & 0o7777 != owner.mode {
        file.set_permissions(Permissions::from_mode(owner.mode))?;
    }
    for name in others(file.list_xattr(), attributes)? {
        file.remove_xattr(name)?;
    }
    for (name, value) in attributes {
        file.set_xattr(name, value)?;
    }
    let modified = TimeSpec::new(owner.modified, 0);
    futimens(file, &TimeSpec::UTIME_OMIT, &modified).map_err(Into::into)
}

/// The same, of what cannot be opened or need not be.
fn finish(path: &Path, kind: EntryType, owner: Owner, attributes: &Attributes) -> io::Result<()> {
    lchown(path, Some(owner.uid), Some(owner.gid))?;
    if kind != EntryType::Symlink {
        fs::set_permissions(path, Permissions::from_mode(owner.mode))?;
    }
    for name in others(xattr::list(path), attributes)? {
        xattr::remove(path, name)?;
    }
    for (name, value) in attributes {
        xattr::set(path, name, value)?;
    }
    utimensat(
        AT_FDCWD,
        path,
        &TimeSpec::UTIME_OMIT,
        &TimeSpec::new(owner.modified, 0),
        UtimensatFlags::NoFollowSymlink,
    )
    .map_err(Into::into)
}

/// Those of the `names` that are not among the `attributes`: a directory may have had others before,
/// and what is new may have inherited some.
fn others(names: io::Result<XAttrs>, attributes: &Attributes) -> io::Result<Vec<OsString>> {
    let names = match names {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        names => names?,
    };
    let is_other = |name: &OsString| {
        let text = name.as_bytes();
        // How the edge's own security modules label what is made here is theirs to say.
        let is_label = text.starts_with(b"security.") && text != b"security.capability";
        !is_label && !attributes.iter().any(|(kept, _)| kept == name)
    };
    Ok(names.filter(is_other).collect())
}
