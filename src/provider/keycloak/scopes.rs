//! The client scopes of a realm.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The scope that makes a request one of OpenID Connect. Every client has it.
pub(super) const OPENID: &str = "openid";

/// A client scope as Keycloak tells it.
#[derive(Deserialize)]
pub(super) struct Told {
    id: String,
    name: String,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Option<String>>,
}

impl Told {
    fn is_of_oauth(&self) -> bool {
        self.protocol.as_deref() == Some("openid-connect")
    }

    /// Whether it is a scope in the sense of OAuth, which a client asks for and a token names.
    /// Keycloak has others too, which only carry claims: `basic`, `roles`, `acr`.
    fn is_named_in_tokens(&self) -> bool {
        !matches!(self.attributes.get("include.in.token.scope"), Some(Some(value)) if value == "false")
    }
}

/// The same in a list that tells no more: the realm's for new clients.
#[derive(Deserialize)]
pub(super) struct Named {
    name: String,
}

/// The client scopes of a realm, as they were told.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// Those that a client can ask for, and their keys.
    offered: BTreeMap<String, String>,
    /// Those that only carry claims, and those of SAML.
    claims: BTreeSet<String>,
    /// Those of them that each new client gets.
    given: Vec<String>,
}

impl Scopes {
    /// From all of a realm, and those that it gives to each new client.
    pub(super) fn new(all: Vec<Told>, given: &[Named]) -> Self {
        let mut scopes = Self::default();
        for told in all {
            let (oauth, named) = (told.is_of_oauth(), told.is_named_in_tokens());
            if oauth && named {
                scopes.offered.insert(told.name, told.id);
            } else {
                if oauth && given.iter().any(|g| g.name == told.name) {
                    scopes.given.push(told.name.clone());
                }
                scopes.claims.insert(told.name);
            }
        }
        scopes
    }

    /// What clients can ask for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.offered.keys().map(String::as_str).chain([OPENID])
    }

    /// Whether the realm has it.
    pub(super) fn knows(&self, name: &str) -> bool {
        name == OPENID || self.offered.contains_key(name) || self.claims.contains(name)
    }

    /// Whether a client can ask for it.
    pub(super) fn offers(&self, name: &str) -> bool {
        name == OPENID || self.offered.contains_key(name)
    }

    /// The key of a scope that a client can ask for.
    pub(super) fn id(&self, name: &str) -> Option<&str> {
        self.offered.get(name).map(String::as_str)
    }

    /// Whether it is none that a client asks for.
    pub(super) fn only_carries_claims(&self, name: &str) -> bool {
        self.claims.contains(name)
    }

    /// The claims that each new client gets.
    pub(super) fn given(&self) -> &[String] {
        &self.given
    }
}
