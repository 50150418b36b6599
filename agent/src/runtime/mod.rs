//! What runs containers on an edge: one trait, LXC behind it, and a simulation for tests and for
//! fleets too large for one machine.

mod name;
mod simulated;

pub use name::{ContainerName, InvalidName};
pub use simulated::SimulatedRuntime;

use std::future::Future;
use std::path::{Path, PathBuf};

use carnet_api::agent::{Container, Described, Prepared};
use carnet_core::migration::Strategy;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::tree::Mapped;

/// Why a runtime did not do what it was asked.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// The edge is as it was; what was asked cannot be done, and the text says why.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Command(#[from] crate::exec::CommandError),
    #[error("{path}: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl RuntimeError {
    /// For `map_err`: what failed with which file.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// The outcome of an operation of a runtime.
pub type Done<T = ()> = Result<T, RuntimeError>;

/// The two ways between what gives out pages of memory and what asks for them.
pub type Pages = Box<dyn PageStream>;

/// What [`Pages`] are: bytes both ways, which only runtimes of the same kind understand.
pub trait PageStream: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + std::fmt::Debug> PageStream for T {}

/// Containers on one edge.
///
/// Every operation may be repeated: done again after it succeeded, or after a crash in its midst,
/// it leaves what it leaves when done once. A container's name has been checked before it comes
/// here.
pub trait Runtime: Send + Sync + 'static {
    /// Every container, running or not.
    fn containers(&self) -> impl Future<Output = Done<Vec<Container>>> + Send;

    /// The text of `/run/carnet-claim` inside a running container; `None` where there is none.
    fn placed_claim(
        &self,
        name: &ContainerName,
    ) -> impl Future<Output = Done<Option<String>>> + Send;

    /// Ends what a process before this one has left half done, and removes its memory images, but
    /// those of `unfinished`, which are needed still. Comes before anything else.
    fn recover(&self, unfinished: &[ContainerName]) -> impl Future<Output = ()> + Send;

    /// What keeps this edge from taking part in a migration; empty: nothing.
    fn problems(&self) -> impl Future<Output = Vec<String>> + Send;

    /// What keeps this edge from all moves but those with [`Strategy::Cold`]; empty: nothing.
    fn live_problems(&self) -> impl Future<Output = Vec<String>> + Send;

    /// What keeps this edge from receiving `container` with which strategies.
    fn receiving_problems(&self, container: &Described) -> impl Future<Output = Prepared> + Send;

    /// Checks that a container, running or not, can move from here, and describes it for the
    /// target.
    fn describe(&self, name: &ContainerName) -> impl Future<Output = Done<Described>> + Send;

    /// Checks that a described container can come here: its name and address are free, there is
    /// room, and its configuration does nothing to this edge.
    fn check(
        &self,
        name: &ContainerName,
        container: &Described,
    ) -> impl Future<Output = Done> + Send;

    /// Makes the directories and the definition of a container that was checked.
    fn prepare(
        &self,
        name: &ContainerName,
        container: &Described,
    ) -> impl Future<Output = Done> + Send;

    /// Where a container's root file system is, or will be.
    fn rootfs(&self, name: &ContainerName) -> PathBuf;

    /// The files of its own that a container has mapped into memory to write to them there.
    ///
    /// # Errors
    /// Where it cannot be told.
    fn mapped(&self, name: &ContainerName) -> Done<Vec<Mapped>>;

    /// Where memory images of a container go: on tmpfs, so that they never reach a disk.
    fn images(&self, name: &ContainerName) -> PathBuf;

    /// Makes [`images`](Self::images) for what goes ahead to a prepared container.
    ///
    /// # Errors
    /// Where it would be on a disk, or cannot be made.
    fn expect_images(&self, name: &ContainerName) -> Done;

    /// Has the kernel keep the memory of a container that runs on in such a way that it is quick to
    /// dump, where it can: nothing else depends on it.
    fn use_huge_pages(&self, name: &ContainerName) -> impl Future<Output = ()> + Send;

    /// Writes what a container that runs on holds in memory into a directory below
    /// [`images`](Self::images): all of it at first, later what it has written to since the last
    /// time. Returns how much that was, in bytes. What was written stays as it is.
    ///
    /// `is_first`: what was written before counts for nothing. So it does where this fails.
    fn dump_ahead(
        &self,
        name: &ContainerName,
        is_first: bool,
    ) -> impl Future<Output = Done<u64>> + Send;

    /// Does what can be done before a container is frozen and dumped, so that it stands still for
    /// less.
    fn ready_to_freeze(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Stops every process of a container where it is, and takes it off the network.
    fn freeze(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Writes the memory of a frozen container into [`images`](Self::images). It stays frozen.
    ///
    /// With [`Strategy::PreCopy`], that is what it has written to since it was last
    /// [dumped ahead](Self::dump_ahead), beside what was written then; where it was not, or where
    /// it was dumped since, all.
    ///
    /// With [`Strategy::PostCopy`] the pages of its memory stay behind, and are given out on the
    /// stream that is returned, to the [`restore`](Self::restore) at its other end. With it the
    /// stream ends; the container stays as it is.
    fn dump(
        &self,
        name: &ContainerName,
        strategy: Strategy,
    ) -> impl Future<Output = Done<Option<Pages>>> + Send;

    /// Puts a container back on the network and lets it run on, if it was frozen; removes its
    /// images.
    fn thaw(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Does for a prepared container everything that can be done before its images are here.
    fn stand_by(
        &self,
        name: &ContainerName,
        strategy: Strategy,
    ) -> impl Future<Output = Done> + Send;

    /// Makes a prepared container from [`images`](Self::images), all but the last word: it does
    /// not run, and is not on the network. `pages` is where the rest of its memory comes from, if
    /// it follows.
    ///
    /// Done where it is ready, or runs, already; where it fails, nothing of it is there. What is
    /// ready when this process ends never runs. With [`Strategy::Cold`] there is nothing to be made:
    /// it is only known from here on that the container has not run.
    fn restore(
        &self,
        name: &ContainerName,
        strategy: Strategy,
        pages: Option<Pages>,
    ) -> impl Future<Output = Done> + Send;

    /// Puts a container that was restored on the network, if it is still there, and lets it run.
    fn start(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Whether [`start`](Self::start) or [`boot`](Self::boot) has let it run, whatever has become of
    /// it since.
    fn has_started(&self, name: &ContainerName) -> bool;

    /// Whether nothing of a container runs that is here.
    fn is_stopped(&self, name: &ContainerName) -> bool;

    /// Shuts a container down, by force where it does not hear or takes too long. From before that
    /// until [`boot`](Self::boot) nobody can start it here, neither by hand nor at the machine's
    /// start.
    fn stop(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// A container that was stopped, or was prepared and has all its files, is one of this edge's
    /// again: whoever may can start it. Where `runs`, that is done here, on the network; what has
    /// been started since it was stopped, or prepared, is left alone.
    ///
    /// # Errors
    /// Where it does not start; nothing of it runs then.
    fn boot(&self, name: &ContainerName, runs: bool) -> impl Future<Output = Done> + Send;

    /// Waits until all memory of a container that was started with [`Strategy::PostCopy`] is here.
    ///
    /// # Errors
    /// Where it will never be, or nothing is known of it, since the machine has started anew; the container has been killed then, before it could use memory
    /// that it does not have.
    fn settle(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Removes the images.
    fn forget_images(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;

    /// Ends a container, whatever state it is in, and removes all that there is of it.
    fn remove(&self, name: &ContainerName) -> impl Future<Output = Done> + Send;
}
