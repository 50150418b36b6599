//! A virtual machine with another kernel than this machine's, for what only that one can do. The
//! lab runs in it as it runs here: same programs, same root, same code.
//!
//! ```text
//! QEMU, all in software ── Debian's kernel for clouds, started without a boot loader
//!   nvme0n1, made for each run ── init · the command · programs, at the paths they have here ·
//!                                 the kernel's modules
//!   vda, made once ────────────── the lab's root
//!   port 1 ──► what the command writes     port 2 ──► its exit status     serial ──► the console
//! ```
//!
//! It has no network but its own, writes to its memory alone, and is switched off when the command
//! has ended. That kernel tracks what is written to memory (`CONFIG_MEM_SOFT_DIRTY`), which many
//! kernels do not; it is Debian 13's whatever runs here, and nothing of it is installed here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::error::LabError;
use crate::exec::{run, show};
use crate::lab::missing_programs;
use crate::progress::Progress;
use crate::root::{Root, SUITE, cache, mirror};

/// Raised when what is made once changes: then it is made anew.
const RECIPE: u32 = 1;
/// Its dependency is the package of the kernel itself.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The root's keys to what Debian publishes.
const KEYS: &str = "usr/share/keyrings/debian-archive-keyring.gpg";
/// Busybox, in the root.
const BUSYBOX: &str = "usr/bin/busybox";
/// What is made once: the kernel, what the guest has beside the lab's root, and the root's disk.
const IMAGE: &str = "vmlinuz";
const FILES: &str = "files";
const SYSTEM: &str = "system.ext4";
/// What is made for each run.
const BOOT: &str = "boot.ext4";
/// The size of both disks. They take as much as is on them.
const DISK: &str = "2G";
/// Of the guest.
const MEMORY: &str = "3G";
const PROCESSORS: &str = "2";
/// A panic is an end, as `-no-reboot` has it. With AppArmor, as on Debian's machines. Without what
/// guards against faults of processors: these are emulated.
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 apparmor=1 security=apparmor \
                              mitigations=off hostname=guest \
                              root=/dev/nvme0n1 rootfstype=ext4 ro init=/init";
/// The first process.
const INIT: &str = include_str!("guest/init");
/// Pause between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);
/// How much of what it said is told where it failed, in lines.
const END: usize = 80;

/// What guests are made of, ready to be begun.
#[derive(Debug, Clone)]
pub struct Guest {
    root: Root,
    /// Where the kernel and the disk that is made once are.
    path: PathBuf,
}

/// What a guest is to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// Programs of this machine that are needed there. They have the same paths there.
    pub programs: Vec<PathBuf>,
    /// One of them, or of the lab's root, by its path; and its arguments.
    pub command: Vec<String>,
    /// How long all of it may take, from power on to power off.
    pub limit: Duration,
}

/// What became of a guest's command.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status, as a shell tells it: 128 and more, where a signal has ended it.
    pub status: u8,
    /// What it wrote, on both outputs.
    pub output: String,
}

/// Everything that keeps this machine from running a guest.
fn unfit() -> Vec<String> {
    let mut missing = missing_programs(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("mke2fs", "e2fsprogs"),
        ("setpriv", "util-linux"),
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
    ]);
    if std::env::consts::ARCH != "x86_64" {
        missing.push(format!(
            "x86_64: programs of this machine run in the guest, and they are {}",
            std::env::consts::ARCH
        ));
    }
    missing
}

impl Guest {
    /// What guests are made of, made if it is not there; the lab's root too.
    ///
    /// Made under another name and renamed when it is whole, as the root is.
    ///
    /// # Errors
    /// Where this machine cannot run guests, or what they need cannot be had.
    pub fn ensure(progress: &Progress) -> Result<Self, LabError> {
        let missing = unfit();
        if !missing.is_empty() {
            return Err(LabError::Unfit(missing));
        }
        let root = Root::ensure(progress)?;
        let cache = cache();
        let _lock = lock(&cache.join("guest.lock"))?;
        let name = format!("guest-{RECIPE}-{}", root.name());
        let path = cache.join(&name);
        if !path.exists() {
            progress.step("fetching a kernel for guests, once: Debian 13's for clouds, 35 MB")?;
            let unfinished = cache.join(format!("{name}.unfinished"));
            empty(&unfinished)?;
            make(&root, &unfinished)?;
            fs::rename(&unfinished, &path).map_err(LabError::file(&path))?;
        }
        Ok(Self { root, path })
    }

