//! What follows from the installation's keys alone: the client's identifier, its secret, its
//! owner record. Pure; `observe` and `decide` both ask here, so they can't disagree.

use super::facts::Observed;
use super::identity::Identity;
use super::kept_client::KeptClient;
use crate::domain::keyring::SecretInput;
use crate::domain::{ClientId, Deletion, KeyRing, Owner, OwnerMark, SecretString};
use crate::provider::{Capabilities, ClientRef, RegisteredClient};

/// The identifier of a link's client at a provider.
///
/// Returns `None` only for names that no link can have.
pub fn client_id(keys: &KeyRing, identity: &Identity, namespace: &str, name: &str) -> Option<ClientId> {
    ClientId::parse(&keys.client_id(&identity.service, namespace, name)).ok()
}

/// What a link's client is called where the provider picks identifiers: found again by it after an
/// answer was lost. A namespace made anew under an old name has another one.
pub fn client_tag(keys: &KeyRing, identity: &Identity, seen: &Observed) -> Option<ClientId> {
    let identity = format!("{}|{}", identity.service, seen.namespace_uid);
    ClientId::parse(&keys.client_id(&identity, &seen.namespace, &seen.name)).ok()
}

/// By what a link's client is looked for at a provider.
pub fn lookup(
    keys: &KeyRing,
    identity: &Identity,
    caps: Capabilities,
    adopt: Option<&ClientId>,
    kept: Option<&KeptClient>,
    seen: &Observed,
) -> Option<ClientRef> {
    let id = match (adopt, kept.and_then(KeptClient::client_id)) {
        (_, Some(kept)) => kept,
        (Some(adopt), None) => adopt.clone(),
        (None, None) if caps.chooses_id => client_id(keys, identity, &seen.namespace, &seen.name)?,
        (None, None) => client_tag(keys, identity, seen)?,
    };
    Some(ClientRef { id, handle: kept.and_then(|k| k.handle.as_ref()).map(|k| k.0.clone()) })
}

/// A client's secret that is made for `identity`, by a key of the ring; by the active one where `key`
/// isn't one.
pub fn secret(
    keys: &KeyRing,
    key: &str,
    identity: &str,
    id: &ClientId,
    link_uid: &str,
    serial: i64,
) -> SecretString {
    let input = SecretInput { provider: identity, client_id: id.as_str(), link_uid, serial };
    keys.client_secret_by(key, input).unwrap_or_else(|| keys.client_secret(input))
}

/// What stands in an owner record beside the link itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// Serial of the secret.
    pub serial: i64,
    /// When it began, in seconds since 1970; 0 where nobody knows.
    pub since: i64,
    /// Until when the one before works, in seconds since 1970; 0 for none.
    pub previous_until: i64,
    /// The last rotation request that was carried out.
    pub request: String,
}

/// The owner record of a link's client, marked for `identity`: the one that its secret is made for.
pub fn owner(
    keys: &KeyRing,
    identity: &str,
    id: &ClientId,
    seen: &Observed,
    term: &Term,
    deletion: Deletion,
) -> Owner {
    Owner {
        installation: keys.installation().as_str().to_owned(),
        namespace: seen.namespace.clone(),
        namespace_uid: seen.namespace_uid.clone(),
        name: seen.name.clone(),
        uid: seen.uid.clone(),
        serial: term.serial,
        since: term.since,
        previous_until: term.previous_until,
        request: term.request.clone(),
        mark: String::new(),
        deletion: None,
    }
    .signed(keys, OwnerMark { provider: identity, client_id: id.as_str() }, deletion)
}

/// Where a client's secret comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Derived by a key of the ring.
    Derived,
    /// Kept by us, since it can't be derived.
    Kept,
    /// Nobody knows it.
    Unknown,
}

/// The credentials that a client has, as far as we made or kept them.
#[derive(Debug, Clone)]
pub struct Present {
    /// Serial, and since when.
    pub term: Term,
    /// The secret.
    pub secret: Option<SecretString>,
    /// Where it comes from.
    pub source: Source,
    /// The key that a derived secret and the owner record hang on.
    pub key: String,
    /// The identity that a derived secret and the owner record are made for.
    pub made_for: String,
}

