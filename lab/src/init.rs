//! A host's beginning: two stages of this program, in the host's own namespaces.
//!
//! The first stage enters the host's cgroups, leaves the machine's namespaces, and starts the
//! second, which is the first process of the host: it builds the root, and then reaps whatever
//! ends in it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root, sethostname};
use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchies;
use crate::error::LabError;
use crate::exec::tool;

/// What a host's stages have to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostSpec {
    pub lab: String,
    pub name: String,
    /// The root below everything, not written to.
    pub root: PathBuf,
    /// Where what the host writes goes, and where its root is put together.
    pub directory: PathBuf,
    /// A directory of the machine that the host sees, read-only, at `/opt/carnet`.
    pub programs: PathBuf,
    /// Where the first stage writes the process id of the second.
    pub pid_file: PathBuf,
    /// Whether its containers are on a file system of its own, in a file in its directory.
    pub has_own_disk: bool,
}

/// Where a host has the machine's programs.
pub const PROGRAMS: &str = "/opt/carnet";
/// A file that is there once a host's root is.
pub const READY: &str = "/run/host-is-ready";
/// Where the kernel says whether it has AppArmor.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";
/// Where a host's containers are.
const CONTAINERS: &str = "/var/lib/lxc";
/// What a disk of a host's own holds, in bytes; the machine's is filled as it is.
const DISK_BYTES: u64 = 16 << 30;
/// Where a host has the v1 memory hierarchy, where there is one.
const V1_MEMORY: &str = "/run/cgroup/memory";

/// The first stage. Returns when the host has ended.
///
/// # Errors
/// Where the host cannot be begun.
pub fn begin(spec: &HostSpec) -> Result<(), LabError> {
    let hierarchies = Hierarchies::find()
        .ok_or_else(|| LabError::Other("cgroup v2 is not mounted".to_owned()))?;
    // Before the cgroup namespace is left: its root is then the host's cgroup.
    hierarchies.enter(&spec.lab, &spec.name)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWCGROUP,
    )
    .map_err(|error| LabError::Other(format!("cannot make namespaces: {error}")))?;
    let program = std::env::current_exe().map_err(LabError::file(Path::new("/proc/self/exe")))?;
    let text = serde_json::to_string(spec).map_err(|error| LabError::Other(error.to_string()))?;
    // Opened before there is a second stage: that one changes the root of this one too, whose mount
    // namespace is the same, and this path is then gone.
    let mut pid_file = fs::File::create(&spec.pid_file).map_err(LabError::file(&spec.pid_file))?;
    let mut second = Command::new(program)
        .args(["host", "second", &text])
        .stdin(Stdio::null())
        .spawn()
        .map_err(|source| LabError::NotRun {
            command: format!("the first process of {}", spec.name),
            source,
        })?;
    let written = write!(pid_file, "{}", second.id()).map_err(LabError::file(&spec.pid_file));
    let ended = second
        .wait()
        .map_err(LabError::file(Path::new("the first process")));
    written.and(ended).map(drop)
}

/// The second stage: the host's first process.
///
/// # Errors
/// Where the root cannot be built. Otherwise it returns when told to end.
pub fn live(spec: &HostSpec) -> Result<(), LabError> {
    build_root(spec)?;
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGCHLD);
    signals
        .thread_block()
        .map_err(|error| LabError::Other(format!("cannot block signals: {error}")))?;
    fs::write(READY, "").map_err(LabError::file(Path::new(READY)))?;
    loop {
        match signals.wait() {
            // The end of a first process is the end of its host.
            Ok(Signal::SIGTERM) => return Ok(()),
            _ => reap(),
        }
    }
}

/// What has ended and has no other parent; left alone, it would look alive to those who wait.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}

/// Mounts the disk of a host's own at `at`; it is made where it is not there.
fn mount_disk(spec: &HostSpec, at: &Path) -> Result<(), LabError> {
    let disk = spec.directory.join("disk");
    let path = |path: &Path| path.display().to_string();
    if !disk.exists() {
        let file = fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES));
        file.map_err(LabError::file(&disk))?;
        tool("mke2fs", &["-q", "-t", "ext4", "-F", &path(&disk)])?;
    }
    // The loop device goes with the mount, and that with the host.
    tool("mount", &["-o", "loop", &path(&disk), &path(at)]).map(drop)
}

