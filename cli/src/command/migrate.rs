use std::time::{Duration, Instant};

use carnet_api::v1::{CreateMigration, Migration, MigrationState, Strategy};
use carnet_core::ids::MigrationId;
use clap::{Args, ValueEnum};

use super::audit::Destination;
use crate::client::{Answer, ClientArguments, EventParser, Session};
use crate::failure::{Failure, Outcome};
use crate::output::LiveLine;
use crate::reference::Reference;
use crate::view;
use crate::view::migration::{News, Progress};
use crate::view::quantity::milliseconds;

/// How often the time that a phase lasts is shown anew, on a terminal.
const TICK: Duration = Duration::from_millis(200);
/// How long a control plane may be gone, e.g. for a restart, before following it is given up.
const GONE_LIMIT: Duration = Duration::from_secs(60);
/// Pause before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "\
The candidates are audited in turn, until one is permitted; the container moves there while it
runs, and its established connections survive. If none is permitted, nothing is moved.
A container that is stopped is moved as it is, and stays stopped. One that runs can be moved cold
where that is asked for: it is shut down, and started anew at the target; what it has in memory and
its connections are lost.
Progress goes to standard error, the outcome to standard output. Ctrl-C ends the watching, not
the migration; `carnet migration cancel` ends that.

Examples:
  carnet migrate App1 --to Edge3
  carnet migrate App1 --region B
  carnet migrate App1 --to Edge3 --strategy stop-and-copy
  carnet migrate App1 --to Edge3 --strategy cold
  carnet migrate App1 --to Edge3 --max-downtime 500ms --bandwidth 40
  carnet migrate App1 --anywhere --json | jq -r .target_name

Exit status 0: moved (with --no-wait: begun); 3: denied, with every reason; 1: it failed or was
cancelled, and the container runs on at its source.")]
pub struct MigrateCommand {
    /// Name or id
    container: Reference,
    #[command(flatten)]
    destination: Destination,
    /// How its memory goes over [default: the best that its owner allows and the edges can]
    #[arg(long, value_enum)]
    strategy: Option<StrategyChoice>,
    /// Give it up before it is frozen, if it would stand still for longer, such as 500ms; and while
    /// it is frozen, if it does and is not committed yet. Not of a cold move: nobody can tell how
    /// long a container takes to shut down and to start
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max_downtime: Option<Duration>,
    /// Take no more of the link than this, in megabytes a second
    #[arg(long, value_name = "MB/S")]
    bandwidth: Option<f64>,
    /// Do not wait for the end of the migration
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    client: ClientArguments,
}

/// A strategy, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StrategyChoice {
    /// All of it while the container stands still
    StopAndCopy,
    /// After it runs at the target; its owner has to allow that
    PostCopy,
    /// Ahead while it runs, and what it wrote to since while it stands still; needs a kernel that
    /// tells what is written to
    PreCopy,
    /// Not at all: it is shut down, and started anew at the target; its memory and its connections
    /// are lost. What is stopped stays stopped
    Cold,
}

impl From<StrategyChoice> for Strategy {
    fn from(choice: StrategyChoice) -> Self {
        match choice {
            StrategyChoice::StopAndCopy => Self::StopAndCopy,
            StrategyChoice::PostCopy => Self::PostCopy,
            StrategyChoice::PreCopy => Self::PreCopy,
            StrategyChoice::Cold => Self::Cold,
        }
    }
}

