//! What an order's statement entitles to: the checks that [`carnet_api::agent`] promises.

use carnet_api::agent::Order;
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::permit::{Claim, Part, Party, Permit, Statement, StatementFault};

use super::{Handovers, Record, Role};
use crate::permits::{CLOCK_TOLERANCE_S, now};
use crate::problem::{cannot, internal, statement_refused};
use crate::runtime::{ContainerName, Runtime};

/// An order that its statement entitles to.
pub(super) struct Entitled {
    pub name: ContainerName,
    /// What this edge has to do with the order's migration.
    pub record: Option<Record>,
    /// What the statement says.
    pub claim: Claim,
}

impl Entitled {
    pub fn role(&self) -> Option<&Role> {
        self.record.as_ref().map(|record| &record.role)
    }

    /// Whether the container was taken back after the commit: it is the source's, under a newer
    /// generation, and whatever is here of it counts for nothing.
    pub fn is_taken_back(&self) -> bool {
        let permitted = self.permit().map(|permit| permit.claim.generation);
        permitted.and_then(|permitted| permitted.checked_add(TAKEN_BACK))
            == Some(self.claim.generation)
    }

    /// The permit that was accepted here for the migration.
    pub fn permit(&self) -> Option<&Permit> {
        self.record
            .as_ref()
            .and_then(|record| record.permit.as_ref())
    }
}

/// Which generations a commit or abort may have, counted from the permit's.
pub(super) const COMMITTED: &[u64] = &[1];
/// By how much a container's generation is raised where it was taken back.
const TAKEN_BACK: u64 = 2;
/// Before a commit, or after it was taken back.
pub(super) const RESUMED: &[u64] = &[0, TAKEN_BACK];
/// Or while the target is asked whether it gives up what was committed to it.
pub(super) const DISCARDED: &[u64] = &[0, 1, TAKEN_BACK];

pub(super) fn refused(fault: StatementFault) -> Problem {
    statement_refused(fault.name(), fault)
}

/// Something of a migration that nobody has shown this edge a statement for.
pub(super) fn unpermitted(migration: MigrationId) -> Problem {
    statement_refused(
        "permit",
        format!("no permit for migration {migration} was accepted here"),
    )
}

/// Whether a permit is good now.
pub(super) fn is_good(permit: &Permit) -> Result<(), Problem> {
    permit.is_good(now(), CLOCK_TOLERANCE_S).map_err(refused)
}

impl<R: Runtime> Handovers<R> {
    /// Checks an order that is given on a permit.
    pub(super) fn permitted(
        &self,
        order: &Order,
        part: Part,
    ) -> Result<(Entitled, Permit), Problem> {
        let name = self.name(order, part)?;
        let permit: Permit = self.open(order, part)?;
        is_good(&permit)?;
        permit.is_of_generation(order.generation).map_err(refused)?;
        let record = self.records.of(order)?;
        if let Some(record) = &record {
            let is_ended = matches!(record.role, Role::Ended { .. });
            if is_ended || record.permit.as_ref() != Some(&permit) {
                return Err(refused(StatementFault::Used));
            }
        }
        let claim = permit.claim.clone();
        self.permits
            .is_current(claim.sub, claim.generation)
            .map_err(refused)?;
        let entitled = Entitled {
            name,
            record,
            claim,
        };
        Ok((entitled, permit))
    }

    /// Checks an order that is given on a commit or an abort, whose generation may be the
    /// permit's and one of `raised`.
    pub(super) fn concluded<T: Statement>(
        &self,
        order: &Order,
        part: Part,
        raised: &[u64],
    ) -> Result<Entitled, Problem> {
        let name = self.name(order, part)?;
        let claim = self.open::<T>(order, part)?.claim().clone();
        claim.is_made(now(), CLOCK_TOLERANCE_S).map_err(refused)?;
        if claim.generation != order.generation {
            return Err(refused(StatementFault::Generation {
                named: claim.generation,
                known: order.generation,
            }));
        }
        let record = self.records.of(order)?;
        if let Some(permit) = record.as_ref().and_then(|record| record.permit.as_ref()) {
            is_of(&claim, &permit.claim, raised).map_err(refused)?;
        }
        Ok(Entitled {
            name,
            record,
            claim,
        })
    }

    /// Remembers the generation of an accepted statement, if it is not behind what was seen of
    /// the container. On disk before anything is done: a crash after it leaves an edge that takes
    /// the same order again, and none that is older.
    pub(super) fn come_to(&self, claim: &Claim) -> Result<(), Problem> {
        self.permits
            .is_current(claim.sub, claim.generation)
            .map_err(refused)?;
        self.permits
            .saw(claim.sub, claim.generation)
            .map_err(|error| internal(&error))
    }

    /// Reads the order's statement, if the control plane has signed it for this edge and this
    /// order.
    fn open<T: Statement>(&self, order: &Order, part: Part) -> Result<T, Problem> {
        let opened: T = self
            .permits
            .open(&order.statement, now())
            .map_err(refused)?;
        let claim = opened.claim();
        claim.is_for(&self.peers.me(), part).map_err(refused)?;
        claim
            .is_about(order.migration, &order.container)
            .map_err(refused)?;
        if (claim.source.edge, claim.target.edge) != (order.source, order.target) {
            return Err(refused(StatementFault::Malformed(
                "it is about other edges than the order",
            )));
        }
        Ok(opened)
    }

    /// The container's name, if the order is for this edge.
    fn name(&self, order: &Order, part: Part) -> Result<ContainerName, Problem> {
        let meant = match part {
            Part::Source => order.source,
            Part::Target => order.target,
        };
        let Party { edge, .. } = self.peers.me();
        if meant != edge {
            return Err(cannot(format!(
                "this order is for edge {meant}, and this is edge {edge}"
            )));
        }
        ContainerName::new(&order.container).map_err(cannot)
    }
}

/// Whether a commit or abort is of the permit that was accepted. It names the certificates that
/// the edges have when it is made: one that was enrolled anew since the permit has another, and is
/// still the edge that was permitted.
fn is_of(claim: &Claim, permitted: &Claim, raised: &[u64]) -> Result<(), StatementFault> {
    let of = |claim: &Claim| {
        let edges = (claim.source.edge, claim.target.edge);
        (claim.jti.clone(), claim.sub, edges)
    };
    if of(claim) != of(permitted) {
        return Err(StatementFault::Malformed(
            "it is of another permit than was accepted here",
        ));
    }
    let fits = raised
        .iter()
        .any(|raised| permitted.generation.checked_add(*raised) == Some(claim.generation));
    if fits {
        Ok(())
    } else {
        Err(StatementFault::Generation {
            named: claim.generation,
            known: permitted.generation,
        })
    }
}
