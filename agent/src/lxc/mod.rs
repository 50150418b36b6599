//! Containers of LXC, moved by CRIU.

mod cgroup;
mod claim;
mod cold;
pub mod criu;
pub mod definition;
mod frames;
mod grace;
pub mod guard;
mod huge_pages;
mod machine;
mod mapped;
mod network;
mod prepaging;
mod readiness;
mod ready;
mod room;
mod standby;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use carnet_api::agent::{Container, Described, Prepared};
use carnet_api::v1::ContainerState;
use carnet_core::migration::Strategy;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use self::cgroup::{Cgroup, wait_until};
use self::definition::{ContainerPlace, Definition, host_interface};
use self::frames::Kept;
use self::guard::Guard;
use self::machine::Machine;
use self::readiness::{LastFound, Readiness, not_in_memory, which};
use self::ready::Ready;
use self::standby::Standby;
use crate::exec::{Command, CommandError};
use crate::runtime::{ContainerName, Done, Pages, Runtime, RuntimeError};
use crate::tree::Mapped;

/// Where LXC keeps its containers.
const CONTAINERS: &str = "/var/lib/lxc";
/// Where the v2 hierarchy is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where memory images go; on tmpfs.
const IMAGES: &str = "/run/carnet/images";

/// The containers of LXC on this machine.
#[derive(Debug)]
pub struct LxcRuntime {
    /// The bridge that containers are on.
    bridge: String,
    /// The program `carnet`, for guards.
    program: PathBuf,
    readiness: LastFound,
    /// What is under way with containers, by their names; gone with this process.
    underway: std::sync::Mutex<HashMap<String, Arc<Mutex<Underway>>>>,
}

/// What one agent tells another of a container.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    definition: Definition,
    /// The one that it is on.
    machine: Machine,
}

/// What is under way with one container.
#[derive(Debug, Default)]
struct Underway {
    standby: Option<Standby>,
    /// Of a container that runs, and whose memory follows.
    guard: Option<Guard>,
    /// Dumps of its memory since all of it was dumped ahead, that one included: each is of what
    /// was written to since the one before. 0: the next must be of all.
    dumps_ahead: u32,
    /// Of a container that is about to be frozen.
    ready: Option<Ready>,
    /// What comes for a container that stands still.
    frames: Option<Kept>,
    /// Of a frozen container, whose memory is being given out.
    page_server: Option<JoinHandle<Result<String, CommandError>>>,
}

impl LxcRuntime {
    /// Containers' veths are put on `bridge`; `program` is `carnet`.
    pub fn new(bridge: String, program: PathBuf) -> Self {
        Self {
            bridge,
            program,
            readiness: LastFound::default(),
            underway: std::sync::Mutex::new(HashMap::new()),
        }
    }

    fn underway(&self, name: &ContainerName) -> Arc<Mutex<Underway>> {
        self.underway
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(name.to_string())
            .or_default()
            .clone()
    }

    fn directory(name: &ContainerName) -> PathBuf {
        Path::new(CONTAINERS).join(name.as_str())
    }

    fn cgroup(name: &ContainerName) -> Option<Cgroup> {
        Cgroup::find(Path::new(CGROUPS), &format!("lxc.payload.{name}"))
    }

    fn is_defined(name: &ContainerName) -> bool {
        let directory = Self::directory(name);
        directory.join("config").exists() || cold::held(&directory).exists()
    }

    fn definition(name: &ContainerName) -> Done<Definition> {
        let path = Self::directory(name).join("config");
        let text = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        definition::parse(&text).map_err(|faults| {
            RuntimeError::Refused(format!(
                "the definition of `{name}` ({}) cannot move: {}",
                path.display(),
                faults.join("; ")
            ))
        })
    }

