//! Whose turn it is to ask a host for a token. All links that ask one host share its budget: so many
//! requests a second, and so many at once. So ten thousand links of one provider don't stampede after an
//! outage, a restart or a step of the clock, and a host that is dead or strict holds up nobody else.
//!
//! Who is told to wait (429, or 503 with `Retry-After`) waits alone: first the client of that namespace, then
//! all of that namespace when a second client of it is told too. Only when several namespaces are told is the
//! host itself held: then one request at a time tries how it is, and the first good answer ends that. So no
//! tenant's limit, however it came about, keeps another one's links from a host.
//!
//! A namespace has a budget over all hosts, which counts while others wait or the API server is written to too
//! much: [`super::budgets`].
//!
//! A pass that needs a token request takes a [`Permit`] before its first effect. Where there is none
//! it ends with a [`Turn`], and the queue calls it up when its turn has come.
//!
//! Pure but for the lock: the clock comes in.

mod host;

use super::budgets::Budgets;
use super::write_rate::WriteRate;
use host::{Held, Host, Owner, Probing};
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
    /// Who the server thinks asks: the client identifier.
    pub client: String,
    /// Whether the link never had a token: such links wait in a line of their own.
    pub new: bool,
    /// When the token in hand ends; who is first to lose theirs goes first.
    pub deadline: Timestamp,
}

/// Who asks: whose link it is, and as which client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// The namespace.
    pub owner: &'a str,
    /// The client identifier.
    pub client: &'a str,
}

/// The pause between two requests that try how a held host is, at first and at last.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// One that tries and isn't answered stands in nobody's way for longer.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// So many hosts are remembered before those that rest are forgotten.
const MANY: usize = 1024;

/// Which namespaces have a request in a line that nobody was told to hold back; looked up anew when that may be
/// another answer.
enum Crowd {
    Nobody,
    One(String),
    Several,
}

/// Holds end by themselves, so the crowd is looked up this often.
const CROWD_FRESH: Duration = Duration::from_millis(100);

