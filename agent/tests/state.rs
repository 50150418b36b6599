//! What an agent keeps on disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use carnet_agent::server::{Config, RuntimeChoice, run};
use carnet_agent::state::{AgentState, EdgeRecord, StateError, write_private};
use carnet_core::ids::EdgeId;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use uuid::Uuid;

fn edge(address: &str) -> EdgeRecord {
    EdgeRecord {
        id: EdgeId::from_uuid(Uuid::now_v7()),
        name: "Edge1".to_owned(),
        address: address.to_owned(),
    }
}

fn create(directory: &Path, edge: &EdgeRecord) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["edge".to_owned()]).unwrap();
    let (certificate, key) = (cert.pem(), signing_key.serialize_pem());
    AgentState::create(directory, edge, &certificate, &certificate, &key).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn what_was_created_is_loaded_and_nobody_else_reads_it() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path().join("deep/state");
    let edge = edge("10.0.0.1:7443");
    create(&directory, &edge);
    assert_eq!(AgentState::load(&directory).unwrap().edge, edge);
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}

#[test]
fn a_directory_that_was_created_by_half_counts_as_not_enrolled() {
    let directory = TempDir::new().unwrap();
    create(directory.path(), &edge("10.0.0.1:7443"));
    // The record comes last.
    fs::remove_file(directory.path().join("edge.json")).unwrap();
    let error = AgentState::load(directory.path()).unwrap_err();
    assert!(matches!(error, StateError::NotEnrolled(_)), "{error}");
    assert!(error.to_string().contains("enrol it first"), "{error}");
}

#[test]
fn what_cannot_be_used_is_named() {
    for (file, text) in [
        ("edge.json", "{"),
        ("agent.pem", "no certificate"),
        ("authority.pem", ""),
    ] {
        let directory = TempDir::new().unwrap();
        create(directory.path(), &edge("10.0.0.1:7443"));
        fs::write(directory.path().join(file), text).unwrap();
        let error = AgentState::load(directory.path()).unwrap_err().to_string();
        let place = directory.path().display().to_string();
        assert!(error.contains(&place), "{file}: {error}");
        fs::remove_file(directory.path().join(file)).unwrap();
        assert!(AgentState::load(directory.path()).is_err(), "{file}");
    }
}

#[test]
fn a_file_is_replaced_whole_whatever_a_crash_left_behind() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("record.json");
    fs::write(
        directory.path().join("record.new"),
        "a longer text, by half",
    )
    .unwrap();
    for text in ["first", "2nd"] {
        write_private(&path, text).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
    let missing = directory.path().join("missing/record.json");
    let error = write_private(&missing, "text").unwrap_err().to_string();
    assert!(error.contains("missing/record.json"), "{error}");
}

#[tokio::test]
async fn an_agent_that_cannot_run_says_why() {
    let directory = TempDir::new().unwrap();
    let config = |state: &Path| Config {
        state: state.to_owned(),
        listen: None,
        runtime: RuntimeChoice::Simulated {
            root: directory.path().join("containers"),
        },
    };
    let start = async |state: &Path| {
        let ready = |_, _: &[String]| panic!("it runs");
        let error = run(config(state), ready, std::future::pending()).await;
        error.unwrap_err().to_string()
    };
    let state = directory.path().join("none");
    assert!(start(&state).await.contains("enrol it first"));
    let state = directory.path().join("nowhere");
    create(&state, &edge("edge1.example"));
    let text = start(&state).await;
    assert!(text.contains("`edge1.example` is not an address"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let state = directory.path().join("taken");
    create(&state, &edge(&address));
    let text = start(&state).await;
    assert!(
        text.contains(&format!("cannot listen on {address}")),
        "{text}"
    );
}