    /// The host's end of the container's veth, as its definition names it.
    async fn host_interface(name: &ContainerName) -> Done<String> {
        let path = Self::directory(name).join("config");
        let text = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        let named = text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            (key.trim() == "lxc.net.0.veth.pair").then(|| value.trim().to_owned())
        });
        if let Some(named) = named {
            return Ok(named);
        }
        // LXC chose it.
        let info = Command::new("lxc-info")
            .args(["--name", name.as_str()])
            .run()
            .await?;
        info.lines()
            .find_map(|line| line.strip_prefix("Link:"))
            .map(|link| link.trim().to_owned())
            .ok_or_else(|| RuntimeError::Refused(format!("`{name}` has no link on this edge")))
    }

    fn state(name: &ContainerName) -> ContainerState {
        if !Self::is_defined(name) {
            return ContainerState::Missing;
        }
        // Not asked of LXC: a monitor that stands by does not answer.
        match Self::cgroup(name) {
            // As it was told: what CRIU holds does not count as frozen.
            Some(cgroup) if cgroup.is_to_freeze() => ContainerState::Frozen,
            Some(cgroup) if cgroup.first_process().is_some() && standby::has_started(name) => {
                ContainerState::Running
            }
            _ => ContainerState::Stopped,
        }
    }

    fn first_process(name: &ContainerName) -> Done<u32> {
        Self::cgroup(name)
            .and_then(|cgroup| cgroup.first_process())
            .ok_or_else(|| RuntimeError::Refused(format!("`{name}` does not run")))
    }

    /// The container's first process, and the number of its network namespace.
    fn first_process_and_network(name: &ContainerName) -> Done<(u32, u64)> {
        let pid = Self::first_process(name)?;
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let found = fs::metadata(&namespace).map_err(RuntimeError::file(&namespace))?;
        Ok((pid, std::os::unix::fs::MetadataExt::ino(&found)))
    }

    /// The cgroup of a container that is alive.
    fn living_cgroup(name: &ContainerName) -> Done<Cgroup> {
        Self::cgroup(name).ok_or_else(|| {
            RuntimeError::Refused(format!("`{name}` does not run: it has no cgroup"))
        })
    }
}

/// Shows the network where a container is, for those that it sends nothing to. Nobody waits for
/// it, and that it may fail harms nobody.
fn announce(pid: u32, network: definition::Network) {
    tokio::spawn(async move {
        if let Err(error) = network::announce(pid, &network).await {
            tracing::debug!(%error, "a container was not announced");
        }
    });
}

/// Removes a directory and all below it, where it is there.
fn remove_directory(path: &Path) -> Done {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RuntimeError::file(path)(error))
        }
        _ => Ok(()),
    }
}

