//! `carnet serve` with keys that are given from outside.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A control plane that runs, ended with this.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What it says where it does not run.
fn serve(data: &Path, environment: &[(&str, &str)]) -> Result<Serving, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carnet"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    for name in [
        "CARNET_AUTHORITY_KEY",
        "CARNET_PERMIT_KEY",
        "CARNET_LEDGER_KEY",
        "CREDENTIALS_DIRECTORY",
    ] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    let mut serving = Serving(command.spawn().unwrap());
    // Ends where the process does.
    let mut line = String::new();
    let stdout = serving.0.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    if line.starts_with("listening on ") {
        return Ok(serving);
    }
    let mut told = String::new();
    let mut stderr = serving.0.stderr.take().unwrap();
    stderr.read_to_string(&mut told).unwrap();
    assert!(!serving.0.wait().unwrap().success());
    Err(told)
}

fn fails(data: &Path, environment: &[(&str, &str)]) -> String {
    match serve(data, environment) {
        Ok(_) => panic!("it runs"),
        Err(told) => told,
    }
}

/// Keys and certificate of a data directory.
fn made(data: &Path) -> [String; 4] {
    ["authority.pem", "authority.key", "permit.key", "ledger.key"]
        .map(|name| fs::read_to_string(data.join(name)).unwrap())
}

#[test]
fn every_key_can_come_from_the_environment_or_a_credential() {
    let directory = TempDir::new().unwrap();
    let first = directory.path().join("first");
    serve(&first, &[]).unwrap();
    let [certificate, authority, permit, ledger] = made(&first);

    let credentials = directory.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    for (name, key) in [
        ("authority.key", &authority),
        ("permit.key", &permit),
        ("ledger.key", &ledger),
    ] {
        fs::write(credentials.join(name), key).unwrap();
    }
    let environment = [
        ("CARNET_AUTHORITY_KEY", authority.as_str()),
        ("CARNET_PERMIT_KEY", permit.as_str()),
        ("CARNET_LEDGER_KEY", ledger.as_str()),
    ];
    let credential = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    for (name, given) in [
        ("environment", &environment[..]),
        ("credential", &credential),
    ] {
        // Where the certificate is there, it stays; where it is not, it is made.
        for is_there in [true, false] {
            let data = directory.path().join(format!("{name}-{is_there}"));
            fs::create_dir(&data).unwrap();
            if is_there {
                fs::write(data.join("authority.pem"), &certificate).unwrap();
            }
            serve(&data, given).unwrap();
            for key in ["authority.key", "permit.key", "ledger.key"] {
                assert!(!data.join(key).exists(), "{name}: {key}");
            }
            let found = fs::read_to_string(data.join("authority.pem")).unwrap();
            assert_eq!(found == certificate, is_there, "{name}");
            // The same from then on.
            serve(&data, given).unwrap();
            let again = fs::read_to_string(data.join("authority.pem")).unwrap();
            assert_eq!(again, found, "{name}");
        }
    }
}

#[test]
fn a_key_that_does_not_belong_to_the_authoritys_certificate_is_refused() {
    let directory = TempDir::new().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    for data in [&first, &second] {
        serve(data, &[]).unwrap();
    }
    let [_, others, permit, _] = made(&second);
    let before = made(&first);
    let told = fails(&first, &[("CARNET_AUTHORITY_KEY", &others)]);
    let expected = "is not the certificate of the key in CARNET_AUTHORITY_KEY";
    assert!(told.contains(expected), "{told}");
    // Another kind of key, and none.
    for wrong in [permit.as_str(), "", "no key"] {
        let told = fails(&first, &[("CARNET_AUTHORITY_KEY", wrong)]);
        assert!(told.contains("CARNET_AUTHORITY_KEY"), "{wrong}: {told}");
    }
    fs::write(first.join("authority.key"), &others).unwrap();
    let told = fails(&first, &[]);
    assert!(told.contains("authority.key"), "{told}");
    assert!(
        told.contains("is not the certificate of the key in"),
        "{told}"
    );
    fs::write(first.join("authority.key"), &before[1]).unwrap();
    assert_eq!(made(&first), before);
    // A key of its own does not get another certificate: that would be another authority.
    fs::remove_file(first.join("authority.pem")).unwrap();
    let told = fails(&first, &[]);
    assert!(told.contains("authority.pem"), "{told}");
    assert!(!first.join("authority.pem").exists());
}
