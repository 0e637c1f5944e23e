//! Every error of the admin listener is a problem of RFC 9457.

use super::http::Request;
use super::service::{ADMIN_TOKEN, Service, client};
use serde_json::{Value, json};

#[tokio::test]
async fn who_has_no_token_gets_nowhere() {
    let service = Service::start(&[]).await;
    for (method, path) in [
        ("GET", "/admin/info"),
        ("GET", "/admin/clients"),
        ("GET", "/admin/clients/c"),
        ("PUT", "/admin/clients/c"),
        ("DELETE", "/admin/clients/c"),
        ("POST", "/admin/grants"),
        ("PATCH", "/admin/clients/c"),
    ] {
        let request = Request::new(service.admin, method, path);
        let wrong = |value: String| request.clone().header("authorization", value);
        for request in [
            request.clone(),
            wrong("Bearer ".into()),
            wrong(format!("Bearer {ADMIN_TOKEN}x")),
            wrong(format!("Basic {ADMIN_TOKEN}")),
            wrong(format!("Bearer {ADMIN_TOKEN}")).header("authorization", "Bearer x"),
        ] {
            let reply = request.send().await;
            reply.must_be_problem(401, "unauthorized", None);
            assert!(reply.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer ")), "{reply:?}");
        }
    }
    // The admin API isn't on the public listener, nor the other way round.
    Request::new(service.public, "GET", "/admin/info").send().await.must(404);
    Request::new(service.public, "GET", "/metrics").send().await.must(404);
    service.admin("POST", "/oauth2/token").form("a=b").send().await.must_be_problem(404, "not-found", None);
}

#[tokio::test]
async fn what_the_framework_refuses_is_a_problem_too() {
    let service = Service::start(&[]).await;
    let put = || service.admin("PUT", "/admin/clients/c");
    put().body("text/plain", "{}").send().await.must_be_problem(415, "unsupported-media-type", None);
    put().body("application/json", "{").send().await.must_be_problem(400, "invalid-request", None);
    put().body("application/json", "{}").send().await.must_be_problem(422, "invalid-request", None);
    let large = json!({"name": "x".repeat(70_000)}).to_string();
    put().body("application/json", large).send().await.must_be_problem(413, "too-large", None);
    let unknown = client(json!({"clientSecret": "canary"}));
    let reply = put().json(&unknown).send().await;
    reply.must_be_problem(422, "invalid-request", None);
    let number = client(json!({"secret": 1_234_567_890}));
    let reply = put().json(&number).send().await;
    reply.must_be_problem(422, "invalid-request", None);
    assert!(!reply.body.contains("1234567890"), "{reply:?}");

    let reply = service.admin("PATCH", "/admin/clients/c").send().await;
    reply.must_be_problem(405, "method-not-allowed", None);
    assert!(reply.header("allow").is_some_and(|a| a.contains("PUT")), "{reply:?}");
    service.admin("POST", "/healthz").send().await.must_be_problem(405, "method-not-allowed", None);
    service.admin("GET", "/nothing").send().await.must_be_problem(404, "not-found", None);
    service.admin("GET", "/admin/clients/%ff").send().await.must_be_problem(400, "invalid-request", None);
    let reply = service.admin("GET", "/admin/clients/a%0Ab").send().await;
    reply.must_be_problem(400, "invalid-request", Some("id"));
    for query in ["?limit=x", "?limit=-1", "?unknown=1"] {
        let reply = service.admin("GET", &format!("/admin/clients{query}")).send().await;
        reply.must_be_problem(400, "invalid-request", None);
    }
    let bad = |query: &str| service.admin("GET", &format!("/admin/clients{query}"));
    bad("?limit=0").send().await.must_be_problem(400, "invalid-request", Some("limit"));
    bad("?cursor=!").send().await.must_be_problem(400, "invalid-request", Some("cursor"));
}

#[tokio::test]
async fn a_wrong_field_is_named() {
    let service = Service::start(&[]).await;
    let put = async |change: Value| service.put("c", &client(change)).send().await;
    for uri in [
        "http://ci.example.com/cb",
        "https://ci.example.com/#f",
        "https://*.example.com/",
        "https://u:p@ci.example.com/",
        "javascript:alert(1)",
        "/callback",
        "",
    ] {
        put(json!({"redirectUris": [uri]})).await.must_be_problem(
            400,
            "invalid-redirect-uri",
            Some("redirectUris"),
        );
    }
    for (change, code, field) in [
        (json!({"grantTypes": ["authorization_code"]}), "invalid-redirect-uri", "redirectUris"),
        (json!({"grantTypes": ["implicit"]}), "invalid-grant-types", "grantTypes"),
        (json!({"tokenEndpointAuthMethod": "none", "secret": null}), "invalid-grant-types", "grantTypes"),
        (json!({"scopes": ["REPO_DELETE"]}), "invalid-scope", "scopes"),
        (json!({"scopes": ["REPO_READ REPO_WRITE"]}), "invalid-scope", "scopes"),
        (json!({"tokenEndpointAuthMethod": "tls_client_auth"}), "invalid-request", "tokenEndpointAuthMethod"),
        (json!({"name": ""}), "invalid-request", "name"),
        (json!({"uri": "data:text/html,x"}), "invalid-request", "uri"),
        (json!({"secret": "too short"}), "invalid-request", "secret"),
        (json!({"secret": "fifteen letters", "secretKind": "chosen"}), "invalid-request", "secret"),
        (
            json!({"tokenEndpointAuthMethod": "none", "grantTypes": ["refresh_token"]}),
            "invalid-request",
            "secret",
        ),
        (json!({"owner": super::service::owner(json!({"uid": ""}))}), "invalid-request", "owner"),
    ] {
        let reply = put(change.clone()).await;
        assert_eq!(reply.json()["code"], code, "{change}: {reply:?}");
        reply.must_be_problem(400, code, Some(field));
    }
    service.admin("GET", "/admin/clients/c").send().await.must(404);
}
