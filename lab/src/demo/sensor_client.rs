//! The client outside: sensors that write to App1's Redis, and read back, through one TCP
//! connection that stays open through every move.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A reply that takes longer counts as a lost connection.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// Commands in one batch while loading and while verifying.
const BATCH: u64 = 1_000;
/// Pause between two writes: the resolution with which a stall is seen.
const PAUSE: Duration = Duration::from_millis(1);

/// What the client saw between two calls of [`SensorClient::observe`].
#[derive(Debug, Clone)]
pub struct Observation {
    /// The longest time between two replies.
    pub longest_gap: Duration,
    /// Writes that Redis acknowledged.
    pub acknowledged: u64,
    /// What was acknowledged and is not there, or not as it was written; empty: nothing lost.
    pub lost: Vec<String>,
    /// What broke the connection, if something did.
    pub broken: Option<String>,
}

/// One connection to Redis, in use all the time.
pub struct SensorClient {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    window: Mutex<Window>,
}

/// What happened since the last observation.
struct Window {
    longest_gap: Duration,
    last_reply: Instant,
    first: u64,
    next: u64,
    lost: Vec<String>,
    broken: Option<String>,
    /// Set by the observer; the writer answers by verifying and clearing it.
    verify: bool,
}

impl SensorClient {
    /// Loads `readings` of 256 bytes each through `stream`, then goes on writing and reading
    /// back, one reading at a time, until dropped.
    ///
    /// # Errors
    /// Where Redis does not take the readings.
    pub fn start(stream: TcpStream, readings: u64) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        let mut connection = Connection {
            reader: BufReader::new(stream.try_clone()?),
            stream,
        };
        connection.load(readings)?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            window: Mutex::new(Window {
                longest_gap: Duration::ZERO,
                last_reply: Instant::now(),
                first: 1,
                next: 1,
                lost: Vec::new(),
                broken: None,
                verify: false,
            }),
        });
        let writer = std::thread::spawn({
            let shared = shared.clone();
            move || write_until_stopped(&mut connection, &shared)
        });
        Ok(Self {
            shared,
            writer: Some(writer),
        })
    }

    /// Starts a new window: what happened before is forgotten.
    pub fn begin(&self) {
        let mut window = self.shared.lock();
        window.longest_gap = Duration::ZERO;
        window.last_reply = Instant::now();
        window.first = window.next;
        window.lost.clear();
    }

    /// Reads back every write acknowledged since [`begin`](Self::begin), and tells what was seen.
    pub fn observe(&self) -> Observation {
        self.shared.lock().verify = true;
        loop {
            std::thread::sleep(PAUSE);
            let window = self.shared.lock();
            if !window.verify || window.broken.is_some() {
                return Observation {
                    longest_gap: window.longest_gap,
                    acknowledged: window.next - window.first,
                    lost: window.lost.clone(),
                    broken: window.broken.clone(),
                };
            }
        }
    }
}

impl Drop for SensorClient {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(writer) = self.writer.take() {
            // The writer does not panic; were it to, there is nothing left to do here.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_until_stopped(connection: &mut Connection, shared: &Shared) {
    while !shared.stop.load(Ordering::Relaxed) {
        let (number, verify, first) = {
            let window = shared.lock();
            (window.next, window.verify, window.first)
        };
        let outcome = if verify {
            connection.verify(first, number)
        } else {
            connection.write_and_read_back(number).map(|lost| lost.into_iter().collect())
        };
        let mut window = shared.lock();
        match outcome {
            Ok(lost) => {
                window.lost.extend(lost);
                if verify {
                    window.verify = false;
                } else {
                    let now = Instant::now();
                    window.longest_gap = window.longest_gap.max(now - window.last_reply);
                    window.next = number + 1;
                }
                window.last_reply = Instant::now();
            }
            Err(error) => {
                window.broken = Some(error.to_string());
                return;
            }
        }
        drop(window);
        std::thread::sleep(PAUSE);
    }
}

/// What a sensor tells: 256 bytes, different for each number.
fn reading(number: u64) -> String {
    format!("sensor={:04} reading={number:020} {number:0>215x}", number % 4096)
}

struct Connection {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

impl Connection {
    fn load(&mut self, readings: u64) -> io::Result<()> {
        let mut next = 0;
        while next < readings {
            let end = (next + BATCH).min(readings);
            let mut batch = String::new();
            for number in next..end {
                batch.push_str(&command(&["SET", &format!("history:{number}"), &reading(number)]));
            }
            self.stream.write_all(batch.as_bytes())?;
            for _ in next..end {
                expect(&self.reply()?, "OK")?;
            }
            next = end;
        }
        Ok(())
    }

    /// Counts, writes and reads back; returns what was lost.
    fn write_and_read_back(&mut self, number: u64) -> io::Result<Option<String>> {
        let (key, value) = (format!("live:{number}"), reading(number));
        let batch = [
            command(&["INCR", "count"]),
            command(&["SET", &key, &value]),
            command(&["GET", &key]),
        ]
        .concat();
        self.stream.write_all(batch.as_bytes())?;
        let count = self.reply()?;
        expect(&self.reply()?, "OK")?;
        let found = self.reply()?;
        Ok(if count != number.to_string() {
            Some(format!("the count stood at {count} after write {number}"))
        } else if found != value {
            Some(format!("{key} was not read back as written"))
        } else {
            None
        })
    }

    /// Reads back the writes `first..end`; returns those that are lost.
    fn verify(&mut self, first: u64, end: u64) -> io::Result<Vec<String>> {
        let mut lost = Vec::new();
        let mut next = first;
        while next < end {
            let until = (next + BATCH).min(end);
            let batch: String = (next..until)
                .map(|number| command(&["GET", &format!("live:{number}")]))
                .collect();
            self.stream.write_all(batch.as_bytes())?;
            for number in next..until {
                if self.reply()? != reading(number) {
                    lost.push(format!("live:{number} is not there as written"));
                }
            }
            next = until;
        }
        Ok(lost)
    }

    /// One reply of Redis's protocol (RESP2): a status, an integer, or a string; an absent value
    /// reads as the empty string.
    fn reply(&mut self) -> io::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).unwrap_or((&line, ""));
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "$" if rest == "-1" => Ok(String::new()),
            // Our values hold no line breaks.
            "$" => self.line(),
            _ => Err(io::Error::other(format!("Redis answered `{line}`"))),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "Redis closed the connection",
            ));
        }
        Ok(line.trim_end().to_owned())
    }
}

fn expect(found: &str, expected: &str) -> io::Result<()> {
    if found == expected {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "Redis answered `{found}` instead of `{expected}`"
        )))
    }
}

/// A command in Redis's protocol.
fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    text
}
