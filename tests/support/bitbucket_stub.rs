//! A contract stub of Bitbucket Data Center's OAuth 2.0 client API. **It is no Bitbucket, and no Bitbucket was asked:**
//! none can run here. It is written from the protocol facts alone that the adapter is written from, so a test against it
//! proves that the adapter keeps to those facts, and nothing about the real thing.
//!
//! It is strict: an unknown field, a wrong verb, a missing header or credential is a breach, which it answers as an error
//! and remembers; a test ends with [`BitbucketStub::assert_kept`]. Of every fact that isn't published it can answer each
//! way: see [`Knobs`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde_json::{Value, json};

pub const ADMIN: &str = "sysadmin";
pub const PASSWORD: &str = "only-for-tests: pass:word";
pub const TOKEN: &str = "only-for-tests-admin-token";

/// How a list of clients comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum List {
    Array,
    Values,
    /// Pages of this many.
    Pages(usize),
}

/// What the answer to a reset is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reset {
    Record,
    SecretAlone,
    Text,
    /// Nothing: the secret is in the client from then on, where that tells it.
    Empty,
}

/// What the revocation endpoint does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Revoke {
    /// As RFC 7009 says.
    Standard,
    Absent,
    TakesAll,
    RefusesAll,
}

/// Every fact that isn't published, and which way it is.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Where the API is: `1.0` in place of `latest`.
    pub api: &'static str,
    /// There is no such API.
    pub absent: bool,
    /// A GET of a client tells its secret.
    pub get_tells_secret: bool,
    /// A creation does.
    pub create_tells_secret: bool,
    pub create_status: u16,
    /// The answer to a creation has no body.
    pub create_is_empty: bool,
    /// PUT answers 200 with the client, and else 204.
    pub put_tells: bool,
    pub delete_status: u16,
    pub duplicate_status: u16,
    pub list: List,
    pub reset: Reset,
    /// Clients are numbered by texts.
    pub text_ids: bool,
    /// The scope is a list of one.
    pub scope_list: bool,
    /// Answers have fields that nobody heard of, and nulls.
    pub extra: bool,
    pub well_known: bool,
    pub revoke: Revoke,
    /// The token endpoint looks at the code before it looks at the client.
    pub code_first: bool,
    pub wrong_code: &'static str,
    pub wrong_secret: (u16, &'static str),
    /// Whatever a client should be is refused.
    pub refuses: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            api: "/rest/oauth2/latest",
            absent: false,
            get_tells_secret: false,
            create_tells_secret: true,
            create_status: 200,
            create_is_empty: false,
            put_tells: false,
            delete_status: 200,
            duplicate_status: 409,
            list: List::Array,
            reset: Reset::Record,
            text_ids: false,
            scope_list: false,
            extra: false,
            well_known: false,
            revoke: Revoke::Standard,
            code_first: false,
            wrong_code: "invalid_grant",
            wrong_secret: (401, "invalid_client"),
            refuses: false,
        }
    }
}

/// A client that the stub holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    pub number: u64,
    pub client_id: String,
    pub secret: String,
    pub name: String,
    pub redirects: Vec<String>,
    pub scope: String,
}

#[derive(Default)]
struct Inner {
    clients: Vec<Client>,
    made: u64,
    breaches: Vec<String>,
    asked: Vec<String>,
}

/// A running stub; it ends with the test's runtime.
#[derive(Clone)]
pub struct BitbucketStub {
    pub url: String,
    pub knobs: Arc<Mutex<Knobs>>,
    inner: Arc<Mutex<Inner>>,
}

impl BitbucketStub {
    /// Starts one under `/bitbucket`, as Bitbucket may be.
    pub async fn start(knobs: Knobs) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/bitbucket", listener.local_addr().expect("an address"));
        let stub = Self { url, knobs: Arc::new(Mutex::new(knobs)), inner: Arc::default() };
        let app = axum::Router::new().fallback(serve).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        stub
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic in a handler")
    }

    fn knobs(&self) -> Knobs {
        self.knobs.lock().expect("no panic in a handler").clone()
    }

    /// Answers otherwise from now on.
    pub fn turn(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs.lock().expect("no panic in a handler"));
    }

    pub fn clients(&self) -> Vec<Client> {
        self.inner().clients.clone()
    }

    /// Somebody's edit by hand.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<Client>)) {
        change(&mut self.inner().clients);
    }

    /// A client that somebody else made.
    pub fn add(&self, name: &str) -> Client {
        let client = new_client(&mut self.inner(), name, &["https://other.example/cb"], "REPO_ADMIN");
        self.inner().clients.push(client.clone());
        client
    }

    /// The requests since the last look, such as `PUT /client/1`.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().asked)
    }

    /// The requests that broke the contract, and how.
    pub fn breaches(&self) -> Vec<String> {
        self.inner().breaches.clone()
    }

    /// Checks that no request broke the contract.
    ///
    /// # Panics
    /// When one did: with all that did.
    pub fn assert_kept(&self) {
        let breaches = self.breaches();
        assert!(breaches.is_empty(), "the contract was broken: {breaches:#?}");
    }
}

