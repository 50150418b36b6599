//! The demo: the paper's measurement (section 5), on this machine, with a real container.
//!
//! Eight edges in four regions; App1, an LXC container with Redis, is moved from Edge1 to each
//! named edge (case 1), to regions (case 2) and anywhere (case 3), while a client outside writes
//! and reads back through one TCP connection. Every run begins on Edge1, as the paper's: where
//! App1 was moved, it is moved back, and that is no run of the paper's.

mod difference;
mod paper;
mod report;
pub mod sensor_client;
mod stay;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use carnet_api::v1::{
    AttemptOutcome, AuditReport, Claim, Container, CreateAudit, CreateMigration, DestinationSpec,
    Migration, MigrationState, RegisterContainer, Role,
};
use serde_json::{Value, json};
use thiserror::Error;

use self::difference::Difference;
use self::paper::{Destination, Run, TableError};
use self::sensor_client::{Observation, READING, SensorClient};
use crate::error::LabError;
use crate::exec;
use crate::fleet::{Account, CLIENT, EdgeSpec, Fleet, FleetSpec};
use crate::host::ContainerSpec;
use crate::progress::{Progress, tell};

/// The account that owns App1.
const CONTAINER_OWNER: &str = "carol";
/// An account that may read everything.
const AUDITOR: &str = "audrey";
/// App1's address in the lab's network; it moves with it.
const REDIS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 88, 2, 1), 6379);
/// How many readings App1 holds in the beginning.
const READINGS: u64 = 120_000;
/// How long to wait until no edge is too busy, before a run.
const QUIET_LIMIT: Duration = Duration::from_secs(30);
/// After how long it is told that this is waited for.
const QUIET_TOLD: Duration = Duration::from_secs(2);
/// Pause between two looks at how busy they are.
const QUIET_PAUSE: Duration = Duration::from_millis(250);
/// How long a move may take.
const MOVE_LIMIT: Duration = Duration::from_secs(300);

/// How the demo is to be.
#[derive(Debug, Clone)]
pub struct DemoSpec {
    /// The lab's name.
    pub name: String,
    /// The lab is left up at the end.
    pub stay: bool,
    /// The program `carnet-lab`; `carnet` is beside it.
    pub program: PathBuf,
}

/// Why the demo did not come to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the paper's Table 5 holds no container that stands on an edge")]
    NoContainer,
    #[error("App1's Redis: {0}")]
    Redis(io::Error),
    #[error("App1 cannot be moved back from {from} to {to}: {why}")]
    NotReturned {
        from: String,
        to: String,
        why: String,
    },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// A run of the paper, carried out.
struct Ran {
    run: Run,
    migration: Migration,
    seen: Observation,
    differences: Vec<Difference>,
}

/// A move back after one.
struct Returned {
    /// The run's name.
    after: String,
    migration: Migration,
    seen: Observation,
}

/// Runs the demo, and returns whether everything came out as in the paper and nothing was lost.
/// Its tables go to standard output.
///
/// # Errors
/// [`DemoError`]. The lab goes away then, too.
pub fn run(spec: &DemoSpec, progress: &Progress) -> Result<bool, DemoError> {
    let outcome = bring_up_and_run(spec, progress);
    // What a signal made fail, a command on the same terminal, is of no interest.
    progress.go_on()?;
    outcome
}

fn bring_up_and_run(spec: &DemoSpec, progress: &Progress) -> Result<bool, DemoError> {
    let edges: Vec<EdgeSpec> = paper::edges()?
        .into_iter()
        .map(|edge| EdgeSpec {
            name: edge.name,
            owner: edge.organization,
            attributes: edge.attributes,
        })
        .collect();
    let mut fleet = Fleet::start(
        &FleetSpec {
            lab: spec.name.clone(),
            edges: edges.clone(),
            unregistered: Vec::new(),
            program: spec.program.clone(),
            own_disks: false,
        },
        progress,
    )?;
    let outcome = tell_story(&mut fleet, &edges, progress);
    if spec.stay && outcome.is_ok() {
        show(&stay::help(&fleet, &edges, &spec.name)?)?;
        fleet.leave_up()?;
    } else {
        tell("          ending the lab");
        drop(fleet);
        tell("          the lab is gone");
    }
    outcome
}

