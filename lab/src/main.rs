//! `carnet-lab`: the lab by hand.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use carnet_lab::cgroup::Hierarchies;
use carnet_lab::error::LabError;
use carnet_lab::init::{self, HostSpec};
use carnet_lab::lab;
use clap::{Parser, Subcommand};

/// Edge servers out of namespaces, on this machine.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Job,
}

#[derive(Debug, Subcommand)]
enum Job {
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
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match carry_out(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("carnet-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(job: Job) -> Result<ExitCode, LabError> {
    match job {
        Job::Down { name } => lab::down(&name)?,
        Job::Host(HostJob::First { spec }) => init::begin(&parse(&spec)?)?,
        Job::Host(HostJob::Second { spec }) => init::live(&parse(&spec)?)?,
        Job::Host(HostJob::Enter {
            lab,
            host,
            network,
            pid,
            command,
        }) => return Err(enter(&lab, &host, &network, pid, &command)),
    }
    Ok(ExitCode::SUCCESS)
}

fn parse(spec: &str) -> Result<HostSpec, LabError> {
    serde_json::from_str(spec).map_err(|error| LabError::Other(error.to_string()))
}

/// Becomes `command` inside a host; returns only where that fails.
fn enter(lab: &str, host: &str, network: &str, pid: Option<u32>, command: &[String]) -> LabError {
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
            nsenter.arg(format!("RUST_LOG={}", std::env::var("RUST_LOG").unwrap_or_default()));
        }
        None => {
            nsenter.arg(format!("--net=/run/netns/{network}"));
            // Sockets that are handed over are addressed to one process: this one, which from
            // here on only changes its program (sd_listen_fds(3)).
            if std::env::var_os("LISTEN_FDS").is_some() {
                nsenter.env("LISTEN_PID", std::process::id().to_string());
            }
        }
    }
    nsenter.args(command);
    let error = nsenter.exec();
    LabError::NotRun {
        command: carnet_lab::exec::show(&nsenter),
        source: error,
    }
}
