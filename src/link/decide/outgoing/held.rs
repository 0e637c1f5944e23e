//! The grant: the one that there is or the one to start with, what it is bound to, and who asks by it.

use crate::api::names;
use crate::domain::keyring::digest_hex;
use crate::domain::{ExposeSecret as _, KeyRing, Reason};
use crate::link::facts::{Observed, OutgoingFacts};
use crate::link::grant::{Binding, GRANT_VERSION, Grant, Kept, KeptMethod, LinkRef};
use crate::link::plan::AskBy;
use crate::link::problem::Problem;
use crate::link::validate::{ClientAuthGoal, GrantGoal, OutgoingGoal, ServerPlace};
use crate::outgoing::{BearerAssertion, ClientAuth, ClientCredentials, ServerEndpoints};

const PURPOSE_REQUEST: &str = "token request";

fn spec_digest(goal: &OutgoingGoal) -> String {
    let server = match &goal.server.place {
        ServerPlace::Issuer(issuer) => format!("issuer {issuer}"),
        // All of them, by the one list of what a grant is bound to.
        ServerPlace::Endpoints(endpoints) => format!("endpoints {:?}", Binding::new(endpoints, "")),
    };
    digest_hex(&server)
}

/// Who asks, and by what.
pub(super) struct Asker<'a> {
    pub client: Option<&'a ClientCredentials>,
    /// The client identifier; without a client, the issuer of our assertions.
    pub name: String,
    pub by: AskBy,
}

pub(super) fn asker<'a>(goal: &OutgoingGoal, facts: &'a OutgoingFacts) -> Result<Asker<'a>, Problem> {
    let client = facts.client.as_ref().map_err(Clone::clone)?.as_ref();
    let by = match (&goal.grant, &facts.bearer) {
        (GrantGoal::ClientCredentials, _) => AskBy::ClientCredentials,
        (
            GrantGoal::RefreshToken(_) | GrantGoal::AuthorizationCode { .. } | GrantGoal::DeviceCode { .. },
            _,
        ) => AskBy::RefreshToken,
        (GrantGoal::JwtBearer(jwt), Some(Ok(bearer))) => {
            let named = jwt.issuer.clone().or_else(|| bearer.issuer.clone());
            let Some(issuer) = named.or_else(|| client.map(|c| c.id.to_string())) else {
                return Err(Problem::edit(
                    Reason::InvalidSpec,
                    "spec.outgoing.oauth2.grant.jwtBearer.issuer: must be set, since the key doesn't say whose it is \
                     and the link has no client",
                ));
            };
            AskBy::JwtBearer(Box::new(BearerAssertion {
                key: bearer.key.clone(),
                issuer,
                subject: jwt.subject.clone(),
                audience: jwt.audience.clone(),
                carries_scopes: goal.server.preset.dialect.assertion_carries_scopes,
            }))
        }
        (GrantGoal::JwtBearer(_), Some(Err(problem))) => return Err(problem.clone()),
        (GrantGoal::JwtBearer(_), None) => {
            return Err(Problem::wait(Reason::AssertionKeyMissing, "the key of the assertion wasn't read"));
        }
    };
    let issuer = match &by {
        AskBy::JwtBearer(assertion) => assertion.issuer.clone(),
        _ => String::new(),
    };
    Ok(Asker { client, name: client.map_or(issuer, |c| c.id.to_string()), by })
}

/// The grant that there is, or the one to start with. A seed that wasn't seen before starts anew.
pub(super) fn held(
    goal: &OutgoingGoal,
    seen: &Observed,
    facts: &OutgoingFacts,
    active: Option<(Grant, Option<String>)>,
    asker: &Asker<'_>,
) -> Result<(Grant, Option<String>), Problem> {
    if goal.grant.asks_a_person() {
        return match active {
            Some((grant, version)) if grant.requested.is_some() => Ok((grant, version)),
            _ => Err(not_connected(seen, facts)),
        };
    }
    let seed_digest = match &facts.seed {
        Some(Ok(seed)) => Some(digest_hex(seed.expose_secret())),
        _ => None,
    };
    let wants_seed = matches!(goal.grant, GrantGoal::RefreshToken(_));
    if let Some((grant, version)) = &seen.grant {
        let same_kind = grant.refresh_token.is_some() == wants_seed && grant.requested.is_none();
        let same_seed = seed_digest.is_none() || seed_digest == grant.seed_digest;
        if same_kind && (same_seed || !wants_seed) {
            return Ok((grant.clone(), Some(version.clone())));
        }
    }
    let refresh_token = match (&goal.grant, &facts.seed) {
        (
            GrantGoal::ClientCredentials
            | GrantGoal::JwtBearer(_)
            | GrantGoal::AuthorizationCode { .. }
            | GrantGoal::DeviceCode { .. },
            _,
        ) => None,
        (GrantGoal::RefreshToken(_), Some(Ok(seed))) => Some(Kept(seed.clone())),
        (GrantGoal::RefreshToken(_), Some(Err(problem))) => return Err(problem.clone()),
        (GrantGoal::RefreshToken(_), None) => {
            return Err(Problem::wait(Reason::SeedMissing, "the refresh token to start with wasn't read"));
        }
    };
    let grant = Grant {
        version: GRANT_VERSION,
        link: LinkRef { namespace: seen.namespace.clone(), name: seen.name.clone(), uid: seen.uid.clone() },
        // Bound below, once the server is known.
        binding: Binding {
            issuer: None,
            token_endpoint: String::new(),
            revocation_endpoint: None,
            authorization_endpoint: None,
            device_authorization_endpoint: None,
            user_endpoint: None,
            client_id: asker.name.clone(),
        },
        spec_digest: String::new(),
        auth_method: KeptMethod::None,
        client_secret: None,
        assertion: None,
        service_account: None,
        server: goal.server.preset.name.to_owned(),
        refresh_token,
        seed_digest: wants_seed.then_some(seed_digest).flatten(),
        rotates: None,
        intent: None,
        access: None,
        requested: None,
        account: None,
        connected_at: None,
        dead: None,
        unread: None,
    };
    Ok((grant, seen.grant.as_ref().map(|(_, version)| version.clone())))
}

