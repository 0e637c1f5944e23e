//! Free ports. None is handed out twice, neither in this process nor to another test process that runs at the same time.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::sync::Mutex;

/// Below the range that the system takes ports of outgoing connections from, so that none of those gets in between.
const RANGE: std::ops::Range<u16> = 11_000..30_000;

/// The ports of this process; each one's file stays locked for as long as the process lives.
static TAKEN: Mutex<BTreeMap<u16, File>> = Mutex::new(BTreeMap::new());

/// A port of the loopback address that nothing listens on and nobody else was given.
///
/// # Panics
/// When no port can be had.
pub fn free() -> u16 {
    let user = std::env::var("USER").unwrap_or_else(|_| "anyone".to_owned());
    let folder = std::env::temp_dir().join(format!("applink-ports-{user}"));
    std::fs::create_dir_all(&folder).expect("a folder for the locks of ports");
    let mut taken = TAKEN.lock().expect("no other thread panicked while it took a port");
    let span = u64::from(RANGE.end - RANGE.start);
    for _ in 0..10_000 {
        let random = RandomState::new().build_hasher().finish() % span;
        let port = RANGE.start + u16::try_from(random).expect("less than the range is long");
        if taken.contains_key(&port) {
            continue;
        }
        let lock =
            OpenOptions::new().create(true).append(true).open(folder.join(port.to_string())).expect("a lock");
        if lock.try_lock().is_err() || TcpListener::bind(("127.0.0.1", port)).is_err() {
            continue;
        }
        taken.insert(port, lock);
        return port;
    }
    panic!("no free port between {} and {}", RANGE.start, RANGE.end);
}
