//! How many files and connections the process may have open at once.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Asks for as many as the system lets the process have. Many systems begin with 1024, for programs of old that can't count
/// further; connections of one listener alone could be as many, and the next file or call would fail.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
