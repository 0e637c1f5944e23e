//! Watches, and hands what changed to the passes.

use super::bootstrap::{self, BundledSettings};
use super::cache::{Change, Key};
use super::claim;
use super::context::{Context, OwnMeta};
use super::credentials;
use super::pass;
use super::provider_pass;
use super::providers::ProviderView;
use super::queue::Lane;
use super::scheduler::Scheduler;
use super::sweep::sweep;
use crate::api::{ApplicationLink, ClusterLinkProvider, LinkProvider, names};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource as _, ResourceExt as _};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch as flag;

/// How the controllers run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces to watch; empty for all.
    pub namespaces: Vec<String>,
    /// How many links are worked on at once.
    pub concurrency: usize,
    /// How often each link is looked at though nothing changed.
    pub resync: Duration,
    /// The bundled provider, if the chart installs one.
    pub bundled: Option<BundledSettings>,
}

/// The links that refer to a Secret, by the Secret.
#[derive(Default)]
struct Index {
    by_secret: HashMap<Key, HashSet<Key>>,
    by_link: HashMap<Key, Vec<Key>>,
}

impl Index {
    fn set(&mut self, link: &Key, secrets: Vec<Key>) {
        for old in self.by_link.remove(link).unwrap_or_default() {
            if let Some(links) = self.by_secret.get_mut(&old) {
                links.remove(link);
                if links.is_empty() {
                    self.by_secret.remove(&old);
                }
            }
        }
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().insert(link.clone());
        }
        if !secrets.is_empty() {
            self.by_link.insert(link.clone(), secrets);
        }
    }
}

/// The names of all Secrets that a link reads or writes. Reads the raw spec for names alone, so
/// that also a link whose spec isn't valid yet is looked at when they appear.
fn secrets_of(link: &ApplicationLink) -> Vec<Key> {
    let namespace = link.namespace().unwrap_or_default();
    let name = link.name_any();
    let mut names = Vec::new();
    if let Some(i) = &link.spec.incoming {
        names.push(i.secret.as_ref().and_then(|s| s.name.clone()).unwrap_or_else(|| format!("{name}-oauth")));
    }
    if let Some(o) = &link.spec.outgoing {
        names.push(o.secret.as_ref().and_then(|s| s.name.clone()).unwrap_or_else(|| format!("{name}-token")));
        names.push(o.oauth2.client.secret_ref.name.clone());
        names.extend(o.oauth2.grant.refresh_token.as_ref().map(|r| r.secret_ref.name.clone()));
    }
    names.into_iter().map(|n| Key::new(namespace.clone(), n)).collect()
}

/// Who is waited for: the lane of a link.
fn lane_of(ctx: &Context, key: &Key) -> Lane {
    let owner = key.namespace.clone();
    let Some(link) = ctx.links.get(key) else { return Lane { waits_for: String::new(), owner } };
    let provider = match (&link.spec.incoming, &link.spec.provider_ref) {
        (None, _) => String::new(),
        (Some(_), Some(r)) if r.kind == crate::api::link::ProviderKind::LinkProvider => {
            format!("{}/{}", key.namespace, r.name)
        }
        (Some(_), Some(r)) => r.name.clone(),
        (Some(_), None) => {
            claim::read(link.annotations()).last().map_or_else(|| "default".into(), |c| c.name.clone())
        }
    };
    let server = link.spec.outgoing.as_ref().map(|o| &o.oauth2.server.custom);
    let server = server.and_then(|c| c.issuer.as_deref().or(c.token_endpoint.as_deref()));
    let host = server.and_then(|s| url::Url::parse(s).ok()).and_then(|u| u.host_str().map(str::to_owned));
    Lane { waits_for: format!("{provider}|{}", host.unwrap_or_default()), owner }
}

/// The lane of a provider: its own.
fn provider_lane(key: &Key) -> Lane {
    let name = format!("{}/{}", key.namespace, key.name);
    Lane { waits_for: name.clone(), owner: name }
}

