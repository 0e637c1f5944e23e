//! Looks for clients of this installation whose link is gone without unregistering them, at the providers
//! that list their clients and keep owner records. They are said by an event and a metric, and unregistered
//! after a while, within the bounds that [`crate::link::orphans`] sets.

use crate::api::ApplicationLink;
use crate::api::link::ProviderKind;
use crate::domain::{ClientId, Deletion, KeyRing, Owner};
use crate::link::cache::Key;
use crate::link::connections::Connected;
use crate::link::context::Context;
use crate::link::derive;
use crate::link::identity::Identity;
use crate::link::metrics::ByProvider;
use crate::link::observe::connection;
use crate::link::orphans::{Ledger, Orphan};
use crate::link::problem::Problem;
use crate::link::providers::{ProviderView, full_name};
use crate::provider::{ClientRef, RegisteredClient};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// How long one provider may take to list its clients.
const LISTING: Duration = Duration::from_secs(300);
/// More clients of one provider aren't looked at.
const MOST: usize = 200_000;
/// So many events at one look; the metric counts all.
const EVENTS: usize = 20;

/// What is looked after.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long an orphan stays; `None`: until a person removes it.
    pub unregister_after: Option<Duration>,
    /// The namespaces that are watched; empty for all.
    pub watched: Vec<String>,
}

/// What a look at one provider found.
struct Look {
    orphans: Vec<Orphan>,
    /// Clients of this installation.
    ours: usize,
}

/// Counts none, before the first look.
pub fn begin(ctx: &Context) {
    count(ctx, &ctx.providers(), &BTreeMap::new());
}

/// Looks once at all providers.
pub async fn look(ctx: &Context, rules: &Rules) {
    let Ok(keys) = ctx.installation.keys() else { return };
    let (mut ledger, version) = match ctx.store.orphans().await {
        Ok(Some((ledger, version))) => (ledger, Some(version)),
        Ok(None) => (Ledger::default(), None),
        Err(p) => return tracing::warn!(reason = p.reason, "what is known of orphans can't be read"),
    };
    let before = ledger.clone();
    let views = ctx.providers();
    let now = Timestamp::now().as_second();
    let mut found = BTreeMap::new();
    for view in &views {
        if view.namespace.as_ref().is_some_and(|n| !is_watched(rules, n)) {
            continue;
        }
        let looked = timeout(LISTING, at_provider(ctx, &keys, rules, view, &views)).await;
        match looked.unwrap_or_else(|_| Err(Problem::wait("ProviderUnreachable", "listing took too long"))) {
            Ok(Some(look)) => {
                let fresh: Vec<Orphan> =
                    ledger.found(&view.claim.uid, &look.orphans, now).into_iter().cloned().collect();
                for orphan in fresh.iter().take(EVENTS) {
                    tell(ctx, view, orphan, "OrphanFound", &said(view, orphan, rules)).await;
                }
                found.insert(view.claim.uid.clone(), look);
            }
            Ok(None) => {}
            // What is known stays known.
            Err(p) => {
                tracing::debug!(provider = %full_name(view), reason = p.reason, "not looked at for orphans")
            }
        }
    }
    let there: BTreeSet<&str> = views.iter().map(|v| v.claim.uid.as_str()).collect();
    ledger.seen.retain(|uid, _| there.contains(uid.as_str()));
    count(ctx, &views, &found);
    let Some(after) = rules.unregister_after else {
        return keep(ctx, &before, &ledger, version.as_deref()).await.map_or((), drop);
    };
    let clients = found.values().map(|l| l.ours).sum();
    let mut due = Vec::new();
    for view in &views {
        let Some(look) = found.get(&view.claim.uid) else { continue };
        let after = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        due.extend(
            ledger.due(&view.claim.uid, &look.orphans, after, now).into_iter().map(|o| (view, o.clone())),
        );
    }
    due.truncate(ledger.room(clients, now));
    // Counted before it is done: a run that dies unregisters fewer, and never more.
    ledger.removed.extend(due.iter().map(|_| now));
    if keep(ctx, &before, &ledger, version.as_deref()).await.is_err() {
        return;
    }
    for (view, orphan) in due {
        match unregister(ctx, &keys, view, &views, &orphan).await {
            Ok(false) => {}
            Ok(true) => {
                ctx.metrics.orphans_unregistered.inc();
                let text = format!(
                    "client {} of link {}/{}, which is gone, was unregistered at {}",
                    orphan.id,
                    orphan.namespace,
                    orphan.name,
                    full_name(view)
                );
                tell(ctx, view, &orphan, "OrphanUnregistered", &text).await;
            }
            Err(p) => tracing::warn!(
                provider = %full_name(view), client = %orphan.id, reason = p.reason, "an orphan can't be unregistered"
            ),
        }
    }
}

