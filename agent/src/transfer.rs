//! How a directory tree goes from one agent to another: one `PUT`, its body the tree's stream,
//! compressed where that helps.
//!
//! ```text
//! encoding (1 byte: 0 as it is, 1 zstd) · the stream of `tree`
//! ```
//!
//! The receiver answers with the SHA-256 of what it unpacked; the sender compares it with what it
//! sent. Nothing counts as sent before.
//!
//! A receiver that refuses answers at once, and goes on reading ([`read_to_the_end`]) until the
//! sender, which stops when it is told, has stopped: an answer on a connection that is closed
//! while something is sent on it is lost.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use carnet_api::v1::Problem;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::pace::Pace;
use crate::tree::{self, Manifest, Previous};

/// How much is read ahead of the network, in bytes.
const AHEAD: usize = 1 << 20;
/// How much of a stream is tried before it is decided whether to compress it, in bytes.
const TRIAL: usize = 256 << 10;
/// zstd's fastest level keeps up with 1 Gbit/s on one core.
const LEVEL: i32 = 1;

/// What the receiver says of what it got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Of the body, in hexadecimal digits.
    pub sha256: String,
}

/// Why a tree did not get to the other agent.
#[derive(Debug, Error)]
pub enum TransferError {
    #[error("cannot read what is to be sent: {0}")]
    Packing(io::Error),
    #[error("the target's agent cannot be reached: {0}")]
    Transport(#[from] reqwest::Error),
    #[error("the target refuses: {}", .0.detail.as_deref().unwrap_or(&.0.title))]
    Refused(Problem),
    #[error("what arrived is not what was sent: SHA-256 {received} instead of {sent}")]
    Altered { sent: String, received: String },
}

/// Sends the tree below `root`, or what has changed of it since `previous`, to `url`, no faster
/// than `pace` says. Returns
/// the bytes sent and the manifest of what was there.
///
/// # Errors
/// [`TransferError`]; the target may then hold a part.
pub async fn send(
    client: &reqwest::Client,
    url: &str,
    root: PathBuf,
    previous: Option<Previous>,
    pace: Pace,
) -> Result<(u64, Manifest), TransferError> {
    let (near, far) = tokio::io::duplex(AHEAD);
    let packing = tokio::task::spawn_blocking(move || {
        let mut output = Hashing::new(BufWriter::with_capacity(TRIAL, SyncIoBridge::new(near)));
        let mut encoder = Encoder::new(&mut output);
        let manifest = tree::pack(&root, previous.as_ref(), &mut encoder)?;
        encoder.finish()?;
        output.flush()?;
        let (sha256, bytes) = output.finish();
        Ok::<_, io::Error>((manifest, sha256, bytes))
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let body = ReaderStream::with_capacity(far, TRIAL)
        .and_then(move |piece| {
            let pace = pace.clone();
            async move {
                pace.wait(piece.len()).await;
                Ok(piece)
            }
        })
        .take_until(stopped);
    let answer = client
        .put(url)
        .body(reqwest::Body::wrap_stream(body))
        .send()
        .await;
    if answer
        .as_ref()
        .is_ok_and(|answer| !answer.status().is_success())
    {
        drop(stop);
    }
    let packed = packing
        .await
        .map_err(|error| TransferError::Packing(io::Error::other(error)))?;
    match packed {
        // Where the target hung up or refused, packing failed for want of a reader: the target
        // knows better why. Any other failure is the cause of what the target says of half a stream.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(TransferError::Packing(error));
        }
        _ => {}
    }
    let answer = answer?;
    if !answer.status().is_success() {
        return Err(TransferError::Refused(answer.json().await?));
    }
    let received: Received = answer.json().await?;
    let (manifest, sent, bytes) = packed.map_err(TransferError::Packing)?;
    if received.sha256 == sent {
        Ok((bytes, manifest))
    } else {
        Err(TransferError::Altered {
            sent,
            received: received.sha256,
        })
    }
}

/// The pieces of `body`. All of it is read, also when nobody takes the pieces any more.
pub fn read_to_the_end<S>(mut body: S) -> impl Stream<Item = S::Item> + Send + Unpin + 'static
where
    S: Stream + Send + Unpin + 'static,
    S::Item: Send,
{
    // One piece waits while another is unpacked.
    let (sender, mut pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(piece) = body.next().await {
            let _ = sender.send(piece).await;
        }
    });
    stream::poll_fn(move |context| pieces.poll_recv(context))
}

/// Makes the tree below `root` what the body `stream` says.
///
/// # Errors
/// Where the stream breaks off, or something cannot be written. What was written stays.
pub async fn receive<S, E>(stream: S, root: PathBuf) -> io::Result<Received>
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let body = StreamReader::new(stream.map_err(io::Error::other));
    let bridge = SyncIoBridge::new(body);
    tokio::task::spawn_blocking(move || {
        let mut input = Hashing::new(bridge);
        decode(&mut input, |stream| tree::unpack(&root, stream))?;
        // What stands behind the archive's end counts for the hash.
        io::copy(&mut input, &mut io::sink())?;
        let (sha256, _) = input.finish();
        Ok(Received { sha256 })
    })
    .await
    .map_err(io::Error::other)?
}

