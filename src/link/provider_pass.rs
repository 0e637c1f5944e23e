//! One pass over one provider: connect, keep what unregistering needs, hold it until its links have
//! let go, say how it is.

use super::cache::Key;
use super::claim;
use super::claimed::Claimant;
use super::connect::lend_to_stated;
use super::context::Context;
use super::observe::{connection, credentials_of};
use super::problem::{Mend, Problem};
use super::providers::ProviderView;
use super::store::KeptProvider;
use crate::api::common::Condition;
use crate::api::provider::ProviderStatus;
use crate::api::{ApplicationLink, ClusterLinkProvider, ConditionStatus, LinkProvider, names};
use crate::domain::Reason;
use crate::outgoing::backoff;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use std::fmt::Debug;
use std::time::Duration;

/// What a pass over a provider found.
pub struct Found {
    /// When to look again; `None` when there is nothing to look after.
    pub again: Option<Duration>,
    /// Whether links of it should look again now: it became ready, or ceased to be.
    pub turned: bool,
}

const GONE: Found = Found { again: None, turned: false };

/// Looks after a provider. `watched` are the namespaces that are watched; empty for all.
pub async fn reconcile(ctx: &Context, key: &Key, resync: Duration, watched: &[String]) -> Found {
    if key.namespace.is_empty() {
        match ctx.cluster_providers.get(key).filter(|p| ctx.serves(p)) {
            Some(p) => {
                let api: Api<ClusterLinkProvider> = Api::all(ctx.client.clone());
                run(ctx, &api, p.as_ref(), ProviderView::from(p.as_ref()), p.status.as_ref(), resync, watched)
                    .await
            }
            None => GONE,
        }
    } else {
        match ctx.link_providers.get(key) {
            Some(p) => {
                let api: Api<LinkProvider> = namespaced(&ctx.client, &key.namespace);
                run(ctx, &api, p.as_ref(), ProviderView::from(p.as_ref()), p.status.as_ref(), resync, watched)
                    .await
            }
            None => GONE,
        }
    }
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn run<K>(
    ctx: &Context,
    api: &Api<K>,
    object: &K,
    view: ProviderView,
    last: Option<&ProviderStatus>,
    resync: Duration,
    watched: &[String],
) -> Found
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let result = if view.deleting {
        release(ctx, api, object, &view, watched).await
    } else {
        take_up(ctx, api, object, &view).await
    };
    if view.deleting && matches!(result, Ok(true)) {
        ctx.connections.forget(&view.claim.uid);
        return Found { again: None, turned: true };
    }
    let problem = result.err();
    let status = status(&view, problem.as_ref(), last, Timestamp::now());
    let ready = |s: &ProviderStatus| {
        s.conditions.iter().find(|c| c.type_ == "Ready").map(|c| (c.status, c.reason.clone()))
    };
    let turned = last.and_then(ready) != ready(&status) || !view.held;
    if last != Some(&status) {
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "status": status }));
        if let Err(e) = api.patch_status(&object.name_any(), &params, &patch).await {
            let p = Problem::kube("the provider's status", &e);
            tracing::warn!(provider = %object.name_any(), reason = p.reason, "the status couldn't be written");
        }
    }
    let again = match &problem {
        None => resync.min(Duration::from_secs(60)),
        Some(p) if p.mend == Mend::Conflict => Duration::from_millis(100),
        Some(_) if view.deleting => Duration::from_secs(10),
        // A provider that comes back is noticed within this time, and then its links are told.
        Some(_) => ctx.remember(&view.claim.uid, |memo| {
            memo.attempts = memo.attempts.saturating_add(1);
            backoff(memo.attempts.saturating_sub(1), 0).mul_f64(0.2).min(Duration::from_secs(10))
        }),
    };
    if problem.is_none() {
        ctx.remember(&view.claim.uid, |memo| memo.attempts = 0);
    }
    Found { again: Some(again), turned }
}

async fn patch_finalizers<K>(api: &Api<K>, object: &K, finalizers: Vec<String>) -> Result<(), Problem>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({
        "metadata": { "finalizers": finalizers, "resourceVersion": object.resource_version() }
    }));
    match api.patch_metadata(&object.name_any(), &params, &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(()),
        Err(e) => Err(Problem::kube("the provider", &e)),
    }
}

async fn take_up<K>(ctx: &Context, api: &Api<K>, object: &K, view: &ProviderView) -> Result<bool, Problem>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    connection(ctx, view).await?;
    // Kept before it is held, and held before any link may use it: what a link needs in order to
    // let go is there whenever a link has something to let go.
    keep(ctx, view).await?;
    if !view.held {
        let mut finalizers = object.finalizers().to_vec();
        finalizers.push(names::PROVIDER_FINALIZER.to_owned());
        patch_finalizers(api, object, finalizers).await?;
    }
    Ok(true)
}

