//! Orders on statements that do not entitle to them: each is refused by the check that is for it,
//! nothing moves, and it is written down.

use std::fs;
use std::time::{Duration, Instant};

use carnet_agent::permits::{Permits, now};
use carnet_agent::refusals::Refusals;
use carnet_api::agent::{ForgetRefusals, MAX_REFUSALS, Refused, STATEMENT_REFUSED, SigningKey};
use carnet_api::tls::edge_name;
use carnet_core::ids::{ContainerId, EdgeId, MigrationId};
use carnet_core::instant::UnixMillis;
use carnet_core::permit::{Abort, Claim, Commit, Fingerprint, Party, Permit, Signer};
use reqwest::Method;
use tempfile::TempDir;
use uuid::Uuid;

use crate::scene::{
    Authority, BOUND, Caller, Edge, Move, ORDERS, OTHER, SOURCE, Scene, TARGET, answer,
    stream as sent,
};

/// The kinds of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Permit,
    Commit,
    Abort,
}

const KINDS: [Kind; 3] = [Kind::Permit, Kind::Commit, Kind::Abort];

/// Which kind an order is given on, and the last order before it.
fn before(name: &str) -> (Kind, Option<&'static str>) {
    match name {
        "source/prepare" => (Kind::Permit, None),
        "target/prepare" => (Kind::Permit, Some("source/prepare")),
        "source/copy-ahead" => (Kind::Permit, Some("target/prepare")),
        "source/hand-over" => (Kind::Permit, Some("source/copy-ahead")),
        "target/restore" => (Kind::Commit, Some("source/hand-over")),
        "target/settle" | "source/release" | "target/clean" => {
            (Kind::Commit, Some("target/restore"))
        }
        _ => (Kind::Abort, Some("source/hand-over")),
    }
}

/// A statement of `kind` for `a_move`, in which `alter` has changed something, and the generation
/// that it says.
fn signed(
    scene: &Scene,
    signer: &Signer,
    a_move: &Move,
    kind: Kind,
    alter: impl Fn(&mut Permit),
) -> (String, u64) {
    let mut permit = scene.permit(a_move);
    if kind == Kind::Commit {
        permit.claim.generation += 1;
    }
    alter(&mut permit);
    let claim = permit.claim.clone();
    let generation = claim.generation;
    let token = match kind {
        Kind::Permit => signer.sign(&permit),
        Kind::Commit => signer.sign(&Commit { claim }),
        Kind::Abort => signer.sign(&Abort { claim }),
    };
    (token.unwrap(), generation)
}

/// The edge that an order is for.
fn edge_of<'a>(scene: &'a Scene, a_move: &Move, name: &str) -> &'a Edge {
    scene.edge(match name.starts_with("source/") {
        true => a_move.order.source,
        false => a_move.order.target,
    })
}

/// Gives the order `name` on `shown`: it is refused by `check`, no file of any edge changes, and
/// it is written down.
fn assert_refused(scene: &Scene, a_move: &Move, name: &str, shown: (String, u64), check: &str) {
    let what = format!("{check} {name}: {shown:?}");
    let edge = edge_of(scene, a_move, name);
    let files = || scene.edges.each_ref().map(|edge| edge.files());
    let (before, known) = (files(), scene.refusals(edge).refusals.len());
    let mut attack = a_move.clone();
    attack.statement = Some(shown);
    let problem = scene.give(&attack, name).expect_err(&what);
    assert_eq!(problem.kind, STATEMENT_REFUSED, "{what}: {problem:?}");
    assert_eq!(problem.status, 403, "{what}");
    assert_eq!(problem.faults[0].found, check, "{what}: {problem:?}");
    assert_eq!(before, files(), "{what}");
    let refusals = scene.refusals(edge).refusals;
    assert_eq!(refusals.len(), known + 1, "{what}");
    let Refused {
        check: noted,
        asked,
        migration,
        peer,
        ..
    } = refusals.last().unwrap();
    assert_eq!((noted.as_str(), asked.as_str()), (check, name));
    assert_eq!(*migration, Some(a_move.order.migration));
    assert!(peer.is_some());
}

