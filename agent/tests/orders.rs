//! Orders: one at a time per migration, joined where they are the same, never broken off.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::sync::{Arc, Mutex};

use carnet_agent::orders::{Orders, Outcome};
use carnet_agent::problem::cannot;
use carnet_core::ids::MigrationId;
use futures_util::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// An order whose begin is seen and whose end is at the test's will.
struct Held {
    began: oneshot::Receiver<()>,
    end: oneshot::Sender<Result<u32, &'static str>>,
    answer: JoinHandle<Outcome>,
}

struct Scene {
    orders: Arc<Orders>,
    /// What began and ended, in the order in which it did.
    log: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    fn new() -> Self {
        Self {
            orders: Arc::default(),
            log: Arc::default(),
        }
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Gives an order. Under `label` it stands in the log, if it is ever begun.
    async fn give(&self, migration: MigrationId, name: &'static str, label: &'static str) -> Held {
        let (begins, began) = oneshot::channel();
        let (end, ended) = oneshot::channel::<Result<u32, &'static str>>();
        let log = self.log.clone();
        let work = async move {
            log.lock().unwrap().push(format!("{label} began"));
            let _ = begins.send(());
            let outcome = ended.await.expect("the test ends every order that begins");
            log.lock().unwrap().push(format!("{label} ended"));
            outcome.map_err(cannot)
        };
        let orders = self.orders.clone();
        let (asked, has_asked) = oneshot::channel();
        let answer = tokio::spawn(async move {
            let mut carried_out = Box::pin(orders.carry_out(migration, name, "a statement", work));
            // Once polled it stands in the queue.
            let first = carried_out.as_mut().now_or_never();
            let _ = asked.send(());
            match first {
                Some(outcome) => outcome,
                None => carried_out.await,
            }
        });
        has_asked.await.unwrap();
        Held { began, end, answer }
    }
}

fn migration() -> MigrationId {
    MigrationId::from_uuid(Uuid::now_v7())
}

#[tokio::test]
async fn the_same_order_joins_the_one_under_way() {
    let scene = Scene::new();
    let migration = migration();
    let first = scene.give(migration, "freeze", "first").await;
    first.began.await.unwrap();
    let second = scene.give(migration, "freeze", "second").await;
    let third = scene.give(migration, "freeze", "third").await;
    // Should they begin, they panic.
    drop((second.end, third.end));
    first.end.send(Ok(1)).unwrap();
    for answer in [first.answer, second.answer, third.answer] {
        assert_eq!(answer.await.unwrap().unwrap(), json!(1));
    }
    assert_eq!(scene.log(), ["first began", "first ended"]);
}

#[tokio::test]
async fn the_same_order_after_the_end_is_carried_out_anew() {
    let scene = Scene::new();
    let migration = migration();
    for (label, number) in [("first", 1), ("second", 2)] {
        let order = scene.give(migration, "freeze", label).await;
        order.began.await.unwrap();
        order.end.send(Ok(number)).unwrap();
        assert_eq!(order.answer.await.unwrap().unwrap(), json!(number));
    }
}

#[tokio::test]
async fn another_order_waits_for_the_end_of_the_one_before() {
    let scene = Scene::new();
    let migration = migration();
    let freeze = scene.give(migration, "freeze", "freeze").await;
    let thaw = scene.give(migration, "thaw", "thaw").await;
    // Not the same as the last: it waits in its turn.
    let again = scene.give(migration, "freeze", "again").await;
    freeze.began.await.unwrap();
    // Whoever waits has had every chance to begin.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.log(), ["freeze began"]);
    for (end, answer) in [
        (freeze.end, freeze.answer),
        (thaw.end, thaw.answer),
        (again.end, again.answer),
    ] {
        end.send(Ok(0)).unwrap();
        answer.await.unwrap().unwrap();
    }
    assert_eq!(
        scene.log(),
        [
            "freeze began",
            "freeze ended",
            "thaw began",
            "thaw ended",
            "again began",
            "again ended"
        ]
    );
}

#[tokio::test]
async fn orders_of_different_migrations_run_beside_each_other() {
    let scene = Scene::new();
    let one = scene.give(migration(), "freeze", "one").await;
    let other = scene.give(migration(), "freeze", "other").await;
    one.began.await.unwrap();
    other.began.await.unwrap();
    for (end, answer) in [(other.end, other.answer), (one.end, one.answer)] {
        end.send(Ok(0)).unwrap();
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_breaks_nothing_off() {
    let scene = Scene::new();
    let migration = migration();
    let first = scene.give(migration, "freeze", "first").await;
    let waiting = scene.give(migration, "thaw", "waiting").await;
    first.began.await.unwrap();
    for caller in [first.answer, waiting.answer] {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    first.end.send(Ok(1)).unwrap();
    waiting.began.await.unwrap();
    // Asked again, it is the same order that goes on.
    let joined = scene.give(migration, "thaw", "joined").await;
    drop(joined.end);
    waiting.end.send(Ok(2)).unwrap();
    assert_eq!(joined.answer.await.unwrap().unwrap(), json!(2));
    assert_eq!(
        scene.log(),
        [
            "first began",
            "first ended",
            "waiting began",
            "waiting ended"
        ]
    );
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_asked_and_the_next_goes_on() {
    let scene = Scene::new();
    let migration = migration();
    let first = scene.give(migration, "freeze", "first").await;
    let joined = scene.give(migration, "freeze", "joined").await;
    let next = scene.give(migration, "thaw", "next").await;
    drop(joined.end);
    first.end.send(Err("it does not freeze")).unwrap();
    for answer in [first.answer, joined.answer] {
        let problem = answer.await.unwrap().unwrap_err();
        assert_eq!(problem.status, 409);
        assert_eq!(problem.detail.as_deref(), Some("it does not freeze"));
    }
    next.end.send(Ok(2)).unwrap();
    assert_eq!(next.answer.await.unwrap().unwrap(), json!(2));
}

#[tokio::test]
async fn an_order_that_panics_is_a_fault_of_the_agent_and_the_next_goes_on() {
    let scene = Scene::new();
    let migration = migration();
    let panicking = scene.give(migration, "freeze", "panicking").await;
    let next = scene.give(migration, "thaw", "next").await;
    // Its end never comes: the order panics for want of it.
    drop(panicking.end);
    let problem = panicking.answer.await.unwrap().unwrap_err();
    // Not 4xx: what it has done by then is not known.
    assert_eq!(problem.status, 500);
    next.end.send(Ok(2)).unwrap();
    assert_eq!(next.answer.await.unwrap().unwrap(), json!(2));
    // It is forgotten: the same order begins anew.
    let again = scene.give(migration, "freeze", "again").await;
    again.end.send(Ok(3)).unwrap();
    assert_eq!(again.answer.await.unwrap().unwrap(), json!(3));
}

#[tokio::test]
async fn settling_waits_for_all_that_is_under_way() {
    let scene = Scene::new();
    scene.orders.settle().await;
    let migrations = [migration(), migration()];
    let first = scene.give(migrations[0], "freeze", "first").await;
    let second = scene.give(migrations[0], "thaw", "second").await;
    let other = scene.give(migrations[1], "freeze", "other").await;
    let (settled, mut has_settled) = mpsc::channel(1);
    let settling = tokio::spawn({
        let orders = scene.orders.clone();
        async move {
            orders.settle().await;
            settled.send(()).await.unwrap();
        }
    });
    for order in [other, first, second] {
        assert!(has_settled.try_recv().is_err());
        // Nobody waits for the answer any more.
        order.answer.abort();
        order.end.send(Ok(0)).unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    settling.await.unwrap();
    assert_eq!(scene.log().len(), 6);
}
