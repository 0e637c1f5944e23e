//! A server of a tenant's own: it speaks the APIs of several provider services well enough to be taken for one, hears
//! what it is sent, and lies as it is told. What the services really do is tested against them elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

/// How it lies.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Lies {
    /// Clients that are there already: `id`, and `secret`, `owner` and `public` where they have them.
    #[serde(default)]
    pub plant: Vec<Value>,
    /// What its metadata says in place of the truth.
    #[serde(default)]
    pub metadata: Value,
    /// The identifier that a registration gets.
    #[serde(default)]
    pub registers_as: Option<String>,
    /// Where a registered client is managed.
    #[serde(default)]
    pub managed_at: Option<String>,
    /// The status of the answer to every write.
    #[serde(default)]
    pub writes: Option<u16>,
    /// A client that isn't there is answered with the last one that was written.
    #[serde(default)]
    pub replay: bool,
    /// Lists never end.
    #[serde(default)]
    pub endless: bool,
    /// Its metadata offers so many scopes beside the one that there is.
    #[serde(default)]
    pub scopes: usize,
    /// Members of a registered client that are so many bytes long.
    #[serde(default)]
    pub long: HashMap<String, usize>,
    /// What was changed: nothing; left out, it says each time that something may have been missed.
    #[serde(default)]
    pub quiet: bool,
    /// Whoever waits for a change waits without end.
    #[serde(default)]
    pub hangs: bool,
    /// Every secret is right.
    #[serde(default)]
    pub credulous: bool,
}

#[derive(Default)]
struct Inner {
    lies: Lies,
    /// Clients by API and identifier.
    clients: HashMap<(&'static str, String), Value>,
    last: Option<Value>,
    /// Secrets and tokens that it was sent.
    heard: Vec<String>,
    requests: usize,
    /// How often it was asked what changed since some time.
    asked_for_changes: usize,
}

/// A running server.
#[derive(Clone)]
pub struct Spoof {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Spoof {
    /// Starts one on a free port; it ends with the test's runtime.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let spoof = Self { url, inner: Arc::default() };
        let app = axum::Router::new().fallback(serve).with_state(spoof.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        spoof
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic in a handler")
    }

    /// Lies like this from now on.
    pub fn lie(&self, lies: Lies) {
        let mut inner = self.inner();
        for planted in &lies.plant {
            let id = planted["id"].as_str().expect("an id").to_owned();
            let secret = planted["secret"].as_str().unwrap_or_default();
            let public = planted["public"] == true;
            let method = if public { "none" } else { "client_secret_basic" };
            let bundled = json!({
                "id": id, "name": "CI", "redirectUris": [], "grantTypes": ["client_credentials"], "scopes": [],
                "tokenEndpointAuthMethod": method, "secret": if public { Value::Null } else { json!(secret) },
                "owner": planted["owner"],
            });
            let hydra = json!({
                "client_id": id, "client_name": "CI", "redirect_uris": [], "grant_types": ["client_credentials"],
                "scope": "", "token_endpoint_auth_method": method, "client_secret": secret, "metadata": {},
            });
            inner.clients.insert(("bundled", id.clone()), bundled);
            inner.clients.insert(("hydra", id), hydra);
        }
        inner.lies = lies;
    }

    /// All secrets and tokens that it was sent.
    pub fn heard(&self) -> Vec<String> {
        self.inner().heard.clone()
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.inner().requests
    }

    /// How often it was asked what changed since some time.
    pub fn asked_for_changes(&self) -> usize {
        self.inner().asked_for_changes
    }

