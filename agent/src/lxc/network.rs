//! A container's network on its edge: a namespace made by the host before the container comes,
//! and a veth whose host end is on the bridge while the container may be heard, and off it while
//! it may not.
//!
//! The veth is taken off the bridge, never set down: that costs a second.

use std::fs;
use std::io::{self, Write};
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
/// By which descriptor `ip` reads what it is to do.
const STEPS_FD: i32 = 10;

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

/// Has one `ip`, told so much already, do one thing after the other, up to the first that it cannot:
/// to start a process for each takes longer than all that they do.
async fn one_after_the_other(ip: Command, steps: &[Vec<&str>]) -> Result<(), CommandError> {
    let not_run = |source| CommandError::NotRun {
        program: ip.to_string(),
        source,
    };
    // What would be another step, or none, is no name of anything here.
    let is_word = |word: &str| {
        let is_plain = |c: char| c.is_ascii_graphic() && !"\"'\\#".contains(c);
        !word.is_empty() && word.chars().all(is_plain)
    };
    if let Some(word) = steps.iter().flatten().find(|word| !is_word(word)) {
        let what = format!("`{}` is no name", word.escape_debug());
        return Err(not_run(io::Error::other(what)));
    }
    let steps: Vec<String> = steps.iter().map(|words| words.join(" ")).collect();
    let (read, mut write) = io::pipe().map_err(not_run)?;
    // So little that no reader is waited for.
    writeln!(write, "{}", steps.join("\n")).map_err(not_run)?;
    drop(write);
    ip.args(["-batch", &format!("/proc/self/fd/{STEPS_FD}")])
        .inherit(STEPS_FD, read)
        .start()?
        .told(&steps)
        .end()
        .await
        .map(drop)
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
    let on_the_host = [
        vec!["netns", "add", &namespace],
        [
            ["link", "add", host_interface, "type", "veth"].as_slice(),
            &["peer", "name", inside, "netns", &namespace],
        ]
        .concat(),
        vec!["link", "set", host_interface, "up"],
    ];
    one_after_the_other(ip(&[]), &on_the_host).await?;
    let mac = network.mac.to_string();
    let address = format!("{}/{}", network.address, network.prefix);
    let gateway = network.gateway.map(|gateway| gateway.to_string());
    let mut within = vec![
        vec!["link", "set", "lo", "up"],
        vec!["link", "set", inside, "address", &mac],
        vec!["addr", "add", &address, "broadcast", "+", "dev", inside],
        vec!["link", "set", inside, "up"],
    ];
    let route = |gateway| vec!["route", "add", "default", "via", gateway, "dev", inside];
    within.extend(gateway.as_deref().map(route));
    one_after_the_other(ip(&["-n", &namespace]), &within).await
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_word_that_would_be_a_step_is_refused() {
        for word in ["", "eth0\nlink", "eth0 up", "#", "'eth0'", "eth0\\", "eth0"] {
            let steps = [vec!["link", "set", word, "up"]];
            let done = one_after_the_other(Command::new("true"), &steps).await;
            assert_eq!(done.is_ok(), word == "eth0", "{word:?}: {done:?}");
        }
    }
}
