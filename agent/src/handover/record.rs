//! What an agent remembers of hand-overs.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use carnet_api::agent::{Described, Order};
use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use carnet_core::migration::Strategy;
use carnet_core::permit::Permit;
use serde::{Deserialize, Serialize};

use crate::problem::{cannot, internal};
use crate::state::write_private;

/// How long an ended hand-over is remembered.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);

/// What this edge has to do with a migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub order: Order,
    pub role: Role,
    /// What was accepted for it; absent where the first that was heard of it was its end.
    pub permit: Option<Permit>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum Role {
    Source {
        /// Set once everything has been sent; the container has been frozen since then, or stopped.
        handed_over: Option<Sent>,
        /// It did not run when it was made ready.
        #[serde(default)]
        is_stopped: bool,
        /// Set before it is stopped for a cold move. What brings it back then starts it, unless
        /// `is_stopped`.
        #[serde(default)]
        is_held: bool,
    },
    Target {
        container: Described,
        progress: Progress,
        /// How its memory comes over; unknown until the source is about to freeze.
        strategy: Option<Strategy>,
    },
    /// Whatever comes for this hand-over now comes too late.
    Ended { how: End },
}

/// How far a target has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// A part of what is prepared may be there.
    Preparing,
    /// All that is prepared is there, and perhaps streams that came since.
    Prepared,
    /// It may have run here. Set before it is let run.
    Restored,
    /// It has run here, and was killed, because memory of it was lost on its way.
    Lost,
}

/// The order that ended a hand-over on this edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Source: it runs elsewhere.
    Release,
    /// Source: it goes on here as it was.
    Resume,
    /// Target: it is at home.
    Clean,
    /// Target: it never ran here.
    Discard,
}

/// What was sent while the container stood still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub rootfs_difference_bytes: u64,
    pub image_bytes: u64,
}

/// All of them, a file each.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Those in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What this edge has to do with the order's migration; an error where that is about another
    /// container, or between other edges, than the order says.
    ///
    /// # Errors
    /// That, or where the record cannot be read.
    pub fn of(&self, order: &Order) -> Result<Option<Record>, Problem> {
        let Some(record) = self.load(order.migration)? else {
            return Ok(None);
        };
        let known = &record.order;
        if (&known.container, known.source, known.target)
            == (&order.container, order.source, order.target)
        {
            Ok(Some(record))
        } else {
            Err(cannot(format!(
                "migration {} moves `{}` from edge {} to edge {}, not `{}` from edge {} to edge {}",
                order.migration,
                known.container,
                known.source,
                known.target,
                order.container,
                order.source,
                order.target
            )))
        }
    }

    /// Another hand-over of the same container that has not ended.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn other(&self, order: &Order) -> Result<Option<MigrationId>, Problem> {
        Ok(self
            .unfinished()?
            .into_iter()
            .map(|record| record.order)
            .find(|other| other.migration != order.migration && other.container == order.container)
            .map(|other| other.migration))
    }

    /// Those that have not ended.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Record>, Problem> {
        let Ok(entries) = fs::read_dir(&self.directory) else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(id) = name.strip_suffix(".json").and_then(|id| id.parse().ok()) else {
                continue;
            };
            if let Some(record) = self.load(id)?
                && !matches!(record.role, Role::Ended { .. })
            {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn path(&self, migration: MigrationId) -> PathBuf {
        self.directory.join(format!("{migration}.json"))
    }

    /// # Errors
    /// Where there is one, and it cannot be read.
    pub fn load(&self, migration: MigrationId) -> Result<Option<Record>, Problem> {
        match fs::read(self.path(migration)) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| internal(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(internal(&error)),
        }
    }

    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, record: &Record) -> Result<(), Problem> {
        let text = serde_json::to_string(record).map_err(|error| internal(&error))?;
        write_private(&self.path(record.order.migration), &text).map_err(|error| internal(&error))
    }

    /// Forgets hand-overs that ended so long ago that no order for them can still be on its way.
    ///
    /// # Errors
    /// Where the records cannot be read.
    pub fn forget_old(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_old = entry
                .metadata()?
                .modified()?
                .elapsed()
                .is_ok_and(|age| age > REMEMBERED);
            let ended = serde_json::from_slice::<Record>(&fs::read(entry.path())?)
                .is_ok_and(|record| matches!(record.role, Role::Ended { .. }));
            if is_old && ended {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
