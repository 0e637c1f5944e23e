//! Counters for Prometheus. No label has a client ID or any other word of a caller's.

use super::state::App;
use crate::domain::GrantType;
use axum::extract::State;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Grant {
    grant: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

const SECONDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];

/// All counters of the service.
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    durations: Family<Route, Histogram>,
    tokens: Family<Grant, Counter>,
    connections: Family<Listener, Gauge>,
    disk_free: Gauge<i64>,
    disk_size: Gauge<i64>,
    /// Token requests of clients that had been issued too much.
    pub over_budget: Counter,
    /// Client authentications that were refused since too many secrets had been tried.
    pub secrets_not_checked: Counter,
    /// Client authentications that failed.
    pub failed_authentications: Counter,
    /// Refresh tokens that came again within the grace.
    pub refresh_replays: Counter,
    /// Refresh tokens that came again later, whose family was revoked.
    pub refresh_reuses: Counter,
}

impl Metrics {
    /// Counters at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("applink_provider");
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
        let tokens = Family::default();
        let connections = Family::default();
        let (disk_free, disk_size) = (Gauge::default(), Gauge::default());
        registry.register(
            "database_disk_free_bytes",
            "Bytes that can be written to the database's file system",
            disk_free.clone(),
        );
        registry.register(
            "database_disk_size_bytes",
            "Size of the database's file system",
            disk_size.clone(),
        );
        let (failed, replays, reuses) = (Counter::default(), Counter::default(), Counter::default());
        registry.register("http_requests", "Requests, by route, method and status", requests.clone());
        registry.register("http_request_duration_seconds", "Time that requests took", durations.clone());
        registry.register("tokens_issued", "Access tokens issued, by grant", tokens.clone());
        registry.register("connections", "Open connections, by listener", connections.clone());
        let over_budget = Counter::default();
        registry.register(
            "token_requests_over_budget",
            "Token requests that were refused since the client had been issued too much",
            over_budget.clone(),
        );
        let secrets_not_checked = Counter::default();
        registry.register(
            "client_secrets_not_checked",
            "Client authentications that were refused since too many secrets had been tried",
            secrets_not_checked.clone(),
        );
        registry.register(
            "failed_client_authentications",
            "Client authentications that failed",
            failed.clone(),
        );
        registry.register("refresh_replays", "Spent refresh tokens within their grace", replays.clone());
        registry.register("refresh_reuses", "Spent refresh tokens after their grace", reuses.clone());
        Self {
            registry,
            requests,
            durations,
            tokens,
            connections,
            disk_free,
            disk_size,
            over_budget,
            secrets_not_checked,
            failed_authentications: failed,
            refresh_replays: replays,
            refresh_reuses: reuses,
        }
    }

    /// Counts a request; `route` is the pattern that matched.
    pub fn request(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let request = Request { route: route.to_owned(), method: known(method), status: status.as_u16() };
        self.requests.get_or_create(&request).inc();
        let route = Route { route: route.to_owned() };
        self.durations.get_or_create(&route).observe(took.as_secs_f64());
    }

    /// Counts an access token.
    pub fn issued(&self, grant: GrantType) {
        self.tokens.get_or_create(&Grant { grant: grant.as_str() }).inc();
    }

    /// The number of open connections of a listener.
    pub fn connections(&self, listener: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&Listener { listener })
    }
}

/// A caller can send any word as a method; the label has only those that there are.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// `GET /metrics`
pub async fn get(State(app): State<Arc<App>>) -> Response {
    let mut text = String::new();
    if let Some(space) = app.store.space().await {
        app.metrics.disk_free.set(i64::try_from(space.free).unwrap_or(i64::MAX));
        app.metrics.disk_size.set(i64::try_from(space.size).unwrap_or(i64::MAX));
    }
    if encode(&mut text, &app.metrics.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
