//! A plan's effects as a person reads them. Never a secret: what a secret is to be isn't looked at.

use super::Step;
use crate::domain::ClientMetadata;
use crate::link::claim::Claim;
use crate::link::facts::{Observed, OwnSecret, SecretFact};
use crate::link::plan::{AskBy, Effect, Plan, SecretWrite};
use crate::provider::{PutClient, PutSecret, RegisteredClient};
use jiff::Timestamp;

/// What would be done, in order. A proof changes nothing, and so isn't told.
pub(super) fn steps(plan: &Plan, seen: &Observed) -> Vec<Step> {
    let told = plan.effects().filter_map(|e| Some(Step { effect: e.name(), text: text(e, seen)? }));
    let mut all: Vec<Step> = told.collect();
    if plan.again() && !all.is_empty() {
        let text = "then all is looked at again: what comes next depends on what the provider answers";
        all.push(Step { effect: "Again", text: text.into() });
    }
    all
}

fn at(claim: &Claim) -> String {
    format!("at {} {}", claim.kind.as_str(), claim.name)
}

fn text(effect: &Effect, seen: &Observed) -> Option<String> {
    Some(match effect {
        Effect::Claim(claims) => {
            let places: Vec<String> =
                claims.iter().map(|c| format!("{} {}", c.kind.as_str(), c.name)).collect();
            match places.as_slice() {
                [] => "hold the link with a finalizer".into(),
                places => format!(
                    "hold the link with a finalizer, and note where its client is: {}",
                    places.join(", ")
                ),
            }
        }
        Effect::PutClient(claim, put) => put_client(claim, put, seen),
        Effect::KeepClient(..) => "keep a record of the client in the operator's namespace".into(),
        Effect::ForgetClient(_) => "remove the record of the client from the operator's namespace".into(),
        Effect::Announce(problem) => format!("Ready turns False first: {}", problem.message),
        Effect::Prove(..) | Effect::RehearseSecret(_) | Effect::BeginRefresh(_) | Effect::KeepReply => {
            return None;
        }
        Effect::WriteSecret(write) => write_secret(write, seen),
        Effect::SaveGrant(..) => "keep the grant in the operator's namespace".into(),
        Effect::RequestToken(token) => {
            let scopes = token.scopes.to_string();
            let scopes = if scopes.is_empty() { String::new() } else { format!(", scopes {scopes}") };
            let how = match token.by {
                AskBy::RefreshToken => "by the refresh token",
                AskBy::ClientCredentials => "by client credentials",
                AskBy::JwtBearer(_) => "by a signed assertion",
            };
            format!("ask {} for an access token {how}{scopes}", token.endpoint)
        }
        Effect::PublishToken(publication) => {
            let how = if publication.over.is_some() { "write" } else { "create" };
            format!("{how} Secret {} with the access token", publication.goal.name)
        }
        Effect::Unregister(claim, client, _) => format!("remove client {} {}", client.id, at(claim)),
        Effect::GiveBack(_) => "revoke the grant that there was, at its own server".into(),
        Effect::Revoke(_) => "revoke the grant at the authorization server".into(),
        Effect::DropConsent(_) => "remove the record of a consent that is over".into(),
        Effect::DropGrant => "remove the grant from the operator's namespace".into(),
        Effect::DeleteSecret(secret) => format!("delete Secret {}", secret.name),
        Effect::ReleaseSecret(secret) => format!("let go of Secret {}, which stays", secret.name),
        Effect::Unclaim(left) if left.is_empty() => "note that no client is left".into(),
        Effect::Unclaim(left) => {
            let left: Vec<&str> = left.iter().map(|c| c.name.as_str()).collect();
            format!("note that the client is only at {}", left.join(", "))
        }
        Effect::Finish => "let the link go".into(),
    })
}

fn put_client(claim: &Claim, put: &PutClient, seen: &Observed) -> String {
    let facts = seen.incoming.as_ref();
    let place = facts.and_then(|i| i.place.as_ref().ok());
    let client = facts.and_then(|i| i.client.as_ref());
    let chosen = place.is_none_or(|p| p.caps.chooses_id) || put.exists;
    let name = if chosen {
        format!("client {}", put.at.id)
    } else {
        format!("a client (found again as {})", put.at.id)
    };
    let secret = secret(put, client);
    match client.filter(|_| put.exists) {
        None => format!("register {name} {}: {}; {secret}", at(claim), describe(&put.metadata)),
        Some(client) => {
            let changes = differences(client.metadata.as_ref(), &put.metadata);
            let what = match (changes.is_empty(), client.owner.is_none() && seen.last.serial == 0) {
                (_, true) => "take over",
                (false, _) => "change",
                (true, _) => "write",
            };
            let changes =
                if changes.is_empty() { String::new() } else { format!(": {}", changes.join("; ")) };
            format!("{what} {name} {}{changes}; {secret}", at(claim))
        }
    }
}

