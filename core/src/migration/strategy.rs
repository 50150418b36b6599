use serde::{Deserialize, Serialize};

/// How a container's memory goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All of it while the container stands still. Up to the end the source can go on.
    StopAndCopy,
    /// After the container runs at the target, as it asks for it. It stands still for a moment
    /// only, whatever its memory; until all is over it needs both edges, and if it loses one, it
    /// goes on at the source as it was when it was frozen.
    PostCopy,
    /// Ahead, while the container runs at the source, and while it stands still what it has written
    /// to since. Up to the end the source can go on.
    PreCopy,
    /// Not at all: the container is stopped, or is shut down for it, and then it is started anew at
    /// the target. What it had in memory and its connections are lost.
    Cold,
}

impl Strategy {
    pub const ALL: [Self; 4] = [Self::StopAndCopy, Self::PostCopy, Self::PreCopy, Self::Cold];

    /// Its name as it stands in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAndCopy => "stop_and_copy",
            Self::PostCopy => "post_copy",
            Self::PreCopy => "pre_copy",
            Self::Cold => "cold",
        }
    }
}

/// Less memory than this goes over as fast as anything cleverer is set up, in bytes.
pub const LITTLE_MEMORY_BYTES: u64 = 2 << 20;

/// What a strategy is chosen by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// What whoever asked for the move wants; `None`: the best.
    pub asked: Option<Strategy>,
    /// The container's owner accepts what [`Strategy::PostCopy`] means.
    pub allow_post_copy: bool,
    pub memory_bytes: u64,
    /// What keeps either edge from [`Strategy::PostCopy`], in words.
    pub post_copy_problems: Vec<String>,
    /// What keeps either edge from [`Strategy::PreCopy`], in words.
    pub pre_copy_problems: Vec<String>,
    /// The container does not run.
    pub is_stopped: bool,
    /// What keeps either edge from every strategy but [`Strategy::Cold`], in words.
    pub live_problems: Vec<String>,
}

/// What is said where only [`Strategy::Cold`] is left, and it was not asked for: it is never chosen
/// for a container that runs.
pub const COLD_IS_LEFT: &str = "a cold move needs none of that, if you ask for it (--strategy cold): the container is shut down, and started anew at the target; what it has in memory and its connections are lost";

/// A strategy, and why it is the one, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    pub strategy: Strategy,
    pub reason: String,
}

