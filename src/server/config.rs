//! What the service is told at its start. Everything here has been checked.

use super::client_budget::ClientLimits;
use crate::domain::{Lifetime, ScopeSet};
use crate::runtime::listen::Bounds;
use crate::runtime::peer::TrustedProxies;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use url::Url;

/// Bitbucket's scopes: the set that is used where no other is configured.
pub const DEFAULT_SCOPES: &str =
    "PUBLIC_REPOS ACCOUNT_WRITE REPO_READ REPO_WRITE REPO_ADMIN PROJECT_ADMIN ADMIN_WRITE SYSTEM_ADMIN";

/// The longest grace that makes sense: a client that hasn't repeated its request by then won't.
pub const MAX_REFRESH_GRACE: Duration = Duration::from_secs(300);

/// The whole configuration of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who the service says it is.
    pub issuer: Issuer,
    /// Where the OAuth endpoints listen.
    pub listen: SocketAddr,
    /// Where the admin API, health and metrics listen.
    pub admin_listen: SocketAddr,
    /// Where health listens too, for a kubelet.
    pub health_listen: Option<SocketAddr>,
    /// Where metrics listen too.
    pub metrics_listen: Option<SocketAddr>,
    /// The file with the admin API's bearer token; read anew when it changes.
    pub admin_token_file: PathBuf,
    /// The SQLite file.
    pub database: PathBuf,
    /// The scopes that clients may be registered with.
    pub scopes: ScopeSet,
    /// How long tokens live.
    pub tokens: TokenPolicy,
    /// Whether applications may register themselves, with an initial access token.
    pub registration: bool,
    /// What a peer may cost.
    pub limits: Limits,
    /// What a client may cost.
    pub clients: ClientLimits,
    /// The proxies before the OAuth endpoints.
    pub proxies: TrustedProxies,
    /// How long requests in flight may take after a shutdown was asked for.
    pub drain_timeout: Duration,
}

/// How long tokens live.
#[derive(Debug, Clone, Copy)]
pub struct TokenPolicy {
    /// Of an access token.
    pub access_lifetime: Lifetime,
    /// Of a refresh token that isn't used; each use gives a new one with a new lifetime.
    pub refresh_lifetime: Lifetime,
    /// For how long a used refresh token still gives the reply that its first use gave.
    pub refresh_grace: Duration,
}

/// What a peer may cost, on each of the two listeners.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a request body.
    pub body: usize,
    /// What connections may cost.
    pub connections: Bounds,
    /// Time for the rest: the body to arrive and the answer to be made.
    pub request_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body: 64 * 1024, connections: Bounds::default(), request_timeout: Duration::from_secs(30) }
    }
}

/// The service's issuer identifier (RFC 8414 section 2), which clients compare as exact text.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    path: String,
}

/// Why an issuer was refused; the text follows the value and says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerError {
    /// Not an http or https URL with a host.
    #[error("is not an absolute https (or http) URL; write it like https://oauth.example.com")]
    NotHttp,
    /// User information, a query or a fragment.
    #[error("has user information, a query or a fragment, which an issuer can't have; remove it")]
    TooMuch,
    /// Ends with a slash.
    #[error("ends with a slash; remove it, since clients compare the issuer as exact text")]
    TrailingSlash,
    /// A path with other than plain characters.
    #[error(
        "has a path with an empty segment or with characters other than letters, digits, - . _ and ~; use those"
    )]
    Path,
    /// Not in the form that every client would bring it to.
    #[error("is not in normal form; write {0}")]
    NotNormal(String),
}

impl Issuer {
    /// Checks an issuer: https or http, no user information, query or fragment, no slash at the
    /// end, in normal form.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn parse(text: &str) -> Result<Self, IssuerError> {
        let url = Url::parse(text).map_err(|_| IssuerError::NotHttp)?;
        if !matches!(url.scheme(), "https" | "http") || !text.contains("://") {
            return Err(IssuerError::NotHttp);
        }
        let bare = url.username().is_empty() && url.password().is_none();
        if !bare || text.contains(['?', '#']) {
            return Err(IssuerError::TooMuch);
        }
        if text.ends_with('/') {
            return Err(IssuerError::TrailingSlash);
        }
        let normal = url.as_str().trim_end_matches('/');
        if normal != text {
            return Err(IssuerError::NotNormal(normal.to_owned()));
        }
        let path = if url.path() == "/" { "" } else { url.path() };
        let plain =
            |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        if !path.is_empty() && !path.split('/').skip(1).all(plain) {
            return Err(IssuerError::Path);
        }
        Ok(Self { text: text.to_owned(), path: path.to_owned() })
    }

    /// The issuer as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its path: empty, or with a slash before and none after.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The address of an endpoint; `at` starts with a slash.
    pub fn endpoint(&self, at: &str) -> String {
        format!("{}{at}", self.text)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::{IssuerError as E, *};

    #[test]
    fn issuers() {
        for (good, path) in [
            ("https://oauth.example.com", ""),
            ("http://127.0.0.1:8080", ""),
            ("http://applink-provider.applink.svc", ""),
            ("https://example.com/a/b-1", "/a/b-1"),
        ] {
            let issuer = Issuer::parse(good).expect(good);
            assert_eq!((issuer.as_str(), issuer.path()), (good, path));
        }
        for (bad, why) in [
            ("oauth.example.com", E::NotHttp),
            ("ftp://a", E::NotHttp),
            ("https:a", E::NotHttp),
            ("https://a/", E::TrailingSlash),
            ("https://a/b/", E::TrailingSlash),
            ("https://a?x", E::TooMuch),
            ("https://a#x", E::TooMuch),
            ("https://u@a", E::TooMuch),
            ("https://a/b//c", E::Path),
            ("https://a/%41", E::Path),
            ("https://a/:x", E::Path),
            ("https://A.example", E::NotNormal("https://a.example".into())),
            ("https://a:443", E::NotNormal("https://a".into())),
            ("https://a/b/../c", E::NotNormal("https://a/c".into())),
        ] {
            assert_eq!(Issuer::parse(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn the_default_scopes_are_scopes() {
        assert_eq!(ScopeSet::parse(DEFAULT_SCOPES).expect("scopes").iter().count(), 8);
    }
}
