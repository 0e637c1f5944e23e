//! Records without a link: somebody took a finalizer off by hand, or a backup brought a record
//! back. Grants are revoked and removed, by the same plan as a deletion; providers that nobody
//! uses are forgotten.

use crate::api::ApplicationLink;
use crate::link::cache::Key;
use crate::link::claim::{self, Standing};
use crate::link::consent::Consent;
use crate::link::context::Context;
use crate::link::decide::{Goal, decide};
use crate::link::execute::execute;
use crate::link::facts::Observed;
use crate::link::grant::{Grant, LinkRef};
use crate::link::observe::{Handles, blank};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::collections::BTreeMap;

/// Sweeps. `watched` are the namespaces that are watched; empty for all.
pub async fn sweep(ctx: &Context, watched: &[String]) {
    // Before there are keys nothing is done at all.
    let Ok(keys) = ctx.installation.keys() else { return };
    if ctx.tenure.is_lost() {
        return;
    }
    ctx.taken.clear().await;
    for left in left_behind(ctx).await.into_values() {
        let ours = watched.is_empty() || watched.contains(&left.of.namespace);
        if ours && is_orphan(ctx, &left.of).await {
            drop_records(ctx, left).await;
        } else if ours {
            forget_unread(ctx, left.grant).await;
        }
    }
    let Ok(kept) = ctx.store.providers().await else { return };
    let views = ctx.providers();
    for (provider, _) in kept {
        let there = views.iter().any(|v| v.claim.uid == provider.uid);
        let proven = |l: &ApplicationLink, stated: &claim::Stated| {
            let (namespace, uid) = (l.namespace().unwrap_or_default(), l.uid().unwrap_or_default());
            stated.claim.uid == provider.uid && stated.standing(&keys, &namespace, &uid) != Standing::Forged
        };
        let used = ctx.links.all().iter().any(|l| claim::read(l.annotations()).iter().any(|s| proven(l, s)));
        let ours = provider.namespace.as_ref().is_none_or(|n| watched.is_empty() || watched.contains(n));
        if !there && !used && ours && ctx.store.forget_provider(&provider.uid).await.is_ok() {
            tracing::info!(provider = %provider.name, "forgot a provider that is gone and that no link uses");
        }
    }
}

/// What is kept of one link.
struct Left {
    of: LinkRef,
    grant: Option<(Grant, String)>,
    consent: Option<(Consent, String)>,
}

/// The grants and consents that there are, by their link's UID.
async fn left_behind(ctx: &Context) -> BTreeMap<String, Left> {
    let mut all = BTreeMap::<String, Left>::new();
    let of = |link: &LinkRef| Left { of: link.clone(), grant: None, consent: None };
    match ctx.store.grants().await {
        Ok(grants) => {
            for found in grants {
                let link = found.0.link.clone();
                all.entry(link.uid.clone()).or_insert_with(|| of(&link)).grant = Some(found);
            }
        }
        Err(p) => tracing::warn!(reason = p.reason, "the grants can't be listed"),
    }
    match ctx.store.consents().await {
        Ok(consents) => {
            for found in consents {
                let link = found.0.link.clone();
                all.entry(link.uid.clone()).or_insert_with(|| of(&link)).consent = Some(found);
            }
        }
        Err(p) => tracing::warn!(reason = p.reason, "the consents can't be listed"),
    }
    all
}

/// Forgets a reply that nobody could read, once its time is over.
async fn forget_unread(ctx: &Context, grant: Option<(Grant, String)>) {
    let now = Timestamp::now();
    if let Some((mut grant, version)) = grant
        && grant.unread.take_if(|unread| !unread.is_kept(now)).is_some()
        // Where somebody else wrote at this moment, the next sweep does it.
        && let Err(p) = ctx.store.save_grant(&grant, Some(&version)).await
    {
        tracing::debug!(link = %grant.link.name, reason = p.reason, "an old reply couldn't be removed");
    }
}

/// Whether a link is gone: not in the cache, and not at the API server either.
async fn is_orphan(ctx: &Context, of: &LinkRef) -> bool {
    let key = Key::new(of.namespace.as_str(), of.name.as_str());
    if ctx.links.get(&key).is_some_and(|l| l.uid().as_deref() == Some(&of.uid)) {
        return false;
    }
    let api: Api<ApplicationLink> = Api::namespaced(ctx.client.clone(), &of.namespace);
    match api.get_metadata_opt(&of.name).await {
        Ok(found) => found.is_none_or(|l| l.uid().as_deref() != Some(&of.uid)),
        Err(_) => false,
    }
}

async fn drop_records(ctx: &Context, left: Left) {
    let Left { of, grant, consent } = left;
    // A link that isn't there any more, as far as the plan of a deletion needs one.
    let Ok(link) = serde_json::from_value::<ApplicationLink>(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": { "namespace": of.namespace, "name": of.name, "uid": of.uid },
        "spec": { "application": { "name": of.name } },
    })) else {
        return;
    };
    let seen = Observed { grant, consent, ..blank(ctx, &link) };
    let decision = decide(&Goal::Absent { retain: false, force: false }, &seen, Timestamp::now());
    let outcome = execute(ctx, &link, &seen, &Handles::new(), &decision.plan).await;
    match outcome.pending {
        None => {
            tracing::info!(namespace = %of.namespace, link = %of.name, "dropped what was kept of a link that is gone")
        }
        Some(p) => {
            tracing::warn!(namespace = %of.namespace, link = %of.name, reason = p.reason, "what was kept of a link that is gone can't be dropped yet")
        }
    }
}
