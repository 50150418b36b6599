//! A control plane without its HTTP: store, agents, migrations. It can be killed, and starts
//! again from the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use carnet_api::v1::{Container, DestinationSpec, DetectedFacts, Migration, Role};
use carnet_control::agents::Agents;
use carnet_control::authority::CertificateAuthority;
use carnet_control::keys::PermitKey;
use carnet_control::migrate::{Limits, Migrations, Pace};
use carnet_control::store::listing::{Search, Sight, Whose};
use carnet_control::store::migrations::NewMigration;
use carnet_control::store::{EdgeRecord, NewAccount, NewContainer, NewEdge, Store};
use carnet_core::ids::{AccountId, ContainerId, EdgeId, EnrolmentId, MigrationId, ShareKeyId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::LedgerSigner;
use carnet_core::migration::Terms;
use carnet_core::permit::Fingerprint;
use serde_json::{Value, json};
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use uuid::Uuid;

use crate::edges::{Edges, LIMIT, Process};

/// Short: what is tried again is tried again soon.
pub const PACE: Pace = Pace {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(4),
};
pub const MAX_READING_AGE_MS: u64 = 10_000;

pub struct Plane {
    pub store: Store,
    pub edges: Arc<Edges>,
    /// The database, past the store: to look into, and to put into it what Carnet does not.
    pub ledger: SqlitePool,
    pub authority: Arc<CertificateAuthority>,
    /// Signs what edges are given in writing.
    pub key: Arc<PermitKey>,
    migrations: Option<Arc<Migrations>>,
    pace: Pace,
    /// Those of the next control plane.
    pub limits: Limits,
    /// Owns the containers.
    pub owner: AccountId,
    /// Owns the edges.
    pub lender: AccountId,
    /// How often it was killed.
    pub kills: usize,
    path: PathBuf,
    /// Removed at the end.
    _directory: Option<TempDir>,
}

/// The eyes of who reads everything.
pub const EVERYTHING: Sight = Sight {
    account: AccountId::from_uuid(Uuid::nil()),
    sees_everything: true,
    is_edge_owner: false,
    is_container_owner: false,
};

impl Plane {
    pub async fn new() -> Self {
        Self::with_pace(PACE).await
    }

    pub async fn with_pace(pace: Pace) -> Self {
        // In memory, where there is such a directory: every commit would wait for the disk, which
        // is not what is tested.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let directory = directory.unwrap();
        let path = directory.path().join("carnet.db");
        let mut plane = Self::at(&path, pace).await;
        plane._directory = Some(directory);
        plane
    }

    /// On a new database, which stays.
    pub async fn at(path: &Path, pace: Pace) -> Self {
        let store = Store::open(path, ledger_signer()).await.unwrap();
        let authority = Arc::new(CertificateAuthority::open(path.parent().unwrap()).unwrap());
        let trusted = authority.authority().unwrap();
        let key =
            Arc::new(PermitKey::open(path.parent().unwrap(), authority.clone(), now()).unwrap());
        let ledger = SqlitePool::connect_with(SqliteConnectOptions::new().filename(path))
            .await
            .unwrap();
        let mut plane = Self {
            store,
            edges: Arc::new(Edges::new(ledger.clone(), trusted)),
            ledger,
            authority,
            key,
            migrations: None,
            pace,
            limits: Limits::default(),
            owner: AccountId::from_uuid(Uuid::now_v7()),
            lender: AccountId::from_uuid(Uuid::now_v7()),
            kills: 0,
            path: path.to_owned(),
            _directory: None,
        };
        plane.migrations = Some(plane.new_migrations());
        for (id, name, role) in [
            (plane.owner, "owner", Role::ContainerOwner),
            (plane.lender, "lender", Role::EdgeOwner),
        ] {
            plane.account(id, name, role).await;
        }
        plane
    }

    /// Where its keys are.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap()
    }

    fn new_migrations(&self) -> Arc<Migrations> {
        Arc::new(Migrations::new(
            self.store.clone(),
            self.agents(),
            self.key.clone(),
            MAX_READING_AGE_MS,
            self.pace,
            self.limits,
        ))
    }

    pub fn agents(&self) -> Arc<dyn Agents> {
        self.edges.clone()
    }

    pub fn migrations(&self) -> &Arc<Migrations> {
        self.migrations.as_ref().unwrap()
    }

    pub async fn account(&self, id: AccountId, name: &str, role: Role) {
        let account = NewAccount {
            id,
            name: name.to_owned(),
            roles: vec![role],
            created_at: now(),
        };
        self.store.create_account(&account, id).await.unwrap();
    }

    /// An edge whose owner has said what it is; it has no agent.
    pub async fn declared_edge(&self, name: &str, attributes: Value) -> EdgeId {
        let id = EdgeId::from_uuid(Uuid::now_v7());
        let edge = NewEdge {
            id,
            name: name.to_owned(),
            owner: self.lender,
            address: format!("{name}:1"),
            attributes,
            created_at: now(),
        };
        self.store.create_edge(&edge).await.unwrap();
        self.edges.add(id, name);
        id
    }

    pub async fn enrol(&self, edge: EdgeId) {
        self.enrol_with(edge, certificate_of(edge), UnixMillis(i64::MAX))
            .await;
    }

    /// Its agent gets this certificate, which is good until `expires_at`.
    pub async fn enrol_with(&self, edge: EdgeId, certificate: Fingerprint, expires_at: UnixMillis) {
        let secret = edge.to_string();
        self.store
            .create_enrolment_token(
                EnrolmentId::from_uuid(Uuid::now_v7()),
                edge,
                secret.as_bytes(),
                UnixMillis(i64::MAX),
            )
            .await
            .unwrap();
        let facts = DetectedFacts::default();
        assert!(
            self.store
                .enrol(secret.as_bytes(), &facts, certificate, expires_at, now())
                .await
                .unwrap()
        );
    }

    /// Gives the owner of the containers a key of `edge`, which is entered.
    pub async fn share(&self, edge: EdgeId) -> ShareKeyId {
        let key = ShareKeyId::from_uuid(Uuid::now_v7());
        let secret = key.to_string();
        self.store
            .create_share_key(key, edge, self.owner, secret.as_bytes(), now())
            .await
            .unwrap();
        let entered = self
            .store
            .redeem_share_key(secret.as_bytes(), self.owner, now())
            .await
            .unwrap();
        assert_eq!(entered, Some(key));
        key
    }

    /// An edge that is ready, and that the owner of the containers may use.
    pub async fn edge_with(&self, name: &str, attributes: Value) -> EdgeId {
        let edge = self.declared_edge(name, attributes).await;
        self.enrol(edge).await;
        self.share(edge).await;
        edge
    }

    pub async fn edge(&self, name: &str) -> EdgeId {
        self.edge_with(name, json!({})).await
    }

    /// A confirmed container that runs on `edge`.
    pub async fn container_with(
        &self,
        name: &str,
        edge: EdgeId,
        requirements: Value,
    ) -> ContainerId {
        let id = self.pending_container(name, self.owner, edge).await;
        if requirements != json!({}) {
            self.store
                .set_requirements(id, &requirements)
                .await
                .unwrap();
        }
        self.store
            .confirm_container(id, self.owner, now())
            .await
            .unwrap();
        self.edges.place(edge, name, Process::Running);
        id
    }

    /// Its owner accepts that memory follows after it runs.
    pub async fn allow_post_copy(&self, container: ContainerId) {
        self.store
            .set_allow_post_copy(container, self.owner, true)
            .await
            .unwrap();
    }

    pub async fn container(&self, name: &str, edge: EdgeId) -> ContainerId {
        self.container_with(name, edge, json!({})).await
    }

    pub async fn pending_container(
        &self,
        name: &str,
        owner: AccountId,
        edge: EdgeId,
    ) -> ContainerId {
        let id = ContainerId::from_uuid(Uuid::now_v7());
        let container = NewContainer {
            id,
            name: name.to_owned(),
            owner,
            edge,
            requirements: json!({}),
            allow_post_copy: false,
            created_at: now(),
        };
        self.store.create_container(&container).await.unwrap();
        id
    }

    pub async fn new_migration(&self, container: ContainerId, to: DestinationSpec) -> NewMigration {
        NewMigration {
            id: MigrationId::from_uuid(Uuid::now_v7()),
            container,
            requested_by: self.owner,
            to,
            terms: Terms::default(),
            source: self.container_now(container).await.edge,
            created_at: now(),
        }
    }

    /// Asks for a move, which begins.
    pub async fn request(&self, container: ContainerId, to: DestinationSpec) -> MigrationId {
        let new = self.new_migration(container, to).await;
        self.store.create_migration(&new).await.unwrap();
        self.migrations().start(new.id);
        new.id
    }

    pub async fn container_now(&self, container: ContainerId) -> Container {
        let mut found = self
            .store
            .containers_named(&container.to_string())
            .await
            .unwrap();
        found.pop().unwrap().container
    }

    /// Every edge, by name.
    pub async fn edges(&self) -> Vec<EdgeRecord> {
        let all = Search::default();
        let listed = self.store.edges(&EVERYTHING, Whose::All, &all).await;
        listed.unwrap().items
    }

    pub async fn edge_now(&self, edge: EdgeId) -> EdgeRecord {
        self.store.edge(&edge.to_string()).await.unwrap().unwrap()
    }

    pub async fn newest_migration(&self) -> Migration {
        let all = Search::default();
        let listed = self.store.migrations(None, None, &all).await.unwrap();
        listed.items.into_iter().next().unwrap().migration
    }

    pub async fn migration(&self, id: MigrationId) -> Migration {
        self.store.migration(id).await.unwrap().unwrap().migration
    }

    /// Waits until nothing is owed by edges that were declared lost.
    pub async fn until_nothing_is_owed(&self, id: MigrationId) {
        let waiting = async {
            while !self.store.owed(id).await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let done = tokio::time::timeout(LIMIT, waiting).await;
        assert!(done.is_ok(), "it is owed still\n{}", self.edges.trail());
    }

    /// Kills the control plane and starts another on the same file; returns how many moves that
    /// took up.
    pub async fn kill(&mut self) -> usize {
        self.kills += 1;
        self.edges.was_killed();
        self.migrations = None;
        self.store.close().await;
        self.store = Store::open(&self.path, ledger_signer()).await.unwrap();
        self.migrations = Some(self.new_migrations());
        self.migrations().recover().await.unwrap()
    }

    /// Waits until `holds` of a migration, and kills the control plane as often as an edge's
    /// fate demands it.
    pub async fn until(
        &mut self,
        id: MigrationId,
        holds: impl Fn(&Migration) -> bool,
    ) -> Migration {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let mut news = self.migrations().news();
        loop {
            let migration = self.migration(id).await;
            if holds(&migration) {
                return migration;
            }
            let edges = self.edges.clone();
            tokio::select! {
                heard = news.recv() => {
                    heard.unwrap();
                }
                () = edges.until_killed() => {
                    self.kill().await;
                    news = self.migrations().news();
                }
                () = tokio::time::sleep_until(deadline) => {
                    panic!("waited in vain; {migration:#?}\n{}", self.edges.trail());
                }
            }
        }
    }

    /// Waits until a migration has ended.
    pub async fn ended(&mut self, id: MigrationId) -> Migration {
        self.until(id, |migration| migration.state.is_ended()).await
    }

    /// Every write that would put a migration into the state `phase` fails from now on.
    pub async fn refuse_to_save(&self, phase: &str) {
        let trigger = format!(
            "CREATE TRIGGER disk_is_full BEFORE UPDATE ON migrations WHEN NEW.phase = '{phase}'
             BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&self.ledger)
            .await
            .unwrap();
    }

    pub async fn save_again(&self) {
        sqlx::query("DROP TRIGGER disk_is_full")
            .execute(&self.ledger)
            .await
            .unwrap();
    }
}

/// Signs what is entered into the ledger.
pub fn ledger_signer() -> LedgerSigner {
    LedgerSigner::new("carnet/test", &[1; 32]).unwrap()
}

/// The certificate that an edge's agent has here.
pub fn certificate_of(edge: EdgeId) -> Fingerprint {
    Fingerprint::of(edge.to_string().as_bytes())
}

/// The edge of that name, as a destination.
pub fn to_edge(name: &str) -> DestinationSpec {
    DestinationSpec::Edge(name.to_owned())
}

pub fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap();
    UnixMillis(i64::try_from(since.as_millis()).unwrap())
}
