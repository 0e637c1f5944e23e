//! Problem details (RFC 9457): the one shape of every error on the admin listener.

use crate::server::client_rules::{Broken, Rule};
use crate::server::random::NoRandomness;
use crate::server::secret::HashingFailed;
use crate::server::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::borrow::Cow;

/// An error reply of the admin API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    field: Option<&'static str>,
    detail: Cow<'static, str>,
}

impl Problem {
    /// A problem: a status, a code for machines, a sentence for people.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, field: None, detail: detail.into() }
    }

    /// A field of the request is wrong.
    pub fn bad(code: &'static str, field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field), ..Self::new(StatusCode::BAD_REQUEST, code, detail) }
    }

    /// A field of the request is wrong, in a way that has no code of its own.
    pub fn invalid(field: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("invalid-request", field, detail)
    }

    /// It isn't there.
    pub fn not_found(detail: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// Another method than the address has.
    pub fn method_not_allowed() -> Self {
        let text = "this address doesn't have this method; the Allow header lists those it has";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", text)
    }

    /// What If-Match or If-None-Match asked for isn't so.
    pub fn precondition_failed(detail: &'static str) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition-failed", detail)
    }

    /// The request took too long.
    pub fn timed_out() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "timed-out", "the request took too long; try again")
    }

    /// The disk is full.
    pub fn no_room() -> Self {
        let text = "the database's disk is full; make room on it, or try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "no-room", text)
    }

    /// Something is wrong here.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; its log says why")
    }

    fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or("Error")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = serde_json::json!({
            "type": format!("urn:applink:problem:{}", self.code),
            "title": self.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        if let Some(field) = self.field {
            body["field"] = field.into();
        }
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, kind, body.to_string()).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"applink-admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

fn failed(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "an admin request failed");
    Problem::internal()
}

impl From<Broken> for Problem {
    fn from(broken: Broken) -> Self {
        let code = match broken.rule {
            Rule::RedirectUri => "invalid-redirect-uri",
            Rule::GrantTypes => "invalid-grant-types",
            Rule::Scope => "invalid-scope",
            Rule::Other => "invalid-request",
        };
        Self::bad(code, broken.field, broken.text)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if error.is_full() {
            tracing::debug!(%error, "an admin request is refused: the disk is full");
            return Self::no_room();
        }
        failed(&error)
    }
}

impl From<HashingFailed> for Problem {
    fn from(error: HashingFailed) -> Self {
        failed(&error)
    }
}

impl From<NoRandomness> for Problem {
    fn from(error: NoRandomness) -> Self {
        failed(&error)
    }
}
