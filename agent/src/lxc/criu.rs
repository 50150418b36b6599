//! CRIU, as the hand-over uses it.
//!
//! The agent runs `criu dump` itself: on a pure cgroup v2 hierarchy `lxc-checkpoint -s` (LXC
//! 6.0.4) cannot dump a container that was itself restored. The arguments are LXC's own, so that
//! `lxc-checkpoint -r` can restore, but for three: the network namespace is external
//! (`--external net[…]:extnet`), so that CRIU neither dumps nor rebuilds it; cgroups are left
//! alone (`--manage-cgroups=ignore`), LXC makes new ones; the tasks stay (`--leave-running`, in a
//! cgroup that is frozen), so that up to the commit the source can go on; and CRIU does not lock
//! the network (`--network-lock skip`), which takes it four runs of iptables: the container's veth
//! is on no bridge.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::exec::{Command, CommandError, Running};

/// How long a dump or a restore may take, and pages to be given out.
pub const LIMIT: Duration = Duration::from_secs(600);
/// The name under which image and restore know the external network namespace.
pub const EXTERNAL_NETWORK: &str = "extnet";
/// Where CRIU says why it cannot dump, among its images.
const DUMP_LOG: &str = "dump.log";
/// Where CRIU finds the name of a file with options, and reads it as it begins.
pub const OPTIONS: &str = "CRIU_CONFIG_FILE";
/// The kernel's bound for the size of a pipe.
const PIPES: &str = "/proc/sys/fs/pipe-max-size";
/// What CRIU wants of it.
const PIPE_BYTES: u64 = 4 << 20;

/// Why this CRIU on this kernel cannot move containers, as far as versions tell.
///
/// Both limits were met in practice; `criu check` finds neither.
pub fn known_limit(criu: (u32, u32), kernel: (u32, u32)) -> Option<String> {
    let versions = format!(
        "CRIU {}.{} on kernel {}.{}",
        criu.0, criu.1, kernel.0, kernel.1
    );
    if criu < (4, 0) && kernel >= (6, 13) {
        Some(format!(
            "{versions} cannot dump (`vdso: Unexpected rt vDSO area bounds`); install CRIU 4.2.1 or later"
        ))
    } else if criu < (4, 2) && kernel >= (6, 16) {
        Some(format!(
            "{versions} cannot dump containers with inet sockets (`sockets: Can't get 1:16 opt`); install CRIU 4.2.1 or later"
        ))
    } else {
        None
    }
}

/// Major and minor of a version such as `4.2.1` or `6.18.44-amd64`.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The version of the CRIU that is installed, such as `4.2.1`.
///
/// # Errors
/// Where there is none.
pub async fn installed() -> Result<Option<String>, CommandError> {
    let text = Command::new("criu").arg("--version").run().await?;
    Ok(text
        .lines()
        .find_map(|line| line.strip_prefix("Version:"))
        .map(|version| version.trim().to_owned()))
}

/// Everything that keeps CRIU from working on this machine.
pub async fn problems(kernel: &str) -> Vec<String> {
    let installed = match installed().await {
        Ok(installed) => installed,
        Err(error) => return vec![error.to_string()],
    };
    let mut problems = Vec::new();
    if let (Some(criu), Some(kernel)) = (installed.as_deref().and_then(version), version(kernel))
        && let Some(limit) = known_limit(criu, kernel)
    {
        problems.push(limit);
    }
    if let Err(error) = Command::new("criu").arg("check").run().await {
        problems.push(error.to_string());
    }
    problems
}

/// What keeps memory from following after the restore on this machine.
pub async fn post_copy_problems() -> Vec<String> {
    let mut problems = Vec::new();
    let check = Command::new("criu").args(["check", "--feature", "uffd-noncoop"]);
    if let Err(error) = check.run().await {
        problems.push(format!("the kernel lacks userfaultfd: {error}"));
    }
    if let Err(error) = make_pipes_large() {
        problems.push(format!("{PIPES} cannot be raised to {PIPE_BYTES}: {error}"));
    }
    problems
}

/// Pages wait in pipes; without CAP_SYS_RESOURCE CRIU gets none of the size that it wants.
fn make_pipes_large() -> std::io::Result<()> {
    let now: u64 = std::fs::read_to_string(PIPES)?.trim().parse().unwrap_or(0);
    if now >= PIPE_BYTES {
        return Ok(());
    }
    std::fs::write(PIPES, PIPE_BYTES.to_string())
}

/// What keeps memory from going ahead from this machine.
pub async fn pre_copy_problems() -> Vec<String> {
    let check = Command::new("criu").args(["check", "--feature", "mem_dirty_track"]);
    match check.run().await {
        Ok(_) => Vec::new(),
        Err(error) => vec![format!(
            "the kernel does not tell which memory is written to (CONFIG_MEM_SOFT_DIRTY): {error}"
        )],
    }
}

