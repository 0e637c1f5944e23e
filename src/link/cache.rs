//! What the watches saw last. Several sources (one a watched namespace) may fill one cache.

use crate::domain::keyring::digest_hex;
use futures::{Stream, TryStreamExt as _};
use kube::ResourceExt;
use kube::runtime::watcher::{self, Event};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of<K: ResourceExt>(object: &K) -> Self {
        Self { namespace: object.namespace().unwrap_or_default(), name: object.name_any() }
    }

    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// A change that a watch saw.
pub enum Change<'a, K> {
    /// There now; with what was there before.
    Now(&'a Arc<K>, Option<Arc<K>>),
    /// Gone.
    Gone(Arc<K>),
    /// The source is complete, for the first time or again.
    Synced,
}

/// What begins the names of our own annotations and labels.
const OWN: &str = "applink-operator.io/";
/// Where the digest of all other annotations stands.
const OTHERS: &str = "applink-operator.io/others";
/// So much of our own annotations is kept, in bytes; ten times what we write.
const ROOM: usize = 32 * 1024;

/// Takes from an object of ours what nobody reads: anybody may hang 256 KiB of annotations, and more
/// of labels, on each of his objects, and all of them are in memory. That an annotation changed
/// can still be seen: of those that go, a digest stays.
pub fn slim<K: ResourceExt>(object: &mut K) {
    let meta = object.meta_mut();
    meta.managed_fields = None;
    meta.owner_references = None;
    meta.labels.iter_mut().for_each(|labels| labels.retain(|k, _| k.starts_with(OWN)));
    let Some(annotations) = meta.annotations.take() else { return };
    let mut room = ROOM;
    let mut others = String::new();
    let mut kept = BTreeMap::new();
    for (key, value) in annotations {
        let size = key.len() + value.len();
        if key.starts_with(OWN) && size <= room {
            room -= size;
            kept.insert(key, value);
        } else {
            others.extend([key.as_str(), "=", value.as_str(), "\n"]);
        }
    }
    if !others.is_empty() {
        kept.insert(OTHERS.to_owned(), digest_hex(&others));
    }
    meta.annotations = Some(kept);
}

/// Objects by key.
pub struct Cache<K> {
    map: RwLock<HashMap<Key, Arc<K>>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { map: RwLock::default() }
    }
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or_default()
}

impl<K: ResourceExt> Cache<K> {
    /// The object of a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.map.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in an object that a write of ours gave back, unless the watch was faster.
    pub fn learn(&self, object: K) {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = map.get_mut(&Key::of(&object))
            && known.uid() == object.uid()
            && version(known.as_ref()) < version(&object)
        {
            *known = Arc::new(object);
        }
    }

    /// Takes in what a watch saw. What a write of ours gave back may be newer.
    fn put(&self, object: Arc<K>) -> Option<Arc<K>> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let key = Key::of(object.as_ref());
        let known = map.get(&key).cloned();
        let newer = |k: &Arc<K>| k.uid() == object.uid() && version(k.as_ref()) > version(object.as_ref());
        if !known.as_ref().is_some_and(newer) {
            map.insert(key, object);
        }
        known
    }

    fn remove(&self, key: &Key) -> Option<Arc<K>> {
        self.map.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }

    /// Fills the cache from a watch of one namespace, or of all, and tells each change; for as long
    /// as the stream goes on.
    pub async fn follow(
        &self,
        namespace: Option<&str>,
        stream: impl Stream<Item = Result<Event<K>, watcher::Error>>,
        mut changed: impl FnMut(Change<'_, K>),
    ) {
        let mut stream = pin!(stream);
        let mut seen = HashSet::new();
        loop {
            match stream.try_next().await {
                Ok(Some(Event::Init)) => seen.clear(),
                Ok(Some(Event::InitApply(object))) => {
                    seen.insert(Key::of(&object));
                    self.now(object, &mut changed);
                }
                Ok(Some(Event::InitDone)) => {
                    let missing: Vec<Key> = {
                        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
                        let ours =
                            |k: &&Key| namespace.is_none_or(|n| n == k.namespace) && !seen.contains(*k);
                        map.keys().filter(ours).cloned().collect()
                    };
                    for key in missing {
                        self.remove(&key).into_iter().for_each(|o| changed(Change::Gone(o)));
                    }
                    seen = HashSet::new();
                    changed(Change::Synced);
                }
                Ok(Some(Event::Apply(object))) => self.now(object, &mut changed),
                Ok(Some(Event::Delete(object))) => {
                    self.remove(&Key::of(&object));
                    changed(Change::Gone(Arc::new(object)));
                }
                Ok(None) => return,
                // The watcher starts over by itself, with back-off.
                Err(e) => tracing::warn!(error = %Brief(&e), "a watch was interrupted"),
            }
        }
    }

    fn now(&self, object: K, changed: &mut impl FnMut(Change<'_, K>)) {
        let object = Arc::new(object);
        let before = self.put(object.clone());
        changed(Change::Now(&object, before));
    }
}

/// An error of the API server without the text that may quote an object.
pub struct Brief<'a>(pub &'a watcher::Error);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let brief = |e: &kube::Error| match e {
            kube::Error::Api(s) => format!("HTTP {} {}", s.code, s.reason),
            _ => "no answer".to_owned(),
        };
        match self.0 {
            watcher::Error::InitialListFailed(e) => write!(f, "list failed: {}", brief(e)),
            watcher::Error::WatchStartFailed(e) => write!(f, "watch failed: {}", brief(e)),
            watcher::Error::WatchError(s) => write!(f, "watch ended: HTTP {} {}", s.code, s.reason),
            watcher::Error::WatchFailed(e) => write!(f, "watch failed: {}", brief(e)),
            _ => f.write_str("watch failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApplicationLink;
    use serde_json::json;

    #[test]
    fn what_a_tenant_hangs_on_a_link_isn_t_kept_and_that_it_changed_is_seen() {
        let slimmed = |annotations: serde_json::Value| {
            let mut link: ApplicationLink = serde_json::from_value(json!({
                "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
                "metadata": {
                    "name": "ci", "annotations": annotations, "labels": {"team": "x".repeat(1000)},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}],
                },
                "spec": {"application": {"name": "a"}},
            }))
            .expect("a link");
            slim(&mut link);
            let once = serde_json::to_string(&link.metadata).expect("json");
            slim(&mut link);
            assert_eq!(once, serde_json::to_string(&link.metadata).expect("json"), "it can be repeated");
            link.metadata
        };
        let large = "x".repeat(200_000);
        let of = |foreign: &str| {
            slimmed(
                json!({"retry": foreign, "applink-operator.io/rotate": "1", "applink-operator.io/zz": large}),
            )
        };
        let kept = of(&large);
        assert_eq!(kept.annotations.as_ref().expect("some")["applink-operator.io/rotate"], "1");
        assert!(serde_json::to_string(&kept).expect("json").len() < 500, "{kept:?}");
        assert_eq!(kept.annotations, of(&large).annotations);
        assert_ne!(kept.annotations, of("another").annotations);
        assert_eq!(slimmed(json!({"applink-operator.io/rotate": "1"})).annotations.expect("some").len(), 1);
    }
}
