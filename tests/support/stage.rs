//! Operator and bundled provider, installed by the chart and running: what most tests start from.

use std::path::Path;

use applink_operator::api::ApplicationLink;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use super::chart::Release;
use super::objects;
use super::plane::ControlPlane;
use super::pod::Pod;
use super::ports;
pub use super::wait::SOON;
use super::wait::eventually;

const RELEASE: &str = "applink-operator";

pub struct Stage<'p> {
    pub plane: &'p ControlPlane,
    /// A client with every right; of this test's runtime.
    pub client: Client,
    /// The operator's namespace.
    pub system: String,
    /// The namespaces that it watches.
    pub teams: Vec<String>,
    /// Name of the bundled `ClusterLinkProvider`.
    pub provider_name: String,
    pub release: Release<'p>,
    pub operator: Pod<'p>,
    pub provider: Pod<'p>,
    /// Where the provider is.
    pub provider_url: String,
    pub admin_url: String,
    values: Value,
}

/// Joins one JSON object onto another, member by member.
pub fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            for (key, value) in b {
                merge(a.entry(key).or_insert(Value::Null), value);
            }
        }
        (a, b) => *a = b,
    }
}

impl<'p> Stage<'p> {
    /// Installs, and waits until both are ready and the provider is taken up. `teams` is the number
    /// of namespaces to watch, `more` are values beside the ones that keep tests apart.
    pub async fn set(plane: &'p ControlPlane, binary: &Path, teams: usize, more: Value) -> Self {
        let _permit = plane.install_permit().await;
        let mut stage = Self::make(plane, binary, teams, more).await;
        stage.start().await;
        stage
    }

    /// Installs and starts nothing.
    pub async fn install(plane: &'p ControlPlane, binary: &Path, teams: usize, more: Value) -> Self {
        let _permit = plane.install_permit().await;
        Self::make(plane, binary, teams, more).await
    }

    async fn make(plane: &'p ControlPlane, binary: &Path, teams: usize, more: Value) -> Self {
        crds(plane).await;
        let system = plane.namespace("system").await;
        let mut names = Vec::new();
        for _ in 0..teams {
            names.push(plane.namespace("team").await);
        }
        let (port, admin) = (ports::free(), ports::free());
        let provider_url = format!("http://127.0.0.1:{port}");
        let admin_url = format!("http://127.0.0.1:{admin}");
        let provider_name = format!("bundled-{system}");
        let mut values = json!({
            "crds": {"enabled": false},
            "watchNamespaces": names,
            "bindAddress": "127.0.0.1",
            "log": {"format": "human", "level": "info,applink_operator=debug"},
            "outbound": {"allow": ["http://127.0.0.1"]},
            // Tests wait for refreshes, so their tokens live for seconds.
            "operator": {"port": ports::free(), "metricsPort": ports::free(), "minRefreshInterval": "1s"},
            "provider": {
                "name": provider_name, "port": port, "adminPort": admin,
                "metricsPort": ports::free(), "healthPort": ports::free(),
                "url": provider_url, "adminUrl": admin_url,
                "default": true,
            },
        });
        merge(&mut values, more);
        let release = Release::install(plane, RELEASE, &system, &values).await;
        let provider = release.stateful_set_pod(&format!("{RELEASE}-provider"), binary).await;
        let operator = release.deployment_pod(RELEASE, binary).await;
        Self {
            plane,
            client: plane.client(),
            system,
            teams: names,
            provider_name,
            release,
            operator,
            provider,
            provider_url,
            admin_url,
            values,
        }
    }

    /// The values of the release.
    pub fn values(&self) -> &Value {
        &self.values
    }

    /// Starts both, and waits until they are ready.
    pub async fn start(&mut self) {
        // The operator makes the admin token that the provider's Pod waits for.
        self.operator.start().await;
        self.provider.start().await;
        self.provider.until_ready(SOON).await;
        self.operator.until_ready(SOON).await;
        self.provider_ready(true).await;
    }