/// The directory of the `number`th dump of a container that runs on, beside those of the others
/// and below that of the last, which finds them by these names.
pub fn ahead(number: u32) -> String {
    format!("ahead-{number}")
}

/// Writes what a container that runs on holds in memory into `images`: what it has written to
/// since the last of the `before` dumps that are beside it, if there are any. Its processes stand
/// still for a moment.
///
/// # Errors
/// Where CRIU fails; the end of its log is in the error.
pub async fn dump_ahead(
    pid: u32,
    network_inode: u64,
    images: &Path,
    before: u32,
) -> Result<(), String> {
    let command = Command::new("criu")
        .args(["pre-dump", "--tree"])
        .arg(pid.to_string())
        .arg("--images-dir")
        .arg(images.display().to_string())
        .args(["--log-file", DUMP_LOG, "--external"])
        .arg(format!("net[{network_inode}]:{EXTERNAL_NETWORK}"))
        .args(["--manage-cgroups=ignore", "--track-mem"])
        .limit(LIMIT);
    let command = match before {
        0 => command,
        _ => command
            .arg("--prev-images-dir")
            .arg(format!("../{}", ahead(before))),
    };
    let dumped = command.run().await;
    dumped
        .map(drop)
        .map_err(|error| with_log(&error, &images.join(DUMP_LOG)))
}

/// A `criu dump` that has begun, and waits for what to dump: what it takes to begin at all is over
/// by the time that a container stands still.
///
/// CRIU reads its options as it begins, and these come by a pipe. Dropped, it finds none, has nothing
/// to dump, and ends.
#[derive(Debug)]
pub struct Dumper {
    running: Running,
    options: pipe::Sender,
    pages: UnixStream,
    /// Says that all but the pages is in the images.
    ready: pipe::Receiver,
}

/// What is dumped.
#[derive(Debug)]
pub struct Dumped<'a> {
    /// The container's first process.
    pub pid: u32,
    pub network_inode: u64,
    pub cgroup: &'a Path,
    pub images: &'a Path,
}

/// A CRIU that has dumped all but pages of memory, and gives those out.
#[derive(Debug)]
pub struct PageServer {
    /// Where it gives them out.
    pub pages: UnixStream,
    /// Ends when it does: all pages are over, or nobody asks any more.
    pub ended: JoinHandle<Result<String, CommandError>>,
}

impl Dumper {
    /// The descriptors that CRIU gets.
    const PAGES_FD: i32 = 10;
    const STATUS_FD: i32 = 11;
    const OPTIONS_FD: i32 = 12;

    /// Has CRIU begin.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start() -> Result<Self, String> {
        let told = |error: std::io::Error| format!("a way to CRIU: {error}");
        let (pages, far) = socket_pair().map_err(told)?;
        let (status, ready) = status_pipe().map_err(told)?;
        let (options, read) = options_pipe().map_err(told)?;
        let running = Command::new("criu")
            .arg("dump")
            .env(OPTIONS, format!("/proc/self/fd/{}", Self::OPTIONS_FD))
            .inherit(Self::PAGES_FD, far)
            .inherit(Self::STATUS_FD, status)
            .inherit(Self::OPTIONS_FD, read)
            .limit(LIMIT)
            .start()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            running,
            options,
            pages,
            ready,
        })
    }

    /// Dumps a frozen container into its images. It stays frozen. Of memory goes what was written
    /// to since the last of the `before` [dumps](dump_ahead) that are below the images, or all.
    ///
    /// # Errors
    /// Where CRIU fails; the end of its log is in the error.
    pub async fn dump(mut self, what: &Dumped<'_>, before: u32) -> Result<(), String> {
        let mut options = dump_options(what);
        if before > 0 {
            options.push("--track-mem".to_owned());
            options.push(format!("--prev-images-dir {}", ahead(before)));
        }
        self.tell(&options).await;
        drop(self.options);
        let ended = self.running.told(&options).end().await;
        ended
            .map(drop)
            .map_err(|error| with_log(&error, &what.images.join(DUMP_LOG)))
    }

    /// Dumps as [`dump`](Self::dump) does, but for the pages of memory, which CRIU keeps and gives
    /// out.
    ///
    /// # Errors
    /// As there.
    pub async fn dump_all_but_pages(mut self, what: &Dumped<'_>) -> Result<PageServer, String> {
        let mut options = dump_options(what);
        options.push("--lazy-pages".to_owned());
        options.push(format!("--ps-socket {}", Self::PAGES_FD));
        options.push(format!("--status-fd {}", Self::STATUS_FD));
        self.tell(&options).await;
        drop(self.options);
        let ended = tokio::spawn(self.running.told(&options).end());
        let told = |error: std::io::Error| format!("a word from CRIU: {error}");
        // One byte: all but the pages is in the images. None: it has ended.
        if self.ready.read(&mut [0]).await.map_err(told)? == 1 {
            return Ok(PageServer {
                pages: self.pages,
                ended,
            });
        }
        let outcome = match ended.await {
            Ok(Ok(_)) => "criu dump has ended before it gave out any memory".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        Err(with_log(&outcome, &what.images.join(DUMP_LOG)))
    }

    async fn tell(&mut self, options: &[String]) {
        // One that has ended does not hear it, and says itself why.
        let _ = self.options.write_all(as_file(options).as_bytes()).await;
    }
}

