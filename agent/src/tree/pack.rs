use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::iter::{self, zip};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{major, minor};
use tar::{Builder, EntryType, Header};
use xattr::{FileExt, XAttrs};

use super::head::Head;
use super::manifest::{Found, Looked, Manifest, Mapped, Stamp, Walk, now_ns};
use super::place::{Place, Places};
use super::watch::Changes;

/// The prefix under which extended attributes are carried.
pub(super) const XATTR: &str = "CARNET.xattr.";

/// What was sent of a tree before, and where it may have changed since.
#[derive(Debug)]
pub struct Previous {
    manifest: Manifest,
    changes: Changes,
}

impl Previous {
    /// `changes` are all since before the tree was looked at for `manifest`; `mapped` are the files
    /// that were written to in memory then, or are now.
    pub fn new<'a>(
        mut manifest: Manifest,
        changes: Changes,
        mapped: impl IntoIterator<Item = &'a Mapped>,
    ) -> Self {
        let mut are_known = true;
        for file in mapped {
            are_known &= manifest.distrust(file);
        }
        // A file that is nowhere known is new, or has another number than it shows.
        let changes = if are_known {
            changes
        } else {
            Changes::Anywhere
        };
        Self { manifest, changes }
    }

    /// What stands in `manifest` is not written to any more: only what has come since is sent, and
    /// what has gone is told.
    pub fn of_what_stays(mut manifest: Manifest) -> Self {
        manifest.trust();
        Self {
            manifest,
            changes: Changes::Anywhere,
        }
    }
}

/// Writes the tree below `root` to `output`: all of it, or, given what was sent before, what has
/// changed since. Returns the manifest of what is there now.
///
/// The tree may change meanwhile; what is sent torn, or missed, is sent again by the next pass,
/// the last of which has to be made while nothing changes. Nothing outside of `root` is ever
/// read, whatever links are put into it.
///
/// # Errors
/// Where something cannot be read or written.
pub fn pack(
    root: &Path,
    previous: Option<&Previous>,
    mut output: impl Write,
) -> io::Result<Manifest> {
    let base = File::open(root)?;
    let now_ns = now_ns();
    let all = || {
        let root = base.metadata().map(|metadata| (PathBuf::new(), metadata));
        iter::once(root).chain(Walk::below(&base, PathBuf::new()))
    };
    let Some(previous) = previous else {
        Head::new(true, []).write(&mut output)?;
        // Each as it is found: the network does not wait until all has been looked at.
        return send(&base, all(), now_ns, Manifest::default(), output);
    };
    let (found, mut manifest, gone) = match &previous.changes {
        Changes::At { paths, subtrees } => {
            let looked = Looked::at(&base, &previous.manifest, paths, subtrees)?;
            let mut manifest = previous.manifest.clone();
            for path in &looked.gone {
                manifest.files.remove(path);
            }
            let found = looked.found.into_iter().collect();
            (found, manifest, Some(looked.gone))
        }
        Changes::Anywhere => {
            let found: Vec<Found> = all().collect::<io::Result<_>>()?;
            (found, Manifest::default(), None)
        }
    };
    for (path, metadata) in &found {
        manifest
            .files
            .insert(path.clone(), Stamp::new(metadata, now_ns));
    }
    // Where not all was looked at, all the rest is there: to look it up takes long for a container
    // that stands still.
    let mut removed: Vec<&Path> = match &gone {
        Some(gone) => gone.iter().map(PathBuf::as_path).collect(),
        None => previous
            .manifest
            .files
            .keys()
            .map(PathBuf::as_path)
            .collect(),
    };
    removed.retain(|path| !manifest.files.contains_key(*path));
    Head::new(false, removed).write(&mut output)?;

    let to_send = changed(found, &previous.manifest, now_ns);
    send(&base, to_send.into_iter().map(Ok), now_ns, manifest, output)
}

