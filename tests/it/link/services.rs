//! A link's life on each kind of provider service, through the operator: registered, its Secret authenticates at the
//! address that stands in it, rotated, edited at the service and put right, deleted with nothing left. Keycloak is real,
//! with and without two secrets a client; dynamic registration is the bundled provider's; Bitbucket is the stub of its
//! contract. Hydra's turn is in the crash sweep.

use serde_json::{Value, json};

use super::binary;
use crate::support::bitbucket_stub::{ADMIN, BitbucketStub, Knobs, PASSWORD};
use crate::support::keycloak::Realm;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, http, merge};
use crate::support::tls_front::TlsFront;
use crate::support::wait::eventually;
use kube::api::{Patch, PatchParams};

async fn stage(more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, more).await
}

/// Makes a provider of the whole cluster, and waits until it is ready.
async fn provider(stage: &Stage<'_>, kind: &str, service: Value) -> String {
    let name = format!("{kind}-{}", stage.system);
    let provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
        "metadata": {"name": name, "labels": {"applink-operator.io/operator-namespace": stage.system}},
        "spec": {kind: service, "allow": {"namespaces": {"names": stage.teams}}},
    });
    stage.apply_object(stage.team(), &provider).await;
    stage.until_ready("ClusterLinkProvider", "", &name).await;
    name
}

fn link(name: &str, provider: &str, oauth2: Value) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI dashboard"},
            "providerRef": {"name": provider},
            "incoming": {"oauth2": oauth2},
        },
    })
}

async fn rotate(stage: &Stage<'_>, name: &str, request: &str) {
    let patch = json!({"metadata": {"annotations": {"applink-operator.io/rotate": request}}});
    let links = stage.links(stage.team());
    links.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a request");
    eventually(SOON, format!("{name}: request {request} carried out"), async || {
        let link = links.get(name).await.map_err(|e| e.to_string())?;
        let done = link.status.clone().and_then(|s| s.incoming).and_then(|i| i.last_request);
        if done.as_deref() == Some(request) { Ok(()) } else { Err(format!("{:?}", link.status)) }
    })
    .await;
    stage.ready(stage.team(), name).await;
}

/// The status of a token request by client credentials with what a Secret says.
async fn token(data: &std::collections::BTreeMap<String, String>) -> u16 {
    let answer = http()
        .post(&data["token-endpoint"])
        .basic_auth(&data["client-id"], Some(&data["client-secret"]))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .expect("the token endpoint answers");
    answer.status().as_u16()
}

