//! An edge's CPU and memory use: of its cgroup where it is confined to one (a lab's host, a
//! virtual edge), else of the machine.
//!
//! The cgroup asked is the one at the root of what is mounted here, not the agent's own: that
//! one holds the agent alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use carnet_api::agent::Utilization;
use thiserror::Error;

/// How often CPU time is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time over which a CPU use is told: over less, the clock's ticks show.
const SHORTEST: Duration = Duration::from_millis(200);
/// From this limit on a v1 cgroup is not limited, in bytes.
const V1_UNLIMITED: u64 = 1 << 60;

/// A reading that could not be had. It is never guessed.
#[derive(Debug, Error)]
#[error("utilization cannot be read: {0}")]
pub struct NoReading(String);

/// CPU time used by the edge, and when it was looked at.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    used: Duration,
}

/// Reads the edge's utilization.
#[derive(Debug, Default)]
pub struct Meter {
    /// The last two looks at CPU time, the older first.
    samples: Mutex<(Option<Sample>, Option<Sample>)>,
}

impl Meter {
    /// Looks at CPU time now and then, so that a reading is always over the last second or two.
    /// Runs until dropped.
    pub async fn keep_sampling(&self) {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            interval.tick().await;
            if let Ok(sample) = sample() {
                let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
                *samples = (samples.1, Some(sample));
            }
        }
    }

    /// Reads utilization now. An agent that has just begun to look waits until it can tell.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub async fn read(&self) -> Result<Utilization, NoReading> {
        let (before, now) = self.span().await?;
        Ok(Utilization {
            cpu_hundredths: hundredths(
                now.used.saturating_sub(before.used).as_secs_f64(),
                (now.at - before.at).as_secs_f64() * processors(),
            ),
            memory_hundredths: memory()?.used_hundredths(),
            age_ms: 0,
        })
    }
}

impl Meter {
    /// Two looks at CPU time, the later of which is now, that are not too close to each other.
    async fn span(&self) -> Result<(Sample, Sample), NoReading> {
        let now = sample()?;
        let (older, newer) = *self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let before = [newer, older]
            .into_iter()
            .flatten()
            .find(|sample| now.at - sample.at >= SHORTEST);
        if let Some(before) = before {
            return Ok((before, now));
        }
        tokio::time::sleep(SHORTEST).await;
        Ok((now, sample()?))
    }
}

fn hundredths(part: f64, whole: f64) -> u16 {
    if whole <= 0.0 {
        return 10_000;
    }
    // In range by clamping; rounding up, so that a threshold is not met by rounding down.
    (part / whole * 10_000.0).ceil().clamp(0.0, 10_000.0) as u16
}

/// Memory of the edge that is free for use, in bytes.
///
/// # Errors
/// Where the kernel does not tell.
pub fn free_memory_bytes() -> Result<u64, NoReading> {
    let memory = memory()?;
    Ok(memory.total.saturating_sub(memory.used))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    /// Without what the kernel gives back when it is asked.
    used: u64,
}

impl Memory {
    fn used_hundredths(self) -> u16 {
        hundredths(self.used as f64, self.total as f64)
    }
}

fn read(path: &Path) -> Result<String, NoReading> {
    fs::read_to_string(path).map_err(|error| NoReading(format!("{}: {error}", path.display())))
}

fn number(path: &Path) -> Result<u64, NoReading> {
    let text = read(path)?;
    text.trim()
        .parse()
        .map_err(|_| NoReading(format!("{} holds no number: {text}", path.display())))
}

fn memory() -> Result<Memory, NoReading> {
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    if let Some(root) = mount(&mounts, Hierarchy::V2) {
        let limit = root.join("memory.max");
        if let Ok(text) = fs::read_to_string(&limit)
            && let Ok(total) = text.trim().parse()
        {
            let used = number(&root.join("memory.current"))?;
            let reclaimable = statistic(&read(&root.join("memory.stat"))?, "inactive_file");
            return Ok(Memory {
                total,
                used: used.saturating_sub(reclaimable),
            });
        }
    }
    if let Some(root) = mount(&mounts, Hierarchy::V1("memory")) {
        let total = number(&root.join("memory.limit_in_bytes"))?;
        if total < V1_UNLIMITED {
            let used = number(&root.join("memory.usage_in_bytes"))?;
            let reclaimable = statistic(&read(&root.join("memory.stat"))?, "total_inactive_file");
            return Ok(Memory {
                total,
                used: used.saturating_sub(reclaimable),
            });
        }
    }
    machine_memory(&read(Path::new("/proc/meminfo"))?)
        .ok_or_else(|| NoReading("/proc/meminfo holds no MemTotal or MemAvailable".to_owned()))
}

