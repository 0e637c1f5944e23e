//! Token requests (RFC 6749 sections 4.1.3, 4.4 and 6, RFC 7523 section 2.1).
//!
//! The `oauth2` crate builds the request and takes the reply apart; what it calls the network is
//! our guarded client, and what a reply may hold is checked by [`super::reply`]. Answers that
//! aren't a success never reach it, since its errors carry what the server said. What the crate
//! can't express (an assertion) goes through [`ask`]. One poll for a device code, where the crate would
//! sleep and ask on by itself, is in [`super::device`].

use super::assertion::{CLIENT_ASSERTION_TYPE, JWT_BEARER};
use super::error::{Asked, classify, error_in};
use super::reply::{self, Malformed, shortened};
use super::{BearerAssertion, ClientAuth, ClientCredentials, Dialect, TokenError};
use crate::domain::{ScopeSet, TokenReply};
use crate::http::{Heard, HttpClient, NotSent, Request, Response, header};
use jiff::Timestamp;
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{AuthType, HttpRequest, HttpResponse, RequestTokenError, StandardRevocableToken};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// What entitles us to a token.
#[derive(Clone)]
pub enum Grant {
    /// Our own credentials (RFC 6749 section 4.4).
    ClientCredentials,
    /// A refresh token (RFC 6749 section 6).
    RefreshToken(SecretString),
    /// A code that a person's consent gave (RFC 6749 section 4.1.3), with what RFC 7636 proves us by.
    AuthorizationCode {
        /// The code.
        code: SecretString,
        /// The redirect URI that it came to.
        redirect_uri: String,
        /// The PKCE verifier.
        verifier: SecretString,
    },
    /// An assertion of our own (RFC 7523 section 2.1).
    JwtBearer(Box<BearerAssertion>),
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientCredentials => "ClientCredentials",
            Self::RefreshToken(_) => "RefreshToken([redacted])",
            Self::AuthorizationCode { .. } => "AuthorizationCode([redacted])",
            Self::JwtBearer(_) => "JwtBearer([redacted])",
        })
    }
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct TokenRequest {
    /// The token endpoint.
    pub endpoint: Url,
    /// Who asks. Only the grant jwt-bearer may do without.
    pub client: Option<ClientCredentials>,
    /// What entitles us.
    pub grant: Grant,
    /// What is asked for; nothing asks for the server's default, or for what the grant has.
    pub scopes: ScopeSet,
    /// How the server speaks.
    pub dialect: Dialect,
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
    request_token_heard(http, request, &mut Heard::default()).await
}

/// The same; what came of an answer is in `heard` also where it can't be read.
///
/// # Errors
/// As of [`request_token`].
pub async fn request_token_heard(
    http: &HttpClient,
    request: &TokenRequest,
    heard: &mut Heard,
) -> Result<TokenReply, TokenError> {
    let mut reply = send(http, request, heard).await.map_err(|e| e.by_assertion(by_assertion(request)))?;
    reply.lifetime = shortened(&reply, heard.date, Timestamp::now());
    Ok(reply)
}

/// Whether the request rests on an assertion that we signed.
fn by_assertion(request: &TokenRequest) -> bool {
    request.client.as_ref().is_some_and(ClientCredentials::signs)
        || (request.client.is_none() && matches!(request.grant, Grant::JwtBearer(_)))
}

async fn send(
    http: &HttpClient,
    request: &TokenRequest,
    heard: &mut Heard,
) -> Result<TokenReply, TokenError> {
    let unbuildable = TokenError::NotSent(NotSent::Unbuildable);
    let TokenRequest { endpoint, client, grant, scopes, dialect } = request;
    match (grant, client) {
        (Grant::JwtBearer(assertion), client) => {
            let signed = assertion.sign(endpoint.as_str(), scopes, Timestamp::now()).ok_or(unbuildable)?;
            let text = scopes.to_string();
            let mut pairs = vec![("grant_type", JWT_BEARER), ("assertion", signed.expose_secret())];
            if !scopes.is_empty() && !assertion.carries_scopes {
                pairs.push(("scope", &text));
            }
            ask(http, endpoint, client.as_ref(), &pairs, (Asked::WithAssertion, *dialect), heard).await
        }
        // The crate can't do without a client_id.
        (_, Some(client @ ClientCredentials { auth: ClientAuth::Assertion { .. }, .. })) => {
            let text = scopes.to_string();
            let mut pairs = match grant {
                Grant::RefreshToken(token) => {
                    vec![("grant_type", "refresh_token"), ("refresh_token", token.expose_secret())]
                }
                Grant::AuthorizationCode { code, redirect_uri, verifier } => vec![
                    ("grant_type", "authorization_code"),
                    ("code", code.expose_secret()),
                    ("redirect_uri", redirect_uri),
                    ("code_verifier", verifier.expose_secret()),
                ],
                _ => vec![("grant_type", "client_credentials")],
            };
            let scoped = match grant {
                Grant::AuthorizationCode { .. } => false,
                Grant::RefreshToken(_) => !dialect.comma_scopes,
                _ => true,
            };
            if scoped && !scopes.is_empty() {
                pairs.push(("scope", &text));
            }
            let refresh = matches!(grant, Grant::RefreshToken(_));
            let asked = if refresh { Asked::WithRefreshToken } else { Asked::Otherwise };
            ask(http, endpoint, Some(client), &pairs, (asked, *dialect), heard).await
        }
        (_, Some(client)) => by_crate(http, request, client, heard).await,
        (_, None) => Err(unbuildable),
    }
}

