//! ID tokens (OpenID Connect Core sections 2 and 3.1.3.7): read if they are what they must be.
//!
//! One comes in answer to our own request to the token endpoint. Over TLS, which is always verified, that stands for
//! its signature (section 3.1.3.7, item 6); over plain HTTP, which the operator's configuration may allow to a host,
//! the signature is checked with the server's keys. `alg: none` is no signature: it is taken over TLS alone, and
//! of a server alone that names it among its algorithms, which is as near as we come to what the client asked for
//! when it was registered (section 2).

use super::jwks::{self, SignatureFault};
use super::presets::{AccountSource, GOOGLE, Preset};
use super::{ClientAuth, ClientCredentials, ServerEndpoints};
use crate::http::{HttpClient, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// How far the server's clock may be from ours.
pub const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// Why an ID token isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum IdTokenFault {
    #[error("it isn't a signed JWT that can be read")]
    Unreadable,
    #[error("it is encrypted; have the server send this client ID tokens that aren't")]
    Encrypted,
    #[error("its issuer isn't the one that the link names")]
    Issuer,
    #[error("it is made for another client, or for others beside ours")]
    Audience,
    #[error("it has ended, by more than five minutes; check that the operator's clock is right")]
    Ended,
    #[error("it isn't valid yet, by more than five minutes; check that the operator's clock is right")]
    NotYet,
    #[error("it doesn't belong to this consent: its nonce is another one, or missing")]
    Nonce,
    #[error("it has no subject")]
    Subject,
    #[error("it isn't signed (alg none), and the server doesn't name that among its algorithms")]
    Unsigned,
    #[error("the server's keys, which it must be checked with since it came over plain http, can't be read")]
    NoKeys,
    #[error("{0}")]
    Signature(SignatureFault),
}

/// Reads the claims of an ID token that a consent gave. `None`: it came over plain HTTP and the server's keys
/// aren't known, so it says nothing.
///
/// # Errors
/// [`IdTokenFault`], which repeats nothing of it.
pub async fn read_id_token(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    client: &ClientCredentials,
    token: &SecretString,
    nonce: Option<&str>,
) -> Result<Option<Value>, IdTokenFault> {
    let parts = Parts::of(token.expose_secret())?;
    let issuers = issuers(preset, endpoints);
    let wanted = Wanted { client: client.id.as_str(), issuers, nonce, now: Timestamp::now() };
    let over_tls = endpoints.token_endpoint.scheme() == "https";
    if parts.algorithm == "none" {
        let named = endpoints.declared.id_token_algorithms.as_ref().is_some_and(|all| all.contains("none"));
        if !over_tls || !named {
            return Err(IdTokenFault::Unsigned);
        }
    } else if !over_tls {
        let secret = match &client.auth {
            ClientAuth::Basic(secret) | ClientAuth::Post(secret) => Some(secret),
            _ => None,
        };
        let by_secret = parts.algorithm.starts_with("HS");
        let keys = match &endpoints.declared.jwks_uri {
            _ if by_secret => Value::Null,
            None => return Ok(None),
            Some(uri) => {
                let answer = http.send(Request::get(uri.clone())).await.map_err(|_| IdTokenFault::NoKeys)?;
                let keys = answer.json().filter(|_| answer.is_success());
                keys.ok_or(IdTokenFault::NoKeys)?
            }
        };
        let signed = jwks::Signed {
            algorithm: &parts.algorithm,
            key_id: parts.key_id.as_deref(),
            text: parts.signed,
            signature: &parts.signature,
        };
        signed.verify(&keys, secret).map_err(IdTokenFault::Signature)?;
    }
    check(&parts.claims, &wanted)?;
    Ok(Some(parts.claims))
}

