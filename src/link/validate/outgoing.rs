//! The outgoing part of a spec, checked. Pure.

use super::{Invalid, invalid, scopes, secret_goal};
use crate::api::link::{
    Client, ClientSecretRef, Endpoints, ExpectedAccount, Grant, Outgoing, OutgoingAuthMethod, OutgoingKeys,
    Server, SigningAlgorithm as Wanted,
};
use crate::domain::text::Shown;
use crate::domain::{AuthMethod, ClientId, Scope, ScopeSet, duration};
use crate::link::content::{self, SecretGoal, Slot};
use crate::outgoing::presets::{self, Preset};
use crate::outgoing::{Issuer, RefreshPolicy, ServerEndpoints, SigningAlgorithm};
use std::collections::BTreeMap;
use url::Url;

const AT: &str = "spec.outgoing.oauth2";

/// The scope that asks for a refresh token (OpenID Connect Core section 11).
pub const OFFLINE_ACCESS: &str = "offline_access";

/// The parameter that says what a server asks the person (OpenID Connect Core section 3.1.2.1).
pub const PROMPT: &str = "prompt";

/// The token to keep, and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingGoal {
    /// The authorization server.
    pub server: ServerGoal,
    /// How the token is got.
    pub grant: GrantGoal,
    /// Our client there; only the grant jwt-bearer may do without.
    pub client: Option<ClientGoal>,
    /// The scopes to ask for.
    pub scopes: ScopeSet,
    /// When to refresh.
    pub refresh: RefreshPolicy,
    /// The Secret.
    pub secret: SecretGoal,
}

/// The authorization server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerGoal {
    /// How it behaves.
    pub preset: &'static Preset,
    /// Where it is.
    pub place: ServerPlace,
    /// Whether the spec names an address of it, rather than the preset alone.
    pub named: bool,
}

impl ServerGoal {
    /// Its endpoints, where they needn't be discovered.
    fn endpoints(&self) -> Option<&ServerEndpoints> {
        match &self.place {
            ServerPlace::Endpoints(known) => Some(known),
            ServerPlace::Issuer(_) => None,
        }
    }
}

/// Where an authorization server is.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerPlace {
    /// To be discovered.
    Issuer(Issuer),
    /// Given.
    Endpoints(Box<ServerEndpoints>),
}

/// A key of a Secret in the link's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub secret: String,
    /// The key.
    pub key: String,
}

/// Our client at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientGoal {
    /// Its identifier.
    pub id: ClientIdGoal,
    /// How it authenticates, and with what.
    pub auth: ClientAuthGoal,
}

/// Where a client's identifier stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientIdGoal {
    /// In the spec.
    Given(ClientId),
    /// In a Secret.
    Secret(SecretKey),
    /// The ServiceAccount's token says it.
    Subject,
}

/// How a client authenticates, and where that stands which it does it with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthGoal {
    /// A secret.
    Secret {
        /// `client_secret_basic` or `client_secret_post`.
        method: AuthMethod,
        /// Whether the spec names it; else the server's metadata may say another one.
        named: bool,
        /// Where it stands.
        at: SecretKey,
    },
    /// Not at all: a public client.
    None,
    /// `private_key_jwt` with a key.
    PrivateKey {
        /// Where it stands.
        at: SecretKey,
        /// Another `kid` than the key's.
        key_id: Option<String>,
        /// Another algorithm than the key's.
        algorithm: Option<SigningAlgorithm>,
        /// Another `aud` than the token endpoint.
        audience: Option<String>,
    },
    /// The token of a ServiceAccount of the link's namespace.
    ServiceAccount {
        /// Its name.
        name: String,
        /// The token's `aud`.
        audience: String,
    },
}

/// How a token is got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantGoal {
    /// RFC 6749 section 4.1: a person consents in a browser.
    AuthorizationCode {
        /// More parameters of the authorization request than the server's own.
        parameters: BTreeMap<String, String>,
        /// The only account that may be connected.
        expected: Option<ExpectedAccount>,
    },
    /// RFC 8628: a person consents by entering a code.
    DeviceCode {
        /// The only account that may be connected.
        expected: Option<ExpectedAccount>,
    },
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6, from a seed that the user brings.
    RefreshToken(SecretKey),
    /// RFC 7523 section 2.1.
    JwtBearer(Box<JwtBearerGoal>),
}

