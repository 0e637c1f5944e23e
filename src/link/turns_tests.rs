//! The budgets of hosts, and who waits for whom.

use super::host::MANY_CLIENTS;
use super::*;

const LIMITS: Limits = Limits { per_second: 10, in_flight: 4 };

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn who<'a>(owner: &'a str, client: &'a str) -> Who<'a> {
    Who { owner, client }
}

const ONE: Who<'static> = Who { owner: "o", client: "c" };

/// How many go through within `span`, each answered at once.
fn run(turns: &Turns, host: &str, from: Instant, span: Duration) -> usize {
    let mut now = from;
    let mut n = 0;
    while let Some(at) = turns.free_at(host, now).zip(turns.who_at(host, ONE, now)).map(|(a, b)| a.max(b))
        && at < from + span
    {
        now = at;
        turns.take(host, ONE, now).expect("free").answered(true, now);
        n += 1;
    }
    n
}

/// Asks, is told to wait, and says so.
fn refused(turns: &Turns, host: &str, by: Who<'_>, now: Instant, asked: Duration) {
    let mut permit = turns.ask(host, by, now).expect("free");
    turns.hold(host, by, now, asked);
    permit.answered(false, now);
}

fn may(turns: &Turns, by: Who<'_>, now: Instant) -> bool {
    turns.ask("a", by, now).is_some()
}

#[test]
fn a_host_gets_no_more_than_its_rate() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    // What was saved up, and the rate.
    assert_eq!(run(&turns, "a", now, secs(10)), 109);
    assert_eq!(run(&turns, "b", now, secs(1)), 19);
    // After a pause it is whole again, and no more than that.
    assert_eq!(run(&turns, "a", now + secs(1000), secs(1)), 19);
}

#[test]
fn so_many_are_on_their_way() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    let mut out: Vec<_> = std::iter::from_fn(|| turns.ask("a", ONE, now)).collect();
    assert_eq!(out.len(), 4);
    assert_eq!(turns.free_at("a", now), None);
    assert!(turns.ask("b", ONE, now).is_some(), "another host has nothing to do with it");
    out.pop();
    assert!(turns.ask("a", ONE, now).is_some());
}

#[test]
fn nobody_jumps_the_line_but_over_those_who_were_told_to_wait() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    turns.waits("a", ONE, true);
    assert!(!may(&turns, who("p", "c"), now));
    assert!(turns.take("a", ONE, now).is_some());
    turns.hold("a", ONE, now, secs(60));
    assert!(may(&turns, who("p", "c"), now));
    assert!(!may(&turns, who("p", "c"), now + secs(60)));
    turns.waits("a", ONE, false);
    assert!(may(&turns, who("p", "c"), now + secs(60)));
}

/// Who was told to wait, for how long, and after how long who may ask then.
#[test]
fn who_waits_for_a_429() {
    struct Case {
        told: &'static [(&'static str, &'static str, u64)],
        asks: (&'static str, &'static str),
        after: u64,
    }
    let case = |told, asks, after| Case { told, asks, after };
    const ONE_CLIENT: &[(&str, &str, u64)] = &[("a", "1", 90)];
    const TWO_CLIENTS: &[(&str, &str, u64)] = &[("a", "1", 90), ("a", "2", 30)];
    const FOR_EVER: &[(&str, &str, u64)] = &[("a", "1", u64::MAX)];
    let table = [
        case(ONE_CLIENT, ("a", "1"), 90),
        case(ONE_CLIENT, ("a", "2"), 0),
        case(ONE_CLIENT, ("b", "1"), 0),
        case(TWO_CLIENTS, ("a", "1"), 90),
        case(TWO_CLIENTS, ("a", "2"), 30),
        case(TWO_CLIENTS, ("a", "3"), 30),
        case(TWO_CLIENTS, ("b", "1"), 0),
        case(FOR_EVER, ("a", "1"), 3600),
        case(FOR_EVER, ("b", "1"), 0),
    ];
    for Case { told, asks: (owner, client), after } in table {
        let turns = Turns::new(LIMITS);
        let now = Instant::now();
        for (owner, client, asked) in told {
            turns.hold("a", who(owner, client), now, Duration::from_secs(*asked));
        }
        let what = format!("{told:?}, then {owner} {client}");
        let by = who(owner, client);
        assert_eq!(turns.who_at("a", by, now), Some(now + secs(after)), "{what}");
        assert!(after == 0 || !may(&turns, by, now + secs(after) - Duration::from_millis(1)), "{what}");
        assert!(may(&turns, by, now + secs(after)), "{what}");
        assert!(may(&Turns::new(LIMITS), by, now));
    }
}

