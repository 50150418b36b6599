//! Attacks on a real container between real edges. None moves a byte of its memory, each is
//! refused by the check that is for it, and each is in the ledger.
//!
//! The attacker is as strong as each attack needs: where a statement is to be what it is refused
//! for, it has the authority's key, and with it the control plane's certificate; where the
//! signature is not to be it, the key for permits as well; and on its own edge it is root.
//!
//! It runs the program `carnet` beside `carnet-lab`: `cargo build -p carnet` first, as `./test`
//! does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod attacker;
mod traces;
mod world;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use attacker::{
    Attacker, ON_A_PERMIT, ORDERS, Victim, failed_check, order_of, read_permit, stolen_permit_key,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use carnet_api::agent::Order;
use carnet_api::v1::{
    AuditReport, CreateAudit, DestinationSpec, LedgerEntry, MigrationState, Role, ShareKey,
    Transferred,
};
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::permit::{Abort, Claim, Commit, Fingerprint, Permit, Signer};
use carnet_lab::exec::wait_until;
use carnet_lab::fleet::EdgeSpec;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;
use traces::traces;
use uuid::Uuid;
use world::{APP, ATTRIBUTES, EDGES, REQUIREMENTS, World};

const LAB: &str = "t-attacks";
/// How long a refusal may take into the ledger, in seconds: the monitor looks every two.
const ENTERED_LIMIT: u64 = 30;

/// One lab for all of it: what each part leaves is what the next begins with.
#[test]
fn no_attack_moves_a_byte_of_a_containers_memory() {
    let mut world = World::begin(LAB);
    world.fleet.create_account("audrey", Role::Auditor).unwrap();
    world.go(APP, "Edge2");
    world.go(APP, "Edge1");
    a_permit_that_was_used_is_refused_also_after_a_restart(&mut world);
    a_permit_for_something_else_is_refused(&world);
    a_permit_is_refused_before_and_after_its_time(&world);
    a_permit_that_was_altered_anywhere_is_refused(&world);
    a_permit_whose_ground_has_changed_is_withdrawn(&world);
    an_agents_certificate_is_good_for_nothing_at_another_agent(&world);
    a_container_that_is_pushed_without_a_permit_is_refused(&world);
    memory_images_put_in_place_by_hand_are_not_restored(&world);
    a_database_that_was_tampered_with_is_found_out(&mut world);
    drop(world);
    assert_eq!(traces(LAB), Vec::<String>::new());
}

/// One refusal, as the ledger has to tell it.
type Refused = (EdgeId, String, String, Option<MigrationId>, Fingerprint);

/// A series of attacks, while the container is on one edge at one generation.
struct Attacks<'a> {
    world: &'a World,
    edges: [Victim; 3],
    /// From this number on the ledger tells of these attacks.
    from: u64,
    generation: u64,
    refused: RefCell<Vec<Refused>>,
}

impl<'a> Attacks<'a> {
    fn begin(world: &'a World) -> Self {
        Self {
            world,
            edges: EDGES.map(|name| Victim::of(&world.fleet, name)),
            from: entries(world, "kind=refusal")
                .last()
                .map_or(0, |entry| entry.number + 1),
            generation: world.container().generation,
            refused: RefCell::default(),
        }
    }

    /// The edge that an order of a move from the first edge to the second is for.
    fn victim(&self, order: &str) -> &Victim {
        &self.edges[usize::from(!order.starts_with("source/"))]
    }

    /// The order has to be refused by `check`.
    fn refuses(
        &self,
        attacker: &Attacker<'_>,
        victim: &Victim,
        name: &str,
        order: &Order,
        check: &str,
    ) {
        let what = format!("{name} at {}: {order:?}", victim.name);
        let problem = attacker.give(victim, name, order).expect_err(&what);
        assert_eq!(failed_check(&problem), check, "{what}: {problem:?}");
        self.is_refused(attacker, victim, name, Some(order.migration), check);
    }