type Alteration = (&'static str, fn(&mut Permit));

/// Statements that are signed as they should be, and say what they should not, with the check
/// that each fails.
fn alterations(name: &str) -> Vec<Alteration> {
    let (kind, _) = before(name);
    let mut alterations: Vec<Alteration> = vec![
        ("container", |permit| permit.claim.name = "App2".to_owned()),
        ("migration", |permit| {
            permit.claim.migration = MigrationId::from_uuid(Uuid::now_v7());
        }),
        ("not-yet", |permit| {
            permit.claim.iat = now().0 / 1_000 + 60;
            permit.exp = permit.claim.iat + 300;
        }),
        ("malformed", |permit| permit.claim.iss = "carney".to_owned()),
    ];
    alterations.extend::<[Alteration; 3]>(match name.starts_with("source/") {
        true => [
            ("audience", |permit| {
                permit.claim.source.edge = EdgeId::from_uuid(Uuid::now_v7());
            }),
            ("audience", |permit| {
                permit.claim.source.certificate = Fingerprint::of(b"another");
            }),
            ("malformed", |permit| {
                permit.claim.target.edge = EdgeId::from_uuid(Uuid::now_v7());
            }),
        ],
        false => [
            ("audience", |permit| {
                permit.claim.target.edge = EdgeId::from_uuid(Uuid::now_v7());
            }),
            ("audience", |permit| {
                permit.claim.target.certificate = Fingerprint::of(b"another");
            }),
            ("malformed", |permit| {
                permit.claim.source.edge = EdgeId::from_uuid(Uuid::now_v7());
            }),
        ],
    });
    // The parts changed over.
    alterations.push(("audience", |permit| {
        let Claim { source, target, .. } = &mut permit.claim;
        std::mem::swap(source, target);
    }));
    let another_permit: [Alteration; 2] = [
        ("used", |permit| permit.claim.jti = "another".to_owned()),
        ("used", |permit| {
            permit.claim.sub = ContainerId::from_uuid(Uuid::now_v7());
        }),
    ];
    match kind {
        Kind::Permit => {
            alterations.extend::<[Alteration; 2]>([
                ("expired", |permit| {
                    permit.claim.iat -= 600;
                    permit.exp = now().0 / 1_000 - 6;
                }),
                ("life", |permit| permit.exp += 24 * 3_600),
            ]);
            // The first that is heard of a move says which permit it is made on.
            if !name.ends_with("/prepare") {
                alterations.extend(another_permit);
                alterations.push(("used", |permit| permit.exp += 1));
                alterations.push(("used", |permit| permit.claim.generation += 1));
            }
        }
        Kind::Commit | Kind::Abort => {
            alterations.extend(another_permit.map(|(_, alter)| ("malformed", alter)));
            alterations.push(("generation", |permit| permit.claim.generation += 3));
            if kind == Kind::Commit {
                alterations.push(("generation", |permit| permit.claim.generation -= 1));
                alterations.push(("generation", |permit| permit.claim.generation += 1));
            }
            // That a target gives up what was committed to it is no reason to run on.
            if name == "source/resume" {
                alterations.push(("generation", |permit| permit.claim.generation += 1));
            }
        }
    }
    alterations
}

/// The signature of one statement under the claims of another.
fn grafted(claims: &str, signature: &str) -> String {
    let (claims, _) = claims.rsplit_once('.').unwrap();
    let (_, signature) = signature.rsplit_once('.').unwrap();
    format!("{claims}.{signature}")
}

#[test]
fn no_order_is_carried_out_on_a_statement_that_does_not_entitle_to_it() {
    for name in ORDERS {
        let (kind, last) = before(name);
        let scene = Scene::new();
        let mut a_move = scene.a_move();
        if let Some(last) = last {
            scene.go_to(&mut a_move, last);
        }
        let refused = |shown, check| assert_refused(&scene, &a_move, name, shown, check);
        let (fitting, generation) = scene.statement(&a_move, name);
        let long = "x".repeat(20 << 10);
        for garbage in ["", "statement", "..", "a.b.c", "{}", &fitting[..40], &long] {
            refused((garbage.to_owned(), generation), "malformed");
        }
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            let (token, _) = signed(&scene, &scene.signer, &a_move, other, |_| ());
            refused((token, generation), "kind");
        }
        let stranger = Signer::new(&[7; 32]);
        refused(signed(&scene, &stranger, &a_move, kind, |_| ()), "key");
        let later = |permit: &mut Permit| permit.claim.jti.push('x');
        let (altered, _) = signed(&scene, &scene.signer, &a_move, kind, later);
        refused((grafted(&altered, &fitting), generation), "signature");
        for (check, alter) in alterations(name) {
            refused(signed(&scene, &scene.signer, &a_move, kind, alter), check);
        }
        // The statement fits, the order is given under another generation.
        refused((fitting, generation + 1), "generation");
        // And what entitles to it does.
        scene.go(&mut a_move, name);
    }
}

