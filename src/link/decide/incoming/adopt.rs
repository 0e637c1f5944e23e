//! Taking over a client that is there already, with its secret as it is.

use super::{Case, Decided, Note, differences};
use crate::domain::SecretString;
use crate::link::derive::{self, Present, Source, Term};
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
        "AdoptionNotAllowed",
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
    };
    let put = PutClient {
        at: case.at.clone(),
        metadata: case.goal.metadata.clone(),
        secret: if secret.is_some() { PutSecret::Kept } else { PutSecret::Public },
        owner: derive::owner(case.keys, &case.place.identity, id, case.seen, &term),
        exists: true,
        version: client.version.clone(),
        revoke_tokens: false,
    };
    let mut part = Part::settled();
    part.effects.push(keep(&case.place.identity, record));
    part.effects.push(Effect::PutClient(case.place.claim.clone(), Box::new(put)));
    // It is looked at as one of ours from here on.
    part.again = true;
    let changed = differences(client.metadata.as_ref(), &case.goal.metadata);
    let changed =
        if changed.is_empty() { "as it was".to_owned() } else { format!("now as the spec says: {changed}") };
    let present = Present { term, secret, source: Source::Kept, key: case.keys.active_id().to_owned() };
    Ok(Decided {
        part,
        view: Some(case.view(id, &present)),
        notes: vec![Note {
            reason: "Adopted",
            text: format!("client {id} was adopted with its secret, {changed}"),
        }],
    })
}

/// Keeps a record as it stands.
pub(super) fn keep(identity: &str, known: KeptClient) -> Effect {
    Effect::KeepClient(identity.to_owned(), Box::new(KeepClient { known, from_reply: false }))
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
            "AdoptionSecretMissing",
            format!(
                "{FIELD}.secretRef: {} doesn't let a client's secret be read, so say where it stands",
                case.name()
            ),
        ));
    };
    match case.facts.proof {
        Some(Proof::Authenticated) => Ok(secret),
        Some(Proof::Refused) => Err(Problem::edit(
            "AdoptionSecretWrong",
            format!(
                "{FIELD}: the secret doesn't authenticate client {} at {}; put the right one there",
                case.at.id,
                case.name()
            ),
        )),
        _ => Err(Problem::wait(
            "CredentialsUnproved",
            format!(
                "it can't be shown that the secret of client {} authenticates at {}; it is tried again",
                case.at.id,
                case.name()
            ),
        )),
    }
}
