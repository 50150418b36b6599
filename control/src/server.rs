//! The control plane as it is started and stopped.
//!
//! ```text
//! DATA/lock                  held while it runs
//! DATA/carnet.db             the store
//! DATA/authority.*           see `authority`
//! DATA/permit.key, ledger.key  see `key_place`
//! DATA/administrator.token   the first administrator's API token
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carnet_api::tls::{ClientAuthentication, TlsError, TlsListener, server_config};
use carnet_api::v1::Role;
use carnet_core::ids::{AccountId, TokenId};
use carnet_core::ledger::{LedgerSigner, LedgerVerifier, NoteFault};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::agents::{Agents, HttpAgents};
use crate::authority::{AuthorityError, CertificateAuthority, ControlCertificate};
use crate::http::{App, router};
use crate::keys::{self, KeyError, PermitKey, Purpose};
use crate::migrate::{Limits, Migrations, Pace};
use crate::secret::Secret;
use crate::store::listing::Search;
use crate::store::{NewAccount, NewToken, Store, StoreError};
use crate::web::Address;
use crate::witnesses::{WitnessAddress, Witnesses};
use crate::{clock, monitor, renewal};

/// A reading that is older counts as none. It is taken when it is asked for, so that this is what
/// the request and the answer may take.
pub(crate) const MAX_READING_AGE_MS: u64 = 10_000;
/// How long requests under way may take to end when the control plane stops.
const GRACE: Duration = Duration::from_secs(5);
/// The name of the account that the first start makes.
const FIRST_ACCOUNT: &str = "administrator";
/// Random bytes in its token.
const TOKEN_BYTES: usize = 32;

/// How a control plane is to run.
#[derive(Debug)]
pub struct Config {
    /// The directory that holds all that it keeps; made if it is not there.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Sockets that listen already, handed over by whoever started this process.
    pub sockets: Vec<std::net::TcpListener>,
    /// Names and addresses, beside the loopback's, under which it is reached; its certificate
    /// holds them.
    pub names: Vec<String>,
    /// How often the monitor looks at every edge.
    pub monitor_interval: Duration,
    /// Who cosigns the ledger.
    pub witnesses: Vec<WitnessAddress>,
}

/// What is known once it listens.
#[derive(Debug)]
pub struct Started {
    /// Where it listens, in the order of the configuration, sockets handed over last.
    pub addresses: Vec<SocketAddr>,
    /// Where the first administrator's token was put, on the first start.
    pub administrator_token: Option<PathBuf>,
    /// How many migrations were taken up that had not ended.
    pub taken_up: usize,
}

/// Why a control plane does not run.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("another control plane runs on {path}", path = .0.display())]
    InUse(PathBuf),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the ledger's key cannot be used: {0}")]
    Ledger(#[from] NoteFault),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot set up a client for a witness: {0}")]
    Witness(reqwest::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: String, source: io::Error },
}

