//! Looks for clients of this installation whose link is gone without unregistering them, at the providers
//! that list their clients and keep owner records. They are said by an event and a metric, and unregistered
//! after a while, within the bounds that [`crate::link::orphans`] sets.

use crate::api::ApplicationLink;
use crate::api::link::ProviderKind;
use crate::domain::{ClientId, Deletion, KeyRing, Owner, Reason};
use crate::link::cache::Key;
use crate::link::claim;
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
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _, ResourceExt as _};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::timeout;

/// How long one provider may take to list its clients.
const LISTING: Duration = Duration::from_secs(120);
/// So many of the tenants' providers are asked at once, after those of the platform team.
const AT_ONCE: usize = 8;
/// More clients of one provider aren't looked at.
const MOST: usize = 200_000;
/// So many events at one look; the metric counts all.
const EVENTS: usize = 20;

/// What is looked after.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long an orphan stays; `None`: until a person removes it.
    pub unregister_after: Option<Duration>,
    /// How often is looked.
    pub every: Duration,
    /// The namespaces that are watched; empty for all.
    pub watched: Vec<String>,
}

/// What a look at one provider found.
struct Look {
    orphans: Vec<Orphan>,
    /// Clients of this installation.
    ours: usize,
}

/// What is remembered from one look to the next. What the platform team's providers have is kept; what a
/// namespace's have is remembered by this process alone, and for each namespace apart, so that no tenant
/// fills what belongs to others.
#[derive(Default)]
pub struct Memory {
    tenants: BTreeMap<String, Ledger>,
    /// What was unregistered: a server that shows it again isn't asked again.
    done: BTreeSet<(String, String)>,
}

/// Looks once at all providers.
pub async fn look(ctx: &Context, rules: &Rules, memory: &mut Memory) {
    let Ok(keys) = ctx.installation.keys() else { return };
    let views = ctx.providers();
    let (cluster, tenants): (Vec<_>, Vec<_>) = views.iter().partition(|v| v.namespace.is_none());
    let (mut ledger, version) = match ctx.store.orphans().await {
        Ok(Some((ledger, version))) => (ledger, Some(version)),
        Ok(None) => (Ledger::default(), None),
        Err(p) => return tracing::warn!(reason = p.reason, "what is known of orphans can't be read"),
    };
    let before = ledger.clone();
    ledger.retain(|uid| cluster.iter().any(|v| v.claim.uid == uid));
    let looked = at_all(ctx, &keys, rules, &cluster).await;
    let due = take_in(ctx, rules, &mut ledger, &looked, memory).await;
    // Counted before it is done: a run that dies unregisters fewer, and never more.
    if before != ledger
        && let Err(p) = ctx.store.keep_orphans(&ledger, version.as_deref()).await
    {
        return tracing::warn!(reason = p.reason, "what is known of orphans can't be written");
    }
    unregister_all(ctx, &keys, &due, memory).await;

    let watched: Vec<&ProviderView> =
        tenants.into_iter().filter(|v| v.namespace.as_ref().is_some_and(|n| is_watched(rules, n))).collect();
    let looked = at_all(ctx, &keys, rules, &watched).await;
    let mut by_namespace: BTreeMap<String, Vec<(&ProviderView, Look)>> = BTreeMap::new();
    for (view, look) in looked {
        by_namespace.entry(view.namespace.clone().unwrap_or_default()).or_default().push((view, look));
    }
    memory.tenants.retain(|namespace, _| watched.iter().any(|v| v.namespace.as_ref() == Some(namespace)));
    for (namespace, looked) in &by_namespace {
        let mut ledger = memory.tenants.remove(namespace).unwrap_or_default();
        ledger.retain(|uid| watched.iter().any(|v| v.claim.uid == uid));
        let due = take_in(ctx, rules, &mut ledger, looked, memory).await;
        memory.tenants.insert(namespace.clone(), ledger);
        unregister_all(ctx, &keys, &due, memory).await;
    }
    let known = |view: &ProviderView| {
        let of = view.namespace.as_ref().map_or(Some(&ledger), |n| memory.tenants.get(n));
        of.and_then(|l| l.seen.get(&view.claim.uid)).map_or(0, BTreeMap::len)
    };
    count(ctx, &views, known);
}

