//! The machine's memory, while something is measured on it.
//!
//! A virtual machine's kernel tells its host which memory is free (free page reporting), and the host
//! takes it. Whoever gets it next waits until the host has given it back: it is used a third as fast
//! then, in huge pages a tenth, whatever for. So all that is measured has memory that has been used
//! before, and that the host does not take meanwhile.

use std::fmt;
use std::fs;
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// From so large a free piece on, by its order, the kernel tells the host of it.
const REPORTED_FROM: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// How many free pieces of each order there are, in a column each.
const ORDERS: &str = "/proc/buddyinfo";
const AVAILABLE: &str = "/proc/meminfo";
/// What the largest container needs on both edges, and the peers for its images there, in bytes.
const NEEDED: usize = 8 << 30;
const PAGE: usize = 4 << 10;

/// As long as this is kept, the host takes no memory. Where this process is killed, so it stays:
/// `echo 9 > /sys/module/page_reporting/parameters/page_reporting_order` is what it mostly is.
#[derive(Debug)]
pub struct Memory {
    /// How it was, where it was changed, or why it could not be.
    before: io::Result<Option<String>>,
    first_mb_per_s: f64,
    again_mb_per_s: f64,
}

impl Memory {
    /// Has the host keep its hands off, and uses so much memory once.
    pub fn hold() -> Self {
        let before = stop_reporting();
        let available = fs::read_to_string(AVAILABLE).unwrap_or_default();
        let size = NEEDED.min(available_bytes(&available) / 2) / PAGE * PAGE;
        Self {
            before,
            first_mb_per_s: use_memory(size),
            again_mb_per_s: use_memory(size),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Ok(Some(before)) = &self.before
            && let Err(error) = fs::write(REPORTED_FROM, before)
        {
            eprintln!(
                "carnet-bench: {REPORTED_FROM} was {before}, and cannot be set back: {error}"
            );
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory was used before, {:.0} MB/s then and {:.0} MB/s again; ",
            self.first_mb_per_s, self.again_mb_per_s
        )?;
        match &self.before {
            Ok(_) => write!(f, "no host took it back meanwhile"),
            Err(error) => write!(
                f,
                "a host, if there is one, may have taken it back meanwhile, and then each use of it waits: {REPORTED_FROM}: {error}"
            ),
        }
    }
}

/// From an order on that no piece has. What was set before, where anything is.
fn stop_reporting() -> io::Result<Option<String>> {
    let before = match fs::read_to_string(REPORTED_FROM) {
        // This kernel tells no host of anything.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        before => before?.trim().to_owned(),
    };
    let none = orders(&fs::read_to_string(ORDERS)?);
    fs::write(REPORTED_FROM, none.to_string())?;
    Ok(Some(before))
}

/// How many orders there are; the largest has a number less by one.
fn orders(buddyinfo: &str) -> usize {
    let counts = buddyinfo.lines().map(|line| {
        let words = line.split_whitespace().rev();
        words.take_while(|word| word.parse::<u64>().is_ok()).count()
    });
    counts.max().unwrap_or_default()
}

/// Of `/proc/meminfo`.
fn available_bytes(meminfo: &str) -> usize {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    kilobytes.unwrap_or_default() << 10
}

/// Writes to each page of so much memory, and gives it back to the kernel; MB of 10⁶ bytes a second.
fn use_memory(size: usize) -> f64 {
    let begun = Instant::now();
    let mut memory = vec![0_u8; size];
    for page in memory.chunks_mut(PAGE) {
        page.fill(1);
    }
    black_box(&memory);
    size as f64 / 1e6 / begun.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_understood() {
        let buddyinfo = "\
Node 0, zone      DMA      0      0      0      0      0      0      0      0      1      1      3 
Node 0, zone   Normal   4074  12273   7103   2892   1023    367    178     81     38      1     28 
";
        assert_eq!(orders(buddyinfo), 11);
        assert_eq!(orders(""), 0);
        let meminfo = "MemFree:         19600856 kB\nMemAvailable:   23328000 kB\n";
        assert_eq!(available_bytes(meminfo), 23_328_000 << 10);
        assert_eq!(available_bytes("nothing"), 0);
    }
}
