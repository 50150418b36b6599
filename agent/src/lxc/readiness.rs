//! What keeps a machine from taking part in migrations, whatever container it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::machine::Machine;
use super::{CGROUPS, IMAGES, criu, room};

/// How long what was found out is believed.
const AGE: Duration = Duration::from_secs(60);

/// What is found out about a machine: itself, and what keeps it from taking part in migrations.
#[derive(Debug, Clone)]
pub struct Readiness {
    pub machine: Machine,
    pub problems: Vec<String>,
    /// In all but cold ones.
    pub live_problems: Vec<String>,
    /// In those whose memory follows.
    pub post_copy_problems: Vec<String>,
    /// In those whose memory goes ahead from here.
    pub pre_copy_problems: Vec<String>,
}

impl Readiness {
    /// Of this machine, as it is now.
    async fn find() -> Self {
        Self {
            machine: Machine::read().await,
            problems: problems(),
            live_problems: live_problems().await,
            post_copy_problems: criu::post_copy_problems().await,
            pre_copy_problems: criu::pre_copy_problems().await,
        }
    }
}

/// What was found out last, and when.
#[derive(Debug, Default)]
pub struct LastFound(Mutex<Option<(Instant, Readiness)>>);

impl LastFound {
    /// That, or what is found out now, where that is too old.
    pub async fn or_now(&self) -> Readiness {
        let mut last = self.0.lock().await;
        if let Some((at, found)) = last.as_ref()
            && at.elapsed() < AGE
        {
            return found.clone();
        }
        let found = Readiness::find().await;
        *last = Some((Instant::now(), found.clone()));
        found
    }
}

fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        problems.push("the agent does not run as root".to_owned());
    }
    if !Path::new(CGROUPS).join("cgroup.procs").exists() {
        problems.push(format!(
            "cgroup v2 is not mounted at {CGROUPS}; boot with systemd.unified_cgroup_hierarchy=1"
        ));
    }
    for (program, package) in [
        ("lxc-info", "lxc"),
        ("ip", "iproute2"),
        ("arping", "iputils-arping"),
    ] {
        if which(program).is_none() {
            problems.push(format!("{program} is missing: apt install {package}"));
        }
    }
    problems
}

async fn live_problems() -> Vec<String> {
    let mut problems = Vec::new();
    if which("lxc-checkpoint").is_none() {
        problems.push("lxc-checkpoint is missing: apt install lxc".to_owned());
    }
    // The directory is made by the first move.
    let images = Path::new(IMAGES);
    let there = images.ancestors().find(|path| path.exists());
    if !there.is_some_and(room::is_in_memory) {
        problems.push(not_in_memory());
    }
    if which("criu").is_none() {
        problems.push("criu is missing: apt install criu".to_owned());
    } else {
        problems.extend(criu::problems(&crate::detect::kernel()).await);
    }
    problems
}

/// Memory images must not reach a disk.
pub fn not_in_memory() -> String {
    format!("{IMAGES} is not on tmpfs; memory images must not reach a disk: mount a tmpfs at /run")
}

/// Where a program is, if it is anywhere in `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
