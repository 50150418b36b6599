//! A container that is about to be restored.
//!
//! `lxc-checkpoint --restore` is started before there is anything to restore from. LXC does its
//! part (configuration, monitor, cgroups, mounts), and where it would run CRIU it finds a script of
//! ours, which has CRIU begin, and stop at the gate: a FIFO, which CRIU takes for the first of two
//! files of options, and which nobody has opened. That it is opened is the first word: the images
//! are here. CRIU makes the processes, and before it lets them run it calls another script, which
//! waits for the second word: the container may run.
//!
//! ```text
//! /run/carnet/standby/NAME/criu      the script in CRIU's place
//! /run/carnet/standby/NAME/gate      FIFO: opened for CRIU to go on; `stop`, which is no option of
//!                                    CRIU's, for it to end
//! /run/carnet/standby/NAME/hook      the script that CRIU calls
//! /run/carnet/standby/NAME/word      FIFO: `go` or `stop`, to that script
//! /run/carnet/standby/NAME/told      FIFO: which script has come to its point
//! /run/carnet/standby/NAME/criu.conf options for CRIU
//! /run/carnet/standby/NAME/started   it was let run
//! /run/carnet/standby/NAME/runs      LXC has seen that it does
//! /run/carnet/standby/NAME/memory    what became of memory that was to follow: see `guard`
//! ```
//!
//! Where the agent dies, CRIU stays at the gate, and the script that it calls finds nobody at the
//! other end of its FIFOs, and ends: what was made then ends too, without having run. Whoever waits
//! for a FIFO to be opened at all is woken by [`sweep`].

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::cgroup::{wait_until, wait_until_within};
use super::criu::{EXTERNAL_NETWORK, LIMIT, with_log};
use super::grace::NoGracePeriods;
use super::guard::Guard;
use super::prepaging::Layout;
use crate::exec::{Command, CommandError};
use crate::runtime::{ContainerName, Pages};

/// Where all of this is; on tmpfs, gone with the machine's end.
const DIRECTORY: &str = "/run/carnet/standby";
/// The descriptor under which CRIU finds the network namespace.
const NETWORK_FD: i32 = 9;
/// CRIU's option for memory that follows.
const LAZY: &str = "lazy-pages";
/// The word that ends what stands by.
const STOP: &[u8] = b"stop\n";
/// How long LXC may take for its part.
const DOOR_LIMIT: Duration = Duration::from_secs(30);

const DOOR: &str = r#"#!/bin/sh
# In CRIU's place: LXC has done its part. Next come the images.
[ "$1" = --version ] && exec "$CARNET_CRIU" "$@"
echo door > "$CARNET_STANDBY/told"
export CRIU_CONFIG_FILE="$CARNET_STANDBY/gate"
exec "$CARNET_CRIU" "$@" --config "$CARNET_STANDBY/criu.conf"
"#;

const HOOK: &str = r#"#!/bin/sh
# Called by CRIU. The processes are made; where this fails, CRIU kills them.
[ "$CRTOOLS_SCRIPT_ACTION" = post-restore ] || exit 0
echo restored > "$CARNET_STANDBY/told"
read -r word < "$CARNET_STANDBY/word"
[ "$word" = go ] && : > "$CARNET_STANDBY/started"
"#;

/// A container that waits for a word.
#[derive(Debug)]
pub struct Standby {
    /// `None` once it is known how it ended.
    lxc: Option<JoinHandle<Result<String, CommandError>>>,
    gate: PathBuf,
    word: pipe::Sender,
    told: BufReader<pipe::Receiver>,
    log: PathBuf,
    is_restored: bool,
    guard: Option<Guard>,
    _grace: NoGracePeriods,
}

/// What is needed to begin.
pub struct Begin<'a> {
    pub name: &'a ContainerName,
    pub images: &'a Path,
    /// Its network namespace.
    pub network: &'a Path,
    /// Where memory follows: how CRIU asks for it.
    pub pages: Option<Layout>,
    /// The program `carnet`.
    pub program: &'a Path,
    /// Where CRIU is.
    pub criu: &'a Path,
}

/// Where what concerns the container `name` is.
pub fn directory(name: &ContainerName) -> PathBuf {
    Path::new(DIRECTORY).join(name.as_str())
}

/// Whether the container was let run. Where nothing is known, because the machine has started
/// anew since, it counts as if it had: a copy that may have answered clients is never replaced.
pub fn has_started(name: &ContainerName) -> bool {
    let directory = directory(name);
    !directory.exists() || directory.join("started").exists()
}

/// Whether anything is known of what became of the container here.
pub fn is_known(name: &ContainerName) -> bool {
    directory(name).exists()
}

/// Remembers that the container has not run, and forgets all else.
///
/// # Errors
/// Where that cannot be written.
pub fn has_not_run(name: &ContainerName) -> Result<(), String> {
    let directory = directory(name);
    let _ = fs::remove_dir_all(&directory);
    make(&directory)
}

