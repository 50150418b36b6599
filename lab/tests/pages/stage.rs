//! A lab with three edges, of which nobody has registered the first, and browsers before it.

use std::path::PathBuf;
use std::sync::Arc;

use carnet_api::v1::{CreateShareKey, NewPassword, NewShareKey, Role};
use carnet_lab::fleet::{ADMINISTRATOR, EdgeSpec, Fleet, FleetSpec};
use carnet_lab::progress::Progress;
use serde_json::json;

use crate::driver::Driver;
use crate::screens::Screens;
use crate::window::Window;

/// What everyone's password is who registers.
pub const PASSWORD: &str = "correct horse battery";
/// The edge that is registered in a browser.
pub const OWN: &str = "Edge1";
/// The edge to which App1 may go.
pub const NEAR: &str = "Edge2";
/// The edge to which it may not.
pub const FAR: &str = "Edge3";
/// Who owns both.
const OTHER_OWNER: &str = "olga";

pub struct Stage {
    pub screens: Screens,
    driver: Driver,
    pub fleet: Fleet,
}

impl Stage {
    pub fn begin(lab: &str) -> Self {
        // What is missing is told before the lab is built.
        let driver = Driver::start();
        let edge = |name: &str, attributes: &str| EdgeSpec {
            name: name.to_owned(),
            owner: OTHER_OWNER.to_owned(),
            attributes: attributes.to_owned(),
        };
        let spec = FleetSpec {
            lab: lab.to_owned(),
            edges: vec![
                edge(NEAR, "B jp caB deB lxc 2.6 8 - - -"),
                edge(FAR, "C us caC deC lxc 2.6 8 - - -"),
            ],
            unregistered: vec![OWN.to_owned()],
            program: PathBuf::from(env!("CARGO_BIN_EXE_carnet-lab")),
            own_disks: false,
        };
        let mut fleet = Fleet::start(&spec, &Progress::new(Arc::default())).unwrap();
        fleet.create_account("audrey", Role::Auditor).unwrap();
        Self {
            screens: Screens::new(),
            driver,
            fleet,
        }
    }

    /// A browser in which nobody is logged in.
    pub fn window(&self) -> Window {
        self.window_of("a browser of the tests")
    }

    /// The same, and this is what it calls itself.
    pub fn window_of(&self, calls_itself: &str) -> Window {
        let address = self.fleet.address_in_lab().unwrap().to_string();
        let url = self.fleet.url().unwrap();
        let loopback = url.trim_start_matches("https://");
        let client = self.driver.open(&address, loopback, calls_itself);
        Window::new(
            client,
            self.driver.runtime.clone(),
            &format!("https://{address}"),
        )
    }

    /// A browser of somebody whose account an administrator has made.
    pub fn window_of_account(&self, account: &str) -> Window {
        let administrator = self.fleet.account(ADMINISTRATOR).unwrap();
        let path = format!("/v1/accounts/{account}/password");
        let password: NewPassword = administrator.post(&path, &json!({})).unwrap();
        let window = self.window();
        log_in(&window, account, &password.secret);
        window
    }

    /// A key that the other owner gives.
    pub fn key_of(&self, edge: &str, grantee: &str) -> String {
        let path = format!("/v1/edges/{edge}/share-keys");
        let asked = CreateShareKey {
            grantee: grantee.to_owned(),
        };
        let owner = self.fleet.account(OTHER_OWNER).unwrap();
        let given: NewShareKey = owner.post(&path, &asked).unwrap();
        given.key
    }

    /// Runs what somebody has copied from a page, on an edge.
    pub fn run(&self, edge: &str, copied: &str) -> String {
        let line = format!("PATH=$PATH:/opt/carnet; {copied}");
        let host = self.fleet.host(edge).unwrap();
        host.run("sh", &["-c", &line]).unwrap()
    }

    /// How fast an edge sends: what is to be seen while files are on their way is seen as long as
    /// they are.
    pub fn set_rate(&self, edge: &str, rate: &str) {
        self.run(
            edge,
            &format!("tc qdisc replace dev up0 root tbf rate {rate} burst 256kb latency 50ms"),
        );
    }
}

/// Makes an account, as whoever comes for the first time does.
pub fn register(window: &Window, name: &str, roles: &[&str]) {
    window.go("/");
    assert_eq!(window.path(), "/log-in");
    window.follow("Register");
    window.fill("name", name);
    window.fill("password", PASSWORD);
    for role in roles {
        window.tick("roles", role);
    }
    window.press("Register");
}

pub fn log_in(window: &Window, name: &str, password: &str) {
    window.go("/log-in");
    window.fill("name", name);
    window.fill("password", password);
    window.press("Log in");
    assert_ne!(window.path(), "/log-in", "{}", window.text());
}