/// All that is done on the fleet. Returns as [`run`] does.
fn tell_story(
    fleet: &mut Fleet,
    edges: &[EdgeSpec],
    progress: &Progress,
) -> Result<bool, DemoError> {
    let app = paper::container()?.ok_or(DemoError::NoContainer)?;
    fleet.create_account(CONTAINER_OWNER, Role::ContainerOwner)?;
    fleet.create_account(AUDITOR, Role::Auditor)?;
    let owner = fleet.account(CONTAINER_OWNER)?;
    progress.step(&format!(
        "the owners share their edges with {CONTAINER_OWNER}, who enters the keys"
    ))?;
    for edge in edges {
        fleet.share(edge, owner)?;
    }
    let client = start_app(fleet, &app, progress)?;
    register_app(fleet, owner, &app, progress)?;
    progress.step("waiting until every edge is healthy")?;
    let found = fleet.await_healthy(progress)?;
    show(&format!("{}\n", report::edges(&found)))?;

    let journey = Journey {
        app: &app,
        owner,
        client: &client,
        progress,
    };
    let (ran, returned) = journey.carry_out(paper::runs()?)?;
    progress.step("reading back everything that was ever written")?;
    let everything = client.observe_everything();
    let as_in_the_paper = conclude(&ran, &returned, &everything)?;
    progress.step(&format!("{AUDITOR} verifies the ledger"))?;
    let mut verify = fleet.command(AUDITOR)?;
    verify.args(["ledger", "verify"]).stdin(Stdio::null());
    let verified = verify.output().map_err(|source| LabError::NotRun {
        command: exec::show(&verify),
        source,
    })?;
    show(&format!(
        "\nThe ledger, as {AUDITOR} verified it:\n{}",
        String::from_utf8_lossy(&verified.stdout).trim_end()
    ))?;
    Ok(as_in_the_paper && verified.status.success())
}

/// Starts App1 where the paper has it, and loads what it holds.
fn start_app(
    fleet: &Fleet,
    app: &paper::Container,
    progress: &Progress,
) -> Result<SensorClient, DemoError> {
    let host = fleet.host(&app.edge)?;
    progress.step(&format!(
        "starting {}, an LXC container with Redis, on {}",
        app.name, app.edge
    ))?;
    host.start(&ContainerSpec::redis(&app.name, *REDIS.ip()))?;
    progress.step(&format!(
        "the client outside connects, and stores {READINGS} readings of {READING} bytes in {}",
        app.name
    ))?;
    let connection = fleet.host(CLIENT)?.connect(REDIS.into())?;
    SensorClient::start(connection, READINGS).map_err(DemoError::Redis)
}

/// Its owner registers App1, and shows by a code inside it that it is theirs.
fn register_app(
    fleet: &Fleet,
    owner: &Account,
    app: &paper::Container,
    progress: &Progress,
) -> Result<(), DemoError> {
    progress.step(&format!(
        "{} registers {}, and proves it by the code placed inside",
        owner.name, app.name
    ))?;
    let _: Container = owner.post(
        "/v1/containers",
        &RegisterContainer {
            name: app.name.clone(),
            edge: app.edge.clone(),
            requirements: Value::String(app.requirements.clone()),
            allow_post_copy: false,
        },
    )?;
    let claim: Claim = owner.post(&format!("/v1/containers/{}/claims", app.name), &json!({}))?;
    // As somebody does who controls the container.
    let write = format!("echo {} > {}", claim.code, claim.path);
    fleet.host(&app.edge)?.run(
        "lxc-attach",
        &["-n", &app.name, "--", "/bin/sh", "-c", &write],
    )?;
    let _: Container = owner.post(
        &format!("/v1/containers/{}/confirm-claim", app.name),
        &json!({}),
    )?;
    Ok(())
}

