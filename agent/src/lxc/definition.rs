//! A container's definition, as it can travel.
//!
//! A configuration of LXC can name programs for the host to run and paths of the host to mount.
//! One that comes from another edge must do neither. So no configuration is ever sent: it is
//! read into a [`Definition`], key by key from an allow-list, and the target writes its own.

use std::fmt::{self, Write};
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::runtime::ContainerName;

/// The longest value of a key, in bytes.
const MAX_VALUE: usize = 4_096;

/// What LXC mounts by itself, and how, as far as it is harmless to the host.
const MOUNTS: [&str; 8] = [
    "proc",
    "proc:mixed",
    "proc:rw",
    "sys",
    "sys:ro",
    "sys:mixed",
    "cgroup:mixed",
    "cgroup:ro",
];

/// What is needed to run a container elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its first process, inside the container.
    pub init: Option<String>,
    pub host_name: Option<String>,
    /// `NAME=value`, inside the container.
    pub environment: Vec<String>,
    /// From [`MOUNTS`].
    pub mounts: Vec<String>,
    /// Capabilities taken from it.
    pub dropped_capabilities: Vec<String>,
    pub network: Network,
}

/// Its one network interface. Address and MAC move with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name inside the container.
    pub interface: String,
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
}

/// The address of a network interface, `02:88:00:00:02:01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut address = [0; 6];
            let mut parts = text.split(':');
            for byte in &mut address {
                hex::decode_to_slice(parts.next()?, std::slice::from_mut(byte)).ok()?;
            }
            parts.next().is_none().then_some(Self(address))
        };
        read().ok_or_else(|| format!("`{text}` is not a MAC address such as 02:88:00:00:02:01"))
    }
}

impl TryFrom<String> for Mac {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// Reads a configuration file of LXC.
///
/// # Errors
/// Everything in it that keeps the container from moving, a line each.
pub fn parse(text: &str) -> Result<Definition, Vec<String>> {
    let mut faults = Vec::new();
    let mut found = Found::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((key, value)) = line.split_once('=') else {
            faults.push(format!("line {}: `{line}` is not KEY = VALUE", number + 1));
            continue;
        };
        if let Err(problem) = found.take(key.trim(), value.trim()) {
            faults.push(format!("line {}: {problem}", number + 1));
        }
    }
    let definition = found.into_definition(&mut faults);
    match definition {
        Some(definition) if faults.is_empty() => Ok(definition),
        _ => Err(faults),
    }
}

#[derive(Default)]
struct Found {
    init: Option<String>,
    host_name: Option<String>,
    environment: Vec<String>,
    mounts: Vec<String>,
    dropped_capabilities: Vec<String>,
    interface: Option<String>,
    mac: Option<Mac>,
    address: Option<(Ipv4Addr, u8)>,
    gateway: Option<Ipv4Addr>,
    is_veth: bool,
}