async fn keep(ctx: &Context, view: &ProviderView) -> Result<(), Problem> {
    let (service, credentials, lending) = credentials_of(ctx, view).await?;
    // They were read anew: what may not be sent isn't kept for later either.
    lend_to_stated(service, &lending)?;
    let mut kept = KeptProvider {
        kind: view.claim.kind,
        namespace: view.namespace.clone(),
        name: view.claim.name.clone(),
        uid: view.claim.uid.clone(),
        service: service.clone(),
        credentials,
        recorded_before: false,
    };
    let found = match ctx.store.provider(&view.claim.uid).await {
        Ok(found) => found,
        // A record that can't be read is written anew: all of it is known.
        Err(p) if p.why == Reason::RecordError => {
            ctx.store.forget_provider(&view.claim.uid).await?;
            None
        }
        Err(p) => return Err(p),
    };
    if let Some((old, _)) = &found {
        kept.recorded_before = old.recorded_before;
    }
    match found {
        Some((old, _)) if old == kept => Ok(()),
        Some((_, version)) => ctx.store.keep_provider(&kept, Some(&version)).await.map(drop),
        None => ctx.store.keep_provider(&kept, None).await.map(drop),
    }
}

/// Lets a deleted provider go once no link claims it. The links are asked of the API server
/// itself: whoever claims a provider looks at its mark after that.
async fn release<K>(
    ctx: &Context,
    api: &Api<K>,
    object: &K,
    view: &ProviderView,
    watched: &[String],
) -> Result<bool, Problem>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    if !view.held {
        return Ok(true);
    }
    let users = users(ctx, view, watched).await?;
    if let Some(first) = users.first() {
        return Err(Problem::wait(
            Reason::InUse,
            format!(
                "the provider is being deleted and waits for its links to let go: {first}{}; delete these links, or name \
                 another provider in them",
                if users.len() > 1 { format!(" and {} more", users.len() - 1) } else { String::new() }
            ),
        ));
    }
    ctx.store.forget_provider(&view.claim.uid).await?;
    let left = object.finalizers().iter().filter(|f| *f != names::PROVIDER_FINALIZER).cloned().collect();
    patch_finalizers(api, object, left).await?;
    Ok(true)
}

async fn users(ctx: &Context, view: &ProviderView, watched: &[String]) -> Result<Vec<String>, Problem> {
    let apis: Vec<Api<ApplicationLink>> = match (&view.namespace, watched) {
        (Some(n), _) => vec![namespaced(&ctx.client, n)],
        (None, []) => vec![Api::all(ctx.client.clone())],
        (None, many) => many.iter().map(|n| namespaced(&ctx.client, n)).collect(),
    };
    let mut users = Vec::new();
    for api in apis {
        let mut params = ListParams::default().limit(500);
        loop {
            let page = api.list_metadata(&params).await.map_err(|e| Problem::kube("the links", &e))?;
            for link in &page.items {
                let names_it = claim::hints(link.annotations()).contains(&view.claim);
                let held = link.finalizers().iter().any(|f| f == names::LINK_FINALIZER);
                if names_it && held && claims(ctx, link, view).await? {
                    users.push(format!("{}/{}", link.namespace().unwrap_or_default(), link.name_any()));
                }
            }
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
    }
    Ok(users)
}

/// Whether a link that names a provider was registered there, as far as anybody can tell.
async fn claims(
    ctx: &Context,
    link: &PartialObjectMeta<ApplicationLink>,
    view: &ProviderView,
) -> Result<bool, Problem> {
    // Without keys nothing that is written there can be told from what somebody made up.
    let Ok(keys) = ctx.installation.keys() else { return Ok(true) };
    let (namespace, uid) = (link.namespace().unwrap_or_default(), link.uid().unwrap_or_default());
    let cached = ctx.links.get(&Key::new(namespace.as_str(), link.name_any()));
    let status = cached.as_ref().filter(|l| l.uid() == link.uid()).and_then(|l| l.status.as_ref());
    let kept = ctx.store.clients(&uid).await?;
    let claimant = Claimant {
        namespace: &namespace,
        uid: &uid,
        annotations: link.annotations(),
        said: status.and_then(|s| s.provider.as_ref()),
        kept: kept.as_ref().map(|(kept, _)| kept),
    };
    claimant.has(ctx, &keys, &view.claim).await
}

fn status(
    view: &ProviderView,
    problem: Option<&Problem>,
    last: Option<&ProviderStatus>,
    now: Timestamp,
) -> ProviderStatus {
    let condition = |type_: &str, status: bool, reason: Reason, message: &str| Condition {
        type_: type_.to_owned(),
        status: if status { ConditionStatus::True } else { ConditionStatus::False },
        reason: reason.to_string(),
        message: message.chars().take(1024).collect(),
        last_transition_time: String::new(),
        observed_generation: view.generation,
    };
    let mut conditions = match problem {
        None => vec![condition(
            "Ready",
            true,
            Reason::Connected,
            "the provider answers and takes the operator's credential",
        )],
        Some(p) => {
            let state = if p.mend == Mend::Edit { "Stalled" } else { "Reconciling" };
            vec![condition("Ready", false, p.why, &p.message), condition(state, true, p.why, &p.message)]
        }
    };
    for c in &mut conditions {
        let same =
            last.and_then(|l| l.conditions.iter().find(|o| o.type_ == c.type_ && o.status == c.status));
        let whole = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        c.last_transition_time = same.map_or(whole, |o| o.last_transition_time.clone());
    }
    ProviderStatus {
        observed_generation: view.generation,
        type_: view.service.as_ref().map(|s| s.type_().to_owned()),
        url: view.service.as_ref().map(|s| s.url().to_owned()),
        conditions,
    }
}

/// The key of a provider in the scheduler.
pub fn key_of(view: &ProviderView) -> Key {
    Key::new(view.namespace.clone().unwrap_or_default(), view.claim.name.clone())
}
