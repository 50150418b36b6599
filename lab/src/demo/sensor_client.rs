//! The client outside: sensors that write to App1's Redis, and read back, through one TCP
//! connection that stays open through every move.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A reply that takes longer counts as a lost connection.
const REPLY_LIMIT: Duration = Duration::from_secs(60);
/// Commands in one batch while loading and while verifying.
const BATCH: u64 = 1_000;
/// The length of a reading, in bytes.
pub const READING: usize = 256;
/// Keys of what is loaded in the beginning.
const HISTORY: &str = "history";
/// Keys of what is written while the container moves.
const LIVE: &str = "live";
/// Pause between two writes: the resolution with which a stall is seen.
const PAUSE: Duration = Duration::from_millis(1);

/// What the client saw.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The longest time between two replies.
    pub longest_gap: Duration,
    /// Writes that Redis acknowledged, and that were read back.
    pub acknowledged: u64,
    /// What was acknowledged and is not there, or not as it was written; empty: nothing lost.
    pub lost: Vec<String>,
    /// What broke the connection, if something did.
    pub broken: Option<String>,
}

/// One connection to Redis, in use all the time.
pub struct SensorClient {
    shared: Arc<Shared>,
    /// How many readings were loaded in the beginning.
    loaded: u64,
    stream: TcpStream,
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
    /// Set by the observer; the writer answers by reading back and clearing it.
    asked: Option<Asked>,
}

/// What is to be read back.
#[derive(Clone, Copy)]
enum Asked {
    /// What was written in this window.
    Window,
    /// All that was ever written.
    Everything,
}

