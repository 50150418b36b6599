use std::net::SocketAddr;
use std::path::PathBuf;

use carnet_agent::lxc::guard::{self, Post};
use carnet_agent::server::{self, Config, RuntimeChoice};
use carnet_agent::{enrol, server::AgentError};
use clap::{Args, Subcommand};

use crate::client::control_url;
use crate::failure::{Failure, Outcome};
use crate::log;
use crate::output::{note, write_stdout};
use crate::shutdown;

#[derive(Debug, Args)]
#[command(after_help = "\
An edge's owner makes the token with `carnet edge enrol-token EDGE`. It is good once; from then on
control plane and agent know each other by certificates.

Examples, on the edge, as root:
  carnet agent enrol --control https://10.0.0.1:7700 --token TOKEN --state /var/lib/carnet-agent
  carnet agent run --state /var/lib/carnet-agent")]
pub struct AgentCommand {
    #[command(subcommand)]
    action: AgentAction,
}

#[derive(Debug, Subcommand)]
enum AgentAction {
    /// Get this edge its certificate, with a one-time token
    Enrol {
        /// Address of the control plane, https://HOST:PORT
        #[arg(long, value_name = "URL", value_parser = control_url)]
        control: String,
        /// The one-time token of the edge's owner
        #[arg(long)]
        token: String,
        /// The directory that holds this agent's key and certificate
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
    /// Guard a container whose memory follows: the agent starts this itself
    #[command(hide = true)]
    Guard {
        /// The container, as LXC names it
        #[arg(long, value_name = "NAME")]
        container: String,
        /// Where what stands by keeps its markers
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// Where the memory images are
        #[arg(long, value_name = "DIR")]
        images: PathBuf,
    },
    /// Serve the control plane and other agents
    Run {
        /// Where it was enrolled
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Where to listen [default: the address that the edge was registered with]
        #[arg(long, value_name = "IP:PORT")]
        listen: Option<SocketAddr>,
        /// The bridge that containers are on
        #[arg(long, value_name = "NAME", default_value = "br0")]
        bridge: String,
        /// Run no containers, but keep directories here in their place: for trying out fleets
        #[arg(long, value_name = "DIR", conflicts_with = "bridge")]
        simulated: Option<PathBuf>,
    },
}

impl AgentCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        log::to_stderr()?;
        match self.action {
            AgentAction::Enrol {
                control,
                token,
                state,
            } => {
                let edge = enrol::enrol(&state, &control, &token)
                    .await
                    .map_err(|error| Failure::other(error.to_string()))?;
                write_stdout(&format!("enrolled as edge {} ({})", edge.name, edge.id))?;
                note(&format!(
                    "next: carnet agent run --state {}",
                    state.display()
                ));
            }
            AgentAction::Guard {
                container,
                directory,
                images,
            } => {
                let post = Post {
                    container,
                    directory,
                    images,
                };
                guard::run(&post).map_err(Failure::other)?;
            }
            AgentAction::Run {
                state,
                listen,
                bridge,
                simulated,
            } => {
                let runtime = match simulated {
                    Some(root) => {
                        note("simulated: no container runs here, and none is moved");
                        RuntimeChoice::Simulated { root }
                    }
                    None => RuntimeChoice::Lxc { bridge },
                };
                let config = Config {
                    state,
                    listen,
                    runtime,
                };
                let shutdown = shutdown::asked_for()?;
                server::run(config, tell, shutdown)
                    .await
                    .map_err(|error: AgentError| Failure::other(error.to_string()))?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn tell(address: SocketAddr, problems: &[String]) {
    if !problems.is_empty() {
        note("this edge cannot take part in migrations:");
        for problem in problems {
            note(&format!("  {problem}"));
        }
    }
    // Where nobody reads, nobody waits for it.
    let _ = write_stdout(&format!("listening on {address}"));
}
