//! When a link is looked at again.

use super::RACES;
use crate::api::ApplicationLink;
use crate::link::context::{Context, Retry, state_of};
use crate::link::problem::{Mend, Problem};
use crate::outgoing::{backoff, unanswered_delay};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// When to look again.
///
/// A pass that comes before a retry is due, though nothing changed of what the link says or refers to, is no
/// failure more: the retry comes when it would have come.
pub(super) fn after(ctx: &Context, look: &Look<'_>, problem: Option<&Problem>) -> Duration {
    let Look { link, uid, resync, wake, now } = *look;
    let jitter = random();
    let until_wake = wake.and_then(|t| Duration::try_from(t.duration_since(now)).ok()).unwrap_or(resync);
    // A tenth earlier at most, so that links that were made together drift apart.
    let regular = resync.mul_f64(1.0 - 0.1 * fraction(jitter)).min(until_wake);
    let most = regular.max(Duration::from_secs(1));
    ctx.remember(uid, |memo| {
        let Some(p) = problem else {
            (memo.attempts, memo.unanswered, memo.retry, memo.unknown_client) = (0, 0, None, None);
            return regular;
        };
        if p.mend == Mend::Conflict {
            let n = memo.attempts;
            memo.attempts = n.saturating_add(1);
            // Many write there at once: it has met nothing worse so far.
            let many = || backoff(n - RACES, jitter).mul_f64(0.2);
            return if n < RACES { race(n, jitter) } else { many() }.min(most);
        }
        let (of, instant) = (format!("{} {}", p.reason, state_of(link)), Instant::now());
        if let Some(retry) = memo.retry.as_ref().filter(|retry| retry.due > instant) {
            if retry.of == of {
                return (retry.due - instant).min(most);
            }
            memo.attempts = 0;
        }
        let n = memo.attempts;
        memo.attempts = n.saturating_add(1);
        if p.mend != Mend::Unanswered {
            memo.unanswered = 0;
        }
        let wait = match p.mend {
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
        let wait = no_sooner(p.retry_after, wait);
        let at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        memo.retry = Some(Retry { of, due: instant + wait, at });
        wait.min(most)
    })
}

/// What a pass looked at, as far as it says when to look again.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) link: &'a ApplicationLink,
    pub(super) uid: &'a str,
    pub(super) resync: Duration,
    pub(super) wake: Option<Timestamp>,
    pub(super) now: Timestamp,
}

/// When something that may pass is tried again, for people. What stands between a link and its provider
/// passes by what the provider says, and what a person must mend by what they do.
pub(super) fn next_retry(ctx: &Context, uid: &str, problem: Option<&Problem>) -> Option<Timestamp> {
    let tried = |p: &&Problem| match p.mend {
        Mend::Wait | Mend::Unanswered => !p.reason.starts_with("Provider"),
        Mend::Edit => p.retry_after.is_some(),
        Mend::Conflict => false,
    };
    problem.filter(tried)?;
    ctx.remember(uid, |memo| memo.retry.as_ref().map(|retry| retry.at))
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