impl Runtime for LxcRuntime {
    async fn containers(&self) -> Done<Vec<Container>> {
        let names = match fs::read_dir(CONTAINERS) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RuntimeError::file(Path::new(CONTAINERS))(error)),
        };
        let mut containers = Vec::new();
        for entry in names.flatten() {
            let Ok(name) = ContainerName::new(&entry.file_name().to_string_lossy()) else {
                continue;
            };
            let state = Self::state(&name);
            if state != ContainerState::Missing {
                containers.push(Container {
                    name: name.to_string(),
                    state,
                });
            }
        }
        Ok(containers)
    }

    async fn recover(&self, unfinished: &[ContainerName]) {
        standby::sweep(|name| Self::cgroup(name).is_none()).await;
        let Ok(entries) = fs::read_dir(IMAGES) else {
            return;
        };
        for entry in entries.flatten() {
            let is_needed = unfinished
                .iter()
                .any(|name| name.as_str() == entry.file_name().to_string_lossy());
            if !is_needed && let Err(error) = remove_directory(&entry.path()) {
                tracing::warn!(%error, "memory images of an earlier move cannot be removed");
            }
        }
    }

    async fn placed_claim(&self, name: &ContainerName) -> Done<Option<String>> {
        claim::read(Self::first_process(name)?)
    }

    async fn problems(&self) -> Vec<String> {
        self.readiness.or_now().await.problems
    }

    async fn live_problems(&self) -> Vec<String> {
        self.readiness.or_now().await.live_problems
    }

    async fn receiving_problems(&self, container: &Described) -> Prepared {
        let Readiness {
            machine,
            live_problems: mut live,
            post_copy_problems: mut post_copy,
            ..
        } = self.readiness.or_now().await;
        live.extend(room::memory_shortage(container.memory_bytes));
        // One that cannot be read is refused anyhow.
        if let Ok(Description {
            machine: source, ..
        }) = read_description(container)
        {
            live.extend(machine.restore_problems(&source).await);
            post_copy.extend(machine.post_copy_problems(&source));
        }
        let pre_copy = room::for_images(container.memory_bytes);
        Prepared {
            post_copy_problems: post_copy,
            pre_copy_problems: pre_copy.into_iter().collect(),
            live_problems: live,
        }
    }

    async fn describe(&self, name: &ContainerName) -> Done<Described> {
        let is_stopped = match Self::state(name) {
            ContainerState::Running | ContainerState::Frozen => false,
            ContainerState::Stopped => true,
            ContainerState::Missing | ContainerState::Unknown => {
                return Err(RuntimeError::Refused(format!(
                    "there is no container `{name}` on this edge"
                )));
            }
        };
        let definition = Self::definition(name)?;
        let rootfs = self.rootfs(name);
        let memory_bytes = Self::cgroup(name).map_or(0, |cgroup| cgroup.resident_bytes());
        let Readiness {
            machine,
            live_problems,
            post_copy_problems,
            mut pre_copy_problems,
            ..
        } = self.readiness.or_now().await;
        pre_copy_problems.extend(room::for_images(memory_bytes));
        let description = Description {
            definition,
            machine,
        };
        Ok(Described {
            description: serde_json::to_value(description)
                .map_err(|error| RuntimeError::Refused(error.to_string()))?,
            memory_bytes,
            rootfs_bytes: room::used_below(&rootfs),
            post_copy_problems,
            pre_copy_problems,
            is_stopped,
            // What it has in memory is there already.
            live_problems,
        })
    }

    async fn check(&self, name: &ContainerName, container: &Described) -> Done {
        let mut problems = self.problems().await;
        if Self::is_defined(name) {
            problems.push(format!(
                "there is a container `{name}` on this edge already"
            ));
        }
        match read_description(container) {
            Ok(Description { definition, .. }) => {
                problems.extend(room::address_in_use(&definition.network));
            }
            Err(error) => problems.push(error.to_string()),
        }
        problems.extend(room::disk_shortage(container, Path::new(CONTAINERS)));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(RuntimeError::Refused(problems.join("; ")))
        }
    }

    async fn prepare(&self, name: &ContainerName, container: &Described) -> Done {
        let Description { definition, .. } = read_description(container)?;
        let rootfs = self.rootfs(name);
        fs::create_dir_all(&rootfs).map_err(RuntimeError::file(&rootfs))?;
        network::make(name, &host_interface(name), &definition.network).await?;
        self.define(name, &definition, None)
    }

    fn rootfs(&self, name: &ContainerName) -> PathBuf {
        Self::directory(name).join("rootfs")
    }

    fn mapped(&self, name: &ContainerName) -> Done<Vec<Mapped>> {
        // One that does not run writes to nothing.
        let cgroup = Self::cgroup(name);
        Ok(cgroup.map_or_else(Vec::new, |cgroup| mapped::files(&cgroup.processes())))
    }

    fn images(&self, name: &ContainerName) -> PathBuf {
        Path::new(IMAGES).join(name.as_str())
    }

    fn expect_images(&self, name: &ContainerName) -> Done {
        let images = self.images(name);
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))?;
        if room::is_in_memory(&images) {
            Ok(())
        } else {
            Err(RuntimeError::Refused(not_in_memory()))
        }
    }

    async fn use_huge_pages(&self, name: &ContainerName) {
        if let Some(cgroup) = Self::cgroup(name) {
            huge_pages::use_for(cgroup.processes()).await;
        }
    }

    async fn dump_ahead(&self, name: &ContainerName, is_first: bool) -> Done<u64> {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        let cgroup = Self::living_cgroup(name)?;
        // One that another process started.
        Self::end_page_server(&mut underway, &cgroup).await?;
        if is_first {
            underway.dumps_ahead = 0;
            remove_directory(&self.images(name))?;
        }
        // Whoever begins to count anew what is written to has to come to the end of it.
        let before = std::mem::take(&mut underway.dumps_ahead);
        if before == 0 && !is_first {
            return Err(RuntimeError::Refused(format!(
                "it is not known what `{name}` has written to in memory since"
            )));
        }
        self.expect_images(name)?;
        let images = self.images(name).join(criu::ahead(before + 1));
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))?;
        let (pid, network) = Self::first_process_and_network(name)?;
        criu::dump_ahead(pid, network, &images, before)
            .await
            .map_err(RuntimeError::Refused)?;
        underway.dumps_ahead = before + 1;
        Ok(room::used_below(&images))
    }

    async fn ready_to_freeze(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        underway.ready = Some(self.ready(name).await?);
        Ok(())
    }

    async fn freeze(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        let cgroup = Self::living_cgroup(name)?;
        let mut ready = match underway.ready.take() {
            Some(ready) => ready,
            None => self.ready(name).await?,
        };
        cgroup
            .freeze()
            .await
            .map_err(RuntimeError::file(cgroup.path()))?;
        if underway.frames.is_none() {
            underway.frames = ready.listener.take().inspect(Kept::forget);
        }
        network::leave(&ready.host_interface).map_err(RuntimeError::Refused)?;
        underway.ready = Some(ready);
        Ok(())
    }

    async fn dump(&self, name: &ContainerName, strategy: Strategy) -> Done<Option<Pages>> {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        let cgroup = Self::living_cgroup(name)?;
        Self::end_page_server(&mut underway, &cgroup).await?;
        // A process that a signal wakes leaves the freezer for a moment, and is back at once.
        if !cgroup.is_to_freeze() || !wait_until(|| cgroup.is_frozen()).await {
            return Err(RuntimeError::Refused(format!("`{name}` is not frozen")));
        }
        // This dump begins to count anew what is written to: another has to be of all.
        let dumps_ahead = match (std::mem::take(&mut underway.dumps_ahead), strategy) {
            (dumps, Strategy::PreCopy) => dumps,
            (_, Strategy::StopAndCopy | Strategy::PostCopy | Strategy::Cold) => 0,
        };
        let images = self.images(name);
        // Of a dump that is done again.
        let mut waiting = frames::load(&images).unwrap_or_else(|error| {
            frames::are_lost(name, &error);
            Vec::new()
        });
        if dumps_ahead == 0 {
            remove_directory(&images)?;
        }
        self.expect_images(name)?;
        let (pid, network_inode) = Self::first_process_and_network(name)?;
        let Ready { dumper, grace, .. } = match underway.ready.take() {
            Some(ready) => ready,
            None => self.ready(name).await?,
        };
        let what = criu::Dumped {
            pid,
            network_inode,
            cgroup: cgroup.path(),
            images: &images,
        };
        let dumped = match strategy {
            Strategy::StopAndCopy | Strategy::PreCopy => {
                dumper.dump(&what, dumps_ahead).await.map(|()| None)
            }
            Strategy::PostCopy => dumper.dump_all_but_pages(&what).await.map(|server| {
                underway.page_server = Some(server.ended);
                Some(Box::new(server.pages) as Pages)
            }),
            Strategy::Cold => Err("a cold move carries no memory".to_owned()),
        };
        drop(grace);
        // CRIU thaws the cgroup while it holds the processes itself, and freezes it again as its
        // last act: one that dies, or that still gives out memory, would let them run.
        cgroup
            .freeze()
            .await
            .map_err(RuntimeError::file(cgroup.path()))?;
        // Also where it has failed: whatever comes next, what was there before is found again.
        if let Some(kept) = &underway.frames {
            waiting.extend(kept.take());
            let _ = frames::save(&waiting, &images).map_err(|error| frames::are_lost(name, &error));
        }
        dumped.map_err(RuntimeError::Refused)
    }

    async fn thaw(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        underway.dumps_ahead = 0;
        underway.ready = None;
        if let Some(cgroup) = Self::cgroup(name) {
            Self::end_page_server(&mut underway, &cgroup).await?;
            let host_interface = Self::host_interface(name).await?;
            network::join(&host_interface, &self.bridge).map_err(RuntimeError::Refused)?;
            // What was to go over, and what has come since.
            self.hand_in_saved(name, &host_interface);
            if let Some(kept) = underway.frames.take() {
                let _ = frames::hand_in(&kept.take(), &host_interface)
                    .map_err(|error| frames::are_lost(name, &error));
            }
            cgroup.thaw().map_err(RuntimeError::file(cgroup.path()))?;
            // It may have been heard from elsewhere meanwhile.
            if let (Ok(definition), Some(pid)) = (Self::definition(name), cgroup.first_process()) {
                announce(pid, definition.network);
            }
        }
        remove_directory(&self.images(name))
    }

    async fn stand_by(&self, name: &ContainerName, strategy: Strategy) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        if strategy == Strategy::Cold {
            return standby::has_not_run(name).map_err(RuntimeError::Refused);
        }
        self.begin(name, strategy, &mut underway).await
    }

    async fn restore(
        &self,
        name: &ContainerName,
        strategy: Strategy,
        pages: Option<Pages>,
    ) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        if Self::state(name) == ContainerState::Running
            || underway.standby.as_ref().is_some_and(Standby::is_restored)
        {
            return Ok(());
        }
        if strategy == Strategy::Cold {
            return standby::has_not_run(name).map_err(RuntimeError::Refused);
        }
        if strategy == Strategy::PostCopy && pages.is_none() {
            return Err(RuntimeError::Refused(format!(
                "the memory of `{name}` that was to follow cannot be had any more"
            )));
        }
        if underway.standby.is_none() {
            self.begin(name, strategy, &mut underway).await?;
        }
        let Some(mut standby) = underway.standby.take() else {
            return Ok(());
        };
        match standby.restore(pages).await {
            Ok(()) => {
                underway.standby = Some(standby);
                Ok(())
            }
            Err(problem) => {
                standby.stop().await;
                Err(RuntimeError::Refused(problem))
            }
        }
    }

    async fn start(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        if !Self::is_defined(name) {
            return Ok(());
        }
        let definition = Self::definition(name)?;
        let host_interface = Self::host_interface(name).await?;
        let alive = Self::cgroup(name).is_some_and(|cgroup| cgroup.first_process().is_some());
        match underway.standby.take() {
            Some(mut standby) => {
                // Before it runs: what the kernel sends as its sockets come to life shows the
                // network where it is now.
                network::join(&host_interface, &self.bridge).map_err(RuntimeError::Refused)?;
                self.hand_in_saved(name, &host_interface);
                match standby.start().await {
                    Ok(guard) => underway.guard = guard,
                    Err(problem) => {
                        // CRIU has killed what it did not get to run.
                        network::leave(&host_interface).map_err(RuntimeError::Refused)?;
                        standby::has_failed(name).map_err(RuntimeError::Refused)?;
                        return Err(RuntimeError::Refused(problem));
                    }
                }
                standby::is_known_to_run(name).map_err(RuntimeError::Refused)?;
            }
            None if alive => {
                standby::is_known_to_run(name).map_err(RuntimeError::Refused)?;
                network::join(&host_interface, &self.bridge).map_err(RuntimeError::Refused)?;
            }
            // It has run, and ended since.
            None if standby::has_run(name) => return Ok(()),
            None => {
                return Err(RuntimeError::Refused(format!(
                    "`{name}` was told to run as the agent died, and does not run: it is not known whether it did; see {}",
                    standby::directory(name).display()
                )));
            }
        }
        // Where it is restored, CRIU would put it on the bridge that stands there, and too early.
        self.define(name, &definition, Some(self.bridge.clone()))?;
        if let Some(pid) = Self::cgroup(name).and_then(|cgroup| cgroup.first_process()) {
            announce(pid, definition.network);
        }
        Ok(())
    }

    fn has_started(&self, name: &ContainerName) -> bool {
        standby::has_started(name)
    }

    fn is_stopped(&self, name: &ContainerName) -> bool {
        Self::is_defined(name) && Self::is_over(name)
    }

    async fn stop(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let _underway = underway.lock().await;
        self.end(name).await
    }

    async fn boot(&self, name: &ContainerName, runs: bool) -> Done {
        let underway = self.underway(name);
        let _underway = underway.lock().await;
        if !Self::is_defined(name) {
            return Ok(());
        }
        let directory = Self::directory(name);
        if cold::held(&directory).exists() {
            match runs {
                // Whoever held it may have died before it had ended, or before that was known.
                true => self.end(name).await?,
                false => remove_directory(&standby::directory(name))?,
            }
            cold::let_go(&directory)?;
        }
        if !Self::is_on_a_bridge(name)? {
            self.define(name, &Self::definition(name)?, Some(self.bridge.clone()))?;
        }
        if !Self::is_over(name) {
            standby::is_let_run(name).map_err(RuntimeError::Refused)?;
            if runs {
                cold::await_running(name).await?;
            }
            return standby::is_known_to_run(name).map_err(RuntimeError::Refused);
        }
        // It has run, and ended since.
        if standby::is_known(name) && standby::has_run(name) {
            return Ok(());
        }
        // LXC makes a network of its own, with an interface of the same name.
        network::remove(name, &host_interface(name)).await?;
        standby::is_let_run(name).map_err(RuntimeError::Refused)?;
        if runs {
            if let Err(problem) = cold::start(name).await {
                if let Some(cgroup) = Self::cgroup(name) {
                    let killed = cgroup.kill().await;
                    killed.map_err(RuntimeError::file(cgroup.path()))?;
                }
                if !wait_until(|| Self::is_over(name)).await {
                    return Err(RuntimeError::Refused(format!(
                        "{problem}; and something of `{name}` runs still: see lxc-info -n {name}"
                    )));
                }
                standby::has_failed(name).map_err(RuntimeError::Refused)?;
                return Err(RuntimeError::Refused(problem));
            }
            let first = Self::cgroup(name).and_then(|cgroup| cgroup.first_process());
            if let (Ok(definition), Some(pid)) = (Self::definition(name), first) {
                announce(pid, definition.network);
            }
        }
        standby::is_known_to_run(name).map_err(RuntimeError::Refused)
    }

    async fn settle(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        // A guard says it once; after that, it stands where it wrote it.
        let mut guard = underway.guard.take();
        let outcome = match &mut guard {
            Some(guard) => guard.settle().await,
            None if standby::is_guarded(name) => {
                guard::await_outcome(&standby::directory(name)).await
            }
            None => Err(
                "nothing is known of the memory that was to follow: the machine has started anew, \
                 and what ran is gone"
                    .to_owned(),
            ),
        };
        if let Err(problem) = outcome {
            // The guard has done this, unless it died itself.
            if let Some(cgroup) = Self::cgroup(name) {
                cgroup
                    .kill()
                    .await
                    .map_err(RuntimeError::file(cgroup.path()))?;
            }
            if let Some(guard) = &mut guard {
                guard.stop_pages();
            }
            return Err(RuntimeError::Refused(problem));
        }
        Ok(())
    }

    async fn forget_images(&self, name: &ContainerName) -> Done {
        remove_directory(&self.images(name))
    }

    async fn remove(&self, name: &ContainerName) -> Done {
        let underway = self.underway(name);
        let mut underway = underway.lock().await;
        if let Some(standby) = underway.standby.take() {
            standby.stop().await;
        }
        *underway = Underway::default();
        remove_directory(&self.images(name))?;
        if !Self::directory(name).exists() {
            return Ok(());
        }
        let host_interface = match Self::is_defined(name) {
            true => Self::host_interface(name).await.ok(),
            false => None,
        }
        .unwrap_or_else(|| host_interface(name));
        if let Some(cgroup) = Self::cgroup(name) {
            cgroup
                .kill()
                .await
                .map_err(RuntimeError::file(cgroup.path()))?;
        }
        // Nothing of it runs any more: nobody needs its files, and they take longest.
        let rootfs = self.rootfs(name);
        let files = tokio::task::spawn_blocking(move || remove_directory(&rootfs));
        let rest = async {
            // LXC's monitor notices, and tidies up after it.
            if !wait_until(|| Self::is_over(name)).await {
                return Err(RuntimeError::Refused(format!(
                    "`{name}` was killed, but its LXC monitor does not end; see lxc-info -n {name}"
                )));
            }
            Ok(network::remove(name, &host_interface).await?)
        };
        let (files, rest) = tokio::join!(files, rest);
        rest?;
        files.map_err(|error| RuntimeError::Refused(error.to_string()))??;
        remove_directory(&standby::directory(name))?;
        remove_directory(&Self::directory(name))
    }
}

