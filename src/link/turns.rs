//! Whose turn it is to ask a host for a token. All links that ask one host share its budget: so many
//! requests a second, so many at once, and none while the host wants to be left alone. So ten
//! thousand links of one provider don't stampede after an outage, a restart or a step of the clock,
//! and a host that is dead or strict holds up nobody else.
//!
//! A pass that needs a token request takes a [`Permit`] before its first effect. Where there is none
//! it ends with a [`Turn`], and the queue calls it up when its turn has come.
//!
//! Pure but for the lock: the clock comes in.

use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a host is sent at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Token requests a second; as many may come at once after a pause.
    pub per_second: u32,
    /// Token requests without an answer yet.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_second: 20, in_flight: 16 }
    }
}

/// A request that is due, and its place in the line of its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who is asked: host and port.
    pub host: String,
    /// Whether the link never had a token: such links wait in a line of their own.
    pub new: bool,
    /// When the token in hand ends; who is first to lose theirs goes first.
    pub deadline: Timestamp,
}

/// However long a server asks for: the host is tried again after that time by another owner's link,
/// since many servers limit each client for itself, and one tenant's trouble must not be everybody's.
const HOST_HOLD: Duration = Duration::from_secs(60);
/// No server is taken at its word for longer.
const OWNER_HOLD: Duration = Duration::from_secs(3600);
/// So many hosts are remembered before those that rest are forgotten.
const MANY: usize = 1024;

#[derive(Default)]
struct Host {
    /// When the budget would be whole again (the theoretical arrival time of a leaky bucket).
    whole: Option<Instant>,
    in_flight: usize,
    /// How many stand in the line.
    waiting: usize,
    /// Until when nobody asks.
    held: Option<Instant>,
    /// How often it was held. While one request after a hold hasn't come to a good end, it is the only one.
    holds: u64,
    careful: bool,
    /// Until when an owner's links don't ask.
    owners: HashMap<String, Instant>,
}

impl Host {
    fn rests(&self, now: Instant) -> bool {
        self.in_flight == 0
            && self.waiting == 0
            && self.whole.is_none_or(|t| t <= now)
            && self.held.is_none_or(|t| t <= now)
            && self.owners.values().all(|t| *t <= now)
    }
}

struct Hosts {
    limits: Limits,
    hosts: HashMap<String, Host>,
}

impl Hosts {
    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.limits.per_second.max(1)
    }

    /// What may come at once, as time.
    fn slack(&self) -> Duration {
        self.interval() * (self.limits.per_second.max(1) - 1)
    }

    fn free_at(&self, host: &str, now: Instant) -> Option<Instant> {
        let Some(h) = self.hosts.get(host) else { return Some(now) };
        let most = if h.careful { 1 } else { self.limits.in_flight.max(1) };
        if h.in_flight >= most {
            return None;
        }
        let by_rate = h.whole.and_then(|t| t.checked_sub(self.slack())).unwrap_or(now);
        Some(now.max(by_rate).max(h.held.unwrap_or(now)))
    }

    fn owner_at(&self, host: &str, owner: &str, now: Instant) -> Instant {
        self.hosts.get(host).and_then(|h| h.owners.get(owner)).map_or(now, |t| now.max(*t))
    }
}

/// The budgets of all hosts; a handle to share.
#[derive(Clone)]
pub struct Turns(Arc<Mutex<Hosts>>);

impl Default for Turns {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Turns {
    /// The same limits for every host.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(Hosts { limits, hosts: HashMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a pass that finds that it needs one, unless others wait already.
    pub fn ask(&self, host: &str, owner: &str, now: Instant) -> Option<Permit> {
        if self.lock().hosts.get(host).is_some_and(|h| h.waiting > 0) {
            return None;
        }
        self.take(host, owner, now)
    }

    /// A permit for who is called up from the line.
    pub fn take(&self, host: &str, owner: &str, now: Instant) -> Option<Permit> {
        let mut all = self.lock();
        if all.free_at(host, now).is_none_or(|t| t > now) || all.owner_at(host, owner, now) > now {
            return None;
        }
        if all.hosts.len() >= MANY {
            all.hosts.retain(|_, h| !h.rests(now));
        }
        let interval = all.interval();
        let h = all.hosts.entry(host.to_owned()).or_default();
        h.owners.retain(|_, until| *until > now);
        h.whole = Some(h.whole.map_or(now, |t| t.max(now)) + interval);
        h.in_flight += 1;
        Some(Permit { turns: self.clone(), host: host.to_owned(), holds: h.holds })
    }

    /// When the host has room for one more; `None` until a request that is on its way ends.
    pub fn free_at(&self, host: &str, now: Instant) -> Option<Instant> {
        self.lock().free_at(host, now)
    }

    /// When an owner's links may ask the host again, its budget apart.
    pub fn owner_at(&self, host: &str, owner: &str, now: Instant) -> Instant {
        self.lock().owner_at(host, owner, now)
    }

