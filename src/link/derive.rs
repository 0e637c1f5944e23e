//! What follows from the installation's keys alone: the client's identifier, its secret, its
//! owner record. Pure; `observe` and `decide` both ask here, so they can't disagree.

use super::facts::{Observed, Place};
use crate::domain::keyring::SecretInput;
use crate::domain::{ClientId, KeyRing, Owner, OwnerMark, SecretString};

/// The identifier of a link's client at a provider.
///
/// Returns `None` only for names that no link can have.
pub fn client_id(keys: &KeyRing, identity: &str, namespace: &str, name: &str) -> Option<ClientId> {
    ClientId::parse(&keys.client_id(identity, namespace, name)).ok()
}

/// The identity of a provider: what identifiers and secrets are derived from.
pub fn identity(type_: &str, issuer: &str) -> String {
    format!("{type_}|{issuer}")
}

/// A client's secret.
pub fn secret(keys: &KeyRing, identity: &str, id: &ClientId, link_uid: &str, serial: i64) -> SecretString {
    keys.client_secret(SecretInput { provider: identity, client_id: id.as_str(), link_uid, serial })
}

/// The owner record of a link's client.
pub fn owner(keys: &KeyRing, place: &Place, id: &ClientId, seen: &Observed, serial: i64) -> Owner {
    Owner {
        installation: keys.installation().as_str().to_owned(),
        namespace: seen.namespace.clone(),
        namespace_uid: seen.namespace_uid.clone(),
        name: seen.name.clone(),
        uid: seen.uid.clone(),
        serial,
        since: 0,
        previous_until: 0,
        request: String::new(),
        mark: String::new(),
    }
    .signed(keys, OwnerMark { provider: &place.identity, client_id: id.as_str() })
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

/// Tells whose client one is. Only a genuine mark counts.
pub fn standing(
    keys: &KeyRing,
    identity: &str,
    id: &ClientId,
    owner: Option<&Owner>,
    seen: &Observed,
) -> Standing {
    let Some(owner) = owner else { return Standing::Foreign };
    let at = OwnerMark { provider: identity, client_id: id.as_str() };
    if !owner.is_of(keys.installation()) || !owner.is_genuine(keys, at) {
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
