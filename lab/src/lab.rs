//! A lab: hosts on one network, on one machine, and their end.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

use crate::cgroup::Hierarchies;
use crate::error::LabError;
use crate::exec::{tool, wait_until};
use crate::host::{Host, Kind, wire};
use crate::init::{HostSpec, READY};
use crate::progress::{Progress, tell};
use crate::root::Root;

/// Where labs that are up are remembered.
const RUN: &str = "/run/carnet-lab";
/// Where their hosts write.
const STATE: &str = "/var/lib/carnet-lab";
/// The longest name of a lab, in characters.
pub(crate) const MAX_NAME: usize = 32;

/// What a lab is to be.
#[derive(Debug, Clone)]
pub struct LabSpec {
    /// Labs with different names do not touch each other. Letters, digits and `-`, at most 32.
    pub name: String,
    /// The names of its edges.
    pub edges: Vec<String>,
    /// The names of hosts that are a network and no more.
    pub others: Vec<String>,
    /// The program `carnet-lab`; it becomes the hosts' first process.
    pub program: PathBuf,
    /// A directory of the machine that every edge sees at `/opt/carnet`.
    pub programs: PathBuf,
    /// Whether the containers of each edge are on a file system of its own, as on real ones, or all
    /// on the machine's, below an overlay: for measuring what depends on it. It needs `mke2fs` and
    /// loop devices.
    pub own_disks: bool,
}

/// A lab that is up. Dropped, it goes away with all that runs in it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    hosts: Vec<Host>,
    /// The first stages of its edges, by their names.
    stages: HashMap<String, Child>,
    /// A directory of the machine that every edge sees.
    programs: PathBuf,
    own_disks: bool,
    root: Root,
    lock: Option<Flock<fs::File>>,
    stays: bool,
}

/// Everything that keeps this machine from running a lab.
pub fn unfit() -> Vec<String> {
    let mut missing = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        missing.push("root: namespaces, mounts and CRIU need it; run it as root".to_owned());
    }
    if Hierarchies::find().is_none() {
        missing.push(
            "cgroup v2: it is mounted nowhere; mount -t cgroup2 none /sys/fs/cgroup".to_owned(),
        );
    }
    for namespace in ["mnt", "pid", "net", "uts", "ipc", "cgroup"] {
        if !Path::new("/proc/self/ns").join(namespace).exists() {
            missing.push(format!("{namespace} namespaces: the kernel has none"));
        }
    }
    let file_systems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !file_systems.contains("overlay") && tool("modprobe", &["overlay"]).is_err() {
        missing.push("overlayfs: the kernel has none".to_owned());
    }
    missing.extend(missing_programs(&[
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("nsenter", "util-linux"),
        ("chroot", "coreutils"),
    ]));
    // Whoever has a root need not be able to build one.
    if !Root::is_built() {
        missing.extend(missing_programs(&[("debootstrap", "debootstrap")]));
    }
    missing
}

/// Of programs and their packages, those that are not there.
pub(crate) fn missing_programs(needed: &[(&str, &str)]) -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
    };
    needed
        .iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(program, package)| format!("{program}: apt install {package}"))
        .collect()
}

impl Lab {
    /// Builds a lab.
    ///
    /// # Errors
    /// Where this machine cannot, or a lab of that name is up. What was begun goes away.
    pub fn start(spec: &LabSpec, progress: &Progress) -> Result<Self, LabError> {
        check_name(&spec.name)?;
        let missing = unfit();
        if !missing.is_empty() {
            return Err(LabError::Unfit(missing));
        }
        let root = Root::ensure(progress)?;
        let lock = lock(&spec.name)?;
        if stay_marker(&spec.name).exists() {
            return Err(LabError::LeftUp(spec.name.clone()));
        }
        // What an owner that was killed has left.
        remove(&spec.name)?;
        let mut lab = Self {
            name: spec.name.clone(),
            hosts: Vec::new(),
            stages: HashMap::new(),
            programs: spec.programs.clone(),
            own_disks: spec.own_disks,
            root,
            lock: Some(lock),
            stays: false,
        };
        lab.build(spec)?;
        Ok(lab)
    }

