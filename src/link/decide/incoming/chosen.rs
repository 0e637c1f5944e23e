//! A service where we choose identifier and secret: the secret is derived, so one pass does it all
//! and a pass that died is simply done again.

use super::adopt;
use super::{Case, Decided, Found, Note, differences};
use crate::domain::{Deletion, SecretString};
use crate::link::claim::Claim;
use crate::link::decide::rotation::{self, Due};
use crate::link::derive::{self, Present, Source};
use crate::link::plan::{Effect, Part};
use crate::link::problem::Problem;
use crate::provider::{Previous, Proof, PutClient, PutSecret, RegisteredClient};

/// What the client is to be.
struct Aim {
    present: Present,
    /// Whether it has to be written.
    register: bool,
    /// The secret that works on beside it.
    previous: Option<Previous>,
    revoke_tokens: bool,
    /// Why there is a new secret, if there is one.
    due: Option<Due>,
}

pub(super) fn decide(case: &Case<'_>) -> Result<Decided, Problem> {
    let mut notes = Vec::new();
    let public = case.goal.metadata.auth_method.is_public();
    let mut part = Part::settled();
    let found = case.found()?;
    match &found {
        Found::Adoptable(client) => return adopt::decide(case, client),
        Found::Forgettable => return Ok(adopt::forget(case)),
        Found::Ours(client) | Found::Heir(client) => adopt::same_method(case, client)?,
        Found::Nobody => {}
    }
    let aim = aim(case, &found, &mut notes);
    let id = &case.at.id;
    let secret = aim.present.secret.clone().filter(|_| !public);
    if aim.register {
        // Nothing works on beside the new secret: the one in the Secret ends here.
        if let (Some(due), None) = (aim.due, &aim.previous) {
            part.effects.extend(case.announce(due.why()));
        }
        part.effects
            .push(Effect::PutClient(case.place.claim.clone(), Box::new(put(case, &aim, secret.as_ref()))));
    }
    // A public client has no credentials to prove; once it was written it is read back.
    if aim.register || (!public && case.facts.proof != Some(Proof::Authenticated)) {
        part.effects.push(Effect::Prove(
            case.place.claim.clone(),
            id.clone(),
            secret.clone().unwrap_or_default(),
            case.goal.metadata.auth_method,
        ));
    }
    let write = if let Some(due) = aim.due {
        notes.clear();
        notes.push(Note::rotated(format!(
            "client {id} has a new secret, number {}: {}",
            aim.present.term.serial,
            due.why()
        )));
        let write = case.secret_write(id, secret.as_ref(), aim.present.term.serial, &mut Vec::new())?;
        if let (Some(Effect::WriteSecret(write)), true) = (&write, case.own.is_some()) {
            part.effects.insert(0, Effect::RehearseSecret(write.clone()));
        }
        part.undo = undo(case, &aim, due);
        write
    } else {
        case.secret_write(id, secret.as_ref(), aim.present.term.serial, &mut notes)?
    };
    part.effects.extend(write);
    part.effects.extend(forget_old(case, &aim));
    if let Some(problem) = &case.facts.unwritable {
        part.verdict = Err(problem.clone());
    }
    Ok(Decided { part, view: Some(case.view(id, &aim.present)), notes })
}

/// The client as it was, for a secret that ends with the write of the new one. What was made for another
/// provider isn't put back.
fn undo(case: &Case<'_>, aim: &Aim, due: Due) -> Option<(Claim, Box<PutClient>)> {
    let before = case.present();
    let secret = before.secret.clone()?;
    let client = case.facts.client.as_ref().filter(|c| c.has_secret)?;
    if aim.previous.is_some() || due == Due::Identity || case.own.is_none() {
        return None;
    }
    let metadata = client.metadata.clone()?;
    let derived = before.source == Source::Derived;
    let was = Aim { present: before, register: true, previous: None, revoke_tokens: false, due: None };
    let put = PutClient {
        metadata,
        secret: PutSecret::Chosen { secret: secret.clone(), derived, previous: None },
        ..put(case, &was, Some(&secret))
    };
    Some((case.place.claim.clone(), Box::new(put)))
}

