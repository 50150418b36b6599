//! A control plane that does all as it should, and the ledger that it keeps.

use std::collections::BTreeMap;

use carnet_core::ids::{AccountId, ContainerId, EdgeId, MigrationId, ShareKeyId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{
    Actor, Certificate, Decision, Entry, Event, Grant, GrantChange, Policed,
};
use carnet_core::migration::{Candidate, Phase, Subject};
use carnet_core::permit::{Claim, Fingerprint, Party, Permit, Policy, Signer};
use carnet_core::policy::{
    Utilization, Verdict, attributes_from_compact, audit, requirements_from_compact,
};
use uuid::Uuid;

pub const REQUIREMENTS: [&str; 3] = [
    "jp,us,fr -caB * lxc 60 50 1.6 4 * * *",
    "jp * * lxc * * * * * * *",
    "* * * * 90 90 * * * * *",
];
pub const ATTRIBUTES: [&str; 4] = [
    "A jp caA deA lxc 2.6 8 - - -",
    "B de caA deB lxc 2.6 8 - - -",
    "C us caB deD lxc 2.6 8 - - -",
    "D jp caE deG lxc 2.6 8 - - -",
];
const MAX_AGE_MS: u64 = 10_000;
const EDGES: u128 = 4;
const CONTAINERS: u128 = 3;

pub fn edge(number: u128) -> EdgeId {
    EdgeId::from_uuid(Uuid::from_u128(100 + number))
}

pub fn container(number: u128) -> ContainerId {
    ContainerId::from_uuid(Uuid::from_u128(200 + number))
}

pub fn owner() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(1))
}

/// One thing that somebody does, by choices taken modulo what there is.
#[derive(Debug, Clone, Copy)]
pub enum Deed {
    Move { container: u8, to: u8, fails: u8 },
    DryRun { container: u8, to: u8 },
    Require { container: u8, requirements: u8 },
    Describe { edge: u8, attributes: u8 },
    RevokeGrant { edge: u8 },
    Renew { edge: u8 },
    RotateKey,
}

struct KnownEdge {
    attributes: &'static str,
    revision: u64,
    certificate: Fingerprint,
    share_key: ShareKeyId,
}

struct KnownContainer {
    requirements: &'static str,
    revision: u64,
    place: u128,
    generation: u64,
}

pub struct History {
    pub entries: Vec<Entry>,
    now: i64,
    numbers: u128,
    key: u8,
    edges: BTreeMap<u128, KnownEdge>,
    containers: BTreeMap<u128, KnownContainer>,
}

