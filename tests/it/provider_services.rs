//! The provider services of other people, as the rig starts them: each is the real one, and registers a client.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::hydra::Hydra;
use crate::support::keycloak::Realm;
use crate::support::stage::http;

/// What a revocation endpoint answers to a client that revokes a token which can't exist.
async fn revoke(endpoint: &str, id: &str, secret: &str) -> u16 {
    let request = http().post(endpoint).basic_auth(id, Some(secret)).form(&[("token", "none")]);
    request.send().await.expect("the revocation endpoint answers").status().as_u16()
}

#[tokio::test]
async fn hydra_registers_a_client_forgets_it_and_remembers_it() {
    let body = json!({"client_id": "chosen", "client_secret": "also-chosen-by-us"});
    for (mut hydra, remembers) in [(Hydra::start().await, false), (Hydra::with_database().await, true)] {
        let (status, version) = hydra.admin(Method::GET, "/version", None).await;
        assert_eq!((status, version["version"].as_str()), (200, Some("v2.3.0")), "{version}");

        let (status, made) = hydra.admin(Method::POST, "/admin/clients", Some(body.clone())).await;
        assert_eq!((status, made["client_id"].as_str()), (201, Some("chosen")), "{made}");
        let endpoint = format!("{}/oauth2/revoke", hydra.issuer());
        assert_eq!(revoke(&endpoint, "chosen", "also-chosen-by-us").await, 200);
        assert_eq!(revoke(&endpoint, "chosen", "wrong").await, 401);

        hydra.stop();
        assert!(http().get(hydra.admin_url()).send().await.is_err(), "it is stopped");
        hydra.start_again().await;
        let (status, _) = hydra.admin(Method::GET, "/admin/clients/chosen", None).await;
        assert_eq!(status, if remembers { 200 } else { 404 });
        hydra.wipe().await;
        let (status, clients) = hydra.admin(Method::GET, "/admin/clients", None).await;
        assert_eq!((status, clients), (200, json!([])));
    }
}

/// Calls the admin API of a realm as the operator would.
async fn as_operator(realm: &Realm, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/admin/realms/{}{path}", realm.keycloak().url(), realm.name);
    let mut request = http().request(method, url).bearer_auth(realm.operator_token().await);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("the admin API answers");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn keycloak_lets_the_operator_register_a_client_and_no_more() {
    let (plain, rotating) = tokio::join!(Realm::new(), Realm::rotating());
    for (realm, rotates) in [(plain, false), (rotating, true)] {
        let body = json!({"clientId": "chosen", "secret": "also-chosen-by-us"});
        let (status, reply) = as_operator(&realm, Method::POST, "/clients", Some(body)).await;
        assert_eq!(status, 201, "{reply}");
        let endpoint = format!("{}/protocol/openid-connect/revoke", realm.issuer());
        assert_eq!(revoke(&endpoint, "chosen", "also-chosen-by-us").await, 200);
        assert_eq!(revoke(&endpoint, "chosen", "wrong").await, 401);

        // Only the policy makes the first secret outlive the second.
        let client = realm.client("chosen").await.expect("the client");
        let path = format!("/clients/{}/client-secret", client["id"].as_str().expect("an ID"));
        let (status, second) = as_operator(&realm, Method::POST, &path, None).await;
        assert_eq!(status, 200, "{second}");
        let second = second["value"].as_str().expect("a secret");
        assert_eq!(revoke(&endpoint, "chosen", second).await, 200);
        let first = revoke(&endpoint, "chosen", "also-chosen-by-us").await;
        assert_eq!(first, if rotates { 200 } else { 401 }, "with the policy: {rotates}");

        // Of the realm it may read neither the users nor the policies.
        for path in ["/users", "/client-policies/policies"] {
            let (status, _) = as_operator(&realm, Method::GET, path, None).await;
            assert_eq!(status, 403, "{path}");
        }
    }
}