fn new_client(inner: &mut Inner, name: &str, redirects: &[&str], scope: &str) -> Client {
    inner.made += 1;
    Client {
        number: inner.made,
        client_id: format!("id-{}-{:08x}", inner.made, inner.made.wrapping_mul(2_654_435_761)),
        secret: format!("secret-{}-0", inner.made),
        name: name.to_owned(),
        redirects: redirects.iter().map(|u| (*u).to_owned()).collect(),
        scope: scope.to_owned(),
    }
}

/// A request, read whole.
struct Asked {
    method: Method,
    /// Below the API, such as `/client/1`.
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

fn status(status: u16) -> Response {
    StatusCode::from_u16(status).expect("a status").into_response()
}

fn answer(code: u16, body: &Value) -> Response {
    (StatusCode::from_u16(code).expect("a status"), axum::Json(body.clone())).into_response()
}

async fn serve(State(stub): State<BitbucketStub>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let knobs = stub.knobs();
    let at = format!("/bitbucket{}", knobs.api);
    let full = parts.uri.path().to_owned();
    let Some(path) = full.strip_prefix(&at).filter(|_| !knobs.absent) else {
        return (StatusCode::NOT_FOUND, "<html>Oops, you've found a dead link</html>").into_response();
    };
    let asked = Asked {
        method: parts.method,
        path: path.to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    let mut inner = stub.inner();
    inner.asked.push(format!("{} {}", asked.method, asked.path));
    let done = match (&asked.method, path) {
        (_, "/.well-known/oauth-authorization-server") => Ok(well_known(&stub.url, &knobs)),
        (_, "/token") => token(&mut inner, &knobs, &asked),
        (_, "/revoke") => revoke(&mut inner, &knobs, &asked),
        _ => manage(&mut inner, &knobs, &asked),
    };
    done.unwrap_or_else(|breach| {
        inner.breaches.push(format!("{} {}: {breach}", asked.method, asked.path));
        answer(400, &json!({"errors": [{"context": null, "message": "no such thing"}]}))
    })
}

fn well_known(url: &str, knobs: &Knobs) -> Response {
    if !knobs.well_known {
        return status(404);
    }
    let at = |path: &str| format!("{url}{}{path}", knobs.api);
    answer(
        200,
        &json!({
            "issuer": url, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            // Where no client's secret may be sent.
            "revocation_endpoint": "https://elsewhere.example/revoke",
        }),
    )
}

/// Whether the credentials are right; what a client may send at all is checked first.
fn client_form<'a>(
    inner: &mut Inner,
    asked: &Asked,
    known: &[&str],
) -> Result<(BTreeMap<String, String>, bool), &'a str> {
    if asked.method != Method::POST {
        return Err("the verb");
    }
    if asked.header(header::CONTENT_TYPE) != "application/x-www-form-urlencoded" {
        return Err("the content type");
    }
    if asked.headers.contains_key(header::AUTHORIZATION) {
        return Err("clients authenticate in the body");
    }
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&asked.body).into_owned().collect();
    if form.keys().any(|k| !known.contains(&k.as_str())) {
        return Err("an unknown parameter");
    }
    let of = |name: &str| form.get(name).map_or("", String::as_str);
    let right =
        inner.clients.iter().any(|c| c.client_id == of("client_id") && c.secret == of("client_secret"));
    Ok((form, right))
}

