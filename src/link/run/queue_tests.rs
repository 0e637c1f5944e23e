//! The order: lanes, lines, and what is lost or doubled (nothing).

use super::*;
use crate::link::turns::{Limits, Turn, Who};
use crate::link::write_rate::WriteRate;
use jiff::Timestamp;
use proptest::prelude::*;
use std::time::Duration;

fn lane(waits_for: &str) -> Lane {
    Lane { waits_for: waits_for.into(), owner: waits_for.into(), new: false }
}

fn take<K: Clone + Eq + Hash>(q: &mut Queue<K>, now: Instant) -> Option<K> {
    q.take(now).map(|t| t.key)
}

fn ended(again: Option<u64>, wrote: impl IntoIterator<Item = Version>) -> Ended {
    let again = again.map(Duration::from_secs);
    Ended { again, wrote: wrote.into_iter().collect(), ..Ended::default() }
}

fn is_empty<K: Clone + Eq + Hash>(q: &Queue<K>) -> bool {
    q.entries.is_empty()
        && q.later.is_empty()
        && q.lanes.is_empty()
        && q.heads.is_empty()
        && q.order.is_empty()
        && (q.due, q.lines.len()) == (0, 0)
        && q.busy.0.is_empty()
        && q.busy.1.is_empty()
}

#[test]
fn one_owner_doesn_t_take_all_places() {
    let now = Instant::now();
    let mut q = Queue::new(8, Turns::default());
    for i in 0..10 {
        q.add(i, Lane { waits_for: format!("host-{i}"), owner: "greedy".into(), new: false }, now);
    }
    q.add(10, Lane { waits_for: "host-1".into(), owner: "other".into(), new: false }, now);
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut q, now)).collect();
    assert_eq!(taken, [0, 10, 1, 2, 3]);
}

#[test]
fn many_slow_owners_hold_up_another_for_one_place_and_not_for_all_they_have() {
    let now = Instant::now();
    let mut q = Queue::new(4, Turns::default());
    let of =
        |owner: &str, i: i32| Lane { waits_for: format!("{owner}-{i}"), owner: owner.into(), new: false };
    for i in 0..100 {
        q.add(i, of("slow", i), now);
        q.add(100 + i, of("slower", i), now);
    }
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut q, now)).collect();
    assert_eq!(taken, [0, 100, 1, 101]);
    q.add(1000, of("other", 0), now);
    q.add(1001, of("later", 0), now + Duration::from_secs(1));
    q.done(&0, of("slow", 0), now, ended(None, []));
    assert_eq!(take(&mut q, now), Some(1000));
    // Who isn't due yet keeps no place free.
    q.done(&100, of("slower", 0), now, ended(None, []));
    assert_eq!(take(&mut q, now), Some(2));
}

#[test]
fn a_slow_lane_holds_up_nobody_else() {
    let now = Instant::now();
    let mut q = Queue::new(8, Turns::default());
    for i in 0..100 {
        q.add(i, lane("slow"), now);
    }
    q.add(1000, lane("fast"), now);
    let taken: Vec<_> = std::iter::from_fn(|| take(&mut q, now)).collect();
    assert_eq!(taken, [0, 1000, 1]);
}

#[test]
fn one_owner_s_slow_requests_leave_places_at_the_same_server() {
    let now = Instant::now();
    let mut q = Queue::new(64, Turns::default());
    let at = |owner: &str| Lane { waits_for: "shared".into(), owner: owner.into(), new: false };
    for i in 0..30 {
        q.add(i, at("greedy"), now);
    }
    q.add(100, at("other"), now);
    let taken: Vec<i32> = std::iter::from_fn(|| take(&mut q, now)).collect();
    assert_eq!(taken.iter().filter(|i| **i < 30).count(), 12);
    assert!(taken.contains(&100));
}