    /// Begins a guest, has it do its job, and waits for its end. It ends in every case, also with
    /// this process. One guest runs at a time; others wait.
    ///
    /// # Errors
    /// Where it does not come up, or takes too long; with the end of what it said.
    pub fn run(&self, job: &Job, progress: &Progress) -> Result<Outcome, LabError> {
        let _lock = lock(&self.path.join("run.lock"))?;
        progress.step("starting a guest with a kernel of its own")?;
        let directory = self.path.join("run");
        empty(&directory)?;
        let outcome = self.run_in(&directory, job, progress);
        fs::remove_dir_all(&directory).map_err(LabError::file(&directory))?;
        outcome
    }

    fn run_in(
        &self,
        directory: &Path,
        job: &Job,
        progress: &Progress,
    ) -> Result<Outcome, LabError> {
        make_boot_disk(&self.root, &self.path.join(FILES), directory, job)?;
        let said = |name: &str| {
            let said = fs::read(directory.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&said).into_owned()
        };
        let failed = |what: &str| {
            let ends = ["output", "console", "qemu"]
                .map(|name| format!("\nThe end of its {name}:\n{}", end_of(&said(name))));
            LabError::Other(format!(
                "the guest that was to run `{}` {what}{}",
                job.command.join(" "),
                ends.concat()
            ))
        };
        let mut machine = Machine::start(self.machine(directory)?)?;
        let deadline = Instant::now() + job.limit;
        while !machine.has_ended()? {
            progress.go_on()?;
            if Instant::now() >= deadline {
                let limit = job.limit.as_secs();
                return Err(failed(&format!("did not end within {limit} s")));
            }
            sleep(PAUSE);
        }
        let status = said("status").trim().parse();
        status
            .map(|status| Outcome {
                status,
                output: said("output"),
            })
            .map_err(|_| failed("ended before its time"))
    }

