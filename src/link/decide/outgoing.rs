//! The outgoing part: a token got, kept, refreshed before it ends, and published.

use super::{Effect, Part, consent, hosts, is_as_wanted, over, own_labels, writable};
use crate::api::names;
use crate::domain::keyring::digest_hex;
use crate::domain::{Account, ExposeSecret as _, KeyRing, ScopeSet};
use crate::link::content::{self, Data, SecretGoal, Slot, Values};
use crate::link::facts::{Observed, OutgoingFacts, OwnSecret, Refused, SecretFact};
use crate::link::grant::{Access, Binding, GRANT_VERSION, Grant, Intent, Kept, KeptMethod, LinkRef};
use crate::link::plan::{AskBy, Publication, TokenPlan};
use crate::link::problem::Problem;
use crate::link::turns::Turn;
use crate::link::validate::{ClientAuthGoal, GrantGoal, OutgoingGoal, ServerPlace};
use crate::outgoing::{BearerAssertion, ClientCredentials, ServerEndpoints, next_refresh};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use url::Url;

/// The published token, for the status and the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// When it was got.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When the next one is asked for.
    pub next_refresh: Timestamp,
}

/// Who connected a link, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Whose grant it is, where the server said it.
    pub account: Option<Account>,
    /// When it became active.
    pub at: Timestamp,
}

const PURPOSE_REQUEST: &str = "token request";
const PURPOSE_CONTENT: &str = "published token";

/// What was decided of an outgoing part.
#[derive(Debug)]
pub(super) struct Decided {
    pub part: Part,
    /// The token that is published.
    pub token: Option<Token>,
    /// Who connected the link, for the status.
    pub connected: Option<Connected>,
    /// When a consent under way is over.
    pub wake: Option<Timestamp>,
    /// The token request that is due.
    pub asks: Option<Turn>,
}

/// What keeping a grant's token comes to.
struct Upkeep {
    part: Part,
    token: Option<Token>,
    asks: Option<Turn>,
}

impl Upkeep {
    fn new(part: Part, token: Option<Token>) -> Self {
        Self { part, token, asks: None }
    }
}

pub(super) fn decide(
    goal: &OutgoingGoal,
    suspended: bool,
    seen: &Observed,
    facts: &OutgoingFacts,
    keys: &KeyRing,
    now: Timestamp,
) -> Decided {
    let mut effects = Vec::new();
    let mut wake = None;
    let mut active = seen.grant.clone().map(|(grant, version)| (grant, Some(version)));
    if let Ok(asker) = asker(goal, facts) {
        let bound = |grant: &Grant| match &facts.endpoints {
            Ok(endpoints) => grant.binding == Binding::new(endpoints, &asker.name),
            Err(_) => true,
        };
        match consent::step(seen, |grant| goal.grant.asks_a_person() && bound(grant), now) {
            consent::Step::Wait(until) => wake = until,
            consent::Step::Drop => consent::drop(seen, true, &mut effects),
            consent::Step::Activate(mut grant) => {
                let fingerprint = fingerprint(keys, goal, &grant, &asker);
                if let Some(access) = &mut grant.access {
                    access.fingerprint = fingerprint;
                }
                let version = active.and_then(|(_, version)| version);
                effects.push(Effect::SaveGrant(grant.clone(), version.clone()));
                effects.push(Effect::DropConsent);
                active = Some((*grant, version));
            }
        }
    }
    // A consent that is begun after this pass is over at the same time as its ticket.
    let open = seen.ticket.as_ref().filter(|t| goal.grant.asks_a_person() && t.is_open(now));
    let wake = wake.into_iter().chain(open.map(|t| t.expires_at)).min();
    let grant = active.as_ref().map(|(grant, _)| grant.clone());
    let Upkeep { mut part, token, asks } = keep(goal, suspended, seen, facts, active, keys, now);
    part.effects.splice(0..0, effects);
    if let (Ok(()), Some(grant)) = (&part.verdict, &grant) {
        part.verdict = consented(goal, seen, grant);
    }
    let connected = grant
        .filter(|_| goal.grant.asks_a_person())
        .and_then(|grant| Some(Connected { account: grant.account.clone(), at: grant.connected_at? }));
    Decided { part, token, connected, wake, asks }
}

