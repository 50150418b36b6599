//! Orders of the control plane, carried out one at a time per migration and never broken off.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use carnet_api::v1::Problem;
use carnet_core::ids::MigrationId;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde::Serialize;
use serde_json::Value;

use crate::problem;

/// The outcome of an order, as JSON.
pub type Outcome = Result<Value, Problem>;

type Underway = Shared<BoxFuture<'static, Outcome>>;

/// An order under way: its name, and the statement that it was given on.
#[derive(Debug)]
struct Given {
    name: &'static str,
    statement: String,
    outcome: Underway,
}

/// The orders under way.
///
/// An order runs in a task of its own: the caller may hang up, and a control plane that was
/// killed asks again, while CRIU goes on undisturbed (interrupted, it leaves its parasite in the
/// container's processes). The same order asked for again, on the same statement, waits for the same
/// outcome; another order for the same migration waits until the one before it has ended.
#[derive(Debug, Default)]
pub struct Orders {
    underway: Mutex<HashMap<MigrationId, Vec<Given>>>,
}

impl Orders {
    /// Carries out `work` as the order `name` of `migration`, given on `statement`, or joins it
    /// where it is under way.
    pub async fn carry_out<T, F>(
        self: &Arc<Self>,
        migration: MigrationId,
        name: &'static str,
        statement: &str,
        work: F,
    ) -> Outcome
    where
        T: Serialize,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        self.join_or_start(migration, name, statement, work).await
    }

    /// Waits for the end of every order that is under way.
    pub async fn settle(&self) {
        let last: Vec<_> = {
            let underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
            underway
                .values()
                .filter_map(|queue| queue.last().map(|given| given.outcome.clone()))
                .collect()
        };
        for outcome in last {
            let _ = outcome.await;
        }
    }

    fn join_or_start<T, F>(
        self: &Arc<Self>,
        migration: MigrationId,
        name: &'static str,
        statement: &str,
        work: F,
    ) -> Underway
    where
        T: Serialize,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let mut underway = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = underway.entry(migration).or_default();
        if let Some(last) = queue.last()
            && last.name == name
            && last.statement == statement
        {
            return last.outcome.clone();
        }
        let before = queue.last().map(|given| given.outcome.clone());
        let task = tokio::spawn({
            let orders = self.clone();
            async move {
                // Dropped at the end of the task, however it ends.
                let _ended = Ended { orders, migration };
                if let Some(before) = before {
                    let _ = before.await;
                }
                work.await.and_then(|done| {
                    serde_json::to_value(done).map_err(|error| problem::internal(&error))
                })
            }
        });
        let outcome = async move {
            task.await
                .unwrap_or_else(|error| Err(problem::internal(&error)))
        }
        .boxed()
        .shared();
        queue.push(Given {
            name,
            statement: statement.to_owned(),
            outcome: outcome.clone(),
        });
        outcome
    }
}

struct Ended {
    orders: Arc<Orders>,
    migration: MigrationId,
}

impl Drop for Ended {
    /// Orders of one migration end in the order in which they came.
    fn drop(&mut self) {
        let mut underway = self
            .orders
            .underway
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = underway.get_mut(&self.migration) {
            if queue.len() <= 1 {
                underway.remove(&self.migration);
            } else {
                drop(queue.remove(0));
            }
        }
    }
}
