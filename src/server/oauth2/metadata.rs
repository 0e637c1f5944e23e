//! Authorization server metadata (RFC 8414). It lists only what works.

use super::{GRANT_TYPES, INTROSPECT, REGISTER, REVOKE, TOKEN};
use crate::domain::AuthMethod;
use crate::server::state::App;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /.well-known/oauth-authorization-server`, with the issuer's path after it
pub async fn get(State(app): State<Arc<App>>) -> Json<Value> {
    let confidential = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost];
    let all = [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None];
    let scopes: Vec<_> = app.scopes.iter().map(|s| s.as_str()).collect();
    let mut metadata = json!({
        "issuer": app.issuer.as_str(),
        "token_endpoint": app.issuer.endpoint(TOKEN),
        "token_endpoint_auth_methods_supported": all,
        "revocation_endpoint": app.issuer.endpoint(REVOKE),
        "revocation_endpoint_auth_methods_supported": all,
        "introspection_endpoint": app.issuer.endpoint(INTROSPECT),
        "introspection_endpoint_auth_methods_supported": confidential,
        "grant_types_supported": GRANT_TYPES,
        // Required by section 2, and there is no authorization endpoint yet.
        "response_types_supported": [],
        "scopes_supported": scopes,
    });
    if app.registration {
        metadata["registration_endpoint"] = app.issuer.endpoint(REGISTER).into();
    }
    Json(metadata)
}
