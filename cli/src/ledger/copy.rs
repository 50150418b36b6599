use std::fs;
use std::path::Path;

use carnet_core::ledger::LedgerVerifier;
use carnet_core::ledger::tile::Tile;

use super::Source;
use crate::failure::Failure;

/// Copies a ledger into `directory`, in the layout that C2SP tlog-tiles gives it; returns how
/// many entries it has. The checkpoint comes last: a copy that breaks off has the one that it had
/// before, and all that belongs to it.
///
/// # Errors
/// Where something cannot be read or written, or the checkpoint is not the ledger's.
pub async fn copy(
    source: &Source,
    verifier: &LedgerVerifier,
    directory: &Path,
) -> Result<u64, Failure> {
    let note = source
        .read("checkpoint")
        .await?
        .ok_or_else(|| Failure::other("there is no ledger yet"))?;
    let checkpoint = verifier
        .open(&String::from_utf8_lossy(&note))
        .map_err(|fault| Failure::other(format!("the checkpoint is not believed: {fault}")))?;
    for tile in Tile::all(checkpoint.size) {
        let path = tile.path();
        let full = directory.join(&path);
        // What is whole never changes.
        if !path.contains(".p/") && full.exists() {
            continue;
        }
        let bytes = source
            .read(&path)
            .await?
            .ok_or_else(|| Failure::other(format!("`{path}` is missing at {}", source.name())))?;
        write(&full, &bytes)?;
    }
    write(&directory.join("checkpoint"), &note)?;
    Ok(checkpoint.size)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error| Failure::other(format!("cannot write {}: {error}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}
