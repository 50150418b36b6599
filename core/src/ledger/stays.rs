//! Where containers have been, when, and under which policy: what a ledger tells an auditor.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry::{Entry, Event, Policed};
use crate::ids::{ContainerId, EdgeId, MigrationId};
use crate::instant::UnixMillis;
use crate::migration::Phase;

/// A time during which a container was on one edge, and neither its requirements nor the edge's
/// attributes changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Stay {
    pub container: ContainerId,
    pub edge: EdgeId,
    pub generation: u64,
    pub since: UnixMillis,
    /// Absent while it lasts.
    pub until: Option<UnixMillis>,
    pub requirements: Policed,
    pub attributes: Policed,
    /// The move that brought it there; absent where it was there when it was registered.
    pub migration: Option<MigrationId>,
    /// The number of the decision that permitted that move.
    pub decision: Option<u64>,
}

impl Stay {
    /// The country that the edge's owner declared.
    pub fn country(&self) -> Option<&str> {
        self.attributes.policy.get("location")?.as_str()
    }
}

/// Reads entries from the first on, and tells where containers have been.
#[derive(Debug, Default)]
pub struct Stays {
    requirements: BTreeMap<ContainerId, Policed>,
    attributes: BTreeMap<EdgeId, Policed>,
    /// The last decision of each move that permitted it.
    permitted: BTreeMap<MigrationId, u64>,
    phases: BTreeMap<MigrationId, Phase>,
    present: BTreeMap<ContainerId, Stay>,
    past: Vec<Stay>,
}

impl Stays {
    /// Takes the entry with the number `number`.
    pub fn take(&mut self, number: u64, entry: &Entry) {
        let at = entry.at_ms;
        match &entry.event {
            Event::Requirements {
                container,
                requirements,
                ..
            } => {
                self.requirements.insert(*container, requirements.clone());
                if let Some(stay) = self.present.get(container) {
                    let next = Stay {
                        requirements: requirements.clone(),
                        since: at,
                        ..stay.clone()
                    };
                    self.begin(next);
                }
            }
            Event::Attributes {
                edge, attributes, ..
            } => {
                self.attributes.insert(*edge, attributes.clone());
                let there: Vec<Stay> = self
                    .present
                    .values()
                    .filter(|stay| stay.edge == *edge)
                    .cloned()
                    .collect();
                for stay in there {
                    self.begin(Stay {
                        attributes: attributes.clone(),
                        since: at,
                        ..stay
                    });
                }
            }
            Event::Confirmed {
                container,
                edge,
                generation,
            } => self.arrive(*container, *edge, *generation, at, None),
            Event::Decision(decision) => {
                if let (Some(migration), false, true) =
                    (decision.migration, decision.dry_run, decision.ready)
                {
                    self.permitted.insert(migration, number);
                }
            }
            Event::Migration {
                migration,
                container,
                phase,
                generation,
                edge,
                ..
            } => {
                let before = self.phases.insert(*migration, *phase);
                let moved = matches!(
                    (before, phase),
                    (Some(Phase::Committing), Phase::Restoring)
                        | (Some(Phase::TakingBack), Phase::ResumingSource)
                );
                if let (true, Some(generation)) = (moved, generation) {
                    self.arrive(*container, *edge, *generation, at, Some(*migration));
                }
            }
            Event::Forgotten { container } => {
                if let Some(mut stay) = self.present.remove(container) {
                    stay.until = Some(at);
                    self.past.push(stay);
                }
            }
            _ => {}
        }
    }

    fn arrive(
        &mut self,
        container: ContainerId,
        edge: EdgeId,
        generation: u64,
        since: UnixMillis,
        migration: Option<MigrationId>,
    ) {
        let nothing = || Policed {
            revision: 0,
            policy: Value::Null,
        };
        self.begin(Stay {
            container,
            edge,
            generation,
            since,
            until: None,
            requirements: self
                .requirements
                .get(&container)
                .cloned()
                .unwrap_or_else(nothing),
            attributes: self.attributes.get(&edge).cloned().unwrap_or_else(nothing),
            migration,
            decision: migration.and_then(|id| self.permitted.get(&id).copied()),
        });
    }

    fn begin(&mut self, stay: Stay) {
        let since = stay.since;
        if let Some(mut before) = self.present.insert(stay.container, stay) {
            before.until = Some(since);
            self.past.push(before);
        }
    }

    /// Every stay, in the order in which they began.
    pub fn into_stays(self) -> Vec<Stay> {
        let mut stays = self.past;
        stays.extend(self.present.into_values());
        stays.sort_by_key(|stay| (stay.since, stay.container, stay.generation));
        stays
    }
}
