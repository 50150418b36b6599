use std::collections::{BTreeSet, HashMap};

use carnet_core::permit::{Permit, Unverified};

use super::words::utc_seconds;

/// What a permit says, as a page tells it.
pub(super) struct PermitText {
    /// What, and its value; in the order in which one asks.
    pub says: Vec<(&'static str, String)>,
    /// The number of the entry with the decision that it was made of.
    pub decision: u64,
    /// The statement itself, signed.
    pub token: String,
}

/// The ids in a permit that have a name.
pub(super) fn ids(token: &str) -> BTreeSet<String> {
    let permit = Unverified::<Permit>::parse(token).map(Unverified::into_unverified);
    permit.map_or_else(
        |_| BTreeSet::new(),
        |permit| {
            let claim = permit.claim;
            [claim.source.edge, claim.target.edge]
                .map(|edge| edge.to_string())
                .into()
        },
    )
}

/// Reads a permit of the ledger's; `None` where it is none. Whoever verifies the ledger checks
/// its signature.
pub(super) fn read(token: &str, names: &HashMap<String, String>) -> Option<PermitText> {
    let unverified = Unverified::<Permit>::parse(token).ok()?;
    let key = unverified.key();
    let permit = unverified.into_unverified();
    let claim = &permit.claim;
    let named = |id: String| names.get(&id).cloned().unwrap_or(id);
    let policy = |revision: u64, hash: String| format!("revision {revision}, SHA-256 {hash}");
    let mut says = vec![
        ("Container", format!("{} ({})", claim.name, claim.sub)),
        ("Generation", claim.generation.to_string()),
        ("From", named(claim.source.edge.to_string())),
        ("Its certificate", claim.source.certificate.to_string()),
        ("To", named(claim.target.edge.to_string())),
        ("Its certificate", claim.target.certificate.to_string()),
        ("Made", utc_seconds(claim.iat)),
        ("Good until", utc_seconds(permit.exp)),
        (
            "Requirements",
            policy(
                permit.requirements.revision,
                permit.requirements.sha256.to_string(),
            ),
        ),
        (
            "Attributes",
            policy(
                permit.attributes.revision,
                permit.attributes.sha256.to_string(),
            ),
        ),
    ];
    if let Some(reading) = &permit.utilization {
        says.push((
            "Target's use",
            format!("CPU {} %, memory {} %", reading.cpu, reading.memory),
        ));
    }
    says.push(("Signed with", format!("key {key}")));
    Some(PermitText {
        says,
        decision: permit.decision,
        token: token.to_owned(),
    })
}
