//! The incoming part: a client at the provider, and a Secret with its credentials.

use super::{Effect, Part, is_as_wanted, over, own_labels, writable};
use crate::api::names;
use crate::domain::{ClientId, ClientMetadata, KeyRing};
use crate::link::content::{self, Slot, Values};
use crate::link::derive::{self, Standing};
use crate::link::facts::{IncomingFacts, Observed, Place, Restrictions};
use crate::link::plan::SecretWrite;
use crate::link::problem::Problem;
use crate::link::validate::IncomingGoal;
use crate::provider::{ClientRef, Proof, PutClient, PutSecret, RegisteredClient};
use std::collections::BTreeMap;

/// The registered client, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingView {
    /// Its identifier.
    pub client_id: ClientId,
    /// Serial of its secret.
    pub serial: i64,
    /// Its Secret.
    pub secret_name: String,
}

/// What the client and its secret should be.
struct Wanted {
    id: ClientId,
    serial: i64,
    metadata: ClientMetadata,
    /// Whether a write must say which version it takes over.
    register: bool,
}

pub(super) fn decide(
    goal: &IncomingGoal,
    seen: &Observed,
    facts: &IncomingFacts,
    keys: &KeyRing,
) -> (Part, Option<IncomingView>) {
    let place = match &facts.place {
        Ok(place) => place,
        Err(problem) => return (Part::blocked(problem.clone()), None),
    };
    let wanted = match permitted(goal, place).and_then(|()| wanted(goal, seen, facts, place, keys)) {
        Ok(wanted) => wanted,
        Err(problem) => return (Part::blocked(problem), None),
    };
    let view = IncomingView {
        client_id: wanted.id.clone(),
        serial: wanted.serial,
        secret_name: goal.secret.name.clone(),
    };
    match effects(goal, seen, facts, place, keys, &wanted) {
        Ok(part) => (part, Some(view)),
        Err(problem) => (Part::blocked(problem), Some(view)),
    }
}

/// Whether provider and platform team allow what the link asks for.
fn permitted(goal: &IncomingGoal, place: &Place) -> Result<(), Problem> {
    let Restrictions { scopes, redirect_hosts, grant_types: _ } = place.allow.clone().unwrap_or_default();
    for (i, scope) in goal.metadata.scopes.iter().enumerate() {
        if let Some(offered) = place.info.scopes.as_ref().filter(|s| !s.contains(scope)) {
            return Err(Problem::edit(
                "UnknownScope",
                format!(
                    "spec.incoming.oauth2.scopes: \"{scope}\" isn't offered by {} {}; it offers: {}",
                    place.claim.kind.as_str(),
                    place.claim.name,
                    offered
                ),
            ));
        }
        if scopes.as_ref().is_some_and(|allowed| !allowed.contains(scope.as_str())) {
            return Err(Problem::edit(
                "ScopeNotAllowed",
                format!(
                    "spec.incoming.oauth2.scopes: \"{scope}\" (number {}) isn't among those that {} {} allows; remove it, \
                     or have the platform team add it to spec.allow.scopes there",
                    i + 1,
                    place.claim.kind.as_str(),
                    place.claim.name
                ),
            ));
        }
    }
    for uri in &goal.metadata.redirect_uris {
        let host = uri.host();
        let fits = |pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|h| h.len() > 1 && h.ends_with('.')),
            None => *pattern == host,
        };
        if redirect_hosts.as_ref().is_some_and(|allowed| !allowed.iter().any(fits)) {
            return Err(Problem::edit(
                "RedirectHostNotAllowed",
                format!(
                    "spec.incoming.oauth2.redirectUris: the host of {uri} isn't among those that {} {} allows; use an \
                     allowed host, or have the platform team add it to spec.allow.redirectHosts there",
                    place.claim.kind.as_str(),
                    place.claim.name
                ),
            ));
        }
    }
    Ok(())
}

