//! The store: one SQLite file, in WAL mode, with its migrations inside the binary.
//!
//! SQLite has one writer at a time, so writers queue in `writer` and never find the file busy. Most
//! commits are on the disk when they return. Access tokens of clients that act for themselves aren't
//! quite: a power cut may lose those of the last moment, and such a client just asks again; so a slow
//! disk doesn't slow down what there is most of.
//!
//! What may be used once is used up by one statement (`UPDATE … RETURNING`) inside a transaction.
//! Only the handlers of `oauth2` and `admin` call this module; the clock is an argument.

mod clients;
mod refresh;
mod registrations;
mod reserve;
mod rows;
mod sweep;
mod tokens;
mod writer;

pub use clients::{Client, Deleted, PreviousSecret, Tokens};
pub use refresh::{Grant, Refreshed, Refusal, Rotation, Successor};
pub use registrations::{InitialToken, Turn};
pub use tokens::{AccessToken, NewGrant, Revoked, Seen};

use super::changes::Changes;
pub use reserve::Space;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, SqlitePool};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use writer::{Purpose, Shared, Write, Writer};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("src/server/store/migrations");
// The compiler doesn't see what the macro above reads; so it builds anew when the file changes.
const _: [&str; 5] = [
    include_str!("migrations/0001_init.sql"),
    include_str!("migrations/0002_previous_secret.sql"),
    include_str!("migrations/0003_token_epoch.sql"),
    include_str!("migrations/0004_registration.sql"),
    include_str!("migrations/0005_write_probe.sql"),
];

const READERS: u32 = 4;

/// The open store; clones are the same one.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its commits survive a power cut.
    durable: Writer,
    /// Its commits survive the end of the process.
    quick: Writer,
    readers: SqlitePool,
    writing: Arc<Shared>,
    changes: Arc<Changes>,
    path: Arc<PathBuf>,
}

/// What went wrong in the store. No text of it has a value of a row.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full, and what room there is belongs to writes that take away.
    #[error("the disk is full")]
    Full,
    /// SQLite said so.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("the database's schema could not be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The file could not be made.
    #[error("the database file could not be made: {0}")]
    File(#[from] io::Error),
    /// A row that this program can't have written.
    #[error("the database has a {0} that this version can't read")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether the disk has no room. Nothing is wrong with the database then, and all is well once there is room.
    pub fn is_full(&self) -> bool {
        const SQLITE_FULL: i32 = 13;
        // The shared index of the write-ahead log could not grow: SQLite calls that an I/O error.
        const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);
        let error = match self {
            Self::Full => return true,
            Self::Database(error) | Self::Migration(sqlx::migrate::MigrateError::Execute(error)) => error,
            _ => return false,
        };
        let sqlx::Error::Database(error) = error else { return false };
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
        code & 0xff == SQLITE_FULL || code == SQLITE_IOERR_SHMSIZE
    }

    /// What to do when the store can't be opened for this.
    pub fn way_out(&self) -> &'static str {
        match self {
            _ if self.is_full() => "make room on its disk",
            Self::File(_) => "give a path whose folder is there and can be written",
            Self::Migration(_) => "run the version that wrote it or a newer one, or restore its backup",
            Self::Database(_) | Self::Corrupt(_) | Self::Full => {
                "give a file that this service has made, or one that isn't there yet, in a folder that can be written"
            }
        }
    }
}

