//! The client of the agents on real connections: what each kind of answer is taken for. A refusal
//! says that nothing was done; taking anything else for one would let the source run on beside
//! the target.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use carnet_api::agent::{CopyAhead, Described, HandOver, Order, PrepareTarget};
use carnet_api::tls::{ClientAuthentication, Identity, TlsListener, server_config};
use carnet_control::agents::{AgentFault, Agents, Command, Endpoint, HttpAgents};
use carnet_control::authority::CertificateAuthority;
use carnet_core::ids::{EdgeId, MigrationId};
use carnet_core::migration::Strategy;
use carnet_core::permit::Fingerprint;
use futures_util::stream;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::plane::now;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A reading as it is answered.
const READING: &str = r#"{"utilization":null,"problems":[]}"#;

/// What the agent answers to everything.
#[derive(Clone)]
enum Answer {
    Whole(u16, Bytes),
    /// Begun, and then the connection breaks.
    BrokenOff,
    Never,
}

/// Every request: method, path and body.
type Requests = Arc<Mutex<Vec<(String, Value)>>>;

/// An agent that answers what it was told to.
struct Agent {
    endpoint: Endpoint,
    requests: Requests,
    serving: JoinHandle<io::Result<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Authority {
    authority: CertificateAuthority,
    _directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            authority: CertificateAuthority::open(directory.path()).unwrap(),
            _directory: directory,
        }
    }

    fn client(&self) -> HttpAgents {
        let identity = self.authority.control(&[], now()).unwrap();
        HttpAgents::new(self.authority.authority().unwrap(), identity)
    }

    /// An agent of the edge `asked_for`, with the certificate of `shown`.
    async fn agent(&self, asked_for: EdgeId, shown: EdgeId, answer: Answer) -> Agent {
        let key = KeyPair::generate().unwrap();
        let request = CertificateParams::default().serialize_request(&key);
        let request = request.unwrap().pem().unwrap();
        let certificate = self.authority.edge(shown, &request, now()).unwrap();
        let identity = Identity::from_pem(&certificate, &key.serialize_pem()).unwrap();
        let trusted = self.authority.authority().unwrap();
        let tls = server_config(&trusted, &identity, ClientAuthentication::Required).unwrap();
        let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let endpoint = Endpoint {
            edge: asked_for,
            name: "edge".to_owned(),
            address: listener.local_addr().unwrap().to_string(),
            certificate: Some(identity.fingerprint()),
            pending: None,
        };
        let requests = Requests::default();
        let seen = requests.clone();
        let router = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let line = format!("{} {}", parts.method, parts.uri.path());
            seen.lock().unwrap().push((line, body));
            match answer {
                Answer::Whole(status, body) => Response::builder()
                    .status(status)
                    .header("location", "/v1/elsewhere")
                    .body(Body::from(body))
                    .unwrap(),
                Answer::BrokenOff => Response::new(Body::from_stream(stream::iter([
                    Ok(&READING[..9]),
                    Err(io::Error::other("gone")),
                ]))),
                Answer::Never => std::future::pending().await,
            }
        });
        let listener = TlsListener::new(listener, tls).unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await });
        Agent {
            endpoint,
            requests,
            serving,
        }
    }
}

fn new_edge() -> EdgeId {
    EdgeId::from_uuid(Uuid::now_v7())
}

fn whole(status: u16, body: impl Into<String>) -> Answer {
    Answer::Whole(status, Bytes::from(body.into()))
}

fn problem(status: u16) -> String {
    json!({
        "type": "urn:carnet:problem:edge-cannot",
        "title": "the edge cannot do this",
        "status": status,
        "detail": "there is no room",
    })
    .to_string()
}

/// What asking for a reading comes to, where the agent answers so.
async fn fault(answer: Answer) -> AgentFault {
    let authority = Authority::new();
    let edge = new_edge();
    let agent = authority.agent(edge, edge, answer).await;
    let asked = authority.client();
    let error = asked.reading(&agent.endpoint).await.unwrap_err();
    assert_eq!(error.edge, "edge");
    assert_eq!(
        error.is_refusal(),
        matches!(error.fault, AgentFault::Refused(_))
    );
    error.fault
}