/// A signed assertion as the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtBearerGoal {
    /// Where the key stands.
    pub at: SecretKey,
    /// `iss`; `None` for what the key file says, else the client.
    pub issuer: Option<String>,
    /// `sub`; `None` for the issuer.
    pub subject: Option<String>,
    /// `aud`; `None` for the token endpoint.
    pub audience: Option<String>,
}

impl OutgoingGoal {
    /// All the keys of Secrets that the link reads.
    pub fn inputs(&self) -> impl Iterator<Item = &SecretKey> {
        let grant = match &self.grant {
            GrantGoal::RefreshToken(at) => Some(at),
            GrantGoal::JwtBearer(goal) => Some(&goal.at),
            GrantGoal::ClientCredentials
            | GrantGoal::AuthorizationCode { .. }
            | GrantGoal::DeviceCode { .. } => None,
        };
        self.client.iter().flat_map(ClientGoal::inputs).chain(grant)
    }
}

impl GrantGoal {
    /// Whether a person must consent.
    pub const fn asks_a_person(&self) -> bool {
        matches!(self, Self::AuthorizationCode { .. } | Self::DeviceCode { .. })
    }

    /// Whether a refresh token may be spent for a new access token.
    pub const fn refreshes(&self) -> bool {
        !matches!(self, Self::ClientCredentials | Self::JwtBearer(_))
    }

    /// The only account that may be connected.
    pub const fn expected(&self) -> Option<&ExpectedAccount> {
        match self {
            Self::AuthorizationCode { expected, .. } | Self::DeviceCode { expected } => expected.as_ref(),
            Self::ClientCredentials | Self::RefreshToken(_) | Self::JwtBearer(_) => None,
        }
    }
}

impl ClientGoal {
    /// The keys of Secrets that are read for it, and the field that names each.
    fn inputs(&self) -> impl Iterator<Item = &SecretKey> {
        let id = match &self.id {
            ClientIdGoal::Secret(at) => Some(at),
            ClientIdGoal::Given(_) | ClientIdGoal::Subject => None,
        };
        let auth = match &self.auth {
            ClientAuthGoal::Secret { at, .. } | ClientAuthGoal::PrivateKey { at, .. } => Some(at),
            ClientAuthGoal::None | ClientAuthGoal::ServiceAccount { .. } => None,
        };
        id.into_iter().chain(auth)
    }
}

/// Checks the outgoing part of the link `name`.
pub(super) fn check(name: &str, spec: &Outgoing) -> Result<OutgoingGoal, Invalid> {
    let oauth2 = &spec.oauth2;
    let server = server(&oauth2.server)?;
    let grant = grant(&oauth2.grant, &server)?;
    can_begin(&server, &grant)?;
    let client = oauth2.client.as_ref().map(|c| client(c, server.preset)).transpose()?;
    if client.is_none() && !matches!(grant, GrantGoal::JwtBearer(_)) {
        return Err(invalid(format!("{AT}.client"), "must be given, but for the grant jwtBearer"));
    }
    let public = client.as_ref().is_some_and(|c| c.auth == ClientAuthGoal::None);
    if grant == GrantGoal::ClientCredentials && public {
        return Err(invalid(
            format!("{AT}.client.authMethod"),
            "none can't be used with the grant clientCredentials; use another authMethod",
        ));
    }
    let secret = secret(name, spec)?;
    apart(&secret, &grant, client.as_ref())?;
    let scopes = asked(server.preset, &grant, scopes(&format!("{AT}.scopes"), oauth2.scopes.as_deref())?);
    Ok(OutgoingGoal {
        grant: prompted(server.preset, grant, &scopes),
        scopes,
        server,
        client,
        refresh: refresh(spec)?,
        secret,
    })
}

/// The scopes that are asked for: with those that keep a grant alive, and those by which the server
/// says whose it is.
fn asked(preset: &Preset, grant: &GrantGoal, scopes: ScopeSet) -> ScopeSet {
    let account = if grant.expected().is_some() { preset.account_scopes } else { &[] };
    let needed = match grant {
        GrantGoal::AuthorizationCode { .. } | GrantGoal::DeviceCode { .. } => preset.consent_scopes,
        GrantGoal::RefreshToken(_) if !scopes.is_empty() => preset.consent_scopes,
        _ => &[],
    };
    let needed = needed.iter().chain(account).filter_map(|s| Scope::parse(s).ok());
    scopes.iter().cloned().chain(needed).collect()
}