#[test]
fn a_permit_is_good_for_one_move() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/clean");
    let replay = |scene: &Scene| {
        for name in &ORDERS[..4] {
            let shown = scene.statement(&a_move, name);
            assert_refused(scene, &a_move, name, shown, "used");
        }
    };
    replay(&scene);
    for edge in [SOURCE, TARGET] {
        scene.edges[edge].restart();
    }
    replay(&scene);
    // The container is where it was again, and the permit is as bad as before.
    let mut back = scene.a_move_between(TARGET, SOURCE);
    back.container = a_move.container;
    back.order.generation = a_move.order.generation + 1;
    scene.go_to(&mut back, "target/clean");
    replay(&scene);
    assert!(scene.source().runs());
}

#[test]
fn a_permit_whose_move_was_called_off_is_used() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    scene.go(&mut a_move, "source/resume");
    scene.go(&mut a_move, "target/discard");
    for name in &ORDERS[..4] {
        let shown = scene.statement(&a_move, name);
        assert_refused(&scene, &a_move, name, shown, "used");
    }
    // Also where its end was the first that was heard of it.
    let mut a_move = scene.a_move();
    scene.go(&mut a_move, "source/resume");
    let shown = scene.statement(&a_move, "source/prepare");
    assert_refused(&scene, &a_move, "source/prepare", shown, "used");
}

#[test]
fn a_generation_that_is_behind_what_was_seen_is_refused_also_after_a_restart() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/clean");
    let mut next = scene.a_move_between(TARGET, OTHER);
    next.container = a_move.container;
    for restarted in [false, true] {
        if restarted {
            scene.edges[TARGET].restart();
            scene.edges[SOURCE].restart();
        }
        let shown = scene.statement(&next, "source/prepare");
        assert_refused(&scene, &next, "source/prepare", shown, "generation");
        // The source knows from the commit that it is gone from there.
        let mut again = scene.a_move();
        again.container = a_move.container;
        let shown = scene.statement(&again, "source/prepare");
        assert_refused(&scene, &again, "source/prepare", shown, "generation");
        for name in ["source/resume", "source/release"] {
            again.order.generation = a_move.order.generation - 1;
            let shown = scene.statement(&again, name);
            assert_refused(&scene, &again, name, shown, "generation");
        }
    }
    next.order.generation += 1;
    scene.go_to(&mut next, "target/clean");
    assert!(scene.edges[OTHER].runs());
}

#[test]
fn an_abort_from_before_the_commit_does_not_discard_what_was_committed() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    // What was made from it already goes with the agent.
    scene.edges[TARGET].restart();
    fs::remove_file(scene.target().images().join("memory")).unwrap();
    // It fails, and the commit has been seen.
    assert_eq!(
        scene.give(&a_move, "target/restore").unwrap_err().status,
        409
    );
    let shown = scene.statement(&a_move, "target/discard");
    assert_refused(&scene, &a_move, "target/discard", shown, "generation");
    a_move.raised = 1;
    scene.go(&mut a_move, "target/discard");
    a_move.raised = 2;
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
}

/// A stream of an empty tree to the target, as `caller`; the status that it is answered with.
fn send(scene: &Scene, caller: Caller, a_move: &Move, what: &str) -> u16 {
    let empty = TempDir::new().unwrap();
    let stream = sent(empty.path(), 512).concat();
    let (client, base) = scene.client(caller, scene.target());
    let url = format!("{base}/v1/handovers/{}/{what}", a_move.order.migration);
    match scene
        .block_on(answer(client.put(url).body(stream)))
        .unwrap()
    {
        Ok(_) => 200,
        Err(problem) => problem.status,
    }
}

#[test]
fn a_permit_that_expires_on_the_way_sends_nothing_more() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    // Clocks may be apart by so much that it is good for a moment still.
    a_move.made_at_s -= 301;
    scene.go_to(&mut a_move, "target/prepare");
    let source = Caller::Edge(a_move.order.source);
    let deadline = Instant::now() + BOUND;
    while send(&scene, source, &a_move, "rootfs") == 200 {
        assert!(Instant::now() < deadline, "it never expires");
        std::thread::sleep(Duration::from_millis(50));
    }
    let noted = scene.refusals(scene.target()).refusals.pop().unwrap();
    assert_eq!(
        (noted.check.as_str(), noted.asked.as_str()),
        ("expired", "rootfs")
    );
    for name in ["source/copy-ahead", "source/hand-over"] {
        let shown = scene.statement(&a_move, name);
        assert_refused(&scene, &a_move, name, shown, "expired");
    }
    assert!(scene.source().runs());
    scene.go(&mut a_move, "source/resume");
    scene.go(&mut a_move, "target/discard");
    assert!(scene.target().is_empty());
}