impl Found {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        if value.len() > MAX_VALUE || value.contains(|c: char| c.is_control()) {
            return Err(format!(
                "the value of `{key}` is too long, or holds control characters"
            ));
        }
        let must_be = |expected: &str, why: &str| {
            if value == expected {
                Ok(())
            } else {
                Err(format!(
                    "`{key}` must be `{expected}`, not `{value}`: {why}"
                ))
            }
        };
        match key {
            // Where it is on this edge; the target has a place of its own.
            "lxc.rootfs.path"
            | "lxc.net.0.link"
            | "lxc.net.0.veth.pair"
            | "lxc.net.0.flags"
            | "lxc.arch"
            | "lxc.pty.max" => {}
            "lxc.init.cmd" => self.init = Some(value.to_owned()),
            "lxc.uts.name" => self.host_name = Some(value.to_owned()),
            "lxc.environment" => self.environment.push(value.to_owned()),
            "lxc.cap.drop" => {
                self.dropped_capabilities
                    .extend(value.split_whitespace().map(str::to_owned));
            }
            "lxc.mount.auto" => {
                for mount in value.split_whitespace() {
                    if !MOUNTS.contains(&mount) {
                        return Err(format!(
                            "`{key}` may hold {}, not `{mount}`",
                            MOUNTS.join(", ")
                        ));
                    }
                    self.mounts.push(mount.to_owned());
                }
            }
            "lxc.console.path" => must_be("none", "a console cannot be carried to another host")?,
            "lxc.tty.max" => must_be("0", "a terminal cannot be carried to another host")?,
            "lxc.net.0.type" => {
                must_be("veth", "only a veth on a bridge can be handed over")?;
                self.is_veth = true;
            }
            "lxc.net.0.name" => self.interface = Some(interface(value)?),
            "lxc.net.0.hwaddr" => self.mac = Some(value.parse()?),
            "lxc.net.0.ipv4.address" => self.address = Some(address(value)?),
            "lxc.net.0.ipv4.gateway" => {
                self.gateway = Some(
                    value
                        .parse()
                        .map_err(|_| format!("`{key}` must be an IPv4 address, not `{value}`"))?,
                );
            }
            _ => {
                return Err(format!(
                    "`{key}` is not among the keys that can move to another edge; remove it, or leave the container where it is"
                ));
            }
        }
        Ok(())
    }

    fn into_definition(self, faults: &mut Vec<String>) -> Option<Definition> {
        if !self.is_veth {
            faults.push("lxc.net.0.type = veth is missing".to_owned());
        }
        if self.mac.is_none() {
            faults.push(
                "lxc.net.0.hwaddr is missing: without a fixed MAC, connections break".to_owned(),
            );
        }
        if self.address.is_none() {
            faults.push(
                "lxc.net.0.ipv4.address is missing: without a fixed address, connections break"
                    .to_owned(),
            );
        }
        let (address, prefix) = self.address?;
        Some(Definition {
            init: self.init,
            host_name: self.host_name,
            environment: self.environment,
            mounts: self.mounts,
            dropped_capabilities: self.dropped_capabilities,
            network: Network {
                interface: self.interface.unwrap_or_else(|| "eth0".to_owned()),
                mac: self.mac?,
                address,
                prefix,
                gateway: self.gateway,
            },
        })
    }
}

fn interface(value: &str) -> Result<String, String> {
    let well_formed = !value.is_empty()
        && value.len() <= 15
        && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if well_formed {
        Ok(value.to_owned())
    } else {
        Err(format!("`{value}` is not the name of an interface"))
    }
}

fn address(value: &str) -> Result<(Ipv4Addr, u8), String> {
    value
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)))
        .filter(|(_, prefix)| *prefix <= 32)
        .ok_or_else(|| format!("`{value}` is not an address with its prefix, such as 10.0.0.2/16"))
}

impl Definition {
    /// Whether it is what [`parse`] could have read: it comes from another machine.
    ///
    /// # Errors
    /// Everything that it could not.
    pub fn validate(&self) -> Result<(), Vec<String>> {
        match parse(&self.config(&ContainerPlace::nowhere())) {
            Ok(read) if read == *self => Ok(()),
            Ok(_) => Err(vec![
                "the definition holds more than its fields may say".to_owned(),
            ]),
            Err(faults) => Err(faults),
        }
    }

    /// The configuration file of LXC for it.
    pub fn config(&self, place: &ContainerPlace) -> String {
        let mut text = String::from("# Written by Carnet.\n");
        let mut line = |key: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        line("lxc.rootfs.path", &place.rootfs);
        if let Some(init) = &self.init {
            line("lxc.init.cmd", init);
        }
        if let Some(host_name) = &self.host_name {
            line("lxc.uts.name", host_name);
        }
        for variable in &self.environment {
            line("lxc.environment", variable);
        }
        if !self.mounts.is_empty() {
            line("lxc.mount.auto", &self.mounts.join(" "));
        }
        if !self.dropped_capabilities.is_empty() {
            line("lxc.cap.drop", &self.dropped_capabilities.join(" "));
        }
        // Neither can be carried to another host.
        line("lxc.console.path", "none");
        line("lxc.tty.max", "0");
        line("lxc.pty.max", "1");
        line("lxc.net.0.type", "veth");
        if let Some(bridge) = &place.bridge {
            line("lxc.net.0.link", bridge);
        }
        line("lxc.net.0.flags", "up");
        line("lxc.net.0.veth.pair", &place.host_interface);
        line("lxc.net.0.name", &self.network.interface);
        line("lxc.net.0.hwaddr", &self.network.mac.to_string());
        let network = &self.network;
        line(
            "lxc.net.0.ipv4.address",
            &format!("{}/{}", network.address, network.prefix),
        );
        if let Some(gateway) = network.gateway {
            line("lxc.net.0.ipv4.gateway", &gateway.to_string());
        }
        text
    }
}

