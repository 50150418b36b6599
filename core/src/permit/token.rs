use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Claim, Fingerprint, Party};
use crate::ids::MigrationId;

/// The longest statement, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// The only algorithm there is (RFC 8037).
const ALGORITHM: &str = "EdDSA";
/// Who makes statements.
const ISSUER: &str = "carnet";

/// One kind of statement.
pub trait Statement: Serialize + DeserializeOwned {
    /// The header's `typ`: a statement of one kind is never taken for another.
    const TYPE: &'static str;

    fn claim(&self) -> &Claim;
}

/// Why a statement is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StatementFault {
    #[error("it is not a statement of Carnet's: {0}")]
    Malformed(&'static str),
    #[error("its algorithm is `{0}`, and only EdDSA is accepted")]
    Algorithm(String),
    #[error("it is a `{found}`, and a `{expected}` is needed")]
    Kind {
        found: String,
        expected: &'static str,
    },
    #[error("its signing key is not one of this control plane's: {0}")]
    Key(String),
    #[error("its signature does not fit: it was altered, or signed by another key")]
    Signature,
    #[error(
        "it is for edge {} with certificate {}, and this is edge {} with certificate {}",
        named.edge, named.certificate, me.edge, me.certificate
    )]
    Audience { named: Party, me: Party },
    #[error("it names the certificate {named} at the other end, and there is {peer}")]
    Peer {
        named: Fingerprint,
        peer: Fingerprint,
    },
    #[error("it is about migration {named}, not {asked}")]
    Migration {
        named: MigrationId,
        asked: MigrationId,
    },
    #[error("it is about container `{named}`, not `{asked}`")]
    Container { named: String, asked: String },
    #[error("it is for generation {named} of the container, and generation {known} is known here")]
    Generation { named: u64, known: u64 },
    #[error("it was made at {iat}, and here it is {now_s} (seconds since the Unix epoch)")]
    NotYet { iat: i64, now_s: i64 },
    #[error("it expired at {exp}, and here it is {now_s} (seconds since the Unix epoch)")]
    Expired { exp: i64, now_s: i64 },
    #[error("it claims to be good for {life_s} s, which no permit is")]
    Life { life_s: i64 },
    #[error("it was used before")]
    Used,
}

impl StatementFault {
    /// A name for programs and for the ledger.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Algorithm(_) => "algorithm",
            Self::Kind { .. } => "kind",
            Self::Key(_) => "key",
            Self::Signature => "signature",
            Self::Audience { .. } => "audience",
            Self::Peer { .. } => "peer",
            Self::Migration { .. } => "migration",
            Self::Container { .. } => "container",
            Self::Generation { .. } => "generation",
            Self::NotYet { .. } => "not-yet",
            Self::Expired { .. } => "expired",
            Self::Life { .. } => "life",
            Self::Used => "used",
        }
    }
}

/// The protected header (RFC 7515, section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: Fingerprint,
}

/// The name of a signing key (`kid`): SHA-256 of its 32 bytes.
pub fn key_id(key: &VerifyingKey) -> Fingerprint {
    Fingerprint::of(key.as_bytes())
}

/// Signs statements.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
}

impl Signer {
    /// With a key's 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            key: SigningKey::from_bytes(secret),
        }
    }

    pub fn public(&self) -> VerifyingKey {
        self.key.verifying_key()
    }

    /// The statement, signed.
    ///
    /// # Errors
    /// Where a claim cannot be written as JSON, which none of ours is.
    pub fn sign<T: Statement>(&self, statement: &T) -> Result<String, serde_json::Error> {
        use ed25519_dalek::Signer as _;
        let header = Header {
            alg: ALGORITHM.to_owned(),
            typ: T::TYPE.to_owned(),
            kid: key_id(&self.public()),
        };
        let input = format!(
            "{}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?),
            BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(statement)?)
        );
        let signature = self.key.sign(input.as_bytes());
        Ok(format!(
            "{input}.{}",
            BASE64_URL_SAFE_NO_PAD.encode(signature.to_bytes())
        ))
    }
}

/// A statement that has been read, and not been believed yet.
#[derive(Debug, Clone)]
pub struct Unverified<T> {
    signed: String,
    signature: [u8; 64],
    key: Fingerprint,
    statement: T,
}

impl<T: Statement> Unverified<T> {
    /// Reads a statement. Nothing of it counts before [`verify`](Self::verify).
    ///
    /// # Errors
    /// Where it is none of Carnet's, or one of another kind.
    pub fn parse(token: &str) -> Result<Self, StatementFault> {
        let malformed = StatementFault::Malformed;
        if token.len() > MAX_TOKEN {
            return Err(malformed("it is too long"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("it has not three parts"));
        };
        let decode = |part: &str| {
            BASE64_URL_SAFE_NO_PAD
                .decode(part)
                .map_err(|_| malformed("a part of it is not base64url"))
        };
        let parsed: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| malformed("its header is not one of Carnet's"))?;
        if parsed.alg != ALGORITHM {
            return Err(StatementFault::Algorithm(parsed.alg));
        }
        if parsed.typ != T::TYPE {
            return Err(StatementFault::Kind {
                found: parsed.typ,
                expected: T::TYPE,
            });
        }
        let statement: T = serde_json::from_slice(&decode(claims)?)
            .map_err(|_| malformed("its claims are not those of its kind"))?;
        if statement.claim().iss != ISSUER {
            return Err(malformed("its issuer is not Carnet"));
        }
        Ok(Self {
            signed: format!("{header}.{claims}"),
            signature: decode(signature)?
                .try_into()
                .map_err(|_| malformed("its signature has not 64 bytes"))?,
            key: parsed.kid,
            statement,
        })
    }

    /// The name of its signing key, as [`key_id`] makes it.
    pub fn key(&self) -> Fingerprint {
        self.key
    }

    /// What it says, whoever said it: for one who has it from a place that nobody else writes to.
    pub fn into_unverified(self) -> T {
        self.statement
    }

    /// What it says, if it was signed with this key.
    ///
    /// # Errors
    /// Where it was not, or was altered since.
    pub fn verify_with(self, key: &VerifyingKey) -> Result<T, StatementFault> {
        let signature = Signature::from_bytes(&self.signature);
        match key.verify_strict(self.signed.as_bytes(), &signature) {
            Ok(()) => Ok(self.statement),
            Err(_) => Err(StatementFault::Signature),
        }
    }
}

impl Claim {
    /// The name that stands in `iss`.
    pub fn issuer() -> String {
        ISSUER.to_owned()
    }
}