/// What a token is made of.
struct Parts<'a> {
    algorithm: String,
    key_id: Option<String>,
    claims: Value,
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, IdTokenFault> {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(if parts.len() == 5 { IdTokenFault::Encrypted } else { IdTokenFault::Unreadable });
        };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| IdTokenFault::Unreadable);
        let json = |part: &str| {
            let value: Value =
                serde_json::from_slice(&decoded(part)?).map_err(|_| IdTokenFault::Unreadable)?;
            Ok(Some(value).filter(Value::is_object)).and_then(|v| v.ok_or(IdTokenFault::Unreadable))
        };
        let (header, claims) = (json(header)?, json(claims)?);
        // What must be understood and isn't (RFC 7515 section 4.1.11).
        if header.get("crit").is_some() {
            return Err(IdTokenFault::Unreadable);
        }
        let signed = token.len() - signature.len() - 1;
        Ok(Self {
            algorithm: text(&header, "alg").ok_or(IdTokenFault::Unreadable)?.to_owned(),
            key_id: text(&header, "kid").map(str::to_owned),
            claims,
            signed: &token.as_bytes()[..signed],
            signature: decoded(signature)?,
        })
    }
}

/// A member that is text.
pub(super) fn text<'v>(of: &'v Value, name: &str) -> Option<&'v str> {
    of.get(name).and_then(Value::as_str)
}

/// What an ID token must be.
struct Wanted<'a> {
    client: &'a str,
    /// Any of these; none where no issuer is known. [`TENANT`] in one stands for what the token says in `tid`.
    issuers: Vec<String>,
    /// The nonce that was sent, where one was.
    nonce: Option<&'a str>,
    now: Timestamp,
}

/// Who issues the ID tokens of a server. Entra's is each tenant's own, also where the server was asked for the
/// tokens of all (`common`, `organizations`): it is told by the token's `tid`. Google's documentation names its own
/// with and without the scheme.
fn issuers(preset: &Preset, endpoints: &ServerEndpoints) -> Vec<String> {
    if preset.account == AccountSource::Microsoft {
        let origin = endpoints.token_endpoint.origin().ascii_serialization();
        return vec![format!("{origin}/{TENANT}/v2.0")];
    }
    let bare = endpoints.issuer.as_deref().and_then(|i| i.strip_prefix("https://"));
    let bare = bare.filter(|_| preset.name == GOOGLE.name).map(str::to_owned);
    endpoints.issuer.iter().cloned().chain(bare).collect()
}

/// Checks claims (section 3.1.3.7, items 2 to 5, 9 and 11; RFC 7519 section 4.1.5).
fn check(claims: &Value, wanted: &Wanted<'_>) -> Result<(), IdTokenFault> {
    let said = text(claims, "iss").ok_or(IdTokenFault::Issuer)?;
    let expected = |issuer: &String| match text(claims, "tid").filter(|t| is_tenant(t)) {
        Some(tenant) => issuer.replace(TENANT, tenant) == said,
        None => issuer == said,
    };
    if !wanted.issuers.is_empty() && !wanted.issuers.iter().any(expected) {
        return Err(IdTokenFault::Issuer);
    }
    // Audiences beside ours aren't trusted, unless the token names us as the one that it is issued to.
    let us = wanted.client;
    let party = claims.get("azp").filter(|azp| !azp.is_null());
    let ours = party.is_none_or(|azp| azp.as_str() == Some(us));
    let audience = match claims.get("aud") {
        Some(Value::String(one)) => one == us,
        Some(Value::Array(all)) => {
            all.iter().any(|a| a.as_str() == Some(us)) && (all.len() == 1 || party.is_some())
        }
        _ => false,
    };
    if !audience || !ours {
        return Err(IdTokenFault::Audience);
    }
    // Seconds since 1970, which may have a fraction (RFC 7519 section 2, NumericDate).
    let time = |name: &str| claims.get(name).filter(|t| !t.is_null()).map(|t| t.as_f64());
    let now = wanted.now.as_duration().as_secs_f64();
    let leeway = LEEWAY.as_secs_f64();
    let end = time("exp").flatten().ok_or(IdTokenFault::Ended)?;
    if end <= now - leeway {
        return Err(IdTokenFault::Ended);
    }
    for begin in ["nbf", "iat"] {
        if time(begin).is_some_and(|t| t.is_none_or(|t| t > now + leeway)) {
            return Err(IdTokenFault::NotYet);
        }
    }
    if wanted.nonce.is_some_and(|sent| text(claims, "nonce") != Some(sent)) {
        return Err(IdTokenFault::Nonce);
    }
    Ok(())
}

/// Stands for a tenant in the issuer that Entra's metadata name.
const TENANT: &str = "{tenantid}";

/// Whether a text can be a tenant's ID, and is no path.
fn is_tenant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests;
