//! Whether anybody can type an answer here. What waits for one that can't come stops at once.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use tokio::sync::oneshot;

/// Whether an answer may still come on standard input: from a terminal, or from another program. A file and
/// `/dev/null` have all that they ever will.
pub(super) fn may_come() -> bool {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        return true;
    }
    let Ok(copy) = stdin.as_fd().try_clone_to_owned() else { return false };
    let Ok(kind) = File::from(copy).metadata().map(|m| m.file_type()) else { return false };
    kind.is_fifo() || kind.is_socket()
}

/// Waits until standard input, where another program writes it, has ended before an answer came. It takes
/// nothing of what comes.
pub(super) async fn ended() {
    if io::stdin().is_terminal() {
        return std::future::pending().await;
    }
    let (tell, told) = oneshot::channel();
    // The thread ends with the program: a read can't be called off.
    std::thread::spawn(move || {
        if io::stdin().lock().fill_buf().is_ok_and(<[u8]>::is_empty) {
            let _ = tell.send(());
        }
    });
    if told.await.is_err() {
        std::future::pending().await
    }
}
