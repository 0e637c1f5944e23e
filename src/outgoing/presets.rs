//! What is particular to each kind of server, as data: nowhere else does a server's name decide.
//!
//! From the servers' public documentation. A field of the spec overrides an endpoint; the rest is
//! how the server behaves, which no spec changes.

use super::ServerEndpoints;
use super::redirect::RedirectRule;
use super::signing_key::SigningAlgorithm;
use crate::domain::AuthMethod;
use std::time::Duration;
use url::Url;

/// What a code in an error reply means, whatever the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// The grant is gone: only a person can give a new one. Counts where a refresh token was sent.
    DeadGrant,
    /// The client's identifier, secret or method is wrong.
    BadClient,
    /// It passes.
    Transient,
}

/// How a server's token endpoint speaks, where it differs from RFC 6749.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Codes beside the standard's, or with another meaning.
    pub codes: &'static [(&'static str, Meaning)],
    /// Scopes are separated by commas.
    pub comma_scopes: bool,
    /// The member of a reply in which the token may stand, if it doesn't stand at the top.
    pub nested: Option<&'static str>,
    /// Whether the scopes stand in the assertion of the grant jwt-bearer, rather than beside it.
    pub assertion_carries_scopes: bool,
}

impl Dialect {
    /// As RFC 6749 says.
    pub const STANDARD: Self =
        Self { codes: &[], comma_scopes: false, nested: None, assertion_carries_scopes: false };
}

impl Default for Dialect {
    fn default() -> Self {
        Self::STANDARD
    }
}

/// How long a refresh token that was spent gives its successor once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    /// It isn't spent by a refresh.
    Lasting,
    /// This long.
    For(Duration),
    /// Not at all.
    None,
    /// The server's configuration says.
    Unknown,
}

/// How a grant is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// RFC 7009.
    Standard,
    /// Slack's `auth.revoke`: the access token, as a bearer token.
    SlackAuthRevoke,
    /// GitHub's `DELETE /applications/{client_id}/grant`: the access token as JSON, with HTTP Basic.
    /// The endpoint is the part before the identifier.
    GithubGrant,
    /// There is no way.
    None,
}

/// Where a server says whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountSource {
    /// `iss` and `sub` of the ID token, else `sub` of the user endpoint (OpenID Connect).
    OpenId,
    /// `tid` and `oid` of the ID token.
    Microsoft,
    /// `id` of the user endpoint; the issuer is the server's host.
    GithubUser,
    /// `authed_user.id` and `team.id` of the token reply.
    SlackReply,
    /// `account_id` of the user endpoint.
    AtlassianMe,
}

/// Endpoints as templates: `{base}` is the address of the server, `{tenant}` its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Templates {
    issuer: Option<&'static str>,
    authorization: &'static str,
    token: &'static str,
    revocation: Option<&'static str>,
    device: Option<&'static str>,
    user: Option<&'static str>,
}

/// What is particular to a kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Its key in the spec, and the `provider` of the Secret.
    pub name: &'static str,
    /// Where it is.
    places: Option<Places>,
    /// How a client with a secret authenticates, where the spec says nothing.
    pub auth_method: AuthMethod,
    /// How an RSA key signs, where the spec says nothing.
    pub rsa: SigningAlgorithm,
    /// More parameters of the authorization request.
    pub authorization_parameters: &'static [(&'static str, &'static str)],
    /// Scopes without which a person's consent gives no refresh token.
    pub consent_scopes: &'static [&'static str],
    /// Scopes without which the server doesn't say whose token it is.
    pub account_scopes: &'static [&'static str],
    /// Whether it knows the grant client credentials.
    pub client_credentials: bool,
    /// Whether it knows the grant jwt-bearer with a key of one's own.
    pub jwt_bearer: bool,
    /// How its token endpoint speaks.
    pub dialect: Dialect,
    /// What a repeated refresh token gives.
    pub grace: Grace,
    /// Whether a refresh may end the access token that was got before it.
    pub ends_token: bool,
    /// What it demands of redirect URIs.
    pub redirect: RedirectRule,
    /// How a grant is given back.
    pub revocation: Revocation,
    /// Where it says whose token it is.
    pub account: AccountSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    /// The address that `{base}` stands for where the spec names none.
    base: &'static str,
    /// The endpoints there.
    public: Templates,
    /// The endpoints at an address that the spec names, if one can be named.
    own: Option<Templates>,
}

