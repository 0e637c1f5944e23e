//! Our own Secrets as the watches saw them: found by key, and by the link that they belong to.

use super::cache::Key;
use super::facts::SecretId;
use std::collections::HashMap;

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