/// From the text of `/proc/meminfo`.
fn machine_memory(text: &str) -> Option<Memory> {
    let bytes = |key: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1_024)
    };
    let total = bytes("MemTotal:")?;
    Some(Memory {
        total,
        used: total.saturating_sub(bytes("MemAvailable:")?),
    })
}

/// A line `key number` of a statistics file; 0 where there is none.
fn statistic(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// How many processors' time the edge may use.
fn processors() -> f64 {
    let all = std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    let quota = read(Path::new("/proc/self/mountinfo"))
        .ok()
        .and_then(|mounts| mount(&mounts, Hierarchy::V2))
        .and_then(|root| fs::read_to_string(root.join("cpu.max")).ok())
        .and_then(|text| quota(&text));
    quota.map_or(all, |quota| quota.min(all))
}

/// From the text of `cpu.max`: `QUOTA PERIOD`, or `max PERIOD`.
fn quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn sample() -> Result<Sample, NoReading> {
    let at = Instant::now();
    let mounts = read(Path::new("/proc/self/mountinfo"))?;
    if let Some(root) = mount(&mounts, Hierarchy::V2)
        // Every cgroup but the machine's root has this file.
        && root.join("cgroup.type").exists()
    {
        let used = statistic(&read(&root.join("cpu.stat"))?, "usage_usec");
        return Ok(Sample {
            at,
            used: Duration::from_micros(used),
        });
    }
    let used = machine_cpu(&read(Path::new("/proc/stat"))?)
        .ok_or_else(|| NoReading("/proc/stat holds no line `cpu`".to_owned()))?;
    Ok(Sample { at, used })
}

/// CPU time that was not idle, from the text of `/proc/stat`.
fn machine_cpu(text: &str) -> Option<Duration> {
    /// Every architecture that Linux runs on tells these in hundredths of a second.
    const TICK: Duration = Duration::from_millis(10);
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u32> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    // user nice system idle iowait irq softirq steal; guests count within user and nice.
    let busy = ticks
        .iter()
        .take(8)
        .enumerate()
        .filter(|(column, _)| !matches!(column, 3 | 4))
        .map(|(_, ticks)| *ticks)
        .fold(0u32, u32::saturating_add);
    Some(TICK.saturating_mul(busy))
}

#[derive(Clone, Copy)]
enum Hierarchy {
    V2,
    /// With the controller of this name.
    V1(&'static str),
}

/// Where a hierarchy is mounted, from the text of `/proc/self/mountinfo` (proc(5)).
fn mount(mountinfo: &str, hierarchy: Hierarchy) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mount_point = before.split(' ').nth(4)?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let wanted = match hierarchy {
            Hierarchy::V2 => kind == "cgroup2",
            Hierarchy::V1(controller) => {
                kind == "cgroup" && options.split(',').any(|option| option == controller)
            }
        };
        wanted.then(|| PathBuf::from(mount_point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
36 25 0:30 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
37 25 0:31 / /run/cgroup/memory rw,relatime - cgroup memory rw,memory
38 25 0:32 / /proc rw - proc proc rw
";

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        assert_eq!(
            mount(MOUNTINFO, Hierarchy::V2),
            Some(PathBuf::from("/sys/fs/cgroup"))
        );
        assert_eq!(
            mount(MOUNTINFO, Hierarchy::V1("memory")),
            Some(PathBuf::from("/run/cgroup/memory"))
        );
        assert_eq!(mount(MOUNTINFO, Hierarchy::V1("cpuacct")), None);
    }

    #[test]
    fn the_machine_is_read_from_proc() {
        let memory =
            machine_memory("MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable:  600 kB\n").unwrap();
        assert_eq!(memory.used_hundredths(), 4_000);
        assert_eq!(machine_memory("MemTotal: 1000 kB\n"), None);
        let used = machine_cpu("cpu  100 10 50 9000 500 1 2 3 7 8\ncpu0 1 2\n").unwrap();
        assert_eq!(used, Duration::from_millis(1_660));
        assert_eq!(machine_cpu("nothing"), None);
    }

    #[test]
    fn quotas_limit_the_processors() {
        assert_eq!(quota("150000 100000\n"), Some(1.5));
        assert_eq!(quota("max 100000\n"), None);
    }

    #[test]
    fn shares_are_rounded_up_and_bounded() {
        assert_eq!(hundredths(0.0, 2.0), 0);
        assert_eq!(hundredths(0.50001, 1.0), 5_001);
        assert_eq!(hundredths(3.0, 2.0), 10_000);
        assert_eq!(hundredths(1.0, 0.0), 10_000);
    }

    #[tokio::test]
    async fn a_reading_spans_some_time_from_the_beginning() {
        let meter = Meter::default();
        let (before, now) = meter.span().await.unwrap();
        assert!(now.at - before.at >= SHORTEST);
        assert!(now.used >= before.used);
        meter.read().await.unwrap();
    }
}