    /// The stream has to be refused by `check`.
    fn takes_nothing(
        &self,
        attacker: &Attacker<'_>,
        victim: &Victim,
        migration: MigrationId,
        check: &str,
    ) {
        for what in ["rootfs", "images"] {
            // A stream that is not compressed, and breaks off.
            let problem = attacker.send(victim, what, migration, &[0; 4_096]);
            assert_eq!(failed_check(&problem.expect_err(what)), check, "{what}");
            self.is_refused(attacker, victim, what, Some(migration), check);
        }
    }

    fn is_refused(
        &self,
        attacker: &Attacker<'_>,
        victim: &Victim,
        asked: &str,
        migration: Option<MigrationId>,
        check: &str,
    ) {
        self.refused.borrow_mut().push((
            victim.party.edge,
            check.to_owned(),
            asked.to_owned(),
            migration,
            attacker.certificate(),
        ));
    }

    /// The container runs as before on `edge`, and the ledger tells of every refusal, and of no
    /// other.
    fn end(self, edge: &str, what: &str) {
        let mut expected = self.refused.take();
        let entered = || {
            let entries = entries(self.world, &format!("kind=refusal&from={}", self.from));
            entries.into_iter().map(refused).collect::<Vec<_>>()
        };
        let in_time = wait_until("every refusal in the ledger", ENTERED_LIMIT, || {
            entered().len() >= expected.len()
        });
        let mut entered = entered();
        entered.sort();
        expected.sort();
        assert_eq!(entered, expected, "{what}: {in_time:?}");
        self.world.assert_whole(edge, what);
        assert_eq!(self.world.container().generation, self.generation, "{what}");
    }
}

fn entries(world: &World, wanted: &str) -> Vec<LedgerEntry> {
    let path = format!("/v1/ledger/entries?limit=1000&{wanted}");
    world.fleet.account("audrey").unwrap().get(&path).unwrap()
}

fn refused(entry: LedgerEntry) -> Refused {
    let read = |field: &str| entry.entry[field].clone();
    let text = |field: &str| read(field).as_str().unwrap().to_owned();
    (
        serde_json::from_value(read("edge")).unwrap(),
        text("check"),
        text("asked"),
        serde_json::from_value(read("migration")).unwrap(),
        serde_json::from_value(read("peer")).unwrap(),
    )
}

/// The permit of a move, as the ledger has it.
fn permit_of(world: &World, migration: MigrationId) -> String {
    let found = entries(world, &format!("kind=permit&migration={migration}"));
    found[0].entry["permit"].as_str().unwrap().to_owned()
}

/// The first permit there was: of a move from the first edge to the second, at generation 1.
fn captured(world: &World) -> String {
    let found = entries(world, "kind=permit");
    found[0].entry["permit"].as_str().unwrap().to_owned()
}

