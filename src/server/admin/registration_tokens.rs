//! `/admin/registration-tokens`: initial access tokens (RFC 7591 section 3). Who holds one may register clients,
//! as often as it says.

use super::Problem;
use super::extract::Body;
use crate::server::random::{self, TokenHash};
use crate::server::state::App;
use crate::server::store::InitialToken;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

const LONGEST: i64 = 90 * 24 * 3600;
const MOST_USES: u32 = 1_000;

/// The body.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenBody {
    expires_in: i64,
    uses: u32,
}

/// An initial access token as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenView<'a> {
    id: &'a str,
    uses: u32,
    uses_left: u32,
    created_at: String,
    expires_at: String,
    /// Only when it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
}

impl<'a> TokenView<'a> {
    fn of(token: &'a InitialToken) -> Self {
        let InitialToken { id, uses, uses_left, created_at, expires_at } = token;
        let (created_at, expires_at) = (created_at.to_string(), expires_at.to_string());
        Self { id, uses: *uses, uses_left: *uses_left, created_at, expires_at, token: None }
    }
}

/// `POST /admin/registration-tokens`
pub async fn post(
    State(app): State<Arc<App>>,
    Body(body): Body<TokenBody>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    on(&app)?;
    if !(1..=LONGEST).contains(&body.expires_in) {
        let text = format!(
            "expiresIn {} isn't 1 to {LONGEST} seconds (90 days); write one of those",
            body.expires_in
        );
        return Err(Problem::invalid("expiresIn", text));
    }
    if !(1..=MOST_USES).contains(&body.uses) {
        let text = format!("uses {} isn't 1 to {MOST_USES}; write one of those", body.uses);
        return Err(Problem::invalid("uses", text));
    }
    // What is shown is what is stored, which has whole milliseconds.
    let now = app.now().round(jiff::Unit::Millisecond).unwrap_or_else(|_| app.now());
    let token = random::token()?;
    let kept = InitialToken {
        id: random::name()?,
        uses: body.uses,
        uses_left: body.uses,
        created_at: now,
        expires_at: now + SignedDuration::from_secs(body.expires_in),
    };
    if !app.store.add_initial_token(&kept, &TokenHash::of(&token)).await? {
        let text = "there are 1000 registration tokens already; delete some, or wait until some expire";
        return Err(Problem::new(StatusCode::CONFLICT, "too-many-tokens", text));
    }
    tracing::info!(token = kept.id, uses = kept.uses, "registration token made");
    let mut view = TokenView::of(&kept);
    view.token = Some(token.expose_secret());
    Ok((StatusCode::CREATED, Json(json!(view))))
}

/// `GET /admin/registration-tokens`
pub async fn list(State(app): State<Arc<App>>) -> Result<Json<Value>, Problem> {
    on(&app)?;
    let tokens = app.store.initial_tokens(app.now()).await?;
    let items: Vec<_> = tokens.iter().map(TokenView::of).collect();
    Ok(Json(json!({ "items": items })))
}

/// `DELETE /admin/registration-tokens/{id}`: the clients that were registered with it stay
pub async fn delete(
    State(app): State<Arc<App>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    on(&app)?;
    let Path(id) =
        id.map_err(|rejection| Problem::new(rejection.status(), "invalid-request", rejection.body_text()))?;
    if !app.store.delete_initial_token(&id).await? {
        return Err(Problem::not_found("there is no registration token with this ID"));
    }
    tracing::info!(token = id, "registration token deleted");
    Ok(StatusCode::NO_CONTENT)
}

fn on(app: &App) -> Result<(), Problem> {
    if app.registration {
        return Ok(());
    }
    let text = "registration is off; start the service with --registration";
    Err(Problem::new(StatusCode::NOT_FOUND, "registration-off", text))
}
