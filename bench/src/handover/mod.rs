//! What a hand-over costs: how long the container does not answer, and how long all of it takes,
//! beside the paper's way and beside a dump and a restore in one place, in one run.

mod client;
mod link;
mod memory;
mod peers;
mod stage;

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use carnet_api::v1::Strategy;
use carnet_lab::error::LabError;
use carnet_lab::progress::Progress;
use comfy_table::{Cell, CellAlignment, Table, presets};
use thiserror::Error;

use self::memory::Memory;
use self::peers::{Seen, floor, papers_way, podmans_way, seen};
use self::stage::Stage;

/// Of each way and size; the median of those that lost nothing is told.
const RUNS: usize = 5;
/// What the containers hold in memory, in MB of 10⁶ bytes. Each rewrites about a gigabyte a second.
const SIZES: [usize; 3] = [10, 256, 1_000];

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum HandoverBenchError {
    #[error("{} is not there; build all of it: cargo build --release --workspace", .0.display())]
    NotBuilt(PathBuf),
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error("{0}")]
    Container(String),
    #[error("`{0}` is not whole any more: {1}")]
    NotWhole(String, String),
}

/// A way of moving a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Floor,
    Paper,
    Podman,
    StopAndCopy,
    PreCopy,
    PostCopy,
    Cold,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "dump and restore in place (the floor)",
            Self::Paper => "the paper's: lxc-checkpoint, rsync, lxc-checkpoint -r",
            Self::Podman => "Podman: checkpoint --export, rsync, restore --import",
            Self::StopAndCopy => "Carnet, stop-and-copy",
            Self::PreCopy => "Carnet, pre-copy",
            Self::PostCopy => "Carnet, post-copy",
            Self::Cold => "Carnet, cold: memory and connections are lost",
        }
    }
}

/// What was seen of one way, with a container of one size.
#[derive(Debug)]
struct Row {
    way: Way,
    megabytes: usize,
    runs: Vec<Seen>,
    /// Runs besides, after which the container or its connection was not whole.
    lost: usize,
}

/// What was seen of all.
#[derive(Debug)]
pub struct Measured {
    rows: Vec<Row>,
    files_megabytes: f64,
    link_megabytes_per_s: f64,
    tracks_memory: bool,
    memory: Memory,
}

/// Measures all of it, in a lab of its own.
///
/// # Errors
/// Where the lab does not come up, or a container does not outlive a way.
pub fn measure(progress: Progress) -> Result<Measured, HandoverBenchError> {
    let stage = Stage::build(progress)?;
    let link_megabytes_per_s = stage.link_megabytes_per_s()?;
    let tracks_memory = stage.tracks_memory()?;
    stage.step("the machine's memory")?;
    let memory = Memory::hold();
    let mut rows = Rows::default();
    // Each way once, and all of them again: a machine that is slow for a while is so for all.
    for round in 1..=RUNS {
        for megabytes in SIZES {
            let step = |way: Way| stage.step(&format!("{round}: {megabytes} MB, {}", way.name()));
            for way in [Way::Paper, Way::Podman] {
                step(way)?;
                rows.add(way, megabytes, measure_peer(&stage, way, megabytes)?);
            }
            let mut moving = stage.start(&format!("bench{megabytes}"), megabytes)?;
            stage.register(&moving)?;
            for (way, strategy) in [
                (Way::StopAndCopy, Strategy::StopAndCopy),
                (Way::PreCopy, Strategy::PreCopy),
                (Way::PostCopy, Strategy::PostCopy),
            ] {
                if strategy == Strategy::PreCopy && !tracks_memory {
                    continue;
                }
                step(way)?;
                let seen = seen(&mut moving, |moving| {
                    stage.move_over(moving, strategy).map(drop)
                })?;
                rows.add(way, megabytes, Some(seen));
            }
            stage.forget(&moving)?;
            if Some(&megabytes) == SIZES.first() {
                step(Way::Floor)?;
                rows.add(
                    Way::Floor,
                    megabytes,
                    Some(floor(&stage, &mut moving, round)?),
                );
            }
            stage.end(moving)?;
            step(Way::Cold)?;
            rows.add(Way::Cold, megabytes, Some(measure_cold(&stage, megabytes)?));
        }
    }
    Ok(Measured {
        rows: rows.0,
        files_megabytes: stage.files_megabytes,
        link_megabytes_per_s,
        tracks_memory,
        memory,
    })
}

/// What was seen, by way and size.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// `None`: the container or its connection was not whole.
    fn add(&mut self, way: Way, megabytes: usize, seen: Option<Seen>) {
        let is_it = |row: &Row| row.way == way && row.megabytes == megabytes;
        let place = self.0.iter().position(is_it).unwrap_or_else(|| {
            self.0.push(Row {
                way,
                megabytes,
                runs: Vec::new(),
                lost: 0,
            });
            self.0.len() - 1
        });
        if let Some(row) = self.0.get_mut(place) {
            match seen {
                Some(seen) => row.runs.push(seen),
                None => row.lost += 1,
            }
        }
    }
}