#[tokio::test]
async fn only_a_problem_with_4xx_is_a_refusal() {
    for status in [400, 403, 404, 409, 422] {
        match fault(whole(status, problem(status))).await {
            AgentFault::Refused(problem) => {
                assert_eq!(problem.detail.as_deref(), Some("there is no room"));
            }
            other => panic!("{status}: {other:?}"),
        }
    }
    // Something on the way, or an agent at fault: what was done is not known.
    for (status, body, start) in [
        (409, "<html>".to_owned(), "<html>"),
        (404, String::new(), ""),
        (500, problem(500), "there is no room"),
        (503, "busy".to_owned(), "busy"),
        (302, String::new(), ""),
        (302, problem(302), "there is no room"),
        (200, "<html>".to_owned(), "<html>"),
        (200, "{}".to_owned(), "{}"),
        (200, problem(409), &problem(409)),
    ] {
        match fault(whole(status, &*body)).await {
            AgentFault::Unwell {
                status: found,
                start: told,
            } => assert_eq!((found, told.as_str()), (status, start)),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_never_comes_says_nothing_of_what_was_done() {
    let broken = fault(Answer::BrokenOff).await;
    assert!(matches!(broken, AgentFault::Unreachable(_)), "{broken:?}");
    let never = fault(Answer::Never).await;
    assert!(matches!(never, AgentFault::TooSlow(_)), "{never:?}");
}

/// Edges are others': none may fill the control plane's memory.
#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let long = READING.to_owned() + &" ".repeat(64 << 20);
    match fault(whole(200, long)).await {
        AgentFault::Unwell { status: 200, start } => {
            assert_eq!(start, "more than 4194304 bytes");
        }
        other => panic!("{other:?}"),
    }
    let authority = Authority::new();
    let edge = new_edge();
    let fits = READING.to_owned() + &" ".repeat((4 << 20) - READING.len());
    let agent = authority.agent(edge, edge, whole(200, fits)).await;
    let reading = authority.client().reading(&agent.endpoint).await.unwrap();
    assert_eq!(reading.utilization, None);
}

#[tokio::test]
async fn an_agent_is_believed_for_its_own_certificate_alone() {
    let authority = Authority::new();
    let (edge, other) = (new_edge(), new_edge());
    let reading = || whole(200, READING);
    let asked = authority.client();
    let right = authority.agent(edge, edge, reading()).await;
    asked.reading(&right.endpoint).await.unwrap();
    let wrong = authority.agent(edge, other, reading()).await;
    let error = asked.reading(&wrong.endpoint).await.unwrap_err();
    assert!(matches!(error.fault, AgentFault::Unreachable(_)), "{error}");
    assert!(wrong.requests.lock().unwrap().is_empty());
    // Without its own being known, too.
    let mut unknown = wrong.endpoint.clone();
    unknown.certificate = None;
    let error = asked.reading(&unknown).await.unwrap_err();
    assert!(matches!(error.fault, AgentFault::Unreachable(_)), "{error}");
    let stranger = Authority::new().agent(edge, edge, reading()).await;
    let error = asked.reading(&stranger.endpoint).await.unwrap_err();
    assert!(matches!(error.fault, AgentFault::Unreachable(_)), "{error}");
    assert!(wrong.requests.lock().unwrap().is_empty());
    assert!(stranger.requests.lock().unwrap().is_empty());
}

/// Of its name, too, but not the one that it has, or is being given.
#[tokio::test]
async fn an_agent_that_shows_an_older_certificate_is_asked_nothing() {
    let authority = Authority::new();
    let edge = new_edge();
    let agent = authority.agent(edge, edge, whole(200, READING)).await;
    let asked = authority.client();
    let shown = agent.endpoint.certificate;
    let another = Some(Fingerprint::of(b"another"));
    asked.reading(&agent.endpoint).await.unwrap();
    let found = asked.shown_certificate(&agent.endpoint).await.unwrap();
    assert_eq!(Some(found), shown);
    let of = |certificate, pending| Endpoint {
        certificate,
        pending,
        ..agent.endpoint.clone()
    };
    // Over the connection that is open as well.
    let seen = agent.requests.lock().unwrap().len();
    asked.reading(&of(another, None)).await.unwrap_err();
    asked
        .shown_certificate(&of(another, None))
        .await
        .unwrap_err();
    assert_eq!(agent.requests.lock().unwrap().len(), seen);
    for endpoint in [of(another, shown), of(shown, another)] {
        asked.reading(&endpoint).await.unwrap();
        let found = asked.shown_certificate(&endpoint).await.unwrap();
        assert_eq!(Some(found), shown);
    }
}

#[tokio::test]
async fn an_edge_where_nobody_listens_is_unreachable() {
    let asked = Authority::new().client();
    let listener = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    for address in [closed.as_str(), "nowhere", "127.0.0.1", "localhost:1"] {
        let endpoint = Endpoint {
            edge: new_edge(),
            name: "edge".to_owned(),
            address: address.to_owned(),
            certificate: None,
            pending: None,
        };
        let error = asked.reading(&endpoint).await.unwrap_err();
        assert!(matches!(error.fault, AgentFault::Unreachable(_)), "{error}");
        let told = error.to_string();
        let named = format!("asked edge `edge` ({address}) to read its utilization: no answer: ");
        assert!(told.starts_with(&named), "{told}");
    }
}

/// As the list at `carnet_api::agent` has it.
#[tokio::test]
async fn everything_is_asked_at_its_own_path() {
    let authority = Authority::new();
    let edge = new_edge();
    let agent = authority.agent(edge, edge, whole(200, "{}")).await;
    let (asked, at) = (authority.client(), &agent.endpoint);
    let order = Order {
        migration: MigrationId::from_uuid(Uuid::now_v7()),
        container: "web".to_owned(),
        generation: 7,
        source: edge,
        target: new_edge(),
        target_address: "127.0.0.1:1".to_owned(),
        statement: "signed".to_owned(),
    };
    let prepare = PrepareTarget {
        order: order.clone(),
        container: Described {
            description: json!({ "arch": "x86_64" }),
            memory_bytes: 1,
            rootfs_bytes: 2,
            post_copy_problems: Vec::new(),
            pre_copy_problems: Vec::new(),
            is_stopped: true,
            live_problems: vec!["no CRIU".to_owned()],
        },
    };
    // What `{}` answers is of no matter here.
    let _ = asked.facts(at).await;
    let _ = asked.reading(at).await;
    let _ = asked.containers(at).await;
    let _ = asked.claim(at, "web").await;
    asked.tell_signing_key(at, "PEM").await.unwrap();
    let _ = asked.certificate_request(at).await;
    asked.give_certificate(at, "PEM").await.unwrap();
    let _ = asked.refusals(at).await;
    asked.forget_refusals(at, 7).await.unwrap();
    let _ = asked.sent(at, order.migration).await;
    let _ = asked.prepare_source(at, &order).await;
    let _ = asked.prepare_target(at, &prepare).await;
    let copy_ahead = CopyAhead {
        order: order.clone(),
        strategy: Strategy::PreCopy,
        bandwidth_bytes_per_s: Some(40_000_000),
    };
    let _ = asked.copy_ahead(at, &copy_ahead).await;
    let hand_over = HandOver {
        order: order.clone(),
        strategy: Strategy::PostCopy,
        bandwidth_bytes_per_s: Some(40_000_000),
        within_ms: Some(420),
    };
    let _ = asked.hand_over(at, &hand_over).await;
    let _ = asked.restore(at, &order).await;
    let commands = BTreeMap::from([
        (Command::Settle, "target/settle"),
        (Command::Release, "source/release"),
        (Command::Clean, "target/clean"),
        (Command::Resume, "source/resume"),
        (Command::Discard, "target/discard"),
    ]);
    for &command in commands.keys() {
        asked.command(at, command, &order).await.unwrap();
    }
    let of = |path: &str| format!("POST /v1/handovers/{}/{path}", order.migration);
    let body = serde_json::to_value(&order).unwrap();
    let mut expected = vec![
        ("GET /v1/facts".to_owned(), Value::Null),
        ("GET /v1/reading".to_owned(), Value::Null),
        ("GET /v1/containers".to_owned(), Value::Null),
        ("GET /v1/containers/web/claim".to_owned(), Value::Null),
        (
            "PUT /v1/signing-key".to_owned(),
            json!({ "certificate": "PEM" }),
        ),
        ("POST /v1/certificate/request".to_owned(), Value::Null),
        (
            "PUT /v1/certificate".to_owned(),
            json!({ "certificate": "PEM" }),
        ),
        ("GET /v1/refusals".to_owned(), Value::Null),
        (
            "POST /v1/refusals/forget".to_owned(),
            json!({ "through": 7 }),
        ),
        (
            format!("GET /v1/handovers/{}/sent", order.migration),
            Value::Null,
        ),
        (of("source/prepare"), body.clone()),
        (
            of("target/prepare"),
            serde_json::to_value(&prepare).unwrap(),
        ),
        (
            of("source/copy-ahead"),
            json!({ "order": body, "strategy": "pre_copy", "bandwidth_bytes_per_s": 40_000_000 }),
        ),
        (
            of("source/hand-over"),
            json!({
                "order": body,
                "strategy": "post_copy",
                "bandwidth_bytes_per_s": 40_000_000,
                "within_ms": 420,
            }),
        ),
        (of("target/restore"), body.clone()),
    ];
    expected.extend(commands.values().map(|path| (of(path), body.clone())));
    assert_eq!(*agent.requests.lock().unwrap(), expected);
}
