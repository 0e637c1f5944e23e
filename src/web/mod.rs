//! The operator's own HTTP: health and metrics here, the pages of a consent in [`consent`]. The frame of pages for people
//! is in [`page`].
//!
//! Only `cli` calls this module.

pub mod consent;
pub mod page;

use crate::runtime::listen;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpListener;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Probe {
    ready: Arc<AtomicBool>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Probe {
    /// A probe that isn't ready yet.
    pub fn new(metrics: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self { ready: Arc::default(), metrics: Arc::new(metrics) }
    }

    /// Says whether the operator is ready: it reaches the API server, and works or stands by.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

/// Serves health, and metrics too unless they have a listener of their own, until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    probe: Probe,
    with_metrics: bool,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let app = Router::new().route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(readyz));
    let app = if with_metrics { app.merge(measures()) } else { app };
    listen::serve("health", listener, around(app, probe), Arc::default(), listen::DRAIN, stop).await;
}

/// Serves metrics alone, once it can listen, until `stop` resolves.
pub async fn serve_metrics(
    address: SocketAddr,
    probe: Probe,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let listener = listen::bind("metrics", address).await;
    listen::serve("metrics", listener, around(measures(), probe), Arc::default(), listen::DRAIN, stop).await;
}

fn measures() -> Router<Probe> {
    Router::new().route("/metrics", get(metrics))
}

fn around(router: Router<Probe>, probe: Probe) -> Router {
    router
        .layer(tower_http::limit::RequestBodyLimitLayer::new(1024))
        .layer(tower_http::timeout::TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            std::time::Duration::from_secs(10),
        ))
        .with_state(probe)
}

async fn readyz(State(probe): State<Probe>) -> Response {
    if probe.ready.load(Ordering::Relaxed) {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

async fn metrics(State(probe): State<Probe>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], (probe.metrics)()).into_response()
}
