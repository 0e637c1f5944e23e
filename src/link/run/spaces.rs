//! What changes of namespaces: a label may open a provider to the links there, or close it.

use super::feed::{Kind, feed};
use super::wires::Wires;
use crate::domain::keyring::digest_hex;
use crate::link::cache::{Brief, Key};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Resource as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::Event;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// All that is decoded of a namespace.
#[derive(Debug, Clone, Default, Deserialize)]
struct Seen {
    metadata: Meta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    uid: String,
    resource_version: Option<String>,
    labels: BTreeMap<String, String>,
}

impl Seen {
    /// What a provider may ask of it.
    fn digest(&self) -> String {
        let labels: String = self.metadata.labels.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
        digest_hex(&format!("{}\n{labels}", self.metadata.uid))
    }
}

/// Follows the namespaces. An operator that may not watch them notices a label late, as it did before it had that
/// right: nothing waits for this watch.
pub(super) async fn follow(wires: Arc<Wires>) {
    let kind = Kind {
        path: Namespace::url_path(&(), None),
        metadata_only: true,
        version: |seen: &Seen| seen.metadata.resource_version.clone(),
    };
    let mut known: HashMap<String, String> = HashMap::new();
    let mut stream = std::pin::pin!(feed(wires.ctx.client.clone(), kind).default_backoff());
    let mut told = false;
    let mut seen_again: HashSet<String> = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::InitApply(seen)) => {
                seen_again.insert(seen.metadata.name.clone());
                now(&wires, &mut known, seen);
            }
            Ok(Event::Apply(seen)) => now(&wires, &mut known, seen),
            Ok(Event::Delete(seen)) => {
                known.remove(&seen.metadata.name);
            }
            Ok(Event::Init) => seen_again.clear(),
            Ok(Event::InitDone) => {
                told = false;
                known.retain(|name, _| seen_again.contains(name));
                seen_again = HashSet::new();
            }
            Err(e) if !std::mem::replace(&mut told, true) => {
                tracing::warn!(error = %Brief(&e), "the watch of namespaces was interrupted; labels are noticed late meanwhile");
            }
            Err(_) => {}
        }
    }
}

/// Takes in a namespace as it is now.
fn now(wires: &Wires, known: &mut HashMap<String, String>, seen: Seen) {
    let (digest, name) = (seen.digest(), seen.metadata.name);
    let before = known.insert(name.clone(), digest.clone());
    if before.is_some_and(|before| before != digest) {
        changed(wires, &name);
    }
}

/// Which providers the links there may use may be others now.
fn changed(wires: &Wires, namespace: &str) {
    wires.ctx.namespaces.forget(namespace);
    for link in wires.ctx.links.all() {
        let key = Key::of(link.as_ref());
        if key.namespace == namespace && link.spec.incoming.is_some() {
            wires.link(key);
        }
    }
}
