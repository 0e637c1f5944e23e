//! A service that picks identifier and secret: what it says is kept before the next call, and
//! every call to it ends the pass, so that the next one decides by what came back.

use super::{Case, Decided, Found, Note, adopt, differences};
use crate::domain::{ClientId, Reason};
use crate::link::decide::rotation::{self, Due};
use crate::link::derive;
use crate::link::grant::Kept;
use crate::link::kept_client::KeptClient;
use crate::link::plan::{Effect, KeepClient, Part};
use crate::link::problem::Problem;
use crate::provider::{ClientRef, Proof, PutClient, PutSecret, RegisteredClient};

pub(super) fn decide(case: &Case<'_>) -> Result<Decided, Problem> {
    let found = case.found()?;
    let kept = case.kept();
    match (found, kept) {
        (Found::Adoptable(client), _) => adopt::decide(case, client),
        (Found::Forgettable, _) => Ok(adopt::forget(case)),
        (Found::Nobody, kept) => Ok(make(case, kept)),
        (Found::Ours(client) | Found::Heir(client), None) => Ok(found_again(case, client)),
        (Found::Ours(client) | Found::Heir(client), Some(kept)) => settled(case, client, kept),
    }
}

/// A record before anything was answered.
fn blank(case: &Case<'_>, serial: i64) -> KeptClient {
    KeptClient {
        id: case.at.id.to_string(),
        handle: None,
        secret: None,
        serial,
        since: case.now.as_second(),
        secret_expires_at: None,
        request: case
            .goal
            .request
            .as_ref()
            .map_or_else(|| case.seen.last.request.clone(), |r| r.value.clone()),
        bound: true,
    }
}

/// A step: a call, and what it says is kept.
fn step(case: &Case<'_>, put: PutClient, known: KeptClient, announced: Option<Effect>) -> Part {
    let mut part = Part::settled();
    part.effects.extend(announced);
    part.effects.push(Effect::PutClient(case.place.claim.clone(), Box::new(put)));
    let keep = KeepClient { known, from_reply: true };
    part.effects.push(Effect::KeepClient(case.place.identity.own.clone(), Box::new(keep)));
    part.again = true;
    part
}

fn put(case: &Case<'_>, at: ClientRef, secret: PutSecret, client: Option<&RegisteredClient>) -> PutClient {
    let public = case.goal.metadata.auth_method.is_public();
    let term = case.present().term;
    PutClient {
        owner: derive::owner(
            case.keys,
            &case.place.identity.own,
            &at.id,
            case.seen,
            &term,
            case.goal.deletion,
        ),
        at,
        metadata: case.goal.metadata.clone(),
        secret: if public { PutSecret::Public } else { secret },
        exists: client.is_some(),
        version: client.and_then(|c| c.version.clone()),
        revoke_tokens: false,
    }
}

/// No client is there: one is made. A lost answer leaves nothing where the client is found again
/// by its name; elsewhere it can leave a client that nobody knows of.
fn make(case: &Case<'_>, kept: Option<&KeptClient>) -> Decided {
    let last = case.seen.last.serial.max(kept.map_or(0, |k| k.serial));
    let mut notes = Vec::new();
    if let Some(kept) = kept {
        notes.push(Note::repaired(format!(
            "client {} was gone from {}: a new one was registered",
            kept.id,
            case.name()
        )));
    }
    let Some(id) = derive::client_tag(case.keys, &case.place.identity, case.seen) else {
        return Decided::blocked(Problem::edit(
            Reason::InvalidName,
            "the link's name can't be part of a client identifier",
        ));
    };
    let put = put(case, ClientRef { id, handle: None }, PutSecret::Fresh, None);
    let announced = kept.and_then(|_| case.announce("its client is gone"));
    let part = step(case, put, blank(case, last + 1), announced);
    Decided { part, view: None, notes }
}