impl Store {
    /// Opens the file, makes it if it isn't there, and brings its schema up to date. What is written to clients
    /// is told to `changes`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(path: &Path, changes: Changes) -> Result<Self, StoreError> {
        let writing = Shared::new(path);
        let mut pools = Self::pools(path).await;
        if writing.made_room_after(&pools) {
            pools = Self::pools(path).await;
        }
        let [durable, quick, readers] = pools?;
        writing.keep_reserve().await;
        let [durable, quick] = [durable, quick].map(|pool| Writer::new(pool, writing.clone()));
        Ok(Self {
            durable,
            quick,
            readers,
            writing,
            changes: Arc::new(changes),
            path: Arc::new(path.to_owned()),
        })
    }

    /// The connections: one that writes durably, one that writes quickly, and those that read.
    async fn pools(path: &Path) -> Result<[SqlitePool; 3], StoreError> {
        // SQLite would make it readable for everybody; its -wal and -shm take over the mode.
        std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .pragma("journal_size_limit", "67108864")
            // A line a request is what debug logs are for, not one a statement.
            .disable_statement_logging();
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(Duration::from_secs(10))
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
        };
        let writer = |synchronous| options.clone().synchronous(synchronous).optimize_on_close(true, None);
        // A refresh token that a client was given must be there after a power cut.
        let durable = pool().max_connections(1).connect_with(writer(SqliteSynchronous::Full)).await?;
        MIGRATIONS.run(&durable).await?;
        let quick = pool().max_connections(1).connect_with(writer(SqliteSynchronous::Normal)).await?;
        let readers = pool().max_connections(READERS).connect_with(options.read_only(true)).await?;
        Ok([durable, quick, readers])
    }

    /// What became of the clients since this was opened.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`StoreError`] when there is none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM clients LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    /// Closes the file and folds the write-ahead log into it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.quick.close().await;
        self.durable.close().await;
    }

    /// Whether only a try can tell whether writing works: the last write failed, or one takes long.
    pub fn is_in_doubt(&self) -> bool {
        self.durable.is_in_doubt() || self.quick.is_in_doubt() || self.writing.is_stuck()
    }

    /// How many writes were committed since the start.
    pub fn successes(&self) -> u64 {
        self.writing.successes()
    }

    /// Writes something that means nothing, as durably as anything.
    ///
    /// # Errors
    /// [`StoreError`] when nothing can be written.
    pub async fn try_to_write(&self) -> Result<(), StoreError> {
        let mut write = self.durable.begin(Purpose::TakesAway).await?;
        let sql = "INSERT INTO write_probe (id, tries) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET tries = tries + 1";
        sqlx::query(sql).execute(&mut *write.tx).await?;
        write.commit().await?;
        self.quick.trust();
        Ok(())
    }

    /// The space of the database's file system; `None` where the system doesn't say. It may wait for a disk that hangs,
    /// away from the runtime's threads.
    pub async fn space(&self) -> Option<Space> {
        let path = self.path.clone();
        let ask = tokio::task::spawn_blocking(move || path.parent().and_then(Space::of));
        ask.await.ok().flatten()
    }

    /// A write that adds.
    async fn write(&self) -> Result<Write, StoreError> {
        self.durable.begin(Purpose::Adds).await
    }

    /// A write that takes away.
    async fn write_away(&self) -> Result<Write, StoreError> {
        self.durable.begin(Purpose::TakesAway).await
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::domain::{AuthMethod, ClientId, ClientMetadata, GrantType, ScopeSet};
    use jiff::Timestamp;

    pub fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("a time")
    }

    pub async fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().expect("a folder");
        let store =
            Store::open(&dir.path().join("db"), Changes::beginning_at([0; 8])).await.expect("a store");
        (dir, store)
    }

    pub fn client(id: &str) -> Client {
        Client {
            id: ClientId::parse(id).expect("id"),
            metadata: ClientMetadata {
                name: "A client".into(),
                uri: None,
                redirect_uris: Default::default(),
                grant_types: [GrantType::ClientCredentials, GrantType::RefreshToken].into(),
                scopes: ScopeSet::parse("a b").expect("scopes"),
                auth_method: AuthMethod::None,
            },
            secret: None,
            previous: None,
            owner: None,
            etag: "e1".into(),
            token_epoch: 0,
            created_at: at(0),
            updated_at: at(0),
        }
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_only_and_opens_again() {
        use std::os::unix::fs::PermissionsExt as _;
        let (dir, store) = store().await;
        store.insert(&client("c"), None).await.expect("stored");
        for file in ["db", "db-wal"] {
            let mode = std::fs::metadata(dir.path().join(file)).expect(file).permissions().mode();
            assert_eq!(mode & 0o077, 0, "{file}: {mode:o}");
        }
        store.close().await;
        let again = Store::open(&dir.path().join("db"), Changes::beginning_at([0; 8])).await.expect("opened");
        again.ping().await.expect("an answer");
        assert!(again.client(&client("c").id).await.expect("read").is_some());
    }

    /// A file as the version with only the first `steps` migrations left it, with one client.
    async fn old_file(path: &Path, steps: usize) {
        use sqlx::Executor as _;
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.expect("opened");
        let migrations: Vec<_> = MIGRATIONS.iter().take(steps).cloned().collect();
        let old =
            sqlx::migrate::Migrator { migrations: migrations.into(), ..sqlx::migrate::Migrator::DEFAULT };
        old.run(&pool).await.expect("migrated");
        let sql = "INSERT INTO clients (id, name, redirect_uris, grant_types, scopes, auth_method, secret, etag, \
                   created_at, updated_at) VALUES ('c', 'n', '', 'client_credentials', 'a', \
                   'client_secret_basic', 'sha256:x', 'e', 1, 1)";
        pool.execute(sql).await.expect("stored");
        pool.close().await;
    }

    #[tokio::test]
    async fn a_file_of_every_earlier_version_opens_with_what_is_in_it() {
        let dir = tempfile::tempdir().expect("a folder");
        for steps in 1..=MIGRATIONS.iter().count() {
            let path = dir.path().join(steps.to_string());
            old_file(&path, steps).await;
            let store = Store::open(&path, Changes::beginning_at([0; 8])).await.expect("opened");
            let found = store.client(&client("c").id).await.expect("read").expect("a client");
            assert_eq!((found.etag.as_str(), found.previous), ("e", None));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("db");
        std::fs::write(&path, "no database, but long enough to have a header").expect("written");
        assert!(Store::open(&path, Changes::beginning_at([0; 8])).await.is_err());
    }
}