impl MigrateCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let session = Session::open(&self.client)?;
        let body = CreateMigration {
            container: self.container.to_string(),
            to: (&self.destination).into(),
            strategy: self.strategy.map(Into::into),
            max_downtime_ms: self
                .max_downtime
                .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            // What is too little, or no number, is told by the control plane.
            bandwidth_bytes_per_s: self.bandwidth.map(|megabytes| (megabytes * 1e6) as u64),
        };
        let begun = session
            .create::<_, Migration>("/v1/migrations", &body)
            .await?;
        let id = begun.value.id;
        if self.no_wait && !begun.value.state.is_ended() {
            session.show(&begun, view::migration::migration)?;
            session
                .output()
                .hint(&format!("to see how it goes: carnet migration show {id}"));
            return Ok(Outcome::Done);
        }
        let followed = tokio::select! {
            followed = Follower::new(&session, id).follow_to_end(begun) => followed,
            interrupted = tokio::signal::ctrl_c() => Err(match interrupted {
                Ok(()) => Failure::other("you stopped watching; the migration goes on"),
                Err(error) => Failure::other(format!("cannot wait for signals: {error}")),
            }),
        };
        let ended =
            followed.map_err(|failure| failure.with_help(format!("carnet migration show {id}")))?;
        session.show(&ended, view::migration::migration)?;
        match ended.value.state {
            MigrationState::Completed => Ok(Outcome::Done),
            MigrationState::Denied => Ok(Outcome::Denied),
            MigrationState::Cancelled => {
                Err(Failure::other(view::migration::summary(&ended.value))
                    .with_help(format!("carnet container show {}", self.container)))
            }
            _ => Err(Failure::other(format!(
                "{}: {}",
                view::migration::summary(&ended.value),
                ended
                    .value
                    .failure
                    .as_deref()
                    .unwrap_or("it is not said why")
            ))
            .with_help(format!("carnet container show {}", self.container))),
        }
    }
}

/// Watches one migration and tells its progress on stderr.
struct Follower<'a> {
    session: &'a Session,
    id: MigrationId,
    progress: Progress,
    line: LiveLine,
    /// The phase under way, and since when.
    phase: Option<(String, Instant)>,
}

impl<'a> Follower<'a> {
    fn new(session: &'a Session, id: MigrationId) -> Self {
        Self {
            session,
            id,
            progress: Progress::default(),
            line: LiveLine::new(),
            phase: None,
        }
    }

    /// Follows the migration's events until it has ended. A stream that breaks off is opened
    /// again: a control plane that restarts takes its migrations up again.
    async fn follow_to_end(
        mut self,
        begun: Answer<Migration>,
    ) -> Result<Answer<Migration>, Failure> {
        let path = format!("/v1/migrations/{}", self.id);
        self.tell(&begun.value);
        let mut latest = begun;
        let mut last_seen = Instant::now();
        while !latest.value.state.is_ended() {
            if let Ok(Some(newer)) = self.follow_events(&path).await {
                latest = newer;
            }
            if latest.value.state.is_ended() {
                break;
            }
            match self.session.get::<Migration>(&path).await {
                Ok(answer) => {
                    self.tell(&answer.value);
                    latest = answer;
                    last_seen = Instant::now();
                }
                Err(failure) if last_seen.elapsed() > GONE_LIMIT => return Err(failure),
                Err(_) => {}
            }
            if !latest.value.state.is_ended() {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        Ok(latest)
    }

    /// The latest that the events told, when the migration has ended or the stream has.
    async fn follow_events(&mut self, path: &str) -> Result<Option<Answer<Migration>>, Failure> {
        let mut stream = self
            .session
            .client()
            .events(&format!("{path}/events"))
            .await?;
        let mut parser = EventParser::default();
        let mut latest = None;
        let mut tick = tokio::time::interval(TICK);
        loop {
            let chunk = tokio::select! {
                chunk = stream.chunk() => chunk,
                _ = tick.tick(), if self.line.is_terminal() => {
                    self.show_phase();
                    continue;
                }
            };
            // A stream that breaks off has told what it told.
            let Ok(Some(bytes)) = chunk else {
                return Ok(latest);
            };
            for event in parser.push(&bytes) {
                if event.name != "migration" {
                    continue;
                }
                let json = serde_json::from_str(&event.data)
                    .map_err(|error| Failure::other(format!("an event is not JSON: {error}")))?;
                let migration = Answer::<Migration>::new(json)?;
                self.tell(&migration.value);
                let has_ended = migration.value.state.is_ended();
                latest = Some(migration);
                if has_ended {
                    return Ok(latest);
                }
            }
        }
    }

    fn tell(&mut self, migration: &Migration) {
        for news in self.progress.news(migration) {
            match news {
                News::Done(text) => self.line.keep(&text),
                News::Begun(phase) => {
                    if !self.line.is_terminal() {
                        self.line.keep(&format!("{phase} …"));
                    }
                    self.phase = Some((phase, Instant::now()));
                }
            }
        }
        self.show_phase();
    }

    fn show_phase(&self) {
        if let Some((phase, since)) = &self.phase {
            let lasted = milliseconds(since.elapsed().as_secs_f64() * 1e3);
            self.line.show(&format!("{phase} … {lasted}"));
        }
    }
}
