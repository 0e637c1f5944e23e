//! Outgoing links whose client authenticates with a private key, and links by a signed assertion, on real servers:
//! Keycloak and Ory Hydra. Hydra alone has the grant jwt-bearer; it takes no EdDSA.

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::outgoing::{access, another, machine, with};
use crate::support::hydra::Hydra;
use crate::support::keycloak::Realm;
use crate::support::keys::{self, Keys};
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, http};

async fn stage() -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await
}

/// A link by client credentials whose client signs with the key in the Secret NAME-client.
fn by_key(name: &str, issuer: &str, assertion: Value) -> Value {
    let client = json!({
        "clientId": name, "authMethod": "private_key_jwt", "assertion": assertion,
        "secretRef": {"name": format!("{name}-client"), "secretKey": "key.pem"},
    });
    with(machine(name, issuer), json!({"spec": {"outgoing": {"oauth2": {"client": client, "scopes": null}}}}))
}

async fn on_keycloak(
    stage: &Stage<'_>,
    realm: &Realm,
    name: &str,
    algorithm: &str,
    form: impl Fn(&Keys) -> String,
) {
    let keys = keys::make(algorithm).await;
    let client = json!({
        "clientId": name, "serviceAccountsEnabled": true, "standardFlowEnabled": false,
        "clientAuthenticatorType": "client-jwt",
        "attributes": {
            "use.jwks.string": "true", "jwks.string": json!({"keys": [keys.public]}).to_string(),
            "token.endpoint.auth.signing.alg": algorithm,
        },
    });
    let (status, body) = realm.admin(Method::POST, "/clients", Some(client)).await;
    assert_eq!(status, 201, "{body}");
    stage.put_secret(stage.team(), &format!("{name}-client"), &[("key.pem", &form(&keys))]).await;
    let assertion = json!({"keyId": "key-1", "algorithm": algorithm});
    stage.apply_object(stage.team(), &by_key(name, &realm.issuer(), assertion)).await;
    stage.ready(stage.team(), name).await;
    let token = access(stage, &format!("{name}-token")).await;
    // The server itself takes the token.
    let answer = http()
        .get(format!("{}/protocol/openid-connect/userinfo", realm.issuer()))
        .bearer_auth(&token)
        .send()
        .await
        .expect("Keycloak answers");
    // A machine's token has no scope openid: refused for that (403), not as unknown (401).
    assert_eq!(answer.status().as_u16(), 403, "{name}");
}

fn pkcs8(keys: &Keys) -> String {
    keys.pkcs8.clone()
}

fn classic(keys: &Keys) -> String {
    keys.classic.clone().expect("a PKCS#1 or SEC1 key")
}

