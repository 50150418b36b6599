//! The Debian 13 root that every host of the lab stands on: built once, kept outside the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::error::LabError;
use crate::exec::{run, tool};
use crate::progress::Progress;

/// Raised when what stands below changes: then the root is built anew.
const RECIPE: u32 = 1;
/// The release that hosts run.
pub(crate) const SUITE: &str = "trixie";
/// Where Debian's packages come from, where this machine does not say.
const MIRROR: &str = "http://deb.debian.org/debian";
/// What a host needs, beside the minimal system.
const PACKAGES: &str = "lxc,iproute2,iptables,nftables,busybox-static,ca-certificates,procps,iputils-arping,redis-server";
/// Where newer CRIU comes from, and what comes from there.
const NEWER_SUITE: &str = "forky";
const NEWER_PACKAGES: &str = "criu libcompel1 libnet9 libnl-3-200";

/// A root that is there.
#[derive(Debug, Clone)]
pub struct Root {
    path: PathBuf,
}

/// Where roots are kept: `CARNET_LAB_CACHE`, or `/var/cache/carnet-lab`.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("CARNET_LAB_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/carnet-lab"), PathBuf::from)
}

/// CRIU 4.1.1, which Debian 13 has, cannot dump inet sockets on kernels from 6.16 on.
fn needs_newer_criu() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

/// The name of the root that is built, by the CRIU that it has.
fn name(newer_criu: bool) -> String {
    format!(
        "{SUITE}-{RECIPE}{}",
        if newer_criu { "-newer-criu" } else { "" }
    )
}

/// The root, where it is there. The newer CRIU works where the older would.
fn built() -> Option<Root> {
    let cache = cache();
    [false, true]
        .into_iter()
        .filter(|newer| *newer || !needs_newer_criu())
        .map(|newer| cache.join(name(newer)))
        .find(|path| path.exists())
        .map(|path| Root { path })
}

impl Root {
    /// Whether there is one already, for this machine's kernel.
    pub(crate) fn is_built() -> bool {
        built().is_some()
    }

    /// The root, built if it is not there.
    ///
    /// Built under another name and renamed when it is whole: what a crash leaves is never taken
    /// for a root, and goes with the next attempt. Two builders wait for each other.
    ///
    /// # Errors
    /// Where it cannot be built.
    pub fn ensure(progress: &Progress) -> Result<Self, LabError> {
        let cache = cache();
        fs::create_dir_all(&cache).map_err(LabError::file(&cache))?;
        let lock_path = cache.join("lock");
        let lock = fs::File::create(&lock_path).map_err(LabError::file(&lock_path))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| LabError::file(&lock_path)(error.into()))?;
        if let Some(root) = built() {
            return Ok(root);
        }
        let newer = needs_newer_criu();
        let name = name(newer);
        let root = Self {
            path: cache.join(&name),
        };
        let unfinished = cache.join(format!("{name}.unfinished"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(LabError::file(&unfinished))?;
        }
        progress.step("building the lab's Debian 13 root, once; about a minute")?;
        let packages = if newer {
            PACKAGES.to_owned()
        } else {
            format!("{PACKAGES},criu")
        };
        run(Command::new("debootstrap")
            .args(["--variant=minbase", &format!("--include={packages}"), SUITE])
            .arg(&unfinished)
            .arg(mirror()))?;
        if newer {
            progress.step("adding CRIU 4.2: Debian 13's does not work on this kernel")?;
            add_newer_criu(&unfinished)?;
        }
        fs::rename(&unfinished, &root.path).map_err(LabError::file(&root.path))?;
        Ok(root)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// By which it is kept.
    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }
}

/// The mirror of this machine's own sources, where it is one of Debian's.
pub(crate) fn mirror() -> String {
    let targets = tool(
        "apt-get",
        &["indextargets", "--format", "$(SITE) $(RELEASE)"],
    );
    targets
        .ok()
        .and_then(|targets| {
            targets
                .lines()
                .filter_map(|line| line.split_once(' '))
                .find(|(site, _)| site.ends_with("/debian") || site.ends_with("/debian/"))
                .map(|(site, _)| site.to_owned())
        })
        .unwrap_or_else(|| MIRROR.to_owned())
}

/// Nothing else comes from the newer release: its priority is below zero.
fn add_newer_criu(root: &Path) -> Result<(), LabError> {
    let write = |path: &str, text: String| {
        let path = root.join(path);
        fs::write(&path, text).map_err(LabError::file(&path))
    };
    write(
        "etc/apt/sources.list.d/newer-criu.list",
        format!("deb {} {NEWER_SUITE} main\n", mirror()),
    )?;
    write(
        "etc/apt/preferences.d/newer-criu",
        format!(
            "Package: *\nPin: release n={NEWER_SUITE}\nPin-Priority: -10\n\n\
             Package: {NEWER_PACKAGES}\nPin: release n={NEWER_SUITE}\nPin-Priority: 990\n"
        ),
    )?;
    let apt = |arguments: &[&str]| {
        run(Command::new("chroot")
            .arg(root)
            .args([
                "env",
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "-q",
                "-y",
            ])
            // Between releases its signature may have run out; what it signs is still checked.
            .args(["-o", "Acquire::Check-Valid-Until=false"])
            .args(arguments))
    };
    apt(&["update"])?;
    apt(&["install", "--no-install-recommends", "criu"])?;
    apt(&["clean"]).map(drop)
}
