//! What Kubernetes asks: is it alive, may it get requests. Without a token: a kubelet has none.

use super::state::App;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(2);

/// `GET /healthz`: the process answers.
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: the database answers.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, &'static str) {
    match timeout(PATIENCE, app.store.ping()).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n"),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database failed\n")
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the database doesn't answer\n"),
    }
}
