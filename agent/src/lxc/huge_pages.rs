//! A container's memory in huge pages: CRIU looks at every page while the container stands still,
//! and of 1 GB in pages of 4 kB there are 250,000.
//!
//! The kernel copies what it puts together, while the container runs (madvise(2),
//! `MADV_COLLAPSE`). Only what is there already is put together: nothing grows by it. A container
//! that has asked for none (`MADV_NOHUGEPAGE`, `PR_SET_THP_DISABLE`) gets none, for the kernel
//! refuses, and neither does any on a machine whose administrator wants none.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;

use super::mapped;

/// Whether there are any: `always [madvise] never`, for one.
const SETTING: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// A page, in bytes, and a huge one, on every machine that CRIU runs on here.
const PAGE: u64 = 4 << 10;
const HUGE_PAGE: u64 = 2 << 20;
const ENTRIES: usize = (HUGE_PAGE / PAGE) as usize;
/// Of an entry of `/proc/PID/pagemap`: it is in memory, and it is of a file or shared.
const IS_PRESENT: u64 = 1 << 63;
const IS_SHARED: u64 = 1 << 61;
/// madvise(2)
const MADV_COLLAPSE: libc::c_int = 25;
/// How much is put together before somebody else has a turn.
const AT_ONCE: u64 = 8 * HUGE_PAGE;

/// Has the kernel keep the memory of the processes in huge pages, where it can. It ends early where
/// it is dropped, and where there are no huge pages to be had.
pub async fn use_for(processes: Vec<u32>) {
    if fs::read_to_string(SETTING).map_or(true, |setting| setting.contains("[never]")) {
        return;
    }
    for pid in processes {
        for region in mapped::maps(pid)
            .lines()
            .filter_map(own_memory)
            .flat_map(in_parts)
        {
            let gathering = tokio::task::spawn_blocking(move || gather(pid, region));
            if let Ok(Err(error)) = gathering.await {
                tracing::debug!(pid, %error, "no more memory is put into huge pages");
                break;
            }
        }
    }
}

/// Where a line of `/proc/PID/maps` is of memory that is the process's alone, and of no file, as far
/// as huge pages fit.
fn own_memory(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let (addresses, permissions) = (words.next()?, words.next()?);
    let (_offset, _device, inode) = (words.next()?, words.next()?, words.next()?);
    let (start, end) = addresses.split_once('-')?;
    let (start, end) = (
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    );
    let is_own = permissions.starts_with("rw") && permissions.ends_with('p') && inode == "0";
    let fits = start.next_multiple_of(HUGE_PAGE)..end / HUGE_PAGE * HUGE_PAGE;
    (is_own && !fits.is_empty()).then_some(fits)
}

fn in_parts(region: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = region.end;
    let starts = region.step_by(AT_ONCE as usize);
    starts.map(move |start| start..end.min(start + AT_ONCE))
}

/// Puts together what of a region is there in whole.
fn gather(pid: u32, region: Range<u64>) -> io::Result<()> {
    let process = open(pid)?;
    let pages = File::open(format!("/proc/{pid}/pagemap"))?;
    for start in region.step_by(HUGE_PAGE as usize) {
        if is_whole(&pages, start)? {
            collapse(&process, start)?;
        }
    }
    Ok(())
}

fn is_whole(pages: &File, start: u64) -> io::Result<bool> {
    let mut entries = [0; ENTRIES * 8];
    pages.read_exact_at(&mut entries, start / PAGE * 8)?;
    let (entries, _) = entries.as_chunks();
    Ok(entries
        .iter()
        .map(|entry| u64::from_ne_bytes(*entry))
        .all(|entry| entry & IS_PRESENT != 0 && entry & IS_SHARED == 0))
}

/// The process `pid`. Should it have ended, and its number be another's by now, that one's memory
/// is as good as this one's to be put together: nothing in it changes.
fn open(pid: u32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "nix has no pidfd_open(2)")]
    let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let opened = Errno::result(opened)?;
    let opened = i32::try_from(opened).map_err(io::Error::other)?;
    #[expect(unsafe_code, reason = "the kernel has just given it to this process")]
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// Puts together the huge page at `start`, where the kernel does.
fn collapse(process: &OwnedFd, start: u64) -> io::Result<()> {
    let place = libc::iovec {
        iov_base: start as *mut libc::c_void,
        iov_len: HUGE_PAGE as usize,
    };
    #[expect(
        unsafe_code,
        reason = "nix has no process_madvise(2); it writes to no memory of this process"
    )]
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &raw const place,
            1,
            MADV_COLLAPSE,
            0,
        )
    };
    match Errno::result(done) {
        // Not this one: it is in use, or is not to be.
        Ok(_) | Err(Errno::EAGAIN | Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_process_s_own_memory_is_told() {
        let maps = "\
5644adaf0000-5644adf67000 rw-p 00000000 00:33 1075028                    /usr/bin/redis-server
564400000000-564400200000 rw-p 00000000 00:00 0                          [heap]
7fde41a00000-7fde42c00000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)
7fde43a00000-7fde43c00000 r--p 00000000 00:00 0 
7fde44a01000-7fde44e00000 rw-p 00000000 00:00 0 
7fde47b00000-7fde47c00000 rw-p 00000000 00:00 0 
not a line";
        let told: Vec<_> = maps.lines().filter_map(own_memory).collect();
        assert_eq!(
            told,
            [
                0x5644_0000_0000..0x5644_0020_0000,
                0x7fde_44c0_0000..0x7fde_44e0_0000
            ]
        );
    }

    #[test]
    fn a_region_is_gone_through_whole() {
        let parts: Vec<_> = in_parts(HUGE_PAGE..20 * HUGE_PAGE).collect();
        let parts: Vec<_> = parts
            .iter()
            .map(|part| part.start / HUGE_PAGE..part.end / HUGE_PAGE)
            .collect();
        assert_eq!(parts, [1..9, 9..17, 17..20]);
    }

    /// How much of this process's memory is in huge pages, in kB.
    fn huge() -> u64 {
        let told = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let mut lines = told.lines();
        let line = lines.find_map(|line| line.strip_prefix("AnonHugePages:"));
        let kilobytes = line.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse().unwrap()
    }

    #[tokio::test]
    async fn memory_is_put_together_and_holds_what_it_held() {
        let memory: Vec<u32> = (0..8 << 20).collect();
        let before = huge();
        use_for(vec![std::process::id()]).await;
        let setting = fs::read_to_string(SETTING).unwrap_or_default();
        assert!(
            huge() > before,
            "this kernel gives no huge pages; {SETTING}: {setting}"
        );
        assert!(memory.iter().zip(0..).all(|(found, put)| *found == put));
    }
}
