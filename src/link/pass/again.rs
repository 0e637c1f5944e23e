//! When a link is looked at again.

use super::RACES;
use crate::link::context::Context;
use crate::link::problem::{Mend, Problem};
use crate::outgoing::{backoff, unanswered_delay};
use jiff::Timestamp;
use std::time::Duration;

/// When to look again.
pub(super) fn after(
    ctx: &Context,
    uid: &str,
    problem: Option<&Problem>,
    resync: Duration,
    wake: Option<Timestamp>,
    now: Timestamp,
) -> Duration {
    let jitter = random();
    let until_wake = wake.and_then(|t| Duration::try_from(t.duration_since(now)).ok()).unwrap_or(resync);
    // A tenth earlier at most, so that links that were made together drift apart.
    let regular = resync.mul_f64(1.0 - 0.1 * fraction(jitter)).min(until_wake);
    ctx.remember(uid, |memo| match problem {
        None => {
            memo.attempts = 0;
            memo.unanswered = 0;
            regular
        }
        Some(p) => {
            let n = memo.attempts;
            memo.attempts = n.saturating_add(1);
            if p.mend != Mend::Unanswered {
                memo.unanswered = 0;
            }
            let wait = match p.mend {
                Mend::Conflict if n < RACES => race(n, jitter),
                // Many write there at once: it has met nothing worse so far.
                Mend::Conflict => backoff(n - RACES, jitter).mul_f64(0.2),
                // Held until it may be sent again: that wait isn't another failure.
                Mend::Unanswered if p.retry_after.is_some() => Duration::ZERO,
                Mend::Unanswered => {
                    let n = memo.unanswered;
                    memo.unanswered = n.saturating_add(1);
                    unanswered_delay(n)
                }
                // A person's edit is seen by a watch; what nobody watches is looked for like this.
                Mend::Edit => backoff(n.saturating_add(2), jitter),
                _ => backoff(n, jitter).mul_f64(if n < 3 { 0.2 } else { 1.0 }),
            };
            no_sooner(p.retry_after, wait).min(regular.max(Duration::from_secs(1)))
        }
    })
}

/// How long somebody who lost a race waits: the more often, the longer, and never as long as the
/// others.
fn race(n: u32, jitter: u64) -> Duration {
    Duration::from_millis(20 + jitter % (40 << n.min(5)))
}

/// The longer of what a server asks for and our own back-off: one that says 0 isn't asked without
/// end.
fn no_sooner(asked: Option<Duration>, own: Duration) -> Duration {
    asked.map_or(own, |asked| asked.max(own))
}

fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // Without randomness there is no jitter, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn fraction(jitter: u64) -> f64 {
    f64::from(u32::try_from(jitter >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_ask_for_more_time_but_not_for_less() {
        let secs = Duration::from_secs;
        assert_eq!(no_sooner(Some(secs(0)), secs(5)), secs(5));
        assert_eq!(no_sooner(Some(secs(60)), secs(5)), secs(60));
        assert_eq!(no_sooner(None, secs(5)), secs(5));
    }
}
