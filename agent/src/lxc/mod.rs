//! Containers of LXC, moved by CRIU.

mod cgroup;
mod claim;
pub mod criu;
pub mod definition;
mod network;
mod room;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use carnet_api::agent::{Container, Described};
use carnet_api::v1::ContainerState;
use tokio::sync::Mutex;

use self::cgroup::{Cgroup, wait_until};
use self::definition::{ContainerPlace, Definition, host_interface};
use crate::exec::Command;
use crate::runtime::{ContainerName, Done, Runtime, RuntimeError};

/// Where LXC keeps its containers.
const CONTAINERS: &str = "/var/lib/lxc";
/// Where the v2 hierarchy is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Where memory images go; on tmpfs.
const IMAGES: &str = "/run/carnet/images";
/// How long what was found out about the machine is believed.
const PROBLEMS_AGE: Duration = Duration::from_secs(60);

/// The containers of LXC on this machine.
#[derive(Debug)]
pub struct LxcRuntime {
    /// The bridge that containers are on.
    bridge: String,
    /// What was found out about the machine, and when.
    problems: Mutex<Option<(Instant, Vec<String>)>>,
}

impl LxcRuntime {
    /// Containers' veths are put on `bridge`.
    pub fn new(bridge: String) -> Self {
        Self {
            bridge,
            problems: Mutex::new(None),
        }
    }

    fn directory(name: &ContainerName) -> PathBuf {
        Path::new(CONTAINERS).join(name.as_str())
    }

    fn cgroup(name: &ContainerName) -> Option<Cgroup> {
        Cgroup::find(Path::new(CGROUPS), &format!("lxc.payload.{name}"))
    }

