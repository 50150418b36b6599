//! A container's cgroup (v2): freezing, killing, counting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long freezing, or dying, may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the kernel is asked whether it is done.
const INTERVAL: Duration = Duration::from_millis(1);

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
pub async fn wait_until(condition: impl Fn() -> bool) -> bool {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        if tokio::time::Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(INTERVAL).await;
    }
    true
}
