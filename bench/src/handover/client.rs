//! The client outside: asks the container all the time, by one TCP connection, and sees how long
//! it waits. Where a connection is lost with every move, one that connects anew each time it asks.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// An answer that takes longer counts as a lost connection.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Pause between an answer and the next question: the resolution with which a stall is seen.
const PAUSE: Duration = Duration::from_millis(1);

/// How long one connection of those that are made anew may take, and an answer by it.
const KNOCK_LIMIT: Duration = Duration::from_millis(20);

/// One connection, in use all the time.
pub struct Client {
    window: Arc<Mutex<Window>>,
    stream: TcpStream,
    asking: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Window {
    longest_gap: Duration,
    /// What cannot be: the container went back, or lost memory, or the connection broke.
    fault: Option<String>,
    answers: u64,
}

impl Client {
    /// Goes on asking through `stream` until dropped.
    ///
    /// # Errors
    /// Where it cannot be used.
    pub fn start(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let window = Arc::new(Mutex::new(Window::default()));
        let asking = std::thread::spawn({
            let (window, mut stream) = (window.clone(), stream.try_clone()?);
            move || {
                if let Err(fault) = ask(&mut stream, &window) {
                    lock(&window).fault.get_or_insert(fault);
                }
            }
        });
        Ok(Self {
            window,
            stream,
            asking: Some(asking),
        })
    }

    /// What happened before is forgotten.
    pub fn begin(&self) {
        lock(&self.window).longest_gap = Duration::ZERO;
    }

    /// Waits for another answer; returns the longest time between two since [`begin`](Self::begin).
    ///
    /// # Errors
    /// Where the container or its connection is not whole.
    pub fn longest_gap(&self) -> Result<Duration, String> {
        longest_gap(&self.window)
    }
}

/// Connects anew each time it asks: what answers may have begun anew, and remember nothing.
pub struct Knocking {
    window: Arc<Mutex<Window>>,
    is_over: Arc<AtomicBool>,
    asking: Option<JoinHandle<()>>,
}

impl Knocking {
    /// Asks at `address` until dropped, by `within`, which brings a thread into the client's network.
    pub fn start(
        address: SocketAddr,
        within: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Self {
        let (window, is_over): (Arc<Mutex<Window>>, Arc<AtomicBool>) = Default::default();
        let asking = std::thread::spawn({
            let (window, is_over) = (window.clone(), is_over.clone());
            move || match within() {
                Err(fault) => {
                    lock(&window).fault.get_or_insert(fault);
                }
                Ok(()) => {
                    let mut last = Instant::now();
                    while !is_over.load(Ordering::Relaxed) {
                        if knock(address).is_ok() {
                            let now = Instant::now();
                            let mut window = lock(&window);
                            window.longest_gap = window.longest_gap.max(now.duration_since(last));
                            window.answers += 1;
                            last = now;
                        }
                        std::thread::sleep(PAUSE);
                    }
                }
            }
        });
        Self {
            window,
            is_over,
            asking: Some(asking),
        }
    }

    /// Waits until it is answered once more; returns the longest time between two answers.
    ///
    /// # Errors
    /// Where nobody answers any more.
    pub fn longest_gap(&self) -> Result<Duration, String> {
        longest_gap(&self.window)
    }
}

impl Drop for Knocking {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

fn knock(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, KNOCK_LIMIT)?;
    stream.set_read_timeout(Some(KNOCK_LIMIT))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0; 17])
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread's next question fails.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(asking) = self.asking.take() {
            let _ = asking.join();
        }
    }
}

/// Waits for two more answers.
fn longest_gap(window: &Mutex<Window>) -> Result<Duration, String> {
    let before = lock(window).answers;
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let window = lock(window);
        if let Some(fault) = &window.fault {
            return Err(fault.clone());
        }
        if window.answers > before + 1 {
            return Ok(window.longest_gap);
        }
        drop(window);
        if Instant::now() > deadline {
            return Err("the container does not answer any more".to_owned());
        }
        std::thread::sleep(PAUSE);
    }
}

fn lock(window: &Mutex<Window>) -> std::sync::MutexGuard<'_, Window> {
    window.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what is wrong; nothing else ends it.
fn ask(stream: &mut TcpStream, window: &Mutex<Window>) -> Result<(), String> {
    let broken = |error: io::Error| format!("the connection broke: {error}");
    let (mut answers, mut pages) = (0, 0);
    let mut last = Instant::now();
    loop {
        let mut told = [0; 17];
        stream.write_all(b"?").map_err(broken)?;
        stream.read_exact(&mut told).map_err(broken)?;
        let now = Instant::now();
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, is_wrong] = told;
        let said = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let rewritten = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
        if said <= answers || rewritten < pages {
            return Err(format!(
                "the container went back: answer {said} after {answers}, page {rewritten} after {pages}"
            ));
        }
        if is_wrong != 0 {
            return Err("the container did not find in its memory what it wrote".to_owned());
        }
        (answers, pages) = (said, rewritten);
        let mut window = lock(window);
        window.longest_gap = window.longest_gap.max(now.duration_since(last));
        window.answers += 1;
        drop(window);
        last = now;
        std::thread::sleep(PAUSE);
    }
}