/// The strategy for a move.
///
/// # Errors
/// Where the one that was asked for cannot be had; what is in its way, and what to do.
pub fn choose(of: &Circumstances) -> Result<Choice, String> {
    let chosen = |strategy, reason: &str| {
        Ok(Choice {
            strategy,
            reason: reason.to_owned(),
        })
    };
    let after = of.post_copy_problems.join("; ");
    let ahead = of.pre_copy_problems.join("; ");
    match of.asked {
        None | Some(Strategy::Cold) if of.is_stopped => chosen(
            Strategy::Cold,
            "it is stopped: only its files go over, and it stays stopped at the target",
        ),
        Some(asked) if of.is_stopped => Err(format!(
            "{} was asked for, and the container is stopped: it has no memory to go over. Ask for no strategy, and it is moved as it is, or start it before",
            asked.name().replace('_', "-")
        )),
        Some(Strategy::Cold) => chosen(
            Strategy::Cold,
            "it was asked for: the container is shut down, and started anew at the target; what it had in memory and its connections are lost",
        ),
        _ if !of.live_problems.is_empty() => Err(format!(
            "it cannot be moved while it runs: {}; {COLD_IS_LEFT}",
            of.live_problems.join("; ")
        )),
        Some(Strategy::StopAndCopy) => chosen(Strategy::StopAndCopy, "it was asked for"),
        Some(Strategy::PostCopy) if !of.allow_post_copy => Err(
            "post-copy was asked for, and the container's owner has not allowed it (allow_post_copy)"
                .to_owned(),
        ),
        Some(Strategy::PostCopy) if after.is_empty() => {
            chosen(Strategy::PostCopy, "it was asked for")
        }
        Some(Strategy::PostCopy) => Err(format!(
            "post-copy was asked for, and cannot be had between these edges: {after}"
        )),
        Some(Strategy::PreCopy) if ahead.is_empty() => {
            chosen(Strategy::PreCopy, "it was asked for")
        }
        Some(Strategy::PreCopy) => Err(format!(
            "pre-copy was asked for, and cannot be had between these edges: {ahead}"
        )),
        None if of.memory_bytes < LITTLE_MEMORY_BYTES => {
            chosen(Strategy::StopAndCopy, "it has little memory")
        }
        // It risks nothing, and so comes before what the owner has to allow.
        None if ahead.is_empty() => chosen(
            Strategy::PreCopy,
            "the source's kernel tells which memory is written to, so that the rest can go ahead",
        ),
        None if !of.allow_post_copy => chosen(
            Strategy::StopAndCopy,
            &format!(
                "memory cannot go ahead: {ahead}; and the container's owner has not allowed it to follow after it runs (allow_post_copy)"
            ),
        ),
        None if !after.is_empty() => chosen(
            Strategy::StopAndCopy,
            &format!(
                "memory cannot go ahead: {ahead}; nor can it follow after it runs: {after}"
            ),
        ),
        None => chosen(
            Strategy::PostCopy,
            &format!(
                "the container's owner allows memory to follow after it runs; it cannot go ahead: {ahead}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for, whether the owner allows memory to follow, whether the edges can have it
    /// follow, whether they can send it ahead, whether there is much; then what comes of it, and a
    /// word of the reason. `*` is either.
    const TABLE: &str = "
        -             *         *      *      little  stop_and_copy  little
        -             *         *      ahead  much    pre_copy       ahead
        -             allowed   after  -      much    post_copy      allows
        -             allowed   -      -      much    stop_and_copy  userfaultfd
        -             forbidden *      -      much    stop_and_copy  allow_post_copy
        post_copy     allowed   after  *      *       post_copy      asked
        post_copy     allowed   -      *      *       refused        userfaultfd
        post_copy     forbidden *      *      *       refused        allow_post_copy
        pre_copy      *         *      ahead  *       pre_copy       asked
        pre_copy      *         *      -      *       refused        dirty
        stop_and_copy *         *      *      *       stop_and_copy  asked
        cold          *         *      *      *       cold           asked";

    #[test]
    fn a_strategy_is_chosen_as_the_table_says() {
        let problem = |able: bool, problem: &str| match able {
            true => Vec::new(),
            false => vec![problem.to_owned()],
        };
        let mut met = 0;
        for asked in [None].into_iter().chain(Strategy::ALL.map(Some)) {
            for case in 0..16 {
                let [allowed, after, ahead, much] = [1, 2, 4, 8].map(|bit| case & bit != 0);
                let circumstances = Circumstances {
                    asked,
                    allow_post_copy: allowed,
                    memory_bytes: LITTLE_MEMORY_BYTES - u64::from(!much),
                    post_copy_problems: problem(after, "no userfaultfd"),
                    pre_copy_problems: problem(ahead, "nothing tells what is dirty"),
                    ..Circumstances::default()
                };
                let either = |word: &str, is: bool, yes: &str, no: &str| {
                    word == "*" || word == if is { yes } else { no }
                };
                let lines: Vec<Vec<&str>> = TABLE
                    .lines()
                    .map(|line| line.split_whitespace().collect::<Vec<_>>())
                    .filter(|words| match words[..] {
                        [name, owner, follow, go_ahead, memory, _, _] => {
                            name == asked.map_or("-", Strategy::name)
                                && either(owner, allowed, "allowed", "forbidden")
                                && either(follow, after, "after", "-")
                                && either(go_ahead, ahead, "ahead", "-")
                                && either(memory, much, "much", "little")
                        }
                        _ => false,
                    })
                    .collect();
                let [line] = &lines[..] else {
                    panic!("{circumstances:?}: {lines:?}");
                };
                let (chosen, reason) = match choose(&circumstances) {
                    Ok(choice) => (choice.strategy.name(), choice.reason),
                    Err(reason) => ("refused", reason),
                };
                assert_eq!(chosen, line[5], "{circumstances:?}");
                assert!(reason.contains(line[6]), "{line:?}: {reason}");
                met += 1;
            }
        }
        assert_eq!(met, 5 * 16);
    }

    /// What is asked for, whether it runs, whether CRIU can on both edges; then what comes of it,
    /// and a word of the reason.
    const COLD_TABLE: &str = "
        -             stopped     able      cold           stays
        -             stopped     unable    cold           stays
        -             runs        unable    refused        --strategy
        cold          stopped     able      cold           stays
        cold          stopped     unable    cold           stays
        cold          runs        able      cold           lost
        cold          runs        unable    cold           lost
        stop_and_copy stopped     able      refused        stopped
        stop_and_copy stopped     unable    refused        stopped
        stop_and_copy runs        unable    refused        criu
        post_copy     stopped     able      refused        post-copy
        post_copy     stopped     unable    refused        stopped
        post_copy     runs        unable    refused        criu
        pre_copy      stopped     able      refused        pre-copy
        pre_copy      runs        unable    refused        criu";

    #[test]
    fn cold_is_for_what_is_stopped_and_for_who_asks_for_it() {
        for line in COLD_TABLE.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [asked, state, edges, expected, word] = words[..] else {
                panic!("{line}");
            };
            let circumstances = Circumstances {
                asked: Strategy::ALL
                    .into_iter()
                    .find(|strategy| strategy.name() == asked),
                // Nothing of that makes a difference.
                allow_post_copy: true,
                memory_bytes: LITTLE_MEMORY_BYTES,
                is_stopped: state == "stopped",
                live_problems: match edges {
                    "able" => Vec::new(),
                    _ => vec!["criu is missing".to_owned()],
                },
                ..Circumstances::default()
            };
            let (chosen, reason) = match choose(&circumstances) {
                Ok(choice) => (choice.strategy.name(), choice.reason),
                Err(reason) => ("refused", reason),
            };
            assert_eq!(chosen, expected, "{line}");
            assert!(reason.contains(word), "{line}: {reason}");
        }
    }
}
