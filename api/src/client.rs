//! The client of the public API, for the command line, the lab and anyone else.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::tls::{Authority, TlsError, client_config};
use crate::v1::Problem;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A control plane, as one account sees it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

/// Why a request came to nothing.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The control plane answered with a problem.
    #[error("{}", describe(.0))]
    Problem(Problem),
    /// There was no answer, or none of Carnet's.
    #[error("no answer from {url}: {source}")]
    Transport { url: String, source: reqwest::Error },
    /// Something answered that is not Carnet.
    #[error("{url} answered {status}, and not as Carnet does: {start}")]
    Foreign {
        url: String,
        status: StatusCode,
        start: String,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot set up an HTTP client: {0}")]
    Setup(reqwest::Error),
}

fn describe(problem: &Problem) -> String {
    let mut text = problem
        .detail
        .clone()
        .unwrap_or_else(|| problem.title.clone());
    for fault in &problem.faults {
        text.push_str(&format!(
            "\n  {}: {}: found `{}`; allowed: {}",
            fault.place, fault.problem, fault.found, fault.allowed
        ));
        if let Some(suggestion) = &fault.suggestion {
            text.push_str(&format!("; did you mean `{suggestion}`?"));
        }
    }
    text
}

impl Client {
    /// A client for the control plane at `base` (`https://host:port`), which must show a
    /// certificate of `authority`. `token` is the API token's secret.
    ///
    /// # Errors
    /// Where the authority's certificate cannot be used.
    pub fn new(
        base: &str,
        authority: &Authority,
        token: Option<String>,
    ) -> Result<Self, ClientError> {
        Self::with_tls(base, client_config(authority, None)?, token)
    }

    /// The same with TLS set up otherwise, e.g. by [`pinned_client_config`](crate::tls::pinned_client_config).
    ///
    /// # Errors
    /// Where no HTTP client can be set up.
    pub fn with_tls(
        base: &str,
        tls: ClientConfig,
        token: Option<String>,
    ) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .no_proxy()
            .build()
            .map_err(ClientError::Setup)?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            token,
        })
    }

    /// Reads a resource. `path` starts with `/`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>, None).await
    }

    /// Reads what is not JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, ClientError> {
        let response = self.events(path).await?;
        match response.bytes().await {
            Ok(bytes) => Ok(bytes.to_vec()),
            Err(source) => Err(self.transport(path, source)),
        }
    }

    /// Creates a resource or carries out an action.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.send(Method::POST, path, Some(body), None).await
    }

    /// Creates a resource once, however often it is asked for under the same `key`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_once<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        key: &str,
    ) -> Result<T, ClientError> {
        self.send(Method::POST, path, Some(body), Some(key)).await
    }

    /// Replaces a resource.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.send(Method::PUT, path, Some(body), None).await
    }

    /// Ends a resource.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::DELETE, path, None::<&()>, None).await
    }

    /// Opens a stream of server-sent events and returns its bytes as they come.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn events(&self, path: &str) -> Result<reqwest::Response, ClientError> {
        let response = self.request(Method::GET, path).send().await;
        let response = response.map_err(|source| self.transport(path, source))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(path, response).await)
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        idempotency_key: Option<&str>,
    ) -> Result<T, ClientError> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        if let Some(key) = idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let response = request
            .send()
            .await
            .map_err(|source| self.transport(path, source))?;
        if response.status().is_success() {
            response
                .json()
                .await
                .map_err(|source| self.transport(path, source))
        } else {
            Err(self.refusal(path, response).await)
        }
    }

    async fn refusal(&self, path: &str, response: reqwest::Response) -> ClientError {
        let status = response.status();
        match response.bytes().await {
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(problem) => ClientError::Problem(problem),
                Err(_) => ClientError::Foreign {
                    url: format!("{}{path}", self.base),
                    status,
                    start: String::from_utf8_lossy(&body).chars().take(200).collect(),
                },
            },
            Err(source) => self.transport(path, source),
        }
    }

    fn transport(&self, path: &str, source: reqwest::Error) -> ClientError {
        ClientError::Transport {
            url: format!("{}{path}", self.base),
            source,
        }
    }
}
