//! One read for many who ask at once. Who asks gets what a read found that began after they asked:
//! so it is as good as a read of their own, and a thousand links at work cost a handful of reads.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// Reads by name.
pub struct SharedReads<T>(Mutex<HashMap<String, Arc<Slot<T>>>>);

/// The reads of one thing: one at a time.
struct Slot<T> {
    /// The read that didn't begin yet.
    next: Mutex<Arc<OnceCell<T>>>,
    turn: tokio::sync::Mutex<()>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { next: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<T> Default for SharedReads<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// More names than this aren't held without need.
const MOST: usize = 1024;

impl<T: Clone> SharedReads<T> {
    /// What `read` finds, or the read of somebody else that begins after this was asked.
    pub async fn get<F: Future<Output = T>>(&self, name: &str, read: impl FnOnce() -> F) -> T {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= MOST {
                slots.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            slots.entry(name.to_owned()).or_default().clone()
        };
        let mine = slot.next.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let found = mine.get_or_init(|| async {
            let _turn = slot.turn.lock().await;
            // From here on it is too late to join.
            *slot.next.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
            read().await
        });
        found.await.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn who_asks_during_a_read_waits_for_the_next_one() {
        let reads = SharedReads::default();
        let (count, go) = (AtomicUsize::new(0), Semaphore::new(0));
        let read = || async {
            let number = count.fetch_add(1, Ordering::Relaxed);
            go.acquire().await.expect("open").forget();
            number
        };
        let mut first = Box::pin(reads.get("p", read));
        assert!(first.as_mut().now_or_never().is_none());
        let mut later: Vec<_> = (0..10).map(|_| Box::pin(reads.get("p", read))).collect();
        for l in &mut later {
            assert!(l.as_mut().now_or_never().is_none());
        }
        go.add_permits(1);
        assert_eq!(first.await, 0);
        go.add_permits(1);
        assert_eq!(futures::future::join_all(later).await, [1; 10]);
        // Another thing is another read, and what is over isn't given again.
        go.add_permits(2);
        assert_eq!(reads.get("q", read).await, 2);
        assert_eq!(reads.get("p", read).await, 3);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_is_begun_by_another() {
        let reads = SharedReads::default();
        let mut given_up = Box::pin(reads.get("p", std::future::pending::<i32>));
        assert!(given_up.as_mut().now_or_never().is_none());
        let mut waits = Box::pin(reads.get("p", || async { 1 }));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(given_up);
        assert_eq!(waits.await, 1);
    }
}
