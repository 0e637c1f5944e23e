//! The registration endpoint (RFC 7591) and each client's own (RFC 7592), where they are turned on.
//!
//! An application registers with an initial access token, and manages what it registered with a registration access
//! token, which each PUT changes (`access`). Such a client has no owner; once it has one, by the admin API, it is that
//! one's to manage, and its registration access token is no longer good.

mod access;
mod error;
mod request;

pub use error::RegistrationError;

use super::REGISTER;
use crate::domain::{ClientId, GrantType};
use crate::server::random::{self, TokenHash};
use crate::server::secret::SecretKind;
use crate::server::state::App;
use crate::server::store::{Client, Deleted};
use access::{Access, bearer};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use request::Request;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::sync::Arc;

/// Writers that come between reading and writing; more than this in a row is no accident.
const TRIES: usize = 8;

type Body = Result<Bytes, BytesRejection>;
type Id = Result<Path<String>, PathRejection>;

/// `POST /oauth2/register`
pub async fn post(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, RegistrationError> {
    let initial = TokenHash::of(&bearer(&headers)?);
    if !app.store.may_register(&initial, app.now()).await? {
        return Err(RegistrationError::token());
    }
    let request = Request::read(&headers, body)?;
    // Not one that begins with a hyphen, which command lines take for a flag.
    let id = format!("reg-{}", random::name()?);
    let id = ClientId::parse(&id).map_err(|_| RegistrationError::server_error())?;
    let metadata = request.metadata(&id, &app.scopes)?;
    let now = app.now();
    let mut client = Client {
        id,
        metadata,
        secret: None,
        previous: None,
        owner: None,
        etag: random::name()?,
        token_epoch: 0,
        created_at: now,
        updated_at: now,
    };
    let secret = add_secret(&app, &mut client).await?;
    let token = random::token()?;
    let used = app.store.register(&initial, &client, &TokenHash::of(&token)).await?;
    let used = used.ok_or_else(RegistrationError::token)?;
    tracing::info!(client = client.id.as_str(), registration_token = used, "client registered by itself");
    Ok((StatusCode::CREATED, Json(information(&app, &client, &token, secret.as_ref()))).into_response())
}

/// `GET /oauth2/register/{id}`
pub async fn get(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    id: Id,
) -> Result<Json<Value>, RegistrationError> {
    let (client, access) = access::of(&app, &headers, &id).await?;
    Ok(Json(information(&app, &client, access.newest(), None)))
}

/// `PUT /oauth2/register/{id}`
pub async fn put(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    id: Id,
    body: Body,
) -> Result<Json<Value>, RegistrationError> {
    // Whoever calls is known first; then what they say is looked at.
    let mut seen = access::of(&app, &headers, &id).await?;
    let request = Request::read(&headers, body)?;
    for _ in 0..TRIES {
        let (current, access) = &seen;
        if let Some(answer) = update(&app, current, access, &request).await? {
            return Ok(Json(answer));
        }
        seen = access::of(&app, &headers, &id).await?;
    }
    Err(RegistrationError::busy())
}

/// One try: `None` when somebody else wrote in between.
async fn update(
    app: &App,
    current: &Client,
    access: &Access,
    request: &Request,
) -> Result<Option<Value>, RegistrationError> {
    request.names(&current.id)?;
    if let Some(given) = request.secret() {
        let same = match &current.secret {
            Some(stored) => app.secrets.is_of(&current.id, stored, given).await?,
            None => false,
        };
        if !same {
            return Err(RegistrationError::metadata("client_secret isn't the client's; leave it out"));
        }
    }
    let mut client = Client {
        metadata: request.metadata(&current.id, &app.scopes)?,
        etag: random::name()?,
        updated_at: app.now(),
        ..current.clone()
    };
    let mut secret = None;
    if client.metadata.auth_method.is_public() {
        (client.secret, client.previous) = (None, None);
    } else if client.secret.is_none() {
        secret = add_secret(app, &mut client).await?;
    }
    let differs = (&client.metadata, &client.secret) != (&current.metadata, &current.secret);
    let written = differs.then_some((&client, current.etag.as_str()));
    let turn = access.turn(&current.id)?;
    if !app.store.reregister(&current.id, written, turn.as_ref().map(access::Turning::as_turn)).await? {
        return Ok(None);
    }
    tracing::info!(client = client.id.as_str(), changed = differs, "client registered anew by itself");
    let token = turn.as_ref().map_or(access.newest(), |t| &t.token);
    Ok(Some(information(app, &client, token, secret.as_ref())))
}

/// `DELETE /oauth2/register/{id}`: with all its tokens and grants
pub async fn delete(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    id: Id,
) -> Result<StatusCode, RegistrationError> {
    for _ in 0..TRIES {
        let (client, _) = access::of(&app, &headers, &id).await?;
        match app.store.delete(&client.id, Some(&client.etag), None).await? {
            Deleted::Gone => {
                tracing::info!(client = client.id.as_str(), "client deleted by itself with all its tokens");
                return Ok(StatusCode::NO_CONTENT);
            }
            Deleted::Absent => return Err(RegistrationError::token()),
            Deleted::Changed => {}
        }
    }
    Err(RegistrationError::busy())
}

/// Makes up a secret for a client that is to have one.
async fn add_secret(app: &App, client: &mut Client) -> Result<Option<SecretString>, RegistrationError> {
    if client.metadata.auth_method.is_public() {
        return Ok(None);
    }
    let secret = random::token()?;
    client.secret = Some(app.secrets.store(SecretKind::Derived, &client.id, &secret).await?);
    Ok(Some(secret))
}

/// The client information response (RFC 7591 section 3.2.1, RFC 7592 section 3). The secret is in it only when it was
/// just made up: what is kept of it doesn't give it back.
fn information(app: &App, client: &Client, token: &SecretString, secret: Option<&SecretString>) -> Value {
    let metadata = &client.metadata;
    let code = metadata.grant_types.contains(&GrantType::AuthorizationCode);
    let mut all = json!({
        "client_id": client.id.as_str(),
        "client_id_issued_at": client.created_at.as_second(),
        "registration_access_token": token.expose_secret(),
        "registration_client_uri": app.issuer.endpoint(&format!("{REGISTER}/{}", client.id)),
        "client_name": metadata.name,
        "grant_types": metadata.grant_types.iter().map(|g| g.as_str()).collect::<Vec<_>>(),
        "response_types": if code { vec!["code"] } else { vec![] },
        "token_endpoint_auth_method": metadata.auth_method.as_str(),
    });
    if let Some(uri) = &metadata.uri {
        all["client_uri"] = json!(uri);
    }
    if !metadata.redirect_uris.is_empty() {
        all["redirect_uris"] = metadata.redirect_uris.iter().map(|u| u.as_str()).collect();
    }
    if !metadata.scopes.is_empty() {
        all["scope"] = json!(metadata.scopes.to_string());
    }
    if client.secret.is_some() {
        all["client_secret_expires_at"] = json!(0);
    }
    if let Some(secret) = secret {
        all["client_secret"] = json!(secret.expose_secret());
    }
    all
}
