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
    /// When the secret of this serial began, in seconds since 1970; 0 where nobody knows.
    #[serde(default)]
    pub since: i64,
    /// Until when the secret before this one may work, in seconds since 1970; 0 where there is none.
    #[serde(default)]
    pub previous_until: i64,
    /// The last request to rotate that was carried out; empty where there was none.
    #[serde(default)]
    pub request: String,
    /// HMAC-SHA-256, base64url, over all the above and the provider and client.
    pub mark: String,
    /// What is to become of the client when its link is gone, as a mark over `mark` and the answer.
    /// `None` where a version wrote the record that said nothing of it, and where a provider service of
    /// such a version left it out: `mark` is genuine all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<String>,
}

/// What is to become of a client when its link is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It goes too.
    Delete,
    /// It stays.
    Retain,
}

impl Deletion {
    /// As the API has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "Delete",
            Self::Retain => "Retain",
        }
    }
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

    fn message(&self, version: Version, at: OwnerMark<'_>) -> Vec<u8> {
        let mut m = Vec::new();
        lp(&mut m, version.label());
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
        if version == Version::V2 {
            for part in [&self.since.to_string(), &self.previous_until.to_string(), &self.request] {
                lp(&mut m, part.as_bytes());
            }
        }
        m
    }

    /// Signs the record with the active key.
    #[must_use]
    pub fn signed(mut self, keys: &KeyRing, at: OwnerMark<'_>, deletion: Deletion) -> Self {
        self.mark = keys.mark(&self.message(Version::V2, at));
        self.deletion = Some(keys.fingerprint("deletion", &[&self.mark, deletion.as_str(), keys.home()]));
        self
    }

    /// What is to become of the client when its link is gone; `None` where the record doesn't say, or
    /// what it says isn't genuine, or was written in another cluster with a copy of the keys. Means
    /// nothing unless the record is genuine.
    pub fn deletion(&self, keys: &KeyRing) -> Option<Deletion> {
        let said = self.deletion.as_deref()?;
        let is = |d: Deletion| keys.is_fingerprint("deletion", &[&self.mark, d.as_str(), keys.home()], said);
        [Deletion::Delete, Deletion::Retain].into_iter().find(|d| is(*d))
    }

    /// Whether the mark is genuine: made with any key of the ring. Constant time.
    pub fn is_genuine(&self, keys: &KeyRing, at: OwnerMark<'_>) -> bool {
        self.key(keys, at).is_some()
    }

    /// The identifier of the key that the mark was made with, and with it the client's derived
    /// secret; `None` for a mark that isn't genuine.
    pub fn key<'k>(&self, keys: &'k KeyRing, at: OwnerMark<'_>) -> Option<&'k str> {
        let marked = |version| keys.marked_by(&self.message(version, at), &self.mark);
        marked(Version::V2).or_else(|| self.is_of_v1().then(|| marked(Version::V1)).flatten())
    }

    /// Whether the version before could have written it: it had none of the newer fields, so a
    /// mark of its is good only while they say nothing.
    fn is_of_v1(&self) -> bool {
        self.since == 0 && self.previous_until == 0 && self.request.is_empty()
    }
}

/// The forms of the message that a mark is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn label(self) -> &'static [u8] {
        match self {
            Self::V1 => b"applink owner v1",
            Self::V2 => b"applink owner v2",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MasterKey;

    const AT: OwnerMark<'_> = OwnerMark { provider: "bundled|https://p", client_id: "c" };

    fn keys() -> KeyRing {
        KeyRing::new(InstallationId::parse("inst-1").expect("id"), "k1", MasterKey::from_bytes([7; 32]))
    }

    fn owner() -> Owner {
        Owner {
            installation: "inst-1".into(),
            namespace: "a".into(),
            namespace_uid: "nu".into(),
            name: "n".into(),
            uid: "u".into(),
            serial: 1,
            since: 100,
            previous_until: 200,
            request: "r".into(),
            mark: String::new(),
            deletion: None,
        }
    }

    #[test]
    fn a_changed_field_breaks_the_mark() {
        let keys = keys();
        let owner = owner().signed(&keys, AT, Deletion::Delete);
        assert!(owner.is_genuine(&keys, AT));
        for changed in [
            Owner { namespace: "b".into(), ..owner.clone() },
            Owner { serial: 2, ..owner.clone() },
            Owner { since: 101, ..owner.clone() },
            Owner { since: 0, ..owner.clone() },
            Owner { previous_until: 201, ..owner.clone() },
            Owner { request: "s".into(), ..owner.clone() },
            Owner { since: 0, previous_until: 0, request: String::new(), ..owner.clone() },
            Owner { mark: "!".into(), ..owner.clone() },
        ] {
            assert!(!changed.is_genuine(&keys, AT), "{changed:?}");
        }
        assert!(!owner.is_genuine(&keys, OwnerMark { client_id: "d", ..AT }));
    }

    #[test]
    fn a_record_of_the_version_before_is_good_as_it_was_written() {
        let keys = keys();
        let text = r#"{"installation":"inst-1","namespace":"a","namespaceUid":"nu","name":"n","uid":"u","serial":1,"mark":""}"#;
        let mut old: Owner = serde_json::from_str(text).expect("a record");
        assert_eq!((old.since, old.previous_until, old.request.as_str()), (0, 0, ""));
        old.mark = keys.mark(&old.message(Version::V1, AT));
        // What the version before put out for this record and key, computed apart from this code.
        assert_eq!(old.mark, "XhWtlYvf32emAEV3CwjiY8R2hgbwe5JysnArL53qw_M");
        assert!(old.is_genuine(&keys, AT));
        for changed in [
            Owner { since: 1, ..old.clone() },
            Owner { previous_until: 1, ..old.clone() },
            Owner { request: "r".into(), ..old.clone() },
            Owner { serial: 2, ..old.clone() },
        ] {
            assert!(!changed.is_genuine(&keys, AT), "{changed:?}");
        }
    }

    #[test]
    fn what_is_to_become_of_the_client_is_said_by_us_and_may_be_left_out() {
        let keys = keys();
        let of = |deletion| owner().signed(&keys, AT, deletion);
        for deletion in [Deletion::Delete, Deletion::Retain] {
            assert_eq!(of(deletion).deletion(&keys), Some(deletion));
        }
        let retained = of(Deletion::Retain);
        assert_eq!(retained.deletion(&keys.clone().at_home("elsewhere")), None);
        let left_out = Owner { deletion: None, ..retained.clone() };
        assert!(left_out.is_genuine(&keys, AT) && left_out.deletion(&keys).is_none());
        let other = Owner { serial: 9, ..owner() }.signed(&keys, AT, Deletion::Retain);
        for forged in [other.deletion.clone(), Some("!".into()), Some(retained.mark.clone())] {
            assert_eq!(Owner { deletion: forged, ..retained.clone() }.deletion(&keys), None);
        }
    }
}
