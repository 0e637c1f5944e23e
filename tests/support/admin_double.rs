//! A double of the provider's admin API and revocation endpoint, for answers that the real one
//! can't be made to give. What it stands for is tested against the real one elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

/// What it answers to a kind of request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// As the real one.
    Well,
    /// This status, with a body that repeats what it was sent.
    Status(u16),
    /// 429 with a wait.
    Busy(u64),
    /// 200 and something else than JSON.
    Garbage,
    /// Nothing, for a long time.
    Silence,
}

struct Inner {
    /// Answers to `GET /admin/info`, other reads, and writes.
    info: Answer,
    read: Answer,
    write: Answer,
    clients: HashMap<String, Value>,
    requests: usize,
    /// It tells of changes: that all of its clients are to be looked at again. Called whenever it does.
    resets: Option<Box<dyn Fn() + Send>>,
}

/// A running double.
#[derive(Clone)]
pub struct AdminDouble {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
}

impl AdminDouble {
    /// Starts one on a free port; it ends with the test's runtime.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let inner = Inner {
            info: Answer::Well,
            read: Answer::Well,
            write: Answer::Well,
            clients: HashMap::new(),
            requests: 0,
            resets: None,
        };
        let double = Self { url, inner: Arc::new(Mutex::new(inner)) };
        let app = axum::Router::new().fallback(serve).with_state(double.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        double
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic in a handler")
    }

    /// Answers from now on: to `GET /admin/info`, other reads, and writes.
    pub fn answer(&self, info: Answer, read: Answer, write: Answer) {
        let mut inner = self.inner();
        (inner.info, inner.read, inner.write) = (info, read, write);
    }

    /// From now on it says, whenever it is asked for changes, that what was changed so far isn't known. Tells how often.
    pub fn always_reset(&self, told: impl Fn() + Send + 'static) {
        self.inner().resets = Some(Box::new(told));
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.inner().requests
    }

    /// The clients that it holds.
    pub fn clients(&self) -> usize {
        self.inner().clients.len()
    }
}

fn json_reply(status: u16, kind: &'static str, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, kind), (header::ETAG, "\"1\"")], body.to_string()).into_response()
}

async fn serve(State(double): State<AdminDouble>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let token =
        parts.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let answer = {
        let mut inner = double.inner();
        inner.requests += 1;
        match (&parts.method, path.as_str()) {
            (_, "/admin/info") => inner.info.clone(),
            (_, "/oauth2/revoke") => Answer::Well,
            (&Method::GET, _) => inner.read.clone(),
            _ => inner.write.clone(),
        }
    };
    match answer {
        Answer::Well => {}
        Answer::Status(status) => {
            let echo =
                json!({"code": "foreign", "detail": format!("{token} {}", String::from_utf8_lossy(&body))});
            return json_reply(status, "application/problem+json", &echo);
        }
        Answer::Busy(seconds) => {
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds.to_string())])
                .into_response();
        }
        Answer::Garbage => return (StatusCode::OK, "<html>welcome</html>").into_response(),
        Answer::Silence => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return StatusCode::OK.into_response();
        }
    }
    let mut inner = double.inner();
    if path == "/admin/info" {
        let info = json!({
            "instance": "double", "issuer": double.url, "tokenEndpoint": format!("{}/oauth2/token", double.url),
            "revocationEndpoint": format!("{}/oauth2/revoke", double.url), "scopesSupported": ["REPO_READ"],
        });
        return json_reply(200, "application/json", &info);
    }
    if let (Some(told), "/admin/changes") = (&inner.resets, path.as_str()) {
        told();
        let changes = json!({"instance": "double", "next": 1, "reset": true, "changes": []});
        return json_reply(200, "application/json", &changes);
    }
    if path == "/oauth2/revoke" {
        use base64::Engine as _;
        let pair = token
            .strip_prefix("Basic ")
            .and_then(|t| base64::engine::general_purpose::STANDARD.decode(t).ok());
        let pair = String::from_utf8(pair.unwrap_or_default()).unwrap_or_default();
        let (id, secret) = pair.split_once(':').unwrap_or_default();
        let right = inner.clients.get(id).is_some_and(|c| c["secret"] == secret);
        return if right {
            StatusCode::OK.into_response()
        } else {
            json_reply(401, "application/json", &json!({"error": "invalid_client"}))
        };
    }
    let id = path.trim_start_matches("/admin/clients/").to_owned();
    match parts.method {
        Method::PUT => {
            let mut client: Value = serde_json::from_slice(&body).expect("json");
            inner.clients.insert(id, client.clone());
            client["hasSecret"] = json!(client["secret"].is_string());
            json_reply(201, "application/json", &client)
        }
        Method::DELETE => {
            inner.clients.remove(&id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => match inner.clients.get(&id) {
            Some(client) => {
                let mut client = client.clone();
                client["hasSecret"] = json!(client["secret"].is_string());
                json_reply(200, "application/json", &client)
            }
            None => json_reply(404, "application/problem+json", &json!({"code": "not-found"})),
        },
    }
}
