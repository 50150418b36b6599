//! The monitor (paper, section 4: Monitor Module): at an interval, whether every edge and every
//! container is alive, and how much of its CPU and memory each edge uses.
//!
//! An edge that does not answer once is unreachable: a state is what was last seen, and `since`
//! says for how long. Nothing is decided by it; an audit asks the edge itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use carnet_api::v1::{ContainerState, HealthState};
use carnet_core::ids::EdgeId;
use futures_util::{StreamExt, stream};

use crate::agents::{Agents, Endpoint, read};
use crate::clock;
use crate::store::sightings::{EdgeSighting, Watched};
use crate::store::{Store, StoreError};
use tokio::sync::Notify;

/// How many edges are asked at a time.
const AT_A_TIME: usize = 32;

/// Looks after every edge, each `interval` and when `look_now` is notified, until dropped.
pub async fn watch(
    store: Store,
    agents: Arc<dyn Agents>,
    interval: Duration,
    look_now: Arc<Notify>,
) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = look_now.notified() => interval.reset(),
        }
        if let Err(error) = look(&store, &agents).await {
            tracing::error!(%error, "the monitor cannot keep what it sees");
        }
    }
}

/// Looks once.
///
/// # Errors
/// Where the store cannot be read or written.
pub async fn look(store: &Store, agents: &Arc<dyn Agents>) -> Result<(), StoreError> {
    let mut watched: HashMap<EdgeId, Vec<Watched>> = HashMap::new();
    for container in store.watched_containers().await? {
        watched.entry(container.edge).or_default().push(container);
    }
    let edges = store.enrolled_edges().await?.into_iter().map(|edge| {
        let containers = watched.remove(&edge.edge).unwrap_or_default();
        look_at(agents.clone(), edge, containers)
    });
    let mut seen = stream::iter(edges).buffer_unordered(AT_A_TIME);
    while let Some((edge, sighting, containers)) = seen.next().await {
        let now = clock::now();
        if store.see_edge(&sighting, now).await? {
            tracing::info!(edge = edge.name, health = ?sighting.health, problems = ?sighting.problems, "an edge's health has changed");
        }
        store.see_containers(&containers, now).await?;
    }
    Ok(())
}

async fn look_at(
    agents: Arc<dyn Agents>,
    edge: Endpoint,
    watched: Vec<Watched>,
) -> (Endpoint, EdgeSighting, Vec<(Watched, ContainerState)>) {
    let (reading, _) = read(agents.as_ref(), &edge, clock::now).await;
    let sighting = EdgeSighting::of(edge.edge, &reading);
    let there = match sighting.health {
        HealthState::Unreachable => None,
        _ => agents.containers(&edge).await.ok(),
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
    (edge, sighting, containers)
}
