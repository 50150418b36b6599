//! Runs: what happened to a migration, as a list of events that can be read, stored and replayed.
//!
//! ```text
//! # Why it is kept.
//! strategy: post_copy
//! container: stopped
//! broken: keep_what_has_run
//! violates: the source never runs stale
//!
//! admitted
//! PrepareSource: it is answered
//! …
//! ```
//!
//! Without the line `container` it runs in the beginning. `broken` names a promise that an edge, or
//! the runner, does not keep in this run; without that line all are kept. The run of a fault that is
//! mended is kept as well, with `violates: nothing`.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use carnet_core::migration::Strategy;

use crate::exploration::successors;
use crate::model::{Promises, World};

/// Where runs are stored.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/migration/runs")
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub strategy: Strategy,
    /// The container does not run in the beginning.
    pub is_stopped: bool,
    /// The promise that is broken, by its name.
    pub broken: Option<String>,
    /// The invariant that does not hold in the end, by its name.
    pub violates: Option<String>,
    pub events: Vec<String>,
}

impl Run {
    /// Stores it.
    pub fn store(&self) -> PathBuf {
        let path = self.path();
        fs::create_dir_all(directory()).unwrap();
        fs::write(&path, self.text()).unwrap();
        path
    }

    /// Whether one is stored that is broken and violates in the same way.
    pub fn is_stored(&self) -> bool {
        self.path().exists()
    }

    /// A name that says what it is.
    fn path(&self) -> PathBuf {
        let name = match (&self.broken, &self.violates) {
            (Some(promise), _) => format!("without-{promise}"),
            (None, Some(invariant)) => format!("violates-{invariant}"),
            (None, None) => "violates-nothing".to_owned(),
        };
        directory().join(format!("{}.txt", name.replace([' ', '_'], "-")))
    }

    pub fn text(&self) -> String {
        let mut text = format!("strategy: {}\n", self.strategy.name());
        if self.is_stopped {
            text.push_str("container: stopped\n");
        }
        if let Some(promise) = &self.broken {
            writeln!(text, "broken: {promise}").unwrap();
        }
        let violates = self.violates.as_deref().unwrap_or("nothing");
        writeln!(text, "violates: {violates}\n").unwrap();
        for event in &self.events {
            writeln!(text, "{event}").unwrap();
        }
        text
    }

    fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .collect();
        let (head, events) = lines.split_at(lines.iter().position(|line| line.is_empty()).unwrap());
        let value = |name: &str| {
            head.iter()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
        };
        let strategy = value("strategy").unwrap();
        Self {
            is_stopped: value("container").is_some(),
            strategy: Strategy::ALL
                .into_iter()
                .find(|one| one.name() == strategy)
                .unwrap(),
            broken: value("broken"),
            violates: value("violates").filter(|name| name != "nothing"),
            events: events
                .iter()
                .filter(|line| !line.is_empty())
                .map(|&line| line.to_owned())
                .collect(),
        }
    }

    /// Lets it happen again under `promises`: the invariant that does not hold in the end.
    ///
    /// # Errors
    /// The event that cannot happen, and what could have in its place.
    fn replay(&self, promises: Promises) -> Result<Option<&'static str>, String> {
        let mut world = match self.is_stopped {
            true => World::stopped(),
            false => World::new(self.strategy),
        };
        for (number, event) in (1..).zip(&self.events) {
            if let Some(invariant) = world.violated() {
                return Err(format!("before event {number}: violated: {invariant}"));
            }
            let possible = successors(&world, promises);
            let next = possible.iter().find(|(what, ..)| what == event);
            let Some((_, next, _)) = next else {
                let instead: Vec<&str> = possible.iter().map(|(what, ..)| what.as_str()).collect();
                return Err(format!(
                    "event {number}, `{event}`, cannot happen; what can:\n{}",
                    instead.join("\n")
                ));
            };
            world = next.clone();
        }
        Ok(world.violated())
    }
}

fn stored() -> Vec<(PathBuf, Run)> {
    let mut runs: Vec<_> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, Run::parse(&text))
        })
        .collect();
    runs.sort_by(|one, other| one.0.cmp(&other.0));
    runs
}

/// Runs in which a promise is broken end in the violation that they name, and cannot happen, or do
/// no harm, where it is kept. Those of faults that were mended do no harm.
#[test]
fn every_stored_run_ends_as_it_says() {
    for (path, run) in stored() {
        let path = path.display();
        let promises = run.broken.as_deref().map_or(Promises::ALL_KEPT, |name| {
            Promises::without(name).unwrap_or_else(|| panic!("{path}: no promise `{name}`"))
        });
        let found = run
            .replay(promises)
            .unwrap_or_else(|problem| panic!("{path}: {problem}"));
        assert_eq!(found, run.violates.as_deref(), "{path}");
        if run.broken.is_some()
            && let Ok(found) = run.replay(Promises::ALL_KEPT)
        {
            assert_eq!(found, None, "{path}, all promises kept");
        }
    }
}

/// What is written can be read again: a run that is found is replayed as it was.
#[test]
fn a_stored_run_is_read_as_it_was_written() {
    for (path, run) in stored() {
        assert_eq!(Run::parse(&run.text()), run, "{}", path.display());
    }
}
