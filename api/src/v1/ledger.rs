use std::collections::BTreeMap;

use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The public keys of the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Keys {
    /// What checkpoints of the ledger are verified with (C2SP signed-note).
    pub ledger: String,
    pub permit: PermitKey,
}

/// The key with which permits are signed now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PermitKey {
    /// As statements name it (`kid`): SHA-256 of the public key.
    pub kid: String,
    /// Ed25519, 32 bytes in hexadecimal digits.
    pub public: String,
    /// Its certificate of the control plane's authority, PEM.
    pub certificate: String,
}

/// A key of the control plane's, as the ledger tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SigningKey {
    /// What it signs: `permit` or `ledger`.
    pub purpose: String,
    /// SHA-256 of the public key, as statements name it (`kid`).
    pub kid: String,
    /// Ed25519, 32 bytes in hexadecimal digits.
    pub public: String,
    /// Since when it is in use.
    #[schema(value_type = i64)]
    pub since_at_ms: UnixMillis,
    /// Until when it was; absent while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub until_at_ms: Option<UnixMillis>,
    /// The number of the ledger's entry that says so.
    pub entry: u64,
}

/// A witness that cosigns the ledger (C2SP tlog-witness).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Witness {
    pub name: String,
    /// Where it is shown checkpoints.
    pub url: String,
    /// What its cosignatures are verified with (C2SP tlog-cosignature).
    pub verifier_key: String,
    /// How many entries the newest checkpoint has that it cosigned.
    pub cosigned_size: u64,
    /// Why it has not cosigned the newest one; absent where nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the control plane found when it checked all of its own ledger. It is its own word: who
/// does not want to believe it checks a copy, on another machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerVerification {
    /// The ledger's name.
    pub origin: String,
    /// How many entries it has, as its checkpoint says.
    pub size: u64,
    /// The root of its tree, as its checkpoint says, in base64; empty where that is not believed.
    pub root: String,
    /// How many entries of each kind were read.
    pub kinds: BTreeMap<String, u64>,
    /// Who was to cosign the checkpoint.
    pub witnesses: Vec<WitnessedBy>,
    /// All that is wrong; empty: nothing. At most 100.
    pub faults: Vec<String>,
    /// The checkpoint that was checked: a signed note, with its cosignatures.
    pub checkpoint: String,
}

/// Whether a witness has cosigned a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WitnessedBy {
    pub name: String,
    /// When; absent where it has not, or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub cosigned_at_ms: Option<UnixMillis>,
    /// Why its cosignature does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// From 0, without gaps.
    pub number: u64,
    /// What was decided or done; `kind` says which.
    #[schema(value_type = Object)]
    pub entry: serde_json::Value,
}

/// An entry with the proof that the ledger has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProvenEntry {
    #[serde(flatten)]
    pub entry: LedgerEntry,
    /// The bytes that are hashed, as text.
    pub text: String,
    /// The inclusion proof (RFC 6962, section 2.1.1): hashes in base64, for the tree of the
    /// checkpoint.
    pub proof: Vec<String>,
    /// The checkpoint: a signed note (C2SP tlog-checkpoint).
    pub checkpoint: String,
}

/// That a ledger of `to` entries begins with what it was at `from`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Consistency {
    pub from: u64,
    pub to: u64,
    /// The consistency proof (RFC 6962, section 2.1.2): hashes in base64.
    pub proof: Vec<String>,
    /// The checkpoint of the `to` entries.
    pub checkpoint: String,
}

/// A time during which a container was on one edge, and neither its requirements nor the edge's
/// attributes changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Stay {
    #[schema(value_type = String, format = "uuid")]
    pub container: ContainerId,
    /// Its name, where it is still registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    #[schema(value_type = String, format = "uuid")]
    pub edge: EdgeId,
    pub edge_name: String,
    /// The country that the edge's owner declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    pub generation: u64,
    #[schema(value_type = i64)]
    pub since_at_ms: UnixMillis,
    /// Absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub until_at_ms: Option<UnixMillis>,
    pub requirements_revision: u64,
    pub attributes_revision: u64,
    /// The move that brought it there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    pub migration: Option<MigrationId>,
    /// The number of the entry that permitted that move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<u64>,
}