/// Whether a person consented to all that is asked for. What they did consent to is kept fresh.
fn consented(goal: &OutgoingGoal, seen: &Observed, grant: &Grant) -> Result<(), Problem> {
    let Some(requested) = grant.requested.as_deref().filter(|_| goal.grant.asks_a_person()) else {
        return Ok(());
    };
    let requested: BTreeSet<_> = requested.split(' ').collect();
    let missing: Vec<_> = goal.scopes.iter().map(|s| s.as_str()).filter(|s| !requested.contains(s)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::edit(
        "ScopesNotConsented",
        format!(
            "the person that connected the link wasn't asked for {}; what was consented to is kept fresh; to ask for all, \
             run: {}",
            missing.join(" "),
            how_to_connect(seen)
        ),
    ))
}

/// The command by which a person connects a link.
fn how_to_connect(seen: &Observed) -> String {
    format!("kubectl applink authorize {} -n {}", seen.name, seen.namespace)
}

/// Keeps the token of a grant fresh, and publishes it.
fn keep(
    goal: &OutgoingGoal,
    suspended: bool,
    seen: &Observed,
    facts: &OutgoingFacts,
    active: Option<(Grant, Option<String>)>,
    keys: &KeyRing,
    now: Timestamp,
) -> Upkeep {
    let published = match &facts.secret {
        SecretFact::Own(own) => published(own, goal, keys),
        _ => None,
    };
    let token = |a: &Access| token_view(goal, &seen.uid, a);
    let shown = published.as_ref().map(token);
    let blocked = |problem: Problem| Upkeep::new(Part::blocked(problem), shown);

    let own = match writable(&facts.secret, &goal.secret) {
        Ok(own) => own,
        Err(problem) => return blocked(problem),
    };
    let asker = match asker(goal, facts) {
        Ok(asker) => asker,
        Err(problem) => return blocked(problem),
    };
    let mut part = Part::settled();
    let (grant, version) = match held(goal, seen, facts, active, &asker) {
        Ok(held) => held,
        Err(problem) => return blocked(problem),
    };
    let fingerprint = fingerprint(keys, goal, &grant, &asker);
    // The newer of what was kept and what was published, if it was got with the same request.
    let current = grant
        .access
        .iter()
        .chain(&published)
        .filter(|a| a.fingerprint == fingerprint && a.expires_at > now)
        .max_by_key(|a| a.issued_at)
        .cloned();
    // Without a refresh token there is nothing to do before a person must consent again.
    let at_its_end = goal.grant.asks_a_person() && grant.refresh_token.is_none();
    let due = current
        .as_ref()
        .is_none_or(|a| !at_its_end && (token(a).next_refresh <= now || a.issued_at > after(now)));
    let stay = |access: &Access| match publish(goal, seen, own, access, keys) {
        Ok(effect) => {
            let part = Part { effects: effect.into_iter().collect(), ..Part::settled() };
            Upkeep::new(part, Some(token(access)))
        }
        Err(problem) => blocked(problem),
    };
    if let Some(access) = current.as_ref().filter(|_| !due || suspended) {
        return stay(access);
    }

    // Nothing is asked for while the link is suspended; that the token has ended is said as such.
    if suspended && published.as_ref().is_some_and(|a| a.expires_at <= now) {
        return Upkeep::new(part, shown);
    }
    // A request is due. Everything that it needs must be there, and nothing may have changed.
    if let Some(code) = &grant.dead {
        return blocked(dead(goal, seen, code));
    }
    if at_its_end {
        return blocked(Problem::edit(
            "ReauthorizationRequired",
            format!(
                "the access token has ended and the server gave no refresh token with it; ask for the scope that gives one \
                 (offline_access at many servers), or run again: {}",
                how_to_connect(seen)
            ),
        ));
    }
    let in_force = |r: &&Refused| r.fingerprint == fingerprint && r.until.is_none_or(|until| until > now);
    if let Some(Refused { problem, until, .. }) = facts.refused.as_ref().filter(in_force) {
        let left = until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        return blocked(Problem { retry_after: left.or(problem.retry_after), ..problem.clone() });
    }
    let endpoints = match &facts.endpoints {
        Ok(endpoints) => endpoints,
        Err(problem) => return blocked(problem.clone()),
    };
    if let Err(problem) = hosts::check(goal, &facts.inputs, facts.require_allowed_hosts, endpoints) {
        return blocked(problem);
    }
    let mut grant = grant;
    let save = match bind(goal, seen, &mut grant, version.is_none(), endpoints, &asker) {
        Ok(save) => save,
        Err(problem) => return blocked(problem),
    };
    let asks = Some(turn(&endpoints.token_endpoint, &grant, published.as_ref()));
    if facts.in_line {
        let ended = published.as_ref().is_some_and(|a| a.fingerprint == fingerprint);
        let decided = match &current {
            Some(access) => stay(access),
            // The status says by itself that the token has ended; the grant is as it was.
            None if ended => Upkeep::new(Part::settled(), shown),
            None => blocked(queued(&endpoints.token_endpoint)),
        };
        return Upkeep { asks, ..decided };
    }
    let announce = grant.announces() && grant.intent.as_ref().is_none_or(|i| i.holder != facts.holder);
    if save {
        // One write says both: what the grant is bound to, and that a refresh is underway.
        if announce {
            grant.intent = Some(Intent { holder: facts.holder.clone(), at: now });
        }
        part.effects.push(Effect::SaveGrant(Box::new(grant.clone()), version));
    } else if announce {
        part.effects.push(Effect::BeginRefresh(facts.holder.clone()));
    }
    part.effects.push(Effect::RequestToken(Box::new(TokenPlan {
        endpoint: endpoints.token_endpoint.clone(),
        client: asker.client.cloned(),
        // What a person consented to is what is refreshed.
        scopes: if goal.grant.asks_a_person() { ScopeSet::default() } else { goal.scopes.clone() },
        by: asker.by,
        dialect: goal.server.preset.dialect,
        fingerprint,
    })));
    if grant.refresh_token.is_some() {
        part.effects.push(Effect::KeepReply);
    }
    part.effects.push(Effect::PublishToken(Box::new(publication(goal, seen, own, None))));
    Upkeep { part, token: shown, asks }
}

