//! Who may use the page. The command prints an address with a secret; who opens it gets a cookie in exchange and is
//! sent on without it, so that the secret stays out of links and of what is read off the screen.
//!
//! Every request must name the page's own host (a foreign name that resolves to loopback, DNS rebinding, doesn't get
//! in), a request that changes something must come from the page's own origin, and its form must carry a token that no
//! other site can read.

use super::App;
use super::view::Problem;
use crate::web::page;
use crate::web::page::policy::Policy;
use axum::extract::{FromRequest, RawForm, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// The name of the form token's field.
pub const TOKEN_FIELD: &str = "token";

/// One run of the command.
pub struct Session {
    port: u16,
    key: SecretString,
    cookie: SecretString,
    token: SecretString,
}

/// 256 bits.
fn random() -> Result<SecretString, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

fn same(given: &str, wanted: &SecretString) -> bool {
    given.as_bytes().ct_eq(wanted.expose_secret().as_bytes()).into()
}

impl Session {
    /// A new one, of the page on this port.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn new(port: u16) -> Result<Self, getrandom::Error> {
        Ok(Self { port, key: random()?, cookie: random()?, token: random()? })
    }

    /// What the user opens.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}/?key={}", self.port, self.key.expose_secret())
    }

    /// What every form carries.
    pub fn token(&self) -> &str {
        self.token.expose_secret()
    }

    /// Cookies know no ports: another run has one of another name.
    fn cookie_name(&self) -> String {
        format!("applink-ui-{}", self.port)
    }

    fn is_host(&self, host: &str) -> bool {
        ["127.0.0.1", "localhost"].iter().any(|name| host == format!("{name}:{}", self.port))
    }

    fn is_origin(&self, origin: &str) -> bool {
        origin.strip_prefix("http://").is_some_and(|host| self.is_host(host))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .any(|(key, value)| key == name && same(value, &self.cookie))
    }

    /// Why a request isn't let in, whoever sends it.
    fn refuse(&self, method: &Method, headers: &HeaderMap) -> Option<Problem> {
        let text = |name: header::HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or_default());
        if !text(header::HOST).is_some_and(|host| self.is_host(host)) {
            return Some(Problem::new(
                StatusCode::MISDIRECTED_REQUEST,
                "This page has another address",
                format!("It answers at http://127.0.0.1:{} alone.", self.port),
            ));
        }
        let origin = text(header::ORIGIN);
        let foreign = origin.is_some_and(|origin| !self.is_origin(origin));
        let reads = *method == Method::GET || *method == Method::HEAD;
        if foreign || (!reads && origin.is_none()) {
            return Some(Problem::new(
                StatusCode::FORBIDDEN,
                "That didn't come from this page",
                "Another site, or a program, sent a request here. Nothing was done.",
            ));
        }
        None
    }
}

/// Lets in who may.
pub async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let session = &app.session;
    if let Some(problem) = session.refuse(request.method(), request.headers()) {
        return problem.into_response();
    }
    if request.uri().path() == "/" && request.method() == Method::GET {
        let query = request.uri().query().unwrap_or_default();
        let key = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key");
        if let Some((_, key)) = key {
            if !same(&key, &session.key) {
                return not_known().into_response();
            }
            let cookie = format!(
                "{}={}; Path=/; HttpOnly; SameSite=Strict",
                session.cookie_name(),
                session.cookie.expose_secret()
            );
            return ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response();
        }
    }
    if !session.has_cookie(request.headers()) {
        return not_known().into_response();
    }
    next.run(request).await
}

/// Puts the page's headers on every answer.
pub async fn headers(State(_): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    page::protect(&mut response, &Policy::own());
    response
}

fn not_known() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "Open the printed address",
        "This browser doesn't have the key of this page, or the command was started again since. Open the whole address \
         that kubectl applink ui printed.",
    )
}

/// The fields of a form that this page itself made.
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// A field's value; empty where it isn't there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    /// All values of a field.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a box is ticked.
    pub fn is_on(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

#[cfg(test)]
impl Fields {
    /// Fields as a test has them.
    pub fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }
}

impl FromRequest<Arc<App>> for Fields {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let RawForm(body) = RawForm::from_request(request, app).await.map_err(|e| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "The form can't be read",
                format!("{}. Nothing was done.", e.body_text()),
            )
        })?;
        let fields = Self(url::form_urlencoded::parse(&body).into_owned().collect());
        if same(fields.get(TOKEN_FIELD), &app.session.token) {
            return Ok(fields);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "The form is of another run",
            "The command was started again since this form was shown, or the form isn't this page's. Nothing was done. Go to \
             the list and begin again.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (k.clone(), v.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_the_page_s_own_host_and_origin_get_in() {
        let session = Session::new(8080).expect("randomness");
        let asked = |method: Method, pairs: &[(header::HeaderName, &str)]| {
            session.refuse(&method, &headers(pairs)).map(|p| p.status.as_u16())
        };
        let host = (header::HOST, "127.0.0.1:8080");
        assert_eq!(asked(Method::GET, std::slice::from_ref(&host)), None);
        assert_eq!(asked(Method::GET, &[(header::HOST, "localhost:8080")]), None);
        for other in ["127.0.0.1", "127.0.0.1:8081", "evil.example:8080", "localhost:8080.evil.example", ""] {
            assert_eq!(asked(Method::GET, &[(header::HOST, other)]), Some(421), "{other}");
        }
        assert_eq!(asked(Method::GET, &[]), Some(421));
        assert_eq!(asked(Method::POST, std::slice::from_ref(&host)), Some(403), "no origin at all");
        assert_eq!(asked(Method::POST, &[host.clone(), (header::ORIGIN, "http://127.0.0.1:8080")]), None);
        for other in ["null", "http://127.0.0.1:8081", "https://127.0.0.1:8080", "http://evil.example"] {
            assert_eq!(asked(Method::POST, &[host.clone(), (header::ORIGIN, other)]), Some(403), "{other}");
            assert_eq!(asked(Method::GET, &[host.clone(), (header::ORIGIN, other)]), Some(403), "{other}");
        }
    }

    #[test]
    fn a_cookie_is_of_one_run_alone() {
        let (a, b) = (Session::new(1).expect("randomness"), Session::new(1).expect("randomness"));
        let cookie = format!("x=y; applink-ui-1={}", a.cookie.expose_secret());
        let sent = headers(&[(header::COOKIE, &cookie)]);
        assert!(a.has_cookie(&sent) && !b.has_cookie(&sent));
        assert!(!a.has_cookie(&headers(&[(header::COOKIE, "applink-ui-1=")])));
        assert_ne!(a.token(), a.key.expose_secret());
    }
}
