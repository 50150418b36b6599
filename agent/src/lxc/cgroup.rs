//! A container's cgroup (v2): freezing, killing, counting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long freezing, or dying, may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the kernel is asked whether it is done.
const INTERVAL: Duration = Duration::from_millis(1);

/// What a container's first process does something about: other signals are nothing to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hears {
    /// What LXC asks a container by to shut down.
    pub lxc: bool,
    /// SIGTERM, as programs do that are not made to be a container's first process.
    pub terminate: bool,
}

impl Hears {
    /// By the masks of the signals that a process catches and that it blocks.
    fn of(caught: u64, blocked: u64) -> Self {
        const SIGTERM: u32 = 15;
        const SIGPWR: u32 = 30;
        /// SIGRTMIN + 3: systemd waits for it in place of catching it.
        const HALT: u32 = 37;
        let holds = |mask: u64, signal: u32| mask & (1 << (signal - 1)) != 0;
        Self {
            lxc: holds(blocked, HALT) || holds(caught | blocked, SIGPWR),
            terminate: holds(caught, SIGTERM),
        }
    }
}

/// The cgroup of a container's processes.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup named `name` below the mount of the v2 hierarchy at `root`; `None` where there
    /// is none.
    pub fn find(root: &Path, name: &str) -> Option<Self> {
        let path = root.join(name);
        path.join("cgroup.procs").exists().then_some(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_frozen(&self) -> bool {
        self.has_come_to("frozen 1")
    }

    /// Whether there is a process in it, or below it.
    pub fn is_populated(&self) -> bool {
        self.has_come_to("populated 1")
    }

    fn has_come_to(&self, event: &str) -> bool {
        fs::read_to_string(self.path.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == event))
    }

    /// The container's first process, as this machine numbers it; `None` where it has ended.
    pub fn first_process(&self) -> Option<u32> {
        self.processes().into_iter().find(|pid| {
            status(*pid, "NSpid:").is_some_and(|numbers| {
                let mut numbers = numbers.split_whitespace().rev();
                numbers.next() == Some("1") && numbers.next().is_some()
            })
        })
    }

    /// What the process `pid` hears of being told to end.
    pub fn hears(&self, pid: u32) -> Hears {
        let mask = |key| {
            let mask = status(pid, key);
            mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
                .unwrap_or(0)
        };
        Hears::of(mask("SigCgt:"), mask("SigBlk:"))
    }

    /// Whether somebody holds one of its processes by ptrace, as CRIU does.
    pub fn is_traced(&self) -> bool {
        self.processes()
            .into_iter()
            .any(|pid| status(pid, "TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    }

    /// Whether its processes were told to stop; each may take a moment to.
    pub fn is_to_freeze(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.freeze")).is_ok_and(|told| told.trim() == "1")
    }

    /// Stops every process where it is.
    ///
    /// # Errors
    /// Where the kernel refuses, or has not stopped them in time; they are not frozen then.
    pub async fn freeze(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), "1")?;
        if wait_until(|| self.is_frozen()).await {
            return Ok(());
        }
        fs::write(self.path.join("cgroup.freeze"), "0")?;
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "its processes do not stop; one may be in an uninterruptible system call",
        ))
    }

    /// Lets every process run on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn thaw(&self) -> io::Result<()> {
        fs::write(self.path.join("cgroup.freeze"), "0")
    }

    /// Ends every process, frozen or not.
    ///
    /// # Errors
    /// Where the kernel refuses, or they have not ended in time.
    pub async fn kill(&self) -> io::Result<()> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if wait_until(|| self.processes().is_empty()).await {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "its processes do not end",
            ))
        }
    }

    /// The processes in it, as this machine numbers them.
    pub fn processes(&self) -> Vec<u32> {
        fs::read_to_string(self.path.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect()
    }

    /// What its processes hold in memory, in bytes; pages that several share count for each.
    pub fn resident_bytes(&self) -> u64 {
        /// The page size of every machine that CRIU runs on here.
        const PAGE: u64 = 4_096;
        self.processes()
            .into_iter()
            .filter_map(|pid| {
                let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
                statm.split_whitespace().nth(1)?.parse::<u64>().ok()
            })
            .map(|pages| pages * PAGE)
            .sum()
    }
}

/// What the kernel says of a process in `/proc/PID/status`.
fn status(pid: u32, key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::to_owned)
}

/// Whether `condition` came true in time.
pub async fn wait_until(condition: impl FnMut() -> bool) -> bool {
    wait_until_within(LIMIT, condition).await
}

/// Whether `condition` came true within `limit`.
pub async fn wait_until_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_process_is_told_to_end_by_what_it_hears() {
        let (term, power, halt) = (1 << 14, 1 << 29, 1 << 36);
        for (caught, blocked, lxc, terminate) in [
            // As systemd waits for it.
            (0, halt, true, false),
            (term, halt, true, true),
            (power, 0, true, false),
            (0, power, true, false),
            (term, 0, false, true),
            // It does not end a container's first process, unless that catches it.
            (0, term, false, false),
            (!(term | power), !(term | power | halt), false, false),
        ] {
            let hears = Hears { lxc, terminate };
            assert_eq!(Hears::of(caught, blocked), hears, "{caught:x} {blocked:x}");
        }
    }
}
