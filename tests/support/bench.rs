//! What the tests of bad luck share: links of every kind, and an operator whose every write passes a proxy.

use serde_json::{Value, json};

use super::hydra::Hydra;
use super::plane::ControlPlane;
use super::proxy::{API_SERVER, Journal, Proxy};
use super::stage::{SOON, Stage};
use super::wait::eventually;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams};
use std::path::Path;

/// The client that we are at the other side, which here is the bundled provider too.
pub const OUTSIDE: &str = "outside";
const OUTSIDE_SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// What a link has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Incoming,
    /// Outgoing, by client credentials.
    Machine,
    /// Outgoing, by a refresh token that rotates.
    Refreshing,
    /// Incoming, and outgoing by client credentials.
    TwoWay,
}

impl Kind {
    pub const fn is_incoming(self) -> bool {
        matches!(self, Self::Incoming | Self::TwoWay)
    }

    pub const fn is_outgoing(self) -> bool {
        !matches!(self, Self::Incoming)
    }
}

/// Before and after a change of a link's scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scopes {
    Wide,
    Narrow,
}

impl Scopes {
    pub const fn list(self) -> &'static [&'static str] {
        match self {
            Self::Wide => &["REPO_READ", "REPO_WRITE"],
            Self::Narrow => &["REPO_READ"],
        }
    }
}

/// A link. `tokens` is where the other side's OAuth endpoints are.
pub fn link(name: &str, kind: Kind, scopes: Scopes, tokens: &str) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {"application": {"name": "CI dashboard", "url": "https://ci.example.com"}},
    });
    if kind.is_incoming() {
        link["spec"]["incoming"] = json!({
            "oauth2": {"scopes": scopes.list(), "grantTypes": ["client_credentials"]},
        });
    }
    if kind.is_outgoing() {
        let grant = match kind {
            Kind::Refreshing => json!({
                "refreshToken": {"secretRef": {"name": format!("{name}-seed"), "key": "refresh-token"}},
            }),
            _ => json!({"clientCredentials": {}}),
        };
        link["spec"]["outgoing"] = json!({"oauth2": {
            "server": {"custom": {
                "tokenEndpoint": format!("{tokens}/oauth2/token"),
                "revocationEndpoint": format!("{tokens}/oauth2/revoke"),
            }},
            "grant": grant,
            "client": {"secretRef": {"name": OUTSIDE}},
            "scopes": scopes.list(),
        }});
    }
    link
}