/// Remembers that the container is let run, where anything is known of it.
///
/// # Errors
/// Where that cannot be written.
pub fn is_let_run(name: &ContainerName) -> Result<(), String> {
    is_so(name, "started")
}

/// Whether the container is known to have run.
pub fn has_run(name: &ContainerName) -> bool {
    let directory = directory(name);
    !directory.exists() || directory.join("runs").exists()
}

/// Remembers that the container runs.
///
/// # Errors
/// Where that cannot be written.
pub fn is_known_to_run(name: &ContainerName) -> Result<(), String> {
    is_so(name, "runs")
}

fn is_so(name: &ContainerName, file: &str) -> Result<(), String> {
    let directory = directory(name);
    if !directory.exists() {
        return Ok(());
    }
    let path = directory.join(file);
    File::create(&path).map(drop).map_err(failed(&path))
}

fn make(directory: &Path) -> Result<(), String> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed(directory))
}

/// Remembers that the container was let run, and did not come to it.
///
/// # Errors
/// Where that cannot be written.
pub fn has_failed(name: &ContainerName) -> Result<(), String> {
    let path = directory(name).join("started");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(&path)(error)),
        _ => Ok(()),
    }
}

/// Whether its memory follows, or has followed, after it runs.
pub fn is_guarded(name: &ContainerName) -> bool {
    let options = fs::read_to_string(directory(name).join("criu.conf"));
    options.is_ok_and(|options| options.lines().any(|line| line == LAZY))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> String + use<> {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}

impl Standby {
    /// Has LXC do its part.
    ///
    /// # Errors
    /// Where it does not; nothing is left then but files.
    pub async fn begin(begin: Begin<'_>) -> Result<Self, String> {
        let grace = NoGracePeriods::begin();
        let directory = directory(begin.name);
        let _ = fs::remove_dir_all(&directory);
        make(&directory)?;
        let write = |file: &str, text: &str| {
            let path = directory.join(file);
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o700)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(failed(&path))
        };
        write("criu", DOOR)?;
        write("hook", HOOK)?;
        let lazy = begin.pages.map_or("", |_| LAZY);
        // LXC passes CRIU no options of ours; CRIU reads them from here. The network is locked
        // from outside: the veth is on no bridge.
        write(
            "criu.conf",
            &format!(
                "inherit-fd fd[{NETWORK_FD}]:{EXTERNAL_NETWORK}\nnetwork-lock skip\naction-script {}\n{lazy}\n",
                directory.join("hook").display()
            ),
        )?;
        let (gate, word, told) = fifos(&directory)?;
        let guard =
            |layout| Guard::start(begin.program, begin.name, &directory, begin.images, layout);
        let guard = begin.pages.map(guard).transpose()?;
        let network = File::open(begin.network).map_err(failed(begin.network))?;
        let path = std::env::var("PATH").unwrap_or_default();
        let lxc = Command::new("lxc-checkpoint")
            .args(["--restore", "--name", begin.name.as_str()])
            .arg("--checkpoint-dir")
            .arg(begin.images.display().to_string())
            .env("PATH", format!("{}:{path}", directory.display()))
            .env("CARNET_STANDBY", &directory)
            .env("CARNET_CRIU", begin.criu)
            .inherit(NETWORK_FD, network)
            // The container's monitor keeps standard output open for as long as it lives.
            .detached()
            .limit(LIMIT)
            .start()
            .map_err(|error| error.to_string())?;
        let mut standby = Self {
            lxc: Some(tokio::spawn(lxc.end())),
            gate,
            word,
            told: BufReader::new(told),
            log: begin.images.join("restore.log"),
            is_restored: false,
            guard,
            _grace: grace,
        };
        match tokio::time::timeout(DOOR_LIMIT, standby.hear("door")).await {
            Ok(heard) => heard.map(|()| standby),
            Err(_) => {
                standby.stop().await;
                Err(format!(
                    "LXC has not made ready for `{}` within {} s",
                    begin.name,
                    DOOR_LIMIT.as_secs()
                ))
            }
        }
    }

    /// Whether only the second word is missing.
    pub fn is_restored(&self) -> bool {
        self.is_restored
    }

    /// Says the first word: the images are here. Returns when the processes are made.
    ///
    /// # Errors
    /// Where they cannot be; nothing of it is left then.
    pub async fn restore(&mut self, pages: Option<Pages>) -> Result<(), String> {
        if let Some(guard) = &mut self.guard {
            let pages = pages.ok_or("the memory that was to follow cannot be had any more")?;
            guard.begin(pages).await?;
        }
        drop(self.open_gate().await?);
        self.hear("restored").await?;
        self.is_restored = true;
        Ok(())
    }

    /// Says the second word: it may run. Returns when LXC has seen that it does, with the guard
    /// of memory that follows.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn start(&mut self) -> Result<Option<Guard>, String> {
        self.say("go").await?;
        self.ended().await?;
        Ok(self.guard.take())
    }

    /// Ends it: what was made has not run.
    pub async fn stop(mut self) {
        // What does not listen any more has ended.
        if self.is_restored {
            let _ = self.say("stop").await;
        } else if let Ok(mut gate) = self.open_gate().await {
            let _ = gate.write_all(STOP).await;
        }
        let _ = self.ended().await;
    }

    /// Waits until CRIU is at the gate, and opens it. It goes on when the gate is closed again.
    async fn open_gate(&mut self) -> Result<pipe::Sender, String> {
        let Some(lxc) = self.lxc.as_mut() else {
            return Err("LXC has ended".to_owned());
        };
        let mut opened = None;
        let gate = self.gate.clone();
        let coming = wait_until_within(DOOR_LIMIT, || {
            opened = pipe::OpenOptions::new().open_sender(&gate).ok();
            opened.is_some()
        });
        tokio::select! {
            is_there = coming => match is_there {
                true => {}
                false => return Err(format!("CRIU has not begun within {} s", DOOR_LIMIT.as_secs())),
            },
            ended = lxc => {
                self.lxc = None;
                return Err(self.why(ended));
            }
        }
        opened.ok_or_else(|| "CRIU has gone from the gate".to_owned())
    }

    async fn say(&mut self, word: &str) -> Result<(), String> {
        let said = self.word.write_all(format!("{word}\n").as_bytes()).await;
        said.map_err(|error| format!("a word to CRIU: {error}"))
    }

    /// Waits until a script says who it is, or LXC has ended.
    async fn hear(&mut self, expected: &str) -> Result<(), String> {
        let Some(lxc) = self.lxc.as_mut() else {
            return Err("LXC has ended".to_owned());
        };
        let mut line = String::new();
        tokio::select! {
            heard = self.told.read_line(&mut line) => match heard {
                Ok(_) if line.trim() == expected => Ok(()),
                Ok(_) => Err(format!("a script of LXC's says `{}` in place of `{expected}`", line.trim())),
                Err(error) => Err(format!("a word from CRIU: {error}")),
            },
            ended = lxc => {
                self.lxc = None;
                Err(self.why(ended))
            }
        }
    }

    /// Waits for LXC's end.
    async fn ended(&mut self) -> Result<(), String> {
        match self.lxc.take() {
            None => Err("LXC has ended".to_owned()),
            Some(lxc) => match lxc.await {
                Ok(Ok(_)) => Ok(()),
                ended => Err(self.why(ended)),
            },
        }
    }

    /// Why LXC ended, with what CRIU says of it.
    fn why(&self, ended: Result<Result<String, CommandError>, tokio::task::JoinError>) -> String {
        match ended {
            Ok(Ok(_)) => "LXC says that it is done, and it is not".to_owned(),
            Ok(Err(error)) => with_log(&error, &self.log),
            Err(error) => error.to_string(),
        }
    }
}

