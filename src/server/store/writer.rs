//! Whose turn it is to write, and a connection that is made anew once a write on it has failed.
//!
//! SQLite rolls a transaction back by itself when the disk is full or fails, and the connection's own bookkeeping then no longer
//! fits what SQLite thinks: rolling back fails, and so would every later transaction. A connection of that kind is suspect,
//! and is closed before the next write.

use super::super::changes::{Change, Changes};
use super::StoreError;
use super::reserve::Reserve;
use sqlx::{Connection as _, Sqlite, SqliteConnection, SqlitePool, Transaction};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout};

/// For how long one write may have the turn until writing is in doubt.
const LONG: Duration = Duration::from_secs(5);

/// How long the end of a suspect connection may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a write is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It adds; on a full disk it waits until there is room, and leaves the reserve alone.
    Adds,
    /// It takes away, and may use the reserve.
    TakesAway,
}

/// What all writers of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    turn: Arc<Mutex<()>>,
    /// Writes that were committed.
    successes: AtomicU64,
    /// Since when the turn is somebody's.
    taken: std::sync::Mutex<Option<Instant>>,
    reserve: Arc<Reserve>,
}

impl Shared {
    pub(super) fn new(database: &Path) -> Arc<Self> {
        Arc::new(Self {
            turn: Arc::default(),
            successes: AtomicU64::new(0),
            taken: std::sync::Mutex::default(),
            reserve: Arc::new(Reserve::beside(database)),
        })
    }

    /// How many writes were committed since the start.
    pub(super) fn successes(&self) -> u64 {
        self.successes.load(Ordering::Acquire)
    }

    /// Whether one write has had the turn for long: the disk may hang.
    pub(super) fn is_stuck(&self) -> bool {
        self.taken().is_some_and(|since| since.elapsed() >= LONG)
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes the reserve whole where there is room for it. It writes a file, away from the runtime's threads.
    pub(super) async fn keep_reserve(&self) {
        let reserve = self.reserve.clone();
        // It fails only when the runtime ends.
        let _ = tokio::task::spawn_blocking(move || reserve.keep()).await;
    }

    /// Whether a write that takes away, and came to this, is to be made once more: it found the disk full, and has the
    /// reserve now.
    pub(super) fn made_room_after<T>(&self, result: &Result<T, StoreError>) -> bool {
        let is_full = matches!(result, Err(error) if error.is_full());
        if is_full {
            self.reserve.release();
        }
        is_full
    }

    /// Refuses what adds while the reserve is in use: it would take the room that was made for what takes away.
    async fn admit(&self) -> Result<(), StoreError> {
        if self.reserve.is_in_use() {
            self.keep_reserve().await;
            if self.reserve.is_in_use() {
                return Err(StoreError::Full);
            }
        }
        Ok(())
    }
}

/// A pool of one connection that writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pool: SqlitePool,
    shared: Arc<Shared>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The connection is to be closed before the next write.
    suspect: AtomicBool,
    /// The last write failed.
    doubt: AtomicBool,
}

/// The turn to write. Unless it is told that all is well, its connection is suspect when it ends.
struct Turn {
    state: Arc<State>,
    shared: Arc<Shared>,
    well: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Turn {
    /// Something was committed.
    fn succeeded(mut self) {
        self.well = true;
        self.state.doubt.store(false, Ordering::Release);
        self.shared.successes.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.shared.taken() = None;
        if !self.well {
            self.state.suspect.store(true, Ordering::Release);
            self.state.doubt.store(true, Ordering::Release);
        }
    }
}

/// A transaction that is open. Dropped, it is rolled back.
pub(super) struct Open(Option<(Transaction<'static, Sqlite>, Turn)>);

impl Deref for Open {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.0.as_ref().expect("it is taken out at its end alone").0
    }
}

impl DerefMut for Open {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.0.as_mut().expect("it is taken out at its end alone").0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some((tx, mut turn)) = self.0.take() else { return };
        // A caller that went away in the middle does its connection no harm; a write that failed does, and then this fails.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let done = tx.rollback().await.is_ok();
                turn.well = done;
                // The whole of it, and not the one field, is this task's.
                drop(turn);
            });
        }
    }
}

/// A transaction, and the turn to write. Dropped without [`Write::commit`] or [`Write::undo`], it wrote nothing.
pub(super) struct Write {
    pub(super) tx: Open,
}

impl Write {
    fn end(mut self) -> (Transaction<'static, Sqlite>, Turn) {
        self.tx.0.take().expect("it is taken out at its end alone")
    }

    /// Commits. For a transaction that has changed something: it is taken as proof that writing works.
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let (tx, turn) = self.end();
        tx.commit().await?;
        turn.succeeded();
        Ok(())
    }

    /// Ends it with nothing written.
    pub(super) async fn undo(self) -> Result<(), StoreError> {
        let (tx, mut turn) = self.end();
        tx.rollback().await?;
        turn.well = true;
        Ok(())
    }

    /// Commits where something was changed, else ends it.
    pub(super) async fn commit_if(self, changed: bool) -> Result<(), StoreError> {
        if changed { self.commit().await } else { self.undo().await }
    }

    /// Commits, and tells of the change before anybody else may write. A caller that goes away in the middle makes no
    /// difference: what was committed was told.
    pub(super) async fn commit_and_tell(
        self,
        changes: Arc<Changes>,
        change: Change,
    ) -> Result<(), StoreError> {
        let done = tokio::spawn(async move {
            let (tx, turn) = self.end();
            tx.commit().await?;
            changes.push(change);
            turn.succeeded();
            Ok(())
        });
        done.await.unwrap_or(Err(StoreError::Database(sqlx::Error::WorkerCrashed)))
    }
}

impl Writer {
    pub(super) fn new(pool: SqlitePool, shared: Arc<Shared>) -> Self {
        Self { pool, shared, state: Arc::default() }
    }

    /// Whether its last write failed.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.state.doubt.load(Ordering::Acquire)
    }

    /// Something was written as durably as anything: no writer's failure of before counts any more.
    pub(super) fn trust(&self) {
        self.state.doubt.store(false, Ordering::Release);
    }

    /// Begins a transaction when it is this caller's turn.
    pub(super) async fn begin(&self, purpose: Purpose) -> Result<Write, StoreError> {
        if purpose == Purpose::Adds {
            self.shared.admit().await?;
        }
        let (shared, state) = (self.shared.clone(), self.state.clone());
        let turn = shared.turn.clone().lock_owned().await;
        *shared.taken() = Some(Instant::now());
        let turn = Turn { state, shared, well: false, _turn: turn };
        if turn.state.suspect.swap(false, Ordering::AcqRel) && self.pool.size() > 0 {
            // Taken out of the pool, it is gone whatever becomes of its end.
            let connection = self.pool.acquire().await?.detach();
            if !matches!(timeout(GOODBYE, connection.close_hard()).await, Ok(Ok(()))) {
                tracing::debug!("a suspect connection to the database didn't end well");
            }
        }
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { tx: Open(Some((tx, turn))) })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