/// A permit as the control plane would make it now, for a move from the first edge to the second.
/// Only whoever has the key for permits can sign it.
fn forged(attacks: &Attacks<'_>) -> Permit {
    let mut permit = read_permit(&captured(attacks.world));
    let now_s = now_s();
    permit.claim = Claim {
        jti: Uuid::now_v7().to_string(),
        iat: now_s,
        migration: MigrationId::from_uuid(Uuid::now_v7()),
        generation: attacks.generation,
        ..permit.claim
    };
    permit.exp = now_s + 300;
    permit
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

fn a_permit_that_was_used_is_refused_also_after_a_restart(world: &mut World) {
    for restarted in [false, true] {
        if restarted {
            for edge in ["Edge1", "Edge2"] {
                world.fleet.agent(edge).unwrap().stop().unwrap();
                world.fleet.start_agent(edge).unwrap();
            }
            world.fleet.await_healthy(&world.progress).unwrap();
        }
        let attacks = Attacks::begin(world);
        let control = Attacker::as_control(&world.fleet, world.fleet.data());
        let token = captured(world);
        // The container is where it was then, and two generations further.
        let permit = read_permit(&token);
        assert_eq!(permit.claim.generation + 2, attacks.generation);
        let order = order_of(&permit, &attacks.edges[1], &token);
        for name in ON_A_PERMIT {
            attacks.refuses(&control, attacks.victim(name), name, &order, "used");
        }
        attacks.end(
            "Edge1",
            &format!("a permit used again, restarted: {restarted}"),
        );
    }
}

fn a_permit_for_something_else_is_refused(world: &World) {
    type Alteration = (&'static str, &'static str, fn(&mut Permit, &Victim));
    let alterations: [Alteration; 6] = [
        // At the source it is the order that is for another edge.
        ("malformed", "audience", |permit, other| {
            permit.claim.target = other.party;
        }),
        ("audience", "malformed", |permit, other| {
            permit.claim.source = other.party;
        }),
        ("audience", "audience", |permit, _| {
            let Claim { source, target, .. } = &mut permit.claim;
            std::mem::swap(source, target);
        }),
        ("container", "container", |permit, _| {
            permit.claim.name = "App2".to_owned();
        }),
        ("migration", "migration", |permit, _| {
            permit.claim.migration = MigrationId::from_uuid(Uuid::now_v7());
        }),
        ("generation", "generation", |permit, _| {
            permit.claim.generation -= 1;
        }),
    ];
    let attacks = Attacks::begin(world);
    let control = Attacker::as_control(&world.fleet, world.fleet.data());
    let signer = stolen_permit_key(world.fleet.data());
    let target = &attacks.edges[1];
    for (at_source, at_target, alter) in alterations {
        let permit = forged(&attacks);
        let mut altered = permit.clone();
        alter(&mut altered, &attacks.edges[2]);
        let order = order_of(&permit, target, &signer.sign(&altered).unwrap());
        for name in ON_A_PERMIT {
            let check = match name.starts_with("source/") {
                true => at_source,
                false => at_target,
            };
            attacks.refuses(&control, attacks.victim(name), name, &order, check);
        }
    }
    // An older generation, in order and permit alike: the edges know of a later one.
    let mut permit = forged(&attacks);
    permit.claim.generation -= 1;
    let order = order_of(&permit, target, &signer.sign(&permit).unwrap());
    for name in ["source/prepare", "target/prepare"] {
        attacks.refuses(&control, attacks.victim(name), name, &order, "generation");
    }
    // One that the control plane has signed, at an edge that it does not name.
    let token = captured(world);
    let mut order = order_of(&read_permit(&token), &attacks.edges[2], &token);
    order.target = attacks.edges[2].party.edge;
    attacks.refuses(
        &control,
        &attacks.edges[2],
        "target/prepare",
        &order,
        "audience",
    );
    // Nothing but what was altered is what they were refused for.
    let permit = forged(&attacks);
    let order = order_of(&permit, target, &signer.sign(&permit).unwrap());
    control
        .give(&attacks.edges[0], "source/prepare", &order)
        .unwrap();
    let abort = signer
        .sign(&Abort {
            claim: permit.claim.clone(),
        })
        .unwrap();
    let order = order_of(&permit, target, &abort);
    control
        .give(&attacks.edges[0], "source/resume", &order)
        .unwrap();
    attacks.end("Edge1", "a permit for something else");
}

/// Signed with the stolen key for permits: nobody else can make one of another time.
fn a_permit_is_refused_before_and_after_its_time(world: &World) {
    let attacks = Attacks::begin(world);
    let control = Attacker::as_control(&world.fleet, world.fleet.data());
    let signer = stolen_permit_key(world.fleet.data());
    // How much later it is made, and how long it is good for, in seconds.
    for (later_s, life_s, check) in [
        (-600, 590, "expired"),
        (60, 300, "not-yet"),
        (0, 24 * 3_600, "life"),
    ] {
        let mut permit = forged(&attacks);
        permit.claim.iat += later_s;
        permit.exp = permit.claim.iat + life_s;
        let token = signer.sign(&permit).unwrap();
        let order = order_of(&permit, &attacks.edges[1], &token);
        for name in ON_A_PERMIT {
            attacks.refuses(&control, attacks.victim(name), name, &order, check);
        }
    }
    attacks.end("Edge1", "a permit of another time");
}

/// The paths of all values of a JSON object that are no objects.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{path}/{name}"), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

/// Another value of the same kind.
fn other_value(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_i64().unwrap() + 1),
        Value::String(text) => {
            let (rest, last) = text.split_at(text.len() - 1);
            json!(format!("{rest}{}", if last == "0" { "1" } else { "0" }))
        }
        other => panic!("{other}"),
    }
}

