//! Records without a link: somebody took a finalizer off by hand, or a backup brought a record
//! back. Grants are revoked and removed, by the same plan as a deletion; providers that nobody
//! uses are forgotten.

use crate::api::ApplicationLink;
use crate::link::cache::Key;
use crate::link::claim;
use crate::link::context::Context;
use crate::link::decide::{Goal, decide};
use crate::link::execute::execute;
use crate::link::facts::{LastSecret, Observed};
use crate::link::grant::Grant;
use crate::link::observe::Handles;
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use serde_json::json;

/// Sweeps. `watched` are the namespaces that are watched; empty for all.
pub async fn sweep(ctx: &Context, watched: &[String]) {
    // Before there are keys nothing is done at all.
    if ctx.installation.keys().is_err() {
        return;
    }
    match ctx.store.grants().await {
        Ok(grants) => {
            for (grant, version) in grants {
                let ours = watched.is_empty() || watched.contains(&grant.link.namespace);
                if ours && is_orphan(ctx, &grant).await {
                    drop_grant(ctx, grant, version).await;
                }
            }
        }
        Err(p) => tracing::warn!(reason = p.reason, "the grants can't be listed"),
    }
    let Ok(kept) = ctx.store.providers().await else { return };
    let views = ctx.providers();
    for (provider, _) in kept {
        let there = views.iter().any(|v| v.claim.uid == provider.uid);
        let used = ctx
            .links
            .all()
            .iter()
            .any(|l| claim::read(l.annotations()).iter().any(|c| c.uid == provider.uid));
        let ours = provider.namespace.as_ref().is_none_or(|n| watched.is_empty() || watched.contains(n));
        if !there && !used && ours && ctx.store.forget_provider(&provider.uid).await.is_ok() {
            tracing::info!(provider = %provider.name, "forgot a provider that is gone and that no link uses");
        }
    }
}

/// Whether a grant's link is gone: not in the cache, and not at the API server either.
async fn is_orphan(ctx: &Context, grant: &Grant) -> bool {
    let key = Key::new(grant.link.namespace.as_str(), grant.link.name.as_str());
    if ctx.links.get(&key).is_some_and(|l| l.uid().as_deref() == Some(&grant.link.uid)) {
        return false;
    }
    let api: Api<ApplicationLink> = Api::namespaced(ctx.client.clone(), &grant.link.namespace);
    match api.get_metadata_opt(&grant.link.name).await {
        Ok(found) => found.is_none_or(|l| l.uid().as_deref() != Some(&grant.link.uid)),
        Err(_) => false,
    }
}

async fn drop_grant(ctx: &Context, grant: Grant, version: String) {
    let of = grant.link.clone();
    // A link that isn't there any more, as far as the plan of a deletion needs one.
    let Ok(link) = serde_json::from_value::<ApplicationLink>(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": { "namespace": of.namespace, "name": of.name, "uid": of.uid },
        "spec": { "application": { "name": of.name } },
    })) else {
        return;
    };
    let seen = Observed {
        namespace: of.namespace.clone(),
        namespace_uid: String::new(),
        name: of.name.clone(),
        uid: of.uid.clone(),
        finalizer: false,
        claims: vec![],
        last: LastSecret::default(),
        kept: None,
        accepted_endpoint: None,
        keys: ctx.installation.keys(),
        incoming: None,
        outgoing: None,
        elsewhere: vec![],
        strays: vec![],
        grant: Some((grant, version)),
    };
    let decision = decide(&Goal::Absent { retain: false, force: false }, &seen, Timestamp::now());
    let outcome = execute(ctx, &link, &seen, &Handles::new(), &decision.plan).await;
    match outcome.pending {
        None => {
            tracing::info!(namespace = %of.namespace, link = %of.name, "dropped the grant of a link that is gone")
        }
        Some(p) => {
            tracing::warn!(namespace = %of.namespace, link = %of.name, reason = p.reason, "the grant of a link that is gone can't be dropped yet")
        }
    }
}