/// A token as status and schedule see it.
pub fn token_view(goal: &OutgoingGoal, link_uid: &str, access: &Access) -> Token {
    Token {
        issued_at: access.issued_at,
        expires_at: access.expires_at,
        next_refresh: next_refresh(access.issued_at, access.expires_at, goal.refresh, jitter(link_uid)),
    }
}

/// The place of a request in the line of its host.
fn turn(endpoint: &Url, grant: &Grant, published: Option<&Access>) -> Turn {
    let ends = grant.access.iter().chain(published).map(|a| a.expires_at).max();
    // A refresh without an answer is repeated while the server's grace lasts: nobody is in a greater hurry.
    let unresolved = grant.intent.is_some() && grant.refresh_token.is_some();
    Turn {
        host: host_and_port(endpoint),
        new: ends.is_none() && !unresolved,
        deadline: ends.filter(|_| !unresolved).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// Whom a token request goes to, as its budget knows it.
pub fn host_and_port(endpoint: &Url) -> String {
    format!(
        "{}:{}",
        endpoint.host_str().unwrap_or_default(),
        endpoint.port_or_known_default().unwrap_or_default()
    )
}

fn queued(endpoint: &Url) -> Problem {
    Problem::wait(
        "Queued",
        format!(
            "more links ask {} for a token than it is sent at a time, or it asked to be left alone; this one's turn comes \
             by itself",
            host_and_port(endpoint)
        ),
    )
}

/// Timestamps of the future come from a clock that was set back; more than this isn't drift.
fn after(now: Timestamp) -> Timestamp {
    now.saturating_add(jiff::SignedDuration::from_mins(5)).unwrap_or(Timestamp::MAX)
}

/// A number of its own for each link, the same after a restart.
fn jitter(uid: &str) -> u64 {
    let digest = digest_hex(uid);
    u64::from_str_radix(digest.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}

fn spec_digest(goal: &OutgoingGoal) -> String {
    let server = match &goal.server.place {
        ServerPlace::Issuer(issuer) => format!("issuer {issuer}"),
        // All of them, by the one list of what a grant is bound to.
        ServerPlace::Endpoints(endpoints) => format!("endpoints {:?}", Binding::new(endpoints, "")),
    };
    digest_hex(&server)
}

/// Who asks, and by what.
struct Asker<'a> {
    client: Option<&'a ClientCredentials>,
    /// The client identifier; without a client, the issuer of our assertions.
    name: String,
    by: AskBy,
}

fn asker<'a>(goal: &OutgoingGoal, facts: &'a OutgoingFacts) -> Result<Asker<'a>, Problem> {
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
                    "InvalidSpec",
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
            return Err(Problem::wait("AssertionKeyMissing", "the key of the assertion wasn't read"));
        }
    };
    let issuer = match &by {
        AskBy::JwtBearer(assertion) => assertion.issuer.clone(),
        _ => String::new(),
    };
    Ok(Asker { client, name: client.map_or(issuer, |c| c.id.to_string()), by })
}

