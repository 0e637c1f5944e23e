//! A consent under way: made active, or dropped. Pure.

use crate::link::consent::Consent;
use crate::link::facts::Observed;
use crate::link::grant::Grant;
use crate::link::plan::Effect;
use jiff::Timestamp;

/// What becomes of the consent in this pass.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing: there is none, or it is waited for until then.
    Wait(Option<Timestamp>),
    /// Its grant takes the place of the one there is, and its record, of this version, goes.
    Activate(Box<Grant>, String),
    /// It goes, and what was granted is revoked.
    Drop,
}

/// `wanted`: whether the link still asks a person, with a grant that is bound as this one.
pub(super) fn step(seen: &Observed, wanted: impl FnOnce(&Grant) -> bool, now: Timestamp) -> Step {
    let Some((consent, version)) = &seen.consent else { return Step::Wait(None) };
    if is_active(seen, consent) || !consent.is_open(now) || !wanted(&consent.grant) {
        return Step::Drop;
    }
    // Whoever may edit the link began it and ends it: another ticket there means another consent.
    let begun = seen.ticket.as_ref().is_some_and(|t| t.ticket == consent.ticket);
    let completed = seen.completion.as_deref().is_some_and(|code| consent.is_completed_by(code));
    if !begun && consent.is_over() {
        return Step::Drop;
    }
    match consent.granted() {
        Some(grant) if begun && completed => {
            // Whoever waits for it knows it by its second, so no two of a link have the same.
            let before = seen.grant.as_ref().and_then(|(held, _)| held.connected_at);
            let second = before.map_or(i64::MIN, |t| t.as_second() + 1).max(now.as_second());
            let connected_at = Some(Timestamp::from_second(second).unwrap_or(now));
            let seed_digest = Some(consent.ticket.clone());
            let grant = Grant { connected_at, seed_digest, ..grant.clone() };
            Step::Activate(Box::new(grant), version.clone())
        }
        _ => Step::Wait(Some(consent.expires_at)),
    }
}

/// Whether the grant that there is came of this consent: a pass was broken off after it was saved.
fn is_active(seen: &Observed, consent: &Consent) -> bool {
    seen.grant.as_ref().is_some_and(|(g, _)| g.seed_digest.as_ref() == Some(&consent.ticket))
}

/// What of a consent that is dropped is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GiveBack {
    /// Nothing.
    Nothing,
    /// What doesn't end the grant that the link lives on.
    Apart,
    /// All of it: the link's own grant goes too.
    All,
}

/// Drops the consent; what was granted and never became active is revoked first, where that tells no other server of it.
pub(super) fn drop(seen: &Observed, give_back: GiveBack, effects: &mut Vec<Effect>) {
    let Some((consent, version)) = &seen.consent else { return };
    let apart = |grant: &Grant| seen.grant.as_ref().is_none_or(|(held, _)| !grant.may_be_one_with(held));
    let revoked = |grant: &Grant| match give_back {
        GiveBack::Nothing => false,
        GiveBack::Apart => apart(grant),
        GiveBack::All => true,
    };
    if !is_active(seen, consent)
        && let Some(grant) =
            consent.granted().filter(|g| g.is_revoked_at_home() && g.revocation().is_some() && revoked(g))
    {
        effects.push(Effect::Revoke(Box::new(grant.clone())));
    }
    effects.push(Effect::DropConsent(version.clone()));
}
