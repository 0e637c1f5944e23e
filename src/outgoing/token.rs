//! Token requests (RFC 6749 sections 4.4 and 6).
//!
//! The `oauth2` crate builds the request and takes the reply apart; what it calls the network is
//! our guarded client, and what a reply may hold is checked by [`super::reply`]. Answers that
//! aren't a success never reach it, since its errors carry what the server said.

use super::error::{classify, error_code};
use super::reply::{self, Malformed};
use super::{ClientCredentials, TokenError};
use crate::domain::{AuthMethod, ScopeSet, TokenReply};
use crate::http::{HttpClient, NotSent, Request, Response, header};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{AuthType, HttpRequest, HttpResponse, RequestTokenError, StandardRevocableToken};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use url::Url;

/// What entitles us to a token.
#[derive(Clone)]
pub enum Grant {
    /// Our own credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// A refresh token (RFC 6749 section 6).
    RefreshToken(SecretString),
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientCredentials => "ClientCredentials",
            Self::RefreshToken(_) => "RefreshToken([redacted])",
        })
    }
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The token endpoint.
    pub endpoint: Url,
    /// Who asks.
    pub client: ClientCredentials,
    /// What entitles us.
    pub grant: Grant,
    /// What is asked for; nothing asks for the server's default, or for what the grant has.
    pub scopes: ScopeSet,
}

type Client = oauth2::Client<
    BasicErrorResponse,
    Wire,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
>;

/// Asks for a token.
///
/// # Errors
/// [`TokenError`], which says what is wrong and what to do, and never what the server said.
pub async fn request_token(http: &HttpClient, request: &TokenRequest) -> Result<TokenReply, TokenError> {
    let TokenRequest { endpoint, client, grant, scopes } = request;
    let refresh = matches!(grant, Grant::RefreshToken(_));
    let called = AtomicBool::new(false);
    // The future owns what it uses: one that borrows isn't `Send` enough behind the crate's trait.
    let (http, to) = (http.clone(), endpoint.clone());
    let call = |built: HttpRequest| {
        called.store(true, Ordering::Relaxed);
        let (http, request) = (http.clone(), adopt(to.clone(), built));
        async move { success(http.send(request).await?, refresh) }
    };

    let mut oauth = Client::new(oauth2::ClientId::new(client.id.as_str().to_owned()))
        .set_token_uri(oauth2::TokenUrl::from_url(endpoint.clone()))
        .set_auth_type(match client.auth_method {
            AuthMethod::ClientSecretBasic => AuthType::BasicAuth,
            AuthMethod::ClientSecretPost | AuthMethod::None => AuthType::RequestBody,
        });
    if let Some(secret) = client.sent_secret() {
        oauth = oauth.set_client_secret(oauth2::ClientSecret::new(secret.expose_secret().to_owned()));
    }
    let scopes = scopes.iter().map(|s| oauth2::Scope::new(s.as_str().to_owned()));
    let wire = match grant {
        Grant::ClientCredentials => {
            oauth.exchange_client_credentials().add_scopes(scopes).request_async(&call).await
        }
        Grant::RefreshToken(token) => {
            let token = oauth2::RefreshToken::new(token.expose_secret().to_owned());
            oauth.exchange_refresh_token(&token).add_scopes(scopes).request_async(&call).await
        }
    };
    match wire {
        Ok(wire) => wire.reply.map_err(TokenError::Malformed),
        Err(RequestTokenError::Request(error)) => Err(error),
        // The other errors carry the body or text, and are dropped here.
        Err(_) if called.into_inner() => Err(TokenError::Malformed(Malformed::NotJson)),
        Err(_) => Err(TokenError::NotSent(NotSent::Unbuildable)),
    }
}

/// Takes over what the `oauth2` crate built.
fn adopt(url: Url, built: HttpRequest) -> Request {
    let (parts, body) = built.into_parts();
    let mut headers = parts.headers;
    if let Some(value) = headers.get_mut(header::AUTHORIZATION) {
        value.set_sensitive(true);
    }
    Request { method: parts.method, url, headers, body }
}

/// Lets only a success through, and of it only the body.
fn success(response: Response, refresh: bool) -> Result<HttpResponse, TokenError> {
    // GitHub and Slack send errors with status 200.
    let failed = !response.is_success() || (error_code(&response.body).is_some() && !has_token(&response));
    if failed {
        return Err(classify(&response, refresh));
    }
    if response.body.is_empty() {
        return Err(TokenError::Malformed(Malformed::NotJson));
    }
    // Without a content type the crate doesn't insist on one; some servers send text/plain.
    Ok(HttpResponse::new(response.body))
}

fn has_token(response: &Response) -> bool {
    #[derive(Deserialize)]
    struct Probe {
        access_token: serde_json::Value,
    }
    serde_json::from_slice::<Probe>(&response.body).is_ok_and(|p| !p.access_token.is_null())
}

/// The reply in the shape that the `oauth2` crate asks for. Nothing but `reply` is used.
#[derive(Debug)]
struct Wire {
    reply: Result<TokenReply, Malformed>,
    access: oauth2::AccessToken,
    kind: BasicTokenType,
    refresh: Option<oauth2::RefreshToken>,
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reply = reply::read(&serde_json::Value::deserialize(deserializer)?);
        let text = |s: &SecretString| s.expose_secret().to_owned();
        let access = reply.as_ref().map(|r| text(&r.access_token)).unwrap_or_default();
        let refresh = reply.as_ref().ok().and_then(|r| r.refresh_token.as_ref()).map(text);
        Ok(Self {
            access: oauth2::AccessToken::new(access),
            kind: BasicTokenType::Bearer,
            refresh: refresh.map(oauth2::RefreshToken::new),
            reply,
        })
    }
}

/// Asked for by the trait; a reply is never written out.
impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl oauth2::TokenResponse for Wire {
    type TokenType = BasicTokenType;

    fn access_token(&self) -> &oauth2::AccessToken {
        &self.access
    }

    fn token_type(&self) -> &Self::TokenType {
        &self.kind
    }

    fn expires_in(&self) -> Option<Duration> {
        let secs = self.reply.as_ref().ok()?.lifetime?.as_secs();
        u64::try_from(secs).ok().map(Duration::from_secs)
    }

    fn refresh_token(&self) -> Option<&oauth2::RefreshToken> {
        self.refresh.as_ref()
    }

    fn scopes(&self) -> Option<&Vec<oauth2::Scope>> {
        None
    }
}
