use std::net::SocketAddr;
use std::path::PathBuf;

use carnet_witness::key;
use carnet_witness::server::{self, Config, Started, WitnessError};
use clap::{Args, Subcommand};

use crate::failure::{Failure, Outcome};
use crate::log;
use crate::output::{note, write_stdout};
use crate::shutdown;

#[derive(Debug, Args)]
#[command(after_help = "\
A witness is run by somebody else than the control plane. It remembers the newest checkpoint of
each ledger, refuses one that does not begin with it, and cosigns the others. It speaks plain HTTP:
what it gets and gives is signed and holds nothing secret.

Examples:
  carnet witness key --state /var/lib/carnet-witness
  carnet witness run --state /var/lib/carnet-witness --listen 10.0.0.9:7710 \\
      --ledger 'carnet/0a1b…+c3d4e5f6+AQ…'
then, on the control plane:
  carnet serve --data /var/lib/carnet --witness 'http://10.0.0.9:7710=carnet-witness/…+…+BA…'

The state must not be lost while its key is in use, nor be put back to an older copy: a witness that
forgot would cosign a second past.")]
pub struct WitnessCommand {
    #[command(subcommand)]
    action: WitnessAction,
}

#[derive(Debug, Subcommand)]
enum WitnessAction {
    /// Cosign checkpoints of ledgers
    Run {
        /// The directory that holds its key and what it remembers; made if it is not there
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// Where to listen
        #[arg(long, value_name = "IP:PORT")]
        listen: SocketAddr,
        /// The verifier key of a ledger, as `carnet key show` tells it; may be given several times
        #[arg(long = "ledger", value_name = "VERIFIERKEY", required = true)]
        ledgers: Vec<String>,
    },
    /// Tell the witness's verifier key, made if it is not there
    Key {
        /// The directory that holds its key and what it remembers; made if it is not there
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
    },
}

impl WitnessCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        match self.action {
            WitnessAction::Run {
                state,
                listen,
                ledgers,
            } => {
                log::to_stderr()?;
                let config = Config {
                    state,
                    listen,
                    ledgers,
                };
                let shutdown = shutdown::asked_for()?;
                server::run(config, tell, shutdown).await.map_err(failed)?;
            }
            WitnessAction::Key { state } => {
                let witness = key::open(&state).map_err(failed)?;
                write_stdout(&witness.verifier().to_string())?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn failed(error: WitnessError) -> Failure {
    match error {
        WitnessError::Ledgers(_) => Failure::bad_input(error.to_string())
            .with_help("`carnet key show` tells the verifier key of a control plane's ledger"),
        other => Failure::other(other.to_string()),
    }
}

fn tell(started: &Started) {
    for (ledger, size) in &started.remembered {
        note(&format!("{ledger}: {size} entries have been cosigned"));
    }
    // Where nobody reads, nobody waits for it.
    let _ = write_stdout(&format!("verifier key {}", started.verifier));
    let _ = write_stdout(&format!("listening on http://{}", started.address));
}