/// Finds the credentials out that a link's client has: what the provider's record of it says,
/// what we kept, and what the status last said; the higher serial wins, and it never falls.
pub fn present(
    keys: &KeyRing,
    identity: &Identity,
    caps: Capabilities,
    id: &ClientId,
    client: Option<&RegisteredClient>,
    kept: Option<&KeptClient>,
    seen: &Observed,
) -> Present {
    let marks = seen.marks_at(identity);
    let ours = |o: &&Owner| standing(keys, &marks, id, Some(o), seen) == Standing::Ours;
    let owner = client.and_then(|c| c.owner.as_ref()).filter(ours);
    // A link that moves takes its serial along, also when no status was written on the way.
    let elsewhere = seen.elsewhere.iter().filter_map(|p| p.client.as_ref().ok());
    let floor = elsewhere.filter_map(|e| {
        let owner = e.client.as_ref()?.owner.as_ref()?;
        let ours = standing(keys, &e.identity.names(), &e.at.id, Some(owner), seen) == Standing::Ours;
        ours.then_some(owner.serial)
    });
    let mut term = Term {
        // A secret that the provider picked never comes back, so there it doesn't matter.
        serial: floor.max().filter(|_| caps.chooses_secret).unwrap_or(0).max(seen.last.serial),
        since: seen.last.since,
        // A provider that was brought back from a backup has yet to learn of the overlap.
        previous_until: seen.last.previous_until,
        request: seen.last.request.clone(),
    };
    let (mut key, mut made_for) = (keys.active_id(), identity.own.as_str());
    if let Some(owner) = owner
        && owner.serial >= term.serial
    {
        // A provider that was brought back from a backup may not know of a request that was carried
        // out since.
        let request = if owner.serial > term.serial || term.request.is_empty() {
            owner.request.clone()
        } else {
            term.request
        };
        term = Term {
            serial: owner.serial,
            since: if owner.since > 0 { owner.since } else { term.since },
            previous_until: owner.previous_until,
            request,
        };
        (key, made_for) = marked(keys, &marks, id, owner).unwrap_or((key, made_for));
    }
    if let Some(kept) = kept.filter(|k| k.serial >= term.serial || !caps.chooses_secret) {
        let request = if kept.request.is_empty() { term.request } else { kept.request.clone() };
        term = Term { serial: kept.serial, since: kept.since, previous_until: term.previous_until, request };
    }
    term.serial = term.serial.max(1);
    let (secret, source) = match kept.and_then(|k| k.secret_of(term.serial)) {
        Some(secret) => (Some(secret.clone()), Source::Kept),
        None if caps.chooses_secret => {
            (Some(self::secret(keys, key, made_for, id, &seen.uid, term.serial)), Source::Derived)
        }
        None => (None, Source::Unknown),
    };
    Present { term, secret, source, key: key.to_owned(), made_for: made_for.to_owned() }
}

/// Whose client one is, seen from a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// This link's.
    Ours,
    /// That of a link that had this name before us.
    Predecessor {
        /// Whether the namespace is still the same one.
        same_namespace: bool,
    },
    /// Somebody else's, or nobody's.
    Foreign,
}

/// The key that an owner record is marked by, and the one of these identities that it is marked for;
/// `None` where the mark isn't genuine for any.
pub fn marked<'a>(
    keys: &'a KeyRing,
    identities: &[&'a str],
    id: &ClientId,
    owner: &Owner,
) -> Option<(&'a str, &'a str)> {
    let by =
        |own: &'a str| Some((owner.key(keys, OwnerMark { provider: own, client_id: id.as_str() })?, own));
    identities.iter().find_map(|own| by(own))
}

/// Tells whose client one is. Only a mark counts that is genuine for one of these identities.
pub fn standing(
    keys: &KeyRing,
    identities: &[&str],
    id: &ClientId,
    owner: Option<&Owner>,
    seen: &Observed,
) -> Standing {
    let Some(owner) = owner else { return Standing::Foreign };
    if !owner.is_of(keys.installation()) || marked(keys, identities, id, owner).is_none() {
        return Standing::Foreign;
    }
    if owner.namespace != seen.namespace || owner.name != seen.name {
        return Standing::Foreign;
    }
    if owner.uid == seen.uid {
        return Standing::Ours;
    }
    Standing::Predecessor { same_namespace: owner.namespace_uid == seen.namespace_uid }
}
