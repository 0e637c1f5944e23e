//! Introspection (RFC 7662) and revocation (RFC 7009), and what a changed client does to tokens.

use super::service::{DERIVED, Service, client};
use serde_json::{Value, json};

#[tokio::test]
async fn a_client_sees_its_own_tokens_and_no_others() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    service.register("d", json!({})).await;
    let (access, refresh) = (service.access("c").await, service.grant("c").await);

    let seen = service.introspect("c", &access).await;
    let (iat, exp) = (seen["iat"].as_i64().expect("iat"), seen["exp"].as_i64().expect("exp"));
    assert_eq!(exp - iat, 3600);
    let expected = json!({
        "active": true, "scope": "REPO_READ REPO_WRITE", "client_id": "c", "token_type": "Bearer",
        "iss": service.issuer, "iat": iat, "exp": exp,
    });
    assert_eq!(seen, expected);

    let seen = service.introspect("c", &refresh).await;
    assert_eq!((&seen["active"], &seen["sub"]), (&json!(true), &json!("ada")));
    assert_eq!(seen.get("token_type"), None);

    for token in [&access, &refresh, "no-such-token"] {
        assert_eq!(service.introspect("d", token).await, json!({"active": false}), "{token}");
    }
}

#[tokio::test]
async fn introspection_wants_a_confidential_client() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    let public = json!({"tokenEndpointAuthMethod": "none", "secret": null, "grantTypes": ["refresh_token"]});
    service.register("public", public).await;
    let post = service.post("/oauth2/introspect");
    post.clone().form("token=x").send().await.must_be_error(401, "invalid_client");
    post.clone().form("token=x&client_id=public").send().await.must_be_error(401, "invalid_client");
    post.clone().basic("c", "wrong").form("token=x").send().await.must_be_error(401, "invalid_client");
    post.clone().basic("c", DERIVED).form("").send().await.must_be_error(400, "invalid_request");
    let hint = post.basic("c", DERIVED).form("token=x&token_type_hint=odd").send().await.must(200);
    assert_eq!(hint.json(), json!({"active": false}));
    assert_eq!(hint.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn revocation() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    service.register("d", json!({})).await;
    let revoke = async |id: &str, form: &str| {
        service.post("/oauth2/revoke").basic(id, DERIVED).form(form).send().await
    };

    // What can't exist: right credentials 200, wrong ones 401. This is how the operator proves them.
    let reply = revoke("c", "token=no-such-token").await.must(200);
    assert_eq!((reply.body.as_str(), reply.header("cache-control")), ("", Some("no-store")));
    let wrong = service.post("/oauth2/revoke").basic("c", "wrong").form("token=no-such-token");
    wrong.send().await.must_be_error(401, "invalid_client");
    revoke("c", "").await.must_be_error(400, "invalid_request");

    let (access, other) = (service.access("c").await, service.access("c").await);
    revoke("d", &format!("token={access}")).await.must(200);
    assert!(service.is_active("c", &access).await, "another client's token isn't revoked");
    revoke("c", &format!("token={access}&token_type_hint=refresh_token")).await.must(200);
    assert!(!service.is_active("c", &access).await);
    assert!(service.is_active("c", &other).await);

    // A refresh token takes its family along, spent or not.
    for spent in [false, true] {
        let first = service.grant("c").await;
        let reply = service.refresh("c", &first).await.must(200);
        let (access, second) = (reply.text("access_token"), reply.text("refresh_token"));
        revoke("d", &format!("token={second}")).await.must(200);
        assert!(service.is_active("c", &second).await);
        let token = if spent { &first } else { &second };
        revoke("c", &format!("token={token}")).await.must(200);
        assert!(!service.is_active("c", &access).await);
        assert!(!service.is_active("c", &second).await);
        service.refresh("c", &second).await.must_be_error(400, "invalid_grant");
        service.refresh("c", &first).await.must_be_error(400, "invalid_grant");
    }
}

#[tokio::test]
async fn a_public_client_refreshes_and_revokes_by_its_name() {
    let service = Service::start(&[]).await;
    let public = json!({"tokenEndpointAuthMethod": "none", "secret": null, "grantTypes": ["refresh_token"]});
    service.register("p", public).await;
    let token = service.grant("p").await;
    let post = async |path: &str, form: &str| service.post(path).form(form).send().await;
    let form = format!("grant_type=refresh_token&client_id=p&refresh_token={token}");
    let next = post("/oauth2/token", &form).await.must(200).text("refresh_token");
    post("/oauth2/revoke", &format!("client_id=p&token={next}")).await.must(200);
    let form = format!("grant_type=refresh_token&client_id=p&refresh_token={next}");
    post("/oauth2/token", &form).await.must_be_error(400, "invalid_grant");
    post("/oauth2/revoke", "client_id=nobody&token=x").await.must_be_error(401, "invalid_client");
}

