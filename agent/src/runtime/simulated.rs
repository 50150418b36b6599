use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use carnet_api::agent::{Container, Described, Prepared};
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::{ContainerName, Done, Pages, Runtime, RuntimeError};
use crate::tree::Mapped;

/// Containers that are directories: nothing runs in them. For tests, and for fleets larger than
/// one machine can hold.
///
/// ```text
/// ROOT/containers/NAME/container.json   state and memory
/// ROOT/containers/NAME/rootfs/          its files; the claim code is at rootfs/run/carnet-claim
/// ROOT/images/NAME/memory               its memory, while it moves: an `Image`
/// ROOT/images/NAME/ahead-N/memory       its memory while it still ran, the Nth time
/// ROOT/started/NAME                     it was restored, and has run since
/// ROOT/problems                         what is said to be wrong with the edge, a line each
/// ROOT/live-problems                    what is said to keep it from all but cold moves
/// ROOT/cannot-prepare                   where it is there, containers are made by half only
/// ROOT/cannot-start                     where it is there, nothing is started anew
/// ```
#[derive(Debug)]
pub struct SimulatedRuntime {
    root: PathBuf,
    /// Those that were restored and not started; lost with this process.
    ready: Mutex<HashMap<String, Memory>>,
    /// Memory on its way.
    following: Mutex<HashMap<String, JoinHandle<std::io::Result<String>>>>,
    /// How often memory was dumped ahead, and what it was the last time.
    ahead: Mutex<HashMap<String, (u32, String)>>,
}

/// Memory as it was dumped.
#[derive(Debug, Serialize, Deserialize)]
struct Image {
    /// How much of what was dumped the `N`th time, counted from its beginning, has stayed.
    stayed: Option<(u32, usize)>,
    /// What comes after that.
    rest: String,
}

impl Image {
    /// Of `memory`, which was dumped before as `ahead` says.
    fn new(memory: &str, ahead: Option<&(u32, String)>) -> Self {
        let stayed = ahead.map(|(number, before)| {
            let same = before.chars().zip(memory.chars());
            let same = same.take_while(|(one, other)| one == other);
            (*number, same.map(|(one, _)| one.len_utf8()).sum())
        });
        let rest = memory.get(stayed.map_or(0, |(_, bytes)| bytes)..);
        Self {
            stayed,
            rest: rest.unwrap_or_default().to_owned(),
        }
    }
}

/// The memory of a container that was restored and not started.
#[derive(Debug)]
enum Memory {
    Here(String),
    Follows(Pages),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Simulated {
    state: ContainerState,
    /// What a real container would hold in memory.
    memory: String,
    /// It runs, and its memory is not here yet.
    memory_follows: bool,
    /// It was stopped, and nobody can start it.
    #[serde(default)]
    is_held: bool,
}

impl Simulated {
    fn new(state: ContainerState, memory: &str) -> Self {
        Self {
            state,
            memory: memory.to_owned(),
            memory_follows: false,
            is_held: false,
        }
    }
}

impl SimulatedRuntime {
    /// Its containers are below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            ready: Mutex::default(),
            following: Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    /// Makes a running container with something in its memory.
    ///
    /// # Errors
    /// Where its directory cannot be written.
    pub fn create(&self, name: &ContainerName, memory: &str) -> Done {
        let rootfs = self.rootfs(name);
        fs::create_dir_all(&rootfs).map_err(RuntimeError::file(&rootfs))?;
        self.save(name, &Simulated::new(ContainerState::Running, memory))
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

    fn started(&self, name: &ContainerName) -> PathBuf {
        self.root.join("started").join(name.as_str())
    }

    /// Remembers that it has run, or may have.
    fn let_run(&self, name: &ContainerName) -> Done {
        let started = self.started(name);
        let directory = self.root.join("started");
        fs::create_dir_all(&directory).map_err(RuntimeError::file(&directory))?;
        fs::write(&started, "").map_err(RuntimeError::file(&started))
    }

    /// What is said in the file `name` to be wrong.
    fn said(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.root.join(name))
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }

    fn write_image(directory: &Path, image: &Image) -> Done {
        let path = directory.join("memory");
        let text = serde_json::to_string(image)
            .map_err(|error| RuntimeError::Refused(error.to_string()))?;
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, text))
            .map_err(RuntimeError::file(&path))
    }

    /// The memory that the image below `directory` is of, as far as it is among `images`.
    fn read_image(images: &Path, directory: &Path) -> Done<String> {
        let path = directory.join("memory");
        let text = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        let bad = |why: &dyn std::fmt::Display| {
            RuntimeError::Refused(format!("{}: {why}", path.display()))
        };
        let image: Image = serde_json::from_str(&text).map_err(|error| bad(&error))?;
        let Some((number, bytes)) = image.stayed else {
            return Ok(image.rest);
        };
        let before = Self::read_image(images, &images.join(ahead(number)))?;
        match before.get(..bytes) {
            Some(stayed) => Ok(format!("{stayed}{}", image.rest)),
            None => Err(bad(&"more has stayed than there was")),
        }
    }

    fn ahead(&self) -> std::sync::MutexGuard<'_, HashMap<String, (u32, String)>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory of the `number`th dump of a container that runs on.
