//! What a token endpoint's success may look like (RFC 6749 section 5.1), and the checks on it.
//!
//! The refresh token that was spent may be gone, so a reply is taken wherever it can be taken
//! safely: a lifetime that makes no sense is no lifetime, a missing token type is `Bearer`, and
//! scopes that can't be scopes are left out. Tokens themselves are never mended.

use super::Dialect;
use crate::domain::text::{check, is_vschar};
use crate::domain::token::MAX_TOKEN;
use crate::domain::{Account, Lifetime, Scope, ScopeSet, TokenReply};
use serde_json::Value;

/// Why a success can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Not JSON.
    #[error("it isn't JSON; check that the address is the token endpoint's")]
    NotJson,
    /// JSON, but no object.
    #[error("it isn't a JSON object; check that the address is the token endpoint's")]
    NotAnObject,
    /// No `access_token`.
    #[error("it has no access_token; check that the address is the token endpoint's")]
    NoAccessToken,
    /// No codes in the answer of a device authorization endpoint.
    #[error(
        "it has no device_code, user_code and verification_uri; check that the address is the device authorization endpoint's"
    )]
    NoDeviceCode,
    /// No reference in the answer of a pushed authorization request endpoint.
    #[error("it has no request_uri; check that the address is the pushed authorization request endpoint's")]
    NoRequestUri,
    /// An `access_token` that is no text, empty, too long or has characters that a token can't have.
    #[error("its access_token is empty, too long or has characters that RFC 6749 doesn't allow")]
    BadAccessToken,
    /// The same of the `refresh_token`.
    #[error("its refresh_token is too long or has characters that RFC 6749 doesn't allow")]
    BadRefreshToken,
    /// A `token_type` that can't be one.
    #[error("its token_type isn't one that RFC 6749 allows")]
    BadTokenType,
}

/// The object of a reply in which the access token stands: the reply itself, or the member where
/// the server puts it.
pub(super) fn holder(reply: &Value, dialect: Dialect) -> Option<&Value> {
    let has = |object: &&Value| object.get("access_token").is_some_and(|t| !t.is_null());
    Some(reply).filter(has).or_else(|| reply.get(dialect.nested?).filter(has))
}

/// A reply in a dialect as RFC 6749 would have it: the token at the top, spaces between scopes.
pub(super) fn standard(body: Vec<u8>, dialect: Dialect) -> Vec<u8> {
    if dialect.nested.is_none() && !dialect.comma_scopes {
        return body;
    }
    let Ok(mut reply) = serde_json::from_slice::<Value>(&body) else { return body };
    if reply.get("access_token").is_none_or(Value::is_null)
        && let Some(inner) = holder(&reply, dialect).cloned()
    {
        for name in ["access_token", "token_type", "expires_in", "refresh_token", "scope"] {
            reply[name] = inner.get(name).cloned().unwrap_or(Value::Null);
        }
    }
    if dialect.comma_scopes
        && let Some(Value::String(scope)) = reply.get_mut("scope")
    {
        *scope = scope.replace(',', " ");
    }
    reply.to_string().into_bytes()
}

/// Reads the JSON of a success.
///
/// # Errors
/// [`Malformed`], which repeats nothing of it.
pub fn read(reply: &Value) -> Result<TokenReply, Malformed> {
    let object = reply.as_object().ok_or(Malformed::NotAnObject)?;
    let access = match object.get("access_token") {
        None | Some(Value::Null) => return Err(Malformed::NoAccessToken),
        Some(token) => token_text(token).ok_or(Malformed::BadAccessToken)?,
    };
    let refresh = match object.get("refresh_token") {
        None | Some(Value::Null) => None,
        // Some servers say "none" so.
        Some(Value::String(text)) if text.is_empty() => None,
        Some(token) => Some(token_text(token).ok_or(Malformed::BadRefreshToken)?),
    };
    Ok(TokenReply {
        access_token: access.to_owned().into(),
        token_type: token_type(object.get("token_type"))?,
        lifetime: object.get("expires_in").and_then(lifetime),
        refresh_token: refresh.map(|t| t.to_owned().into()),
        scopes: object.get("scope").and_then(scopes),
        id_token: object.get("id_token").and_then(token_text).map(|t| t.to_owned().into()),
        account: account(reply),
    })
}

/// Slack names user and team beside the token.
fn account(reply: &Value) -> Option<Account> {
    let text = |path: &str| reply.pointer(path).and_then(Value::as_str);
    Account::new(text("/team/id")?, text("/authed_user/id")?)
}

/// RFC 6749 A.12 and A.17: VSCHAR.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| check(text, MAX_TOKEN, is_vschar).is_ok())
}

/// RFC 6749 A.13: a name of `-._` and alphanumerics, or a URI.
fn token_type(value: Option<&Value>) -> Result<String, Malformed> {
    fn allowed(b: u8) -> bool {
        b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b)
    }
    match value {
        None | Some(Value::Null) => Ok("Bearer".to_owned()),
        Some(Value::String(name)) if check(name, 255, allowed).is_ok() => Ok(name.clone()),
        Some(_) => Err(Malformed::BadTokenType),
    }
}

/// Whole seconds of a number or of a text with a number; 0, less and nonsense are no lifetime.
#[expect(clippy::cast_possible_truncation, reason = "a float's cast saturates, and a lifetime is bounded")]
fn lifetime(value: &Value) -> Option<Lifetime> {
    let whole = |n: f64| n.is_finite().then_some(n as i64);
    let secs = match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(whole)),
        Value::String(text) if text.len() <= 32 => {
            let text = text.trim();
            text.parse::<i64>().ok().or_else(|| text.parse::<f64>().ok().and_then(whole))
        }
        _ => None,
    };
    secs.and_then(Lifetime::from_secs)
}

/// A list in one text, or an array of texts, as some servers send it.
fn scopes(value: &Value) -> Option<ScopeSet> {
    /// More scopes than this aren't kept: they go into a Secret.
    const MOST: usize = 256;
    let valid = |name: &str| Scope::parse(name).ok();
    match value {
        Value::String(text) => Some(text.split_ascii_whitespace().filter_map(valid).take(MOST).collect()),
        Value::Array(names) => {
            Some(names.iter().filter_map(Value::as_str).filter_map(valid).take(MOST).collect())
        }
        _ => None,
    }
}
