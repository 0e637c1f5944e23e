//! Taking over a client that is there already, with its secret as it is.

use super::{Case, Decided, Note, differences};
use crate::domain::{Reason, SecretString};
use crate::link::derive::{self, Present, Source, Term};
use crate::link::facts::Place;
use crate::link::grant::Kept;
use crate::link::kept_client::KeptClient;
use crate::link::plan::{Effect, KeepClient, Part};
use crate::link::problem::Problem;
use crate::provider::{Proof, PutClient, PutSecret, RegisteredClient};

const FIELD: &str = "spec.incoming.adopt";

/// Whether the provider lists the client as one that this namespace may adopt. It is asked before
/// anything else is said of it: answers that differ would tell everybody which clients there are.
pub(super) fn allowed(case: &Case<'_>) -> Result<(), Problem> {
    let id = &case.at.id;
    if case.place.adoptable.iter().any(|a| a == id.as_str()) {
        return Ok(());
    }
    Err(Problem::edit(
        Reason::AdoptionNotAllowed,
        format!(
            "{FIELD}.clientId: {} doesn't list client {id} as one that links of namespace {} may adopt; have the \
             platform team add it there",
            case.name(),
            case.seen.namespace
        ),
    ))
}

/// The record first, then the mark at the client: one that is marked as ours has a secret that we
/// know.
pub(super) fn decide(case: &Case<'_>, client: &RegisteredClient) -> Result<Decided, Problem> {
    let id = &case.at.id;
    allowed(case)?;
    same_kind(case, client)?;
    let secret = if case.goal.metadata.auth_method.is_public() { None } else { Some(secret(case, client)?) };
    let now = case.now.as_second();
    let request = case.goal.request.as_ref().map(|r| r.value.clone()).unwrap_or_default();
    let term = Term { serial: case.seen.last.serial.max(1), since: now, previous_until: 0, request };
    let record = KeptClient {
        id: client.id.to_string(),
        handle: client.handle.clone().or_else(|| case.at.handle.clone()).map(Kept),
        secret: secret.clone().map(Kept),
        serial: term.serial,
        since: now,
        secret_expires_at: client.secret_expires_at,
        request: term.request.clone(),
        bound: true,
    };
    let put = PutClient {
        at: case.at.clone(),
        metadata: case.goal.metadata.clone(),
        secret: if secret.is_some() { PutSecret::Kept } else { PutSecret::Public },
        owner: derive::owner(case.keys, &case.place.identity.own, id, case.seen, &term, case.goal.deletion),
        exists: true,
        version: client.version.clone(),
        revoke_tokens: false,
    };
    let mut part = Part::settled();
    part.effects.push(keep(case.place, record));
    part.effects.push(Effect::PutClient(case.place.claim.clone(), Box::new(put)));
    // It is looked at as one of ours from here on.
    part.again = true;
    let changed = differences(client.metadata.as_ref(), &case.goal.metadata);
    let changed =
        if changed.is_empty() { "as it was".to_owned() } else { format!("now as the spec says: {changed}") };
    let present = Present {
        term,
        secret,
        source: Source::Kept,
        key: case.keys.active_id().to_owned(),
        made_for: case.place.identity.own.clone(),
    };
    Ok(Decided {
        part,
        view: Some(case.view(id, &present)),
        notes: vec![Note {
            reason: "Adopted",
            text: format!("client {id} was adopted with its secret, {changed}"),
        }],
    })
}

/// A client with a secret is adopted by whoever shows the secret. A public one has none to show, so it
/// is adopted only as what it is, and never gets one: that would be handed to whoever named it.
fn same_kind(case: &Case<'_>, client: &RegisteredClient) -> Result<(), Problem> {
    let is_public = client.metadata.as_ref().map(|m| m.auth_method.is_public() && !client.has_secret);
    let wanted = case.goal.metadata.auth_method;
    if is_public == Some(wanted.is_public()) || (is_public.is_none() && !wanted.is_public()) {
        return Ok(());
    }
    let (is, way_out) = if wanted.is_public() {
        ("has a secret", "name another method here, or make it a public client there first")
    } else {
        (
            "is a public client, which shows nobody's right to it",
            "set none here, or give it a secret there first",
        )
    };
    Err(Problem::edit(
        Reason::AdoptionMethodMismatch,
        format!(
            "spec.incoming.oauth2.tokenEndpointAuthMethod: {wanted}, and client {} at {} {is}; {way_out}",
            case.at.id,
            case.name()
        ),
    ))
}