/// Moves App1 about.
struct Journey<'a> {
    app: &'a paper::Container,
    owner: &'a Account,
    client: &'a SensorClient,
    progress: &'a Progress,
}

impl Journey<'_> {
    /// Carries out the paper's runs, and shows the table of each case when it is over.
    fn carry_out(&self, runs: Vec<Run>) -> Result<(Vec<Ran>, Vec<Returned>), DemoError> {
        let mut ran: Vec<Ran> = Vec::new();
        let mut returned = Vec::new();
        let mut shown = 0;
        let mut runs = runs.into_iter().peekable();
        while let Some(run) = runs.next() {
            let is_last_of_case = runs.peek().is_none_or(|next| next.case != run.case);
            let done = self.run(run)?;
            returned.extend(self.go_back(&done)?);
            ran.push(done);
            if is_last_of_case {
                let (_, of_case) = ran.split_at(shown);
                show(&format!("{}\n", report::case(of_case)))?;
                shown = ran.len();
            }
        }
        Ok((ran, returned))
    }

    fn run(&self, run: Run) -> Result<Ran, DemoError> {
        let (to, words) = match &run.destination {
            Destination::Edge(edge) => (DestinationSpec::Edge(edge.clone()), edge.clone()),
            Destination::Region(region) => (
                DestinationSpec::Region(region.clone()),
                format!("region {region}"),
            ),
            Destination::Anywhere => (
                DestinationSpec::Anywhere(true),
                format!("anywhere ({})", run.label),
            ),
        };
        // The paper's edges are as busy as its tables say; these are as busy as this machine.
        self.await_quiet(&to)?;
        let (migration, seen) = self.migrate(to)?;
        self.progress.step(&format!(
            "case {}: {} to {words}: {}",
            run.case,
            self.app.name,
            in_words(&migration, &seen)
        ))?;
        let mut differences = difference::of_decisions(&run, &migration);
        differences.extend(difference::of_client(&seen));
        Ok(Ran {
            run,
            migration,
            seen,
            differences,
        })
    }

    /// Moves App1 back to where the paper's runs start, if it is elsewhere.
    fn go_back(&self, ran: &Ran) -> Result<Option<Returned>, DemoError> {
        let path = format!("/v1/containers/{}", self.app.name);
        let now: Container = self.owner.get(&path)?;
        if now.edge_name == self.app.edge {
            return Ok(None);
        }
        let to = DestinationSpec::Edge(self.app.edge.clone());
        self.await_quiet(&to)?;
        let (migration, seen) = self.migrate(to)?;
        let words = in_words(&migration, &seen);
        self.progress.step(&format!("        back: {words}"))?;
        if migration.state == MigrationState::Completed {
            Ok(Some(Returned {
                after: ran.run.label.clone(),
                migration,
                seen,
            }))
        } else {
            Err(DemoError::NotReturned {
                from: now.edge_name,
                to: self.app.edge.clone(),
                why: words,
            })
        }
    }

    /// Waits until no candidate is denied only because it is busy, or is not ready. Where that
    /// does not come, the run shows it.
    fn await_quiet(&self, to: &DestinationSpec) -> Result<(), DemoError> {
        let began = Instant::now();
        let mut is_told = false;
        let asked = CreateAudit {
            container: self.app.name.clone(),
            to: to.clone(),
        };
        loop {
            self.progress.go_on()?;
            let audited: AuditReport = self.owner.post("/v1/audits", &asked)?;
            let waited_for: Vec<&str> = audited
                .attempts
                .iter()
                .filter(|attempt| {
                    difference::is_by_load(&attempt.outcome)
                        || matches!(attempt.outcome, AttemptOutcome::NotReady { .. })
                })
                .map(|attempt| attempt.edge_name.as_str())
                .collect();
            if waited_for.is_empty() || began.elapsed() >= QUIET_LIMIT {
                return Ok(());
            }
            if !is_told && began.elapsed() >= QUIET_TOLD {
                let edges = waited_for.join(", ");
                self.progress
                    .step(&format!("waiting for {edges}: busy, or not ready"))?;
                is_told = true;
            }
            std::thread::sleep(QUIET_PAUSE);
        }
    }

    /// Asks for a move and waits for its end; with what the client saw meanwhile.
    fn migrate(&self, to: DestinationSpec) -> Result<(Migration, Observation), DemoError> {
        self.progress.go_on()?;
        self.client.begin();
        let mut migration: Migration = self.owner.post(
            "/v1/migrations",
            &CreateMigration {
                container: self.app.name.clone(),
                to,
                strategy: None,
                max_downtime_ms: None,
                bandwidth_bytes_per_s: None,
            },
        )?;
        let deadline = Instant::now() + MOVE_LIMIT;
        while !migration.state.is_ended() {
            self.progress.go_on()?;
            if Instant::now() >= deadline {
                return Err(LabError::Late {
                    what: format!("the end of migration {}", migration.id),
                    seconds: MOVE_LIMIT.as_secs(),
                }
                .into());
            }
            // Answered when it has ended.
            let path = format!("/v1/migrations/{}?wait=1", migration.id);
            migration = self.owner.get(&path)?;
        }
        Ok((migration, self.client.observe()))
    }
}

