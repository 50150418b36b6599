use carnet_api::v1::{AllowPostCopy, Claim, Container, RegisterContainer, UpdateRequirements};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::policy_source::{FORMATS, REQUIREMENTS};
use crate::reference::Reference;
use crate::view;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  as the container's owner
    carnet container register App1 --edge Edge1 --requirements App1.toml
    carnet container register App1 --edge Edge1 \\
        --requirements 'jp,us,fr -caB * lxc 60 50 1.6 4 * * *'
    carnet container prove App1
    carnet container require App1 --requirements App1.toml
  as the owner of the edge that it runs on, instead of prove
    carnet container confirm App1")]
pub struct ContainerCommand {
    #[command(subcommand)]
    action: ContainerAction,
    #[command(flatten)]
    client: ClientArguments,
}

const REQUIREMENTS_HELP: &str = "\
The requirements, in the order of a compact row (`*`: not considered), with the paper's names:
  allowed_locations     (cDAl)    countries, two letters, or region:NAME, e.g. jp,us,fr
  allowed_organizations (cDAo)    e.g. caA,caC; -caB: any but caB
  allowed_manufacturers (cHRh)    the same
  virtualization        (cHRt)    the tool that it needs, e.g. lxc
  max_cpu_percent       (cHRcu)   use of the edge's CPU at the time of the audit, e.g. 60
  max_memory_percent    (cHRmu)   the same of its memory
  min_cpu_ghz           (cHRc)    e.g. 1.6
  min_memory_gb         (cHRm)    e.g. 4
  ai_support            (cHRgpu)  yes: the edge must have it
  ai_accessories        (cHRac)   the edge must have all of them
  ai_frameworks         (cHRaf)   the edge must have all of them
Every requirement has to be satisfied, and what is not known of an edge satisfies none.

";

fn requirements_help() -> String {
    format!(
        "{REQUIREMENTS_HELP}{FORMATS}\n\n\
         Example of a TOML file:\n  \
         allowed_locations = [\"jp\", \"us\", \"fr\"]\n  \
         allowed_organizations = [\"-caB\"]\n  virtualization = \"lxc\"\n  \
         max_cpu_percent = 60\n  max_memory_percent = 50\n  min_cpu_ghz = 1.6\n  \
         min_memory_gb = 4"
    )
}

#[derive(Debug, Subcommand)]
enum ContainerAction {
    /// Register a container that runs on an edge, and get the code that shows it is yours
    #[command(after_help = requirements_help())]
    Register {
        /// Its name in LXC
        name: Reference,
        /// The edge that it runs on, name or id
        #[arg(long, value_name = "EDGE")]
        edge: Reference,
        /// What it requires of an edge: a file, or a compact row in quotes
        #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
        requirements: String,
        /// Accept that memory follows after it runs at a target: see `carnet container allow-post-copy --help`
        #[arg(long)]
        allow_post_copy: bool,
    },
    /// Get a new code to show that a container is yours
    Claim {
        /// Name or id
        container: Reference,
    },
    /// Have the code read from inside the container: then it is yours
    Prove {
        /// Name or id
        container: Reference,
    },
    /// As the owner of its edge: confirm whose a container is
    Confirm {
        /// Name or id
        container: Reference,
    },
    /// List containers: yours, and those on your edges
    List,
    /// Show a container with every requirement
    Show {
        /// Name or id
        container: Reference,
    },
    /// Set a container's requirements anew, all of them
    #[command(after_help = requirements_help())]
    Require {
        /// Name or id
        container: Reference,
        /// What it requires of an edge: a file, or a compact row in quotes
        #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
        requirements: String,
    },
    /// Accept that a container's memory follows after it runs at a target
    ///
    /// Its moves then stand still for a moment only, whatever its memory. Until all of it is over a
    /// move needs both edges: if it loses one, the container goes on at its source as it was when
    /// it was frozen, and what it did since is lost.
    AllowPostCopy {
        /// Name or id
        container: Reference,
        /// Accept it no more
        #[arg(long)]
        revoke: bool,
    },
    /// End a container's registration; it runs on where it is
    Forget {
        /// Name or id
        container: Reference,
    },
}

fn read_requirements(given: &str, name: &Reference) -> Result<Value, Failure> {
    Ok(REQUIREMENTS.read(given, name.as_str())?.to_json())
}

