use std::net::SocketAddr;

use carnet_api::v1::{
    CreateShareKey, Edge, EnrolmentToken, NewShareKey, RedeemShareKey, RegisterEdge, ShareKey,
    UpdateAttributes,
};
use carnet_core::policy::nearest;
use clap::{Args, Subcommand};
use serde_json::Value;

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::policy_source::{ATTRIBUTES, FORMATS};
use crate::reference::Reference;
use crate::view;
use crate::view::quantity::instant;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  as an edge's owner
    carnet edge register Edge2 --address 10.0.0.2:7701 --attributes Edge2.toml
    carnet edge register Edge2 --address 10.0.0.2:7701 --attributes 'B de caA deB lxc 2.6 8 - - -'
    carnet edge enrol-token Edge2
    carnet edge share Edge2 --with carol
    carnet edge revoke Edge2 --from carol
  as a container's owner
    carnet edge use 3f2a9c0d1e4b5a697887a6b5c4d3e2f101234567
    carnet edge list")]
pub struct EdgeCommand {
    #[command(subcommand)]
    action: EdgeAction,
    #[command(flatten)]
    client: ClientArguments,
}

const ATTRIBUTES_HELP: &str = "\
The attributes, in the order of a compact row (`-`: none, or not known; what is not known never
satisfies a requirement), with the paper's names:
  region                    a name of yours for edges that belong together, e.g. B
  location       (eDAl)     country, two letters, e.g. de
  organizations  (eDAo)     who manages it, e.g. caA or caA,caB
  manufacturer   (eHRh)     e.g. deB
  virtualization (eHRt)     tools, e.g. lxc
  cpu_ghz        (eHRc)     e.g. 2.6
  memory_gb      (eHRm)     e.g. 8
  ai_support     (eHRgpu)   yes or no
  ai_accessories (eHRac)    e.g. tpu
  ai_frameworks  (eHRaf)    e.g. onnx,tflite

";

fn attributes_help() -> String {
    format!(
        "{ATTRIBUTES_HELP}{FORMATS}\n\n\
         Example of a TOML file:\n  \
         region = \"B\"\n  location = \"de\"\n  organizations = [\"caA\"]\n  \
         manufacturer = \"deB\"\n  virtualization = [\"lxc\"]\n  cpu_ghz = 2.6\n  memory_gb = 8"
    )
}

#[derive(Debug, Subcommand)]
enum EdgeAction {
    /// Register an edge that you own
    #[command(after_help = attributes_help())]
    Register {
        /// Unique; letters, digits, `.`, `_` and `-`
        name: Reference,
        /// Where its agent will listen
        #[arg(long, value_name = "IP:PORT")]
        address: SocketAddr,
        /// What you declare of it: a file, or a compact row in quotes
        #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
        attributes: String,
    },
    /// List the edges that you own or may use
    List,
    /// Show an edge with every attribute
    Show {
        /// Name or id
        edge: Reference,
    },
    /// Declare an edge's attributes anew, all of them
    #[command(after_help = attributes_help())]
    Describe {
        /// Name or id
        edge: Reference,
        /// What you declare of it: a file, or a compact row in quotes
        #[arg(long, value_name = "POLICY", allow_hyphen_values = true)]
        attributes: String,
    },
    /// Make the one-time token with which the edge's agent enrols; it goes to standard output
    EnrolToken {
        /// Name or id
        edge: Reference,
    },
    /// Trust an edge's agent no more, at once, until it enrols anew
    Disenrol {
        /// Name or id
        edge: Reference,
    },
    /// Give a container owner the use of an edge; the key goes to standard output, this once
    Share {
        /// Name or id
        edge: Reference,
        /// The container owner's account
        #[arg(long, value_name = "ACCOUNT")]
        with: Reference,
    },
    /// Take the use of an edge back
    Revoke {
        /// Name or id
        edge: Reference,
        /// The account that the key was given to
        #[arg(long, value_name = "ACCOUNT")]
        from: Reference,
    },
    /// List share keys: those you gave, and those you use
    Keys {
        /// Only those of this edge of yours
        edge: Option<Reference>,
    },
    /// Enter a share key that an edge's owner gave you
    Use {
        /// 40 hexadecimal digits
        #[arg(value_parser = share_key)]
        key: String,
    },
}

fn share_key(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(
            "a share key has 40 hexadecimal digits; its edge's owner makes one with: \
             carnet edge share EDGE --with YOUR-ACCOUNT"
                .to_owned(),
        )
    }
}

fn read_attributes(given: &str, name: &Reference) -> Result<Value, Failure> {
    Ok(ATTRIBUTES.read(given, name.as_str())?.to_json())
}

