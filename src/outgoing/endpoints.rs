//! A server's issuer and endpoints.

use crate::domain::AuthMethod;
use std::collections::BTreeSet;
use std::fmt;
use url::Url;

/// The longest issuer or endpoint that is taken, in bytes.
pub const MAX_URL: usize = 2048;

/// An issuer identifier (RFC 8414 section 2): compared as exact text, so the text is kept beside
/// what it parses to.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    url: Url,
}

/// Why a text isn't an issuer or an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// Not an absolute URL.
    #[error("isn't an absolute URL with a host; write it like https://id.example.com")]
    NotUrl,
    /// Another scheme than http and https.
    #[error("has a scheme other than https; use https")]
    Scheme,
    /// `user:password@`.
    #[error("has user information before the host; remove it")]
    UserInfo,
    /// A query.
    #[error("has a query (?…), which an issuer can't have; remove it")]
    Query,
    /// A fragment.
    #[error("has a fragment (#…); remove it")]
    Fragment,
    /// Too long.
    #[error("is longer than {MAX_URL} bytes")]
    TooLong,
}

/// Reads an http or https URL with a host, without user information and fragment.
pub(super) fn parse_endpoint(text: &str) -> Result<Url, IssuerError> {
    if text.len() > MAX_URL {
        return Err(IssuerError::TooLong);
    }
    // The parser drops these; then the text and what is called would differ.
    if text.chars().any(|c| c.is_control() || c == ' ' || c == '\\') {
        return Err(IssuerError::NotUrl);
    }
    let url = Url::parse(text).map_err(|_| IssuerError::NotUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(IssuerError::Scheme);
    }
    // `https:host` parses too.
    if url.host().is_none() || !text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://")) {
        return Err(IssuerError::NotUrl);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(IssuerError::UserInfo);
    }
    if url.fragment().is_some() {
        return Err(IssuerError::Fragment);
    }
    Ok(url)
}

impl Issuer {
    /// Checks an issuer. Whether plain HTTP may be used is decided when it is called.
    ///
    /// # Errors
    /// [`IssuerError`], one phrase for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let url = parse_endpoint(text)?;
        if url.query().is_some() {
            return Err(IssuerError::Query);
        }
        Ok(Self { text: text.to_owned(), url })
    }

    /// The issuer exactly as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The issuer as a URL.
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuer").field(&self.text).finish()
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where a server's endpoints are. A grant is bound to all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerEndpoints {
    /// The issuer, where one is known.
    pub issuer: Option<String>,
    /// The token endpoint.
    pub token_endpoint: Url,
    /// The revocation endpoint (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// The authorization endpoint.
    pub authorization_endpoint: Option<Url>,
    /// The device authorization endpoint (RFC 8628).
    pub device_authorization_endpoint: Option<Url>,
    /// Where the server says whose token it is (OpenID Connect `UserInfo`, or the server's own way).
    pub user_endpoint: Option<Url>,
    /// What else the server says of itself. No grant is bound to it.
    pub declared: Declared,
}

/// What a server's metadata say beside its endpoints (RFC 8414 section 2). A list that isn't there says nothing:
/// the defaults of the RFC are those of few servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// The authentication methods of the token endpoint that we know.
    pub auth_methods: Option<BTreeSet<AuthMethod>>,
    /// The grant types.
    pub grant_types: Option<BTreeSet<String>>,
    /// The PKCE methods (RFC 7636).
    pub challenge_methods: Option<BTreeSet<String>>,
    /// Whether the authorization response carries `iss` (RFC 9207).
    pub sends_iss: bool,
    /// Where authorization requests are pushed to (RFC 9126).
    pub push_endpoint: Option<Url>,
    /// Whether it takes pushed authorization requests alone.
    pub requires_push: bool,
    /// Whether it takes signed authorization requests alone (RFC 9101), which we don't make.
    pub requires_signed_request: bool,
    /// Where its keys are.
    pub jwks_uri: Option<Url>,
    /// The algorithms of its ID tokens.
    pub id_token_algorithms: Option<BTreeSet<String>>,
}

impl Declared {
    /// Whether the server doesn't name a grant type among those that it names.
    pub fn lacks_grant_type(&self, name: &str) -> bool {
        self.grant_types.as_ref().is_some_and(|all| !all.contains(name))
    }
}

impl ServerEndpoints {
    /// Endpoints that a person named, without discovery.
    pub fn new(token_endpoint: Url) -> Self {
        Self {
            issuer: None,
            token_endpoint,
            revocation_endpoint: None,
            authorization_endpoint: None,
            device_authorization_endpoint: None,
            user_endpoint: None,
            declared: Declared::default(),
        }
    }
}
