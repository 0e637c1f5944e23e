//! Secrets as the watches see them, and our own of them: found by key, and by the link that they belong to.

use super::cache::Key;
use super::facts::SecretId;
use crate::api::names;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::fmt;

/// All that is decoded of a Secret's metadata. The rest may be a megabyte that somebody hung there, and
/// is skipped. Where its value may be sent isn't decided by this but by the Secret as it is read with the
/// value, so that both are of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SeenSecret {
    metadata: SeenMeta,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SeenMeta {
    name: String,
    namespace: String,
    uid: String,
    resource_version: Option<String>,
    #[serde(rename = "labels", deserialize_with = "is_marked")]
    ours: bool,
    #[serde(rename = "ownerReferences", deserialize_with = "our_owners")]
    owners: Vec<String>,
}

impl SeenSecret {
    /// Namespace and name.
    pub fn key(&self) -> Key {
        Key::new(self.metadata.namespace.as_str(), self.metadata.name.as_str())
    }

    /// Its version.
    pub fn version(&self) -> Option<String> {
        self.metadata.resource_version.clone()
    }

    /// What is remembered of it, if it has our mark.
    pub fn ours(&self) -> Option<OwnMeta> {
        let SeenMeta { uid, owners, ours, .. } = &self.metadata;
        ours.then(|| OwnMeta { uid: uid.clone(), owners: owners.clone() })
    }
}

/// Whether our label is among these.
fn is_marked<'de, D: Deserializer<'de>>(labels: D) -> Result<bool, D::Error> {
    struct Labels;
    impl<'de> Visitor<'de> for Labels {
        type Value = bool;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("labels")
        }
        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(false)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut labels: A) -> Result<bool, A::Error> {
            let mut ours = false;
            while let Some(key) = labels.next_key::<String>()? {
                if key == names::MANAGED_BY {
                    ours = labels.next_value::<String>()? == names::MANAGED_BY_VALUE;
                } else {
                    labels.next_value::<IgnoredAny>()?;
                }
            }
            Ok(ours)
        }
    }
    labels.deserialize_any(Labels)
}

/// So many owners of a Secret are kept; we write one.
const MOST_OWNERS: usize = 16;

/// The UIDs of the owners that are of our kinds: others' are nobody's business, and there may be thousands.
fn our_owners<'de, D: Deserializer<'de>>(owners: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Owner {
        api_version: String,
        uid: String,
    }
    struct Owners;
    impl<'de> Visitor<'de> for Owners {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("owner references")
        }
        fn visit_unit<E>(self) -> Result<Vec<String>, E> {
            Ok(Vec::new())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut owners: A) -> Result<Vec<String>, A::Error> {
            let mut ours = Vec::new();
            while let Some(owner) = owners.next_element::<Owner>()? {
                let (group, _) = owner.api_version.split_once('/').unwrap_or_default();
                if group == names::GROUP && ours.len() < MOST_OWNERS {
                    ours.push(owner.uid);
                }
            }
            Ok(ours)
        }
    }
    owners.deserialize_any(Owners)
}

/// What is known of a Secret of ours without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMeta {
    /// Its UID.
    pub uid: String,
    /// UIDs of the links or the provider that it belongs to.
    pub owners: Vec<String>,
}

/// Our own Secrets. A pass asks for those of its link, so that must not take longer the more
/// links there are.
#[derive(Debug, Default)]
pub struct OwnSecrets {
    by_key: HashMap<Key, OwnMeta>,
    by_owner: HashMap<String, Vec<Key>>,
}

impl OwnSecrets {
    /// Whether one is there.
    pub fn contains(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    /// The keys of all.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    /// Takes one in, as it is now.
    pub fn insert(&mut self, key: Key, meta: OwnMeta) {
        if self.by_key.get(&key) == Some(&meta) {
            return;
        }
        self.remove(&key);
        for owner in &meta.owners {
            self.by_owner.entry(owner.clone()).or_default().push(key.clone());
        }
        self.by_key.insert(key, meta);
    }

    /// Forgets one.
    pub fn remove(&mut self, key: &Key) {
        let Some(meta) = self.by_key.remove(key) else { return };
        for owner in meta.owners {
            if let Some(keys) = self.by_owner.get_mut(&owner) {
                keys.retain(|k| k != key);
                if keys.is_empty() {
                    self.by_owner.remove(&owner);
                }
            }
        }
    }

    /// Forgets all but these.
    pub fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let gone: Vec<Key> = self.by_key.keys().filter(|k| !keep(k)).cloned().collect();
        gone.iter().for_each(|k| self.remove(k));
    }

