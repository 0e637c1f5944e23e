//! A tenant, a victim, and the provider that they share.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::binary;
use super::super::fixtures::{machine, provider};
use crate::support::objects;
use crate::support::plane::{ControlPlane, Options};
use crate::support::programs::Output;
use crate::support::stage::{SOON, Stage, condition, merge};
use crate::support::wait::eventually;

/// The tenant's user.
const TENANT: &str = "mallory";

pub struct Scene<'p> {
    pub stage: Stage<'p>,
    /// What stands for what in the corpus; longer words first.
    pub words: Vec<(&'static str, String)>,
}

/// A control plane with no other operator on it.
pub async fn plane() -> ControlPlane {
    ControlPlane::start(Options::default()).await
}

impl<'p> Scene<'p> {
    pub async fn set(plane: &'p ControlPlane) -> Self {
        let more = json!({"watchNamespaces": [], "provider": {"allow": {"namespaces": {"all": {}}}}});
        let stage = Stage::set(plane, binary(), 2, more).await;
        let scene = Self { stage, words: Vec::new() };
        scene.grant(scene.tenant()).await;
        scene
    }

    pub fn tenant(&self) -> &str {
        &self.stage.teams[0]
    }

    pub fn victim(&self) -> &str {
        &self.stage.teams[1]
    }

    /// Lets the tenant's user edit a namespace.
    pub async fn grant(&self, namespace: &str) {
        let user = format!("--user={TENANT}");
        let args = ["create", "rolebinding", "tenant", "--clusterrole=edit", &user, "-n", namespace];
        self.stage.plane.kubectl(&args).await.ok();
        // What the chart adds to the role is added to it by a controller.
        eventually(SOON, "the tenant's rights", async || {
            let args = ["auth", "can-i", "create", "applicationlinks", "--as", TENANT, "-n", namespace];
            let said = self.stage.plane.kubectl(&args).await;
            if said.stdout.trim() == "yes" { Ok(()) } else { Err(said.stderr) }
        })
        .await;
    }

    /// Runs kubectl as the tenant.
    pub async fn as_tenant(&self, args: &[&str]) -> Output {
        let mut all = args.to_vec();
        all.extend(["--as", TENANT]);
        self.stage.plane.kubectl(&all).await
    }

    /// Applies an object as the tenant.
    pub async fn apply(&self, namespace: &str, object: &Value) -> Output {
        objects::apply(self.stage.plane.access(), Some(TENANT), namespace, &object.to_string()).await
    }

