//! The work queue: which object is looked at next. Each key is due at a time, is worked on once at
//! a time, and belongs to a lane: what it waits for (a provider, an authorization server), and whose
//! it is (a namespace). Of each of the two only so many are worked on at once, so what is slow delays
//! nobody but those who wait for it too, and nobody's links take all the places. Beside its time a key
//! may have a place in the line of a host that it wants a token from ([`super::line`]): it is handed out
//! when either has come.
//!
//! The data structure is pure: the clock comes in.

use super::line::{Lines, Stand};
use crate::link::ended::{Ended, Version};
use crate::link::turns::{Permit, Turns};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// A place in the order: when it is due, and which came first among equals.
type Place = (Instant, u64);

/// What a key waits for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// What may be slow.
    pub waits_for: String,
    /// Whose links these are.
    pub owner: String,
    /// Whether these have nothing yet. They get every other place that comes free, so what is only looked at
    /// again or renewed doesn't hold them up, however much there is of it.
    pub new: bool,
}

/// Whose, and of those whether the new ones.
type Group = (bool, String);

impl Lane {
    fn group(&self) -> Group {
        (self.new, self.owner.clone())
    }

    fn at(&self) -> (String, String) {
        (self.waits_for.clone(), self.owner.clone())
    }
}

struct Entry {
    lane: Lane,
    /// When it is due; `None` while it is only being worked on.
    place: Option<Place>,
    /// Whether that place was reached, so that it waits in its lane.
    reached: bool,
    /// Where it stands in a line.
    stand: Option<Stand>,
    running: bool,
    /// Whether it was called up from a line.
    called: bool,
    /// The versions that were seen while it was being worked on.
    heard: Vec<Version>,
    /// The versions that the work itself made.
    wrote: Vec<Version>,
}

/// So many versions are held of a key; more that are heard count as news, and the oldest that were
/// written are forgotten.
const MOST_VERSIONS: usize = 8;

/// A key to work on.
#[derive(Debug)]
pub struct Taken<K> {
    /// The key.
    pub key: K,
    /// Leave to send a token request, for one that is called up from a line.
    pub permit: Option<Permit>,
}

/// Keys, in lanes, by the time when they are due.
pub struct Queue<K> {
    entries: HashMap<K, Entry>,
    /// Not due yet, when it was last looked.
    later: BTreeMap<Place, K>,
    /// Due, by lane; and the first of each lane, by owner, the new ones apart.
    lanes: HashMap<Lane, BTreeMap<Place, K>>,
    heads: HashMap<Group, BTreeMap<Place, Lane>>,
    /// Owners that have something due: who has the fewest at work first, then whose has been due longest.
    order: BTreeSet<(usize, Place, String)>,
    /// The same of those that have something new.
    order_of_new: BTreeSet<(usize, Place, String)>,
    /// Whether something new is next.
    new_next: bool,
    due: usize,
    lines: Lines<K>,
    /// How many are worked on, by what they wait for, by whose they are, and by both.
    busy: (HashMap<String, usize>, HashMap<String, usize>),
    busy_of: HashMap<(String, String), usize>,
    running: usize,
    most: usize,
    most_waiting: usize,
    most_waiting_owned: usize,
    most_owned: usize,
    /// How many are worked on that were called up; a quarter of the places stays for those that weren't, or
    /// new links would wait behind refreshes.
    called: usize,
    most_called: usize,
    counter: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue that hands out at most `most` keys at once, a quarter of that of those that wait for
    /// the same (three quarters of these of one owner), and half of it of one owner: whoever has one slow
    /// server isn't held up by it elsewhere, nor others at the same one. `turns` says when a host may be asked for a token.
    pub fn new(most: usize, turns: Turns) -> Self {
        Self {
            entries: HashMap::new(),
            later: BTreeMap::new(),
            lanes: HashMap::new(),
            heads: HashMap::new(),
            order: BTreeSet::new(),
            order_of_new: BTreeSet::new(),
            new_next: true,
            due: 0,
            lines: Lines::new(turns),
            busy: (HashMap::new(), HashMap::new()),
            busy_of: HashMap::new(),
            running: 0,
            most: most.max(1),
            most_waiting: most.div_ceil(4),
            most_waiting_owned: (most.div_ceil(4) * 3).div_ceil(4),
            most_owned: most.div_ceil(2),
            called: 0,
            most_called: most.max(1) - most / 4,
            counter: 0,
        }
    }

