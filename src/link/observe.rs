//! Looks at the link's surroundings: its provider, its client there, its Secrets, its grant.
//! Reads alone; what it finds is facts, and what it can't find out is a [`Problem`] among them.

use super::claim::{self, Claim};
use super::connect::connect;
use super::connections::{Connected, Connections};
use super::context::Context;
use super::credentials::{self, Credentials};
use super::decide::Goal;
use super::derive;
use super::facts::{IncomingFacts, Observed, OutgoingFacts, Place, PlaceFacts, SecretFact};
use super::problem::Problem;
use super::providers::{self, ProviderView};
use super::secrets::Secrets;
use super::validate::{GrantGoal, IncomingGoal, OutgoingGoal, ServerGoal, ValidatedLink};
use crate::api::provider::Service;
use crate::api::{ApplicationLink, names};
use crate::domain::{ClientId, KeyRing};
use crate::http::Trust;
use crate::outgoing::{ClientCredentials, ServerEndpoints};
use crate::provider::{ClientRef, RegisteredClient};
use kube::ResourceExt as _;
use std::collections::HashMap;
use std::sync::Arc;

/// The connections that a pass uses, by the provider's UID.
pub type Handles = HashMap<String, Arc<Connected>>;

/// Looks.
pub async fn observe(ctx: &Context, link: &ApplicationLink, goal: &Goal) -> (Observed, Handles) {
    let namespace = link.namespace().unwrap_or_default();
    let claims = claim::read(link.annotations());
    let serial = link.status.as_ref().and_then(|s| s.incoming.as_ref()).map_or(0, |i| i.serial);
    let mut handles = Handles::new();
    let mut seen = Observed {
        namespace_uid: String::new(),
        name: link.name_any(),
        uid: link.uid().unwrap_or_default(),
        finalizer: link.finalizers().iter().any(|f| f == names::LINK_FINALIZER),
        claims,
        serial,
        accepted_endpoint: link.annotations().get(names::ACCEPT_ENDPOINT).cloned(),
        keys: ctx.installation.keys(),
        incoming: None,
        outgoing: None,
        elsewhere: Vec::new(),
        strays: Vec::new(),
        grant: None,
        namespace,
    };
    // First, since a deletion that keeps the Secrets must know them also when nothing else is known.
    seen.strays = ctx.own_secrets(&seen.namespace, &seen.uid);
    let (Ok(keys), Ok(space)) = (
        seen.keys.clone(),
        ctx.namespaces.get(&ctx.client, &seen.namespace, link.creation_timestamp().map(|t| t.0)).await,
    ) else {
        let problem =
            Problem::wait("ApiServerUnreachable", "the link's namespace can't be read; it is tried again");
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
    let all = ctx.providers();
    let mut wanted_secrets = Vec::new();
    let mut wanted_claim = None;
    match goal {
        Goal::Present(valid) => {
            if let Some(incoming) = &valid.incoming {
                wanted_secrets.push(incoming.secret.name.clone());
                let facts =
                    incoming_facts(ctx, link, valid, incoming, &seen, &space.labels, &all, &keys, &secrets)
                        .await;
                let (facts, handle) = facts;
                if let Ok(place) = &facts.place {
                    wanted_claim = Some(place.claim.clone());
                    handles.extend(handle.map(|h| (place.claim.uid.clone(), h)));
                }
                seen.incoming = Some(facts);
            }
            if let Some(outgoing) = &valid.outgoing {
                wanted_secrets.push(outgoing.secret.name.clone());
                seen.outgoing = Some(outgoing_facts(ctx, link, outgoing, &secrets).await);
            }
        }
        Goal::Absent { retain: true, .. } => secrets_to_release(link, &mut seen, &secrets).await,
        Goal::Absent { .. } => token_to_revoke(link, &mut seen, &secrets, &keys).await,
    }
    let leave_all = matches!(goal, Goal::Absent { .. });
    let incoming_settled = seen.incoming.as_ref().is_none_or(|i| i.place.is_ok());
    if leave_all || incoming_settled {
        let mut places = seen.claims.clone();
        if leave_all {
            places.extend(unrecorded(link, &seen, &all));
        }
        for claim in places.into_iter().filter(|c| Some(c) != wanted_claim.as_ref()) {
            let client = elsewhere(ctx, &claim, &seen, &all, &keys, &mut handles).await;
            seen.elsewhere.push(PlaceFacts { claim, client });
        }
    }
    seen.strays.retain(|s| !wanted_secrets.contains(&s.name));
    (seen, handles)
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

/// What a provider is, and the credentials that its spec refers to.
///
/// # Errors
/// [`Problem`] while they aren't there.
pub async fn credentials_of<'v>(
    ctx: &Context,
    view: &'v ProviderView,
) -> Result<(&'v Service, Credentials), Problem> {
    let service = view.service.as_ref().ok_or_else(|| {
        Problem::edit(
            "InvalidSpec",
            "exactly one of bundled, hydra, keycloak, registration and bitbucket must be set",
        )
    })?;
    let namespace = view.namespace.as_deref().unwrap_or(&ctx.namespace);
    let secrets = Secrets::new(ctx.client.clone(), namespace);
    Ok((service, credentials::read(service, &secrets).await?))
}

/// The connection to a provider that is there.
///
/// # Errors
/// [`Problem`] while there is none.
pub async fn connection(ctx: &Context, view: &ProviderView) -> Result<Arc<Connected>, Problem> {
    let version = format!("{}", view.generation);
    ctx.connections
        .get(&view.claim.uid, &version, async {
            let (service, credentials) = credentials_of(ctx, view).await?;
            connect(&ctx.guard, view.claim.kind, service, &credentials, &ctx.identity).await
        })
        .await
}

#[allow(clippy::too_many_arguments, reason = "what one pass has read so far")]
async fn incoming_facts(
    ctx: &Context,
    link: &ApplicationLink,
    valid: &ValidatedLink,
    goal: &IncomingGoal,
    seen: &Observed,
    labels: &std::collections::BTreeMap<String, String>,
    all: &[ProviderView],
    keys: &KeyRing,
    secrets: &Secrets,
) -> (IncomingFacts, Option<Arc<Connected>>) {
    let (place, secret) =
        futures::join!(place(ctx, valid, seen, labels, all), secrets.look(&goal.secret.name, link));
    let mut facts = IncomingFacts { place: Err(Problem::wait("", "")), client: None, proof: None, secret };
    let (place, connected) = match place {
        Ok(found) => found,
        Err(problem) => {
            facts.place = Err(problem);
            return (facts, None);
        }
    };
    let Some(id) = derive::client_id(keys, &place.identity, &seen.namespace, &seen.name) else {
        facts.place = Ok(place);
        return (facts, Some(connected));
    };
    match client_at(ctx, &place.claim, &connected, &id).await {
        Ok(client) => {
            facts.proof = prove(keys, goal, seen, &place, &connected, &id, client.as_ref()).await;
            facts.client = client;
            facts.place = Ok(place);
        }
        Err(problem) => facts.place = Err(problem),
    }
    (facts, Some(connected))
}

async fn prove(
    keys: &KeyRing,
    goal: &IncomingGoal,
    seen: &Observed,
    place: &Place,
    connected: &Connected,
    id: &ClientId,
    client: Option<&RegisteredClient>,
) -> Option<crate::provider::Proof> {
    let client = client?;
    // Only what may come out as it should is worth a call: another method needs a write anyway.
    let method = goal.metadata.auth_method;
    if method.is_public() || client.metadata.as_ref() != Some(&goal.metadata) {
        return None;
    }
    let serial = client.owner.as_ref().map_or(0, |o| o.serial).max(seen.serial).max(1);
    let secret = derive::secret(keys, &place.identity, id, &seen.uid, serial);
    Some(connected.prove(id, &secret, method).await)
}

async fn place(
    ctx: &Context,
    valid: &ValidatedLink,
    seen: &Observed,
    labels: &std::collections::BTreeMap<String, String>,
    all: &[ProviderView],
) -> Result<(Place, Arc<Connected>), Problem> {
    let view = providers::choose(valid.provider_ref.as_ref(), &seen.claims, &seen.namespace, all)?;
    let (allow, rebind) = providers::permit(view, &seen.namespace, labels)?;
    let name = providers::full_name(view);
    if view.deleting && !seen.claims.contains(&view.claim) {
        return Err(Problem::wait("ProviderDeleting", format!("{name} is being deleted; name another one")));
    }
    if !view.held {
        return Err(Problem::wait(
            "ProviderNotReady",
            format!("{name} isn't taken up yet; see its conditions"),
        ));
    }
    let connected = connection(ctx, view).await.map_err(|p| Problem {
        // Its own conditions say what is wrong with it; for a link it is something to wait for.
        mend: super::problem::Mend::Wait,
        message: format!("{name}: {}", p.message),
        ..p
    })?;
    let place = Place {
        claim: view.claim.clone(),
        identity: derive::identity("bundled", &connected.info.issuer),
        type_: "bundled",
        info: connected.info.clone(),
        rebind,
        allow,
    };
    Ok((place, connected))
}

async fn client_at(
    ctx: &Context,
    claim: &Claim,
    connected: &Connected,
    id: &ClientId,
) -> Result<Option<RegisteredClient>, Problem> {
    let at = ClientRef { id: id.clone(), handle: None };
    connected.provider.get(&at).await.map_err(|e| {
        let problem = Problem::from(&e);
        if matches!(problem.reason, "ProviderUnreachable" | "ProviderUnauthorized") {
            ctx.connections.failed(&claim.uid, &problem);
        }
        problem
    })
}

/// The client at a place that isn't wanted: by the provider object where it is there and works,
/// else by what was kept of it.
async fn elsewhere(
    ctx: &Context,
    claim: &Claim,
    seen: &Observed,
    all: &[ProviderView],
    keys: &KeyRing,
    handles: &mut Handles,
) -> Result<(String, Option<RegisteredClient>), Problem> {
    let live =
        all.iter().find(|p| p.claim == *claim && p.namespace.as_ref().is_none_or(|n| *n == seen.namespace));
    let connected = match live {
        Some(view) => connection(ctx, view).await,
        None => Err(Problem::wait(
            "ProviderNotFound",
            format!("{} {}, where the client is registered, doesn't exist", claim.kind.as_str(), claim.name),
        )),
    };
    let connected = match connected {
        Ok(connected) => connected,
        Err(problem) => match ctx.store.provider(&claim.uid).await? {
            // A claim is only as good as the namespace that it stands in.
            Some((kept, version)) if kept.namespace.as_ref().is_none_or(|n| *n == seen.namespace) => {
                let key = Connections::kept(&claim.uid);
                ctx.connections
                    .get(
                        &key,
                        &version,
                        connect(&ctx.guard, kept.kind, &kept.service, &kept.credentials, &ctx.identity),
                    )
                    .await?
            }
            _ => return Err(problem),
        },
    };
    let identity = derive::identity("bundled", &connected.info.issuer);
    let Some(id) = derive::client_id(keys, &identity, &seen.namespace, &seen.name) else {
        return Ok((identity, None));
    };
    let client = client_at(ctx, claim, &connected, &id).await?;
    handles.insert(claim.uid.clone(), connected);
    Ok((identity, client))
}

async fn outgoing_facts(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &OutgoingGoal,
    secrets: &Secrets,
) -> OutgoingFacts {
    let seed = async {
        match &goal.grant {
            GrantGoal::ClientCredentials => None,
            GrantGoal::RefreshToken { secret, key } => Some(
                secrets
                    .value(secret, key, "SeedMissing", "spec.outgoing.oauth2.grant.refreshToken.secretRef")
                    .await,
            ),
        }
    };
    let (secret, client, seed, endpoints) = futures::join!(
        secrets.look(&goal.secret.name, link),
        client_credentials(goal, secrets),
        seed,
        endpoints(ctx, goal),
    );
    OutgoingFacts {
        endpoints,
        client,
        seed,
        secret,
        refused: ctx.refused(link),
        holder: ctx.identity.clone(),
    }
}

async fn endpoints(ctx: &Context, goal: &OutgoingGoal) -> Result<ServerEndpoints, Problem> {
    match &goal.server {
        ServerGoal::Endpoints { token, revocation } => Ok(ServerEndpoints {
            revocation_endpoint: revocation.clone(),
            ..ServerEndpoints::new(token.clone())
        }),
        ServerGoal::Issuer(issuer) => {
            ctx.discoveries.get(&ctx.guard.client(Trust::Guarded, None), issuer).await
        }
    }
}

async fn client_credentials(goal: &OutgoingGoal, secrets: &Secrets) -> Result<ClientCredentials, Problem> {
    let field = "spec.outgoing.oauth2.client.secretRef";
    let name = &goal.client_secret;
    let id = secrets.value(name, &goal.id_key, "ClientSecretMissing", field).await?;
    let id = ClientId::parse(secrecy::ExposeSecret::expose_secret(&id)).map_err(|e| {
        Problem::edit("InvalidClientId", format!("{field}: key {} of Secret {name} {e}", goal.id_key))
    })?;
    let secret = if goal.auth_method.is_public() {
        None
    } else {
        Some(secrets.value(name, &goal.secret_key, "ClientSecretMissing", field).await?)
    };
    Ok(ClientCredentials { id, secret, auth_method: goal.auth_method })
}

/// For a link that goes and leaves its Secrets: those that the status names too, whatever the watch
/// saw. One with our owner reference would go with the link.
async fn secrets_to_release(link: &ApplicationLink, seen: &mut Observed, secrets: &Secrets) {
    let status = link.status.clone().unwrap_or_default();
    let names =
        status.incoming.map(|i| i.secret_name).into_iter().chain(status.outgoing.map(|o| o.secret_name));
    for name in names {
        if seen.strays.iter().any(|s| s.name == name) {
            continue;
        }
        match secrets.look(&name, link).await {
            SecretFact::Own(own) => seen.strays.push(super::facts::SecretId { name, uid: own.uid }),
            SecretFact::Unknown(problem) => seen.keys = Err(problem),
            SecretFact::Absent | SecretFact::Foreign(_) => {}
        }
    }
}

/// For a link that goes: a grant without a refresh token has its access token in the tenant's
/// Secret alone. Where it is still there, with what revoking it needs, it is revoked too.
async fn token_to_revoke(link: &ApplicationLink, seen: &mut Observed, secrets: &Secrets, keys: &KeyRing) {
    let Some((grant, _)) = &mut seen.grant else { return };
    if grant.refresh_token.is_some() {
        return;
    }
    let Some(goal) = super::validate::validate(link).ok().and_then(|v| v.outgoing) else { return };
    if let SecretFact::Own(own) = secrets.look(&goal.secret.name, link).await
        && let Ok(client) = client_credentials(&goal, secrets).await
        && client.id.as_str() == grant.binding.client_id
    {
        grant.access = super::decide::published(&own, &goal, keys);
        grant.client_secret = client.secret.map(super::grant::Kept);
        grant.auth_method = client.auth_method;
    }
}
