//! A container's network on its edge: a namespace made by the host before the container comes,
//! and a veth whose host end is on the bridge while the container may be heard, and off it while
//! it may not.
//!
//! The veth is taken off the bridge, never set down: that costs a second.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::definition::Network;
use crate::exec::{Command, CommandError};
use crate::runtime::ContainerName;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";
/// Where the kernel tells of interfaces.
const INTERFACES: &str = "/sys/class/net";

// netdevice(7); `linux/sockios.h`.
nix::ioctl_write_ptr_bad!(add_to_bridge, 0x89a2, libc::ifreq);
nix::ioctl_write_ptr_bad!(remove_from_bridge, 0x89a3, libc::ifreq);

/// The name of the namespace that the host makes for a container.
fn namespace(name: &ContainerName) -> String {
    format!("carnet-{name}")
}

/// Where the namespace that was made for a container is.
pub fn namespace_path(name: &ContainerName) -> PathBuf {
    PathBuf::from(NAMESPACES).join(namespace(name))
}

fn ip(arguments: &[&str]) -> Command {
    Command::new("ip").args(arguments.iter().copied())
}

/// Makes the namespace, the veth and the addresses, where they are not there. The host's end
/// stays off the bridge.
pub async fn make(
    name: &ContainerName,
    host_interface: &str,
    network: &Network,
) -> Result<(), CommandError> {
    // Anything half made goes first: a crash may have left it.
    remove(name, host_interface).await?;
    let namespace = namespace(name);
    let inside = network.interface.as_str();
    let address = format!("{}/{}", network.address, network.prefix);
    ip(&["netns", "add", &namespace]).run().await?;
    ip(&[
        "link",
        "add",
        host_interface,
        "type",
        "veth",
        "peer",
        "name",
        inside,
        "netns",
        &namespace,
    ])
    .run()
    .await?;
    let within = |arguments: &[&str]| ip(&["-n", &namespace]).args(arguments.iter().copied());
    within(&["link", "set", "lo", "up"]).run().await?;
    within(&["link", "set", inside, "address", &network.mac.to_string()])
        .run()
        .await?;
    within(&["addr", "add", &address, "broadcast", "+", "dev", inside])
        .run()
        .await?;
    within(&["link", "set", inside, "up"]).run().await?;
    if let Some(gateway) = network.gateway {
        let gateway = gateway.to_string();
        within(&["route", "add", "default", "via", &gateway, "dev", inside])
            .run()
            .await?;
    }
    ip(&["link", "set", host_interface, "up"]).run().await?;
    Ok(())
}

/// Removes the namespace and the veth, where they are there.
pub async fn remove(name: &ContainerName, host_interface: &str) -> Result<(), CommandError> {
    if Path::new(INTERFACES).join(host_interface).exists() {
        ip(&["link", "del", host_interface]).run().await?;
    }
    if namespace_path(name).exists() {
        ip(&["netns", "del", &namespace(name)]).run().await?;
    }
    Ok(())
}

/// Puts the host's end on the bridge: the container is heard. It waits for that, so that no program
/// is started.
///
/// # Errors
/// What the kernel refuses.
pub fn join(host_interface: &str, bridge: &str) -> Result<(), String> {
    match bridge_of(host_interface) {
        Some(joined) if joined == bridge => return Ok(()),
        Some(_) => leave(host_interface)?,
        None => {}
    }
    let joined = port(bridge, host_interface, add_to_bridge);
    joined.map_err(|error| format!("putting {host_interface} on the bridge {bridge}: {error}"))
}

/// Takes the host's end off its bridge, if it is on one: the container is not heard.
///
/// # Errors
/// What the kernel refuses.
pub fn leave(host_interface: &str) -> Result<(), String> {
    let Some(bridge) = bridge_of(host_interface) else {
        return Ok(());
    };
    let left = port(&bridge, host_interface, remove_from_bridge);
    left.map_err(|error| format!("taking {host_interface} off the bridge {bridge}: {error}"))
}

/// The bridge that an interface is on.
fn bridge_of(interface: &str) -> Option<String> {
    let bridge = fs::read_link(Path::new(INTERFACES).join(interface).join("master")).ok()?;
    Some(bridge.file_name()?.to_str()?.to_owned())
}

/// The number of an interface.
///
/// # Errors
/// Where there is none of that name.
pub fn index(interface: &str) -> io::Result<i32> {
    let index = fs::read_to_string(Path::new(INTERFACES).join(interface).join("ifindex"))?;
    index.trim().parse().map_err(io::Error::other)
}

/// Asks the kernel for a change of a bridge's ports.
fn port(
    bridge: &str,
    interface: &str,
    change: unsafe fn(libc::c_int, *const libc::ifreq) -> nix::Result<libc::c_int>,
) -> io::Result<()> {
    let index = index(interface)?;
    let mut name = [0; libc::IFNAMSIZ];
    if bridge.len() >= name.len() {
        return Err(io::Error::other("its name is too long"));
    }
    for (place, byte) in name.iter_mut().zip(bridge.bytes()) {
        *place = byte.cast_signed();
    }
    let request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_ifindex: index,
        },
    };
    let socket = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    #[expect(
        unsafe_code,
        reason = "the kernel reads the bridge's name and the interface's number, and no more"
    )]
    unsafe { change(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Tells the network where the container with the process `pid` is now (gratuitous ARP).
pub async fn announce(pid: u32, network: &Network) -> Result<(), CommandError> {
    Command::new("nsenter")
        .arg(format!("--net=/proc/{pid}/ns/net"))
        .args(["arping", "-U", "-c", "1", "-I"])
        .arg(network.interface.clone())
        .arg(network.address.to_string())
        .run()
        .await
        .map(drop)
}
