//! What is under way, told line by line, and the wish to end it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use crate::error::LabError;

/// Tells on standard error what is being done, and keeps it from going on when that is wished.
#[derive(Debug, Clone)]
pub struct Progress {
    begun: Instant,
    /// The signal that asks for the end; 0: none does.
    ended_by: Arc<AtomicI32>,
}

impl Progress {
    /// `ended_by` is set from elsewhere, to the number of the signal that asks for the end.
    pub fn new(ended_by: Arc<AtomicI32>) -> Self {
        Self {
            begun: Instant::now(),
            ended_by,
        }
    }

    /// Tells what is done next.
    ///
    /// # Errors
    /// As [`go_on`](Self::go_on): then it is not to be done.
    pub fn step(&self, what: &str) -> Result<(), LabError> {
        self.go_on()?;
        tell(&format!(
            "{:6.1} s  {what}",
            self.begun.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Asked wherever something may take long.
    ///
    /// # Errors
    /// [`LabError::Interrupted`], where the end is wished.
    pub fn go_on(&self) -> Result<(), LabError> {
        match self.ended_by.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => Err(LabError::Interrupted(signal)),
        }
    }
}

/// Writes a line to standard error. Where nobody listens there, nobody is told.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_is_begun_once_the_end_is_wished() {
        let ended_by = Arc::new(AtomicI32::new(0));
        let progress = Progress::new(ended_by.clone());
        assert!(progress.step("this").is_ok());
        ended_by.store(15, Ordering::Relaxed);
        for outcome in [progress.step("that"), progress.go_on()] {
            assert!(matches!(outcome, Err(LabError::Interrupted(15))));
        }
    }
}