fn token(inner: &mut Inner, knobs: &Knobs, asked: &Asked) -> Result<Response, &'static str> {
    let known = [
        "grant_type",
        "code",
        "redirect_uri",
        "client_id",
        "client_secret",
        "refresh_token",
        "code_verifier",
    ];
    let (form, right) = client_form(inner, asked, &known)?;
    if form.get("redirect_uri").is_none_or(String::is_empty) {
        return Ok(answer(400, &json!({"error": "invalid_request"})));
    }
    let (code, error) = knobs.wrong_secret;
    Ok(if right || knobs.code_first {
        answer(400, &json!({"error": knobs.wrong_code, "error_description": "canary"}))
    } else {
        answer(code, &json!({"error": error}))
    })
}

fn revoke(inner: &mut Inner, knobs: &Knobs, asked: &Asked) -> Result<Response, &'static str> {
    if knobs.revoke == Revoke::Absent {
        return Ok(status(404));
    }
    let (_, right) = client_form(inner, asked, &["token", "token_type_hint", "client_id", "client_secret"])?;
    Ok(match knobs.revoke {
        Revoke::RefusesAll => status(401),
        Revoke::Standard if !right => answer(401, &json!({"error": "invalid_client"})),
        _ => status(200),
    })
}

fn manage(inner: &mut Inner, knobs: &Knobs, asked: &Asked) -> Result<Response, &'static str> {
    let login = base64::engine::general_purpose::STANDARD.encode(format!("{ADMIN}:{PASSWORD}"));
    match asked.header(header::AUTHORIZATION) {
        "" => return Err("no credential"),
        given if given == format!("Basic {login}") || given == format!("Bearer {TOKEN}") => {}
        _ => return Ok(status(401)),
    }
    if asked.header(header::ACCEPT) != "application/json" {
        return Err("what is accepted");
    }
    let segments: Vec<_> = asked.path.trim_start_matches('/').split('/').collect();
    match (asked.method.as_str(), &segments[..]) {
        ("GET", ["client"]) => list(inner, knobs, &asked.query),
        ("POST", ["client"]) => create(inner, knobs, asked),
        ("PUT", ["client", "reset", id]) => reset(inner, knobs, asked, id),
        ("GET" | "PUT" | "DELETE", ["client", number]) => one(inner, knobs, asked, number),
        _ => Err("the verb or the path"),
    }
}

fn shown(client: &Client, knobs: &Knobs, secret: bool) -> Value {
    let mut all = json!({
        "clientId": client.client_id, "name": client.name, "redirects": client.redirects, "userKey": "admin-key",
        "id": if knobs.text_ids { json!(client.number.to_string()) } else { json!(client.number) },
        "scope": if knobs.scope_list { json!([client.scope]) } else { json!(client.scope) },
    });
    if secret {
        all["clientSecret"] = json!(client.secret);
    } else if knobs.extra {
        all["clientSecret"] = Value::Null;
    }
    if knobs.extra {
        all["createdDate"] = json!(1_760_000_000_000_i64);
        all["links"] = json!({"self": [{"href": "https://bitbucket.example"}]});
    }
    all
}

fn list(inner: &Inner, knobs: &Knobs, query: &str) -> Result<Response, &'static str> {
    let shown = |clients: &[Client]| clients.iter().map(|c| shown(c, knobs, false)).collect::<Vec<_>>();
    let start = match (query.strip_prefix("start=").map(str::parse::<usize>), query) {
        (Some(Ok(start)), _) if matches!(knobs.list, List::Pages(_)) => start,
        (None, "") => 0,
        _ => return Err("an unknown query"),
    };
    Ok(match knobs.list {
        List::Array => answer(200, &json!(shown(&inner.clients))),
        List::Values => answer(200, &json!({"values": shown(&inner.clients), "size": inner.clients.len()})),
        List::Pages(size) => {
            let rest = inner.clients.get(start..).ok_or("a page that isn't there")?;
            let page = &rest[..size.min(rest.len())];
            let last = page.len() == rest.len();
            let next = if last { Value::Null } else { json!(start + page.len()) };
            answer(
                200,
                &json!({"values": shown(page), "isLastPage": last, "nextPageStart": next, "start": start}),
            )
        }
    })
}

/// Name, redirects and scope.
type Fields = (String, Vec<String>, String);