#[test]
fn a_stream_from_another_certificate_of_the_sources_name_is_refused() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "source/hand-over");
    let before = scene.target().files();
    for what in ["rootfs", "memory-ahead", "images"] {
        let double = Caller::Double(a_move.order.source);
        assert_eq!(send(&scene, double, &a_move, what), 403, "{what}");
        let noted = scene.refusals(scene.target()).refusals.pop().unwrap();
        assert_eq!((noted.check.as_str(), noted.asked.as_str()), ("peer", what));
        assert_ne!(noted.peer, Some(scene.source().party().certificate));
    }
    assert_eq!(before, scene.target().files());
    let source = Caller::Edge(a_move.order.source);
    assert_eq!(send(&scene, source, &a_move, "rootfs"), 200);
    assert_ne!(before, scene.target().files());
}

#[test]
fn a_source_sends_only_to_the_certificate_that_the_permit_names() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let mut other = scene.a_move();
    other.order.migration = MigrationId::from_uuid(Uuid::now_v7());
    scene.go(&mut a_move, "source/resume");
    // The target's name, and a certificate that is not the one that it has.
    let named = signed(&scene, &scene.signer, &other, Kind::Permit, |permit| {
        permit.claim.target.certificate = Fingerprint::of(b"another");
    });
    other.statement = Some(named);
    scene.give(&other, "source/prepare").unwrap();
    let before = scene.target().files();
    for name in ["source/copy-ahead", "source/hand-over"] {
        let problem = scene.give(&other, name).unwrap_err();
        let detail = problem.detail.unwrap();
        assert!(detail.contains("cannot be reached"), "{detail}");
    }
    assert_eq!(before, scene.target().files());
}

#[test]
fn a_signing_key_is_taken_from_the_authority_alone() {
    let scene = Scene::new();
    let edge = scene.source();
    let told = |certificate: String| {
        let body = SigningKey { certificate };
        scene.tell(edge, Method::PUT, "/v1/signing-key", &body)
    };
    let before = edge.files();
    let (_, of_strangers) = scene.strangers.signing_key();
    let (of_an_edge, _) = scene.authority.certify(&edge_name(edge.id));
    for (nth, wrong) in [of_strangers, of_an_edge, "PEM".to_owned()]
        .into_iter()
        .enumerate()
    {
        let problem = told(wrong).unwrap_err();
        assert_eq!(problem.faults[0].found, "key");
        let noted = scene.refusals(edge).refusals;
        assert_eq!(noted.len(), nth + 1);
        assert_eq!(noted[nth].asked, "signing-key");
    }
    assert_eq!(before, edge.files());
    // The new one counts, and the one before it for a while.
    let (signer, certificate) = scene.authority.signing_key();
    told(certificate.clone()).unwrap();
    told(certificate).unwrap();
    let mut a_move = scene.a_move();
    a_move.statement = Some(signed(&scene, &signer, &a_move, Kind::Permit, |_| ()));
    scene.go(&mut a_move, "source/prepare");
    a_move.statement = None;
    scene.go(&mut a_move, "source/resume");
    assert!(scene.source().runs());
}

#[test]
fn a_signing_key_that_was_replaced_is_good_for_a_minute() {
    let authority = Authority::new();
    let trusted = authority.trusted();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("permits.json");
    let permits = Permits::load(path.clone()).unwrap();
    let scene = Scene::new();
    let a_move = scene.a_move();
    let [first, second, third] = [(); 3].map(|()| authority.signing_key());
    let by = |signer: &Signer| signed(&scene, signer, &a_move, Kind::Permit, |_| ()).0;
    let at = |ms: i64| UnixMillis(1_000_000 + ms);
    let open = |permits: &Permits, signer: &Signer, now: UnixMillis| {
        let opened = permits.open::<Permit>(&by(signer), now);
        opened.map(drop).map_err(|fault| fault.name())
    };
    assert_eq!(open(&permits, &first.0, at(0)), Err("key"));
    permits.learn(&first.1, &trusted, at(0)).unwrap();
    assert_eq!(open(&permits, &first.0, at(0)), Ok(()));
    permits.learn(&second.1, &trusted, at(0)).unwrap();
    // Told again, the minute does not begin anew.
    permits.learn(&second.1, &trusted, at(50_000)).unwrap();
    for permits in [&permits, &Permits::load(path.clone()).unwrap()] {
        assert_eq!(open(permits, &first.0, at(59_999)), Ok(()));
        assert_eq!(open(permits, &first.0, at(60_000)), Err("key"));
        assert_eq!(open(permits, &second.0, at(60_000)), Ok(()));
        assert_eq!(open(permits, &third.0, at(0)), Err("key"));
    }
    // Of two that were replaced, the last alone.
    permits.learn(&third.1, &trusted, at(50_000)).unwrap();
    assert_eq!(open(&permits, &first.0, at(50_001)), Err("key"));
    assert_eq!(open(&permits, &second.0, at(50_001)), Ok(()));
}

