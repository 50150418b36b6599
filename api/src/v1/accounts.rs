use carnet_core::ids::{AccountId, TokenId};
use carnet_core::instant::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an account may do. One account may hold several.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Lends edges: registers them, describes them, gives and revokes share keys.
    EdgeOwner,
    /// Owns containers: registers them, sets their requirements, moves them.
    ContainerOwner,
    /// Reads everything, changes nothing.
    Auditor,
    /// Makes accounts.
    Administrator,
}

/// A person or program that uses Carnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Account {
    #[schema(value_type = String, format = "uuid")]
    pub id: AccountId,
    pub name: String,
    pub roles: Vec<Role>,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
}

/// Makes an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// Unique; letters, digits, `.`, `_` and `-`, at most 63.
    pub name: String,
    /// At least one.
    pub roles: Vec<Role>,
}

/// A token of a program or person, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    #[schema(value_type = String, format = "uuid")]
    pub id: TokenId,
    /// What it is for, in its holder's words.
    pub label: String,
    /// The roles it may use; never more than its account has.
    pub roles: Vec<Role>,
    #[schema(value_type = i64)]
    pub created_at_ms: UnixMillis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    pub expires_at_ms: Option<UnixMillis>,
}

/// Makes a token for an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiToken {
    pub label: String,
    /// A part of the account's roles; all of them where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<Role>>,
    /// How long it is good for; for ever where it is absent. A token that is made with another is
    /// good for no longer than that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_for_seconds: Option<u64>,
}

/// A new token. Its secret is shown this once; only a hash of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewApiToken {
    #[serde(flatten)]
    pub token: ApiToken,
    /// Goes into `Authorization: Bearer …`. Absent from a repeated answer.
    #[schema(required = false)]
    pub secret: String,
}

/// A new password of an account. It is shown this once; only a hash of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewPassword {
    /// The account's name.
    pub account: String,
    /// Absent from a repeated answer.
    #[schema(required = false)]
    pub secret: String,
}