fn build_root(spec: &HostSpec) -> Result<(), LabError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: Errno| LabError::Other(format!("cannot mount {what}: {error}"))
    };
    let none = None::<&str>;
    // Nothing that is mounted here is seen by the machine.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(failed("/"))?;
    let merged = spec.directory.join("merged");
    for name in ["upper", "work", "merged"] {
        let path = spec.directory.join(name);
        fs::create_dir_all(&path).map_err(LabError::file(&path))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        spec.root.display(),
        spec.directory.join("upper").display(),
        spec.directory.join("work").display()
    );
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(failed("the overlay"))?;

    let at = |path: &str| merged.join(path.trim_start_matches('/'));
    let make = |path: &str| {
        let path = at(path);
        fs::create_dir_all(&path).map_err(LabError::file(&path))
    };
    let put = |kind: &str, path: &str, options: Option<&str>| {
        make(path)?;
        mount(Some(kind), &at(path), Some(kind), MsFlags::empty(), options).map_err(failed(path))
    };
    if spec.has_own_disk {
        make(CONTAINERS)?;
        mount_disk(spec, &at(CONTAINERS))?;
    }
    put("proc", "/proc", None)?;
    put("sysfs", "/sys", None)?;
    mount(
        Some("cgroup2"),
        &at("/sys/fs/cgroup"),
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .map_err(failed("cgroup v2"))?;
    put("tmpfs", "/run", Some("mode=755,size=2g"))?;
    put("tmpfs", "/tmp", Some("mode=1777,size=512m"))?;
    put("tmpfs", "/dev", Some("mode=755,size=1m"))?;
    put("devpts", "/dev/pts", Some("newinstance,ptmxmode=0666"))?;
    put("tmpfs", "/dev/shm", None)?;
    for (name, minor) in [
        ("null", 3),
        ("zero", 5),
        ("full", 7),
        ("random", 8),
        ("urandom", 9),
    ] {
        let path = at("/dev").join(name);
        let mode = Mode::from_bits_truncate(0o666);
        mknod(&path, SFlag::S_IFCHR, mode, makedev(1, minor)).map_err(failed(name))?;
        // The umask has taken some of it.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .map_err(LabError::file(&path))?;
    }
    for (target, name) in [("pts/ptmx", "ptmx"), ("/proc/self/fd", "fd")] {
        let path = at("/dev").join(name);
        std::os::unix::fs::symlink(target, &path).map_err(LabError::file(&path))?;
    }
    if Hierarchies::find().is_some_and(|hierarchies| hierarchies.has_v1_memory()) {
        make(V1_MEMORY)?;
        mount(
            Some("cgroup"),
            &at(V1_MEMORY),
            Some("cgroup"),
            MsFlags::empty(),
            Some("memory"),
        )
        .map_err(failed(V1_MEMORY))?;
    }
    let bind = MsFlags::MS_BIND;
    // A host has no profiles to load, and LXC starts nothing without them where it finds AppArmor.
    if at(APPARMOR).exists() {
        let null = at("/dev/null");
        mount(Some(&null), &at(APPARMOR), none, bind, none).map_err(failed(APPARMOR))?;
    }
    make(PROGRAMS)?;
    mount(Some(&spec.programs), &at(PROGRAMS), none, bind, none).map_err(failed(PROGRAMS))?;
    mount(
        none,
        &at(PROGRAMS),
        none,
        bind | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
        none,
    )
    .map_err(failed(PROGRAMS))?;

    make("/old")?;
    let moved = |error: Errno| LabError::Other(format!("cannot change the root: {error}"));
    chdir(&merged).map_err(moved)?;
    pivot_root(".", "old").map_err(moved)?;
    chdir("/").map_err(moved)?;
    umount2("/old", MntFlags::MNT_DETACH).map_err(moved)?;
    sethostname(&spec.name).map_err(moved)
}
