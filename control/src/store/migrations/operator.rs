//! What an operator is told of a move that cannot go on by itself.

use carnet_api::v1::{NeedsOperator, Way};
use carnet_core::instant::UnixMillis;
use carnet_core::migration::{Phase, State};
use carnet_core::permit::Part;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::StoreError;

/// What an operator has to decide, where one is asked.
pub(super) fn needs_operator(
    row: &SqliteRow,
    state: &State,
) -> Result<Option<NeedsOperator>, StoreError> {
    let since: Option<i64> = row.try_get("waiting_since")?;
    let (true, Some(since)) = (row.try_get("needs_operator")?, since) else {
        return Ok(None);
    };
    let id: &str = row.try_get("id")?;
    let container: &str = row.try_get("container_name")?;
    let source: &str = row.try_get("source_name")?;
    let target: Option<&str> = row.try_get("target_name")?;
    Ok(Some(NeedsOperator {
        since_ms: UnixMillis(since),
        ways: ways(
            state,
            id,
            container,
            [source, target.unwrap_or("the target")],
        ),
    }))
}

/// The outcomes of a move that stands in `state`, each with what to type.
fn ways(state: &State, id: &str, container: &str, [source, target]: [&str; 2]) -> Vec<Way> {
    let waits_for = state.waits_for();
    let name = |part: &Part| match part {
        Part::Source => source,
        Part::Target => target,
    };
    let mut ways = vec![Way {
        when: match waits_for {
            [] => "what it waits for can be put right: it then goes on by itself".to_owned(),
            parts => {
                let names: Vec<_> = parts
                    .iter()
                    .map(|part| format!("`{}`", name(part)))
                    .collect();
                format!(
                    "{} can be brought back: start its agent there, and the move goes on by itself",
                    names.join(" or ")
                )
            }
        },
        command: format!("carnet migration show {id}"),
    }];
    let taken_back = format!(
        "`{target}`, and what ran on it, is gone for good: `{container}` goes on at `{source}` as it was when it was frozen or stopped, and what it did since is lost. Where `{target}` is only cut off and still runs it, there are two running copies until it can be reached: nobody but you can know"
    );
    for part in waits_for {
        let when = match (state.phase(), part) {
            (Phase::Releasing, Part::Target) => format!(
                "`{target}` is gone for good, and `{container}` with it: the move ends as completed"
            ),
            (Phase::Releasing, Part::Source) => format!(
                "`{source}` is gone for good: `{container}` runs on `{target}`, and the move ends as completed. If `{source}` comes back, its frozen copy is removed"
            ),
            (Phase::ResumingSource, _) => format!(
                "`{source}` is gone for good, and `{container}` with it: the move ends. If `{source}` comes back, `{container}` is let run on there"
            ),
            (Phase::DiscardingTarget, _) => format!(
                "`{target}` is gone for good: `{container}` runs on `{source}`, and the move ends. If `{target}` comes back, what was sent is removed there"
            ),
            _ => taken_back.clone(),
        };
        let word = match part {
            Part::Source => "--source-is-lost",
            Part::Target => "--target-is-lost",
        };
        ways.push(Way {
            when,
            command: format!("carnet migration give-up {id} {word}"),
        });
    }
    ways
}
