use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use carnet_api::v1::{Keys, LedgerEntry, ProvenEntry, Stay, Witness};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::{
    Checkpoint, Entry, Event, LedgerVerifier, WitnessVerifier, check_inclusion, leaf_hash,
};
use carnet_core::policy::Verdict;
use clap::{Args, Subcommand, ValueEnum};

use crate::client::{ClientArguments, Session};
use crate::failure::{Failure, Outcome};
use crate::ledger::{Source, Verified, copy, verify};
use crate::output::{Output, write_stdout};
use crate::reference::Reference;
use crate::view;

#[derive(Debug, Args)]
#[command(after_help = "\
The ledger holds every decision, permit, move and change of a policy, in an order that cannot be
rewritten unseen. Whoever keeps a checkpoint can show later that the ledger was changed.

Examples:
  carnet ledger where App1
  carnet ledger in de
  carnet ledger list --kind decision --container App1
  carnet ledger list --verdict deny --country de --since 2026-11-01
  carnet ledger explain 42
  carnet ledger copy /srv/ledger
  carnet ledger verify /srv/ledger --key 'carnet/0a1b…+c3d4e5f6+AQ…' --kept /srv/checkpoint
  carnet ledger verify --witness 'carnet-witness/0a1b…+c3d4e5f6+BA…'
  carnet ledger export --format csv > ledger.csv

Exit status of verify: 0: all of it is sound; 1: it is not, with every fault.")]
pub struct LedgerCommand {
    #[command(subcommand)]
    action: LedgerAction,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, Subcommand)]
