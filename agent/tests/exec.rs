//! Commands that are handed a file. Alone in its program, so that descriptors are what they seem.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;

use carnet_agent::exec::Command;
use tempfile::TempDir;

#[tokio::test]
async fn a_file_is_handed_over_whatever_its_descriptor_was() {
    let directory = TempDir::new().unwrap();
    // Far beyond the descriptor under which the command finds it, so that one of them has that.
    let files: Vec<_> = (0..30)
        .map(|n| {
            let path = directory.path().join(n.to_string());
            fs::write(&path, "").unwrap();
            (File::open(&path).unwrap(), path)
        })
        .collect();
    // One that some of them have.
    let number = files[files.len() / 2].0.as_raw_fd();
    for (file, path) in files {
        let descriptor = file.as_raw_fd();
        let found = Command::new("readlink")
            .arg(format!("/proc/self/fd/{number}"))
            .inherit(number, file)
            .run()
            .await
            .unwrap_or_else(|error| panic!("descriptor {descriptor}: {error}"));
        assert_eq!(found.trim(), path.to_str().unwrap());
    }
}
