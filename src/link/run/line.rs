//! The lines in front of hosts: links that need a token request and had no permit for it. Each host
//! has two, one for links that never had a token and one for refreshes; they go by turns, so neither
//! waits for the other's end. Within one, who loses its token first goes first. Hosts where new links
//! wait get every other turn, so refreshes at other hosts don't hold them up either, however many there
//! are. Who was told to wait stands aside, and at a host that is held who tried it the least is first.
//!
//! Pure: the clock comes in.

use crate::link::turns::{Turn, Turns, Who};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// A place in a line: when the token ends, and who came first among equals.
type Spot = (Timestamp, u64);

/// Who stands there: the key, and as which client it asks.
type Standing<K> = (K, String);

/// So many of a namespace that were told to wait are passed over to find one that wasn't; where there are
/// more, the namespace waits for its own.
const PASSED_OVER: usize = 256;

struct Waiting<K> {
    new: BTreeMap<Spot, Standing<K>>,
    due: BTreeMap<Spot, Standing<K>>,
}

impl<K> Waiting<K> {
    fn line(&mut self, new: bool) -> &mut BTreeMap<Spot, Standing<K>> {
        if new { &mut self.new } else { &mut self.due }
    }

    /// Those who may be next in one of the two lines, in order.
    fn heads(&self, new: bool) -> impl Iterator<Item = (&Spot, &Standing<K>)> {
        if new { &self.new } else { &self.due }.iter().take(PASSED_OVER)
    }
}

/// The lines of a host, by owner: one owner may have to wait where another needn't.
struct Host<K> {
    owners: HashMap<String, Waiting<K>>,
    /// Whether a new link is next.
    new_next: bool,
    /// When it was last served, counted in turns.
    served: u64,
}

impl<K> Host<K> {
    fn has_new(&self) -> bool {
        self.owners.values().any(|w| !w.new.is_empty())
    }

    /// The first in one of the two lines, of those who `may_ask` and who `may` run, and whose namespaces are
    /// `ready`.
    fn first(
        &self,
        new: bool,
        ready: impl Fn(&str) -> bool,
        may_ask: impl Fn(Who<'_>) -> bool,
        may: impl Fn(&K) -> bool,
        tried: impl Fn(&str) -> u32,
    ) -> Option<((u32, Spot), &K)> {
        let owners = self.owners.iter().filter(|(owner, _)| ready(owner));
        let firsts = owners.filter_map(|(owner, waiting)| {
            let asks = |client: &str| may_ask(Who { owner, client });
            let (spot, (key, _)) = waiting.heads(new).find(|(_, (_, client))| asks(client))?;
            may(key).then(|| ((tried(owner), *spot), key))
        });
        firsts.min_by_key(|(rank, _)| *rank)
    }
}

/// Where a key stands.
#[derive(Debug, Clone)]
pub(super) struct Stand {
    pub(super) turn: Turn,
    owner: String,
    number: u64,
}

impl Stand {
    /// Who asks.
    pub(super) fn who(&self) -> Who<'_> {
        Who { owner: &self.owner, client: &self.turn.client }
    }
}

/// All lines.
pub(super) struct Lines<K> {
    hosts: HashMap<String, Host<K>>,
    turns: Turns,
    len: usize,
    /// Whether a host where new links wait is next.
    new_next: bool,
    served: u64,
}

impl<K: Clone> Lines<K> {
    pub(super) fn new(turns: Turns) -> Self {
        Self { hosts: HashMap::new(), turns, len: 0, new_next: true, served: 0 }
    }

    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Puts a key into the line of its host.
    pub(super) fn join(&mut self, turn: Turn, owner: &str, number: u64, key: K) -> Stand {
        let host = self.hosts.entry(turn.host.clone()).or_insert_with(|| Host {
            owners: HashMap::new(),
            new_next: true,
            served: 0,
        });
        let waiting = host
            .owners
            .entry(owner.to_owned())
            .or_insert_with(|| Waiting { new: BTreeMap::new(), due: BTreeMap::new() });
        waiting.line(turn.new).insert((turn.deadline, number), (key, turn.client.clone()));
        self.turns.waits(&turn.host, Who { owner, client: &turn.client }, true);
        self.len += 1;
        Stand { turn, owner: owner.to_owned(), number }
    }

    /// Takes a key out of its line.
    pub(super) fn leave(&mut self, stand: &Stand) {
        let Some(host) = self.hosts.get_mut(&stand.turn.host) else { return };
        let new_waited = host.has_new();
        let Some(waiting) = host.owners.get_mut(&stand.owner) else { return };
        if waiting.line(stand.turn.new).remove(&(stand.turn.deadline, stand.number)).is_none() {
            return;
        }
        if waiting.new.is_empty() && waiting.due.is_empty() {
            host.owners.remove(&stand.owner);
        }
        // A permit that went to a link of one line makes the next one the other's.
        host.new_next = !stand.turn.new;
        self.new_next = !new_waited;
        self.served += 1;
        host.served = self.served;
        if host.owners.is_empty() {
            self.hosts.remove(&stand.turn.host);
        }
        self.turns.waits(&stand.turn.host, stand.who(), false);
        self.len -= 1;
    }

    /// Who is next at a host that has room, of those that `may` run.
    pub(super) fn next(&self, now: Instant, may: impl Fn(&K) -> bool) -> Option<K> {
        let free = |host: &str| self.turns.free_at(host, now).is_some_and(|at| at <= now);
        let hosts = self.hosts.iter().filter(|(name, _)| free(name));
        let first = hosts.filter_map(|(name, host)| {
            let may_ask = |who: Who<'_>| self.turns.who_at(name, who, now).is_some_and(|at| at <= now);
            let ready = |owner: &str| self.turns.owner_at(name, owner, now).is_some_and(|at| at <= now);
            let tried = |owner: &str| self.turns.tried(name, owner);
            let held = host.owners.keys().any(|owner| tried(owner).is_some());
            let of = |new| host.first(new, ready, may_ask, &may, |owner| tried(owner).unwrap_or(0));
            let (spot, key) = if held {
                // The least tried goes first, then whose token ends first; new ones have none to lose.
                [of(false), of(true)].into_iter().flatten().min_by_key(|((tried, _), _)| *tried)
            } else {
                of(host.new_next).or_else(|| of(!host.new_next))
            }
            .map(|((_, spot), key)| (spot, key))?;
            // When it is the turn of hosts with new links, who waited longest goes first among them.
            let turn = if self.new_next && host.has_new() { Some(host.served) } else { None };
            Some(((turn.is_none(), turn, spot), key))
        });
        first.min_by_key(|(rank, _)| *rank).map(|(_, key)| key.clone())
    }

    /// When the next one can go that can't now. Who waits for a request that is on its way is heard of
    /// when that ends.
    pub(super) fn next_at(&self, now: Instant) -> Option<Instant> {
        let at = |(name, host): (&String, &Host<K>)| {
            let free = self.turns.free_at(name, now)?;
            if free > now {
                return Some(free);
            }
            let heads = |(owner, w): (&String, &Waiting<K>)| {
                let at = self.turns.owner_at(name, owner, now)?;
                if at > now {
                    return Some(at);
                }
                let all = w.heads(false).chain(w.heads(true));
                let at = all.filter_map(|(_, (_, client))| {
                    self.turns.who_at(name, Who { owner, client }, now).filter(|at| *at > now)
                });
                at.min()
            };
            host.owners.iter().filter_map(heads).min()
        };
        self.hosts.iter().filter_map(at).min()
    }
}