fn wanted(
    goal: &IncomingGoal,
    seen: &Observed,
    facts: &IncomingFacts,
    place: &Place,
    keys: &KeyRing,
) -> Result<Wanted, Problem> {
    let id = derive::client_id(keys, &place.identity, &seen.namespace, &seen.name).ok_or_else(|| {
        Problem::edit("InvalidName", "the link's name can't be part of a client identifier")
    })?;
    let metadata = goal.metadata.clone();
    let Some(client) = &facts.client else {
        return Ok(Wanted { id, serial: seen.serial.max(1), metadata, register: true });
    };
    let owner = client.owner.as_ref();
    let last = owner.map_or(0, |o| o.serial).max(seen.serial);
    let standing = derive::standing(keys, &place.identity, &id, owner, seen);
    match standing {
        Standing::Ours => {
            let register = !is_registered(client, &metadata, last, facts.proof);
            Ok(Wanted { id, serial: last.max(1), metadata, register })
        }
        // A link of this name was here before, and is gone: names are unique. Its client is bound
        // to us with a secret that nobody has seen.
        Standing::Predecessor { same_namespace } if same_namespace || place.rebind => {
            Ok(Wanted { id, serial: last + 1, metadata, register: true })
        }
        Standing::Predecessor { .. } => Err(Problem::edit(
            "RebindNotAllowed",
            format!(
                "client {id} belongs to a link of this name in an earlier namespace of this name; the platform team can \
                 let it be taken over with spec.allow.rebind on the provider, or delete the client there"
            ),
        )),
        Standing::Foreign => Err(Problem::edit(
            "ClientConflict",
            format!(
                "client {id} exists at {} {} and isn't this installation's; it is left alone: remove it there, or name \
                 the link otherwise",
                place.claim.kind.as_str(),
                place.claim.name
            ),
        )),
    }
}

/// Whether the client stands as it should: every field, the kind of secret, the serial, and
/// credentials that weren't refused.
fn is_registered(
    client: &RegisteredClient,
    wanted: &ClientMetadata,
    serial: i64,
    proof: Option<Proof>,
) -> bool {
    let public = wanted.auth_method.is_public();
    client.metadata.as_ref() == Some(wanted)
        && client.has_secret != public
        && client.owner.as_ref().is_some_and(|o| o.serial == serial)
        && proof != Some(Proof::Refused)
}

fn effects(
    goal: &IncomingGoal,
    seen: &Observed,
    facts: &IncomingFacts,
    place: &Place,
    keys: &KeyRing,
    wanted: &Wanted,
) -> Result<Part, Problem> {
    // Before the client: a Secret that can't be written would leave a client that nobody can use.
    let own = writable(&facts.secret, &goal.secret)?;
    let public = wanted.metadata.auth_method.is_public();
    let secret = derive::secret(keys, &place.identity, &wanted.id, &seen.uid, wanted.serial);
    let mut values: Values = [
        (Slot::Type, "oauth2".to_owned()),
        (Slot::Provider, place.type_.to_owned()),
        (Slot::ClientId, wanted.id.to_string()),
        (Slot::IssuerUri, place.info.issuer.clone()),
        (Slot::TokenEndpoint, place.info.token_endpoint.clone()),
        (Slot::TokenEndpointAuthMethod, wanted.metadata.auth_method.to_string()),
    ]
    .into_iter()
    .map(|(slot, text)| (slot, text.into()))
    .collect();
    if let Some(endpoint) = &place.info.authorization_endpoint {
        values.insert(Slot::AuthorizationEndpoint, endpoint.clone().into());
    }
    if !public {
        values.insert(Slot::ClientSecret, secret.clone());
    }
    let data = content::render(&goal.secret, &values).map_err(|(key, e)| {
        Problem::edit("TemplateError", format!("spec.incoming.secret.template[\"{key}\"]: {e}"))
    })?;

    let mut part = Part::settled();
    if wanted.register {
        part.effects.push(Effect::PutClient(
            place.claim.clone(),
            Box::new(PutClient {
                at: ClientRef { id: wanted.id.clone(), handle: None },
                metadata: wanted.metadata.clone(),
                secret: if public {
                    PutSecret::Public
                } else {
                    PutSecret::Chosen { secret: secret.clone(), derived: true, previous: None }
                },
                owner: derive::owner(keys, place, &wanted.id, seen, wanted.serial),
                exists: facts.client.is_some(),
                revoke_tokens: false,
                version: facts.client.as_ref().and_then(|c| c.version.clone()),
            }),
        ));
    }
    // A public client has no credentials to prove; once it was written it is read back.
    if wanted.register || (!public && facts.proof != Some(Proof::Authenticated)) {
        part.effects.push(Effect::Prove(
            place.claim.clone(),
            wanted.id.clone(),
            secret,
            wanted.metadata.auth_method,
        ));
    }
    let labels = own_labels(&goal.secret, seen, "oauth-client");
    let mut annotations: BTreeMap<_, _> = goal.secret.annotations.clone();
    annotations.insert(names::SERIAL.into(), wanted.serial.to_string());
    if !own.is_some_and(|own| is_as_wanted(own, &labels, &annotations, &data)) {
        let over = own.map(|own| over(own, &labels, &annotations, data.iter().map(|(k, _)| k.as_str())));
        part.effects.push(Effect::WriteSecret(Box::new(SecretWrite {
            name: goal.secret.name.clone(),
            type_: goal.secret.type_.clone(),
            labels,
            annotations,
            data,
            over,
        })));
    }
    Ok(part)
}
