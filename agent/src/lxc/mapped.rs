//! What processes have mapped into memory: `/proc/PID/maps`, proc_pid_maps(5).

use std::fs;
use std::path::PathBuf;

use crate::tree::Mapped;

/// Where nothing of a root file system is: devices, shared memory, and what only looks like a file.
const ELSEWHERE: [&str; 4] = ["/dev/", "/memfd:", "/SYSV", "/anon_hugepage"];

/// The files that any of the processes has mapped to write to them. One that has ended has none.
pub fn files(processes: &[u32]) -> Vec<Mapped> {
    let mut mapped: Vec<Mapped> = Vec::new();
    for pid in processes {
        for file in maps(*pid).lines().filter_map(file) {
            if !mapped.contains(&file) {
                mapped.push(file);
            }
        }
    }
    mapped
}

/// What a process has mapped, a line each, with what is no UTF-8 replaced; nothing where it has ended.
pub fn maps(pid: u32) -> String {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    String::from_utf8_lossy(&maps).into_owned()
}

/// The file of a line, where it is shared and can be written to.
fn file(line: &str) -> Option<Mapped> {
    let mut rest = line;
    let mut next = || {
        let (word, behind) = rest.split_once(' ')?;
        rest = behind.trim_start();
        Some(word)
    };
    let (_addresses, permissions, _offset, _device) = (next()?, next()?, next()?, next()?);
    let inode = next()?.parse().ok().filter(|inode| *inode != 0)?;
    let is_written = permissions.contains('w') && permissions.ends_with('s');
    // A file without a name goes with the memory images.
    let is_elsewhere = ELSEWHERE.iter().any(|start| rest.starts_with(start));
    (is_written && !is_elsewhere && rest.starts_with('/') && !rest.ends_with(" (deleted)")).then(
        || Mapped {
            inode,
            path: PathBuf::from(rest),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_that_are_shared_and_written_to_are_told() {
        let maps = "\
5644adaf0000-5644adb67000 rw-p 00000000 00:33 1075028                    /usr/bin/redis-server
7fde41a00000-7fde42c00000 rw-s 00000000 00:01 1024                       /dev/zero (deleted)
7fde41a00000-7fde42c00000 rw-s 00000000 00:17 12                         /dev/shm/pool
7fde41a00000-7fde42c00000 rw-s 00000000 00:01 7                          /memfd:x (deleted)
7fde43a00000-7fde43c00000 r--s 00000000 00:33 99                         /usr/lib/gconv/cache
7fde44a00000-7fde44c00000 rw-s 00001000 00:33 4711                       /data/a file
7fde45a00000-7fde45c00000 -w-s 00000000 00:33 4712                       /data/log
7fde46a00000-7fde46c00000 rw-s 00000000 00:33 4713                       /data/gone (deleted)
7fde47a00000-7fde47c00000 rw-p 00000000 00:00 0 
7fff47a00000-7fff47c00000 rw-p 00000000 00:00 0                          [stack]
not a line";
        let told: Vec<Mapped> = maps.lines().filter_map(file).collect();
        let expected = [(4711, "/data/a file"), (4712, "/data/log")];
        let expected = expected.map(|(inode, path)| Mapped {
            inode,
            path: PathBuf::from(path),
        });
        assert_eq!(told, expected);
    }
}