    /// Makes a key due at `at`, or earlier if it already is. A key that is being worked on waits
    /// until that is done.
    pub fn add(&mut self, key: K, lane: Lane, at: Instant) {
        self.counter += 1;
        let mut place = (at, self.counter);
        let Some(entry) = self.entries.get_mut(&key) else {
            let entry = Entry {
                lane,
                place: Some(place),
                reached: false,
                stand: None,
                running: false,
                called: false,
                heard: vec![],
                wrote: vec![],
            };
            self.later.insert(place, key.clone());
            self.entries.insert(key, entry);
            return;
        };
        if let Some(old) = entry.place
            && old.0 <= at
        {
            place = old;
        }
        if entry.running {
            entry.place = Some(place);
            return;
        }
        self.unplace(&key);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.lane = lane;
            entry.place = Some(place);
            self.later.insert(place, key);
        }
    }

    /// The same because a watch saw a version: no news if the work on the key made it. Whether it did
    /// is known only when that is done, since a watch may be faster than the answer to the write.
    pub fn tell(&mut self, key: K, lane: Lane, at: Instant, version: Version) {
        match self.entries.get_mut(&key) {
            Some(entry) if entry.running && entry.heard.len() < MOST_VERSIONS => entry.heard.push(version),
            Some(entry) if entry.wrote.contains(&version) => {}
            _ => self.add(key, lane, at),
        }
    }

    /// Takes a key out of the order of time.
    fn unplace(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(place) = entry.place.take() else { return };
        if !std::mem::take(&mut entry.reached) {
            self.later.remove(&place);
            return;
        }
        self.due -= 1;
        let lane = entry.lane.clone();
        let Some(keys) = self.lanes.get_mut(&lane) else { return };
        let was_first = keys.first_key_value().is_some_and(|(first, _)| *first == place);
        keys.remove(&place);
        let next = keys.first_key_value().map(|(next, _)| *next);
        if next.is_none() {
            self.lanes.remove(&lane);
        }
        if was_first {
            self.head(&lane, Some(place), next);
        }
    }

    /// Puts another place first in a lane.
    fn head(&mut self, lane: &Lane, before: Option<Place>, now: Option<Place>) {
        let group = lane.group();
        self.unorder(&lane.owner);
        let heads = self.heads.entry(group.clone()).or_default();
        if let Some(before) = before {
            heads.remove(&before);
        }
        if let Some(now) = now {
            heads.insert(now, lane.clone());
        }
        if heads.is_empty() {
            self.heads.remove(&group);
        }
        self.reorder(&lane.owner);
    }

    /// Where an owner stands in one of the two orders, if it has something due there.
    fn rank(&self, new: bool, owner: &str) -> Option<(usize, Place, String)> {
        let (first, _) = self.heads.get(&(new, owner.to_owned()))?.first_key_value()?;
        Some((self.busy.1.get(owner).copied().unwrap_or(0), *first, owner.to_owned()))
    }

    /// Takes an owner out of the orders, before what it is ordered by changes.
    fn unorder(&mut self, owner: &str) {
        for new in [false, true] {
            if let Some(rank) = self.rank(new, owner) {
                if new { &mut self.order_of_new } else { &mut self.order }.remove(&rank);
            }
        }
    }

    /// Puts it back.
    fn reorder(&mut self, owner: &str) {
        self.order.extend(self.rank(false, owner));
        self.order_of_new.extend(self.rank(true, owner));
    }

    /// Moves what has become due into its lane.
    fn reach(&mut self, now: Instant) {
        while let Some(first) = self.later.first_entry().filter(|e| e.key().0 <= now) {
            let (place, key) = first.remove_entry();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.reached = true;
            self.due += 1;
            let lane = entry.lane.clone();
            let keys = self.lanes.entry(lane.clone()).or_default();
            let before = keys.first_key_value().map(|(p, _)| *p);
            keys.insert(place, key);
            if before.is_none_or(|b| place < b) {
                self.head(&lane, before, Some(place));
            }
        }
    }

    fn has_room(&self, lane: &Lane) -> bool {
        let room = |busy: &HashMap<String, usize>, name, most| busy.get(name).is_none_or(|n| *n < most);
        room(&self.busy.0, &lane.waits_for, self.most_waiting)
            && room(&self.busy.1, &lane.owner, self.most_owned)
            && self.busy_of.get(&lane.at()).is_none_or(|n| *n < self.most_waiting_owned)
    }

    /// Hands out the key whose turn has come at a host, or the one that has been due longest and may
    /// run now.
    pub fn take(&mut self, now: Instant) -> Option<Taken<K>> {
        self.reach(now);
        if self.running >= self.most {
            return None;
        }
        let (key, permit) = match self.called_up(now) {
            Some((key, permit)) => (key, Some(permit)),
            None => (self.first().map(|(place, lane)| self.lanes[lane][place].clone())?, None),
        };
        self.unplace(&key);
        let entry = self.entries.get_mut(&key)?;
        if let Some(stand) = entry.stand.take() {
            self.lines.leave(&stand);
        }
        entry.running = true;
        entry.called = permit.is_some();
        self.called += usize::from(entry.called);
        let lane = entry.lane.clone();
        if permit.is_none() {
            self.new_next = !lane.new;
        }
        self.running += 1;
        self.unorder(&lane.owner);
        *self.busy_of.entry(lane.at()).or_default() += 1;
        *self.busy.0.entry(lane.waits_for).or_default() += 1;
        *self.busy.1.entry(lane.owner.clone()).or_default() += 1;
        self.reorder(&lane.owner);
        Some(Taken { key, permit })
    }

    /// Of the lanes that aren't held up, and whose owner has the fewest at work, the one that has been
    /// due longest. So owners with slow servers, however many there are, hold up another one for one
    /// free place and not for all that they have waiting. New ones and others go by turns.
    fn first(&self) -> Option<(&Place, &Lane)> {
        let of = |new: bool| {
            let order = if new { &self.order_of_new } else { &self.order };
            order.iter().find_map(|(_, _, owner)| {
                self.heads.get(&(new, owner.clone()))?.iter().find(|(_, lane)| self.has_room(lane))
            })
        };
        of(self.new_next).or_else(|| of(!self.new_next))
    }

    /// Who is next in a line whose host has room.
    fn called_up(&self, now: Instant) -> Option<(K, Permit)> {
        if self.lines.len() == 0 || self.called >= self.most_called {
            return None;
        }
        let may = |key: &K| self.entries.get(key).is_some_and(|e| self.has_room(&e.lane));
        let key = self.lines.next(now, may)?;
        let entry = self.entries.get(&key)?;
        let stand = entry.stand.as_ref()?;
        let permit = self.lines.turns().take(&stand.turn.host, stand.who(), now)?;
        Some((key, permit))
    }

    /// When to look for the next key, if nothing is added or done before.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        if self.running >= self.most {
            return None;
        }
        let due = self.first().map(|(place, _)| place.0);
        let later = self.later.first_key_value().map(|(place, _)| place.0);
        let called = if self.called < self.most_called { self.lines.next_at(now) } else { None };
        due.into_iter().chain(later).chain(called).min()
    }

    /// A key is done at `now`; it is due again when `ended` says so, or when it was added meanwhile, or
    /// now if a version was seen that is none of its own, whichever comes first. Without any, and
    /// without a turn to wait for, it is forgotten.
    pub fn done(&mut self, key: &K, lane: Lane, now: Instant, ended: Ended) {
        let Some(entry) = self.entries.get_mut(key).filter(|e| e.running) else { return };
        entry.running = false;
        self.running = self.running.saturating_sub(1);
        self.called -= usize::from(std::mem::take(&mut entry.called));
        let ran_in = std::mem::replace(&mut entry.lane, lane);
        let meanwhile = entry.place.take();
        entry.wrote.extend(ended.wrote);
        let heard = std::mem::take(&mut entry.heard);
        let news = heard.iter().any(|v| !entry.wrote.contains(v));
        entry.wrote.drain(..entry.wrote.len().saturating_sub(MOST_VERSIONS));
        self.counter += 1;
        let again = ended.again.and_then(|after| now.checked_add(after));
        let again = again.into_iter().chain(news.then_some(now)).min().map(|at| (at, self.counter));
        entry.place = meanwhile.into_iter().chain(again).min();
        if let Some(place) = entry.place {
            self.later.insert(place, key.clone());
        }
        if let Some(turn) = ended.turn {
            let owner = entry.lane.owner.clone();
            entry.stand = Some(self.lines.join(turn, &owner, self.counter, key.clone()));
        }
        let forget = entry.place.is_none() && entry.stand.is_none();
        self.unorder(&ran_in.owner);
        one_less(&mut self.busy_of, &ran_in.at());
        one_less(&mut self.busy.0, &ran_in.waits_for);
        one_less(&mut self.busy.1, &ran_in.owner);
        self.reorder(&ran_in.owner);
        if forget {
            self.entries.remove(key);
        }
    }

    /// How many keys are due, or wait for their turn, and aren't being worked on.
    pub fn depth(&self, now: Instant) -> usize {
        self.due + self.later.range(..=(now, u64::MAX)).count() + self.lines.len()
    }

    /// How many stand in the lines of hosts.
    pub fn in_line(&self) -> usize {
        self.lines.len()
    }

    /// How many keys are being worked on.
    pub fn running(&self) -> usize {
        self.running
    }
}

fn one_less<N: Eq + Hash>(busy: &mut HashMap<N, usize>, name: &N) {
    match busy.get_mut(name) {
        Some(n) if *n > 1 => *n -= 1,
        _ => drop(busy.remove(name)),
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
