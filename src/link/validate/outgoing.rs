//! The outgoing part of a spec, checked. Pure. The server is in [`mod@server`], the grant in [`mod@grant`], our client
//! there in [`mod@client`].

mod client;
mod grant;
mod server;

use super::{Invalid, invalid, scopes, secret_goal};
use crate::api::link::{ExpectedAccount, Outgoing, OutgoingKeys};
use crate::domain::text::Shown;
use crate::domain::{AuthMethod, ClientId, ScopeSet, duration};
use crate::link::content::{self, SecretGoal, Slot};
use crate::outgoing::presets::Preset;
use crate::outgoing::{Issuer, RefreshPolicy, ServerEndpoints, SigningAlgorithm};
use std::collections::BTreeMap;

use client::client;
pub use grant::is_protocol;
use grant::{asked, can_begin, grant, prompted};
use server::server;

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
