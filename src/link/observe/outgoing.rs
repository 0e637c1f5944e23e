//! What the outgoing part rests on: the server's endpoints, our client, the grant's input, the Secret.

use crate::api::ApplicationLink;
use crate::domain::{AuthMethod, ClientId, ExposeSecret as _, KeyRing, Reason, SecretString};
use crate::http::{HttpClient, SendError, Trust};
use crate::link::consent::request;
use crate::link::context::Context;
use crate::link::decide::hosts;
use crate::link::facts::{Desk, Observed, OutgoingFacts, SecretFact};
use crate::link::grant::KeptMethod;
use crate::link::lend::{self, Lent};
use crate::link::problem::Problem;
use crate::link::secrets::{Reader, Secrets};
use crate::link::validate::{
    ClientAuthGoal, ClientIdGoal, GrantGoal, OutgoingGoal, SecretKey, ServerPlace, validate,
};
use crate::outgoing::{
    BearerKey, ClientAuth, ClientCredentials, Declared, ServerEndpoints, ServiceAccount, SigningKey,
};
use kube::ResourceExt as _;
use url::Url;

/// Looks.
pub(super) async fn facts(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &OutgoingGoal,
    secrets: &Secrets,
) -> OutgoingFacts {
    let inputs = reader(secrets, goal);
    let seed = async {
        match &goal.grant {
            GrantGoal::RefreshToken(at) => {
                let field = "spec.outgoing.oauth2.grant.refreshToken.secretRef";
                Some(read(&inputs, at, Reason::SeedMissing, field).await)
            }
            _ => None,
        }
    };
    let bearer = async {
        match &goal.grant {
            GrantGoal::JwtBearer(jwt) => Some(bearer_key(&jwt.at, &inputs).await),
            _ => None,
        }
    };
    let namespace = link.namespace().unwrap_or_default();
    let (secret, client, seed, bearer, endpoints) = futures::join!(
        ctx.look_at(secrets, &goal.secret.name, link),
        client(&namespace, goal, &inputs),
        seed,
        bearer,
        endpoints(ctx, &namespace, goal),
    );
    let client = match &endpoints {
        Ok(endpoints) => client.map(|client| by_metadata(client, goal, &endpoints.declared)),
        Err(_) => client,
    };
    let inputs = inputs.all();
    let mut desk = goal.grant.asks_a_person().then(|| desk(ctx, link, goal, &endpoints, &inputs));
    // A link that somebody connected says by itself, by its next refresh, what can't be called any more.
    let connected = link.status.as_ref().and_then(|s| s.outgoing.as_ref()?.connected.as_ref()).is_some();
    if let (Some(Ok(_)), Ok(endpoints), false) = (&desk, &endpoints, connected)
        && let Err(problem) = reachable(ctx, goal, endpoints).await
    {
        desk = Some(Err(problem));
    }
    OutgoingFacts {
        desk,
        endpoints,
        client,
        seed,
        bearer,
        inputs,
        require_allowed_hosts: ctx.require_allowed_hosts,
        secret,
        refused: ctx.refused(link),
        doubt: ctx.remember(&link.uid().unwrap_or_default(), |memo| memo.doubt),
        in_line: false,
        in_hand: ctx.remember(&link.uid().unwrap_or_default(), |memo| memo.in_hand.clone()),
        min_refresh_interval: ctx.min_refresh_interval,
        holder: ctx.identity.clone(),
        before: ctx.tenure.before(std::time::Instant::now()),
    }
}

/// Where people consent to this link.
fn desk(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &OutgoingGoal,
    endpoints: &Result<ServerEndpoints, Problem>,
    inputs: &[Lent],
) -> Result<Desk, Problem> {
    if let Ok(endpoints) = endpoints {
        hosts::check_shown(goal, inputs, ctx.require_allowed_hosts, endpoints)?;
    }
    let base = ctx.consent_url.as_ref().ok_or_else(|| {
        Problem::edit(
            Reason::ConsentUnavailable,
            "the operator has no address at which people could consent; set the chart's value consent.url",
        )
    })?;
    let endpoints = endpoints.as_ref().map_err(Clone::clone)?;
    request::desk(base, &link.namespace().unwrap_or_default(), &link.name_any(), goal, endpoints)
}

/// The endpoints of the link's server.
///
/// # Errors
/// [`Problem`] while they aren't known.
async fn endpoints(ctx: &Context, namespace: &str, goal: &OutgoingGoal) -> Result<ServerEndpoints, Problem> {
    let http = ctx.guard.client(Trust::Guarded, None);
    let endpoints = match &goal.server.place {
        ServerPlace::Endpoints(endpoints) => endpoints.as_ref().clone(),
        ServerPlace::Issuer(issuer) => ctx.discoveries.get(&http, namespace, issuer).await?,
    };
    called_later(&http, goal, &endpoints)?;
    Ok(endpoints)
}

