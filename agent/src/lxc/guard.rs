//! The guard of a container whose memory follows after it runs: a process of its own beside the
//! agent, so that it outlives it.
//!
//! `criu lazy-pages` fills in pages of memory as the container asks for them. Were it to end before
//! all are there, the kernel would give the container empty pages, and it would run on with
//! corrupted memory. So the guard
//!
//! - holds a copy of each userfaultfd, which it sees pass from CRIU's restore to `criu lazy-pages`:
//!   as long as it is open, whoever asks for a page waits;
//! - holds both ends of the socket that pages come by, so that `criu lazy-pages` never sees it end;
//! - kills the container before it lets go of either, where `criu lazy-pages` fails, or the agent
//!   dies or says so.
//!
//! ```text
//! standard input   from the agent: `begin` once the images are here; its end: kill
//! standard output  to the agent: `ready`, and `whole` when all memory is there
//! descriptor 10    where pages come by
//! descriptor 11    its other end
//! DIRECTORY/memory `whole` or `lost`, for an agent that was not there to hear it
//! ```

use std::fs;
use std::io::{BufRead, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{self, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process;
use tokio::task::AbortHandle;

use super::cgroup::Cgroup;
use super::criu::{self, socket_pair};
use super::prepaging::{self, Layout, Prepager};
use crate::exec::Command;
use crate::runtime::{ContainerName, Pages};

/// The descriptors of a guard.
const PAGES_FD: i32 = 10;
const OTHER_END_FD: i32 = 11;
/// What a guard says.
const READY: &str = "ready";
const WHOLE: &str = "whole";
const LOST: &str = "lost";
/// For how long the way that pages come by may have ended before that counts as a loss: whoever
/// has got its last page says so within that time.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How long `criu lazy-pages` may take to begin, and a container to die.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);
/// While `criu lazy-pages` waits for pages, it asks the kernel over and over whether one has come,
/// and so is never idle: whoever brings pages goes before it, and the container that waits for none.
const NICENESS: &str = "5";
/// The name of the socket by which CRIU's restore hands userfaultfds over.
const SOCKET: &str = "lazy-pages.socket";

/// A guard, as the agent has it.
#[derive(Debug)]
pub struct Guard {
    input: Option<process::ChildStdin>,
    output: Lines<BufReader<process::ChildStdout>>,
    /// The agent's end of the way that pages come by, until they do.
    near: Option<UnixStream>,
    /// How CRIU talks of them.
    layout: Layout,
    images: PathBuf,
    /// Passes them on.
    pump: Option<AbortHandle>,
}

impl Guard {
    /// Starts a guard for the container `name`: `program agent guard`.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(
        program: &Path,
        name: &ContainerName,
        directory: &Path,
        images: &Path,
        layout: Layout,
    ) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("a guard for `{name}`: {error}");
        let (near, far) = socket_pair().map_err(told)?;
        let other_end = near.as_fd().try_clone_to_owned().map_err(told)?;
        let mut child = Command::new(program.display().to_string())
            .args(["agent", "guard", "--container", name.as_str()])
            .arg("--directory")
            .arg(directory.display().to_string())
            .arg("--images")
            .arg(images.display().to_string())
            .inherit(PAGES_FD, far)
            .inherit(OTHER_END_FD, other_end)
            .talk()
            .map_err(|error| error.to_string())?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("a guard for `{name}` cannot be talked to"));
        };
        Ok(Self {
            input: Some(input),
            output: BufReader::new(output).lines(),
            near: Some(near),
            layout,
            images: images.to_owned(),
            pump: None,
        })
    }

    /// The images are here, and the rest of the memory comes by `pages`. Returns once CRIU may
    /// begin.
    ///
    /// # Errors
    /// Where the guard has failed, or the images do not say what follows.
    pub async fn begin(&mut self, pages: Pages) -> Result<(), String> {
        let (Some(mut input), Some(near)) = (self.input.take(), self.near.take()) else {
            return Err("the guard was told to begin before".to_owned());
        };
        input
            .write_all(b"begin\n")
            .await
            .map_err(|error| format!("the guard: {error}"))?;
        let prepager = Prepager::of(&self.images)?;
        let layout = self.layout;
        let pump = tokio::spawn(async move {
            if let Err(error) = prepaging::pass(near, pages, prepager, layout).await {
                tracing::warn!(%error, "no more pages come");
            }
            // The guard is told by the end of its input.
            drop(input);
        });
        self.pump = Some(pump.abort_handle());
        self.hear(READY).await.inspect_err(|_| self.stop_pages())
    }

    /// Waits until all memory is there.
    ///
    /// # Errors
    /// Where it never will be; the container has been killed.
    pub async fn settle(&mut self) -> Result<(), String> {
        self.hear(WHOLE).await.map_err(|_| lost())
    }

    /// Lets no more pages come: where the guard has died, `criu lazy-pages` ends then.
    pub fn stop_pages(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
        }
    }

    async fn hear(&mut self, expected: &str) -> Result<(), String> {
        match self.output.next_line().await {
            Ok(Some(line)) if line == expected => Ok(()),
            Ok(Some(line)) => Err(format!("the guard says: {line}")),
            Ok(None) => Err("the guard has ended".to_owned()),
            Err(error) => Err(format!("the guard: {error}")),
        }
    }
}

