//! The end of a link: unregister, revoke, let go; the finalizer last. It reads no spec, so a bad
//! one can't block it.

use super::Effect;
use super::consent::GiveBack;
use crate::api::link::ProviderKind;
use crate::domain::{Deletion, KeyRing, OwnerMark};
use crate::link::claim::Claim;
use crate::link::derive::{self, Standing};
use crate::link::facts::{Elsewhere, Observed, PlaceFacts};
use crate::link::identity::Identity;
use crate::link::plan::Plan;
use crate::link::problem::{Mend, Problem};
use crate::provider::{PutClient, PutSecret, RegisteredClient};
use jiff::Timestamp;

pub(super) fn decide(seen: &Observed, retain: bool, force: bool, now: Timestamp) -> Plan {
    let mut closing = Vec::new();
    let mut pending = unread(seen, force);
    // Where nothing could be looked at, nothing is known to be done.
    if pending.is_none() {
        if retain {
            say_retained(seen, force, &mut closing, &mut pending);
            closing.extend(seen.strays.iter().cloned().map(Effect::ReleaseSecret));
            let kept = seen.kept.iter().flat_map(|(kept, _)| kept.at.keys().cloned());
            closing.extend(kept.map(Effect::ForgetClient));
        } else {
            unregister(seen, None, force, &mut closing, &mut pending);
        }
        // What nobody completed is nobody's to retain.
        let give_back = match (force, retain) {
            (true, _) => GiveBack::Nothing,
            (false, true) => GiveBack::Apart,
            (false, false) => GiveBack::All,
        };
        super::consent::drop(seen, give_back, &mut closing);
        if let Some((grant, _)) = &seen.grant {
            let ended =
                grant.refresh_token.is_none() && grant.access.as_ref().is_none_or(|a| a.expires_at <= now);
            if retain || ended {
                closing.push(Effect::DropGrant);
            } else {
                revoke(seen, force, &mut closing);
            }
        }
    }
    if pending.is_none() && seen.finalizer {
        closing.push(Effect::Finish);
    }
    let pending = pending.map(waits);
    // A deletion that waits may see the older keys go: its claims are signed anew.
    let stale = pending.is_some() && seen.finalizer && !seen.claims_current && seen.keys.is_ok();
    let opening = if stale { vec![Effect::Claim(seen.claims.clone())] } else { vec![] };
    Plan { opening, incoming: None, outgoing: None, closing, pending, best_effort: force }
}

/// The record at a client that stays says so: else it would be taken for one whose link went without
/// unregistering it.
fn say_retained(seen: &Observed, force: bool, effects: &mut Vec<Effect>, pending: &mut Option<Problem>) {
    for place in &seen.elsewhere {
        match (&place.client, &seen.keys) {
            (Ok(there), Ok(keys)) => {
                let ours =
                    there.client.as_ref().filter(|c| there.caps.tells_owner && is_ours(keys, there, c, seen));
                effects.extend(ours.and_then(|client| retained(keys, place, there, client)));
            }
            // Where it says nothing yet, or that the client stays, nobody takes it for such a one.
            (Err(problem), _) | (_, Err(problem)) if !force && seen.last.deletes => {
                pending.get_or_insert_with(|| problem.clone());
            }
            _ => {}
        }
    }
}

/// The write that says of a client that it stays, where the record says something else.
fn retained(
    keys: &KeyRing,
    place: &PlaceFacts,
    there: &Elsewhere,
    client: &RegisteredClient,
) -> Option<Effect> {
    let owner = client.owner.clone().filter(|o| o.deletion(keys) != Some(Deletion::Retain))?;
    let marks = there.identity.names();
    let (_, made_for) = derive::marked(keys, &marks, &there.at.id, &owner)?;
    let at = OwnerMark { provider: made_for, client_id: there.at.id.as_str() };
    let put = PutClient {
        at: there.at.clone(),
        // One that we wouldn't write stays as somebody made it.
        metadata: client.metadata.clone()?,
        secret: if client.has_secret { PutSecret::Kept } else { PutSecret::Public },
        owner: owner.signed(keys, at, Deletion::Retain),
        exists: true,
        version: client.version.clone(),
        revoke_tokens: false,
    };
    Some(Effect::PutClient(place.claim.clone(), Box::new(put)))
}

/// What begins the message of a deletion that can't go on.
pub const WAITS: &str = "deletion waits: ";

/// A problem as a deletion says it.
pub fn waits(p: Problem) -> Problem {
    Problem {
        // A deletion that waits isn't stalled: it goes on by itself when what is missing is back.
        mend: if p.mend == Mend::Edit { Mend::Wait } else { p.mend },
        message: format!(
            "{WAITS}{}; to let go without undoing it there, annotate the link with {}=true",
            p.message,
            crate::api::names::FORCE_DELETE
        ),
        ..p
    }
}

