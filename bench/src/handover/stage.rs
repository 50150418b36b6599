//! Two edges with Carnet on them, the peers' programs, and a container to move.

use std::cell::Cell;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use carnet_api::v1::{
    AllowPostCopy, Container, CreateMigration, DestinationSpec, Migration, MigrationState,
    RegisterContainer, Role, Strategy,
};
use carnet_lab::error::LabError;
use carnet_lab::exec::{run, wait_until};
use carnet_lab::fleet::{CLIENT, EdgeSpec, Fleet, FleetSpec};
use carnet_lab::host::{ContainerSpec, Host};
use carnet_lab::init::PROGRAMS;
use carnet_lab::progress::Progress;
use serde_json::{Value, json};

use super::HandoverBenchError;
use super::client::{Client, Knocking};
use super::link;

const LAB: &str = "bench";
const EDGE_OWNER: &str = "erin";
const CONTAINER_OWNER: &str = "carol";
const ATTRIBUTES: &str = "A jp caA deA lxc 2.6 8 - - -";
/// Thresholds that never deny: what is measured is the move.
const REQUIREMENTS: &str = "jp * * lxc 100 100 1 1 * * *";
const REWRITER: &str = "carnet-bench-rewriter";
const PORT: u16 = 7;
/// What every container of LXC has for files, beside its program: a small Debian's, as they are
/// before the peers' programs come to them.
const FILES: &str = "/var/lib/bench-files";
/// What the peers need beside what every edge has.
const PEERS: [&str; 4] = ["rsync", "podman", "runc", "netavark"];
const PODMAN_IMAGE: &str = include_str!("podman-image.sh");
const PODMAN_AHEAD: &str = include_str!("podman-ahead.sh");
const PODMAN_START: &str = include_str!("podman-start.sh");
const PODMAN_END: &str = include_str!("podman-end.sh");
/// Where the image that Podman runs is written to.
const IMAGE: &str = "/run/bench-image.tar";
/// How long one question for the end of a move waits, in seconds.
const WAIT: u64 = 50;

/// An edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    Edge1,
    Edge2,
}

impl At {
    const ALL: [Self; 2] = [Self::Edge1, Self::Edge2];

    fn name(self) -> &'static str {
        match self {
            Self::Edge1 => "Edge1",
            Self::Edge2 => "Edge2",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Edge1 => Self::Edge2,
            Self::Edge2 => Self::Edge1,
        }
    }
}

/// Gone, with all that runs on it, when dropped.
pub struct Stage {
    fleet: Fleet,
    progress: Progress,
    /// How many containers there were. Each has an address of its own: nobody remembers where an
    /// earlier one was.
    containers: Cell<u8>,
    /// What a container of LXC has for files, in MB of 10⁶ bytes.
    pub files_megabytes: f64,
}

/// A container that runs, with a client that asks it all the time.
pub struct Moving {
    pub name: String,
    pub client: Client,
    /// Where it is.
    pub at: At,
    address: Ipv4Addr,
}

impl Stage {
    pub fn build(progress: Progress) -> Result<Self, HandoverBenchError> {
        let own = std::env::current_exe().map_err(LabError::file(Path::new("/proc/self/exe")))?;
        let spec = FleetSpec {
            lab: LAB.to_owned(),
            edges: At::ALL
                .map(|edge| EdgeSpec {
                    name: edge.name().to_owned(),
                    owner: EDGE_OWNER.to_owned(),
                    attributes: ATTRIBUTES.to_owned(),
                })
                .to_vec(),
            unregistered: Vec::new(),
            program: beside(&own, "carnet-lab")?,
            // What one edge writes and removes is not the other's to wait for.
            own_disks: true,
        };
        beside(&own, REWRITER)?;
        let mut fleet = Fleet::start(&spec, &progress)?;
        fleet.create_account(CONTAINER_OWNER, Role::ContainerOwner)?;
        for edge in &spec.edges {
            fleet.share(edge, fleet.account(CONTAINER_OWNER)?)?;
        }
        fleet.await_healthy(&progress)?;
        let first = fleet.host(At::Edge1.name())?;
        first.run("cp", &["--archive", "/usr", FILES])?;
        let size = first.run("du", &["--summarize", "--bytes", FILES])?;
        let bytes: f64 = size
            .split_whitespace()
            .next()
            .and_then(|bytes| bytes.parse().ok())
            .ok_or_else(|| LabError::Other(format!("`du` says `{size}`")))?;
        let stage = Self {
            fleet,
            progress,
            containers: Cell::new(0),
            files_megabytes: bytes / 1e6,
        };
        for edge in At::ALL {
            let what = format!("installing {} on {}", PEERS.join(", "), edge.name());
            stage.step(&what)?;
            let root = stage.host(edge)?.path("/")?;
            for arguments in [
                [["update"].as_slice(), &[]],
                [["install", "--no-install-recommends"].as_slice(), &PEERS],
            ] {
                run(Command::new("chroot")
                    .arg(&root)
                    .args([
                        "env",
                        "DEBIAN_FRONTEND=noninteractive",
                        "apt-get",
                        "-q",
                        "-y",
                    ])
                    .args(["-o", "Acquire::Check-Valid-Until=false"])
                    .args(arguments.concat()))?;
            }
        }
        // The same one on both: each import makes another.
        let program = format!("{PROGRAMS}/{REWRITER}");
        let (one, other) = (stage.host(At::Edge1)?, stage.host(At::Edge2)?);
        one.run("sh", &["-c", PODMAN_IMAGE, "sh", &program])?;
        let (from, to) = (one.path(IMAGE)?, other.path(IMAGE)?);
        fs::copy(&from, &to).map_err(LabError::file(&to))?;
        let load = [
            "--storage-driver",
            "vfs",
            "load",
            "--quiet",
            "--input",
            IMAGE,
        ];
        other.run("podman", &load)?;
        Ok(stage)
    }

