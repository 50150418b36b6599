use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The longest head, in bytes.
const MAX_HEAD: usize = 256 << 20;

/// What stands before the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The archive holds everything: what else there is goes.
    pub whole: bool,
    /// Paths that are gone, in hexadecimal digits: a path is any bytes.
    removed: Vec<String>,
}

impl Head {
    pub(super) fn new<'a>(whole: bool, removed: impl IntoIterator<Item = &'a Path>) -> Self {
        Self {
            whole,
            removed: removed
                .into_iter()
                .map(|path| hex::encode(path.as_os_str().as_bytes()))
                .collect(),
        }
    }

    pub(super) fn removed(&self) -> io::Result<Vec<PathBuf>> {
        self.removed
            .iter()
            .map(|digits| {
                hex::decode(digits)
                    .map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
                    .map_err(malformed)
            })
            .collect()
    }

    pub(super) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(malformed)?;
        let length = u32::try_from(text.len()).map_err(malformed)?;
        output.write_all(&length.to_be_bytes())?;
        output.write_all(&text)
    }

    pub(super) fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MAX_HEAD {
            return Err(malformed("the head is too long"));
        }
        let mut text = Vec::new();
        input.take(length as u64).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(malformed)
    }
}

pub(crate) fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
