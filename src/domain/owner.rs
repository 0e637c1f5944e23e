//! Whose client it is: the record that stands at the provider beside each client we made.

use super::keyring::{InstallationId, KeyRing, lp};
use serde::{Deserialize, Serialize};

/// The owner of a client, as it is kept at the provider. Nothing in it is secret; the mark
/// proves that it was written by the holder of the installation's master key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The installation that made the client.
    pub installation: String,
    /// Namespace of the link.
    pub namespace: String,
    /// UID of that namespace, so that a namespace made anew under an old name inherits nothing.
    pub namespace_uid: String,
    /// Name of the link.
    pub name: String,
    /// UID of the link.
    pub uid: String,
    /// Serial of the secret that the client has now.
    pub serial: i64,
    /// HMAC-SHA-256, base64url, over all the above and the provider and client.
    pub mark: String,
}

/// What a mark is computed over, beside the owner's own fields.
#[derive(Debug, Clone, Copy)]
pub struct OwnerMark<'a> {
    /// The provider's identity: type and issuer.
    pub provider: &'a str,
    /// The client's identifier.
    pub client_id: &'a str,
}

impl Owner {
    /// Whether this installation says that it made the client.
    pub fn is_of(&self, installation: &InstallationId) -> bool {
        self.installation == installation.as_str()
    }

    fn message(&self, at: OwnerMark<'_>) -> Vec<u8> {
        let mut m = Vec::new();
        lp(&mut m, b"applink owner v1");
        for part in [
            self.installation.as_str(),
            at.provider,
            at.client_id,
            &self.namespace,
            &self.namespace_uid,
            &self.name,
            &self.uid,
            &self.serial.to_string(),
        ] {
            lp(&mut m, part.as_bytes());
        }
        m
    }

    /// Signs the record with the active key.
    #[must_use]
    pub fn signed(mut self, keys: &KeyRing, at: OwnerMark<'_>) -> Self {
        self.mark = keys.mark(&self.message(at));
        self
    }

    /// Whether the mark is genuine: made with any key of the ring. Constant time.
    pub fn is_genuine(&self, keys: &KeyRing, at: OwnerMark<'_>) -> bool {
        keys.check_mark(&self.message(at), &self.mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MasterKey;

    #[test]
    fn a_changed_field_breaks_the_mark() {
        let keys =
            KeyRing::new(InstallationId::parse("inst-1").expect("id"), "k1", MasterKey::from_bytes([7; 32]));
        let at = OwnerMark { provider: "bundled|https://p", client_id: "c" };
        let owner = Owner {
            installation: "inst-1".into(),
            namespace: "a".into(),
            namespace_uid: "nu".into(),
            name: "n".into(),
            uid: "u".into(),
            serial: 1,
            mark: String::new(),
        }
        .signed(&keys, at);
        assert!(owner.is_genuine(&keys, at));
        assert!(!Owner { namespace: "b".into(), ..owner.clone() }.is_genuine(&keys, at));
        assert!(!Owner { serial: 2, ..owner.clone() }.is_genuine(&keys, at));
        assert!(!owner.is_genuine(&keys, OwnerMark { client_id: "d", ..at }));
        assert!(!Owner { mark: "!".into(), ..owner }.is_genuine(&keys, at));
    }
}
