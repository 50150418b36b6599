//! Certificates that are renewed while agents run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use carnet_api::agent::NewCertificate;
use carnet_api::tls::{Identity, client_config_for_peer, edge_name};
use carnet_api::v1::Problem;
use carnet_core::permit::{Abort, Claim, Commit, Fingerprint};
use reqwest::Method;
use serde_json::Value;

use crate::scene::{Caller, Edge, OTHER, SOURCE, Scene, TARGET, answer};

impl Scene {
    /// The request for the edge's next certificate, PEM.
    fn requested(&self, edge: &Edge) -> String {
        let told = self.tell(edge, Method::POST, "/v1/certificate/request", &());
        told.unwrap()["request"].as_str().unwrap().to_owned()
    }

    fn give_certificate(&self, edge: &Edge, certificate: &str) -> Result<Value, Problem> {
        let body = NewCertificate {
            certificate: certificate.to_owned(),
        };
        self.tell(edge, Method::PUT, "/v1/certificate", &body)
    }

    /// Renews the edge's certificate; returns the new one, PEM.
    fn renew(&self, edge: &Edge) -> String {
        let request = self.requested(edge);
        let certificate = self
            .authority
            .certify_request(&edge_name(edge.id), &request);
        self.give_certificate(edge, &certificate).unwrap();
        certificate
    }

    /// Whether the agent shows this certificate on a new connection.
    fn shows(&self, edge: &Edge, certificate: Fingerprint) -> bool {
        let control = self.authority.identity(carnet_api::tls::CONTROL_NAME);
        let trusted = self.authority.trusted();
        let tls = client_config_for_peer(&trusted, &control, vec![certificate]).unwrap();
        let (name, address) = (edge_name(edge.id), edge.address());
        let address: std::net::SocketAddr = address.parse().unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .resolve(&name, address)
            .no_proxy()
            .build()
            .unwrap();
        let url = format!("https://{name}:{}/v1/facts", address.port());
        self.block_on(client.get(url).send()).is_ok()
    }
}

fn fingerprint(certificate: &str) -> Fingerprint {
    Identity::fingerprint_of(certificate).unwrap()
}

#[test]
fn a_renewed_certificate_is_shown_at_once_and_open_connections_stay() {
    let scene = Scene::new();
    let edge = scene.source();
    let before = edge.party().certificate;
    assert!(scene.shows(edge, before));
    // One connection, which stays open between two requests.
    let (client, base) = scene.client(Caller::Control, edge);
    let facts = || {
        let request = client.get(format!("{base}/v1/facts"));
        scene.block_on(answer(request)).unwrap().unwrap()
    };
    facts();
    let after = fingerprint(&scene.renew(edge));
    assert_ne!(after, before);
    facts();
    assert!(scene.shows(edge, after));
    assert!(!scene.shows(edge, before));
    assert_eq!(edge.party().certificate, after);
    let mode = fs::metadata(edge.state().join("agent.pem")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o7777, 0o600);
}

/// As source and as target, with a connection between the two that was made with the old ones.
#[test]
fn moves_go_on_permits_that_name_the_renewed_certificates() {
    for renewed in [&[SOURCE][..], &[TARGET], &[SOURCE, TARGET]] {
        let scene = Scene::new();
        let mut before = scene.a_move();
        for name in ["source/prepare", "target/prepare", "source/copy-ahead"] {
            scene.go(&mut before, name);
        }
        let old = scene.permit(&before);
        scene.go(&mut before, "target/discard");
        scene.go(&mut before, "source/resume");
        for edge in renewed {
            scene.renew(&scene.edges[*edge]);
        }
        // A permit that names the certificates before them.
        let mut late = scene.a_move();
        let mut permit = scene.permit(&late);
        (permit.claim.source, permit.claim.target) = (old.claim.source, old.claim.target);
        let generation = permit.claim.generation;
        late.statement = Some((scene.signer.sign(&permit).unwrap(), generation));
        for (edge, name) in [(SOURCE, "source/prepare"), (TARGET, "target/prepare")] {
            if renewed.contains(&edge) {
                let problem = scene.give(&late, name).unwrap_err();
                assert_eq!(problem.faults[0].found, "audience", "{name}");
            }
        }
        let mut after = scene.a_move();
        scene.go_to(&mut after, "target/clean");
        assert!(scene.target().runs());
        assert!(scene.source().is_empty());
    }
}

