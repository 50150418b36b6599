//! The ledger as it is served: whole, provable, and telling what was done.

use std::collections::BTreeMap;

use carnet_api::v1::{Consistency, Keys, LedgerEntry, LedgerVerification, ProvenEntry, Stay};
use carnet_core::ledger::tile::{Tile, hashes, unbundle};
use carnet_core::ledger::{
    Auditor, Checkpoint, Entry, Hash, LedgerVerifier, Stays, check_consistency, check_inclusion,
    leaf_hash,
};
use serde_json::json;

use crate::http::Answer;
use crate::plane::{ATTRIBUTES, Plane, REQUIREMENTS, Someone};

/// A plane on which all that is entered into a ledger has happened.
async fn lived_in() -> (Plane, Someone) {
    let plane = Plane::start().await;
    let auditor = plane
        .account("audrey", &[carnet_api::v1::Role::Auditor])
        .await;
    let owner = plane.edge_owner("owner").await;
    let ann = plane.container_owner("ann").await;
    for edge in ["north", "south", "east"] {
        plane.edge(&owner, edge).await;
        plane.share(&owner, edge, &ann).await;
    }
    plane.container(&ann, &owner, "north", "web").await;
    let audit = json!({"container": "web", "to": {"anywhere": true}});
    plane.post(&ann, "/v1/audits", audit).await.json(200);
    let moved = plane.start_move(&ann, "web", "south").await;
    plane.end_of(&ann, &moved).await;
    let password = "/v1/accounts/ann/password";
    let given = plane.post(&plane.administrator, password, json!({})).await;
    given.json(201);
    let elsewhere = json!({"attributes": ATTRIBUTES.replace("de", "us")});
    plane
        .put(&owner, "/v1/edges/east/attributes", elsewhere)
        .await
        .json(200);
    let denied = plane.start_move(&ann, "web", "east").await;
    plane.end_of(&ann, &denied).await;
    let requirements = json!({"requirements": REQUIREMENTS.replace("60", "70")});
    plane
        .put(&ann, "/v1/containers/web/requirements", requirements)
        .await
        .json(200);
    plane
        .post(&plane.administrator, "/v1/keys/permit/rotate", json!({}))
        .await
        .json(200);
    let back = plane.start_move(&ann, "web", "north").await;
    plane.end_of(&ann, &back).await;
    plane.agents.moves.close();
    let cancelled = plane.start_move(&ann, "web", "south").await;
    plane.agents.moves.until_waiting(1).await;
    let path = format!("/v1/migrations/{}/cancel?wait=10", cancelled.id);
    plane.post(&ann, &path, json!({})).await.json(200);
    plane.agents.moves.open();
    (plane, auditor)
}

async fn read(plane: &Plane, who: &Someone, path: &str) -> Answer {
    plane.get(who, &format!("/ledger/{path}")).await
}

async fn verifier(plane: &Plane, who: &Someone) -> LedgerVerifier {
    let keys: Keys = plane.get(who, "/v1/keys").await.read(200);
    LedgerVerifier::new(&keys.ledger).unwrap()
}

async fn checkpoint(plane: &Plane, who: &Someone) -> Checkpoint {
    let note = read(plane, who, "checkpoint").await.text();
    verifier(plane, who).await.open(&note).unwrap()
}

async fn all(plane: &Plane, who: &Someone, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for tile in Tile::all(size) {
        let answer = read(plane, who, &tile.path()).await;
        assert_eq!(answer.status, 200, "{}", tile.path());
        match tile {
            Tile::Entries { width, .. } => {
                let bundled = unbundle(&answer.body).unwrap();
                assert_eq!(bundled.len() as u64, width);
                entries.extend(bundled.into_iter().map(<[u8]>::to_vec));
            }
            Tile::Hashes { level, width, .. } => {
                let found = hashes(&answer.body).unwrap();
                assert_eq!(found.len() as u64, width);
                if level == 0 {
                    for (entry, hash) in entries.iter().zip(&found) {
                        assert_eq!(leaf_hash(entry), *hash);
                    }
                }
            }
        }
    }
    entries
}

