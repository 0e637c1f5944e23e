//! Revocation (RFC 7009), and what its answer proves about the client's credentials.
//!
//! A server authenticates the client before it looks at the token, and answers 200 for a token
//! that it doesn't know. So revoking a token that can't exist proves a credential, whatever
//! grants the client has. A public client proves nothing so: it has no secret to get wrong.

use super::ClientCredentials;
use super::error::error_code;
use crate::http::{HttpClient, NotSent, Request, Response, SendError};
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;
use url::Url;

/// `token_type_hint` of RFC 7009 section 2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenHint {
    /// `access_token`.
    AccessToken,
    /// `refresh_token`.
    RefreshToken,
}

impl TokenHint {
    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::RefreshToken => "refresh_token",
        }
    }
}

/// What the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// 200: the credentials are right, and the token, if there was one, is revoked.
    Authenticated,
    /// The server doesn't accept the credentials.
    WrongCredentials,
    /// Neither can be said.
    Unproved(Unproved),
}

/// An answer that proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the revocation endpoint answered with status {status}, which proves nothing about the credentials")]
pub struct Unproved {
    /// The status.
    pub status: u16,
    /// The error code, if it is a known one.
    pub code: Option<&'static str>,
    /// How long the server wants us to wait.
    pub retry_after: Option<Duration>,
}

/// Revokes a token.
///
/// # Errors
/// [`SendError`] where there is no answer.
pub async fn revoke_token(
    http: &HttpClient,
    endpoint: &Url,
    client: &ClientCredentials,
    token: &SecretString,
    hint: Option<TokenHint>,
) -> Result<Revoked, SendError> {
    let mut pairs = vec![("token", token.expose_secret())];
    if let Some(hint) = hint {
        pairs.push(("token_type_hint", hint.as_str()));
    }
    let request = client
        .form(Request::post(endpoint.clone()), &pairs)
        .map_err(|_| SendError::NotSent(NotSent::Unbuildable))?;
    Ok(read(&http.send(request).await?))
}

fn read(response: &Response) -> Revoked {
    let code = error_code(&response.body).flatten();
    match (response.status, code) {
        (200, _) => Revoked::Authenticated,
        (401, _) | (400..=499, Some("invalid_client" | "incorrect_client_credentials")) => {
            Revoked::WrongCredentials
        }
        (status, code) => Revoked::Unproved(Unproved { status, code, retry_after: response.retry_after }),
    }
}
