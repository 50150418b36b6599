//! CRIU, as the hand-over uses it.
//!
//! The agent runs `criu dump` itself: on a pure cgroup v2 hierarchy `lxc-checkpoint -s` (LXC
//! 6.0.4) cannot dump a container that was itself restored. The arguments are LXC's own, so that
//! `lxc-checkpoint -r` can restore, but for three: the network namespace is external
//! (`--external net[…]:extnet`), so that CRIU neither dumps nor rebuilds it; cgroups are left
//! alone (`--manage-cgroups=ignore`), LXC makes new ones; and the tasks stay
//! (`--leave-running`, in a cgroup that is frozen), so that up to the commit the source can go
//! on.

use std::path::Path;
use std::time::Duration;

use crate::exec::{Command, CommandError, INHERITED_FD};

/// How long a dump or a restore may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The name under which image and restore know the external network namespace.
const NETWORK: &str = "extnet";

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

/// Dumps the frozen container with first process `pid` into `images`. It stays frozen.
///
/// # Errors
/// Where CRIU fails; the end of its log is in the error.
pub async fn dump(
    pid: u32,
    network_inode: u64,
    cgroup: &Path,
    images: &Path,
) -> Result<(), String> {
    let outcome = Command::new("criu")
        .args(["dump", "--tree"])
        .arg(pid.to_string())
        .arg("--images-dir")
        .arg(images.display().to_string())
        .args(["--log-file", "dump.log", "-v4"])
        .args([
            "--tcp-established",
            "--file-locks",
            "--link-remap",
            "--force-irmap",
        ])
        .args(["--skip-in-flight", "--manage-cgroups=ignore"])
        .args(["--ext-mount-map", "auto", "--enable-external-sharing"])
        .args(["--enable-external-masters", "--enable-fs", "hugetlbfs"])
        .args(["--leave-running", "--external"])
        .arg(format!("net[{network_inode}]:{NETWORK}"))
        .arg("--freeze-cgroup")
        .arg(cgroup.display().to_string())
        .limit(LIMIT)
        .run()
        .await;
    outcome
        .map(drop)
        .map_err(|error| with_log(&error, &images.join("dump.log")))
}

/// Restores the container `name` from `images` into the network namespace `network`.
///
/// # Errors
/// Where LXC or CRIU fails; the end of CRIU's log is in the error.
pub async fn restore(name: &str, images: &Path, network: &Path) -> Result<(), String> {
    let namespace =
        std::fs::File::open(network).map_err(|error| format!("{}: {error}", network.display()))?;
    // LXC passes CRIU no options of ours; CRIU reads them from here.
    let options = images.join("carnet-criu.conf");
    std::fs::write(
        &options,
        format!("inherit-fd fd[{INHERITED_FD}]:{NETWORK}\n"),
    )
    .map_err(|error| format!("{}: {error}", options.display()))?;
    let outcome = Command::new("lxc-checkpoint")
        .args(["--restore", "--name", name, "--checkpoint-dir"])
        .arg(images.display().to_string())
        .arg("--verbose")
        .env("CRIU_CONFIG_FILE", &options)
        .inherit(namespace)
        // The container's monitor keeps standard output open for as long as it lives.
        .detached()
        .limit(LIMIT)
        .run()
        .await;
    outcome
        .map(drop)
        .map_err(|error| with_log(&error, &images.join("restore.log")))
}

/// An error with what CRIU's log says of it.
fn with_log(error: &CommandError, log: &Path) -> String {
    /// How many lines of the log are told.
    const LINES: usize = 8;
    let log = std::fs::read(log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Error"))
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
    fn versions_are_read() {
        assert_eq!(version("4.2.1"), Some((4, 2)));
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("7.0-rc1"), Some((7, 0)));
        assert_eq!(version("none"), None);
    }
}
