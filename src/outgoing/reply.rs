//! What a token endpoint's success may look like (RFC 6749 section 5.1), and the checks on it.
//!
//! The refresh token that was spent may be gone, so a reply is taken wherever it can be taken
//! safely: a lifetime that makes no sense is no lifetime, a token type that is missing or can't be one is `Bearer`,
//! and scopes that can't be scopes are left out. Tokens themselves are never mended.
//! `tests/corpus/replies` has what servers send, and what other clients make of it.

use super::Dialect;
use crate::domain::text::{check, is_vschar};
use crate::domain::token::MAX_TOKEN;
use crate::domain::{Account, Lifetime, Scope, ScopeSet, TokenReply};
use crate::http::{CodingError, Response, json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};
use url::form_urlencoded;

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
    /// A `refresh_token` that is no text, or too long.
    #[error("its refresh_token isn't text, or is too long")]
    BadRefreshToken,
    /// A body in a content coding that can't be read.
    #[error("{0}")]
    Coding(CodingError),
}

/// A reply as an object: JSON, or the form that GitHub and older servers send.
///
/// Only a body that the server calls a form or plain text, and that isn't JSON, is read as a form.
/// Of a name that stands there twice the first is taken, as other clients do.
pub(super) fn value(response: &Response) -> Option<Value> {
    if let Some(value) = response.json() {
        return Some(value);
    }
    let form =
        matches!(response.content_type.as_deref(), Some("application/x-www-form-urlencoded" | "text/plain"));
    if !form {
        return None;
    }
    let mut object = Map::new();
    for (name, value) in form_urlencoded::parse(response.body.trim_ascii()) {
        object.entry(name.into_owned()).or_insert_with(|| Value::String(value.into_owned()));
    }
    // Other text is a form too, with nothing in it that is asked for.
    (object.contains_key("access_token") || object.contains_key("error")).then_some(Value::Object(object))
}

/// The object of a reply in which the access token stands: the reply itself, or the member where
/// the server puts it.
pub(super) fn holder(reply: &Value, dialect: Dialect) -> Option<&Value> {
    let has = |object: &&Value| object.get("access_token").is_some_and(|t| !t.is_null());
    Some(reply).filter(has).or_else(|| reply.get(dialect.nested?).filter(has))
}

/// A reply in a dialect as RFC 6749 would have it: the token at the top, spaces between scopes.
pub(super) fn standard(mut reply: Value, dialect: Dialect) -> Value {
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
    reply
}

/// Reads the JSON of a success.
///
/// # Errors
/// [`Malformed`], which repeats nothing of it.
pub fn read(reply: &Value) -> Result<TokenReply, Malformed> {
    let object = reply.as_object().ok_or(Malformed::NotAnObject)?;
    let access = match object.get("access_token") {
        None | Some(Value::Null) => return Err(Malformed::NoAccessToken),
        Some(token) => access_token(token).ok_or(Malformed::BadAccessToken)?,
    };
    let refresh = match object.get("refresh_token") {
        None | Some(Value::Null) => None,
        // Some servers say "none" so.
        Some(Value::String(text)) if text.is_empty() => None,
        Some(token) => Some(refresh_token(token).ok_or(Malformed::BadRefreshToken)?),
    };
    Ok(TokenReply {
        access_token: access.into(),
        token_type: token_type(object.get("token_type")),
        lifetime: object.get("expires_in").and_then(lifetime),
        refresh_token: refresh.map(Into::into),
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

/// RFC 6749 A.12: VSCHAR. It stands in headers and files.
fn access_token(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => whole(number),
        value => token_text(value).map(str::to_owned),
    }
}

/// It goes back to where it came from and nowhere else, encoded, so any text will do.
fn refresh_token(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => whole(number),
        Value::String(text) => (1..=MAX_TOKEN).contains(&text.len()).then(|| text.clone()),
        _ => None,
    }
}

/// The digits of a number that lost none when it was read.
fn whole(number: &serde_json::Number) -> Option<String> {
    number.as_u64().map(|n| n.to_string())
}

fn token_text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| check(text, MAX_TOKEN, is_vschar).is_ok())
}

/// RFC 6749 A.13: a name of `-._` and alphanumerics, or a URI. With anything else nothing could be done
/// but what is done with a bearer token.
fn token_type(value: Option<&Value>) -> String {
    fn allowed(b: u8) -> bool {
        b.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&b)
    }
    let name = value.and_then(Value::as_str).filter(|name| check(name, 255, allowed).is_ok());
    name.unwrap_or("Bearer").to_owned()
}

/// When a token that is a JWT ends by its own word (RFC 7519 section 4.1.4), in seconds since 1970. Nothing
/// is verified: it is a hint, which may only take time away.
pub(super) fn own_end(token: &str) -> Option<i64> {
    /// Before this there were no JWTs; some servers write a lifetime here.
    const EARLIEST: f64 = 1e9;
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    let end = json(&claims)?.get("exp")?.as_f64().filter(|end| *end > EARLIEST)?;
    #[expect(clippy::cast_possible_truncation, reason = "a float's cast saturates")]
    let end = end as i64;
    Some(end)
}

/// The lifetime of a token that was got at `now`: what the reply says, or less, where the token itself
/// ends earlier. `date` is the server's own time: by it, clocks that differ make no difference.
pub(super) fn shortened(reply: &TokenReply, date: Option<Timestamp>, now: Timestamp) -> Option<Lifetime> {
    let Some(end) = own_end(reply.access_token.expose_secret()) else { return reply.lifetime };
    let left = end.saturating_sub(date.unwrap_or(now).as_second());
    let left = match (left, date) {
        (1.., _) => Lifetime::from_secs(left),
        // It has ended by the clock of who made it.
        (_, Some(_)) => Lifetime::from_secs(1),
        // One of the clocks is wrong, so this says nothing.
        (_, None) => return reply.lifetime,
    };
    reply.lifetime.into_iter().chain(left).min()
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
