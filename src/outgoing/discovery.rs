//! Discovery: RFC 8414 first, then OpenID Connect.
//!
//! The second document is asked for only where the first answer means "not here": a redirect, a
//! 4xx other than 408, 425 and 429, or a success that isn't server metadata (some servers answer
//! every path with their start page), or is that of another issuer. A timeout or a 5xx is
//! trouble, not an answer, and is reported.

use super::endpoints::{Declared, Issuer, IssuerError, ServerEndpoints, parse_endpoint};
use crate::domain::{AuthMethod, Reason};
use crate::http::{HttpClient, Request, Response, SendError};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

/// Why a server's endpoints aren't known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The call itself failed.
    #[error("discovery failed: {0}")]
    Send(SendError),
    /// Neither document is there.
    #[error(
        "the server has neither of the two discovery documents (status {status}); check the issuer, or give the \
         endpoints themselves"
    )]
    NotFound {
        /// The status of the last answer.
        status: u16,
    },
    /// The server has trouble.
    #[error("the server answered discovery with status {status}; it is tried again")]
    ServerFault {
        /// Its status.
        status: u16,
        /// How long it wants us to wait.
        retry_after: Option<Duration>,
    },
    /// Success, but no JSON object.
    #[error("the server's discovery document isn't a JSON object; check the issuer")]
    NotJson,
    /// Another issuer, or none.
    #[error(
        "the server's discovery document names another issuer; write the issuer exactly as the server does"
    )]
    IssuerMismatch,
    /// The same issuer but for a slash at the end.
    #[error(
        "the server's discovery document names the issuer with a different slash at the end; write it exactly as \
         the server does"
    )]
    IssuerSlash,
    /// No token endpoint.
    #[error("the server's discovery document has no token_endpoint; give the endpoints themselves")]
    NoTokenEndpoint,
    /// An endpoint that can't be used.
    #[error("the {field} in the server's discovery document {fault}")]
    BadEndpoint {
        /// The member of the document.
        field: &'static str,
        /// What is wrong with it.
        fault: IssuerError,
    },
    /// An https issuer with an endpoint without.
    #[error("the {field} in the server's discovery document is plain http, though the issuer is https")]
    Downgrade {
        /// The member of the document.
        field: &'static str,
    },
}

impl DiscoveryError {
    /// The reason of a condition.
    pub const fn why(&self) -> Reason {
        match self {
            Self::Send(e) => e.why(),
            Self::NotFound { .. } => Reason::DiscoveryNotFound,
            Self::ServerFault { status: 429, .. } => Reason::RateLimited,
            Self::ServerFault { .. } => Reason::ServerError,
            Self::IssuerMismatch | Self::IssuerSlash => Reason::IssuerMismatch,
            Self::NotJson | Self::NoTokenEndpoint | Self::BadEndpoint { .. } | Self::Downgrade { .. } => {
                Reason::MalformedReply
            }
        }
    }

    /// Its word.
    pub const fn reason(&self) -> &'static str {
        self.why().as_str()
    }

    /// Whether it may pass by itself, without anybody's edit.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Send(SendError::Refused(_)) => false,
            Self::Send(_) | Self::ServerFault { .. } => true,
            _ => false,
        }
    }

    /// How long the server wants us to wait.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::ServerFault { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What a server says of itself: its endpoints, and the document that they stand in.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerMetadata {
    /// The endpoints that every client needs.
    pub endpoints: ServerEndpoints,
    document: Map<String, Value>,
    https: bool,
}

impl ServerMetadata {
    /// Another endpoint that the document names.
    ///
    /// # Errors
    /// [`DiscoveryError`] when it can't be used.
    pub fn endpoint(&self, field: &'static str) -> Result<Option<Url>, DiscoveryError> {
        endpoint(&self.document, field, self.https)
    }

    /// The texts of a list that the document has; `None` where it has none of this name.
    pub fn list(&self, field: &str) -> Option<Vec<&str>> {
        let names = self.document.get(field)?.as_array()?;
        Some(names.iter().filter_map(Value::as_str).collect())
    }
}

/// Asks a server for its endpoints.
///
/// # Errors
/// [`DiscoveryError`]; where both documents fail, what the more telling answer says.
pub async fn discover(http: &HttpClient, issuer: &Issuer) -> Result<ServerEndpoints, DiscoveryError> {
    Ok(discover_metadata(http, issuer).await?.endpoints)
}

/// Asks a server for all that it says of itself.
///
/// # Errors
/// As of [`discover`].
pub async fn discover_metadata(http: &HttpClient, issuer: &Issuer) -> Result<ServerMetadata, DiscoveryError> {
    let first = match fetch(http, issuer, rfc8414_url(issuer)).await {
        Err(error) if means_elsewhere(&error) => error,
        done => return done,
    };
    match fetch(http, issuer, oidc_url(issuer)).await {
        // A document that was there says more than one that wasn't.
        Err(DiscoveryError::NotFound { .. }) => Err(first),
        done => done,
    }
}

