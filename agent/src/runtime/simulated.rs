use std::fs;
use std::path::{Path, PathBuf};

use carnet_api::agent::{Container, Described};
use carnet_api::v1::ContainerState;
use serde::{Deserialize, Serialize};

use super::{ContainerName, Done, Runtime, RuntimeError};

/// Containers that are directories: nothing runs in them. For tests, and for fleets larger than
/// one machine can hold.
///
/// ```text
/// ROOT/containers/NAME/container.json   state and memory
/// ROOT/containers/NAME/rootfs/          its files; the claim code is at rootfs/run/carnet-claim
/// ROOT/images/NAME/memory               its memory, while it moves
/// ROOT/problems                         what is said to be wrong with the edge, a line each
/// ```
#[derive(Debug)]
pub struct SimulatedRuntime {
    root: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Simulated {
    state: ContainerState,
    /// What a real container would hold in memory.
    memory: String,
}

impl SimulatedRuntime {
    /// Its containers are below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Makes a running container with something in its memory.
    ///
    /// # Errors
    /// Where its directory cannot be written.
    pub fn create(&self, name: &ContainerName, memory: &str) -> Done {
        let rootfs = self.rootfs(name);
        fs::create_dir_all(&rootfs).map_err(RuntimeError::file(&rootfs))?;
        self.save(
            name,
            &Simulated {
                state: ContainerState::Running,
                memory: memory.to_owned(),
            },
        )
    }

    fn directory(&self, name: &ContainerName) -> PathBuf {
        self.root.join("containers").join(name.as_str())
    }

    fn record(&self, name: &ContainerName) -> PathBuf {
        self.directory(name).join("container.json")
    }

    fn load(&self, name: &ContainerName) -> Done<Simulated> {
        let path = self.record(name);
        if !path.exists() {
            return Err(RuntimeError::Refused(format!(
                "there is no container `{name}` on this edge"
            )));
        }
        let text = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        serde_json::from_str(&text)
            .map_err(|error| RuntimeError::Refused(format!("{}: {error}", path.display())))
    }

    fn save(&self, name: &ContainerName, simulated: &Simulated) -> Done {
        let path = self.record(name);
        let text = serde_json::to_string(simulated)
            .map_err(|error| RuntimeError::Refused(error.to_string()))?;
        fs::write(&path, text).map_err(RuntimeError::file(&path))
    }

    fn set_state(&self, name: &ContainerName, state: ContainerState) -> Done {
        let simulated = self.load(name)?;
        self.save(name, &Simulated { state, ..simulated })
    }

    fn memory_image(&self, name: &ContainerName) -> PathBuf {
        self.images(name).join("memory")
    }
}

fn remove_directory(path: &Path) -> Done {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file(path)(error))
        }
        _ => Ok(()),
    }
}

impl Runtime for SimulatedRuntime {
    async fn containers(&self) -> Done<Vec<Container>> {
        let mut containers = Vec::new();
        let Ok(entries) = fs::read_dir(self.root.join("containers")) else {
            return Ok(containers);
        };
        for entry in entries.flatten() {
            if let Ok(name) = ContainerName::new(&entry.file_name().to_string_lossy())
                && let Ok(simulated) = self.load(&name)
            {
                containers.push(Container {
                    name: name.to_string(),
                    state: simulated.state,
                });
            }
        }
        Ok(containers)
    }

    async fn placed_claim(&self, name: &ContainerName) -> Done<Option<String>> {
        self.load(name)?;
        let path = self.rootfs(name).join("run/carnet-claim");
        match fs::read_to_string(&path) {
            Ok(code) => Ok(Some(code.trim().to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RuntimeError::file(&path)(error)),
        }
    }

    async fn problems(&self) -> Vec<String> {
        fs::read_to_string(self.root.join("problems"))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    async fn describe(&self, name: &ContainerName) -> Done<Described> {
        let simulated = self.load(name)?;
        if simulated.state == ContainerState::Stopped {
            return Err(RuntimeError::Refused(format!("`{name}` is stopped")));
        }
        Ok(Described {
            description: serde_json::json!({ "simulated": true }),
            memory_bytes: simulated.memory.len() as u64,
            rootfs_bytes: 0,
        })
    }

    async fn check(&self, name: &ContainerName, _container: &Described) -> Done {
        let mut problems = self.problems().await;
        if self.directory(name).exists() {
            problems.push(format!(
                "there is a container `{name}` on this edge already"
            ));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(RuntimeError::Refused(problems.join("; ")))
        }
    }

    async fn prepare(&self, name: &ContainerName, _container: &Described) -> Done {
        for directory in [self.rootfs(name), self.images(name)] {
            fs::create_dir_all(&directory).map_err(RuntimeError::file(&directory))?;
        }
        self.save(
            name,
            &Simulated {
                state: ContainerState::Stopped,
                memory: String::new(),
            },
        )
    }

    fn rootfs(&self, name: &ContainerName) -> PathBuf {
        self.directory(name).join("rootfs")
    }

    fn images(&self, name: &ContainerName) -> PathBuf {
        self.root.join("images").join(name.as_str())
    }

    async fn freeze(&self, name: &ContainerName) -> Done {
        match self.load(name)?.state {
            ContainerState::Running | ContainerState::Frozen => {
                self.set_state(name, ContainerState::Frozen)
            }
            _ => Err(RuntimeError::Refused(format!("`{name}` does not run"))),
        }
    }

    async fn dump(&self, name: &ContainerName) -> Done {
        let simulated = self.load(name)?;
        if simulated.state != ContainerState::Frozen {
            return Err(RuntimeError::Refused(format!("`{name}` is not frozen")));
        }
        let images = self.images(name);
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))?;
        let path = self.memory_image(name);
        fs::write(&path, simulated.memory).map_err(RuntimeError::file(&path))
    }

    async fn thaw(&self, name: &ContainerName) -> Done {
        if self.record(name).exists() && self.load(name)?.state == ContainerState::Frozen {
            self.set_state(name, ContainerState::Running)?;
        }
        self.forget_images(name).await
    }

    async fn restore(&self, name: &ContainerName) -> Done {
        if self.load(name)?.state == ContainerState::Running {
            return Ok(());
        }
        let path = self.memory_image(name);
        let memory = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        self.save(
            name,
            &Simulated {
                state: ContainerState::Running,
                memory,
            },
        )
    }

    async fn connect(&self, _name: &ContainerName) -> Done {
        Ok(())
    }

    async fn forget_images(&self, name: &ContainerName) -> Done {
        remove_directory(&self.images(name))
    }

    async fn remove(&self, name: &ContainerName) -> Done {
        self.forget_images(name).await?;
        remove_directory(&self.directory(name))
    }
}
