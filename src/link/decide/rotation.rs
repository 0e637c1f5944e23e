//! When a client gets a new secret, and how long the one before works.

use crate::domain::Reason;
use crate::link::derive::{Present, Source};
use crate::link::facts::{Observed, Place};
use crate::link::problem::Problem;
use crate::link::validate::IncomingGoal;
use crate::provider::RegisteredClient;
use jiff::Timestamp;

/// Why there is to be a new secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Somebody asks for it, perhaps without an overlap.
    Request { now: bool },
    /// The installation's key changed.
    Key,
    /// Its time has come.
    Schedule,
    /// The provider ends the present one soon.
    Expiry,
    /// The present one was made for what may be another provider.
    Identity,
}

impl Due {
    /// Why, for an event.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Request { .. } => "somebody asked for it",
            Self::Key => "the installation has a new master key",
            Self::Schedule => "rotation.every has passed",
            Self::Expiry => "the provider ends the old one soon",
            Self::Identity => "the old one was made for another provider of the same type and address",
        }
    }
}

/// Whether a new secret is due, and why.
pub(super) fn due(
    goal: &IncomingGoal,
    present: &Present,
    (seen, place): (&Observed, &Place),
    active_key: &str,
    expires_at: Option<i64>,
    now: Timestamp,
) -> Option<Due> {
    if goal.metadata.auth_method.is_public() {
        return None;
    }
    // Before a request: the one that there is must not be sent there, not even as the old one.
    if present.source == Source::Derived && !seen.may_have(&place.identity, &present.made_for) {
        return Some(Due::Identity);
    }
    if let Some(request) = goal.request.as_ref().filter(|r| r.value != present.term.request) {
        return Some(Due::Request { now: request.is_now(&present.term.request) });
    }
    if present.source == Source::Derived && present.key != active_key {
        return Some(Due::Key);
    }
    if next(goal, present).is_some_and(|at| at <= now.as_second()) {
        return Some(Due::Schedule);
    }
    expiry(present.term.since, expires_at).is_some_and(|at| at <= now.as_second()).then_some(Due::Expiry)
}

/// When the schedule asks for the next one, in seconds since 1970.
pub(super) fn next(goal: &IncomingGoal, present: &Present) -> Option<i64> {
    goal.rotation
        .every
        .filter(|_| present.term.since > 0)
        .map(|every| present.term.since.saturating_add(every))
}

/// When a secret that the provider ends is to be replaced: at two thirds of its life.
pub(super) fn expiry(since: i64, expires_at: Option<i64>) -> Option<i64> {
    let end = expires_at.filter(|e| *e > 0)?;
    // Of one whose beginning nobody knows: an hour before.
    let life = if since > 0 { end.saturating_sub(since).max(0) } else { 3 * 3_600 };
    let at = end.saturating_sub(life / 3);
    // A provider that ends them at once isn't asked for another one at once, and again, and again.
    Some(if since > 0 { at.max(since.saturating_add(LEAST)) } else { at })
}

/// A secret stays at least so long, in seconds.
const LEAST: i64 = 60;

/// What is wrong with a provider whose secrets end before they can be replaced.
pub(super) fn too_short(since: i64, expires_at: Option<i64>) -> Option<Problem> {
    let end = expires_at.filter(|e| *e > 0 && since > 0)?;
    (end <= since.saturating_add(LEAST)).then(|| {
        Problem::edit(
            Reason::SecretLifetimeTooShort,
            format!(
                "the provider ends client secrets {} s after it made them, and one is replaced once in {LEAST} s at most; \
                 have it give them a longer life",
                end.saturating_sub(since).max(0)
            ),
        )
    })
}

/// How long the old secret works on, in seconds from now; 0 for not at all.
pub(super) fn overlap(goal: &IncomingGoal, place: &Place, due: Due) -> i64 {
    if !place.caps.overlaps || matches!(due, Due::Request { now: true } | Due::Identity) {
        return 0;
    }
    goal.rotation.overlap_or_default()
}

/// When the provider ends the client's secret by itself.
pub(super) fn expires_at(client: Option<&RegisteredClient>, kept: Option<i64>) -> Option<i64> {
    client.and_then(|c| c.secret_expires_at).or(kept)
}
