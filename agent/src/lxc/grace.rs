//! Waits for the kernel that CRIU is spared while a container stands still.
//!
//! Some things the kernel does only after every processor has come to rest once (a grace period of
//! RCU), which takes 4 to 25 ms. Two of them CRIU needs:
//!
//! - the first process moved into another cgroup waits for one, those soon after it do not
//!   (`kernel/rcu/sync.c`). A restored process is moved into its container's;
//! - the first breakpoint in the machine waits for one, further ones do not (`account_event` in
//!   `kernel/events/core.c`). CRIU sets breakpoints in every process that it dumps or restores.
//!
//! So somebody is always the first: a thread of this agent's, before the container is frozen.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::CGROUPS;

/// How soon "soon after it" is: less than a grace period.
const INTERVAL: Duration = Duration::from_millis(3);

/// Until it is dropped, CRIU does not wait for grace periods.
#[derive(Debug)]
pub struct NoGracePeriods {
    is_over: Arc<AtomicBool>,
}

impl NoGracePeriods {
    /// Begins; it takes effect a grace period later. Where the kernel refuses, CRIU waits.
    pub fn begin() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let told = is_over.clone();
        std::thread::spawn(move || {
            let event = event();
            let _ = event
                .as_ref()
                .map_err(|error| tracing::debug!(%error, "breakpoints are set late"));
            let own = own_cgroup();
            while !told.load(Ordering::Relaxed) {
                // Into the cgroup that it is in. Whether that may be or not, the kernel has waited.
                if let Some(own) = &own {
                    let _ = fs::write(own, "0");
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Self { is_over }
    }
}

impl Drop for NoGracePeriods {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The list of the processes in the cgroup that this one is in.
fn own_cgroup() -> Option<PathBuf> {
    let told = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = told.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(CGROUPS).join(path).join("cgroup.procs"))
}

/// An event of this thread's that never comes: breakpoints are among the kernel's events, and what it
/// needs for any is there as long as one is.
fn event() -> io::Result<OwnedFd> {
    /// Of `perf_event_attr`, its first version (perf_event_open(2)).
    const SIZE: u64 = 64;
    const SOFTWARE: u64 = 1;
    const DUMMY: u64 = 9;
    const IS_DISABLED: u64 = 1;
    const CLOSE_ON_EXEC: u64 = 8;
    let attributes: [u64; 8] = [SOFTWARE | SIZE << 32, DUMMY, 0, 0, 0, IS_DISABLED, 0, 0];
    #[expect(
        unsafe_code,
        reason = "nix has no perf_event_open(2); the kernel reads the attributes, which say their size"
    )]
    let opened = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            0,
            -1,
            -1,
            CLOSE_ON_EXEC,
        )
    };
    let opened = i32::try_from(Errno::result(opened)?).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the kernel has just given it to this process")]
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gives_an_event() {
        event().unwrap();
    }
}
