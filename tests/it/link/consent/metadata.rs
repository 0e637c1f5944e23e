//! What a server's metadata say is used, or said before anybody signs in. The answers are a double's, since no real
//! server can be brought to say each of them; real ones are tried in `servers`.

use serde_json::{Value, json};
use url::Url;

use super::refusals::{consent_uri, put_ticket};
use super::{link, stage};
use crate::support::stage::{Stage, browser, merge};
use crate::support::token_server::{Reply, TokenServer};

/// A server at a path of its own whose metadata have more in them.
fn document(server: &TokenServer, path: &str, more: Value) {
    let at = |name: &str| server.url(&format!("{path}/{name}"));
    let mut document = json!({
        "issuer": server.url(path), "authorization_endpoint": at("authorize"), "token_endpoint": at("token"),
        "device_authorization_endpoint": at("device"), "revocation_endpoint": at("revoke"),
    });
    merge(&mut document, more);
    server.always(&format!("/.well-known/oauth-authorization-server{path}"), Reply::json(200, &document));
}

pub async fn applied(stage: &Stage<'_>, server: &TokenServer, name: &str, metadata: Value, more: Value) {
    document(server, &format!("/{name}"), metadata);
    let data = [("client-id", "us"), ("client-secret", "our-secret")];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
    let issuer = json!({"issuer": server.url(&format!("/{name}"))});
    stage.apply_object(stage.team(), &link(name, issuer, more)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_does_not_take_is_said_before_anybody_signs_in() {
    let stage = stage().await;
    let server = TokenServer::start().await;
    let device = || json!({"grant": {"authorizationCode": null, "deviceCode": {}}});
    let named = || json!({"client": {"authMethod": "client_secret_post"}});
    let machine = || json!({"grant": {"authorizationCode": null, "clientCredentials": {}}});
    let cases = [
        ("code", json!({"grant_types_supported": ["client_credentials"]}), json!({}), "GrantTypeNotOffered"),
        ("device", json!({"grant_types_supported": ["authorization_code"]}), device(), "GrantTypeNotOffered"),
        ("signed", json!({"require_signed_request_object": true}), json!({}), "SignedRequestRequired"),
        ("by-device", json!({"require_signed_request_object": true}), device(), "AuthorizationRequired"),
        ("push", json!({"require_pushed_authorization_requests": true}), json!({}), "EndpointMissing"),
        (
            "key",
            json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}),
            json!({}),
            "AuthMethodNotOffered",
        ),
        // Whoever names a method knows better.
        (
            "key-named",
            json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}),
            named(),
            "AuthorizationRequired",
        ),
        ("nothing", json!({}), json!({}), "AuthorizationRequired"),
    ];
    for (name, metadata, more, reason) in cases {
        applied(&stage, &server, name, metadata, more).await;
        stage.condition(stage.team(), name, "Ready", "False", reason).await;
    }
    // Where nobody is asked, the server itself says it.
    server.always("/machine/token", Reply::json(200, &json!({"access_token": "a", "expires_in": 600})));
    applied(&stage, &server, "machine", json!({"grant_types_supported": ["authorization_code"]}), machine())
        .await;
    stage.ready(stage.team(), "machine").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_authenticates_as_the_server_takes_it() {
    let stage = stage().await;
    let server = TokenServer::start().await;
    let methods = |all: Value| json!({ "token_endpoint_auth_methods_supported": all });
    let (post, basic) = ("client_secret_post", "client_secret_basic");
    for (name, offered, named, in_body) in [
        ("post-alone", json!([post]), None, true),
        ("post-and-more", json!(["private_key_jwt", post, "none"]), None, true),
        ("both", json!([post, basic]), None, false),
        ("basic-alone", json!([basic]), None, false),
        ("basic-named", json!([post]), Some(basic), false),
        ("post-named", json!([basic]), Some(post), true),
        ("unsaid", Value::Null, None, false),
    ] {
        server.always(
            &format!("/{name}/token"),
            Reply::json(200, &json!({"access_token": "a", "expires_in": 600})),
        );
        let client = named.map_or(json!({}), |m| json!({"client": {"authMethod": m}}));
        let mut more = json!({"grant": {"authorizationCode": null, "clientCredentials": {}}});
        merge(&mut more, client);
        applied(&stage, &server, name, methods(offered), more).await;
        stage.ready(stage.team(), name).await;
        let asked = server.asked(&format!("/{name}/token")).remove(0);
        assert_eq!(asked.field("client_secret") == "our-secret", in_body, "{name}: {asked:?}");
        assert_eq!(asked.header("authorization").is_none(), in_body, "{name}");
    }
}

