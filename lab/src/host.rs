//! One host of a lab, from outside.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::error::LabError;
use crate::exec::{run, tool, wait_until};

/// The bridge on which a host's containers are.
pub const BRIDGE: &str = "br0";

/// What a host is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole host: own processes, mounts, cgroups, network.
    Edge,
    /// A network of its own, and no more: the control plane, the client outside.
    NetworkOnly,
}

/// A host that is up.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) lab: String,
    pub name: String,
    pub kind: Kind,
    /// Its address in the lab's network.
    pub address: Ipv4Addr,
    /// The first process of an edge.
    pub(crate) pid: Option<u32>,
    /// The program `carnet-lab`.
    pub(crate) program: PathBuf,
}

impl Host {
    /// The name of its network namespace, for `ip netns`.
    pub fn network(&self) -> String {
        crate::lab::network(&self.lab, &self.name)
    }

    /// A command that runs `program` inside the host. What it starts ends with the lab.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.enter();
        command.args(["--", program]).stdin(Stdio::null());
        command
    }

    /// The same, and `program` is handed a socket that listens in another network, as
    /// sd_listen_fds(3) says. Not for edges.
    pub fn command_with_socket(&self, program: &str, socket: TcpListener) -> Command {
        let mut command = self.enter();
        command
            .args(["--socket", "--", program])
            .stdin(OwnedFd::from(socket));
        command
    }

    fn enter(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            "host",
            "enter",
            &self.lab,
            &self.name,
            "--network",
            &self.network(),
        ]);
        if let Some(pid) = self.pid {
            command.args(["--pid", &pid.to_string()]);
        }
        command
    }

    /// Runs a program inside the host to its end and returns its standard output.
    ///
    /// # Errors
    /// Where it cannot be run or fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        run(self.command(program).args(arguments))
    }

    /// Connects to `address` from inside the host's network.
    ///
    /// # Errors
    /// Where nobody answers there.
    pub fn connect(&self, address: SocketAddr) -> Result<TcpStream, LabError> {
        let enter = self.entry()?;
        // A network namespace is a thread's: this one is thrown away.
        std::thread::spawn(move || {
            enter()?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .map_err(|error| LabError::Other(format!("cannot connect to {address}: {error}")))
        })
        .join()
        .unwrap_or_else(|_| Err(LabError::Other("the connecting thread died".to_owned())))
    }

    /// What brings the thread that calls it into the host's network, for good.
    ///
    /// # Errors
    /// Where the host has none any more.
    pub fn entry(
        &self,
    ) -> Result<impl FnOnce() -> Result<(), LabError> + Send + 'static, LabError> {
        let path = Path::new("/run/netns").join(self.network());
        let namespace = fs::File::open(&path).map_err(LabError::file(&path))?;
        Ok(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|error| LabError::Other(format!("{}: {error}", path.display())))
        })
    }

    /// A path of the host, as the machine reaches it.
    ///
    /// # Errors
    /// Where the host has no files of its own.
    pub fn path(&self, path: &str) -> Result<PathBuf, LabError> {
        let pid = self
            .pid
            .ok_or_else(|| LabError::Other(format!("`{}` has no files of its own", self.name)))?;
        Ok(Path::new(&format!("/proc/{pid}/root")).join(path.trim_start_matches('/')))
    }

    /// Starts a container and waits until it answers.
    ///
    /// # Errors
    /// Where it cannot be made or does not run.
    pub fn start(&self, container: &ContainerSpec) -> Result<(), LabError> {
        let ContainerSpec {
            name,
            address,
            command,
            port,
        } = container;
        let directory = format!("/var/lib/lxc/{name}");
        let program = command.split_whitespace().next().unwrap_or_default();
        let make = format!(
            "set -e; mkdir -p {directory}/rootfs; cd {directory}/rootfs; \
             mkdir -p bin dev proc sys tmp run etc; \
             cp --dereference --parents {program} $(ldd {program} | grep -o '/[^ ]*') /usr/bin/busybox .; \
             for applet in sh cat ls sleep; do ln -s /usr/bin/busybox bin/$applet; done; \
             echo root:x:0:0:root:/:/bin/sh > etc/passwd"
        );
        self.run("sh", &["-c", &make])?;
        let [a, b, c, d] = address.octets();
        let config = format!(
            "lxc.uts.name = {name}\n\
             lxc.rootfs.path = dir:{directory}/rootfs\n\
             lxc.init.cmd = {command}\n\
             lxc.mount.auto = proc:mixed sys:mixed\n\
             lxc.console.path = none\n\
             lxc.tty.max = 0\n\
             lxc.pty.max = 1\n\
             lxc.net.0.type = veth\n\
             lxc.net.0.link = {BRIDGE}\n\
             lxc.net.0.flags = up\n\
             lxc.net.0.name = eth0\n\
             lxc.net.0.hwaddr = 02:88:{a:02x}:{b:02x}:{c:02x}:{d:02x}\n\
             lxc.net.0.ipv4.address = {address}/16\n"
        );
        let path = self.path(&format!("{directory}/config"))?;
        fs::write(&path, config).map_err(LabError::file(&path))?;
        // Its monitor keeps standard output and error open for as long as it lives.
        let log = format!("/tmp/lxc-start-{name}.log");
        let status = self
            .command("lxc-start")
            .args(["-n", name, "-d", "-o", &log, "-l", "ERROR"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(LabError::file(Path::new("lxc-start")))?;
        if !status.success() {
            let log = self.path(&log)?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            return Err(LabError::Other(format!(
                "lxc-start -n {name} on {} ended with {status}: {said}",
                self.name
            )));
        }
        wait_until(&format!("an answer of {name}"), 20, || {
            self.connect(SocketAddr::from((*address, *port))).is_ok()
        })
    }
}

/// A container of one program, with a fixed address and MAC.
#[derive(Debug, Clone)]
pub struct ContainerSpec {
    pub name: String,
    pub address: Ipv4Addr,
    /// Its first process: a program of the host's, by its path, and arguments. It is copied, with
    /// the libraries that it needs.
    pub command: String,
    /// Where it answers by TCP once it runs.
    pub port: u16,
}

impl ContainerSpec {
    /// Debian's Redis, which keeps everything in memory.
    pub fn redis(name: &str, address: Ipv4Addr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            command:
                "/usr/bin/redis-server --bind 0.0.0.0 --protected-mode no --save \"\" --dir /tmp"
                    .to_owned(),
            port: 6379,
        }
    }
}

