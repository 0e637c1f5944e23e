//! Revocation (RFC 7009), what its answer proves about the client's credentials, and the ways of
//! servers that have another one.
//!
//! A server authenticates the client before it looks at the token, and answers 200 for a token
//! that it doesn't know. So revoking a token that can't exist proves a credential, whatever
//! grants the client has. A public client proves nothing so: it has no secret to get wrong.

use super::error::error_code;
use super::presets::{Meaning, Revocation, SLACK};
use super::{ClientAuth, ClientCredentials};
use crate::http::{HttpClient, Method, NotSent, Request, Response, SendError};
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

/// Gives a grant back in the way of its server.
///
/// # Errors
/// [`SendError`] where there is no answer.
pub async fn give_back(
    http: &HttpClient,
    way: Revocation,
    endpoint: &Url,
    client: &ClientCredentials,
    tokens: &Tokens<'_>,
) -> Result<Revoked, SendError> {
    let unbuildable = |_| SendError::NotSent(NotSent::Unbuildable);
    match (way, tokens.access) {
        (Revocation::Standard, access) => {
            let (token, hint) = match (tokens.refresh, access) {
                (Some(refresh), _) => (refresh, TokenHint::RefreshToken),
                (None, Some(access)) => (access, TokenHint::AccessToken),
                (None, None) => return Ok(Revoked::Authenticated),
            };
            revoke_token(http, endpoint, client, token, Some(hint)).await
        }
        (Revocation::SlackAuthRevoke, Some(access)) => {
            // The token itself is the authentication; `ok` says whether it went, at status 200.
            let request = Request::post(endpoint.clone()).form([]).bearer(access).map_err(unbuildable)?;
            Ok(read_slack(&http.send(request).await?))
        }
        (Revocation::GithubGrant, Some(access)) => {
            let mut endpoint = endpoint.clone();
            if let Ok(mut path) = endpoint.path_segments_mut() {
                path.pop_if_empty().extend([client.id.as_str(), "grant"]);
            }
            let (ClientAuth::Basic(secret) | ClientAuth::Post(secret)) = &client.auth else {
                return Err(SendError::NotSent(NotSent::Unbuildable));
            };
            let body = serde_json::json!({ "access_token": access.expose_secret() });
            let request = Request::new(Method::DELETE, endpoint).accept_json().json(&body);
            let request = request.basic(client.id.as_str(), secret).map_err(unbuildable)?;
            let answer = http.send(request).await?;
            Ok(match answer.status {
                // 404 and 422: there is no such grant any more.
                204 | 404 | 422 => Revoked::Authenticated,
                _ => read(&answer),
            })
        }
        // There is no way, or nothing to give back that way.
        (Revocation::None | Revocation::SlackAuthRevoke | Revocation::GithubGrant, _) => {
            Ok(Revoked::Authenticated)
        }
    }
}

/// What a grant has that can be given back.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// The refresh token.
    pub refresh: Option<&'a SecretString>,
    /// The last access token.
    pub access: Option<&'a SecretString>,
}

fn read_slack(answer: &Response) -> Revoked {
    let code = error_code(&answer.body).flatten();
    let ok = answer.json().is_some_and(|reply| reply.get("ok") == Some(&true.into()));
    match (answer.status, ok, code) {
        // One that is revoked, has ended, or is of an account that is gone, is given back.
        (200, true, _)
        | (200, _, Some("token_revoked" | "token_expired" | "account_inactive" | "invalid_auth")) => {
            Revoked::Authenticated
        }
        (status, _, code) => {
            let passes = |c| SLACK.dialect.codes.contains(&(c, Meaning::Transient));
            // Said with status 200, and yet trouble of its own.
            let status = if code.is_some_and(passes) { 503 } else { status };
            Revoked::Unproved(Unproved { status, code, retry_after: answer.retry_after })
        }
    }
}