/// With a container of its own: what these have restored once, some cannot dump again. `None` where
/// it was not whole afterwards.
fn measure_peer(
    stage: &Stage,
    way: Way,
    megabytes: usize,
) -> Result<Option<Seen>, HandoverBenchError> {
    let name = format!("peer{megabytes}");
    let (mut moving, seen);
    if way == Way::Podman {
        moving = stage.start_in_podman(&name, megabytes)?;
        seen = podmans_way(stage, &mut moving);
    } else {
        moving = stage.start(&name, megabytes)?;
        seen = papers_way(stage, &mut moving);
    }
    let seen = match seen {
        Ok(seen) => Some(seen),
        Err(HandoverBenchError::NotWhole(_, fault)) => {
            stage.step(&format!("not whole: {fault}"))?;
            None
        }
        Err(error) => return Err(error),
    };
    if way == Way::Podman {
        stage.end_in_podman(moving)?;
    } else {
        stage.end(moving)?;
    }
    Ok(seen)
}

/// As a client sees it that connects anew each time it asks.
fn measure_cold(stage: &Stage, megabytes: usize) -> Result<Seen, HandoverBenchError> {
    let mut moving = stage.start(&format!("cold{megabytes}"), megabytes)?;
    stage.register(&moving)?;
    let knocking = stage.knock(&moving)?;
    let begun = Instant::now();
    stage.move_over(&mut moving, Strategy::Cold)?;
    let total = begun.elapsed();
    let downtime = knocking.longest_gap();
    let downtime =
        downtime.map_err(|fault| HandoverBenchError::NotWhole(moving.name.clone(), fault))?;
    drop(knocking);
    stage.forget(&moving)?;
    stage.end(moving)?;
    Ok(Seen { downtime, total })
}

impl Row {
    fn median(&self, of: impl Fn(&Seen) -> Duration) -> f64 {
        let mut times: Vec<Duration> = self.runs.iter().map(of).collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        median.as_secs_f64()
    }

    /// In seconds.
    fn downtime(&self) -> f64 {
        self.median(|seen| seen.downtime)
    }

    /// In seconds.
    fn total(&self) -> f64 {
        self.median(|seen| seen.total)
    }
}

impl Measured {
    fn row(&self, way: Way, megabytes: usize) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| row.way == way && row.megabytes == megabytes)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header([
            "memory, MB",
            "way",
            "downtime, ms",
            "of the floor",
            "of the paper's way",
            "total, s",
            "of the link's time",
            "lost",
        ]);
        let floor = self
            .row(Way::Floor, SIZES.first().copied().unwrap_or_default())
            .map(Row::downtime)
            .unwrap_or_default();
        for row in &self.rows {
            let paper = self.row(Way::Paper, row.megabytes).map(Row::downtime);
            let (memory, files) = (row.megabytes as f64, self.files_megabytes);
            let sent = match row.way {
                // Its image is there already.
                Way::Podman => memory,
                Way::Cold => files,
                _ => memory + files,
            };
            let link = sent / self.link_megabytes_per_s;
            let tried = row.runs.len() + row.lost;
            let is_sent = row.way != Way::Floor;
            let cells = [
                format!("{:.0}", row.downtime() * 1_000.0),
                format!("{:.2}", row.downtime() / floor),
                paper.map_or_else(String::new, |paper| {
                    format!("1/{:.1}", paper / row.downtime())
                }),
                format!("{:.2}", row.total()),
                if is_sent {
                    format!("{:.2}", row.total() / link)
                } else {
                    String::new()
                },
                format!("{} of {tried}", row.lost),
            ];
            let right = |cell: String| Cell::new(cell).set_alignment(CellAlignment::Right);
            let mut line = vec![right(row.megabytes.to_string()), Cell::new(row.way.name())];
            line.extend(cells.map(right));
            table.add_row(line);
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        write!(
            f,
            "medians of {RUNS} runs, links of 1 Gbit/s, {cores} cores; containers of LXC with {:.0} MB of files;\n\
             downtime as a client outside sees it; the link's time: what memory and files take as they are by a bare\n\
             TCP stream, which carries {:.0} MB/s there, and nothing else;\n\
             {};\n\
             lost: after which the container, its connection or its memory was not whole\n{table}",
            self.files_megabytes, self.link_megabytes_per_s, self.memory
        )?;
        if !self.tracks_memory {
            let way = Way::PreCopy.name();
            write!(
                f,
                "\n{way}: not measured, this kernel does not tell which memory is written to"
            )?;
        }
        Ok(())
    }
}
