//! `POST /admin/grants`: a grant without a person at a browser, for migrations and tests. Its
//! refresh token is shown once.

use super::Problem;
use super::client_spec::checked_scopes;
use super::extract::Body;
use crate::domain::text::{check, is_vschar};
use crate::domain::{ClientId, GrantType, Scope};
use crate::server::random::{self, TokenHash};
use crate::server::state::App;
use crate::server::store::NewGrant;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

const MAX_SUBJECT: usize = 255;

/// The body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantBody {
    client_id: String,
    subject: String,
    scopes: Option<Vec<String>>,
}

/// `POST /admin/grants`
pub async fn post(
    State(app): State<Arc<App>>,
    Body(body): Body<GrantBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let id = ClientId::parse(&body.client_id)
        .map_err(|e| Problem::invalid("clientId", format!("clientId {e}")))?;
    check(&body.subject, MAX_SUBJECT, is_vschar)
        .map_err(|e| Problem::invalid("subject", format!("subject {e}")))?;
    let absent = || Problem::invalid("clientId", "there is no client with this ID; register it first");
    let client = app.store.client(&id).await?.ok_or_else(absent)?;
    if !client.metadata.grant_types.contains(&GrantType::RefreshToken) {
        let text = "the client isn't registered for grant type refresh_token; add it to its grantTypes";
        return Err(Problem::bad("invalid-grant-types", "clientId", text));
    }
    let most = app.within(&client, &client.metadata.scopes);
    let scopes = match &body.scopes {
        Some(asked) => checked_scopes("scopes", asked, &most)?,
        None => most,
    };
    let token = random::token()?;
    let now = app.now();
    let expires_at = now + SignedDuration::from_secs(app.tokens.refresh_lifetime.as_secs());
    let new = NewGrant {
        client: &id,
        subject: &body.subject,
        scopes: &scopes,
        refresh: TokenHash::of(&token),
        now,
        expires_at,
    };
    if !app.store.add_grant(new).await? {
        return Err(absent());
    }
    tracing::info!(client = id.as_str(), "grant issued");
    let scopes: Vec<_> = scopes.iter().map(Scope::as_str).collect();
    let body = json!({
        "refreshToken": token.expose_secret(),
        "expiresAt": expires_at.to_string(),
        "scopes": scopes,
    });
    Ok((StatusCode::CREATED, Json(body)))
}
