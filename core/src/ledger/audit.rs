use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use serde_json::Value;
use thiserror::Error;

use super::entry::{Decision, Entry, Event, Grant, GrantChange, Policed};
use crate::ids::{AccountId, ContainerId, EdgeId, MigrationId, ShareKeyId};
use crate::instant::UnixMillis;
use crate::migration::Phase;
use crate::permit::{Fingerprint, Part, Permit, Policy, Unverified};
use crate::policy::Verdict;

/// An entry that does not follow from those before it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("entry {number}: {problem}")]
pub struct Wrong {
    /// Its number, from 0.
    pub number: u64,
    pub problem: String,
}

/// Reads a ledger's entries from the first on, and says what is wrong with each: a decision that
/// comes out otherwise when it is made again, a permit without its decision, a move without its
/// permit, a revision or generation that was skipped.
///
/// That the entries are those of the ledger is the tree's to show, not this one's.
#[derive(Debug, Default)]
pub struct Auditor {
    next: u64,
    last_at: Option<UnixMillis>,
    keys: BTreeMap<String, String>,
    accounts: BTreeSet<AccountId>,
    edges: BTreeMap<EdgeId, Edge>,
    containers: BTreeMap<ContainerId, Container>,
    /// Share keys that have been entered, and not taken back.
    grants: BTreeMap<(EdgeId, AccountId), BTreeSet<ShareKeyId>>,
    /// Decisions that permit a move, until a permit is made of them.
    permitted: BTreeMap<u64, Permitted>,
    migrations: BTreeMap<MigrationId, Migration>,
}

#[derive(Debug)]
struct Edge {
    attributes: Policed,
    /// By revision, this one included: a decision may be entered after the policy has changed.
    declared: BTreeMap<u64, Value>,
    certificate: Option<Fingerprint>,
    revoked: bool,
}

#[derive(Debug)]
struct Container {
    owner: AccountId,
    requirements: Policed,
    /// As an edge's `declared`.
    required: BTreeMap<u64, Value>,
    /// Where it is, at which generation; absent until that has been shown.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    edge: EdgeId,
    generation: u64,
}

#[derive(Debug)]
struct Permitted {
    migration: MigrationId,
    container: ContainerId,
    generation: u64,
    source: EdgeId,
    candidate: EdgeId,
    requirements: Policy,
    attributes: Policy,
}

#[derive(Debug)]
struct Migration {
    container: ContainerId,
    phase: Phase,
    permit: Option<Permit>,
    /// Somebody wanted it to stop before its commit.
    cancelled: bool,
    /// An operator has declared its target lost.
    target_lost: bool,
}

type Checked = Result<(), String>;

fn ensure(holds: bool, problem: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(problem()) }
}

