use std::fmt::{self, Write as _};
use std::process::ExitCode;

use carnet_api::client::ClientError;
use carnet_api::v1::{InputFault, Problem};
use carnet_core::policy::Faults;

/// How a command ended, as its exit status says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0
    Done,
    /// 1
    Failed,
    /// 2, as clap's own.
    BadInput,
    /// 3: the policy denies it.
    Denied,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::BadInput => 2,
            Outcome::Denied => 3,
        })
    }
}

/// Why a command came to nothing: what was wrong and where, each fault, and what to do.
///
/// It displays as it goes to stderr, without a line break at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    is_bad_input: bool,
    message: String,
    faults: Vec<InputFault>,
    help: Option<String>,
}

impl Failure {
    /// Something that whoever gave the command has to write otherwise.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self {
            is_bad_input: true,
            ..Self::other(message)
        }
    }

    pub fn other(message: impl Into<String>) -> Self {
        Self {
            is_bad_input: false,
            message: message.into(),
            faults: Vec::new(),
            help: None,
        }
    }

    /// Everything wrong with a policy that was read from `source`.
    pub fn faults(source: &str, faults: &Faults) -> Self {
        let count = faults.0.len();
        let plural = if count == 1 { "" } else { "s" };
        Self {
            faults: faults
                .0
                .iter()
                .map(|fault| InputFault {
                    place: fault.place.clone(),
                    found: fault.found.clone(),
                    problem: fault.problem.clone(),
                    allowed: fault.allowed.clone(),
                    suggestion: fault.suggestion.clone(),
                })
                .collect(),
            ..Self::bad_input(format!("{source}: {count} fault{plural}"))
        }
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Puts before the message what was being done.
    pub fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<&Failure> for Outcome {
    fn from(failure: &Failure) -> Self {
        if failure.is_bad_input {
            Self::BadInput
        } else {
            Self::Failed
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => refused(problem),
            ClientError::Transport { url, source } => {
                let help = if source.is_connect() {
                    "is `carnet serve` running there? and is the CA (--ca) that control plane's?"
                } else {
                    "the request may have been carried out; look before you repeat it"
                };
                Self::other(format!("no answer from `{url}`: {}", root_cause(&source)))
                    .with_help(help)
            }
            error @ ClientError::Foreign { .. } => Self::other(error.to_string())
                .with_help("the URL (--url) has to be that of `carnet serve`"),
            error @ (ClientError::Tls(_) | ClientError::Setup(_)) => Self::other(error.to_string()),
        }
    }
}

fn refused(problem: Problem) -> Failure {
    let help = match problem.status {
        401 => Some(
            "the token (--token-file, CARNET_TOKEN) is not known there, has expired or was revoked",
        ),
        403 => Some("carnet whoami shows your account and the roles of this token"),
        404 => {
            Some("what belongs to others reads as if it did not exist; names are case-sensitive")
        }
        _ => None,
    };
    Failure {
        is_bad_input: matches!(problem.status, 400 | 413 | 415 | 422) || !problem.faults.is_empty(),
        message: problem.detail.unwrap_or(problem.title),
        faults: problem.faults,
        help: help.map(str::to_owned),
    }
}

/// The innermost cause: `reqwest` says only that there was an error.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for fault in &self.faults {
            write!(f, "\n  {}", fault_lines(fault))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\nhelp: {help}")?;
        }
        Ok(())
    }
}

fn fault_lines(fault: &InputFault) -> String {
    let mut text = format!("{}: {}", fault.place, fault.problem);
    if !fault.found.is_empty() {
        let _ = write!(text, ": `{}`", fault.found);
    }
    if let Some(suggestion) = &fault.suggestion {
        let _ = write!(text, "; did you mean `{suggestion}`?");
    }
    if !fault.allowed.is_empty() {
        let _ = write!(text, "\n    allowed: {}", fault.allowed);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, faults: Vec<InputFault>) -> Problem {
        Problem {
            kind: "urn:carnet:problem:x".to_owned(),
            title: "a title".to_owned(),
            status,
            detail: Some("there is no edge `Edge9`".to_owned()),
            faults,
        }
    }

    #[test]
    fn a_failure_says_what_where_and_what_to_do() {
        let fault = InputFault {
            place: "line 3, column 9, allowed_locations".to_owned(),
            found: "uk".to_owned(),
            problem: "not a country".to_owned(),
            allowed: "a country's two letters".to_owned(),
            suggestion: Some("gb".to_owned()),
        };
        let failure = Failure::from(ClientError::Problem(problem(422, vec![fault])))
            .with_help("see carnet help container register");
        assert_eq!(
            failure.to_string(),
            "error: there is no edge `Edge9`\
             \n  line 3, column 9, allowed_locations: not a country: `uk`; did you mean `gb`?\
             \n    allowed: a country's two letters\
             \nhelp: see carnet help container register"
        );
    }

    #[test]
    fn only_what_its_author_has_to_change_is_bad_input() {
        for (status, expected) in [
            (400, Outcome::BadInput),
            (401, Outcome::Failed),
            (403, Outcome::Failed),
            (404, Outcome::Failed),
            (409, Outcome::Failed),
            (422, Outcome::BadInput),
            (500, Outcome::Failed),
        ] {
            let failure = Failure::from(ClientError::Problem(problem(status, Vec::new())));
            assert_eq!(Outcome::from(&failure), expected, "{status}");
        }
    }
}
