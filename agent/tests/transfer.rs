//! Trees from one agent to another, over HTTP on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::put;
use axum::{Json, Router};
use bytes::Bytes;
use carnet_agent::pace::Pace;
use carnet_agent::problem::{Refusal, cannot};
use carnet_agent::transfer::{self, TransferError};
use carnet_agent::tree::{Changes, Manifest, Previous};
use futures_util::{StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A server that ends with the test.
struct Receiver {
    url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Receiver {
    async fn start<F, A>(answer: impl Fn(Body) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = A> + Send,
        A: IntoResponse,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tree", listener.local_addr().unwrap());
        let handler = move |body: Body| {
            let answer = answer.clone();
            async move { answer(body).await }
        };
        let router = Router::new()
            .route("/tree", put(handler))
            .layer(axum::extract::DefaultBodyLimit::disable());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, task }
    }

    /// One that unpacks below `root` what `altered` makes of each piece of the body.
    async fn unpacking(root: PathBuf, altered: fn(usize, Bytes) -> Bytes) -> Self {
        Self::start(move |body| {
            let root = root.clone();
            let pieces = transfer::read_to_the_end(body.into_data_stream()).enumerate();
            let pieces = pieces.map(move |(n, piece)| piece.map(|piece| altered(n, piece)));
            async move {
                match transfer::receive(pieces, root).await {
                    Ok(received) => Json(received).into_response(),
                    Err(error) => Refusal(cannot(error)).into_response(),
                }
            }
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// As fast as it goes.
async fn send(
    client: &reqwest::Client,
    url: &str,
    root: PathBuf,
    previous: Option<Previous>,
) -> Result<(u64, Manifest), TransferError> {
    transfer::send(client, url, root, previous, Pace::new(None)).await
}

fn as_it_is(_: usize, piece: Bytes) -> Bytes {
    piece
}

fn client() -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

struct Scene {
    directory: TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        for name in ["source", "target"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.source().join(name), content).unwrap();
    }
}

/// Every file directly in a directory.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// What no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    StdRng::seed_from_u64(7).fill_bytes(&mut noise);
    noise
}

const LONG: usize = 5 << 20;

#[tokio::test]
async fn a_tree_arrives_compressed_where_there_is_time_and_is_counted_as_sent() {
    /// A network that is slower than any compressor, in bytes a second.
    const SLOW: Option<u64> = Some(8 << 20);
    let text = "what a database holds repeats itself. ".repeat(LONG / 38);
    let cases: [(&str, &[u8], Option<u64>, bool); 6] = [
        ("long text", text.as_bytes(), SLOW, true),
        ("long noise", &noise(LONG), SLOW, false),
        ("long text, fast", text.as_bytes(), None, false),
        ("short text", &text.as_bytes()[..20_000], SLOW, false),
        ("short noise", &noise(100_000), SLOW, false),
        ("nothing", b"", None, false),
    ];
    for (what, content, bytes_per_s, is_compressed) in cases {
        let scene = Scene::new();
        scene.write("file", content);
        fs::write(scene.target().join("old"), "of before").unwrap();
        let arrived = Arc::new(AtomicU64::default());
        let receiver = Receiver::start({
            let (arrived, root) = (arrived.clone(), scene.target());
            move |body| {
                let (arrived, root) = (arrived.clone(), root.clone());
                let seen = body.into_data_stream().inspect_ok(move |piece| {
                    arrived.fetch_add(piece.len() as u64, Ordering::Relaxed);
                });
                async move { Json(transfer::receive(seen, root).await.unwrap()) }
            }
        })
        .await;
        let pace = Pace::new(bytes_per_s);
        let (bytes, _) = transfer::send(&client(), &receiver.url, scene.source(), None, pace)
            .await
            .unwrap();
        assert_eq!(files(&scene.source()), files(&scene.target()), "{what}");
        assert_eq!(bytes, arrived.load(Ordering::Relaxed), "{what}");
        // Without a limit it depends on the machine.
        if bytes_per_s.is_some() {
            let is_smaller = bytes < content.len() as u64 / 2;
            assert_eq!(is_smaller, is_compressed, "{what}: {bytes} bytes");
        }
    }
}

#[tokio::test]
async fn the_second_pass_sends_what_has_changed_since_the_first() {
    let scene = Scene::new();
    scene.write("large", &noise(LONG));
    scene.write("small", b"1");
    let receiver = Receiver::unpacking(scene.target(), as_it_is).await;
    let (client, url) = (client(), &receiver.url);
    let (_, manifest) = send(&client, url, scene.source(), None).await.unwrap();
    scene.write("small", b"2");
    fs::remove_file(scene.source().join("large")).unwrap();
    let (bytes, manifest) = send(&client, url, scene.source(), Some(changed(manifest)))
        .await
        .unwrap();
    assert!(bytes < 10_000, "{bytes}");
    assert_eq!(files(&scene.source()), files(&scene.target()));
    scene.write("small", b"3");
    send(&client, url, scene.source(), Some(changed(manifest)))
        .await
        .unwrap();
    assert_eq!(files(&scene.source()), files(&scene.target()));
}

#[tokio::test]
async fn a_body_that_is_altered_on_its_way_is_noticed() {
    fn one_bit(n: usize, piece: Bytes) -> Bytes {
        let mut piece = piece.to_vec();
        // In the midst of the file, where unpacking notices nothing.
        if n == 3
            && let Some(byte) = piece.last_mut()
        {
            *byte ^= 1;
        }
        piece.into()
    }
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    let receiver = Receiver::unpacking(scene.target(), one_bit).await;
    let error = send(&client(), &receiver.url, scene.source(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Altered { .. }), "{error}");
    assert_ne!(files(&scene.source()), files(&scene.target()));
}

#[tokio::test]
async fn what_stands_behind_the_end_counts_too() {
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    let root = scene.target();
    let receiver = Receiver::start(move |body| {
        let more = futures_util::stream::iter([Ok(Bytes::from_static(b"more"))]);
        let body = body.into_data_stream().chain(more);
        let root = root.clone();
        async move { Json(transfer::receive(body, root).await.unwrap()) }
    })
    .await;
    let error = send(&client(), &receiver.url, scene.source(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Altered { .. }), "{error}");
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_told_as_the_targets_problem() {
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    let missing = scene.directory.path().join("missing");
    let receiver = Receiver::unpacking(missing, as_it_is).await;
    let error = send(&client(), &receiver.url, scene.source(), None)
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Refused(_)), "{error}");
    assert!(error.to_string().contains("No such file"), "{error}");
}

/// Whether the receiver has read nothing, a part, or all when it refuses: its problem reaches
/// the sender, which by then is in the midst of sending.
#[tokio::test]
async fn a_refusal_reaches_the_sender_whenever_it_comes() {
    async fn refuse(pieces: usize, body: Body) -> Response {
        let mut body = transfer::read_to_the_end(body.into_data_stream());
        for _ in 0..pieces {
            if body.try_next().await.unwrap().is_none() {
                break;
            }
        }
        Refusal(cannot("this edge takes nothing today")).into_response()
    }
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    for pieces in [0, 1, 20, usize::MAX] {
        let receiver = Receiver::start(move |body| refuse(pieces, body)).await;
        for _ in 0..40 {
            let error = send(&client(), &receiver.url, scene.source(), None)
                .await
                .unwrap_err();
            assert!(
                matches!(&error, TransferError::Refused(problem) if problem.status == 409),
                "after {pieces} pieces: {error:?}"
            );
            assert!(error.to_string().contains("takes nothing today"), "{error}");
        }
    }
}

#[tokio::test]
async fn whoever_is_refused_stops_sending() {
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    // Most of it a hole; it would take an hour.
    let file = fs::File::options()
        .write(true)
        .open(scene.source().join("file"))
        .unwrap();
    file.set_len(4 << 40).unwrap();
    let receiver = Receiver::start(|body| async {
        drop(transfer::read_to_the_end(body.into_data_stream()));
        Refusal(cannot("this edge takes nothing today"))
    })
    .await;
    let client = client();
    let sending = send(&client, &receiver.url, scene.source(), None);
    let error = tokio::time::timeout(Duration::from_secs(60), sending)
        .await
        .expect("it goes on sending")
        .unwrap_err();
    assert!(matches!(error, TransferError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_told_as_the_senders_own_fault() {
    let scene = Scene::new();
    let receiver = Receiver::unpacking(scene.target(), as_it_is).await;
    let missing = scene.directory.path().join("missing");
    let error = send(&client(), &receiver.url, missing, None)
        .await
        .unwrap_err();
    assert!(matches!(error, TransferError::Packing(_)), "{error}");
}

#[tokio::test]
async fn a_receiver_that_is_not_there_or_hangs_up_cannot_be_reached() {
    let scene = Scene::new();
    scene.write("file", &noise(LONG));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/tree", listener.local_addr().unwrap());
    let hanging_up = tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        // Nobody listens from here on.
    });
    for _ in 0..2 {
        let error = send(&client(), &url, scene.source(), None)
            .await
            .unwrap_err();
        assert!(matches!(error, TransferError::Transport(_)), "{error:?}");
    }
    hanging_up.await.unwrap();
}

#[tokio::test]
async fn bodies_that_are_no_stream_are_errors() {
    let scene = Scene::new();
    let nonsense: [&[u8]; 9] = [
        b"",
        b"\x00",
        b"\x01",
        b"\x02\x00\x00\x00\x04rest",
        b"\x00\x00\x00\x00\x09too short",
        b"\x00\xff\xff\xff\xfftoo long",
        b"\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x04\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x08not zstd",
    ];
    for body in nonsense {
        let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(body))]);
        assert!(transfer::receive(body, scene.target()).await.is_err());
    }
    let broken = futures_util::stream::iter([
        Ok(Bytes::from_static(b"\x00")),
        Err(std::io::Error::other("the cable was cut")),
    ]);
    let error = transfer::receive(broken, scene.target()).await.unwrap_err();
    assert!(error.to_string().contains("the cable was cut"), "{error}");
}

fn changed(manifest: Manifest) -> Previous {
    Previous::new(manifest, Changes::Anywhere, [])
}