/// What of all that was `found` has to be sent to who has what was `sent`.
fn changed(found: Vec<Found>, sent: &Manifest, now_ns: i128) -> Vec<Found> {
    // Asked for once each: to find a path among thousands takes as long as to look at a file.
    let is_new_or_other: Vec<bool> = found
        .iter()
        .map(|(path, metadata)| {
            let now = Stamp::new(metadata, now_ns);
            let sent = sent.files.get(path);
            sent.is_none_or(|sent| !now.is_unchanged_since(sent))
        })
        .collect();
    // All names of a file are sent or none, else they would be files of their own at the other
    // end. One may be new without the file knowing: a directory above it has another name now.
    let linked: HashSet<(u64, u64)> = zip(&found, &is_new_or_other)
        .filter(|(_, is_new_or_other)| **is_new_or_other)
        .filter_map(|((_, metadata), _)| linked(metadata))
        .collect();
    let is_changed: Vec<bool> = zip(&found, &is_new_or_other)
        .map(|((_, metadata), is_new_or_other)| {
            *is_new_or_other || self::linked(metadata).is_some_and(|file| linked.contains(&file))
        })
        .collect();
    // What is unpacked into a directory changes its time: it is sent too, to be set right.
    let parents: HashSet<PathBuf> = zip(&found, &is_changed)
        .filter(|(_, is_changed)| **is_changed)
        .filter_map(|((path, _), _)| path.parent().map(Path::to_owned))
        .collect();
    zip(found, is_changed)
        .filter(|((path, _), is_changed)| *is_changed || parents.contains(path))
        .map(|(file, _)| file)
        .collect()
}

/// Sends the files `to_send`. Returns `manifest` with what they were like.
fn send(
    base: &File,
    to_send: impl Iterator<Item = io::Result<Found>>,
    now_ns: i128,
    mut manifest: Manifest,
    output: impl Write,
) -> io::Result<Manifest> {
    let mut archive = Builder::new(output);
    let mut places = Places::below(base);
    let mut links = HashMap::new();
    let mut missed = HashSet::new();
    for file in to_send {
        let (path, metadata) = file?;
        let mut stamp = Stamp::new(&metadata, now_ns);
        // What is in a directory that was not sent has no place at the other end.
        let parent_is_missed = path.parent().is_some_and(|path| missed.contains(path));
        if parent_is_missed
            || !append(
                &mut archive,
                base,
                &mut places,
                &path,
                &metadata,
                &mut links,
            )?
        {
            missed.insert(path.clone());
            stamp.unsettle();
        }
        manifest.files.insert(path, stamp);
    }
    archive.into_inner()?.flush()?;
    Ok(manifest)
}

/// Which file it is a name of, where that has more names than one.
fn linked(metadata: &Metadata) -> Option<(u64, u64)> {
    let is_linked = metadata.nlink() > 1 && !metadata.is_dir();
    is_linked.then(|| (metadata.dev(), metadata.ino()))
}

