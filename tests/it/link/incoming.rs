//! Incoming links: a client at the provider, and a Secret that authenticates.

use serde_json::json;

use super::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::Stage;

fn machine(name: &str) -> serde_json::Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI dashboard", "url": "https://ci.example.com"},
            "incoming": {"oauth2": {"scopes": ["REPO_READ"], "grantTypes": ["client_credentials"]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_becomes_a_client_and_a_secret_that_authenticates() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci")).await;
    let link = stage.ready(team, "ci").await;
    let data = stage.data(team, "ci-oauth").await;
    assert_eq!(data["type"], "oauth2");
    let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(reply["scope"], "REPO_READ");
    assert_eq!(
        link.status.as_ref().and_then(|s| s.incoming.as_ref()).map(|i| i.client_id.as_str()),
        Some(data["client-id"].as_str())
    );
    assert_eq!(stage.clients().await, [data["client-id"].clone()]);

    stage.delete(team, "ci").await;
    assert!(stage.clients().await.is_empty());
    let (status, _) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 401);
}
