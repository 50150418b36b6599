//! How the commands reach a control plane.

mod connection;
mod events;

pub use connection::{ClientArguments, control_url};
pub use events::EventParser;

use carnet_api::client::{Client, ClientError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::failure::Failure;
use crate::output::{Output, Surface};

/// An answer of the API: as it came, and as its type.
#[derive(Debug)]
pub struct Answer<T> {
    pub json: Value,
    pub value: T,
}

impl<T: DeserializeOwned> Answer<T> {
    /// # Errors
    /// Where `json` is not a `T`.
    pub fn new(json: Value) -> Result<Self, Failure> {
        match T::deserialize(&json) {
            Ok(value) => Ok(Self { json, value }),
            Err(error) => Err(Failure::other(format!(
                "the control plane's answer is not as this carnet knows it: {error}"
            ))
            .with_help(
                "carnet --version has to be that of the control plane; --json shows any answer",
            )),
        }
    }
}

/// One command's dealings with the control plane.
#[derive(Debug)]
pub struct Session {
    url: String,
    client: Client,
    output: Output,
}

impl Session {
    /// # Errors
    /// All that is missing to reach a control plane.
    pub fn open(arguments: &ClientArguments) -> Result<Self, Failure> {
        let connection = arguments.resolve(&|name| std::env::var(name).ok())?;
        Ok(Self {
            url: connection.url().to_owned(),
            client: connection.client()?,
            output: Output::new(arguments.json),
        })
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        Answer::new(self.client.get(path).await?)
    }

    /// Creates a resource. Where the answer is lost on its way it is asked for again, once, under
    /// the same idempotency key: nothing is created twice.
    pub async fn create<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Answer<T>, Failure> {
        let key = Uuid::now_v7().to_string();
        match self.client.post_once(path, body, &key).await {
            Err(ClientError::Transport { source, .. }) if !source.is_connect() => {
                let again = self.client.post_once(path, body, &key).await?;
                // What was made the first time is answered without its secret.
                Answer::new(again).map_err(|_| {
                    Failure::other("it was made, but the answer with its secret was lost")
                        .with_help("look for it, end it, and make another")
                })
            }
            created => Answer::new(created?),
        }
    }

    /// Carries out an action that may be repeated.
    pub async fn act<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, Failure> {
        Answer::new(self.client.post(path, &serde_json::json!({})).await?)
    }

    /// Asks for what is worked out anew each time.
    pub async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Answer<T>, Failure> {
        Answer::new(self.client.post(path, body).await?)
    }

    pub async fn replace<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Answer<T>, Failure> {
        Answer::new(self.client.put(path, body).await?)
    }

    pub async fn delete(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.client.delete(path).await?)
    }

    /// Where the control plane is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The client itself, for streams of events.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Shows an answer: as it came for programs, by `view` for people.
    pub fn show<T>(
        &self,
        answer: &Answer<T>,
        view: impl FnOnce(&T, Surface) -> String,
    ) -> Result<(), Failure> {
        self.output
            .answer(&answer.json, |surface| view(&answer.value, surface))
    }

    pub fn output(&self) -> Output {
        self.output
    }
}
