//! What a long list costs: the page of an owner of 1,000 edges, beside the page of one who has
//! none.
//!
//! The control plane runs in this process as `carnet serve` runs it, and is asked over TLS by one
//! connection, as a browser does. All pages take turns, so that what else the machine does falls on
//! each.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use carnet_api::v1::{Account, Edge, NewApiToken, NewPassword, Role};
use carnet_control::server::{Config, ServerError, run};
use carnet_control::store::Store;
use comfy_table::{Cell, CellAlignment, Table, presets};
use reqwest::header::{COOKIE, ORIGIN, SET_COOKIE};
use reqwest::redirect::Policy;
use serde_json::json;
use sqlx::sqlite::SqlitePoolOptions;
use tempfile::TempDir;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const EDGES: u32 = 1_000;
/// Of each page.
const REQUESTS: usize = 200;
/// Nothing is enrolled: the monitor has nothing to look at.
const MONITOR_INTERVAL: Duration = Duration::from_secs(3_600);

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum PagesBenchError {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("what is read of edges cannot be put into the database: {0}")]
    Seen(#[from] sqlx::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("the control plane did not start")]
    NotStarted,
    #[error("`{path}` was answered {status}")]
    Answered { path: String, status: u16 },
    #[error("`{0}` has not what it is to show")]
    NotShown(String),
}

/// One page.
#[derive(Debug)]
struct Row {
    page: &'static str,
    bytes: usize,
    latencies: Vec<Duration>,
}

/// What was measured; its text is a table.
#[derive(Debug)]
pub struct Measured {
    rows: Vec<Row>,
}

/// Measures.
///
/// # Errors
/// Where the control plane does not run, or a page is not what it should be.
pub async fn measure() -> Result<Measured, PagesBenchError> {
    let data = TempDir::new()?;
    let plane = Plane::start(data.path().join("data")).await?;
    let measured = compare(&plane).await;
    plane.stop().await?;
    measured
}

async fn compare(plane: &Plane) -> Result<Measured, PagesBenchError> {
    let owner = plane.owner("owner").await?;
    for number in 0..EDGES {
        // Documentation's addresses (RFC 3849).
        let asked = json!({
            "name": format!("edge-{number:04}"),
            "address": format!("[2001:db8::{number:x}]:7443"),
            "attributes": {
                "region": format!("region-{}", number % 20), "location": "jp",
                "organizations": ["org-a", "org-b"], "manufacturer": "maker",
                "virtualization": ["lxc"], "cpu_ghz": 2.6, "memory_gb": 8,
            },
        });
        let _: Edge = plane.post("/v1/edges", &owner.token, &asked).await?;
    }
    plane.seen().await?;
    let nobody = plane.owner("nobody").await?;
    let pages = [
        ("no edge", "/edges", &nobody, "no edge yet"),
        ("first of 1,000", "/edges", &owner, "edge-0049"),
        ("last of 1,000", "/edges?own=20", &owner, "edge-0999"),
        (
            "search among 1,000",
            "/edges?search=region-7",
            &owner,
            "edge-0007",
        ),
    ];
    let mut rows: Vec<Row> = pages
        .iter()
        .map(|(page, ..)| Row {
            page,
            bytes: 0,
            latencies: Vec::with_capacity(REQUESTS),
        })
        .collect();
    for _ in 0..REQUESTS {
        for ((_, path, who, shows), row) in pages.iter().zip(&mut rows) {
            let began = Instant::now();
            let html = plane.page(path, who).await?;
            row.latencies.push(began.elapsed());
            if !html.contains(shows) {
                return Err(PagesBenchError::NotShown((*path).to_owned()));
            }
            row.bytes = html.len();
        }
    }
    Ok(Measured { rows })
}

/// Somebody who owns edges.
struct Owner {
    token: String,
    /// Of a browser in which they are logged in.
    cookie: String,
}

/// A control plane that runs in this process.
struct Plane {
    data: PathBuf,
    base: String,
    administrator: String,
    client: reqwest::Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Plane {
    async fn start(data: PathBuf) -> Result<Self, PagesBenchError> {
        // Another part of this process may have named it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = oneshot::channel();
        let config = Config {
            data: data.clone(),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            sockets: Vec::new(),
            names: Vec::new(),
            monitor_interval: MONITOR_INTERVAL,
            witnesses: Vec::new(),
        };
        let task = tokio::spawn(run(
            config,
            move |started| {
                let token = started.administrator_token.clone();
                let _ = ready.send((started.addresses.clone(), token));
            },
            async move {
                let _ = stopped.await;
            },
        ));
        let Ok((addresses, token)) = started.await else {
            return match task.await {
                Ok(ended) => Err(ended.err().map_or(PagesBenchError::NotStarted, Into::into)),
                Err(_) => Err(PagesBenchError::NotStarted),
            };
        };
        let (Some(address), Some(token)) = (addresses.first(), token) else {
            return Err(PagesBenchError::NotStarted);
        };
        let authority = reqwest::Certificate::from_pem(&fs::read(data.join("authority.pem"))?)?;
        Ok(Self {
            data,
            base: format!("https://{address}"),
            administrator: fs::read_to_string(token)?.trim().to_owned(),
            client: reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only([authority])
                .redirect(Policy::none())
                .build()?,
            stop,
            task,
        })
    }

    /// Puts into the database what the monitor would have read of every edge in an hour: their
    /// agents are not there.
    async fn seen(&self) -> Result<(), PagesBenchError> {
        let database = SqlitePoolOptions::new()
            .connect_with(Store::settings(&self.data.join("carnet.db")))
            .await?;
        sqlx::query(
            "INSERT INTO edge_sightings
                 (edge, health, since, problems, cpu_hundredths, memory_hundredths, read_at)
             SELECT id, 'healthy', 0, '[]', 1234, 5678, unixepoch() * 1000 FROM edges",
        )
        .execute(&database)
        .await?;
        sqlx::query(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 59)
             INSERT INTO utilization_samples
                 (edge, minute, cpu_hundredths, memory_hundredths, read_at)
             SELECT id, i, i * 777 % 10000, 5678, (unixepoch() - i * 60) * 1000 FROM n, edges",
        )
        .execute(&database)
        .await?;
        database.close().await;
        Ok(())
    }