fn jwk(keys: &Keys) -> String {
    keys.jwk.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_authenticates_at_keycloak() {
    let (stage, realm) = tokio::join!(stage(), Realm::new());
    on_keycloak(&stage, &realm, "rs256-pkcs1", "RS256", classic).await;
    on_keycloak(&stage, &realm, "ps256-pkcs8", "PS256", pkcs8).await;
    on_keycloak(&stage, &realm, "es256-sec1", "ES256", classic).await;
    on_keycloak(&stage, &realm, "es384-jwk", "ES384", jwk).await;
    on_keycloak(&stage, &realm, "eddsa-pkcs8", "EdDSA", pkcs8).await;

    // Another key than the server's: refused as a client, in words that hold no part of it.
    let wrong = keys::make("ES256").await;
    let team = stage.team();
    stage.put_secret(team, "es256-sec1-client", &[("key.pem", &wrong.pkcs8)]).await;
    stage.condition(team, "es256-sec1", "Ready", "False", "InvalidClient").await;
    // A public key alone, and a passphrase: said before anything is sent.
    for (text, words) in [
        (json!({"keys": [wrong.public]}).to_string(), "is a set of JWKs"),
        (wrong.public.to_string(), "has no private key"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nx\n-----END ENCRYPTED PRIVATE KEY-----".to_owned(),
            "passphrase",
        ),
        ("a secret".to_owned(), "is no private key"),
    ] {
        stage.put_secret(team, "es256-sec1-client", &[("key.pem", &text)]).await;
        let said = async || {
            let link = stage.condition(team, "es256-sec1", "Ready", "False", "InvalidPrivateKey").await;
            let status = serde_json::to_value(link.status).expect("JSON").to_string();
            if status.contains(words) { Ok(()) } else { Err(status) }
        };
        crate::support::wait::eventually(crate::support::stage::SOON, words, said).await;
    }
}

async fn client_at_hydra(hydra: &Hydra, id: &str, fields: Value) {
    let mut client = json!({"client_id": id, "grant_types": ["client_credentials"]});
    crate::support::stage::merge(&mut client, fields);
    let (status, body) = hydra.admin(Method::POST, "/admin/clients", Some(client)).await;
    assert_eq!(status, 201, "{body}");
}

async fn is_active(hydra: &Hydra, token: &str) -> Value {
    let answer = http()
        .post(format!("{}/admin/oauth2/introspect", hydra.admin_url()))
        .form(&[("token", token)])
        .send()
        .await
        .expect("Hydra answers");
    answer.json().await.expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_authenticates_at_hydra() {
    let (stage, hydra) = tokio::join!(stage(), Hydra::start());
    let team = stage.team();
    let one = async |name: &'static str, algorithm: &'static str, form: fn(&Keys) -> String| {
        let keys = keys::make(algorithm).await;
        let fields = json!({
            "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": algorithm,
            "jwks": {"keys": [keys.public]},
        });
        client_at_hydra(&hydra, name, fields).await;
        stage.put_secret(team, &format!("{name}-client"), &[("key.pem", &form(&keys))]).await;
        let assertion = json!({"keyId": "key-1", "algorithm": algorithm});
        stage.apply_object(team, &by_key(name, &hydra.issuer(), assertion)).await;
        stage.ready(team, name).await;
        let said = is_active(&hydra, &access(&stage, &format!("{name}-token")).await).await;
        assert_eq!((&said["active"], &said["client_id"]), (&json!(true), &json!(name)), "{said}");
    };
    join_all([
        Box::pin(one("rs256-jwk", "RS256", jwk)) as std::pin::Pin<Box<dyn Future<Output = ()>>>,
        Box::pin(one("ps256-pkcs1", "PS256", classic)),
        Box::pin(one("es256-pkcs8", "ES256", pkcs8)),
        Box::pin(one("es384-sec1", "ES384", classic)),
    ])
    .await;
    // Deleted, the client revokes its token, authenticated by its key.
    let token = access(&stage, "es256-pkcs8-token").await;
    stage.delete(team, "es256-pkcs8").await;
    stage.gone(team, "es256-pkcs8").await;
    assert_eq!(is_active(&hydra, &token).await["active"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_assertion_gives_a_token_at_hydra() {
    let (stage, hydra) = tokio::join!(stage(), Hydra::start());
    let team = stage.team();
    let fields = json!({
        "grant_types": ["urn:ietf:params:oauth:grant-type:jwt-bearer"], "client_secret": "our-client-secret",
        "scope": "builds:read", "token_endpoint_auth_method": "client_secret_post",
    });
    client_at_hydra(&hydra, "robot", fields).await;
    let link = |name: &str, jwt: Value| {
        let oauth2 = json!({
            "grant": {"clientCredentials": null, "jwtBearer": jwt},
            "client": {"clientId": "robot", "authMethod": "client_secret_post"},
            "scopes": ["builds:read"],
        });
        with(machine(name, &hydra.issuer()), json!({"spec": {"outgoing": {"oauth2": oauth2}}}))
    };
    let trust = async |issuer: &str, keys: &Keys| {
        let body = json!({
            "issuer": issuer, "allow_any_subject": true, "scope": ["builds:read"], "jwk": keys.public,
            "expires_at": "2999-01-01T00:00:00Z",
        });
        let (status, body) =
            hydra.admin(Method::POST, "/admin/trust/grants/jwt-bearer/issuers", Some(body)).await;
        assert_eq!(status, 201, "{body}");
    };

    // A Google service account's key file, as it comes. Where it says that tokens are got isn't called.
    let keys = keys::make("RS256").await;
    let email = "robot@project.iam.gserviceaccount.com";
    let file = json!({
        "type": "service_account", "project_id": "project", "private_key_id": "key-1", "private_key": keys.pkcs8,
        "client_email": email, "client_id": "1234567890", "token_uri": "https://evil.example.com/token",
    });
    stage.put_secret(team, "file-client", &[("client-secret", "our-client-secret")]).await;
    stage.put_secret(team, "file-key", &[("key.json", &file.to_string())]).await;
    let named = json!({"secretRef": {"name": "file-key", "key": "key.json"}});
    let mut from_file = link("file", named);
    from_file["spec"]["outgoing"]["refresh"] = json!({"every": "10s"});
    from_file["spec"]["outgoing"]["oauth2"]["client"]["secretRef"] = json!({"name": "file-client"});
    stage.apply_object(team, &from_file).await;
    // Not known there yet: no dead grant, but a hint, and it is tried again by itself.
    stage.condition(team, "file", "Ready", "False", "AssertionRefused").await;
    trust(email, &keys).await;
    stage.ready(team, "file").await;
    let token = access(&stage, "file-token").await;
    let said = is_active(&hydra, &token).await;
    assert_eq!(
        (&said["active"], &said["sub"], &said["scope"]),
        (&json!(true), &json!(email), &json!("builds:read"))
    );
    assert_ne!(another(&stage, "file", &token).await, token, "kept fresh by another assertion");

    // A key of one's own, with issuer and subject of the spec.
    let own = keys::make("ES256").await;
    let mut with_kid = own.jwk.clone();
    with_kid["kid"] = json!("key-1");
    trust("https://robots.example.com", &own).await;
    stage.put_secret(team, "own-client", &[("client-secret", "our-client-secret")]).await;
    stage.put_secret(team, "own-key", &[("key", &with_kid.to_string())]).await;
    let jwt = json!({
        "secretRef": {"name": "own-key", "key": "key"}, "issuer": "https://robots.example.com", "subject": "ann",
    });
    stage.apply_object(team, &link("own", jwt)).await;
    stage.ready(team, "own").await;
    assert_eq!(is_active(&hydra, &access(&stage, "own-token").await).await["sub"], "ann");

    // Files of Google's other kinds are refused, each in its words.
    for (kind, words) in
        [("external_account", "use the key file of a service account"), ("authorized_user", "a person's")]
    {
        stage.put_secret(team, "own-key", &[("key", &json!({"type": kind}).to_string())]).await;
        let link = stage.condition(team, "own", "Ready", "False", "InvalidPrivateKey").await;
        let said = serde_json::to_value(link.status).expect("JSON").to_string();
        crate::support::wait::eventually(crate::support::stage::SOON, words, async || {
            let link = stage.links(team).get("own").await.map_err(|e| e.to_string())?;
            let now = serde_json::to_value(link.status).expect("JSON").to_string();
            if now.contains(words) { Ok(()) } else { Err(format!("{said}\n{now}")) }
        })
        .await;
    }
}