/// The grant with what the scope `offline_access` needs beside it: servers that keep to OpenID Connect Core
/// section 11 ignore the scope unless `prompt` has `consent` in it. A `prompt` of the link's own stays, and
/// presets know what theirs need. A server that knows no `prompt` ignores it (RFC 6749 section 3.1).
fn prompted(preset: &Preset, mut grant: GrantGoal, scopes: &ScopeSet) -> GrantGoal {
    if let GrantGoal::AuthorizationCode { parameters, .. } = &mut grant
        && preset == &presets::CUSTOM
        && scopes.iter().any(|s| s.as_str() == OFFLINE_ACCESS)
    {
        parameters.entry(PROMPT.to_owned()).or_insert_with(|| "consent".to_owned());
    }
    grant
}

fn server(spec: &Server) -> Result<ServerGoal, Invalid> {
    let Server { google, microsoft, github, gitlab, slack, atlassian, custom } = spec;
    let set = [
        google.is_some(),
        microsoft.is_some(),
        github.is_some(),
        gitlab.is_some(),
        slack.is_some(),
        atlassian.is_some(),
        custom.is_some(),
    ];
    let none = None;
    let (preset, base, tenant, endpoints) = match spec {
        _ if set.into_iter().filter(|is| *is).count() != 1 => {
            return Err(invalid(
                format!("{AT}.server"),
                "exactly one of google, microsoft, github, gitlab, slack, atlassian and custom must be set",
            ));
        }
        Server { google: Some(s), .. } => (&presets::GOOGLE, &none, "", &s.endpoints),
        Server { slack: Some(s), .. } => (&presets::SLACK, &none, "", &s.endpoints),
        Server { atlassian: Some(s), .. } => (&presets::ATLASSIAN, &none, "", &s.endpoints),
        Server { microsoft: Some(s), .. } => (&presets::MICROSOFT, &none, s.tenant.as_str(), &s.endpoints),
        Server { github: Some(s), .. } => (&presets::GITHUB, &s.url, "", &s.endpoints),
        Server { gitlab: Some(s), .. } => (&presets::GITLAB, &s.url, "", &s.endpoints),
        Server { custom, .. } => return custom_server(custom.as_ref()),
    };
    let at = format!("{AT}.server.{}", preset.name);
    let tenant_fits =
        |t: &str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) && !t.starts_with('.');
    if !tenant_fits(tenant) || (preset == &presets::MICROSOFT && tenant.is_empty()) {
        return Err(invalid(
            format!("{at}.tenant"),
            format!(
                "{} isn't a tenant; give its ID or domain, or common, organizations or consumers",
                Shown(tenant)
            ),
        ));
    }
    let base = base.as_deref().map(|b| base_url(format!("{at}.url"), b)).transpose()?;
    let Some(mut filled) = preset.endpoints(base.as_ref(), tenant) else {
        return Err(invalid(format!("{at}.url"), "isn't an address that this server can have"));
    };
    let named = base.is_some() || endpoints.is_some();
    if let Some(given) = endpoints {
        override_with(&mut filled, given, &at)?;
    }
    Ok(ServerGoal { preset, place: ServerPlace::Endpoints(Box::new(filled)), named })
}

fn override_with(filled: &mut ServerEndpoints, given: &Endpoints, at: &str) -> Result<(), Invalid> {
    let Endpoints {
        authorization_endpoint,
        token_endpoint,
        revocation_endpoint,
        device_authorization_endpoint,
        user_endpoint,
    } = given;
    let parse = |field: &str, text: &Option<String>| {
        text.as_deref().map(|t| url(format!("{at}.endpoints.{field}"), t)).transpose()
    };
    if let Some(token) = parse("tokenEndpoint", token_endpoint)? {
        filled.token_endpoint = token;
    }
    for (field, text, into) in [
        ("authorizationEndpoint", authorization_endpoint, &mut filled.authorization_endpoint),
        ("revocationEndpoint", revocation_endpoint, &mut filled.revocation_endpoint),
        (
            "deviceAuthorizationEndpoint",
            device_authorization_endpoint,
            &mut filled.device_authorization_endpoint,
        ),
        ("userEndpoint", user_endpoint, &mut filled.user_endpoint),
    ] {
        if let Some(given) = parse(field, text)? {
            *into = Some(given);
        }
    }
    Ok(())
}

