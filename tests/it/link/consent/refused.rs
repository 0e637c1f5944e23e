//! A server that the operator may not call is said when the link is applied, not after somebody consented for nothing.
//! Which addresses those are is `tests/corpus/outbound`'s to say, and how names are judged `src/http/client_tests.rs`'s.

use serde_json::{Value, json};

use super::{authorize, link, stage};
use crate::support::token_server::{Reply, TokenServer};

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_may_not_be_called_is_said_before_anybody_signs_in() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let server = TokenServer::start().await;
    let document = |path: &str, more: Value| {
        let mut document = json!({
            "issuer": server.url(path), "authorization_endpoint": server.url("/authorize"),
            "token_endpoint": server.url("/token"), "device_authorization_endpoint": server.url("/device"),
        });
        document.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        server.always(&format!("/.well-known/oauth-authorization-server{path}"), Reply::json(200, &document));
        json!({"issuer": server.url(path)})
    };
    let custom = |token: &str| {
        json!({
            "tokenEndpoint": token, "authorizationEndpoint": "https://id.example.com/authorize",
            "deviceAuthorizationEndpoint": server.url("/device"),
        })
    };
    let device = || json!({"grant": {"authorizationCode": null, "deviceCode": {}}});
    let push = json!({
        "require_pushed_authorization_requests": true,
        "pushed_authorization_request_endpoint": "https://10.0.0.1/par",
    });
    let cases = [
        ("private", custom("https://10.1.2.3/token"), json!({}), "token endpoint"),
        ("by-name", custom("https://token.internal/token"), json!({}), "token endpoint"),
        ("unknown", custom("https://no-such-host.invalid/token"), json!({}), "token endpoint"),
        ("plain", custom("http://192.0.2.1/token"), json!({}), "token endpoint"),
        ("device", custom("https://10.1.2.3/token"), device(), "token endpoint"),
        (
            "discovered",
            document("/a", json!({"token_endpoint": "https://10.1.2.3/token"})),
            json!({}),
            "token endpoint",
        ),
        ("pushed", document("/b", push.clone()), json!({}), "pushed authorization request endpoint"),
    ];
    for (name, at, more, what) in cases {
        let data = [("client-id", "us"), ("client-secret", "our-secret")];
        stage.put_secret(&team, &format!("{name}-client"), &data).await;
        stage.apply_object(&team, &link(name, at, more)).await;
        let there = stage.condition(&team, name, "Ready", "False", "AddressRefused").await;
        let conditions = there.status.expect("a status").conditions;
        let said = &conditions.iter().find(|c| c.type_ == "Ready").expect("a condition").message;
        assert!(said.contains(&format!("its {what} isn't called")), "{name}: {said}");
        let (code, said) = authorize(&stage, name, &[]).end().await;
        assert!(code == Some(1) && said.contains("(AddressRefused)") && !said.contains("?ticket="), "{said}");
    }
    // What no consent comes to is in nobody's way.
    let data = [("client-id", "us"), ("client-secret", "our-secret")];
    stage.put_secret(&team, "by-device-client", &data).await;
    stage.apply_object(&team, &link("by-device", document("/c", push), device())).await;
    stage.condition(&team, "by-device", "Ready", "False", "AuthorizationRequired").await;
}
