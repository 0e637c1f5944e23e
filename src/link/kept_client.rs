//! What is kept of a client in the operator's namespace, where the provider doesn't let us find it
//! out again: an identifier and a secret that it picked, what it wants to see at the next call, a
//! secret that was there before us. Pure values.

use super::grant::{Kept, LinkRef};
use super::identity::Identity;
use crate::domain::{ClientId, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clients of a link that something is kept of, by the provider's identity. Another object of the
/// platform team's for the same provider service has the same clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptClients {
    /// Whose they are.
    pub link: LinkRef,
    /// What is kept.
    pub at: BTreeMap<String, KeptClient>,
}

/// What is kept of one client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptClient {
    /// Its identifier at the provider.
    pub id: String,
    /// What the adapter wants back at the next call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Kept>,
    /// Its secret, where that can't be derived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Kept>,
    /// Serial of that secret.
    pub serial: i64,
    /// When it began, in seconds since 1970.
    pub since: i64,
    /// When the provider ends it by itself, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_expires_at: Option<i64>,
    /// The last rotation request that was carried out.
    #[serde(default)]
    pub request: String,
    /// Whether the key that it stands under is a provider's identity; before, it was type and address,
    /// which a tenant's provider may share with the platform team's.
    #[serde(default)]
    pub bound: bool,
}

impl KeptClients {
    /// Puts what a version before kept by type and address where it belongs. `of` are the identities of
    /// the providers that the link is known to have been at, the surest first: what is kept counts for
    /// the first with that type and address, and for no other.
    pub fn bind(&mut self, of: &[Identity]) {
        for service in self.unbound() {
            let Some(identity) = of.iter().find(|i| i.service == service) else { continue };
            let Some(mut kept) = self.at.remove(&service) else { continue };
            kept.bound = true;
            self.at.entry(identity.own.clone()).or_insert(kept);
        }
    }

    /// What is kept of the client at a provider, also by a version before, which may have meant another
    /// one of the same type and address.
    pub fn perhaps_at(&self, identity: &Identity) -> Option<(&String, &KeptClient)> {
        let before = || self.at.get_key_value(&identity.service).filter(|(_, kept)| !kept.bound);
        self.at.get_key_value(&identity.own).filter(|(_, kept)| kept.bound).or_else(before)
    }

    /// The types and addresses that a version before kept something under.
    pub fn unbound(&self) -> Vec<String> {
        self.at.iter().filter(|(_, kept)| !kept.bound).map(|(service, _)| service.clone()).collect()
    }
}

impl KeptClient {
    /// Its identifier.
    pub fn client_id(&self) -> Option<ClientId> {
        ClientId::parse(&self.id).ok()
    }

    /// Its secret, if that is the one of this serial.
    pub fn secret_of(&self, serial: i64) -> Option<&SecretString> {
        self.secret.as_ref().filter(|_| self.serial == serial).map(|k| &k.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::identity::Before;

    fn identity(own: &str) -> Identity {
        Identity { own: own.into(), service: "hydra|u".into(), before: Before::Ends, namesakes: Vec::new() }
    }

    #[test]
    fn what_was_kept_by_type_and_address_counts_for_one_provider() {
        let text = r#"{"link":{"namespace":"a","name":"n","uid":"u"},"at":{"hydra|u":{"id":"c","serial":1,"since":0}}}"#;
        let kept: KeptClients = serde_json::from_str(text).expect("a record of the version before");
        let bound = |of: &[Identity]| {
            let mut kept = kept.clone();
            kept.bind(of);
            kept.at.into_iter().filter(|(_, kept)| kept.bound).map(|(own, _)| own).collect::<Vec<_>>()
        };
        assert_eq!(bound(&[identity("ours"), identity("hydra|u")]), ["ours"]);
        assert_eq!(bound(&[identity("hydra|u"), identity("ours")]), ["hydra|u"]);
        let other = Identity { service: "hydra|v".into(), ..identity("other") };
        assert!(bound(&[other]).is_empty());
        // Once bound it stays.
        let mut bound = kept.clone();
        bound.bind(&[identity("hydra|u")]);
        bound.bind(&[identity("ours")]);
        assert_eq!(bound.at.into_keys().collect::<Vec<_>>(), ["hydra|u"]);
    }
}