/// The answer to the call that made it was lost: its secret is read, or renewed.
fn found_again(case: &Case<'_>, client: &RegisteredClient) -> Decided {
    let known = KeptClient {
        id: client.id.to_string(),
        handle: client.handle.clone().or_else(|| case.at.handle.clone()).map(Kept),
        secret: client.secret.clone().map(Kept),
        secret_expires_at: client.secret_expires_at,
        ..blank(case, case.seen.last.serial + 1)
    };
    let part = if client.secret.is_some() || case.goal.metadata.auth_method.is_public() {
        let mut part = Part::settled();
        part.effects.push(adopt::keep(case.place, known));
        part.again = true;
        part
    } else {
        let at = ClientRef { handle: known.handle.as_ref().map(|k| k.0.clone()), id: case.at.id.clone() };
        step(case, put(case, at, PutSecret::Fresh, Some(client)), known, None)
    };
    Decided { part, view: None, notes: Vec::new() }
}

/// The Secret as it will be written, with a value of the form of what the provider will pick.
fn rehearsal(case: &Case<'_>, id: &ClientId, serial: i64) -> Result<Option<Effect>, Problem> {
    if case.own.is_none() || case.goal.metadata.auth_method.is_public() {
        return Ok(None);
    }
    let value = case.keys.fingerprint("rehearsal", &[id.as_str(), &case.seen.uid, &serial.to_string()]);
    let write = case.secret_write(id, Some(&value.into()), serial, &mut Vec::new())?;
    Ok(write.map(|effect| match effect {
        Effect::WriteSecret(write) => Effect::RehearseSecret(write),
        other => other,
    }))
}

