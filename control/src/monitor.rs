//! The monitor (paper, section 4: Monitor Module): at an interval, whether every edge and every
//! container is alive, and how much of its CPU and memory each edge uses.
//!
//! An edge that does not answer once is unreachable: a state is what was last seen, and `since`
//! says for how long. Nothing is decided by it; an audit asks the edge itself.
//!
//! At each look it also tells every agent the key that statements are signed with, where it has
//! not been told, takes what agents have refused into the ledger, and asks agents what they find on
//! their machines: each when this process first meets it, and every hour.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carnet_api::agent::Refusals;
use carnet_api::v1::{ContainerState, HealthState};
use carnet_core::ids::EdgeId;
use carnet_core::permit::Fingerprint;
use futures_util::{StreamExt, stream};

use crate::agents::{Agents, Endpoint, read};
use crate::clock;
use crate::keys::PermitKey;
use crate::store::sightings::{EdgeSighting, Watched};
use crate::store::{Store, StoreError};
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many edges are asked at a time.
const AT_A_TIME: usize = 32;
/// How often an agent is asked what it finds on its machine.
const DETECT_AGAIN: Duration = Duration::from_secs(3600);

/// Looks after every edge, each `interval` and when `look_now` is notified, until dropped.
pub async fn watch(
    store: Store,
    agents: Arc<dyn Agents>,
    key: Arc<PermitKey>,
    interval: Duration,
    look_now: Arc<Notify>,
) {
    let mut told = Told::default();
    let mut detected = Detected::default();
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = look_now.notified() => interval.reset(),
        }
        let looked = async {
            tell(&store, &agents, &key, &mut told).await?;
            let answered = look(&store, &agents).await?;
            detect(&store, &agents, &mut detected, answered).await
        };
        if let Err(error) = looked.await {
            tracing::error!(%error, "the monitor cannot keep what it sees");
        }
    }
}

/// Which certificate of the signing key each agent was told last, by this process.
#[derive(Debug, Default)]
pub struct Told(HashMap<EdgeId, Fingerprint>);

