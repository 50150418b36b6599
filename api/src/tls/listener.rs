use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a link may be cut before that ends the connections over it: long enough for a route to
/// change, and no longer than a container should wait for memory that does not come.
pub const CUT_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take for its side of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Pause after an `accept` that failed, e.g. for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that have shaken hands and wait to be served.
const BACKLOG: usize = 64;

/// Accepts TLS connections for [`axum::serve`]. Handshakes run beside each other, so that a
/// client that is slow at it, or never ends it, keeps nobody waiting.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: SocketAddr,
}

impl TlsListener {
    /// Starts accepting on `listener`. Needs a tokio runtime; ends when dropped.
    ///
    /// # Errors
    /// Where the listener has no local address.
    pub fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let local = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (sender, ready) = mpsc::channel(BACKLOG);
        tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { ready, local })
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    sender: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        tokio::spawn(async move {
            // Small requests and answers alternate while a container is frozen.
            let _ = stream.set_nodelay(true);
            if let Err(error) = notice_a_cut(&stream) {
                tracing::warn!(%address, %error, "a link that is cut will not be noticed");
            }
            match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = sender.send((stream, address)).await;
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "TLS handshake refused"),
                Err(_) => tracing::info!(%address, "TLS handshake took too long"),
            }
        });
    }
}

/// Has the kernel end a connection whose other end has not been heard of for [`CUT_LIMIT`].
fn notice_a_cut(stream: &TcpStream) -> nix::Result<()> {
    let seconds = u32::try_from(CUT_LIMIT.as_secs()).unwrap_or(u32::MAX);
    let milliseconds = seconds.saturating_mul(1_000);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &(seconds / 3))?;
    setsockopt(stream, sockopt::TcpKeepInterval, &(seconds / 3))?;
    setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds)
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task lives as long as this receiver.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.local)
    }
}
