//! A control plane in this process, over plain HTTP, and the people who use it.

use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use carnet_api::v1::{
    Account, Container, Edge, Enrolment, EnrolmentToken, Migration, NewApiToken, NewShareKey, Role,
    ShareKey,
};
use carnet_control::agents::Agents;
use carnet_control::authority::CertificateAuthority;
use carnet_control::http::{App, router};
use carnet_control::keys::PermitKey;
use carnet_control::migrate::{Limits, Migrations, Pace};
use carnet_control::monitor;
use carnet_control::store::{NewAccount, NewToken, Store};
use carnet_control::web::Address;
use carnet_core::ids::{AccountId, TokenId};
use carnet_core::instant::UnixMillis;
use carnet_core::ledger::LedgerSigner;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::ConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::{FakeAgents, PATIENCE};
use crate::http::Http;

/// Satisfied by [`ATTRIBUTES`].
pub const REQUIREMENTS: &str = "de * * lxc 60 50 1.6 4 * * *";
pub const ATTRIBUTES: &str = "B de caA deB lxc 2.6 8 - - -";
const MAX_READING_AGE_MS: u64 = 10_000;

pub struct Plane {
    pub agents: Arc<FakeAgents>,
    pub administrator: Someone,
    http: Http,
    store: Store,
    /// Sent to, or dropped, it tells whoever waits that the control plane stops.
    pub stop: watch::Sender<()>,
    data: TempDir,
    /// Of the next edge: no two have the same address.
    next_port: AtomicU16,
}

/// An account, and a token of it.
#[derive(Debug, Clone)]
pub struct Someone {
    pub id: AccountId,
    pub name: String,
    pub token: String,
}

impl AsRef<str> for Someone {
    fn as_ref(&self) -> &str {
        &self.token
    }
}

impl Deref for Plane {
    type Target = Http;

    fn deref(&self) -> &Http {
        &self.http
    }
}

impl Plane {
    pub async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let authority = Arc::new(CertificateAuthority::open(data.path()).unwrap());
        let since = std::time::UNIX_EPOCH.elapsed().unwrap();
        let now = UnixMillis(i64::try_from(since.as_millis()).unwrap());
        let key = Arc::new(PermitKey::open(data.path(), authority.clone(), now).unwrap());
        let ledger = LedgerSigner::new("carnet.test/ledger", &[7; 32]).unwrap();
        let verifier_key = ledger.verifier_key();
        let path = data.path().join("carnet.db");
        let store = Store::open(&path, ledger).await.unwrap();
        let public = key.current().signer.public();
        store.enter_key("permit", public.as_bytes()).await.unwrap();
        let agents = Arc::new(FakeAgents::default());
        let pace = Pace {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(10),
        };
        let migrations = Migrations::new(
            store.clone(),
            agents.clone(),
            key.clone(),
            MAX_READING_AGE_MS,
            pace,
            Limits::default(),
        );
        let (stop, stopping) = watch::channel(());
        let app = App {
            store: store.clone(),
            agents: agents.clone(),
            look_now: migrations.look_now(),
            migrations: Arc::new(migrations),
            authority,
            permit_key: key,
            verifier_key: verifier_key.into(),
            witnesses: Arc::default(),
            stopping,
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // Ends with the test's runtime.
        let service = router(app).into_make_service_with_connect_info::<Address>();
        tokio::spawn(async move { axum::serve(listener, service).await });
        // The only provider; another test may have named it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        let client = client.build().unwrap();
        Self {
            agents,
            administrator: administrator(&store).await,
            http: Http::open(client, base).await,
            store,
            stop,
            data,
            next_port: AtomicU16::new(7443),
        }
    }

    /// Where everything is kept.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// What the control plane keeps.
    #[allow(dead_code)] // The pages' tests use it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// An account with a token of all its roles.
    pub async fn account(&self, name: &str, roles: &[Role]) -> Someone {
        let body = json!({"name": name, "roles": roles});
        let account: Account = self
            .post(&self.administrator, "/v1/accounts", body)
            .await
            .read(201);
        let path = format!("/v1/accounts/{name}/tokens");
        let body = json!({"label": "for a test"});
        let token: NewApiToken = self.post(&self.administrator, &path, body).await.read(201);
        Someone {
            id: account.id,
            name: account.name,
            token: token.secret,
        }
    }

    pub async fn edge_owner(&self, name: &str) -> Someone {
        self.account(name, &[Role::EdgeOwner]).await
    }

    pub async fn container_owner(&self, name: &str) -> Someone {
        self.account(name, &[Role::ContainerOwner]).await
    }

    /// An enrolled edge, as `row` describes it.
    pub async fn edge_as(&self, owner: &Someone, name: &str, row: &str) -> Edge {
        let port = self.next_port.fetch_add(1, Ordering::Relaxed);
        let address = format!("192.0.2.7:{port}");
        let body = json!({"name": name, "address": address, "attributes": row});
        self.post(owner, "/v1/edges", body).await.json(201);
        self.enrol(owner, name).await;
        self.show_edge(owner, name).await
    }

