//! Space of the disk that is kept for writes that take away: on a full disk a token can still be revoked and a client deleted.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes. A deletion writes some tens of KiB to the write-ahead log, which is used again once it is folded into the file.
const SIZE: u64 = 4 << 20;

/// A file beside the database that is nothing but space.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// The reserve of a database, which isn't made yet.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.as_os_str().to_owned();
        name.push("-reserve");
        Self { path: name.into() }
    }

    /// Makes it where it isn't whole and as much again stays free.
    pub(super) fn keep(&self) {
        let size = std::fs::metadata(&self.path).map_or(0, |m| m.len());
        let space = self.path.parent().and_then(Space::of);
        if size == SIZE || space.is_none_or(|space| space.free < 2 * SIZE) {
            return;
        }
        if let Err(error) = self.make() {
            tracing::warn!(%error, "no space could be kept for revocations on a full disk");
            self.release();
        }
    }

    fn make(&self) -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        // Written, since a file of zeros that nobody wrote takes no space.
        let block = [0x55; 1 << 16];
        for _ in 0..SIZE / block.len() as u64 {
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// Gives the space up; whether there was some.
    pub(super) fn release(&self) -> bool {
        let was = std::fs::metadata(&self.path).is_ok_and(|m| m.len() > 0);
        match std::fs::remove_file(&self.path) {
            Ok(()) if was => {
                tracing::warn!("the disk is full: the space that was kept for revocations is used now");
                true
            }
            _ => false,
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