/// Any server that keeps to the standards.
pub static CUSTOM: Preset = Preset {
    name: "custom",
    places: None,
    auth_method: AuthMethod::ClientSecretBasic,
    rsa: SigningAlgorithm::RS256,
    authorization_parameters: &[],
    consent_scopes: &[],
    account_scopes: &["openid"],
    client_credentials: true,
    jwt_bearer: true,
    dialect: Dialect::STANDARD,
    grace: Grace::Unknown,
    ends_token: true,
    redirect: RedirectRule::Https,
    revocation: Revocation::Standard,
    account: AccountSource::OpenId,
};

/// Google. A refresh token comes only with `access_type=offline`, and after the first time only
/// with `prompt=consent`; it isn't spent by a refresh.
pub static GOOGLE: Preset = Preset {
    name: "google",
    places: Some(Places {
        base: "https://oauth2.googleapis.com",
        public: Templates {
            issuer: Some("https://accounts.google.com"),
            authorization: "https://accounts.google.com/o/oauth2/v2/auth",
            token: "https://oauth2.googleapis.com/token",
            revocation: Some("https://oauth2.googleapis.com/revoke"),
            device: Some("https://oauth2.googleapis.com/device/code"),
            user: Some("https://openidconnect.googleapis.com/v1/userinfo"),
        },
        own: None,
    }),
    auth_method: AuthMethod::ClientSecretPost,
    authorization_parameters: &[("access_type", "offline"), ("prompt", "consent")],
    client_credentials: false,
    dialect: Dialect {
        codes: &[
            ("deleted_client", Meaning::BadClient),
            ("disabled_client", Meaning::BadClient),
            ("internal_failure", Meaning::Transient),
            ("rate_limit_exceeded", Meaning::Transient),
        ],
        assertion_carries_scopes: true,
        ..Dialect::STANDARD
    },
    grace: Grace::Lasting,
    ends_token: false,
    redirect: RedirectRule::Google,
    ..CUSTOM
};

/// Microsoft Entra ID, v2.0. An old refresh token goes on working. There is no revocation.
pub static MICROSOFT: Preset = Preset {
    name: "microsoft",
    places: Some(Places {
        base: "https://login.microsoftonline.com",
        public: Templates {
            // Whose tenant signs is known only with common, organizations and consumers' tokens.
            issuer: None,
            authorization: "{base}/{tenant}/oauth2/v2.0/authorize",
            token: "{base}/{tenant}/oauth2/v2.0/token",
            revocation: None,
            device: Some("{base}/{tenant}/oauth2/v2.0/devicecode"),
            user: None,
        },
        own: None,
    }),
    auth_method: AuthMethod::ClientSecretPost,
    rsa: SigningAlgorithm::PS256,
    consent_scopes: &["offline_access"],
    account_scopes: &["openid", "profile"],
    jwt_bearer: false,
    grace: Grace::Lasting,
    ends_token: false,
    redirect: RedirectRule::Microsoft,
    revocation: Revocation::None,
    account: AccountSource::Microsoft,
    ..CUSTOM
};

/// GitHub. Errors come with status 200; refresh tokens are used once.
pub static GITHUB: Preset = Preset {
    name: "github",
    places: Some(Places {
        base: "https://github.com",
        public: Templates {
            user: Some("https://api.github.com/user"),
            revocation: Some("https://api.github.com/applications"),
            ..GITHUB_OWN
        },
        own: Some(GITHUB_OWN),
    }),
    auth_method: AuthMethod::ClientSecretPost,
    account_scopes: &[],
    client_credentials: false,
    jwt_bearer: false,
    dialect: Dialect {
        codes: &[
            ("bad_refresh_token", Meaning::DeadGrant),
            ("unverified_user_email", Meaning::DeadGrant),
            ("incorrect_client_credentials", Meaning::BadClient),
            ("application_suspended", Meaning::BadClient),
        ],
        comma_scopes: true,
        ..Dialect::STANDARD
    },
    grace: Grace::None,
    revocation: Revocation::GithubGrant,
    account: AccountSource::GithubUser,
    ..CUSTOM
};

const GITHUB_OWN: Templates = Templates {
    issuer: None,
    authorization: "{base}/login/oauth/authorize",
    token: "{base}/login/oauth/access_token",
    revocation: Some("{base}/api/v3/applications"),
    device: Some("{base}/login/device/code"),
    user: Some("{base}/api/v3/user"),
};

/// GitLab. Refresh tokens are used once.
pub static GITLAB: Preset = Preset {
    name: "gitlab",
    places: Some(Places { base: "https://gitlab.com", public: GITLAB_ANY, own: Some(GITLAB_ANY) }),
    auth_method: AuthMethod::ClientSecretPost,
    jwt_bearer: false,
    grace: Grace::None,
    ..CUSTOM
};