/// Whether the endpoints that are called only when a person connects or a grant is given back may be
/// called, as far as their text tells: who wrote one is told while the link is looked at, and not by a
/// grant that stays alive. What a server names of itself for revocation stops no link that needs none.
fn called_later(http: &HttpClient, goal: &OutgoingGoal, endpoints: &ServerEndpoints) -> Result<(), Problem> {
    let named = matches!(goal.server.place, ServerPlace::Endpoints(_));
    let by_device = matches!(goal.grant, GrantGoal::DeviceCode { .. });
    for (what, url, counts) in [
        ("device authorization endpoint", &endpoints.device_authorization_endpoint, by_device),
        ("revocation endpoint", &endpoints.revocation_endpoint, named),
        ("user endpoint", &endpoints.user_endpoint, named && goal.grant.asks_a_person()),
    ] {
        if let Some(url) = url.as_ref().filter(|_| counts) {
            http.permits(url).map_err(|why| {
                let message = format!("spec.outgoing.oauth2.server: its {what} isn't called: {why}");
                Problem::edit(SendError::Refused(why).why(), message)
            })?;
        }
    }
    Ok(())
}

/// Whether what a consent comes to may be called, names resolved: a person who signed in first would have done so
/// for nothing. A name server that is in trouble is no reason against it.
async fn reachable(ctx: &Context, goal: &OutgoingGoal, endpoints: &ServerEndpoints) -> Result<(), Problem> {
    let http = ctx.guard.client(Trust::Guarded, None);
    let (device, push) = match goal.grant {
        GrantGoal::DeviceCode { .. } => (endpoints.device_authorization_endpoint.as_ref(), None),
        _ => (None, endpoints.declared.push_endpoint.as_ref().filter(|_| endpoints.declared.requires_push)),
    };
    for (what, url) in [
        ("token endpoint", Some(&endpoints.token_endpoint)),
        ("device authorization endpoint", device),
        ("pushed authorization request endpoint", push),
    ] {
        if let Some(url) = url
            && let Err(e @ SendError::Refused(_)) = http.reaches(url).await
        {
            let message = format!("spec.outgoing.oauth2.server: its {what} isn't called: {e}");
            return Err(Problem::edit(e.why(), message));
        }
    }
    Ok(())
}

const CLIENT: &str = "spec.outgoing.oauth2.client.secretRef";

/// Reads what the goal names.
fn reader<'s>(secrets: &'s Secrets, goal: &OutgoingGoal) -> Reader<'s> {
    secrets.reader(goal.inputs().map(|at| (at.secret.as_str(), at.key.as_str())))
}

async fn read(
    reader: &Reader<'_>,
    at: &SecretKey,
    reason: Reason,
    field: &str,
) -> Result<SecretString, Problem> {
    reader.value(&at.secret, &at.key, reason, field).await
}

async fn value(at: &SecretKey, inputs: &Reader<'_>) -> Result<SecretString, Problem> {
    read(inputs, at, Reason::ClientSecretMissing, CLIENT).await
}

/// Server and client for a request outside a plan: what is checked before one of a plan is sent is
/// checked here.
///
/// # Errors
/// [`Problem`] while one of them isn't there, or the client's Secret may not be sent to the server.
pub async fn server_and_client(
    ctx: &Context,
    namespace: &str,
    goal: &OutgoingGoal,
    secrets: &Secrets,
) -> Result<(ServerEndpoints, Option<ClientCredentials>), Problem> {
    let inputs = reader(secrets, goal);
    let (endpoints, client) =
        futures::join!(endpoints(ctx, namespace, goal), client(namespace, goal, &inputs));
    let (endpoints, client) = (endpoints?, client?);
    let client = by_metadata(client, goal, &endpoints.declared);
    let inputs = inputs.all();
    hosts::check(goal, &inputs, ctx.require_allowed_hosts, &endpoints)?;
    hosts::check_shown(goal, &inputs, ctx.require_allowed_hosts, &endpoints)?;
    if goal.grant.asks_a_person() {
        reachable(ctx, goal, &endpoints).await?;
    }
    Ok((endpoints, client))
}

/// A client whose method the link doesn't name authenticates in the way that the server names, where that is
/// the other one alone.
fn by_metadata(
    client: Option<ClientCredentials>,
    goal: &OutgoingGoal,
    declared: &Declared,
) -> Option<ClientCredentials> {
    let methods = declared.auth_methods.as_ref();
    let alone = |one, other| methods.is_some_and(|all| all.contains(&one) && !all.contains(&other));
    client.map(|client| {
        let (basic, post) = (AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost);
        if alone(post, basic) {
            unnamed_method(client, goal, post)
        } else if alone(basic, post) {
            unnamed_method(client, goal, basic)
        } else {
            client
        }
    })
}

/// The same client, which authenticates so, unless the link names a method.
fn unnamed_method(client: ClientCredentials, goal: &OutgoingGoal, method: AuthMethod) -> ClientCredentials {
    let unnamed =
        matches!(goal.client.as_ref().map(|c| &c.auth), Some(ClientAuthGoal::Secret { named: false, .. }));
    let ClientCredentials { id, auth } = client;
    match auth {
        ClientAuth::Basic(secret) | ClientAuth::Post(secret) if unnamed => {
            ClientCredentials::by_secret(id, method, secret)
        }
        auth => ClientCredentials { id, auth },
    }
}