    async fn stop(self) -> Result<(), PagesBenchError> {
        let _ = self.stop.send(());
        match self.task.await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(PagesBenchError::NotStarted),
        }
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        token: &str,
        body: &serde_json::Value,
    ) -> Result<T, PagesBenchError> {
        let request = self.client.post(format!("{}{path}", self.base));
        let answer = request.bearer_auth(token).json(body).send().await?;
        let answer = answered(path, answer)?;
        Ok(answer.json().await?)
    }

    async fn owner(&self, name: &str) -> Result<Owner, PagesBenchError> {
        let administrator = &self.administrator;
        let asked = json!({"name": name, "roles": [Role::EdgeOwner]});
        let _: Account = self.post("/v1/accounts", administrator, &asked).await?;
        let path = format!("/v1/accounts/{name}/tokens");
        let asked = json!({"label": "to register edges"});
        let token: NewApiToken = self.post(&path, administrator, &asked).await?;
        let path = format!("/v1/accounts/{name}/password");
        let password: NewPassword = self.post(&path, administrator, &json!({})).await?;
        Ok(Owner {
            token: token.secret,
            cookie: self.log_in(name, &password.secret).await?,
        })
    }

    /// Logs in as a browser does; returns the session's cookie.
    async fn log_in(&self, name: &str, password: &str) -> Result<String, PagesBenchError> {
        let path = "/log-in";
        let address = format!("{}{path}", self.base);
        let form = answered(path, self.client.get(&address).send().await?)?;
        let cookie = cookie(&form);
        let html = form.text().await?;
        let token = html
            .split_once(r#"name="form_token" value=""#)
            .and_then(|(_, rest)| rest.split('"').next())
            .ok_or_else(|| PagesBenchError::NotShown(path.to_owned()))?;
        // Neither holds anything that a form would write otherwise.
        let body = format!("form_token={token}&name={name}&password={password}");
        let answer = self
            .client
            .post(&address)
            .header(COOKIE, cookie)
            .header(ORIGIN, &self.base)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
            .await?;
        Ok(self::cookie(&answered(path, answer)?))
    }

    async fn page(&self, path: &str, who: &Owner) -> Result<String, PagesBenchError> {
        let request = self.client.get(format!("{}{path}", self.base));
        let answer = request.header(COOKIE, &who.cookie).send().await?;
        Ok(answered(path, answer)?.text().await?)
    }
}

fn answered(path: &str, answer: reqwest::Response) -> Result<reqwest::Response, PagesBenchError> {
    let status = answer.status();
    if status.is_success() || status == reqwest::StatusCode::SEE_OTHER {
        return Ok(answer);
    }
    Err(PagesBenchError::Answered {
        path: path.to_owned(),
        status: status.as_u16(),
    })
}

/// The first cookie that an answer sets.
fn cookie(answer: &reqwest::Response) -> String {
    answer
        .headers()
        .get(SET_COOKIE)
        .and_then(|cookie| cookie.to_str().ok())
        .and_then(|cookie| cookie.split(';').next())
        .unwrap_or_default()
        .to_owned()
}

impl Row {
    /// The latency that `percent` of the requests do not exceed, in milliseconds.
    fn latency_ms(&self, percent: usize) -> f64 {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let rank = (latencies.len() * percent).div_ceil(100);
        let latency = latencies.get(rank.saturating_sub(1));
        latency.copied().unwrap_or_default().as_secs_f64() * 1_000.0
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table
            .load_style(presets::ASCII_MARKDOWN)
            .set_header(["page", "p50, ms", "p99, ms", "ratio", "kB"]);
        let empty = self.rows.first().map_or(0.0, |row| row.latency_ms(50));
        for row in &self.rows {
            let median = row.latency_ms(50);
            let numbers = [
                format!("{median:.2}"),
                format!("{:.2}", row.latency_ms(99)),
                format!("{:.1}", median / empty),
                format!("{:.1}", row.bytes as f64 / 1e3),
            ];
            let mut cells = vec![Cell::new(row.page)];
            cells.extend(numbers.map(|cell| Cell::new(cell).set_alignment(CellAlignment::Right)));
            table.add_row(cells);
        }
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        write!(
            f,
            "pages over TLS, {REQUESTS} requests each, {cores} cores; ratio: to the page without an edge\n{table}"
        )
    }
}
