//! What is known of a host: who was told to wait there, who waits, and how it is tried when several namespaces
//! were told. Pure: the clock comes in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a namespace that was told to wait counts where it is asked whether the host is short of time
/// for everybody.
const HOST_HOLD: Duration = Duration::from_secs(60);
/// No server is taken at its word for longer.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// So many clients of a namespace are held apart at a host; the one that may ask soonest makes room.
pub(super) const MANY_CLIENTS: usize = 16;

/// Who was told to wait. It stays until a request of theirs is answered well: until then one at a time tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) until: Instant,
    pub(super) trying: bool,
}

impl Held {
    /// When the next one may ask; `None` while one tries.
    pub(super) fn at(held: Option<&Self>, now: Instant) -> Option<Instant> {
        held.map_or(Some(now), |held| (!held.trying).then(|| now.max(held.until)))
    }

    pub(super) fn extend(held: &mut Option<Self>, until: Instant) {
        let before = held.map_or(until, |held| held.until);
        *held = Some(Self { until: until.max(before), trying: false });
    }
}

/// A namespace at a host.
#[derive(Default)]
pub(super) struct Owner {
    /// All its clients together.
    pub(super) all: Option<Held>,
    pub(super) clients: HashMap<String, Held>,
    /// How many stand in the line, by client.
    pub(super) waiting: HashMap<String, usize>,
    /// Until when it speaks for the host that it was told to wait.
    pub(super) told: Option<Instant>,
}

impl Owner {
    /// Whether one of its requests stands in the line that wasn't told to wait.
    pub(super) fn waits_untold(&self, now: Instant) -> bool {
        let may = |held: Option<&Held>| Held::at(held, now).is_some_and(|at| at <= now);
        may(self.all.as_ref()) && self.waiting.keys().any(|client| may(self.clients.get(client)))
    }

    pub(super) fn rests(&self, now: Instant) -> bool {
        let over = |held: &Held| held.until <= now && !held.trying;
        self.waiting.is_empty()
            && self.told.is_none_or(|t| t <= now)
            && self.all.as_ref().is_none_or(over)
            && self.clients.values().all(over)
    }

    /// Holds a client, and all of them where another one is held already.
    pub(super) fn hold(&mut self, client: &str, now: Instant, asked: Duration) {
        let until = now + asked.min(LONGEST_HOLD);
        if self.clients.iter().any(|(other, held)| other != client && held.until > now) {
            Held::extend(&mut self.all, until);
        }
        let mut held = self.clients.remove(client);
        Held::extend(&mut held, until);
        if self.clients.len() >= MANY_CLIENTS
            && let Some(soonest) = self.clients.iter().min_by_key(|(_, h)| h.until).map(|(c, _)| c.clone())
        {
            self.clients.remove(&soonest);
        }
        self.clients.extend(held.map(|held| (client.to_owned(), held)));
        let told = now + asked.min(HOST_HOLD);
        self.told = Some(self.told.map_or(told, |t| t.max(told)));
    }
}

/// A host that several namespaces were told to leave alone.
pub(super) struct Probing {
    /// When the next one may try.
    pub(super) next: Instant,
    pub(super) pause: Duration,
    /// The one that tries, when it was sent, and whose it is.
    pub(super) sent: Option<(u64, Instant, String)>,
    /// How often each namespace tried in vain: who tried the least goes first, so nobody tries for ever
    /// in everybody's place.
    pub(super) tried: HashMap<String, u32>,
}

#[derive(Default)]
pub(super) struct Host {
    /// When the budget would be whole again (the theoretical arrival time of a leaky bucket).
    pub(super) whole: Option<Instant>,
    pub(super) in_flight: usize,
    pub(super) owners: HashMap<String, Owner>,
    /// How often anybody was told to wait.
    pub(super) told: u64,
    pub(super) probing: Option<Probing>,
    pub(super) permits: u64,
}

impl Host {
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.in_flight == 0
            && self.whole.is_none_or(|t| t <= now)
            && self.owners.values().all(|owner| owner.rests(now))
    }

    /// Whether somebody stands in the line who wasn't told to wait.
    pub(super) fn somebody_waits(&self, now: Instant) -> bool {
        self.owners.values().any(|owner| owner.waits_untold(now))
    }
}
