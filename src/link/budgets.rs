//! How many token requests a namespace may send a second, of all hosts together. It counts only while another
//! namespace's request waits, or while the API server is written to too much: then one namespace's many
//! tokens, each of which is written down, leave room for the others'. At all other times it may send as many as
//! the hosts take. What it sent then isn't held against it later.
//!
//! Only who asks for leave to send a request is delayed: never a reply, a status, a revocation or a
//! deletion. Pure: the clock comes in.

use super::write_rate::WriteRate;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many namespaces are remembered before those whose budget is whole are forgotten.
const MANY: usize = 1024;

/// The budgets of all namespaces.
pub(super) struct Budgets {
    per_second: u32,
    writes: WriteRate,
    /// When each would be whole again (the theoretical arrival time of a leaky bucket).
    whole: HashMap<String, Instant>,
}

impl Budgets {
    pub(super) fn new(per_second: u32, writes: WriteRate) -> Self {
        Self { per_second: per_second.max(1), writes, whole: HashMap::new() }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.per_second
    }

    /// What may come at once, as time.
    fn slack(&self) -> Duration {
        self.interval() * (self.per_second - 1)
    }

    /// When a namespace has something left.
    pub(super) fn at(&self, owner: &str, now: Instant) -> Instant {
        self.whole.get(owner).and_then(|t| t.checked_sub(self.slack())).map_or(now, |at| now.max(at))
    }

    /// Whether the API server is written to too much.
    pub(super) fn writes_are_many(&self, now: Instant) -> bool {
        self.writes.is_high(now)
    }

    /// One was sent.
    pub(super) fn spend(&mut self, owner: &str, now: Instant) {
        if self.whole.len() >= MANY {
            self.whole.retain(|_, whole| *whole > now);
        }
        let (interval, slack) = (self.interval(), self.slack());
        let whole = self.whole.entry(owner.to_owned()).or_insert(now);
        // It is empty at worst: there is no debt.
        *whole = ((*whole).max(now) + interval).min(now + slack + interval);
    }
}