fn ahead(number: u32) -> String {
    format!("ahead-{number}")
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
    async fn recover(&self, unfinished: &[ContainerName]) {
        let Ok(entries) = fs::read_dir(self.root.join("images")) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !unfinished.iter().any(|needed| needed.as_str() == name) {
                let _ = remove_directory(&entry.path());
            }
        }
    }

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
        self.said("problems")
    }

    async fn live_problems(&self) -> Vec<String> {
        self.said("live-problems")
    }

    async fn receiving_problems(&self, _container: &Described) -> Prepared {
        Prepared {
            live_problems: self.live_problems().await,
            ..Prepared::default()
        }
    }

    async fn describe(&self, name: &ContainerName) -> Done<Described> {
        let simulated = self.load(name)?;
        Ok(Described {
            description: serde_json::json!({ "simulated": true }),
            memory_bytes: simulated.memory.len() as u64,
            rootfs_bytes: 0,
            post_copy_problems: Vec::new(),
            pre_copy_problems: Vec::new(),
            is_stopped: simulated.state == ContainerState::Stopped,
            live_problems: self.live_problems().await,
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
        let rootfs = self.rootfs(name);
        fs::create_dir_all(&rootfs).map_err(RuntimeError::file(&rootfs))?;
        let in_the_way = self.root.join("cannot-prepare");
        if in_the_way.exists() {
            return Err(RuntimeError::Refused(format!(
                "{} is there",
                in_the_way.display()
            )));
        }
        self.save(name, &Simulated::new(ContainerState::Stopped, ""))
    }

    fn rootfs(&self, name: &ContainerName) -> PathBuf {
        self.directory(name).join("rootfs")
    }

    fn mapped(&self, _name: &ContainerName) -> Done<Vec<Mapped>> {
        // It has no processes.
        Ok(Vec::new())
    }

    fn images(&self, name: &ContainerName) -> PathBuf {
        self.root.join("images").join(name.as_str())
    }

    fn expect_images(&self, name: &ContainerName) -> Done {
        let images = self.images(name);
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))
    }

    /// What is dumped here is quick to dump anyhow.
    async fn use_huge_pages(&self, _name: &ContainerName) {}

    async fn dump_ahead(&self, name: &ContainerName, is_first: bool) -> Done<u64> {
        let simulated = self.load(name)?;
        if simulated.state != ContainerState::Running {
            return Err(RuntimeError::Refused(format!("`{name}` does not run")));
        }
        let before = self.ahead().remove(name.as_str());
        let before = match (is_first, before) {
            (true, _) => {
                self.forget_images(name).await?;
                None
            }
            (false, Some(before)) => Some(before),
            (false, None) => {
                return Err(RuntimeError::Refused(format!(
                    "it is not known what `{name}` has written to in memory since"
                )));
            }
        };
        let number = before.as_ref().map_or(1, |(number, _)| number + 1);
        let image = Image::new(&simulated.memory, before.as_ref());
        Self::write_image(&self.images(name).join(ahead(number)), &image)?;
        self.ahead()
            .insert(name.to_string(), (number, simulated.memory));
        Ok(image.rest.len() as u64)
    }

    /// Nothing here takes long.
    async fn ready_to_freeze(&self, _name: &ContainerName) -> Done {
        Ok(())
    }

    async fn freeze(&self, name: &ContainerName) -> Done {
        match self.load(name)?.state {
            ContainerState::Running | ContainerState::Frozen => {
                self.set_state(name, ContainerState::Frozen)
            }
            _ => Err(RuntimeError::Refused(format!("`{name}` does not run"))),
        }
    }

    async fn dump(&self, name: &ContainerName, strategy: Strategy) -> Done<Option<Pages>> {
        let simulated = self.load(name)?;
        if simulated.state != ContainerState::Frozen {
            return Err(RuntimeError::Refused(format!("`{name}` is not frozen")));
        }
        let ahead = self.ahead().remove(name.as_str());
        let ahead = ahead.filter(|_| strategy == Strategy::PreCopy);
        if ahead.is_none() {
            self.forget_images(name).await?;
        }
        let images = self.images(name);
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))?;
        match strategy {
            Strategy::StopAndCopy | Strategy::PreCopy => {
                let image = Image::new(&simulated.memory, ahead.as_ref());
                Self::write_image(&images, &image)?;
                Ok(None)
            }
            Strategy::PostCopy => {
                let path = images.join("follows");
                fs::write(&path, "").map_err(RuntimeError::file(&path))?;
                let (near, mut far) = tokio::io::duplex(1 << 16);
                // Given out once somebody asks, by a byte.
                tokio::spawn(async move {
                    far.read_u8().await?;
                    far.write_all(simulated.memory.as_bytes()).await?;
                    far.shutdown().await
                });
                Ok(Some(Box::new(near)))
            }
            Strategy::Cold => Err(RuntimeError::Refused(
                "a cold move carries no memory".to_owned(),
            )),
        }
    }

    async fn thaw(&self, name: &ContainerName) -> Done {
        self.ahead().remove(name.as_str());
        if self.record(name).exists() && self.load(name)?.state == ContainerState::Frozen {
            self.set_state(name, ContainerState::Running)?;
        }
        self.forget_images(name).await
    }

    async fn stand_by(&self, name: &ContainerName, strategy: Strategy) -> Done {
        self.load(name)?;
        if strategy != Strategy::Cold {
            self.expect_images(name)?;
        }
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name.as_str());
        Ok(())
    }

    async fn restore(
        &self,
        name: &ContainerName,
        strategy: Strategy,
        pages: Option<Pages>,
    ) -> Done {
        let simulated = self.load(name)?;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if simulated.state == ContainerState::Running || ready.contains_key(name.as_str()) {
            return Ok(());
        }
        let memory = match (strategy, pages) {
            (Strategy::StopAndCopy | Strategy::PreCopy, _) => {
                let images = self.images(name);
                Memory::Here(Self::read_image(&images, &images)?)
            }
            (Strategy::Cold, _) => return Ok(()),
            (Strategy::PostCopy, Some(pages)) => Memory::Follows(pages),
            (Strategy::PostCopy, None) => {
                return Err(RuntimeError::Refused(format!(
                    "the memory of `{name}` cannot be had any more"
                )));
            }
        };
        ready.insert(name.to_string(), memory);
        Ok(())
    }

    async fn start(&self, name: &ContainerName) -> Done {
        if !self.record(name).exists() {
            return Ok(());
        }
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name.as_str());
        let Some(ready) = ready else {
            return Ok(());
        };
        let (memory, pages) = match ready {
            Memory::Here(memory) => (memory, None),
            Memory::Follows(pages) => (String::new(), Some(pages)),
        };
        self.let_run(name)?;
        self.save(
            name,
            &Simulated {
                memory_follows: pages.is_some(),
                ..Simulated::new(ContainerState::Running, &memory)
            },
        )?;
        if let Some(mut pages) = pages {
            let following = tokio::spawn(async move {
                pages.write_u8(0).await?;
                pages.flush().await?;
                let mut memory = String::new();
                pages.read_to_string(&mut memory).await?;
                if memory.is_empty() {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                Ok(memory)
            });
            self.following
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(name.to_string(), following);
        }
        Ok(())
    }

    fn has_started(&self, name: &ContainerName) -> bool {
        self.started(name).exists()
    }

    fn is_stopped(&self, name: &ContainerName) -> bool {
        self.load(name)
            .is_ok_and(|simulated| simulated.state == ContainerState::Stopped)
    }

    async fn stop(&self, name: &ContainerName) -> Done {
        self.load(name)?;
        let started = self.started(name);
        match fs::remove_file(&started) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(RuntimeError::file(&started)(error));
            }
            _ => {}
        }
        self.save(
            name,
            &Simulated {
                is_held: true,
                ..Simulated::new(ContainerState::Stopped, "")
            },
        )
    }

    async fn boot(&self, name: &ContainerName, runs: bool) -> Done {
        if !self.record(name).exists() {
            return Ok(());
        }
        let simulated = self.load(name)?;
        let is_over = self.has_started(name) || simulated.state == ContainerState::Running;
        if is_over {
            return Ok(());
        }
        let cannot = self.root.join("cannot-start");
        if runs && cannot.exists() {
            return Err(RuntimeError::Refused(format!("`{name}` does not start")));
        }
        self.let_run(name)?;
        let state = match runs {
            true => ContainerState::Running,
            false => ContainerState::Stopped,
        };
        self.save(name, &Simulated::new(state, ""))
    }

    async fn settle(&self, name: &ContainerName) -> Done {
        let following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name.as_str());
        let simulated = self.load(name)?;
        if !simulated.memory_follows {
            // It has come, and this is asked once more.
            return Ok(());
        }
        let memory = match following {
            Some(following) => following.await.map_err(std::io::Error::other).flatten(),
            None => Err(std::io::Error::other("the agent was restarted")),
        };
        match memory {
            Ok(memory) => self.save(
                name,
                &Simulated {
                    memory,
                    memory_follows: false,
                    ..simulated
                },
            ),
            Err(error) => {
                self.set_state(name, ContainerState::Stopped)?;
                Err(RuntimeError::Refused(format!(
                    "memory of `{name}` was lost on its way ({error}); it was killed"
                )))
            }
        }
    }

    async fn forget_images(&self, name: &ContainerName) -> Done {
        remove_directory(&self.images(name))
    }

    async fn remove(&self, name: &ContainerName) -> Done {
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name.as_str());
        self.ahead().remove(name.as_str());
        self.forget_images(name).await?;
        remove_directory(&self.directory(name))?;
        let started = self.started(name);
        match fs::remove_file(&started) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RuntimeError::file(&started)(error))
            }
            _ => Ok(()),
        }
    }
}
