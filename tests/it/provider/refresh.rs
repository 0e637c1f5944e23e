//! Refresh tokens: RFC 6749 section 6, RFC 9700 section 4.14.2, and the grace.

use super::service::{DERIVED, Service};
use crate::support::wait::{SOON, eventually};
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn within_the_grace_a_spent_token_gives_the_very_same_reply() {
    let service = Service::start(&["--refresh-grace", "300s"]).await;
    service.register("c", json!({})).await;
    service.register("d", json!({})).await;
    let first = service.grant("c").await;
    let reply = service.refresh("c", &first).await.must(200);
    assert_eq!(reply.json()["expires_in"], 3600);
    assert_eq!(reply.json()["scope"], "REPO_READ REPO_WRITE");
    let (access, second) = (reply.text("access_token"), reply.text("refresh_token"));
    assert_ne!(first, second);

    for _ in 0..3 {
        let again = service.refresh("c", &first).await.must(200);
        assert_eq!(again.body, reply.body);
        assert_eq!(again.header("cache-control"), Some("no-store"));
    }
    // Another client gets nothing and breaks nothing.
    service.refresh("d", &first).await.must_be_error(400, "invalid_grant");
    service.refresh("d", &second).await.must_be_error(400, "invalid_grant");
    assert!(service.is_active("c", &access).await);
    assert!(service.is_active("c", &second).await);
    assert!(!service.is_active("c", &first).await, "a spent token isn't active, grace or not");

    let third = service.refresh("c", &second).await.must(200).text("refresh_token");
    assert_eq!(service.refresh("c", &first).await.must(200).body, reply.body);
    assert!(service.is_active("c", &third).await);
}

#[tokio::test]
async fn twenty_at_once_get_one_successor() {
    let service = Service::start(&["--refresh-grace", "300s"]).await;
    service.register("c", json!({})).await;
    for _ in 0..5 {
        let token = service.grant("c").await;
        let all = futures::future::join_all((0..20).map(|_| service.refresh("c", &token))).await;
        let bodies: BTreeSet<_> = all.into_iter().map(|reply| reply.must(200).body).collect();
        assert_eq!(bodies.len(), 1, "{bodies:?}");
        let body: serde_json::Value = serde_json::from_str(bodies.first().expect("one")).expect("JSON");
        let next = service.refresh("c", body["refresh_token"].as_str().expect("a token")).await;
        next.must(200);
    }
}

#[tokio::test]
async fn without_a_grace_reuse_revokes_the_family() {
    let service = Service::start(&["--refresh-grace", "0"]).await;
    service.register("c", json!({})).await;
    let (first, other) = (service.grant("c").await, service.grant("c").await);
    let reply = service.refresh("c", &first).await.must(200);
    let (access, second) = (reply.text("access_token"), reply.text("refresh_token"));
    assert!(service.is_active("c", &access).await);

    service.refresh("c", &first).await.must_be_error(400, "invalid_grant");
    assert!(!service.is_active("c", &access).await);
    service.refresh("c", &second).await.must_be_error(400, "invalid_grant");
    // Another grant of the same client is another family.
    service.refresh("c", &other).await.must(200);
    let metrics = super::http::Request::new(service.admin, "GET", "/metrics").send().await.must(200).body;
    assert!(metrics.contains("applink_provider_refresh_reuses_total 1\n"), "{metrics}");
}

#[tokio::test]
async fn the_grace_ends() {
    let service = Service::start(&["--refresh-grace", "1s"]).await;
    service.register("c", json!({})).await;
    let first = service.grant("c").await;
    let second = service.refresh("c", &first).await.must(200).text("refresh_token");
    eventually(SOON, "the grace to end", async || service.refresh("c", &first).await.status == 400).await;
    service.refresh("c", &second).await.must_be_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_refresh_narrows_and_never_widens() {
    let service = Service::start(&["--refresh-grace", "0"]).await;
    service.register("c", json!({"scopes": ["REPO_READ", "REPO_WRITE", "PUBLIC_REPOS"]})).await;
    let grant = json!({"clientId": "c", "subject": "ada", "scopes": ["REPO_READ", "REPO_WRITE"]});
    let grant = service.admin("POST", "/admin/grants").json(&grant).send().await.must(201);
    assert_eq!(grant.json()["scopes"], json!(["REPO_READ", "REPO_WRITE"]));
    let refresh = async |token: &str, scope: &str| {
        let form = format!("grant_type=refresh_token&refresh_token={token}&scope={scope}");
        service.post("/oauth2/token").basic("c", DERIVED).form(&form).send().await
    };
    let first = grant.text("refreshToken");
    // Refused, and so not spent: the next request still has it.
    refresh(&first, "PUBLIC_REPOS").await.must_be_error(400, "invalid_scope");
    refresh(&first, "REPO_READ+PUBLIC_REPOS").await.must_be_error(400, "invalid_scope");
    let narrow = refresh(&first, "REPO_READ").await.must(200);
    assert_eq!(narrow.json()["scope"], "REPO_READ");
    let seen = service.introspect("c", &narrow.text("access_token")).await;
    assert_eq!((&seen["scope"], &seen["sub"]), (&json!("REPO_READ"), &json!("ada")));
    // The refresh token keeps what was granted (RFC 6749 section 6).
    let wide = refresh(&narrow.text("refresh_token"), "").await.must(200);
    assert_eq!(wide.json()["scope"], "REPO_READ REPO_WRITE");
}

#[tokio::test]
async fn tokens_expire() {
    let service = Service::start(&["--refresh-token-lifetime", "2s", "--access-token-lifetime", "1s"]).await;
    service.register("c", json!({})).await;
    let (token, access) = (service.grant("c").await, service.access("c").await);
    let gone = async |token: &str| !service.is_active("c", token).await;
    eventually(SOON, "the access token to expire", async || gone(&access).await).await;
    eventually(SOON, "the refresh token to expire", async || gone(&token).await).await;
    service.refresh("c", &token).await.must_be_error(400, "invalid_grant");
}