/// What is told of a container whose memory was lost.
fn lost() -> String {
    "pages of its memory stopped coming before all were here (the link broke, or an agent or the \
     page server at the source died); it was killed at once"
        .to_owned()
}

/// Waits until the guard of a container has said what became of its memory, for an agent that did
/// not start it. A guard sees that its agent is gone, and does not wait.
///
/// # Errors
/// Where memory was lost, or the guard says nothing.
pub async fn await_outcome(directory: &Path) -> Result<(), String> {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        match fs::read_to_string(directory.join("memory")) {
            Ok(outcome) if outcome == WHOLE => return Ok(()),
            Ok(outcome) if outcome == LOST => return Err(lost()),
            _ if tokio::time::Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            _ => return Err(lost()),
        }
    }
}

/// What a guard is for.
#[derive(Debug, Clone)]
pub struct Post {
    pub container: String,
    pub directory: PathBuf,
    pub images: PathBuf,
}

/// Is a guard, to its end.
///
/// # Errors
/// Where memory was lost, or it cannot guard; the container has been killed.
pub fn run(post: &Post) -> Result<(), String> {
    let outcome = stand(post);
    let word = match outcome {
        Ok(()) => WHOLE,
        Err(_) => {
            kill(post);
            LOST
        }
    };
    let path = post.directory.join("memory");
    fs::write(&path, word).map_err(|error| format!("{}: {error}", path.display()))?;
    say(word);
    outcome
}

fn say(word: &str) {
    // An agent that died does not hear it.
    let _ = writeln!(std::io::stdout(), "{word}");
}

/// Kills the container, and waits until nothing of it runs.
fn kill(post: &Post) {
    let Some(cgroup) = Cgroup::find(
        Path::new(super::CGROUPS),
        &format!("lxc.payload.{}", post.container),
    ) else {
        return;
    };
    let _ = fs::write(cgroup.path().join("cgroup.kill"), "1");
    let deadline = Instant::now() + LIMIT;
    while cgroup.is_populated() && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
}