fn custom_server(custom: Option<&crate::api::link::CustomServer>) -> Result<ServerGoal, Invalid> {
    let custom = custom.ok_or_else(|| invalid(format!("{AT}.server"), "exactly one server must be set"))?;
    let field = |f: &str| format!("{AT}.server.custom.{f}");
    let optional = |f: &str, text: &Option<String>| text.as_deref().map(|t| url(field(f), t)).transpose();
    let place = match (&custom.issuer, &custom.token_endpoint) {
        (Some(issuer), None) => {
            let parsed = Issuer::parse(issuer)
                .map_err(|e| invalid(field("issuer"), format!("{} {e}", Shown(issuer))))?;
            ServerPlace::Issuer(parsed)
        }
        (None, Some(token)) => ServerPlace::Endpoints(Box::new(ServerEndpoints {
            revocation_endpoint: optional("revocationEndpoint", &custom.revocation_endpoint)?,
            authorization_endpoint: optional("authorizationEndpoint", &custom.authorization_endpoint)?,
            device_authorization_endpoint: optional(
                "deviceAuthorizationEndpoint",
                &custom.device_authorization_endpoint,
            )?,
            ..ServerEndpoints::new(url(field("tokenEndpoint"), token)?)
        })),
        _ => return Err(invalid(field("issuer"), "exactly one of issuer and tokenEndpoint must be set")),
    };
    Ok(ServerGoal { preset: &presets::CUSTOM, place, named: true })
}

/// Whether the endpoint is known at which a person's consent begins; of an issuer discovery tells it.
fn can_begin(server: &ServerGoal, grant: &GrantGoal) -> Result<(), Invalid> {
    let Some(known) = server.endpoints() else { return Ok(()) };
    let (grant, endpoint, there) = match grant {
        GrantGoal::AuthorizationCode { .. } => {
            ("authorizationCode", "authorizationEndpoint", &known.authorization_endpoint)
        }
        GrantGoal::DeviceCode { .. } => {
            ("deviceCode", "deviceAuthorizationEndpoint", &known.device_authorization_endpoint)
        }
        GrantGoal::ClientCredentials | GrantGoal::RefreshToken(_) | GrantGoal::JwtBearer(_) => return Ok(()),
    };
    let name = server.preset.name;
    if there.is_some() {
        Ok(())
    } else if server.preset == &presets::CUSTOM {
        Err(invalid(
            format!("{AT}.server.custom.{endpoint}"),
            format!("must be set for the grant {grant}; or name the issuer in place of endpoints"),
        ))
    } else {
        Err(invalid(
            format!("{AT}.server.{name}.endpoints.{endpoint}"),
            format!(
                "must be set for the grant {grant}, since none of {name} is known; or use {}",
                others(server.preset, Some(known))
            ),
        ))
    }
}

fn grant(spec: &Grant, server: &ServerGoal) -> Result<GrantGoal, Invalid> {
    let Grant { authorization_code, device_code, client_credentials, refresh_token, jwt_bearer } = spec;
    let unknown = |grant: &str| {
        let way = others(server.preset, server.endpoints());
        invalid(
            format!("{AT}.grant.{grant}"),
            format!("{} doesn't know this grant; use {way}", server.preset.name),
        )
    };
    let preset = server.preset;
    match (authorization_code, device_code, client_credentials, refresh_token, jwt_bearer) {
        (Some(a), None, None, None, None) => Ok(GrantGoal::AuthorizationCode {
            parameters: parameters(&a.parameters)?,
            expected: a.expected_account.clone(),
        }),
        (None, Some(d), None, None, None) => {
            Ok(GrantGoal::DeviceCode { expected: d.expected_account.clone() })
        }
        (None, None, Some(_), None, None) if !preset.client_credentials => Err(unknown("clientCredentials")),
        (None, None, Some(_), None, None) => Ok(GrantGoal::ClientCredentials),
        (None, None, None, Some(r), None) => Ok(GrantGoal::RefreshToken(SecretKey {
            secret: r.secret_ref.name.clone(),
            key: r.secret_ref.key.clone(),
        })),
        (None, None, None, None, Some(_)) if !preset.jwt_bearer => Err(unknown("jwtBearer")),
        (None, None, None, None, Some(j)) => Ok(GrantGoal::JwtBearer(Box::new(JwtBearerGoal {
            at: SecretKey { secret: j.secret_ref.name.clone(), key: j.secret_ref.key.clone() },
            issuer: j.issuer.clone(),
            subject: j.subject.clone(),
            audience: j.audience.clone(),
        }))),
        _ => Err(invalid(
            format!("{AT}.grant"),
            "exactly one of authorizationCode, deviceCode, clientCredentials, refreshToken and jwtBearer must be set",
        )),
    }
}