    /// The host asked an owner's link for time: all of that owner's wait as long as it said (an hour at
    /// most), and everybody's for a minute at most. After that one request tries how it is.
    pub fn hold(&self, host: &str, owner: &str, now: Instant, asked: Duration) {
        let mut all = self.lock();
        let slack = all.slack();
        let h = all.hosts.entry(host.to_owned()).or_default();
        let until = now + asked.min(HOST_HOLD);
        let own = now + asked.min(OWNER_HOLD);
        h.held = Some(h.held.map_or(until, |t| t.max(until)));
        let kept = h.owners.entry(owner.to_owned()).or_insert(own);
        *kept = own.max(*kept);
        // Not all at once when it is over.
        h.whole = Some(h.whole.map_or(until, |t| t.max(until)) + slack);
        h.holds += 1;
        h.careful = true;
    }

    /// One more, or one less, stands in the line of a host.
    pub fn waits(&self, host: &str, one_more: bool) {
        let mut all = self.lock();
        let h = all.hosts.entry(host.to_owned()).or_default();
        h.waiting = if one_more { h.waiting + 1 } else { h.waiting.saturating_sub(1) };
    }
}

/// Leave to send one token request to a host; given back when it is dropped.
pub struct Permit {
    turns: Turns,
    host: String,
    holds: u64,
}

impl Permit {
    /// Whom it is for.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.host).finish()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        if let Some(h) = all.hosts.get_mut(&self.host) {
            h.in_flight = h.in_flight.saturating_sub(1);
            // Nobody was turned away since: the host is well again.
            if h.holds == self.holds {
                h.careful = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { per_second: 10, in_flight: 4 };

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// How many go through within `span`, each answered at once.
    fn run(turns: &Turns, host: &str, owner: &str, from: Instant, span: Duration) -> usize {
        let mut now = from;
        let mut n = 0;
        while let Some(at) = turns.free_at(host, now).map(|t| t.max(turns.owner_at(host, owner, now)))
            && at < from + span
        {
            now = at;
            drop(turns.take(host, owner, now).expect("free"));
            n += 1;
        }
        n
    }

    #[test]
    fn a_host_gets_no_more_than_its_rate() {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        // What was saved up, and the rate.
        assert_eq!(run(&turns, "a", "o", now, secs(10)), 109);
        assert_eq!(run(&turns, "b", "o", now, secs(1)), 19);
        // After a pause it is whole again, and no more than that.
        assert_eq!(run(&turns, "a", "o", now + secs(1000), secs(1)), 19);
    }

    #[test]
    fn so_many_are_on_their_way() {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        let mut out: Vec<_> = std::iter::from_fn(|| turns.ask("a", "o", now)).collect();
        assert_eq!(out.len(), 4);
        assert_eq!(turns.free_at("a", now), None);
        assert!(turns.ask("b", "o", now).is_some(), "another host has nothing to do with it");
        out.pop();
        assert!(turns.ask("a", "o", now).is_some());
    }

    #[test]
    fn nobody_jumps_the_line() {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        turns.waits("a", true);
        assert!(turns.ask("a", "o", now).is_none());
        assert!(turns.take("a", "o", now).is_some());
        turns.waits("a", false);
        assert!(turns.ask("a", "o", now).is_some());
    }

    #[test]
    fn a_host_that_asks_for_time_gets_it_from_all() {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        let first = turns.ask("a", "one", now).expect("free");
        turns.hold("a", "one", now, secs(5));
        drop(first);
        for owner in ["one", "two"] {
            assert!(turns.ask("a", owner, now + Duration::from_millis(4999)).is_none());
        }
        assert!(turns.ask("b", "one", now).is_some());
        // Then one at a time, until it went well, and never in a burst.
        let later = now + secs(5);
        let probe = turns.ask("a", "two", later).expect("free");
        assert!(turns.ask("a", "two", later + secs(2)).is_none(), "one tries how it is");
        drop(probe);
        assert!(turns.ask("a", "two", later).is_none(), "not all at once");
        assert!(turns.ask("a", "two", later + Duration::from_millis(100)).is_some());
        // Turned away once more: still careful.
        let probe = turns.ask("a", "two", later + secs(1)).expect("free");
        turns.hold("a", "two", later + secs(1), secs(1));
        drop(probe);
        let held = turns.ask("a", "two", later + secs(2)).expect("free");
        assert!(turns.ask("a", "two", later + secs(3)).is_none());
        drop(held);
    }

    #[test]
    fn one_owner_s_limit_is_an_hour_for_it_and_a_minute_for_the_others() {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        turns.hold("a", "greedy", now, Duration::MAX);
        assert!(turns.ask("a", "other", now + secs(59)).is_none());
        assert!(turns.ask("a", "other", now + secs(60)).is_some());
        assert!(turns.ask("a", "greedy", now + secs(3599)).is_none());
        assert!(turns.ask("a", "greedy", now + secs(3600)).is_some());
    }

    #[test]
    fn hosts_that_rest_are_forgotten() {
        let turns = Turns::new(LIMITS);
        let mut now = Instant::now();
        for i in 0..3 * MANY {
            now += secs(2);
            assert!(turns.ask(&format!("host-{i}"), "o", now).is_some());
        }
        assert!(turns.lock().hosts.len() <= MANY);
    }
}
