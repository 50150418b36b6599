//! The lab's own cgroups: everything that runs in a lab is below them, and ends with them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::exec::wait_until;

/// The memory that a host may use, in bytes.
const HOST_MEMORY: u64 = 3 << 30;

/// Where this machine's hierarchies are.
#[derive(Debug, Clone)]
pub struct Hierarchies {
    v2: PathBuf,
    /// Where the memory controller is a v1 hierarchy.
    v1_memory: Option<PathBuf>,
}

impl Hierarchies {
    /// From `/proc/self/mountinfo`; `None` where cgroup v2 is not mounted.
    pub fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let find = |kind: &str, option: Option<&str>| {
            mounts.lines().find_map(|line| {
                let (before, after) = line.split_once(" - ")?;
                let mut after = after.split(' ');
                let matches = after.next()? == kind
                    && option.is_none_or(|option| {
                        after
                            .nth(1)
                            .is_some_and(|options| options.split(',').any(|word| word == option))
                    });
                matches.then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
            })
        };
        Some(Self {
            v2: find("cgroup2", None)?,
            v1_memory: find("cgroup", Some("memory")),
        })
    }

    fn lab_name(lab: &str) -> String {
        format!("carnet-lab-{lab}")
    }

    /// The cgroups of one host, in every hierarchy used.
    fn host(&self, lab: &str, host: &str) -> Vec<PathBuf> {
        let name = Self::lab_name(lab);
        std::iter::once(&self.v2)
            .chain(&self.v1_memory)
            .map(|root| root.join(&name).join(host))
            .collect()
    }

    /// Makes the cgroups of a host, with its limit of memory.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn make(&self, lab: &str, host: &str) -> Result<(), LabError> {
        for path in self.host(lab, host) {
            fs::create_dir_all(&path).map_err(LabError::file(&path))?;
        }
        let name = Self::lab_name(lab);
        let (file, controllers) = match &self.v1_memory {
            Some(root) => (
                root.join(&name).join(host).join("memory.limit_in_bytes"),
                Vec::new(),
            ),
            None => (
                self.v2.join(&name).join(host).join("memory.max"),
                vec![self.v2.clone(), self.v2.join(&name)],
            ),
        };
        for above in controllers {
            // Where the controller cannot be had, the file below is not there, and that is told.
            let _ = fs::write(above.join("cgroup.subtree_control"), "+memory +cpu");
        }
        fs::write(&file, HOST_MEMORY.to_string()).map_err(LabError::file(&file))
    }

    /// Puts the calling process into a host's cgroups.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn enter(&self, lab: &str, host: &str) -> Result<(), LabError> {
        for path in self.host(lab, host) {
            let file = path.join("cgroup.procs");
            fs::write(&file, std::process::id().to_string()).map_err(LabError::file(&file))?;
        }
        Ok(())
    }

    /// Where the v1 memory hierarchy has to be mounted in a host too, for its agent to read.
    pub fn has_v1_memory(&self) -> bool {
        self.v1_memory.is_some()
    }

    /// Ends every process of a lab and removes its cgroups; fine where there are none.
    ///
    /// # Errors
    /// Where they do not end.
    pub fn remove(&self, lab: &str) -> Result<(), LabError> {
        self.end(&format!("the lab `{lab}`"), Path::new(&Self::lab_name(lab)))
    }

    /// The same for one host.
    ///
    /// # Errors
    /// Where its processes do not end.
    pub fn remove_host(&self, lab: &str, host: &str) -> Result<(), LabError> {
        let path = Path::new(&Self::lab_name(lab)).join(host);
        self.end(&format!("the host `{host}`"), &path)
    }

    fn end(&self, what: &str, below: &Path) -> Result<(), LabError> {
        let v2 = self.v2.join(below);
        if v2.exists() {
            let kill = v2.join("cgroup.kill");
            fs::write(&kill, "1").map_err(LabError::file(&kill))?;
            let events = v2.join("cgroup.events");
            wait_until(&format!("the end of {what}"), 30, || {
                fs::read_to_string(&events)
                    .is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
            })?;
        }
        for root in std::iter::once(&self.v2).chain(&self.v1_memory) {
            remove_empty(&root.join(below))?;
        }
        Ok(())
    }
}

/// Removes a cgroup and all below it.
fn remove_empty(path: &Path) -> Result<(), LabError> {
    let Ok(entries) = fs::read_dir(path) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path())?;
        }
    }
    // A process that has just ended may still be counted for a moment.
    wait_until(&format!("the removal of {}", path.display()), 10, || {
        fs::remove_dir(path).is_ok() || !path.exists()
    })
}