/// The control plane's own signature stays as it was.
fn a_permit_that_was_altered_anywhere_is_refused(world: &World) {
    let attacks = Attacks::begin(world);
    let control = Attacker::as_control(&world.fleet, world.fleet.data());
    let token = captured(world);
    let permit = read_permit(&token);
    let parts: Vec<&str> = token.split('.').collect();
    let refuses = |altered: &str, check: &str| {
        assert_ne!(altered, token);
        let order = order_of(&permit, &attacks.edges[1], altered);
        for name in ["source/prepare", "target/prepare"] {
            attacks.refuses(&control, attacks.victim(name), name, &order, check);
        }
    };
    for (part, expected) in [(0, 3), (1, 20)] {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let mut paths = Vec::new();
        leaves(&value, "", &mut paths);
        assert_eq!(paths.len(), expected, "{value}");
        for path in paths {
            let mut altered = value.clone();
            let leaf = altered.pointer_mut(&path).unwrap();
            *leaf = other_value(leaf);
            let mut token = parts.clone();
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(altered.to_string());
            token[part] = &encoded;
            let check = match path.as_str() {
                "/alg" => "algorithm",
                "/typ" => "kind",
                "/kid" => "key",
                "/iss" => "malformed",
                _ => "signature",
            };
            refuses(&token.join("."), check);
        }
    }
    let mut signature = BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    signature[0] ^= 1;
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature);
    refuses(&[parts[0], parts[1], &signature].join("."), "signature");
    let none = json!({"alg": "none", "typ": "carnet-permit+jwt", "kid": "00".repeat(32)});
    let none = BASE64_URL_SAFE_NO_PAD.encode(none.to_string());
    refuses(&format!("{none}.{}.", parts[1]), "algorithm");
    attacks.end("Edge1", "a permit that was altered");
}

/// A program of an edge that waits until it is let go; for that edge's own time limits, not long.
struct Hold {
    /// What is there while it is held, and once it waits.
    held: PathBuf,
    waits: PathBuf,
    program: PathBuf,
    original: PathBuf,
}

impl Hold {
    /// `program` waits where its first argument matches `first`, a pattern of the shell's.
    fn on(world: &World, edge: &str, program: &str, first: &str) -> Self {
        let host = world.fleet.host(edge).unwrap();
        let original = format!("{program}.held");
        let held = format!("/run/hold{}", program.replace('/', "-"));
        let waits = format!("{held}-waits");
        let hold = Self {
            held: host.path(&held).unwrap(),
            waits: host.path(&waits).unwrap(),
            program: host.path(program).unwrap(),
            original: host.path(&original).unwrap(),
        };
        fs::write(&hold.held, "").unwrap();
        fs::copy(&hold.program, &hold.original).unwrap();
        hold.replace(format!(
            "#!/bin/sh\n\
             case \"$1\" in {first}) touch {waits}; n=0\n\
             while [ -e {held} ] && [ $n -lt 400 ]; do sleep 0.05; n=$((n + 1)); done;; esac\n\
             exec {original} \"$@\"\n"
        ));
        hold
    }

    /// Whole: it may be running.
    fn replace(&self, content: impl AsRef<[u8]>) {
        let new = self.program.with_extension("new");
        fs::write(&new, content).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(new, &self.program).unwrap();
    }

    fn await_waiting(&self) {
        wait_until("the program that is held", 30, || self.waits.exists()).unwrap();
    }

    fn let_go(self) {
        fs::remove_file(&self.held).unwrap();
        fs::remove_file(&self.waits).unwrap();
        // The copy stays: what was held is about to become it.
        self.replace(fs::read(&self.original).unwrap());
    }
}

