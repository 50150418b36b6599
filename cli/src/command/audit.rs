use carnet_api::v1::{AttemptOutcome, AuditReport, CreateAudit, DestinationSpec};
use clap::Args;

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::reference::Reference;
use crate::view;

/// The three ways to name a destination.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Destination {
    /// One edge, name or id
    #[arg(long, value_name = "EDGE")]
    to: Option<Reference>,
    /// The edges of a region, in random order
    #[arg(long, value_name = "REGION")]
    region: Option<Reference>,
    /// All edges that you may use, in random order
    #[arg(long)]
    anywhere: bool,
}

impl From<&Destination> for DestinationSpec {
    fn from(destination: &Destination) -> Self {
        match (&destination.to, &destination.region) {
            (Some(edge), _) => Self::Edge(edge.to_string()),
            (None, Some(region)) => Self::Region(region.to_string()),
            // The group has one member at least.
            (None, None) => Self::Anywhere(destination.anywhere),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Every candidate is audited, with its CPU and memory use as its agent reads them now. Where one is
denied, every reason is shown: the requirement, what the edge has, what would satisfy it.

Examples:
  carnet audit App1 --to Edge2
  carnet audit App1 --region B
  carnet audit App1 --anywhere --json | jq '.attempts[] | select(.outcome == \"denied\")'

Exit status 0: at least one candidate is permitted; 3: none is.")]
pub struct AuditCommand {
    /// Name or id
    container: Reference,
    #[command(flatten)]
    destination: Destination,
    #[command(flatten)]
    client: ClientArguments,
}

impl AuditCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        let body = CreateAudit {
            container: self.container.to_string(),
            to: (&self.destination).into(),
        };
        let report = session.ask::<_, AuditReport>("/v1/audits", &body).await?;
        session.show(&report, view::attempt::report)?;
        let is_permitted = |outcome: &AttemptOutcome| *outcome == AttemptOutcome::Permitted;
        let attempts = &report.value.attempts;
        Ok(
            if attempts
                .iter()
                .any(|attempt| is_permitted(&attempt.outcome))
            {
                Outcome::Done
            } else {
                Outcome::Denied
            },
        )
    }
}
