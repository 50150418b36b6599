//! Chromium, and the program that it is driven by (W3C WebDriver), on this machine.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use carnet_lab::exec::wait_until;
use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long chromedriver may take to come up, in seconds.
const START_LIMIT: u64 = 30;

/// A chromedriver. Dropped, it ends, with every browser that it has started.
pub struct Driver {
    child: Child,
    port: u16,
    /// What the browsers write; it is removed when they have ended.
    home: TempDir,
    pub runtime: Rc<Runtime>,
}

impl Driver {
    pub fn start() -> Self {
        for (program, package) in [
            ("chromium", "chromium"),
            ("chromedriver", "chromium-driver"),
            ("setpriv", "util-linux"),
            ("unshare", "util-linux"),
        ] {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let found = std::env::split_paths(&path).any(|place| place.join(program).is_file());
            assert!(
                found,
                "{program} is missing, and the pages are tested in a browser: apt install {package}"
            );
        }
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("chromedriver.log");
        // All of it is in a process namespace, which ends with its first process; that ends with
        // unshare, and unshare with the thread that starts it, however the test ends.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--pid", "--fork"])
            .args(["--kill-child", "--mount-proc", "chromedriver", "--port=0"])
            .env("TMPDIR", home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mut driver = Self {
            child,
            port: 0,
            home,
            runtime: Rc::new(runtime),
        };
        let ready = wait_until("chromedriver", START_LIMIT, || {
            driver.port = port(&log).unwrap_or_default();
            driver.port != 0
        });
        let said = fs::read_to_string(&log).unwrap();
        assert!(ready.is_ok(), "chromedriver does not come up: {said}");
        driver
    }

    /// A browser of its own, with cookies of its own. What it asks of `address` is brought to
    /// `loopback`: this machine does not reach the lab's network.
    pub fn open(&self, address: &str, loopback: &str, calls_itself: &str) -> Client {
        let capabilities = json!({
            // The certificate is of the lab's own authority.
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": [
                "--headless=new",
                // Chromium refuses to be root with its sandbox.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                format!("--host-resolver-rules=MAP {address} {loopback}"),
                format!("--user-agent={calls_itself}"),
            ]},
        });
        let capabilities: Capabilities = serde_json::from_value(capabilities).unwrap();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        let address = format!("http://127.0.0.1:{}", self.port);
        match self.runtime.block_on(builder.connect(&address)) {
            Ok(client) => client,
            Err(error) => panic!("no browser: {error}\n{}", self.log()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("chromedriver.log")).unwrap_or_default()
    }
}

/// Where it listens, once it says so.
fn port(log: &Path) -> Option<u16> {
    let said = fs::read_to_string(log).ok()?;
    let (_, rest) = said.split_once("was started successfully on port ")?;
    rest.split('.').next()?.trim().parse().ok()
}

impl Drop for Driver {
    fn drop(&mut self) {
        let unshare = self.child.id();
        // The first of the namespace: once it is waited for, nothing of it is left.
        let first = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children"));
        let ended = match first.ok().and_then(|pid| pid.trim().parse().ok()) {
            Some(first) => kill(Pid::from_raw(first), Signal::SIGKILL).is_ok(),
            None => self.child.kill().is_ok(),
        };
        if ended {
            let _ = self.child.wait();
        }
    }
}
