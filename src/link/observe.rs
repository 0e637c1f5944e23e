//! Looks at the link's surroundings: its provider, its client there, its Secrets, its grant.
//! Reads alone; what it finds is facts, and what it can't find out is a [`Problem`] among them.

mod incoming;
pub mod outgoing;

use super::claim::{self, Claim};
use super::claimed::Claimant;
use super::connect::connect;
use super::connections::{Connected, Connections};
use super::consent::{Consent, Ticket};
use super::context::Context;
use super::credentials::{self, Credentials, Lending};
use super::decide::Goal;
use super::derive;
use super::facts::{Elsewhere, LastSecret, Observed, PlaceFacts, SecretFact};
use super::handover;
use super::identity::Identity;
use super::kept_client::KeptClients;
use super::lend;
use super::problem::Problem;
use super::providers::ProviderView;
use super::secrets::Secrets;
use crate::api::link::ProviderKind;
use crate::api::provider::Service;
use crate::api::{ApplicationLink, names};
use crate::domain::{ClientId, Deletion, KeyRing, Reason};
use incoming::{Look, client_at};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use std::collections::HashMap;
use std::sync::Arc;

/// The connections that a pass uses, by the provider's UID.
pub type Handles = HashMap<String, Arc<Connected>>;

/// What is known of a link without a look at anything else.
pub fn blank(ctx: &Context, link: &ApplicationLink) -> Observed {
    Observed {
        namespace_uid: String::new(),
        name: link.name_any(),
        uid: link.uid().unwrap_or_default(),
        finalizer: link.finalizers().iter().any(|f| f == names::LINK_FINALIZER),
        claims: claim::hints(link.annotations()),
        claims_current: true,
        last: last_secret(link),
        kept: None,
        accepted_endpoint: link.annotations().get(names::ACCEPT_ENDPOINT).cloned(),
        keys: ctx.installation.keys(),
        incoming: None,
        outgoing: None,
        elsewhere: Vec::new(),
        strays: Vec::new(),
        grant: None,
        consent: None,
        ticket: link.annotations().get(names::AUTHORIZE).and_then(|t| Ticket::read(t, Timestamp::now())),
        completion: link.annotations().get(names::COMPLETE).cloned(),
        namespace: link.namespace().unwrap_or_default(),
    }
}