/// The grant that a person is asked for, without tokens yet.
pub fn consented_grant(
    goal: &OutgoingGoal,
    link: LinkRef,
    endpoints: &ServerEndpoints,
    client: &ClientCredentials,
) -> Grant {
    let mut grant = Grant {
        version: 1,
        link,
        binding: Binding::new(endpoints, client.id.as_str()),
        spec_digest: spec_digest(goal),
        auth_method: KeptMethod::None,
        client_secret: None,
        assertion: None,
        service_account: None,
        server: goal.server.preset.name.to_owned(),
        refresh_token: None,
        seed_digest: None,
        rotates: None,
        intent: None,
        access: None,
        requested: Some(goal.scopes.to_string()),
        account: None,
        connected_at: None,
        dead: None,
        unread: None,
    };
    grant.remember(Some(client), true);
    grant
}

/// Binds a new grant, or checks that an old one is still bound to the same. `Ok(true)`: it must
/// be saved before anything is sent.
pub(super) fn bind(
    goal: &OutgoingGoal,
    seen: &Observed,
    grant: &mut Grant,
    absent: bool,
    endpoints: &ServerEndpoints,
    asker: &Asker<'_>,
) -> Result<bool, Problem> {
    let binding = Binding::new(endpoints, &asker.name);
    let spec = spec_digest(goal);
    let new = grant.spec_digest.is_empty();
    if grant.version < GRANT_VERSION {
        // It was made when fewer endpoints were kept: those are taken as they are now.
        grant.binding = Binding {
            issuer: grant.binding.issuer.clone(),
            token_endpoint: grant.binding.token_endpoint.clone(),
            revocation_endpoint: grant.binding.revocation_endpoint.clone(),
            client_id: grant.binding.client_id.clone(),
            ..binding.clone()
        };
    }
    if !new && grant.binding != binding {
        let moved = moved(seen, &grant.binding, &binding);
        match goal.grant {
            GrantGoal::AuthorizationCode { .. } | GrantGoal::DeviceCode { .. } => {
                return Err(Problem::edit(
                    Reason::GrantBindingChanged,
                    format!(
                        "{}, which isn't what the person consented to, so nothing is sent; change it back, or run: {}",
                        changed(&grant.binding, &binding),
                        how_to_connect(seen)
                    ),
                ));
            }
            GrantGoal::RefreshToken(_) => {
                return Err(Problem::edit(
                    Reason::GrantBindingChanged,
                    format!(
                        "{}, which isn't what this refresh token was given for, so the token isn't sent; put a new refresh \
                         token into the Secret of spec.outgoing.oauth2.grant.refreshToken.secretRef, or change it back",
                        changed(&grant.binding, &binding)
                    ),
                ));
            }
            // The author changed the spec, or the client Secret: that is the consent. What only
            // discovery changed isn't.
            GrantGoal::ClientCredentials | GrantGoal::JwtBearer(_)
                if grant.spec_digest == spec
                    && let Some(problem) = moved =>
            {
                return Err(problem);
            }
            GrantGoal::ClientCredentials | GrantGoal::JwtBearer(_) => {}
        }
    }
    let before = grant.clone();
    grant.version = GRANT_VERSION;
    grant.binding = binding;
    grant.spec_digest = spec;
    goal.server.preset.name.clone_into(&mut grant.server);
    // What revoking needs is kept only where there is something that lives long.
    grant.remember(asker.client, grant.refresh_token.is_some());
    Ok(new || absent || *grant != before)
}

