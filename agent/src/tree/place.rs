use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use super::head::malformed;

/// A name in a directory below a root.
///
/// The way to the directory leads through no symbolic link, and what happens to it later changes
/// nothing: the directory is held open. At one end the tree belongs to a container that runs, at
/// the other it comes from another machine; both could put a link to the edge's own files there.
pub(super) struct Place {
    directory: Rc<File>,
    name: PathBuf,
}

/// The places below a root, one after the other: many are in the directory of the one before.
///
/// Only the last directory is remembered: whatever is put in its place, or in that of one above it, is
/// itself found in another directory first.
pub(super) struct Places<'a> {
    base: &'a File,
    last: Option<(PathBuf, Rc<File>)>,
}

impl<'a> Places<'a> {
    pub(super) fn below(base: &'a File) -> Self {
        Self { base, last: None }
    }

    /// As [`Place::find`].
    ///
    /// # Errors
    /// As there.
    pub(super) fn find(&mut self, path: &Path) -> io::Result<Option<Place>> {
        let path = clean(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let name = PathBuf::from(name);
        if let Some((last, directory)) = &self.last
            && last == parent
        {
            let directory = directory.clone();
            return Ok(Some(Place { directory, name }));
        }
        let Some(directory) = open(self.base, parent)?.map(Rc::new) else {
            return Ok(None);
        };
        self.last = Some((parent.to_owned(), directory.clone()));
        Ok(Some(Place { directory, name }))
    }
}

impl Place {
    /// Where `path` is below `base`, or can be; `None` where its directory is not there, and for
    /// the root itself, which is in none.
    ///
    /// # Errors
    /// Where `path` leads up or to a root, or the kernel refuses.
    pub(super) fn find(base: &File, path: &Path) -> io::Result<Option<Self>> {
        Places::below(base).find(path)
    }

    /// The directory `path` below `base` itself; `None` where there is none.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub(super) fn directory(base: &File, path: &Path) -> io::Result<Option<Self>> {
        Ok(open(base, &clean(path)?)?.map(|directory| Self {
            directory: Rc::new(directory),
            name: PathBuf::from("."),
        }))
    }

    /// Opens the file that is there to be read, through no link, and without hanging on a pipe.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(&self) -> io::Result<File> {
        self.open_by(OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())
    }

    /// Makes a file there to be written, with the permissions of `mode` and nothing else of it.
    ///
    /// # Errors
    /// The kernel's, which makes none in the place of what is there.
    pub(super) fn create(&self, mode: u32) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        self.open_by(flags, Mode::from_bits_truncate(mode & 0o777))
    }

    fn open_by(&self, flags: OFlag, mode: Mode) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&*self.directory, &self.name, flags, mode)?;
        Ok(File::from(opened))
    }

    /// A path by which it can be reached for as long as this place is kept.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }
}

/// A path without `.`; anything that leads up or to a root is refused.
pub(super) fn clean(path: &Path) -> io::Result<PathBuf> {
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

fn open(base: &File, directory: &Path) -> io::Result<Option<File>> {
    let within = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(base, within, how) {
        Ok(descriptor) => Ok(Some(File::from(descriptor))),
        // ELOOP: a symbolic link stands where a directory should.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!(
                "`{}` cannot be reached below the tree: {error}",
                directory.display()
            ),
        )),
    }
}