impl LxcRuntime {
    async fn ready(&self, name: &ContainerName) -> Done<Ready> {
        let mac = Self::definition(name)?.network.mac;
        let host_interface = Self::host_interface(name).await?;
        Ready::begin(name, mac, host_interface, &self.bridge).map_err(RuntimeError::Refused)
    }

    /// Hands a container the frames that are among its images.
    fn hand_in_saved(&self, name: &ContainerName, host_interface: &str) {
        let _ = frames::load(&self.images(name))
            .and_then(|frames| frames::hand_in(&frames, host_interface))
            .map_err(|error| frames::are_lost(name, &error));
    }

    /// Whether nothing of a container runs, and LXC knows it.
    fn is_over(name: &ContainerName) -> bool {
        Self::cgroup(name).is_none()
    }

    /// Holds a container, and shuts it down.
    async fn end(&self, name: &ContainerName) -> Done {
        cold::hold(&Self::directory(name))?;
        if let Some(cgroup) = Self::cgroup(name) {
            cold::shut_down(name, &cgroup, || Self::is_over(name)).await?;
        }
        // What is known is of the time before.
        remove_directory(&standby::directory(name))
    }

    /// Whether its definition puts a container on a bridge; that of one that has only been
    /// prepared does not.
    fn is_on_a_bridge(name: &ContainerName) -> Done<bool> {
        let path = Self::directory(name).join("config");
        let text = fs::read_to_string(&path).map_err(RuntimeError::file(&path))?;
        let mut keys = text.lines().filter_map(|line| line.split_once('='));
        Ok(keys.any(|(key, _)| key.trim() == "lxc.net.0.link"))
    }