struct Hosts {
    limits: Limits,
    hosts: HashMap<String, Host>,
    budgets: Option<Budgets>,
    crowd: Option<(Instant, Crowd)>,
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
        if h.in_flight >= self.limits.in_flight.max(1) {
            return None;
        }
        let by_rate = h.whole.and_then(|t| t.checked_sub(self.slack())).unwrap_or(now);
        let by_probe = h.probing.as_ref().map_or(now, |p| {
            let given_up = p.sent.as_ref().map_or(now, |(_, at, _)| *at + PROBE_PATIENCE);
            p.next.max(given_up)
        });
        Some(now.max(by_rate).max(by_probe))
    }

    fn owner_at(&mut self, host: &str, owner: &str, now: Instant) -> Option<Instant> {
        let known = self.hosts.get(host).and_then(|h| h.owners.get(owner));
        let held = Held::at(known.and_then(|o| o.all.as_ref()), now)?;
        Some(held.max(self.budget_at(owner, now)))
    }

    fn who_at(&mut self, host: &str, who: Who<'_>, now: Instant) -> Option<Instant> {
        let owner = self.owner_at(host, who.owner, now)?;
        let known = self.hosts.get(host).and_then(|h| h.owners.get(who.owner));
        Some(owner.max(Held::at(known.and_then(|o| o.clients.get(who.client)), now)?))
    }

    /// When a namespace's budget lets one more go, where it counts now.
    fn budget_at(&mut self, owner: &str, now: Instant) -> Instant {
        let Some(budgets) = &self.budgets else { return now };
        let at = budgets.at(owner, now);
        if at <= now || !(budgets.writes_are_many(now) || self.others_wait(owner, now)) {
            return now;
        }
        at
    }

    fn others_wait(&mut self, owner: &str, now: Instant) -> bool {
        let fresh = |(at, _): &&(Instant, Crowd)| now.saturating_duration_since(*at) < CROWD_FRESH;
        if self.crowd.as_ref().filter(fresh).is_none() {
            self.crowd = Some((now, self.look_who_waits(now)));
        }
        match &self.crowd {
            Some((_, Crowd::One(one))) => one != owner,
            Some((_, Crowd::Several)) => true,
            _ => false,
        }
    }

    fn look_who_waits(&self, now: Instant) -> Crowd {
        let mut one: Option<&String> = None;
        for (name, owner) in self.hosts.values().flat_map(|h| &h.owners) {
            if one != Some(name) && owner.waits_untold(now) && one.replace(name).is_some() {
                return Crowd::Several;
            }
        }
        one.map_or(Crowd::Nobody, |name| Crowd::One(name.clone()))
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
        Self(Arc::new(Mutex::new(Hosts { limits, hosts: HashMap::new(), budgets: None, crowd: None })))
    }

    /// The same, and so many requests a second of each namespace while others wait or there are too many writes.
    pub fn budgeted(limits: Limits, per_namespace: u32, writes: WriteRate) -> Self {
        let all = Self::new(limits);
        all.lock().budgets = Some(Budgets::new(per_namespace, writes));
        all
    }

    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit for a pass that finds that it needs one, unless others wait already that may have it.
    pub fn ask(&self, host: &str, who: Who<'_>, now: Instant) -> Option<Permit> {
        if self.lock().hosts.get(host).is_some_and(|h| h.somebody_waits(now)) {
            return None;
        }
        self.take(host, who, now)
    }

    /// A permit for who is called up from the line.
    pub fn take(&self, host: &str, who: Who<'_>, now: Instant) -> Option<Permit> {
        let mut all = self.lock();
        let may = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if !may(all.free_at(host, now)) || !may(all.who_at(host, who, now)) {
            return None;
        }
        if all.hosts.len() >= MANY {
            all.hosts.retain(|_, h| !h.rests(now));
        }
        if let Some(budgets) = &mut all.budgets {
            budgets.spend(who.owner, now);
        }
        let interval = all.interval();
        let h = all.hosts.entry(host.to_owned()).or_default();
        h.whole = Some(h.whole.map_or(now, |t| t.max(now)) + interval);
        h.in_flight += 1;
        h.permits += 1;
        let number = h.permits;
        if let Some(probing) = &mut h.probing
            && let Some((_, _, unanswered)) = probing.sent.replace((number, now, who.owner.to_owned()))
        {
            *probing.tried.entry(unanswered).or_default() += 1;
        }
        let mut tries = (false, false);
        if let Some(owner) = h.owners.get_mut(who.owner) {
            let tries_now = |held: Option<&mut Held>| held.map(|held| held.trying = true).is_some();
            tries = (tries_now(owner.all.as_mut()), tries_now(owner.clients.get_mut(who.client)));
        }
        Some(Permit {
            turns: self.clone(),
            host: host.to_owned(),
            owner: who.owner.to_owned(),
            client: who.client.to_owned(),
            at: now,
            number,
            told: h.told,
            tries,
            answer: None,
        })
    }

    /// When the host has room for one more; `None` until a request that is on its way ends.
    pub fn free_at(&self, host: &str, now: Instant) -> Option<Instant> {
        self.lock().free_at(host, now)
    }

    /// When a namespace may ask the host again, the host's budget and what single clients were told apart; `None`
    /// until a request of theirs that is on its way ends.
    pub fn owner_at(&self, host: &str, owner: &str, now: Instant) -> Option<Instant> {
        self.lock().owner_at(host, owner, now)
    }

    /// When a client of a namespace may ask the host again, the host's budget apart; `None` until a request
    /// of theirs that is on its way ends.
    pub fn who_at(&self, host: &str, who: Who<'_>, now: Instant) -> Option<Instant> {
        self.lock().who_at(host, who, now)
    }

    /// How often a namespace tried a held host in vain; `None` where the host isn't held.
    pub fn tried(&self, host: &str, owner: &str) -> Option<u32> {
        let all = self.lock();
        let probing = all.hosts.get(host)?.probing.as_ref()?;
        Some(probing.tried.get(owner).copied().unwrap_or(0))
    }

    /// The host told a client of a namespace to wait: it waits as long as it was told (an hour at most). Where
    /// another one of the namespace does already, all of the namespace wait as long. Where another namespace
    /// was told lately, the host is held: one request at a time tries how it is.
    pub fn hold(&self, host: &str, who: Who<'_>, now: Instant, asked: Duration) {
        let mut all = self.lock();
        let h = all.hosts.entry(host.to_owned()).or_default();
        h.told += 1;
        h.owners.entry(who.owner.to_owned()).or_default().hold(who.client, now, asked);
        let lately = |(owner, o): (&String, &Owner)| owner != who.owner && o.told.is_some_and(|t| t > now);
        if h.probing.is_none() && h.owners.iter().any(lately) {
            h.probing = Some(Probing { next: now, pause: Duration::ZERO, sent: None, tried: HashMap::new() });
        }
    }

    /// One more, or one less, stands in the line of a host.
    pub fn waits(&self, host: &str, who: Who<'_>, one_more: bool) {
        let mut all = self.lock();
        all.crowd = None;
        let h = all.hosts.entry(host.to_owned()).or_default();
        let owner = h.owners.entry(who.owner.to_owned()).or_default();
        let n = owner.waiting.entry(who.client.to_owned()).or_default();
        *n = if one_more { *n + 1 } else { n.saturating_sub(1) };
        if *n == 0 {
            owner.waiting.remove(who.client);
        }
        if owner.waiting.is_empty() && owner.all.is_none() && owner.clients.is_empty() && owner.told.is_none()
        {
            h.owners.remove(who.owner);
        }
    }
}