/// Looks.
pub async fn observe(ctx: &Context, link: &ApplicationLink, goal: &Goal) -> (Observed, Handles) {
    let mut handles = Handles::new();
    let mut seen = blank(ctx, link);
    // First, since a deletion that keeps the Secrets must know them also when nothing else is known.
    seen.strays = ctx.own_secrets(&seen.namespace, &seen.uid);
    let (Ok(keys), Ok(space)) = (
        seen.keys.clone(),
        ctx.namespaces.get(&ctx.client, &seen.namespace, link.creation_timestamp().map(|t| t.0)).await,
    ) else {
        let problem = Problem::wait(
            Reason::ApiServerUnreachable,
            "the link's namespace can't be read; it is tried again",
        );
        seen.keys = seen.keys.and(Err(problem));
        return (seen, handles);
    };
    seen.namespace_uid = space.uid.clone();
    let secrets = Secrets::new(ctx.client.clone(), &seen.namespace);
    match ctx.grant_of(link).await {
        Ok(grant) => seen.grant = grant,
        Err(problem) => {
            seen.keys = Err(problem);
            return (seen, handles);
        }
    }
    match consent(ctx, link, goal).await {
        Ok(consent) => seen.consent = consent,
        Err(problem) => {
            seen.keys = Err(problem);
            return (seen, handles);
        }
    }
    let all = ctx.providers();
    match known_places(ctx, link, &keys, &all).await {
        Ok(known) => {
            (seen.kept, seen.claims) = known;
            let (namespace, uid) = (&seen.namespace, &seen.uid);
            seen.claims_current = claim::is_current(&keys, namespace, uid, &seen.claims, link.annotations());
        }
        Err(problem) => {
            seen.keys = Err(problem);
            return (seen, handles);
        }
    }
    let mut wanted_secrets = Vec::new();
    let mut wanted_claim = None;
    match goal {
        Goal::Present(valid) => {
            if let Some(incoming) = &valid.incoming {
                wanted_secrets.push(incoming.secret.name.clone());
                let look = Look {
                    ctx,
                    link,
                    namespace_labels: &space.labels,
                    all: &all,
                    keys: &keys,
                    secrets: &secrets,
                };
                let (facts, handle) = look.incoming(valid, incoming, &mut seen).await;
                if let Ok(place) = &facts.place {
                    wanted_claim = Some(place.claim.clone());
                    handles.extend(handle.map(|h| (place.claim.uid.clone(), h)));
                }
                seen.incoming = Some(facts);
            }
            if let Some(outgoing) = &valid.outgoing {
                wanted_secrets.push(outgoing.secret.name.clone());
                seen.outgoing = Some(outgoing::facts(ctx, link, outgoing, &secrets).await);
            }
        }
        Goal::Absent { retain: true, .. } => secrets_to_release(ctx, link, &mut seen, &secrets).await,
        Goal::Absent { .. } => outgoing::token_to_revoke(ctx, link, &mut seen, &secrets, &keys).await,
        Goal::Unread => {}
    }
    let leave_all = matches!(goal, Goal::Absent { .. });
    let unrecorded = unrecorded(link, &seen, &all).filter(|_| leave_all || had_client(link));
    let settled = !matches!(goal, Goal::Unread) && seen.incoming.as_ref().is_none_or(|i| i.place.is_ok());
    if !leave_all && !settled {
        // Nothing is left as long as nobody knows what is wanted, so there is no look at it either.
        let unlooked = Err(Problem::wait(Reason::ProviderNotReady, "nobody looked there yet"));
        seen.elsewhere.extend(unrecorded.map(|claim| PlaceFacts { claim, identity: None, client: unlooked }));
    } else {
        let places: Vec<_> = seen.claims.iter().cloned().chain(unrecorded).collect();
        for claim in places.into_iter().filter(|c| Some(c) != wanted_claim.as_ref()) {
            let mut identity = None;
            let client =
                elsewhere(ctx, link, &claim, &mut seen, &all, &keys, (&mut handles, &mut identity)).await;
            seen.elsewhere.push(PlaceFacts { claim, identity, client });
        }
    }
    // What another link names is that one's: it takes it over as it is.
    let anothers = |name: &str| handover::wanted_by_another(&ctx.links, &seen.namespace, &seen.uid, name);
    let gone = matches!(goal, Goal::Absent { .. });
    let mut strays = std::mem::take(&mut seen.strays);
    strays.retain(|s| !wanted_secrets.contains(&s.name) && (gone || !anothers(&s.name)));
    seen.strays = strays;
    (seen, handles)
}

/// The consent under way. It may have been begun with a link that is newer than the one that the watch
/// brought; what is decided of it, and of the grant in it, is decided by the link as it is.
async fn consent(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &Goal,
) -> Result<Option<(Consent, String)>, Problem> {
    let consent = ctx.consent_of(link).await?;
    let known = link.resource_version();
    if consent.is_some() && known.is_some() && matches!(goal, Goal::Present(_)) {
        let api: Api<ApplicationLink> =
            Api::namespaced(ctx.client.clone(), &link.namespace().unwrap_or_default());
        let live = api.get_metadata_opt(&link.name_any()).await.map_err(|e| Problem::kube("the link", &e))?;
        if live.is_none_or(|live| live.resource_version() != known) {
            return Err(Problem::conflict("the link"));
        }
    }
    Ok(consent)
}

/// Whether the status knows of a client: then there is something to find again.
fn had_client(link: &ApplicationLink) -> bool {
    link.status.as_ref().is_some_and(|s| s.incoming.is_some())
}

/// Where the client may be though the annotation was edited away: the provider of the status.
fn unrecorded(link: &ApplicationLink, seen: &Observed, all: &[ProviderView]) -> Option<Claim> {
    let last = link.status.as_ref()?.provider.as_ref()?;
    let view = all.iter().find(|p| {
        p.claim.kind == last.kind
            && p.claim.name == last.name
            && p.namespace.as_ref().is_none_or(|n| *n == seen.namespace)
    })?;
    (!seen.claims.contains(&view.claim)).then(|| view.claim.clone())
}

/// What the schema was to make sure of.
fn no_service() -> Problem {
    Problem::edit(
        Reason::InvalidSpec,
        "exactly one of bundled, hydra, keycloak, registration and bitbucket must be set",
    )
}

