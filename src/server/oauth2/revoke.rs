//! Token revocation (RFC 7009). An access token goes alone; a refresh token takes its whole family
//! along. A token that is unknown, or another client's, is answered like one that was revoked.

use super::client_auth::authenticate;
use super::{Form, OAuthError};
use crate::server::random::TokenHash;
use crate::server::state::App;
use crate::server::store::Revoked;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

/// `POST /oauth2/revoke`
pub async fn post(State(app): State<Arc<App>>, form: Form) -> Result<StatusCode, OAuthError> {
    let client = authenticate(&app, &form).await?;
    let token = form.secret("token").ok_or(OAuthError::invalid_request("token is missing"))?;
    match app.store.revoke(&client.id, &TokenHash::of(token)).await? {
        Revoked::Access => tracing::info!(client = client.id.as_str(), "access token revoked"),
        Revoked::Grant => tracing::info!(client = client.id.as_str(), "grant revoked with all its tokens"),
        Revoked::Nothing => tracing::debug!(client = client.id.as_str(), "nothing to revoke"),
    }
    Ok(StatusCode::OK)
}
