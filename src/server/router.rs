//! All routes of the service: the OAuth endpoints on the public listener; the admin API, health
//! and metrics on the admin listener. Around each: a line in the log, counters, a time limit, and
//! a panic that becomes an answer.

use super::admin::{Problem, auth, changes, clients, grants, info, registration_tokens};
use super::oauth2::{self, OAuthError, introspect, metadata, register, revoke, token};
use super::state::App;
use super::{health, metrics};
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;

/// Where the metadata is, before the issuer's path (RFC 8414 section 3).
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The public listener.
pub fn public(app: &Arc<App>) -> Router {
    let base = app.issuer.path();
    let at = |path: &str| format!("{base}{path}");
    let no_store = |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));

    let mut endpoints = Router::new()
        .route(&at(oauth2::TOKEN), post(token::post))
        .route(&at(oauth2::INTROSPECT), post(introspect::post))
        .route(&at(oauth2::REVOKE), post(revoke::post));
    if app.registration {
        let client = format!("{}/{{id}}", at(oauth2::REGISTER));
        endpoints = endpoints
            .route(&at(oauth2::REGISTER), post(register::post))
            .route(&client, get(register::get).put(register::put).delete(register::delete));
    }
    let endpoints = endpoints
        .layer(no_store(header::CACHE_CONTROL, "no-store"))
        .layer(no_store(header::PRAGMA, "no-cache"));

    let mut router = endpoints.route(&format!("{METADATA}{base}"), get(metadata::get));
    if !base.is_empty() {
        // Clients that append rather than insert find it too.
        router = router.route(&at(METADATA), get(metadata::get));
    }
    let router = router
        .method_not_allowed_fallback(async || OAuthError::method_not_allowed())
        .fallback(async || OAuthError::not_found());
    around(
        router,
        Router::new(),
        app,
        || OAuthError::timed_out().into_response(),
        |_| OAuthError::server_error().into_response(),
    )
}

/// The admin listener: what needs the bearer token, and what doesn't.
pub fn admin_listener(app: &Arc<App>) -> Router {
    let router = admin(app)
        .merge(operational())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::not_found("there is nothing at this address"));
    around(
        router,
        waiting(app),
        app,
        || Problem::timed_out().into_response(),
        |_| Problem::internal().into_response(),
    )
}

fn admin(app: &Arc<App>) -> Router<Arc<App>> {
    let router = Router::new()
        .route("/admin/info", get(info::get))
        .route("/admin/clients", get(clients::list))
        .route("/admin/clients/{id}", get(clients::get).put(clients::put).delete(clients::delete))
        .route("/admin/grants", post(grants::post))
        .route("/admin/registration-tokens", get(registration_tokens::list).post(registration_tokens::post))
        .route("/admin/registration-tokens/{id}", delete(registration_tokens::delete));
    guarded(router, app)
}

/// What may take as long as its caller asked it to.
fn waiting(app: &Arc<App>) -> Router<Arc<App>> {
    guarded(Router::new().route("/admin/changes", get(changes::get)), app)
}

/// Only for who has the admin token.
fn guarded(router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    router
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .route_layer(middleware::from_fn_with_state(app.clone(), auth::require))
        .layer(SetResponseHeaderLayer::overriding(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-store"),
        ))
}

/// What a kubelet asks, on a listener of its own.
pub fn health_listener(app: &Arc<App>) -> Router {
    alone(probes(), app)
}

/// What Prometheus asks, on a listener of its own.
pub fn metrics_listener(app: &Arc<App>) -> Router {
    alone(measures(), app)
}

fn alone(router: Router<Arc<App>>, app: &Arc<App>) -> Router {
    let router = router
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::not_found("there is nothing at this address"));
    around(
        router,
        Router::new(),
        app,
        || Problem::timed_out().into_response(),
        |_| Problem::internal().into_response(),
    )
}

fn operational() -> Router<Arc<App>> {
    probes().merge(measures())
}

fn probes() -> Router<Arc<App>> {
    Router::new().route("/healthz", get(health::live)).route("/readyz", get(health::ready))
}

fn measures() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(metrics::get))
}

/// What every route has around it, from the inside to the outside; those of `waiting` have no time limit.
fn around(
    router: Router<Arc<App>>,
    waiting: Router<Arc<App>>,
    app: &Arc<App>,
    timed_out: fn() -> Response,
    panicked: fn(Box<dyn Any + Send>) -> Response,
) -> Router {
    let limit = app.request_timeout;
    let in_time = middleware::from_fn(move |request: Request, next: Next| async move {
        timeout(limit, next.run(request)).await.unwrap_or_else(|_| timed_out())
    });
    router
        .layer(in_time)
        .merge(waiting)
        .layer(DefaultBodyLimit::max(app.body_limit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .with_state(app.clone())
}

/// Counts and logs a request. The path's own text stays out of both: callers put anything there.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let (route, took) = (route.as_ref().map_or("unmatched", MatchedPath::as_str), start.elapsed());
    app.metrics.request(route, &method, response.status(), took);
    let (status, ms) = (response.status().as_u16(), took.as_secs_f64() * 1000.0);
    tracing::debug!(%method, route, status, ms, "request");
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Limits;
    use crate::server::state::testing;
    use axum::body::{Body, to_bytes};
    use axum::http::StatusCode;
    use std::time::Duration;
    use tower::ServiceExt as _;

    async fn answer(router: Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.oneshot(request).await.expect("an answer");
        let status = response.status();
        let body = to_bytes(response.into_body(), 10_000).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_panic_or_a_long_wait_becomes_an_answer_and_is_counted() {
        let limits = Limits { request_timeout: Duration::from_millis(500), ..Limits::default() };
        let (_dir, app) = testing::app(limits).await;
        let router = Router::new()
            .route("/panic", get(async || -> () { panic!("canary") }))
            .route("/wait", get(std::future::pending::<()>));
        let public = around(
            router.clone(),
            Router::new(),
            &app,
            || OAuthError::timed_out().into_response(),
            |_| OAuthError::server_error().into_response(),
        );
        let admin = around(
            router,
            Router::new(),
            &app,
            || Problem::timed_out().into_response(),
            |_| Problem::internal().into_response(),
        );
        for (router, path, status, code) in [
            (public.clone(), "/panic", 500, "\"server_error\""),
            (public, "/wait", 503, "\"temporarily_unavailable\""),
            (admin.clone(), "/panic", 500, "\"internal\""),
            (admin, "/wait", 503, "\"timed-out\""),
        ] {
            let (found, body) = answer(router, path).await;
            assert_eq!(found.as_u16(), status, "{body}");
            assert!(body.contains(code) && !body.contains("canary"), "{body}");
        }
        let (_, metrics) = answer(admin_listener(&app), "/metrics").await;
        assert!(metrics.contains("{route=\"/panic\",method=\"GET\",status=\"500\"} 2"), "{metrics}");
    }
}
