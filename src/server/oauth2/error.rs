//! Errors as RFC 6749 section 5.2 has them. Every description is a constant: nothing that a caller
//! sent can come back in one.

use crate::server::random::NoRandomness;
use crate::server::secret::HashingFailed;
use crate::server::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// An error reply of an OAuth endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuthError {
    status: StatusCode,
    code: &'static str,
    description: &'static str,
    /// After how many seconds the client may ask again.
    retry_after: Option<u64>,
}

impl OAuthError {
    const fn new(status: StatusCode, code: &'static str, description: &'static str) -> Self {
        Self { status, code, description, retry_after: None }
    }

    /// The request is malformed.
    pub const fn invalid_request(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// The client could not be authenticated. One text for every cause, so that it says nothing of
    /// which clients there are.
    pub const fn invalid_client() -> Self {
        let text = "client authentication failed: the client is unknown, its secret is wrong, \
                    or it isn't registered for this authentication method";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_client", text)
    }

    /// The grant isn't good.
    pub const fn invalid_grant(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_grant", description)
    }

    /// The client may not use this grant type.
    pub const fn unauthorized_client() -> Self {
        let text = "the client isn't registered for this grant type";
        Self::new(StatusCode::BAD_REQUEST, "unauthorized_client", text)
    }

    /// There is no such grant type.
    pub const fn unsupported_grant_type() -> Self {
        let text = "this server doesn't have this grant type";
        Self::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", text)
    }

    /// The scope is malformed, or more than there is to give.
    pub const fn invalid_scope(description: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_scope", description)
    }

    /// The body is larger than the limit.
    pub const fn too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the request body is too large")
    }

    /// Another method than the endpoint's.
    pub const fn method_not_allowed() -> Self {
        let text = "this endpoint doesn't have this method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text)
    }

    /// No endpoint.
    pub const fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request", "there is nothing at this address")
    }

    /// The request took too long.
    pub const fn timed_out() -> Self {
        let text = "the request took too long; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text)
    }

    /// The client has been issued more than one client may have.
    pub fn too_many(wait: Duration) -> Self {
        let text = "this client asks for more tokens than it may have; keep a token until it ends, and ask again later";
        Self::wait(text, wait)
    }

    /// Too many secrets of one client were tried from one address.
    pub fn too_many_tries(wait: Duration) -> Self {
        let text = "too many secrets of this client were tried from this address; see that the secret is the \
                    client's, and try again later";
        Self::wait(text, wait)
    }

    fn wait(text: &'static str, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", text);
        Self { retry_after: Some(seconds.max(1)), ..error }
    }

    /// The disk is full.
    pub const fn no_room() -> Self {
        let text = "the server's disk is full; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text)
    }

    /// Something is wrong here.
    pub const fn server_error() -> Self {
        let text = "the server failed; its log says why";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", text)
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "error": self.code, "error_description": self.description });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2 wants it with every 401, RFC 6749 with one after Basic.
            let basic = HeaderValue::from_static("Basic realm=\"applink\", charset=\"UTF-8\"");
            headers.insert(header::WWW_AUTHENTICATE, basic);
        }
        response
    }
}

fn failed(error: &dyn std::error::Error) -> OAuthError {
    tracing::error!(%error, "a request failed");
    OAuthError::server_error()
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        if error.is_full() {
            tracing::debug!(%error, "a request is refused: the disk is full");
            return Self::no_room();
        }
        failed(&error)
    }
}

impl From<HashingFailed> for OAuthError {
    fn from(error: HashingFailed) -> Self {
        failed(&error)
    }
}

impl From<NoRandomness> for OAuthError {
    fn from(error: NoRandomness) -> Self {
        failed(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_have_only_the_characters_that_rfc_6749_allows() {
        let all = [
            OAuthError::invalid_client(),
            OAuthError::unauthorized_client(),
            OAuthError::unsupported_grant_type(),
            OAuthError::too_large(),
            OAuthError::method_not_allowed(),
            OAuthError::not_found(),
            OAuthError::timed_out(),
            OAuthError::no_room(),
            OAuthError::too_many(Duration::ZERO),
            OAuthError::too_many_tries(Duration::ZERO),
            OAuthError::server_error(),
        ];
        for error in all {
            let ok = |b: u8| b == b' ' || crate::domain::text::is_nqchar(b);
            assert!(error.description.bytes().all(ok), "{}", error.description);
        }
    }
}
