use std::time::Duration;

use axum::Json;
use axum::extract::State;
use carnet_api::v1::{LedgerVerification, WitnessedBy};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::tile::{TILE_WIDTH, Tile};
use carnet_core::ledger::{Hash, LedgerVerifier, Node, NoteFault, Report, Unproven, Verification};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::App;
use super::ledger::checkpoint;
use super::problem::ApiError;
use crate::store::ledger::{Numbered, SignedCheckpoint};

/// How long the newest checkpoint is given to be cosigned.
const COSIGNED_WITHIN: Duration = Duration::from_secs(3);
/// How many of the tree's nodes are read at a time.
const NODES_AT_A_TIME: usize = 10_000;
/// How often it is read meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Whoever checks keeps a core busy: one at a time, the others wait.
static CHECKING: Semaphore = Semaphore::const_new(1);

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(verification))
}

/// Checks all of the ledger as it is kept: the checkpoint's signature and cosignatures, every hash,
/// and that each entry follows from those before it.
pub(crate) async fn verify(app: &App) -> Result<LedgerVerification, ApiError> {
    let internal = |error: &dyn std::fmt::Display| ApiError::internal(error);
    let _one = CHECKING.acquire().await.map_err(|error| internal(&error))?;
    let verifier = LedgerVerifier::new(&app.verifier_key).map_err(|error| internal(&error))?;
    let (checkpoint, witnesses) = cosigned(app).await?;
    let size = checkpoint.size;
    let note = checkpoint.cosigned();
    let report = match Verification::begin(&note, &verifier, &[], &[]) {
        Ok(verification) => read(app, verification, size).await?,
        Err(fault) => Report {
            origin: verifier.origin().to_owned(),
            size,
            root: String::new(),
            kinds: Default::default(),
            cosigned: Default::default(),
            faults: vec![format!("the checkpoint is not believed: {fault}")],
        },
    };
    Ok(LedgerVerification {
        origin: report.origin,
        size: report.size,
        root: report.root,
        kinds: report
            .kinds
            .into_iter()
            .map(|(kind, count)| (kind.to_owned(), count))
            .collect(),
        witnesses,
        faults: report.faults,
        checkpoint: note,
    })
}

/// The first checkpoint that every witness has cosigned, or the one that is there when the time for
/// it is over; with who has.
async fn cosigned(app: &App) -> Result<(SignedCheckpoint, Vec<WitnessedBy>), ApiError> {
    let deadline = tokio::time::Instant::now() + COSIGNED_WITHIN;
    loop {
        let checkpoint = checkpoint(app).await?;
        let note = checkpoint.clone().cosigned();
        let witnesses: Vec<WitnessedBy> = app
            .witnesses
            .iter()
            .map(|witness| {
                let verifier = &witness.address.verifier;
                let (at, problem) = match verifier.cosigned_at(&note) {
                    Ok(seconds) => (Some(milliseconds(seconds)), None),
                    Err(NoteFault::NotCosigned(_)) => (None, None),
                    Err(fault) => (None, Some(fault.to_string())),
                };
                WitnessedBy {
                    name: verifier.name().to_owned(),
                    cosigned_at_ms: at,
                    problem,
                }
            })
            .collect();
        let all = witnesses.iter().all(|one| one.cosigned_at_ms.is_some());
        if all || tokio::time::Instant::now() >= deadline {
            return Ok((checkpoint, witnesses));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn milliseconds(seconds: u64) -> UnixMillis {
    UnixMillis(
        i64::try_from(seconds)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000),
    )
}

/// Gives what the store has to `verification`, a tile at a time.
async fn read(app: &App, mut verification: Verification, size: u64) -> Result<Report, ApiError> {
    if verification.size() != size {
        let signed = verification.size();
        verification.tell(format!(
            "its checkpoint is of {signed} entries, and is kept as one of {size}"
        ));
    }
    let internal = |fault: Unproven| ApiError::internal(&fault);
    for tile in Tile::all(verification.size()) {
        let Tile::Entries { index, width } = tile else {
            break;
        };
        let first = index * TILE_WIDTH;
        let limit = u32::try_from(width).unwrap_or(u32::MAX);
        let entries = app.store.entries(first, limit).await?;
        let beside = Tile::Hashes {
            level: 0,
            index,
            width,
        };
        let leaves = beside.nodes(verification.size()).unwrap_or_default();
        let kept = hashes(app, &leaves).await?;
        let taken =
            tokio::task::spawn_blocking(move || take(verification, first, width, &entries, &kept));
        let is_whole;
        (verification, is_whole) = taken
            .await
            .map_err(|error| ApiError::internal(&error))?
            .map_err(internal)?;
        if !is_whole {
            break;
        }
    }
    // Those that are in no tile too: proofs are made of them.
    let nodes: Vec<Node> = (0..verification.nodes()).collect();
    for nodes in nodes.chunks(NODES_AT_A_TIME) {
        let kept = hashes(app, nodes).await?;
        for (node, kept) in nodes.iter().zip(&kept) {
            verification.take_node(*node, kept.as_ref());
        }
    }
    let (report, _) = verification.end().map_err(internal)?;
    Ok(report)
}

/// Takes the entries of one tile, as far as they are there; says whether they all are.
fn take(
    mut verification: Verification,
    first: u64,
    width: u64,
    entries: &[Numbered],
    published: &[Option<Hash>],
) -> Result<(Verification, bool), Unproven> {
    let mut entries = entries.iter();
    for (number, published) in (first..first + width).zip(published) {
        match entries.next().filter(|entry| entry.number == number) {
            Some(entry) => verification.take(&entry.bytes, published.as_ref())?,
            None => {
                let what = "is missing; what comes behind it was not read";
                verification.tell(format!("entry {number} {what}"));
                return Ok((verification, false));
            }
        }
    }
    Ok((verification, true))
}

/// The hashes of nodes as they are kept; `None` for one that is missing.
async fn hashes(app: &App, nodes: &[Node]) -> Result<Vec<Option<Hash>>, ApiError> {
    let known = app.store.nodes(nodes).await?;
    let kept = nodes.iter().map(|node| known.0.get(node).copied());
    Ok(kept.collect())
}

/// Checks all of the ledger as the control plane keeps it, and says what it found. That is the
/// control plane's own word; `carnet ledger verify` checks it elsewhere.
#[utoipa::path(
    get, path = "/v1/ledger/verification", tag = "ledger", operation_id = "verify_ledger",
    responses((status = 200, body = LedgerVerification))
)]
async fn verification(State(app): State<App>) -> Result<Json<LedgerVerification>, ApiError> {
    Ok(Json(verify(&app).await?))
}