#[test]
fn the_control_plane_fetches_refusals_and_has_them_forgotten() {
    let mut scene = Scene::new();
    let mut a_move = scene.a_move();
    a_move.statement = Some(("no statement".to_owned(), 7));
    for name in ["source/prepare", "source/hand-over"] {
        scene.give(&a_move, name).unwrap_err();
    }
    let other = scene.edges[OTHER].id;
    for path in ["/v1/refusals", "/v1/x"] {
        let (client, base) = scene.client(Caller::Edge(other), scene.source());
        let request = client.get(format!("{base}{path}"));
        let _ = scene.block_on(answer(request)).unwrap().unwrap_err();
    }
    let request = scene.request(Caller::Edge(other), &a_move, "source/release");
    let problem = scene.block_on(answer(request)).unwrap().unwrap_err();
    assert_eq!(problem.kind, "urn:carnet:problem:not-entitled");
    let listed = scene.refusals(scene.source());
    let seen: Vec<_> = listed
        .refusals
        .iter()
        .map(|refused| {
            (
                refused.number,
                refused.check.as_str(),
                refused.asked.as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, "malformed", "source/prepare"),
            (2, "malformed", "source/hand-over"),
            (3, "peer", "GET /v1/refusals"),
            (4, "peer", "source/release"),
        ]
    );
    assert_eq!(listed.dropped, 0);
    let Party { certificate, .. } = scene.edges[OTHER].party();
    assert_eq!(listed.refusals[3].peer, Some(certificate));
    assert_eq!(listed.refusals[3].migration, Some(a_move.order.migration));

    scene.edges[SOURCE].restart();
    assert_eq!(scene.refusals(scene.source()), listed);
    let forget = |scene: &Scene, through| {
        let body = ForgetRefusals { through };
        scene
            .tell(scene.source(), Method::POST, "/v1/refusals/forget", &body)
            .unwrap();
    };
    for _ in 0..2 {
        forget(&scene, 3);
        assert_eq!(
            scene.refusals(scene.source()).refusals,
            listed.refusals[3..]
        );
    }
    forget(&scene, 4);
    scene.edges[SOURCE].restart();
    assert_eq!(scene.refusals(scene.source()).refusals, []);
    // Numbers are not used again.
    scene.give(&a_move, "source/prepare").unwrap_err();
    assert_eq!(scene.refusals(scene.source()).refusals[0].number, 5);
}

#[test]
fn refusals_are_bounded_and_those_beyond_are_counted() {
    // Each is written to disk, which is not what is tested.
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new());
    let directory = directory.unwrap();
    let path = directory.path().join("refusals.json");
    let refusals = Refusals::load(path.clone()).unwrap();
    let long = "x".repeat(64 << 10);
    for _ in 0..MAX_REFUSALS + 5 {
        refusals.note("peer", &long, None, None, now());
    }
    for refusals in [&refusals, &Refusals::load(path.clone()).unwrap()] {
        let listed = refusals.list();
        assert_eq!(listed.refusals.len(), MAX_REFUSALS);
        assert_eq!(listed.dropped, 5);
        assert_eq!(listed.refusals[0].number, 1);
        assert!(
            listed
                .refusals
                .iter()
                .all(|refused| refused.asked.len() < 256)
        );
    }
    refusals.forget(10).unwrap();
    // Whoever fetched them before may not have heard of all.
    assert_eq!(refusals.list().dropped, 5);
    refusals.note("peer", "again", None, None, now());
    let last = refusals.list().refusals.pop().unwrap();
    assert_eq!((last.number, last.asked.as_str()), (1_001, "again"));
}
