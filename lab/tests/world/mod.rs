//! A fleet of three edges with a container that answers a client all the time, and what has to
//! hold of it whatever is done to it.
#![allow(dead_code, reason = "each of the tests uses what it needs")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use carnet_api::v1::{
    Claim, Container, CreateMigration, DestinationSpec, Migration, MigrationState,
    RegisterContainer, Role,
};
use carnet_lab::demo::sensor_client::SensorClient;
use carnet_lab::error::LabError;
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::{CLIENT, EdgeSpec, Fleet, FleetSpec};
use carnet_lab::host::ContainerSpec;
use carnet_lab::progress::Progress;
use serde_json::{Value, json};

pub const APP: &str = "App1";
pub const EDGES: [&str; 3] = ["Edge1", "Edge2", "Edge3"];
/// What every edge says of itself.
pub const ATTRIBUTES: &str = "A jp caA deA lxc 2.6 8 - - -";
/// What App1 demands.
pub const REQUIREMENTS: &str = "jp * * lxc 95 90 1 1 * * *";
/// Readings in App1's memory: a few megabytes.
const READINGS: u64 = 10_000;

fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 88, 2, 1), 6379))
}

/// The container is on the first edge in the beginning.
pub struct World {
    pub fleet: Fleet,
    pub sensors: SensorClient,
    pub progress: Progress,
    /// How often the end of a move is asked for, 50 s each time.
    pub patience: u32,
}

impl World {
    /// In a lab of this name.
    pub fn begin(lab: &str) -> Self {
        let progress = Progress::new(Arc::default());
        let edges = EDGES.map(|name| EdgeSpec {
            name: name.to_owned(),
            owner: "erin".to_owned(),
            attributes: ATTRIBUTES.to_owned(),
        });
        let spec = FleetSpec {
            lab: lab.to_owned(),
            edges: edges.to_vec(),
            unregistered: Vec::new(),
            program: PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab")),
            own_disks: false,
        };
        let mut fleet = Fleet::start(&spec, &progress).unwrap();
        fleet.create_account("carol", Role::ContainerOwner).unwrap();
        for edge in &spec.edges {
            fleet.share(edge, fleet.account("carol").unwrap()).unwrap();
        }
        fleet.await_healthy(&progress).unwrap();
        let std::net::IpAddr::V4(ip) = address().ip() else {
            panic!("an IPv4 address");
        };
        let edge = fleet.host("Edge1").unwrap();
        edge.start(&ContainerSpec::redis(APP, ip)).unwrap();
        let stream = fleet.host(CLIENT).unwrap().connect(address()).unwrap();
        let sensors = SensorClient::start(stream, READINGS).unwrap();
        let world = Self {
            fleet,
            sensors,
            progress,
            patience: 1,
        };
        world.register(APP);
        let claim: Claim = world
            .post(&format!("/v1/containers/{APP}/claims"), &json!({}))
            .unwrap();
        world.on(
            "Edge1",
            &[
                "lxc-attach",
                "-n",
                APP,
                "--",
                "/bin/sh",
                "-c",
                &format!("echo {} > {}", claim.code, claim.path),
            ],
        );
        let confirm = format!("/v1/containers/{APP}/confirm-claim");
        let _: Container = world.post(&confirm, &json!({})).unwrap();
        world
    }

    pub fn register(&self, name: &str) {
        self.register_on(name, "Edge1");
    }

    pub fn register_on(&self, name: &str, edge: &str) {
        let _: Container = self
            .post(
                "/v1/containers",
                &json!(RegisterContainer {
                    name: name.to_owned(),
                    edge: edge.to_owned(),
                    requirements: json!(REQUIREMENTS),
                    allow_post_copy: false,
                }),
            )
            .unwrap();
    }

    pub fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<T, LabError> {
        self.fleet.account("carol").unwrap().post(path, body)
    }

    pub fn on(&self, edge: &str, command: &[&str]) -> String {
        self.fleet
            .host(edge)
            .unwrap()
            .run(command[0], &command[1..])
            .unwrap()
    }

    pub fn ask(&self, container: &str, to: &str, wait: u64) -> Result<Migration, LabError> {
        self.post(
            &format!("/v1/migrations?wait={wait}"),
            &json!(CreateMigration {
                container: container.to_owned(),
                to: DestinationSpec::Edge(to.to_owned()),
                strategy: None,
                max_downtime_ms: None,
                bandwidth_bytes_per_s: None,
            }),
        )
    }

    /// Asks for a move and waits for its end.
    pub fn go(&self, container: &str, to: &str) -> Migration {
        let begun = self.ask(container, to, 0).unwrap();
        self.end_of(&begun)
    }

    pub fn container(&self) -> Container {
        let path = format!("/v1/containers/{APP}");
        self.fleet.account("carol").unwrap().get(&path).unwrap()
    }

