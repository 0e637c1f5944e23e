//! What providers tell of their clients: each is asked without end what others changed, and the
//! links of those clients look again at once, rather than at their next turn.

use super::wires::Wires;
use crate::link::observe::connection;
use crate::link::providers::ProviderView;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

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

/// Follows all providers that tell of changes.
pub(super) async fn follow(wires: Arc<Wires>) {
    let mut following: HashMap<(String, i64), Told> = HashMap::new();
    let mut often = tokio::time::interval(OFTEN);
    loop {
        often.tick().await;
        let views = wires.ctx.providers();
        let key = |v: &ProviderView| (v.claim.uid.clone(), v.generation);
        following
            .retain(|k, task| !task.0.is_finished() && views.iter().any(|v| key(v) == *k && !v.deleting));
        for view in views.into_iter().filter(|v| v.held && !v.deleting) {
            let task = || Told(tokio::spawn(ask(wires.clone(), view.clone())));
            following.entry(key(&view)).or_insert_with(task);
        }
    }
}

/// Asks one provider without end.
async fn ask(wires: Arc<Wires>, view: ProviderView) {
    let mut after: Option<String> = None;
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
                if told.reset && after.is_some() {
                    tracing::info!(provider = %view.claim.name, "the provider may have changed without our knowing: all its links look again");
                    wires.links_of(&view);
                } else if !told.clients.is_empty() {
                    wires.clients_changed(&view, &told.clients);
                }
                after = Some(told.next);
                // One that answers at once every time is asked no more often than that.
                tokio::time::sleep(PAUSE).await;
            }
            Err(e) => {
                tracing::debug!(provider = %view.claim.name, reason = e.reason(), "the provider doesn't tell of changes now");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
