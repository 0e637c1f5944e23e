//! An ID token that isn't what it must be (OpenID Connect Core section 3.1.3.7) connects nothing, and what came with it
//! is given back. The server is a double: no real one makes wrong ID tokens.

use applink_operator::outgoing::{SigningAlgorithm, SigningKey};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

use super::metadata::{applied, begin};
use super::stage;
use crate::support::keys;
use crate::support::stage::browser;
use crate::support::token_server::{Reply, TokenServer};

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_that_is_wrong_connects_nothing() {
    let stage = stage().await;
    let server = TokenServer::start().await;
    let pair = keys::make("ES256").await;
    let key = |text: &str| {
        let key = SigningKey::parse(&text.to_owned().into(), None, SigningAlgorithm::RS256).expect("a key");
        key.with_key_id(Some("key-1".into()))
    };
    let (right, wrong) = (key(&pair.pkcs8), key(&keys::make("ES256").await.pkcs8));
    server.always("/keys", Reply::json(200, &json!({"keys": [pair.public]})));
    server.always("/id/revoke", Reply::http(200, "", ""));
    let metadata = json!({"jwks_uri": server.url("/keys")});
    applied(&stage, &server, "id", metadata, json!({"scopes": ["openid"]})).await;
    stage.condition(stage.team(), "id", "Ready", "False", "AuthorizationRequired").await;

    let issuer = server.url("/id");
    let now = Timestamp::now().as_second();
    // What the next ID token says, and who signs it.
    let next: Arc<Mutex<(Value, bool)>> = Arc::default();
    let says = next.clone();
    server.on("/id/token", move |_, _| {
        let (claims, signed) = says.lock().expect("lock").clone();
        let token = if signed { &right } else { &wrong }.sign(&claims).expect("randomness");
        let reply = json!({"access_token": "at", "refresh_token": "rt", "expires_in": 600, "id_token": token.expose_secret()});
        Reply::json(200, &reply)
    });
    let good = json!({"iss": issuer, "aud": "us", "sub": "ann", "exp": now + 600, "iat": now});
    let cases = [
        (json!({"iss": "https://somebody.example"}), true, "its issuer"),
        (json!({"aud": "them"}), true, "another client"),
        (json!({"aud": ["us", "them"]}), true, "another client"),
        (json!({"azp": "them"}), true, "another client"),
        (json!({"exp": now - 400}), true, "has ended"),
        (json!({"nonce": "of-another-consent"}), true, "nonce"),
        (json!({"nonce": null}), true, "nonce"),
        (json!({"sub": null}), true, "no subject"),
        (json!({}), false, "signature is wrong"),
        (json!({}), true, ""),
    ];
    for (number, (change, signed, why)) in cases.into_iter().enumerate() {
        let ticket = format!("ticket-number-{number}-0123456789");
        let (page, cookie, to) = begin(&stage, "id", &ticket).await;
        let to = to.unwrap_or_else(|| panic!("{page}"));
        let sent = |name: &str| to.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
        let mut claims = good.clone();
        claims["nonce"] = json!(sent("nonce").expect("a nonce"));
        claims.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        *next.lock().expect("lock") = (claims, signed);
        let revoked = server.asked("/id/revoke").len();
        let mut back = url::Url::parse(&sent("redirect_uri").expect("where to")).expect("an address");
        back.query_pairs_mut()
            .append_pair("state", &sent("state").expect("a state"))
            .append_pair("code", "c");
        let answer = browser().get(back).header("cookie", cookie).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let page = answer.text().await.expect("text");
        if why.is_empty() {
            assert!(status == 200 && page.contains("ann"), "{page}");
            continue;
        }
        assert!(status == 403 && page.contains("<code>IdTokenRefused</code>"), "{change}: {page}");
        assert!(page.contains(why), "{change}: {page}");
        let given_back = server.asked("/id/revoke");
        assert_eq!(given_back.len(), revoked + 1, "{change}");
        assert_eq!(given_back[revoked].field("token"), "rt");
    }
}
