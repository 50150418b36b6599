//! A container's network on its edge: a namespace made by the host before the container comes,
//! and a veth whose host end is on the bridge while the container may be heard, and off it while
//! it may not.
//!
//! The veth is taken off the bridge, never set down: that costs a second.

use std::path::PathBuf;

use super::definition::Network;
use crate::exec::{Command, CommandError};
use crate::runtime::ContainerName;

/// Where `ip netns` keeps namespaces.
const NAMESPACES: &str = "/run/netns";

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
    within(&["link", "set", inside, "address", &network.mac])
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
    if PathBuf::from("/sys/class/net")
        .join(host_interface)
        .exists()
    {
        ip(&["link", "del", host_interface]).run().await?;
    }
    if namespace_path(name).exists() {
        ip(&["netns", "del", &namespace(name)]).run().await?;
    }
    Ok(())
}

/// Puts the host's end on the bridge: the container is heard.
pub async fn join(host_interface: &str, bridge: &str) -> Result<(), CommandError> {
    ip(&["link", "set", host_interface, "master", bridge])
        .run()
        .await
        .map(drop)
}

/// Takes the host's end off the bridge: the container is not heard.
pub async fn leave(host_interface: &str) -> Result<(), CommandError> {
    ip(&["link", "set", host_interface, "nomaster"])
        .run()
        .await
        .map(drop)
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