/// The grant that there is, or the one to start with. A seed that wasn't seen before starts anew.
fn held(
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
            return Err(Problem::wait("SeedMissing", "the refresh token to start with wasn't read"));
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
    };
    grant.remember(Some(client), true);
    grant
}

/// Binds a new grant, or checks that an old one is still bound to the same. `Ok(true)`: it must
/// be saved before anything is sent.
fn bind(
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
                    "GrantBindingChanged",
                    format!(
                        "the issuer, an endpoint or the client identifier isn't the one that the person consented to, so \
                         nothing is sent; run: {}",
                        how_to_connect(seen)
                    ),
                ));
            }
            GrantGoal::RefreshToken(_) => {
                return Err(Problem::edit(
                    "GrantBindingChanged",
                    "the issuer, an endpoint or the client identifier isn't the one that this refresh token was given \
                     for, so the token isn't sent; put a new refresh token into the Secret of \
                     spec.outgoing.oauth2.grant.refreshToken.secretRef, or change the server back",
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
        "EndpointChanged",
        format!(
            "discovery now names the {what} {new}, {old}; nothing is sent there until the link is annotated with {}={all}",
            names::ACCEPT_ENDPOINT,
        ),
    ))
}

fn dead(goal: &OutgoingGoal, seen: &Observed, code: &str) -> Problem {
    let way_out = match &goal.grant {
        GrantGoal::RefreshToken(at) => format!("put a new one into Secret {}", at.secret),
        _ => format!("run: {}", how_to_connect(seen)),
    };
    Problem::edit(
        "ReauthorizationRequired",
        format!("the server no longer accepts the refresh token ({code}); {way_out}"),
    )
}

/// What a link that nobody connected yet waits for.
fn not_connected(seen: &Observed, facts: &OutgoingFacts) -> Problem {
    match &facts.desk {
        Some(Err(problem)) => problem.clone(),
        _ => Problem::edit(
            "AuthorizationRequired",
            format!("nobody has connected the link yet; run: {}", how_to_connect(seen)),
        ),
    }
}

/// What a token is asked for with. Another scope, client secret, endpoint or seed is another
/// request, so the token that stands in the Secret isn't the wanted one.
fn fingerprint(keys: &KeyRing, goal: &OutgoingGoal, grant: &Grant, asker: &Asker<'_>) -> String {
    let auth = asker.client.map(|c| &c.auth);
    // A token that can't be refreshed stays the wanted one when the client's secret is another.
    let refreshable = grant.requested.is_none() || grant.refresh_token.is_some();
    let lasting = auth.and_then(|a| a.lasting()).filter(|_| refreshable);
    // A token that somebody else signs is another one each time; who it speaks for isn't.
    let account = match goal.client.as_ref().map(|c| &c.auth) {
        Some(ClientAuthGoal::ServiceAccount { name, audience }) => format!("{name} {audience}"),
        _ => String::new(),
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
            auth.map_or("", |a| a.method()),
            &grant.requested.clone().unwrap_or_else(|| goal.scopes.to_string()),
            grant.seed_digest.as_deref().unwrap_or(""),
            goal.server.preset.name,
            &account,
            key,
            &assertion,
        ],
    )
}

