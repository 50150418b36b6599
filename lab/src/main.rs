//! `carnet-lab`: the demo, and the lab by hand.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use carnet_lab::cgroup::Hierarchies;
use carnet_lab::demo::{self, DemoError, DemoSpec};
use carnet_lab::error::LabError;
use carnet_lab::init::{self, HostSpec};
use carnet_lab::lab;
use carnet_lab::progress::{Progress, tell};
use carnet_lab::signals;
use clap::{Parser, Subcommand};
use nix::fcntl::{FcntlArg, fcntl};

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST_SOCKET: i32 = 3;

/// Edge servers out of namespaces, on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
    /// Bring up eight edges and one real container, and carry out the paper's cases.
    #[command(after_help = "\
Progress goes to standard error, the paper's tables with what was measured here to standard output.

Exit status 0: every decision is the paper's, and nothing was lost; 1: something differs, or it
failed, and it says what; 128 and more: ended by a signal.")]
    Demo {
        /// Leave the lab up at the end, and say how to use it.
        #[arg(long)]
        stay: bool,
        /// The lab's name. Labs with different names do not touch each other.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// End a lab that was left up, and remove all that there is of it.
    Down {
        /// The lab's name.
        #[arg(long, default_value = "demo")]
        name: String,
    },
    /// Be a host's first process, or enter a host. Used by the lab itself.
    #[command(hide = true, subcommand)]
    Host(HostJob),
}

#[derive(Debug, Subcommand)]
enum HostJob {
    First {
        spec: String,
    },
    Second {
        spec: String,
    },
    Enter {
        lab: String,
        host: String,
        #[arg(long)]
        network: String,
        #[arg(long)]
        pid: Option<u32>,
        /// Standard input is a socket that listens; the command is handed it.
        #[arg(long, conflicts_with = "pid")]
        socket: bool,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(code) => code,
        Err(DemoError::Lab(LabError::Interrupted(signal))) => ended_by(signal),
        Err(error) => {
            tell(&format!("carnet-lab: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn carry_out(job: Job) -> Result<ExitCode, DemoError> {
    match job {
        Job::Demo { stay, name } => {
            let program =
                std::env::current_exe().map_err(LabError::file(Path::new("/proc/self/exe")))?;
            let progress = Progress::new(signals::watch()?);
            let spec = DemoSpec {
                name,
                stay,
                program,
            };
            if !demo::run(&spec, &progress)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Job::Down { name } => {
            lab::down(&name)?;
            tell(&format!("the lab `{name}` is gone"));
        }
        Job::Host(HostJob::First { spec }) => init::begin(&parse(&spec)?)?,
        Job::Host(HostJob::Second { spec }) => init::live(&parse(&spec)?)?,
        Job::Host(HostJob::Enter {
            lab,
            host,
            network,
            pid,
            socket,
            command,
        }) => return Err(enter(&lab, &host, &network, pid, socket, &command).into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(spec: &str) -> Result<HostSpec, LabError> {
    serde_json::from_str(spec).map_err(|error| LabError::Other(error.to_string()))
}

/// As shells tell it.
fn ended_by(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// Becomes `command` inside a host; returns only where that fails.
fn enter(
    lab: &str,
    host: &str,
    network: &str,
    pid: Option<u32>,
    socket: bool,
    command: &[String],
) -> LabError {
    let Some(hierarchies) = Hierarchies::find() else {
        return LabError::Other("cgroup v2 is not mounted".to_owned());
    };
    if let Err(error) = hierarchies.enter(lab, host) {
        return error;
    }
    let mut nsenter = Command::new("nsenter");
    match pid {
        Some(pid) => {
            nsenter.args(["--target", &pid.to_string()]);
            nsenter.args([
                "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--root", "--wd=/",
            ]);
            nsenter.args(["env", "--ignore-environment", "HOME=/root", "TERM=dumb"]);
            nsenter.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
            if let Ok(filter) = std::env::var("CARNET_LOG") {
                nsenter.arg(format!("CARNET_LOG={filter}"));
            }
        }
        None => {
            nsenter.arg(format!("--net=/run/netns/{network}"));
        }
    }
    if socket {
        if let Err(error) = hand_over_stdin() {
            return error;
        }
        // Sockets that are handed over are addressed to one process: this one, which from here
        // on only changes its program.
        nsenter.env("LISTEN_FDS", "1");
        nsenter.env("LISTEN_PID", std::process::id().to_string());
        nsenter.stdin(Stdio::null());
    }
    nsenter.args(command);
    let error = nsenter.exec();
    LabError::NotRun {
        command: carnet_lab::exec::show(&nsenter),
        source: error,
    }
}

/// Makes standard input the first descriptor that is handed over, too.
fn hand_over_stdin() -> Result<(), LabError> {
    match fcntl(std::io::stdin(), FcntlArg::F_DUPFD(FIRST_SOCKET)) {
        Ok(FIRST_SOCKET) => Ok(()),
        Ok(other) => Err(LabError::Other(format!(
            "the socket became descriptor {other}; {FIRST_SOCKET} is in use"
        ))),
        Err(error) => Err(LabError::Other(format!(
            "the socket cannot be handed over: {error}"
        ))),
    }
}