#[test]
fn what_is_new_gets_every_other_place() {
    let now = Instant::now();
    let mut q = Queue::new(64, Turns::default());
    let lane =
        |i: u32, new| Lane { waits_for: format!("host-{}", i % 20), owner: format!("team-{}", i % 50), new };
    for i in 0..1000 {
        q.add(i, lane(i, false), now);
    }
    for i in 1000..1010 {
        q.add(i, lane(i, true), now);
    }
    let order: Vec<u32> = std::iter::from_fn(|| {
        let key = take(&mut q, now)?;
        q.done(&key, lane(key, false), now, Ended::default());
        Some(key)
    })
    .collect();
    let new: Vec<_> = (0..order.len()).filter(|i| order[*i] >= 1000).collect();
    assert_eq!(new, (0..10).map(|i| 2 * i).collect::<Vec<_>>());
    assert_eq!(order.len(), 1010);
    assert!(is_empty(&q));
}

#[test]
fn a_key_that_is_added_while_it_runs_runs_once_more() {
    let now = Instant::now();
    let mut q = Queue::new(8, Turns::default());
    q.add(1, lane("l"), now);
    assert_eq!(take(&mut q, now), Some(1));
    q.add(1, lane("l"), now);
    assert_eq!(take(&mut q, now), None);
    q.done(&1, lane("l"), now, ended(Some(60), []));
    assert_eq!(take(&mut q, now), Some(1));
    q.done(&1, lane("l"), now, ended(None, []));
    assert_eq!(q.next_due(now), None);
    assert!(is_empty(&q));
}

#[test]
fn what_the_work_itself_wrote_is_no_news() {
    let now = Instant::now();
    let later = Some(60);
    let (ours, theirs) = (Version::Secret(5), Version::Link(5));
    let mut q = Queue::new(8, Turns::default());
    let heard = |q: &mut Queue<i32>, version| q.tell(1, lane("l"), now, version);
    // Seen before the write was answered, and after.
    q.add(1, lane("l"), now);
    assert_eq!(take(&mut q, now), Some(1));
    heard(&mut q, ours);
    q.done(&1, lane("l"), now, ended(later, [ours]));
    assert_eq!(take(&mut q, now), None);
    heard(&mut q, ours);
    assert_eq!(take(&mut q, now), None);
    // Another one's, in the same two ways.
    heard(&mut q, theirs);
    assert_eq!(take(&mut q, now), Some(1));
    heard(&mut q, ours);
    heard(&mut q, theirs);
    q.done(&1, lane("l"), now, ended(later, []));
    assert_eq!(take(&mut q, now), Some(1));
    // More than is held, all of them ours: one look too many is better than one too few.
    let many: Vec<_> = (100..).map(Version::Secret).take(MOST_VERSIONS + 1).collect();
    many.iter().for_each(|v| heard(&mut q, *v));
    q.done(&1, lane("l"), now, ended(later, many));
    assert_eq!(take(&mut q, now), Some(1));
    q.done(&1, lane("l"), now, ended(None, (0..100).map(Version::Link)));
    assert!(is_empty(&q));
}

#[test]
fn the_earlier_time_counts() {
    let now = Instant::now();
    let later = now + Duration::from_secs(60);
    let mut q = Queue::new(8, Turns::default());
    q.add(1, lane("l"), later);
    assert_eq!(take(&mut q, now), None);
    q.add(1, lane("l"), now);
    q.add(1, lane("m"), later);
    assert_eq!(take(&mut q, now), Some(1));
}

proptest! {
    /// Whatever happens: a key runs at most once at a time, limits hold, and no key is lost.
    #[test]
    fn nothing_is_lost_or_doubled(ops in prop::collection::vec((0u8..3, 0u8..6, 0u8..3), 0..200)) {
        let start = Instant::now();
        let mut q = Queue::new(3, Turns::default());
        let mut running: Vec<u8> = Vec::new();
        let mut wanted: std::collections::HashSet<u8> = std::collections::HashSet::new();
        for (op, key, lane_no) in ops {
            match op {
                0 => { q.add(key, lane(&lane_no.to_string()), start); wanted.insert(key); }
                1 => if let Some(k) = take(&mut q, start) {
                    prop_assert!(!running.contains(&k));
                    wanted.remove(&k);
                    running.push(k);
                    prop_assert!(running.len() <= 3);
                },
                _ => if let Some(k) = running.pop() { q.done(&k, lane(&lane_no.to_string()), start, ended(None, [])); },
            }
        }
        while let Some(k) = running.pop() { q.done(&k, lane("0"), start, ended(None, [])); }
        let mut rest = std::collections::HashSet::new();
        while let Some(k) = take(&mut q, start) { rest.insert(k); q.done(&k, lane("0"), start, ended(None, [])); }
        prop_assert_eq!(rest, wanted);
        prop_assert!(is_empty(&q));
        prop_assert_eq!(q.running(), 0);
    }
}