    /// All in software: there is not always other help, and where there is, not every kernel runs.
    fn machine(&self, directory: &Path) -> Result<Command, LabError> {
        let disk = |path: &Path, name: &str, device: &str| {
            let path = path.display();
            [
                "-drive".to_owned(),
                format!("file={path},if=none,id={name},format=raw,readonly=on"),
                "-device".to_owned(),
                format!("{device},serial={name},drive={name}"),
            ]
        };
        let port = |number: u8, name: &str| {
            let path = directory.join(name);
            [
                "-chardev".to_owned(),
                format!("file,id={name},path={}", path.display()),
                "-device".to_owned(),
                format!("virtserialport,chardev={name},nr={number}"),
            ]
        };
        let path = directory.join("qemu");
        let log = fs::File::create(&path).map_err(LabError::file(&path))?;
        // Ends with this process, whatever ends that.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none", "-nic", "none"])
            .args(["-machine", "q35", "-accel", "tcg,thread=multi"])
            .args(["-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY])
            .arg("-kernel")
            .arg(self.path.join(IMAGE))
            .arg("-append")
            .arg(format!("{KERNEL_OPTIONS} CARNET_ROOT={}", self.root.name()))
            // The kernel itself has a driver for this kind of disk. Of two of a kind, either may
            // become the first.
            .args(disk(&directory.join(BOOT), "boot", "nvme"))
            .args(disk(&self.path.join(SYSTEM), "system", "virtio-blk-pci"))
            .arg("-serial")
            .arg(format!("file:{}", directory.join("console").display()))
            .args(["-device", "virtio-serial"])
            .args(port(1, "output"))
            .args(port(2, "status"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Ok(command)
    }
}

/// QEMU. Dropped, it is killed.
struct Machine(Child);

impl Machine {
    fn start(mut command: Command) -> Result<Self, LabError> {
        let child = command.spawn().map_err(|source| LabError::NotRun {
            command: show(&command),
            source,
        })?;
        Ok(Self(child))
    }

    fn has_ended(&mut self) -> Result<bool, LabError> {
        let ended = self.0.try_wait();
        ended
            .map(|status| status.is_some())
            .map_err(LabError::file(Path::new("qemu-system-x86_64")))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Of one that has ended there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes what all guests have in common: the kernel, its modules, and a disk with the lab's root.
fn make(root: &Root, path: &Path) -> Result<(), LabError> {
    let (packages, kernel) = (path.join("apt"), path.join("kernel"));
    let package = fetch(root, &packages)?;
    run(Command::new("dpkg-deb").arg("-x").args([&package, &kernel]))?;
    let image = first_in(&kernel.join("boot"), "vmlinuz-")?;
    rename(&image, &path.join(IMAGE))?;

    let files = path.join(FILES);
    let modules = files.join("usr/lib/modules");
    make_directory(&modules)?;
    let of_kernel = first_in(&kernel.join("usr/lib/modules"), "")?;
    let version = of_kernel.file_name().unwrap_or_default();
    rename(&of_kernel, &modules.join(version))?;
    run(Command::new(root.path().join(BUSYBOX))
        .args(["depmod", "-b"])
        .arg(files.join("usr"))
        .arg(version))?;
    // The kernel asks for its modules by this name.
    make_directory(&files.join("usr/sbin"))?;
    let loader = files.join("usr/sbin/modprobe");
    symlink(Path::new("/").join(BUSYBOX), &loader).map_err(LabError::file(&loader))?;

    make_disk(root.path(), &path.join(SYSTEM))?;
    for used in [packages, kernel] {
        fs::remove_dir_all(&used).map_err(LabError::file(&used))?;
    }
    Ok(())
}

/// Fetches the kernel's package from the release that the root is of, whatever this machine is.
/// Of this machine's apt nothing is used but the programs.
fn fetch(root: &Root, directory: &Path) -> Result<PathBuf, LabError> {
    for name in ["lists/partial", "cache/archives/partial"] {
        make_directory(&directory.join(name))?;
    }
    let sources = directory.join("sources.list");
    let keys = root.path().join(KEYS);
    let line = format!(
        "deb [arch=amd64 signed-by={}] {} {SUITE} main\n",
        keys.display(),
        mirror()
    );
    fs::write(&sources, line).map_err(LabError::file(&sources))?;
    let apt = |program: &str, arguments: &[&str]| {
        let option = |name: &str, path: &Path| format!("-o{name}={}", path.display());
        run(Command::new(program)
            .arg("-q")
            .arg(option("Dir::Etc::SourceList", &sources))
            .arg("-oDir::Etc::SourceParts=/dev/null")
            .arg(option("Dir::State::Lists", &directory.join("lists")))
            .arg("-oDir::State::Status=/dev/null")
            .arg(option("Dir::Cache", &directory.join("cache")))
            .arg("-oAPT::Architecture=amd64")
            .arg("-oAPT::Sandbox::User=root")
            .args(arguments)
            .current_dir(directory))
    };
    apt("apt-get", &["update"])?;
    let needed = apt("apt-cache", &["depends", KERNEL])?;
    let package = needed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or_else(|| LabError::Other(format!("{KERNEL} depends on no kernel: {needed}")))?;
    apt("apt-get", &["download", package])?;
    first_in(directory, package)
}

/// Makes the disk that a guest begins with: how it begins, and what it is to do.
fn make_boot_disk(root: &Root, files: &Path, directory: &Path, job: &Job) -> Result<(), LabError> {
    let content = directory.join("content");
    for name in ["dev", "proc", "sys", "system", "memory"] {
        make_directory(&content.join(name))?;
    }
    run(Command::new("cp")
        .arg("--archive")
        .args([files, &content.join(FILES)]))?;
    copy(&root.path().join(BUSYBOX), &content.join("busybox"))?;
    for program in &job.programs {
        let path = std::path::absolute(program).map_err(LabError::file(program))?;
        let inside = path.strip_prefix("/").unwrap_or(&path);
        copy(&path, &content.join(FILES).join(inside))?;
    }
    let write = |name: &str, text: &str| {
        let path = content.join(name);
        fs::write(&path, text).map_err(LabError::file(&path))
    };
    write("command", &(job.command.join("\n") + "\n"))?;
    write("init", INIT)?;
    let init = content.join("init");
    fs::set_permissions(&init, PermissionsExt::from_mode(0o755)).map_err(LabError::file(&init))?;
    make_disk(&content, &directory.join(BOOT))
}

/// Makes a disk of what is in a directory, without mounting it.
fn make_disk(content: &Path, disk: &Path) -> Result<(), LabError> {
    run(Command::new("mke2fs")
        // Nothing writes to it.
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d"])
        .args([content, disk])
        .arg(DISK))
    .map(drop)
}

/// Waits until whoever holds it has let it go.
fn lock(path: &Path) -> Result<Flock<fs::File>, LabError> {
    let file = fs::File::create(path).map_err(LabError::file(path))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| LabError::file(path)(error.into()))
}

/// An empty directory, whatever was there.
fn empty(path: &Path) -> Result<(), LabError> {
    if path.exists() {
        fs::remove_dir_all(path).map_err(LabError::file(path))?;
    }
    make_directory(path)
}

fn make_directory(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).map_err(LabError::file(path))
}

fn rename(from: &Path, to: &Path) -> Result<(), LabError> {
    fs::rename(from, to).map_err(LabError::file(from))
}

/// With the directories above it.
fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    make_directory(to.parent().unwrap_or(to))?;
    fs::copy(from, to).map(drop).map_err(LabError::file(from))
}

/// The first in a directory whose name begins so.
fn first_in(directory: &Path, prefix: &str) -> Result<PathBuf, LabError> {
    let entries = fs::read_dir(directory).map_err(LabError::file(directory))?;
    entries
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .ok_or_else(|| LabError::Other(format!("{} has no {prefix}*", directory.display())))
}

fn end_of(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(END);
    lines.split_at(skipped).1.join("\n")
}
