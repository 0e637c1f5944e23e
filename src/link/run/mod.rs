//! When passes run: watches, and hands what changed to the passes.
//!
//! - [`wires`]: what a change of one object means to the others.
//! - [`debounce`]: how often one object wakes all the links that use it.
//! - [`changes`]: what providers tell of their clients; `share`: how often, and at what cost.
//! - [`queue`], [`line`], [`scheduler`]: who is next, and how many at once.
//! - [`clock`]: what a clock that is set means.
//! - [`feed`]: lists and watches, in little memory.
//! - [`refusals`]: who is refused by the API server.
//! - [`spaces`]: labels of namespaces.
//! - [`sweep`]: records whose link is gone.
//! - `orphans`: clients at the providers whose link is gone.
//!
//! `cli` runs it; it calls the passes, and they know nothing of it.

mod changes;
mod clock;
mod debounce;
mod feed;
mod line;
mod orphans;
pub mod queue;
mod refusals;
pub mod scheduler;
mod share;
mod spaces;
pub mod sweep;
mod wires;

use crate::api::{ApplicationLink, ClusterLinkProvider, LinkProvider, names};
use crate::link::bootstrap::{self, BundledSettings};
use crate::link::cache::{self, Change, Key};
use crate::link::context::Context;
use crate::link::demote;
use crate::link::ended::Ended;
use crate::link::own::SeenSecret;
use crate::link::pass;
use crate::link::provider_pass;
use crate::link::providers::ProviderView;
use crate::link::turns::{Permit, Turns};
use clock::Clocks;
use feed::{Kind, feed};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use scheduler::Scheduler;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use sweep::sweep;
use tokio::sync::watch as flag;
use wires::{Index, Wires, lane_of, provider_lane};

/// How the controllers run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The namespaces to watch; empty for all.
    pub namespaces: Vec<String>,
    /// How many links are worked on at once.
    pub concurrency: usize,
    /// How often each link is looked at though nothing changed.
    pub resync: Duration,
    /// How long a client stays whose link is gone without unregistering it; `None`: until a person
    /// removes it.
    pub unregister_orphans_after: Option<Duration>,
    /// The bundled provider, if the chart installs one.
    pub bundled: Option<BundledSettings>,
}

