//! What providers tell of their clients: each is asked without end what others changed, and the
//! links of those clients look again at once, rather than at their next turn.

use super::wires::Wires;
use crate::link::observe::connection;
use crate::link::providers::ProviderView;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How often it is looked which providers there are.
const OFTEN: Duration = Duration::from_secs(2);
/// How long a provider that doesn't answer is left alone.
const PAUSE: Duration = Duration::from_secs(1);

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
    let first = wires.ctx.providers().into_iter().filter(stands).map(|view| {
        let wires = wires.clone();
        async move {
            let after = timeout(FIRST, begin(&wires, &view)).await.ok().flatten();
            (view, after)
        }
    });
    for (view, after) in futures::future::join_all(first).await {
        following.insert(key(&view), Told(tokio::spawn(ask(wires.clone(), view, after))));
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
            let task = || Told(tokio::spawn(ask(wires.clone(), view.clone(), None)));
            following.entry(key(&view)).or_insert_with(task);
        }
    }
}

fn stands(view: &ProviderView) -> bool {
    view.held && !view.deleting
}

/// Where to begin at a provider that answers and tells of changes.
async fn begin(wires: &Wires, view: &ProviderView) -> Option<String> {
    let connected = connection(&wires.ctx, view).await.ok()?;
    if !connected.provider.capabilities().tells_changes {
        return None;
    }
    connected.provider.changes(None).await.ok().map(|told| told.next)
}

/// Asks one provider without end.
async fn ask(wires: Arc<Wires>, view: ProviderView, mut after: Option<String>) {
    loop {
        let Ok(connected) = connection(&wires.ctx, &view).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if !connected.provider.capabilities().tells_changes {
            // It may become another service under the same address; that is seen at the next change
            // of its object.
            return std::future::pending().await;
        }
        match connected.provider.changes(after.as_deref()).await {
            Ok(told) => {
                // From where it began, or from after a gap, links may have looked too early.
                if told.reset || after.is_none() {
                    tracing::info!(provider = %view.claim.name, "all links of the provider look again: what was changed so far isn't known");
                    wires.links_of(&view);
                } else if !told.clients.is_empty() {
                    wires.clients_changed(&view, &told.clients);
                }
                after = Some(told.next);
            }
            Err(e) => {
                tracing::debug!(provider = %view.claim.name, reason = e.reason(), "the provider doesn't tell of changes now");
            }
        }
        // One that answers, or fails, at once every time is asked no more often than that.
        tokio::time::sleep(PAUSE).await;
    }
}
