//! Enrolment: a one-time token for a certificate.

use std::sync::Arc;

use carnet_api::tls::{Authority, CONTROL_NAME, edge_name};
use carnet_api::v1::{Enrolment, Role};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use reqwest::Method;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::plane::{Plane, Someone, certificate_request};

async fn enrol(plane: &Plane, token: &str, request: &str) -> Answer {
    let body = json!({"token": token, "certificate_request": request, "detected": {}});
    let ask = plane.ask(Method::POST, "/v1/enrolments");
    ask.json(body).send().await
}

async fn plane_with_an_edge() -> (Plane, Someone) {
    let plane = Plane::start().await;
    let owner = plane.edge_owner("owner").await;
    let body = json!({"name": "north", "address": "192.0.2.9:7443", "attributes": {}});
    plane.post(&owner, "/v1/edges", body).await.json(201);
    (plane, owner)
}

/// Whether a client that trusts `authority` takes the holder of the first certificate of `chain`
/// for `name`.
fn is_taken_for(chain: &[&str], authority: &str, name: &str) -> bool {
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(der(authority)).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
    let chain: Vec<CertificateDer<'_>> = chain.iter().map(|pem| der(pem)).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .build()
        .unwrap()
        .verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now())
        .is_ok()
}

#[tokio::test]
async fn an_agent_gets_a_certificate_for_its_key_and_all_that_it_has_to_know() {
    let (plane, owner) = plane_with_an_edge().await;
    let token = plane.enrolment_token(&owner, "north").await.token;
    let enrolment: Enrolment = enrol(&plane, &token, &certificate_request())
        .await
        .read(201);
    let edge = plane.show_edge(&owner, "north").await;
    assert!(edge.enrolled);
    assert_eq!(enrolment.edge, edge.id);
    assert_eq!(
        (enrolment.name, enrolment.address),
        (edge.name, edge.address)
    );
    let name = edge_name(edge.id);
    assert!(is_taken_for(
        &[&enrolment.certificate],
        &enrolment.authority,
        &name
    ));
    // The token said whom to trust before anything was asked.
    let fingerprint = Authority::from_pem(&enrolment.authority)
        .unwrap()
        .fingerprint();
    assert_eq!(token.split('.').nth(2), Some(fingerprint.as_str()));
}

#[tokio::test]
async fn whatever_a_request_says_the_certificate_is_the_edges_and_no_authoritys() {
    let (plane, owner) = plane_with_an_edge().await;
    let victim = plane.edge(&owner, "south").await;
    let mut params = CertificateParams::new(vec![
        CONTROL_NAME.to_owned(),
        edge_name(victim.id),
        "localhost".to_owned(),
    ])
    .unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, CONTROL_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap().pem().unwrap();

    let token = plane.enrolment_token(&owner, "north").await.token;
    let enrolment: Enrolment = enrol(&plane, &token, &request).await.read(201);
    let certificate = enrolment.certificate.as_str();
    let is = |name: &str| is_taken_for(&[certificate], &enrolment.authority, name);
    assert!(is(&edge_name(enrolment.edge)));
    for name in [CONTROL_NAME, edge_name(victim.id).as_str(), "localhost"] {
        assert!(!is(name), "{name}");
    }
    // Its holder signs nothing that anybody believes.
    let issuer = Issuer::from_params(&params, &key);
    let forged = CertificateParams::new(vec![CONTROL_NAME.to_owned()]).unwrap();
    let forged_key = KeyPair::generate().unwrap();
    let forged = forged.signed_by(&forged_key, &issuer).unwrap().pem();
    let chain = [forged.as_str(), certificate];
    assert!(!is_taken_for(&chain, &enrolment.authority, CONTROL_NAME));
}

#[tokio::test]
async fn a_token_enrols_once() {
    let (plane, owner) = plane_with_an_edge().await;
    let token = plane.enrolment_token(&owner, "north").await.token;
    let (one, other) = (certificate_request(), certificate_request());
    let (one, other) = tokio::join!(enrol(&plane, &token, &one), enrol(&plane, &token, &other));
    let mut statuses = [one.status.as_u16(), other.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 401]);
    let again = enrol(&plane, &token, &certificate_request()).await;
    let detail = again.detail(401, "unauthenticated");
    assert!(detail.contains("carnet edge enrol-token"), "{detail}");
    // Another can be made: machines are set up anew.
    plane.enrol(&owner, "north").await;
}

