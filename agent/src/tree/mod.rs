//! A directory tree as a stream: all of it, or what has changed since the last time.
//!
//! ```text
//! length of the head (4 bytes, big-endian) · head (JSON) · tar archive
//! ```
//!
//! The head says whether the stream is the whole tree, and which paths are gone. Hard links,
//! symbolic links, devices, numeric owners and extended attributes come along; sockets do not.

mod head;
mod manifest;
mod pack;
mod unpack;

pub use manifest::Manifest;
pub use pack::pack;
pub use unpack::unpack;
