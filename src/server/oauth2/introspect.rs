//! Token introspection (RFC 7662). The caller must be a confidential client and sees its own tokens
//! only; any other token, and any that isn't good, is just not active.

use super::client_auth::authenticate_confidential;
use super::{Form, OAuthError};
use crate::domain::GrantType;
use crate::server::random::TokenHash;
use crate::server::state::App;
use crate::server::store::{Client, Seen};
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use std::sync::Arc;

/// What is said of a token.
#[derive(Debug, Default, Serialize)]
pub struct Introspection {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

/// `POST /oauth2/introspect`
pub async fn post(State(app): State<Arc<App>>, form: Form) -> Result<Json<Introspection>, OAuthError> {
    let client = authenticate_confidential(&app, &form).await?;
    let token = form.secret("token").ok_or(OAuthError::invalid_request("token is missing"))?;
    // token_type_hint may only make the search faster; one search finds both kinds.
    let seen = app.store.token(&TokenHash::of(token)).await?;
    Ok(Json(seen.and_then(|seen| live(&app, &client, seen)).unwrap_or_default()))
}

/// What is said of a live token of this client. Its scopes are those it was issued with that the
/// client still has; it isn't live when none is left, or when the client lost its grant type.
fn live(app: &App, client: &Client, seen: Seen) -> Option<Introspection> {
    let scopes = app.within(client, &seen.scopes);
    let grant = seen.access.unwrap_or(GrantType::RefreshToken);
    let good = seen.client == client.id.as_str()
        && app.now() < seen.expires_at
        && client.metadata.grant_types.contains(&grant)
        && (seen.scopes.is_empty() || !scopes.is_empty());
    good.then(|| Introspection {
        active: true,
        scope: (!scopes.is_empty()).then(|| scopes.to_string()),
        client_id: Some(seen.client),
        token_type: seen.access.map(|_| "Bearer"),
        sub: seen.subject,
        iss: Some(app.issuer.as_str().to_owned()),
        iat: Some(seen.issued_at.as_second()),
        exp: Some(seen.expires_at.as_second()),
    })
}