    /// Writes a container's definition down, whole or not at all.
    fn define(
        &self,
        name: &ContainerName,
        definition: &Definition,
        bridge: Option<String>,
    ) -> Done {
        let place = ContainerPlace {
            rootfs: format!("dir:{}", self.rootfs(name).display()),
            bridge,
            host_interface: host_interface(name),
        };
        let config = Self::directory(name).join("config");
        let new = Self::directory(name).join("config.new");
        fs::write(&new, definition.config(&place))
            .and_then(|()| fs::rename(&new, &config))
            .map_err(RuntimeError::file(&config))
    }

    /// Has LXC stand by, in place of whatever stood by before.
    async fn begin(
        &self,
        name: &ContainerName,
        strategy: Strategy,
        underway: &mut Underway,
    ) -> Done {
        if let Some(before) = underway.standby.take() {
            before.stop().await;
        }
        // LXC's monitor of before outlives its command for a moment.
        if !wait_until(|| Self::cgroup(name).is_none()).await {
            return Err(RuntimeError::Refused(format!(
                "something of `{name}` runs here; see lxc-info -n {name}"
            )));
        }
        let definition = Self::definition(name)?;
        let host_interface = Self::host_interface(name).await?;
        self.expect_images(name)?;
        if !network::namespace_path(name).exists() {
            network::make(name, &host_interface, &definition.network).await?;
        }
        let criu = which("criu")
            .ok_or_else(|| RuntimeError::Refused("criu is missing: apt install criu".to_owned()))?;
        let pages = match strategy {
            Strategy::StopAndCopy | Strategy::PreCopy | Strategy::Cold => None,
            Strategy::PostCopy => {
                let layout = self.readiness.or_now().await.machine.layout();
                Some(layout.ok_or_else(|| {
                    RuntimeError::Refused("criu does not say which version it is".to_owned())
                })?)
            }
        };
        let standby = Standby::begin(standby::Begin {
            name,
            images: &self.images(name),
            network: &network::namespace_path(name),
            pages,
            program: &self.program,
            criu: &criu,
        })
        .await
        .map_err(RuntimeError::Refused)?;
        underway.standby = Some(standby);
        Ok(())
    }

    /// Waits until CRIU has let go of a frozen container whose pages nobody asks for any more.
    async fn end_page_server(underway: &mut Underway, cgroup: &Cgroup) -> Done {
        if let Some(server) = underway.page_server.take()
            && let Ok(Err(error)) = server.await
        {
            tracing::debug!(%error, "a page server has ended");
        }
        // One that another process started.
        if wait_until(|| !cgroup.is_traced()).await {
            Ok(())
        } else {
            Err(RuntimeError::Refused(
                "CRIU does not let go of its processes; see: ps -C criu".to_owned(),
            ))
        }
    }
}

/// A definition from another machine.
fn read_description(container: &Described) -> Done<Description> {
    let description: Description = serde_json::from_value(container.description.clone())
        .map_err(|error| RuntimeError::Refused(format!("the description is not LXC's: {error}")))?;
    description.definition.validate().map_err(|faults| {
        RuntimeError::Refused(format!("the description is refused: {}", faults.join("; ")))
    })?;
    Ok(description)
}
