//! Containers that are shut down here, and started.
//!
//! While a container is held, its configuration is not where LXC looks for it: nobody starts it by
//! hand, and nothing does as the machine starts.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{Cgroup, wait_until_within};
use crate::exec::Command;
use crate::runtime::{ContainerName, Done, RuntimeError};

/// How long a container may take to shut down, each time it is asked, before it is killed.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// How long LXC may take to start a container.
const START: Duration = Duration::from_secs(60);
/// Where LXC says why it did not.
const LOGS: &str = "/run/carnet/start";

/// Where the configuration in `directory` is while the container is held.
pub fn held(directory: &Path) -> PathBuf {
    directory.join("config.held")
}

/// Keeps the container in `directory` from being started.
///
/// # Errors
/// Where its configuration cannot be moved.
pub fn hold(directory: &Path) -> Done {
    moved(&directory.join("config"), &held(directory))
}

/// Lets it be started again.
///
/// # Errors
/// Where its configuration cannot be moved.
pub fn let_go(directory: &Path) -> Done {
    moved(&held(directory), &directory.join("config"))
}

/// Done also where it was moved before.
fn moved(from: &Path, to: &Path) -> Done {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::NotFound && to.exists() => Ok(()),
        moved => moved.map_err(RuntimeError::file(from)),
    }
}

/// Has a container that runs shut down as its first process does it; what does not end is killed.
/// Returns once LXC has noticed.
///
/// # Errors
/// Where something of it does not end.
pub async fn shut_down(name: &ContainerName, cgroup: &Cgroup, is_over: impl Fn() -> bool) -> Done {
    let is_empty = || !cgroup.is_populated();
    if let Some(first) = cgroup.first_process() {
        let hears = cgroup.hears(first);
        if hears.lxc {
            let asked = Command::new("lxc-stop")
                .args(["--name", name.as_str(), "--nokill"])
                .args(["--timeout", &SHUTDOWN.as_secs().to_string()])
                .limit(SHUTDOWN * 2)
                .run()
                .await;
            if let Err(error) = asked {
                tracing::warn!(container = %name, %error, "it does not shut down as LXC asks");
            }
        }
        if hears.terminate && !is_empty() {
            terminate([first]);
            wait_until_within(SHUTDOWN, is_empty).await;
        }
        if !hears.lxc && !hears.terminate {
            // The others may have something to put in order.
            terminate(cgroup.processes().into_iter().filter(|pid| *pid != first));
            wait_until_within(SHUTDOWN, || cgroup.processes().len() <= 1).await;
        }
    }
    if !is_empty() {
        tracing::info!(container = %name, "what has not ended is killed");
        cgroup
            .kill()
            .await
            .map_err(RuntimeError::file(cgroup.path()))?;
    }
    // LXC's monitor notices, and tidies up after it.
    if wait_until_within(SHUTDOWN, is_over).await {
        Ok(())
    } else {
        Err(RuntimeError::Refused(format!(
            "`{name}` was shut down, but its LXC monitor does not end; see lxc-info -n {name}"
        )))
    }
}

fn terminate(processes: impl IntoIterator<Item = u32>) {
    for process in processes {
        if let Ok(pid) = i32::try_from(process) {
            // An error: it has ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// Starts a container.
///
/// # Errors
/// Where LXC does not, with what it says of it.
pub async fn start(name: &ContainerName) -> Result<(), String> {
    let logs = Path::new(LOGS);
    fs::create_dir_all(logs).map_err(|error| format!("{}: {error}", logs.display()))?;
    let log = logs.join(format!("{name}.log"));
    let _ = fs::remove_file(&log);
    let started = Command::new("lxc-start")
        .args(["--name", name.as_str(), "--logpriority", "ERROR"])
        .arg("--logfile")
        .arg(log.display().to_string())
        // The container's monitor keeps standard output open for as long as it lives.
        .detached()
        .limit(START)
        .run()
        .await;
    let told = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    started
        .map(drop)
        .map_err(|error| with_log(&error.to_string(), &told))
}

/// An error with the beginning of what LXC says of it: what comes after follows from that.
fn with_log(error: &str, log: &str) -> String {
    /// How many lines of the log are told.
    const LINES: usize = 4;
    let told: Vec<&str> = log
        .lines()
        // Who, when and where in LXC come before it.
        .filter_map(|line| line.split_once(" - ").map(|(_, told)| told.trim()))
        .collect();
    let first = told.get(..told.len().min(LINES)).unwrap_or_default();
    match first {
        [] => error.to_owned(),
        first => format!("{error}; LXC's log says: {}", first.join("; ")),
    }
}

/// Waits until LXC says that a container that is being started runs.
///
/// # Errors
/// Where it does not come to it.
pub async fn await_running(name: &ContainerName) -> Done {
    let seconds = START.as_secs().to_string();
    Command::new("lxc-wait")
        .args(["--name", name.as_str(), "--state", "RUNNING"])
        .args(["--timeout", &seconds])
        .limit(START * 2)
        .run()
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_is_held_is_not_where_lxc_looks_and_comes_back_as_it_was() {
        let directory = TempDir::new().unwrap();
        let config = directory.path().join("config");
        fs::write(&config, "lxc.uts.name = App1\n").unwrap();
        for _ in 0..2 {
            hold(directory.path()).unwrap();
            assert!(!config.exists());
        }
        for _ in 0..2 {
            let_go(directory.path()).unwrap();
            assert_eq!(
                fs::read_to_string(&config).unwrap(),
                "lxc.uts.name = App1\n"
            );
            assert!(!held(directory.path()).exists());
        }
        fs::remove_file(&config).unwrap();
        hold(directory.path()).unwrap_err();
    }

    #[test]
    fn what_lxc_says_is_told_without_when_and_where() {
        let log = "lxc-start App1 20261129181500.123 ERROR    network - ../src/lxc/network.c:netdev:42 - No such device - br9\n";
        let told = with_log("`lxc-start` ended", log);
        assert!(told.contains("No such device - br9"), "{told}");
        assert!(!told.contains("20261129"), "{told}");
        assert_eq!(with_log("it ended", ""), "it ended");
    }
}