impl Auditor {
    /// Takes the next entry, as it is kept.
    ///
    /// # Errors
    /// What is wrong with it. What it says is taken as it stands all the same, as far as it can
    /// be, so that one wrong entry does not make all the later ones look wrong.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let number = self.next;
        self.next += 1;
        Entry::from_bytes(bytes)
            .map_err(|error| format!("it is not an entry of a ledger: {error}"))
            .and_then(|entry| {
                let in_time = self.in_time(&entry);
                let checked = self.check(number, &entry.event);
                in_time.and(checked)
            })
            .map_err(|problem| Wrong { number, problem })
    }

    /// How many entries were taken.
    pub fn taken(&self) -> u64 {
        self.next
    }

    /// The public key that `purpose` (`permit`, `ledger`) has now, in hexadecimal digits.
    pub fn key(&self, purpose: &str) -> Option<&str> {
        self.keys.get(purpose).map(String::as_str)
    }

    fn in_time(&mut self, entry: &Entry) -> Checked {
        let last = self.last_at.replace(entry.at_ms);
        ensure(last.is_none_or(|last| last <= entry.at_ms), || {
            "it is dated before the entry in front of it".to_owned()
        })
    }

    fn check(&mut self, number: u64, event: &Event) -> Checked {
        match event {
            Event::Decision(decision) => self.decision(number, decision),
            Event::Permit { migration, permit } => self.permit(number, *migration, permit),
            Event::Migration {
                migration,
                container,
                phase,
                generation,
                edge,
                ..
            } => self.migration(*migration, *container, *phase, *generation, *edge),
            Event::Cancel {
                migration,
                container,
            } => self.cancel(*migration, *container),
            Event::Lost {
                migration,
                container,
                edge,
                part,
            } => self.lost(*migration, *container, *edge, *part),
            Event::Refusal(refusal) => self.knows_edge(refusal.edge),
            Event::RefusalsDropped { edge, .. } => self.knows_edge(*edge),
            Event::Account { account, .. } => ensure(self.accounts.insert(*account), || {
                format!("account {account} was made before")
            }),
            Event::Token { account, .. }
            | Event::TokenRevoked { account, .. }
            | Event::Password { account } => self.knows_account(*account),
            Event::Attributes {
                edge,
                owner,
                attributes,
            } => self.attributes(*edge, *owner, attributes),
            Event::Certificate(certificate) => {
                let known = self.knows_edge(certificate.edge);
                if let Some(edge) = self.edges.get_mut(&certificate.edge) {
                    edge.certificate = Some(certificate.certificate);
                    edge.revoked = false;
                }
                known
            }
            Event::EdgeRevoked { edge } => {
                let known = self.knows_edge(*edge);
                if let Some(edge) = self.edges.get_mut(edge) {
                    edge.revoked = true;
                    edge.certificate = None;
                }
                known
            }
            Event::Requirements {
                container,
                owner,
                requirements,
            } => self.requirements(*container, *owner, requirements),
            Event::Confirmed {
                container,
                edge,
                generation,
            } => {
                let place = Place {
                    edge: *edge,
                    generation: *generation,
                };
                let known = self.knows_edge(*edge);
                let container = self
                    .containers
                    .get_mut(container)
                    .ok_or_else(|| format!("container {container} was never registered"))?;
                let before = container.place.replace(place);
                known.and(ensure(before.is_none_or(|before| before == place), || {
                    "the container has been confirmed elsewhere before".to_owned()
                }))
            }
            Event::Allowed { container, .. } => {
                ensure(self.containers.contains_key(container), || {
                    format!("container {container} was not registered")
                })
            }
            Event::Forgotten { container } => {
                ensure(self.containers.remove(container).is_some(), || {
                    format!("container {container} was not registered")
                })
            }
            Event::Grant(grant) => self.grant(grant),
            Event::Key { purpose, public } => {
                let readable = parse_key(public);
                self.keys.insert(purpose.clone(), public.clone());
                readable.map(drop)
            }
        }
    }

    fn knows_edge(&self, edge: EdgeId) -> Checked {
        ensure(self.edges.contains_key(&edge), || {
            format!("edge {edge} was never registered")
        })
    }

    fn knows_account(&self, account: AccountId) -> Checked {
        ensure(self.accounts.contains(&account), || {
            format!("account {account} was never made")
        })
    }

    fn attributes(&mut self, id: EdgeId, owner: AccountId, attributes: &Policed) -> Checked {
        let known = self.knows_account(owner);
        let expected = self
            .edges
            .get(&id)
            .map_or(1, |edge| edge.attributes.revision + 1);
        let edge = self.edges.entry(id).or_insert_with(|| Edge {
            attributes: attributes.clone(),
            declared: BTreeMap::new(),
            certificate: None,
            revoked: false,
        });
        edge.declared
            .insert(attributes.revision, attributes.policy.clone());
        edge.attributes = attributes.clone();
        known.and(is_next(attributes.revision, expected))
    }

    fn requirements(
        &mut self,
        id: ContainerId,
        owner: AccountId,
        requirements: &Policed,
    ) -> Checked {
        let known = self.knows_account(owner);
        let before = self.containers.get(&id);
        let expected = before.map_or(1, |container| container.requirements.revision + 1);
        let same_owner = ensure(
            before.is_none_or(|container| container.owner == owner),
            || format!("container {id} has another owner"),
        );
        let container = self.containers.entry(id).or_insert_with(|| Container {
            owner,
            requirements: requirements.clone(),
            required: BTreeMap::new(),
            place: None,
        });
        container
            .required
            .insert(requirements.revision, requirements.policy.clone());
        container.requirements = requirements.clone();
        known
            .and(same_owner)
            .and(is_next(requirements.revision, expected))
    }

    fn grant(&mut self, grant: &Grant) -> Checked {
        let known = self
            .knows_edge(grant.edge)
            .and(self.knows_account(grant.grantee));
        let held = self.grants.entry((grant.edge, grant.grantee)).or_default();
        match grant.change {
            GrantChange::Given => {}
            GrantChange::Redeemed => {
                held.insert(grant.share_key);
            }
            GrantChange::Revoked => {
                held.remove(&grant.share_key);
            }
        }
        known
    }

    fn may_use(&self, owner: AccountId, edge: EdgeId) -> bool {
        self.grants
            .get(&(edge, owner))
            .is_some_and(|keys| !keys.is_empty())
    }

    /// The policies and the place that it was made with are those that the ledger knows, and it
    /// comes out the same when it is made again.
    fn decision(&mut self, number: u64, decision: &Decision) -> Checked {
        let container = self
            .containers
            .get(&decision.container)
            .ok_or_else(|| format!("container {} was never registered", decision.container))?;
        let edge = self
            .edges
            .get(&decision.candidate)
            .ok_or_else(|| format!("edge {} was never registered", decision.candidate))?;
        let (required, declared) = (&decision.requirements, &decision.attributes);
        ensure(
            container.required.get(&required.revision) == Some(&required.policy),
            || "its requirements are not those that the container's owner had set".to_owned(),
        )?;
        ensure(
            edge.declared.get(&declared.revision) == Some(&declared.policy),
            || "its attributes are not those that the edge's owner had declared".to_owned(),
        )?;
        let again = decision
            .replay()
            .map_err(|faults| format!("its policies cannot be read: {faults}"))?;
        ensure(again == decision.verdict, || {
            format!(
                "it says {}, and made again it is {}",
                words(&decision.verdict),
                words(&again)
            )
        })?;
        if decision.verdict != Verdict::Permit || decision.dry_run || !decision.ready {
            return Ok(());
        }
        let migration = decision
            .migration
            .ok_or("it permits a move, and names none")?;
        ensure(self.may_use(container.owner, decision.candidate), || {
            "the container's owner held no share key of that edge".to_owned()
        })?;
        let place = Place {
            edge: decision.source,
            generation: decision.generation,
        };
        ensure(container.place == Some(place), || {
            format!("the container was not on {} then", decision.source)
        })?;
        self.permitted.insert(
            number,
            Permitted {
                migration,
                container: decision.container,
                generation: decision.generation,
                source: decision.source,
                candidate: decision.candidate,
                requirements: policy_of(&decision.requirements),
                attributes: policy_of(&decision.attributes),
            },
        );
        Ok(())
    }

    /// The permit is the control plane's, and says what its decision says; one decision gives one
    /// permit.
    fn permit(&mut self, number: u64, migration: MigrationId, token: &str) -> Checked {
        let key = parse_key(
            self.keys
                .get("permit")
                .ok_or("no key for permits was in use")?,
        )?;
        let permit: Permit = Unverified::parse(token)
            .and_then(|unverified| unverified.verify_with(&key))
            .map_err(|fault| format!("the permit is refused: {fault}"))?;
        let claim = &permit.claim;
        let decided = self.permitted.remove(&permit.decision).ok_or_else(|| {
            format!(
                "entry {} is no decision that permits, or its permit was made before",
                permit.decision
            )
        })?;
        let same = permit.decision < number
            && claim.migration == migration
            && decided.migration == migration
            && decided.container == claim.sub
            && decided.generation == claim.generation
            && decided.source == claim.source.edge
            && decided.candidate == claim.target.edge
            && decided.requirements == permit.requirements
            && decided.attributes == permit.attributes;
        ensure(same, || {
            format!(
                "the permit says something else than decision {}",
                permit.decision
            )
        })?;
        let container = self.containers.get(&claim.sub);
        let target = self.edges.get(&claim.target.edge);
        let holds = container
            .is_some_and(|container| policy_of(&container.requirements) == permit.requirements)
            && target.is_some_and(|edge| policy_of(&edge.attributes) == permit.attributes);
        ensure(holds, || {
            "the permit was made of policies that had been changed".to_owned()
        })?;
        for party in [claim.source, claim.target] {
            let certificate = self
                .edges
                .get(&party.edge)
                .and_then(|edge| edge.certificate);
            ensure(certificate == Some(party.certificate), || {
                format!(
                    "the permit names a certificate that edge {} did not have",
                    party.edge
                )
            })?;
        }
        let moved = self
            .migrations
            .get_mut(&migration)
            .ok_or_else(|| format!("migration {migration} was never asked for"))?;
        ensure(moved.permit.is_none(), || {
            format!("migration {migration} has a permit already")
        })?;
        moved.permit = Some(permit);
        Ok(())
    }

    fn migration(
        &mut self,
        id: MigrationId,
        container: ContainerId,
        phase: Phase,
        generation: Option<u64>,
        edge: EdgeId,
    ) -> Checked {
        let before = self.migrations.get(&id).map(|migration| migration.phase);
        let migration = self.migrations.entry(id).or_insert(Migration {
            container,
            phase,
            permit: None,
            cancelled: false,
            target_lost: false,
        });
        migration.phase = phase;
        let permit = migration.permit.clone();
        let (cancelled, target_lost) = (migration.cancelled, migration.target_lost);
        ensure(migration.container == container, || {
            format!("migration {id} is of container {}", migration.container)
        })?;
        ensure(Phase::may_follow(before, phase), || match before {
            Some(before) => format!("{phase} cannot follow {before}"),
            None => format!("a migration does not begin with {phase}"),
        })?;
        let is_past = matches!(phase, Phase::Restoring | Phase::Preparing);
        ensure(!cancelled || !is_past, || {
            format!("migration {id} was cancelled, and goes on")
        })?;
        ensure(cancelled || phase != Phase::Cancelled, || {
            format!("nobody has cancelled migration {id}")
        })?;
        let is_unconfirmed = phase == Phase::TakingBack && before != Some(Phase::WithdrawingTarget);
        ensure(target_lost || !is_unconfirmed, || {
            format!("nobody has declared the target of migration {id} lost")
        })?;
        let needs_permit = !matches!(
            phase,
            Phase::Admitting | Phase::Denied | Phase::Failed | Phase::Cancelled
        );
        ensure(!needs_permit || permit.is_some(), || {
            format!("migration {id} has no permit")
        })?;
        if let Some(permit) = &permit {
            if before == Some(Phase::Committing) && phase == Phase::Restoring {
                self.commit(permit)?;
            } else if before == Some(Phase::TakingBack) && phase == Phase::ResumingSource {
                self.place(
                    container,
                    permit.claim.source.edge,
                    permit.claim.generation + 2,
                );
            }
        }
        let place = self.containers.get(&container).and_then(|held| held.place);
        ensure(place.is_some_and(|place| place.edge == edge), || {
            format!("it says that the container is {edge}'s, and it is not")
        })?;
        ensure(
            generation.is_none() || generation == place.map(|place| place.generation),
            || "its generation is not the container's".to_owned(),
        )
    }

    /// Only before the commit.
    fn cancel(&mut self, id: MigrationId, container: ContainerId) -> Checked {
        let migration = self
            .migrations
            .get_mut(&id)
            .ok_or_else(|| format!("migration {id} was never asked for"))?;
        ensure(migration.container == container, || {
            format!("migration {id} is of container {}", migration.container)
        })?;
        ensure(migration.phase.is_before_the_commit(), || {
            format!("{} cannot be cancelled", migration.phase)
        })?;
        migration.cancelled = true;
        Ok(())
    }

    /// Of a migration that is under way, and whose part it has.
    fn lost(
        &mut self,
        id: MigrationId,
        container: ContainerId,
        edge: EdgeId,
        part: Part,
    ) -> Checked {
        let migration = self
            .migrations
            .get_mut(&id)
            .ok_or_else(|| format!("migration {id} was never asked for"))?;
        ensure(migration.container == container, || {
            format!("migration {id} is of container {}", migration.container)
        })?;
        let has_part = migration.permit.as_ref().is_some_and(|permit| {
            let of = match part {
                Part::Source => permit.claim.source,
                Part::Target => permit.claim.target,
            };
            of.edge == edge
        });
        ensure(has_part, || {
            format!("edge {edge} has another part in migration {id}, or none")
        })?;
        ensure(!migration.phase.is_ended(), || {
            format!("migration {id} has ended")
        })?;
        migration.target_lost |= part == Part::Target;
        Ok(())
    }

    /// What the permit was based on holds still; then the container is the target's.
    fn commit(&mut self, permit: &Permit) -> Checked {
        let claim = &permit.claim;
        let container = self
            .containers
            .get(&claim.sub)
            .ok_or("the container was not registered any more")?;
        let target = self
            .edges
            .get(&claim.target.edge)
            .ok_or("the target was not registered")?;
        let from = Place {
            edge: claim.source.edge,
            generation: claim.generation,
        };
        let held = ensure(container.place == Some(from), || {
            "the container had been moved meanwhile".to_owned()
        })
        .and(ensure(
            policy_of(&container.requirements) == permit.requirements,
            || "the container's requirements had changed since the permit".to_owned(),
        ))
        .and(ensure(
            policy_of(&target.attributes) == permit.attributes,
            || "the target's attributes had changed since the permit".to_owned(),
        ))
        .and(ensure(!target.revoked, || {
            "the target had been revoked".to_owned()
        }))
        .and(ensure(
            self.may_use(container.owner, claim.target.edge),
            || "the owner's share key of the target had been revoked".to_owned(),
        ));
        self.place(claim.sub, claim.target.edge, claim.generation + 1);
        held
    }

    fn place(&mut self, container: ContainerId, edge: EdgeId, generation: u64) {
        if let Some(container) = self.containers.get_mut(&container) {
            container.place = Some(Place { edge, generation });
        }
    }
}

fn is_next(revision: u64, expected: u64) -> Checked {
    ensure(revision == expected, || {
        format!("its revision is {revision}, and {expected} would be next")
    })
}

fn policy_of(policed: &Policed) -> Policy {
    let policy: &Value = &policed.policy;
    Policy::of(policed.revision, policy)
}

fn parse_key(public: &str) -> Result<VerifyingKey, String> {
    let unreadable = || format!("`{public}` is no Ed25519 key");
    let mut bytes = [0; 32];
    hex::decode_to_slice(public, &mut bytes).map_err(|_| unreadable())?;
    VerifyingKey::from_bytes(&bytes).map_err(|_| unreadable())
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Permit => "permit".to_owned(),
        Verdict::Deny(reasons) => {
            let elements: Vec<&str> = reasons
                .iter()
                .map(|reason| reason.element.paper_name())
                .collect();
            format!("deny ({})", elements.join(", "))
        }
    }
}
