use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use tar::{Builder, EntryType, Header};

use super::head::Head;
use super::manifest::{Manifest, Stamp, walk};

/// The prefix under which PAX archives carry extended attributes.
pub(super) const XATTR: &str = "SCHILY.xattr.";

/// Writes the tree below `root` to `output`: all of it, or, given the manifest of what was sent
/// before, what has changed since. Returns the manifest of what is there now.
///
/// The tree may change meanwhile; what is sent torn is sent again by the next pass, the last of
/// which has to be made while nothing changes.
///
/// # Errors
/// Where something cannot be read or written.
pub fn pack(
    root: &Path,
    previous: Option<&Manifest>,
    mut output: impl Write,
) -> io::Result<Manifest> {
    let found = walk(root)?;
    let mut manifest = Manifest::default();
    for (path, metadata) in &found {
        manifest.files.insert(path.clone(), Stamp::new(metadata));
    }
    let removed = previous
        .into_iter()
        .flat_map(|previous| previous.files.keys())
        .filter(|path| !manifest.files.contains_key(*path))
        .map(PathBuf::as_path);
    Head::new(previous.is_none(), removed).write(&mut output)?;

    let mut archive = Builder::new(output);
    let mut links = HashMap::new();
    for (path, metadata) in &found {
        let unchanged = previous
            .and_then(|previous| previous.files.get(path))
            .is_some_and(|sent| Stamp::new(metadata).is_unchanged_since(sent));
        if !unchanged {
            append(&mut archive, root, path, metadata, &mut links)?;
        }
    }
    archive.into_inner()?.flush()?;
    Ok(manifest)
}

fn append<W: Write>(
    archive: &mut Builder<W>,
    root: &Path,
    path: &Path,
    metadata: &Metadata,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let kind = metadata.file_type();
    if kind.is_socket() {
        return Ok(());
    }
    let full = root.join(path);
    let archived = if path.as_os_str().is_empty() {
        Path::new("./")
    } else {
        path
    };
    let mut header = Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(metadata.mtime().max(0).cast_unsigned());
    header.set_size(0);

    // A file with several names is sent once; its other names are links to the first.
    if metadata.nlink() > 1 && !kind.is_dir() {
        let inode = (metadata.dev(), metadata.ino());
        if let Some(first) = links.get(&inode) {
            header.set_entry_type(EntryType::Link);
            return archive.append_link(&mut header, archived, first);
        }
        links.insert(inode, path.to_owned());
    }
    append_attributes(archive, &full)?;
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        let target = fs::read_link(&full)?;
        return archive.append_link(&mut header, archived, target);
    }
    if kind.is_file() {
        header.set_entry_type(EntryType::Regular);
        let file = match File::open(&full) {
            // Gone since the walk: the next pass tells.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file?,
        };
        header.set_size(metadata.size());
        // As many bytes as announced, whatever became of the file meanwhile.
        let content = file.chain(io::repeat(0)).take(metadata.size());
        return archive.append_data(&mut header, archived, content);
    }
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
    archive.append_data(&mut header, archived, io::empty())
}

/// Extended attributes go before the entry that they belong to.
fn append_attributes<W: Write>(archive: &mut Builder<W>, full: &Path) -> io::Result<()> {
    let names = match xattr::list(full) {
        Ok(names) => names,
        // Gone since the walk, or a file system without them.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::Unsupported
            ) =>
        {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names {
        // Names are text on Linux; the kernel sees to that of all that it stores.
        let Ok(name_text) = std::str::from_utf8(name.as_bytes()) else {
            continue;
        };
        if let Some(value) = xattr::get(full, &name)? {
            attributes.push((format!("{XATTR}{name_text}"), value));
        }
    }
    archive.append_pax_extensions(
        attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice())),
    )
}