fn is_watched(rules: &Rules, namespace: &str) -> bool {
    rules.watched.is_empty() || rules.watched.iter().any(|n| n == namespace)
}

/// The connection to a provider that lists its clients and keeps owner records.
async fn listing(
    ctx: &Context,
    view: &ProviderView,
    all: &[ProviderView],
) -> Result<Option<(std::sync::Arc<Connected>, Identity)>, Problem> {
    let connected = connection(ctx, view).await?;
    let caps = connected.provider.capabilities();
    let identity = view.identity(connected.recorded_before, all);
    Ok(identity.filter(|_| caps.lists && caps.tells_owner).map(|identity| (connected, identity)))
}

async fn at_provider(
    ctx: &Context,
    keys: &KeyRing,
    rules: &Rules,
    view: &ProviderView,
    all: &[ProviderView],
) -> Result<Option<Look>, Problem> {
    let Some((connected, identity)) = listing(ctx, view, all).await? else { return Ok(None) };
    let (mut look, mut seen) = (Look { orphans: Vec::new(), ours: 0 }, 0);
    let mut ids = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = connected.provider.list(after.as_deref()).await.map_err(|e| Problem::from(&e))?;
        seen += page.clients.len().max(1);
        for client in page.clients {
            let Some(owner) = owner_of(keys, &identity, &client) else { continue };
            if !ids.insert(client.id.clone()) || !is_watched(rules, &owner.namespace) {
                continue;
            }
            look.ours += 1;
            if let Some(orphan) = orphan(ctx, keys, &client, owner).await? {
                look.orphans.push(orphan);
            }
        }
        match page.next.filter(|_| seen < MOST) {
            Some(next) => after = Some(next),
            None => return Ok(Some(look)),
        }
    }
}

/// The owner record of a client of this installation.
fn owner_of<'c>(keys: &KeyRing, identity: &Identity, client: &'c RegisteredClient) -> Option<&'c Owner> {
    let owner = client.owner.as_ref().filter(|o| !client.protected && o.is_of(keys.installation()))?;
    derive::marked(keys, &identity.names(), &client.id, owner).map(|_| owner)
}

/// The client as an orphan, if it is one: no link has its namespace and name, and it wasn't to stay. One
/// whose link was made anew is that link's to take over.
async fn orphan(
    ctx: &Context,
    keys: &KeyRing,
    client: &RegisteredClient,
    owner: &Owner,
) -> Result<Option<Orphan>, Problem> {
    let key = Key::new(owner.namespace.as_str(), owner.name.as_str());
    let deletion = owner.deletion(keys);
    if deletion == Some(Deletion::Retain) || ctx.links.get(&key).is_some() || is_there(ctx, &key).await? {
        return Ok(None);
    }
    Ok(Some(Orphan {
        id: client.id.to_string(),
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        goes: deletion == Some(Deletion::Delete),
    }))
}

/// Whether a link of this name is there, asked of the API server itself.
async fn is_there(ctx: &Context, key: &Key) -> Result<bool, Problem> {
    let api: Api<ApplicationLink> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let found = api.get_metadata_opt(&key.name).await.map_err(|e| Problem::kube("the link", &e))?;
    Ok(found.is_some())
}

