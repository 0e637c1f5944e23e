//! What is kept of a client in the operator's namespace, where the provider doesn't let us find it
//! out again: an identifier and a secret that it picked, what it wants to see at the next call, a
//! secret that was there before us. Pure values.

use super::grant::{Kept, LinkRef};
use crate::domain::{ClientId, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The clients of a link that something is kept of, by the provider's identity (type and issuer):
/// another object for the same provider service has the same clients.
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