#[tokio::test]
async fn every_entry_follows_from_those_before_it_and_all_of_it_is_signed() {
    let (plane, auditor) = lived_in().await;
    let checkpoint = checkpoint(&plane, &auditor).await;
    let entries = all(&plane, &auditor, checkpoint.size).await;
    assert_eq!(entries.len() as u64, checkpoint.size);
    let mut tree = carnet_core::ledger::Growth::new(0, carnet_core::ledger::Nodes::default());
    let mut audit = Auditor::default();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &entries {
        tree.append(leaf_hash(entry)).unwrap();
        assert_eq!(audit.take(entry), Ok(()));
        *kinds
            .entry(Entry::from_bytes(entry).unwrap().kind())
            .or_default() += 1;
    }
    assert_eq!(tree.root().unwrap(), checkpoint.root);
    for kind in [
        "decision",
        "permit",
        "migration",
        "cancel",
        "account",
        "token",
        "password",
        "attributes",
        "certificate",
        "requirements",
        "confirmed",
        "grant",
        "key",
    ] {
        assert!(kinds.contains_key(kind), "{kind} is missing: {kinds:?}");
    }
    // Two moves, one that was cancelled, a denial, and a dry run over two edges.
    assert_eq!((kinds["permit"], kinds["decision"]), (3, 6));
}

