use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{AccountId, ContainerId, EdgeId, MigrationId, ShareKeyId, TokenId};
use crate::instant::UnixMillis;
use crate::migration::{Candidate, Phase, Subject};
use crate::permit::{Fingerprint, Part};
use crate::policy::{
    Faults, Utilization, Verdict, attributes_from_json, audit, requirements_from_json,
};

/// The longest entry, in bytes (C2SP tlog-tiles: its length is written in 16 bits).
pub const MAX_ENTRY: usize = 65_535;

/// One thing that was decided or done.
///
/// Neither names of people nor secrets are in it: accounts are ids, keys are hashes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the control plane's clock; never before the entry in front of it.
    pub at_ms: UnixMillis,
    /// Who.
    pub by: Actor,
    #[serde(flatten)]
    pub event: Event,
}

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    Account(AccountId),
    /// An edge's agent.
    Edge(EdgeId),
    /// The control plane itself.
    Control,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// A candidate was audited.
    Decision(Box<Decision>),
    /// A permit was issued; the statement itself, signed.
    Permit {
        migration: MigrationId,
        permit: String,
    },
    /// A migration has come into a state.
    Migration {
        migration: MigrationId,
        container: ContainerId,
        phase: Phase,
        /// The container's generation in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Where the container belongs in it.
        edge: EdgeId,
        /// What went wrong, where something did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// Somebody wants a migration not to be carried out. It will not be committed any more.
    Cancel {
        migration: MigrationId,
        container: ContainerId,
    },
    /// An operator has declared an edge of a migration lost: what it has of the container counts
    /// for nothing any more.
    Lost {
        migration: MigrationId,
        container: ContainerId,
        edge: EdgeId,
        part: Part,
    },
    /// An agent refused what was asked of it.
    Refusal(Refusal),
    /// An agent refused more than it could keep.
    RefusalsDropped {
        edge: EdgeId,
        /// How many it did not keep, beyond those that were entered before.
        count: u64,
    },
    /// An account was made.
    Account {
        account: AccountId,
        roles: Vec<String>,
    },
    /// An API token was made.
    Token {
        token: TokenId,
        account: AccountId,
        roles: Vec<String>,
    },
    TokenRevoked {
        token: TokenId,
        account: AccountId,
    },
    /// An account's password was set; all its browser sessions but the one that did it have
    /// ended.
    Password {
        account: AccountId,
    },
    /// An edge was registered, or its attributes have changed.
    Attributes {
        edge: EdgeId,
        owner: AccountId,
        #[serde(flatten)]
        attributes: Policed,
    },
    /// An edge's agent has a certificate.
    Certificate(Certificate),
    /// An edge is trusted no more.
    EdgeRevoked {
        edge: EdgeId,
    },
    /// A container was registered, or its requirements have changed.
    Requirements {
        container: ContainerId,
        owner: AccountId,
        #[serde(flatten)]
        requirements: Policed,
    },
    /// Its owner has said whether memory may follow after a container runs at a target.
    Allowed {
        container: ContainerId,
        allow_post_copy: bool,
    },
    /// It has been shown whose a container is, and where.
    Confirmed {
        container: ContainerId,
        edge: EdgeId,
        generation: u64,
    },
    /// A container's registration has ended.
    Forgotten {
        container: ContainerId,
    },
    /// A share key was given, entered, or taken back.
    Grant(Grant),
    /// A key of the control plane's has come into use; the one of that use before it is good no
    /// more.
    Key {
        /// `permit` or `ledger`.
        purpose: String,
        /// The public key's 32 bytes, in hexadecimal digits.
        public: String,
    },
}

/// A policy as it was written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policed {
    pub revision: u64,
    /// With long names.
    pub policy: Value,
}

/// A candidate, audited: all that is needed to decide again, and what was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// Nothing was to be moved.
    pub dry_run: bool,
    /// For which move; absent in a dry run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    pub container: ContainerId,
    pub generation: u64,
    pub source: EdgeId,
    pub candidate: EdgeId,
    pub requirements: Policed,
    pub attributes: Policed,
    /// Absent where no reading could be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<Utilization>,
    /// The instant with which the reading's age was compared.
    pub decided_at_ms: UnixMillis,
    /// Beyond which age a reading counts as none.
    pub max_reading_age_ms: u64,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The policy permits it, but the edge could not take a container.
    pub ready: bool,
}

