use std::time::{Duration, Instant};

use carnet_core::ledger::tile::{Tile, hashes, unbundle};
use carnet_core::ledger::{
    Checkpoint, LedgerVerifier, Nodes, Report, Verification, WitnessVerifier, prove_inclusion,
};

use super::Source;
use crate::failure::Failure;

/// How long a server's newest checkpoint is given to be cosigned.
const COSIGNED_WITHIN: Duration = Duration::from_secs(10);
/// How often it is read meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A ledger that was read whole.
pub struct Verified {
    pub report: Report,
    /// The checkpoint, as it was read.
    pub note: String,
    /// Every entry, as it was read.
    pub entries: Vec<Vec<u8>>,
    nodes: Nodes,
}

impl Verified {
    /// The inclusion proof of an entry for the checkpoint, hashes in base64.
    ///
    /// # Errors
    /// Where there is no such entry.
    pub fn proof(&self, number: u64) -> Result<Vec<String>, Failure> {
        let proof = prove_inclusion(self.report.size, number, &self.nodes).map_err(unexpected)?;
        Ok(proof.iter().map(ToString::to_string).collect())
    }
}

/// Reads a ledger from its first entry to its last and checks all of it: the checkpoint's
/// signature, every hash, and that each entry follows from those before it. With `earlier`
/// checkpoints, that the ledger begins with what they have signed; with `witnesses`, that each of
/// them has cosigned the checkpoint.
///
/// # Errors
/// Where it cannot be read at all, or its checkpoint is not believed. What is wrong inside is in
/// the report.
pub async fn verify(
    source: &Source,
    verifier: &LedgerVerifier,
    earlier: &[Checkpoint],
    witnesses: &[WitnessVerifier],
) -> Result<Verified, Failure> {
    let note = newest(source, witnesses).await?;
    let mut verification = Verification::begin(&note, verifier, earlier, witnesses)
        .map_err(|fault| Failure::other(format!("the checkpoint is not believed: {fault}")))?;
    let entries = read_entries(source, &mut verification).await?;
    for tile in Tile::all(verification.size()) {
        if !matches!(tile, Tile::Entries { .. }) {
            let bytes = source.read(&tile.path()).await?;
            // What breaks off holds no hashes.
            let published = bytes.map(|bytes| hashes(&bytes).unwrap_or_default());
            verification.take_tile(&tile, published.as_deref());
        }
    }
    let (report, nodes) = verification.end().map_err(unexpected)?;
    Ok(Verified {
        report,
        note,
        entries,
        nodes,
    })
}