/// A change between the decision and the commit, and how it is told.
type Change = (fn(&World), &'static str);

const CHANGES: [Change; 3] = [
    (
        |world| {
            let path = format!("/v1/containers/{APP}/requirements");
            let body = json!({ "requirements": REQUIREMENTS });
            let carol = world.fleet.account("carol").unwrap();
            let _: Value = carol.put(&path, &body).unwrap();
        },
        "the container's requirements have changed since the move was permitted",
    ),
    (
        |world| {
            let body = json!({ "attributes": ATTRIBUTES });
            let erin = world.fleet.account("erin").unwrap();
            let _: Value = erin.put("/v1/edges/Edge2/attributes", &body).unwrap();
        },
        "the target's attributes have changed since the move was permitted",
    ),
    (
        |world| {
            let erin = world.fleet.account("erin").unwrap();
            let keys: Vec<ShareKey> = erin.get("/v1/edges/Edge2/share-keys").unwrap();
            let good = keys.iter().find(|key| key.revoked_at_ms.is_none()).unwrap();
            let path = format!("/v1/share-keys/{}", good.id);
            let _: Value = erin.delete(&path).unwrap();
        },
        "the owner's share key of the target has been revoked since the move was permitted",
    ),
];

fn a_permit_whose_ground_has_changed_is_withdrawn(world: &World) {
    let lent = EdgeSpec {
        name: "Edge2".to_owned(),
        owner: "erin".to_owned(),
        attributes: ATTRIBUTES.to_owned(),
    };
    // While the target makes ready, and while the container's memory is written at the source.
    for (edge, program, first, found_while) in [
        ("Edge2", "/usr/bin/ip", "*", "copying ahead"),
        ("Edge1", "/usr/sbin/criu", "dump", "committing"),
    ] {
        for (change, words) in CHANGES {
            let attacks = Attacks::begin(world);
            let hold = Hold::on(world, edge, program, first);
            let begun = world.ask(APP, "Edge2", 0).unwrap();
            hold.await_waiting();
            change(world);
            hold.let_go();
            let ended = world.end_of(&begun);
            assert_eq!(ended.state, MigrationState::Failed, "{ended:?}");
            let failure = format!("{found_while}: {words}");
            assert_eq!(ended.failure.as_deref(), Some(failure.as_str()));
            let was = |state| ended.timings.iter().any(|timing| timing.state == state);
            assert!(!was(MigrationState::Restoring), "{ended:?}");
            if found_while == "copying ahead" {
                assert_eq!(ended.transferred, Transferred::default());
                assert!(!was(MigrationState::HandingOver), "{ended:?}");
            }
            let told = entries(world, &format!("kind=migration&migration={}", begun.id));
            let last = &told.last().unwrap().entry;
            assert_eq!(last["phase"], json!("failed"), "{last}");
            assert!(last["cause"].as_str().unwrap().contains(words), "{last}");
            attacks.end("Edge1", &failure);
            if words.contains("share key") {
                world
                    .fleet
                    .share(&lent, world.fleet.account("carol").unwrap())
                    .unwrap();
            }
        }
    }
}

/// While a move is under way, whose permit is as good as any.
fn an_agents_certificate_is_good_for_nothing_at_another_agent(world: &World) {
    let mut attacks = Attacks::begin(world);
    let target = attacks.edges[1].clone();
    let hold = Hold::on(world, "Edge1", "/usr/sbin/criu", "dump");
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    hold.await_waiting();
    let third = Attacker::as_edge(&world.fleet, "Edge3");
    let token = permit_of(world, begun.id);
    let order = order_of(&read_permit(&token), &target, &token);
    for name in ORDERS {
        attacks.refuses(&third, attacks.victim(name), name, &order, "peer");
    }
    attacks.takes_nothing(&third, &target, begun.id, "peer");
    for (method, path) in [("PUT", "/v1/signing-key"), ("GET", "/v1/containers")] {
        let problem = third.ask(&target, method, path, b"{}").unwrap_err();
        assert_eq!(failed_check(&problem), "peer");
        attacks.is_refused(&third, &target, &format!("{method} {path}"), None, "peer");
    }
    let images = world.fleet.host("Edge2").unwrap();
    let images = images.path(&format!("/run/carnet/images/{APP}")).unwrap();
    assert_eq!(fs::read_dir(images).unwrap().count(), 0);
    hold.let_go();
    // The move that was permitted goes on as if nothing had been.
    let ended = world.end_of(&begun);
    assert_eq!(ended.state, MigrationState::Completed, "{ended:?}");
    attacks.generation += 1;
    attacks.end("Edge2", "another agent's certificate");
    world.go(APP, "Edge1");
}

fn a_container_that_is_pushed_without_a_permit_is_refused(world: &World) {
    let attacks = Attacks::begin(world);
    let source = Attacker::as_edge(&world.fleet, "Edge1");
    let migration = MigrationId::from_uuid(Uuid::now_v7());
    attacks.takes_nothing(&source, &attacks.edges[1], migration, "permit");
    attacks.end("Edge1", "a container that is pushed");
}

/// Root on the target takes the memory of a container that came, as it can, and wants it to run
/// there once more when it has gone.
fn memory_images_put_in_place_by_hand_are_not_restored(world: &World) {
    let criu = Hold::on(world, "Edge2", "/usr/sbin/criu", "restore");
    let begun = world.ask(APP, "Edge2", 0).unwrap();
    criu.await_waiting();
    // CRIU begins before the images come, and calls this once they are there.
    let hook = format!("/run/carnet/standby/{APP}/hook");
    let hook = Hold::on(world, "Edge2", &hook, "''");
    criu.let_go();
    hook.await_waiting();
    let (images, definition) = (
        format!("/run/carnet/images/{APP}"),
        format!("/var/lib/lxc/{APP}"),
    );
    let copy = format!(
        "mkdir /root/kept && cp -a {images} /root/kept/images && cp -a {definition} /root/kept/definition"
    );
    world.on("Edge2", &["sh", "-c", &copy]);
    hook.let_go();
    let ended = world.end_of(&begun);
    assert_eq!(ended.state, MigrationState::Completed, "{ended:?}");
    world.go(APP, "Edge1");

    let attacks = Attacks::begin(world);
    let target = &attacks.edges[1];
    let place =
        format!("cp -a /root/kept/images {images} && cp -a /root/kept/definition {definition}");
    world.on("Edge2", &["sh", "-c", &place]);
    let placed = |world: &World| {
        let list = format!("find {images} {definition} -type f -exec sha256sum {{}} + | sort");
        world.on("Edge2", &["sh", "-c", &list])
    };
    let before = placed(world);
    assert!(before.contains("pages-1.img"), "{before}");
    let control = Attacker::as_control(&world.fleet, world.fleet.data());
    let signer = stolen_permit_key(world.fleet.data());
    let old = permit_of(world, begun.id);
    let new = forged(&attacks);
    for permit in [read_permit(&old), new] {
        let claim = Claim {
            generation: permit.claim.generation + 1,
            ..permit.claim.clone()
        };
        let strangers = Signer::new(&[7; 32]).sign(&Commit {
            claim: claim.clone(),
        });
        for (statement, check) in [
            (signer.sign(&permit).unwrap(), "kind"),
            (strangers.unwrap(), "key"),
            (String::new(), "malformed"),
        ] {
            let order = order_of(&permit, target, &statement);
            attacks.refuses(&control, target, "target/restore", &order, check);
        }
        // Not even a commit restores what came by no hand-over, or by one that has ended.
        let commit = signer
            .sign(&Commit {
                claim: claim.clone(),
            })
            .unwrap();
        let order = Order {
            generation: claim.generation,
            ..order_of(&permit, target, &commit)
        };
        let problem = control.give(target, "target/restore", &order).unwrap_err();
        assert_eq!(problem.status, 409, "{problem:?}");
    }
    assert_eq!(placed(world), before);
    let state = world.on("Edge2", &["lxc-info", "-n", APP, "-sH"]);
    assert_eq!(state.trim(), "STOPPED");
    world.on("Edge2", &["rm", "-r", &images, &definition]);
    attacks.end("Edge1", "memory images put in place by hand");
}

/// What `carnet ledger verify` says: whether the ledger is sound, and what it tells.
fn verify(world: &World, more: &[&str]) -> (bool, String) {
    let mut command = world.fleet.command("audrey").unwrap();
    command.args(["ledger", "verify", "--json"]).args(more);
    let output = command.output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(told).unwrap())
}

