//! The token endpoint (RFC 6749 section 3.2): who calls, then what grant, then the grant's own file.

use super::client_auth::authenticate;
use super::{Form, OAuthError, client_credentials, refresh_token};
use crate::domain::{GrantType, ScopeSet};
use crate::server::state::App;
use crate::server::store::Client;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;

/// `POST /oauth2/token`
pub async fn post(State(app): State<Arc<App>>, form: Form) -> Result<Response, OAuthError> {
    let client = authenticate(&app, &form).await?;
    let grant = form.get("grant_type").ok_or(OAuthError::invalid_request("grant_type is missing"))?;
    match grant {
        "client_credentials" => {
            registered(&client, GrantType::ClientCredentials)?;
            within_budget(&app, &client).await?;
            client_credentials::grant(&app, &client, &form).await
        }
        "refresh_token" => {
            registered(&client, GrantType::RefreshToken)?;
            refresh_token::grant(&app, &client, &form).await
        }
        _ => Err(OAuthError::unsupported_grant_type()),
    }
}

/// For a client that has authenticated and acts for itself: nobody else can use its budget up. A refresh isn't counted: a client
/// that repeats one within its grace must not be told to come back after it.
async fn within_budget(app: &App, client: &Client) -> Result<(), OAuthError> {
    let Some(wait) = app.budget.take(&app.store, &client.id).await? else { return Ok(()) };
    app.metrics.over_budget.inc();
    tracing::debug!(client = client.id.as_str(), ?wait, "a client asks for more tokens than it may have");
    Err(OAuthError::too_many(wait))
}

fn registered(client: &Client, grant: GrantType) -> Result<(), OAuthError> {
    if client.metadata.grant_types.contains(&grant) { Ok(()) } else { Err(OAuthError::unauthorized_client()) }
}

/// The scopes that a request gets out of `most`: those it asks for, or all. Never more.
///
/// # Errors
/// `invalid_scope`.
pub(super) fn scopes_of(form: &Form, most: ScopeSet) -> Result<ScopeSet, OAuthError> {
    let Some(asked) = form.get("scope") else { return Ok(most) };
    let asked = ScopeSet::parse(asked).map_err(|_| OAuthError::invalid_scope("scope is malformed"))?;
    if asked.is_empty() {
        return Ok(most);
    }
    if !asked.is_subset(&most) {
        return Err(OAuthError::invalid_scope("scope is more than was granted"));
    }
    Ok(asked)
}
