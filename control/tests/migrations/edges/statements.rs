//! Whether what an edge is shown entitles to what it is asked.

use carnet_api::agent::Order;
use carnet_api::v1::{InputFault, Problem};
use carnet_core::permit::{
    Abort, Claim, Commit, Fingerprint, Party, Permit, Statement, Unverified, key_id,
};
use ed25519_dalek::VerifyingKey;

use super::Ask;

/// A refusal of the statement, as agents tell it.
pub(super) fn statement_refused(check: &str, problem: &str) -> Problem {
    Problem {
        kind: "urn:carnet:problem:statement-refused".to_owned(),
        title: "the statement does not entitle to this".to_owned(),
        status: 403,
        detail: Some(format!("the statement is refused ({check}): {problem}")),
        faults: vec![InputFault {
            place: "statement".to_owned(),
            found: check.to_owned(),
            problem: problem.to_owned(),
            allowed: "what the control plane has signed for this order".to_owned(),
            suggestion: None,
        }],
    }
}

/// Whether an order's statement is the one that is right for it, signed by one of `keys`: a permit
/// names the certificates that source and target had when it was made, whatever follows those in
/// `certificates`, which they have now.
pub(super) fn check(
    ask: Ask,
    order: &Order,
    permit: Option<&str>,
    certificates: [Option<Fingerprint>; 2],
    keys: &[VerifyingKey],
) -> Result<(), String> {
    let permit = permit.ok_or("there is no permit")?;
    let token = &order.statement;
    let permitted = Unverified::<Permit>::parse(permit)
        .map_err(|fault| fault.to_string())?
        .into_unverified()
        .claim;
    // By how much the generation may be raised.
    let (claim, raised): (Claim, &[u64]) = match ask {
        Ask::PrepareSource | Ask::PrepareTarget | Ask::CopyAhead | Ask::HandOver => {
            if token != permit {
                return Err("it is not the permit".to_owned());
            }
            (opened::<Permit>(token, keys)?, &[0])
        }
        Ask::Restore | Ask::Settle | Ask::Release | Ask::Clean => {
            (opened::<Commit>(token, keys)?, &[1])
        }
        Ask::Resume => (opened::<Abort>(token, keys)?, &[0, 2]),
        Ask::Discard => (opened::<Abort>(token, keys)?, &[0, 1, 2]),
        Ask::Reading | Ask::Containers => return Err("it is no order".to_owned()),
    };
    let is_permit = token == permit;
    let party = |edge, now: Option<Fingerprint>, permitted: Party| Party {
        edge,
        certificate: match now {
            Some(now) if !is_permit => now,
            _ => permitted.certificate,
        },
    };
    let [source, target] = certificates;
    let right = Claim {
        iss: Claim::issuer(),
        jti: permitted.jti,
        iat: claim.iat,
        sub: permitted.sub,
        name: order.container.clone(),
        migration: order.migration,
        generation: order.generation,
        source: party(order.source, source, permitted.source),
        target: party(order.target, target, permitted.target),
    };
    if claim != right {
        return Err(format!("it says {claim:?} instead of {right:?}"));
    }
    let fits = |raised: &u64| permitted.generation + raised == claim.generation;
    if !raised.iter().any(fits) {
        return Err(format!("of generation {}", claim.generation));
    }
    Ok(())
}

fn opened<T: Statement>(token: &str, keys: &[VerifyingKey]) -> Result<Claim, String> {
    let read = Unverified::<T>::parse(token).map_err(|fault| fault.to_string())?;
    let key = keys.iter().find(|key| key_id(key) == read.key());
    let key = key.ok_or("the edge was not told its key")?;
    let opened = read.verify_with(key).map_err(|fault| fault.to_string())?;
    Ok(opened.claim().clone())
}
