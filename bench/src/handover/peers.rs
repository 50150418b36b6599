//! What hand-overs are compared with: the paper's way, and a dump and a restore in one place.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use carnet_lab::error::LabError;

use super::HandoverBenchError;
use super::stage::{Moving, Stage};

/// The paper's way (its section 4.3): `lxc-checkpoint` stops the container, `rsync` takes it over,
/// `lxc-checkpoint` restores it. At the target it says by ARP where it is now.
const PAPERS_SOURCE: &str = include_str!("paper-source.sh");

const PAPERS_TARGET: &str = include_str!("paper-target.sh");

/// Podman with runc. Its network is made ahead, and off the bridge while nobody answers there.
const PODMANS_SOURCE: &str = include_str!("podman-source.sh");

const PODMANS_TARGET: &str = include_str!("podman-target.sh");

/// What `lxc-checkpoint` needs to work at all.
const CRIU_FOR_LXC: &str = include_str!("criu-for-lxc.sh");

/// Where rsync takes what comes.
const DAEMON: &str = include_str!("rsync-daemon.sh");

/// Makes ready for a restore in place: the network namespace is made by the host, ahead.
const FLOOR_AHEAD: &str = include_str!("floor-ahead.sh");

/// Dumps, and restores from the images where they are.
const FLOOR: &str = include_str!("floor.sh");

/// What a client outside saw of a move, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub downtime: Duration,
    pub total: Duration,
}

/// Does something to a container, and tells what its client saw of it.
pub fn seen(
    moving: &mut Moving,
    act: impl FnOnce(&mut Moving) -> Result<(), HandoverBenchError>,
) -> Result<Seen, HandoverBenchError> {
    moving.client.begin();
    let begun = Instant::now();
    act(moving)?;
    let total = begun.elapsed();
    let downtime = moving
        .client
        .longest_gap()
        .map_err(|fault| HandoverBenchError::NotWhole(moving.name.clone(), fault))?;
    Ok(Seen { downtime, total })
}

/// Moves a container that has never been restored as the paper does.
pub fn papers_way(stage: &Stage, moving: &mut Moving) -> Result<Seen, HandoverBenchError> {
    let (source, target) = (stage.host(moving.at)?, stage.host(moving.at.other())?);
    target.run("sh", &["-c", DAEMON])?;
    for host in [source, target] {
        let criu = host.path("/run/bench-criu/criu")?;
        write_program(&criu, CRIU_FOR_LXC).map_err(LabError::file(&criu))?;
    }
    let address = target.address.to_string();
    seen(moving, |moving| {
        source.run("sh", &["-c", PAPERS_SOURCE, "sh", &moving.name, &address])?;
        target.run("sh", &["-c", PAPERS_TARGET, "sh", &moving.name])?;
        moving.at = moving.at.other();
        Ok(())
    })
}

/// Moves a container as Podman does: export, copy, import. Its image is at the target already.
pub fn podmans_way(stage: &Stage, moving: &mut Moving) -> Result<Seen, HandoverBenchError> {
    let (source, target) = (stage.host(moving.at)?, stage.host(moving.at.other())?);
    target.run("sh", &["-c", DAEMON])?;
    let address = target.address.to_string();
    seen(moving, |moving| {
        source.run("sh", &["-c", PODMANS_SOURCE, "sh", &moving.name, &address])?;
        target.run("sh", &["-c", PODMANS_TARGET, "sh", &moving.name])?;
        moving.at = moving.at.other();
        Ok(())
    })
}

fn write_program(path: &Path, text: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Dumps a container that Carnet has moved, and restores it where it is. Its network is another
/// one then, of this number.
pub fn floor(
    stage: &Stage,
    moving: &mut Moving,
    number: usize,
) -> Result<Seen, HandoverBenchError> {
    let (host, number) = (stage.host(moving.at)?, number.to_string());
    let name = moving.name.clone();
    host.run("sh", &["-c", FLOOR_AHEAD, "sh", &name, &number])?;
    seen(moving, |_| {
        host.run("sh", &["-c", FLOOR, "sh", &name, &number])?;
        Ok(())
    })
}
