use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use carnet_agent::lxc::LxcRuntime;
use carnet_agent::lxc::definition;
use carnet_agent::runtime::{ContainerName, Runtime};
use carnet_core::migration::Strategy;
use prost::Message;

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
    let runtime = LxcRuntime::new(BRIDGE.to_owned(), program.into());
    it_is_not_received_by_a_lesser_machine(&runtime, &redis.name).await;
    a_criu_that_is_told_nothing_ends(&runtime, &redis.name).await;
    what_is_sent_to_it_meanwhile_is_not_lost(&runtime, &redis).await;
    suite::all(&runtime, &redis).await;
}

/// It is there before a container is frozen, and goes where that does not come to be.
async fn a_criu_that_is_told_nothing_ends(runtime: &LxcRuntime, name: &ContainerName) {
    let waiting = || {
        let found = Command::new("pgrep").args(["-f", "^criu dump$"]).output();
        found.unwrap().status.success()
    };
    assert!(!waiting());
    runtime.ready_to_freeze(name).await.unwrap();
    assert!(waiting());
    runtime.thaw(name).await.unwrap();
    let deadline = Instant::now() + BOUND;
    while waiting() {
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A datagram that came while it was frozen is answered once it runs on: nobody sends it again.
async fn what_is_sent_to_it_meanwhile_is_not_lost(runtime: &LxcRuntime, redis: &Redis) {
    // So that the host knows where it is.
    redis.remember("where it is");
    // One that the control plane heard no answer to is done again.
    for dumps in 0..=2 {
        runtime.freeze(&redis.name).await.unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(BOUND)).unwrap();
        // A port at which nobody listens: its kernel says so.
        socket.connect((redis.address, 9)).unwrap();
        socket.send(b"?").unwrap();
        for _ in 0..dumps {
            runtime
                .dump(&redis.name, Strategy::StopAndCopy)
                .await
                .unwrap();
        }
        runtime.thaw(&redis.name).await.unwrap();
        let answer = socket.recv(&mut [0; 8]).map_err(|error| error.kind());
        assert_eq!(answer, Err(ErrorKind::ConnectionRefused), "dumps: {dumps}");
    }
}

/// CRIU's image of a processor (its `images/cpuinfo.proto`).
#[derive(Clone, PartialEq, prost::Message)]
struct Processors {
    #[prost(message, repeated, tag = "1")]
    x86: Vec<Processor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Processor {
    #[prost(int32, required, tag = "1")]
    vendor: i32,
    #[prost(uint32, required, tag = "2")]
    family: u32,
    #[prost(uint32, required, tag = "3")]
    model: u32,
    #[prost(uint32, required, tag = "4")]
    stepping: u32,
    #[prost(uint32, required, tag = "5")]
    version: u32,
    #[prost(uint32, repeated, packed = "false", tag = "6")]
    capabilities: Vec<u32>,
    #[prost(string, optional, tag = "7")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "8")]
    features: Option<u64>,
    #[prost(uint32, optional, tag = "9")]
    size: Option<u32>,
    #[prost(uint32, optional, tag = "10")]
    largest_size: Option<u32>,
}

/// The same image, where the processor has these capabilities.
fn with_capabilities(image: &str, capabilities: u32) -> String {
    let image = hex::decode(image).unwrap();
    // Two magic numbers and the size.
    let (head, message) = image.split_at(12);
    let mut processors = Processors::decode(message).unwrap();
    processors.x86[0].capabilities.fill(capabilities);
    let message = processors.encode_to_vec();
    let size = (message.len() as u32).to_le_bytes();
    hex::encode([&head[..8], &size, &message].concat())
}

/// What a container may use of its machine is compared before it is touched.
async fn it_is_not_received_by_a_lesser_machine(runtime: &LxcRuntime, name: &ContainerName) {
    let described = runtime.describe(name).await.unwrap();
    let processor = described.description["machine"]["processor"].as_str();
    let processor = processor.expect("CRIU knows this processor");
    for (what, value, complaint) in [
        ("processor", processor.to_owned(), None),
        ("processor", with_capabilities(processor, 0), None),
        (
            "processor",
            with_capabilities(processor, u32::MAX),
            Some("processor lacks"),
        ),
        (
            "processor",
            "no digits".to_owned(),
            Some("tells of its processor"),
        ),
        ("criu", "99.0".to_owned(), Some("99.0")),
        ("criu", "3.17.1".to_owned(), None),
    ] {
        let mut described = described.clone();
        described.description["machine"][what] = value.into();
        let problems = runtime.receiving_problems(&described).await.live_problems;
        match complaint {
            None => assert_eq!(problems, Vec::<String>::new(), "{what}"),
            Some(complaint) => assert!(problems.join("; ").contains(complaint), "{problems:?}"),
        }
    }
}