/// A second client that is told after the first one's time is over says nothing of the namespace.
#[test]
fn two_clients_count_together_within_the_hold_alone() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    refused(&turns, "a", who("a", "1"), now, secs(10));
    refused(&turns, "a", who("a", "2"), now + secs(11), secs(10));
    assert!(may(&turns, who("a", "3"), now + secs(12)));
    refused(&turns, "a", who("a", "1"), now + secs(12), secs(10));
    assert!(!may(&turns, who("a", "3"), now + secs(13)));
    assert!(may(&turns, who("b", "3"), now + secs(13)));
}

#[test]
fn after_a_hold_one_tries_how_it_is_before_the_others_of_its_kind_follow() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    refused(&turns, "a", who("a", "1"), now, secs(5));
    let later = now + secs(5);
    let mut first = turns.ask("a", who("a", "1"), later).expect("over");
    assert_eq!(turns.who_at("a", who("a", "1"), later), None);
    assert!(may(&turns, who("a", "2"), later));
    first.answered(false, later);
    drop(first);
    // Not told to wait, and not well either: again one.
    let mut second = turns.ask("a", who("a", "1"), later).expect("over");
    assert!(!may(&turns, who("a", "1"), later));
    second.answered(true, later);
    drop(second);
    let both = [turns.ask("a", who("a", "1"), later), turns.ask("a", who("a", "1"), later)];
    assert!(both.iter().all(Option::is_some));
}

#[test]
fn a_host_is_held_when_several_namespaces_are_told() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    refused(&turns, "a", who("a", "1"), now, secs(3600));
    // Long after: it says nothing of the host any more.
    refused(&turns, "a", who("b", "1"), now + secs(61), secs(3600));
    assert_eq!(turns.tried("a", "c"), None);
    let now = now + secs(62);
    refused(&turns, "a", who("c", "1"), now, secs(3600));
    // One at a time, at once: nobody knows yet whether it is the host or those two.
    let probe = turns.ask("a", who("d", "1"), now).expect("one tries");
    assert!(!may(&turns, who("d", "1"), now + secs(1)));
    assert!(!may(&turns, who("e", "1"), now + secs(1)));
    drop(probe);
    // One that wasn't used says nothing; one that fails makes the next one wait, longer each time.
    let mut at = now;
    for pause in [1, 2, 4, 8, 10, 10] {
        let mut probe = turns.ask("a", who("d", "1"), at).expect("one tries");
        probe.answered(false, at);
        drop(probe);
        assert_eq!(turns.free_at("a", at), Some(at + secs(pause)));
        at += secs(pause);
    }
    assert_eq!(turns.tried("a", "d"), Some(6));
    // A good one lets the others go, and not all at once.
    turns.ask("a", who("d", "1"), at).expect("one tries").answered(true, at);
    assert_eq!(turns.tried("a", "d"), None);
    assert!(may(&turns, who("e", "1"), at + Duration::from_millis(100)));
    assert!(!may(&turns, who("e", "1"), at + Duration::from_millis(100)));
    assert!(!may(&turns, who("c", "1"), at + secs(60)), "who was told still waits");
}

