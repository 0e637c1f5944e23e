//! Links with a preset, against a double that answers as each server's public documentation records: none of them can
//! run here. The preset's endpoints are overridden with the double's; all else is the preset's own.

use futures::future::join_all;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::binary;
use super::outgoing::{access, machine, person, record, with};
use crate::support::keys;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::token_server::{Asked, Reply, TokenServer};
use crate::support::wait::eventually;

/// How a server answers a refresh: with a success, and with a dead grant.
struct Shape {
    preset: &'static str,
    settings: Value,
    good: Value,
    dead: (u16, Value),
    /// A header or field by which the client must have authenticated.
    basic: bool,
}

fn shapes() -> Vec<Shape> {
    let plain =
        |n: &str| json!({"access_token": format!("{n}-access"), "expires_in": 3600, "token_type": "Bearer"});
    let grant = |status| (status, json!({"error": "invalid_grant", "error_description": "x"}));
    let rotating = |n: &str| with(plain(n), json!({"refresh_token": format!("{n}-next")}));
    vec![
        Shape {
            preset: "google",
            settings: json!({}),
            good: plain("google"),
            dead: grant(400),
            basic: false,
        },
        Shape {
            preset: "microsoft",
            settings: json!({"tenant": "common"}),
            good: rotating("microsoft"),
            dead: (400, json!({"error": "interaction_required", "error_codes": [50076]})),
            basic: false,
        },
        Shape {
            preset: "github",
            settings: json!({}),
            good: with(rotating("github"), json!({"expires_in": 28800, "scope": "repo,gist"})),
            dead: (200, json!({"error": "bad_refresh_token", "error_description": "x"})),
            basic: false,
        },
        Shape {
            preset: "gitlab",
            settings: json!({}),
            good: rotating("gitlab"),
            dead: grant(400),
            basic: false,
        },
        Shape {
            preset: "slack",
            settings: json!({}),
            good: json!({"ok": true, "team": {"id": "T"}, "authed_user": with(
                rotating("slack"), json!({"id": "U", "scope": "chat:write,users:read", "token_type": "user"}),
            )}),
            dead: (200, json!({"ok": false, "error": "invalid_refresh_token"})),
            basic: true,
        },
        Shape {
            preset: "atlassian",
            settings: json!({}),
            good: rotating("atlassian"),
            dead: grant(403),
            basic: false,
        },
    ]
}

fn at(link: Value, preset: &str, settings: &Value, server: &TokenServer) -> Value {
    let endpoints = json!({"endpoints": {
        "tokenEndpoint": server.url(&format!("/{preset}")), "revocationEndpoint": server.url(&format!("/{preset}-revoke")),
    }});
    let server = json!({"custom": null, preset: with(settings.clone(), endpoints)});
    with(link, json!({"spec": {"outgoing": {"oauth2": {"server": server, "scopes": null}}}}))
}

