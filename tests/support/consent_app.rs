//! The login and consent application that Ory Hydra sends people to, as small as one can be: whoever names themselves
//! is signed in, and says yes to the scopes that stay ticked.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Form, Query, State};
use axum::response::{Html, Redirect};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::stage::http;

/// The application. It is served until the test's runtime ends.
pub struct ConsentApp {
    url: String,
    admin: Arc<OnceLock<String>>,
}

type Admin = State<Arc<OnceLock<String>>>;
type Fields = HashMap<String, String>;

impl ConsentApp {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let url = format!("http://127.0.0.1:{}", listener.local_addr().expect("an address").port());
        let admin = Arc::new(OnceLock::new());
        let app = Router::new()
            .route("/login", get(login).post(signed_in))
            .route("/consent", get(consent).post(consented))
            .with_state(admin.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.expect("served") });
        Self { url, admin }
    }

    /// Where Hydra's admin API is, once it runs.
    pub fn serves(&self, admin: String) {
        self.admin.set(admin).expect("told once");
    }

    pub fn login_url(&self) -> String {
        format!("{}/login", self.url)
    }

    pub fn consent_url(&self) -> String {
        format!("{}/consent", self.url)
    }
}

async fn accept(admin: &OnceLock<String>, what: &str, challenge: &str, body: &Value) -> Redirect {
    let url = format!(
        "{}/admin/oauth2/auth/requests/{what}/accept?{what}_challenge={challenge}",
        admin.get().expect("Hydra's address")
    );
    let answer = http().put(url).json(body).send().await.expect("Hydra answers");
    let answer: Value = answer.json().await.expect("JSON");
    Redirect::to(answer["redirect_to"].as_str().unwrap_or_else(|| panic!("{answer}")))
}

async fn login(Query(q): Query<Fields>) -> Html<String> {
    Html(format!(
        "<form method=post><input name=challenge type=hidden value=\"{}\"><input id=name name=name><button id=go>Sign in</button></form>",
        q["login_challenge"]
    ))
}

async fn signed_in(State(admin): Admin, Form(f): Form<Fields>) -> Redirect {
    accept(&admin, "login", &f["challenge"], &json!({"subject": f["name"]})).await
}

async fn consent(State(admin): Admin, Query(q): Query<Fields>) -> Html<String> {
    let challenge = &q["consent_challenge"];
    let url = format!(
        "{}/admin/oauth2/auth/requests/consent?consent_challenge={challenge}",
        admin.get().expect("Hydra's address")
    );
    let asked: Value = http().get(url).send().await.expect("Hydra answers").json().await.expect("JSON");
    let ticks: String = asked["requested_scope"]
        .as_array()
        .expect("scopes")
        .iter()
        .map(|s| s.as_str().expect("a scope"))
        .map(|s| format!("<label><input type=checkbox checked name=\"scope-{s}\" value=1>{s}</label>"))
        .collect();
    Html(format!(
        "<form method=post><input name=challenge type=hidden value=\"{challenge}\">{ticks}<button id=go>Agree</button></form>"
    ))
}

async fn consented(State(admin): Admin, Form(f): Form<Fields>) -> Redirect {
    let scopes: Vec<_> = f.keys().filter_map(|k| k.strip_prefix("scope-")).collect();
    accept(&admin, "consent", &f["challenge"], &json!({"grant_scope": scopes})).await
}