    fn is_defined(name: &ContainerName) -> bool {
        Self::directory(name).join("config").exists()
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

    async fn state(name: &ContainerName) -> Done<ContainerState> {
        if !Self::is_defined(name) {
            return Ok(ContainerState::Missing);
        }
        if Self::cgroup(name).is_some_and(|cgroup| cgroup.is_frozen()) {
            return Ok(ContainerState::Frozen);
        }
        let state = Command::new("lxc-info")
            .args(["--name", name.as_str(), "--state", "--no-humanize"])
            .run()
            .await?;
        Ok(match state.trim() {
            "RUNNING" => ContainerState::Running,
            "FROZEN" => ContainerState::Frozen,
            _ => ContainerState::Stopped,
        })
    }

    async fn first_process(name: &ContainerName) -> Done<u32> {
        let pid = Command::new("lxc-info")
            .args(["--name", name.as_str(), "--pid", "--no-humanize"])
            .run()
            .await?;
        pid.trim()
            .parse()
            .map_err(|_| RuntimeError::Refused(format!("`{name}` does not run")))
    }

    /// The cgroup of a container that is alive.
    fn living_cgroup(name: &ContainerName) -> Done<Cgroup> {
        Self::cgroup(name).ok_or_else(|| {
            RuntimeError::Refused(format!("`{name}` does not run: it has no cgroup"))
        })
    }

    async fn find_problems() -> Vec<String> {
        let mut problems = Vec::new();
        if !nix::unistd::geteuid().is_root() {
            problems.push("the agent does not run as root".to_owned());
        }
        if !Path::new(CGROUPS).join("cgroup.procs").exists() {
            problems.push(format!(
                "cgroup v2 is not mounted at {CGROUPS}; boot with systemd.unified_cgroup_hierarchy=1"
            ));
        }
        for (program, package) in [
            ("lxc-info", "lxc"),
            ("lxc-checkpoint", "lxc"),
            ("ip", "iproute2"),
            ("arping", "iputils-arping"),
        ] {
            if which(program).is_none() {
                problems.push(format!("{program} is missing: apt install {package}"));
            }
        }
        if which("criu").is_none() {
            problems.push("criu is missing: apt install criu".to_owned());
        } else {
            problems.extend(criu::problems(&crate::detect::kernel()).await);
        }
        problems
    }
}

/// Where a program is, if it is anywhere in `PATH`.
fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
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
            let state = Self::state(&name).await?;
            if state != ContainerState::Missing {
                containers.push(Container {
                    name: name.to_string(),
                    state,
                });
            }
        }
        Ok(containers)
    }

    async fn placed_claim(&self, name: &ContainerName) -> Done<Option<String>> {
        let pid = Self::first_process(name).await?;
        claim::read(pid)
    }

    async fn problems(&self) -> Vec<String> {
        let mut known = self.problems.lock().await;
        if let Some((found_out, problems)) = known.as_ref()
            && found_out.elapsed() < PROBLEMS_AGE
        {
            return problems.clone();
        }
        let problems = Self::find_problems().await;
        *known = Some((Instant::now(), problems.clone()));
        problems
    }

    async fn describe(&self, name: &ContainerName) -> Done<Described> {
        match Self::state(name).await? {
            ContainerState::Running | ContainerState::Frozen => {}
            ContainerState::Missing => {
                return Err(RuntimeError::Refused(format!(
                    "there is no container `{name}` on this edge"
                )));
            }
            ContainerState::Stopped | ContainerState::Unknown => {
                return Err(RuntimeError::Refused(format!(
                    "`{name}` is stopped; start it (lxc-start -n {name}), then move it"
                )));
            }
        }
        let definition = Self::definition(name)?;
        let rootfs = self.rootfs(name);
        Ok(Described {
            description: serde_json::to_value(definition)
                .map_err(|error| RuntimeError::Refused(error.to_string()))?,
            memory_bytes: Self::living_cgroup(name)?.resident_bytes(),
            rootfs_bytes: room::used_below(&rootfs),
        })
    }

    async fn check(&self, name: &ContainerName, container: &Described) -> Done {
        let mut problems = self.problems().await;
        if Self::is_defined(name) {
            problems.push(format!(
                "there is a container `{name}` on this edge already"
            ));
        }
        match read_definition(container) {
            Ok(definition) => problems.extend(room::address_in_use(&definition.network)),
            Err(error) => problems.push(error.to_string()),
        }
        problems.extend(room::shortage(container, Path::new(CONTAINERS)));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(RuntimeError::Refused(problems.join("; ")))
        }
    }

    async fn prepare(&self, name: &ContainerName, container: &Described) -> Done {
        let definition = read_definition(container)?;
        let rootfs = self.rootfs(name);
        fs::create_dir_all(&rootfs).map_err(RuntimeError::file(&rootfs))?;
        self.make_images_directory(name)?;
        let place = ContainerPlace {
            rootfs: format!("dir:{}", rootfs.display()),
            bridge: self.bridge.clone(),
            host_interface: host_interface(name),
        };
        network::make(name, &place.host_interface, &definition.network).await?;
        let config = Self::directory(name).join("config");
        fs::write(&config, definition.config(&place)).map_err(RuntimeError::file(&config))
    }

    fn rootfs(&self, name: &ContainerName) -> PathBuf {
        Self::directory(name).join("rootfs")
    }

    fn images(&self, name: &ContainerName) -> PathBuf {
        Path::new(IMAGES).join(name.as_str())
    }

    async fn freeze(&self, name: &ContainerName) -> Done {
        let cgroup = Self::living_cgroup(name)?;
        let host_interface = Self::host_interface(name).await?;
        cgroup
            .freeze()
            .await
            .map_err(RuntimeError::file(cgroup.path()))?;
        network::leave(&host_interface).await?;
        Ok(())
    }

    async fn dump(&self, name: &ContainerName) -> Done {
        let cgroup = Self::living_cgroup(name)?;
        // A process that a signal wakes leaves the freezer for a moment, and is back at once.
        if !cgroup.is_to_freeze() || !wait_until(|| cgroup.is_frozen()).await {
            return Err(RuntimeError::Refused(format!("`{name}` is not frozen")));
        }
        self.forget_images(name).await?;
        self.make_images_directory(name)?;
        let pid = Self::first_process(name).await?;
        let namespace = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let inode = std::os::unix::fs::MetadataExt::ino(
            &fs::metadata(&namespace).map_err(RuntimeError::file(&namespace))?,
        );
        criu::dump(pid, inode, cgroup.path(), &self.images(name))
            .await
            .map_err(RuntimeError::Refused)
    }

    async fn thaw(&self, name: &ContainerName) -> Done {
        if let Some(cgroup) = Self::cgroup(name) {
            let host_interface = Self::host_interface(name).await?;
            network::join(&host_interface, &self.bridge).await?;
            cgroup.thaw().map_err(RuntimeError::file(cgroup.path()))?;
        }
        self.forget_images(name).await
    }

    async fn restore(&self, name: &ContainerName) -> Done {
        let definition = Self::definition(name)?;
        let host_interface = Self::host_interface(name).await?;
        if Self::state(name).await? != ContainerState::Running {
            if !network::namespace_path(name).exists() {
                network::make(name, &host_interface, &definition.network).await?;
            }
            criu::restore(
                name.as_str(),
                &self.images(name),
                &network::namespace_path(name),
            )
            .await
            .map_err(RuntimeError::Refused)?;
        }
        Ok(())
    }

    async fn connect(&self, name: &ContainerName) -> Done {
        if Self::cgroup(name).is_none() {
            return Ok(());
        }
        let definition = Self::definition(name)?;
        let host_interface = Self::host_interface(name).await?;
        network::join(&host_interface, &self.bridge).await?;
        network::announce(name, &definition.network).await?;
        Ok(())
    }

    async fn forget_images(&self, name: &ContainerName) -> Done {
        remove_directory(&self.images(name))
    }

    async fn remove(&self, name: &ContainerName) -> Done {
        self.forget_images(name).await?;
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
        // LXC's monitor notices, and tidies up after it.
        if !wait_until(|| Self::cgroup(name).is_none()).await {
            return Err(RuntimeError::Refused(format!(
                "`{name}` was killed, but its LXC monitor does not end; see lxc-info -n {name}"
            )));
        }
        network::remove(name, &host_interface).await?;
        remove_directory(&Self::directory(name))
    }
}

impl LxcRuntime {
    fn make_images_directory(&self, name: &ContainerName) -> Done {
        let images = self.images(name);
        fs::create_dir_all(&images).map_err(RuntimeError::file(&images))?;
        if room::is_in_memory(&images) {
            Ok(())
        } else {
            Err(RuntimeError::Refused(format!(
                "{} is not on tmpfs; memory images must not reach a disk: mount a tmpfs at /run",
                images.display()
            )))
        }
    }
}

/// A definition from another machine.
fn read_definition(container: &Described) -> Done<Definition> {
    let definition: Definition = serde_json::from_value(container.description.clone())
        .map_err(|error| RuntimeError::Refused(format!("the description is not LXC's: {error}")))?;
    definition.validate().map_err(|faults| {
        RuntimeError::Refused(format!("the description is refused: {}", faults.join("; ")))
    })?;
    Ok(definition)
}