async fn inputs(stage: &Stage<'_>, name: &str, seed: &str) {
    let data = [("client-id", "us"), ("client-secret", "our-client-secret")];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
    stage.put_secret(stage.team(), &format!("{name}-seed"), &[("token", seed)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_preset_gets_a_token_and_knows_a_dead_grant() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let (server, team) = (TokenServer::start().await, stage.team());
    join_all(shapes().into_iter().map(async |shape| {
        let name = shape.preset;
        let (good, (status, dead)) = (shape.good.clone(), shape.dead.clone());
        server.on(&format!("/{name}"), move |_, asked: &Asked| match asked.field("refresh_token") {
            "alive" => Reply::json(200, &good),
            _ => Reply::json(status, &dead),
        });
        inputs(&stage, name, "alive").await;
        stage.apply_object(team, &at(person(name, "x"), name, &shape.settings, &server)).await;
        stage.ready(team, name).await;
        let data = stage.data(team, &format!("{name}-token")).await;
        assert_eq!(
            (data["access-token"].as_str(), data["provider"].as_str()),
            (format!("{name}-access").as_str(), name)
        );
        let asked = server.asked(&format!("/{name}")).remove(0);
        assert_eq!(asked.header("authorization").is_some(), shape.basic, "{name}");
        assert_eq!(asked.field("client_secret") == "our-client-secret", !shape.basic, "{name}");
        assert_eq!(asked.header("accept"), Some("application/json"), "{name}");
        let uid = stage.links(team).get(name).await.expect("the link").uid().expect("uid");
        let kept = record(&stage, &uid).await.expect("a record");
        let rotates = name != "google";
        let expected = if rotates { format!("{name}-next") } else { "alive".to_owned() };
        assert_eq!(kept["refreshToken"], json!(expected), "{name}");
        // Another seed, which the server calls dead in its own way.
        stage.put_secret(team, &format!("{name}-seed"), &[("token", "dead")]).await;
        stage.condition(team, name, "Authorized", "False", "ReauthorizationRequired").await;
    }))
    .await;
    assert_eq!(stage.data(team, "slack-token").await["scope"], "chat:write users:read");
    assert_eq!(stage.data(team, "github-token").await["scope"], "gist repo");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_service_account_needs_no_client() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let (server, team) = (TokenServer::start().await, stage.team());
    let good = json!({"access_token": "google-access", "expires_in": 3599, "token_type": "Bearer"});
    server.always("/google", Reply::json(200, &good));
    let file = json!({
        "type": "service_account", "private_key": keys::make("RS256").await.pkcs8, "private_key_id": "k1",
        "client_email": "r@p.iam.gserviceaccount.com", "token_uri": server.url("/evil"),
    });
    stage.put_secret(team, "sheets-key", &[("key.json", &file.to_string())]).await;
    let grant = json!({"clientCredentials": null, "jwtBearer": {"secretRef": {"name": "sheets-key", "key": "key.json"}}});
    let mut link = at(machine("sheets", "x"), "google", &json!({}), &server);
    link["spec"]["outgoing"]["oauth2"].as_object_mut().expect("oauth2").remove("client");
    let change = json!({"spec": {"outgoing": {"oauth2": {"grant": grant, "scopes": ["a", "b"]}}}});
    stage.apply_object(team, &with(link, change)).await;
    stage.ready(team, "sheets").await;
    assert_eq!(access(&stage, "sheets-token").await, "google-access");
    let asked = server.asked("/google").remove(0);
    assert_eq!(asked.field("grant_type"), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!(asked.form.len(), 2, "{:?}", asked.form.keys());
    assert!(server.asked("/evil").is_empty(), "who writes the file doesn't say where it goes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_says_where_it_may_be_sent() {
    let values = json!({"outbound": {"requireAllowedHosts": true}});
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let (server, team) = (TokenServer::start().await, stage.team());
    server.always("/google", Reply::json(200, &json!({"access_token": "a", "expires_in": 3600})));
    inputs(&stage, "ci", "alive").await;
    stage.apply_object(team, &at(person("ci", "x"), "google", &json!({}), &server)).await;
    stage.condition(team, "ci", "Ready", "False", "AllowedHostsMissing").await;
    let allow = async |secret: &str, hosts: &str| {
        let patch = json!({"metadata": {"annotations": {"applink-operator.io/allowed-hosts": hosts}}});
        let secrets = stage.secrets(team);
        secrets.patch(secret, &PatchParams::default(), &Patch::Merge(patch)).await.expect("annotated");
    };
    let here = format!("127.0.0.1:{}", server.port());
    // One Secret alone isn't enough: the other goes there too.
    allow("ci-client", &format!("oauth2.googleapis.com, {here}")).await;
    allow("ci-seed", "oauth2.googleapis.com").await;
    stage.condition(team, "ci", "Ready", "False", "HostNotAllowed").await;
    assert_eq!(server.connections(), 0, "nothing is sent");
    allow("ci-seed", &here).await;
    stage.ready(team, "ci").await;
    eventually(SOON, "one request", async || match server.asked("/google").len() {
        1 => Ok(()),
        n => Err(format!("{n} requests")),
    })
    .await;
}
