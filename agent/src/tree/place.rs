use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::head::malformed;

/// A name in a directory below a root.
///
/// The way to the directory leads through no symbolic link, and what happens to it later changes
/// nothing: the directory is held open. At one end the tree belongs to a container that runs, at
/// the other it comes from another machine; both could put a link to the edge's own files there.
pub(super) struct Place {
    directory: File,
    name: PathBuf,
}

impl Place {
    /// Where `path` is below `base`, or can be; `None` where its directory is not there, and for
    /// the root itself, which is in none.
    ///
    /// # Errors
    /// Where `path` leads up or to a root, or the kernel refuses.
    pub(super) fn find(base: &File, path: &Path) -> io::Result<Option<Self>> {
        let path = clean(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        Ok(open(base, parent)?.map(|directory| Self {
            directory,
            name: PathBuf::from(name),
        }))
    }

    /// The directory `path` below `base` itself; `None` where there is none.
    ///
    /// # Errors
    /// As for [`find`](Self::find).
    pub(super) fn directory(base: &File, path: &Path) -> io::Result<Option<Self>> {
        Ok(open(base, &clean(path)?)?.map(|directory| Self {
            directory,
            name: PathBuf::from("."),
        }))
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