#[tokio::test]
async fn an_entry_comes_with_its_proof() {
    let (plane, auditor) = lived_in().await;
    let verifier = verifier(&plane, &auditor).await;
    let size = checkpoint(&plane, &auditor).await.size;
    for number in [0, 7, size - 1] {
        let path = format!("/v1/ledger/entries/{number}");
        let proven: ProvenEntry = plane.get(&auditor, &path).await.read(200);
        let checkpoint = verifier.open(&proven.checkpoint).unwrap();
        let proof: Vec<Hash> = proven
            .proof
            .iter()
            .map(|hash| Hash::parse_hash(hash).unwrap())
            .collect();
        let hash = leaf_hash(proven.text.as_bytes());
        check_inclusion(&proof, checkpoint.size, checkpoint.root, number, hash).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&proven.text).unwrap(),
            proven.entry.entry
        );
    }
    for path in [format!("{size}"), "-1".to_owned(), "x".to_owned()] {
        let answer = plane
            .get(&auditor, &format!("/v1/ledger/entries/{path}"))
            .await;
        answer.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_ledger_that_has_grown_begins_with_what_it_was() {
    let plane = Plane::start().await;
    let auditor = plane
        .account("audrey", &[carnet_api::v1::Role::Auditor])
        .await;
    let before = checkpoint(&plane, &auditor).await;
    for name in ["a", "b", "c"] {
        plane.edge_owner(name).await;
    }
    let path = format!("/v1/ledger/consistency?from={}", before.size);
    let proven: Consistency = plane.get(&auditor, &path).await.read(200);
    let after = verifier(&plane, &auditor)
        .await
        .open(&proven.checkpoint)
        .unwrap();
    assert_eq!((proven.from, proven.to), (before.size, after.size));
    assert!(after.size > before.size);
    let proof: Vec<Hash> = proven
        .proof
        .iter()
        .map(|hash| Hash::parse_hash(hash).unwrap())
        .collect();
    check_consistency(&proof, (before.size, before.root), (after.size, after.root)).unwrap();
    let path = format!("/v1/ledger/consistency?from={}", after.size + 1);
    plane
        .get(&auditor, &path)
        .await
        .problem(422, "faulty-input");
}

#[tokio::test]
async fn the_auditors_questions_have_answers() {
    let (plane, auditor) = lived_in().await;
    let stays = async |query: &str| -> Vec<Stay> {
        let path = format!("/v1/ledger/stays?{query}");
        plane.get(&auditor, &path).await.read(200)
    };
    let web = stays("container=web").await;
    let edges: Vec<&str> = web.iter().map(|stay| stay.edge_name.as_str()).collect();
    assert_eq!(edges, ["north", "south", "south", "north"]);
    assert!(web[..3].iter().all(|stay| stay.until_at_ms.is_some()));
    assert_eq!(web[3].until_at_ms, None);
    assert_eq!(web[1].requirements_revision, 1);
    assert_eq!(web[2].requirements_revision, 2);
    let decision = web[1].decision.unwrap();
    assert_eq!(stays("country=de").await.len(), 4);
    assert_eq!(stays("country=us").await.len(), 0);

    let entries = async |query: &str| -> Vec<LedgerEntry> {
        let path = format!("/v1/ledger/entries?{query}");
        plane.get(&auditor, &path).await.read(200)
    };
    let decisions = entries("kind=decision&container=web&limit=1000").await;
    let permitted = decisions
        .iter()
        .find(|entry| entry.number == decision)
        .unwrap();
    assert_eq!(permitted.entry["verdict"], "permit");
    let denied: Vec<_> = decisions
        .iter()
        .filter(|entry| entry.entry["verdict"] == "deny")
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(
        denied[0].entry["reasons"][0]["element"],
        "allowed_locations"
    );
    assert_eq!(entries("kind=requirements&container=web").await.len(), 2);
    assert_eq!(entries("kind=attributes&edge=east").await.len(), 2);
    assert_eq!(entries("from=3&limit=2").await[0].number, 3);
    // Several kinds, and what concerns a container's moves.
    let both = entries("kind=decision,permit&container=web&limit=1000").await;
    let permits = entries("kind=permit&owner=ann").await;
    assert_eq!(permits.len(), 3);
    assert_eq!(both.len(), decisions.len() + permits.len());
    assert_eq!(entries("verdict=deny").await, [denied[0].clone()]);
    assert_eq!(entries("verdict=permit&kind=decision").await.len(), 5);
    // In the country that was declared then: `east` was in another before.
    assert_eq!(entries("country=us&kind=decision").await.len(), 1);
    assert_eq!(entries("country=us&verdict=permit").await.len(), 0);
    assert_eq!(
        entries("country=us&kind=attributes&edge=east").await.len(),
        1
    );
    assert_eq!(
        entries("country=de&kind=attributes&edge=east").await.len(),
        1
    );
    assert_eq!(entries("organization=caA&kind=permit").await.len(), 3);
    assert_eq!(entries("organization=caB").await.len(), 0);
    // By time: all of it was just now.
    let at = denied[0].entry["at_ms"].as_i64().unwrap();
    let before = entries(&format!("verdict=deny&until_ms={at}")).await;
    let after = entries(&format!("verdict=deny&since_ms={at}")).await;
    assert_eq!((before.len(), after.len()), (0, 1));
    // The last of those before a number, and those between two.
    let numbers = async |query: &str| -> Vec<u64> {
        let found = entries(query).await;
        found.iter().map(|entry| entry.number).collect()
    };
    assert_eq!(numbers("before=9&limit=3").await, [6, 7, 8]);
    assert_eq!(numbers("from=2&before=9&limit=3").await, [2, 3, 4]);
    assert_eq!(numbers("from=7&before=9").await, [7, 8]);
    for (query, status) in [
        ("limit=0", 422),
        ("verdict=maybe", 422),
        ("country=xx", 422),
        ("owner=nobody", 404),
        ("container=nobody", 404),
        ("edge=nowhere", 404),
        ("x=1", 400),
    ] {
        let path = format!("/v1/ledger/entries?{query}");
        assert_eq!(plane.get(&auditor, &path).await.status, status, "{query}");
    }
}

#[tokio::test]
async fn what_the_ledger_does_not_have_is_not_found() {
    let (plane, auditor) = lived_in().await;
    let size = checkpoint(&plane, &auditor).await.size;
    for path in [
        "nothing".to_owned(),
        "tile".to_owned(),
        "tile/0/001".to_owned(),
        format!("tile/entries/000.p/{}", size + 1),
        "tile/0/../../v1".to_owned(),
        "tile/255/000".to_owned(),
    ] {
        let status = read(&plane, &auditor, &path).await.status;
        assert_eq!(status, 404, "{path}");
    }
}

#[tokio::test]
async fn an_edge_that_was_disenrolled_is_trusted_with_nothing_until_it_enrols_anew() {
    let (plane, auditor) = lived_in().await;
    let who = plane
        .account("owner2", &[carnet_api::v1::Role::EdgeOwner])
        .await;
    let ann = plane.container_owner("bob").await;
    plane.edge(&who, "west").await;
    plane.edge(&who, "far-west").await;
    plane.share(&who, "west", &ann).await;
    plane.share(&who, "far-west", &ann).await;
    plane.container(&ann, &who, "west", "job").await;
    let path = "/v1/edges/far-west/disenrol";
    let edge: carnet_api::v1::Edge = plane.post(&who, path, json!({})).await.read(200);
    assert!(!edge.enrolled);
    let moved = plane.start_move(&ann, "job", "far-west").await;
    let ended = plane.end_of(&ann, &moved).await;
    assert_eq!(ended.state, carnet_api::v1::MigrationState::Denied);
    plane.enrol(&who, "far-west").await;
    let moved = plane.start_move(&ann, "job", "far-west").await;
    let ended = plane.end_of(&ann, &moved).await;
    assert_eq!(ended.state, carnet_api::v1::MigrationState::Completed);
    let size = checkpoint(&plane, &auditor).await.size;
    let mut audit = Auditor::default();
    for entry in all(&plane, &auditor, size).await {
        assert_eq!(audit.take(&entry), Ok(()));
    }
}

/// Names of people, secrets, and where things are reached stay out of it.
#[tokio::test]
async fn neither_names_of_accounts_nor_secrets_are_in_the_ledger() {
    let (plane, auditor) = lived_in().await;
    let size = checkpoint(&plane, &auditor).await.size;
    let entries = all(&plane, &auditor, size).await;
    let mut stays = Stays::default();
    for (number, bytes) in (0..).zip(&entries) {
        let text = String::from_utf8(bytes.clone()).unwrap();
        for word in [
            "\"ann\"",
            "\"owner\":\"owner",
            "audrey",
            "carnet_",
            "carnet-claim",
            "192.0.2.7",
            &auditor.token,
        ] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
        stays.take(number, &Entry::from_bytes(bytes).unwrap());
    }
    assert_eq!(stays.into_stays().len(), 4);
}

#[tokio::test]
async fn the_server_finds_what_was_changed_in_its_own_database() {
    let (plane, auditor) = lived_in().await;
    let path = "/v1/ledger/verification";
    let found: LedgerVerification = plane.get(&auditor, path).await.read(200);
    assert_eq!(found.faults, Vec::<String>::new());
    assert_eq!(found.size, checkpoint(&plane, &auditor).await.size);
    assert!(found.witnesses.is_empty());
    plane
        .change("UPDATE ledger_entries SET entry = CAST('{}' AS BLOB) WHERE number = 7")
        .await;
    let found: LedgerVerification = plane.get(&auditor, path).await.read(200);
    assert_eq!(found.faults[0], "entry 7: it is not what was entered there");
    assert!(
        found
            .faults
            .iter()
            .any(|fault| fault.starts_with("its entries have the root"))
    );
    // The others can be read all the same.
    let entries: Vec<LedgerEntry> = plane.get(&auditor, "/v1/ledger/entries").await.read(200);
    assert_eq!(entries.len() as u64, found.size);
    let verdict = "/v1/ledger/entries?verdict=deny&country=us";
    let denied: Vec<LedgerEntry> = plane.get(&auditor, verdict).await.read(200);
    assert_eq!(denied.len(), 1);
}
