//! The provider services that are measured, as the bare client and the counters see them.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::hydra::Hydra;
use crate::support::stage::{SOON, Stage, condition, http};
use crate::support::wait::eventually;

/// The bare client's own begin so.
pub const BARE: &str = "bare-";

/// A provider service, called without the operator's adapter.
pub struct Service {
    http: Client,
    /// The name of its `ClusterLinkProvider`.
    pub provider: String,
    /// Its public address.
    issuer: String,
    admin: String,
    kind: Kind,
}

enum Kind {
    /// With the token of its admin API.
    Bundled(String),
    Hydra {
        /// It ends with this.
        _process: Box<Hydra>,
    },
}

impl Service {
    /// The service of this name, taken up by the operator.
    pub async fn start(name: &str, stage: &Stage<'_>) -> Self {
        match name {
            "bundled" => Self {
                http: http(),
                provider: stage.provider_name.clone(),
                issuer: stage.provider_url.clone(),
                admin: stage.admin_url.clone(),
                kind: Kind::Bundled(stage.admin_token().await),
            },
            "hydra" => Self::hydra(stage).await,
            other => panic!("BENCH_PROVIDERS: bundled and hydra are measured, not {other}"),
        }
    }

    async fn hydra(stage: &Stage<'_>) -> Self {
        let hydra = Box::new(Hydra::start().await);
        let provider = format!("hydra-{}", stage.system);
        let object = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
            "metadata": {"name": provider},
            "spec": {
                "hydra": {"url": hydra.issuer(), "admin": {"url": hydra.admin_url()}},
                "allow": {"namespaces": {"all": {}}},
            },
        });
        stage.apply_object(&stage.system, &object).await;
        let api: kube::Api<applink_operator::api::ClusterLinkProvider> = kube::Api::all(stage.client.clone());
        eventually(SOON, "Hydra to be taken up", async || {
            let found = api.get(&provider).await.map_err(|e| e.to_string())?;
            let status = serde_json::to_value(&found.status).expect("json");
            let ready = condition(&status, "Ready").is_some_and(|c| c["status"] == "True");
            if ready { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        let (issuer, admin) = (hydra.issuer(), hydra.admin_url());
        Self { http: http(), provider, issuer, admin, kind: Kind::Hydra { _process: hydra } }
    }

    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Bundled(_) => "bundled",
            Kind::Hydra { .. } => "hydra",
        }
    }

    fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.admin));
        match &self.kind {
            Kind::Bundled(token) => request.bearer_auth(token),
            Kind::Hydra { .. } => request,
        }
    }

    /// What registers clients like this one of the operator's.
    pub async fn like(&self, id: &str) -> Value {
        let answer =
            self.admin(Method::GET, &format!("/admin/clients/{id}")).send().await.expect("an answer");
        let client: Value = answer.json().await.expect("a client");
        let fields: &[&str] = match self.kind {
            Kind::Bundled(_) => {
                &["name", "uri", "redirectUris", "grantTypes", "scopes", "tokenEndpointAuthMethod", "owner"]
            }
            Kind::Hydra { .. } => &[
                "client_name",
                "client_uri",
                "redirect_uris",
                "grant_types",
                "response_types",
                "scope",
                "token_endpoint_auth_method",
                "metadata",
            ],
        };
        let pick = |field: &&str| Some(((*field).to_owned(), client.get(*field)?.clone()));
        Value::Object(fields.iter().filter_map(pick).collect())
    }

    /// Registers a client, in the one call that this takes. Hydra on SQLite answers 400 to one of two writes at the same
    /// time, and means that it is to be sent again.
    pub async fn register(&self, like: &Value, id: &str, secret: &str) {
        let mut body = like.clone();
        let request = match self.kind {
            Kind::Bundled(_) => {
                body["secret"] = json!(secret);
                body["secretKind"] = json!("derived");
                self.admin(Method::PUT, &format!("/admin/clients/{id}")).header("if-none-match", "*")
            }
            Kind::Hydra { .. } => {
                body["client_id"] = json!(id);
                body["client_secret"] = json!(secret);
                self.admin(Method::POST, "/admin/clients")
            }
        };
        let request = request.json(&body);
        loop {
            let again = request.try_clone().expect("a body in memory");
            let answer = again.send().await.expect("the provider answers");
            let status = answer.status();
            // A connection is free for the next request only when its answer was read.
            let text = answer.text().await.unwrap_or_default();
            if status == 201 {
                return;
            }
            assert!(status == 400 && text.contains("Unable to serialize access"), "{status}: {text}");
        }
    }

    /// Shows that the credentials authenticate, as the operator does.
    pub async fn prove(&self, id: &str, secret: &str) {
        let request = self.http.post(format!("{}/oauth2/revoke", self.issuer)).basic_auth(id, Some(secret));
        let answer = request.form(&[("token", "no-such-token")]).send().await.expect("the provider answers");
        assert!(answer.status() == 200, "{}", answer.status());
        drop(answer.bytes().await);
    }

    /// How many clients it has, but for the bare client's.
    pub async fn count(&self) -> usize {
        let mut count = 0;
        let mut path = match self.kind {
            Kind::Bundled(_) => "/admin/clients?limit=500".to_owned(),
            Kind::Hydra { .. } => "/admin/clients?page_size=500".to_owned(),
        };
        loop {
            let answer = self.admin(Method::GET, &path).send().await.expect("the provider answers");
            let next_link = answer.headers().get("link").and_then(|v| v.to_str().ok()).and_then(next_of);
            let body: Value = answer.json().await.expect("a list");
            let (items, id, next) = match self.kind {
                Kind::Bundled(_) => {
                    let next = body["next"].as_str().map(|c| format!("/admin/clients?limit=500&cursor={c}"));
                    (&body["items"], "id", next)
                }
                Kind::Hydra { .. } => (&body, "client_id", next_link),
            };
            let ids = items.as_array().expect("a list").iter().filter_map(|c| c[id].as_str());
            count += ids.filter(|id| !id.starts_with(BARE)).count();
            match next {
                Some(next) => path = next,
                None => return count,
            }
        }
    }

    /// How many requests it has answered, but for those for health and counters.
    pub async fn requests(&self) -> u64 {
        let (path, counter) = match self.kind {
            Kind::Bundled(_) => ("/metrics", "applink_provider_http_requests_total{"),
            Kind::Hydra { .. } => ("/admin/metrics/prometheus", "http_requests_duration_seconds_count{"),
        };
        let answer = self.admin(Method::GET, path).send().await.expect("the provider answers");
        let text = answer.text().await.expect("its counters");
        let ours = |line: &&str| {
            line.starts_with(counter) && !["metrics", "/health", "/ready"].iter().any(|w| line.contains(w))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok());
        text.lines().filter(ours).filter_map(value).sum()
    }
}

/// The path of the next page, in a `Link` header.
fn next_of(link: &str) -> Option<String> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0.to_owned())
}