/// Appends what is at `path`; `false` where it is gone since the walk, or is something else.
fn append<W: Write>(
    archive: &mut Builder<W>,
    base: &File,
    places: &mut Places<'_>,
    path: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<bool> {
    let kind = metadata.file_type();
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(metadata.mtime().max(0).cast_unsigned());
    header.set_size(0);

    // A file with several names is sent once; its other names are links to the first.
    let inode = linked(metadata);
    if let Some(first) = inode.and_then(|inode| links.get(&inode)) {
        header.set_entry_type(EntryType::Link);
        append_entry(archive, &mut header, path, Some(first), io::empty())?;
        return Ok(true);
    }
    let place = if kind.is_dir() {
        Place::directory(base, path)?
    } else {
        places.find(path)?
    };
    let Some(place) = place else {
        return Ok(false);
    };
    let full = place.path();
    let by_path = || attributes(xattr::list(&full), |name| xattr::get(&full, name));
    if kind.is_file() {
        let Some(file) = open_file(&place)? else {
            return Ok(false);
        };
        append_attributes(
            archive,
            &attributes(file.list_xattr(), |name| file.get_xattr(name))?,
        )?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(metadata.size());
        // As many bytes as announced, whatever became of the file meanwhile.
        let content = file.chain(io::repeat(0)).take(metadata.size());
        append_entry(archive, &mut header, path, None, content)?;
    } else if kind.is_symlink() {
        let target = match fs::read_link(&full) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                return Ok(false);
            }
            target => target?,
        };
        append_attributes(archive, &by_path()?)?;
        header.set_entry_type(EntryType::Symlink);
        append_entry(archive, &mut header, path, Some(&target), io::empty())?;
    } else {
        append_attributes(archive, &by_path()?)?;
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
        } else {
            header.set_entry_type(if kind.is_char_device() {
                EntryType::Char
            } else {
                EntryType::Block
            });
            let number = |part: u64| u32::try_from(part).map_err(super::head::malformed);
            header.set_device_major(number(major(metadata.rdev()))?)?;
            header.set_device_minor(number(minor(metadata.rdev()))?)?;
        }
        append_entry(archive, &mut header, path, None, io::empty())?;
    }
    // Only now: a link to what was not sent could not be made.
    if let Some(inode) = inode {
        links.insert(inode, path.to_owned());
    }
    Ok(true)
}

/// Opens a file; `None` where it is gone or is no file any more.
fn open_file(place: &Place) -> io::Result<Option<File>> {
    match place.open() {
        Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
        // A link, or a socket or device without a driver, stands there now.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ELOOP | libc::ENXIO | libc::ENODEV)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Extended attributes, by their names.
type Attributes = Vec<(OsString, Vec<u8>)>;

/// Those of the `names` that `get` has something of.
fn attributes(
    names: io::Result<XAttrs>,
    get: impl Fn(&OsString) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Attributes> {
    let gone = |error: &io::Error| {
        // Gone since the walk, or a file system without them.
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported
        )
    };
    let names = match names {
        Err(error) if gone(&error) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names {
        let value = match get(&name) {
            Err(error) if gone(&error) => None,
            value => value?,
        };
        found.extend(value.map(|value| (name, value)));
    }
    Ok(found)
}

/// Extended attributes go before the entry that they belong to.
fn append_attributes<W: Write>(
    archive: &mut Builder<W>,
    attributes: &Attributes,
) -> io::Result<()> {
    let records: Vec<(String, String)> = attributes
        .iter()
        .map(|(name, value)| {
            let name = hex::encode(name.as_bytes());
            (format!("{XATTR}{name}"), hex::encode(value))
        })
        .collect();
    let records = records.iter();
    archive.append_pax_extensions(records.map(|(name, value)| (name.as_str(), value.as_bytes())))
}

/// Appends an entry with `path` and `link` byte for byte: `tar`'s own way to write them tidies
/// links up, and refuses some paths that are not UTF-8.
fn append_entry<W: Write>(
    archive: &mut Builder<W>,
    header: &mut Header,
    path: &Path,
    link: Option<&Path>,
    content: impl Read,
) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let path = path.as_os_str().as_bytes();
    if !fill(&mut header.as_old_mut().name, path) {
        append_long(archive, EntryType::GNULongName, path)?;
    }
    if let Some(link) = link.map(|link| link.as_os_str().as_bytes())
        && !fill(&mut header.as_old_mut().linkname, link)
    {
        append_long(archive, EntryType::GNULongLink, link)?;
    }
    header.set_cksum();
    archive.append(header, content)
}

/// Writes as much of `text` as there is room for; `false` where that is not all.
fn fill(field: &mut [u8], text: &[u8]) -> bool {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
    text.len() <= field.len()
}

/// A path that is too long for the header of the entry that comes next.
fn append_long<W: Write>(archive: &mut Builder<W>, kind: EntryType, text: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    // With the zero that ends it.
    header.set_size(text.len() as u64 + 1);
    header.set_cksum();
    archive.append(&header, text.chain(io::repeat(0).take(1)))
}
