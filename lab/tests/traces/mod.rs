//! What a lab leaves, where it leaves something.

use std::path::Path;
use std::process::Command;

/// Everything on this machine that carries a lab's name.
pub fn traces(name: &str) -> Vec<String> {
    let mut traces = Vec::new();
    let namespaces = Command::new("ip").args(["netns", "list"]).output().unwrap();
    for line in String::from_utf8(namespaces.stdout).unwrap().lines() {
        if line.starts_with(&format!("carnet.{name}.")) {
            traces.push(line.to_owned());
        }
    }
    for line in std::fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
    {
        if line.contains(&format!("/{name}/")) || line.contains(&format!("carnet.{name}.")) {
            traces.push(line.to_owned());
        }
    }
    for path in [
        format!("/sys/fs/cgroup/carnet-lab-{name}"),
        format!("/sys/fs/cgroup/unified/carnet-lab-{name}"),
        format!("/sys/fs/cgroup/memory/carnet-lab-{name}"),
        format!("/run/carnet-lab/{name}"),
        format!("/var/lib/carnet-lab/{name}"),
    ] {
        if Path::new(&path).exists() {
            traces.push(path);
        }
    }
    traces
}