    fn metadata(&self, lies: &Lies) -> Value {
        let url = &self.url;
        let mut all = json!({
            "issuer": url, "token_endpoint": format!("{url}/oauth2/token"),
            "revocation_endpoint": format!("{url}/oauth2/revoke"), "authorization_endpoint": format!("{url}/oauth2/auth"),
            "registration_endpoint": format!("{url}/register"), "jwks_uri": format!("{url}/jwks"),
            "scopes_supported": ["openid"], "response_types_supported": ["code"],
        });
        if !lies.metadata.is_null() {
            super::stage::merge(&mut all, lies.metadata.clone());
        }
        all
    }
}

impl Inner {
    fn hear(&mut self, headers: &HeaderMap, body: &[u8]) {
        let sent = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if let Some(basic) = sent.strip_prefix("Basic ") {
            let pair = base64::engine::general_purpose::STANDARD.decode(basic).unwrap_or_default();
            let pair = String::from_utf8_lossy(&pair).into_owned();
            self.heard.extend(pair.split_once(':').map(|(_, secret)| secret.to_owned()));
        }
        self.heard.extend(sent.strip_prefix("Bearer ").map(str::to_owned));
        if let Ok(json) = serde_json::from_slice::<Value>(body) {
            for key in ["secret", "client_secret"] {
                self.heard.extend(json[key].as_str().map(str::to_owned));
            }
        } else {
            let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
            self.heard.extend(form.into_iter().filter(|(k, _)| k == "client_secret").map(|(_, v)| v));
        }
    }

    fn knows(&self, id: &str, secret: &str) -> bool {
        self.lies.credulous
            || self
                .clients
                .iter()
                .any(|((_, known), c)| known == id && (c["secret"] == secret || c["client_secret"] == secret))
    }
}

fn reply(status: u16, body: &Value) -> Response {
    let kind = if status == 404 { "application/problem+json" } else { "application/json" };
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, kind), (header::ETAG, "\"1\"")], body.to_string()).into_response()
}

async fn serve(State(spoof): State<Spoof>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let since =
        parts.uri.path() == "/admin/changes" && parts.uri.query().is_some_and(|q| q.contains("after="));
    if since {
        spoof.inner().asked_for_changes += 1;
        if spoof.inner().lies.hangs {
            return std::future::pending().await;
        }
    }
    answer(&spoof, &parts, &body)
}

fn answer(spoof: &Spoof, parts: &Parts, body: &[u8]) -> Response {
    let mut inner = spoof.inner();
    inner.requests += 1;
    inner.hear(&parts.headers, body);
    let lies = inner.lies.clone();
    let path = parts.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let writes = !matches!(parts.method, Method::GET);
    match segments[..] {
        [.., ".well-known", _] => reply(200, &spoof.metadata(&lies)),
        [.., "oauth2", "revoke"] => {
            let pair = inner.heard.last().cloned().unwrap_or_default();
            let basic =
                parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
            let id = basic.strip_prefix("Basic ").and_then(|b| {
                let pair = base64::engine::general_purpose::STANDARD.decode(b).ok()?;
                Some(String::from_utf8_lossy(&pair).split(':').next()?.to_owned())
            });
            if inner.knows(&id.unwrap_or_default(), &pair) {
                StatusCode::OK.into_response()
            } else {
                reply(401, &json!({"error": "invalid_client"}))
            }
        }
        [.., "oauth2", "token"] | [.., "openid-connect", "token"] => {
            reply(200, &json!({"access_token": "spoofed", "token_type": "Bearer", "expires_in": 3600}))
        }
        ["admin", "info"] => {
            let m = spoof.metadata(&lies);
            let more = (0..lies.scopes).map(|n| format!("s{n}"));
            let scopes: Vec<String> = more.chain(["REPO_READ".to_owned()]).collect();
            reply(
                200,
                &json!({
                    "instance": "spoof", "issuer": m["issuer"], "tokenEndpoint": m["token_endpoint"],
                    "revocationEndpoint": m["revocation_endpoint"], "scopesSupported": scopes,
                }),
            )
        }
        ["admin", "changes"] => {
            reply(200, &json!({"instance": "spoof", "next": 1, "reset": !lies.quiet, "changes": []}))
        }
        _ if writes && lies.writes.is_some() => reply(lies.writes.unwrap_or(500), &json!({"code": "no"})),
        ["register"] => register(spoof, &mut inner, &lies, body),
        ["register", id] => managed(&mut inner, &parts.method, id, body),
        ["admin", "clients"] => {
            let next = lies.endless.then(|| format!("page-{}", inner.requests));
            let items: Vec<Value> = inner.last.iter().cloned().collect();
            reply(200, &json!({"items": items, "next": next}))
        }
        ["admin", "clients", id] => bundled(&mut inner, &lies, &parts.method, id, body),
        ["h", "admin", "clients"] if writes => {
            let client: Value = serde_json::from_slice(body).unwrap_or_default();
            let id = client["client_id"].as_str().unwrap_or_default().to_owned();
            inner.clients.insert(("hydra", id), client.clone());
            reply(201, &without_secret(client))
        }
        ["h", "admin", "clients"] => reply(200, &json!([])),
        ["h", "admin", "clients", id] => hydra(&mut inner, &parts.method, id, body),
        _ => reply(404, &json!({"code": "not-found"})),
    }
}

