//! What an agent has once it is enrolled.

use std::sync::Arc;

use axum::routing::post;
use axum::{Json, Router};
use carnet_agent::enrol::enrol;
use carnet_agent::permits::Permits;
use carnet_agent::state::AgentState;
use carnet_api::tls::{ClientAuthentication, Identity, TlsListener, edge_name, server_config};
use carnet_api::v1::{EnrolEdge, Enrolment};
use carnet_core::ids::EdgeId;
use carnet_core::permit::key_id;
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::scene::Authority;

/// Otherwise it would refuse every statement until it is told.
#[tokio::test]
async fn an_agent_that_has_enrolled_knows_the_signing_key() {
    let authority = Arc::new(Authority::new());
    let (signer, signing_key) = authority.signing_key();
    let edge = EdgeId::from_uuid(Uuid::now_v7());
    let (certificate, key) = authority.certify("localhost");
    let chain = format!("{certificate}{}", authority.certificate());
    let identity = Identity::from_pem(&chain, &key).unwrap();
    let trusted = authority.trusted();
    let fingerprint = trusted.fingerprint();
    let tls = server_config(&trusted, &identity, ClientAuthentication::None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = format!(
        "https://localhost:{}",
        listener.local_addr().unwrap().port()
    );
    let enrolling = post(move |Json(asked): Json<EnrolEdge>| {
        let request = asked.certificate_request;
        let enrolment = Enrolment {
            edge,
            name: "Edge".to_owned(),
            certificate: authority.certify_request(&edge_name(edge), &request),
            authority: authority.certificate().to_owned(),
            signing_key: signing_key.clone(),
            address: "127.0.0.1:1".to_owned(),
        };
        async move { Json(enrolment) }
    });
    let router = Router::new().route("/v1/enrolments", enrolling);
    let serving =
        tokio::spawn(
            async move { axum::serve(TlsListener::new(listener, tls).unwrap(), router).await },
        );
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    let token = format!("carnet-enrol.SECRET.{fingerprint}");
    assert_eq!(enrol(&state, &control, &token).await.unwrap().id, edge);
    serving.abort();
    let permits = Permits::load(AgentState::load(&state).unwrap().permits()).unwrap();
    assert_eq!(permits.key(), Some(key_id(&signer.public())));
}