/// Where a container is on one edge.
#[derive(Debug, Clone)]
pub struct ContainerPlace {
    /// Its root file system.
    pub rootfs: String,
    /// The bridge that it is on; none while it may not be heard.
    pub bridge: Option<String>,
    /// The host's end of its veth.
    pub host_interface: String,
}

impl ContainerPlace {
    fn nowhere() -> Self {
        Self {
            rootfs: "/nowhere".to_owned(),
            bridge: None,
            host_interface: "none".to_owned(),
        }
    }
}

/// The host's end of a container's veth, as the target names it: at most 15 characters, and
/// different for different containers.
pub fn host_interface(name: &ContainerName) -> String {
    use sha2::{Digest, Sha256};
    let digest = hex::encode(Sha256::digest(name.as_str()));
    format!("ct{}", digest.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
lxc.uts.name = App1
lxc.rootfs.path = dir:/var/lib/lxc/App1/rootfs
lxc.init.cmd = /usr/bin/redis-server --save \"\"
lxc.console.path = none
lxc.tty.max = 0
lxc.pty.max = 1
lxc.mount.auto = proc:mixed sys:mixed
lxc.net.0.type = veth
lxc.net.0.link = br0
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.hwaddr = 02:88:00:00:02:01
lxc.net.0.ipv4.address = 10.88.2.1/16
";

    #[test]
    fn a_definition_survives_the_journey() {
        let definition = parse(CONFIG).unwrap();
        assert_eq!(definition.network.address, Ipv4Addr::new(10, 88, 2, 1));
        definition.validate().unwrap();
        let place = ContainerPlace {
            rootfs: "dir:/elsewhere".to_owned(),
            bridge: Some("br1".to_owned()),
            host_interface: host_interface(&ContainerName::new("App1").unwrap()),
        };
        assert_eq!(parse(&definition.config(&place)).unwrap(), definition);
    }

    #[test]
    fn what_would_touch_the_host_stays_behind() {
        for line in [
            "lxc.hook.pre-start = /bin/sh",
            "lxc.mount.entry = /etc etc none bind 0 0",
            "lxc.include = /etc/passwd",
            "lxc.mount.auto = proc:rw /",
            "lxc.console.path = /dev/tty1",
            "lxc.net.0.script.up = /bin/sh",
            "lxc.net.1.type = phys",
        ] {
            let faults = parse(&format!("{CONFIG}{line}\n")).unwrap_err();
            assert_eq!(faults.len(), 1, "{line}: {faults:?}");
            assert!(faults[0].starts_with("line 14: "), "{faults:?}");
        }
    }

    #[test]
    fn a_smuggled_line_is_found() {
        let mut definition = parse(CONFIG).unwrap();
        definition.init = Some("/init\nlxc.hook.pre-start = /bin/sh".to_owned());
        assert!(definition.validate().is_err());
        let mut told = serde_json::to_value(parse(CONFIG).unwrap()).unwrap();
        told["network"]["mac"] = "02:88:00:00:02:01\nlxc.hook.mount = /bin/sh".into();
        assert!(serde_json::from_value::<Definition>(told).is_err());
    }

    #[test]
    fn addresses_are_read_and_written() {
        let mac: Mac = "02:88:00:00:02:0F".parse().unwrap();
        assert_eq!(mac, Mac([2, 0x88, 0, 0, 2, 15]));
        assert_eq!(mac.to_string(), "02:88:00:00:02:0f");
        for wrong in [
            "",
            "02:88:00:00:02",
            "02:88:00:00:02:01:02",
            "x:1:2:3:4:5",
            "02:88:00:00:02:1",
            "02:88:00:00:02:+1",
        ] {
            assert!(wrong.parse::<Mac>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn everything_missing_is_told_at_once() {
        assert_eq!(parse("").unwrap_err().len(), 3);
    }
}