/// What the watches feed.
struct Wires {
    ctx: Arc<Context>,
    links: Arc<Scheduler>,
    providers: Arc<Scheduler>,
    index: Mutex<Index>,
    master_key: flag::Sender<u64>,
    sweep: flag::Sender<u64>,
}

impl Wires {
    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self, key: Key) {
        let lane = lane_of(&self.ctx, &key);
        self.links.add(key, lane, Duration::ZERO);
    }

    fn provider(&self, key: Key) {
        let lane = provider_lane(&key);
        self.providers.add(key, lane, Duration::ZERO);
    }

    fn all_links(&self) {
        self.ctx.links.all().iter().for_each(|l| self.link(Key::of(l.as_ref())));
    }

    /// The links that use a provider, or might.
    fn links_of(&self, view: &ProviderView) {
        for link in self.ctx.links.all() {
            let key = Key::of(link.as_ref());
            let named = link
                .spec
                .provider_ref
                .as_ref()
                .is_some_and(|r| r.name == view.claim.name && r.kind == view.claim.kind);
            let claims = claim::read(link.annotations());
            let claimed = claims.iter().any(|c| c.uid == view.claim.uid);
            let open = link.spec.incoming.is_some() && link.spec.provider_ref.is_none() && claims.is_empty();
            if named || claimed || open {
                self.link(key);
            }
        }
    }

    fn link_changed(&self, change: Change<'_, ApplicationLink>) {
        match change {
            Change::Now(link, before) => {
                let key = Key::of(link.as_ref());
                let same = before.is_some_and(|b| {
                    b.uid() == link.uid()
                        && b.meta().generation == link.meta().generation
                        && b.meta().deletion_timestamp == link.meta().deletion_timestamp
                        && b.annotations() == link.annotations()
                        && b.finalizers() == link.finalizers()
                });
                if !same {
                    self.index().set(&key, secrets_of(link));
                    self.link(key);
                }
            }
            Change::Gone(link) => {
                let key = Key::of(link.as_ref());
                let freed = secrets_of(&link);
                self.index().set(&key, Vec::new());
                // Who waited for a Secret name or for a provider may go on.
                for secret in freed {
                    self.secret_users(&secret);
                }
                for view in self.ctx.providers().iter().filter(|v| v.deleting) {
                    self.provider(provider_pass::key_of(view));
                }
                let uid = link.uid().unwrap_or_default();
                self.ctx.memos.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                let grant = Key::new(self.ctx.namespace.as_str(), format!("applink-grant-{uid}"));
                if self.ctx.own.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&grant) {
                    self.sweep.send_modify(|n| *n += 1);
                }
            }
            Change::Synced => {}
        }
    }

    fn provider_changed(&self, now: Option<&ProviderView>, before: Option<&ProviderView>) {
        let Some(view) = now.or(before) else { return };
        if now != before {
            self.ctx.connections.forget(&view.claim.uid);
            if now.is_none() {
                self.ctx.memos.lock().unwrap_or_else(PoisonError::into_inner).remove(&view.claim.uid);
            }
            self.provider(provider_pass::key_of(view));
            self.links_of(view);
        }
    }

    fn secret_users(&self, key: &Key) {
        let links: Vec<Key> = self.index().by_secret.get(key).into_iter().flatten().cloned().collect();
        links.into_iter().for_each(|l| self.link(l));
    }

    fn secret_changed(&self, change: Change<'_, PartialObjectMeta<Secret>>, synced: bool) {
        let (key, now) = match &change {
            Change::Now(s, _) => (Key::of(s.as_ref()), Some(s.as_ref())),
            Change::Gone(s) => (Key::of(s.as_ref()), None),
            Change::Synced => {
                // A watch that was interrupted may have missed that a Secret went.
                if synced {
                    self.all_links();
                }
                return;
            }
        };
        {
            let mut own = self.ctx.own.lock().unwrap_or_else(PoisonError::into_inner);
            let ours = now
                .filter(|s| s.labels().get(names::MANAGED_BY).is_some_and(|v| v == names::MANAGED_BY_VALUE));
            match ours {
                Some(s) => {
                    let owners = s.owner_references().iter().map(|o| o.uid.clone()).collect();
                    own.insert(key.clone(), OwnMeta { uid: s.uid().unwrap_or_default(), owners });
                }
                None => drop(own.remove(&key)),
            }
        }
        self.secret_users(&key);
        if key.namespace == self.ctx.namespace && key.name == self.ctx.installation.secret() {
            self.master_key.send_modify(|n| *n += 1);
        }
        for view in self.ctx.providers() {
            let namespace = view.namespace.as_deref().unwrap_or(&self.ctx.namespace);
            let refers = |s| credentials::references(s).iter().any(|r| r.name == key.name);
            if namespace == key.namespace && view.service.as_ref().is_some_and(refers) {
                self.ctx.connections.forget(&view.claim.uid);
                self.provider(provider_pass::key_of(&view));
                self.links_of(&view);
            }
        }
    }
}