/// The newest checkpoint, as it is read; from a server the first that all `witnesses` have
/// cosigned, or the one that they have not when the time for it is over.
async fn newest(source: &Source, witnesses: &[WitnessVerifier]) -> Result<String, Failure> {
    let begun = Instant::now();
    loop {
        let note = source
            .read("checkpoint")
            .await?
            .ok_or_else(|| Failure::other(format!("there is no ledger at {}", source.name())))?;
        let note = String::from_utf8_lossy(&note).into_owned();
        let is_final = match source {
            Source::Directory(_) => true,
            Source::Server(_) => begun.elapsed() >= COSIGNED_WITHIN,
        };
        if is_final
            || witnesses
                .iter()
                .all(|witness| witness.cosigned_at(&note).is_ok())
        {
            return Ok(note);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn unexpected(fault: impl std::fmt::Display) -> Failure {
    Failure::other(format!("the tree cannot be computed: {fault}"))
}

/// Gives the entries to `verification`, as far as they can be read; returns them.
async fn read_entries(
    source: &Source,
    verification: &mut Verification,
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut all = Vec::new();
    for tile in Tile::all(verification.size()) {
        let Tile::Entries { index, width } = tile else {
            break;
        };
        let path = tile.path();
        let Some(bytes) = source.read(&path).await? else {
            verification.tell(format!("`{path}` is missing, and what comes behind it"));
            break;
        };
        let entries = match unbundle(&bytes) {
            Ok(entries) if entries.len() as u64 == width => entries,
            Ok(entries) => {
                let count = entries.len();
                verification.tell(format!("`{path}` holds {count} entries instead of {width}"));
                break;
            }
            Err(fault) => {
                verification.tell(format!("`{path}`: {fault}"));
                break;
            }
        };
        let beside = Tile::Hashes {
            level: 0,
            index,
            width,
        };
        let published = match source.read(&beside.path()).await? {
            Some(bytes) => hashes(&bytes).unwrap_or_default(),
            None => Vec::new(),
        };
        for (at, entry) in entries.into_iter().enumerate() {
            verification
                .take(entry, published.get(at))
                .map_err(unexpected)?;
            all.push(entry.to_vec());
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    use carnet_core::ids::AccountId;
    use carnet_core::instant::UnixMillis;
    use carnet_core::ledger::tile::bundle;
    use carnet_core::ledger::{
        Actor, Cosigner, Entry, Event, Growth, Hash, LedgerSigner, Node, leaf_hash,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const ENTRIES: u128 = 300;

    fn signer() -> LedgerSigner {
        LedgerSigner::new("carnet.test/ledger", &[9; 32]).unwrap()
    }

    fn verifier() -> LedgerVerifier {
        LedgerVerifier::new(&signer().verifier_key()).unwrap()
    }

    fn entries() -> Vec<Vec<u8>> {
        let mut events = vec![Event::Key {
            purpose: "ledger".to_owned(),
            public: verifier().public(),
        }];
        events.extend((1..ENTRIES).map(|number| Event::Account {
            account: AccountId::from_uuid(Uuid::from_u128(number)),
            roles: vec!["auditor".to_owned()],
        }));
        events
            .into_iter()
            .map(|event| {
                let entry = Entry {
                    at_ms: UnixMillis(1_800_000_000_000),
                    by: Actor::Control,
                    event,
                };
                entry.to_bytes().unwrap()
            })
            .collect()
    }

    fn tree(entries: &[Vec<u8>]) -> Growth {
        let mut growth = Growth::new(0, Nodes::default());
        for entry in entries {
            growth.append(leaf_hash(entry)).unwrap();
        }
        growth
    }

    /// A copy of the ledger of `entries`, published as a control plane publishes it.
    fn publish(entries: &[Vec<u8>], directory: &Path) -> Checkpoint {
        let growth = tree(entries);
        let nodes: HashMap<Node, Hash> = growth.grown().iter().copied().collect();
        let put = |path: &str, bytes: &[u8]| {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        for tile in Tile::all(growth.size()) {
            let bytes = match tile {
                Tile::Entries { index, width } => {
                    let first = (index * 256) as usize;
                    bundle(
                        entries[first..first + width as usize]
                            .iter()
                            .map(Vec::as_slice),
                    )
                }
                Tile::Hashes { .. } => tile
                    .nodes(growth.size())
                    .unwrap()
                    .iter()
                    .flat_map(|node| nodes[node].0)
                    .collect(),
            };
            put(&tile.path(), &bytes);
        }
        let checkpoint = Checkpoint {
            size: growth.size(),
            root: growth.root().unwrap(),
        };
        put("checkpoint", signer().sign(&checkpoint).unwrap().as_bytes());
        checkpoint
    }

    fn check(directory: &Path, earlier: &[Checkpoint]) -> Result<Report, Failure> {
        check_cosigned(directory, earlier, &[])
    }

    fn check_cosigned(
        directory: &Path,
        earlier: &[Checkpoint],
        witnesses: &[WitnessVerifier],
    ) -> Result<Report, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let source = Source::Directory(directory.to_owned());
        runtime
            .block_on(verify(&source, &verifier(), earlier, witnesses))
            .map(|verified| verified.report)
    }

    /// Not believed, or something wrong in it.
    fn is_found(directory: &Path, earlier: &[Checkpoint]) -> bool {
        !check(directory, earlier).is_ok_and(|report| report.is_sound())
    }

    fn files(directory: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                found.push(path);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn a_ledger_as_it_was_written_is_sound() {
        let directory = tempfile::tempdir().unwrap();
        let checkpoint = publish(&entries(), directory.path());
        let report = check(directory.path(), &[checkpoint]).unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert_eq!(report.size, ENTRIES as u64);
        assert_eq!(report.kinds["account"], ENTRIES as u64 - 1);
    }

    #[test]
    fn a_copy_must_be_cosigned_by_every_witness_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        publish(&entries(), directory.path());
        let [one, two] = [1, 2].map(|secret| Cosigner::new("witness.test", &[secret; 32]).unwrap());
        let both = [one.verifier(), two.verifier()];
        let not_cosigned = "its checkpoint: the witness `witness.test` has not cosigned it";
        let report = check_cosigned(directory.path(), &[], &both).unwrap();
        assert_eq!(report.faults, [not_cosigned, not_cosigned]);
        let path = directory.path().join("checkpoint");
        let mut note = fs::read_to_string(&path).unwrap();
        note.push_str(&one.cosign(&note, 1_800_000_000).unwrap());
        fs::write(&path, &note).unwrap();
        let report = check_cosigned(directory.path(), &[], &both).unwrap();
        assert_eq!(report.faults, [not_cosigned]);
        note.push_str(&two.cosign(&note, 1_800_000_000).unwrap());
        fs::write(&path, &note).unwrap();
        let report = check_cosigned(directory.path(), &[], &both).unwrap();
        assert_eq!(report.faults, Vec::<String>::new());
        assert_eq!(report.cosigned["witness.test"], 1_800_000_000);
    }

    #[test]
    fn the_entry_that_was_changed_is_named() {
        let directory = tempfile::tempdir().unwrap();
        publish(&entries(), directory.path());
        let path = directory.path().join("tile/entries/000");
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = text.find("000000000007\"").unwrap();
        let mut bytes = bytes;
        bytes[at + 11] = b'8';
        fs::write(&path, bytes).unwrap();
        let report = check(directory.path(), &[]).unwrap();
        assert_eq!(
            report.faults[0],
            "entry 7: it is not what was entered there"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_changed_byte_of_any_file_is_found(
            file in any::<prop::sample::Index>(),
            at in any::<prop::sample::Index>(),
            by in 1u8..=255,
        ) {
            let directory = tempfile::tempdir().unwrap();
            publish(&entries(), directory.path());
            let files = files(directory.path());
            let file = &files[file.index(files.len())];
            let mut bytes = fs::read(file).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            fs::write(file, bytes).unwrap();
            prop_assert!(is_found(directory.path(), &[]), "{} at {at}", file.display());
        }

        /// Whoever has the ledger's key can sign a ledger anew; not unseen by those who kept a
        /// checkpoint.
        #[test]
        fn a_ledger_that_was_rewritten_and_signed_again_is_found_by_whoever_kept_a_checkpoint(
            kind in 0..4,
            at in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let mut entries = entries();
            let kept = publish(&entries, directory.path());
            let (at, other) = (at.index(entries.len()), other.index(entries.len()));
            match kind {
                0 => drop(entries.remove(at)),
                1 => entries.insert(at, entries[other].clone()),
                2 => entries.swap(at, other),
                _ => entries.truncate(at),
            }
            prop_assume!(kind != 2 || at != other);
            publish(&entries, directory.path());
            prop_assert!(is_found(directory.path(), &[kept]));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let directory = tempfile::tempdir().unwrap();
        publish(&entries(), directory.path());
        fs::remove_file(directory.path().join("tile/1/000.p/1")).unwrap();
        let report = check(directory.path(), &[]).unwrap();
        assert_eq!(report.faults, ["`tile/1/000.p/1` is missing"]);
    }
}
