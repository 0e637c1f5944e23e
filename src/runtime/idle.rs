//! The connections of a listener that have no request under way, so that one of them can make room when there is none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The idle connections of a listener.
#[derive(Debug, Default)]
pub struct Idle {
    all: Mutex<All>,
    /// Told when one more is idle.
    more: Notify,
}

#[derive(Debug, Default)]
struct All {
    /// The number of the next one: those that have been idle for longest come first.
    next: u64,
    /// Since when each is idle, and how it is told to close.
    idle: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// Why none was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoneIdle {
    /// None is idle.
    All,
    /// None has been idle for long enough; the first one has at this time.
    Until(Instant),
}

impl Idle {
    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was just accepted: it is idle until its first request.
    pub fn enter(self: &Arc<Self>) -> Arc<Connection> {
        let connection = Connection { idle: self.clone(), close: Arc::default(), at: Mutex::default() };
        connection.rests();
        Arc::new(connection)
    }

    /// Closes the one that has been idle for longest, if that is at least this long.
    ///
    /// # Errors
    /// [`NoneIdle`].
    pub fn close_one(&self, after: Duration) -> Result<(), NoneIdle> {
        let mut all = self.all();
        let oldest = all.idle.first_entry().ok_or(NoneIdle::All)?;
        let from = oldest.get().0 + after;
        if from > Instant::now() {
            return Err(NoneIdle::Until(from));
        }
        let (_, close) = oldest.remove();
        close.notify_one();
        Ok(())
    }

    /// Waits until one more is idle.
    pub async fn one_more(&self) {
        self.more.notified().await;
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    idle: Arc<Idle>,
    close: Arc<Notify>,
    /// Its number among the idle ones, while it is one.
    at: Mutex<Option<u64>>,
}

impl Connection {
    fn at(&self) -> MutexGuard<'_, Option<u64>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rests(&self) {
        let mut all = self.idle.all();
        let number = all.next;
        all.next += 1;
        all.idle.insert(number, (Instant::now(), self.close.clone()));
        drop(all);
        *self.at() = Some(number);
        self.idle.more.notify_one();
    }

    fn works(&self) {
        if let Some(number) = self.at().take() {
            self.idle.all().idle.remove(&number);
        }
    }

    /// It isn't idle for as long as this is held.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.works();
        Busy(self.clone())
    }

    /// Waits until it is to make room.
    pub async fn must_close(&self) {
        self.close.notified().await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.works();
    }
}

/// A request of a connection is under way.
#[derive(Debug)]
pub struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.rests();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn told(connection: &Connection) -> bool {
        connection.must_close().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_was_idle_for_longest_makes_room_and_none_that_works() {
        let idle = Arc::new(Idle::default());
        let [a, b, c] = [idle.enter(), idle.enter(), idle.enter()];
        let work = a.busy();
        let long = Duration::from_secs(3600);
        assert!(matches!(idle.close_one(long), Err(NoneIdle::Until(_))));
        assert_eq!(idle.close_one(Duration::ZERO), Ok(()));
        assert!(!told(&a) && told(&b) && !told(&c));
        drop(work);
        assert_eq!(idle.close_one(Duration::ZERO), Ok(()));
        assert!(!told(&a) && told(&c));
        let work = a.busy();
        assert_eq!(idle.close_one(Duration::ZERO), Err(NoneIdle::All));
        drop(work);
        drop(a);
        assert_eq!(idle.close_one(Duration::ZERO), Err(NoneIdle::All));
    }
}
