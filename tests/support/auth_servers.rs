//! Other people's authorization servers, as `tests/servers/setup.sh` installs them, each as a process of its own.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::ports;
use super::process::{Process, Program, RunDir};
use super::programs::installed_by;
use super::stage::http;
use super::wait::{SOON, eventually};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// npm oidc-provider.
    OidcProvider,
    /// PyPI Authlib.
    Authlib,
    /// PyPI django-oauth-toolkit.
    Django,
    /// The example of the Go module zitadel/oidc.
    Zitadel,
}

/// A running one. Dropping it ends it and removes what it stored.
pub struct AuthServer {
    _process: Process,
    port: u16,
    kind: Kind,
    run: RunDir,
}

/// The folder they are installed in.
async fn installed() -> PathBuf {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    installed_by(&INSTALLED, &format!("{FOLDER}/setup.sh")).await
}

impl AuthServer {
    /// Starts one and waits until its metadata are there.
    pub async fn start(kind: Kind) -> Self {
        let there = installed().await;
        let run = RunDir::new("applink-server-");
        let port = ports::free();
        let log = run.path().join("log");
        let program = match kind {
            Kind::OidcProvider => {
                // The shell finds Node.js as whoever runs the tests would.
                Program::new("/usr/bin/env", log).args(["node", "oidc_provider.mjs"]).folder(&there)
            }
            Kind::Authlib => Program::new(there.join("bin/python"), log)
                .args(["-B".to_owned(), format!("{FOLDER}/authlib_server.py")]),
            Kind::Django => Program::new(there.join("bin/python"), log)
                .args(["-B".to_owned(), format!("{FOLDER}/django_server.py")])
                .env("FOLDER", run.folder("django")),
            Kind::Zitadel => Program::new(there.join("zitadel"), log),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let process = program.env("PATH", path).env("PORT", port.to_string()).start();
        let server = Self { _process: process, port, kind, run };
        eventually(SOON, format!("the metadata of {kind:?}"), async || {
            server.metadata().await.map(drop).ok_or_else(|| server.log())
        })
        .await;
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        self.url(if self.kind == Kind::Django { "/o" } else { "" })
    }

    async fn metadata(&self) -> Option<Value> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer());
        http().get(url).send().await.ok()?.json().await.ok()
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.run.path().join("log")).unwrap_or_default()
    }

    async fn done(&self, answer: reqwest::Result<reqwest::Response>) {
        let status = answer.expect("it answers").status();
        assert_eq!(status.as_u16(), 204, "{}", self.log());
    }

    /// Registers a client, or gives it other redirect URIs.
    pub async fn client(&self, id: &str, secret: &str, redirect_uris: &[&str], grant_types: &[&str]) {
        let client = json!({
            "client_id": id, "client_secret": secret, "redirect_uris": redirect_uris, "grant_types": grant_types,
        });
        self.done(http().request(Method::PUT, self.url("/test/client")).json(&client).send().await).await;
    }

    /// A person enters the code of a device, and agrees.
    pub async fn enters(&self, code: &str, person: &str) {
        let form = [("user_code", code), ("person", person)];
        self.done(http().post(self.url("/test/device")).form(&form).send().await).await;
    }

    /// Whose token it is, as its user endpoint says it; `None` for one that isn't good any more.
    pub async fn whose(&self, token: &str) -> Option<String> {
        let metadata = self.metadata().await.expect("metadata");
        let at = metadata["userinfo_endpoint"].as_str().expect("a user endpoint");
        let answer = http().get(at).bearer_auth(token).send().await.expect("it answers");
        let said: Value = answer.json().await.unwrap_or_default();
        said["sub"].as_str().map(str::to_owned)
    }
}
