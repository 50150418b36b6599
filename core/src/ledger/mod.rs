//! The ledger: what was decided and done, in an order that nobody can rewrite.
//!
//! [`Entry`]s are the leaves of an RFC 6962 Merkle tree ([`tree`]); its root is published as a
//! checkpoint (C2SP tlog-checkpoint), a note signed with Ed25519 (C2SP signed-note, [`note`]).
//! [`Auditor`] reads entries from the first on and says which of them does not follow from those
//! before it; a [`Verification`] checks all of a ledger, signature and hashes too. [`witness`] is how somebody else, who remembers what they saw, cosigns checkpoints
//! ([`Cosigner`]; C2SP tlog-cosignature, tlog-witness).

mod audit;
mod cosignature;
mod entry;
mod note;
mod stays;
pub mod tile;
mod tree;
mod verification;
mod witness;

pub use audit::{Auditor, Wrong};
pub use cosignature::{Cosigner, WitnessVerifier};
pub use entry::{
    Actor, Certificate, Decision, Entry, Event, Grant, GrantChange, MAX_ENTRY, Policed, Refusal,
};
pub use note::{Checkpoint, LedgerSigner, LedgerVerifier, NoteFault};
pub use stays::{Stay, Stays};
pub use tree::{
    Growth, Hash, Node, Nodes, Unproven, check_consistency, check_inclusion, consistency_nodes,
    frontier, inclusion_nodes, leaf_hash, prove_consistency, prove_inclusion, root,
};
pub use verification::{Report, Verification};
pub use witness::{AddCheckpoint, Uncosigned, witness};
