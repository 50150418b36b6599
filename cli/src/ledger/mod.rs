//! Reading a ledger, from a server or from a copy, and checking all of it.

mod copy;
mod source;
mod verify;

pub use copy::copy;
pub use source::Source;
pub use verify::{Verified, verify};