fn secret(put: &PutClient, client: Option<&RegisteredClient>) -> String {
    let before = client.and_then(|c| c.owner.as_ref()).map(|o| o.serial);
    match &put.secret {
        PutSecret::Public => "no secret (a public client)".into(),
        PutSecret::Kept => "its secret stays".into(),
        PutSecret::Fresh => "a new secret that the provider picks".into(),
        PutSecret::Chosen { previous, .. } => {
            let serial = put.owner.serial;
            let until = previous.as_ref().and_then(|p| Timestamp::from_second(p.until).ok());
            match (before, until) {
                (None, _) => format!("secret number {serial}"),
                (Some(before), _) if before >= serial => "its secret stays".into(),
                (Some(_), Some(until)) => {
                    format!("a new secret, number {serial}; the old one works until {until}")
                }
                (Some(_), None) => format!("a new secret, number {serial}; the old one ends at once"),
            }
        }
    }
}

fn list<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = all.into_iter().map(|t| t.to_string()).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// The fields of a client by the names of the spec.
fn fields(m: &ClientMetadata) -> [(&'static str, String); 6] {
    // Without `..`, so that a new field can't be forgotten here.
    let ClientMetadata { name, uri, redirect_uris, grant_types, scopes, auth_method } = m;
    [
        ("name", name.clone()),
        ("url", uri.clone().unwrap_or_else(|| "none".into())),
        ("grant types", list(grant_types)),
        ("scopes", list(scopes.iter().map(|s| s.as_str()))),
        ("redirect URIs", list(redirect_uris.iter().map(|u| u.as_str()))),
        ("authentication", auth_method.to_string()),
    ]
}

fn describe(m: &ClientMetadata) -> String {
    fields(m).into_iter().map(|(what, value)| format!("{what} {value}")).collect::<Vec<_>>().join("; ")
}

fn differences(has: Option<&ClientMetadata>, wanted: &ClientMetadata) -> Vec<String> {
    let Some(has) = has else {
        return vec![format!(
            "it is disabled, or has values that no link can ask for; now {}",
            describe(wanted)
        )];
    };
    let pairs = fields(has).into_iter().zip(fields(wanted));
    pairs.filter(|(a, b)| a != b).map(|((what, a), (_, b))| format!("{what} {a} → {b}")).collect()
}

/// The Secret as it stands, if it is ours.
fn own<'s>(name: &str, seen: &'s Observed) -> Option<&'s OwnSecret> {
    let facts = seen
        .incoming
        .as_ref()
        .map(|i| &i.secret)
        .into_iter()
        .chain(seen.outgoing.as_ref().map(|o| &o.secret));
    let mut own = facts.filter_map(|f| match f {
        SecretFact::Own(own) => Some(own.as_ref()),
        _ => None,
    });
    own.find(|o| seen.strays.iter().all(|s| s.uid != o.uid || s.name == name))
}

fn write_secret(write: &SecretWrite, seen: &Observed) -> String {
    let keys: Vec<&str> = write.data.iter().map(|(k, _)| k.as_str()).collect();
    let Some(over) = &write.over else {
        return format!("create Secret {} with the keys {}", write.name, keys.join(", "));
    };
    let mut what = Vec::new();
    let mut verb = "change";
    if let Some(own) = own(&write.name, seen).filter(|o| o.uid == over.uid) {
        let differing = write.data.differing(&own.data);
        if !own.marked {
            verb = "take over";
        }
        if !differing.is_empty() {
            let lost = if own.marked { "" } else { ", whose values are replaced" };
            what.push(format!("keys {}{lost}", differing.join(", ")));
        }
    }
    if !over.drop_keys.is_empty() {
        what.push(format!("without {}", over.drop_keys.join(", ")));
    }
    if what.is_empty() {
        what.push("labels or annotations".into());
    }
    format!("{verb} Secret {}: {}", write.name, what.join("; "))
}