    fn build(&mut self, spec: &LabSpec) -> Result<(), LabError> {
        let run = run_directory(&self.name);
        fs::create_dir_all(&run).map_err(LabError::file(&run))?;
        let fabric = fabric(&self.name);
        tool("ip", &["netns", "add", &fabric])?;
        let in_fabric = |arguments: &[&str]| {
            tool(
                "ip",
                &[["-n", fabric.as_str()].as_slice(), arguments].concat(),
            )
        };
        in_fabric(&[
            "link",
            "add",
            "fabric",
            "address",
            "02:88:ff:ff:00:01",
            "type",
            "bridge",
        ])?;
        in_fabric(&["link", "set", "fabric", "up"])?;
        let hierarchies = Hierarchies::find()
            .ok_or_else(|| LabError::Other("cgroup v2 is not mounted".to_owned()))?;

        let edges = spec.edges.iter().map(|name| (name, Kind::Edge));
        let others = spec.others.iter().map(|name| (name, Kind::NetworkOnly));
        for (number, (name, kind)) in (1u8..).zip(edges.chain(others)) {
            hierarchies.make(&self.name, name)?;
            if kind == Kind::Edge {
                self.begin_edge(&spec.program, name)?;
            }
            self.hosts.push(Host {
                lab: self.name.clone(),
                name: name.clone(),
                kind,
                address: Ipv4Addr::new(10, 88, 1, number),
                pid: None,
                program: spec.program.clone(),
            });
        }
        for (number, host) in (1u8..).zip(&mut self.hosts) {
            if host.kind == Kind::Edge {
                host.pid = Some(await_edge(&self.name, &host.name)?);
            }
            wire(host, &fabric, number)?;
        }
        Ok(())
    }

    /// Starts an edge's first process. It writes its id where [`await_edge`] finds it.
    fn begin_edge(&mut self, program: &Path, name: &str) -> Result<(), LabError> {
        let directory = state_directory(&self.name).join(name);
        fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
        let host = HostSpec {
            lab: self.name.clone(),
            name: name.to_owned(),
            root: self.root.path().to_owned(),
            directory,
            programs: self.programs.clone(),
            pid_file: pid_file(&self.name, name),
            has_own_disk: self.own_disks,
        };
        let text =
            serde_json::to_string(&host).map_err(|error| LabError::Other(error.to_string()))?;
        let log_path = run_directory(&self.name).join(format!("{name}.log"));
        let log = fs::File::create(&log_path).map_err(LabError::file(&log_path))?;
        let stage = Command::new(program)
            .args(["host", "first", &text])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C on the owner's terminal is the owner's alone to answer.
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::NotRun {
                command: program.display().to_string(),
                source,
            })?;
        self.stages.insert(name.to_owned(), stage);
        Ok(())
    }

    /// Ends an edge as a cut of its power would, and begins it anew: what was on its disk is there
    /// again, and nothing else.
    ///
    /// # Errors
    /// Where there is no such edge, or it does not come up.
    pub fn restart(&mut self, name: &str) -> Result<(), LabError> {
        let host = self.host(name)?.clone();
        let [.., number] = host.address.octets();
        let hierarchies = Hierarchies::find()
            .ok_or_else(|| LabError::Other("cgroup v2 is not mounted".to_owned()))?;
        hierarchies.remove_host(&self.name, name)?;
        if let Some(mut stage) = self.stages.remove(name) {
            stage
                .wait()
                .map_err(LabError::file(Path::new("the first stage")))?;
        }
        tool("ip", &["netns", "del", &host.network()])?;
        // Or it would be taken for the new one's.
        let pid_file = pid_file(&self.name, name);
        fs::remove_file(&pid_file).map_err(LabError::file(&pid_file))?;
        hierarchies.make(&self.name, name)?;
        self.begin_edge(&host.program, name)?;
        let pid = Some(await_edge(&self.name, name)?);
        let host = Host { pid, ..host };
        // The kernel takes a moment to remove what was on the other end of the cable.
        let fabric = fabric(&self.name);
        let port = format!("v{number}");
        wait_until(&format!("the end of {port}"), 10, || {
            tool("ip", &["-n", &fabric, "link", "show", &port]).is_err()
        })?;
        wire(&host, &fabric, number)?;
        if let Some(known) = self.hosts.iter_mut().find(|known| known.name == name) {
            *known = host;
        }
        Ok(())
    }

    /// # Errors
    /// Where there is no such host.
    pub fn host(&self, name: &str) -> Result<&Host, LabError> {
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .ok_or_else(|| LabError::NoHost(name.to_owned()))
    }

    /// A directory of the lab's own, for what runs in it; gone with the lab.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn directory(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = state_directory(&self.name).join(name);
        fs::create_dir_all(&path).map_err(LabError::file(&path))?;
        Ok(path)
    }

    /// Leaves the lab up when it is dropped; [`down`] ends it.
    ///
    /// # Errors
    /// Where that cannot be remembered.
    pub fn leave_up(&mut self) -> Result<(), LabError> {
        let path = stay_marker(&self.name);
        fs::write(&path, "").map_err(LabError::file(&path))?;
        self.stays = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.stays {
            if let Err(error) = remove(&self.name) {
                tell(&format!(
                    "the lab `{}` could not be removed whole: {error}",
                    self.name
                ));
            }
            for mut stage in self.stages.drain().map(|(_, stage)| stage) {
                // It was killed with its host; what it says of that is of no use.
                let _ = stage.kill();
                let _ = stage.wait();
            }
        }
        drop(self.lock.take());
    }
}