/// Begins a consent: the page, the browser's cookie, and where it sends the person.
pub async fn begin(stage: &Stage<'_>, name: &str, ticket: &str) -> (String, String, Option<Url>) {
    let uri = consent_uri(stage, name).await;
    put_ticket(stage, name, ticket, 300).await;
    let answer = browser().post(&uri).form(&[("ticket", ticket)]).send().await.expect("an answer");
    let cookie = answer.headers().get("set-cookie").and_then(|c| c.to_str().ok()?.split(';').next());
    let cookie = cookie.unwrap_or_default().to_owned();
    let page = answer.text().await.expect("text");
    let to = page.split("href=\"http").nth(1).and_then(|r| r.split('"').next());
    let to = to.and_then(|to| Url::parse(&format!("http{}", to.replace("&amp;", "&"))).ok());
    (page, cookie, to)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_pushed_where_the_server_insists_on_it() {
    let stage = stage().await;
    let server = TokenServer::start().await;
    let push = json!({
        "require_pushed_authorization_requests": true,
        "pushed_authorization_request_endpoint": server.url("/pushed/par"),
        "token_endpoint_auth_methods_supported": ["client_secret_post"],
    });
    let more = json!({"scopes": ["a", "offline_access"]});
    applied(&stage, &server, "pushed", push, more).await;
    stage.condition(stage.team(), "pushed", "Ready", "False", "AuthorizationRequired").await;
    server.on("/pushed/par", |before, _| match before {
        0 => Reply::json(401, &json!({"error": "invalid_client"})),
        _ => Reply::json(201, &json!({"request_uri": "urn:example:abc", "expires_in": 60})),
    });
    // What is wrong with the client is said before anybody signs in, and the ticket is as good as it was.
    let (page, _, _) = begin(&stage, "pushed", "ticket-of-the-push-0123456789").await;
    assert!(page.contains("<code>RequestRefused</code>"), "{page}");
    let (page, _, to) = begin(&stage, "pushed", "ticket-of-the-push-0123456789").await;
    let to = to.unwrap_or_else(|| panic!("{page}"));
    assert_eq!(to.query(), Some("client_id=us&request_uri=urn%3Aexample%3Aabc"));
    let pushed = server.asked("/pushed/par").remove(1);
    for (name, wanted) in [
        ("client_id", "us"),
        ("client_secret", "our-secret"),
        ("response_type", "code"),
        ("scope", "a offline_access"),
        ("prompt", "consent"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(pushed.field(name), wanted, "{name}");
    }
    assert!(!pushed.field("state").is_empty() && !pushed.field("redirect_uri").is_empty());

    // PKCE as far as the server knows it.
    for (name, methods, method) in [
        ("plain", json!(["plain"]), "plain"),
        ("two", json!(["plain", "S256"]), "S256"),
        ("none", json!([]), "S256"),
    ] {
        applied(&stage, &server, name, json!({"code_challenge_methods_supported": methods}), json!({})).await;
        let (page, _, to) = begin(&stage, name, "ticket-of-the-proof-0123456789").await;
        let to = to.unwrap_or_else(|| panic!("{page}"));
        let sent = to.query_pairs().find(|(n, _)| n == "code_challenge_method").map(|(_, v)| v.into_owned());
        assert_eq!(sent.as_deref(), Some(method), "{name}");
    }
}