    /// On which edges a container runs. Where LXC has made one and CRIU has not let it run yet, LXC
    /// does not answer.
    pub fn running_on(&self, name: &str) -> Vec<&'static str> {
        let script = format!(
            "[ \"$(cat /sys/fs/cgroup/lxc.payload.{name}/cgroup.freeze 2>/dev/null)\" = 0 ] && \
             timeout 2 lxc-info -n {name} -sH"
        );
        EDGES
            .into_iter()
            .filter(|edge| {
                let host = self.fleet.host(edge).unwrap();
                let state = host.run("sh", &["-c", &script]);
                state.is_ok_and(|state| state.trim() == "RUNNING")
            })
            .collect()
    }

    /// What is left of a container on an edge that it is not on. CRIU has a moment to end: what an
    /// agent asks it of the machine, now and then, has nothing to do with the container.
    pub fn left_on(&self, name: &str, edge: &str) -> String {
        let script = format!(
            "ls -d /var/lib/lxc/{name} /run/carnet/images/{name} /run/carnet/standby/{name} \
             /run/netns/carnet-{name} /sys/fs/cgroup/lxc.*.{name}* 2>/dev/null || true"
        );
        let left = self.on(edge, &["sh", "-c", &script]);
        let mut running = String::new();
        let _ = wait_until("CRIU's end", 10, || {
            running = self.on(edge, &["sh", "-c", "pgrep -a criu || true"]);
            running.is_empty()
        });
        left + &running
    }

    /// App1 runs on `edge` and nowhere else, nothing of it is anywhere else, its connection is
    /// open, and nothing that it acknowledged is lost.
    pub fn assert_whole(&self, edge: &str, what: &str) {
        assert_eq!(self.running_on(APP), [edge], "{what}");
        assert_eq!(self.container().edge_name, edge, "{what}");
        assert_eq!(self.container().migration, None, "{what}");
        for other in EDGES.into_iter().filter(|other| *other != edge) {
            assert_eq!(self.left_on(APP, other), "", "{what}: left on {other}");
        }
        let images = format!("/run/carnet/images/{APP}");
        let there = self
            .fleet
            .host(edge)
            .unwrap()
            .run("test", &["-e", &images])
            .is_ok();
        assert!(!there, "{what}: memory images are left on {edge}");
        let seen = self.sensors.observe();
        assert_eq!(seen.broken, None, "{what}");
        assert_eq!(seen.lost, Vec::<String>::new(), "{what}");
        assert!(seen.acknowledged > 0, "{what}");
    }

    pub fn end_of(&self, migration: &Migration) -> Migration {
        let path = format!("/v1/migrations/{}?wait=50", migration.id);
        let mut now = migration.clone();
        for _ in 0..self.patience {
            now = self.fleet.account("carol").unwrap().get(&path).unwrap();
            if now.state.is_ended() {
                return now;
            }
        }
        panic!("it goes on and on: {now:?}");
    }

    /// Waits until a move has come into one of `states`, or has ended.
    pub fn await_state(&self, migration: &Migration, states: &[MigrationState]) -> Migration {
        let path = format!("/v1/migrations/{}", migration.id);
        let mut now = migration.clone();
        wait_until("a state of the move", 60, || {
            now = self.fleet.account("carol").unwrap().get(&path).unwrap();
            states.contains(&now.state) || now.state.is_ended()
        })
        .unwrap();
        now
    }

    /// Cuts the link between an edge and another host, or mends it. Nothing says so to either.
    pub fn cut(&self, edge: &str, other: &str, is_cut: bool) {
        let change = if is_cut { "-I" } else { "-D" };
        let address = self.fleet.host(other).unwrap().address.to_string();
        for (chain, of) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            self.on(
                edge,
                &["iptables", change, chain, of, &address, "-j", "DROP"],
            );
        }
    }

    /// Waits until what somebody has said to an edge, or it to them, was dropped at its door.
    pub fn await_silence(&self, edge: &str) {
        wait_until("the cut to be felt", 20, || {
            let told = self.on(edge, &["iptables", "-L", "-v", "-n", "-x"]);
            told.lines().any(|line| {
                let mut words = line.split_whitespace();
                let packets = words.next().and_then(|word| word.parse::<u64>().ok());
                line.contains("DROP") && packets.is_some_and(|packets| packets > 0)
            })
        })
        .unwrap();
    }

    /// What an auditor finds in the ledger, which must be without a fault.
    pub fn sound_ledger(&mut self) -> Value {
        self.fleet.create_account("audrey", Role::Auditor).unwrap();
        let verified = self
            .fleet
            .command("audrey")
            .unwrap()
            .args(["ledger", "verify", "--json"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.status.success(), "{told}");
        let report: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(report["faults"], json!([]), "{told}");
        report
    }
}
