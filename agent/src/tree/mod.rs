//! A directory tree as a stream: all of it, or what has changed since the last time.
//!
//! ```text
//! length of the head (4 bytes, big-endian) · head (JSON) · tar archive
//! ```
//!
//! The head says whether the stream is the whole tree, and which paths are gone. Hard links,
//! symbolic links, devices, numeric owners, extended attributes and times of change, to the
//! second, come along; sockets do not.
//!
//! Extended attributes are PAX records, `CARNET.xattr.NAME=VALUE`, both in hexadecimal digits:
//! the reader of `tar` takes no line feed in a value, and no `=` in a name.

mod head;
mod manifest;
mod pack;
mod place;
mod unpack;
mod watch;

pub(crate) use head::malformed;
pub use manifest::{Manifest, Mapped};
pub use pack::{Previous, pack};
pub use unpack::unpack;
pub use watch::{Changes, Watch};