/// Our client, with what it authenticates with.
async fn client(
    namespace: &str,
    goal: &OutgoingGoal,
    inputs: &Reader<'_>,
) -> Result<Option<ClientCredentials>, Problem> {
    let Some(client) = &goal.client else { return Ok(None) };
    // Always one of the link's own namespace. Its token is asked for when there is something to send.
    let account = match &client.auth {
        ClientAuthGoal::ServiceAccount { name, audience } => Some(ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.clone(),
            audience: audience.clone(),
        }),
        _ => None,
    };
    let id = match &client.id {
        ClientIdGoal::Given(id) => id.clone(),
        ClientIdGoal::Subject => {
            let subject = account.as_ref().map(ServiceAccount::subject).unwrap_or_default();
            ClientId::parse(&subject).map_err(|e| {
                Problem::edit(
                    Reason::InvalidClientId,
                    format!("spec.outgoing.oauth2.client.serviceAccount: its subject {e}"),
                )
            })?
        }
        ClientIdGoal::Secret(at) => {
            ClientId::parse(value(at, inputs).await?.expose_secret()).map_err(|e| {
                let SecretKey { secret, key } = at;
                Problem::edit(Reason::InvalidClientId, format!("{CLIENT}: key {key} of Secret {secret} {e}"))
            })?
        }
    };
    let credentials = match &client.auth {
        ClientAuthGoal::None => ClientCredentials { id, auth: ClientAuth::None },
        ClientAuthGoal::Secret { method, at, .. } => {
            ClientCredentials::by_secret(id, *method, value(at, inputs).await?)
        }
        ClientAuthGoal::PrivateKey { at, key_id, algorithm, audience } => {
            let text = value(at, inputs).await?;
            let key = SigningKey::parse(&text, *algorithm, goal.server.preset.rsa).map_err(|e| {
                let SecretKey { secret, key } = at;
                Problem::edit(
                    Reason::InvalidPrivateKey,
                    format!("{CLIENT}: key {key} of Secret {secret} {e}"),
                )
            })?;
            let key = key.with_key_id(key_id.clone());
            ClientCredentials { id, auth: ClientAuth::PrivateKey { key, audience: audience.clone() } }
        }
        ClientAuthGoal::ServiceAccount { .. } => {
            ClientCredentials { id, auth: account.map_or(ClientAuth::None, ClientAuth::ServiceAccount) }
        }
    };
    Ok(Some(credentials))
}

async fn bearer_key(at: &SecretKey, inputs: &Reader<'_>) -> Result<BearerKey, Problem> {
    let field = "spec.outgoing.oauth2.grant.jwtBearer.secretRef";
    let text = read(inputs, at, Reason::AssertionKeyMissing, field).await?;
    BearerKey::parse(&text).map_err(|e| {
        let SecretKey { secret, key } = at;
        Problem::edit(Reason::InvalidPrivateKey, format!("{field}: key {key} of Secret {secret} {e}"))
    })
}

/// For a link that goes: a grant without a refresh token has its access token in the tenant's
/// Secret alone. Where it is still there, with what revoking it needs, it is revoked too.
pub(super) async fn token_to_revoke(
    ctx: &Context,
    link: &ApplicationLink,
    seen: &mut Observed,
    secrets: &Secrets,
    keys: &KeyRing,
) {
    let Some((grant, _)) = &mut seen.grant else { return };
    if grant.refresh_token.is_some() {
        return;
    }
    let Some(goal) = validate(link).ok().and_then(|v| v.outgoing) else { return };
    let inputs = reader(secrets, &goal);
    if let SecretFact::Own(own) = ctx.look_at(secrets, &goal.secret.name, link).await
        && let Ok(Some(client)) = client(&link.namespace().unwrap_or_default(), &goal, &inputs).await
        && client.id.as_str() == grant.binding.client_id
        // The Secret that the spec names now goes where the grant was got: only where it may.
        && let Some(revocation) = grant.binding.revocation_endpoint.as_deref().and_then(|u| Url::parse(u).ok())
        && lend::check(&inputs.all(), ctx.require_allowed_hosts && goal.server.named, &[("revocation endpoint", &revocation)]).is_ok()
    {
        // As the server took it: what its metadata say now isn't asked for.
        let client = match grant.auth_method {
            KeptMethod::ClientSecretBasic => unnamed_method(client, &goal, AuthMethod::ClientSecretBasic),
            KeptMethod::ClientSecretPost => unnamed_method(client, &goal, AuthMethod::ClientSecretPost),
            KeptMethod::PrivateKeyJwt | KeptMethod::None => client,
        };
        grant.access = crate::link::decide::published(&own, &goal, keys);
        grant.remember(Some(&client), true);
    }
}
