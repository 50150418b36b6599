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
    /// Not at all: the container is stopped, or is shut down for it, and then it is started anew at
    /// the target. What it had in memory and its connections are lost.
    Cold,
}

impl Strategy {
    /// Its name as it stands in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::StopAndCopy => "stop_and_copy",
            Self::PostCopy => "post_copy",
            Self::Cold => "cold",
        }
    }
}

/// Less memory than this goes over as fast as asking for it page by page is set up, in bytes.
pub const POST_COPY_FROM_BYTES: u64 = 2 << 20;

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
    let problems = of.post_copy_problems.join("; ");
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
        Some(Strategy::PostCopy) if problems.is_empty() => {
            chosen(Strategy::PostCopy, "it was asked for")
        }
        Some(Strategy::PostCopy) => Err(format!(
            "post-copy was asked for, and cannot be had between these edges: {problems}"
        )),
        None if !of.allow_post_copy => chosen(
            Strategy::StopAndCopy,
            "the container's owner has not allowed memory to follow after it runs (allow_post_copy)",
        ),
        None if !problems.is_empty() => chosen(
            Strategy::StopAndCopy,
            &format!("memory cannot follow after it runs: {problems}"),
        ),
        None if of.memory_bytes < POST_COPY_FROM_BYTES => {
            chosen(Strategy::StopAndCopy, "it has little memory")
        }
        None => chosen(
            Strategy::PostCopy,
            "the container's owner allows memory to follow after it runs",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for, whether the owner allows it, whether the edges can, whether there is
    /// much memory; then what comes of it, and a word of the reason.
    const TABLE: &str = "
        -             allowed     able    much    post_copy      allows
        -             allowed     able    little  stop_and_copy  little
        -             allowed     unable  much    stop_and_copy  userfaultfd
        -             allowed     unable  little  stop_and_copy  userfaultfd
        -             forbidden   able    much    stop_and_copy  allow_post_copy
        -             forbidden   able    little  stop_and_copy  allow_post_copy
        -             forbidden   unable  much    stop_and_copy  allow_post_copy
        -             forbidden   unable  little  stop_and_copy  allow_post_copy
        post_copy     allowed     able    much    post_copy      asked
        post_copy     allowed     able    little  post_copy      asked
        post_copy     allowed     unable  much    refused        userfaultfd
        post_copy     allowed     unable  little  refused        userfaultfd
        post_copy     forbidden   able    much    refused        allow_post_copy
        post_copy     forbidden   able    little  refused        allow_post_copy
        post_copy     forbidden   unable  much    refused        allow_post_copy
        post_copy     forbidden   unable  little  refused        allow_post_copy
        stop_and_copy allowed     able    much    stop_and_copy  asked
        stop_and_copy allowed     able    little  stop_and_copy  asked
        stop_and_copy allowed     unable  much    stop_and_copy  asked
        stop_and_copy allowed     unable  little  stop_and_copy  asked
        stop_and_copy forbidden   able    much    stop_and_copy  asked
        stop_and_copy forbidden   able    little  stop_and_copy  asked
        stop_and_copy forbidden   unable  much    stop_and_copy  asked
        stop_and_copy forbidden   unable  little  stop_and_copy  asked";

    #[test]
    fn a_strategy_is_chosen_as_the_table_says() {
        let mut count = 0;
        for line in TABLE.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [asked, owner, edges, memory, expected, word] = words[..] else {
                panic!("{line}");
            };
            let circumstances = Circumstances {
                asked: [Strategy::PostCopy, Strategy::StopAndCopy]
                    .into_iter()
                    .find(|strategy| strategy.name() == asked),
                allow_post_copy: owner == "allowed",
                memory_bytes: match memory {
                    "much" => POST_COPY_FROM_BYTES,
                    _ => POST_COPY_FROM_BYTES - 1,
                },
                post_copy_problems: match edges {
                    "able" => Vec::new(),
                    _ => vec!["no userfaultfd".to_owned()],
                },
                ..Circumstances::default()
            };
            let (chosen, reason) = match choose(&circumstances) {
                Ok(choice) => (choice.strategy.name(), choice.reason),
                Err(reason) => ("refused", reason),
            };
            assert_eq!(chosen, expected, "{line}");
            assert!(reason.contains(word), "{line}: {reason}");
            count += 1;
        }
        assert_eq!(count, 3 * 2 * 2 * 2);
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
        post_copy     runs        unable    refused        criu";

    #[test]
    fn cold_is_for_what_is_stopped_and_for_who_asks_for_it() {
        for line in COLD_TABLE.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [asked, state, edges, expected, word] = words[..] else {
                panic!("{line}");
            };
            let circumstances = Circumstances {
                asked: [Strategy::PostCopy, Strategy::StopAndCopy, Strategy::Cold]
                    .into_iter()
                    .find(|strategy| strategy.name() == asked),
                // Nothing of that makes a difference.
                allow_post_copy: true,
                memory_bytes: POST_COPY_FROM_BYTES,
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
