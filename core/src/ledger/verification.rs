//! All of a ledger, checked: what a verifier does with what it has read, wherever that was read.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::tile::Tile;
use super::tree::{Growth, Hash, Node, Nodes, Unproven, leaf_hash};
use super::{Auditor, Checkpoint, Entry, LedgerVerifier, NoteFault, WitnessVerifier, Wrong};

/// How many faults are told; what lies behind one is often the same again.
const MAX_TOLD: usize = 100;

/// What a check of a whole ledger found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The name of the ledger.
    pub origin: String,
    /// How many entries it has, as its checkpoint says.
    pub size: u64,
    /// The root of its tree, as its checkpoint says, in base64.
    pub root: String,
    /// How many entries of each kind were read.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Which of the witnesses that were asked for have cosigned its checkpoint, by name, and
    /// when, in seconds since the Unix epoch.
    pub cosigned: BTreeMap<String, u64>,
    /// All that is wrong; empty: nothing.
    pub faults: Vec<String>,
}

impl Report {
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    fn tell(&mut self, fault: String) {
        if self.faults.len() < MAX_TOLD {
            self.faults.push(fault);
        }
    }
}

/// A check of a whole ledger, under way: it is given the entries from the first to the last, then
/// the hashes that are published beside them.
#[derive(Debug)]
pub struct Verification {
    report: Report,
    checkpoint: Checkpoint,
    /// The key that the checkpoint was checked with, in hexadecimal digits.
    key: String,
    auditor: Auditor,
    growth: Growth,
    /// Roots that were signed earlier, by size.
    earlier: HashMap<u64, Hash>,
}

impl Verification {
    /// Begins with the checkpoint, a signed note. With `earlier` checkpoints, the ledger has to
    /// begin with what they have signed; with `witnesses`, each of them has to have cosigned it.
    ///
    /// # Errors
    /// Where the checkpoint is not believed.
    pub fn begin(
        note: &str,
        verifier: &LedgerVerifier,
        earlier: &[Checkpoint],
        witnesses: &[WitnessVerifier],
    ) -> Result<Self, NoteFault> {
        let checkpoint = verifier.open(note)?;
        let mut report = Report {
            origin: verifier.origin().to_owned(),
            size: checkpoint.size,
            root: checkpoint.root.to_string(),
            kinds: BTreeMap::new(),
            cosigned: BTreeMap::new(),
            faults: Vec::new(),
        };
        for earlier in earlier {
            if earlier.size > checkpoint.size {
                report.tell(format!(
                    "it has {} entries, and a checkpoint that was signed earlier had {}: it has been rolled back",
                    checkpoint.size, earlier.size
                ));
            }
        }
        for witness in witnesses {
            match witness.cosigned_at(note) {
                Ok(at) => {
                    report.cosigned.insert(witness.name().to_owned(), at);
                }
                Err(fault) => report.tell(format!("its checkpoint: {fault}")),
            }
        }
        Ok(Self {
            report,
            checkpoint,
            key: verifier.public(),
            auditor: Auditor::default(),
            growth: Growth::new(0, Nodes::default()),
            earlier: earlier
                .iter()
                .map(|checkpoint| (checkpoint.size, checkpoint.root))
                .collect(),
        })
    }

    /// How many entries the ledger has, as its checkpoint says.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// Keeps what else is wrong.
    pub fn tell(&mut self, fault: String) {
        self.report.tell(fault);
    }

    /// Takes the next entry, as it was read, and the hash that is published of it: that shows which
    /// entry is not what was entered.
    ///
    /// # Errors
    /// Where the tree cannot be computed.
    pub fn take(&mut self, bytes: &[u8], published: Option<&Hash>) -> Result<(), Unproven> {
        let hash = leaf_hash(bytes);
        let number = self.growth.append(hash)?;
        if published != Some(&hash) {
            self.report
                .tell(format!("entry {number}: it is not what was entered there"));
        }
        if let Ok(entry) = Entry::from_bytes(bytes) {
            *self.report.kinds.entry(entry.kind()).or_default() += 1;
        }
        if let Err(Wrong { number, problem }) = self.auditor.take(bytes) {
            self.report.tell(format!("entry {number}: {problem}"));
        }
        let size = self.growth.size();
        if let Some(signed) = self.earlier.get(&size)
            && self.growth.root()? != *signed
        {
            self.report.tell(format!(
                "its first {size} entries are not those of a checkpoint that was signed earlier: it has been rewritten"
            ));
        }
        Ok(())
    }

    /// Takes the hashes that are published as a tile, after the entries; `None`: there is no such
    /// tile.
    pub fn take_tile(&mut self, tile: &Tile, published: Option<&[Hash]>) {
        let path = tile.path();
        let Some(published) = published else {
            self.report.tell(format!("`{path}` is missing"));
            return;
        };
        let nodes = tile.nodes(self.checkpoint.size).unwrap_or_default();
        let same = published.len() == nodes.len()
            && nodes
                .iter()
                .zip(published)
                .all(|(node, hash)| self.computed(*node) == Some(hash));
        if !same {
            self.report
                .tell(format!("`{path}` does not hold the hashes of the entries"));
        }
    }

    /// How many nodes the tree of the entries has that were taken; they are numbered from 0.
    pub fn nodes(&self) -> u64 {
        self.growth.grown().len() as u64
    }

    /// Takes a node's hash as it is kept, after the entries; `None`: it is missing.
    pub fn take_node(&mut self, node: Node, kept: Option<&Hash>) {
        if self.computed(node) != kept {
            self.report.tell(format!(
                "node {node} of its tree does not hold the hash of the entries"
            ));
        }
    }

    /// The hash of a node, of the entries that were taken. Nodes are numbered in the order in which
    /// they are completed.
    fn computed(&self, node: Node) -> Option<&Hash> {
        let (number, hash) = self.growth.grown().get(usize::try_from(node).ok()?)?;
        (*number == node).then_some(hash)
    }

    /// What was found, and the tree's nodes, of which proofs can be made.
    ///
    /// # Errors
    /// Where the tree cannot be computed.
    pub fn end(mut self) -> Result<(Report, Nodes), Unproven> {
        if self.auditor.key("ledger") != Some(self.key.as_str()) {
            self.tell("its last entry of a ledger key does not name the key that signs it".into());
        }
        let found = self.growth.root()?;
        if self.growth.size() == self.checkpoint.size && found != self.checkpoint.root {
            self.tell(format!(
                "its entries have the root {found}, and its checkpoint says {}",
                self.checkpoint.root
            ));
        }
        let nodes = Nodes(self.growth.grown().iter().copied().collect());
        Ok((self.report, nodes))
    }
}