/// Ends a lab that was left up, or that an owner which was killed has left. Fine where there is
/// none.
///
/// # Errors
/// Where its owner is alive, or something of it cannot be removed.
pub fn down(name: &str) -> Result<(), LabError> {
    check_name(name)?;
    let _lock = lock(name)?;
    remove(name)
}

/// Names become parts of paths, which are removed in the end.
fn check_name(name: &str) -> Result<(), LabError> {
    let is_one = (1..=MAX_NAME).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if is_one {
        Ok(())
    } else {
        Err(LabError::Name(name.to_owned()))
    }
}

/// Held by a lab's owner for as long as it lives.
fn lock(name: &str) -> Result<Flock<fs::File>, LabError> {
    let run = Path::new(RUN);
    fs::create_dir_all(run).map_err(LabError::file(run))?;
    let path = run.join(format!("{name}.lock"));
    let file = fs::File::create(&path).map_err(LabError::file(&path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| LabError::InUse(name.to_owned()))
}

/// Removes all that a lab of this name can have left, in whatever state: everything that belongs
/// to it carries its name. Mounts are in its hosts' namespaces, and end with their processes.
fn remove(name: &str) -> Result<(), LabError> {
    if let Some(hierarchies) = Hierarchies::find() {
        hierarchies.remove(name)?;
    }
    let prefix = network(name, "");
    let namespaces = tool("ip", &["netns", "list"])?;
    for namespace in namespaces
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|namespace| namespace.starts_with(&prefix))
    {
        tool("ip", &["netns", "del", namespace])?;
    }
    for path in [state_directory(name), run_directory(name)] {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LabError::file(&path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn await_edge(lab: &str, name: &str) -> Result<u32, LabError> {
    let file = pid_file(lab, name);
    let mut pid = None;
    let came = wait_until(&format!("the host `{name}`"), 20, || {
        pid = fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        pid.is_some_and(|pid| Path::new(&format!("/proc/{pid}/root{READY}")).exists())
    });
    let said =
        || fs::read_to_string(run_directory(lab).join(format!("{name}.log"))).unwrap_or_default();
    match (came, pid) {
        (Ok(()), Some(pid)) => Ok(pid),
        _ => Err(LabError::Other(format!(
            "the host `{name}` did not come up: {}",
            said()
        ))),
    }
}

/// The network namespace that holds the lab's common bridge: nothing is made in the machine's own.
fn fabric(lab: &str) -> String {
    network(lab, "fabric")
}

/// The name of a network namespace. The name of a lab holds no point, so that none is the
/// beginning of another's.
pub(crate) fn network(lab: &str, host: &str) -> String {
    format!("carnet.{lab}.{host}")
}

fn run_directory(lab: &str) -> PathBuf {
    Path::new(RUN).join(lab)
}

fn state_directory(lab: &str) -> PathBuf {
    Path::new(STATE).join(lab)
}

fn pid_file(lab: &str, host: &str) -> PathBuf {
    run_directory(lab).join(format!("{host}.pid"))
}

fn stay_marker(lab: &str) -> PathBuf {
    run_directory(lab).join("stays")
}