#[tokio::test]
async fn a_token_ends_when_its_hour_is_over_or_another_is_made() {
    let (plane, owner) = plane_with_an_edge().await;
    let older = plane.enrolment_token(&owner, "north").await;
    let newer = plane.enrolment_token(&owner, "north").await;
    let refused = enrol(&plane, &older.token, &certificate_request()).await;
    refused.problem(401, "unauthenticated");
    // One of another edge is none of these.
    plane.edge(&owner, "south").await;
    plane.enrolment_token(&owner, "south").await;
    plane
        .change(
            "UPDATE enrolment_tokens SET expires_at = expires_at - 3600000
             WHERE edge = (SELECT id FROM edges WHERE name = 'north')",
        )
        .await;
    let refused = enrol(&plane, &newer.token, &certificate_request()).await;
    refused.problem(401, "unauthenticated");
    assert!(!plane.show_edge(&owner, "north").await.enrolled);
    plane.enrol(&owner, "north").await;
}

#[tokio::test]
async fn a_request_that_is_no_good_leaves_the_token_good() {
    let (plane, owner) = plane_with_an_edge().await;
    let token = plane.enrolment_token(&owner, "north").await.token;
    let good = certificate_request();
    // One character of the signature is another.
    let mut forged: Vec<u8> = good.clone().into_bytes();
    let last = good.trim_end().rfind("\n-----END").unwrap() - 8;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut odd = CertificateParams::default();
    odd.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5])];
    let odd = odd.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = CertificateParams::default()
        .self_signed(&key)
        .unwrap()
        .pem();
    let private = key.serialize_pem();
    let half = &good[..good.len() / 2];
    for bad in [
        "",
        "no PEM",
        half,
        &forged,
        &odd,
        &certificate,
        &private,
        "\u{0}",
    ] {
        let refused = enrol(&plane, &token, bad).await;
        let fault = refused.problem(422, "faulty-input").faults.remove(0);
        assert_eq!(fault.place, "certificate_request");
        assert_eq!(fault.allowed, "a PKCS #10 request, PEM");
        assert!(!refused.text().contains(private.lines().nth(1).unwrap()));
    }
    assert!(!plane.show_edge(&owner, "north").await.enrolled);
    enrol(&plane, &token, &good).await.json(201);
}

#[tokio::test]
async fn what_is_no_enrolment_token_enrols_nothing() {
    let (plane, owner) = plane_with_an_edge().await;
    let token = plane.enrolment_token(&owner, "north").await.token;
    let secret = token.split('.').nth(1).unwrap().to_owned();
    let upper = token.to_uppercase();
    let longer = token.replacen(&secret, &format!("{secret}0"), 1);
    for bad in [
        "",
        ".",
        "...",
        "carnet-enrol",
        &secret,
        &upper,
        &longer,
        &owner.token,
    ] {
        let refused = enrol(&plane, bad, &certificate_request()).await;
        refused.problem(401, "unauthenticated");
    }
    // Nor does it open anything else.
    plane
        .get(&token, "/v1/whoami")
        .await
        .problem(401, "unauthenticated");
    plane
        .get(&secret, "/v1/whoami")
        .await
        .problem(401, "unauthenticated");
    enrol(&plane, &token, &certificate_request())
        .await
        .json(201);
}

#[tokio::test]
async fn a_token_is_made_by_the_edges_owner_alone() {
    let (plane, _) = plane_with_an_edge().await;
    let path = "/v1/edges/north/enrolment-tokens";
    let mover = plane.container_owner("mover").await;
    let auditor = plane.account("auditor", &[Role::Auditor]).await;
    for nobody in [&mover, &auditor, &plane.administrator] {
        let refused: Answer = plane.post(nobody, path, json!({})).await;
        refused.problem(403, "forbidden");
    }
    let none: Value = plane.get(&auditor, "/v1/edges/north").await.json(200);
    assert_eq!(none["enrolled"], false);
}
