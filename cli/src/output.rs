use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use carnet_core::instant::UnixMillis;
use serde_json::Value;

use crate::failure::Failure;

/// Where answers go, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    is_json: bool,
}

impl Output {
    pub fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    /// Writes an answer to stdout: `json` for programs, what `view` makes of it for people.
    ///
    /// # Errors
    /// Where stdout takes nothing, e.g. a full disk. A reader that has gone away is none: it
    /// has read what it wanted.
    pub fn answer(
        &self,
        json: &Value,
        view: impl FnOnce(Surface) -> String,
    ) -> Result<(), Failure> {
        if self.is_json {
            let text = serde_json::to_string_pretty(json)
                .map_err(|error| Failure::other(format!("cannot write JSON: {error}")))?;
            write_stdout(&text)
        } else {
            write_stdout(&harmless(&view(Surface::of_stdout())))
        }
    }

    /// Writes to stderr what people should know beside the answer; nothing where a program asked.
    pub fn hint(&self, text: &str) {
        if !self.is_json {
            note(text);
        }
    }
}

/// What views are made for.
#[derive(Debug, Clone, Copy)]
pub struct Surface {
    /// Ages are told relative to this.
    pub now: UnixMillis,
    /// In characters; absent where no terminal bounds it.
    pub width: Option<u16>,
}

impl Surface {
    fn of_stdout() -> Self {
        Self {
            now: now(),
            width: terminal_size::terminal_size_of(io::stdout())
                .map(|(terminal_size::Width(columns), _)| columns),
        }
    }
}

/// Now, by this machine's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixMillis(since.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)))
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`Output::answer`].
pub fn write_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::other(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where nobody listens there, nobody is told.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", harmless(text));
}

/// The line of stderr on which progress is shown, if stderr is a terminal: rewritten in place.
#[derive(Debug)]
pub struct LiveLine {
    is_terminal: bool,
}

impl LiveLine {
    pub fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
        }
    }

    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows `text` in place of what was shown before.
    pub fn show(&self, text: &str) {
        if self.is_terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K{}", harmless(text));
        }
    }

    /// Writes a line that stays; what is shown next comes below it.
    pub fn keep(&self, text: &str) {
        self.show("");
        note(text);
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.show("");
    }
}

/// Without control characters: words of other machines must not move a terminal's cursor.
fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}
