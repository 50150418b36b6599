use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Statement, StatementFault};
use crate::ids::{ContainerId, EdgeId, MigrationId};
use crate::instant::UnixMillis;
use crate::policy::Utilization;

/// SHA-256 of something: a certificate (DER), or a policy as JSON. Written in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if !text.contains(|c: char| c.is_ascii_uppercase()) => Ok(Self(bytes)),
            _ => Err("not 64 lower-case hexadecimal digits"),
        }
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

/// An edge, by its id and the certificate of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    pub edge: EdgeId,
    /// SHA-256 of the agent's certificate (DER).
    pub certificate: Fingerprint,
}

/// Which part an edge has in a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Source,
    Target,
}

/// A policy that was audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    pub revision: u64,
    /// Of its JSON with long names, keys in the alphabet's order, no white space.
    pub sha256: Fingerprint,
}

impl Policy {
    /// Of a policy's JSON, as [`Requirements::to_json`](crate::policy::Requirements::to_json) and
    /// [`Attributes::to_json`](crate::policy::Attributes::to_json) make it.
    pub fn of(revision: u64, json: &serde_json::Value) -> Self {
        Self {
            revision,
            // A `Value`'s keys are in order, and it is written without white space.
            sha256: Fingerprint::of(json.to_string().as_bytes()),
        }
    }
}

/// What all statements say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// `carnet`
    pub iss: String,
    /// Which statement this is; for a commit or abort, the permit's that it ends.
    pub jti: String,
    /// When it was made, in seconds since the Unix epoch.
    pub iat: i64,
    /// The container.
    pub sub: ContainerId,
    /// The container's name on the edges.
    pub name: String,
    pub migration: MigrationId,
    /// The container's generation.
    pub generation: u64,
    pub source: Party,
    pub target: Party,
}

/// This container may go from here to there, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    #[serde(flatten)]
    pub claim: Claim,
    /// Until when, in seconds since the Unix epoch.
    pub exp: i64,
    pub requirements: Policy,
    pub attributes: Policy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utilization: Option<Utilization>,
    /// The number of the decision in the ledger.
    pub decision: u64,
}

/// The container is the target's; its generation is the one that the commit gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    #[serde(flatten)]
    pub claim: Claim,
}

/// The move is off; the container is the source's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    #[serde(flatten)]
    pub claim: Claim,
}

impl Statement for Permit {
    const TYPE: &'static str = "carnet-permit+jwt";

    fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Statement for Commit {
    const TYPE: &'static str = "carnet-commit+jwt";

    fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Statement for Abort {
    const TYPE: &'static str = "carnet-abort+jwt";

    fn claim(&self) -> &Claim {
        &self.claim
    }
}

impl Claim {
    /// Who has the other part.
    pub fn peer(&self, mine: Part) -> &Party {
        match mine {
            Part::Source => &self.target,
            Part::Target => &self.source,
        }
    }

    /// Who has this part.
    pub fn party(&self, part: Part) -> &Party {
        match part {
            Part::Source => &self.source,
            Part::Target => &self.target,
        }
    }

    /// Whether the statement names me, in this part.
    ///
    /// # Errors
    /// Where it names another edge, or another certificate.
    pub fn is_for(&self, me: &Party, part: Part) -> Result<(), StatementFault> {
        let named = self.party(part);
        if named == me {
            Ok(())
        } else {
            Err(StatementFault::Audience {
                named: *named,
                me: *me,
            })
        }
    }

    /// Whether the statement names whoever is at the other end of a connection.
    ///
    /// # Errors
    /// Where it names another certificate.
    pub fn has_peer(&self, peer: &Fingerprint, mine: Part) -> Result<(), StatementFault> {
        let named = self.peer(mine).certificate;
        if named == *peer {
            Ok(())
        } else {
            Err(StatementFault::Peer { named, peer: *peer })
        }
    }

    /// Whether the statement is about this move of this container.
    ///
    /// # Errors
    /// What it is about instead.
    pub fn is_about(&self, migration: MigrationId, name: &str) -> Result<(), StatementFault> {
        if self.migration != migration {
            return Err(StatementFault::Migration {
                named: self.migration,
                asked: migration,
            });
        }
        if self.name != name {
            return Err(StatementFault::Container {
                named: self.name.clone(),
                asked: name.to_owned(),
            });
        }
        Ok(())
    }

    /// Whether the statement was made by `now`; clocks of edges may be behind by `tolerance_s`.
    ///
    /// # Errors
    /// Where it is from the future.
    pub fn is_made(&self, now: UnixMillis, tolerance_s: i64) -> Result<(), StatementFault> {
        let now_s = now.0.div_euclid(1_000);
        if self.iat.saturating_sub(tolerance_s) > now_s {
            return Err(StatementFault::NotYet {
                iat: self.iat,
                now_s,
            });
        }
        Ok(())
    }
}

impl Permit {
    /// The longest that a permit may be good for, in seconds; one that claims more is refused.
    pub const LONGEST_S: i64 = 15 * 60;

    /// Whether the permit is good at `now`; clocks of edges may differ by `tolerance_s`.
    ///
    /// # Errors
    /// Where it is from the future, has expired, or claims to be good for too long.
    pub fn is_good(&self, now: UnixMillis, tolerance_s: i64) -> Result<(), StatementFault> {
        self.claim.is_made(now, tolerance_s)?;
        let life_s = self.exp.saturating_sub(self.claim.iat);
        if !(0..=Self::LONGEST_S).contains(&life_s) {
            return Err(StatementFault::Life { life_s });
        }
        let now_s = now.0.div_euclid(1_000);
        if self.exp.saturating_add(tolerance_s) <= now_s {
            return Err(StatementFault::Expired {
                exp: self.exp,
                now_s,
            });
        }
        Ok(())
    }

    /// Whether it is the container's generation that the permit was made for.
    ///
    /// # Errors
    /// Where it is another.
    pub fn is_of_generation(&self, generation: u64) -> Result<(), StatementFault> {
        if self.claim.generation == generation {
            Ok(())
        } else {
            Err(StatementFault::Generation {
                named: self.claim.generation,
                known: generation,
            })
        }
    }
}
