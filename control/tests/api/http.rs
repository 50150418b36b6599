//! Requests. Every answer is held against the document.

use std::sync::Arc;

use carnet_api::v1::Problem;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::contract::{Contract, Exchange};

/// An API, as anyone can reach it.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
    base: String,
    contract: Arc<Contract>,
}

impl Http {
    /// The API at `base`, held against the document that it serves.
    pub async fn open(client: reqwest::Client, base: String) -> Self {
        let url = format!("{base}/v1/openapi.json");
        let served = client.get(url).send().await.unwrap();
        let document: Value = served.json().await.unwrap();
        Self {
            client,
            base,
            contract: Arc::new(Contract::new(document)),
        }
    }

    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request without a token or body.
    pub fn ask(&self, method: Method, path: &str) -> Ask {
        Ask {
            http: self.clone(),
            request: self
                .client
                .request(method.clone(), format!("{}{path}", self.base)),
            method,
            path: path.split('?').next().unwrap_or_default().to_owned(),
            sent: None,
        }
    }

    pub async fn get(&self, who: impl AsRef<str>, path: &str) -> Answer {
        self.ask(Method::GET, path).by(who).send().await
    }

    pub async fn post(&self, who: impl AsRef<str>, path: &str, body: Value) -> Answer {
        let ask = self.ask(Method::POST, path).by(who);
        ask.json(body).send().await
    }

    pub async fn put(&self, who: impl AsRef<str>, path: &str, body: Value) -> Answer {
        let ask = self.ask(Method::PUT, path).by(who);
        ask.json(body).send().await
    }

    /// A stream that the server ends.
    pub async fn follow(&self, who: impl AsRef<str>, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.base));
        let response = request.bearer_auth(who.as_ref()).send().await.unwrap();
        self.contract.hold(&Exchange {
            method: &Method::GET,
            path,
            sent: None,
            status: response.status(),
            headers: response.headers(),
            body: b"",
        });
        assert_eq!(response.status(), 200);
        response
    }

    pub async fn delete(&self, who: impl AsRef<str>, path: &str) -> Answer {
        self.ask(Method::DELETE, path).by(who).send().await
    }
}

/// A request that is being put together.
pub struct Ask {
    http: Http,
    request: reqwest::RequestBuilder,
    method: Method,
    path: String,
    sent: Option<Value>,
}

impl Ask {
    /// With the token of `who`.
    pub fn by(mut self, who: impl AsRef<str>) -> Self {
        self.request = self.request.bearer_auth(who.as_ref());
        self
    }

    pub fn json(mut self, body: Value) -> Self {
        self.request = self.request.json(&body);
        self.sent = Some(body);
        self
    }

    /// With a body that need not be JSON.
    pub fn body(mut self, body: impl Into<reqwest::Body>) -> Self {
        self.request = self.request.body(body);
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// With an idempotency key.
    pub fn once(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    pub async fn send(self) -> Answer {
        let response = self.request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap();
        // HEAD is answered as GET, without the body.
        if self.method != Method::HEAD {
            self.http.contract.hold(&Exchange {
                method: &self.method,
                path: &self.path,
                sent: self.sent.as_ref(),
                status,
                headers: &headers,
                body: &body,
            });
        }
        Answer {
            asked: format!("{} {}", self.method, self.path),
            status,
            headers,
            body: body.to_vec(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    asked: String,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body; fails where the status is another.
    pub fn json(&self, status: u16) -> Value {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}: {}",
            self.asked,
            self.text()
        );
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body, read; fails where the status is another.
    pub fn read<T: DeserializeOwned>(&self, status: u16) -> T {
        serde_json::from_value(self.json(status)).unwrap()
    }

    /// The problem; fails where it is another.
    pub fn problem(&self, status: u16, name: &str) -> Problem {
        let problem: Problem = self.read(status);
        assert_eq!(
            problem.kind,
            format!("urn:carnet:problem:{name}"),
            "{problem:?}"
        );
        assert_eq!(problem.status, status, "{problem:?}");
        problem
    }

    /// What is said to people; fails where it is another problem.
    pub fn detail(&self, status: u16, name: &str) -> String {
        self.problem(status, name).detail.unwrap()
    }
}
