//! Client authentication: RFC 6749 section 2.3, each method with the others refused.

use super::http::{Reply, Request};
use super::service::{DERIVED, Service};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

const GRANT: &str = "grant_type=client_credentials";

#[tokio::test]
async fn only_the_registered_method_is_taken() {
    let service = Service::start(&[]).await;
    service.register("basic", json!({})).await;
    service.register("post", json!({"tokenEndpointAuthMethod": "client_secret_post"})).await;
    let public = json!({"tokenEndpointAuthMethod": "none", "secret": null, "grantTypes": ["refresh_token"]});
    service.register("public", public).await;
    let basic = async |id| service.post("/oauth2/token").basic(id, DERIVED).form(GRANT).send().await;
    let post = async |id| {
        let form = format!("{GRANT}&client_id={id}&client_secret={DERIVED}");
        service.post("/oauth2/token").form(&form).send().await
    };
    let none = async |id| service.post("/oauth2/token").form(&format!("{GRANT}&client_id={id}")).send().await;

    basic("basic").await.must(200);
    post("post").await.must(200);
    // It got past authentication: what it lacks is the grant.
    none("public").await.must_be_error(400, "unauthorized_client");
    for refused in [post("basic").await, none("basic").await, basic("post").await, none("post").await] {
        refused.must_be_error(401, "invalid_client");
    }
    for refused in [basic("public").await, post("public").await, none("nobody").await] {
        refused.must_be_error(401, "invalid_client");
    }
}

#[tokio::test]
async fn a_chosen_secret_with_odd_characters_works_both_ways() {
    let service = Service::start(&[]).await;
    let secret = "p%20 q+&=:\\\"~ canary chosen";
    for (id, method) in [("team%20a%2Fci%3A1", "client_secret_basic"), ("odd%25%2B", "client_secret_post")] {
        let body = json!({"secret": secret, "secretKind": null, "tokenEndpointAuthMethod": method});
        service.register(id, body).await;
    }
    service.post("/oauth2/token").basic("team a/ci:1", secret).form(GRANT).send().await.must(200);
    let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let form = format!("{GRANT}&client_id={}&client_secret={}", encode("odd%+"), encode(secret));
    service.post("/oauth2/token").form(&form).send().await.must(200);
    service.post("/oauth2/token").basic("team a/ci:1", &secret[1..]).form(GRANT).send().await.must(401);
}

#[tokio::test]
async fn broken_or_other_authorization_is_invalid_client_with_a_challenge() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    let of = async |value: &str| -> Reply {
        let request = service.post("/oauth2/token").header("authorization", value);
        request.form(&format!("{GRANT}&client_id=c")).send().await
    };
    for bad in [
        "Basic",
        "Basic ???",
        "Bearer abc",
        "Digest username=\"c\"",
        &format!("Basic {}", STANDARD.encode("c")),
    ] {
        of(bad).await.must_be_error(401, "invalid_client");
    }
    of(&format!("bAsIc {}", STANDARD.encode(format!("c:{DERIVED}")))).await.must(200);
    let twice = service.post("/oauth2/token").basic("c", DERIVED).basic("c", DERIVED).form(GRANT);
    twice.send().await.must_be_error(400, "invalid_request");
}

#[tokio::test]
async fn a_changed_secret_or_method_counts_at_once() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    let token = service.access("c").await;
    let newer = "another-derived-secret-0123456789-0123456789";
    let try_with = async |request: Request| request.form(GRANT).send().await.status;

    let body = super::service::client(json!({"secret": newer}));
    service.put("c", &body).send().await.must(200);
    assert_eq!(try_with(service.post("/oauth2/token").basic("c", DERIVED)).await, 401);
    assert_eq!(try_with(service.post("/oauth2/token").basic("c", newer)).await, 200);

    let body =
        super::service::client(json!({"secret": null, "tokenEndpointAuthMethod": "client_secret_post"}));
    service.put("c", &body).send().await.must(200);
    assert_eq!(try_with(service.post("/oauth2/token").basic("c", newer)).await, 401);
    // The secret was left out, so it stayed; and tokens that are out outlive both changes.
    let form = format!("token={token}&client_id=c&client_secret={newer}");
    let seen = service.post("/oauth2/introspect").form(&form).send().await.must(200);
    assert_eq!(seen.json()["active"], true);
}