/// The client is there, and we know it.
fn settled(case: &Case<'_>, client: &RegisteredClient, kept: &KeptClient) -> Result<Decided, Problem> {
    let id = ClientId::parse(&kept.id).map_err(|_| {
        Problem::edit(
            Reason::RecordError,
            "what is kept of the client has no identifier; delete that record to start anew",
        )
    })?;
    adopt::same_method(case, client)?;
    let public = case.goal.metadata.auth_method.is_public();
    let present = case.present();
    let view = Some(case.view(&id, &present));
    let decided = |part, notes| Ok(Decided { part, view: view.clone(), notes });
    let secret = kept.secret.as_ref().filter(|_| !public);

    // Somebody gave it another secret there, and it can be read.
    if let (Some(theirs), false) = (&client.secret, public)
        && secret != Some(&Kept(theirs.clone()))
    {
        let known = KeptClient {
            secret: Some(Kept(theirs.clone())),
            serial: kept.serial + 1,
            since: case.now.as_second(),
            secret_expires_at: client.secret_expires_at,
            ..kept.clone()
        };
        let mut part = Part::settled();
        part.effects.push(adopt::keep(case.place, known));
        part.again = true;
        return decided(
            part,
            vec![Note::repaired(format!("client {id} has another secret at {}: taken over", case.name()))],
        );
    }
    let refused = !public && (secret.is_none() || case.facts.proof == Some(Proof::Refused));
    let expires = rotation::expires_at(Some(client), kept.secret_expires_at);
    let due =
        rotation::due(case.goal, &present, (case.seen, case.place), case.keys.active_id(), expires, case.now);
    let too_short = rotation::too_short(present.term.since, expires).filter(|_| !public);
    // Refused, since it has ended; its successor comes in its time.
    if let (true, None, Some(problem)) = (refused, due, &too_short) {
        return Err(problem.clone());
    }
    // Nothing is changed that the Secret can't be written with; all else goes on.
    if let Some(problem) = &case.facts.unwritable {
        let mut decided = at_rest(case, client, kept, &id)?;
        decided.part.verdict = Err(problem.clone());
        return Ok(decided);
    }
    if refused || due.is_some() {
        let why = due.map_or("the provider refuses the one that we have", Due::why);
        let renewed =
            KeptClient { handle: kept.handle.clone(), id: kept.id.clone(), ..blank(case, kept.serial + 1) };
        let notes =
            vec![Note::rotated(format!("client {id} has a new secret, number {}: {why}", renewed.serial))];
        let rehearsal = rehearsal(case, &id, renewed.serial)?;
        if case.place.caps.rotates {
            let put = put(case, case.at.clone(), PutSecret::Fresh, Some(client));
            let mut part = step(case, put, renewed, case.announce(why));
            part.effects.splice(0..0, rehearsal);
            return decided(part, notes);
        }
        if !refused && due != Some(Due::Expiry) {
            let text = format!(
                "{} ({}) can't give a client that is there a new secret; take the annotation {} off again",
                case.name(),
                case.place.type_,
                crate::api::names::ROTATE
            );
            let mut decided = at_rest(case, client, kept, &id)?;
            decided.part.verdict = Err(Problem::edit(Reason::RotationUnsupported, text));
            return Ok(decided);
        }
        // There is no other way to a secret than another client: not for a refusal that may be the
        // endpoint's way with everybody, and not for one that was made a moment ago.
        if secret.is_some()
            && due != Some(Due::Expiry)
            && (!case.facts.controlled || kept.since >= case.now.as_second())
        {
            return Err(Problem::wait(
                Reason::CredentialsRefused,
                format!(
                    "{} refuses the credentials that it gave client {id}; check that its revocation endpoint takes {}",
                    case.name(),
                    case.goal.metadata.auth_method
                ),
            ));
        }
        let Some(tag) = derive::client_tag(case.keys, &case.place.identity, case.seen) else {
            return Err(Problem::edit(
                Reason::InvalidName,
                "the link's name can't be part of a client identifier",
            ));
        };
        let put = put(case, ClientRef { id: tag, handle: None }, PutSecret::Fresh, None);
        let mut part = step(case, put, KeptClient { handle: None, ..renewed }, None);
        let leave = Effect::Unregister(case.place.claim.clone(), case.at.clone(), client.version.clone());
        part.effects.splice(0..0, rehearsal.into_iter().chain(case.announce(why)).chain([leave]));
        let notes = vec![Note::rotated(format!("client {id} was replaced by a new one: {why}"))];
        return decided(part, notes);
    }
    let mut decided = at_rest(case, client, kept, &id)?;
    if let (Some(problem), true) = (too_short, decided.part.verdict.is_ok()) {
        decided.part.verdict = Err(problem);
    }
    Ok(decided)
}

/// No new secret is needed: the fields, and the Secret.
fn at_rest(
    case: &Case<'_>,
    client: &RegisteredClient,
    kept: &KeptClient,
    id: &ClientId,
) -> Result<Decided, Problem> {
    let public = case.goal.metadata.auth_method.is_public();
    let present = case.present();
    let view = Some(case.view(id, &present));
    let mut notes = Vec::new();
    let mut what = differences(client.metadata.as_ref(), &case.goal.metadata);
    if public && client.has_secret {
        what.push_str(if what.is_empty() { "its secret" } else { ", its secret" });
    }
    if !what.is_empty() {
        notes.push(Note::repaired(format!("client {id} was other than it should be ({what}): put right")));
        let put = put(case, case.at.clone(), PutSecret::Kept, Some(client));
        return Ok(Decided { part: step(case, put, kept.clone(), None), view, notes });
    }
    let secret = kept.secret.as_ref().filter(|_| !public).map(|k| &k.0);
    let mut part = Part::settled();
    if let Some(secret) = secret
        && case.facts.proof != Some(Proof::Authenticated)
    {
        part.effects.push(Effect::Prove(
            case.place.claim.clone(),
            id.clone(),
            secret.clone(),
            case.goal.metadata.auth_method,
        ));
    }
    part.effects.extend(case.secret_write(id, secret, kept.serial, &mut notes)?);
    Ok(Decided { part, view, notes })
}