/// What is kept of the link's clients, and where it is known to have been registered.
type Known = (Option<(KeptClients, String)>, Vec<Claim>);

/// Finds out which of the link's claims count, and where what a version before kept belongs.
///
/// # Errors
/// [`Problem`] when the API server doesn't say.
async fn known_places(
    ctx: &Context,
    link: &ApplicationLink,
    keys: &KeyRing,
    all: &[ProviderView],
) -> Result<Known, Problem> {
    let mut kept = ctx.kept_clients_of(link).await?;
    let claimant = Claimant { kept: kept.as_ref().map(|(kept, _)| kept), ..Claimant::of(link) };
    let claims = claimant.claims(ctx, keys).await?;
    let Some((record, _)) = kept.as_mut().filter(|(record, _)| !record.unbound().is_empty()) else {
        return Ok((kept, claims));
    };
    // By the claims, the oldest first: what was kept is of a place where the link was first. A provider
    // of a tenant's that came later isn't meant, whatever names it now.
    let mut identities: Vec<Identity> = Vec::new();
    for claim in &claims {
        let known = match ctx.store.provider(&claim.uid).await? {
            Some((kept, _)) => {
                Some((kept.recorded_before, kept.identity(&link.namespace().unwrap_or_default(), all)))
            }
            None => all
                .iter()
                .find(|v| v.claim == *claim)
                .and_then(|v| Some((false, v.identity(false, &link.namespace().unwrap_or_default(), all)?))),
        };
        let cluster = claim.kind == ProviderKind::ClusterLinkProvider;
        identities.extend(known.filter(|(before, _)| cluster || *before).map(|(_, identity)| identity));
    }
    // The annotation may have been taken off; no tenant writes the status.
    if claims.is_empty()
        && let Some(said) = link.status.as_ref().and_then(|s| s.provider.as_ref())
    {
        let namespace = link.namespace().unwrap_or_default();
        let view = all
            .iter()
            .find(|v| v.claim.kind == said.kind && v.claim.name == said.name && v.is_visible_to(&namespace));
        if let Some(view) = view {
            let record = ctx.store.provider(&view.claim.uid).await?;
            let before = record.is_some_and(|(record, _)| record.recorded_before);
            let cluster = view.claim.kind == ProviderKind::ClusterLinkProvider;
            identities.extend(view.identity(before, &namespace, all).filter(|_| cluster || before));
        }
    }
    record.bind(&identities);
    Ok((kept, claims))
}

/// What a provider is, and the credentials that its spec refers to.
///
/// # Errors
/// [`Problem`] while they aren't there.
pub async fn credentials_of<'v>(
    ctx: &Context,
    view: &'v ProviderView,
) -> Result<(&'v Service, Credentials, Lending), Problem> {
    let service = view.service.as_ref().ok_or_else(no_service)?;
    let secrets = match &view.namespace {
        Some(namespace) => Secrets::new(ctx.client.clone(), namespace),
        None => Secrets::of_platform_team(ctx.client.clone(), &ctx.namespace),
    };
    let demanded = view.namespace.is_some() && ctx.require_allowed_hosts;
    let (credentials, lending) = credentials::read(service, &secrets, demanded).await?;
    Ok((service, credentials, lending))
}

/// The connection to a provider that is there.
///
/// # Errors
/// [`Problem`] while there is none.
pub async fn connection(ctx: &Context, view: &ProviderView) -> Result<Arc<Connected>, Problem> {
    let version = format!("{}", view.generation);
    ctx.connections
        .get(&view.claim.uid, &version, async {
            let (service, credentials, lending) = credentials_of(ctx, view).await?;
            let kind = view.claim.kind;
            let mut connected =
                connect(&ctx.guard, kind, service, &credentials, &lending, &ctx.identity).await?;
            if view.claim.kind == ProviderKind::LinkProvider {
                let record = match ctx.store.provider(&view.claim.uid).await {
                    // It is written anew once the provider is taken up.
                    Err(problem) if problem.why == Reason::RecordError => None,
                    other => other?,
                };
                connected.recorded_before = record.is_some_and(|(record, _)| record.recorded_before);
            }
            Ok(connected)
        })
        .await
}

