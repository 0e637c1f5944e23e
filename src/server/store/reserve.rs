//! Space of the disk that is kept for writes that take away: on a full disk a token can still be revoked and a client deleted.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes, at most. A batch of deletions writes some hundreds of KiB to the write-ahead log, whose space is used again once
/// it is folded into the file.
const MOST: u64 = 4 << 20;

/// Bytes, at least.
const LEAST: u64 = 256 << 10;

/// Which part of a small disk it takes.
const PART: u64 = 16;

/// How long after it could not be made it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// A file beside the database that is nothing but space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// The space was given up, and isn't there again.
    in_use: AtomicBool,
    /// When it could last not be made.
    failed: Mutex<Option<Instant>>,
}

impl Reserve {
    /// The reserve of a database, which isn't made yet.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-reserve");
        Self { path: name.into(), in_use: AtomicBool::new(false), failed: Mutex::default() }
    }

    /// Whether its space belongs to what takes away now.
    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// Makes it where it isn't there and as much again stays free. It writes and syncs a file.
    pub(super) fn keep(&self) {
        // One at a time, and now and then where it fails.
        let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.path.exists() || failed.is_some_and(|at| at.elapsed() < AGAIN) {
            return;
        }
        *failed = Some(Instant::now());
        let Some(space) = self.path.parent().and_then(Space::of) else { return };
        let size = (space.size / PART).clamp(LEAST, MOST);
        if space.free < 2 * size {
            return;
        }
        match self.make(size) {
            Ok(()) => {
                *failed = None;
                self.in_use.store(false, Ordering::Release);
            }
            Err(error) => tracing::warn!(%error, "no space can be kept for revocations on a full disk"),
        }
    }

    /// What it is called until it is whole. Added to the whole name: it can't be the database's.
    fn unfinished(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push("-unfinished");
        name.into()
    }

    fn make(&self, size: u64) -> std::io::Result<()> {
        // It gets its name when it is whole.
        let unfinished = self.unfinished();
        let made = Self::write(&unfinished, size).and_then(|()| std::fs::rename(&unfinished, &self.path));
        if made.is_err() {
            // What was written of it takes space for nothing.
            let _ = std::fs::remove_file(&unfinished);
        }
        made
    }

    fn write(path: &Path, size: u64) -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        // Random: a file system that compresses would keep less space for anything else.
        let mut block = [0; 1 << 16];
        for _ in 0..size / block.len() as u64 {
            getrandom::fill(&mut block).map_err(std::io::Error::other)?;
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Gives its space up, where there is some.
    pub(super) fn release(&self) {
        // What a process that was killed left of one.
        let _ = std::fs::remove_file(self.unfinished());
        if std::fs::remove_file(&self.path).is_ok() {
            self.in_use.store(true, Ordering::Release);
            tracing::warn!("the disk is full: the space that was kept for revocations is used now");
        }
    }
}

/// The space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that can still be written.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

impl Space {
    /// The space of a folder's file system; `None` where the system doesn't say.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let stat = nix::sys::statvfs::statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        Some(Self { free: bytes(stat.blocks_available()), size: bytes(stat.blocks()) })
    }
}
