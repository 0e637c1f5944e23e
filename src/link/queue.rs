//! The work queue: which object is looked at next. Each key is due at a time, is worked on once at
//! a time, and belongs to a lane; a lane takes only so many places at once, so what is slow (a
//! provider, an authorization server) delays nobody but those who wait for it too.
//!
//! The data structure is pure: the clock comes in.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// A place in the order: when it is due, and which came first among equals.
type Place = (Instant, u64);

struct Entry<L> {
    lane: L,
    /// Where it waits; `None` while it is only being worked on.
    place: Option<Place>,
    running: bool,
}

struct Lane<K> {
    waiting: BTreeMap<Place, K>,
    running: usize,
}

impl<K> Default for Lane<K> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), running: 0 }
    }
}

/// Keys, in lanes, by the time when they are due.
pub struct Queue<K, L> {
    entries: HashMap<K, Entry<L>>,
    lanes: HashMap<L, Lane<K>>,
    running: usize,
    most: usize,
    most_in_lane: usize,
    counter: u64,
}

impl<K: Clone + Eq + Hash, L: Clone + Eq + Hash> Queue<K, L> {
    /// A queue that hands out at most `most` keys at once, and `most_in_lane` of one lane.
    pub fn new(most: usize, most_in_lane: usize) -> Self {
        Self {
            entries: HashMap::new(),
            lanes: HashMap::new(),
            running: 0,
            most: most.max(1),
            most_in_lane: most_in_lane.max(1),
            counter: 0,
        }
    }

    /// Makes a key due at `at`, or earlier if it already is. A key that is being worked on waits
    /// until that is done.
    pub fn add(&mut self, key: K, lane: L, at: Instant) {
        self.counter += 1;
        let mut place = (at, self.counter);
        if let Some(entry) = self.entries.get_mut(&key) {
            if let Some(old) = entry.place {
                if let Some(l) = self.lanes.get_mut(&entry.lane) {
                    l.waiting.remove(&old);
                }
                if old.0 <= at {
                    place = old;
                }
            }
            // A lane's count is kept by the lane that a key runs in, so that stays till it is done.
            if !entry.running {
                let old_lane = std::mem::replace(&mut entry.lane, lane);
                self.sweep(&old_lane);
            }
            let Some(entry) = self.entries.get_mut(&key) else { return };
            entry.place = Some(place);
            if !entry.running {
                self.lanes.entry(entry.lane.clone()).or_default().waiting.insert(place, key);
            }
            return;
        }
        self.lanes.entry(lane.clone()).or_default().waiting.insert(place, key.clone());
        self.entries.insert(key, Entry { lane, place: Some(place), running: false });
    }