    /// Those of an owner in a namespace.
    pub fn of(&self, namespace: &str, owner: &str) -> Vec<SecretId> {
        let keys = self.by_owner.get(owner).into_iter().flatten().filter(|k| k.namespace == namespace);
        keys.filter_map(|k| Some(SecretId { name: k.name.clone(), uid: self.by_key.get(k)?.uid.clone() }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_secret_only_what_is_needed_is_decoded() {
        let large = "x".repeat(10_000);
        let owner = |api: &str, uid: &str| json!({"apiVersion": api, "kind": "A", "name": "a", "uid": uid});
        let many = (0..100).map(|i| owner("applink-operator.io/v1alpha1", &format!("u{i}")));
        let seen = |metadata: serde_json::Value| {
            let text = json!({"kind": "PartialObjectMetadata", "metadata": metadata, "data": {"a": large}});
            serde_json::from_str::<SeenSecret>(&text.to_string()).expect("a Secret")
        };
        let plain = seen(json!({
            "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "annotations": {"a": large},
            "labels": {"a\"b": large}, "managedFields": [{"fieldsV1": {"f:a": {}}}], "finalizers": [large],
        }));
        assert_eq!((plain.key(), plain.version().as_deref()), (Key::new("n", "a"), Some("7")));
        assert_eq!(plain.ours(), None);
        assert!(format!("{plain:?}").len() < 200, "{plain:?}");
        let labels = json!({"app.kubernetes.io/managed-by": "applink-operator", "z": large});
        let owners = json!([owner("apps/v1", "no"), owner("applink-operator.io/v1alpha1", "yes")]);
        let ours = seen(json!({"name": "a", "uid": "u", "labels": labels, "ownerReferences": owners}));
        assert_eq!(ours.ours(), Some(OwnMeta { uid: "u".into(), owners: vec!["yes".into()] }));
        let many: Vec<_> = many.collect();
        let crowd = seen(json!({"name": "a", "uid": "u", "labels": labels, "ownerReferences": many}));
        assert_eq!(crowd.ours().expect("ours").owners.len(), MOST_OWNERS);
        let bare = seen(json!({"name": "a", "labels": null, "ownerReferences": null}));
        assert_eq!((bare.ours(), bare.key()), (None, Key::new("", "a")));
        let other = json!({"app.kubernetes.io/managed-by": "Helm"});
        assert_eq!(seen(json!({"name": "a", "labels": other})).ours(), None);
    }

    #[test]
    fn the_secrets_of_a_link_are_found_and_forgotten() {
        let mut own = OwnSecrets::default();
        let meta = |uid: &str, owners: &[&str]| OwnMeta {
            uid: uid.into(),
            owners: owners.iter().map(|o| (*o).to_owned()).collect(),
        };
        let names = |own: &OwnSecrets, namespace: &str, owner: &str| -> Vec<String> {
            own.of(namespace, owner).into_iter().map(|s| format!("{}={}", s.name, s.uid)).collect()
        };
        own.insert(Key::new("a", "x"), meta("1", &["l", "m"]));
        own.insert(Key::new("a", "y"), meta("2", &["l"]));
        own.insert(Key::new("b", "x"), meta("3", &["l"]));
        assert_eq!(names(&own, "a", "l"), ["x=1", "y=2"]);
        assert_eq!(names(&own, "a", "m"), ["x=1"]);
        assert!(names(&own, "b", "m").is_empty());
        // The same name, another Secret with another owner.
        own.insert(Key::new("a", "x"), meta("4", &["n"]));
        assert_eq!(names(&own, "a", "l"), ["y=2"]);
        assert_eq!(names(&own, "a", "n"), ["x=4"]);
        own.retain(|k| k.namespace == "b");
        assert_eq!(own.keys().collect::<Vec<_>>(), [&Key::new("b", "x")]);
        own.remove(&Key::new("b", "x"));
        assert!(own.by_key.is_empty() && own.by_owner.is_empty());
    }
}