fn slim<K: kube::ResourceExt>(event: watcher::Result<Event<K>>) -> watcher::Result<Event<K>> {
    // Nobody reads these, and they are the larger half of an object.
    event.map(|e| e.modify(|o| o.managed_fields_mut().clear()))
}

/// Runs the controllers until `stop` resolves and what was begun is done.
pub async fn run(ctx: Arc<Context>, settings: Settings, stop: impl Future<Output = ()> + Send + 'static) {
    let wires = Arc::new(Wires {
        links: Arc::new(Scheduler::new("applicationlink", settings.concurrency, ctx.metrics.clone())),
        providers: Arc::new(Scheduler::new("linkprovider", 16, ctx.metrics.clone())),
        index: Mutex::default(),
        master_key: flag::Sender::new(0),
        sweep: flag::Sender::new(0),
        ctx: ctx.clone(),
    });
    let (watches, synced) = watches(&wires, &settings.namespaces);
    let watching = tokio::spawn(futures::future::join_all(watches));
    let (stopped, on_stop) = flag::channel(false);
    let stopper = tokio::spawn(async move {
        stop.await;
        stopped.send_replace(true);
    });
    let until = || {
        let mut on_stop = on_stop.clone();
        async move {
            // An error means that the sender is gone, which is the end too.
            let _ = on_stop.wait_for(|s| *s).await;
        }
    };
    let all_synced = async {
        for mut s in synced {
            let _ = s.wait_for(|n| *n > 0).await;
        }
    };
    tokio::select! {
        () = all_synced => {}
        () = until() => {
            watching.abort();
            return;
        }
    }
    load_keys(&ctx).await;
    if let Some(bundled) = &settings.bundled {
        ensure_bundled(&ctx, bundled).await;
    }
    tracing::info!(links = ctx.links.len(), "at work");
    wires.all_links();
    ctx.providers().iter().for_each(|v| wires.provider(provider_pass::key_of(v)));

    let upkeep = tokio::spawn(upkeep(wires.clone(), settings.clone()));
    let sweeping = tokio::spawn(sweeps(wires.clone(), settings.namespaces.clone()));
    let resync = settings.resync;
    let links = {
        let (ctx, lanes) = (ctx.clone(), ctx.clone());
        let work = move |key: Key| {
            let ctx = ctx.clone();
            async move { pass::reconcile(&ctx, &key, resync).await }
        };
        wires.links.clone().run(work, move |key| lane_of(&lanes, key), until())
    };
    let providers = {
        let (wires, namespaces) = (wires.clone(), settings.namespaces.clone());
        let scheduler = wires.providers.clone();
        let work = move |key: Key| {
            let (wires, namespaces) = (wires.clone(), namespaces.clone());
            async move {
                let found = provider_pass::reconcile(&wires.ctx, &key, resync, &namespaces).await;
                if found.turned
                    && let Some(view) = wires.ctx.providers().iter().find(|v| provider_pass::key_of(v) == key)
                {
                    wires.links_of(view);
                }
                found.again
            }
        };
        scheduler.run(work, provider_lane, until())
    };
    futures::join!(links, providers);
    upkeep.abort();
    sweeping.abort();
    watching.abort();
    stopper.abort();
}