const GITLAB_ANY: Templates = Templates {
    issuer: Some("{base}"),
    authorization: "{base}/oauth/authorize",
    token: "{base}/oauth/token",
    revocation: Some("{base}/oauth/revoke"),
    device: Some("{base}/oauth/authorize_device"),
    user: Some("{base}/oauth/userinfo"),
};

/// Slack. Every reply has status 200 and `ok`; a user's token stands in `authed_user`.
pub static SLACK: Preset = Preset {
    name: "slack",
    places: Some(Places {
        base: "https://slack.com",
        public: Templates {
            issuer: None,
            authorization: "{base}/oauth/v2/authorize",
            token: "{base}/api/oauth.v2.access",
            revocation: Some("{base}/api/auth.revoke"),
            device: None,
            user: Some("{base}/api/auth.test"),
        },
        own: None,
    }),
    account_scopes: &[],
    client_credentials: false,
    jwt_bearer: false,
    dialect: Dialect {
        codes: &[
            ("invalid_refresh_token", Meaning::DeadGrant),
            ("token_revoked", Meaning::DeadGrant),
            ("token_expired", Meaning::DeadGrant),
            ("account_inactive", Meaning::DeadGrant),
            ("invalid_client_id", Meaning::BadClient),
            ("bad_client_secret", Meaning::BadClient),
            ("ratelimited", Meaning::Transient),
            ("internal_error", Meaning::Transient),
            ("fatal_error", Meaning::Transient),
            ("service_unavailable", Meaning::Transient),
            ("request_timeout", Meaning::Transient),
        ],
        comma_scopes: true,
        nested: Some("authed_user"),
        ..Dialect::STANDARD
    },
    grace: Grace::None,
    revocation: Revocation::SlackAuthRevoke,
    account: AccountSource::SlackReply,
    ..CUSTOM
};

/// Atlassian Cloud (3LO). A dead grant often comes with 403; there is no revocation.
pub static ATLASSIAN: Preset = Preset {
    name: "atlassian",
    places: Some(Places {
        base: "https://auth.atlassian.com",
        public: Templates {
            issuer: None,
            authorization: "{base}/authorize",
            token: "{base}/oauth/token",
            revocation: None,
            device: None,
            user: Some("https://api.atlassian.com/me"),
        },
        own: None,
    }),
    auth_method: AuthMethod::ClientSecretPost,
    authorization_parameters: &[("audience", "api.atlassian.com"), ("prompt", "consent")],
    consent_scopes: &["offline_access"],
    account_scopes: &["read:me"],
    jwt_bearer: false,
    grace: Grace::For(Duration::from_mins(10)),
    revocation: Revocation::None,
    account: AccountSource::AtlassianMe,
    ..CUSTOM
};

/// All of them.
pub static ALL: [&Preset; 7] = [&GOOGLE, &MICROSOFT, &GITHUB, &GITLAB, &SLACK, &ATLASSIAN, &CUSTOM];

impl Preset {
    /// The preset of a name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|p| p.name == name)
    }

    /// Whether this endpoint, which a token goes to, is one of its own, wherever that is.
    pub fn names(&self, endpoint: &Url) -> bool {
        let own = self.endpoints(None, "");
        own.is_some_and(|own| {
            [own.user_endpoint, own.revocation_endpoint].iter().flatten().any(|named| named == endpoint)
        })
    }

    /// Whether an endpoint is the token endpoint's server, or one of the preset's own: only there is a token sent
    /// before whoever may edit the link has completed the consent that it came of.
    pub fn is_home(&self, token_endpoint: &Url, endpoint: &Url) -> bool {
        endpoint.origin() == token_endpoint.origin() || self.names(endpoint)
    }

    /// The endpoints of its server: at `base` where one is named, in `tenant` where it has some.
    /// `None` for [`CUSTOM`], and for a base where the server has one place only.
    pub fn endpoints(&self, base: Option<&Url>, tenant: &str) -> Option<ServerEndpoints> {
        let places = self.places?;
        let (base, templates) = match base {
            Some(base) => {
                let base = base.as_str().trim_end_matches('/');
                let own = places.own?;
                (base, if base == places.base { places.public } else { own })
            }
            None => (places.base, places.public),
        };
        let fill = |template: &str| template.replace("{base}", base).replace("{tenant}", tenant);
        let url = |template: &str| Url::parse(&fill(template)).ok();
        Some(ServerEndpoints {
            issuer: templates.issuer.map(fill),
            revocation_endpoint: templates.revocation.and_then(url),
            authorization_endpoint: url(templates.authorization),
            device_authorization_endpoint: templates.device.and_then(url),
            user_endpoint: templates.user.and_then(url),
            ..ServerEndpoints::new(url(templates.token)?)
        })
    }
}
