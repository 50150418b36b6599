//! How a directory tree goes from one agent to another: one `PUT`, its body the tree's stream in
//! pieces, each compressed where there is time for it: while the network has enough to send.
//!
//! ```text
//! encoding (1 byte: 0 as it is, 1 zstd) · length (4 bytes, big-endian) · a piece of the stream of `tree`
//! ```
//!
//! The receiver answers with the SHA-256 of what it unpacked; the sender compares it with what it
//! sent. Nothing counts as sent before.
//!
//! A receiver that refuses answers at once, and goes on reading ([`read_to_the_end`]) until the
//! sender, which stops when it is told, has stopped: an answer on a connection that is closed
//! while something is sent on it is lost.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use carnet_api::v1::Problem;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::{StreamReader, SyncIoBridge};
use zstd::bulk::{Compressor, Decompressor};

use crate::pace::Pace;
use crate::tree::{self, Manifest, Previous, malformed};

/// How much of a stream goes in one piece, in bytes.
const PIECE: usize = 256 << 10;
/// How many pieces are read ahead of the network.
const AHEAD: usize = 4;
/// What stands before a piece, in bytes.
const HEAD: usize = 5;
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// zstd's fastest level but those that hardly compress.
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
/// than `pace` says. Returns the bytes sent and the manifest of what was there.
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
    let (network, mut pieces) = mpsc::channel(AHEAD);
    let packing = tokio::task::spawn_blocking(move || {
        let mut output = Outgoing::new(network)?;
        let manifest = tree::pack(&root, previous.as_ref(), &mut output)?;
        let (sha256, bytes) = output.finish()?;
        Ok::<_, io::Error>((manifest, sha256, bytes))
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let body = stream::poll_fn(move |context| pieces.poll_recv(context))
        .then(move |piece: Bytes| {
            let pace = pace.clone();
            async move {
                pace.wait(piece.len()).await;
                Ok::<_, io::Error>(piece)
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
        let mut input = Hashing {
            inner: bridge,
            hash: Sha256::new(),
        };
        tree::unpack(&root, Incoming::new(&mut input)?)?;
        // What stands behind the archive's end counts for the hash.
        io::copy(&mut input, &mut io::sink())?;
        let sha256 = hex::encode(input.hash.finalize());
        Ok(Received { sha256 })
    })
    .await
    .map_err(io::Error::other)?
}

/// Takes a stream in pieces, and hands each to the network: compressed where the network has not
/// got rid of those before it, as it is where it waits for more.
struct Outgoing {
    network: mpsc::Sender<Bytes>,
    /// What the next piece is of, behind the place for its head.
    piece: Vec<u8>,
    compressor: Compressor<'static>,
    compressed: Vec<u8>,
    hash: Sha256,
    bytes: u64,
}

impl Outgoing {
    fn new(network: mpsc::Sender<Bytes>) -> io::Result<Self> {
        Ok(Self {
            network,
            piece: Self::empty(),
            compressor: Compressor::new(LEVEL)?,
            compressed: Vec::with_capacity(PIECE),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    fn empty() -> Vec<u8> {
        let mut piece = Vec::with_capacity(HEAD + PIECE);
        piece.resize(HEAD, 0);
        piece
    }

    /// Hands the piece over.
    fn hand_over(&mut self) -> io::Result<()> {
        let is_waited_for = self.network.capacity() == self.network.max_capacity();
        let mut piece = std::mem::replace(&mut self.piece, Self::empty());
        let mut encoding = PLAIN;
        let content = piece.get(HEAD..).unwrap_or_default();
        // What is hardly smaller does not fit in.
        self.compressed.clear();
        let room = content.len() / 10 * 9;
        if !is_waited_for
            && self
                .compressor
                .compress_to_buffer(content, &mut self.compressed)
                .is_ok_and(|length| length < room)
        {
            piece.truncate(HEAD);
            piece.extend_from_slice(&self.compressed);
            encoding = ZSTD;
        }
        let length = u32::try_from(piece.len() - HEAD).map_err(io::Error::other)?;
        let head = std::iter::once(encoding).chain(length.to_be_bytes());
        for (place, byte) in piece.iter_mut().zip(head) {
            *place = byte;
        }
        self.hash.update(&piece);
        self.bytes += piece.len() as u64;
        self.network
            .blocking_send(piece.into())
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The SHA-256 of all, in hexadecimal digits, and its length in bytes.
    fn finish(mut self) -> io::Result<(String, u64)> {
        if self.piece.len() > HEAD {
            self.hand_over()?;
        }
        Ok((hex::encode(self.hash.finalize()), self.bytes))
    }
}

impl Write for Outgoing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = HEAD + PIECE - self.piece.len();
        let taken = data.get(..room.min(data.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() == HEAD + PIECE {
            self.hand_over()?;
        }
        Ok(taken.len())
    }

    /// What is not a whole piece waits for more.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a stream that comes in pieces.
struct Incoming<R> {
    network: R,
    piece: Vec<u8>,
    /// How much of it was read.
    read: usize,
    decompressor: Decompressor<'static>,
}

impl<R: Read> Incoming<R> {
    fn new(network: R) -> io::Result<Self> {
        Ok(Self {
            network,
            piece: Vec::new(),
            read: 0,
            decompressor: Decompressor::new()?,
        })
    }

    /// The next piece is the one that is read; an empty one is the end.
    fn next(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.read = 0;
        let mut encoding = [0];
        if self.network.read(&mut encoding)? == 0 {
            return Ok(());
        }
        let mut length = [0; 4];
        self.network.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(1..=PIECE).contains(&length) {
            return Err(malformed("a piece is empty or too long"));
        }
        let mut content = vec![0; length];
        self.network.read_exact(&mut content)?;
        match encoding {
            [PLAIN] => self.piece = content,
            [ZSTD] => {
                self.piece.reserve(PIECE);
                self.decompressor
                    .decompress_to_buffer(&content, &mut self.piece)?;
                if self.piece.is_empty() {
                    return Err(malformed("a piece is empty"));
                }
            }
            _ => return Err(malformed("a piece has an unknown encoding")),
        }
        Ok(())
    }
}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.piece.len() {
            self.next()?;
        }
        let mut rest = self.piece.get(self.read..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.read += count;
        Ok(count)
    }
}

/// Hashes what is read.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