/// The gate, which stays closed, and the other two. Of these both ends are held here, so that no
/// script has to wait for somebody to open one.
fn fifos(directory: &Path) -> Result<(PathBuf, pipe::Sender, pipe::Receiver), String> {
    let made = |name: &str| {
        let path = directory.join(name);
        if !path.exists() {
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok::<_, String>(path)
    };
    let (gate, word, told) = (made("gate")?, made("word")?, made("told")?);
    let word = pipe::OpenOptions::new()
        .read_write(true)
        .open_sender(&word)
        .map_err(failed(&word))?;
    let told = pipe::OpenOptions::new()
        .read_write(true)
        .open_receiver(&told)
        .map_err(failed(&told))?;
    Ok((gate, word, told))
}

/// Ends what an agent that died has left standing by: it has not run.
pub async fn sweep(has_ended: impl Fn(&ContainerName) -> bool) {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(name) = ContainerName::new(&entry.file_name().to_string_lossy()) else {
            continue;
        };
        if has_started(&name) || !path.join("word").exists() {
            continue;
        }
        let Ok((gate, mut word, _told)) = fifos(&path) else {
            continue;
        };
        if word.write_all(STOP).await.is_err() {
            continue;
        }
        // CRIU may only be on its way to the gate.
        let stopped = || {
            if let Ok(gate) = pipe::OpenOptions::new().open_sender(&gate) {
                let _ = gate.try_write(STOP);
            }
            has_ended(&name)
        };
        if !wait_until(stopped).await {
            tracing::warn!(container = %name, "what was to be restored does not end");
        }
        let _ = fs::remove_file(gate);
        let _ = fs::remove_file(path.join("word"));
        let _ = fs::remove_file(path.join("told"));
    }
}