fn dump_options(what: &Dumped<'_>) -> Vec<String> {
    vec![
        format!("--tree {}", what.pid),
        format!("--images-dir {}", what.images.display()),
        format!("--log-file {DUMP_LOG}"),
        "--tcp-established".to_owned(),
        "--file-locks".to_owned(),
        "--link-remap".to_owned(),
        "--force-irmap".to_owned(),
        "--skip-in-flight".to_owned(),
        "--manage-cgroups=ignore".to_owned(),
        "--ext-mount-map auto".to_owned(),
        "--enable-external-sharing".to_owned(),
        "--enable-external-masters".to_owned(),
        "--enable-fs hugetlbfs".to_owned(),
        "--network-lock skip".to_owned(),
        "--leave-running".to_owned(),
        format!("--external net[{}]:{EXTERNAL_NETWORK}", what.network_inode),
        format!("--freeze-cgroup {}", what.cgroup.display()),
    ]
}

/// Options as they stand in a file of CRIU's (criu(8), CONFIGURATION FILES).
pub fn as_file(options: &[String]) -> String {
    let lines = options.iter().map(|option| {
        let option = option.strip_prefix("--").unwrap_or(option);
        format!("{option}\n")
    });
    lines.collect()
}

/// Two ends of a connection, one of them for CRIU. It would have TCP, and warns in its log; but over
/// TCP it holds its last word back for 200 ms (`TCP_CORK` in its `criu/page-xfer.c`).
///
/// # Errors
/// Where there are no descriptors left.
pub fn socket_pair() -> std::io::Result<(UnixStream, OwnedFd)> {
    let (near, far) = UnixStream::pair()?;
    let far = far.into_std()?;
    far.set_nonblocking(false)?;
    Ok((near, far.into()))
}

fn status_pipe() -> std::io::Result<(OwnedFd, pipe::Receiver)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender.into_blocking_fd()?, receiver))
}

fn options_pipe() -> std::io::Result<(pipe::Sender, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender, receiver.into_blocking_fd()?))
}

/// An error with what CRIU's log says of it.
pub fn with_log(error: &dyn std::fmt::Display, log: &Path) -> String {
    /// How many lines of the log are told.
    const LINES: usize = 8;
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Error"))
        // Without CAP_SYS_RESOURCE it says so every time, and goes on.
        .filter(|line| !line.contains("Can't setup RLIMIT_NOFILE"))
        // Where there is no /dev/net/tun CRIU says so every time, and goes on.
        .filter(|line| !line.contains("tun: Unable to create tun"))
        .collect();
    let start = told.len().saturating_sub(LINES);
    let told = told.get(start..).unwrap_or_default().join("; ");
    if told.is_empty() {
        error.to_string()
    } else {
        format!("{error}; CRIU's log says: {told}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_limits_are_named() {
        assert!(known_limit((3, 17), (6, 12)).is_none());
        assert!(known_limit((3, 17), (6, 13)).unwrap().contains("vdso"));
        assert!(known_limit((4, 1), (6, 15)).is_none());
        assert!(known_limit((4, 1), (6, 16)).unwrap().contains("inet"));
        assert!(known_limit((4, 2), (6, 18)).is_none());
    }

    #[test]
    fn options_are_written_as_criu_reads_them() {
        let what = Dumped {
            pid: 5,
            network_inode: 7,
            cgroup: Path::new("/sys/fs/cgroup/lxc.payload.App1"),
            images: Path::new("/run/carnet/images/App1"),
        };
        let file = as_file(&dump_options(&what));
        for line in [
            "tree 5",
            "tcp-established",
            // Its value is optional, and never a word of its own (getopt_long(3)).
            "manage-cgroups=ignore",
            "external net[7]:extnet",
        ] {
            assert!(file.lines().any(|found| found == line), "{file}");
        }
        // Neither what CRIU takes for a remark, nor what it would have to be quoted for.
        assert!(!file.contains(['#', '"']), "{file}");
        assert!(file.lines().all(|line| line.split(' ').count() <= 2));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("4.2.1"), Some((4, 2)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version("none"), None);
    }
}
