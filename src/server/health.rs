//! What Kubernetes asks: is it alive, may it get requests. Without a token: a kubelet has none.
//!
//! A full disk is neither: who asks for a token is told so, and revoking goes on. A disk that fails writes on a fresh
//! connection takes the service out of the rotation at once, and has it started again after a minute.

use super::state::App;
use super::store::Store;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often writing is tried, at most.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// How long nothing could be written until only a new start may help.
const HOPELESS: Duration = Duration::from_secs(60);

/// Whether the database can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    /// It could, if there were room on the disk.
    Full,
    /// It can't, since then.
    Fails(Instant),
}

/// What the last try to write came to.
#[derive(Debug, Default)]
pub struct Writing(Mutex<Option<(Instant, Verdict)>>);

impl Writing {
    /// Whether the database can be written: tried only when a write has failed since the last one that succeeded.
    async fn check(&self, store: &Store) -> Verdict {
        let mut last = self.0.lock().await;
        if !store.is_in_doubt() {
            *last = None;
            return Verdict::Works;
        }
        let now = Instant::now();
        if let Some((at, verdict)) = *last
            && now.duration_since(at) < TRY_EVERY
        {
            return verdict;
        }
        let since = match *last {
            Some((_, Verdict::Fails(since))) => since,
            _ => now,
        };
        let verdict = match timeout(PATIENCE, store.try_to_write()).await {
            Ok(Ok(())) => Verdict::Works,
            Ok(Err(error)) if error.is_full() => {
                tracing::warn!("the disk is full: nothing is issued until there is room");
                Verdict::Full
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "nothing can be written");
                Verdict::Fails(since)
            }
            Err(_) => {
                tracing::error!("nothing can be written: the database doesn't answer");
                Verdict::Fails(since)
            }
        };
        *last = Some((now, verdict));
        verdict
    }
}

/// `GET /healthz`: the process answers, and hasn't failed to write for a minute.
pub async fn live(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.writing.check(&app.store).await {
        Verdict::Fails(since) if since.elapsed() >= HOPELESS => {
            (StatusCode::SERVICE_UNAVAILABLE, "nothing could be written for a minute\n")
        }
        _ => (StatusCode::OK, "ok\n"),
    }
}

/// `GET /readyz`: the database answers, and can be written as far as there is room.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if let Verdict::Fails(_) = app.writing.check(&app.store).await {
        return (StatusCode::SERVICE_UNAVAILABLE, "the database can't be written\n");
    }
    match timeout(PATIENCE, app.store.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database failed\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database doesn't answer\n"),
    }
}
