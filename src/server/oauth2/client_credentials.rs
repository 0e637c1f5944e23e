//! The client credentials grant (RFC 6749 section 4.4): a client acts for itself. No refresh token
//! comes with it; the client asks again.

use super::reply::{self, Reply};
use super::token::scopes_of;
use super::{Form, OAuthError};
use crate::domain::GrantType;
use crate::server::random::{self, TokenHash};
use crate::server::state::App;
use crate::server::store::{AccessToken, Client};
use axum::response::Response;
use jiff::SignedDuration;

/// Issues an access token.
///
/// # Errors
/// [`OAuthError`].
pub async fn grant(app: &App, client: &Client, form: &Form) -> Result<Response, OAuthError> {
    if client.metadata.auth_method.is_public() {
        // Registration refuses it too; RFC 6749 section 4.4 leaves no choice.
        return Err(OAuthError::unauthorized_client());
    }
    let scopes = scopes_of(form, app.within(client, &client.metadata.scopes))?;
    let token = random::token()?;
    let (now, lifetime) = (app.now(), app.tokens.access_lifetime);
    let kept = AccessToken {
        hash: TokenHash::of(&token),
        grant_type: GrantType::ClientCredentials,
        scopes: scopes.clone(),
        issued_at: now,
        expires_at: now + SignedDuration::from_secs(lifetime.as_secs()),
    };
    if !app.store.add_access(client, &kept).await? {
        // It was deleted, or all its tokens were ended, after it had authenticated.
        return Err(OAuthError::invalid_client());
    }
    app.metrics.issued(GrantType::ClientCredentials);
    tracing::info!(client = client.id.as_str(), grant = "client_credentials", "token issued");
    Ok(reply::of_body(
        Reply { access_token: &token, lifetime, refresh_token: None, scopes: &scopes }.to_body(),
    ))
}