/// What isn't as it was of what a grant is bound to.
fn changed(old: &Binding, new: &Binding) -> String {
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "none".into());
    let pairs = [
        ("issuer", text(&old.issuer), text(&new.issuer)),
        ("token endpoint", old.token_endpoint.clone(), new.token_endpoint.clone()),
        ("authorization endpoint", text(&old.authorization_endpoint), text(&new.authorization_endpoint)),
        (
            "device authorization endpoint",
            text(&old.device_authorization_endpoint),
            text(&new.device_authorization_endpoint),
        ),
        ("revocation endpoint", text(&old.revocation_endpoint), text(&new.revocation_endpoint)),
        ("user endpoint", text(&old.user_endpoint), text(&new.user_endpoint)),
        ("client identifier", old.client_id.clone(), new.client_id.clone()),
    ];
    let changed = pairs.into_iter().filter(|(_, old, new)| old != new);
    let said: Vec<_> =
        changed.map(|(what, old, new)| format!("the {what} is {new} (it was {old})")).collect();
    said.join(", ")
}

/// What discovery alone changed of the endpoints that our credentials go to, unless it was accepted.
fn moved(seen: &Observed, old: &Binding, new: &Binding) -> Option<Problem> {
    let accepted = seen.accepted_endpoint.as_deref().unwrap_or_default();
    let pairs = [
        ("token endpoint", Some(&old.token_endpoint), Some(&new.token_endpoint)),
        ("revocation endpoint", old.revocation_endpoint.as_ref(), new.revocation_endpoint.as_ref()),
    ];
    let changed: Vec<_> = pairs
        .into_iter()
        .filter_map(|(what, old, new)| Some((what, old, new?)).filter(|(_, old, new)| *old != Some(new)))
        .collect();
    let (what, old, new) =
        *changed.iter().find(|(_, _, new)| !accepted.split([',', ' ']).any(|a| a == new.as_str()))?;
    let old = old.map_or_else(|| "where there was none".to_owned(), |old| format!("no longer {old}"));
    let all = changed.iter().map(|(_, _, new)| new.as_str()).collect::<Vec<_>>().join(",");
    Some(Problem::edit(
        Reason::EndpointChanged,
        format!(
            "discovery now names the {what} {new}, {old}; nothing is sent there until the link is annotated with {}={all}",
            names::ACCEPT_ENDPOINT,
        ),
    ))
}

/// What a person does when the server declares the grant dead.
pub(super) fn way_out(goal: &OutgoingGoal, seen: &Observed) -> String {
    let anew = match &goal.grant {
        GrantGoal::RefreshToken(at) => format!("put a new one into Secret {}", at.secret),
        _ => format!("run: {}", how_to_connect(seen)),
    };
    match seen.grant.as_ref().and_then(|(grant, _)| grant.unread.as_ref()) {
        Some(_) => {
            format!("{anew}; the reply before, which couldn't be read, is shown by: {}", how_to_read(seen))
        }
        None => anew,
    }
}

/// The command that shows a reply that couldn't be read.
pub(in crate::link) fn how_to_read(seen: &Observed) -> String {
    format!("kubectl applink doctor {} -n {} --reply", seen.name, seen.namespace)
}

/// What a link that nobody connected yet waits for.
fn not_connected(seen: &Observed, facts: &OutgoingFacts) -> Problem {
    match &facts.desk {
        Some(Err(problem)) => problem.clone(),
        _ => Problem::edit(
            Reason::AuthorizationRequired,
            format!("nobody has connected the link yet; run: {}", how_to_connect(seen)),
        ),
    }
}

/// What a token is asked for with. Another scope, client secret, endpoint or seed is another
/// request, so the token that stands in the Secret isn't the wanted one.
pub(super) fn fingerprint(keys: &KeyRing, goal: &OutgoingGoal, grant: &Grant, asker: &Asker<'_>) -> String {
    let auth = asker.client.map(|c| &c.auth);
    // A token that can't be refreshed stays the wanted one when the client's secret is another.
    let refreshable = grant.requested.is_none() || grant.refresh_token.is_some();
    let lasting = auth.and_then(|a| a.lasting()).filter(|_| refreshable);
    // A token that somebody else signs is another one each time; who it speaks for isn't.
    let account = match goal.client.as_ref().map(|c| &c.auth) {
        Some(ClientAuthGoal::ServiceAccount { name, audience }) => format!("{name} {audience}"),
        _ => String::new(),
    };
    // What discovery alone says of the method makes no other token the wanted one.
    let method = match goal.client.as_ref().map(|c| &c.auth) {
        Some(ClientAuthGoal::Secret { method, .. }) => method.as_str(),
        _ => auth.map_or("", ClientAuth::method),
    };
    let (key, assertion) = match &asker.by {
        AskBy::JwtBearer(a) => {
            (a.key.text().expose_secret(), format!("{:?}", (&a.issuer, &a.subject, &a.audience)))
        }
        _ => ("", String::new()),
    };
    keys.fingerprint(
        PURPOSE_REQUEST,
        &[
            &spec_digest(goal),
            &asker.name,
            lasting.map_or("", |s| s.expose_secret()),
            method,
            &grant.requested.clone().unwrap_or_else(|| goal.scopes.to_string()),
            grant.seed_digest.as_deref().unwrap_or(""),
            goal.server.preset.name,
            &account,
            key,
            &assertion,
        ],
    )
}

/// The command by which a person connects a link.
pub(super) fn how_to_connect(seen: &Observed) -> String {
    format!("kubectl applink authorize {} -n {}", seen.name, seen.namespace)
}
