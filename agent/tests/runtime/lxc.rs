use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use carnet_agent::lxc::LxcRuntime;
use carnet_agent::lxc::definition;
use carnet_agent::runtime::ContainerName;

use crate::suite::{self, Inside};

/// The name of a container of LXC that runs redis-server, open to this host, on port 6379.
const CONTAINER: &str = "CARNET_TEST_LXC_CONTAINER";
/// The path of the program `carnet`, which guards containers whose memory follows.
const PROGRAM: &str = "CARNET_TEST_PROGRAM";
/// The bridge that it is on.
const BRIDGE: &str = "br0";
/// Within this time it answers, if it ever does.
const BOUND: Duration = Duration::from_secs(20);

struct Redis {
    name: ContainerName,
    address: Ipv4Addr,
}

impl Redis {
    fn new(name: ContainerName) -> Self {
        let path = Path::new("/var/lib/lxc").join(name.as_str()).join("config");
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let address = definition::parse(&text).unwrap().network.address;
        Self { name, address }
    }

    /// What Redis answers: a line, after the one that says how long it is if there is one.
    fn ask(&self, command: &str) -> String {
        let deadline = Instant::now() + BOUND;
        loop {
            match self.try_ask(command) {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.address),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let address = (self.address, 6379).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        if line.starts_with('$') {
            line.clear();
            answer.read_line(&mut line)?;
        }
        Ok(line.trim_end().to_owned())
    }

    /// The container's `/run/carnet-claim`, as the host reaches it.
    fn claim(&self) -> PathBuf {
        let output = Command::new("lxc-info")
            .args(["--name", self.name.as_str(), "--pid", "--no-humanize"])
            .output()
            .unwrap();
        let pid = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(format!("/proc/{}/root/run/carnet-claim", pid.trim()))
    }
}

impl Inside for Redis {
    fn name(&self) -> &ContainerName {
        &self.name
    }

    fn remember(&self, text: &str) {
        assert_eq!(self.ask(&format!("SET carnet-suite \"{text}\"")), "+OK");
    }

    fn recall(&self) -> String {
        self.ask("GET carnet-suite")
    }

    fn place_claim(&self, text: Option<&str>) {
        let path = self.claim();
        match text {
            Some(text) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            None => fs::remove_file(path).unwrap_or_default(),
        }
    }
}

/// Ends with the container running, as it was found.
#[tokio::test]
#[ignore = "needs a host with LXC, CRIU and a container: see CARNET_TEST_LXC_CONTAINER and \
            CARNET_TEST_PROGRAM"]
async fn lxc_keeps_the_same_promises() {
    let name = std::env::var(CONTAINER)
        .unwrap_or_else(|_| panic!("{CONTAINER} must name a container that runs redis-server"));
    let program = std::env::var_os(PROGRAM)
        .unwrap_or_else(|| panic!("{PROGRAM} must be the path of the program `carnet`"));
    let redis = Redis::new(ContainerName::new(&name).unwrap());
    suite::all(&LxcRuntime::new(BRIDGE.to_owned(), program.into()), &redis).await;
}
