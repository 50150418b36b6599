//! What the control plane tells its log, for waiting until it has told something.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

use crate::edges::LIMIT;

/// Everything told on this thread since [`Told::listen`].
#[derive(Clone)]
pub struct Told {
    lines: Arc<Mutex<Vec<String>>>,
    changed: watch::Sender<()>,
}

impl Told {
    /// Listens until the guard is dropped.
    pub fn listen() -> (Self, DefaultGuard) {
        let told = Self {
            lines: Arc::default(),
            changed: watch::channel(()).0,
        };
        let guard = tracing::subscriber::set_default(told.clone());
        (told, guard)
    }

    /// How many lines hold `part`.
    pub fn times(&self, part: &str) -> usize {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|line| line.contains(part)).count()
    }

    /// Waits until `part` has been told at least so often.
    pub async fn until(&self, part: &str, times: usize) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while self.times(part) < times {
                changed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(LIMIT, waiting).await.is_err() {
            panic!(
                "waited in vain for the log to hold `{part}`: {:#?}",
                self.lines.lock().unwrap()
            );
        }
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("carnet_control")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
        self.changed.send_replace(());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