async fn on_keycloak(realm: Realm, two_secrets: bool) {
    let stage = stage(json!({"operator": {"resync": "3s"}})).await;
    let team = stage.team().to_owned();
    let (id, secret) = (realm.operator_id.as_str(), realm.operator_secret.as_str());
    stage.put_secret(&stage.system, "keycloak", &[("client-id", id), ("client-secret", secret)]).await;
    let service = json!({
        "url": realm.keycloak().url(), "realm": realm.name, "clientSecretRef": {"name": "keycloak"},
    });
    let provider = provider(&stage, "keycloak", service).await;
    stage.apply_object(&team, &link("ci", &provider, json!({"grantTypes": ["client_credentials"]}))).await;
    stage.ready(&team, "ci").await;
    let first = stage.data(&team, "ci-oauth").await;
    assert_eq!((first["issuer-uri"].as_str(), token(&first).await), (realm.issuer().as_str(), 200));

    rotate(&stage, "ci", "one").await;
    let second = stage.data(&team, "ci-oauth").await;
    assert_ne!(first["client-secret"], second["client-secret"]);
    assert_eq!((token(&second).await, token(&first).await), (200, if two_secrets { 200 } else { 401 }));
    let status = stage.ready(&team, "ci").await.status.and_then(|s| s.incoming).expect("a client");
    assert_eq!((status.previous_until.is_some(), status.last_gap.is_some()), (two_secrets, !two_secrets));

    // Disabled by hand: put right, with the same credentials.
    let uuid = realm.client(&first["client-id"]).await.expect("the client")["id"].clone();
    let path = format!("/clients/{}", uuid.as_str().expect("an ID"));
    let (status, reply) =
        realm.admin(reqwest::Method::PUT, &path, Some(json!({"enabled": false, "attributes": {}}))).await;
    assert_eq!(status, 204, "{reply}");
    eventually(SOON, "the client enabled again", async || match token(&second).await {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    stage.delete(&team, "ci").await;
    assert!(realm.client(&first["client-id"]).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_with_one_secret_a_client() {
    on_keycloak(Realm::new().await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_with_two_secrets_a_client() {
    on_keycloak(Realm::rotating().await, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamic_registration() {
    let stage =
        stage(json!({"provider": {"registration": {"enabled": true}}, "operator": {"resync": "3s"}})).await;
    let team = stage.team().to_owned();
    let body = json!({"expiresIn": 3600, "uses": 3});
    let (status, reply) = stage.admin(reqwest::Method::POST, "/admin/registration-tokens", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    let initial = reply["token"].as_str().expect("a token");
    stage.put_secret(&stage.system, "initial", &[("token", initial)]).await;
    let service = json!({
        "issuer": stage.provider_url, "initialAccessTokenSecretRef": {"name": "initial", "key": "token"},
    });
    let provider = provider(&stage, "registration", service).await;
    let oauth2 = json!({"grantTypes": ["client_credentials"], "scopes": ["REPO_READ"]});
    stage.apply_object(&team, &link("ci", &provider, oauth2)).await;
    stage.ready(&team, "ci").await;
    let first = stage.data(&team, "ci-oauth").await;
    assert_eq!((token(&first).await, stage.clients().await), (200, vec![first["client-id"].clone()]));

    // The record with the registration access token stands in the operator's namespace alone.
    let uid = stage.ready(&team, "ci").await.metadata.uid.expect("a UID");
    assert!(stage.secrets(&stage.system).get(&format!("applink-client-{uid}")).await.is_ok());

    // A changed scope; the client stays the same one.
    let patch = json!({"spec": {"incoming": {"oauth2": {"scopes": ["REPO_READ", "REPO_WRITE"]}}}});
    let links = stage.links(&team);
    links.patch("ci", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a change");
    stage.ready(&team, "ci").await;
    let (_, client) =
        stage.admin(reqwest::Method::GET, &format!("/admin/clients/{}", first["client-id"]), None).await;
    assert_eq!(client["scopes"], json!(["REPO_READ", "REPO_WRITE"]));
    assert_eq!(stage.data(&team, "ci-oauth").await["client-secret"], first["client-secret"]);

    // There is no new secret to be had for a client that is there.
    let request = json!({"metadata": {"annotations": {"applink-operator.io/rotate": "one"}}});
    links.patch("ci", &PatchParams::default(), &Patch::Merge(request)).await.expect("a request");
    stage.condition(&team, "ci", "Stalled", "True", "RotationUnsupported").await;
    let back = json!({"metadata": {"annotations": {"applink-operator.io/rotate": null}}});
    links.patch("ci", &PatchParams::default(), &Patch::Merge(back)).await.expect("no request");
    stage.ready(&team, "ci").await;

    // Deleted there: another one takes its place.
    let (status, _) =
        stage.admin(reqwest::Method::DELETE, &format!("/admin/clients/{}", first["client-id"]), None).await;
    assert_eq!(status, 204);
    eventually(SOON, "another client", async || {
        let now = stage.data(&team, "ci-oauth").await;
        if now["client-id"] == first["client-id"] { Err("still the first".to_owned()) } else { Ok(()) }
    })
    .await;
    stage.ready(&team, "ci").await;
    assert_eq!(token(&stage.data(&team, "ci-oauth").await).await, 200);
    stage.delete(&team, "ci").await;
    assert!(stage.clients().await.is_empty());
    assert!(
        stage
            .secrets(&stage.system)
            .get_opt(&format!("applink-client-{uid}"))
            .await
            .expect("asked")
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bitbucket_by_its_contract() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let stage = stage(json!({"operator": {"resync": "3s"}})).await;
    let team = stage.team().to_owned();
    stage.put_secret(&stage.system, "bitbucket", &[("username", ADMIN), ("password", PASSWORD)]).await;
    let service = json!({"url": stub.url, "userSecretRef": {"name": "bitbucket"}});
    let provider = provider(&stage, "bitbucket", service).await;
    let oauth2 = json!({
        "redirectUris": ["https://ci.example.com/cb"], "scopes": ["REPO_WRITE"],
        "tokenEndpointAuthMethod": "client_secret_post",
    });
    stage.apply_object(&team, &link("ci", &provider, oauth2)).await;
    stage.ready(&team, "ci").await;
    let holds = async || {
        let data = stage.data(&team, "ci-oauth").await;
        let all = stub.clients();
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].name.starts_with("CI dashboard"), "{}", all[0].name);
        assert_eq!((&data["client-id"], &data["client-secret"]), (&all[0].client_id, &all[0].secret));
        data
    };
    let first = holds().await;
    rotate(&stage, "ci", "one").await;
    let second = holds().await;
    assert_eq!(first["client-id"], second["client-id"]);
    assert_ne!(first["client-secret"], second["client-secret"]);
    // Its scope edited by hand.
    stub.edit(|all| all[0].scope = "PROJECT_ADMIN".into());
    eventually(SOON, "the scope as the link says", async || {
        let scope = stub.clients()[0].scope.clone();
        if scope == "REPO_WRITE" { Ok(()) } else { Err(scope) }
    })
    .await;
    stage.delete(&team, "ci").await;
    assert!(stub.clients().is_empty());
    stub.assert_kept();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_a_private_authority_that_asks_for_a_certificate() {
    let stage = stage(json!({})).await;
    let team = stage.team().to_owned();
    let front = TlsFront::before(stage.admin_url.trim_start_matches("http://")).await;
    let admin = stage.admin_token().await;
    stage.put_secret(&stage.system, "admin", &[("token", &admin)]).await;
    let name = format!("mutual-{}", stage.system);
    let apply = async |more: Value| {
        let mut bundled = json!({
            "url": stage.provider_url, "admin": {"url": front.url, "tokenSecretRef": {"name": "admin", "key": "token"}},
        });
        merge(&mut bundled, more);
        let provider = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
            "metadata": {"name": name, "labels": {"applink-operator.io/operator-namespace": stage.system}},
            "spec": {"bundled": bundled, "allow": {"namespaces": {"names": stage.teams}}},
        });
        stage.apply_object(&team, &provider).await;
    };
    let says = async |wanted: &str| {
        let args = ["get", "clusterlinkprovider", &name, "-o", "jsonpath={.status.conditions[0].message}"];
        eventually(SOON, format!("the provider saying {wanted}"), async || {
            let said = stage.plane.kubectl(&args).await.ok();
            if said.contains(wanted) { Ok(()) } else { Err(said) }
        })
        .await;
    };
    apply(json!({})).await;
    says("certificate").await;
    apply(json!({"caBundle": front.ca})).await;
    says("certificate").await;
    // Of another authority.
    let other = TlsFront::before("127.0.0.1:1").await;
    let certificate = json!({"clientCertificateSecretRef": {"name": "mutual"}, "caBundle": front.ca});
    stage
        .put_secret(&stage.system, "mutual", &[("tls.crt", &other.certificate), ("tls.key", &other.key)])
        .await;
    apply(certificate).await;
    says("certificate").await;
    // The right one, and a link lives on it.
    stage
        .put_secret(&stage.system, "mutual", &[("tls.crt", &front.certificate), ("tls.key", &front.key)])
        .await;
    says("takes the operator's credential").await;
    stage.apply_object(&team, &link("ci", &name, json!({"grantTypes": ["client_credentials"]}))).await;
    stage.ready(&team, "ci").await;
    assert_eq!(token(&stage.data(&team, "ci-oauth").await).await, 200);
    stage.delete(&team, "ci").await;
    assert!(stage.clients().await.is_empty());
}