impl SensorClient {
    /// Loads `readings` of [`READING`] bytes each through `stream`, then goes on writing and reading
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
            stream: stream.try_clone()?,
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
                asked: None,
            }),
        });
        let writer = std::thread::spawn({
            let shared = shared.clone();
            move || write_until_stopped(&mut connection, &shared, readings)
        });
        Ok(Self {
            shared,
            loaded: readings,
            stream,
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
        self.read_back(Asked::Window)
    }

    /// Reads back all that was ever written, what was loaded in the beginning too.
    pub fn observe_everything(&self) -> Observation {
        self.begin();
        let mut seen = self.read_back(Asked::Everything);
        seen.acknowledged = self.loaded + self.shared.lock().next - 1;
        seen
    }

    fn read_back(&self, asked: Asked) -> Observation {
        self.shared.lock().asked = Some(asked);
        loop {
            std::thread::sleep(PAUSE);
            let window = self.shared.lock();
            if window.asked.is_none() || window.broken.is_some() {
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
        // The writer may be waiting for a reply of a container that is frozen.
        let _ = self.stream.shutdown(Shutdown::Both);
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

fn write_until_stopped(connection: &mut Connection, shared: &Shared, loaded: u64) {
    while !shared.stop.load(Ordering::Relaxed) {
        let (number, asked, first) = {
            let window = shared.lock();
            (window.next, window.asked, window.first)
        };
        let outcome = match asked {
            Some(Asked::Window) => connection.verify(LIVE, first, number),
            Some(Asked::Everything) => connection.verify(LIVE, 1, number).and_then(|mut lost| {
                lost.extend(connection.verify(HISTORY, 0, loaded)?);
                Ok(lost)
            }),
            None => connection
                .write_and_read_back(number)
                .map(|lost| lost.into_iter().collect()),
        };
        let mut window = shared.lock();
        match outcome {
            Ok(lost) => {
                window.lost.extend(lost);
                if asked.is_some() {
                    window.asked = None;
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

/// What a sensor tells: [`READING`] bytes, different for each number. Its digits do not repeat:
/// zeros would be compressed to nothing on their way, and moves would look too fast.
fn reading(number: u64) -> String {
    let mut text = format!("sensor={:04} reading={number:020} ", number % 4096);
    // SplitMix64 (Steele, Lea, Flood 2014).
    let mut state = number;
    while text.len() < READING {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        text.push_str(&format!("{:016x}", mixed ^ (mixed >> 31)));
    }
    text.truncate(READING);
    text
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
                let key = format!("{HISTORY}:{number}");
                batch.push_str(&command(&["SET", &key, &reading(number)]));
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
        let (key, value) = (format!("{LIVE}:{number}"), reading(number));
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

    /// Reads back the keys `first..end` of `kind`; returns those that are lost.
    fn verify(&mut self, kind: &str, first: u64, end: u64) -> io::Result<Vec<String>> {
        let mut lost = Vec::new();
        let mut next = first;
        while next < end {
            let until = (next + BATCH).min(end);
            let batch: String = (next..until)
                .map(|number| command(&["GET", &format!("{kind}:{number}")]))
                .collect();
            self.stream.write_all(batch.as_bytes())?;
            for number in next..until {
                if self.reply()? != reading(number) {
                    lost.push(format!("{kind}:{number} is not there as written"));
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::TcpListener;
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// What a server does to its client.
    #[derive(Default)]
    struct Fault {
        /// This key is not kept, though it is acknowledged.
        forgets: Option<&'static str>,
        /// The server answers this write only after a while.
        stalls_at: Option<(u64, Duration)>,
        /// The server closes the connection instead of answering this write.
        closes_at: Option<u64>,
    }

    /// A server that speaks as much of Redis's protocol as the client does. The count says how
    /// many writes it has acknowledged.
    fn serve(fault: Fault) -> (TcpStream, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let count = written.clone();
        std::thread::spawn(move || answer(server, &fault, &count));
        (stream, written)
    }

    fn answer(stream: TcpStream, fault: &Fault, written: &AtomicU64) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut kept: HashMap<String, String> = HashMap::new();
        while let Some(words) = words(&mut reader) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let reply = match words[..] {
                ["INCR", _] => {
                    let count = written.load(Ordering::SeqCst) + 1;
                    if fault.closes_at == Some(count) {
                        return;
                    }
                    if let Some((at, pause)) = fault.stalls_at
                        && at == count
                    {
                        std::thread::sleep(pause);
                    }
                    written.store(count, Ordering::SeqCst);
                    format!(":{count}\r\n")
                }
                ["SET", key, value] => {
                    kept.insert(key.to_owned(), value.to_owned());
                    "+OK\r\n".to_owned()
                }
                ["GET", key] => {
                    let value = kept.get(key).cloned();
                    if fault.forgets == Some(key) {
                        kept.remove(key);
                    }
                    match value {
                        Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                        None => "$-1\r\n".to_owned(),
                    }
                }
                _ => panic!("{words:?}"),
            };
            if (&stream).write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// One command; `None` where the client has gone.
    fn words(reader: &mut impl BufRead) -> Option<Vec<String>> {
        let mut line = || {
            let mut line = String::new();
            let length = reader.read_line(&mut line).unwrap_or(0);
            (length > 0).then(|| line.trim_end().to_owned())
        };
        let count: usize = line()?.strip_prefix('*').unwrap().parse().unwrap();
        (0..count)
            .map(|_| {
                let length: usize = line()?.strip_prefix('$').unwrap().parse().unwrap();
                let word = line()?;
                assert_eq!(word.len(), length);
                Some(word)
            })
            .collect()
    }

    fn await_writes(written: &AtomicU64, count: u64) {
        crate::exec::wait_until("writes", 20, || written.load(Ordering::SeqCst) >= count).unwrap();
    }

    #[test]
    fn a_reading_is_as_long_as_promised_and_unlike_any_other() {
        let readings: std::collections::HashSet<String> = (0..1_000).map(reading).collect();
        assert_eq!(readings.len(), 1_000);
        assert!(readings.iter().all(|reading| reading.len() == READING));
    }

    #[test]
    fn what_is_kept_is_no_loss() {
        let (stream, written) = serve(Fault::default());
        let client = SensorClient::start(stream, 2_500).unwrap();
        client.begin();
        await_writes(&written, 20);
        let seen = client.observe();
        assert_eq!((seen.lost.as_slice(), seen.broken), (&[][..], None));
        assert!(seen.acknowledged >= 20, "{}", seen.acknowledged);
        let everything = client.observe_everything();
        assert_eq!(
            (everything.lost.as_slice(), everything.broken),
            (&[][..], None)
        );
        assert!(everything.acknowledged >= 2_520);
    }

    #[test]
    fn a_write_that_is_lost_later_is_found() {
        let (stream, written) = serve(Fault {
            // It is there when it is read back the first time.
            forgets: Some("live:5"),
            ..Fault::default()
        });
        let client = SensorClient::start(stream, 0).unwrap();
        await_writes(&written, 10);
        let seen = client.observe();
        assert_eq!(seen.lost, ["live:5 is not there as written"]);
        // In the next window it is not told again, but it is of all that was written.
        client.begin();
        assert_eq!(client.observe().lost, Vec::<String>::new());
        let everything = client.observe_everything();
        assert_eq!(everything.lost, ["live:5 is not there as written"]);
    }

    #[test]
    fn what_was_loaded_and_is_lost_is_found_in_the_end() {
        let (stream, _) = serve(Fault {
            forgets: Some("history:1234"),
            ..Fault::default()
        });
        let client = SensorClient::start(stream, 2_000).unwrap();
        assert_eq!(client.observe_everything().lost, Vec::<String>::new());
        assert_eq!(
            client.observe_everything().lost,
            ["history:1234 is not there as written"]
        );
    }

    #[test]
    fn a_stall_is_seen_as_long_as_it_was() {
        let pause = Duration::from_millis(300);
        let (stream, written) = serve(Fault {
            stalls_at: Some((10, pause)),
            ..Fault::default()
        });
        let client = SensorClient::start(stream, 0).unwrap();
        client.begin();
        await_writes(&written, 15);
        assert!(client.observe().longest_gap >= pause);
    }

    #[test]
    fn a_connection_that_is_closed_is_told() {
        let (stream, written) = serve(Fault {
            closes_at: Some(10),
            ..Fault::default()
        });
        let client = SensorClient::start(stream, 0).unwrap();
        await_writes(&written, 9);
        crate::exec::wait_until("the break", 20, || client.observe().broken.is_some()).unwrap();
        // It stays told.
        client.begin();
        assert!(client.observe().broken.is_some());
    }
}
