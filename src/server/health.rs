//! What Kubernetes asks: is it alive, may it get requests. Without a token: a kubelet has none.
//!
//! A full disk is neither: who asks for a token is told so, and revoking goes on. A disk that fails writes on a fresh
//! connection, or hangs, takes the service out of the rotation, and has it started again after a minute.

use super::state::App;
use super::store::Store;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// How long who asks waits for an answer of the database.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a try to write may take.
const LONGEST: Duration = Duration::from_secs(20);

/// How often writing is tried, at most.
const TRY_EVERY: Duration = Duration::from_secs(5);

/// How long nothing could be written until only a new start may help.
const HOPELESS: Duration = Duration::from_secs(60);

/// What the last try to write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Works,
    /// It would work if there were room on the disk.
    Full,
    Fails,
}

#[derive(Debug, Default)]
struct Tries {
    /// When the last one began.
    begun: Option<Instant>,
    verdict: Option<Verdict>,
    /// Since when none has come to anything, and how many writes had been committed then.
    failing: Option<(Instant, u64)>,
}

/// Whether the store can be written: tried only when a write has failed or takes long, and at most every five seconds.
#[derive(Debug, Default)]
pub struct Writing(Arc<Mutex<Tries>>);

impl Writing {
    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since when nothing can be written; `None` where writing works as far as there is room.
    async fn failing_since(&self, store: &Store) -> Option<Instant> {
        if !store.is_in_doubt() {
            *self.tries() = Tries::default();
            return None;
        }
        let takes_long = match self.try_to_write(store) {
            // It goes on when who asks doesn't wait for it.
            Some(probe) => timeout(PATIENCE, probe).await.is_err(),
            None => false,
        };
        let mut tries = self.tries();
        if tries.failing.is_some_and(|(_, successes)| successes != store.successes()) {
            tries.failing = None;
        }
        let fails = match tries.verdict {
            Some(Verdict::Works | Verdict::Full) => false,
            Some(Verdict::Fails) => true,
            None => takes_long || tries.failing.is_some(),
        };
        fails.then(|| tries.failing.get_or_insert((Instant::now(), store.successes())).0)
    }

    /// Begins a try, unless one began lately.
    fn try_to_write(&self, store: &Store) -> Option<JoinHandle<()>> {
        let mut tries = self.tries();
        let now = Instant::now();
        if tries.begun.is_some_and(|at| now.duration_since(at) < TRY_EVERY) {
            return None;
        }
        tries.begun = Some(now);
        // What worked before says nothing of now.
        tries.verdict = tries.verdict.filter(|verdict| *verdict != Verdict::Works);
        let (store, known) = (store.clone(), self.0.clone());
        Some(tokio::spawn(async move {
            let verdict = match timeout(LONGEST, store.try_to_write()).await {
                Ok(Ok(())) => Verdict::Works,
                Ok(Err(error)) if error.is_full() => {
                    tracing::warn!("the disk is full: nothing is issued until there is room");
                    Verdict::Full
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, "nothing can be written");
                    Verdict::Fails
                }
                Err(_) => {
                    tracing::error!("nothing can be written: the database doesn't answer");
                    Verdict::Fails
                }
            };
            let mut tries = known.lock().unwrap_or_else(PoisonError::into_inner);
            tries.verdict = Some(verdict);
            if verdict != Verdict::Fails {
                tries.failing = None;
            }
        }))
    }
}

/// `GET /healthz`: the process answers, and hasn't failed to write for a minute.
pub async fn live(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match app.writing.failing_since(&app.store).await {
        Some(since) if since.elapsed() >= HOPELESS => {
            (StatusCode::SERVICE_UNAVAILABLE, "nothing could be written for a minute\n")
        }
        _ => (StatusCode::OK, "ok\n"),
    }
}

/// `GET /readyz`: the database answers, and can be written as far as there is room.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    if app.writing.failing_since(&app.store).await.is_some() {
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