/// Tells every agent the signing key that is in use, where its certificate is not in `told`.
///
/// # Errors
/// Where the store cannot be read.
pub async fn tell(
    store: &Store,
    agents: &Arc<dyn Agents>,
    key: &PermitKey,
    told: &mut Told,
) -> Result<(), StoreError> {
    let current = key.current();
    let id = Fingerprint::of(current.certificate.as_bytes());
    let untold: Vec<_> = store
        .enrolled_edges()
        .await?
        .into_iter()
        .filter(|edge| told.0.get(&edge.edge) != Some(&id))
        .collect();
    let asked = untold.into_iter().map(|edge| {
        let (agents, current) = (agents.clone(), current.clone());
        async move {
            let answer = agents.tell_signing_key(&edge, &current.certificate).await;
            (edge, answer)
        }
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_A_TIME);
    while let Some((edge, answer)) = answers.next().await {
        match answer {
            Ok(()) => {
                told.0.insert(edge.edge, id);
            }
            // At the next look again; before a move it is told in any case.
            Err(error) => tracing::debug!(%error, "an agent was not told the signing key"),
        }
    }
    Ok(())
}

/// When each agent has told what it finds on its machine, to this process.
#[derive(Debug, Default)]
pub struct Detected(HashMap<(EdgeId, Option<Fingerprint>), Instant>);

/// Asks those of `edges` what their agents find on their machines that have not told it within the
/// hour, or have another certificate since.
///
/// # Errors
/// Where the store cannot be written.
pub async fn detect(
    store: &Store,
    agents: &Arc<dyn Agents>,
    detected: &mut Detected,
    edges: Vec<Endpoint>,
) -> Result<(), StoreError> {
    let now = Instant::now();
    let is_due = |edge: &Endpoint| {
        let told = detected.0.get(&(edge.edge, edge.certificate));
        told.is_none_or(|told| now.duration_since(*told) >= DETECT_AGAIN)
    };
    let due: Vec<Endpoint> = edges.into_iter().filter(is_due).collect();
    let asked = due.into_iter().map(|edge| {
        let agents = agents.clone();
        async move {
            let answer = agents.facts(&edge).await;
            (edge, answer)
        }
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_A_TIME);
    while let Some((edge, answer)) = answers.next().await {
        match answer {
            Ok(facts) => {
                if store.set_detected(edge.edge, &facts.detected).await? {
                    tracing::info!(edge = edge.name, "an edge's machine has changed");
                }
                // One that was enrolled anew may be another machine.
                detected.0.retain(|(known, _), _| *known != edge.edge);
                detected.0.insert((edge.edge, edge.certificate), now);
            }
            // At the next look again.
            Err(error) => tracing::debug!(%error, "an agent did not tell what its machine is"),
        }
    }
    Ok(())
}

/// Looks once; returns the edges that answered.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn look(store: &Store, agents: &Arc<dyn Agents>) -> Result<Vec<Endpoint>, StoreError> {
    let began = Instant::now();
    let mut watched: HashMap<EdgeId, Vec<Watched>> = HashMap::new();
    for container in store.watched_containers().await? {
        watched.entry(container.edge).or_default().push(container);
    }
    let edges = store.enrolled_edges().await?.into_iter().map(|edge| {
        let containers = watched.remove(&edge.edge).unwrap_or_default();
        look_at(agents.clone(), edge, containers)
    });
    let mut answered = Vec::new();
    let mut seen = stream::iter(edges).buffer_unordered(AT_A_TIME);
    while let Some((edge, sighting, containers, refusals)) = seen.next().await {
        let now = clock::now();
        if store.see_edge(&sighting, now).await? {
            tracing::info!(edge = edge.name, health = ?sighting.health, problems = ?sighting.problems, "an edge's health has changed");
        }
        store.see_containers(&containers, now).await?;
        enter(store, agents, &edge, refusals).await?;
        if sighting.health != HealthState::Unreachable {
            answered.push(edge);
        }
    }
    let took_ms = i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX);
    store.monitor_looked(clock::now(), took_ms).await?;
    Ok(answered)
}

/// Takes refusals into the ledger, and then has the edge forget them. A crash in between: they
/// come again, and the store knows which it has.
async fn enter(
    store: &Store,
    agents: &Arc<dyn Agents>,
    edge: &Endpoint,
    refusals: Refusals,
) -> Result<(), StoreError> {
    if refusals == Refusals::default() {
        return Ok(());
    }
    store.enter_refusals(edge.edge, &refusals).await?;
    let Some(through) = refusals.refusals.iter().map(|refused| refused.number).max() else {
        return Ok(());
    };
    if let Err(error) = agents.forget_refusals(edge, through).await {
        tracing::debug!(%error, "an edge was not told that its refusals are in the ledger");
    }
    Ok(())
}

async fn look_at(
    agents: Arc<dyn Agents>,
    edge: Endpoint,
    watched: Vec<Watched>,
) -> (
    Endpoint,
    EdgeSighting,
    Vec<(Watched, ContainerState)>,
    Refusals,
) {
    let (reading, _) = read(agents.as_ref(), &edge, clock::now).await;
    let sighting = EdgeSighting::of(edge.edge, &reading);
    let (there, refusals) = match sighting.health {
        HealthState::Unreachable => (None, Refusals::default()),
        _ => {
            let (there, refusals) = tokio::join!(agents.containers(&edge), agents.refusals(&edge));
            // Those that are not told now are kept until they are.
            (there.ok(), refusals.unwrap_or_default())
        }
    };
    let containers = watched
        .into_iter()
        .map(|watched| {
            let state = match &there {
                None => ContainerState::Unknown,
                Some(there) => there
                    .iter()
                    .find(|container| container.name == watched.name)
                    .map_or(ContainerState::Missing, |container| container.state),
            };
            (watched, state)
        })
        .collect();
    (edge, sighting, containers, refusals)
}