impl EdgeCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        match self.action {
            EdgeAction::Register {
                name,
                address,
                attributes,
            } => {
                let body = RegisterEdge {
                    name: name.to_string(),
                    address: address.to_string(),
                    attributes: read_attributes(&attributes, &name)?,
                };
                let edge = session.create::<_, Edge>("/v1/edges", &body).await?;
                session.show(&edge, view::edge::edge)?;
                session
                    .output()
                    .hint(&format!("next: carnet edge enrol-token {name}"));
            }
            EdgeAction::List => list(&session).await?,
            EdgeAction::Show { edge } => {
                let edge = session.get::<Edge>(&format!("/v1/edges/{edge}")).await?;
                session.show(&edge, view::edge::edge)?;
            }
            EdgeAction::Describe { edge, attributes } => {
                let body = UpdateAttributes {
                    attributes: read_attributes(&attributes, &edge)?,
                };
                let path = format!("/v1/edges/{edge}/attributes");
                let edge = session.replace::<_, Edge>(&path, &body).await?;
                session.show(&edge, view::edge::edge)?;
            }
            EdgeAction::EnrolToken { edge } => enrol_token(&session, &edge).await?,
            EdgeAction::Disenrol { edge } => {
                let path = format!("/v1/edges/{edge}/disenrol");
                let edge = session.act::<Edge>(&path).await?;
                session.show(&edge, view::edge::edge)?;
            }
            EdgeAction::Share { edge, with } => share(&session, &edge, &with).await?,
            EdgeAction::Revoke { edge, from } => revoke(&session, &edge, &from).await?,
            EdgeAction::Keys { edge } => {
                let path = match edge {
                    Some(edge) => format!("/v1/edges/{edge}/share-keys"),
                    None => "/v1/share-keys".to_owned(),
                };
                let keys = session.get::<Vec<ShareKey>>(&path).await?;
                session.show(&keys, |keys, surface| view::edge::share_keys(keys, surface))?;
            }
            EdgeAction::Use { key } => {
                let body = RedeemShareKey { key };
                let key = session
                    .ask::<_, ShareKey>("/v1/share-keys/redeem", &body)
                    .await?;
                session.show(&key, |key, _| {
                    format!("you may use {} from now on", key.edge_name)
                })?;
            }
        }
        Ok(Outcome::Done)
    }
}

async fn list(session: &Session) -> Result<(), Failure> {
    let edges = session.get::<Vec<Edge>>("/v1/edges").await?;
    session.show(&edges, |edges, surface| view::edge::edges(edges, surface))?;
    if edges.value.is_empty() {
        session.output().hint(
            "there are no edges that you own or may use; \
             see: carnet edge register --help, carnet edge use --help",
        );
    }
    Ok(())
}

async fn enrol_token(session: &Session, edge: &Reference) -> Result<(), Failure> {
    let path = format!("/v1/edges/{edge}/enrolment-tokens");
    let token = session.act::<EnrolmentToken>(&path).await?;
    session.show(&token, |token, _| token.token.clone())?;
    session.output().hint(&format!(
        "the token above is good once, until {}. on the edge, as root:\n  \
         carnet agent enrol --control {} --token TOKEN --state /var/lib/carnet-agent\n  \
         carnet agent run --state /var/lib/carnet-agent",
        instant(token.value.expires_at_ms, crate::output::now()),
        session.url(),
    ));
    Ok(())
}

async fn share(session: &Session, edge: &Reference, grantee: &Reference) -> Result<(), Failure> {
    let path = format!("/v1/edges/{edge}/share-keys");
    let body = CreateShareKey {
        grantee: grantee.to_string(),
    };
    let key = session.create::<_, NewShareKey>(&path, &body).await?;
    session.show(&key, |key, _| key.key.clone())?;
    session.output().hint(&format!(
        "the key above is shown this once; it works for {grantee} alone, who enters it with:\n  \
         carnet edge use KEY\n\
         to take it back: carnet edge revoke {edge} --from {grantee}"
    ));
    Ok(())
}

/// Revokes every key of the edge that the grantee holds.
async fn revoke(session: &Session, edge: &Reference, grantee: &Reference) -> Result<(), Failure> {
    let path = format!("/v1/edges/{edge}/share-keys");
    let mut keys = session.get::<Vec<ShareKey>>(&path).await?.value;
    keys.retain(|key| key.revoked_at_ms.is_none());
    let held: Vec<&ShareKey> = keys
        .iter()
        .filter(|key| key.grantee == grantee.as_str())
        .collect();
    if held.is_empty() {
        let failure = Failure::other(format!("`{grantee}` holds no key of `{edge}`"));
        let grantees = keys.iter().map(|key| key.grantee.as_str());
        return Err(match nearest(grantee.as_str(), grantees) {
            Some(near) => failure.with_help(format!("did you mean `{near}`?")),
            None => failure.with_help(format!("carnet edge keys {edge} lists who does")),
        });
    }
    let mut answers = Vec::new();
    for key in held {
        answers.push(
            session
                .delete(&format!("/v1/share-keys/{}", key.id))
                .await?,
        );
    }
    session.output().answer(&Value::Array(answers), |_| {
        format!("{grantee} may not use {edge} any more; containers that are there stay there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_key_has_40_hexadecimal_digits() {
        let key = "3F2a9c0d1e4b5a697887a6b5c4d3e2f101234567";
        assert_eq!(share_key(key).unwrap(), key.to_lowercase());
        assert!(share_key(&key.replace('F', "g")).is_err());
        assert!(share_key(&key[1..]).is_err());
    }

    #[test]
    fn the_example_of_the_help_is_a_policy() {
        let help = attributes_help();
        let toml = help.split("TOML file:\n").nth(1).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.toml");
        std::fs::write(&path, toml).unwrap();
        let read = ATTRIBUTES.read(path.to_str().unwrap(), "Edge2").unwrap();
        assert_eq!(read.to_compact(), "B de caA deB lxc 2.6 8 - - -");
    }
}