impl ContainerCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        match self.action {
            ContainerAction::Register {
                name,
                edge,
                requirements,
                allow_post_copy,
            } => {
                let body = RegisterContainer {
                    name: name.to_string(),
                    edge: edge.to_string(),
                    requirements: read_requirements(&requirements, &name)?,
                    allow_post_copy,
                };
                register(&session, &name, &body).await?;
            }
            ContainerAction::Claim { container } => {
                let claim = session.act::<Claim>(&claims(&container)).await?;
                session.show(&claim, |claim, _| claim.code.clone())?;
                explain(&session, &container, &claim.value);
            }
            ContainerAction::Prove { container } => {
                confirm(&session, &container, "confirm-claim").await?;
            }
            ContainerAction::Confirm { container } => {
                confirm(&session, &container, "confirm").await?;
            }
            ContainerAction::List => list(&session).await?,
            ContainerAction::Show { container } => {
                let path = format!("/v1/containers/{container}");
                let container = session.get::<Container>(&path).await?;
                session.show(&container, view::container::container)?;
            }
            ContainerAction::Require {
                container,
                requirements,
            } => {
                let body = UpdateRequirements {
                    requirements: read_requirements(&requirements, &container)?,
                };
                let path = format!("/v1/containers/{container}/requirements");
                let container = session.replace::<_, Container>(&path, &body).await?;
                session.show(&container, view::container::container)?;
            }
            ContainerAction::AllowPostCopy { container, revoke } => {
                let body = AllowPostCopy {
                    allow_post_copy: !revoke,
                };
                let path = format!("/v1/containers/{container}/allow-post-copy");
                let container = session.replace::<_, Container>(&path, &body).await?;
                session.show(&container, view::container::container)?;
            }
            ContainerAction::Forget { container } => {
                let path = format!("/v1/containers/{container}");
                let forgotten = session.delete(&path).await?;
                session.output().answer(&forgotten, |_| {
                    format!("{container} is no longer registered; it runs on where it is")
                })?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn claims(container: &Reference) -> String {
    format!("/v1/containers/{container}/claims")
}

/// Registers and claims at once. A crash, or a failure, between the two leaves a registration
/// that is pending; `carnet container claim` goes on from there.
async fn register(
    session: &Session,
    name: &Reference,
    body: &RegisterContainer,
) -> Result<(), Failure> {
    let container = session
        .create::<_, Container>("/v1/containers", body)
        .await?;
    let by_id = container.value.id;
    let path = format!("/v1/containers/{by_id}/claims");
    let claim = session.act::<Claim>(&path).await.map_err(|failure| {
        failure
            .while_doing(&format!("`{name}` is registered, but there is no code yet"))
            .with_help(format!("carnet container claim {name}"))
    })?;
    let both = json!({ "container": container.json, "claim": claim.json });
    session
        .output()
        .answer(&both, |_| claim.value.code.clone())?;
    session.output().hint(&format!(
        "{name} is registered on {}",
        container.value.edge_name
    ));
    explain(session, name, &claim.value);
    Ok(())
}

fn explain(session: &Session, container: &Reference, claim: &Claim) {
    let surface = crate::output::Surface {
        now: crate::output::now(),
        width: None,
    };
    session
        .output()
        .hint(&view::container::claim(container.as_str(), claim, surface));
}

async fn confirm(session: &Session, container: &Reference, how: &str) -> Result<(), Failure> {
    let path = format!("/v1/containers/{container}/{how}");
    let confirmed = session.act::<Container>(&path).await?;
    session.show(&confirmed, |container, _| {
        format!(
            "{} on {} is confirmed as its owner's",
            container.name, container.edge_name
        )
    })
}

async fn list(session: &Session) -> Result<(), Failure> {
    let containers = session.get::<Vec<Container>>("/v1/containers").await?;
    session.show(&containers, |containers, surface| {
        view::container::containers(containers, surface)
    })?;
    if containers.value.is_empty() {
        session
            .output()
            .hint("there are no containers of yours; see: carnet container register --help");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_help_is_a_policy() {
        let help = requirements_help();
        let toml = help.split("TOML file:\n").nth(1).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.toml");
        std::fs::write(&path, toml).unwrap();
        let read = REQUIREMENTS.read(path.to_str().unwrap(), "App1").unwrap();
        assert_eq!(read.to_compact(), "fr,jp,us -caB * lxc 60 50 1.6 4 * * *");
    }
}