fn aim(case: &Case<'_>, found: &Found<'_>, notes: &mut Vec<Note>) -> Aim {
    let present = case.present();
    let now = case.now.as_second();
    let public = case.goal.metadata.auth_method.is_public();
    let id = &case.at.id;
    let client = match found {
        Found::Nobody | Found::Adoptable(_) | Found::Forgettable => {
            if case.seen.last.serial > 0 {
                notes.push(Note::repaired(format!(
                    "client {id} was gone from {}: registered again",
                    case.name()
                )));
            }
            // Asked for and not carried out: the client may be gone because of it, so that the secret
            // which somebody wanted out of the world doesn't come back.
            if let (Some(due @ Due::Request { .. }), true) =
                (due(case, &present, None), case.seen.last.serial > 0)
            {
                let present = renewed(case, &present, present.term.serial + 1, 0);
                return Aim { present, register: true, previous: None, revoke_tokens: false, due: Some(due) };
            }
            // The same credentials as before, by the key that is active now.
            let mut present = active(case, present);
            present.term.previous_until = 0;
            if present.term.since == 0 {
                present.term.since = now;
            }
            if case.seen.last.serial == 0 {
                // Made for this request too: there is nothing older to replace.
                present.term.request = request(case, &present);
            }
            return Aim { present, register: true, previous: None, revoke_tokens: false, due: None };
        }
        Found::Heir(client) => {
            let serial = present.term.serial.max(client.owner.as_ref().map_or(0, |o| o.serial)) + 1;
            let present = renewed(case, &present, serial, 0);
            return Aim { present, register: true, previous: None, revoke_tokens: false, due: None };
        }
        Found::Ours(client) => *client,
    };
    // Another new secret would end the one that is in the Secret; who asks for that gets it.
    let may_end = |due: &Due| matches!(due, Due::Request { now: true } | Due::Identity);
    let waits = is_unwritten(case, &present);
    if let Some(due) = due(case, &present, Some(client)).filter(|due| !waits || may_end(due)) {
        let until = match rotation::overlap(case.goal, case.place, due) {
            0 => 0,
            // The provider's own clock rounds to seconds.
            seconds => now.saturating_add(seconds),
        };
        let previous = present
            .secret
            .clone()
            .filter(|_| until > 0 && client.has_secret && case.facts.proof != Some(Proof::Refused))
            .map(|secret| Previous { secret, until });
        let until = if previous.is_some() { until } else { 0 };
        return Aim {
            present: renewed(case, &present, present.term.serial + 1, until),
            register: true,
            previous,
            revoke_tokens: due == (Due::Request { now: true }) && case.place.caps.revokes_tokens,
            due: Some(due),
        };
    }
    let mut present = present;
    // The Secret couldn't be written so far: what is in it works on until it is.
    let prolonged = prolonged(case, &present);
    if let Some(until) = prolonged {
        present.term.previous_until = until;
    }
    let ended = client.has_previous && present.term.previous_until <= now;
    let mut register = ended || !is_registered(case, client, &present, notes);
    register |= prolonged.is_some();
    // No secret hangs on the older key, or on the other identity, but the mark does.
    if present.key != case.keys.active_id() || !case.seen.may_have(&case.place.identity, &present.made_for) {
        register = true;
        present.key = case.keys.active_id().to_owned();
        if present.source != Source::Derived || public {
            present.made_for.clone_from(&case.place.identity.own);
        }
    }
    // A client of the time before rotation: from now on it is known how old its secret is.
    if case.goal.rotation.every.is_some() && present.term.since == 0 {
        (present.term.since, register) = (now, true);
    }
    if ended {
        present.term.previous_until = 0;
    }
    let previous = (!public && present.term.previous_until > now)
        .then(|| before(case, &present))
        .flatten()
        .map(|secret| Previous { secret, until: present.term.previous_until });
    Aim { present, register, previous, revoke_tokens: false, due: None }
}

/// Whether the Secret has yet to be written with the present secret, while the one before works. A write
/// that is still under way isn't waited for: the overlap goes on only after that had its time.
fn is_unwritten(case: &Case<'_>, present: &Present) -> bool {
    let now = case.now.as_second();
    let overlap = case.goal.rotation.overlap_or_default();
    let (Some(own), Some(secret)) = (case.own, &present.secret) else { return false };
    if case.goal.metadata.auth_method.is_public()
        || present.term.previous_until <= now
        || now - present.term.since < (overlap / 2).min(30)
    {
        return false;
    }
    // By what authenticates alone: labels that somebody takes off, again and again, hold nothing.
    case.data(&case.at.id, Some(secret)).is_ok_and(|data| !data.is_in(&own.data))
}

/// Until when the secret before is to work, where that time is nearly over and the Secret still isn't as
/// it should be. Longer than any pass waits for the next one.
fn prolonged(case: &Case<'_>, present: &Present) -> Option<i64> {
    const NEARLY: i64 = 900;
    let now = case.now.as_second();
    let overlap = case.goal.rotation.overlap_or_default();
    let soon = present.term.previous_until - now <= NEARLY;
    // Once, and again when that is nearly over.
    let until = now.saturating_add(overlap.max(2 * NEARLY));
    (soon && is_unwritten(case, present)).then_some(until)
}