#[tokio::test]
async fn what_a_client_lost_its_tokens_lost_too() {
    let service = Service::start(&["--refresh-grace", "0"]).await;
    service.register("c", json!({})).await;
    let (access, refresh) = (service.access("c").await, service.grant("c").await);
    let change = async |change: Value| service.put("c", &client(change)).send().await.must(200);

    change(json!({"scopes": ["REPO_READ", "PUBLIC_REPOS"]})).await;
    assert_eq!(service.introspect("c", &access).await["scope"], "REPO_READ");
    let reply = service.refresh("c", &refresh).await.must(200);
    assert_eq!(reply.json()["scope"], "REPO_READ", "neither what it lost nor what it gained since");

    change(json!({"scopes": ["PUBLIC_REPOS"]})).await;
    assert!(!service.is_active("c", &access).await);
    service.refresh("c", &reply.text("refresh_token")).await.must_be_error(400, "invalid_scope");

    change(json!({})).await;
    assert!(service.is_active("c", &access).await);
    change(json!({"grantTypes": ["refresh_token"]})).await;
    assert!(!service.is_active("c", &access).await, "its grant type is gone");
    change(json!({"grantTypes": []})).await;
    service.refresh("c", &reply.text("refresh_token")).await.must_be_error(400, "unauthorized_client");

    change(json!({})).await;
    assert!(service.is_active("c", &access).await);
    service.admin("DELETE", "/admin/clients/c").send().await.must(204);
    service.register("c", json!({})).await;
    assert!(!service.is_active("c", &access).await, "a client of the same name inherits nothing");
    service.refresh("c", &reply.text("refresh_token")).await.must_be_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_put_that_revokes_ends_all_tokens_of_that_client() {
    let service = Service::start(&["--refresh-grace", "300s"]).await;
    let made = service.register("c", json!({"revokeTokens": true})).await;
    service.register("d", json!({})).await;
    let other = service.access("d").await;
    let newer = "another-derived-secret-0123456789-0123456789";
    let active = async |secret: &str, token: &str| {
        let request = service.post("/oauth2/introspect").basic("c", secret).form(&format!("token={token}"));
        request.send().await.must(200).json()["active"] == true
    };
    let (access, first) = (service.access("c").await, service.grant("c").await);
    let reply = service.refresh("c", &first).await.must(200);
    let (from_grant, next) = (reply.text("access_token"), reply.text("refresh_token"));

    // With a new secret, in one request.
    let changed =
        service.put("c", &client(json!({"secret": newer, "revokeTokens": true}))).send().await.must(200);
    assert_ne!(changed.header("etag"), made.header("etag"));
    assert_eq!(changed.json().get("revokeTokens"), None);
    for token in [&access, &first, &from_grant, &next] {
        assert!(!active(newer, token).await, "{token}");
    }
    for token in [&first, &next] {
        let form = format!("grant_type=refresh_token&refresh_token={token}");
        let refused = service.post("/oauth2/token").basic("c", newer).form(&form).send().await;
        refused.must_be_error(400, "invalid_grant");
    }
    assert!(service.is_active("d", &other).await, "another client's stays");

    // The same again ends what came since, and changes nothing else.
    let form = "grant_type=client_credentials";
    let again = service.post("/oauth2/token").basic("c", newer).form(form).send().await.must(200);
    let again = again.text("access_token");
    let keep = service.put("c", &client(json!({"secret": newer}))).send().await.must(200);
    assert!(active(newer, &again).await, "without the field they stay");
    let repeated =
        service.put("c", &client(json!({"secret": newer, "revokeTokens": true}))).send().await.must(200);
    assert!(!active(newer, &again).await);
    for reply in [keep, repeated] {
        assert_eq!((reply.header("etag"), reply.json()), (changed.header("etag"), changed.json()));
    }
    // Nothing is ended by a PUT that is refused.
    let token = service.access("d").await;
    let body = client(json!({"revokeTokens": true}));
    service.put("d", &body).header("if-match", "\"x\"").send().await.must(412);
    assert!(service.is_active("d", &token).await);
}