/// Keys may be made only where nothing can have been derived from others.
async fn load_keys(ctx: &Context) -> bool {
    let claimed = |l: &Arc<ApplicationLink>| l.finalizers().iter().any(|f| f == names::LINK_FINALIZER);
    let records = {
        let own = ctx.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.keys().any(|k| k.namespace == ctx.namespace && k.name.starts_with("applink-grant-"))
    };
    let fresh = !records && !ctx.links.all().iter().any(claimed);
    let changed = ctx.installation.load(&ctx.client, &ctx.namespace, fresh).await;
    if let Err(p) = ctx.installation.keys() {
        tracing::error!(reason = p.reason, message = %p.message, "no master key");
    }
    changed
}

async fn ensure_bundled(ctx: &Context, bundled: &BundledSettings) {
    if let Err(p) = bootstrap::ensure(&ctx.client, &ctx.namespace, bundled).await {
        tracing::error!(reason = p.reason, message = %p.message, "the bundled provider can't be set up");
    }
}

/// Sweeps once an hour, and when a link went without letting go. A task of its own: each orphan of
/// a dead server takes its time.
async fn sweeps(wires: Arc<Wires>, namespaces: Vec<String>) {
    let mut asked = wires.sweep.subscribe();
    let mut hourly = tokio::time::interval(Duration::from_secs(3600));
    loop {
        tokio::select! {
            _ = asked.changed() => {}
            _ = hourly.tick() => {}
        }
        sweep(&wires.ctx, &namespaces).await;
    }
}

/// What is done beside the passes: keys read again when they change, and the bundled
/// provider's objects put back.
async fn upkeep(wires: Arc<Wires>, settings: Settings) {
    let mut keys = wires.master_key.subscribe();
    let mut often = tokio::time::interval(Duration::from_secs(30));
    loop {
        tokio::select! {
            _ = keys.changed() => {
                if load_keys(&wires.ctx).await {
                    wires.all_links();
                }
            }
            _ = often.tick() => {
                if wires.ctx.installation.keys().is_err() && load_keys(&wires.ctx).await {
                    wires.all_links();
                }
                if let Some(bundled) = &settings.bundled {
                    ensure_bundled(&wires.ctx, bundled).await;
                }
            }
        }
    }
}

