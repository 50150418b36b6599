use serde::{Deserialize, Serialize};

use crate::ids::{ContainerId, EdgeId};
use crate::instant::UnixMillis;
use crate::policy::{Attributes, Reasons, Requirements, Utilization, Verdict, audit};

/// The container that is to move, as its owner's policy store has it at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub container: ContainerId,
    /// Raised at each commit of a move; fences whoever holds an older one.
    pub generation: u64,
    /// The edge it runs on now.
    pub source: EdgeId,
    pub requirements: &'a Requirements,
    pub requirements_revision: u64,
}

/// An edge that it may go to, with the utilization that was read for this audit.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub edge: EdgeId,
    pub attributes: &'a Attributes,
    pub attributes_revision: u64,
    /// `None` where no reading could be had.
    pub utilization: Option<&'a Utilization>,
}

/// What may be carried out: the only way to a plan is an audit that permits.
///
/// Its fields cannot be set from outside; it is read back from the store as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationPlan {
    container: ContainerId,
    generation: u64,
    source: EdgeId,
    target: EdgeId,
    requirements_revision: u64,
    attributes_revision: u64,
    utilization: Option<Utilization>,
    decided_at: UnixMillis,
}

impl MigrationPlan {
    /// Audits `candidate` against `subject`'s requirements (paper, section 3.2) and plans the
    /// move if it is permitted.
    ///
    /// `now` is the moment of the decision, `max_reading_age_ms` the age in milliseconds beyond
    /// which a utilization reading counts as none.
    ///
    /// # Errors
    /// Every reason for which the audit denies.
    pub fn from_audit(
        subject: &Subject<'_>,
        candidate: &Candidate<'_>,
        now: UnixMillis,
        max_reading_age_ms: u64,
    ) -> Result<Self, Reasons> {
        match audit(
            subject.requirements,
            candidate.attributes,
            candidate.utilization,
            now,
            max_reading_age_ms,
        ) {
            Verdict::Deny(reasons) => Err(reasons),
            Verdict::Permit => Ok(Self {
                container: subject.container,
                generation: subject.generation,
                source: subject.source,
                target: candidate.edge,
                requirements_revision: subject.requirements_revision,
                attributes_revision: candidate.attributes_revision,
                utilization: candidate.utilization.copied(),
                decided_at: now,
            }),
        }
    }

    pub fn container(&self) -> ContainerId {
        self.container
    }

    /// The container's generation when the move was permitted; the commit requires it unchanged.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The generation that the commit gives the container.
    pub fn committed_generation(&self) -> u64 {
        self.generation.saturating_add(1)
    }

    /// The generation that the container gets where it is taken back after the commit.
    pub fn taken_back_generation(&self) -> u64 {
        self.generation.saturating_add(2)
    }

    pub fn source(&self) -> EdgeId {
        self.source
    }

    pub fn target(&self) -> EdgeId {
        self.target
    }

    /// The revision of the container's requirements that was audited.
    pub fn requirements_revision(&self) -> u64 {
        self.requirements_revision
    }

    /// The revision of the target's attributes that was audited.
    pub fn attributes_revision(&self) -> u64 {
        self.attributes_revision
    }

    /// The target's utilization that was audited.
    pub fn utilization(&self) -> Option<&Utilization> {
        self.utilization.as_ref()
    }

    pub fn decided_at(&self) -> UnixMillis {
        self.decided_at
    }
}
