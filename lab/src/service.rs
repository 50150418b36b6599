//! A program that runs in a host for as long as it is wanted: the control plane, an agent.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::LabError;
use crate::exec::{show, wait_until};
use crate::host::{Host, Kind};

/// How such a program says that it is ready: once for each of its sockets.
const READY: &str = "listening on ";
/// How long it may take to get there, in seconds.
const START_LIMIT: u64 = 30;
/// How long it may take to end when asked, in seconds.
pub const END_LIMIT: u64 = 15;
/// How much of its log is told when it fails, in lines.
const LOG_END: usize = 8;

/// A program in a host. Dropped, it goes on, until it is ended or its lab goes away.
#[derive(Debug)]
pub struct Service {
    /// For messages: `the agent of Edge3`.
    name: String,
    child: Child,
    /// The child only waits for the program, which is in another process namespace.
    is_behind: bool,
    output: PathBuf,
    log: PathBuf,
}

impl Service {
    /// Starts `command`, which is one of `host`. What it writes goes to `FILE.out`, of this start
    /// alone, and to `FILE.log`, of all.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub fn start(
        name: &str,
        host: &Host,
        mut command: Command,
        file: &Path,
    ) -> Result<Self, LabError> {
        let output = file.with_extension("out");
        let log = file.with_extension("log");
        let stdout = File::create(&output).map_err(LabError::file(&output))?;
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(LabError::file(&log))?;
        let child = command
            .stdout(stdout)
            .stderr(stderr)
            // Ctrl-C on the owner's terminal is the owner's alone to answer.
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::NotRun {
                command: show(&command),
                source,
            })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            is_behind: host.kind == Kind::Edge,
            output,
            log,
        })
    }

    /// Waits until it listens on `sockets` sockets.
    ///
    /// # Errors
    /// Where it ends before, or does not get there; with the end of its log.
    pub fn await_ready(&mut self, sockets: usize) -> Result<(), LabError> {
        let mut ended = None;
        let ready = wait_until(&format!("{}, ready", self.name), START_LIMIT, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || self.listens_on() >= sockets
        });
        match ended {
            Some(status) => Err(LabError::Other(format!(
                "{} ended with {status}:\n{}",
                self.name,
                self.log_end()
            ))),
            None => ready
                .map_err(|error| LabError::Other(format!("{error}; its log:\n{}", self.log_end()))),
        }
    }

    fn listens_on(&self) -> usize {
        let output = fs::read_to_string(&self.output).unwrap_or_default();
        output
            .lines()
            .filter(|line| line.starts_with(READY))
            .count()
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let skipped = lines.len().saturating_sub(LOG_END);
        let mut end = String::new();
        for line in lines.iter().skip(skipped) {
            end.push_str("  ");
            end.push_str(line);
            end.push('\n');
        }
        end.push_str(&format!("  ({})", self.log.display()));
        end
    }

    /// Its process id, as this machine counts.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn pid(&mut self) -> Result<Pid, LabError> {
        let ended = || LabError::Other(format!("{} has ended", self.name));
        // Once it has been waited for, its id may be another's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return Err(ended());
        }
        let child = self.child.id();
        let pid = if self.is_behind {
            // Every kernel that CRIU works on has this file.
            let path = PathBuf::from(format!("/proc/{child}/task/{child}/children"));
            let children = fs::read_to_string(&path).map_err(LabError::file(&path))?;
            children.trim().parse().ok()
        } else {
            i32::try_from(child).ok()
        };
        pid.map(Pid::from_raw).ok_or_else(ended)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        kill(self.pid()?, signal)
            .map_err(|error| LabError::Other(format!("{}: {signal}: {error}", self.name)))
    }

    /// Kills it (SIGKILL), as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// Where it has ended already, or does not.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.signal(Signal::SIGKILL)?;
        self.await_end(END_LIMIT)
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// Where it has ended already, or does not in time; then it is killed.
    pub fn stop(&mut self) -> Result<(), LabError> {
        self.signal(Signal::SIGTERM)?;
        self.await_end(END_LIMIT).inspect_err(|_| {
            // The error to tell is that it had to be killed.
            let _ = self.kill();
        })
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// Where it does not within `seconds`.
    pub fn await_end(&mut self, seconds: u64) -> Result<(), LabError> {
        let child = &mut self.child;
        wait_until(&format!("the end of {}", self.name), seconds, || {
            matches!(child.try_wait(), Ok(Some(_)))
        })
    }
}