/// The grants that work at a server, so that no advice leads to another refusal.
fn others(preset: &Preset, known: Option<&ServerEndpoints>) -> String {
    let (person, device) = known.map_or((true, true), |e| {
        (e.authorization_endpoint.is_some(), e.device_authorization_endpoint.is_some())
    });
    let all = [
        (preset.client_credentials, "clientCredentials"),
        (preset.jwt_bearer, "jwtBearer with the key of a service account"),
        (person, "authorizationCode or a refreshToken, where a person consents once"),
        (device, "deviceCode, where a person enters a code"),
    ];
    let works: Vec<&str> = all.into_iter().filter(|(works, _)| *works).map(|(_, grant)| grant).collect();
    works.join("; or ")
}

/// What an authorization request has by the protocol; nobody sets it by hand.
const PROTOCOL: &[&str] = &[
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// Whether an authorization request has a parameter of this name by the protocol. Some servers don't tell
/// upper from lower case.
pub fn is_protocol(name: &str) -> bool {
    PROTOCOL.iter().any(|p| p.eq_ignore_ascii_case(name))
}

fn parameters(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    match given.keys().find(|k| is_protocol(k)) {
        None => Ok(given.clone()),
        Some(name) => Err(invalid(
            format!("{AT}.grant.authorizationCode.parameters"),
            format!("{} is the protocol's own parameter; remove it", Shown(name)),
        )),
    }
}

fn client(spec: &Client, preset: &Preset) -> Result<ClientGoal, Invalid> {
    let Client { client_id, secret_ref, auth_method, assertion, service_account } = spec;
    let field = |f: &str| format!("{AT}.client.{f}");
    let key = |r: &ClientSecretRef, key: &str| SecretKey { secret: r.name.clone(), key: key.to_owned() };
    let id = match (client_id, secret_ref) {
        (Some(id), _) => ClientIdGoal::Given(
            ClientId::parse(id).map_err(|e| invalid(field("clientId"), format!("{} {e}", Shown(id))))?,
        ),
        (None, Some(r)) if r.id_key == r.secret_key => {
            return Err(invalid(
                field("secretRef.idKey"),
                "is the key of the secret too, and the identifier is for all to read; name another key, or give clientId",
            ));
        }
        (None, Some(r)) => ClientIdGoal::Secret(key(r, &r.id_key)),
        (None, None) if service_account.is_some() => ClientIdGoal::Subject,
        (None, None) => {
            return Err(invalid(
                field("clientId"),
                "clientId or secretRef must be set, but for a serviceAccount",
            ));
        }
    };
    if assertion.is_some()
        && (*auth_method != Some(OutgoingAuthMethod::PrivateKeyJwt) || service_account.is_some())
    {
        return Err(invalid(
            field("assertion"),
            "goes with authMethod private_key_jwt and a key of your own; remove it, or set authMethod",
        ));
    }
    if let Some(account) = service_account {
        if !matches!(auth_method, None | Some(OutgoingAuthMethod::PrivateKeyJwt)) {
            return Err(invalid(
                field("authMethod"),
                "isn't how a serviceAccount authenticates; leave it out",
            ));
        }
        let auth =
            ClientAuthGoal::ServiceAccount { name: account.name.clone(), audience: account.audience.clone() };
        return Ok(ClientGoal { id, auth });
    }
    if *auth_method == Some(OutgoingAuthMethod::None) {
        return Ok(ClientGoal { id, auth: ClientAuthGoal::None });
    }
    let Some(secret) = secret_ref else {
        return Err(invalid(field("secretRef"), "must be set, but for a serviceAccount and authMethod none"));
    };
    let at = key(secret, &secret.secret_key);
    let method = match auth_method {
        None => preset.auth_method,
        Some(OutgoingAuthMethod::ClientSecretPost) => AuthMethod::ClientSecretPost,
        Some(OutgoingAuthMethod::PrivateKeyJwt) => {
            let assertion = assertion.clone().unwrap_or_default();
            let algorithm = assertion.algorithm.map(|a| match a {
                Wanted::RS256 => SigningAlgorithm::RS256,
                Wanted::PS256 => SigningAlgorithm::PS256,
                Wanted::ES256 => SigningAlgorithm::ES256,
                Wanted::ES384 => SigningAlgorithm::ES384,
                Wanted::EdDSA => SigningAlgorithm::EdDSA,
            });
            let auth = ClientAuthGoal::PrivateKey {
                at,
                key_id: assertion.key_id,
                algorithm,
                audience: assertion.audience,
            };
            return Ok(ClientGoal { id, auth });
        }
        Some(OutgoingAuthMethod::ClientSecretBasic | OutgoingAuthMethod::None) => {
            AuthMethod::ClientSecretBasic
        }
    };
    Ok(ClientGoal { id, auth: ClientAuthGoal::Secret { method, named: auth_method.is_some(), at } })
}

fn refresh(spec: &Outgoing) -> Result<RefreshPolicy, Invalid> {
    let parse = |field: &str, text: &str| {
        duration::parse(text)
            .map_err(|e| invalid(format!("spec.outgoing.refresh.{field}"), format!("{} {e}", Shown(text))))
    };
    match spec.refresh.as_ref().map(|r| (&r.before, &r.every)) {
        None => Ok(RefreshPolicy::Default),
        Some((Some(before), None)) => Ok(RefreshPolicy::Before(parse("before", before)?)),
        Some((None, Some(every))) => Ok(RefreshPolicy::Every(parse("every", every)?)),
        Some(_) => Err(invalid("spec.outgoing.refresh", "exactly one of before and every must be set")),
    }
}

fn secret(name: &str, spec: &Outgoing) -> Result<SecretGoal, Invalid> {
    let OutgoingKeys { access_token, token_type, expires_at, scope } =
        spec.secret.as_ref().and_then(|s| s.keys.clone()).unwrap_or_default();
    let slots = [
        (Slot::AccessToken, access_token),
        (Slot::TokenType, token_type),
        (Slot::ExpiresAt, expires_at),
        (Slot::Scope, scope),
    ];
    let secret = spec.secret.clone().unwrap_or_default();
    secret_goal(
        "spec.outgoing.secret",
        secret.name.unwrap_or_else(|| format!("{name}-token")),
        secret.type_,
        secret.labels,
        secret.annotations,
        slots,
        secret.template,
        content::OUTGOING,
    )
}

/// The token's Secret is none that something is read from.
fn apart(secret: &SecretGoal, grant: &GrantGoal, client: Option<&ClientGoal>) -> Result<(), Invalid> {
    let seed = match grant {
        GrantGoal::RefreshToken(at) => Some(("grant.refreshToken.secretRef", at)),
        GrantGoal::JwtBearer(goal) => Some(("grant.jwtBearer.secretRef", &goal.at)),
        GrantGoal::ClientCredentials | GrantGoal::AuthorizationCode { .. } | GrantGoal::DeviceCode { .. } => {
            None
        }
    };
    let inputs = client.into_iter().flat_map(ClientGoal::inputs).map(|at| ("client.secretRef", at));
    match inputs.chain(seed).find(|(_, at)| at.secret == secret.name) {
        None => Ok(()),
        Some((what, at)) => Err(invalid(
            "spec.outgoing.secret.name",
            format!("{} is also {AT}.{what}.name; the token needs a Secret of its own", Shown(&at.secret)),
        )),
    }
}

/// The address of a server of one's own, to which paths are added.
fn base_url(field: String, text: &str) -> Result<Url, Invalid> {
    let parsed = url(field.clone(), text)?;
    if parsed.query().is_some() {
        return Err(invalid(field, format!("{} has a query (?…); remove it", Shown(text))));
    }
    Ok(parsed)
}

fn url(field: String, text: &str) -> Result<Url, Invalid> {
    let bad = |why: &str| invalid(field.clone(), format!("{} {why}", Shown(text)));
    let url = Url::parse(text)
        .map_err(|_| bad("isn't an absolute URL; write it like https://login.example.com"))?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(bad("must be an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("has user information before the host; remove it"));
    }
    if url.fragment().is_some() {
        return Err(bad("has a fragment (#…); remove it"));
    }
    Ok(url)
}
