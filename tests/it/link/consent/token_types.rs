//! Tokens that are of no use without a proof: a consent that gives one is refused by name, and given back.

use serde_json::json;

use super::refusals::{begin, consent_uri, put_ticket};
use super::{link, stage};
use crate::support::token_server::{Reply, TokenServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_asks_for_a_proof_is_refused_by_name() {
    let stage = stage().await;
    let team = stage.team();
    let server = TokenServer::start().await;
    server.always("/revoke", Reply::http(200, "", ""));
    // The type, as the server writes it, and what the page calls it; other types are taken.
    let types = [
        ("DPoP", Some("DPoP")),
        ("dpop", Some("DPoP")),
        ("mac", Some("MAC")),
        ("PoP", Some("PoP")),
        ("bot", None),
    ];
    for (at, (token_type, named)) in types.into_iter().enumerate() {
        let name = format!("typed-{at}");
        let path = format!("/{name}/token");
        let reply = json!({
            "access_token": "at", "token_type": token_type, "refresh_token": format!("rt-{at}"), "expires_in": 3600,
        });
        server.always(&path, Reply::json(200, &reply));
        let client = [("client-id", "links"), ("client-secret", "only-for-tests")];
        stage.put_secret(team, &format!("{name}-client"), &client).await;
        let endpoints = json!({
            "tokenEndpoint": server.url(&path), "authorizationEndpoint": server.url("/authorize"),
            "revocationEndpoint": server.url("/revoke"),
        });
        let more =
            json!({"grant": {"authorizationCode": {"parameters": {"prompt": "login"}}}, "scopes": ["a"]});
        stage.apply_object(team, &link(&name, endpoints, more)).await;
        stage.condition(team, &name, "Ready", "False", "AuthorizationRequired").await;
        let ticket = format!("a-ticket-of-this-test-012345678{at}");
        put_ticket(&stage, &name, &ticket, 300).await;
        let begun = begin(&consent_uri(&stage, &name).await, &ticket).await;
        let (status, page) = begun.answer(&[("code", "c")]).await;
        let given_back = || {
            let asked = server.asked("/revoke");
            asked.iter().any(|a| a.field("token") == format!("rt-{at}"))
        };
        match named {
            Some(named) => {
                assert_eq!(status, 502, "{page}");
                assert!(page.contains(&format!("of the type {named}")), "{page}");
                assert!(given_back(), "{token_type}");
                stage.condition(team, &name, "Ready", "False", "AuthorizationRequired").await;
            }
            None => {
                assert_eq!(status, 200, "{page}");
                assert!(!given_back(), "{token_type}");
            }
        }
    }
}
