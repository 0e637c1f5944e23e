//! A successful reply of the token endpoint (RFC 6749 section 5.1).

use crate::domain::{Lifetime, ScopeSet};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

/// What the reply is made of.
pub struct Reply<'a> {
    /// The access token.
    pub access_token: &'a SecretString,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// A refresh token, where the grant gives one.
    pub refresh_token: Option<&'a SecretString>,
    /// What the access token is good for.
    pub scopes: &'a ScopeSet,
}

#[derive(Serialize)]
struct Json<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl Reply<'_> {
    /// The body. It is kept as bytes, since a repeated refresh gets the very same.
    pub fn to_body(&self) -> Vec<u8> {
        let json = Json {
            access_token: self.access_token.expose_secret(),
            token_type: "Bearer",
            expires_in: self.lifetime.as_secs(),
            refresh_token: self.refresh_token.map(|t| t.expose_secret()),
            scope: (!self.scopes.is_empty()).then(|| self.scopes.to_string()),
        };
        // Strings and a number: it can't fail.
        serde_json::to_vec(&json).unwrap_or_default()
    }
}

/// A reply with such a body.
pub fn of_body(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
