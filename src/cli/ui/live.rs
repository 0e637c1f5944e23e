//! What there is now: a watch over all namespaces, or over those that the user may list, and word of each change for
//! the pages that are open.

use super::App;
use crate::api::ApplicationLink;
use crate::cli::ToolError;
use crate::cli::cluster::{Cluster, failed, is_forbidden, list};
use crate::link::cache::{Cache, Change, Key};
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// The API server ends a watch after so many seconds, before the client gives up on a silent connection.
const WATCH: u32 = 25;
/// How long the first list may take before the page is served without it.
const FIRST: Duration = Duration::from_secs(10);
/// So many namespaces are asked about at a time.
const AT_ONCE: usize = 8;
/// Changes that come together are told together.
const GATHER: Duration = Duration::from_millis(150);
/// Times such as “in 5m” are told anew this often.
const TICK: Duration = Duration::from_secs(30);

/// The links, as the watch has them.
pub struct Live {
    links: Arc<Cache<ApplicationLink>>,
    /// Rises with each change.
    changes: watch::Receiver<u64>,
    /// A watch doesn't get through now.
    lost: Vec<Arc<AtomicBool>>,
    /// The namespaces that are watched; `None` where it is all.
    namespaces: Option<BTreeSet<String>>,
}

impl Live {
    /// Finds out what the user may list, and watches it.
    ///
    /// # Errors
    /// [`ToolError`] where that is nothing, or the cluster can't be asked.
    pub async fn start(cluster: &Cluster) -> Result<Self, ToolError> {
        let namespaces = may_list(cluster).await?;
        let scopes: Vec<Option<String>> = match &namespaces {
            None => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect(),
        };
        let links = Arc::new(Cache::default());
        let (told, changes) = watch::channel(0);
        let (synced, mut ready) = watch::channel(0);
        let told = Arc::new(told);
        let synced = Arc::new(synced);
        let mut lost = Vec::new();
        for scope in &scopes {
            let is_lost = Arc::new(AtomicBool::new(false));
            lost.push(is_lost.clone());
            tokio::spawn(follow(
                cluster.client.clone(),
                scope.clone(),
                links.clone(),
                is_lost,
                told.clone(),
                synced.clone(),
            ));
        }
        // Who waits in vain sees an empty list that fills up.
        let _ = tokio::time::timeout(FIRST, ready.wait_for(|n| *n >= scopes.len())).await;
        Ok(Self { links, changes, lost, namespaces })
    }

    /// All links.
    pub fn all(&self) -> Vec<Arc<ApplicationLink>> {
        self.links.all()
    }

    /// The namespaces that are watched; `None` where it is all.
    pub fn namespaces(&self) -> Option<&BTreeSet<String>> {
        self.namespaces.as_ref()
    }

    /// Whether what is shown may be old.
    pub fn is_lost(&self) -> bool {
        self.lost.iter().any(|lost| lost.load(Ordering::Relaxed))
    }

    /// Takes in what a write gave back, so that the next page shows it.
    pub fn learn(&self, link: ApplicationLink) {
        self.links.learn(link);
    }

    /// Whether the watch has seen a link.
    pub fn knows(&self, namespace: &str, name: &str) -> bool {
        self.links.get(&Key::new(namespace, name)).is_some()
    }

    /// Waits, a moment at most, until the watch shows what was just written.
    pub async fn until(&self, mut seen: impl FnMut(&Self) -> bool) {
        let mut changes = self.changes.clone();
        let wait = changes.wait_for(|_| seen(self));
        let _ = tokio::time::timeout(Duration::from_secs(2), wait).await;
    }
}

async fn follow(
    client: Client,
    scope: Option<String>,
    links: Arc<Cache<ApplicationLink>>,
    lost: Arc<AtomicBool>,
    told: Arc<watch::Sender<u64>>,
    synced: Arc<watch::Sender<usize>>,
) {
    let api: Api<ApplicationLink> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let rises = told.clone();
    let stream = watcher(api, watcher::Config::default().timeout(WATCH)).default_backoff().inspect(|event| {
        let now = event.is_err();
        if lost.swap(now, Ordering::Relaxed) != now {
            rises.send_modify(|n| *n += 1);
        }
    });
    let mut first = true;
    links
        .follow(scope.as_deref(), stream, |change| {
            if matches!(change, Change::Synced) && std::mem::take(&mut first) {
                synced.send_modify(|n| *n += 1);
            }
            told.send_modify(|n| *n += 1);
        })
        .await;
}

/// The namespaces whose links the user may list; `None` where it is all of them.
async fn may_list(cluster: &Cluster) -> Result<Option<BTreeSet<String>>, ToolError> {
    let one = ListParams::default().limit(1);
    let all: Api<ApplicationLink> = Api::all(cluster.client.clone());
    match all.list_metadata(&one).await {
        Ok(_) => return Ok(None),
        Err(e) if is_forbidden(&e) => {}
        Err(e) => return Err(failed("the ApplicationLinks of all namespaces")(e)),
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let mut names: BTreeSet<String> = match list(&namespaces, &ListParams::default()).await {
        Ok(found) => found.iter().map(|n| n.name_any()).collect(),
        Err(e) if is_forbidden(&e) => BTreeSet::new(),
        Err(e) => return Err(failed("the namespaces")(e)),
    };
    names.insert(cluster.namespace.clone());
    let asked = stream::iter(names).map(|name| {
        let api: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &name);
        let one = &one;
        async move {
            match api.list_metadata(one).await {
                Ok(_) => Ok(Some(name)),
                Err(e) if is_forbidden(&e) => Ok(None),
                Err(e) => Err(failed(format!("the ApplicationLinks of namespace {name}"))(e)),
            }
        }
    });
    let answers: Vec<Result<Option<String>, ToolError>> = asked.buffer_unordered(AT_ONCE).collect().await;
    let found: BTreeSet<String> =
        answers.into_iter().filter_map(Result::transpose).collect::<Result<_, _>>()?;
    if found.is_empty() {
        return Err(ToolError::Precondition(format!(
            "you may list ApplicationLinks neither in all namespaces nor in namespace {}; ask for the verbs get, list and \
             watch on applicationlinks.applink-operator.io, or choose a namespace with -n",
            cluster.namespace
        )));
    }
    Ok(Some(found))
}

/// Tells an open page that it is old, for as long as it listens.
pub async fn events(State(app): State<Arc<App>>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = app.live.changes.clone();
    // The first word comes at once: a page that lost its connection may have missed some.
    let stream = stream::unfold((changes, true), |(mut changes, first)| async move {
        if !first {
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(GATHER).await;
        }
        let number = *changes.borrow_and_update();
        Some((Ok(Event::default().event("changed").data(number.to_string())), (changes, false)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