/// What a key wants when it is done: a turn at a host, before its token ends that many seconds after 1970.
fn wants(host: &str, new: bool, deadline: i64) -> Ended {
    let deadline = Timestamp::from_second(deadline).expect("time");
    Ended { turn: Some(Turn { host: host.into(), client: "us".into(), new, deadline }), ..Ended::default() }
}

/// Keys, the host that they ask, and whether they are new.
type Group<'a> = (std::ops::Range<i64>, &'a str, bool);

/// Puts keys into lines, each by a pass of its own.
fn line_up(q: &mut Queue<i64>, now: Instant, groups: &[Group<'_>]) {
    let lane = |key: i64, host: &str| Lane {
        waits_for: host.into(),
        owner: format!("owner-{}", key % 2),
        new: false,
    };
    for (keys, host, _) in groups {
        keys.clone().for_each(|key| q.add(key, lane(key, host), now));
    }
    while let Some(taken) = q.take(now) {
        assert!(taken.permit.is_none());
    }
    for (keys, host, new) in groups {
        keys.clone().for_each(|key| q.done(&key, lane(key, host), now, wants(host, *new, -key)));
    }
}

/// Who is called up until `until`, each answered at once, and when.
fn called(q: &mut Queue<i64>, from: Instant, until: Instant) -> Vec<(i64, Duration)> {
    let mut now = from;
    let mut all = Vec::new();
    loop {
        while let Some(Taken { key, permit }) = q.take(now) {
            assert!(permit.is_some(), "{key} is called up");
            all.push((key, now - from));
            let lane = Lane { waits_for: "x".into(), owner: "o".into(), new: false };
            if let Some(mut permit) = permit {
                permit.answered(true, now);
            }
            q.done(&key, lane, now, Ended::default());
        }
        match q.next_due(now) {
            Some(at) if at < until => {
                assert!(at > now, "no busy waiting");
                now = at;
            }
            _ => return all,
        }
    }
}

const LIMITS: Limits = Limits { per_second: 10, in_flight: 4 };

#[test]
fn who_loses_its_token_first_goes_first() {
    let now = Instant::now();
    let mut q = Queue::new(8000, Turns::new(LIMITS));
    line_up(&mut q, now, &[(0..200, "a", false)]);
    assert_eq!((q.in_line(), q.depth(now)), (200, 200));
    let called = called(&mut q, now, now + Duration::from_secs(60));
    let order: Vec<_> = called.iter().map(|(key, _)| *key).collect();
    assert_eq!(order, (0..200).rev().collect::<Vec<_>>());
    // Ten at once, and then ten a second.
    assert_eq!(called.iter().filter(|(_, at)| at.is_zero()).count(), 10);
    assert_eq!(called.last().expect("one").1, Duration::from_secs(19));
    assert!(is_empty(&q));
}

#[test]
fn new_links_and_refreshes_go_by_turns() {
    let now = Instant::now();
    let mut q = Queue::new(8000, Turns::new(LIMITS));
    line_up(&mut q, now, &[(0..1000, "a", false), (1000..1010, "a", true)]);
    let called = called(&mut q, now, now + Duration::from_secs(3));
    let new: Vec<_> = called.iter().filter(|(key, _)| *key >= 1000).collect();
    assert_eq!(new.len(), 10);
    assert!(new.iter().all(|(_, at)| *at <= Duration::from_secs(1)), "{new:?}");
    assert_eq!(called.len() - new.len(), 29, "refreshes go on");
}

/// Where places are what is short, who is called up first is who gets one.
#[test]
fn hosts_with_new_links_get_every_other_turn() {
    let now = Instant::now();
    let mut q = Queue::new(8000, Turns::new(LIMITS));
    let hosts: Vec<String> = (0..20).map(|n| format!("old-{n}")).collect();
    let mut groups: Vec<Group<'_>> = hosts
        .iter()
        .zip(0i64..)
        .map(|(host, n)| (1000 + n * 20..1020 + n * 20, host.as_str(), false))
        .collect();
    groups.extend([(0..50, "a", false), (50..60, "a", true), (60..70, "b", true)]);
    line_up(&mut q, now, &groups);
    let called = called(&mut q, now, now + Duration::from_secs(1));
    let place = |key: i64| called.iter().position(|(k, _)| *k == key).expect("called up");
    // Two hosts by turns, and at one of them refreshes go by turns with the new ones.
    let new: Vec<_> = (50..60).rev().take(5).chain((60..70).rev()).map(place).collect();
    assert!(new.iter().all(|place| *place < 44), "{new:?}");
    assert!(called.iter().take(44).filter(|(key, _)| *key >= 1000).count() >= 20, "refreshes go on");
}

#[test]
fn a_client_that_is_told_to_wait_delays_its_own_links_alone() {
    let now = Instant::now();
    let turns = Turns::new(LIMITS);
    let mut q = Queue::new(8000, turns.clone());
    line_up(&mut q, now, &[(0..10, "strict", false), (10..20, "kind", false)]);
    turns.hold("strict", Who { owner: "owner-0", client: "us" }, now, Duration::from_secs(90));
    let called = called(&mut q, now, now + Duration::from_secs(600));
    assert_eq!(called.len(), 20);
    for (key, at) in called {
        // Who was told waits as long as it was told, and nobody else does.
        let expected = if key >= 10 || key % 2 == 1 { 0..=0 } else { 90..=91 };
        assert!(expected.contains(&at.as_secs()), "{key} {at:?}");
    }
    assert!(is_empty(&q));
}

#[test]
fn a_look_takes_a_key_out_of_its_line_and_back() {
    let now = Instant::now();
    let turns = Turns::new(LIMITS);
    let mut q = Queue::new(8000, turns.clone());
    turns.hold("a", Who { owner: "owner-1", client: "us" }, now, Duration::from_secs(10));
    line_up(&mut q, now, &[(1..2, "a", false)]);
    let lane = || Lane { waits_for: "a".into(), owner: "owner-1".into(), new: false };
    q.add(1, lane(), now);
    let taken = q.take(now).expect("due");
    assert!(taken.permit.is_none());
    assert_eq!(q.in_line(), 0);
    q.done(&1, lane(), now, Ended { again: Some(Duration::from_secs(5)), ..wants("a", false, 1) });
    // Its own time comes first.
    assert_eq!(q.next_due(now), Some(now + Duration::from_secs(5)));
    assert!(q.take(now + Duration::from_secs(5)).expect("due").permit.is_none());
    q.done(&1, lane(), now, wants("a", false, 1));
    assert!(q.take(now + Duration::from_secs(10)).expect("called up").permit.is_some());
    q.done(&1, lane(), now, Ended::default());
    assert!(is_empty(&q));
}

proptest! {
    /// Lines and times together: a key runs once at a time, none is lost, budgets hold.
    #[test]
    fn nothing_is_lost_in_a_line(ops in prop::collection::vec((0u8..5, 0u8..8, 0u8..2, any::<bool>()), 0..200)) {
        let start = Instant::now();
        let mut now = start;
        let limits = Limits { per_second: 2, in_flight: 2 };
        let mut q = Queue::new(6, Turns::new(limits));
        let mut running: Vec<Taken<u8>> = Vec::new();
        let mut left: std::collections::HashSet<u8> = std::collections::HashSet::new();
        let mut permits: Vec<(String, Instant)> = Vec::new();
        for (op, key, host, new) in ops {
            let host = host.to_string();
            match op {
                0 => { q.add(key, lane(&host), now); left.insert(key); }
                1 | 2 => if let Some(taken) = q.take(now) {
                    prop_assert!(running.iter().all(|r| r.key != taken.key));
                    left.remove(&taken.key);
                    if let Some(p) = &taken.permit {
                        permits.push((p.host().to_owned(), now));
                        let busy = running.iter().filter_map(|r| r.permit.as_ref()).filter(|r| r.host() == p.host());
                        prop_assert!(busy.count() < limits.in_flight);
                    }
                    running.push(taken);
                },
                3 => if let Some(taken) = running.pop() {
                    let key = taken.key;
                    drop(taken);
                    q.done(&key, lane(&host), now, wants(&host, new, i64::from(key)));
                    left.insert(key);
                },
                _ => now += Duration::from_millis(300),
            }
        }
        for host in ["0", "1"] {
            let n = permits.iter().filter(|(h, _)| h == host).count() as f64;
            prop_assert!(n <= 2.0 + 2.0 * (now - start).as_secs_f64(), "{n} to {host}");
        }
        while let Some(Taken { key, permit }) = running.pop() {
            drop(permit);
            q.done(&key, lane("0"), now, Ended::default());
        }
        for _ in 0..1000 {
            now += Duration::from_millis(500);
            while let Some(Taken { key, permit }) = q.take(now) {
                left.remove(&key);
                drop(permit);
                q.done(&key, lane("0"), now, Ended::default());
            }
            if q.next_due(now).is_none() { break }
        }
        prop_assert!(left.is_empty(), "{:?}", left);
        prop_assert!(is_empty(&q));
    }
}

#[test]
fn a_new_link_is_looked_at_while_all_that_may_be_are_called_up() {
    let now = Instant::now();
    let mut q = Queue::new(8, Turns::default());
    let lane = |key: i64| Lane { waits_for: format!("host-{key}"), owner: format!("team-{key}"), new: false };
    for key in 0..20 {
        q.add(key, lane(key), now);
        q.take(now).expect("room");
        q.done(&key, lane(key), now, wants(&format!("host-{key}"), false, key));
        // Called up again and again, as long as there is room.
        let (owner, host) = (format!("team-{key}"), format!("host-{key}"));
        q.lines.turns().hold(&host, Who { owner: &owner, client: "us" }, now, Duration::from_secs(1));
    }
    let later = now + Duration::from_secs(1);
    let called: Vec<_> = std::iter::from_fn(|| q.take(later)).collect();
    assert!(called.len() == 6 && called.iter().all(|t| t.permit.is_some()), "{called:?}");
    assert_eq!(q.next_due(later), None, "nobody is called up before one of them is done");
    q.add(100, lane(100), later);
    assert_eq!(take(&mut q, later), Some(100));
    q.done(&100, lane(100), later, ended(None, []));
    q.done(&called[0].key, lane(called[0].key), later, ended(None, []));
    assert!(q.take(later).expect("the next").permit.is_some());
}

/// Two namespaces whose links are always told to wait, and one whose token is about to end: at a host that is
/// held, the one is served within seconds, in each order of deadlines.
#[test]
fn at_a_held_host_the_token_that_ends_first_goes_first_and_nobody_tries_for_ever() {
    let start = Instant::now();
    let turns = Turns::new(LIMITS);
    let mut q = Queue::new(8000, turns.clone());
    let owner = |key: i64| ["strict", "harsh", "good"][usize::try_from(key % 3).expect("small")];
    let lane = |key: i64| Lane { waits_for: "a".into(), owner: owner(key).into(), new: false };
    for key in [0, 1] {
        turns.hold("a", Who { owner: owner(key), client: "us" }, start, Duration::from_secs(1));
    }
    assert_eq!(turns.tried("a", "good"), Some(0), "several namespaces were told: the host is held");
    // The good ones' tokens end last, and they come late.
    let join = |q: &mut Queue<i64>, key: i64, now| {
        q.add(key, lane(key), now);
        while let Some(taken) = q.take(now) {
            assert!(taken.permit.is_none() && taken.key == key);
            q.done(&key, lane(key), now, wants("a", false, key));
        }
    };
    join(&mut q, 0, start);
    join(&mut q, 1, start);
    let mut now = start;
    let mut tries = 0;
    while let Some(at) = q.next_due(now).filter(|at| *at < start + Duration::from_secs(60)) {
        assert!(at > now, "no busy waiting");
        now = at;
        while let Some(Taken { key, permit: Some(mut permit) }) = q.take(now) {
            assert!(q.take(now).is_none(), "one tries how it is");
            turns.hold("a", Who { owner: owner(key), client: "us" }, now, Duration::from_secs(1));
            permit.answered(false, now);
            drop(permit);
            q.done(&key, lane(key), now, wants("a", false, key));
            tries += 1;
        }
    }
    assert!((5..15).contains(&tries), "{tries} in a minute");
    now = start + Duration::from_secs(60);
    [2, 5, 8].iter().for_each(|key| q.add(*key, lane(*key), now));
    let order = |q: &mut Queue<i64>, now| {
        let taken = q.take(now).expect("due");
        q.done(&taken.key, lane(taken.key), now, wants("a", false, -taken.key));
    };
    (0..3).for_each(|_| order(&mut q, now));
    let at = q.next_due(now).expect("the next try");
    assert!(at <= now + Duration::from_secs(10));
    let Taken { key, permit } = q.take(at).expect("its turn");
    assert_eq!(key, 8, "of those who didn't try in vain, the one whose token ends first");
    permit.expect("a permit").answered(true, at);
    q.done(&key, lane(key), at, Ended::default());
    assert_eq!(turns.tried("a", "good"), None, "one good answer ends it");
    let called = called(&mut q, at, at + Duration::from_secs(30));
    let good: Vec<_> = called.iter().filter(|(key, _)| key % 3 == 2).collect();
    assert!(good.len() == 2 && good.iter().all(|(_, at)| *at < Duration::from_secs(2)), "{called:?}");
    assert!(is_empty(&q));
}

/// A namespace with many tokens that are all due at once, at many hosts, beside one whose requests never cease
/// to wait: nobody's token ends, and the other one's go as if they were alone.
#[test]
fn a_namespace_with_thousands_of_tokens_loses_none_by_its_budget() {
    const TOKENS: i64 = 6000;
    const LEFT: i64 = 1200;
    let start = Instant::now();
    let writes = WriteRate::new(1);
    let mut q = Queue::new(100_000, Turns::budgeted(LIMITS, 10, writes.clone()));
    let lane = |key: i64| Lane {
        waits_for: format!("host-{}", key % 50),
        owner: if key < TOKENS { "many" } else { "few" }.into(),
        new: false,
    };
    // Their tokens end one after another in the twenty minutes after they are due.
    let want = |key: i64| wants(&format!("host-{}", key % 50), false, key * LEFT / TOKENS);
    (0..TOKENS).for_each(|key| q.add(key, lane(key), start));
    let (mut now, mut last, mut sent, mut few) = (start, start, 0, TOKENS);
    let mut seconds: HashMap<u64, u32> = HashMap::new();
    let mut next_few = start;
    while sent < TOKENS {
        while next_few <= now {
            q.add(few, lane(few), now);
            few += 1;
            next_few += Duration::from_secs(1);
        }
        while let Some(Taken { key, permit }) = q.take(now) {
            let Some(mut permit) = permit else {
                // Its pass finds others before it.
                q.done(&key, lane(key), now, want(key));
                continue;
            };
            permit.answered(true, now);
            drop(permit);
            q.done(&key, lane(key), now, Ended::default());
            // What a refresh writes.
            (0..3).for_each(|_| writes.saw(now));
            if key < TOKENS {
                let ends = start + Duration::from_secs(u64::try_from(key * LEFT / TOKENS).expect("positive"));
                assert!(now <= ends + Duration::from_secs(1), "{key} after {:?}", now - start);
                *seconds.entry((now - start).as_secs()).or_default() += 1;
                sent += 1;
                last = now;
            } else {
                assert!(key + 1 == few, "the few never wait");
            }
        }
        let next = q.next_due(now).map_or(next_few, |at| at.min(next_few));
        assert!(next > now, "no busy waiting");
        now = next;
    }
    let most = seconds.iter().filter(|(second, _)| **second > 2).map(|(_, n)| *n).max();
    assert!(most.is_some_and(|n| n <= 11), "{most:?} a second");
    assert!(last - start <= Duration::from_secs(620), "{:?}", last - start);
}
