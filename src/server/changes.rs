//! What became of the clients, in the order of the writes: kept in memory, for who wants to be told.
//!
//! A number stands for a point in this stream. The first one of a start is random, so that a number of another
//! start is known as such; all fit into the 53 bits that every JSON reader has.

use crate::domain::{ClientId, Owner};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// So many changes are kept.
const KEPT: usize = 10_000;
/// So many are in one answer.
const PAGE: usize = 1_000;

/// A client was written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub id: ClientId,
    /// Whose it is now, or was when it was deleted.
    pub owner: Option<Owner>,
    /// Whether it is gone.
    pub deleted: bool,
    /// Who did it, as they said themselves.
    pub actor: Option<String>,
}

/// The stream of changes.
#[derive(Debug)]
pub struct Changes {
    log: Mutex<Log>,
    newest: watch::Sender<u64>,
}

#[derive(Debug)]
struct Log {
    /// The number of the last change.
    newest: u64,
    kept: VecDeque<Arc<Change>>,
}

/// A part of the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// To be asked for next.
    pub next: u64,
    /// Whether what came in between isn't known here: read all clients anew.
    pub reset: bool,
    /// What happened.
    pub changes: Vec<Arc<Change>>,
}

impl Changes {
    /// An empty stream whose numbers begin at one made of these random bytes.
    pub fn beginning_at(random: [u8; 8]) -> Self {
        // 52 bits leave room for as many changes again.
        let newest = u64::from_be_bytes(random) >> 12;
        Self { log: Mutex::new(Log { newest, kept: VecDeque::new() }), newest: watch::Sender::new(newest) }
    }

    /// Tells of a change. To be called in the order of the commits.
    pub fn push(&self, change: Change) {
        let mut log = self.log();
        log.newest += 1;
        log.kept.push_back(Arc::new(change));
        if log.kept.len() > KEPT {
            log.kept.pop_front();
        }
        self.newest.send_replace(log.newest);
    }

    /// The number of the last change.
    pub fn newest(&self) -> u64 {
        self.log().newest
    }

    /// Says when there is something new.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What came after `after`, without what `except` did; a page of it at most.
    pub fn after(&self, after: u64, except: Option<&str>) -> Batch {
        let log = self.log();
        let first = log.newest - log.kept.len() as u64;
        if after < first || after > log.newest {
            return Batch { next: log.newest, reset: true, changes: Vec::new() };
        }
        let mut batch = Batch { next: after, reset: false, changes: Vec::new() };
        // The difference is at most the number of those kept.
        for change in log.kept.iter().skip((after - first) as usize) {
            if batch.changes.len() == PAGE {
                break;
            }
            batch.next += 1;
            if except.is_none() || change.actor.as_deref() != except {
                batch.changes.push(change.clone());
            }
        }
        batch
    }

    /// Nothing that panics is done with the lock held, so what is inside is whole.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(id: usize, actor: Option<&str>) -> Change {
        let id = ClientId::parse(&format!("c{id}")).expect("an ID");
        Change { id, owner: None, deleted: false, actor: actor.map(str::to_owned) }
    }

    fn ids(batch: &Batch) -> Vec<&str> {
        batch.changes.iter().map(|c| c.id.as_str()).collect()
    }

    #[test]
    fn each_change_is_told_once_and_never_to_who_made_it() {
        let changes = Changes::beginning_at([0xff; 8]);
        let start = changes.newest();
        assert!(start < 1 << 52);
        let watch = changes.watch();
        for (i, actor) in [Some("a"), None, Some("b")].into_iter().enumerate() {
            changes.push(change(i, actor));
        }
        assert!(watch.has_changed().expect("open"));
        let all = changes.after(start, None);
        assert_eq!((ids(&all), all.next, all.reset), (vec!["c0", "c1", "c2"], start + 3, false));
        assert_eq!(ids(&changes.after(start + 1, None)), ["c1", "c2"]);
        assert_eq!(ids(&changes.after(start, Some("a"))), ["c1", "c2"]);
        let none = changes.after(start + 2, Some("b"));
        assert_eq!((none.changes.len(), none.next, none.reset), (0, start + 3, false));
        assert_eq!(changes.after(start + 3, None), Batch { next: start + 3, reset: false, changes: vec![] });
    }

    #[test]
    fn numbers_of_another_start_or_too_old_are_a_reset() {
        let changes = Changes::beginning_at([1; 8]);
        let start = changes.newest();
        let reset = |after| changes.after(after, None).reset;
        assert!(reset(0) && reset(start - 1) && reset(start + 1) && reset(u64::MAX) && !reset(start));
        for i in 0..=KEPT {
            changes.push(change(i, None));
        }
        assert!(reset(start) && !reset(start + 1));
        assert_eq!(changes.after(start, None).next, start + 1 + KEPT as u64);
    }

    #[test]
    fn a_long_answer_has_pages() {
        let changes = Changes::beginning_at([1; 8]);
        let mut after = changes.newest();
        for i in 0..(2 * PAGE + 1) {
            changes.push(change(i, (i % 2 == 0).then_some("even")));
        }
        let mut seen = 0;
        for expected in [PAGE, PAGE, 1, 0] {
            let batch = changes.after(after, None);
            assert_eq!(batch.changes.len(), expected);
            (after, seen) = (batch.next, seen + batch.changes.len());
        }
        assert_eq!((after, seen), (changes.newest(), 2 * PAGE + 1));
    }
}
