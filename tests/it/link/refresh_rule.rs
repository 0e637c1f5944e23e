//! What a token endpoint may answer, and what the link says and does then: the refresh rule as a table, against a
//! double that says what no real server can be brought to say.

mod replies;
mod table;
mod unread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::outgoing::record;
use crate::support::stage::Stage;
use crate::support::token_server::{Asked, Reply, TokenServer};

/// In every secret here: must show up nowhere.
pub const CANARY: &str = "canary-7f3a";

pub fn good(expires_in: i64) -> Value {
    json!({"access_token": "good-token", "token_type": "Bearer", "expires_in": expires_in})
}

/// A link to a path of the double, with the Secrets that it needs.
pub struct Link<'a> {
    pub stage: &'a Stage<'a>,
    pub server: &'a TokenServer,
    pub team: &'a str,
    pub name: String,
    /// From now on the double answers well.
    pub healed: Arc<AtomicBool>,
}

impl<'a> Link<'a> {
    pub fn path(&self) -> String {
        format!("/{}/token", self.name)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.server.asked(&self.path())
    }

    pub fn seed(&self) -> String {
        format!("{CANARY}-seed-{}", self.name)
    }

    pub fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }

    /// A link that isn't made yet.
    pub fn of(stage: &'a Stage<'a>, server: &'a TokenServer, name: &str) -> Self {
        Self { stage, server, team: stage.team(), name: name.to_owned(), healed: Arc::default() }
    }

    /// Makes a link whose token requests get `reply` until the double is healed.
    pub async fn make(
        stage: &'a Stage<'a>,
        server: &'a TokenServer,
        name: &str,
        refresh: bool,
        reply: Reply,
    ) -> Self {
        let link = Self::of(stage, server, name);
        let healed = link.healed.clone();
        server.on(&link.path(), move |_, _| {
            if healed.load(Ordering::SeqCst) { Reply::json(200, &good(3600)) } else { reply.clone() }
        });
        link.apply(&server.url(&link.path()), refresh).await;
        link
    }

    pub async fn apply(&self, endpoint: &str, refresh: bool) {
        let (stage, team, name) = (self.stage, self.team, &self.name);
        let grant = if refresh {
            json!({"refreshToken": {"secretRef": {"name": format!("{name}-seed"), "key": "token"}}})
        } else {
            json!({"clientCredentials": {}})
        };
        let secret = |name: String, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            secret(format!("{name}-client"), json!({"client-id": "us", "client-secret": format!("{CANARY}-client-{name}")})),
            secret(format!("{name}-seed"), json!({"token": self.seed()})),
            {
                "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
                "spec": {"application": {"name": "App"}, "outgoing": {"oauth2": {
                    "server": {"custom": {"tokenEndpoint": endpoint}}, "grant": grant,
                    "client": {"secretRef": {"name": format!("{name}-client")}}, "scopes": ["builds:read"],
                }}},
            },
        ]});
        stage.apply_object(team, &list).await;
    }

    /// Something near the link changes that has nothing to do with its requests.
    pub async fn touch(&self) {
        let note =
            json!({"metadata": {"annotations": {"note": crate::support::stage::unique().to_string()}}});
        self.edit_secret(&format!("{}-client", self.name), note).await;
    }

    pub async fn edit_secret(&self, name: &str, change: Value) {
        let secrets = self.stage.secrets(self.team);
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(change)).await.expect("patch");
    }

    /// The grant as it is kept.
    pub async fn kept(&self) -> Value {
        let uid = self.stage.links(self.team).get(&self.name).await.expect("the link").uid().expect("uid");
        record(self.stage, &uid).await.expect("a record")
    }
}

/// What must never show a secret: links, events, logs, metrics.
pub async fn shows_no_canary(stage: &Stage<'_>) {
    let team = stage.team();
    let links = stage.plane.kubectl(&["get", "applicationlinks", "-n", team, "-o", "yaml"]).await.ok();
    let events = stage.plane.kubectl(&["get", "events", "-A", "-o", "yaml"]).await.ok();
    let port = stage.values()["operator"]["port"].as_u64().expect("a port");
    let metrics = crate::support::stage::http().get(format!("http://127.0.0.1:{port}/metrics")).send().await;
    let metrics = metrics.expect("metrics").text().await.expect("text");
    assert!(metrics.contains("applink"), "{metrics}");
    for (what, text) in
        [("links", links), ("events", events), ("metrics", metrics), ("logs", stage.operator.logs())]
    {
        let line = text.lines().find(|l| l.contains(CANARY));
        assert!(line.is_none(), "{what}: {line:?}");
    }
}
