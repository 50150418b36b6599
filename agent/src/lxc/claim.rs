use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::runtime::{Done, RuntimeError};

/// Where a claim code is placed, inside the container.
const CLAIM: &str = "run/carnet-claim";
/// The longest code, in bytes.
const MAX_CODE: u64 = 256;

/// Reads the claim code inside the container whose first process is `pid`.
///
/// The path is resolved as inside the container (`RESOLVE_IN_ROOT`): what somebody inside makes
/// of it, a link to `/etc/shadow` say, leads to the container's own file, never to the edge's.
pub fn read(pid: u32) -> Done<Option<String>> {
    let root_path = PathBuf::from(format!("/proc/{pid}/root"));
    let root = File::open(&root_path).map_err(RuntimeError::file(&root_path))?;
    let how = OpenHow::new()
        // Not to hang on a pipe that somebody put there.
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(&root, CLAIM, how) {
        Ok(descriptor) => File::from(descriptor),
        Err(nix::errno::Errno::ENOENT) => return Ok(None),
        Err(error) => {
            return Err(RuntimeError::file(&root_path.join(CLAIM))(error.into()));
        }
    };
    let path = root_path.join(CLAIM);
    let is_file = file
        .metadata()
        .map_err(RuntimeError::file(&path))?
        .is_file();
    if !is_file {
        return Err(RuntimeError::Refused(format!("/{CLAIM} is not a file")));
    }
    let mut code = String::new();
    match file.take(MAX_CODE).read_to_string(&mut code) {
        Ok(_) => Ok(Some(code.trim().to_owned())),
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(RuntimeError::Refused(format!("/{CLAIM} is not text")))
        }
        Err(error) => Err(RuntimeError::file(&path)(error)),
    }
}
