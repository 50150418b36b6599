//! The public API under `/v1`: one module per noun.
//!
//! Instants are milliseconds since the Unix epoch, in fields that end in `_at_ms`. What the
//! paper abbreviates (`cDAl` …) has word names here; DESIGN and glossary hold the table.

mod accounts;
mod audits;
mod containers;
mod edges;
mod ledger;
mod migrations;
mod parts;
mod problem;

pub use accounts::{
    Account, ApiToken, CreateAccount, CreateApiToken, NewApiToken, NewPassword, Role,
};
pub use audits::{Attempt, AttemptOutcome, AuditReport, CreateAudit, DestinationSpec, Reason};
pub use containers::{
    AllowPostCopy, Claim, Container, ContainerRegistration, ContainerState, RegisterContainer,
    UpdateRequirements,
};
pub use edges::{
    Contradiction, CreateShareKey, DetectedFacts, Edge, EnrolEdge, Enrolment, EnrolmentToken,
    Health, HealthState, NewShareKey, RedeemShareKey, RegisterEdge, ShareKey, UpdateAttributes,
    UtilizationReading,
};
pub use ledger::{
    Consistency, Keys, LedgerEntry, LedgerVerification, PermitKey, ProvenEntry, SigningKey, Stay,
    Witness, WitnessedBy,
};
pub use migrations::{
    ChosenStrategy, CreateMigration, GiveUp, LEAST_BANDWIDTH_BYTES_PER_S, LostEdge, Migration,
    MigrationState, NeedsOperator, PhaseTiming, Sending, StallPlace, StallStep, Strategy,
    Transferred, Way,
};
pub use parts::{
    AgentsPart, CertificateExpiry, CertificateOf, MigrationsPart, MonitorPart, Parts, StorePart,
};
pub use problem::{InputFault, Problem};

use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};

/// The schema of a policy as people write it: an object, or a compact row.
fn written_policy() -> Schema {
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Object))
        .item(ObjectBuilder::new().schema_type(Type::String))
        .into()
}
