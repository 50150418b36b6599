//! What an agent can find out about its machine. What it cannot is left out, not guessed.

use std::fs;
use std::path::Path;

use carnet_api::v1::DetectedFacts;

use crate::exec::Command;
use crate::lxc::criu;

/// The machine's facts.
pub async fn facts() -> DetectedFacts {
    let lxc_version = match Command::new("lxc-info").arg("--version").run().await {
        Ok(version) => Some(version.trim().to_owned()),
        Err(_) => None,
    };
    DetectedFacts {
        manufacturer: line("/sys/class/dmi/id/sys_vendor"),
        virtualization: lxc_version.iter().map(|_| "lxc".to_owned()).collect(),
        cpu_mhz: cpu_mhz(),
        memory_mb: memory_mb(),
        ai_support: accelerator(),
        kernel: Some(kernel()),
        criu_version: criu::installed().await.ok().flatten(),
        lxc_version,
    }
}

/// The kernel's release, such as `6.18.44-amd64`; empty where it is not told.
pub fn kernel() -> String {
    line("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The highest clock rate of the first processor; virtual machines tell only the present one.
fn cpu_mhz() -> Option<u32> {
    if let Some(khz) = line("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq") {
        return khz.parse::<u32>().ok().map(|khz| khz / 1_000);
    }
    present_mhz(&fs::read_to_string("/proc/cpuinfo").ok()?)
}

/// From the text of `/proc/cpuinfo`.
fn present_mhz(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("cpu MHz"))?;
    let mhz: f64 = line.split_once(':')?.1.trim().parse().ok()?;
    (mhz > 0.0).then(|| mhz.round() as u32)
}

fn memory_mb() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024 / 1_000_000)
}

/// Some accelerators show themselves; that none does says nothing.
fn accelerator() -> Option<bool> {
    let seen = ["/dev/nvidia0", "/dev/kfd", "/dev/accel", "/dev/apex_0"]
        .iter()
        .any(|path| Path::new(path).exists());
    seen.then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rate_is_read() {
        assert_eq!(
            present_mhz("processor : 0\ncpu MHz\t\t: 2599.998\ncache"),
            Some(2_600)
        );
        assert_eq!(present_mhz("processor : 0\n"), None);
    }
}