fn means_elsewhere(error: &DiscoveryError) -> bool {
    use DiscoveryError as E;
    matches!(error, E::NotFound { .. } | E::NotJson | E::IssuerMismatch | E::IssuerSlash | E::NoTokenEndpoint)
}

async fn fetch(http: &HttpClient, issuer: &Issuer, url: Url) -> Result<ServerMetadata, DiscoveryError> {
    let response = http.send(Request::get(url)).await.map_err(DiscoveryError::Send)?;
    read(issuer, &response)
}

/// RFC 8414 section 3.1: the well-known part goes between host and path.
pub(super) fn rfc8414_url(issuer: &Issuer) -> Url {
    let mut url = issuer.url().clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    url
}

/// OpenID Connect Discovery section 4: the well-known part goes behind the path.
pub(super) fn oidc_url(issuer: &Issuer) -> Url {
    let mut url = issuer.url().clone();
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{path}/.well-known/openid-configuration"));
    url
}

fn read(issuer: &Issuer, response: &Response) -> Result<ServerMetadata, DiscoveryError> {
    match response.status {
        200 => {}
        status @ (408 | 425 | 429 | 500..) => {
            return Err(DiscoveryError::ServerFault { status, retry_after: response.retry_after });
        }
        status => return Err(DiscoveryError::NotFound { status }),
    }
    let Some(Value::Object(document)) = response.json() else {
        return Err(DiscoveryError::NotJson);
    };
    let endpoints = endpoints(issuer, &document)?;
    Ok(ServerMetadata { endpoints, document, https: issuer.url().scheme() == "https" })
}

fn endpoints(issuer: &Issuer, document: &Map<String, Value>) -> Result<ServerEndpoints, DiscoveryError> {
    match document.get("issuer").and_then(Value::as_str) {
        Some(named) if named == issuer.as_str() => {}
        Some(named) if named.trim_end_matches('/') == issuer.as_str().trim_end_matches('/') => {
            return Err(DiscoveryError::IssuerSlash);
        }
        _ => return Err(DiscoveryError::IssuerMismatch),
    }
    let endpoint = |field| endpoint(document, field, issuer.url().scheme() == "https");
    let names = |field: &str| {
        let names = document.get(field)?.as_array()?.iter().filter_map(Value::as_str);
        Some(names.map(str::to_owned).collect::<BTreeSet<_>>())
    };
    let is = |field: &str| document.get(field) == Some(&Value::Bool(true));
    let declared = Declared {
        auth_methods: names("token_endpoint_auth_methods_supported")
            .map(|names| names.iter().filter_map(|name| auth_method(name)).collect()),
        grant_types: names("grant_types_supported"),
        challenge_methods: names("code_challenge_methods_supported"),
        sends_iss: is("authorization_response_iss_parameter_supported"),
        // Like the user endpoint: what needs a bad one says so.
        push_endpoint: endpoint("pushed_authorization_request_endpoint").unwrap_or_default(),
        requires_push: is("require_pushed_authorization_requests"),
        requires_signed_request: is("require_signed_request_object"),
        jwks_uri: endpoint("jwks_uri").unwrap_or_default(),
        id_token_algorithms: names("id_token_signing_alg_values_supported"),
    };
    Ok(ServerEndpoints {
        issuer: Some(issuer.as_str().to_owned()),
        token_endpoint: endpoint("token_endpoint")?.ok_or(DiscoveryError::NoTokenEndpoint)?,
        revocation_endpoint: endpoint("revocation_endpoint")?,
        authorization_endpoint: endpoint("authorization_endpoint")?,
        device_authorization_endpoint: endpoint("device_authorization_endpoint")?,
        // No token is got or lost there, so a bad one is none.
        user_endpoint: endpoint("userinfo_endpoint").unwrap_or_default(),
        declared,
    })
}

/// An endpoint of a document; one of an https issuer has https too.
fn endpoint(
    document: &Map<String, Value>,
    field: &'static str,
    https: bool,
) -> Result<Option<Url>, DiscoveryError> {
    let text = match document.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(DiscoveryError::BadEndpoint { field, fault: IssuerError::NotUrl }),
    };
    let url = parse_endpoint(text).map_err(|fault| DiscoveryError::BadEndpoint { field, fault })?;
    if url.scheme() == "http" && https {
        return Err(DiscoveryError::Downgrade { field });
    }
    Ok(Some(url))
}

fn auth_method(name: &str) -> Option<AuthMethod> {
    [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None]
        .into_iter()
        .find(|m| m.as_str() == name)
}
