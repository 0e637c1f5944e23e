//! The pages by which a person connects an outgoing link.
//!
//! | request | what it does |
//! |---|---|
//! | `GET authorize/NAMESPACE/NAME?ticket=…` | shows what will be asked for; changes nothing |
//! | `POST` the same | uses the ticket, and sends the person to the server |
//! | `GET callback/…` | takes the server's answer, and shows the code that ends it |
//! | `POST authorize/NAMESPACE/NAME/device` and `…/poll` | the device grant, for the tool |
//!
//! A request takes a place among those that are worked on once it is here whole and looks like one of ours: who sends
//! half a request, or made-up words, takes none. No address that is known takes them all; nor does a link or a
//! namespace, of which [`crate::link::consent`] holds back what is too much.
//!
//! What any of it means is [`crate::link::consent`]'s to say; here are requests and pages alone.
//! They work without JavaScript, and have none.

mod gate;
mod pages;

use crate::domain::{ExposeSecret as _, SecretString};
use crate::link::consent::{Answer, Consents, Done, Polled, Trouble, may_be_answer, may_be_ticket};
use crate::link::held::KEEP_TRYING;
use crate::runtime::listen;
use crate::runtime::peer::{Origin, TrustedProxies};
use crate::web::page;
use crate::web::page::policy::Policy;
use axum::body::{HttpBody as _, to_bytes};
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Json, Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use gate::{Gate, Place};
use serde::Deserialize;
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::timeout;
use url::Url;

/// The largest request body.
const MOST: usize = 4096;
/// How long a body may take to arrive.
const BODY: Duration = Duration::from_secs(5);
/// How long one may take: the server that is asked has its part of it, and then its answer is held on to
/// until it is stored. Whoever waits less has a grant without the code that makes it active.
const PATIENCE: Duration = Duration::from_secs(60).saturating_add(KEEP_TRYING);

struct Pages {
    consents: Arc<Consents>,
    base: Url,
    gate: Gate,
}

/// Where a request comes from; unknown without a listener.
type Sender = Option<Extension<Origin>>;

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    base: Url,
    consents: Arc<Consents>,
    proxies: TrustedProxies,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let router = router(base, consents);
    listen::serve("consent", listener, router, Arc::new(proxies), KEEP_TRYING, stop).await;
}

fn router(base: Url, consents: Arc<Consents>) -> Router {
    let prefix = base.path().trim_end_matches('/').to_owned();
    let pages = Router::new()
        .route("/authorize/{namespace}/{name}", get(invitation).post(begin))
        .route("/authorize/{namespace}/{name}/device", post(device))
        .route("/authorize/{namespace}/{name}/poll", post(poll))
        .route("/callback/{server}", get(callback).head(not_spent))
        .route("/style.css", get(page::style))
        .fallback(nothing)
        .layer(middleware::from_fn(whole))
        .layer(tower_http::timeout::TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PATIENCE))
        .with_state(Arc::new(Pages { consents, base, gate: Gate::new() }));
    if prefix.is_empty() { pages } else { Router::new().nest(&prefix, pages) }
}

/// Passes a request on once its body is here.
async fn whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > MOST as u64 {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    match timeout(BODY, to_bytes(body, MOST)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(parts, body.into())).await,
        // Larger than it said, or its connection broke.
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

#[derive(Deserialize)]
struct TicketOf {
    ticket: SecretString,
}

impl Pages {
    /// What the paths of our own files begin with.
    fn prefix(&self) -> &str {
        self.base.path().trim_end_matches('/')
    }

    /// A cookie that this host alone sends, over TLS alone; loopback has no TLS.
    fn cookie(&self) -> &'static str {
        if self.base.scheme() == "https" { "__Host-applink-consent" } else { "applink-consent" }
    }

    fn trouble(&self, trouble: &Trouble) -> Response {
        tracing::info!(reason = trouble.reason(), "a consent didn't go on");
        later(page(pages::trouble(trouble, self.prefix()), &Policy::own()))
    }

    /// A place for a request, once there is one.
    async fn place(&self, from: Sender) -> Result<Place<'_>, Trouble> {
        self.gate.enter(from.map(|Extension(origin)| origin).unwrap_or_default()).await
    }

    /// The same for a request about this link.
    async fn place_for(
        &self,
        from: Sender,
        namespace: &str,
        name: &str,
        ticket: &SecretString,
    ) -> Result<Place<'_>, Trouble> {
        if !may_be_ticket(namespace, name, ticket) {
            return Err(Trouble::NoTicket);
        }
        self.place(from).await
    }
}

