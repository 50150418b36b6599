use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use carnet_core::ids::MigrationId;
use futures_util::{Stream, stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use crate::http::App;
use crate::http::access::Caller;
use crate::http::migrations;

/// What the monitor sees changes without news: at the latest after this time a page is looked at
/// again.
const AT_THE_LATEST: Duration = Duration::from_secs(5);

/// Says when what the caller sees may have changed: server-sent events named `changed`. What has
/// changed is not told, but why; the page is fetched anew, as whoever asks may see it then.
pub(super) async fn follow(State(app): State<App>, caller: Caller) -> impl IntoResponse {
    let follower = Follower {
        news: app.migrations.news(),
        stopping: app.stopping.clone(),
        app,
        caller,
    };
    Sse::new(follower.stream()).keep_alive(KeepAlive::default())
}

struct Follower {
    app: App,
    caller: Caller,
    news: broadcast::Receiver<MigrationId>,
    stopping: watch::Receiver<()>,
}

impl Follower {
    fn stream(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            let why = follower.changed().await?;
            let event = Event::default().event("changed").data(why);
            Some((Ok(event), follower))
        })
    }

    /// Waits until there may be something new, and says why: `migration`, or that it is `time` to
    /// look. `None`: there will be nothing any more.
    async fn changed(&mut self) -> Option<&'static str> {
        let latest = tokio::time::Instant::now() + AT_THE_LATEST;
        loop {
            let id = tokio::select! {
                news = self.news.recv() => match news {
                    Ok(id) => id,
                    // Among what was missed may be something of the caller's.
                    Err(RecvError::Lagged(_)) => return Some("migration"),
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(latest) => return Some("time"),
                _ = self.stopping.changed() => return None,
            };
            if migrations::concerns(&self.app, &self.caller, id)
                .await
                .unwrap_or_default()
            {
                return Some("migration");
            }
        }
    }
}
