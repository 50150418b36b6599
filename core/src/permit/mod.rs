//! What the control plane gives edges in writing, and what they check.
//!
//! Three statements, each a JSON Web Signature in compact form (RFC 7515) over JSON claims
//! (RFC 7519), signed with Ed25519 (`EdDSA`, RFC 8037) and no other algorithm:
//!
//! - [`Permit`]: this container, at this generation, may go from this edge to that one. Made only
//!   from a decision that permits. Without it no edge describes, freezes, sends or receives.
//! - [`Commit`]: the container is the target's now. Without it the target restores nothing, and
//!   the source removes nothing.
//! - [`Abort`]: the move is off, the container is the source's. Without it a source that has
//!   handed over does not thaw, and a target discards nothing.
//!
//! Which key is the control plane's, its agents are told with a certificate of its authority.

mod claims;
mod token;

pub use claims::{Abort, Claim, Commit, Fingerprint, Part, Party, Permit, Policy};
pub use token::{Signer, Statement, StatementFault, Unverified, key_id};
