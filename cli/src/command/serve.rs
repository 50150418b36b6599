use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use carnet_control::server::{self, Config, Started};
use carnet_control::witnesses::WitnessAddress;
use clap::Args;
use listenfd::ListenFd;

use crate::failure::{Failure, Outcome};
use crate::log;
use crate::output::{note, write_stdout};
use crate::shutdown;

/// Where it listens unless it is said otherwise.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7700);

#[derive(Debug, Args)]
#[command(after_help = "\
The first start makes a certificate authority, DIR/authority.pem, which clients are given as --ca,
and an administrator, whose API token it puts into DIR/administrator.token.
Sockets handed over by systemd (LISTEN_FDS) are served too.

Examples:
  carnet serve --data /var/lib/carnet
  carnet serve --data /var/lib/carnet --listen 10.0.0.1:7700 --name carnet.example
  carnet serve --data /var/lib/carnet --witness 'http://10.0.0.9:7710=carnet-witness/…+…+BA…'")]
pub struct ServeCommand {
    /// The directory that holds all that it keeps; made if it is not there
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; may be given several times [default: 127.0.0.1:7700]
    #[arg(long, value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,
    /// A name or address, beside those it listens on, under which it is reached; its certificate
    /// holds it; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// How often the monitor looks at every edge and container, e.g. 30s or 10min
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = interval)]
    monitor_interval: Duration,
    /// Who cosigns the ledger: the address of a witness (C2SP tlog-witness) and its verifier key;
    /// may be given several times
    #[arg(long = "witness", value_name = "URL=VERIFIERKEY")]
    witnesses: Vec<String>,
}

fn interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval < Duration::from_secs(1) => {
            Err("at least 1s: each look asks every edge".to_owned())
        }
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

impl ServeCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        log::to_stderr()?;
        let witnesses = WitnessAddress::parse_all(&self.witnesses).map_err(|faults| {
            Failure::bad_input(faults.to_string())
                .with_help("`carnet witness key` tells a witness's verifier key")
        })?;
        let sockets = handed_over()?;
        let mut listen = self.listen;
        if listen.is_empty() && sockets.is_empty() {
            listen.push(DEFAULT_LISTEN);
        }
        let mut names = self.names;
        names.extend(
            listen
                .iter()
                .map(SocketAddr::ip)
                .filter(|address| !address.is_unspecified())
                .map(|address| address.to_string()),
        );
        let config = Config {
            data: self.data,
            listen,
            sockets,
            names,
            monitor_interval: self.monitor_interval,
            witnesses,
        };
        let shutdown = shutdown::asked_for()?;
        server::run(config, tell, shutdown)
            .await
            .map_err(|error| Failure::other(error.to_string()))?;
        Ok(Outcome::Done)
    }
}

/// The sockets that whoever started this process listens on already (sd_listen_fds(3)).
fn handed_over() -> Result<Vec<std::net::TcpListener>, Failure> {
    let mut handed_over = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed_over.len() {
        let socket = handed_over.take_tcp_listener(index).map_err(|error| {
            Failure::other(format!("a socket handed over (LISTEN_FDS): {error}"))
        })?;
        sockets.extend(socket);
    }
    Ok(sockets)
}

fn tell(started: &Started) {
    if let Some(path) = &started.administrator_token {
        note(&format!(
            "the first start: the administrator's API token is in {}",
            path.display()
        ));
    }
    if started.taken_up > 0 {
        note(&format!(
            "{} migrations had not ended and are taken up",
            started.taken_up
        ));
    }
    for address in &started.addresses {
        // Where nobody reads, nobody waits for it.
        let _ = write_stdout(&format!("listening on https://{address}"));
    }
}