/// Runs a control plane until `shutdown` completes. Migrations stop where they are then; the next
/// start takes them up. `ready` is called once it listens.
///
/// # Errors
/// [`ServerError`].
pub async fn run(
    config: Config,
    ready: impl FnOnce(&Started),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data)
        .map_err(at(&config.data))?;
    let _lock = lock(&config.data)?;
    let authority = Arc::new(CertificateAuthority::open(&config.data)?);
    let trusted = authority.authority()?;
    let own = ControlCertificate::new(&authority, config.names, clock::now())?;
    let identity = own.identity().clone();
    let origin = format!("carnet/{}", short(&trusted.fingerprint()));
    let ledger = LedgerSigner::new(&origin, &keys::secret(Purpose::Ledger, &config.data)?)?;
    let verifier_key = ledger.verifier_key();
    let store = open_store(&config.data, ledger).await?;
    let permit_key = Arc::new(PermitKey::open(
        &config.data,
        authority.clone(),
        clock::now(),
    )?);
    store
        .enter_key(
            Purpose::Permit.name(),
            permit_key.current().signer.public().as_bytes(),
        )
        .await?;
    let administrator_token = first_start(&config.data, &store).await?;

    let agents: Arc<dyn Agents> = Arc::new(HttpAgents::new(trusted.clone(), identity.clone()));
    let migrations = Arc::new(Migrations::new(
        store.clone(),
        agents.clone(),
        permit_key.clone(),
        MAX_READING_AGE_MS,
        Pace::default(),
        Limits::default(),
    ));
    let watched_key = permit_key.clone();
    let witnesses = Arc::new(Witnesses::open(&store, config.witnesses).await?);
    let renewing = renewal::watch(
        store.clone(),
        agents.clone(),
        authority.clone(),
        permit_key.clone(),
        own,
        config.monitor_interval,
    );
    let (stop, stopping) = watch::channel(());
    let look_now = migrations.look_now();
    let router = router(App {
        store: store.clone(),
        agents: agents.clone(),
        migrations: migrations.clone(),
        authority,
        permit_key,
        verifier_key: verifier_key.as_str().into(),
        witnesses: witnesses.clone(),
        look_now: look_now.clone(),
        stopping: stopping.clone(),
    });
    let mut addresses = Vec::new();
    let mut serving = JoinSet::new();
    for listener in listeners(&config.listen, config.sockets).await? {
        let tls = server_config(&trusted, &identity, ClientAuthentication::None)?;
        let listener = TlsListener::new(listener, tls).map_err(unknown_listener)?;
        addresses.push(axum::serve::Listener::local_addr(&listener).map_err(unknown_listener)?);
        let mut stopping = stopping.clone();
        let service = router
            .clone()
            .into_make_service_with_connect_info::<Address>();
        serving.spawn(async move {
            axum::serve(listener, service)
                .with_graceful_shutdown(async move {
                    // An error: the sender is gone, which means the same.
                    let _ = stopping.changed().await;
                })
                .await
        });
    }
    let taken_up = migrations.recover().await?;
    let watching = tokio::spawn(monitor::watch(
        store.clone(),
        agents,
        watched_key,
        config.monitor_interval,
        look_now,
    ));
    let showing = witnesses
        .show(
            &store,
            &LedgerVerifier::new(&verifier_key)?,
            Pace::default(),
        )
        .map_err(ServerError::Witness)?;
    let renewing = tokio::spawn(renewing);
    ready(&Started {
        addresses,
        administrator_token,
        taken_up,
    });
    shutdown.await;

    let _ = stop.send(());
    watching.abort();
    drop(showing);
    renewing.abort();
    let ended = tokio::time::timeout(GRACE, async {
        while serving.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        tracing::warn!("requests under way have been broken off");
    }
    serving.shutdown().await;
    migrations.stop().await;
    store.close().await;
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ServerError + use<> {
    let path = path.to_owned();
    move |source| ServerError::File { path, source }
}

fn unknown_listener(source: io::Error) -> ServerError {
    ServerError::Listen {
        address: "a socket that was handed over".to_owned(),
        source,
    }
}

/// Two control planes on one store would both carry out its migrations.
fn lock(data: &Path) -> Result<File, ServerError> {
    let path = data.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ServerError::InUse(data.to_owned())),
        Err(TryLockError::Error(source)) => Err(at(&path)(source)),
    }
}

/// Enough of a fingerprint to tell ledgers apart.
fn short(fingerprint: &str) -> &str {
    fingerprint.get(..16).unwrap_or(fingerprint)
}

async fn open_store(data: &Path, ledger: LedgerSigner) -> Result<Store, ServerError> {
    let path = data.join("carnet.db");
    // Made here, so that nobody else can read it from the beginning; SQLite gives its journal
    // the same mode.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(at(&path))?;
    Ok(Store::open(&path, ledger).await?)
}

/// Makes the first administrator, where there is no account. The token is written down before the
/// account is made: a crash in between leaves a token that is good for nothing, and the next
/// start writes another over it.
async fn first_start(data: &Path, store: &Store) -> Result<Option<PathBuf>, ServerError> {
    if store.accounts(&Search::default()).await?.count > 0 {
        return Ok(None);
    }
    let path = data.join("administrator.token");
    let secret = Secret::new("carnet_", TOKEN_BYTES);
    let now = clock::now();
    let account = NewAccount {
        id: AccountId::from_uuid(Uuid::now_v7()),
        name: FIRST_ACCOUNT.to_owned(),
        roles: vec![Role::Administrator],
        created_at: now,
    };
    let token = NewToken {
        id: TokenId::from_uuid(Uuid::now_v7()),
        account: account.id,
        label: "first start".to_owned(),
        roles: account.roles.clone(),
        secret_hash: secret.hash(),
        created_at: now,
        expires_at: None,
    };
    if path.exists() {
        fs::remove_file(&path).map_err(at(&path))?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            writeln!(file, "{}", secret.reveal())?;
            file.sync_all()
        })
        .map_err(at(&path))?;
    store.create_first_account(&account, &token).await?;
    Ok(Some(path))
}

async fn listeners(
    addresses: &[SocketAddr],
    sockets: Vec<std::net::TcpListener>,
) -> Result<Vec<TcpListener>, ServerError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| ServerError::Listen {
                address: address.to_string(),
                source,
            })?;
        listeners.push(listener);
    }
    for socket in sockets {
        socket.set_nonblocking(true).map_err(unknown_listener)?;
        listeners.push(TcpListener::from_std(socket).map_err(unknown_listener)?);
    }
    Ok(listeners)
}
