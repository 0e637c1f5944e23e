//! Replies about clients.

use crate::domain::{Owner, RedirectUri, Scope};
use crate::server::store::Client;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

/// A client as it is shown: all but its secret.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientView<'a> {
    id: &'a str,
    name: &'a str,
    uri: Option<&'a str>,
    redirect_uris: Vec<&'a str>,
    grant_types: Vec<&'static str>,
    scopes: Vec<&'a str>,
    token_endpoint_auth_method: &'static str,
    has_secret: bool,
    /// While the secret before still authenticates.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_expires_at: Option<String>,
    owner: Option<&'a Owner>,
    created_at: String,
    updated_at: String,
    /// Only when the server made it up, and only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
}

impl<'a> ClientView<'a> {
    /// What is shown of a client at this time.
    pub fn of(client: &'a Client, now: Timestamp) -> Self {
        let Client {
            id,
            metadata,
            secret,
            previous: _,
            owner,
            etag: _,
            token_epoch: _,
            created_at,
            updated_at,
        } = client;
        Self {
            id: id.as_str(),
            name: &metadata.name,
            uri: metadata.uri.as_deref(),
            redirect_uris: metadata.redirect_uris.iter().map(RedirectUri::as_str).collect(),
            grant_types: metadata.grant_types.iter().map(|g| g.as_str()).collect(),
            scopes: metadata.scopes.iter().map(Scope::as_str).collect(),
            token_endpoint_auth_method: metadata.auth_method.as_str(),
            has_secret: secret.is_some(),
            previous_secret_expires_at: client.live_previous(now).map(|p| p.expires_at.to_string()),
            owner: owner.as_ref(),
            created_at: created_at.to_string(),
            updated_at: updated_at.to_string(),
            client_secret: None,
        }
    }
}

/// A reply with one client and its ETag, and with the secret that was made up for it.
pub fn one(status: StatusCode, client: &Client, now: Timestamp, made_up: Option<&SecretString>) -> Response {
    let mut view = ClientView::of(client, now);
    view.client_secret = made_up.map(|s| s.expose_secret());
    let mut response = (status, Json(view)).into_response();
    // Our own tags are base64url: always a header value.
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", client.etag)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}