    pub fn step(&self, what: &str) -> Result<(), LabError> {
        self.progress.step(what)
    }

    pub fn host(&self, edge: At) -> Result<&Host, LabError> {
        self.fleet.host(edge.name())
    }

    /// Starts a container with so much memory on the first edge.
    pub fn start(&self, name: &str, megabytes: usize) -> Result<Moving, HandoverBenchError> {
        let address = self.new_address();
        let host = self.host(At::Edge1)?;
        host.start(&ContainerSpec {
            name: name.to_owned(),
            address,
            command: format!("{PROGRAMS}/{REWRITER} {megabytes} {PORT}"),
            port: PORT,
        })?;
        let rootfs = format!("/var/lib/lxc/{name}/rootfs/usr");
        host.run(
            "cp",
            &["--archive", "--no-target-directory", FILES, &rootfs],
        )?;
        // What is measured does not wait for a disk to take these, or what was measured before.
        for edge in At::ALL {
            self.host(edge)?
                .run("sync", &["--file-system", "/var/lib/lxc"])?;
        }
        self.connect(name, address)
    }

    /// Starts one that Podman runs. Both edges are ready for it.
    pub fn start_in_podman(
        &self,
        name: &str,
        megabytes: usize,
    ) -> Result<Moving, HandoverBenchError> {
        let address = self.new_address();
        let program = format!("{PROGRAMS}/{REWRITER}");
        let (megabytes, port, at) = (megabytes.to_string(), PORT.to_string(), address.to_string());
        for edge in At::ALL {
            let ahead = ["-c", PODMAN_AHEAD, "sh", name, &at];
            self.host(edge)?.run("sh", &ahead)?;
        }
        let start = ["-c", PODMAN_START, "sh", name, &program, &megabytes, &port];
        self.host(At::Edge1)?.run("sh", &start)?;
        wait_until(&format!("an answer of {name}"), 20, || {
            let host = self.fleet.host(CLIENT);
            host.is_ok_and(|host| host.connect(SocketAddr::from((address, PORT))).is_ok())
        })?;
        self.connect(name, address)
    }

    /// Ends one that Podman runs.
    pub fn end_in_podman(&self, moving: Moving) -> Result<(), HandoverBenchError> {
        let name = moving.name.clone();
        drop(moving);
        for edge in At::ALL {
            self.host(edge)?
                .run("sh", &["-c", PODMAN_END, "sh", &name])?;
        }
        Ok(())
    }

    fn new_address(&self) -> Ipv4Addr {
        self.containers.set(self.containers.get() + 1);
        Ipv4Addr::new(10, 88, 2, self.containers.get())
    }

    fn connect(&self, name: &str, address: Ipv4Addr) -> Result<Moving, HandoverBenchError> {
        let stream = self
            .fleet
            .host(CLIENT)?
            .connect(SocketAddr::from((address, PORT)))?;
        let client = Client::start(stream).map_err(|error| {
            HandoverBenchError::Container(format!("`{name}` cannot be asked: {error}"))
        })?;
        Ok(Moving {
            name: name.to_owned(),
            client,
            at: At::Edge1,
            address,
        })
    }