/// The token that stands in the Secret, if the Secret is as we wrote it.
pub fn published(own: &OwnSecret, goal: &OutgoingGoal, keys: &KeyRing) -> Option<Access> {
    let value = |slot: Slot| goal.secret.keys.get(&slot).and_then(|key| own.data.get(key));
    let time = |name: &str| own.annotations.get(name).and_then(|t| t.parse::<Timestamp>().ok());
    let access = Access {
        token: Kept(value(Slot::AccessToken)?.to_owned().into()),
        token_type: value(Slot::TokenType)?.to_owned(),
        issued_at: time(names::ISSUED_AT)?,
        expires_at: time(names::EXPIRES_AT)?,
        scope: value(Slot::Scope)?.to_owned(),
        fingerprint: own.annotations.get(names::TOKEN_FOR)?.clone(),
    };
    let mark = own.annotations.get(names::CONTENT)?;
    let (issued, expires) = (access.issued_at.to_string(), access.expires_at.to_string());
    keys.is_fingerprint(PURPOSE_CONTENT, &content_parts(&access, &issued, &expires), mark).then_some(access)
}

fn content_parts<'a>(access: &'a Access, issued: &'a str, expires: &'a str) -> [&'a str; 6] {
    [access.token.0.expose_secret(), &access.token_type, issued, expires, &access.scope, &access.fingerprint]
}

/// A token as a Secret: its data, and the annotations that go with it.
///
/// # Errors
/// [`Problem`] when a template can't be filled safely.
pub fn token_secret(
    goal: &SecretGoal,
    provider: &str,
    access: &Access,
    keys: &KeyRing,
) -> Result<(Data, BTreeMap<String, String>), Problem> {
    let (issued, expires) = (access.issued_at.to_string(), access.expires_at.to_string());
    let values: Values = [
        (Slot::Type, "oauth2"),
        (Slot::Provider, provider),
        (Slot::AccessToken, access.token.0.expose_secret()),
        (Slot::TokenType, &access.token_type),
        (Slot::ExpiresAt, &expires),
        (Slot::Scope, &access.scope),
    ]
    .into_iter()
    .map(|(slot, text)| (slot, text.to_owned().into()))
    .collect();
    let data = content::render(goal, &values).map_err(|(key, e)| {
        Problem::edit("TemplateError", format!("spec.outgoing.secret.template[\"{key}\"]: {e}"))
    })?;
    let mut annotations = goal.annotations.clone();
    let mark = keys.fingerprint(PURPOSE_CONTENT, &content_parts(access, &issued, &expires));
    annotations.insert(names::TOKEN_FOR.into(), access.fingerprint.clone());
    annotations.insert(names::CONTENT.into(), mark);
    annotations.insert(names::ISSUED_AT.into(), issued);
    annotations.insert(names::EXPIRES_AT.into(), expires);
    Ok((data, annotations))
}

fn publication(
    goal: &OutgoingGoal,
    seen: &Observed,
    own: Option<&OwnSecret>,
    token: Option<Access>,
) -> Publication {
    let labels = own_labels(&goal.secret, seen, "oauth-token");
    let kept_annotations = [names::TOKEN_FOR, names::CONTENT, names::ISSUED_AT, names::EXPIRES_AT];
    let annotations: BTreeMap<String, String> = goal
        .secret
        .annotations
        .clone()
        .into_iter()
        .chain(kept_annotations.map(|k| (k.to_owned(), String::new())))
        .collect();
    let keys = goal.secret.keys.values().chain(goal.secret.templates.keys()).map(String::as_str);
    let over = own.map(|own| over(own, &labels, &annotations, keys.chain(["type", "provider"])));
    Publication { goal: goal.secret.clone(), provider: goal.server.preset.name, labels, token, over }
}

/// The effect that makes the Secret show this token, or `None` when it does.
fn publish(
    goal: &OutgoingGoal,
    seen: &Observed,
    own: Option<&OwnSecret>,
    access: &Access,
    keys: &KeyRing,
) -> Result<Option<Effect>, Problem> {
    let (data, annotations) = token_secret(&goal.secret, goal.server.preset.name, access, keys)?;
    let labels = own_labels(&goal.secret, seen, "oauth-token");
    if own.is_some_and(|own| is_as_wanted(own, &labels, &annotations, &data)) {
        return Ok(None);
    }
    Ok(Some(Effect::PublishToken(Box::new(publication(goal, seen, own, Some(access.clone()))))))
}
