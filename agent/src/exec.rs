//! The only place that runs a command: never through a shell, never with an open standard input.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use thiserror::Error;
use tokio::process;

/// How much of a failed command's standard error is told, in bytes.
const STDERR_END: usize = 2_000;

/// A command to be run.
#[derive(Debug)]
pub struct Command {
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    inherited: Vec<(i32, OwnedFd)>,
    limit: Duration,
    detached: bool,
}

/// A command that was started.
#[derive(Debug)]
pub struct Running {
    program: String,
    /// Its command line.
    shown: String,
    limit: Duration,
    child: process::Child,
}

/// A command that did not do what it was for.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{program} cannot be run: {source}; is it installed?")]
    NotRun {
        program: String,
        source: std::io::Error,
    },
    #[error("`{command}` did not end within {limit_s} s")]
    Late { command: String, limit_s: u64 },
    #[error("`{command}` ended with {status}: {stderr}")]
    Failed {
        command: String,
        status: std::process::ExitStatus,
        stderr: String,
    },
}

/// Descriptors below are given to commands by number; copies of what they get are kept above.
const FIRST_KEPT: i32 = 64;

impl Command {
    /// `program` is looked up in `PATH`. Ends within 30 seconds, or fails.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherited: Vec::new(),
            limit: Duration::from_secs(30),
            detached: false,
        }
    }

    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name, value.as_ref().to_string_lossy().into_owned()));
        self
    }

    /// Leaves `file` open in the command, as descriptor `number`: from 3 to 63, each once.
    pub fn inherit(mut self, number: i32, file: impl Into<OwnedFd>) -> Self {
        self.inherited.push((number, file.into()));
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// For tools that leave a process behind which keeps standard output and error open:
    /// nothing is read from them, and they write nowhere.
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Runs it to its end and returns its standard output.
    ///
    /// A command that is late is left alone, not killed: among them is CRIU, which, interrupted,
    /// leaves its parasite in the container's processes.
    ///
    /// # Errors
    /// Where it cannot be started, is late, or ends with another status than 0.
    pub async fn run(self) -> Result<String, CommandError> {
        self.start()?.end().await
    }

    /// Starts it, and returns at once. Dropped, it runs on.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(self) -> Result<Running, CommandError> {
        let (program, shown, limit) = (self.program.clone(), self.to_string(), self.limit);
        let output = || match self.detached {
            true => Stdio::null(),
            false => Stdio::piped(),
        };
        let (stdout, stderr) = (output(), output());
        let child = self
            .spawn(Stdio::null(), stdout, stderr)
            .map_err(|source| CommandError::NotRun {
                program: program.clone(),
                source,
            })?;
        Ok(Running {
            program,
            shown,
            limit,
            child,
        })
    }

    /// Starts it with its standard input and output in the hands of the caller; what it says on
    /// standard error goes where this process's own goes. Dropped, it runs on.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn talk(self) -> Result<process::Child, CommandError> {
        let program = self.program.clone();
        self.spawn(Stdio::piped(), Stdio::piped(), Stdio::inherit())
            .map_err(|source| CommandError::NotRun { program, source })
    }

    fn spawn(self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> std::io::Result<process::Child> {
        let mut command = process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        // Where none of them is in another's way.
        let mut kept = Vec::new();
        for (number, file) in &self.inherited {
            let copy = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(FIRST_KEPT))?;
            kept.push((*number, Kept(copy)));
        }
        let numbers: Vec<(i32, i32)> = kept
            .iter()
            .map(|(number, Kept(copy))| (*number, *copy))
            .collect();
        #[expect(
            unsafe_code,
            reason = "between fork and exec only dup2 is called, which is async-signal-safe; the \
                      copy has no close-on-exec flag, which is what is wanted"
        )]
        unsafe {
            command.pre_exec(move || {
                for (number, copy) in &numbers {
                    if libc::dup2(*copy, *number) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        command.spawn()
    }
}

/// A descriptor that is closed when dropped.
struct Kept(i32);

impl Drop for Kept {
    fn drop(&mut self) {
        // It is open, and nobody else's.
        let _ = nix::unistd::close(self.0);
    }
}

impl Running {
    /// The number of its process.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Shows what it was told since it began beside its arguments.
    pub fn told(mut self, arguments: &[String]) -> Self {
        for argument in arguments {
            self.shown.push(' ');
            self.shown.push_str(argument);
        }
        self
    }

    /// Waits for its end and returns its standard output. Its limit counts from now.
    ///
    /// # Errors
    /// As [`Command::run`].
    pub async fn end(self) -> Result<String, CommandError> {
        let Self {
            program,
            shown,
            limit,
            child,
        } = self;
        let output = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| CommandError::Late {
                command: shown.clone(),
                limit_s: limit.as_secs(),
            })?
            .map_err(|source| CommandError::NotRun { program, source })?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let stderr = stderr.trim();
            let mut start = stderr.len().saturating_sub(STDERR_END);
            while !stderr.is_char_boundary(start) {
                start += 1;
            }
            Err(CommandError::Failed {
                command: shown,
                status: output.status,
                stderr: stderr.get(start..).unwrap_or_default().to_owned(),
            })
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)?;
        for argument in &self.arguments {
            write!(f, " {argument}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[tokio::test]
    async fn a_failure_names_program_arguments_status_and_the_end_of_stderr() {
        let error = Command::new("ls")
            .arg("/no/such/directory")
            .run()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("ls /no/such/directory"), "{error}");
        assert!(error.contains("exit status: 2"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Command::new("no-such-program").run().await.unwrap_err();
        assert!(error.to_string().contains("no-such-program cannot be run"));
    }

    #[tokio::test]
    async fn inherited_files_are_open_in_the_command() {
        let target = Command::new("readlink")
            .args(["/proc/self/fd/9", "/proc/self/fd/10"])
            .inherit(9, File::open("/etc/hostname").unwrap())
            .inherit(10, File::open("/etc/passwd").unwrap())
            .run()
            .await
            .unwrap();
        assert_eq!(target.trim(), "/etc/hostname\n/etc/passwd");
    }
}
