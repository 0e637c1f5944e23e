//! Invariant 9: an address that a tenant named, or that discovery returned, is called only over HTTPS and only where
//! it is public, unless the operator's configuration allows it. And invariant 11: a grant is bound to its endpoints.

mod corpus;

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::binary;
use super::outgoing::{machine, person};
use crate::support::plane::ControlPlane;
use crate::support::stage::Stage;
use crate::support::tls_front::TlsFront;
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::always;

async fn inputs(stage: &Stage<'_>, name: &str, seed: &str) {
    let data = [("client-id", "us"), ("client-secret", "our-client-secret")];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
    stage.put_secret(stage.team(), &format!("{name}-seed"), &[("token", seed)]).await;
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
async fn a_token_endpoint_that_is_gone_is_looked_for() {
    // Discovery is remembered for ten minutes; this test waits for three.
    let server = TokenServer::start().await;
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let gone = [("not-found", 404, ""), ("gone", 410, ""), ("moved", 308, "Location: /elsewhere\r\n")];
    let token = json!({"access_token": "t", "expires_in": 20, "token_type": "Bearer"});
    for (name, _, _) in gone {
        server.always(&format!("/{name}/old"), Reply::json(200, &token));
        document(&server, &format!("/{name}"), &server.url(&format!("/{name}/old")));
        inputs(&stage, name, "seed").await;
        stage.apply_object(team, &machine(name, &server.url(&format!("/{name}")))).await;
        stage.ready(team, name).await;
    }
    for (name, status, headers) in gone {
        document(&server, &format!("/{name}"), &server.url(&format!("/{name}/new")));
        server.always(&format!("/{name}/old"), Reply::http(status, headers, ""));
    }
    for (name, ..) in gone {
        stage.condition(team, name, "Ready", "False", "EndpointChanged").await;
    }
    assert!(server.asked("/elsewhere").is_empty(), "a redirect isn't followed");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_a_private_authority_is_trusted_where_the_platform_team_says_so() {
    let server = TokenServer::start().await;
    server.always(
        "/token",
        Reply::json(200, &json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600})),
    );
    let front = TlsFront::open(&format!("127.0.0.1:{}", server.port())).await;
    for (trusted, reason) in [(false, "Unreachable"), (true, "Connected")] {
        let bundle = if trusted { front.ca.as_str() } else { "" };
        let values = json!({"outbound": {"caBundle": bundle}});
        let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
        let team = stage.team();
        stage.put_secret(team, "client", &[("client-id", "us"), ("client-secret", "only-for-tests")]).await;
        let link = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": "own"},
            "spec": {"application": {"name": "App"}, "outgoing": {"oauth2": {
                "server": {"custom": {"tokenEndpoint": format!("{}/token", front.url)}},
                "grant": {"clientCredentials": {}}, "client": {"secretRef": {"name": "client"}},
            }}},
        });
        stage.apply_object(team, &link).await;
        stage.condition(team, "own", "Ready", if trusted { "True" } else { "False" }, reason).await;
        assert_eq!(server.asked("/token").len(), usize::from(trusted));
    }
}