    /// Waits until the bundled provider's `Ready` is as said.
    pub async fn provider_ready(&self, ready: bool) {
        let api: Api<applink_operator::api::ClusterLinkProvider> = Api::all(self.client.clone());
        let wanted = if ready { "True" } else { "False" };
        eventually(SOON, format!("ClusterLinkProvider {} Ready={wanted}", self.provider_name), async || {
            let p = api.get(&self.provider_name).await.map_err(|e| e.to_string())?;
            let status = serde_json::to_value(&p.status).expect("json");
            let is = condition(&status, "Ready").is_some_and(|c| c["status"] == wanted)
                && p.finalizers().len() == 1;
            if is { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    /// The first team's namespace.
    pub fn team(&self) -> &str {
        &self.teams[0]
    }

    /// The links of a namespace.
    pub fn links(&self, namespace: &str) -> Api<ApplicationLink> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The Secrets of a namespace.
    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Applies YAML as `kubectl apply` does.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> super::programs::Output {
        objects::apply(self.plane.access(), None, namespace, yaml).await
    }

    /// Merges a patch into an object, or makes the changes of a JSON patch. What a provider of the cluster allows counts once
    /// the operator has seen it: that is awaited.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) {
        objects::patch(self.plane.access(), kind, namespace, name, &patch).await;
        if kind == "ClusterLinkProvider" {
            eventually(SOON, format!("{kind} {name} to be seen"), async || {
                let found = self.object(kind, namespace, name).await.ok_or("it isn't there")?;
                let seen = found["status"]["observedGeneration"] == found["metadata"]["generation"];
                if seen { Ok(()) } else { Err(found["status"].to_string()) }
            })
            .await;
        }
    }

    /// An object as JSON; `None` where there is none.
    pub async fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        objects::get(self.plane.access(), kind, namespace, name).await
    }

    /// Deletes an object of any kind, and waits until it is gone.
    pub async fn remove(&self, kind: &str, namespace: &str, name: &str) {
        objects::delete(self.plane.access(), kind, namespace, name).await;
    }

    /// Waits until an object of any kind is Ready.
    pub async fn until_ready(&self, kind: &str, namespace: &str, name: &str) {
        objects::until_ready(self.plane.access(), kind, namespace, name).await;
    }

    /// Applies one object.
    pub async fn apply_object(&self, namespace: &str, object: &Value) {
        self.apply(namespace, &object.to_string()).await.ok();
    }

    /// Waits until a link's client and Secret are in place; gives back the link. It may declare grant types that the
    /// provider doesn't serve, and is then not Ready for that alone.
    pub async fn registered(&self, namespace: &str, name: &str) -> ApplicationLink {
        let links = self.links(namespace);
        eventually(SOON, format!("link {namespace}/{name} to be registered"), async || {
            let link = links.get(name).await.map_err(|e| e.to_string())?;
            let status = serde_json::to_value(&link.status).map_err(|e| e.to_string())?;
            let current = status["observedGeneration"].as_i64() == link.metadata.generation;
            let is = |type_: &str, what: &str, wanted: &str| {
                condition(&status, type_).is_some_and(|c| c[what] == wanted)
            };
            let done = is("Ready", "status", "True")
                || (is("Ready", "reason", "GrantTypeNotOffered") && is("Registered", "status", "True"));
            if done && current { Ok(link) } else { Err(status.to_string()) }
        })
        .await
    }

    /// Waits until a link's condition is as said; gives back the link.
    pub async fn condition(
        &self,
        namespace: &str,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> ApplicationLink {
        let links = self.links(namespace);
        let what = format!("link {namespace}/{name} {type_}={status} {reason}");
        eventually(SOON, what, async || {
            let link = links.get(name).await.map_err(|e| e.to_string())?;
            let found = serde_json::to_value(&link.status).expect("json");
            let current = found["observedGeneration"] == json!(link.metadata.generation);
            match condition(&found, type_) {
                Some(c)
                    if current && c["status"] == status && (reason.is_empty() || c["reason"] == reason) =>
                {
                    Ok(link)
                }
                _ => Err(found.to_string()),
            }
        })
        .await
    }

    /// Waits until a link is Ready.
    pub async fn ready(&self, namespace: &str, name: &str) -> ApplicationLink {
        self.condition(namespace, name, "Ready", "True", "").await
    }

    /// The data of a Secret as text.
    pub async fn data(&self, namespace: &str, name: &str) -> std::collections::BTreeMap<String, String> {
        let secret = self.secrets(namespace).get(name).await.expect("the Secret");
        text(&secret)
    }

    /// A Secret of the user's.
    pub async fn put_secret(&self, namespace: &str, name: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> = data.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        self.apply_object(
            namespace,
            &json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
            }),
        )
        .await;
    }

    /// Deletes a link and waits until it is gone.
    pub async fn delete(&self, namespace: &str, name: &str) {
        let links = self.links(namespace);
        links.delete(name, &DeleteParams::default()).await.expect("delete");
        self.gone(namespace, name).await;
    }

    /// Waits until a link is gone.
    pub async fn gone(&self, namespace: &str, name: &str) {
        let links = self.links(namespace);
        eventually(SOON, format!("link {namespace}/{name} gone"), async || {
            match links.get_opt(name).await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(l) => Err(serde_json::to_string(&l).expect("json")),
            }
        })
        .await;
    }