fn without_secret(mut client: Value) -> Value {
    if let Some(members) = client.as_object_mut() {
        members.remove("client_secret");
    }
    client
}

fn register(spoof: &Spoof, inner: &mut Inner, lies: &Lies, body: &[u8]) -> Response {
    let mut client: Value = serde_json::from_slice(body).unwrap_or_default();
    let id = lies.registers_as.clone().unwrap_or_else(|| format!("made-{}", inner.requests));
    client["client_id"] = json!(id);
    client["client_secret"] = json!(format!("spoofed-{}", inner.requests));
    client["registration_access_token"] = json!("spoofed-management-token");
    let at = lies.managed_at.clone().unwrap_or_else(|| format!("{}/register/{id}", spoof.url));
    client["registration_client_uri"] = json!(at);
    for (member, length) in &lies.long {
        client[member] = json!("x".repeat(*length));
    }
    inner.clients.insert(("registration", id), client.clone());
    reply(201, &client)
}

fn managed(inner: &mut Inner, method: &Method, id: &str, body: &[u8]) -> Response {
    let key = ("registration", id.to_owned());
    match (method, inner.clients.get(&key).cloned()) {
        (_, None) => reply(401, &json!({"error": "invalid_token"})),
        (&Method::DELETE, Some(_)) => {
            inner.clients.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::PUT, Some(mut client)) => {
            super::stage::merge(&mut client, serde_json::from_slice(body).unwrap_or_default());
            inner.clients.insert(key, client.clone());
            reply(200, &client)
        }
        (_, Some(client)) => reply(200, &client),
    }
}

fn bundled(inner: &mut Inner, lies: &Lies, method: &Method, id: &str, body: &[u8]) -> Response {
    let key = ("bundled", id.to_owned());
    let shown = |mut client: Value| {
        client["hasSecret"] = json!(client["secret"].is_string());
        client["id"] = json!(id);
        client
    };
    match *method {
        Method::PUT => {
            let mut client: Value = serde_json::from_slice(body).unwrap_or_default();
            if client["secret"].is_null() {
                client["secret"] = inner.clients.get(&key).map_or(Value::Null, |c| c["secret"].clone());
            }
            inner.clients.insert(key, client.clone());
            let client = shown(client);
            inner.last = Some(client.clone());
            reply(201, &client)
        }
        Method::DELETE => {
            inner.clients.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match inner.clients.get(&key).cloned().or_else(|| inner.last.clone().filter(|_| lies.replay)) {
            Some(client) => reply(200, &shown(client)),
            None => reply(404, &json!({"code": "not-found"})),
        },
    }
}

fn hydra(inner: &mut Inner, method: &Method, id: &str, body: &[u8]) -> Response {
    let key = ("hydra", id.to_owned());
    match *method {
        Method::PUT => {
            let mut client: Value = serde_json::from_slice(body).unwrap_or_default();
            if client["client_secret"].is_null() {
                client["client_secret"] =
                    inner.clients.get(&key).map_or(Value::Null, |c| c["client_secret"].clone());
            }
            inner.clients.insert(key, client.clone());
            reply(200, &without_secret(client))
        }
        Method::DELETE => {
            inner.clients.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match inner.clients.get(&key).cloned() {
            Some(client) => reply(200, &without_secret(client)),
            None => reply(404, &json!({"error": "Unable to locate the resource", "error_description": ""})),
        },
    }
}
