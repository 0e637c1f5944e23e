//! `GET /admin/info`: what the operator needs to know of the service.

use crate::domain::Scope;
use crate::server::oauth2::{GRANT_TYPES, INTROSPECT, REVOKE, TOKEN};
use crate::server::state::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /admin/info`
pub async fn get(State(app): State<Arc<App>>) -> Json<Value> {
    let scopes: Vec<_> = app.scopes.iter().map(Scope::as_str).collect();
    Json(json!({
        // Another value after each start.
        "instance": app.instance,
        "issuer": app.issuer.as_str(),
        "tokenEndpoint": app.issuer.endpoint(TOKEN),
        "revocationEndpoint": app.issuer.endpoint(REVOKE),
        "introspectionEndpoint": app.issuer.endpoint(INTROSPECT),
        "scopesSupported": scopes,
        "grantTypesSupported": GRANT_TYPES,
        "version": env!("CARGO_PKG_VERSION"),
    }))
}
