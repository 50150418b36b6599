use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use super::place::Place;

/// Beyond so many places it is as quick to look at everything.
const MOST: usize = 100_000;

/// What is told of a directory: what changes in it, and of what is in it.
fn watched() -> AddWatchFlags {
    AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// Where a tree may have changed since something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// It is not known: anything may have.
    Anywhere,
    /// Nowhere else.
    At {
        /// Something about what is, or was, at these paths, relative to the root.
        paths: HashSet<PathBuf>,
        /// Something at or below these.
        subtrees: HashSet<PathBuf>,
    },
}

/// A tree that the kernel watches (inotify(7)), so that what changes in it is known without
/// looking at all of it.
#[derive(Debug)]
pub struct Watch {
    inside: Arc<Inside>,
    reading: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inside {
    inotify: Inotify,
    /// Written to when nobody wants to know any more.
    end: EventFd,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    directories: HashMap<WatchDescriptor, PathBuf>,
    paths: HashSet<PathBuf>,
    subtrees: HashSet<PathBuf>,
    /// Something was missed.
    is_lost: bool,
}

impl Watch {
    /// Begins to watch the tree below `root`.
    ///
    /// # Errors
    /// Where the kernel does not watch so many directories (`fs.inotify.max_user_watches`), or the
    /// tree cannot be read.
    pub fn begin(root: &Path) -> io::Result<Self> {
        let inside = Arc::new(Inside {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            end: EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?,
            seen: Mutex::default(),
        });
        let reading = std::thread::Builder::new()
            .name("tree-watch".to_owned())
            .spawn({
                let inside = inside.clone();
                move || inside.read_on()
            })?;
        let watch = Self {
            inside,
            reading: Some(reading),
        };
        watch.inside.add_all(&File::open(root)?)?;
        Ok(watch)
    }

    /// Where the tree may have changed since the watch began.
    pub fn changes(&self) -> Changes {
        let mut seen = self.inside.seen();
        self.inside.read(&mut seen);
        if seen.is_lost {
            return Changes::Anywhere;
        }
        Changes::At {
            paths: seen.paths.clone(),
            subtrees: seen.subtrees.clone(),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.inside.end.write(1);
        if let Some(reading) = self.reading.take() {
            let _ = reading.join();
        }
    }
}

impl Inside {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each directory before it is read: what is made in it meanwhile is told or found.
    fn add_all(&self, base: &File) -> io::Result<()> {
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let Some(place) = Place::directory(base, &directory)? else {
                continue;
            };
            // What it tells at once is taken up only when it is known where it is.
            let mut seen = self.seen();
            match self.inotify.add_watch(&place.path(), watched()) {
                Ok(watch) => {
                    seen.directories.insert(watch, directory.clone());
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                Err(error) => {
                    return Err(io::Error::new(
                        io::Error::from(error).kind(),
                        format!(
                            "cannot watch {} directories: {error}; see fs.inotify.max_user_watches",
                            seen.directories.len() + 1
                        ),
                    ));
                }
            }
            drop(seen);
            let entries = match fs::read_dir(place.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    directories.push(directory.join(entry.file_name()));
                }
            }
        }
        Ok(())
    }

    /// Until the end: the kernel keeps no more than some thousands of events.
    fn read_on(&self) {
        loop {
            let mut waited = [
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.end.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => {
                    self.seen().is_lost = true;
                    return;
                }
            }
            let [_, end] = waited;
            if end.any() != Some(false) {
                return;
            }
            self.read(&mut self.seen());
        }
    }

    /// Takes up all that the kernel has to tell.
    fn read(&self, seen: &mut Seen) {
        loop {
            match self.inotify.read_events() {
                Ok(events) if events.is_empty() => return,
                Ok(events) => events.iter().for_each(|event| seen.take_up(event)),
                Err(Errno::EAGAIN) => return,
                Err(Errno::EINTR) => {}
                Err(_) => {
                    seen.is_lost = true;
                    return;
                }
            }
        }
    }
}

impl Seen {
    /// What is told may be of a path that is another by now: all are but places to look at.
    fn take_up(&mut self, event: &InotifyEvent) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.is_lost = true;
            return;
        }
        let Some(directory) = self.directories.get(&event.wd).cloned() else {
            return;
        };
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            self.directories.remove(&event.wd);
        }
        let root_is_gone =
            AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_UNMOUNT;
        if directory.as_os_str().is_empty() && event.mask.intersects(root_is_gone) {
            self.is_lost = true;
        }
        if let Some(name) = &event.name {
            let path = directory.join(name);
            let moves =
                AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
            // Whole trees come and go; what is new is not watched, and looked at every time.
            if event.mask.contains(AddWatchFlags::IN_ISDIR) && event.mask.intersects(moves) {
                self.subtrees.insert(path);
            } else {
                self.paths.insert(path);
            }
        }
        self.paths.insert(directory);
        if self.paths.len() + self.subtrees.len() > MOST {
            self.is_lost = true;
        }
        if self.is_lost {
            // Nobody asks for them any more.
            self.paths = HashSet::new();
            self.subtrees = HashSet::new();
        }
    }
}