enum LedgerAction {
    /// List entries, the oldest first
    List {
        #[command(flatten)]
        wanted: Wanted,
    },
    /// Show an entry, prove that the ledger has it, and make a decision again
    Explain {
        /// The entry's number
        number: u64,
        #[command(flatten)]
        key: KeyArgument,
    },
    /// Where a container has been, when, and under which policy
    Where {
        /// Name, or id
        container: Reference,
    },
    /// Which containers have been in a country, and when
    In {
        /// Two letters, e.g. de
        country: String,
    },
    /// Copy the ledger into a directory, to be verified anywhere
    Copy {
        /// Made if it is not there; a copy in it is brought up to date
        directory: PathBuf,
        #[command(flatten)]
        key: KeyArgument,
    },
    /// Check all of a ledger: every hash and signature, and that each entry follows from those
    /// before it
    Verify {
        /// A copy; the server's own where none is given
        directory: Option<PathBuf>,
        #[command(flatten)]
        key: KeyArgument,
        /// A file with a checkpoint that was kept: the ledger has to begin with it. The newer
        /// checkpoint takes its place
        #[arg(long, value_name = "FILE")]
        kept: Option<PathBuf>,
        /// The verifier key of a witness that must have cosigned the checkpoint; may be given
        /// several times. A server's newest checkpoint is given 10 s to be cosigned
        #[arg(long = "witness", value_name = "VERIFIERKEY")]
        witnesses: Vec<WitnessVerifier>,
    },
    /// The witnesses that cosign the ledger, and how it stands with each
    Witnesses,
    /// Write entries with their inclusion proofs, for other programs
    Export {
        #[arg(long, value_enum, default_value_t = Format::Jsonl)]
        /// How they are written
        format: Format,
        #[command(flatten)]
        key: KeyArgument,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// One JSON object a line
    Jsonl,
    /// Comma-separated values
    Csv,
}

/// The key that the ledger must be signed with.
#[derive(Debug, Args)]
struct KeyArgument {
    /// The ledger's verifier key, from a source that you trust [env: CARNET_LEDGER_VKEY; else the
    /// server is asked, and believed]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

/// Which entries are listed.
#[derive(Debug, Args)]
struct Wanted {
    /// decision, permit, migration, refusal, requirements, attributes, grant, key …; may be given
    /// several times
    #[arg(long)]
    kind: Vec<Reference>,
    /// About this container, name or id, and its migrations
    #[arg(long)]
    container: Option<Reference>,
    /// About containers of this owner, name or id, and their migrations
    #[arg(long)]
    owner: Option<Reference>,
    /// About this edge, name or id
    #[arg(long)]
    edge: Option<Reference>,
    /// Of this migration
    #[arg(long)]
    migration: Option<Reference>,
    /// About an edge of which this country was declared then, two letters
    #[arg(long)]
    country: Option<Reference>,
    /// About an edge of which this organization was declared then
    #[arg(long)]
    organization: Option<Reference>,
    /// Only decisions that came out so
    #[arg(long, value_enum)]
    verdict: Option<Wish>,
    /// From this instant on, UTC, e.g. 2026-11-24 or 2026-11-24T13:05:00
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<UnixMillis>,
    /// Before this instant
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<UnixMillis>,
    /// From this number on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// At most so many
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

/// How decisions came out that are wanted.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Wish {
    Permit,
    Deny,
}

/// An instant as people write it: a day, or a day and a time.
fn instant(text: &str) -> Result<UnixMillis, String> {
    let whole = match text.len() {
        10 => format!("{text}T00:00:00"),
        _ => text.to_owned(),
    };
    let read = humantime::parse_rfc3339_weak(&whole).map_err(|error| error.to_string())?;
    let since = read.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_err(|error| error.to_string())?.as_millis();
    i64::try_from(millis)
        .map(UnixMillis)
        .map_err(|error| error.to_string())
}

impl Wanted {
    fn query(&self) -> String {
        let mut query = format!("?from={}&limit={}", self.from, self.limit);
        let kinds: Vec<&str> = self.kind.iter().map(Reference::as_str).collect();
        let reference = |named: &Option<Reference>| named.as_ref().map(ToString::to_string);
        let named = [
            ("kind", (!kinds.is_empty()).then(|| kinds.join(","))),
            ("container", reference(&self.container)),
            ("owner", reference(&self.owner)),
            ("edge", reference(&self.edge)),
            ("migration", reference(&self.migration)),
            ("country", reference(&self.country)),
            ("organization", reference(&self.organization)),
            (
                "verdict",
                self.verdict.map(|wish| match wish {
                    Wish::Permit => "permit".to_owned(),
                    Wish::Deny => "deny".to_owned(),
                }),
            ),
            ("since_ms", self.since.map(|at| at.0.to_string())),
            ("until_ms", self.until.map(|at| at.0.to_string())),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={value}"));
            }
        }
        query
    }
}

impl LedgerCommand {
    pub async fn run(self) -> Result<Outcome, Failure> {
        let output = Output::new(self.client.json);
        match self.action {
            LedgerAction::List { wanted } => {
                let session = Session::open(&self.client)?;
                let path = format!("/v1/ledger/entries{}", wanted.query());
                let entries = session.get::<Vec<LedgerEntry>>(&path).await?.value;
                let json = serde_json::to_value(&entries)
                    .map_err(|error| Failure::other(error.to_string()))?;
                output.answer(&json, |surface| view::ledger::entries(&entries, surface))?;
                Ok(Outcome::Done)
            }
            LedgerAction::Explain { number, key } => {
                let session = Session::open(&self.client)?;
                explain(&session, number, &key).await
            }
            LedgerAction::Where { container } => {
                stays(&self.client, &format!("container={container}")).await
            }
            LedgerAction::In { country } => {
                let country: Reference = country.parse().map_err(Failure::bad_input)?;
                stays(&self.client, &format!("country={country}")).await
            }
            LedgerAction::Copy { directory, key } => {
                let session = Session::open(&self.client)?;
                let verifier = key.verifier(Some(&session)).await?;
                let source = Source::Server(session.client().clone());
                let size = copy(&source, &verifier, &directory).await?;
                write_stdout(&format!(
                    "{size} entries are in {}; to check them: carnet ledger verify {} --key '{}'",
                    directory.display(),
                    directory.display(),
                    verifier.verifier_key()
                ))?;
                Ok(Outcome::Done)
            }
            LedgerAction::Verify {
                directory,
                key,
                kept,
                witnesses,
            } => {
                let (source, verifier) = source(&self.client, directory.as_deref(), &key).await?;
                check(&output, &source, &verifier, kept.as_deref(), &witnesses).await
            }
            LedgerAction::Witnesses => {
                let session = Session::open(&self.client)?;
                let witnesses = session.get::<Vec<Witness>>("/v1/ledger/witnesses").await?;
                session.show(&witnesses, |witnesses, surface| {
                    view::ledger::witnesses(witnesses, surface)
                })?;
                if witnesses.value.is_empty() {
                    session
                        .output()
                        .hint("the ledger has no witnesses; they are named to `carnet serve`");
                }
                Ok(Outcome::Done)
            }
            LedgerAction::Export { format, key } => {
                let (source, verifier) = source(&self.client, None, &key).await?;
                export(&source, &verifier, format).await
            }
        }
    }
}

impl KeyArgument {
    fn given(&self) -> Option<String> {
        self.key
            .clone()
            .or_else(|| std::env::var("CARNET_LEDGER_VKEY").ok())
            .filter(|key| !key.is_empty())
    }

