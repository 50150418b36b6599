use std::fs;
use std::path::PathBuf;

use carnet_api::client::{Client, ClientError};

use crate::failure::Failure;

/// Where a ledger is read: below a server's `/ledger`, or from a directory with the same paths.
pub enum Source {
    Server(Client),
    Directory(PathBuf),
}

impl Source {
    /// What is at `path`, such as `checkpoint`; `None` where there is nothing.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        match self {
            Self::Server(client) => match client.bytes(&format!("/ledger/{path}")).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(ClientError::Problem(problem)) if problem.status == 404 => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Directory(directory) => {
                let full = directory.join(path);
                match fs::read(&full) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Failure::other(format!(
                        "cannot read {}: {error}",
                        full.display()
                    ))),
                }
            }
        }
    }

    /// In words, for messages.
    pub fn name(&self) -> String {
        match self {
            Self::Server(_) => "the server".to_owned(),
            Self::Directory(directory) => directory.display().to_string(),
        }
    }
}
