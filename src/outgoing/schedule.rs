//! When to refresh a token, and when to try again. Pure: the clock and the jitter come in.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// When a token is refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefreshPolicy {
    /// After two thirds of its lifetime.
    #[default]
    Default,
    /// This long before it expires, but not in the first third of its lifetime: a time that is
    /// longer than the lifetime would mean a refresh in every pass.
    Before(Duration),
    /// This often, but before it expires.
    Every(Duration),
}

/// No token is refreshed more often, but for one that lives less than twice as long.
const MOST_OFTEN: i64 = 5_000;
/// The time that is left to a token when it is refreshed, at least, or a tenth of its lifetime.
const LEAST_LEFT: i64 = 60_000;

/// When the next refresh of a token is due.
///
/// The time always lies between `issued_at` and `expires_at` where these are 2 seconds or more
/// apart: at least 5 seconds (or half the lifetime) after the first and at least a minute (or a
/// tenth of the lifetime) before the second. A token that lives shorter, or has expired before
/// it was issued because somebody set a clock, is due 5 seconds after it was issued.
///
/// The jitter spreads the tokens that were issued together: at most 5 % of the time that the
/// policy names, the same for the same `jitter`.
pub fn next_refresh(
    issued_at: Timestamp,
    expires_at: Timestamp,
    policy: RefreshPolicy,
    jitter: u64,
) -> Timestamp {
    let lifetime = expires_at.as_millisecond().saturating_sub(issued_at.as_millisecond());
    if lifetime < 2_000 {
        return after(issued_at, MOST_OFTEN);
    }
    let earliest = MOST_OFTEN.min(lifetime / 2);
    let latest = lifetime - LEAST_LEFT.min(lifetime / 10);
    let (wanted, earliest) = match policy {
        RefreshPolicy::Default => (spread(lifetime / 3 * 2, jitter), earliest),
        RefreshPolicy::Every(every) => (spread(millis(every), jitter), earliest),
        // Earlier only: what was asked for is the time that is left.
        RefreshPolicy::Before(before) => {
            let before = millis(before);
            (
                lifetime.saturating_sub(before.saturating_add(share(before, jitter))),
                earliest.max(lifetime / 3),
            )
        }
    };
    after(issued_at, wanted.max(earliest).min(latest))
}

/// How long to wait after a request that was sent and not answered, counted from 0: the same
/// token may still work within the server's grace, so the first tries come quickly.
pub fn unanswered_delay(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::from_secs(1),
        1 => Duration::from_secs(3),
        2 => Duration::from_secs(10),
        n => backoff(n - 1, 0),
    }
}

/// How long to wait after a server's `n`th refusal of the client itself, counted from 0: whoever registers
/// the client there may come after the link. Seldom, since identity providers lock accounts; `None` after a
/// day.
pub fn unknown_client_delay(n: u32) -> Option<Duration> {
    const FIRST: [u64; 6] = [15, 30, 60, 120, 300, 600];
    const HOURLY: u32 = 23;
    let hourly = || (n < 6 + HOURLY).then_some(3600);
    let first = usize::try_from(n).ok().and_then(|n| FIRST.get(n).copied());
    first.or_else(hourly).map(Duration::from_secs)
}

/// How long a client that the server doesn't know is something that may pass by itself; after that, it is
/// for a person to mend.
pub const UNKNOWN_CLIENT_PASSES: Duration = Duration::from_secs(600);

/// The longest wait between two tries.
pub const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// How long to wait after a failure, counted from 0: 5 seconds, doubled each time, never more
/// than [`MAX_BACKOFF`]; `jitter` takes away up to a fifth.
pub fn backoff(attempt: u32, jitter: u64) -> Duration {
    let full = Duration::from_secs(5).saturating_mul(1 << attempt.min(6)).min(MAX_BACKOFF);
    full - full.mul_f64(0.2 * unit(jitter))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn after(at: Timestamp, millis: i64) -> Timestamp {
    // Only fails for a duration in units beyond hours.
    at.saturating_add(SignedDuration::from_millis(millis)).unwrap_or(Timestamp::MAX)
}

/// 5 % less to 5 % more.
fn spread(time: i64, jitter: u64) -> i64 {
    (time - time / 20).saturating_add(share(time, jitter).saturating_mul(2))
}

/// 0 to 5 % of a time.
fn share(time: i64, jitter: u64) -> i64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "5 % of an i64 fits")]
    let part = ((time / 20) as f64 * unit(jitter)) as i64;
    part
}

/// A seed as a number from 0 to 1. Seeds that differ in any bit should differ in it (splitmix64).
fn unit(seed: u64) -> f64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    f64::from(u32::try_from(z >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}