/// Makes a host's network: an interface to the lab's fabric, 1 Gbit/s each way, and, on an edge,
/// a bridge for its containers.
///
/// The bridge's MAC is pinned: it would otherwise change when a container's port joins, and
/// neighbours would send into the void.
pub(crate) fn wire(host: &Host, fabric: &str, number: u8) -> Result<(), LabError> {
    let network = host.network();
    let port = format!("v{number}");
    match host.pid {
        Some(pid) => tool("ip", &["netns", "attach", &network, &pid.to_string()])?,
        None => tool("ip", &["netns", "add", &network])?,
    };
    tool(
        "ip",
        &[
            "-n", fabric, "link", "add", &port, "type", "veth", "peer", "name", "up0", "netns",
            &network,
        ],
    )?;
    let inside = |arguments: &[&str]| {
        tool(
            "ip",
            &[["-n", network.as_str()].as_slice(), arguments].concat(),
        )
    };
    let limit = |network: &str, interface: &str| {
        tool(
            "tc",
            &[
                "-n", network, "qdisc", "add", "dev", interface, "root", "tbf", "rate", "1gbit",
                "burst", "256kb", "latency", "50ms",
            ],
        )
    };
    limit(fabric, &port)?;
    limit(&network, "up0")?;
    tool(
        "ip",
        &["-n", fabric, "link", "set", &port, "master", "fabric", "up"],
    )?;
    inside(&["link", "set", "lo", "up"])?;
    let address = format!("{}/16", host.address);
    let speaks = match host.kind {
        Kind::Edge => {
            let mac = format!("02:88:ff:00:00:{number:02x}");
            inside(&["link", "add", BRIDGE, "address", &mac, "type", "bridge"])?;
            inside(&["link", "set", "up0", "master", BRIDGE, "up"])?;
            BRIDGE
        }
        Kind::NetworkOnly => "up0",
    };
    inside(&["addr", "add", &address, "dev", speaks])?;
    inside(&["link", "set", speaks, "up"])?;
    Ok(())
}