/// Says when to come again to who was told to.
fn later(mut response: Response) -> Response {
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

async fn nothing(State(pages): State<Arc<Pages>>) -> Response {
    pages.trouble(&Trouble::NoTicket)
}

async fn invitation(
    State(pages): State<Arc<Pages>>,
    Path((namespace, name)): Path<(String, String)>,
    from: Sender,
    ticket: Result<Query<TicketOf>, QueryRejection>,
) -> Response {
    let Ok(Query(TicketOf { ticket })) = ticket else { return pages.trouble(&Trouble::NoTicket) };
    let _place = match pages.place_for(from, &namespace, &name, &ticket).await {
        Ok(place) => place,
        Err(trouble) => return pages.trouble(&trouble),
    };
    match pages.consents.invitation(&namespace, &name, &ticket).await {
        Ok(found) => page(pages::invitation(&found, ticket.expose_secret(), pages.prefix()), &Policy::own()),
        Err(trouble) => pages.trouble(&trouble),
    }
}

async fn begin(
    State(pages): State<Arc<Pages>>,
    Path((namespace, name)): Path<(String, String)>,
    from: Sender,
    headers: HeaderMap,
    ticket: Result<Form<TicketOf>, FormRejection>,
) -> Response {
    let Ok(Form(TicketOf { ticket })) = ticket else { return pages.trouble(&Trouble::NoTicket) };
    // Browsers say where a form stood; a form of another site isn't the person's own decision.
    let own = pages.base.origin().ascii_serialization();
    if headers.get(header::ORIGIN).is_some_and(|o| o.as_bytes() != own.as_bytes()) {
        return pages.trouble(&Trouble::NoTicket);
    }
    let _place = match pages.place_for(from, &namespace, &name, &ticket).await {
        Ok(place) => place,
        Err(trouble) => return pages.trouble(&trouble),
    };
    match pages.consents.begin(&namespace, &name, &ticket).await {
        Ok(departure) => {
            let secure = if pages.base.scheme() == "https" { "; Secure" } else { "" };
            let cookie = format!(
                "{}={}; Path=/; Max-Age=600; HttpOnly; SameSite=Lax{secure}",
                pages.cookie(),
                departure.browser.expose_secret()
            );
            // Not a redirect: Chromium holds the redirects of a form to the page's form-action, and
            // nobody knows where a server sends people on to.
            let mut response = page(pages::departure(&departure.to, pages.prefix()), &Policy::own());
            if let Ok(mut value) = HeaderValue::from_str(&format!("0; url={}", departure.to)) {
                value.set_sensitive(true);
                response.headers_mut().insert(header::REFRESH, value);
            }
            if let Ok(mut value) = HeaderValue::from_str(&cookie) {
                value.set_sensitive(true);
                response.headers_mut().insert(header::SET_COOKIE, value);
            }
            response
        }
        Err(trouble) => pages.trouble(&trouble),
    }
}

/// What only looks must not use up the answer.
async fn not_spent() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")])
}

async fn callback(
    State(pages): State<Arc<Pages>>,
    Path(server): Path<String>,
    from: Sender,
    headers: HeaderMap,
    answer: Result<Query<Answer>, QueryRejection>,
) -> Response {
    let answer = answer.map(|Query(answer)| answer).unwrap_or_default();
    if !may_be_answer(&answer) {
        return pages.trouble(&Trouble::Unasked);
    }
    let _place = match pages.place(from).await {
        Ok(place) => place,
        Err(trouble) => return pages.trouble(&trouble),
    };
    let browser = cookie(&headers, pages.cookie());
    match pages.consents.answer(server, answer, browser).await {
        Ok(done) => {
            let policy = done.port.map_or_else(Policy::own, Policy::own_and_loopback);
            let mut response = page(pages::done(&done, pages.prefix()), &policy);
            let gone = format!("{}=; Path=/; Max-Age=0", pages.cookie());
            if let Ok(value) = HeaderValue::from_str(&gone) {
                response.headers_mut().insert(header::SET_COOKIE, value);
            }
            response
        }
        Err(trouble) => pages.trouble(&trouble),
    }
}

async fn device(
    State(pages): State<Arc<Pages>>,
    Path((namespace, name)): Path<(String, String)>,
    from: Sender,
    Json(TicketOf { ticket }): Json<TicketOf>,
) -> Response {
    let _place = match pages.place_for(from, &namespace, &name, &ticket).await {
        Ok(place) => place,
        Err(trouble) => return refused(&trouble),
    };
    match pages.consents.begin_device(&namespace, &name, &ticket).await {
        Ok(shown) => said(
            StatusCode::OK,
            &json!({
                "userCode": shown.user_code.expose_secret(),
                "verificationUri": shown.verification_uri.as_str(),
                "verificationUriComplete": shown.verification_uri_complete.as_ref().map(Url::as_str),
                "expiresIn": shown.expires_in.as_secs(),
                "interval": shown.interval.as_secs(),
            }),
        ),
        Err(trouble) => refused(&trouble),
    }
}

async fn poll(
    State(pages): State<Arc<Pages>>,
    Path((namespace, name)): Path<(String, String)>,
    from: Sender,
    Json(TicketOf { ticket }): Json<TicketOf>,
) -> Response {
    let _place = match pages.place_for(from, &namespace, &name, &ticket).await {
        Ok(place) => place,
        Err(trouble) => return refused(&trouble),
    };
    match pages.consents.poll_device(namespace, name, ticket).await {
        Ok(Polled::Pending(wait)) => said(StatusCode::OK, &json!({ "pending": wait.as_secs_f64() })),
        Ok(Polled::Done(done)) => {
            let Done { owner, scopes, missing, ends, code, .. } = *done;
            let (ends, unrenewed) = ends.unzip();
            let account = owner.map(|o| o.label.unwrap_or_else(|| o.account.subject().to_owned()));
            said(
                StatusCode::OK,
                &json!({
                    "account": account, "scopes": scopes, "missing": missing, "ends": ends, "unrenewed": unrenewed,
                    "code": code.expose_secret(),
                }),
            )
        }
        Err(trouble) => refused(&trouble),
    }
}

fn refused(trouble: &Trouble) -> Response {
    let status = StatusCode::from_u16(trouble.status()).unwrap_or(StatusCode::BAD_REQUEST);
    later(said(status, &json!({ "reason": trouble.reason(), "message": trouble.to_string() })))
}

fn said(status: StatusCode, what: &serde_json::Value) -> Response {
    let mut response = (status, Json(what)).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page with the headers that every page of ours is sent with.
fn page(mut page: Response, policy: &Policy) -> Response {
    page::protect(&mut page, policy);
    page
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let pairs = all.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(n, _)| *n == name).map(|(_, value)| value.to_owned()).next()
}
