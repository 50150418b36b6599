//! The Merkle tree of RFC 6962, section 2.1, over hashes that somebody else keeps.
//!
//! A node has a number, its place in C2SP's dense order of stored hashes; a tree of *n* leaves has
//! the nodes of its complete subtrees. What is needed of them is named beforehand, so that whoever
//! keeps them can read them in one go.

use std::collections::HashMap;

use thiserror::Error;
use tlog_tiles::{
    Error as TlogError, HashReader, check_record, check_tree, prove_record, prove_tree,
    record_hash, stored_hash_index, stored_hashes_for_record_hash, sub_tree_index, tree_hash,
};

pub use tlog_tiles::Hash;

/// The number of a node.
pub type Node = u64;

/// A proof that does not hold, or a node that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Unproven(pub(super) String);

impl From<TlogError> for Unproven {
    fn from(error: TlogError) -> Self {
        Self(error.to_string())
    }
}

/// Nodes that have been read.
#[derive(Debug, Clone, Default)]
pub struct Nodes(pub HashMap<Node, Hash>);

impl HashReader for Nodes {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, TlogError> {
        indexes
            .iter()
            .map(|index| {
                self.0
                    .get(index)
                    .copied()
                    .ok_or_else(|| TlogError::InvalidInput(format!("node {index} is not there")))
            })
            .collect()
    }
}

/// Notes which nodes are asked for.
struct Asked(std::cell::RefCell<Vec<Node>>);

impl HashReader for Asked {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, TlogError> {
        self.0.borrow_mut().extend(indexes);
        Ok(vec![tlog_tiles::EMPTY_HASH; indexes.len()])
    }
}

fn asked(ask: impl FnOnce(&Asked) -> Result<(), TlogError>) -> Result<Vec<Node>, Unproven> {
    let asked = Asked(std::cell::RefCell::default());
    ask(&asked)?;
    Ok(asked.0.into_inner())
}

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    record_hash(entry)
}

/// The nodes from which a tree of `size` leaves grows and its root is computed.
pub fn frontier(size: u64) -> Vec<Node> {
    if size == 0 {
        Vec::new()
    } else {
        sub_tree_index(0, size, Vec::new())
    }
}

/// A tree that grows.
#[derive(Debug, Clone)]
pub struct Growth {
    size: u64,
    nodes: Nodes,
    /// What has grown, in order.
    grown: Vec<(Node, Hash)>,
}

impl Growth {
    /// From a tree of `size` leaves with the nodes of its [`frontier`].
    pub fn new(size: u64, nodes: Nodes) -> Self {
        Self {
            size,
            nodes,
            grown: Vec::new(),
        }
    }

    /// Appends a leaf; returns its number.
    ///
    /// # Errors
    /// Where a node of the frontier is missing.
    pub fn append(&mut self, leaf: Hash) -> Result<u64, Unproven> {
        let number = self.size;
        let hashes = stored_hashes_for_record_hash(number, leaf, &self.nodes)?;
        let first = stored_hash_index(0, number);
        for (node, hash) in (first..).zip(hashes) {
            self.nodes.0.insert(node, hash);
            self.grown.push((node, hash));
        }
        self.size += 1;
        Ok(number)
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of what there is now.
    ///
    /// # Errors
    /// Where a node of the frontier is missing.
    pub fn root(&self) -> Result<Hash, Unproven> {
        root(self.size, &self.nodes)
    }

    /// The nodes that have come into being.
    pub fn grown(&self) -> &[(Node, Hash)] {
        &self.grown
    }
}

/// The root of a tree of `size` leaves, from the nodes of its [`frontier`].
///
/// # Errors
/// Where one is missing.
pub fn root(size: u64, nodes: &Nodes) -> Result<Hash, Unproven> {
    Ok(tree_hash(size, nodes)?)
}

/// The nodes that [`prove_inclusion`] needs.
///
/// # Errors
/// Where the tree has no such leaf.
pub fn inclusion_nodes(size: u64, leaf: u64) -> Result<Vec<Node>, Unproven> {
    asked(|asked| prove_record(size, leaf, asked).map(drop))
}

/// That a tree of `size` leaves has the one with the number `leaf` (RFC 6962, section 2.1.1).
///
/// # Errors
/// Where it has not, or a node is missing.
pub fn prove_inclusion(size: u64, leaf: u64, nodes: &Nodes) -> Result<Vec<Hash>, Unproven> {
    Ok(prove_record(size, leaf, nodes)?)
}

/// # Errors
/// Where `proof` does not show that the tree of `size` leaves with this root has the entry with
/// this hash as the leaf with this number.
pub fn check_inclusion(
    proof: &[Hash],
    size: u64,
    root: Hash,
    leaf: u64,
    hash: Hash,
) -> Result<(), Unproven> {
    if leaf >= size {
        return Err(Unproven(format!(
            "a tree of {size} leaves has no leaf {leaf}"
        )));
    }
    Ok(check_record(&proof.to_vec(), size, root, leaf, hash)?)
}

/// The nodes that [`prove_consistency`] needs.
///
/// # Errors
/// Where `older` is larger than `newer`, or nothing.
pub fn consistency_nodes(older: u64, newer: u64) -> Result<Vec<Node>, Unproven> {
    if older == 0 || older == newer {
        return Ok(Vec::new());
    }
    asked(|asked| prove_tree(newer, older, asked).map(drop))
}

/// That a tree of `newer` leaves begins with the tree of its first `older` (RFC 6962, section
/// 2.1.2). Every tree begins with the empty one, and with itself: that needs no proof.
///
/// # Errors
/// Where `older` is larger than `newer`, or a node is missing.
pub fn prove_consistency(older: u64, newer: u64, nodes: &Nodes) -> Result<Vec<Hash>, Unproven> {
    if older == 0 || older == newer {
        return Ok(Vec::new());
    }
    Ok(prove_tree(newer, older, nodes)?)
}

/// # Errors
/// Where `proof` does not show that the newer tree begins with the older one.
pub fn check_consistency(
    proof: &[Hash],
    (older, older_root): (u64, Hash),
    (newer, newer_root): (u64, Hash),
) -> Result<(), Unproven> {
    if older > newer {
        return Err(Unproven(format!(
            "a tree of {newer} leaves cannot begin with one of {older}"
        )));
    }
    let unchanged = older == newer && older_root == newer_root;
    let from_nothing = older == 0 && older_root == tlog_tiles::EMPTY_HASH;
    if (unchanged || from_nothing) && proof.is_empty() {
        return Ok(());
    }
    if older == 0 || older == newer {
        return Err(Unproven("the roots differ".to_owned()));
    }
    Ok(check_tree(
        &proof.to_vec(),
        newer,
        newer_root,
        older,
        older_root,
    )?)
}