    /// A client beside the container's own, which connects anew each time it asks.
    pub fn knock(&self, moving: &Moving) -> Result<Knocking, LabError> {
        let enter = self.fleet.host(CLIENT)?.entry()?;
        let address = SocketAddr::from((moving.address, PORT));
        Ok(Knocking::start(address, move || {
            enter().map_err(|error| error.to_string())
        }))
    }

    /// Ends a container, and all that there is of it.
    pub fn end(&self, moving: Moving) -> Result<(), HandoverBenchError> {
        let name = moving.name.clone();
        drop(moving);
        for edge in At::ALL {
            let script = format!(
                "if [ -e /var/lib/lxc/{name} ]; then lxc-stop -k -n {name}; fi; \
                 rm -rf /var/lib/lxc/{name} /run/bench; \
                 if [ -e /run/netns/carnet-{name} ]; then ip netns del carnet-{name}; fi"
            );
            self.host(edge)?.run("sh", &["-c", &script])?;
        }
        Ok(())
    }

    /// What the link between the edges carries in a bare TCP stream, in MB of 10⁶ bytes a second.
    pub fn link_megabytes_per_s(&self) -> Result<f64, HandoverBenchError> {
        let (from, to) = (self.host(At::Edge1)?, self.host(At::Edge2)?);
        self.step("the link, by a bare TCP stream")?;
        link::megabytes_per_s(from, to).map_err(|error| {
            LabError::Other(format!("the link cannot be measured: {error}")).into()
        })
    }

    /// Whether the kernel tells which memory is written to, without which there is no pre-copy.
    pub fn tracks_memory(&self) -> Result<bool, LabError> {
        let check = ["check", "--feature", "mem_dirty_track"];
        match self.host(At::Edge1)?.run("criu", &check) {
            Ok(_) => Ok(true),
            Err(LabError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has Carnet know a container.
    pub fn register(&self, moving: &Moving) -> Result<(), LabError> {
        let name = &moving.name;
        let owner = self.fleet.account(CONTAINER_OWNER)?;
        let _: Container = owner.post(
            "/v1/containers",
            &RegisterContainer {
                name: name.clone(),
                edge: At::Edge1.name().to_owned(),
                requirements: json!(REQUIREMENTS),
                allow_post_copy: false,
            },
        )?;
        let confirm = format!("/v1/containers/{name}/confirm");
        let _: Container = self.fleet.account(EDGE_OWNER)?.post(&confirm, &json!({}))?;
        let allow = format!("/v1/containers/{name}/allow-post-copy");
        let allowed = AllowPostCopy {
            allow_post_copy: true,
        };
        let _: Container = owner.put(&allow, &allowed)?;
        Ok(())
    }

    /// Has Carnet forget it.
    pub fn forget(&self, moving: &Moving) -> Result<(), LabError> {
        let owner = self.fleet.account(CONTAINER_OWNER)?;
        let _: Option<Value> = owner.delete(&format!("/v1/containers/{}", moving.name))?;
        Ok(())
    }

    /// Has Carnet move a container to the other edge.
    pub fn move_over(
        &self,
        moving: &mut Moving,
        strategy: Strategy,
    ) -> Result<Migration, HandoverBenchError> {
        let to = moving.at.other();
        let owner = self.fleet.account(CONTAINER_OWNER)?;
        let mut migration: Migration = owner.post(
            &format!("/v1/migrations?wait={WAIT}"),
            &CreateMigration {
                container: moving.name.clone(),
                to: DestinationSpec::Edge(to.name().to_owned()),
                strategy: Some(strategy),
                max_downtime_ms: None,
                bandwidth_bytes_per_s: None,
            },
        )?;
        while !migration.state.is_ended() {
            self.progress.go_on()?;
            migration = owner.get(&format!("/v1/migrations/{}?wait={WAIT}", migration.id))?;
        }
        if migration.state != MigrationState::Completed {
            return Err(HandoverBenchError::Container(format!(
                "`{}` was not moved: {}",
                moving.name,
                migration.failure.unwrap_or_default()
            )));
        }
        moving.at = to;
        Ok(migration)
    }
}

fn beside(own: &Path, name: &str) -> Result<PathBuf, HandoverBenchError> {
    let path = own.with_file_name(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(HandoverBenchError::NotBuilt(path))
    }
}