/// How a client authenticates that was there before the link stays, unless the provider
/// lists it for this namespace now and its credentials were seen to work there.
pub(super) fn same_method(case: &Case<'_>, client: &RegisteredClient) -> Result<(), Problem> {
    let Some(has) = client.metadata.as_ref().map(|m| m.auth_method) else { return Ok(()) };
    let wanted = case.goal.metadata.auth_method;
    if has == wanted || !case.is_adopted() {
        return Ok(());
    }
    allowed(case)?;
    if has.is_public() || case.facts.proof == Some(Proof::Authenticated) {
        return same_kind_stays(case, has.is_public(), wanted.is_public());
    }
    Err(Problem::wait(
        Reason::CredentialsUnproved,
        format!(
            "spec.incoming.oauth2.tokenEndpointAuthMethod: the method of the adopted client {} changes only while its \
             secret is seen to authenticate at {}; it is tried again",
            case.at.id,
            case.name()
        ),
    ))
}

fn same_kind_stays(case: &Case<'_>, is_public: bool, wants_public: bool) -> Result<(), Problem> {
    if !is_public || wants_public {
        return Ok(());
    }
    Err(Problem::edit(
        Reason::AdoptionMethodMismatch,
        format!(
            "spec.incoming.oauth2.tokenEndpointAuthMethod: client {} was adopted as a public one and gets no secret; set \
             none, or leave adopt out in a link of another name to have a client made",
            case.at.id
        ),
    ))
}

/// A client that was adopted, is gone, and isn't named any more: what is kept of it goes, and the link
/// has one of its own from then on.
pub(super) fn forget(case: &Case<'_>) -> Decided {
    let mut part = Part::settled();
    part.effects.push(Effect::ForgetClient(case.place.identity.own.clone()));
    part.again = true;
    let text =
        format!("client {} was gone from {}, and the link doesn't name it any more", case.at.id, case.name());
    Decided { part, view: None, notes: vec![Note { reason: "Repaired", text }] }
}

/// Keeps a record as it stands.
pub(super) fn keep(place: &Place, known: KeptClient) -> Effect {
    let known = KeptClient { bound: true, ..known };
    Effect::KeepClient(place.identity.own.clone(), Box::new(KeepClient { known, from_reply: false }))
}

/// The secret that the client has, and that was seen to work.
fn secret(case: &Case<'_>, client: &RegisteredClient) -> Result<SecretString, Problem> {
    // What an earlier try kept already is what it read.
    let kept = case.kept().and_then(|k| k.secret.as_ref()).map(|k| k.0.clone());
    let given = match (&case.facts.adopt_secret, kept) {
        (Some(given), _) => Some(given.clone()?),
        (None, Some(kept)) => Some(kept),
        (None, None) => client.secret.clone(),
    };
    let Some(secret) = given else {
        return Err(Problem::edit(
            Reason::AdoptionSecretMissing,
            format!(
                "{FIELD}.secretRef: {} doesn't let a client's secret be read, so say where it stands",
                case.name()
            ),
        ));
    };
    match case.facts.proof {
        Some(Proof::Authenticated) => Ok(secret),
        Some(Proof::Refused) => Err(Problem::edit(
            Reason::AdoptionSecretWrong,
            format!(
                "{FIELD}: the secret doesn't authenticate client {} at {}; put the right one there",
                case.at.id,
                case.name()
            ),
        )),
        _ => Err(Problem::wait(
            Reason::CredentialsUnproved,
            format!(
                "it can't be shown that the secret of client {} authenticates at {}; it is tried again",
                case.at.id,
                case.name()
            ),
        )),
    }
}