fn decode<R: Read>(
    input: &mut R,
    unpack: impl Fn(&mut dyn Read) -> io::Result<()>,
) -> io::Result<()> {
    let mut encoding = [0];
    input.read_exact(&mut encoding)?;
    match encoding {
        [PLAIN] => unpack(input),
        [ZSTD] => {
            let mut decoder = zstd::Decoder::new(input)?;
            unpack(&mut decoder)?;
            // To the end of the frame, so that nothing of it is left unread.
            io::copy(&mut decoder, &mut io::sink()).map(drop)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "an unknown encoding",
        )),
    }
}

const PLAIN: u8 = 0;
const ZSTD: u8 = 1;

/// Compresses a stream if its beginning can be compressed.
enum Encoder<W: Write> {
    Trying {
        output: W,
        beginning: Vec<u8>,
    },
    Plain(W),
    Zstd(zstd::Encoder<'static, W>),
    /// Only while the one becomes the other.
    Between,
}

impl<W: Write> Encoder<W> {
    fn new(output: W) -> Self {
        Self::Trying {
            output,
            beginning: Vec::new(),
        }
    }

    /// Decides, and writes the beginning.
    fn decide(&mut self) -> io::Result<()> {
        if let Self::Trying {
            mut output,
            beginning,
        } = std::mem::replace(self, Self::Between)
        {
            let compressed = zstd::encode_all(beginning.as_slice(), LEVEL)?;
            let helps = compressed.len() < beginning.len() / 10 * 9;
            output.write_all(&[if helps { ZSTD } else { PLAIN }])?;
            *self = if helps {
                Self::Zstd(zstd::Encoder::new(output, LEVEL)?)
            } else {
                Self::Plain(output)
            };
            self.write_all(&beginning)?;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        if matches!(self, Self::Trying { .. }) {
            self.decide()?;
        }
        match self {
            Self::Zstd(encoder) => encoder.finish()?.flush(),
            Self::Plain(mut output) => output.flush(),
            Self::Trying { .. } | Self::Between => Err(undecided()),
        }
    }
}

fn undecided() -> io::Error {
    io::Error::other("an encoder that failed before is used again")
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Trying { beginning, .. } => {
                beginning.extend_from_slice(data);
                if beginning.len() >= TRIAL {
                    self.decide()?;
                }
                Ok(data.len())
            }
            Self::Plain(output) => output.write(data),
            Self::Zstd(encoder) => encoder.write(data),
            Self::Between => Err(undecided()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(output) => output.flush(),
            // Flushing a compressor early makes its output longer.
            Self::Zstd(_) | Self::Trying { .. } | Self::Between => Ok(()),
        }
    }
}

/// Hashes and counts what goes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (String, u64) {
        (hex::encode(self.hash.finalize()), self.bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.hash.update(data.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        self.bytes += count as u64;
        Ok(count)
    }
}
