//! The bundled provider, as a process of its own.

use applink_operator::domain::{ClientId, ExposeSecret as _, SecretString};
use applink_operator::http::HttpClient;
use applink_operator::provider::Provider;
use applink_operator::provider::bundled::BundledProvider;
use serde_json::json;
use url::Url;

use super::conformance::conformance;
use super::faults::faults;
use super::subject::{Subject, Tokens};
use crate::provider::service::{ADMIN_TOKEN, Service, client};

struct Bundled(Service);

impl Subject for Bundled {
    async fn start() -> Self {
        Self(Service::start(&[]).await)
    }

    fn bases(&self) -> Vec<String> {
        vec![format!("http://127.0.0.1:{}", self.0.admin)]
    }

    fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
        let admin = Url::parse(&bases[0]).expect("a URL");
        Box::new(BundledProvider::new(http, admin, ADMIN_TOKEN.into(), "conformance"))
    }

    fn issuer(&self) -> String {
        self.0.issuer.clone()
    }

    fn scope_sets(&self) -> Vec<&'static str> {
        vec!["REPO_READ", "", "REPO_READ REPO_WRITE ACCOUNT_WRITE"]
    }

    fn many(&self) -> usize {
        520
    }

    async fn make_by_hand(&self, id: &str, secret: &str) -> Option<()> {
        let change = json!({"name": "by hand", "scopes": ["REPO_READ"], "secret": secret});
        self.0.register(id, change).await;
        Some(())
    }

    async fn rename_by_hand(&self, id: &ClientId, name: &str) -> Option<()> {
        let path = format!("/admin/clients/{id}");
        let there = self.0.admin("GET", &path).send().await.must(200).json();
        let change = json!({"name": name, "owner": there["owner"], "secret": null, "secretKind": null});
        self.0.put(id.as_str(), &client(change)).send().await.must(200);
        Some(())
    }

    async fn tokens(&self, id: &ClientId, secret: &SecretString) -> Option<Tokens> {
        let first = self.0.grant(id.as_str()).await;
        let form = format!("grant_type=refresh_token&refresh_token={first}");
        let request = self.0.post("/oauth2/token").basic(id.as_str(), secret.expose_secret()).form(&form);
        let reply = request.send().await.must(200);
        Some(Tokens { access: reply.text("access_token"), refresh: reply.text("refresh_token") })
    }

    async fn is_active(&self, id: &ClientId, secret: &SecretString, token: &str) -> bool {
        let request = self.0.post("/oauth2/introspect").basic(id.as_str(), secret.expose_secret());
        let reply = request.form(&format!("token={token}")).send().await;
        // A client that is gone has no tokens.
        reply.status != 401 && reply.must(200).json()["active"].as_bool().expect("active")
    }
}

conformance!(Bundled);
faults!(Bundled);