/// Leave to send one token request to a host; given back when it is dropped.
pub struct Permit {
    turns: Turns,
    host: String,
    owner: String,
    client: String,
    at: Instant,
    number: u64,
    /// How often anybody was told to wait when it was given.
    told: u64,
    /// Whether it is the one that tries, of those of its namespace, and of its client.
    tries: (bool, bool),
    /// Whether the request was answered well, and when.
    answer: Option<(bool, Instant)>,
}

impl Permit {
    /// Whether it is for this request.
    pub fn is_for(&self, host: &str, client: &str) -> bool {
        self.host == host && self.client == client
    }

    /// Whom it is for.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The request was sent, and answered well or not. Without this nothing was sent by it.
    pub fn answered(&mut self, well: bool, now: Instant) {
        self.answer = Some((well, now));
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
        let slack = all.slack();
        let Some(h) = all.hosts.get_mut(&self.host) else { return };
        h.in_flight = h.in_flight.saturating_sub(1);
        let well = self.answer.is_some_and(|(well, _)| well);
        if let Some(owner) = h.owners.get_mut(&self.owner) {
            let lifted = |held: &mut Held, tries: bool| {
                held.trying &= !tries;
                // Told to wait again since, by another request: that counts.
                well && held.until <= self.at
            };
            if owner.all.as_mut().is_some_and(|held| lifted(held, self.tries.0)) {
                owner.all = None;
            }
            if owner.clients.get_mut(&self.client).is_some_and(|held| lifted(held, self.tries.1)) {
                owner.clients.remove(&self.client);
            }
            if let Some((_, now)) = self.answer
                && owner.all.is_none()
                && owner.clients.is_empty()
                && owner.rests(now)
            {
                h.owners.remove(&self.owner);
            }
        }
        let Some(probing) =
            h.probing.as_mut().filter(|p| p.sent.as_ref().is_some_and(|(n, ..)| *n == self.number))
        else {
            return;
        };
        probing.sent = None;
        match self.answer {
            Some((true, now)) if h.told == self.told => {
                // Not all at once now that it is over.
                h.whole = Some(h.whole.map_or(now, |t| t.max(now)) + slack);
                h.probing = None;
            }
            Some((false, now)) => {
                probing.pause = (probing.pause * 2).clamp(PROBE_PAUSE.0, PROBE_PAUSE.1);
                probing.next = now + probing.pause;
                *probing.tried.entry(self.owner.clone()).or_default() += 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