#[test]
fn a_request_is_the_same_until_its_certificate_has_come_whatever_crashes() {
    let mut scene = Scene::new();
    let before = scene.source().party().certificate;
    let request = scene.requested(scene.source());
    let pending = scene.source().state().join("renewal.json");
    let mode = fs::metadata(&pending).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // It dies before it has the certificate.
    scene.edges[SOURCE].restart();
    assert_eq!(scene.requested(scene.source()), request);
    assert!(scene.shows(scene.source(), before));
    // It dies while it writes the new pair.
    fs::write(scene.source().state().join("agent.new"), "by half").unwrap();
    scene.edges[SOURCE].restart();
    assert!(scene.shows(scene.source(), before));
    assert_eq!(scene.requested(scene.source()), request);
    // It dies after it has put the pair in place, and before it has said so, or cleared up.
    let kept = fs::read(&pending).unwrap();
    let name = edge_name(scene.source().id);
    let certificate = scene.authority.certify_request(&name, &request);
    scene
        .give_certificate(scene.source(), &certificate)
        .unwrap();
    assert!(!pending.exists());
    fs::write(&pending, kept).unwrap();
    scene.edges[SOURCE].restart();
    assert!(scene.shows(scene.source(), fingerprint(&certificate)));
    // Told again, nothing changes.
    scene
        .give_certificate(scene.source(), &certificate)
        .unwrap();
    assert!(scene.shows(scene.source(), fingerprint(&certificate)));
    // No key is used twice.
    assert_ne!(scene.requested(scene.source()), request);
}

#[test]
fn a_certificate_that_is_not_the_requested_one_is_refused_and_nothing_changes() {
    let scene = Scene::new();
    let edge = scene.source();
    let name = edge_name(edge.id);
    let before = edge.party().certificate;
    let mut refused = 0;
    let mut refuse = |certificate: &str| {
        let files = edge.files();
        let problem = scene.give_certificate(edge, certificate).unwrap_err();
        assert_eq!(problem.faults[0].found, "certificate", "{problem:?}");
        assert_eq!(edge.files(), files);
        assert!(scene.shows(edge, before));
        refused += 1;
        let noted = scene.refusals(edge).refusals;
        assert_eq!(noted.len(), refused);
        assert_eq!(noted.last().unwrap().check, "certificate");
    };
    // None was requested.
    refuse(&scene.authority.certify(&name).0);
    let request = scene.requested(edge);
    // For another key.
    refuse(&scene.authority.certify(&name).0);
    // Another's name, another authority's.
    let others = edge_name(scene.edges[OTHER].id);
    refuse(&scene.authority.certify_request(&others, &request));
    refuse(&scene.strangers.certify_request(&name, &request));
    refuse("no certificate");
    let right = scene.authority.certify_request(&name, &request);
    scene.give_certificate(edge, &right).unwrap();
    assert!(scene.shows(edge, fingerprint(&right)));
}

/// An edge that was enrolled anew in the midst of a move has another certificate than its permit.
#[test]
fn a_commit_or_abort_may_name_another_certificate_of_the_peer_and_none_of_this_edge() {
    for (order, reached) in [
        ("source/resume", "source/hand-over"),
        ("source/release", "target/restore"),
        ("target/discard", "source/hand-over"),
        ("target/clean", "target/restore"),
    ] {
        let scene = Scene::new();
        let mut a_move = scene.a_move();
        scene.go_to(&mut a_move, reached);
        let (_, generation) = scene.statement(&a_move, order);
        let another = Fingerprint::of(b"another");
        let is_source = order.starts_with("source/");
        let statement = |mine: bool| {
            let mut claim = Claim {
                generation,
                ..scene.permit(&a_move).claim
            };
            match mine == is_source {
                true => claim.source.certificate = another,
                false => claim.target.certificate = another,
            }
            let statement = match order {
                "source/resume" | "target/discard" => scene.signer.sign(&Abort { claim }),
                _ => scene.signer.sign(&Commit { claim }),
            };
            Some((statement.unwrap(), generation))
        };
        let mut shown = a_move.clone();
        shown.statement = statement(true);
        let problem = scene.give(&shown, order).unwrap_err();
        assert_eq!(problem.faults[0].found, "audience", "{order}");
        shown.statement = statement(false);
        scene.go(&mut shown, order);
    }
}

/// The target's certificate is another since the permit: nothing is sent to it.
#[test]
fn a_certificate_that_was_renewed_since_the_permit_is_sent_nothing() {
    let scene = Scene::new();
    let mut a_move = scene.a_move();
    scene.go_to(&mut a_move, "target/prepare");
    let permit = scene.statement(&a_move, "source/copy-ahead");
    scene.renew(&scene.edges[TARGET]);
    a_move.statement = Some(permit);
    scene.give(&a_move, "source/copy-ahead").unwrap_err();
    assert_eq!(fs::read_dir(scene.target().rootfs()).unwrap().count(), 0);
}