/// Unregisters one, after all that makes it an orphan was read again. Says whether it did.
async fn unregister(
    ctx: &Context,
    keys: &KeyRing,
    view: &ProviderView,
    all: &[ProviderView],
    orphan: &Orphan,
) -> Result<bool, Problem> {
    let (Some((connected, identity)), Ok(id)) = (listing(ctx, view, all).await?, ClientId::parse(&orphan.id))
    else {
        return Ok(false);
    };
    let at = ClientRef { id, handle: None };
    let client = connected.provider.get(&at).await.map_err(|e| Problem::from(&e))?;
    let Some(client) = client else { return Ok(false) };
    let same = owner_of(keys, &identity, &client)
        .is_some_and(|o| o.uid == orphan.uid && o.deletion(keys) == Some(Deletion::Delete));
    let key = Key::new(orphan.namespace.as_str(), orphan.name.as_str());
    if !same || is_there(ctx, &key).await? {
        return Ok(false);
    }
    connected.provider.delete(&at, client.version.as_deref()).await.map_err(|e| Problem::from(&e))?;
    tracing::info!(client = %orphan.id, namespace = %orphan.namespace, link = %orphan.name, "unregistered an orphan");
    Ok(true)
}

/// Writes the ledger where it isn't as it was.
async fn keep(ctx: &Context, before: &Ledger, ledger: &Ledger, version: Option<&str>) -> Result<(), Problem> {
    if before == ledger {
        return Ok(());
    }
    let done = ctx.store.keep_orphans(ledger, version).await;
    if let Err(p) = &done {
        tracing::warn!(reason = p.reason, "what is known of orphans can't be written");
    }
    done.map(drop)
}

fn count(ctx: &Context, views: &[ProviderView], found: &BTreeMap<String, Look>) {
    ctx.metrics.orphans.clear();
    for view in views {
        let number = found.get(&view.claim.uid).map_or(0, |l| l.orphans.len());
        // Of tenants' providers those that have some: whoever makes providers makes no series.
        if number > 0 || view.namespace.is_none() {
            let by = ByProvider {
                kind: view.claim.kind.as_str(),
                namespace: view.namespace.clone().unwrap_or_default(),
                name: view.claim.name.clone(),
            };
            ctx.metrics.orphans.get_or_create(&by).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
}

fn said(view: &ProviderView, orphan: &Orphan, rules: &Rules) -> String {
    let kind = match view.claim.kind {
        ProviderKind::ClusterLinkProvider => String::new(),
        ProviderKind::LinkProvider => {
            format!(" --kind LinkProvider -n {}", view.namespace.as_deref().unwrap_or_default())
        }
    };
    let until = match rules.unregister_after.filter(|_| orphan.goes) {
        Some(after) => format!(
            "it is unregistered in {} s, unless a link of this name is there by then",
            after.as_secs()
        ),
        None => "it stays until somebody removes it".to_owned(),
    };
    format!(
        "link {}/{} is gone and its client {} is still at {}, where its secret works; {until}: applink orphans --provider \
         {}{kind} --delete {}",
        orphan.namespace,
        orphan.name,
        orphan.id,
        full_name(view),
        view.claim.name,
        orphan.id
    )
}

/// An event about the link that is gone.
async fn tell(ctx: &Context, view: &ProviderView, orphan: &Orphan, reason: &str, text: &str) {
    tracing::warn!(provider = %full_name(view), client = %orphan.id, reason, "orphan");
    let link = ObjectReference {
        api_version: Some(ApplicationLink::api_version(&()).into_owned()),
        kind: Some(ApplicationLink::kind(&()).into_owned()),
        namespace: Some(orphan.namespace.clone()),
        name: Some(orphan.name.clone()),
        uid: Some(orphan.uid.clone()),
        ..ObjectReference::default()
    };
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(text.chars().take(1000).collect()),
        action: "Look".to_owned(),
        secondary: None,
    };
    if let Err(e) = ctx.recorder.publish(&event, &link).await {
        tracing::debug!(reason = Problem::kube("the event", &e).reason, "the event wasn't taken");
    }
}
