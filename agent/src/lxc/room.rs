//! Whether there is room for a container: memory, disk, and its address.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use carnet_api::agent::Described;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;

use super::definition::Network;

/// What must stay free on the disk, in bytes.
const DISK_RESERVE: u64 = 64 << 20;

/// What a directory and all below it take on the disk, in bytes. What cannot be read counts
/// nothing.
pub fn used_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let metadata = entry.metadata().ok()?;
            let below = if metadata.is_dir() {
                used_below(&entry.path())
            } else {
                0
            };
            Some(metadata.blocks() * 512 + below)
        })
        .sum()
}

/// Whether `path` is on tmpfs.
pub fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// What is missing for the files of `container`, which go below `directory`.
pub fn disk_shortage(container: &Described, directory: &Path) -> Option<String> {
    match statvfs(directory) {
        Ok(found) => {
            let free = found.fragment_size() * found.blocks_available();
            let needed = container.rootfs_bytes.saturating_add(DISK_RESERVE);
            (free < needed).then(|| {
                format!(
                    "{} has {} MB free, and {} MB are needed",
                    directory.display(),
                    free >> 20,
                    needed >> 20
                )
            })
        }
        Err(error) => Some(format!("{}: {error}", directory.display())),
    }
}

/// What is missing for a container to come with so much in memory.
pub fn memory_shortage(memory_bytes: u64) -> Option<String> {
    // The images lie in memory beside the restored processes.
    let needed = memory_bytes.saturating_mul(2);
    match crate::utilization::free_memory_bytes() {
        Ok(free) => (free < needed).then(|| {
            format!(
                "{} MB of memory are free, and {} MB are needed",
                free >> 20,
                needed >> 20
            )
        }),
        Err(error) => Some(error.to_string()),
    }
}

/// What is missing for the images of so much memory to lie here, and for what is written to
/// meanwhile; in words.
pub fn for_images(memory_bytes: u64) -> Option<String> {
    let needed = memory_bytes.saturating_mul(2);
    // What is not there yet will be on the same tmpfs.
    let directory = Path::new(super::IMAGES)
        .ancestors()
        .find(|path| path.is_dir())?;
    let free = match statvfs(directory) {
        Ok(found) => found.fragment_size() * found.blocks_available(),
        Err(error) => return Some(format!("{}: {error}", directory.display())),
    };
    (free < needed).then(|| {
        format!(
            "{} has {} MB free, and {} MB are needed for memory that goes ahead: mount -o remount,size=... the tmpfs that it is on",
            directory.display(),
            free >> 20,
            needed >> 20
        )
    })
}

/// A container of this edge that has the address already, in words.
pub fn address_in_use(network: &Network) -> Option<String> {
    let address: Ipv4Addr = network.address;
    let written = format!("lxc.net.0.ipv4.address = {address}/");
    fs::read_dir(super::CONTAINERS)
        .ok()?
        .flatten()
        .find(|entry| {
            let directory = entry.path();
            // One that is held comes back with its address.
            [directory.join("config"), super::cold::held(&directory)]
                .into_iter()
                .filter_map(|path| fs::read_to_string(path).ok())
                .any(|config| {
                    config
                        .lines()
                        .any(|line| line.replace(' ', "").starts_with(&written.replace(' ', "")))
                })
        })
        .map(|entry| {
            format!(
                "container `{}` of this edge has the address {address}",
                entry.file_name().to_string_lossy()
            )
        })
}
