//! What a container's memory depends on of the machines that it goes between.
//!
//! What is dumped can only be restored by a CRIU that knows it, on a processor that has what the
//! container's programs have found and use. CRIU itself looks at neither until the container
//! stands still.

use std::fs;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::criu;
use super::prepaging::Layout;
use crate::exec::{Command, CommandError};

/// Where CRIU writes and reads what it knows of a processor, and the name that it gives it.
const DIRECTORY: &str = "/run/carnet/processor";
const IMAGE: &str = "cpuinfo.img";

/// A machine, as its agent tells another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The version of CRIU, such as `4.2.1`; `None` where there is none.
    pub criu: Option<String>,
    /// CRIU's image of what the processor can, in hexadecimal digits; `None` where CRIU knows
    /// nothing of it.
    pub processor: Option<String>,
}

impl Machine {
    /// This one.
    pub async fn read() -> Self {
        Self {
            criu: criu::installed().await.ok().flatten(),
            processor: processor().await.map(hex::encode),
        }
    }

    /// What keeps this machine from restoring what is dumped on `source`.
    pub async fn restore_problems(&self, source: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some((own, its)) = self.both_versions(source)
            && own < its
        {
            problems.push(format!(
                "CRIU {}.{} does not know all that the source's CRIU {}.{} dumps: install that version or a later one",
                own.0, own.1, its.0, its.1
            ));
        }
        // Nothing is to be looked at where both are alike.
        if let Some(processor) = &source.processor
            && self.processor.as_ref() != Some(processor)
            && let Err(problem) = can_replace(processor).await
        {
            problems.push(problem);
        }
        problems
    }

    /// What keeps memory from following to this machine from `source`.
    pub fn post_copy_problems(&self, source: &Self) -> Vec<String> {
        match self.both_versions(source) {
            Some((own, its)) if Layout::of(own) != Layout::of(its) => vec![format!(
                "CRIU {}.{} asks for pages in another way than the source's CRIU {}.{} understands: install the same version on both",
                own.0, own.1, its.0, its.1
            )],
            _ => Vec::new(),
        }
    }

    /// How its CRIU asks for pages that follow; `None` where it does not say which version it is.
    pub fn layout(&self) -> Option<Layout> {
        self.version().map(Layout::of)
    }

    fn version(&self) -> Option<(u32, u32)> {
        self.criu.as_deref().and_then(criu::version)
    }

    fn both_versions(&self, source: &Self) -> Option<((u32, u32), (u32, u32))> {
        Some((self.version()?, source.version()?))
    }
}

async fn processor() -> Option<Vec<u8>> {
    let directory = directory().ok()?;
    cpuinfo("dump", &directory).await.ok()?;
    fs::read(directory.path().join(IMAGE)).ok()
}

/// Whether programs that run on the processor that `image` tells of can go on on this one.
async fn can_replace(image: &str) -> Result<(), String> {
    let unreadable =
        |error: &dyn std::fmt::Display| format!("what the source tells of its processor: {error}");
    let image = hex::decode(image).map_err(|error| unreadable(&error))?;
    let directory = directory().map_err(|error| unreadable(&error))?;
    fs::write(directory.path().join(IMAGE), image).map_err(|error| unreadable(&error))?;
    cpuinfo("check", &directory).await.map_err(|error| {
        format!(
            "its processor lacks what the source's has, and what the container may use: {error}"
        )
    })
}

fn directory() -> std::io::Result<TempDir> {
    fs::create_dir_all(DIRECTORY)?;
    tempfile::tempdir_in(DIRECTORY)
}

/// `criu cpuinfo`: instructions, and what is saved of the processor's state.
async fn cpuinfo(what: &str, directory: &TempDir) -> Result<(), CommandError> {
    let mut command = Command::new("criu").args(["cpuinfo", what, "--cpu-cap=ins,fpu"]);
    command = command.arg("--images-dir");
    let ran = command.arg(directory.path().display().to_string()).run();
    ran.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_criu(version: &str) -> Machine {
        Machine {
            criu: Some(version.to_owned()),
            processor: None,
        }
    }

    /// The source's version, the target's, and whether it can restore, and ask for pages.
    #[tokio::test]
    async fn versions_must_fit() {
        for (source, target, restores, asks) in [
            ("4.2.1", "4.2.1", true, true),
            ("4.2.1", "4.2", true, true),
            ("4.2.1", "4.3", true, true),
            ("4.2.1", "5.0", true, true),
            ("4.3", "4.2.1", false, true),
            ("4.2", "4.1.1", false, false),
            ("4.1.1", "4.2", true, false),
            ("3.17.1", "4.1.1", true, true),
            ("unknown", "4.2", true, true),
        ] {
            let (source, target) = (with_criu(source), with_criu(target));
            let problems = target.restore_problems(&source).await;
            assert_eq!(problems.is_empty(), restores, "{source:?} {target:?}");
            let problems = target.post_copy_problems(&source);
            assert_eq!(problems.is_empty(), asks, "{source:?} {target:?}");
        }
    }
}