const DATABASE: &str = "carnet.db";

/// Copies the database's files, of which there may be several, in place of those in `to`. Nobody
/// may have it open.
fn copy_database(from: &Path, to: &Path) {
    let files = |directory: &Path| {
        let all = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap().path());
        all.filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(DATABASE)
        })
        .collect::<Vec<_>>()
    };
    for file in files(to) {
        fs::remove_file(file).unwrap();
    }
    for file in files(from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Whoever can write the control plane's files hides what was refused, or goes back to a ledger in
/// which it was not yet.
fn a_database_that_was_tampered_with_is_found_out(world: &mut World) {
    let data = world.fleet.data().to_owned();
    let kept = TempDir::new().unwrap();
    let [older, newer] = ["older", "newer"].map(|name| {
        let directory = kept.path().join(name);
        fs::create_dir(&directory).unwrap();
        directory
    });
    let checkpoint = kept.path().join("checkpoint").display().to_string();
    let with_kept = ["--kept", checkpoint.as_str()];
    world.fleet.control().unwrap().stop().unwrap();
    copy_database(&data, &older);
    world.fleet.start_control().unwrap();
    let audit = CreateAudit {
        container: APP.to_owned(),
        to: DestinationSpec::Edge("Edge2".to_owned()),
    };
    let _: AuditReport = world.post("/v1/audits", &json!(audit)).unwrap();
    let (sound, told) = verify(world, &with_kept);
    assert!(sound, "{told}");
    let hidden = entries(world, "kind=refusal")[0].number;
    world.fleet.control().unwrap().stop().unwrap();
    copy_database(&data, &newer);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", data.join(DATABASE).display());
        let mut database = SqliteConnection::connect(&url).await.unwrap();
        let done = sqlx::query(
            "UPDATE ledger_entries
             SET entry = CAST(replace(CAST(entry AS TEXT), '\"used\"', '\"uses\"') AS BLOB)
             WHERE number = ? AND CAST(entry AS TEXT) LIKE '%\"used\"%'",
        )
        .bind(i64::try_from(hidden).unwrap())
        .execute(&mut database)
        .await
        .unwrap();
        assert_eq!(done.rows_affected(), 1);
        database.close().await.unwrap();
    });
    world.fleet.start_control().unwrap();
    let (sound, told) = verify(world, &[]);
    assert!(!sound, "{told}");
    let words = format!("entry {hidden}: it is not what was entered there");
    assert!(told.contains(&words), "{told}");
    let restore = |world: &mut World, from: &Path| {
        world.fleet.control().unwrap().stop().unwrap();
        copy_database(from, &data);
        world.fleet.start_control().unwrap();
    };
    restore(world, &newer);
    let (sound, told) = verify(world, &with_kept);
    assert!(sound, "{told}");

    restore(world, &older);
    // It is sound in itself; it is not what it was.
    let (sound, told) = verify(world, &[]);
    assert!(sound, "{told}");
    let (sound, told) = verify(world, &with_kept);
    assert!(!sound, "{told}");
    assert!(told.contains("it has been rolled back"), "{told}");
    restore(world, &newer);
    let (sound, told) = verify(world, &with_kept);
    assert!(sound, "{told}");
    world.fleet.await_healthy(&world.progress).unwrap();
    world.assert_whole("Edge1", "the database was tampered with");
}
