//! Whose turn it is to write, and a connection that is made anew once a write on it came to nothing.
//!
//! SQLite rolls a transaction back by itself when the disk is full or fails, and the connection's own bookkeeping then no longer
//! fits what SQLite thinks. So a transaction that was neither committed nor undone makes its connection suspect, and a
//! suspect connection is closed before the next write.

use super::super::changes::{Change, Changes};
use super::StoreError;
use super::reserve::Reserve;
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// What all writers of a store share.
#[derive(Debug)]
pub(super) struct Shared {
    turn: Arc<Mutex<()>>,
    /// Whether the last write came to nothing, whatever the reason.
    doubt: AtomicBool,
    /// Bytes of the disk for writes that take away.
    reserve: Reserve,
}

impl Shared {
    pub(super) fn new(reserve: Reserve) -> Arc<Self> {
        Arc::new(Self { turn: Arc::default(), doubt: AtomicBool::new(false), reserve })
    }

    /// Whether nothing was written since a write came to nothing.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt.load(Ordering::Acquire)
    }

    /// Keeps a reserve where there is none and room for it.
    pub(super) fn keep_reserve(&self) {
        self.reserve.keep();
    }

    /// Whether a write that takes away, and came to this, is to be made once more: it found the disk full, and the reserve
    /// was given up for it.
    pub(super) fn made_room_after<T>(&self, result: &Result<T, StoreError>) -> bool {
        matches!(result, Err(error) if error.is_full()) && self.reserve.release()
    }
}

/// A pool of one connection that writes.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pool: SqlitePool,
    shared: Arc<Shared>,
    suspect: Arc<AtomicBool>,
}

/// The turn to write. Unless it is told that all is well, its connection is suspect when it ends.
struct Turn {
    suspect: Arc<AtomicBool>,
    shared: Arc<Shared>,
    well: bool,
    _turn: OwnedMutexGuard<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.well {
            self.suspect.store(true, Ordering::Release);
            self.shared.doubt.store(true, Ordering::Release);
        }
    }
}

/// A transaction, and the turn to write. Dropped without [`Write::commit`] or [`Write::undo`], it wrote nothing, and the
/// next write is made on a new connection.
pub(super) struct Write {
    // In this order: the transaction ends before the next writer's turn comes.
    pub(super) tx: Transaction<'static, Sqlite>,
    turn: Turn,
}

impl Write {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        let Self { tx, mut turn } = self;
        tx.commit().await?;
        turn.shared.doubt.store(false, Ordering::Release);
        turn.well = true;
        Ok(())
    }

    /// Ends it with nothing written.
    pub(super) async fn undo(self) -> Result<(), StoreError> {
        let Self { tx, mut turn } = self;
        tx.rollback().await?;
        turn.well = true;
        Ok(())
    }

    /// Commits, and tells of the change before anybody else may write. A caller that goes away in the middle makes no
    /// difference: what was committed was told.
    pub(super) async fn commit_and_tell(
        self,
        changes: Arc<Changes>,
        change: Change,
    ) -> Result<(), StoreError> {
        let done = tokio::spawn(async move {
            let Self { tx, mut turn } = self;
            tx.commit().await?;
            changes.push(change);
            turn.shared.doubt.store(false, Ordering::Release);
            turn.well = true;
            Ok(())
        });
        done.await.unwrap_or(Err(StoreError::Database(sqlx::Error::WorkerCrashed)))
    }
}

impl Writer {
    pub(super) fn new(pool: SqlitePool, shared: Arc<Shared>) -> Self {
        Self { pool, shared, suspect: Arc::default() }
    }

    /// Begins a transaction when it is this caller's turn.
    pub(super) async fn begin(&self) -> Result<Write, StoreError> {
        let (shared, suspect) = (self.shared.clone(), self.suspect.clone());
        let turn = shared.turn.clone().lock_owned().await;
        let turn = Turn { suspect, shared, well: false, _turn: turn };
        if turn.suspect.swap(false, Ordering::AcqRel) {
            // Whatever is said of its end, it is gone.
            if let Err(error) = self.pool.acquire().await?.close().await {
                tracing::debug!(%error, "a suspect connection to the database was closed");
            }
        }
        let tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { tx, turn })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
