//! What an instance does when it may not be the one at work any more: nothing new, but what it was told
//! once and won't be told again is stored. And what another one leaves alone meanwhile.

use super::grant::BEGUN_ELSEWHERE;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long an answer that can't be stored is held on to.
pub const KEEP_TRYING: Duration = Duration::from_secs(120);

/// Whether this instance is at work, and who was before it.
#[derive(Debug)]
pub struct Tenure {
    /// The lease is lost.
    lost: watch::Sender<bool>,
    /// Since when this instance is at work in the place of one that gave nothing back.
    succeeded: Mutex<Option<Instant>>,
    /// Exchanges that run to their end whoever waits for them.
    held: watch::Sender<usize>,
}

impl Default for Tenure {
    fn default() -> Self {
        Self { lost: watch::Sender::new(false), succeeded: Mutex::default(), held: watch::Sender::new(0) }
    }
}

impl Tenure {
    /// The lease was taken from an instance that didn't release it: it may still store what it was told.
    pub fn succeed(&self, now: Instant) {
        *self.succeeded.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
    }

    /// Whether the instance before may still be storing an answer.
    pub fn another_may_store(&self, now: Instant) -> bool {
        let since = *self.succeeded.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) < BEGUN_ELSEWHERE)
    }

    /// The lease is lost: from now on answers are stored, and nothing else is done.
    pub fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Whether the lease is lost.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Runs an exchange to its end, also when whoever asked for it is gone.
    pub async fn hold<T: Send + 'static>(
        self: &std::sync::Arc<Self>,
        exchange: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        struct Held(std::sync::Arc<Tenure>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.held.send_modify(|n| *n -= 1);
            }
        }
        self.held.send_modify(|n| *n += 1);
        let held = Held(self.clone());
        // It fails only where the exchange panicked, or the process ends.
        tokio::spawn(async move {
            let _held = held;
            exchange.await
        })
        .await
        .ok()
    }

    /// Resolves when no exchange is under way.
    pub async fn nothing_held(&self) {
        // It can't fail: the sender is ours.
        let _ = self.held.subscribe().wait_for(|n| *n == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn an_exchange_ends_though_nobody_waits_for_it() {
        let tenure = Arc::new(Tenure::default());
        let (go, on_go) = tokio::sync::oneshot::channel::<()>();
        let (done, on_done) = tokio::sync::oneshot::channel();
        let holding = tenure.clone();
        let asked = tokio::spawn(async move {
            holding
                .hold(async move {
                    on_go.await.expect("told to go on");
                    done.send(7).expect("somebody listens");
                })
                .await
        });
        while *tenure.held.borrow() == 0 {
            tokio::task::yield_now().await;
        }
        asked.abort();
        assert!(futures::FutureExt::now_or_never(tenure.nothing_held()).is_none());
        go.send(()).expect("it waits");
        tenure.nothing_held().await;
        assert_eq!(on_done.await, Ok(7));
    }

    #[test]
    fn a_successor_is_careful_for_a_while() {
        let (tenure, now) = (Tenure::default(), Instant::now());
        assert!(!tenure.another_may_store(now) && !tenure.is_lost());
        tenure.succeed(now);
        assert!(tenure.another_may_store(now + BEGUN_ELSEWHERE - Duration::from_secs(1)));
        assert!(!tenure.another_may_store(now + BEGUN_ELSEWHERE));
        tenure.lose();
        assert!(tenure.is_lost());
    }
}
