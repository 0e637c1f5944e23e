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
            client_credentials::grant(&app, &client, &form).await
        }
        "refresh_token" => {
            registered(&client, GrantType::RefreshToken)?;
            refresh_token::grant(&app, &client, &form).await
        }
        _ => Err(OAuthError::unsupported_grant_type()),
    }
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