/// All objects of a kind, without what nobody reads.
fn objects<K>(
    client: &kube::Client,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send + use<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Send + 'static,
{
    let path = K::url_path(&(), namespace);
    let kind = Kind { path, metadata_only: false, version: ResourceExt::resource_version };
    let slim = |event: watcher::Result<Event<K>>| event.map(|e| e.modify(cache::slim));
    feed(client.clone(), kind).default_backoff().map(slim)
}

/// Runs the controllers until `stop` resolves and what was begun is done.
pub async fn run(ctx: Arc<Context>, settings: Settings, stop: impl Future<Output = ()> + Send + 'static) {
    let wires = Arc::new(Wires {
        links: Arc::new(Scheduler::new(
            "applicationlink",
            settings.concurrency,
            ctx.turns.clone(),
            ctx.metrics.clone(),
        )),
        demotions: Arc::new(Scheduler::new("demotion", 8, Turns::default(), ctx.metrics.clone())),
        providers: Arc::new(Scheduler::new("linkprovider", 16, Turns::default(), ctx.metrics.clone())),
        index: Mutex::<Index>::default(),
        refusals: Mutex::default(),
        debounce: Mutex::default(),
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
    let (ready, on_ready) = tokio::sync::oneshot::channel();
    let told = tokio::spawn(changes::follow(wires.clone(), ready));
    // It fails only where the task is gone, and then there is nothing to wait for.
    let _ = on_ready.await;
    tracing::info!(links = ctx.links.len(), "at work");
    wires.all_links();
    wires.doubt_all();
    ctx.providers().iter().for_each(|v| wires.provider(provider_pass::key_of(v)));

    let upkeep = tokio::spawn(upkeep(wires.clone(), settings.clone()));
    let spaces = tokio::spawn(spaces::follow(wires.clone()));
    let sweeping = tokio::spawn(sweeps(wires.clone(), settings.namespaces.clone()));
    let looking = tokio::spawn(look_for_orphans(ctx.clone(), settings.clone()));
    let resync = settings.resync;
    let links = {
        let (wires, lanes) = (wires.clone(), ctx.clone());
        let scheduler = wires.links.clone();
        let work = move |key: Key, permit: Option<Permit>| {
            let wires = wires.clone();
            async move {
                let ended = pass::reconcile(&wires.ctx, &key, resync, permit).await;
                wires.ended(&key, ended.refused);
                ended
            }
        };
        scheduler.run(work, move |key| lane_of(&lanes, key), until())
    };
    let demotions = {
        let (ctx, scheduler) = (ctx.clone(), wires.demotions.clone());
        let work = move |key: Key, _| {
            let ctx = ctx.clone();
            async move { demote::look(&ctx, &key).await }
        };
        scheduler.run(work, wires::demotion_lane, until())
    };
    let providers = {
        let (wires, namespaces) = (wires.clone(), settings.namespaces.clone());
        let scheduler = wires.providers.clone();
        let work = move |key: Key, _| {
            let (wires, namespaces) = (wires.clone(), namespaces.clone());
            async move {
                let found = provider_pass::reconcile(&wires.ctx, &key, resync, &namespaces).await;
                if found.turned
                    && let Some(view) = wires.ctx.providers().iter().find(|v| provider_pass::key_of(v) == key)
                {
                    wires.links_of(view);
                }
                Ended::again(found.again)
            }
        };
        scheduler.run(work, provider_lane, until())
    };
    futures::join!(links, providers, demotions);
    upkeep.abort();
    sweeping.abort();
    spaces.abort();
    looking.abort();
    told.abort();
    watching.abort();
    stopper.abort();
}

/// Keys may be made only where nothing can have been derived from others.
async fn load_keys(ctx: &Context) -> bool {
    let claimed = |l: &Arc<ApplicationLink>| l.finalizers().iter().any(|f| f == names::LINK_FINALIZER);
    let records = {
        let own = ctx.own.lock().unwrap_or_else(PoisonError::into_inner);
        // A record of clients hangs on no key: what is in it couldn't be derived.
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

/// Looks for clients whose link is gone as often as links are looked at. A task of its own: a provider
/// may take its time to list them.
async fn look_for_orphans(ctx: Arc<Context>, settings: Settings) {
    let rules = orphans::Rules {
        unregister_after: settings.unregister_orphans_after,
        every: settings.resync,
        watched: settings.namespaces.clone(),
    };
    let mut memory = orphans::Memory::default();
    // From the first half on: at the start there is enough to do.
    let mut next = settings.resync / 2;
    loop {
        tokio::time::sleep(next).await;
        let begun = Instant::now();
        orphans::look(&ctx, &rules, &mut memory).await;
        next = settings.resync.saturating_sub(begun.elapsed()).max(settings.resync / 2);
    }
}

/// How often a write that the API server refuses is tried again, by one link of each namespace.
const REFUSED: Duration = Duration::from_secs(7);

/// What is done beside the passes: keys read again when they change, the bundled provider's objects put
/// back, and all links looked at when the clock was set.
async fn upkeep(wires: Arc<Wires>, settings: Settings) {
    let mut keys = wires.master_key.subscribe();
    let mut often = tokio::time::interval(Duration::from_secs(30));
    let mut refused = tokio::time::interval(REFUSED);
    let mut tick = tokio::time::interval(clock::OFTEN);
    let mut clocks = Clocks::new(Instant::now(), Timestamp::now());
    loop {
        tokio::select! {
            _ = tick.tick() => {
                if let Some(step) = clocks.step(Instant::now(), Timestamp::now()) {
                    tracing::warn!(seconds = step.as_secs(), "the clock was set; every link is looked at again");
                    wires.all_links();
                }
            }
            _ = refused.tick() => wires.try_refused(),
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
        let stream = objects::<ApplicationLink>(&client, scope.as_deref());
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let (w, n) = (wires.clone(), scope.clone());
        futures.push(Box::pin(async move {
            w.ctx.links.follow(n.as_deref(), stream, |c| told(c, &done, |c| w.link_changed(c))).await;
        }));
        let stream = objects::<LinkProvider>(&client, scope.as_deref());
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let (w, n) = (wires.clone(), scope.clone());
        futures.push(Box::pin(async move {
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
    let stream = objects::<ClusterLinkProvider>(&client, None);
    let (done, on_done) = flag::channel(0u64);
    synced.push(on_done);
    let w = wires.clone();
    futures.push(Box::pin(async move {
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
        // Only what we need of a Secret's metadata is decoded, and only that of our own is kept: a cluster
        // has many Secrets that are none of our business.
        let path = Secret::url_path(&(), scope.as_deref());
        let kind = Kind { path, metadata_only: true, version: SeenSecret::version };
        let stream = feed(client.clone(), kind).default_backoff();
        let (done, on_done) = flag::channel(0u64);
        synced.push(on_done);
        let w = wires.clone();
        futures.push(Box::pin(async move {
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
    stream: impl Stream<Item = watcher::Result<Event<SeenSecret>>>,
    done: &flag::Sender<u64>,
) {
    let mut stream = std::pin::pin!(stream);
    let mut seen: HashSet<Key> = HashSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApply(s)) => {
                seen.insert(s.key());
                wires.secret_changed(Change::Now(&Arc::new(s), None), false);
            }
            Ok(Event::InitDone) => {
                wires
                    .ctx
                    .own
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|k| scope.is_some_and(|n| n != k.namespace) || seen.contains(k));
                seen = HashSet::new();
                let again = *done.borrow() > 0;
                done.send_modify(|n| *n += 1);
                wires.secret_changed(Change::Synced, again);
            }
            Ok(Event::Apply(s)) => wires.secret_changed(Change::Now(&Arc::new(s), None), false),
            Ok(Event::Delete(s)) => wires.secret_changed(Change::Gone(Arc::new(s)), false),
            Err(e) => {
                tracing::warn!(error = %crate::link::cache::Brief(&e), "the watch of Secrets was interrupted");
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
