//! Carnet's witness (C2SP tlog-witness): somebody else than the control plane, who remembers the
//! newest checkpoint of each ledger that it is told of, refuses one that does not begin with it,
//! and cosigns the others. It knows nothing of control planes and agents.
//!
//! ```text
//! STATE/lock              held while it runs
//! STATE/witness.key       Ed25519, PKCS #8, PEM; its owner alone can read it
//! STATE/ledgers/NAME      the newest checkpoint cosigned, as it was signed; NAME is the SHA-256 of
//!                         the ledger's name
//! ```

pub mod key;
mod listener;
mod memory;
pub mod server;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file that only its owner can read, whole or not at all, and on the disk when this
/// returns. A crash leaves the file that was there, and perhaps one beside it that the next time
/// writes over.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    // The name is on the disk when its directory is.
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
