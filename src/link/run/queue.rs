//! The work queue: which object is looked at next. Each key is due at a time, is worked on once at
//! a time, and belongs to a lane: what it waits for (a provider, an authorization server), and whose
//! it is (a namespace). Of each of the two only so many are worked on at once, so what is slow delays
//! nobody but those who wait for it too, and nobody's links take all the places.
//!
//! The data structure is pure: the clock comes in.

use crate::link::ended::Version;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Instant;

/// A place in the order: when it is due, and which came first among equals.
type Place = (Instant, u64);

/// What a key waits for, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    /// What may be slow.
    pub waits_for: String,
    /// Whose links these are.
    pub owner: String,
}

struct Entry {
    lane: Lane,
    /// Where it waits; `None` while it is only being worked on.
    place: Option<Place>,
    running: bool,
    /// The versions that were seen while it was being worked on.
    heard: Vec<Version>,
    /// The versions that the work itself made.
    wrote: Vec<Version>,
}

/// So many versions are held of a key; more that are heard count as news, and the oldest that were
/// written are forgotten.
const MOST_VERSIONS: usize = 8;

/// Keys, in lanes, by the time when they are due.
pub struct Queue<K> {
    entries: HashMap<K, Entry>,
    waiting: HashMap<Lane, BTreeMap<Place, K>>,
    /// How many are worked on, by what they wait for and by whose they are.
    busy: (HashMap<String, usize>, HashMap<String, usize>),
    running: usize,
    most: usize,
    most_waiting: usize,
    most_owned: usize,
    counter: u64,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// A queue that hands out at most `most` keys at once, a quarter of that of those that wait for
    /// the same, and half of it of one owner: whoever has one slow server isn't held up by it
    /// elsewhere.
    pub fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            waiting: HashMap::new(),
            busy: (HashMap::new(), HashMap::new()),
            running: 0,
            most: most.max(1),
            most_waiting: most.div_ceil(4),
            most_owned: most.div_ceil(2),
            counter: 0,
        }
    }

    /// Makes a key due at `at`, or earlier if it already is. A key that is being worked on waits
    /// until that is done.
    pub fn add(&mut self, key: K, lane: Lane, at: Instant) {
        self.counter += 1;
        let mut place = (at, self.counter);
        let Some(entry) = self.entries.get_mut(&key) else {
            self.wait(lane.clone(), place, key.clone());
            let entry = Entry { lane, place: Some(place), running: false, heard: vec![], wrote: vec![] };
            self.entries.insert(key, entry);
            return;
        };
        if let Some(old) = entry.place
            && old.0 <= at
        {
            place = old;
        }
        let old = entry.place.replace(place);
        if entry.running {
            return;
        }
        let old_lane = std::mem::replace(&mut entry.lane, lane.clone());
        if let Some(old) = old {
            self.unwait(&old_lane, old);
        }
        self.wait(lane, place, key);
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

    fn wait(&mut self, lane: Lane, place: Place, key: K) {
        self.waiting.entry(lane).or_default().insert(place, key);
    }

    fn unwait(&mut self, lane: &Lane, place: Place) -> Option<K> {
        let keys = self.waiting.get_mut(lane)?;
        let key = keys.remove(&place);
        if keys.is_empty() {
            self.waiting.remove(lane);
        }
        key
    }

    fn has_room(&self, lane: &Lane) -> bool {
        let room = |busy: &HashMap<String, usize>, name, most| busy.get(name).is_none_or(|n| *n < most);
        room(&self.busy.0, &lane.waits_for, self.most_waiting)
            && room(&self.busy.1, &lane.owner, self.most_owned)
    }

    /// Hands out a key that is due and may run now: of those whose owner has the fewest at work, the one
    /// that has been due longest. So owners with slow servers, however many there are, hold up
    /// another one for one free place and not for all that they have waiting.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let at_work = |lane: &Lane| self.busy.1.get(&lane.owner).copied().unwrap_or(0);
        let due = self.heads().filter(|(place, _)| place.0 <= now);
        let (place, lane) = due.min_by_key(|(place, lane)| (at_work(lane), *place))?;
        let lane = lane.clone();
        let key = self.unwait(&lane, place)?;
        let entry = self.entries.get_mut(&key)?;
        entry.place = None;
        entry.running = true;
        self.running += 1;
        *self.busy.0.entry(lane.waits_for).or_default() += 1;
        *self.busy.1.entry(lane.owner).or_default() += 1;
        Some(key)
    }

    /// The first key of each lane that isn't held up.
    fn heads(&self) -> impl Iterator<Item = (Place, &Lane)> {
        let room = self.running < self.most;
        let lanes = self.waiting.iter().filter(move |(lane, _)| room && self.has_room(lane));
        lanes.filter_map(|(lane, keys)| keys.first_key_value().map(|(place, _)| (*place, lane)))
    }

    /// When the next key that isn't held up by its lane is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.heads().map(|(place, _)| place.0).min()
    }

    /// A key is done at `now` and made the versions `wrote`; it is due again at `again`, or when it was
    /// added meanwhile, or now if a version was seen that is none of its own, whichever comes first.
    /// Without any it is forgotten.
    pub fn done(
        &mut self,
        key: &K,
        lane: Lane,
        now: Instant,
        again: Option<Instant>,
        wrote: impl IntoIterator<Item = Version>,
    ) {
        let Some(entry) = self.entries.get_mut(key).filter(|e| e.running) else { return };
        entry.running = false;
        self.running = self.running.saturating_sub(1);
        let ran_in = std::mem::replace(&mut entry.lane, lane.clone());
        let meanwhile = entry.place.take();
        entry.wrote.extend(wrote);
        let heard = std::mem::take(&mut entry.heard);
        let news = heard.iter().any(|v| !entry.wrote.contains(v));
        entry.wrote.drain(..entry.wrote.len().saturating_sub(MOST_VERSIONS));
        self.counter += 1;
        let again = again.into_iter().chain(news.then_some(now)).min().map(|at| (at, self.counter));
        entry.place = meanwhile.into_iter().chain(again).min();
        let place = entry.place;
        for (busy, name) in [(&mut self.busy.0, &ran_in.waits_for), (&mut self.busy.1, &ran_in.owner)] {
            match busy.get_mut(name) {
                Some(n) if *n > 1 => *n -= 1,
                _ => drop(busy.remove(name)),
            }
        }
        match place {
            Some(place) => self.wait(lane, place, key.clone()),
            None => drop(self.entries.remove(key)),
        }
    }

    /// How many keys are due and not being worked on.
    pub fn depth(&self, now: Instant) -> usize {
        self.waiting.values().map(|keys| keys.range(..=(now, u64::MAX)).count()).sum()
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

    fn lane(waits_for: &str) -> Lane {
        Lane { waits_for: waits_for.into(), owner: waits_for.into() }
    }

    fn is_empty<K>(q: &Queue<K>) -> bool {
        q.entries.is_empty() && q.waiting.is_empty() && q.busy.0.is_empty() && q.busy.1.is_empty()
    }

    #[test]
    fn one_owner_doesn_t_take_all_places() {
        let now = Instant::now();
        let mut q = Queue::new(8);
        for i in 0..10 {
            q.add(i, Lane { waits_for: format!("host-{i}"), owner: "greedy".into() }, now);
        }
        q.add(10, Lane { waits_for: "host-1".into(), owner: "other".into() }, now);
        let taken: Vec<_> = std::iter::from_fn(|| q.take(now)).collect();
        assert_eq!(taken, [0, 10, 1, 2, 3]);
    }

    #[test]
    fn many_slow_owners_hold_up_another_for_one_place_and_not_for_all_they_have() {
        let now = Instant::now();
        let mut q = Queue::new(4);
        let of = |owner: &str, i: i32| Lane { waits_for: format!("{owner}-{i}"), owner: owner.into() };
        for i in 0..100 {
            q.add(i, of("slow", i), now);
            q.add(100 + i, of("slower", i), now);
        }
        let taken: Vec<_> = std::iter::from_fn(|| q.take(now)).collect();
        assert_eq!(taken, [0, 100, 1, 101]);
        q.add(1000, of("other", 0), now);
        q.add(1001, of("later", 0), now + Duration::from_secs(1));
        q.done(&0, of("slow", 0), now, None, []);
        assert_eq!(q.take(now), Some(1000));
        // Who isn't due yet keeps no place free.
        q.done(&100, of("slower", 0), now, None, []);
        assert_eq!(q.take(now), Some(2));
    }

    #[test]
    fn a_slow_lane_holds_up_nobody_else() {
        let now = Instant::now();
        let mut q = Queue::new(8);
        for i in 0..100 {
            q.add(i, lane("slow"), now);
        }
        q.add(1000, lane("fast"), now);
        let taken: Vec<_> = std::iter::from_fn(|| q.take(now)).collect();
        assert_eq!(taken, [0, 1000, 1]);
    }

    #[test]
    fn a_key_that_is_added_while_it_runs_runs_once_more() {
        let now = Instant::now();
        let mut q = Queue::new(8);
        q.add(1, lane("l"), now);
        assert_eq!(q.take(now), Some(1));
        q.add(1, lane("l"), now);
        assert_eq!(q.take(now), None);
        q.done(&1, lane("l"), now, Some(now + Duration::from_secs(60)), []);
        assert_eq!(q.take(now), Some(1));
        q.done(&1, lane("l"), now, None, []);
        assert_eq!(q.next_due(), None);
        assert!(is_empty(&q));
    }

    #[test]
    fn what_the_work_itself_wrote_is_no_news() {
        let now = Instant::now();
        let later = Some(now + Duration::from_secs(60));
        let (ours, theirs) = (Version::Secret(5), Version::Link(5));
        let mut q = Queue::new(8);
        let heard = |q: &mut Queue<i32>, version| q.tell(1, lane("l"), now, version);
        // Seen before the write was answered, and after.
        q.add(1, lane("l"), now);
        assert_eq!(q.take(now), Some(1));
        heard(&mut q, ours);
        q.done(&1, lane("l"), now, later, [ours]);
        assert_eq!(q.take(now), None);
        heard(&mut q, ours);
        assert_eq!(q.take(now), None);
        // Another one's, in the same two ways.
        heard(&mut q, theirs);
        assert_eq!(q.take(now), Some(1));
        heard(&mut q, ours);
        heard(&mut q, theirs);
        q.done(&1, lane("l"), now, later, []);
        assert_eq!(q.take(now), Some(1));
        // More than is held, all of them ours: one look too many is better than one too few.
        let many: Vec<_> = (100..).map(Version::Secret).take(MOST_VERSIONS + 1).collect();
        many.iter().for_each(|v| heard(&mut q, *v));
        q.done(&1, lane("l"), now, later, many);
        assert_eq!(q.take(now), Some(1));
        q.done(&1, lane("l"), now, None, (0..100).map(Version::Link));
        assert!(is_empty(&q));
    }

    #[test]
    fn the_earlier_time_counts() {
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let mut q = Queue::new(8);
        q.add(1, lane("l"), later);
        assert_eq!(q.take(now), None);
        q.add(1, lane("l"), now);
        q.add(1, lane("m"), later);
        assert_eq!(q.take(now), Some(1));
    }

    proptest! {
        /// Whatever happens: a key runs at most once at a time, limits hold, and no key is lost.
        #[test]
        fn nothing_is_lost_or_doubled(ops in prop::collection::vec((0u8..3, 0u8..6, 0u8..3), 0..200)) {
            let start = Instant::now();
            let mut q = Queue::new(3);
            let mut running: Vec<u8> = Vec::new();
            let mut wanted: std::collections::HashSet<u8> = std::collections::HashSet::new();
            for (op, key, lane_no) in ops {
                match op {
                    0 => { q.add(key, lane(&lane_no.to_string()), start); wanted.insert(key); }
                    1 => if let Some(k) = q.take(start) {
                        prop_assert!(!running.contains(&k));
                        wanted.remove(&k);
                        running.push(k);
                        prop_assert!(running.len() <= 3);
                    },
                    _ => if let Some(k) = running.pop() { q.done(&k, lane(&lane_no.to_string()), start, None, []); },
                }
            }
            while let Some(k) = running.pop() { q.done(&k, lane("0"), start, None, []); }
            let mut rest = std::collections::HashSet::new();
            while let Some(k) = q.take(start) { rest.insert(k); q.done(&k, lane("0"), start, None, []); }
            prop_assert_eq!(rest, wanted);
            prop_assert!(is_empty(&q));
            prop_assert_eq!(q.running(), 0);
        }
    }
}
