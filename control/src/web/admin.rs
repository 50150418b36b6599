use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use carnet_api::v1::{AgentsPart, CertificateOf, MonitorPart, Parts, SigningKey, Witness};
use carnet_core::instant::UnixMillis;

use super::access::Visitor;
use super::fields::Fields;
use super::page::{Frame, page, shown};
use super::words::{Sign, ago, bytes, lasting, milliseconds, utc};
use crate::authority::is_due;
use crate::clock;
use crate::http::App;
use crate::http::problem::ApiError;
use crate::http::{keys, parts};

/// A part of Carnet.
struct PartRow {
    part: &'static str,
    state: Sign,
    /// What is known of it besides.
    says: String,
}

/// When a certificate expires.
struct CertificateRow {
    of: String,
    state: Sign,
    expires: String,
}

/// A key that the control plane signs with, or did.
struct KeyRow {
    purpose: String,
    kid: String,
    state: Sign,
    since: String,
    until: String,
    entry: u64,
}

#[derive(Template)]
#[template(path = "admin.html")]
struct AdminPage {
    frame: Frame,
    parts: Vec<PartRow>,
    certificates: Vec<CertificateRow>,
    keys: Vec<KeyRow>,
    problem: Option<String>,
}

fn monitor(monitor: &MonitorPart, now: UnixMillis) -> PartRow {
    let (state, says) = match (monitor.looked_at_ms, monitor.took_ms) {
        (Some(at), Some(took)) => (
            Sign::new("good", "looks after the edges"),
            format!(
                "last looked {}, which took {}",
                ago(at, now),
                milliseconds(took as f64)
            ),
        ),
        _ => (
            Sign::new("none", "has not looked yet"),
            "it looks at every edge in turn".to_owned(),
        ),
    };
    PartRow {
        part: "Monitor",
        state,
        says,
    }
}

fn agents(agents: &AgentsPart) -> PartRow {
    let state = match agents {
        agents if agents.unreachable > 0 => Sign::new("bad", "some are unreachable"),
        agents if agents.degraded > 0 => Sign::new("warn", "some are degraded"),
        agents if agents.healthy > 0 => Sign::new("good", "healthy"),
        _ => Sign::new("none", "none has been seen"),
    };
    PartRow {
        part: "Agents",
        state,
        says: format!(
            "{} healthy, {} degraded, {} unreachable, {} not looked at yet, {} not enrolled",
            agents.healthy,
            agents.degraded,
            agents.unreachable,
            agents.unknown,
            agents.not_enrolled
        ),
    }
}

fn witnesses(witnesses: &[Witness], entries: u64) -> PartRow {
    let problems: Vec<String> = witnesses
        .iter()
        .filter_map(|witness| Some(format!("{}: {}", witness.name, witness.problem.as_ref()?)))
        .collect();
    let (state, says) = if witnesses.is_empty() {
        let says = "the ledger has none; they are named to carnet serve by --witness";
        (Sign::new("none", "none"), says.to_owned())
    } else if problems.is_empty() {
        let told: Vec<String> = witnesses
            .iter()
            .map(|one| {
                format!(
                    "{} has cosigned {} of {entries} entries",
                    one.name, one.cosigned_size
                )
            })
            .collect();
        (Sign::new("good", "cosigning"), told.join("; "))
    } else {
        (Sign::new("bad", "not cosigning"), problems.join("; "))
    };
    PartRow {
        part: "Witnesses",
        state,
        says,
    }
}

fn rows(all: &Parts, now: UnixMillis) -> Vec<PartRow> {
    let moves = &all.migrations;
    vec![
        PartRow {
            part: "Store",
            state: Sign::new("good", "answers"),
            says: format!(
                "{}, {} entries in the ledger",
                bytes(all.store.bytes),
                all.store.ledger_entries
            ),
        },
        monitor(&all.monitor, now),
        agents(&all.agents),
        PartRow {
            part: "Migrations",
            state: if moves.need_operator > 0 {
                Sign::new("bad", "some need you")
            } else if moves.under_way > 0 {
                Sign::new("good", "under way")
            } else {
                Sign::new("good", "none is under way")
            },
            says: format!(
                "{} under way, {} of them cannot go on without an administrator",
                moves.under_way, moves.need_operator
            ),
        },
        witnesses(&all.witnesses, all.store.ledger_entries),
    ]
}

fn certificates(all: &Parts, now: UnixMillis) -> Vec<CertificateRow> {
    all.certificates
        .iter()
        .map(|certificate| {
            let expires_at = certificate.expires_at_ms;
            CertificateRow {
                of: match certificate.of {
                    CertificateOf::ControlPlane => "The control plane's own".to_owned(),
                    CertificateOf::PermitKey => "The key for permits".to_owned(),
                    CertificateOf::Edge => {
                        let name = certificate.edge_name.as_deref().unwrap_or_default();
                        format!("Edge {name}")
                    }
                },
                state: if expires_at <= now {
                    Sign::new("bad", "expired")
                } else if is_due(expires_at, now) {
                    Sign::new("warn", "being renewed")
                } else {
                    Sign::new("good", "good")
                },
                expires: if expires_at <= now {
                    utc(expires_at)
                } else {
                    format!("{}, in {}", utc(expires_at), lasting(now, expires_at))
                },
            }
        })
        .collect()
}

fn key(key: SigningKey) -> KeyRow {
    KeyRow {
        purpose: key.purpose,
        kid: key.kid,
        state: match key.until_at_ms {
            None => Sign::new("good", "in use"),
            Some(_) => Sign::new("none", "replaced"),
        },
        since: utc(key.since_at_ms),
        until: key.until_at_ms.map_or_else(|| "–".to_owned(), utc),
        entry: key.entry,
    }
}

async fn admin_page(app: &App, visitor: &Visitor) -> Result<AdminPage, ApiError> {
    let (all, now) = (parts::all(app).await?, clock::now());
    Ok(AdminPage {
        frame: Frame::of(visitor),
        parts: rows(&all, now),
        certificates: certificates(&all, now),
        keys: keys::all(app).await?.into_iter().map(key).collect(),
        problem: None,
    })
}

pub(super) async fn show(State(app): State<App>, visitor: Visitor) -> Result<Response, ApiError> {
    shown(&admin_page(&app, &visitor).await?)
}

/// Replaces the key for permits, where that is confirmed.
pub(super) async fn rotate_key(
    State(app): State<App>,
    visitor: Visitor,
    typed: Fields,
) -> Result<Response, ApiError> {
    let done = if typed.text("confirm") == "yes" {
        keys::replace_permit_key(&app).await
    } else {
        Err(ApiError::refused_input(
            "tick the box to confirm that the key for permits is to be replaced",
        ))
    };
    match done {
        Ok(()) => Ok(Redirect::to("/admin").into_response()),
        Err(error) if matches!(error.0.status, 409 | 422) => {
            let mut again = admin_page(&app, &visitor).await?;
            let status = error.status();
            again.problem = error.0.detail;
            page(status, &again)
        }
        Err(error) => Err(error),
    }
}