    /// An enrolled edge that satisfies [`REQUIREMENTS`].
    pub async fn edge(&self, owner: &Someone, name: &str) -> Edge {
        self.edge_as(owner, name, ATTRIBUTES).await
    }

    pub async fn show_edge(&self, who: &Someone, name: &str) -> Edge {
        self.get(who, &format!("/v1/edges/{name}")).await.read(200)
    }

    pub async fn enrolment_token(&self, owner: &Someone, edge: &str) -> EnrolmentToken {
        let path = format!("/v1/edges/{edge}/enrolment-tokens");
        self.post(owner, &path, json!({})).await.read(201)
    }

    pub async fn enrol(&self, owner: &Someone, edge: &str) -> Enrolment {
        let token = self.enrolment_token(owner, edge).await.token;
        let body = json!({
            "token": token, "certificate_request": certificate_request(), "detected": {},
        });
        let ask = self.ask(Method::POST, "/v1/enrolments");
        ask.json(body).send().await.read(201)
    }

    /// A share key, entered by its grantee.
    pub async fn share(&self, owner: &Someone, edge: &str, grantee: &Someone) -> ShareKey {
        let given = self.give_key(owner, edge, grantee).await;
        let body = json!({"key": given.key});
        let redeemed = self.post(grantee, "/v1/share-keys/redeem", body).await;
        redeemed.read(200)
    }

    /// A share key, not entered yet.
    pub async fn give_key(&self, owner: &Someone, edge: &str, grantee: &Someone) -> NewShareKey {
        let path = format!("/v1/edges/{edge}/share-keys");
        let body = json!({"grantee": grantee.name});
        self.post(owner, &path, body).await.read(201)
    }

    /// A container whose registration is pending.
    pub async fn pending(&self, owner: &Someone, edge: &str, name: &str) -> Container {
        let body = json!({"name": name, "edge": edge, "requirements": REQUIREMENTS});
        self.post(owner, "/v1/containers", body).await.read(201)
    }

    /// A container that the edge's owner has confirmed.
    pub async fn container(
        &self,
        owner: &Someone,
        edge_owner: &Someone,
        edge: &str,
        name: &str,
    ) -> Container {
        let id = self.pending(owner, edge, name).await.id;
        let path = format!("/v1/containers/{id}/confirm");
        self.post(edge_owner, &path, json!({})).await.read(200)
    }

    pub async fn show_container(&self, who: &Someone, name: &str) -> Container {
        let path = format!("/v1/containers/{name}");
        self.get(who, &path).await.read(200)
    }

    /// Asks for a move to an edge, without waiting for its end.
    pub async fn start_move(&self, owner: &Someone, container: &str, edge: &str) -> Migration {
        let body = json!({"container": container, "to": {"edge": edge}});
        let answer = self.post(owner, "/v1/migrations", body).await;
        // Where nothing holds it up it may have ended before it is answered for.
        let status = if answer.status == 200 { 200 } else { 202 };
        answer.read(status)
    }

    /// The migration when it has ended.
    pub async fn end_of(&self, who: &Someone, migration: &Migration) -> Migration {
        let path = format!("/v1/migrations/{}?wait=10", migration.id);
        let ended: Migration = self.get(who, &path).await.read(200);
        assert!(ended.state.is_ended(), "{ended:?}");
        ended
    }

    /// The monitor looks once.
    pub async fn look(&self) {
        let agents: Arc<dyn Agents> = self.agents.clone();
        monitor::look(&self.store, &agents).await.unwrap();
    }

    /// Changes what no request can: time that passes, roles that are taken away.
    pub async fn change(&self, sql: &str) {
        let database = SqliteConnectOptions::new().filename(self.data().join("carnet.db"));
        let mut connection = database.connect().await.unwrap();
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let done = query.execute(&mut connection).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql} changes nothing");
    }
}

async fn administrator(store: &Store) -> Someone {
    let id = AccountId::from_uuid(Uuid::now_v7());
    let token = format!("carnet_{}", Uuid::now_v7().simple());
    let roles = vec![Role::Administrator];
    let account = NewAccount {
        id,
        name: "administrator".to_owned(),
        roles: roles.clone(),
        created_at: UnixMillis(1),
    };
    let new = NewToken {
        id: TokenId::from_uuid(Uuid::now_v7()),
        account: id,
        label: "for a test".to_owned(),
        roles,
        secret_hash: Sha256::digest(&token).to_vec(),
        created_at: UnixMillis(1),
        expires_at: None,
    };
    assert!(store.create_first_account(&account, &new).await.unwrap());
    Someone {
        id,
        name: account.name,
        token,
    }
}

/// A certificate request as an agent makes it.
pub fn certificate_request() -> String {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::default();
    params.serialize_request(&key).unwrap().pem().unwrap()
}
