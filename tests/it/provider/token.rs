//! The token endpoint: RFC 6749 sections 3.2, 4.4, 5.1 and 5.2, byte by byte.

use super::http::Request;
use super::service::{DERIVED, Service};
use serde_json::json;

#[tokio::test]
async fn client_credentials_give_an_access_token_and_no_refresh_token() {
    let service = Service::start(&["--access-token-lifetime", "1h30m"]).await;
    service.register("c", json!({})).await;
    let request = service.post("/oauth2/token").basic("c", DERIVED).form("grant_type=client_credentials");
    let reply = request.send().await.must(200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    let token = reply.text("access_token");
    assert_eq!(token.len(), 43, "256 bits in base64url");
    let expected = json!({
        "access_token": token, "token_type": "Bearer", "expires_in": 5400, "scope": "REPO_READ REPO_WRITE",
    });
    assert_eq!(reply.json(), expected);
    assert_ne!(service.access("c").await, token);
}

#[tokio::test]
async fn every_error_is_the_one_that_rfc_6749_names() {
    let service = Service::start(&[]).await;
    service.register("c", json!({"grantTypes": ["client_credentials"]})).await;
    service.register("r", json!({"grantTypes": ["refresh_token"]})).await;
    let good = "grant_type=client_credentials";
    let cases: &[(&str, &str, &str, u16, &str)] = &[
        // Who calls comes before what they want.
        ("c", "wrong secret", "grant_type=no_such_grant", 401, "invalid_client"),
        ("nobody", DERIVED, good, 401, "invalid_client"),
        ("c", "wrong secret", "", 401, "invalid_client"),
        ("c", DERIVED, "", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=no_such_grant", 400, "unsupported_grant_type"),
        ("c", DERIVED, "grant_type=password&username=a&password=b", 400, "unsupported_grant_type"),
        ("c", DERIVED, "grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        ("c", DERIVED, "grant_type=refresh_token&refresh_token=x", 400, "unauthorized_client"),
        ("r", DERIVED, good, 400, "unauthorized_client"),
        ("r", DERIVED, "grant_type=refresh_token&refresh_token=x", 400, "invalid_grant"),
        ("r", DERIVED, "grant_type=refresh_token", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=client_credentials&scope=SYSTEM_ADMIN", 400, "invalid_scope"),
        ("c", DERIVED, "grant_type=client_credentials&scope=REPO_READ+ADMIN_WRITE", 400, "invalid_scope"),
        ("c", DERIVED, "grant_type=client_credentials&scope=%22", 400, "invalid_scope"),
        ("c", DERIVED, "grant_type=client_credentials&grant_type=client_credentials", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=client_credentials&x=1&x=2", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=%ff", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=client_credentials&client_secret=x", 400, "invalid_request"),
        ("c", DERIVED, "grant_type=client_credentials&client_id=r", 400, "invalid_request"),
    ];
    for (id, secret, form, status, code) in cases {
        let reply = service.post("/oauth2/token").basic(id, secret).form(form).send().await;
        assert_eq!((reply.status, reply.json()["error"].as_str()), (*status, Some(*code)), "{id} {form}");
        reply.must_be_error(*status, code);
    }
}

#[tokio::test]
async fn scopes_are_all_of_the_clients_or_fewer() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    service.register("bare", json!({"scopes": []})).await;
    let scope = async |id: &str, more: &str| {
        let form = format!("grant_type=client_credentials{more}");
        let reply = service.post("/oauth2/token").basic(id, DERIVED).form(&form).send().await.must(200);
        reply.json()["scope"].as_str().map(str::to_owned)
    };
    assert_eq!(scope("c", "").await.as_deref(), Some("REPO_READ REPO_WRITE"));
    assert_eq!(scope("c", "&scope=").await.as_deref(), Some("REPO_READ REPO_WRITE"));
    assert_eq!(scope("c", "&scope=REPO_WRITE").await.as_deref(), Some("REPO_WRITE"));
    assert_eq!(
        scope("c", "&scope=REPO_WRITE+REPO_READ+REPO_READ").await.as_deref(),
        Some("REPO_READ REPO_WRITE")
    );
    assert_eq!(scope("bare", "").await, None);
}

#[tokio::test]
async fn only_a_post_with_a_form_is_taken() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    for path in ["/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"] {
        for method in ["GET", "PUT", "DELETE"] {
            let reply = Request::new(service.public, method, path).send().await;
            reply.must_be_error(405, "invalid_request");
            assert_eq!(reply.header("allow"), Some("POST"), "{method} {path}");
        }
        let request = service.post(path).basic("c", DERIVED);
        for kind in ["application/json", "text/plain", "multipart/form-data"] {
            let reply = request.clone().body(kind, "grant_type=client_credentials").send().await;
            reply.must_be_error(400, "invalid_request");
        }
        request.send().await.must_be_error(400, "invalid_request");
    }
    let reply = Request::new(service.public, "GET", "/nothing/here").send().await;
    reply.must_be_error(404, "invalid_request");
    // Credentials in an address end up in logs; they are not read from there.
    let query = format!("/oauth2/token?client_id=c&client_secret={DERIVED}");
    service
        .post(&query)
        .form("grant_type=client_credentials")
        .send()
        .await
        .must_be_error(401, "invalid_client");
}