type Watches = (Vec<BoxFuture<'static, ()>>, Vec<flag::Receiver<u64>>);

fn watches(wires: &Arc<Wires>, namespaces: &[String]) -> Watches {
    let mut futures: Vec<BoxFuture<'static, ()>> = Vec::new();
    let mut synced = Vec::new();
    let scopes: Vec<Option<String>> =
        if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() };
    let client = wires.ctx.client.clone();
    for scope in &scopes {
        let api: Api<ApplicationLink> = scoped(&client, scope.as_deref());
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let (w, n) = (wires.clone(), scope.clone());
        futures.push(Box::pin(async move {
            let stream = watch(api, watcher::Config::default()).default_backoff().map(slim);
            w.ctx.links.follow(n.as_deref(), stream, |c| told(c, &done, |c| w.link_changed(c))).await;
        }));
        let api: Api<LinkProvider> = scoped(&client, scope.as_deref());
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let (w, n) = (wires.clone(), scope.clone());
        futures.push(Box::pin(async move {
            let stream = watch(api, watcher::Config::default()).default_backoff().map(slim);
            let view = |p: &Arc<LinkProvider>| ProviderView::from(p.as_ref());
            let changed = |c: Change<'_, LinkProvider>| match c {
                Change::Now(p, before) => {
                    w.provider_changed(Some(&view(p)), before.as_ref().map(view).as_ref())
                }
                Change::Gone(p) => w.provider_changed(None, Some(&view(&p))),
                Change::Synced => {}
            };
            w.ctx.link_providers.follow(n.as_deref(), stream, |c| told(c, &done, changed)).await;
        }));
    }
    let api: Api<ClusterLinkProvider> = Api::all(client.clone());
    let (done, on_done) = flag::channel(0u64);
    synced.push(on_done);
    let w = wires.clone();
    futures.push(Box::pin(async move {
        let stream = watch(api, watcher::Config::default()).default_backoff().map(slim);
        let view = |p: &Arc<ClusterLinkProvider>| w.ctx.serves(p).then(|| ProviderView::from(p.as_ref()));
        let changed = |c: Change<'_, ClusterLinkProvider>| match c {
            Change::Now(p, before) => {
                w.provider_changed(view(p).as_ref(), before.as_ref().and_then(view).as_ref())
            }
            Change::Gone(p) => w.provider_changed(None, view(&p).as_ref()),
            Change::Synced => {}
        };
        w.ctx.cluster_providers.follow(None, stream, |c| told(c, &done, changed)).await;
    }));
    let mut secret_scopes = scopes;
    let own = Some(wires.ctx.namespace.clone());
    if !secret_scopes.contains(&None) && !secret_scopes.contains(&own) {
        secret_scopes.push(own);
    }
    for scope in secret_scopes {
        let api: Api<PartialObjectMeta<Secret>> = scoped(&client, scope.as_deref());
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let w = wires.clone();
        futures.push(Box::pin(async move {
            let stream = watch(api, watcher::Config::default()).default_backoff().map(slim);
            // Only what we need of a Secret's metadata is kept, and that only of our own: a cluster
            // has many Secrets that are none of our business.
            follow_secrets(&w, scope.as_deref(), stream, &done).await;
        }));
    }
    (futures, synced)
}

fn told<K>(change: Change<'_, K>, done: &flag::Sender<u64>, mut then: impl FnMut(Change<'_, K>)) {
    let synced = matches!(change, Change::Synced);
    then(change);
    if synced {
        done.send_modify(|n| *n += 1);
    }
}

fn is_forbidden(e: &watcher::Error) -> bool {
    matches!(e, watcher::Error::InitialListFailed(kube::Error::Api(s)) if s.code == 403)
}

async fn follow_secrets(
    wires: &Wires,
    scope: Option<&str>,
    stream: impl futures::Stream<Item = watcher::Result<Event<PartialObjectMeta<Secret>>>>,
    done: &flag::Sender<u64>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut seen: HashSet<Key> = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApply(s)) => {
                seen.insert(Key::of(&s));
                wires.secret_changed(Change::Now(&Arc::new(s), None), false);
            }
            Ok(Event::InitDone) => {
                wires
                    .ctx
                    .own
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|k, _| scope.is_some_and(|n| n != k.namespace) || seen.contains(k));
                seen = HashSet::new();
                let again = *done.borrow() > 0;
                done.send_modify(|n| *n += 1);
                wires.secret_changed(Change::Synced, again);
            }
            Ok(Event::Apply(s)) => wires.secret_changed(Change::Now(&Arc::new(s), None), false),
            Ok(Event::Delete(s)) => wires.secret_changed(Change::Gone(Arc::new(s)), false),
            Err(e) => {
                tracing::warn!(error = %super::cache::Brief(&e), "the watch of Secrets was interrupted");
                // A watched namespace that was deleted has taken the operator's Role along: that is
                // no reason not to begin in the others.
                if scope.is_some_and(|n| n != wires.ctx.namespace) && is_forbidden(&e) && *done.borrow() == 0
                {
                    done.send_modify(|n| *n += 1);
                }
            }
        }
    }
}

fn scoped<K>(client: &kube::Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(n) => Api::namespaced(client.clone(), n),
        None => Api::all(client.clone()),
    }
}
