//! Runs a queue: hands out keys as they come due, each to a task of its own.

use super::queue::{Lane, Queue, Taken};
use crate::link::cache::Key;
use crate::link::ended::{Ended, Version};
use crate::link::metrics::{ByController, Metrics};
use crate::link::turns::{Permit, Turns};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A queue that is being worked on.
pub struct Scheduler {
    queue: Mutex<Queue<Key>>,
    wake: Notify,
    name: &'static str,
    metrics: Metrics,
}

impl Scheduler {
    /// A scheduler that works on at most `most` keys at once.
    pub fn new(name: &'static str, most: usize, turns: Turns, metrics: Metrics) -> Self {
        Self { queue: Mutex::new(Queue::new(most, turns)), wake: Notify::new(), name, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a key due after `delay`.
    pub fn add(&self, key: Key, lane: Lane, delay: Duration) {
        self.lock().add(key, lane, Instant::now() + delay);
        self.wake.notify_one();
    }

    /// Makes a key due after `delay` because a watch saw a version of something, unless the work on it made that.
    pub fn tell(&self, key: Key, lane: Lane, version: Version, delay: Duration) {
        self.lock().tell(key, lane, Instant::now() + delay, version);
        self.wake.notify_one();
    }

    /// Works until `stop` resolves, then waits for what was begun. `lane` is asked when a key goes back into the queue.
    pub async fn run<W, F, L>(self: Arc<Self>, work: W, lane: L, stop: impl Future<Output = ()>)
    where
        W: Fn(Key, Option<Permit>) -> F,
        F: Future<Output = Ended> + Send + 'static,
        L: Fn(&Key) -> Lane + Send + Sync + 'static,
    {
        let lane = Arc::new(lane);
        let by = ByController { controller: self.name };
        let mut tasks = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let (taken, next) = {
                let mut queue = self.lock();
                let now = Instant::now();
                let taken = queue.take(now);
                self.metrics
                    .depth
                    .get_or_create(&by)
                    .set(i64::try_from(queue.depth(now)).unwrap_or(i64::MAX));
                self.metrics
                    .active
                    .get_or_create(&by)
                    .set(i64::try_from(queue.running()).unwrap_or(i64::MAX));
                self.metrics
                    .in_line
                    .get_or_create(&by)
                    .set(i64::try_from(queue.in_line()).unwrap_or(i64::MAX));
                (taken, queue.next_due(now))
            };
            if let Some(Taken { key, permit }) = taken {
                let done = Done {
                    scheduler: self.clone(),
                    key: key.clone(),
                    lane: lane.clone(),
                    ended: Ended::again(RETRY_AFTER_PANIC),
                };
                let pass = work(key, permit);
                tasks.spawn(async move {
                    let mut done = done;
                    done.ended = pass.await;
                });
                continue;
            }
            let until = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                () = &mut stop => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(until.into()) => {}
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if ended.is_err_and(|e| e.is_panic()) {
                        tracing::error!(controller = self.name, "a pass panicked; this is a bug");
                    }
                }
            }
        }
        while tasks.join_next().await.is_some() {}
    }
}

/// A pass that panicked is tried again, but not at once.
const RETRY_AFTER_PANIC: Option<Duration> = Some(Duration::from_secs(60));

/// Gives a key back when its pass ends, however it ends.
struct Done<L: Fn(&Key) -> Lane> {
    scheduler: Arc<Scheduler>,
    key: Key,
    lane: Arc<L>,
    ended: Ended,
}

impl<L: Fn(&Key) -> Lane> Drop for Done<L> {
    fn drop(&mut self) {
        let lane = (self.lane)(&self.key);
        self.scheduler.lock().done(&self.key, lane, Instant::now(), std::mem::take(&mut self.ended));
        self.scheduler.wake.notify_one();
    }
}