/// Asks with a form of our own.
async fn ask(
    http: &HttpClient,
    endpoint: &Url,
    client: Option<&ClientCredentials>,
    pairs: &[(&str, &str)],
    (asked, dialect): (Asked, Dialect),
    heard: &mut Heard,
) -> Result<TokenReply, TokenError> {
    let request = Request::post(endpoint.clone());
    let request = match client {
        Some(client) => client.form(request, pairs)?,
        None => request.form(pairs.iter().copied()),
    };
    read(&http.send_heard(request, heard).await?, asked, dialect)
}

/// Reads the answer to a form of our own.
pub(super) fn read(answer: &Response, asked: Asked, dialect: Dialect) -> Result<TokenReply, TokenError> {
    let reply = success(answer, asked, dialect)?;
    reply::read(&reply).map_err(TokenError::Malformed)
}

async fn by_crate(
    http: &HttpClient,
    request: &TokenRequest,
    client: &ClientCredentials,
    heard: &mut Heard,
) -> Result<TokenReply, TokenError> {
    let TokenRequest { endpoint, grant, scopes, dialect, .. } = request;
    let asked =
        if matches!(grant, Grant::RefreshToken(_)) { Asked::WithRefreshToken } else { Asked::Otherwise };
    let called = AtomicBool::new(false);
    // The future owns what it uses: one that borrows isn't `Send` enough behind the crate's trait.
    let (http, to, dialect, us) = (http.clone(), endpoint.clone(), *dialect, client.clone());
    let came = Arc::<Mutex<Heard>>::default();
    let call = |built: HttpRequest| {
        called.store(true, Ordering::Relaxed);
        // The crate would have `+` stand for a space in the header.
        let (http, request, came) = (http.clone(), us.basic(adopt(to.clone(), built)), came.clone());
        async move {
            let mut heard = Heard::default();
            let answer = http.send_heard(request?, &mut heard).await;
            *came.lock().unwrap_or_else(PoisonError::into_inner) = heard;
            let reply = success(&answer?, asked, dialect)?;
            // Without a content type the crate doesn't insist on one; some servers send text/plain.
            Ok(HttpResponse::new(reply.to_string().into_bytes()))
        }
    };

    let basic = matches!(client.auth, ClientAuth::Basic(_));
    let mut oauth = Client::new(oauth2::ClientId::new(client.id.as_str().to_owned()))
        .set_token_uri(oauth2::TokenUrl::from_url(endpoint.clone()))
        .set_auth_type(if basic { AuthType::BasicAuth } else { AuthType::RequestBody });
    if let ClientAuth::Basic(secret) | ClientAuth::Post(secret) = &client.auth {
        oauth = oauth.set_client_secret(oauth2::ClientSecret::new(secret.expose_secret().to_owned()));
    }
    let assertion = client.assertion(endpoint.as_str())?;
    let assertion: Vec<_> = assertion
        .iter()
        .flat_map(|a| {
            [("client_assertion_type", CLIENT_ASSERTION_TYPE), ("client_assertion", a.expose_secret())]
        })
        .collect();
    let text = |s: &SecretString| s.expose_secret().to_owned();
    let scopes = scopes.iter().map(|s| oauth2::Scope::new(s.as_str().to_owned()));
    let wire = match grant {
        Grant::RefreshToken(token) => {
            let token = oauth2::RefreshToken::new(text(token));
            let mut ask = oauth.exchange_refresh_token(&token);
            // Where scopes have a syntax of their own, a refresh has no parameter for them.
            if !dialect.comma_scopes {
                ask = ask.add_scopes(scopes);
            }
            assertion.iter().fold(ask, |ask, (k, v)| ask.add_extra_param(*k, *v)).request_async(&call).await
        }
        Grant::AuthorizationCode { code, redirect_uri, verifier } => {
            let redirect = oauth2::RedirectUrl::new(redirect_uri.clone());
            let redirect = redirect.map_err(|_| TokenError::NotSent(NotSent::Unbuildable))?;
            let ask = oauth
                .exchange_code(oauth2::AuthorizationCode::new(text(code)))
                .set_redirect_uri(Cow::Owned(redirect))
                .set_pkce_verifier(oauth2::PkceCodeVerifier::new(text(verifier)));
            assertion.iter().fold(ask, |ask, (k, v)| ask.add_extra_param(*k, *v)).request_async(&call).await
        }
        _ => {
            let ask = oauth.exchange_client_credentials().add_scopes(scopes);
            assertion.iter().fold(ask, |ask, (k, v)| ask.add_extra_param(*k, *v)).request_async(&call).await
        }
    };
    *heard = std::mem::take(&mut *came.lock().unwrap_or_else(PoisonError::into_inner));
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

/// Lets only a success through, and of it only what was read, as RFC 6749 would have it.
fn success(response: &Response, asked: Asked, dialect: Dialect) -> Result<Value, TokenError> {
    let body = reply::value(response);
    // GitHub and Slack send errors with status 200.
    let says_error = |body: &Value| error_in(body).is_some() || body.get("ok") == Some(&Value::Bool(false));
    let failed = body.as_ref().is_some_and(|b| says_error(b) && reply::holder(b, dialect).is_none());
    if !response.is_success() || failed {
        return Err(classify(response, asked, dialect));
    }
    body.map(|body| reply::standard(body, dialect)).ok_or(TokenError::Malformed(Malformed::NotJson))
}

/// Whether an answer has a token in it, whatever else.
pub(super) fn has_token(answer: &Response, dialect: Dialect) -> bool {
    reply::value(answer).is_some_and(|reply| reply::holder(&reply, dialect).is_some())
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