impl History {
    /// Edges and containers are registered, shared and confirmed.
    pub fn begin() -> Self {
        let mut history = Self {
            entries: Vec::new(),
            now: 1_800_000_000_000,
            numbers: 1_000,
            key: 1,
            edges: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        history.announce_key();
        history.put(Event::Account {
            account: owner(),
            roles: vec!["edge_owner".to_owned(), "container_owner".to_owned()],
        });
        for number in 0..EDGES {
            let share_key = ShareKeyId::from_uuid(history.uuid());
            history.edges.insert(
                number,
                KnownEdge {
                    attributes: ATTRIBUTES[number as usize],
                    revision: 0,
                    certificate: Fingerprint::of(b""),
                    share_key,
                },
            );
            history.describe(number, ATTRIBUTES[number as usize]);
            history.renew(number);
            history.grant(number, GrantChange::Given);
            history.grant(number, GrantChange::Redeemed);
        }
        for number in 0..CONTAINERS {
            history.containers.insert(
                number,
                KnownContainer {
                    requirements: REQUIREMENTS[number as usize],
                    revision: 0,
                    place: 0,
                    generation: 1,
                },
            );
            history.require(number, REQUIREMENTS[number as usize]);
            history.put(Event::Confirmed {
                container: container(number),
                edge: edge(0),
                generation: 1,
            });
        }
        history
    }

    pub fn of(deeds: &[Deed]) -> Self {
        let mut history = Self::begin();
        for deed in deeds {
            history.now += 1_000;
            match *deed {
                Deed::Move {
                    container,
                    to,
                    fails,
                } => history.go(
                    u128::from(container) % CONTAINERS,
                    u128::from(to) % EDGES,
                    fails,
                ),
                Deed::DryRun { container, to } => {
                    let decision = history.decide(
                        u128::from(container) % CONTAINERS,
                        u128::from(to) % EDGES,
                        None,
                    );
                    history.put(Event::Decision(Box::new(decision)));
                }
                Deed::Require {
                    container,
                    requirements,
                } => history.require(
                    u128::from(container) % CONTAINERS,
                    REQUIREMENTS[requirements as usize % REQUIREMENTS.len()],
                ),
                Deed::Describe { edge, attributes } => history.describe(
                    u128::from(edge) % EDGES,
                    ATTRIBUTES[attributes as usize % ATTRIBUTES.len()],
                ),
                Deed::RevokeGrant { edge } => {
                    let number = u128::from(edge) % EDGES;
                    history.grant(number, GrantChange::Revoked);
                    let share_key = ShareKeyId::from_uuid(history.uuid());
                    history.edges.get_mut(&number).unwrap().share_key = share_key;
                    history.grant(number, GrantChange::Given);
                    history.grant(number, GrantChange::Redeemed);
                }
                Deed::Renew { edge } => history.renew(u128::from(edge) % EDGES),
                Deed::RotateKey => {
                    history.key += 1;
                    history.announce_key();
                }
            }
        }
        history
    }

    fn uuid(&mut self) -> Uuid {
        self.numbers += 1;
        Uuid::from_u128(self.numbers)
    }

    fn put(&mut self, event: Event) {
        self.entries.push(Entry {
            at_ms: UnixMillis(self.now),
            by: Actor::Control,
            event,
        });
    }

    fn signer(&self) -> Signer {
        Signer::new(&[self.key; 32])
    }

    fn announce_key(&mut self) {
        let public = hex::encode(self.signer().public().as_bytes());
        self.put(Event::Key {
            purpose: "permit".to_owned(),
            public,
        });
    }

    fn describe(&mut self, number: u128, row: &'static str) {
        let known = self.edges.get_mut(&number).unwrap();
        known.attributes = row;
        known.revision += 1;
        let revision = known.revision;
        self.put(Event::Attributes {
            edge: edge(number),
            owner: owner(),
            attributes: Policed {
                revision,
                policy: attributes_from_compact(row).unwrap().to_json(),
            },
        });
    }

    fn renew(&mut self, number: u128) {
        let certificate = Fingerprint::of(self.uuid().as_bytes());
        self.edges.get_mut(&number).unwrap().certificate = certificate;
        self.put(Event::Certificate(Certificate {
            edge: edge(number),
            certificate,
        }));
    }

    fn grant(&mut self, number: u128, change: GrantChange) {
        let share_key = self.edges[&number].share_key;
        self.put(Event::Grant(Grant {
            share_key,
            edge: edge(number),
            grantee: owner(),
            change,
        }));
    }

    fn require(&mut self, number: u128, row: &'static str) {
        let known = self.containers.get_mut(&number).unwrap();
        known.requirements = row;
        known.revision += 1;
        let revision = known.revision;
        self.put(Event::Requirements {
            container: container(number),
            owner: owner(),
            requirements: Policed {
                revision,
                policy: requirements_from_compact(row).unwrap().to_json(),
            },
        });
    }

    fn decide(&self, number: u128, to: u128, migration: Option<MigrationId>) -> Decision {
        let (moving, target) = (&self.containers[&number], &self.edges[&to]);
        let requirements = requirements_from_compact(moving.requirements).unwrap();
        let attributes = attributes_from_compact(target.attributes).unwrap();
        let now = UnixMillis(self.now);
        // Busy every now and then.
        let cpu = (self.now / 1_000 % 100) as u16 * 100;
        let utilization = Utilization::new(cpu, 3_000, now);
        let subject = Subject {
            container: container(number),
            generation: moving.generation,
            source: edge(moving.place),
            requirements: &requirements,
            requirements_revision: moving.revision,
        };
        let candidate = Candidate {
            edge: edge(to),
            attributes: &attributes,
            attributes_revision: target.revision,
            utilization: utilization.as_ref(),
        };
        let verdict = audit(
            &requirements,
            &attributes,
            utilization.as_ref(),
            now,
            MAX_AGE_MS,
        );
        let mut decision = Decision::of(&subject, &candidate, now, MAX_AGE_MS, verdict);
        decision.dry_run = migration.is_none();
        decision.migration = migration;
        decision
    }

    fn party(&self, number: u128) -> Party {
        Party {
            edge: edge(number),
            certificate: self.edges[&number].certificate,
        }
    }

    fn phase(&mut self, migration: MigrationId, number: u128, phase: Phase, committed: bool) {
        let known = &self.containers[&number];
        let (place, generation) = (known.place, known.generation);
        self.put(Event::Migration {
            migration,
            container: container(number),
            phase,
            generation: committed.then_some(generation),
            edge: edge(place),
            cause: None,
        });
    }

    /// A move; `fails` chooses where it does, if it does.
    fn go(&mut self, number: u128, to: u128, fails: u8) {
        let from = self.containers[&number].place;
        if from == to {
            return;
        }
        let migration = MigrationId::from_uuid(self.uuid());
        self.phase(migration, number, Phase::Admitting, false);
        let decision = self.decide(number, to, Some(migration));
        let decided = self.entries.len() as u64;
        let permitted = decision.verdict == Verdict::Permit;
        let (requirements, attributes) = (
            Policy::of(
                decision.requirements.revision,
                &decision.requirements.policy,
            ),
            Policy::of(decision.attributes.revision, &decision.attributes.policy),
        );
        let utilization = decision.utilization;
        self.put(Event::Decision(Box::new(decision)));
        if !permitted {
            self.phase(migration, number, Phase::Denied, false);
            return;
        }
        let permit = Permit {
            claim: Claim {
                iss: Claim::issuer(),
                jti: migration.to_string(),
                iat: self.now / 1_000,
                sub: container(number),
                name: format!("App{number}"),
                migration,
                generation: self.containers[&number].generation,
                source: self.party(from),
                target: self.party(to),
            },
            exp: self.now / 1_000 + 300,
            requirements,
            attributes,
            utilization,
            decision: decided,
        };
        let permit = self.signer().sign(&permit).unwrap();
        self.put(Event::Permit { migration, permit });
        let ahead = [
            Phase::Preparing,
            Phase::CopyingAhead,
            Phase::HandingOver,
            Phase::Committing,
        ];
        let reached = usize::from(fails % 8);
        let cancelled = fails / 8 % 2 == 1 && reached < ahead.len();
        for phase in ahead.iter().take(reached.max(1)) {
            self.phase(migration, number, *phase, true);
        }
        if reached >= ahead.len() {
            let known = self.containers.get_mut(&number).unwrap();
            (known.place, known.generation) = (to, known.generation + 1);
            self.phase(migration, number, Phase::Restoring, true);
            // Its memory may have been lost on its way, after it ran.
            let has_run = reached > ahead.len();
            if has_run {
                self.phase(migration, number, Phase::Settling, true);
            }
            if reached > ahead.len() + 1 {
                self.phase(migration, number, Phase::Releasing, true);
                self.phase(migration, number, Phase::Completed, true);
                return;
            }
            self.phase(migration, number, Phase::WithdrawingTarget, true);
            self.phase(migration, number, Phase::TakingBack, true);
            let known = self.containers.get_mut(&number).unwrap();
            (known.place, known.generation) = (from, known.generation + 1);
        }
        if cancelled {
            self.put(Event::Cancel {
                migration,
                container: container(number),
            });
        }
        self.phase(migration, number, Phase::ResumingSource, true);
        self.phase(migration, number, Phase::DiscardingTarget, true);
        let end = if cancelled {
            Phase::Cancelled
        } else {
            Phase::Failed
        };
        self.phase(migration, number, end, false);
    }
}