    /// Hands out the key that has been due longest and may run now.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        if self.running >= self.most {
            return None;
        }
        let (place, lane) = self
            .lanes
            .iter()
            .filter(|(_, l)| l.running < self.most_in_lane)
            .filter_map(|(name, l)| l.waiting.first_key_value().map(|(p, _)| (*p, name.clone())))
            .filter(|(p, _)| p.0 <= now)
            .min_by_key(|(p, _)| *p)?;
        let l = self.lanes.get_mut(&lane)?;
        let key = l.waiting.remove(&place)?;
        l.running += 1;
        self.running += 1;
        let entry = self.entries.get_mut(&key)?;
        entry.place = None;
        entry.running = true;
        Some(key)
    }

    /// When the next key that isn't held up by its lane is due.
    pub fn next_due(&self) -> Option<Instant> {
        if self.running >= self.most {
            return None;
        }
        self.lanes
            .values()
            .filter(|l| l.running < self.most_in_lane)
            .filter_map(|l| l.waiting.first_key_value().map(|(p, _)| p.0))
            .min()
    }

    /// A key is done; it is due again at `again`, or when it was added meanwhile, whichever comes
    /// first. Without either it is forgotten.
    pub fn done(&mut self, key: &K, lane: L, again: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let ran_in = entry.lane.clone();
        entry.running = false;
        self.running = self.running.saturating_sub(1);
        if let Some(l) = self.lanes.get_mut(&ran_in) {
            l.running = l.running.saturating_sub(1);
        }
        let meanwhile = entry.place.take();
        self.counter += 1;
        let place = match (meanwhile, again) {
            (Some(m), Some(a)) => Some(m.min((a, self.counter))),
            (Some(m), None) => Some(m),
            (None, a) => a.map(|a| (a, self.counter)),
        };
        match place {
            None => {
                self.entries.remove(key);
            }
            Some(place) => {
                entry.place = Some(place);
                entry.lane = lane.clone();
                self.lanes.entry(lane).or_default().waiting.insert(place, key.clone());
            }
        }
        self.sweep(&ran_in);
    }

    fn sweep(&mut self, lane: &L) {
        if self.lanes.get(lane).is_some_and(|l| l.running == 0 && l.waiting.is_empty()) {
            self.lanes.remove(lane);
        }
    }

    /// How many keys are due and not being worked on.
    pub fn depth(&self, now: Instant) -> usize {
        self.lanes.values().map(|l| l.waiting.range(..=(now, u64::MAX)).count()).sum()
    }

    /// How many keys are being worked on.
    pub fn running(&self) -> usize {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_slow_lane_holds_up_nobody_else() {
        let now = Instant::now();
        let mut q = Queue::new(8, 2);
        for i in 0..100 {
            q.add(i, "slow", now);
        }
        q.add(1000, "fast", now);
        let taken: Vec<_> = std::iter::from_fn(|| q.take(now)).collect();
        assert_eq!(taken, [0, 1, 1000]);
    }

    #[test]
    fn a_key_that_is_added_while_it_runs_runs_once_more() {
        let now = Instant::now();
        let mut q = Queue::new(8, 8);
        q.add(1, "l", now);
        assert_eq!(q.take(now), Some(1));
        q.add(1, "l", now);
        assert_eq!(q.take(now), None);
        q.done(&1, "l", Some(now + Duration::from_secs(60)));
        assert_eq!(q.take(now), Some(1));
        q.done(&1, "l", None);
        assert_eq!(q.next_due(), None);
        assert!(q.entries.is_empty() && q.lanes.is_empty());
    }

    #[test]
    fn the_earlier_time_counts() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut q = Queue::new(8, 8);
        q.add(1, "l", later);
        assert_eq!(q.take(now), None);
        q.add(1, "l", now);
        q.add(1, "m", later);
        assert_eq!(q.take(now), Some(1));
    }

    proptest! {
        /// Whatever happens: a key runs at most once at a time, limits hold, and no key is lost.
        #[test]
        fn nothing_is_lost_or_doubled(ops in prop::collection::vec((0u8..3, 0u8..6, 0u8..3), 0..200)) {
            let start = Instant::now();
            let mut q = Queue::new(3, 2);
            let mut running: Vec<u8> = Vec::new();
            let mut wanted: std::collections::HashSet<u8> = std::collections::HashSet::new();
            for (op, key, lane) in ops {
                match op {
                    0 => { q.add(key, lane, start); wanted.insert(key); }
                    1 => if let Some(k) = q.take(start) {
                        prop_assert!(!running.contains(&k));
                        wanted.remove(&k);
                        running.push(k);
                        prop_assert!(running.len() <= 3);
                    },
                    _ => if let Some(k) = running.pop() { q.done(&k, lane, None); },
                }
            }
            while let Some(k) = running.pop() { q.done(&k, 0, None); }
            let mut rest = std::collections::HashSet::new();
            while let Some(k) = q.take(start) { rest.insert(k); q.done(&k, 0, None); }
            prop_assert_eq!(rest, wanted);
            prop_assert!(q.entries.is_empty() && q.lanes.is_empty());
            prop_assert_eq!(q.running(), 0);
        }
    }
}