/// Registers [`OUTSIDE`] at the provider, and puts its credentials into each team's namespace.
pub async fn outside(stage: &Stage<'_>) {
    let body = json!({
        "name": "the other side", "redirectUris": [], "grantTypes": ["client_credentials", "refresh_token"],
        "scopes": Scopes::Wide.list(), "tokenEndpointAuthMethod": "client_secret_basic",
        "secret": OUTSIDE_SECRET, "secretKind": "derived",
    });
    let path = format!("/admin/clients/{OUTSIDE}");
    let (status, reply) = stage.admin(reqwest::Method::PUT, &path, Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    for team in &stage.teams {
        stage.put_secret(team, OUTSIDE, &[("client-id", OUTSIDE), ("client-secret", OUTSIDE_SECRET)]).await;
    }
}

/// Puts the refresh token that a link begins with where it looks for it.
pub async fn seed(stage: &Stage<'_>, team: &str, name: &str) {
    let body = json!({"clientId": OUTSIDE, "subject": name});
    let (status, reply) = stage.admin(reqwest::Method::POST, "/admin/grants", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    let token = reply["refreshToken"].as_str().expect("a refresh token");
    stage.put_secret(team, &format!("{name}-seed"), &[("refresh-token", token)]).await;
}

/// Whether an access token works, and its scope.
pub async fn introspect(stage: &Stage<'_>, token: &str) -> Value {
    let answer = super::stage::http()
        .post(format!("{}/oauth2/introspect", stage.provider_url))
        .basic_auth(OUTSIDE, Some(OUTSIDE_SECRET))
        .form(&[("token", token)])
        .send()
        .await
        .expect("the provider answers");
    answer.json().await.expect("JSON")
}

/// Changes a link's scopes.
pub async fn narrow(stage: &Stage<'_>, team: &str, name: &str, kind: Kind) {
    let mut spec = json!({});
    if kind.is_incoming() {
        spec["incoming"] = json!({"oauth2": {"scopes": Scopes::Narrow.list()}});
    }
    if kind.is_outgoing() {
        spec["outgoing"] = json!({"oauth2": {"scopes": Scopes::Narrow.list()}});
    }
    let patch = Patch::Merge(json!({"spec": spec}));
    stage.links(team).patch(name, &PatchParams::default(), &patch).await.expect("the link changes");
}

/// The operator's records of grants.
pub async fn grants(stage: &Stage<'_>) -> Vec<String> {
    let api: Api<Secret> = stage.secrets(&stage.system);
    let all = api.list(&ListParams::default()).await.expect("the Secrets of the operator");
    let names = all.items.into_iter().filter_map(|s| s.metadata.name);
    names.filter(|n| n.starts_with("applink-grant-")).collect()
}

/// The clients at the provider, but for [`OUTSIDE`].
pub async fn clients(stage: &Stage<'_>) -> Vec<String> {
    let mut clients = stage.clients().await;
    clients.retain(|c| c != OUTSIDE);
    clients
}

/// The Secrets in a namespace that a link owns, or that links own.
pub async fn owned(stage: &Stage<'_>, team: &str, name: Option<&str>) -> Vec<Secret> {
    let mut labels = "app.kubernetes.io/managed-by=applink-operator".to_owned();
    if let Some(name) = name {
        labels.push_str(&format!(",applink-operator.io/link={name}"));
    }
    let params = ListParams::default().labels(&labels);
    stage.secrets(team).list(&params).await.expect("the Secrets of the team").items
}

/// Checks that the only link there is has exactly what it needs, and that all of it works.
pub async fn check(stage: &Stage<'_>, team: &str, name: &str, kind: Kind, scopes: Scopes) {
    let wanted = usize::from(kind.is_incoming()) + usize::from(kind.is_outgoing());
    let secrets = owned(stage, team, Some(name)).await;
    assert_eq!(secrets.len(), wanted, "one Secret a direction");
    let clients = clients(stage).await;
    assert_eq!(clients.len(), usize::from(kind.is_incoming()), "one client: {clients:?}");
    assert_eq!(grants(stage).await.len(), usize::from(kind.is_outgoing()), "one grant");
    if kind.is_incoming() {
        let data = stage.data(team, &format!("{name}-oauth")).await;
        assert_eq!(clients[0], data["client-id"]);
        let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
        assert_eq!(status, 200, "{reply}");
        assert_eq!(reply["scope"], scopes.list().join(" "));
    }
    if kind.is_outgoing() {
        let data = stage.data(team, &format!("{name}-token")).await;
        let reply = introspect(stage, &data["access-token"]).await;
        assert_eq!(reply["active"], true, "{reply}");
        assert_eq!(reply["scope"], scopes.list().join(" "));
    }
}

/// Checks that the operator has left nothing of any link.
pub async fn check_nothing(stage: &Stage<'_>) {
    let (clients, grants) = (clients(stage).await, grants(stage).await);
    assert!(clients.is_empty() && grants.is_empty(), "no client and no grant stays: {clients:?} {grants:?}");
}

/// Waits until the garbage collector has removed the Secrets of links that are gone. It looks for new kinds of objects
/// every 30 seconds only, so this is asked once a test.
pub async fn no_secrets(stage: &Stage<'_>, team: &str) {
    eventually(2 * SOON, "no Secret of a link", async || {
        let left: Vec<_> =
            owned(stage, team, None).await.into_iter().filter_map(|s| s.metadata.name).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// An operator whose every write passes a proxy.
pub struct Bench<'p> {
    pub stage: Stage<'p>,
    pub journal: Journal,
    /// Where the other side's OAuth endpoints are, by way of a proxy.
    pub tokens: String,
    /// A real Hydra, and the name of its `ClusterLinkProvider`.
    pub hydra: Option<(Hydra, String)>,
    proxies: Vec<Proxy>,
}

impl<'p> Bench<'p> {
    pub async fn set(plane: &'p ControlPlane, binary: &Path, teams: usize, more: Value) -> Self {
        let journal = Journal::default();
        let api = Proxy::start(API_SERVER, &journal, Some(plane.ca())).await;
        let admin = Proxy::start("provider admin", &journal, None).await;
        let public = Proxy::start("provider", &journal, None).await;
        let mut values = json!({"provider": {"url": public.url(), "adminUrl": admin.url()}});
        super::stage::merge(&mut values, more);
        let mut stage = Stage::install(plane, binary, teams, values).await;
        api.forward_to(plane.url());
        admin.forward_to(&stage.admin_url);
        public.forward_to(&stage.provider_url);
        stage.operator.reach_api_server_by(&api.url());
        stage.start().await;
        outside(&stage).await;
        let tokens = public.url();
        Self { stage, journal, tokens, hydra: None, proxies: vec![api, admin, public] }
    }

    /// Adds a real Hydra, which the operator manages clients at by way of a proxy.
    pub async fn with_hydra(mut self) -> Self {
        let hydra = Hydra::start().await;
        let admin = Proxy::start("hydra admin", &self.journal, None).await;
        admin.forward_to(&hydra.admin_url());
        let name = format!("hydra-{}", self.stage.system);
        let provider = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
            "metadata": {
                "name": name, "labels": {"applink-operator.io/operator-namespace": self.stage.system},
            },
            "spec": {
                "hydra": {"url": hydra.issuer(), "admin": {"url": admin.url()}},
                "allow": {"namespaces": {"names": self.stage.teams}},
            },
        });
        self.stage.apply_object(self.stage.team(), &provider).await;
        self.stage.until_ready("ClusterLinkProvider", "", &name).await;
        self.proxies.push(admin);
        self.hydra = Some((hydra, name));
        self
    }
}
