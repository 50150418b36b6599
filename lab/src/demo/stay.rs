//! What somebody has to know to use a lab that stays up.

use std::fmt::Write;

use carnet_api::v1::NewPassword;
use serde_json::json;

use super::{AUDITOR, CONTAINER_OWNER, REDIS};
use crate::error::LabError;
use crate::fleet::{ADMINISTRATOR, CLIENT, EdgeSpec, Fleet};

/// How to use the lab, and how to end it.
///
/// # Errors
/// Where the fleet lacks what the demo gave it.
pub fn help(fleet: &Fleet, edges: &[EdgeSpec], lab: &str) -> Result<String, LabError> {
    let owner = fleet.account(CONTAINER_OWNER)?;
    let programs = fleet.carnet();
    let programs = programs.parent().unwrap_or(&programs).display();
    let mut text = format!(
        "
The lab stays up. Its control plane answers at {url}, from this machine.
To use it as {CONTAINER_OWNER}, who owns App1:

  export PATH={programs}:$PATH
  export CARNET_URL={url}
  export CARNET_CA={ca}
  export CARNET_TOKEN_FILE={token}

  carnet edge list
  carnet audit App1 --to Edge2
  carnet migrate App1 --to Edge3
  carnet container show App1

As {AUDITOR}, who reads everything: carnet ledger verify, carnet ledger where App1.
To use it as somebody else, set CARNET_TOKEN_FILE to
",
        url = fleet.url()?,
        ca = fleet.authority().display(),
        token = owner.token_file.display(),
    );
    for account in fleet.accounts() {
        let what = match account.name.as_str() {
            CONTAINER_OWNER => continue,
            ADMINISTRATOR => "makes accounts".to_owned(),
            AUDITOR => "reads everything".to_owned(),
            owner => {
                let own: Vec<&str> = edges
                    .iter()
                    .filter(|edge| edge.owner == owner)
                    .map(|edge| edge.name.as_str())
                    .collect();
                format!("owns {}", own.join(", "))
            }
        };
        let _ = write!(
            text,
            "\n  {}\n      {}, who {what}",
            account.token_file.display(),
            account.name
        );
    }
    let administrator = fleet.account(ADMINISTRATOR)?;
    let _ = write!(
        text,
        "

In a browser: {url}
Its certificate is of the lab's own authority, {ca}. Log in as",
        url = fleet.url()?,
        ca = fleet.authority().display(),
    );
    let edge_owner = edges.first().map(|edge| edge.owner.as_str());
    for account in edge_owner.into_iter().chain([CONTAINER_OWNER, AUDITOR]) {
        let path = format!("/v1/accounts/{account}/password");
        let password: NewPassword = administrator.post(&path, &json!({}))?;
        let _ = write!(text, "\n  {account}, password {}", password.secret);
    }
    let name = if lab == "demo" {
        String::new()
    } else {
        format!(" --name {lab}")
    };
    let _ = write!(
        text,
        "

App1 answers in the lab's network, at {REDIS}; a shell there, outside of all edges:
  ip netns exec {client} bash
What serve and the agents log is in {logs}
To end it:
  ./demo down{name}",
        client = fleet.host(CLIENT)?.network(),
        logs = fleet.logs().display(),
    );
    Ok(text)
}