    /// The key that was given; else the one that the server says, which is told.
    async fn verifier(&self, session: Option<&Session>) -> Result<LedgerVerifier, Failure> {
        let key = match (self.given(), session) {
            (Some(key), _) => key,
            (None, Some(session)) => {
                let keys = session.get::<Keys>("/v1/keys").await?.value;
                session.output().hint(&format!(
                    "the ledger's key was asked of the server itself; to check it against one that you trust: --key '{}'",
                    keys.ledger
                ));
                keys.ledger
            }
            (None, None) => {
                return Err(Failure::bad_input(
                    "a copy does not say by itself whose it is: the ledger's key is missing",
                )
                .with_help(
                    "give --key KEY, or set CARNET_LEDGER_VKEY; `carnet key show` tells it",
                ));
            }
        };
        LedgerVerifier::new(key.trim())
            .map_err(|fault| Failure::bad_input(format!("the ledger's key: {fault}")))
    }
}

async fn source(
    client: &ClientArguments,
    directory: Option<&Path>,
    key: &KeyArgument,
) -> Result<(Source, LedgerVerifier), Failure> {
    match directory {
        Some(directory) => Ok((
            Source::Directory(directory.to_owned()),
            key.verifier(None).await?,
        )),
        None => {
            let session = Session::open(client)?;
            let verifier = key.verifier(Some(&session)).await?;
            Ok((Source::Server(session.client().clone()), verifier))
        }
    }
}

async fn stays(client: &ClientArguments, query: &str) -> Result<Outcome, Failure> {
    let session = Session::open(client)?;
    let stays = session
        .get::<Vec<Stay>>(&format!("/v1/ledger/stays?{query}"))
        .await?;
    session.show(&stays, |stays, surface| view::ledger::stays(stays, surface))?;
    if stays.value.is_empty() {
        session.output().hint("the ledger knows of none");
    }
    Ok(Outcome::Done)
}

/// Shows an entry with what follows from it: that the ledger has it, and what a decision comes to
/// when it is made again.
async fn explain(session: &Session, number: u64, key: &KeyArgument) -> Result<Outcome, Failure> {
    let verifier = key.verifier(Some(session)).await?;
    let proven = session
        .get::<ProvenEntry>(&format!("/v1/ledger/entries/{number}"))
        .await?;
    let checkpoint = verifier
        .open(&proven.value.checkpoint)
        .map_err(|fault| Failure::other(format!("the checkpoint is not believed: {fault}")))?;
    let proof = proven
        .value
        .proof
        .iter()
        .map(|hash| carnet_core::ledger::Hash::parse_hash(hash))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::other(format!("the proof holds no hash: {error}")))?;
    let bytes = proven.value.text.as_bytes();
    check_inclusion(
        &proof,
        checkpoint.size,
        checkpoint.root,
        number,
        leaf_hash(bytes),
    )
    .map_err(|fault| Failure::other(format!("the ledger does not have it: {fault}")))?;
    let entry = Entry::from_bytes(bytes)
        .map_err(|error| Failure::other(format!("it is no entry: {error}")))?;
    let again = replay(&entry)?;
    let sound = again.as_ref().is_none_or(|(_, same)| *same);
    session.show(&proven, |proven, surface| {
        view::ledger::explained(proven, &entry, again.as_ref(), surface)
    })?;
    if sound {
        Ok(Outcome::Done)
    } else {
        Err(Failure::other(format!(
            "entry {number} comes out otherwise when it is decided again"
        )))
    }
}

/// What a decision comes to when it is made again, and whether that is what it says.
fn replay(entry: &Entry) -> Result<Option<(Verdict, bool)>, Failure> {
    let Event::Decision(decision) = &entry.event else {
        return Ok(None);
    };
    let again = decision
        .replay()
        .map_err(|faults| Failure::other(format!("its policies cannot be read: {faults}")))?;
    let same = again == decision.verdict;
    Ok(Some((again, same)))
}

async fn check(
    output: &Output,
    source: &Source,
    verifier: &LedgerVerifier,
    kept: Option<&Path>,
    witnesses: &[WitnessVerifier],
) -> Result<Outcome, Failure> {
    let earlier: Vec<Checkpoint> = match kept.filter(|path| path.exists()) {
        Some(path) => {
            let note = fs::read_to_string(path).map_err(|error| {
                Failure::other(format!("cannot read {}: {error}", path.display()))
            })?;
            let checkpoint = verifier.open(&note).map_err(|fault| {
                Failure::other(format!(
                    "{} holds no checkpoint of this ledger: {fault}",
                    path.display()
                ))
            })?;
            vec![checkpoint]
        }
        None => Vec::new(),
    };
    let verified = verify(source, verifier, &earlier, witnesses).await?;
    let report = &verified.report;
    let json = serde_json::to_value(report).map_err(|error| Failure::other(error.to_string()))?;
    output.answer(&json, |_| view::ledger::report(report))?;
    if !report.is_sound() {
        return Err(Failure::other("the ledger is not sound"));
    }
    if let Some(path) = kept {
        fs::write(path, &verified.note)
            .map_err(|error| Failure::other(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(Outcome::Done)
}

/// Every entry with its proof for one checkpoint, of a ledger that has been verified.
async fn export(
    source: &Source,
    verifier: &LedgerVerifier,
    format: Format,
) -> Result<Outcome, Failure> {
    let verified: Verified = verify(source, verifier, &[], &[]).await?;
    if !verified.report.is_sound() {
        return Err(Failure::other("the ledger is not sound").with_help("carnet ledger verify"));
    }
    let text = match format {
        Format::Jsonl => view::ledger::export_jsonl(&verified),
        Format::Csv => view::ledger::export_csv(&verified),
    }?;
    write_stdout(text.trim_end())?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_as_people_write_them() {
        for (text, expected) in [
            ("1970-01-02", 86_400_000),
            ("1970-01-01T01:00:00", 3_600_000),
            ("1970-01-01 01:00:00", 3_600_000),
        ] {
            assert_eq!(instant(text), Ok(UnixMillis(expected)), "{text}");
        }
        for none in ["", "today", "1969-12-31", "2026-13-01"] {
            assert!(instant(none).is_err(), "{none}");
        }
    }
}
