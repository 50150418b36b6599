use clap::{Parser, Subcommand};

use crate::command::{
    account, agent, audit, container, edge, key, ledger, migrate, migration, serve, token, witness,
};

const ABOUT: &str = "Move running containers between edge servers only where their data may go";

const AFTER_HELP: &str = "\
An edge's owner declares what the edge is (attributes), and gives keys to those who may use it.
A container's owner says what it requires of an edge (requirements). Carnet moves a container
only to an edge that satisfies every requirement, and says why where it does not.

Examples:
  an administrator
    carnet serve --data /var/lib/carnet --listen 10.0.0.1:7700
    carnet account create erin --role edge-owner
    carnet account token erin --label laptop > erin.token
  an edge's owner
    carnet edge register Edge2 --address 10.0.0.2:7701 --attributes Edge2.toml
    carnet edge enrol-token Edge2
    carnet edge share Edge2 --with carol
  on that edge
    carnet agent enrol --control https://10.0.0.1:7700 --token TOKEN --state /var/lib/carnet-agent
    carnet agent run --state /var/lib/carnet-agent
  a container's owner
    carnet edge use KEY
    carnet container register App1 --edge Edge1 --requirements App1.toml
    carnet container prove App1
    carnet audit App1 --to Edge2
    carnet migrate App1 --region B
  an auditor
    carnet ledger where App1
    carnet ledger list --verdict deny
    carnet ledger verify
  a witness, who is somebody else
    carnet witness run --state /var/lib/carnet-witness --listen 10.0.0.9:7710 --ledger KEY

Environment, where the options are not given:
  CARNET_URL         address of the control plane, https://HOST:PORT
  CARNET_CA          path of its CA certificate, PEM
  CARNET_TOKEN       your API token, or
  CARNET_TOKEN_FILE  path of a file with it
  CARNET_LOG         what serve, agent and witness log, e.g. debug, or carnet_control=debug,info

Exit status:
  0  done; of an audit: at least one candidate is permitted
  1  it failed
  2  the input is at fault: arguments, a policy, a name
  3  denied by policy; nothing was moved";

#[derive(Debug, Parser)]
#[command(name = "carnet", version, about = ABOUT, after_help = AFTER_HELP)]
#[command(
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane: API, policies, audits, monitor, migrations
    Serve(serve::ServeCommand),
    /// Run an edge's agent, or enrol it
    Agent(agent::AgentCommand),
    /// Accounts, and tokens for them (administrators)
    Account(account::AccountCommand),
    /// Your own API tokens
    Token(token::TokenCommand),
    /// Who you are to the control plane
    Whoami(account::WhoamiCommand),
    /// Edges: register, describe, share, use
    Edge(edge::EdgeCommand),
    /// Containers: register, prove whose they are, set requirements
    Container(container::ContainerCommand),
    /// Ask whether a container may go somewhere; nothing is moved
    Audit(audit::AuditCommand),
    /// Move a container, if a policy permits it
    Migrate(migrate::MigrateCommand),
    /// Migrations under way and over
    Migration(migration::MigrationCommand),
    /// The ledger: what was decided and done, and that nobody has changed it (auditors)
    Ledger(ledger::LedgerCommand),
    /// The keys that permits and the ledger are verified with
    Key(key::KeyCommand),
    /// Run a witness, which cosigns ledgers that only grow
    Witness(witness::WitnessCommand),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Arguments, ErrorKind> {
        Arguments::try_parse_from(line.split_whitespace()).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command, path: &str) {
            assert!(command.get_about().is_some(), "{path} has no text");
            for argument in command.get_arguments() {
                let name = argument.get_id();
                assert!(argument.get_help().is_some(), "{path}: {name} has no text");
            }
            for inner in command.get_subcommands() {
                walk(inner, &format!("{path} {}", inner.get_name()));
            }
        }
        walk(&Arguments::command(), "carnet");
    }

    #[test]
    fn commands_of_the_examples_parse() {
        let examples = AFTER_HELP
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("carnet "))
            .map(|line| line.split('>').next().unwrap_or_default());
        let mut count = 0;
        for line in examples {
            let line = &line.replace(" KEY", " 3f2a9c0d1e4b5a697887a6b5c4d3e2f101234567");
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
            count += 1;
        }
        assert!(count > 10);
    }

    #[test]
    fn connection_options_may_stand_anywhere() {
        for line in [
            "carnet edge list --url https://a:1 --ca ca.pem --token-file t --json",
            "carnet edge --json list",
            "carnet migrate App1 --anywhere --json",
            "carnet whoami --json",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
    }

    #[test]
    fn a_destination_is_named_in_one_way() {
        for verb in ["audit", "migrate"] {
            for to in ["--to Edge2", "--region B", "--anywhere"] {
                let line = format!("carnet {verb} App1 {to}");
                assert!(parse(&line).is_ok(), "{line}");
            }
            let kind = |to: &str| parse(&format!("carnet {verb} App1 {to}")).unwrap_err();
            assert_eq!(kind(""), ErrorKind::MissingRequiredArgument);
            assert_eq!(kind("--to Edge2 --anywhere"), ErrorKind::ArgumentConflict);
            assert_eq!(kind("--to Edge2 --region B"), ErrorKind::ArgumentConflict);
        }
    }

    #[test]
    fn what_cannot_be_right_is_refused_before_anything_is_asked() {
        for (line, kind) in [
            ("carnet edge show ../accounts", ErrorKind::ValueValidation),
            ("carnet edge use 12345", ErrorKind::ValueValidation),
            (
                "carnet edge register E --address nowhere --attributes x",
                ErrorKind::ValueValidation,
            ),
            (
                "carnet account create erin",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "carnet account create erin --role king",
                ErrorKind::InvalidValue,
            ),
            ("carnet token revoke all", ErrorKind::ValueValidation),
            ("carnet migration show 12", ErrorKind::ValueValidation),
            (
                "carnet agent enrol --control http://a --token t --state s",
                ErrorKind::ValueValidation,
            ),
            (
                "carnet serve --data d --monitor-interval soon",
                ErrorKind::ValueValidation,
            ),
            (
                "carnet witness run --state s --listen 127.0.0.1:0",
                ErrorKind::MissingRequiredArgument,
            ),
            (
                "carnet ledger verify --witness nobody",
                ErrorKind::ValueValidation,
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), kind, "{line}");
        }
    }
}
