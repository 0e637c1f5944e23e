//! The service as a process of its own, with a folder of its own.

use super::http::{Reply, Request};
use crate::support::disk::Disk;
use crate::support::ports;
use crate::support::process::{Process, Program, RunDir};
use crate::support::wait::{SOON, eventually};
use serde_json::{Value, json};
use std::path::PathBuf;

pub const ADMIN_TOKEN: &str = "canary-admin-token-0123456789";
/// Looks like what the operator derives: 43 characters of base64url.
pub const DERIVED: &str = "canary-derived-secret-0123456789-0123456789";
pub struct Service {
    pub dir: RunDir,
    pub public: u16,
    pub admin: u16,
    pub issuer: String,
    program: Program,
    process: Process,
    disk: Option<Disk>,
}

impl Service {
    /// Starts with more flags than those it must have.
    pub async fn start(flags: &[&str]) -> Self {
        Self::start_at("", flags).await
    }

    /// Starts with an issuer that has a path.
    pub async fn start_at(path: &str, flags: &[&str]) -> Self {
        Self::begin(RunDir::new("applink-provider-"), None, path, flags).await
    }

    /// Starts with its database on a disk that fails when it is told to.
    pub async fn on_a_disk(flags: &[&str]) -> Self {
        let dir = RunDir::new("applink-provider-");
        let disk = Disk::below(&dir, "db").await;
        Self::begin(dir, Some(disk), "", flags).await
    }

    async fn begin(dir: RunDir, disk: Option<Disk>, path: &str, flags: &[&str]) -> Self {
        let (public, admin) = (ports::free(), ports::free());
        let issuer = format!("http://127.0.0.1:{public}{path}");
        dir.write("token", format!("{ADMIN_TOKEN}\n"));
        let file = |name: &str| dir.path().join(name).display().to_string();
        // Flags and environment are both taken; each way has its share.
        let program = Program::new(env!("CARGO_BIN_EXE_applink"), dir.path().join("log"))
            .args(["provider", "--issuer", &issuer, "--admin-listen", &format!("127.0.0.1:{admin}")])
            .args(["--admin-token-file", &file("token")])
            .args(flags)
            .env("APPLINK_PROVIDER_LISTEN", format!("127.0.0.1:{public}"))
            .env("APPLINK_PROVIDER_DATABASE", file("db"))
            .env("APPLINK_PROVIDER_LOG_LEVEL", "debug");
        let env = disk.iter().flat_map(Disk::env);
        let program = env.fold(program, |program, (name, value)| program.env(name, value));
        let process = program.start();
        let service = Self { dir, public, admin, issuer, program, process, disk };
        service.ready().await;
        service
    }

    async fn ready(&self) {
        eventually(SOON, "the service to be ready", async || {
            self.process.must_run();
            Request::new(self.admin, "GET", "/readyz").try_send().await.is_ok_and(|r| r.status == 200)
        })
        .await;
    }

    /// Starts it again after it has ended, with the same files.
    pub async fn start_again(&mut self) {
        assert!(!self.process.is_running());
        self.process = self.program.start();
        self.ready().await;
    }

    /// The disk below its database.
    ///
    /// # Panics
    /// When it isn't one that fails.
    pub fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("a service on such a disk")
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn token_file(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    pub fn post(&self, path: &str) -> Request {
        Request::new(self.public, "POST", path)
    }

    /// An admin request with the token.
    pub fn admin(&self, method: &str, path: &str) -> Request {
        Request::new(self.admin, method, path).header("authorization", format!("Bearer {ADMIN_TOKEN}"))
    }

    pub fn put(&self, id: &str, body: &Value) -> Request {
        self.admin("PUT", &format!("/admin/clients/{id}")).json(body)
    }

    /// Registers a client with `change` applied to [`client`]'s defaults.
    pub async fn register(&self, id: &str, change: Value) -> Reply {
        self.put(id, &client(change)).send().await.must(201)
    }

    /// A refresh token of this client.
    pub async fn grant(&self, id: &str) -> String {
        let body = json!({"clientId": id, "subject": "ada"});
        self.admin("POST", "/admin/grants").json(&body).send().await.must(201).text("refreshToken")
    }

    /// An initial access token with which so many clients can be registered.
    pub async fn initial_token(&self, uses: u32) -> String {
        let body = json!({"expiresIn": 3600, "uses": uses});
        self.admin("POST", "/admin/registration-tokens").json(&body).send().await.must(201).text("token")
    }

    /// What introspection says to this client, which has the derived secret.
    pub async fn introspect(&self, id: &str, token: &str) -> Value {
        let request = self.post("/oauth2/introspect").basic(id, DERIVED);
        request.form(&format!("token={token}")).send().await.must(200).json()
    }

    pub async fn is_active(&self, id: &str, token: &str) -> bool {
        self.introspect(id, token).await["active"].as_bool().expect("active")
    }

    pub async fn refresh(&self, id: &str, token: &str) -> Reply {
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        self.post("/oauth2/token").basic(id, DERIVED).form(&form).send().await
    }

    /// An access token by the client credentials grant.
    pub async fn access(&self, id: &str) -> String {
        let request = self.post("/oauth2/token").basic(id, DERIVED).form("grant_type=client_credentials");
        request.send().await.must(200).text("access_token")
    }
}

/// A client's registration: confidential, with a derived secret, and `change` on top.
pub fn client(change: Value) -> Value {
    let mut body = json!({
        "name": "CI dashboard",
        "redirectUris": [],
        "grantTypes": ["client_credentials", "refresh_token"],
        "scopes": ["REPO_READ", "REPO_WRITE"],
        "tokenEndpointAuthMethod": "client_secret_basic",
        "secret": DERIVED,
        "secretKind": "derived",
    });
    for (name, value) in change.as_object().expect("an object") {
        if value.is_null() {
            body.as_object_mut().expect("an object").remove(name);
        } else {
            body[name] = value.clone();
        }
    }
    body
}

pub fn owner(change: Value) -> Value {
    let mut owner = json!({
        "installation": "inst-1", "namespace": "team-a", "namespaceUid": "nu-1",
        "name": "ci", "uid": "u-1", "serial": 1, "since": 0, "previousUntil": 0, "request": "", "mark": "mark",
    });
    for (name, value) in change.as_object().expect("an object") {
        owner[name] = value.clone();
    }
    owner
}
