//! The connections of a listener that have no request under way, so that one of them can make room when there is none.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
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
    idle: BTreeMap<u64, Resting>,
    /// Their numbers, by where they come from.
    of: HashMap<IpAddr, BTreeSet<u64>>,
}

/// A connection that is idle.
#[derive(Debug)]
struct Resting {
    since: Instant,
    /// How it is told to close.
    close: Arc<Notify>,
    from: Option<IpAddr>,
}

impl All {
    fn take(&mut self, number: u64) -> Option<Resting> {
        let resting = self.idle.remove(&number)?;
        if let Some(from) = resting.from
            && let Some(numbers) = self.of.get_mut(&from)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of.remove(&from);
            }
        }
        Some(resting)
    }

    /// The oldest one of the address that has most of them, if these are more than a crowd.
    fn crowded(&self, crowd: usize) -> Option<u64> {
        let most = self.of.values().max_by_key(|numbers| numbers.len())?;
        most.first().filter(|_| most.len() > crowd).copied()
    }
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

    /// A connection that was just accepted: it is idle until its first request. `from`: where it comes from, unless
    /// that is somebody who speaks for many.
    pub fn enter(self: &Arc<Self>, from: Option<IpAddr>) -> Arc<Connection> {
        let connection = Connection { idle: self.clone(), close: Arc::default(), from, at: Mutex::default() };
        connection.rests();
        Arc::new(connection)
    }

    /// Closes the one that has been idle for longest: at once where one address has more than a crowd of them, of that
    /// address; else of all, if that is at least this long. So who opens many makes room for others himself.
    ///
    /// # Errors
    /// [`NoneIdle`].
    pub fn close_one(&self, after: Duration, crowd: usize) -> Result<(), NoneIdle> {
        let mut all = self.all();
        let number = match all.crowded(crowd) {
            Some(number) => number,
            None => {
                let (number, oldest) = all.idle.first_key_value().ok_or(NoneIdle::All)?;
                let from = oldest.since + after;
                if from > Instant::now() {
                    return Err(NoneIdle::Until(from));
                }
                *number
            }
        };
        if let Some(resting) = all.take(number) {
            resting.close.notify_one();
        }
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
    from: Option<IpAddr>,
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
        let resting = Resting { since: Instant::now(), close: self.close.clone(), from: self.from };
        all.idle.insert(number, resting);
        if let Some(from) = self.from {
            all.of.entry(from).or_default().insert(number);
        }
        drop(all);
        *self.at() = Some(number);
        self.idle.more.notify_one();
    }

    fn works(&self) {
        if let Some(number) = self.at().take() {
            self.idle.all().take(number);
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

    const CROWD: usize = 3;

    fn told(connection: &Connection) -> bool {
        connection.must_close().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_was_idle_for_longest_makes_room_and_none_that_works() {
        let idle = Arc::new(Idle::default());
        let [a, b, c] = [idle.enter(None), idle.enter(None), idle.enter(None)];
        let work = a.busy();
        let long = Duration::from_secs(3600);
        assert!(matches!(idle.close_one(long, CROWD), Err(NoneIdle::Until(_))));
        assert_eq!(idle.close_one(Duration::ZERO, CROWD), Ok(()));
        assert!(!told(&a) && told(&b) && !told(&c));
        drop(work);
        assert_eq!(idle.close_one(Duration::ZERO, CROWD), Ok(()));
        assert!(!told(&a) && told(&c));
        let work = a.busy();
        assert_eq!(idle.close_one(Duration::ZERO, CROWD), Err(NoneIdle::All));
        drop(work);
        drop(a);
        assert_eq!(idle.close_one(Duration::ZERO, CROWD), Err(NoneIdle::All));
    }

    #[test]
    fn who_has_a_crowd_of_them_makes_room_at_once_and_nobody_else_does() {
        let idle = Arc::new(Idle::default());
        let long = Duration::from_secs(3600);
        let [one, other] = [[192, 0, 2, 1], [192, 0, 2, 2]].map(|a| Some(IpAddr::from(a)));
        let few: Vec<_> = (0..CROWD).map(|_| idle.enter(one)).collect();
        let by_proxy: Vec<_> = (0..2 * CROWD).map(|_| idle.enter(None)).collect();
        assert!(matches!(idle.close_one(long, CROWD), Err(NoneIdle::Until(_))));
        let crowd: Vec<_> = (0..CROWD + 2).map(|_| idle.enter(other)).collect();
        // One with a request under way isn't counted.
        let work = crowd[0].busy();
        assert_eq!(idle.close_one(long, CROWD), Ok(()));
        assert!(matches!(idle.close_one(long, CROWD), Err(NoneIdle::Until(_))));
        let closed: Vec<_> = crowd.iter().map(|c| told(c)).collect();
        assert_eq!(closed.iter().position(|c| *c), Some(1));
        assert!(!few.iter().chain(&by_proxy).any(|c| told(c)));
        drop((work, crowd, few, by_proxy));
        let all = idle.all();
        assert!(all.idle.is_empty() && all.of.is_empty(), "{all:?}");
    }
}