/// Looks at these providers; those that can't be asked are left out, and what is known of them stays
/// known. Of several objects for one service one is looked at.
async fn at_all<'v>(
    ctx: &Context,
    keys: &KeyRing,
    rules: &Rules,
    views: &[&'v ProviderView],
) -> Vec<(&'v ProviderView, Look)> {
    let mut known = BTreeSet::new();
    let distinct = views.iter().filter(|v| {
        let own = v.identity(false, v.namespace.as_deref().unwrap_or_default(), &[]).map(|i| i.own);
        own.is_some_and(|own| known.insert(own))
    });
    let asked: Vec<BoxFuture<'_, _>> = distinct.map(|view| ask(ctx, keys, rules, view).boxed()).collect();
    futures::stream::iter(asked).buffer_unordered(AT_ONCE).filter_map(async |found| found).collect().await
}

async fn ask<'v>(
    ctx: &Context,
    keys: &KeyRing,
    rules: &Rules,
    view: &'v ProviderView,
) -> Option<(&'v ProviderView, Look)> {
    let looked = timeout(LISTING, at_provider(ctx, keys, rules, view)).await;
    match looked.unwrap_or_else(|_| Err(Problem::wait(Reason::ProviderUnreachable, "listing took too long")))
    {
        Ok(look) => look.map(|look| (view, look)),
        Err(p) => {
            tracing::debug!(provider = %full_name(view), reason = p.reason, "not looked at for orphans");
            None
        }
    }
}

