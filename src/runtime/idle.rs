//! The connections of a listener that have no request under way, so that one of them can make room when there is none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

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
    idle: BTreeMap<u64, Arc<Notify>>,
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

    /// Closes the one that has been idle for longest; says whether there was one.
    pub fn close_one(&self) -> bool {
        let oldest = self.all().idle.pop_first();
        oldest.is_some_and(|(_, close)| {
            close.notify_one();
            true
        })
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
        all.idle.insert(number, self.close.clone());
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
        assert!(idle.close_one());
        assert!(!told(&a) && told(&b) && !told(&c));
        drop(work);
        assert!(idle.close_one());
        assert!(!told(&a) && told(&c));
        let work = a.busy();
        assert!(!idle.close_one());
        drop(work);
        drop(a);
        assert!(!idle.close_one() && idle.all().idle.is_empty());
    }
}
