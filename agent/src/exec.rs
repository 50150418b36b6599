//! The only place that runs a command: never through a shell, never with an open standard input.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use nix::libc;
use thiserror::Error;
use tokio::process;

/// How much of a failed command's standard error is told, in bytes.
const STDERR_END: usize = 2_000;

/// A command to be run.
#[derive(Debug)]
pub struct Command {
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    inherited: Option<File>,
    limit: Duration,
    detached: bool,
}

/// A command that did not do what it was for.
#[derive(Debug, Error)]
pub enum CommandError {
    #[error("{program} cannot be run: {source}; is it installed?")]
    NotRun {
        program: &'static str,
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

/// The number under which a command finds the file of [`Command::inherit`].
pub const INHERITED_FD: i32 = 9;

impl Command {
    /// `program` is looked up in `PATH`. Ends within 30 seconds, or fails.
    pub fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            environment: Vec::new(),
            inherited: None,
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

    /// Leaves `file` open in the command, as descriptor [`INHERITED_FD`].
    pub fn inherit(mut self, file: File) -> Self {
        self.inherited = Some(file);
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
        let shown = self.to_string();
        let limit = self.limit;
        let mut command = process::Command::new(self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if self.detached {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        } else {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        if let Some(file) = &self.inherited {
            let descriptor = file.as_raw_fd();
            #[expect(
                unsafe_code,
                reason = "between fork and exec only dup2 or fcntl is called, which are \
                          async-signal-safe; the copy has no close-on-exec flag, which is what is \
                          wanted"
            )]
            unsafe {
                command.pre_exec(move || {
                    // A copy onto itself is none, and would leave the flag.
                    let outcome = if descriptor == INHERITED_FD {
                        libc::fcntl(descriptor, libc::F_SETFD, 0)
                    } else {
                        libc::dup2(descriptor, INHERITED_FD)
                    };
                    if outcome < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                    Ok(())
                });
            }
        }
        let child = command.spawn().map_err(|source| CommandError::NotRun {
            program: self.program,
            source,
        })?;
        let output = tokio::time::timeout(limit, child.wait_with_output())
            .await
            .map_err(|_| CommandError::Late {
                command: shown.clone(),
                limit_s: limit.as_secs(),
            })?
            .map_err(|source| CommandError::NotRun {
                program: self.program,
                source,
            })?;
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
        f.write_str(self.program)?;
        for argument in &self.arguments {
            write!(f, " {argument}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
    async fn the_inherited_file_is_open_in_the_command() {
        let file = File::open("/etc/hostname").unwrap();
        let target = Command::new("readlink")
            .arg(format!("/proc/self/fd/{INHERITED_FD}"))
            .inherit(file)
            .run()
            .await
            .unwrap();
        assert_eq!(target.trim(), "/etc/hostname");
    }
}
