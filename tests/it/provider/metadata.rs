//! Authorization server metadata: RFC 8414.

use super::http::Request;
use super::service::Service;
use serde_json::json;

#[tokio::test]
async fn it_lists_what_works_and_nothing_else() {
    let service = Service::start(&["--scopes", "write,read"]).await;
    let get = async |path: &str| Request::new(service.public, "GET", path).send().await;
    let issuer = &service.issuer;
    let metadata = get("/.well-known/oauth-authorization-server").await.must(200);
    assert_eq!(metadata.header("content-type"), Some("application/json"));
    let methods = json!(["client_secret_basic", "client_secret_post", "none"]);
    let expected = json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/oauth2/token"),
        "token_endpoint_auth_methods_supported": methods,
        "revocation_endpoint": format!("{issuer}/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": format!("{issuer}/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "response_types_supported": [],
        "scopes_supported": ["read", "write"],
    });
    assert_eq!(metadata.json(), expected);
    get("/.well-known/openid-configuration").await.must(404);
    // Registration is listed where it is turned on.
    let service = Service::start_at("/a", &["--registration"]).await;
    let path = "/.well-known/oauth-authorization-server/a";
    let metadata = Request::new(service.public, "GET", path).send().await.must(200);
    assert_eq!(metadata.text("registration_endpoint"), format!("{}/oauth2/register", service.issuer));
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_metadata_where_clients_look() {
    let service = Service::start_at("/a/b", &[]).await;
    service.register("c", json!({})).await;
    let get = async |path: &str| Request::new(service.public, "GET", path).send().await;
    for path in ["/.well-known/oauth-authorization-server/a/b", "/a/b/.well-known/oauth-authorization-server"]
    {
        assert_eq!(get(path).await.must(200).text("issuer"), service.issuer);
    }
    get("/.well-known/oauth-authorization-server").await.must(404);
    service.post("/a/b/oauth2/token").form("").send().await.must_be_error(401, "invalid_client");
    service.post("/oauth2/token").form("").send().await.must(404);
}
