use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use carnet_api::client::ClientError;
use thiserror::Error;

/// Why a lab cannot be built, entered or ended.
#[derive(Debug, Error)]
pub enum LabError {
    #[error("this machine cannot run the lab:\n  {}", .0.join("\n  "))]
    Unfit(Vec<String>),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("`{command}` cannot be run: {source}")]
    NotRun { command: String, source: io::Error },
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        command: String,
        status: ExitStatus,
        stderr: String,
    },
    #[error("{what} did not come about within {seconds} s")]
    Late { what: String, seconds: u64 },
    #[error(
        "`{0}` is no name for a lab: letters, digits and `-`, at most {max}",
        max = crate::lab::MAX_NAME
    )]
    Name(String),
    #[error("the lab `{0}` is in use by another process")]
    InUse(String),
    #[error("the lab `{0}` is up since `--stay`; end it first: ./demo down --name {0}")]
    LeftUp(String),
    #[error("there is no host `{0}` in the lab")]
    NoHost(String),
    /// By the signal of this number.
    #[error("ended before its time, by signal {0}")]
    Interrupted(i32),
    #[error("{asked}: {source}")]
    Api {
        asked: String,
        source: Box<ClientError>,
    },
    #[error("{0}")]
    Other(String),
}

impl LabError {
    /// For `map_err`: what failed with which file.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
