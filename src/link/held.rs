//! What an instance does when it may not be the one at work any more: nothing new, but what it was told
//! once and won't be told again is stored. And what another one leaves alone meanwhile.

use super::facts::Before;
use super::grant::BEGUN_ELSEWHERE;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long an answer that can't be stored is held on to: since it came, or since the lease was lost.
/// Longer than two minutes, which is what values.yaml promises, since the lease is lost only some seconds after
/// the API server went.
pub const KEEP_TRYING: Duration = Duration::from_secs(135);

/// Whether this instance is at work, and who was before it.
#[derive(Debug)]
pub struct Tenure {
    /// Since when the lease is lost.
    lost: watch::Sender<Option<Instant>>,
    /// Since when this instance is at work, and who was before it and released the lease.
    begun: Mutex<Option<(Instant, Option<String>)>>,
    /// Exchanges that run to their end whoever waits for them.
    held: watch::Sender<usize>,
}

impl Default for Tenure {
    fn default() -> Self {
        Self { lost: watch::Sender::new(None), begun: Mutex::default(), held: watch::Sender::new(0) }
    }
}

impl Tenure {
    /// This instance is at work. `released_by` released the lease to it: whatever that one began is done.
    pub fn begin(&self, now: Instant, released_by: Option<&str>) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((now, released_by.map(str::to_owned)));
    }

    /// Whether an instance that was at work before this one may still be storing an answer; and the one
    /// that isn't.
    pub fn before(&self, now: Instant) -> Before {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        match &*begun {
            Some((since, released_by)) => Before {
                may_store: now.saturating_duration_since(*since) < BEGUN_ELSEWHERE,
                released_by: released_by.clone(),
            },
            // Nobody leads here: a tool looks.
            None => Before::default(),
        }
    }

    /// The lease is lost: from now on answers are stored, and nothing else is done.
    pub fn lose(&self, now: Instant) {
        self.lost.send_replace(Some(now));
    }

    /// Until when an answer that came at `since` is held on to. An API server that is away takes the lease
    /// first, so the time counts from there: what came before is stored as long as what came after.
    pub fn keep_until(&self, since: Instant) -> Instant {
        self.lost.borrow().map_or(since, |lost| lost.max(since)) + KEEP_TRYING
    }

    /// Whether the lease is lost.
    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
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
        assert!(!tenure.before(now).may_have_begun("a") && !tenure.is_lost());
        tenure.begin(now, Some("b"));
        let soon = tenure.before(now + BEGUN_ELSEWHERE - Duration::from_secs(1));
        // Whoever released the lease is done; who had it before that one may not be.
        assert!(soon.may_have_begun("a") && !soon.may_have_begun("b"));
        assert!(!tenure.before(now + BEGUN_ELSEWHERE).may_have_begun("a"));
        assert_eq!(tenure.keep_until(now), now + KEEP_TRYING);
        let lost = now + Duration::from_secs(15);
        tenure.lose(lost);
        assert!(tenure.is_lost());
        assert_eq!(tenure.keep_until(now), lost + KEEP_TRYING);
        let later = lost + Duration::from_secs(3);
        assert_eq!(tenure.keep_until(later), later + KEEP_TRYING);
    }
}
