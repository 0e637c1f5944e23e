//! Requests and responses. Their debug text shows no header value and no body.

use super::json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::time::Duration;
use url::Url;
use url::form_urlencoded;

/// A request, whole in memory.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// The headers, but for those that the client itself sets.
    pub headers: HeaderMap,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

/// A value that a header can't carry. It isn't shown, since it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("has characters that an HTTP header can't carry, such as a line break; remove them")]
pub struct BadHeader;

impl Request {
    /// A request without headers and body.
    pub fn new(method: Method, url: Url) -> Self {
        Self { method, url, headers: HeaderMap::new(), body: Vec::new() }
    }

    /// A GET that asks for JSON.
    pub fn get(url: Url) -> Self {
        Self::new(Method::GET, url).accept_json()
    }

    /// A POST that asks for JSON.
    pub fn post(url: Url) -> Self {
        Self::new(Method::POST, url).accept_json()
    }

    /// Asks for JSON.
    #[must_use]
    pub fn accept_json(self) -> Self {
        self.header(ACCEPT, HeaderValue::from_static("application/json"))
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets an `application/x-www-form-urlencoded` body.
    #[must_use]
    pub fn form<'a>(mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        self.body = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish().into_bytes();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(mut self, value: &serde_json::Value) -> Self {
        self.body = value.to_string().into_bytes();
        self.header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
    }

    /// Authenticates with a bearer token (RFC 6750).
    ///
    /// # Errors
    /// [`BadHeader`] when the token can't stand in a header.
    pub fn bearer(self, token: &SecretString) -> Result<Self, BadHeader> {
        self.authorization(&format!("Bearer {}", token.expose_secret()))
    }

    /// Authenticates with a name and a password as they are (RFC 7617). OAuth clients form-encode
    /// both first; see `outgoing::client_auth`.
    ///
    /// # Errors
    /// [`BadHeader`] when the name has a colon or a control character.
    pub fn basic(self, user: &str, password: &SecretString) -> Result<Self, BadHeader> {
        let password = password.expose_secret();
        if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
            return Err(BadHeader);
        }
        self.authorization(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
    }

    fn authorization(self, value: &str) -> Result<Self, BadHeader> {
        let mut value = HeaderValue::from_str(value).map_err(|_| BadHeader)?;
        value.set_sensitive(true);
        Ok(self.header(AUTHORIZATION, value))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .finish()
    }
}

/// An answer, whole in memory.
#[derive(Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// `Retry-After`, at most [`MAX_RETRY_AFTER`].
    pub retry_after: Option<Duration>,
    /// The media type in lower case, without parameters.
    pub content_type: Option<String>,
    /// The `ETag`, where it is visible ASCII of at most 256 bytes.
    pub etag: Option<String>,
    /// The body.
    pub body: Vec<u8>,
    headers: HeaderMap,
}

/// The longest that a server can make us wait.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl Response {
    pub(super) fn new(status: u16, headers: HeaderMap, body: Vec<u8>, now: Timestamp) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).filter(|v| v.len() <= 256);
        let content_type = text("content-type")
            .map(|v| v.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
            .filter(|v| !v.is_empty());
        let etag = text("etag").map(str::to_owned);
        let retry_after = text("retry-after").and_then(|v| parse_retry_after(v, now));
        Self { status, retry_after, content_type, etag, body, headers }
    }

    /// Any other header, as the server wrote it: foreign text, to be checked before it is used.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The body, where it is JSON; see [`json`].
    pub fn json(&self) -> Option<serde_json::Value> {
        json(&self.body)
    }

    /// Whether the server calls the body JSON.
    pub fn is_json(&self) -> bool {
        self.content_type.as_deref().is_some_and(|t| {
            t == "application/json" || (t.starts_with("application/") && t.ends_with("+json"))
        })
    }

    /// Whether the status is 200 to 299.
    pub const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Reads `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date in the one form that servers
/// still send. A date that has passed is no wait; what can't be read is `None`.
pub fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number holds are still a long time.
        let secs = text.parse::<u64>().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(secs).min(MAX_RETRY_AFTER));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let wait = at.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or_default().min(MAX_RETRY_AFTER))
}