#[test]
fn one_that_tries_and_gets_no_answer_stands_in_the_way_for_ten_seconds() {
    let turns = Turns::new(LIMITS);
    let now = Instant::now();
    refused(&turns, "a", who("a", "1"), now, secs(60));
    refused(&turns, "a", who("b", "1"), now, secs(60));
    let silent = turns.ask("a", who("c", "1"), now).expect("one tries");
    assert_eq!(turns.free_at("a", now), Some(now + secs(10)));
    let mut second = turns.ask("a", who("d", "1"), now + secs(10)).expect("another");
    assert_eq!(turns.tried("a", "c"), Some(1));
    drop(silent);
    assert!(!may(&turns, who("d", "1"), now + secs(11)), "the second is on its way");
    second.answered(true, now + secs(11));
    drop(second);
    assert_eq!(turns.tried("a", "c"), None);
}

/// One namespace can change its client identifiers as often as it likes.
#[test]
fn no_namespace_fills_the_memory() {
    let turns = Turns::new(LIMITS);
    let mut now = Instant::now();
    for i in 0..1000 {
        now += secs(1);
        turns.hold("a", who("a", &format!("client-{i}")), now, secs(3600));
    }
    assert!(turns.lock().hosts["a"].owners["a"].clients.len() <= MANY_CLIENTS);
    assert!(!may(&turns, who("a", "another"), now) && may(&turns, who("b", "1"), now));
}

#[test]
fn hosts_that_rest_are_forgotten() {
    let turns = Turns::new(LIMITS);
    let mut now = Instant::now();
    for i in 0..3 * MANY {
        now += secs(2);
        assert!(turns.ask(&format!("host-{i}"), ONE, now).is_some());
    }
    assert!(turns.lock().hosts.len() <= MANY);
}

/// How many of a namespace go at once, and then in ten seconds.
fn go(turns: &Turns, owner: &str, from: Instant) -> (usize, usize) {
    let mut counts = (0, 0);
    for millis in (0..10_000).step_by(50) {
        let now = from + Duration::from_millis(millis);
        // Each at a host of its own: no host's budget is in the way.
        while let Some(mut permit) =
            turns.take(&format!("host-{}", counts.0 + counts.1), who(owner, "c"), now)
        {
            permit.answered(true, now);
            *(if millis == 0 { &mut counts.0 } else { &mut counts.1 }) += 1;
            if counts.0 + counts.1 >= 1000 {
                return counts;
            }
        }
    }
    counts
}

#[test]
fn a_budget_counts_while_another_one_waits_or_writes_are_many() {
    let turns = || {
        let writes = WriteRate::new(50);
        (Turns::budgeted(LIMITS, 10, writes.clone()), writes)
    };
    let now = Instant::now();
    // Alone, and beside itself, and beside somebody who was told to wait.
    let (alone, _) = turns();
    assert_eq!(go(&alone, "a", now), (1000, 0));
    alone.waits("x", who("a", "c"), true);
    assert_eq!(go(&alone, "a", now), (1000, 0));
    alone.waits("x", who("b", "c"), true);
    alone.hold("x", who("b", "c"), now, secs(3600));
    assert_eq!(go(&alone, "a", now), (1000, 0));
    // What it sent isn't held against it: there is no debt.
    alone.waits("x", who("d", "c"), true);
    let (first, then) = go(&alone, "a", now + secs(1));
    assert!(first <= 10 && (95..=101).contains(&then), "{first} {then}");
    // Each for itself.
    assert_eq!(go(&alone, "e", now + secs(1)).0, 10);
    // And no more when that one has gone.
    alone.waits("x", who("d", "c"), false);
    assert_eq!(go(&alone, "a", now + secs(30)), (1000, 0));

    let (busy, writes) = turns();
    (0..200).for_each(|_| writes.saw(now));
    let at = busy.who_at("x", who("a", "c"), now);
    assert_eq!(at, Some(now), "what was saved up");
    assert_eq!((0..20).filter(|i| busy.take(&format!("host-{i}"), who("a", "c"), now).is_some()).count(), 10);
    assert_eq!(go(&busy, "a", now + secs(10)), (1000, 0), "no more are written");
}