impl Decision {
    /// The record of an audit.
    pub fn of(
        subject: &Subject<'_>,
        candidate: &Candidate<'_>,
        now: UnixMillis,
        max_reading_age_ms: u64,
        verdict: Verdict,
    ) -> Self {
        Self {
            dry_run: true,
            migration: None,
            container: subject.container,
            generation: subject.generation,
            source: subject.source,
            candidate: candidate.edge,
            requirements: Policed {
                revision: subject.requirements_revision,
                policy: subject.requirements.to_json(),
            },
            attributes: Policed {
                revision: candidate.attributes_revision,
                policy: candidate.attributes.to_json(),
            },
            utilization: candidate.utilization.copied(),
            decided_at_ms: now,
            max_reading_age_ms,
            verdict,
            ready: true,
        }
    }

    /// Decides again, from what is recorded.
    ///
    /// # Errors
    /// Where a policy that is recorded cannot be read.
    pub fn replay(&self) -> Result<Verdict, Faults> {
        Ok(audit(
            &requirements_from_json(&self.requirements.policy)?,
            &attributes_from_json(&self.attributes.policy)?,
            self.utilization.as_ref(),
            self.decided_at_ms,
            self.max_reading_age_ms,
        ))
    }
}

/// What an agent refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub edge: EdgeId,
    /// Which check failed, by its name.
    pub check: String,
    /// What was asked for.
    pub asked: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationId>,
    /// The certificate of whoever asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Fingerprint>,
    /// When, by the edge's clock.
    pub refused_at_ms: UnixMillis,
}

/// An agent's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub edge: EdgeId,
    pub certificate: Fingerprint,
}

/// What became of a share key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub share_key: ShareKeyId,
    pub edge: EdgeId,
    pub grantee: AccountId,
    pub change: GrantChange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantChange {
    /// Made, and not entered yet: good for nothing.
    Given,
    /// Entered: from now on its grantee may use the edge.
    Redeemed,
    Revoked,
}

impl Entry {
    /// The bytes that are hashed and kept: JSON in one line.
    ///
    /// # Errors
    /// Where it cannot be written as JSON, which none of ours is, or is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?;
        if bytes.len() > MAX_ENTRY {
            return Err(format!(
                "an entry of {} bytes; at most {MAX_ENTRY} can be kept",
                bytes.len()
            ));
        }
        Ok(bytes)
    }

    /// # Errors
    /// Where `bytes` are no entry.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The container, edge and migration that it is about, where it is about one.
    pub fn about(&self) -> (Option<ContainerId>, Option<EdgeId>, Option<MigrationId>) {
        match &self.event {
            Event::Decision(decision) => (
                Some(decision.container),
                Some(decision.candidate),
                decision.migration,
            ),
            Event::Permit { migration, .. } => (None, None, Some(*migration)),
            Event::Migration {
                migration,
                container,
                edge,
                ..
            } => (Some(*container), Some(*edge), Some(*migration)),
            Event::Cancel {
                migration,
                container,
            } => (Some(*container), None, Some(*migration)),
            Event::Lost {
                migration,
                container,
                edge,
                ..
            } => (Some(*container), Some(*edge), Some(*migration)),
            Event::Refusal(refusal) => (None, Some(refusal.edge), refusal.migration),
            Event::RefusalsDropped { edge, .. }
            | Event::Attributes { edge, .. }
            | Event::EdgeRevoked { edge }
            | Event::Certificate(Certificate { edge, .. })
            | Event::Grant(Grant { edge, .. }) => (None, Some(*edge), None),
            Event::Requirements { container, .. }
            | Event::Allowed { container, .. }
            | Event::Forgotten { container } => (Some(*container), None, None),
            Event::Confirmed {
                container, edge, ..
            } => (Some(*container), Some(*edge), None),
            Event::Account { .. }
            | Event::Token { .. }
            | Event::TokenRevoked { .. }
            | Event::Password { .. }
            | Event::Key { .. } => (None, None, None),
        }
    }

    /// The name of its kind, as in JSON.
    pub fn kind(&self) -> &'static str {
        match &self.event {
            Event::Decision(_) => "decision",
            Event::Permit { .. } => "permit",
            Event::Migration { .. } => "migration",
            Event::Cancel { .. } => "cancel",
            Event::Lost { .. } => "lost",
            Event::Refusal(_) => "refusal",
            Event::RefusalsDropped { .. } => "refusals_dropped",
            Event::Account { .. } => "account",
            Event::Token { .. } => "token",
            Event::TokenRevoked { .. } => "token_revoked",
            Event::Password { .. } => "password",
            Event::Attributes { .. } => "attributes",
            Event::Certificate(_) => "certificate",
            Event::EdgeRevoked { .. } => "edge_revoked",
            Event::Requirements { .. } => "requirements",
            Event::Allowed { .. } => "allowed",
            Event::Confirmed { .. } => "confirmed",
            Event::Forgotten { .. } => "forgotten",
            Event::Grant(_) => "grant",
            Event::Key { .. } => "key",
        }
    }
}