    /// The token of the provider's admin API.
    pub async fn admin_token(&self) -> String {
        let secret =
            self.secrets(&self.system).get(&format!("{RELEASE}-admin-token")).await.expect("admin token");
        text(&secret)["token"].clone()
    }

    /// Calls the provider's admin API.
    pub async fn admin(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let http = http();
        let mut request =
            http.request(method, format!("{}{path}", self.admin_url)).bearer_auth(self.admin_token().await);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("the admin API answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Deletes a client at the provider, as an administrator would.
    pub async fn delete_client(&self, id: &str) {
        let (status, reply) =
            self.admin(reqwest::Method::DELETE, &format!("/admin/clients/{id}"), None).await;
        assert!(matches!(status, 200 | 204 | 404), "{status} {reply}");
    }

    /// The identifiers of all clients at the provider.
    pub async fn clients(&self) -> Vec<String> {
        let (status, body) = self.admin(reqwest::Method::GET, "/admin/clients?limit=500", None).await;
        assert_eq!(status, 200, "{body}");
        body["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|c| c["id"].as_str().expect("id").to_owned())
            .collect()
    }

    /// Asks the provider for a token by client credentials, as an application would.
    pub async fn token(&self, id: &str, secret: &str, scope: Option<&str>) -> (u16, Value) {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(scope.map(|s| ("scope", s)));
        let answer = http()
            .post(format!("{}/oauth2/token", self.provider_url))
            .basic_auth(id, Some(secret))
            .form(&form)
            .send()
            .await
            .expect("the token endpoint answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }
}

/// Installs the CRDs, as releases that share a cluster have it: they aren't any one release's. Once a control plane.
pub async fn crds(plane: &ControlPlane) {
    plane
        .once_crds(async {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
            plane.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", folder]).await.ok();
            plane
                .kubectl(&["wait", "--for=condition=Established", "--timeout=180s", "-f", folder])
                .await
                .ok();
        })
        .await;
}

/// TLS that trusts nobody: for clients that call this machine in plain HTTP alone.
pub fn no_tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// A plain HTTP client.
pub fn http() -> reqwest::Client {
    reqwest::Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().build().expect("a client")
}

/// One that shows where it is sent, as a browser's address line does.
pub fn browser() -> reqwest::Client {
    let none = reqwest::redirect::Policy::none();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(no_tls()).no_proxy().redirect(none);
    builder.build().expect("a client")
}

/// A condition of a status.
pub fn condition<'v>(status: &'v Value, type_: &str) -> Option<&'v Value> {
    status["conditions"].as_array()?.iter().find(|c| c["type"] == type_)
}

/// A Secret's data as text.
pub fn text(secret: &Secret) -> std::collections::BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned())).collect()
}

/// A number that this process didn't use before.
pub fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
