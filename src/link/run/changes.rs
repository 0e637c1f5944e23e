//! What providers tell of their clients: each is asked without end what others changed, and the
//! links of those clients look again at once, rather than at their next turn.

use super::share::{Asked, Pause, Share};
use super::wires::Wires;
use crate::link::observe::connection;
use crate::link::problem::Problem;
use crate::link::providers::ProviderView;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How often it is looked which providers there are.
const OFTEN: Duration = Duration::from_secs(2);

/// A task a provider object, ended when it goes out of sight.
struct Told(JoinHandle<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How long the first links wait for providers to say where they are.
const FIRST: Duration = Duration::from_secs(2);

/// Follows all providers that tell of changes. `ready` is told once those that are there have said
/// where to begin, so that nothing that follows a link's first look is missed.
pub(super) async fn follow(wires: Arc<Wires>, ready: oneshot::Sender<()>) {
    let mut following: HashMap<(String, i64), Told> = HashMap::new();
    let key = |v: &ProviderView| (v.claim.uid.clone(), v.generation);
    let mut shares = Shares::default();
    let first: Vec<_> = wires.ctx.providers().into_iter().filter(stands).collect();
    let first = first.into_iter().map(|view| {
        let (wires, share) = (wires.clone(), shares.of(&view));
        async move {
            let after = timeout(FIRST, begin(&wires, &view, share.as_deref())).await.ok().flatten();
            (view, share, after)
        }
    });
    for (view, share, after) in futures::future::join_all(first).await {
        following.insert(key(&view), Told(tokio::spawn(ask(wires.clone(), view, share, after))));
    }
    // Nobody waits any more when the operator is being stopped.
    let _ = ready.send(());
    let mut often = tokio::time::interval(OFTEN);
    loop {
        often.tick().await;
        let views = wires.ctx.providers();
        following
            .retain(|k, task| !task.0.is_finished() && views.iter().any(|v| key(v) == *k && !v.deleting));
        for view in views.into_iter().filter(stands) {
            let share = shares.of(&view);
            let task = || Told(tokio::spawn(ask(wires.clone(), view.clone(), share, None)));
            following.entry(key(&view)).or_insert_with(task);
        }
    }
}

/// The share of each namespace; the platform team's providers have none.
#[derive(Default)]
struct Shares(HashMap<String, Arc<Share>>);

impl Shares {
    /// With more namespaces than this, those without a provider are forgotten.
    const KNOWN: usize = 1024;

    fn of(&mut self, view: &ProviderView) -> Option<Arc<Share>> {
        if self.0.len() > Self::KNOWN {
            self.0.retain(|_, share| Arc::strong_count(share) > 1);
        }
        view.namespace.as_ref().map(|n| self.0.entry(n.clone()).or_default().clone())
    }
}

fn stands(view: &ProviderView) -> bool {
    view.held && !view.deleting
}

/// Where to begin at a provider that answers and tells of changes.
async fn begin(wires: &Wires, view: &ProviderView, share: Option<&Share>) -> Option<String> {
    let _place = place(share).await;
    let connected = connection(&wires.ctx, view).await.ok()?;
    if !connected.provider.capabilities().tells_changes {
        return None;
    }
    connected.provider.changes(None).await.ok().map(|told| told.next)
}

async fn place(share: Option<&Share>) -> Option<SemaphorePermit<'_>> {
    match share {
        Some(share) => share.place().await,
        None => None,
    }
}

/// Asks one provider without end.
async fn ask(wires: Arc<Wires>, view: ProviderView, share: Option<Arc<Share>>, mut after: Option<String>) {
    let mut pause = Pause::new(view.namespace.is_some());
    loop {
        let place = place(share.as_deref()).await;
        let told = match connection(&wires.ctx, &view).await {
            // It may become another service under the same address; that is seen at the next change
            // of its object.
            Ok(connected) if !connected.provider.capabilities().tells_changes => {
                drop(place);
                return std::future::pending().await;
            }
            Ok(connected) => {
                connected.provider.changes(after.as_deref()).await.map_err(|e| Problem::from(&e))
            }
            Err(problem) => Err(problem),
        };
        drop(place);
        let asked = match told {
            Ok(told) => {
                let gap = told.reset;
                // From where it began, or from after a gap, links may have looked too early.
                let all = gap || after.is_none();
                if (all || !told.clients.is_empty())
                    && let Some(share) = &share
                {
                    share.may_wake().await;
                }
                if all {
                    tracing::info!(provider = %view.claim.name, "all links of the provider look again: what was changed so far isn't known");
                    wires.links_of(&view);
                } else if !told.clients.is_empty() {
                    wires.clients_changed(&view, &told.clients);
                }
                after = Some(told.next);
                match (gap, all || !told.clients.is_empty()) {
                    (true, _) => Asked::Gap,
                    (false, true) => Asked::Changes,
                    (false, false) => Asked::Nothing,
                }
            }
            Err(problem) => {
                tracing::debug!(provider = %view.claim.name, reason = problem.reason, "the provider doesn't tell of changes now");
                Asked::Failed
            }
        };
        tokio::time::sleep(pause.after(asked)).await;
    }
}