/// A body's fields; `None` where a value is one that Bitbucket refuses.
fn fields(asked: &Asked) -> Result<Option<Fields>, &'static str> {
    if asked.header(header::CONTENT_TYPE) != "application/json" {
        return Err("the content type");
    }
    let body: Value = serde_json::from_slice(&asked.body).map_err(|_| "no JSON")?;
    let body = body.as_object().ok_or("no object")?;
    let known = ["id", "clientId", "clientSecret", "name", "redirects", "userKey", "scope"];
    if body.keys().any(|k| !known.contains(&k.as_str())) {
        return Err("an unknown field");
    }
    let text = |name: &str| match body.get(name) {
        None => Ok(String::new()),
        Some(value) => value.as_str().map(str::to_owned).ok_or("a field that isn't a text"),
    };
    let redirects: Vec<String> = match body.get("redirects") {
        None => Vec::new(),
        Some(all) => serde_json::from_value(all.clone()).map_err(|_| "redirects that aren't texts")?,
    };
    let fits = |uri: &String| {
        url::Url::parse(uri).is_ok_and(|u| {
            u.fragment().is_none()
                && uri.len() <= 450
                && (u.scheme() == "https" || (u.scheme() == "http" && u.host_str() == Some("localhost")))
        })
    };
    let scopes = [
        "",
        "PUBLIC_REPOS",
        "ACCOUNT_WRITE",
        "REPO_READ",
        "REPO_WRITE",
        "REPO_ADMIN",
        "PROJECT_ADMIN",
        "ADMIN_WRITE",
        "SYSTEM_ADMIN",
    ];
    let (name, scope) = (text("name")?, text("scope")?);
    let good = name.len() <= 255 && redirects.iter().all(fits) && scopes.contains(&scope.as_str());
    Ok(good.then_some((name, redirects, scope)))
}

fn create(inner: &mut Inner, knobs: &Knobs, asked: &Asked) -> Result<Response, &'static str> {
    let refused = answer(400, &json!({"errors": [{"context": "name", "message": "canary"}]}));
    let Some((name, redirects, scope)) = fields(asked)? else { return Ok(refused) };
    if knobs.refuses || name.is_empty() || redirects.is_empty() || scope.is_empty() {
        return Ok(refused);
    }
    if inner.clients.iter().any(|c| c.name == name) {
        return Ok(answer(knobs.duplicate_status, &json!({"errors": [{"message": "canary"}]})));
    }
    let redirects: Vec<_> = redirects.iter().map(String::as_str).collect();
    let client = new_client(inner, &name, &redirects, &scope);
    inner.clients.push(client.clone());
    Ok(if knobs.create_is_empty {
        status(knobs.create_status)
    } else {
        answer(knobs.create_status, &shown(&client, knobs, knobs.create_tells_secret))
    })
}

fn one(inner: &mut Inner, knobs: &Knobs, asked: &Asked, number: &str) -> Result<Response, &'static str> {
    let number: u64 = number.parse().map_err(|_| "no number of a client")?;
    let Some(at) = inner.clients.iter().position(|c| c.number == number) else { return Ok(status(404)) };
    match asked.method.as_str() {
        "GET" => Ok(answer(200, &shown(&inner.clients[at], knobs, knobs.get_tells_secret))),
        "DELETE" => {
            inner.clients.remove(at);
            Ok(status(knobs.delete_status))
        }
        _ => {
            let Some((name, redirects, scope)) = fields(asked)? else { return Ok(status(400)) };
            if knobs.refuses {
                return Ok(status(400));
            }
            if inner.clients.iter().any(|c| c.number != number && c.name == name) {
                return Ok(status(knobs.duplicate_status));
            }
            let client = &mut inner.clients[at];
            // What is blank stays as it was.
            if !name.is_empty() {
                client.name = name;
            }
            if !redirects.is_empty() {
                client.redirects = redirects;
            }
            if !scope.is_empty() {
                client.scope = scope;
            }
            Ok(if knobs.put_tells {
                answer(200, &shown(&inner.clients[at], knobs, false))
            } else {
                status(204)
            })
        }
    }
}

fn reset(inner: &mut Inner, knobs: &Knobs, asked: &Asked, id: &str) -> Result<Response, &'static str> {
    if !asked.body.is_empty() {
        return Err("a body");
    }
    let Some(client) = inner.clients.iter_mut().find(|c| c.client_id == id) else { return Ok(status(404)) };
    let count: u64 = client.secret.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or_default();
    client.secret = format!("secret-{}-{}", client.number, count + 1);
    Ok(match knobs.reset {
        Reset::Record => answer(200, &shown(client, knobs, true)),
        Reset::SecretAlone => answer(200, &json!({"clientSecret": client.secret})),
        Reset::Text => answer(200, &json!(client.secret)),
        Reset::Empty => status(204),
    })
}
