//! When to refresh: always between issue and expiry, never too often, whatever the numbers.

use super::schedule::MAX_BACKOFF;
use super::*;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::time::Duration;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).expect("time")
}

/// The wait in seconds, for a token issued at some time.
fn wait(lifetime: i64, policy: RefreshPolicy, jitter: u64) -> f64 {
    let issued = at(1_700_000_000_000);
    let next = next_refresh(issued, issued + SignedDuration::from_secs(lifetime), policy, jitter);
    next.duration_since(issued).as_secs_f64()
}

fn policies() -> impl Strategy<Value = RefreshPolicy> {
    let time = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        (0u64..100_000).prop_map(Duration::from_secs),
        (0u64..100_000).prop_map(Duration::from_millis),
    ];
    prop_oneof![
        Just(RefreshPolicy::Default),
        time.clone().prop_map(RefreshPolicy::Before),
        time.prop_map(RefreshPolicy::Every),
    ]
}

proptest! {
    #[test]
    fn the_time_lies_between_issue_and_expiry(
        issued in -377_705_023_201_000i64..=253_402_207_200_000,
        lifetime in prop_oneof![2_000i64..20_000, 2_000i64..10_000_000, 2_000i64..400_000_000_000],
        policy in policies(),
        jitter: u64,
    ) {
        let issued = at(issued);
        let Ok(expires) = issued.checked_add(SignedDuration::from_millis(lifetime)) else { return Ok(()) };
        let next = next_refresh(issued, expires, policy, jitter);
        prop_assert!(issued < next && next < expires, "{issued} {next} {expires}");
        prop_assert_eq!(next, next_refresh(issued, expires, policy, jitter));
        let waited = next.duration_since(issued).as_millis();
        prop_assert!(waited >= i128::from(lifetime / 2).min(5_000));
        let left = expires.duration_since(next).as_millis();
        prop_assert!(left >= i128::from(lifetime / 10).min(60_000), "{left}");
    }

    #[test]
    fn no_clock_overflows(
        issued in -377_705_023_201_000i64..=253_402_207_200_000,
        expires in -377_705_023_201_000i64..=253_402_207_200_000,
        policy in policies(),
        jitter: u64,
    ) {
        let next = next_refresh(at(issued), at(expires), policy, jitter);
        prop_assert!(next > at(issued) || at(issued) > at(253_402_207_190_000));
    }

    #[test]
    fn the_jitter_stays_within_five_percent(lifetime in 60i64..1_000_000, jitter: u64) {
        let two_thirds = lifetime as f64 * 2.0 / 3.0;
        let waited = wait(lifetime, RefreshPolicy::Default, jitter);
        prop_assert!(waited >= two_thirds * 0.949 && waited <= two_thirds * 1.051, "{waited} of {lifetime}");
    }

    #[test]
    fn back_off_is_bounded(attempt: u32, jitter: u64) {
        let wait = backoff(attempt, jitter);
        prop_assert!(wait >= Duration::from_secs(4) && wait <= MAX_BACKOFF);
        prop_assert!(unanswered_delay(attempt) >= Duration::from_secs(1));
        prop_assert!(unanswered_delay(attempt) <= MAX_BACKOFF);
    }
}

#[test]
fn what_the_policies_mean() {
    let hour = 3600;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    // 10 minutes before the end, and a little earlier.
    let before = wait(hour, RefreshPolicy::Before(minutes(10)), 7);
    assert!((2969.0..=3000.0).contains(&before), "{before}");
    // More than there is: after a third, not at once.
    assert!((wait(hour, RefreshPolicy::Before(minutes(90)), 7) - 1200.0).abs() < 1.0);
    // Nothing left: a minute is kept.
    assert!((wait(hour, RefreshPolicy::Before(Duration::ZERO), 7) - 3540.0).abs() < 1.0);
    let every = wait(hour, RefreshPolicy::Every(minutes(30)), 7);
    assert!((1710.0..=1890.0).contains(&every), "{every}");
    assert!((wait(hour, RefreshPolicy::Every(minutes(90)), 7) - 3540.0).abs() < 1.0);
    assert!((wait(hour, RefreshPolicy::Every(Duration::ZERO), 7) - 5.0).abs() < 0.001);
    // Too short to be kept fresh, or expired before it was issued: no hammering.
    for lifetime in [1, 0, -5, -1_000_000] {
        assert!((wait(lifetime, RefreshPolicy::Default, 7) - 5.0).abs() < 0.001);
    }
}

#[test]
fn tokens_issued_together_are_spread() {
    let mut waits: Vec<_> = (0..1000).map(|i| wait(3600, RefreshPolicy::Default, i)).collect();
    waits.sort_by(f64::total_cmp);
    // Four minutes wide, and no tenth of it is empty or has more than twice its share.
    for tenth in 0..10 {
        let from = 2280.0 + f64::from(tenth) * 24.0;
        let n = waits.iter().filter(|w| (from..from + 24.0).contains(*w)).count();
        assert!((50..200).contains(&n), "{tenth}: {n}");
    }
}

#[test]
fn the_first_tries_after_no_answer_come_quickly() {
    let secs: Vec<_> = (0..9).map(|n| unanswered_delay(n).as_secs()).collect();
    assert!(secs.starts_with(&[1, 3, 10]), "{secs:?}");
    assert!(secs.is_sorted() && secs.iter().all(|s| *s <= 300), "{secs:?}");
}

#[test]
fn a_server_that_doesnt_know_the_client_is_asked_for_a_day() {
    let mut waits: Vec<u64> = Vec::new();
    while let Some(wait) = unknown_client_delay(u32::try_from(waits.len()).expect("few")) {
        waits.push(wait.as_secs());
    }
    assert_eq!(waits[..8], [15, 30, 60, 120, 300, 600, 3600, 3600]);
    let all: u64 = waits.iter().sum();
    assert!((23 * 3600..=24 * 3600).contains(&all), "{all}");
}
