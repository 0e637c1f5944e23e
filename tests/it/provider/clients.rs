//! Independent clients, as `tests/clients/setup.sh` installs them: what they make of us is the proof that we speak the
//! protocol and not just our own reading of it.

use super::service::{DERIVED, Service};
use crate::support::clients::{node, python};
use crate::support::programs::run;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Runs a script for each authentication method and for an issuer with and without a path.
async fn speaks(id: &str, command: impl AsyncFn(&Path) -> Command) {
    for (path, method) in
        [("", "client_secret_basic"), ("", "client_secret_post"), ("/a/path", "client_secret_basic")]
    {
        let service = Service::start_at(path, &[]).await;
        let encoded = id.replace(' ', "%20").replace('/', "%2F");
        service.register(&encoded, json!({"tokenEndpointAuthMethod": method})).await;
        let mut command = command(service.dir.path()).await;
        command.env("ISSUER", &service.issuer).env("CLIENT_ID", id).env("CLIENT_SECRET", DERIVED);
        command.env("AUTH_METHOD", method).env("REFRESH_TOKEN", service.grant(id).await);
        // A proxy of the machine has no business on loopback.
        command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        assert_eq!(run(command).await.ok().trim(), "ok", "{path} {method}");
    }
}

// The two in Python don't form-encode the client ID as RFC 6749 section 2.3.1 wants it, so it needs no encoding here.

#[tokio::test]
async fn authlib() {
    speaks("team-a.ci_1~", async |_| python("authlib_client.py").await).await;
}

#[tokio::test]
async fn requests_oauthlib() {
    speaks("team-a.ci_1~", async |_| python("requests_oauthlib_client.py").await).await;
}

#[tokio::test]
async fn openid_client() {
    speaks("team a/ci", async |folder: &Path| node("openid_client.mjs", folder).await).await;
}

#[tokio::test]
async fn openid_client_registers_itself() {
    for (path, method) in [("", "client_secret_basic"), ("/a/path", "client_secret_post")] {
        let service = Service::start_at(path, &["--registration"]).await;
        let mut command = node("openid_client_registration.mjs", service.dir.path()).await;
        command.env("ISSUER", &service.issuer).env("AUTH_METHOD", method);
        command.env("INITIAL_TOKEN", service.initial_token(2).await);
        assert_eq!(run(command).await.ok().trim(), "ok", "{path} {method}");
        let clients = service.admin("GET", "/admin/clients").send().await.must(200).json();
        assert_eq!(clients["items"], json!([]), "it deleted itself");
    }
}