    /// A client that somebody registered by hand.
    pub async fn by_hand(&self, id: &str, more: Value) -> Value {
        let mut body = json!({
            "name": "theirs", "grantTypes": ["client_credentials"],
            "tokenEndpointAuthMethod": "client_secret_basic", "secret": "a secret that somebody chose, 2019",
        });
        merge(&mut body, more);
        let (status, reply) =
            self.stage.admin(Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
        assert_eq!(status, 201, "{reply}");
        self.client(id).await
    }

    pub async fn client(&self, id: &str) -> Value {
        self.stage.admin(Method::GET, &format!("/admin/clients/{id}"), None).await.1
    }

    /// One field of an object, by JSON path.
    pub async fn field(&self, kind: &str, namespace: &str, name: &str, path: &str) -> String {
        let output = format!("jsonpath={{{path}}}");
        self.stage.plane.kubectl(&["get", kind, name, "-n", namespace, "-o", &output]).await.ok()
    }

    /// An annotation of the link `ci` of a namespace.
    async fn annotation(&self, namespace: &str, key: &str) -> String {
        let link = self.stage.links(namespace).get("ci").await.expect("the link");
        link.metadata.annotations.unwrap_or_default().remove(key).expect("the annotation")
    }

    /// All that is there and must stay as it is: objects of all three namespaces, and clients, each as one text.
    pub async fn everything(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for namespace in [self.tenant(), self.victim(), &self.stage.system] {
            let kinds = "secrets,configmaps,serviceaccounts,applicationlinks,linkproviders";
            let args = ["get", kinds, "-n", namespace, "-o", "json", "--show-managed-fields"];
            let list: Value =
                serde_json::from_str(&self.stage.plane.kubectl(&args).await.ok()).expect("json");
            for item in list["items"].as_array().expect("items") {
                let name = item["metadata"]["name"].as_str().unwrap_or_default();
                let kind = item["kind"].as_str().unwrap_or_default();
                all.push((format!("{kind} {namespace}/{name}"), item.to_string()));
            }
        }
        let (_, list) = self.stage.admin(Method::GET, "/admin/clients?limit=500", None).await;
        for item in list["items"].as_array().expect("items") {
            all.push((format!("client {}", item["id"].as_str().unwrap_or_default()), item.to_string()));
        }
        all
    }

    /// Providers of every kind of narrowness, Secrets of every kind of owner, and a victim.
    pub async fn furnish(&mut self) {
        let (tenant, victim) = (self.tenant().to_owned(), self.victim().to_owned());
        let (tenant, victim) = (tenant.as_str(), victim.as_str());
        let stage = &self.stage;
        stage.patch("Namespace", "", victim, json!({"metadata": {"labels": {"tier": "gold"}}})).await;
        stage.put_secret(victim, "crown", &[("password", "jewels"), ("client-id", "x")]).await;
        stage.put_secret(victim, "certificate", &[("tls.crt", "x"), ("tls.key", "y")]).await;
        stage.put_secret(victim, "provider-token", &[("token", &stage.admin_token().await)]).await;
        stage.apply_object(victim, &provider(stage, "LinkProvider", "own", "provider-token")).await;
        stage.apply_object(victim, &machine("ci", json!({}))).await;
        stage.ready(victim, "ci").await;
        let client = stage.data(victim, "ci-oauth").await["client-id"].clone();
        for id in ["unlisted", "for-tenant", "for-victim"] {
            self.by_hand(id, json!({})).await;
        }
        let listed = |id: &str, namespace: &str| json!({"clientId": id, "namespace": namespace});
        let narrow = json!({
            "namespaces": {"names": [tenant, victim]}, "scopes": ["REPO_READ"], "grantTypes": ["client_credentials"],
            "redirectHosts": ["*.example.com"],
            "adoptable": [listed("for-tenant", tenant), listed("for-victim", victim)],
        });
        let allows = [
            ("names", json!({"namespaces": {"names": [victim]}})),
            ("labels", json!({"namespaces": {"matchLabels": {"tier": "gold"}}})),
            ("nobody", Value::Null),
            ("narrow", narrow),
            ("mistaken", json!({"namespaces": {"all": {}}, "adoptable": [listed(&client, tenant)]})),
        ];
        for (name, allow) in allows {
            let mut object = provider(stage, "ClusterLinkProvider", name, "applink-operator-admin-token");
            object["spec"]["allow"] = allow;
            stage.apply_object(victim, &object).await;
        }
        self.own_secrets().await;
        let claims: Vec<_> =
            (0..20).map(|n| format!(r#"{{"kind":"LinkProvider","name":"p{n}","uid":"0-{n}"}}"#)).collect();
        let mut words = vec![
            ("$TENANT", tenant.to_owned()),
            ("$VICTIM", victim.to_owned()),
            ("$SYSTEM", stage.system.clone()),
            ("$OPEN", stage.provider_name.clone()),
            ("$NAMES", "names".to_owned()),
            ("$LABELS", "labels".to_owned()),
            ("$NOBODY", "nobody".to_owned()),
            ("$NARROW", "narrow".to_owned()),
            ("$MISTAKEN", "mistaken".to_owned()),
            ("$URL", stage.provider_url.clone()),
            ("$ADMIN", stage.admin_url.clone()),
            ("$CLAIMS", claims.join(",")),
            ("$LONG", "x".repeat(100_000)),
            ("$VICTIM_CLIENT", client),
            ("$VICTIM_CLAIM", self.annotation(victim, "applink-operator.io/registered-at").await),
            ("$VICTIM_LINK_UID", self.field("applicationlink", victim, "ci", ".metadata.uid").await),
            ("$VICTIM_PROVIDER_UID", self.field("linkprovider", victim, "own", ".metadata.uid").await),
            ("$NAMES_UID", self.field("clusterlinkprovider", victim, "names", ".metadata.uid").await),
        ];
        words.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        self.words = words;
        self.providers_ready().await;
        self.stage.ready(victim, "ci").await;
    }

    /// The tenant's own Secrets, and others of its namespace that its links must leave alone.
    async fn own_secrets(&self) {
        let (stage, tenant) = (&self.stage, self.tenant());
        stage
            .put_secret(tenant, "mine", &[("client-id", "x"), ("client-secret", "guess"), ("token", "guess")])
            .await;
        stage.put_secret(tenant, "hand-made", &[("precious", "1")]).await;
        stage.plane.kubectl(&["create", "serviceaccount", "robot", "-n", tenant]).await.ok();
        stage.plane.kubectl(&["create", "configmap", "boss", "-n", tenant]).await.ok();
        let boss = self.field("configmap", tenant, "boss", ".metadata.uid").await;
        let owner =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "boss", "uid": boss, "controller": true});
        let consent = |link: &str| json!({"applink-operator.io/take-over-by": link});
        let token = "kubernetes.io/service-account-token";
        let of_robot = json!({"kubernetes.io/service-account.name": "robot"});
        let mut consenting = of_robot.clone();
        merge(&mut consenting, consent("consenting"));
        let disguise = json!({
            "app.kubernetes.io/managed-by": "applink-operator", "app.kubernetes.io/component": "oauth-client",
            "applink-operator.io/link": "another",
        });
        let all = [
            ("robot-token", token, json!({"annotations": of_robot})),
            ("consenting-token", token, json!({"annotations": consenting})),
            ("sh.helm.release.v1.shop.v1", "helm.sh/release.v1", json!({"labels": {"owner": "helm"}})),
            ("for-another", "Opaque", json!({"annotations": consent("another")})),
            (
                "controlled",
                "Opaque",
                json!({"annotations": consent("case-controlled"), "ownerReferences": [owner]}),
            ),
            ("disguised", "Opaque", json!({"labels": disguise})),
            ("bank", "Opaque", json!({"annotations": {"applink-operator.io/allowed-hosts": "as.example"}})),
            (
                "declared",
                "Opaque",
                json!({"annotations": {
                    "applink-operator.io/allowed-hosts": "as.example", "applink-operator.io/client-id-key": "precious",
                }}),
            ),
        ];
        for (name, type_, more) in all {
            let mut object = json!({
                "apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": {"name": name},
                "stringData": {"precious": "1"},
            });
            merge(&mut object["metadata"], more);
            stage.apply_object(tenant, &object).await;
        }
        for name in ["robot-token", "consenting-token"] {
            eventually(SOON, "the robot's token", async || {
                !self.field("secret", tenant, name, ".data.token").await.is_empty()
            })
            .await;
        }
        stage.apply_object(tenant, &machine("neighbour", json!({}))).await;
        stage.ready(tenant, "neighbour").await;
    }

    async fn providers_ready(&self) {
        eventually(SOON, "all providers ready", async || {
            let args = ["get", "clusterlinkproviders,linkproviders", "-A", "-o", "json"];
            let list: Value = serde_json::from_str(&self.stage.plane.kubectl(&args).await.stdout)
                .map_err(|e| e.to_string())?;
            let is = |p: &Value| condition(&p["status"], "Ready").is_some_and(|c| c["status"] == "True");
            match list["items"].as_array().expect("items").iter().find(|p| !is(p)) {
                None => Ok(()),
                Some(p) => Err(p.to_string()),
            }
        })
        .await;
    }
}