fn stand(post: &Post) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    #[expect(
        unsafe_code,
        reason = "whoever starts a guard gives it this descriptor, and nothing else here has it"
    )]
    let other_end = unsafe { OwnedFd::from_raw_fd(OTHER_END_FD) };
    // The guard's alone: once it and the agent are gone, so is that end.
    fcntl(&other_end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
        .map_err(|error| format!("descriptor {OTHER_END_FD}: {error}"))?;
    // What it takes to begin at all is over by the time that somebody waits for it; it stops where
    // it reads its options.
    let (options, mut way) = std::io::pipe().map_err(|error| failed("a pipe", error))?;
    fcntl(&options, FcntlArg::F_SETFD(FdFlag::empty()))
        .map_err(|error| format!("a pipe: {error}"))?;
    let mut daemon = Process::new("nice")
        .args(["-n", NICENESS, "criu", "lazy-pages"])
        .env(
            criu::OPTIONS,
            format!("/proc/self/fd/{}", options.as_raw_fd()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| failed("criu lazy-pages", error))?;
    drop(options);
    let mut line = String::new();
    let read = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| failed("standard input", error))?;
    if read == 0 || line.trim() != "begin" {
        // It has done nothing yet.
        let _ = daemon.kill();
        let _ = daemon.wait();
        return Err("it was never told to begin".to_owned());
    }
    let work = post.images.join("lazy");
    fs::create_dir_all(&work).map_err(|error| failed(&work.display().to_string(), error))?;
    let options = criu::as_file(&[
        "--page-server".to_owned(),
        format!("--ps-socket {PAGES_FD}"),
        format!("--images-dir {}", post.images.display()),
        format!("--work-dir {}", work.display()),
        "--log-file lazy-pages.log".to_owned(),
    ]);
    way.write_all(options.as_bytes())
        .map_err(|error| failed("the options of criu lazy-pages", error))?;
    drop(way);
    let daemon = Arc::new(Mutex::new(daemon));
    let socket = work.join(SOCKET);
    let deadline = Instant::now() + LIMIT;
    while !socket.exists() {
        if ended(&daemon)?.is_some() || Instant::now() > deadline {
            return Err("criu lazy-pages does not begin".to_owned());
        }
        std::thread::sleep(PAUSE);
    }
    // Where CRIU's restore looks for it.
    let listener = UnixListener::bind(post.images.join(SOCKET))
        .map_err(|error| failed("the socket for userfaultfds", error))?;
    let held = Arc::new(Mutex::new(Vec::new()));
    let holding = held.clone();
    std::thread::spawn(move || {
        if let Err(error) = relay(&listener, &socket, &holding) {
            eprintln!("carnet agent guard: {error}");
        }
    });
    say(READY);
    let watched = daemon.clone();
    let agent_is_gone = Arc::new(Mutex::new(None));
    let told = agent_is_gone.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    });
    let outcome = loop {
        if let Some(status) = ended(&watched)? {
            break if status.success() {
                Ok(())
            } else {
                Err(format!("criu lazy-pages ended with {status}"))
            };
        }
        let since = *agent_is_gone.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_some_and(|since| since.elapsed() > LAST_WORD) {
            break Err("no more pages come".to_owned());
        }
        std::thread::sleep(5 * PAUSE);
    };
    if outcome.is_err() {
        // Before any descriptor is closed.
        kill(post);
        let mut daemon = daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = daemon.kill();
        let _ = daemon.wait();
    }
    drop((held, other_end));
    outcome
}

fn ended(daemon: &Mutex<Child>) -> Result<Option<ExitStatus>, String> {
    daemon
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .try_wait()
        .map_err(|error| format!("criu lazy-pages: {error}"))
}

/// Passes on what CRIU's restore says to `criu lazy-pages` at `socket`, and keeps a copy of every
/// descriptor that is handed over.
fn relay(
    listener: &UnixListener,
    socket: &Path,
    held: &Mutex<Vec<OwnedFd>>,
) -> Result<(), std::io::Error> {
    let (restore, _) = listener.accept()?;
    let daemon = net::UnixStream::connect(socket)?;
    let mut buffer = [0; 256];
    loop {
        let mut space = nix::cmsg_space!([i32; 8]);
        let (count, descriptors) = {
            let mut pieces = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<()>(
                restore.as_raw_fd(),
                &mut pieces,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            )?;
            let mut descriptors = Vec::new();
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(received) = control {
                    descriptors.extend(received);
                }
            }
            (message.bytes, descriptors)
        };
        if count == 0 {
            return Ok(());
        }
        let received = buffer.get(..count).unwrap_or_default();
        // A descriptor comes with a byte of its own, which the kernel gives out together with what
        // was said before it. Whoever reads that alone would lose the descriptor.
        let (before, with) = received.split_at(count - usize::from(!descriptors.is_empty()));
        (&daemon).write_all(before)?;
        if !descriptors.is_empty() {
            sendmsg::<()>(
                daemon.as_raw_fd(),
                &[IoSlice::new(with)],
                &[ControlMessage::ScmRights(&descriptors)],
                MsgFlags::empty(),
                None,
            )?;
        }
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        for descriptor in descriptors {
            #[expect(
                unsafe_code,
                reason = "the kernel has just made it for this process, and nobody else has it"
            )]
            held.push(unsafe { OwnedFd::from_raw_fd(descriptor) });
        }
    }
}
