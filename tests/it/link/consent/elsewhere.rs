//! Until a consent is completed, its tokens stay with the server that gave them: endpoints elsewhere, which the link's
//! author may have named, hear of none.

use serde_json::{Value, json};

use super::refusals::{begin, consent_uri, put_ticket};
use super::{link, nothing_left, stage};
use crate::support::stage::{browser, merge};
use crate::support::token_server::{Reply, TokenServer};

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_nobody_completes_is_told_to_nobody_else() {
    let stage = stage().await;
    let team = stage.team();
    let (server, other) = (TokenServer::start().await, TokenServer::start().await);
    let reply = json!({
        "access_token": "at", "token_type": "Bearer", "refresh_token": "rt", "expires_in": 3600,
    });
    server.always("/oauth/token", Reply::json(200, &reply));
    for at in [&server, &other] {
        at.always("/me", Reply::json(200, &json!({"sub": "4711"})));
        at.always("/revoke", Reply::http(200, "", ""));
    }
    // Where user endpoint and revocation endpoint are.
    for (name, at, told) in [("home", &server, 1), ("elsewhere", &other, 0)] {
        stage
            .put_secret(team, &format!("{name}-client"), &[("client-id", "links"), ("client-secret", "s")])
            .await;
        let parameters = json!({"grant": {"authorizationCode": {"parameters": {"prompt": "login"}}}});
        let mut object = link(name, json!({}), parameters);
        let own = json!({
            "custom": null,
            "gitlab": {
                "url": server.url(""),
                "endpoints": {"userEndpoint": at.url("/me"), "revocationEndpoint": at.url("/revoke")},
            },
        });
        merge(&mut object["spec"]["outgoing"]["oauth2"]["server"], own);
        stage.apply_object(team, &object).await;
        stage.condition(team, name, "Ready", "False", "AuthorizationRequired").await;
        let ticket = format!("a-ticket-of-this-test-{name}");
        put_ticket(&stage, name, &ticket, 300).await;
        let uri = consent_uri(&stage, name).await;
        let first = browser().get(format!("{uri}?ticket={ticket}")).send().await.expect("an answer");
        let first = first.text().await.expect("a page");
        let host = other.url("").trim_start_matches("http://").trim_end_matches('/').to_owned();
        assert_eq!(first.contains(&host), told == 0, "{first}");
        let (status, page) = begin(&uri, &ticket).await.answer(&[("code", "c")]).await;
        assert_eq!(status, 200, "{page}");
        assert_eq!(page.contains("4711"), told == 1, "{page}");
        // Taken back before the code is.
        let gone: Value = json!({"metadata": {"annotations": {"applink-operator.io/authorize": null}}});
        stage.patch("ApplicationLink", team, name, gone).await;
        nothing_left(&stage, name).await;
        for path in ["/me", "/revoke"] {
            assert_eq!(at.asked(path).len(), told, "{name} {path}");
        }
    }
}