/// Takes in what was found and says it; gives back what is to be unregistered now.
async fn take_in<'v>(
    ctx: &Context,
    rules: &Rules,
    ledger: &mut Ledger,
    looked: &[(&'v ProviderView, Look)],
    memory: &Memory,
) -> Vec<(&'v ProviderView, Orphan)> {
    let seconds = |d: Duration| i64::try_from(d.as_secs()).unwrap_or(i64::MAX);
    let gap = seconds(rules.every).saturating_mul(3).saturating_add(60);
    let now = Timestamp::now().as_second();
    let mut due = Vec::new();
    for (view, look) in looked {
        let fresh: Vec<Orphan> =
            ledger.found(&view.claim.uid, &look.orphans, gap, now).into_iter().cloned().collect();
        for orphan in fresh.iter().filter(|o| !memory.done.contains(&key(o))).take(EVENTS) {
            // The cache may lag behind a link that was made a moment ago.
            if orphan.goes && is_there(ctx, orphan).await.unwrap_or(true) {
                continue;
            }
            tell(ctx, view, orphan, "OrphanFound", &said(view, orphan, rules)).await;
        }
        if let Some(after) = rules.unregister_after {
            let all = ledger.due(&view.claim.uid, &look.orphans, seconds(after), now);
            due.extend(
                all.into_iter().filter(|o| !memory.done.contains(&key(o))).map(|o| (*view, o.clone())),
            );
        }
    }
    due.truncate(ledger.room(looked.iter().map(|(_, l)| l.ours).sum(), now));
    ledger.removed.extend(due.iter().map(|_| now));
    due
}

fn key(orphan: &Orphan) -> (String, String) {
    (orphan.id.clone(), orphan.uid.clone())
}

async fn unregister_all(ctx: &Context, keys: &KeyRing, due: &[(&ProviderView, Orphan)], memory: &mut Memory) {
    for (view, orphan) in due {
        match unregister(ctx, keys, view, orphan).await {
            Ok(false) => {}
            Ok(true) => {
                memory.done.insert(key(orphan));
                ctx.metrics.orphans_unregistered.inc();
                let text = format!(
                    "client {} of link {}/{}, which is gone, was unregistered at {}",
                    orphan.id,
                    orphan.namespace,
                    orphan.name,
                    full_name(view)
                );
                tell(ctx, view, orphan, "OrphanUnregistered", &text).await;
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
) -> Result<Option<(std::sync::Arc<Connected>, Identity)>, Problem> {
    let connected = connection(ctx, view).await?;
    let caps = connected.provider.capabilities();
    let links = view.namespace.as_deref().unwrap_or_default();
    let identity = view.identity(connected.recorded_before, links, &[]);
    Ok(identity.filter(|_| caps.lists && caps.tells_owner).map(|identity| (connected, identity)))
}

async fn at_provider(
    ctx: &Context,
    keys: &KeyRing,
    rules: &Rules,
    view: &ProviderView,
) -> Result<Option<Look>, Problem> {
    let Some((connected, identity)) = listing(ctx, view).await? else { return Ok(None) };
    let (mut look, mut seen) = (Look { orphans: Vec::new(), ours: 0 }, 0);
    let mut ids = BTreeSet::new();
    let mut after: Option<String> = None;
    loop {
        let page = connected.provider.list(after.as_deref()).await.map_err(|e| Problem::from(&e))?;
        seen += page.clients.len().max(1);
        for client in page.clients {
            let Some(owner) = owner_of(keys, &identity, &client) else { continue };
            // A tenant's provider speaks for its own namespace.
            let speaks = view.is_visible_to(&owner.namespace) && is_watched(rules, &owner.namespace);
            if !speaks || !ids.insert(client.id.clone()) {
                continue;
            }
            look.ours += 1;
            look.orphans.extend(orphan(ctx, keys, view, &client, owner));
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

/// The client as an orphan, if it is one: its link is gone, or has nothing to do with this provider. One
/// whose link was made anew and is at this provider is that link's to take over; one that was to stay
/// stays.
fn orphan(
    ctx: &Context,
    keys: &KeyRing,
    view: &ProviderView,
    client: &RegisteredClient,
    owner: &Owner,
) -> Option<Orphan> {
    let deletion = owner.deletion(keys);
    let link = ctx.links.get(&Key::new(owner.namespace.as_str(), owner.name.as_str()));
    let elsewhere = link.as_ref().is_some_and(|link| !concerns(link, view));
    if deletion == Some(Deletion::Retain) || (link.is_some() && !elsewhere) {
        return None;
    }
    Some(Orphan {
        id: client.id.to_string(),
        namespace: owner.namespace.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        // While a link has the name, its client is a person's to judge.
        goes: deletion == Some(Deletion::Delete) && link.is_none(),
    })
}

/// Whether a link may have its client at a provider: it claims it, names it, or isn't settled yet.
fn concerns(link: &ApplicationLink, view: &ProviderView) -> bool {
    let claims = claim::hints(link.annotations());
    let named = link
        .spec
        .provider_ref
        .as_ref()
        .is_some_and(|r| r.name == view.claim.name && r.kind == view.claim.kind);
    let status = link.status.as_ref();
    let settled =
        status.is_some_and(|s| s.observed_generation == link.metadata.generation.unwrap_or_default());
    let here = |c: &claim::Claim| c.uid == view.claim.uid || c.kind == ProviderKind::ClusterLinkProvider;
    // Another object of the platform team's may stand for the same service.
    named || !settled || claims.iter().any(here) || (claims.is_empty() && link.spec.incoming.is_some())
}

/// Whether a link of an orphan's name is there, asked of the API server itself.
async fn is_there(ctx: &Context, orphan: &Orphan) -> Result<bool, Problem> {
    let api: Api<ApplicationLink> = Api::namespaced(ctx.client.clone(), &orphan.namespace);
    let found = api.get_metadata_opt(&orphan.name).await.map_err(|e| Problem::kube("the link", &e))?;
    Ok(found.is_some())
}

/// Unregisters one, after all that makes it an orphan was read again. Says whether it did.
async fn unregister(
    ctx: &Context,
    keys: &KeyRing,
    view: &ProviderView,
    orphan: &Orphan,
) -> Result<bool, Problem> {
    let (Some((connected, identity)), Ok(id)) = (listing(ctx, view).await?, ClientId::parse(&orphan.id))
    else {
        return Ok(false);
    };
    if ctx.tenure.is_lost() {
        return Ok(false);
    }
    let at = ClientRef { id, handle: None };
    let client = connected.provider.get(&at).await.map_err(|e| Problem::from(&e))?;
    let Some(client) = client else { return Ok(false) };
    let Some(owner) = owner_of(keys, &identity, &client)
        .filter(|o| o.uid == orphan.uid && o.deletion(keys) == Some(Deletion::Delete))
    else {
        return Ok(false);
    };
    // A namespace made anew under the name is somebody's who must be asked.
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let space = api.get_metadata_opt(&orphan.namespace).await;
    let space = space.map_err(|e| Problem::kube("the namespace", &e))?;
    let other = space.is_some_and(|n| n.metadata.uid.as_deref() != Some(&owner.namespace_uid));
    if other || is_there(ctx, orphan).await? {
        return Ok(false);
    }
    connected.provider.delete(&at, client.version.as_deref()).await.map_err(|e| Problem::from(&e))?;
    tracing::info!(client = %orphan.id, namespace = %orphan.namespace, link = %orphan.name, "unregistered an orphan");
    Ok(true)
}

fn count(ctx: &Context, views: &[ProviderView], known: impl Fn(&ProviderView) -> usize) {
    ctx.metrics.orphans.clear();
    for view in views {
        let number = known(view);
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
    // An identifier that a shell reads as more than a word isn't put into a command.
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let id = if orphan.id.chars().all(plain) { orphan.id.as_str() } else { "CLIENT-ID" };
    format!(
        "link {}/{} left its client {} behind at {}, where its secret works; {until}: applink orphans --provider \
         {}{kind} --delete {id}",
        orphan.namespace,
        orphan.name,
        orphan.id,
        full_name(view),
        view.claim.name,
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