fn due(case: &Case<'_>, present: &Present, client: Option<&RegisteredClient>) -> Option<Due> {
    let expires_at = rotation::expires_at(client, None);
    // Nothing is changed that the Secret can't be written with.
    let due = rotation::due(
        case.goal,
        present,
        (case.seen, case.place),
        case.keys.active_id(),
        expires_at,
        case.now,
    );
    due.filter(|_| case.facts.unwritable.is_none())
}

/// The present credentials, but by the active key.
fn active(case: &Case<'_>, present: Present) -> Present {
    let (key, made_for) = (case.keys.active_id().to_owned(), case.place.identity.own.clone());
    if present.source != Source::Derived {
        return Present { key, made_for, ..present };
    }
    let secret = secret(case, present.term.serial);
    Present { secret: Some(secret), key, made_for, ..present }
}

fn renewed(case: &Case<'_>, before: &Present, serial: i64, previous_until: i64) -> Present {
    let mut term = before.term.clone();
    term.request = request(case, before);
    term.serial = serial;
    term.since = case.now.as_second();
    term.previous_until = previous_until;
    Present {
        term,
        secret: Some(secret(case, serial)),
        source: Source::Derived,
        key: case.keys.active_id().to_owned(),
        made_for: case.place.identity.own.clone(),
    }
}

/// The request that is carried out with the next write.
fn request(case: &Case<'_>, present: &Present) -> String {
    case.goal.request.as_ref().map_or_else(|| present.term.request.clone(), |r| r.value.clone())
}

fn secret(case: &Case<'_>, serial: i64) -> SecretString {
    let key = case.keys.active_id();
    derive::secret(case.keys, key, &case.place.identity.own, &case.at.id, &case.seen.uid, serial)
}

/// The secret before the present one, as it is most likely: it matters only to services that must
/// be told it again.
fn before(case: &Case<'_>, present: &Present) -> Option<SecretString> {
    let serial = present.term.serial - 1;
    let kept = case.kept().and_then(|k| k.secret_of(serial));
    let derived = || {
        let key = case.keys.active_id();
        derive::secret(case.keys, key, &present.made_for, &case.at.id, &case.seen.uid, serial)
    };
    kept.cloned().or_else(|| (serial > 0).then(derived))
}

/// Whether the client stands as it should: every field, the kind of secret, the serial, and
/// credentials that weren't refused.
fn is_registered(
    case: &Case<'_>,
    client: &RegisteredClient,
    present: &Present,
    notes: &mut Vec<Note>,
) -> bool {
    let wanted = &case.goal.metadata;
    let mut wrong = Vec::new();
    if client.metadata.as_ref() != Some(wanted) {
        wrong.push(differences(client.metadata.as_ref(), wanted));
    }
    if client.has_secret == wanted.auth_method.is_public() || case.facts.proof == Some(Proof::Refused) {
        wrong.push("its secret".to_owned());
    }
    if client.owner.as_ref().is_none_or(|o| o.serial != present.term.serial) {
        wrong.push("its owner record".to_owned());
    }
    // One that says nothing of it is of a version before; nothing was to stay then that isn't named here.
    let said = client.owner.as_ref().and_then(|o| o.deletion(case.keys));
    if said.unwrap_or(Deletion::Delete) != case.goal.deletion {
        wrong.push("what its owner record says of the link's end".to_owned());
    }
    if !wrong.is_empty() {
        let id = &case.at.id;
        notes.push(Note::repaired(format!(
            "client {id} was other than it should be ({}): put right",
            wrong.join(", ")
        )));
    }
    wrong.is_empty()
}

fn put(case: &Case<'_>, aim: &Aim, secret: Option<&SecretString>) -> PutClient {
    let derived = aim.present.source != Source::Kept;
    PutClient {
        at: case.at.clone(),
        metadata: case.goal.metadata.clone(),
        secret: match secret {
            Some(secret) => {
                PutSecret::Chosen { secret: secret.clone(), derived, previous: aim.previous.clone() }
            }
            None => PutSecret::Public,
        },
        owner: derive::owner(
            case.keys,
            &aim.present.made_for,
            &case.at.id,
            case.seen,
            &aim.present.term,
            case.goal.deletion,
        ),
        exists: case.facts.client.is_some(),
        version: case.facts.client.as_ref().and_then(|c| c.version.clone()),
        revoke_tokens: aim.revoke_tokens,
    }
}

/// A secret that was there before us is kept until a derived one took its place.
fn forget_old(case: &Case<'_>, aim: &Aim) -> Option<Effect> {
    let kept = case.kept()?;
    let over = kept.secret.is_some() && kept.serial < aim.present.term.serial && aim.previous.is_none();
    let mut known = kept.clone();
    known.secret = None;
    over.then(|| adopt::keep(case.place, known))
}