/// What the status last said of the client's secret.
fn last_secret(link: &ApplicationLink) -> LastSecret {
    let Some(status) = &link.status else { return LastSecret::default() };
    let Some(incoming) = &status.incoming else {
        return LastSecret { serial: status.highest_serial.unwrap_or_default(), ..LastSecret::default() };
    };
    let time = |text: &Option<String>| {
        let at = text.as_deref().and_then(|t| t.parse::<Timestamp>().ok());
        at.map_or(0, Timestamp::as_second)
    };
    LastSecret {
        serial: incoming.serial,
        since: time(&incoming.rotated_at),
        previous_until: time(&incoming.previous_until),
        request: incoming.last_request.clone().unwrap_or_default(),
        deletes: incoming.on_deletion.as_deref() == Some(Deletion::Delete.as_str()),
    }
}

/// The client at a place that isn't wanted: by the provider object where it is there and works,
/// else by what was kept of it.
async fn elsewhere(
    ctx: &Context,
    link: &ApplicationLink,
    claim: &Claim,
    seen: &mut Observed,
    all: &[ProviderView],
    keys: &KeyRing,
    (handles, found): (&mut Handles, &mut Option<Identity>),
) -> Result<Elsewhere, Problem> {
    let live = all.iter().find(|p| p.claim == *claim && p.is_visible_to(&seen.namespace));
    *found = live.and_then(|view| view.identity(false, &seen.namespace, all));
    let connected = match live {
        Some(view) => connection(ctx, view).await.and_then(|connected| {
            let identity =
                view.identity(connected.recorded_before, &seen.namespace, all).ok_or_else(no_service)?;
            Ok((connected, identity))
        }),
        None => Err(Problem::wait(
            Reason::ProviderNotFound,
            format!("{} {}, where the client is registered, doesn't exist", claim.kind.as_str(), claim.name),
        )),
    };
    let (connected, identity) = match connected {
        Ok(connected) => connected,
        // What a Secret forbids isn't done with a copy of it.
        Err(problem) if lend::forbids(&problem) => return Err(problem),
        Err(problem) => match ctx.store.provider(&claim.uid).await? {
            // A claim is only as good as the namespace that it stands in.
            Some((kept, version)) if kept.namespace.as_ref().is_none_or(|n| *n == seen.namespace) => {
                let key = Connections::kept(&claim.uid);
                let identity = kept.identity(&link.namespace().unwrap_or_default(), all);
                *found = Some(identity.clone());
                let lending = Lending::default();
                let connecting =
                    connect(&ctx.guard, kept.kind, &kept.service, &kept.credentials, &lending, &ctx.identity);
                (ctx.connections.get(&key, &version, connecting).await?, identity)
            }
            _ => return Err(problem),
        },
    };
    let caps = connected.provider.capabilities();
    // Of a link that goes and whose record is gone, the spec says which client it had adopted.
    let adopt = link.spec.incoming.as_ref().and_then(|i| i.adopt.as_ref());
    let adopt = adopt.and_then(|a| ClientId::parse(&a.client_id).ok());
    let at = derive::lookup(keys, &identity, caps, adopt.as_ref(), seen.kept_at(&identity), seen);
    let Some(at) = at else {
        return Err(Problem::edit(
            Reason::InvalidName,
            "the link's name can't be part of a client identifier",
        ));
    };
    let client = client_at(ctx, claim, &connected, &at, &identity, link, seen).await?;
    let at =
        derive::lookup(keys, &identity, caps, adopt.as_ref(), seen.kept_at(&identity), seen).unwrap_or(at);
    handles.insert(claim.uid.clone(), connected);
    Ok(Elsewhere { identity, caps, at, client })
}

/// For a link that goes and leaves its Secrets: those that the status names too, whatever the watch
/// saw. One with our owner reference would go with the link.
async fn secrets_to_release(ctx: &Context, link: &ApplicationLink, seen: &mut Observed, secrets: &Secrets) {
    let status = link.status.clone().unwrap_or_default();
    let names =
        status.incoming.map(|i| i.secret_name).into_iter().chain(status.outgoing.map(|o| o.secret_name));
    for name in names {
        if seen.strays.iter().any(|s| s.name == name) {
            continue;
        }
        match ctx.look_at(secrets, &name, link).await {
            SecretFact::Own(own) => seen.strays.push(super::facts::SecretId { name, uid: own.uid }),
            SecretFact::Unknown(problem) => seen.keys = Err(problem),
            SecretFact::Absent | SecretFact::Foreign(_) => {}
        }
    }
}
