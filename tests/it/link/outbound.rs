//! Invariant 9: an address that a tenant named, or that discovery returned, is called only over HTTPS and only where
//! it is public, unless the operator's configuration allows it. And invariant 11: a grant is bound to its endpoints.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::binary;
use super::outgoing::{machine, person, with};
use crate::support::plane::ControlPlane;
use crate::support::ports;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::{always, eventually};

async fn inputs(stage: &Stage<'_>, name: &str, seed: &str) {
    let data = [("client-id", "us"), ("client-secret", "our-client-secret")];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
    stage.put_secret(stage.team(), &format!("{name}-seed"), &[("token", seed)]).await;
}

fn endpoint(name: &str, url: &str) -> Value {
    let custom = json!({"issuer": null, "tokenEndpoint": url});
    with(
        machine(name, "https://x"),
        json!({"spec": {"outgoing": {"oauth2": {"server": {"custom": custom}}}}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_public_is_not_called() {
    let stage =
        Stage::set(ControlPlane::shared().await, binary(), 1, json!({"outbound": {"allow": []}})).await;
    let team = stage.team();
    let server = TokenServer::start().await;
    let port = server.port();
    let closed = ports::free();
    let private = [
        format!("https://127.0.0.1:{port}/t"),
        format!("https://127.0.0.1:{closed}/t"),
        format!("https://localhost:{port}/t"),
        format!("https://[::1]:{port}/t"),
        format!("https://[::ffff:127.0.0.1]:{port}/t"),
        format!("https://2130706433:{port}/t"),
        format!("https://0x7f000001:{port}/t"),
        "https://169.254.169.254/latest".to_owned(),
        "https://10.0.0.1/t".to_owned(),
        "https://10.96.0.1:443/t".to_owned(),
        "https://kubernetes.default.svc/t".to_owned(),
    ];
    let plain = [format!("http://127.0.0.1:{port}/t"), "http://login.example.com/t".to_owned()];
    let odd_port = ["https://93.184.215.14:22/t".to_owned()];
    let all: Vec<_> = [&private[..], &plain[..], &odd_port[..]]
        .into_iter()
        .enumerate()
        .flat_map(|(group, urls)| urls.iter().map(move |url| (group, url)))
        .collect();
    let mut links = Vec::new();
    for (i, (group, url)) in all.iter().enumerate() {
        links.push((*group, format!("e{i}"), endpoint(&format!("e{i}"), url)));
        links.push((*group, format!("i{i}"), machine(&format!("i{i}"), url)));
    }
    join_all(links.iter().map(async |(_, name, link)| {
        inputs(&stage, name, "seed").await;
        stage.apply_object(team, link).await;
    }))
    .await;
    let mut messages = vec![BTreeSet::new(); 3];
    for (group, name, link) in &links {
        let found = stage.condition(team, name, "Ready", "False", "AddressRefused").await;
        let status = serde_json::to_value(&found.status).expect("json");
        assert!(condition(&status, "Stalled").is_some(), "{link}: {status}");
        let message =
            condition(&status, "Ready").expect("Ready")["message"].as_str().expect("text").to_owned();
        // An issuer's says which field it is about; what is said of the address is the same.
        let (_, words) = message.rsplit_once("failed: ").unwrap_or(("", &message));
        messages[*group].insert(words.to_owned());
    }
    // One message: it doesn't tell what stands behind an address.
    assert!(messages.iter().all(|m| m.len() == 1), "{messages:#?}");

    // A tenant's provider likewise; the platform team's is trusted, or this stage wouldn't stand.
    stage.put_secret(team, "admin", &[("token", "x")]).await;
    let provider = |name: &str, url: &str| {
        json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": name},
            "spec": {"bundled": {"url": url, "admin": {"url": url, "tokenSecretRef": {"name": "admin", "key": "token"}}}},
        })
    };
    for (name, url) in
        [("p1", format!("http://127.0.0.1:{port}")), ("p2", format!("https://127.0.0.1:{port}"))]
    {
        stage.apply_object(team, &provider(name, &url)).await;
        eventually(SOON, format!("{name} refused"), async || {
            let out =
                stage.plane.kubectl(&["get", "linkprovider", name, "-n", team, "-o", "json"]).await.ok();
            let found: Value = serde_json::from_str(&out).map_err(|e| e.to_string())?;
            let is = condition(&found["status"], "Ready").is_some_and(|c| c["reason"] == "AddressRefused");
            if is { Ok(()) } else { Err(out) }
        })
        .await;
    }
    assert_eq!(server.connections(), 0, "nothing is sent, not even a handshake");
}

fn document(server: &TokenServer, issuer: &str, token_endpoint: &str) {
    let document = json!({"issuer": server.url(issuer), "token_endpoint": token_endpoint});
    server.always(&format!("/.well-known/oauth-authorization-server{issuer}"), Reply::json(200, &document));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_discovery_names_is_not_called_either() {
    let server = TokenServer::start().await;
    let other = TokenServer::start().await;
    let allow = json!({"outbound": {"allow": [format!("http://127.0.0.1:{}", server.port())]}});
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, allow).await;
    let team = stage.team();
    document(&server, "/private", &other.url("/token"));
    document(&server, "/metadata", "https://169.254.169.254/token");
    let impostor = json!({"issuer": server.url("/somebody"), "token_endpoint": server.url("/token")});
    server.always("/.well-known/oauth-authorization-server/impostor", Reply::json(200, &impostor));
    document(&server, "/file", "file:///etc/passwd");
    server.always(
        "/.well-known/oauth-authorization-server/moved",
        Reply::http(302, &format!("Location: {}\r\n", other.url("/")), ""),
    );
    let reasons = [
        ("private", "AddressRefused"),
        ("metadata", "AddressRefused"),
        ("impostor", "IssuerMismatch"),
        ("file", "MalformedReply"),
        ("moved", "DiscoveryNotFound"),
    ];
    for (name, reason) in reasons {
        inputs(&stage, name, "seed").await;
        stage.apply_object(team, &machine(name, &server.url(&format!("/{name}")))).await;
        stage.condition(team, name, "Ready", "False", reason).await;
    }
    assert!(server.asked("/token").is_empty());
    assert_eq!(other.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_moves_needs_consent() {
    let server = TokenServer::start().await;
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let token = json!({"access_token": "t", "expires_in": 8, "token_type": "Bearer"});
    server.always("/old/token", Reply::json(200, &token));
    server.always("/new/token", Reply::json(200, &json!({"access_token": "n", "expires_in": 3600})));
    document(&server, "/as", &server.url("/old/token"));
    for (name, link) in [
        ("machine", machine("machine", &server.url("/as"))),
        ("person", person("person", &server.url("/as"))),
    ] {
        inputs(&stage, name, "first-seed").await;
        stage.apply_object(stage.team(), &link).await;
        stage.ready(stage.team(), name).await;
    }
    // Discovery is remembered for a while; a restart looks again.
    stage.operator.stop().await;
    document(&server, "/as", &server.url("/new/token"));
    stage.operator.start().await;
    let team = stage.team();
    stage.condition(team, "machine", "Ready", "False", "EndpointChanged").await;
    stage.condition(team, "person", "Ready", "False", "GrantBindingChanged").await;
    let quiet = async || server.asked("/new/token").is_empty();
    always(Duration::from_secs(1), "nothing is sent there", quiet).await;

    // Consent to another address is none.
    let accept = async |url: &str| {
        let note = json!({"metadata": {"annotations": {"applink-operator.io/accept-token-endpoint": url}}});
        stage
            .links(team)
            .patch("machine", &PatchParams::default(), &Patch::Merge(note))
            .await
            .expect("patch");
    };
    accept(&server.url("/wrong/token")).await;
    always(Duration::from_secs(1), "nothing is sent there", quiet).await;
    accept(&server.url("/new/token")).await;
    stage.ready(team, "machine").await;
    assert!(server.asked("/new/token").iter().all(|a| a.field("grant_type") == "client_credentials"));

    // A refresh token is given to whom it came from and to nobody else; a new seed is consent.
    stage.put_secret(team, "person-seed", &[("token", "second-seed")]).await;
    stage.ready(team, "person").await;
    let sent: Vec<_> =
        server.asked("/new/token").iter().map(|a| a.field("refresh_token").to_owned()).collect();
    assert!(sent.iter().all(|t| t != "first-seed") && sent.contains(&"second-seed".to_owned()), "{sent:?}");

    // By the spec: other endpoints are consent for client credentials, none for a refresh token.
    let custom = json!({"issuer": null, "tokenEndpoint": server.url("/third/token")});
    let change = json!({"spec": {"outgoing": {"oauth2": {"server": {"custom": custom}}}}});
    server.always("/third/token", Reply::json(200, &json!({"access_token": "3", "expires_in": 3600})));
    for name in ["machine", "person"] {
        stage.links(team).patch(name, &PatchParams::default(), &Patch::Merge(&change)).await.expect("patch");
    }
    stage.condition(team, "person", "Ready", "False", "GrantBindingChanged").await;
    stage.ready(team, "machine").await;
    assert!(server.asked("/third/token").iter().all(|a| a.field("grant_type") == "client_credentials"));
}