/// A move on a line.
fn in_words(migration: &Migration, seen: &Observation) -> String {
    let mut words: Vec<String> = migration
        .attempts
        .iter()
        .map(|attempt| {
            let edge = &attempt.edge_name;
            match &attempt.outcome {
                AttemptOutcome::Permitted => format!("{edge} permitted"),
                AttemptOutcome::NotReady { problems } => {
                    format!("{edge} not ready ({})", problems.join("; "))
                }
                AttemptOutcome::Denied { reasons } => {
                    let elements: Vec<&str> = reasons
                        .iter()
                        .map(|reason| reason.paper_name.as_str())
                        .collect();
                    format!("{edge} denied ({})", elements.join(", "))
                }
            }
        })
        .collect();
    if migration.state == MigrationState::Completed {
        words.push(format!("down {} ms", seen.longest_gap.as_millis()));
    }
    if let Some(failure) = &migration.failure {
        words.push(failure.clone());
    }
    words.extend(difference::of_client(seen).iter().map(ToString::to_string));
    words.join(", ")
}

/// Shows what it all comes to, and returns whether it is as in the paper and nothing was lost.
fn conclude(
    ran: &[Ran],
    returned: &[Returned],
    everything: &Observation,
) -> Result<bool, DemoError> {
    let of_runs = ran.iter().flat_map(|ran| {
        let run = format!("case {}, {}", ran.run.case, ran.run.label);
        ran.differences
            .iter()
            .map(move |it| (run.clone(), it.clone()))
    });
    let of_returns = returned.iter().flat_map(|back| {
        let run = format!("back from {}", back.migration.source_name);
        let found = difference::of_client(&back.seen);
        found.into_iter().map(move |it| (run.clone(), it))
    });
    let of_all = difference::of_client(everything)
        .into_iter()
        .map(|it| ("at the end".to_owned(), it));
    let named: Vec<(String, Difference)> = of_runs.chain(of_returns).chain(of_all).collect();
    if !returned.is_empty() {
        show(&format!("{}\n", report::returns(returned)))?;
    }
    show(&format!("{}\n", report::legend(ran, returned)))?;
    show(&report::summary(ran, returned, everything))?;
    if !named.is_empty() {
        show(&format!("\n{}", report::differences(&named)))?;
    }
    Ok(named.is_empty())
}

/// Writes to standard output.
fn show(text: &str) -> Result<(), DemoError> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(DemoError::Output)
}