/// What kept us from looking. Without keys, or without an answer of the API server, a link whose
/// client is still there looks like one that has none. Keys that a person must bring back are what
/// a forced deletion does without.
fn unread(seen: &Observed, force: bool) -> Option<Problem> {
    let problem = seen.keys.as_ref().err().filter(|_| seen.finalizer)?;
    (!force || problem.mend != Mend::Edit).then(|| problem.clone())
}

/// Unregisters the clients of all places that aren't wanted; gives back the claims that must stay.
/// `here` is the provider that is wanted: another object of the same identity has the same client, which
/// stays. So has a tenant's provider that can't be reached, and whose mark stands at the client `here`:
/// its service has another address by now, and is named by another object.
pub(super) fn unregister(
    seen: &Observed,
    here: Option<&Identity>,
    force: bool,
    effects: &mut Vec<Effect>,
    pending: &mut Option<Problem>,
) -> Vec<Claim> {
    let mut left = Vec::new();
    for place in &seen.elsewhere {
        let keys = match &seen.keys {
            Ok(keys) => keys,
            Err(_) if force => continue,
            Err(problem) => {
                pending.get_or_insert_with(|| problem.clone());
                left.push(place.claim.clone());
                continue;
            }
        };
        match &place.client {
            // Another provider object for the same service: the client stays, and what is kept of it
            // is kept for the other one.
            Ok(there) if here.is_some_and(|h| h.own == there.identity.own) => {}
            // Found by its name alone, and it is the one that is wanted: the same service.
            Ok(there) if !there.caps.tells_owner && is_wanted(here, there, seen) => {
                if seen.kept_at(&there.identity).is_some() {
                    effects.push(Effect::ForgetClient(there.identity.own.clone()));
                }
            }
            Ok(there) => {
                if let Some(client) = &there.client
                    && is_ours(keys, there, client, seen)
                {
                    effects.push(Effect::Unregister(
                        place.claim.clone(),
                        there.at.clone(),
                        client.version.clone(),
                    ));
                }
                if seen.kept_at(&there.identity).is_some() {
                    effects.push(Effect::ForgetClient(there.identity.own.clone()));
                }
            }
            Err(_) if force => {}
            Err(_) if is_taken_over(keys, place, seen) => {}
            Err(problem) => {
                pending.get_or_insert_with(|| problem.clone());
                left.push(place.claim.clone());
            }
        }
    }
    left
}

/// Whether the client of a place is the one at the wanted provider, where both have the same type and
/// address.
fn is_wanted(here: Option<&Identity>, there: &Elsewhere, seen: &Observed) -> bool {
    let wanted = seen.incoming.as_ref().and_then(|i| i.client.as_ref());
    here.is_some_and(|h| h.service == there.identity.service)
        && wanted.zip(there.client.as_ref()).is_some_and(|(a, b)| a.id == b.id)
}

/// Whether the client at the wanted provider is the one of this place, by the mark that it was found
/// with. Of the platform team's providers none is left without a look.
fn is_taken_over(keys: &KeyRing, place: &PlaceFacts, seen: &Observed) -> bool {
    let Some(incoming) = &seen.incoming else { return false };
    let found =
        incoming.client.as_ref().zip(incoming.at.as_ref()).and_then(|(c, at)| Some((c.owner.as_ref()?, at)));
    let (Some(left), Some((owner, at))) = (&place.identity, found) else { return false };
    place.claim.kind == ProviderKind::LinkProvider
        && left.own != left.service
        && here_or_there(seen, left)
            .is_some_and(|marks| derive::standing(keys, &marks, &at.id, Some(owner), seen) == Standing::Ours)
}

/// The identities by whose mark the client at the wanted provider is that of a place of the same type and
/// address: that place's, and once it was written the wanted one's.
fn here_or_there<'a>(seen: &'a Observed, left: &'a Identity) -> Option<Vec<&'a str>> {
    let here = &seen.incoming.as_ref()?.place.as_ref().ok()?.identity;
    (here.service == left.service).then(|| vec![left.own.as_str(), here.own.as_str()])
}

/// What isn't ours isn't touched, also when our claim says that it should be.
fn is_ours(keys: &KeyRing, there: &Elsewhere, client: &RegisteredClient, seen: &Observed) -> bool {
    if client.protected {
        return false;
    }
    if !there.caps.tells_owner {
        // Found by what we kept, or by a name that nobody else would give it.
        return seen.kept_at(&there.identity).is_some()
            || derive::client_tag(keys, &there.identity, seen).as_ref() == Some(&there.at.id);
    }
    let id = &there.at.id;
    let marks = seen.marks_left(&there.identity);
    derive::standing(keys, &marks, id, client.owner.as_ref(), seen) == Standing::Ours
}

/// Revokes the grant where that is possible, and drops its record.
pub(super) fn revoke(seen: &Observed, force: bool, effects: &mut Vec<Effect>) {
    if let Some((grant, _)) = &seen.grant {
        // A forced deletion doesn't call anybody: that is what it is for.
        if !force && grant.dead.is_none() && grant.revocation().is_some() {
            effects.push(Effect::Revoke(Box::new(grant.clone())));
        }
        effects.push(Effect::DropGrant);
    }
}
