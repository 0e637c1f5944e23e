//! The life of an incoming link's client: what its link changes, what others do to it at the
//! provider, and which provider it is at.

use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, client_is, machine, message, patch_link, provider, stays};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

async fn stage(teams: usize, more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), teams, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_converges_at_the_provider_field_by_field() {
    let stage = stage(1, json!({})).await;
    let team = stage.team();
    let people = json!({"incoming": {"oauth2": {"grantTypes": null, "redirectUris": ["https://ci.example.com/cb"], "scopes": ["REPO_READ"]}}});
    stage.apply_object(team, &machine("ci", people)).await;
    stage.registered(team, "ci").await;
    let id = stage.data(team, "ci-oauth").await["client-id"].clone();
    let now = client(&stage, &id).await.expect("registered");
    assert_eq!(now["grantTypes"], json!(["authorization_code", "refresh_token"]));
    let changes = [
        (
            json!({"redirectUris": ["https://ci.example.com/cb", "http://localhost:9/cb"]}),
            "redirectUris",
            json!(["http://localhost:9/cb", "https://ci.example.com/cb"]),
        ),
        (json!({"scopes": ["REPO_READ", "REPO_WRITE"]}), "scopes", json!(["REPO_READ", "REPO_WRITE"])),
        (json!({"scopes": null}), "scopes", json!([])),
        (json!({"grantTypes": ["authorization_code"]}), "grantTypes", json!(["authorization_code"])),
        (
            json!({"tokenEndpointAuthMethod": "client_secret_post"}),
            "tokenEndpointAuthMethod",
            json!("client_secret_post"),
        ),
    ];
    for (change, field, wanted) in changes {
        patch_link(&stage, team, "ci", json!({"spec": {"incoming": {"oauth2": change}}})).await;
        client_is(&stage, &id, field, |c| c[field] == wanted).await;
        stage.registered(team, "ci").await;
        assert!(authenticates(&stage, &stage.data(team, "ci-oauth").await).await, "{field}");
    }
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"application": {"name": "Bücherei 📚", "url": "https://b.example.com"}}}),
    )
    .await;
    client_is(&stage, &id, "its name", |c| c["name"] == "Bücherei 📚" && c["uri"] == "https://b.example.com")
        .await;

    // A public client has no secret, neither there nor here; and back.
    let confidential = stage.data(team, "ci-oauth").await;
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"oauth2": {"tokenEndpointAuthMethod": "none"}}}}),
    )
    .await;
    client_is(&stage, &id, "public", |c| c["tokenEndpointAuthMethod"] == "none" && c["hasSecret"] == false)
        .await;
    stage.registered(team, "ci").await;
    assert!(!stage.data(team, "ci-oauth").await.contains_key("client-secret"));
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"oauth2": {"tokenEndpointAuthMethod": "client_secret_post"}}}}),
    )
    .await;
    client_is(&stage, &id, "confidential", |c| c["hasSecret"] == true).await;
    stage.registered(team, "ci").await;
    assert_eq!(stage.data(team, "ci-oauth").await, confidential);
    assert_eq!(stage.clients().await, [id]);

    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"oauth2": {"scopes": ["REPO_READ", "NO_SUCH", "NEITHER"]}}}}),
    )
    .await;
    stage.condition(team, "ci", "Stalled", "True", "UnknownScope").await;
    let said = message(&stage, team, "ci", "Ready").await;
    assert!(
        said.contains("spec.incoming.oauth2.scopes: \"NEITHER\", \"NO_SUCH\" aren't offered")
            && said.contains("it offers: ")
            && said.contains("REPO_READ"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_somebody_touches_is_put_right_at_the_next_look() {
    let stage = stage(1, json!({"operator": {"resync": "1s"}})).await;
    let team = stage.team();
    stage
        .apply_object(team, &machine("ci", json!({"incoming": {"oauth2": {"scopes": ["REPO_READ"]}}})))
        .await;
    stage.registered(team, "ci").await;
    let data = stage.data(team, "ci-oauth").await;
    let path = format!("/admin/clients/{}", data["client-id"]);
    let before = client(&stage, &data["client-id"]).await.expect("registered");
    let put = async |change: Value| {
        let members = ["name", "redirectUris", "grantTypes", "scopes", "tokenEndpointAuthMethod", "owner"];
        let mut body: Value = members
            .iter()
            .map(|m| ((*m).to_owned(), before[*m].clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        crate::support::stage::merge(&mut body, change);
        let (status, answer) = stage.admin(Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    };
    // Its scopes, and its secret.
    put(json!({"scopes": ["REPO_ADMIN"]})).await;
    client_is(&stage, &data["client-id"], "its scopes again", |c| c["scopes"] == json!(["REPO_READ"])).await;
    put(json!({"secret": "somebody-elses-secret-of-some-length-0123456789"})).await;
    eventually(SOON, "the old secret again", async || authenticates(&stage, &data).await).await;
    assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
    eventually(SOON, "the client again", async || authenticates(&stage, &data).await).await;
    stage.registered(team, "ci").await;
    assert_eq!(stage.data(team, "ci-oauth").await, data);

    // Somebody else's client under our identifier is left alone.
    assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
    let theirs = json!({"name": "theirs", "grantTypes": ["client_credentials"], "tokenEndpointAuthMethod": "client_secret_basic"});
    eventually(SOON, "their client in its place", async || {
        let (status, body) = stage.admin(Method::PUT, &path, Some(theirs.clone())).await;
        if status == 201 {
            return Ok(());
        }
        stage.admin(Method::DELETE, &path, None).await;
        Err(body.to_string())
    })
    .await;
    stage.condition(team, "ci", "Stalled", "True", "ClientConflict").await;
    assert!(
        message(&stage, team, "ci", "Ready")
            .await
            .contains("it is left alone: remove it there, or name the link otherwise")
    );
    stays("their client", async || {
        client(&stage, &data["client-id"]).await.is_some_and(|c| c["name"] == "theirs")
    })
    .await;
    // Nor does the link's end take it along.
    stage.delete(team, "ci").await;
    assert_eq!(client(&stage, &data["client-id"]).await.map(|c| c["name"].clone()), Some(json!("theirs")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_provider_says_who_may_use_it_and_for_what() {
    let stage = stage(2, json!({"provider": {"default": false}})).await;
    let (team, other) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    let allow = async |allow: Value| {
        let patch = json!([{"op": "replace", "path": "/spec/allow", "value": allow}]);
        stage.patch("ClusterLinkProvider", "", &stage.provider_name, patch).await;
    };
    let link = |name: &str, oauth2: Value| {
        machine(name, json!({"providerRef": {"name": stage.provider_name}, "incoming": {"oauth2": oauth2}}))
    };
    allow(
        json!({"namespaces": {"names": [team]}, "scopes": ["REPO_READ"], "redirectHosts": ["*.example.com"]}),
    )
    .await;
    stage
        .apply_object(
            team,
            &link("fits", json!({"scopes": ["REPO_READ"], "redirectUris": ["https://a.example.com/"]})),
        )
        .await;
    stage.apply_object(team, &link("scope", json!({"scopes": ["REPO_READ", "REPO_WRITE"]}))).await;
    stage
        .apply_object(
            team,
            &link("host", json!({"redirectUris": ["https://a.example.com/", "https://example.com/"]})),
        )
        .await;
    stage.apply_object(other, &link("stranger", json!({}))).await;
    stage.registered(team, "fits").await;
    stage.condition(team, "scope", "Stalled", "True", "ScopeNotAllowed").await;
    let said = message(&stage, team, "scope", "Ready").await;
    assert!(said.contains("\"REPO_WRITE\"") && said.contains("spec.allow.scopes"), "{said}");
    stage.condition(team, "host", "Stalled", "True", "RedirectHostNotAllowed").await;
    let said = message(&stage, team, "host", "Ready").await;
    assert!(said.contains("https://example.com/") && said.contains("spec.allow.redirectHosts"), "{said}");
    stage.condition(other, "stranger", "Ready", "False", "NamespaceNotAllowed").await;
    assert!(
        message(&stage, other, "stranger", "Ready")
            .await
            .contains(&format!("doesn't allow links of namespace {other}"))
    );
    assert_eq!(stage.clients().await.len(), 1);
    // What is allowed later is taken up by itself; by labels too.
    allow(json!({"namespaces": {"names": [team]}, "scopes": ["REPO_READ", "REPO_WRITE"], "redirectHosts": ["*.example.com", "example.com"]})).await;
    stage.registered(team, "scope").await;
    stage.registered(team, "host").await;
    let label = json!({"metadata": {"labels": {"applinks": "yes"}}});
    stage.patch("Namespace", "", other, label.clone()).await;
    stage.patch("Namespace", "", team, label).await;
    allow(json!({"namespaces": {"matchLabels": {"applinks": "yes"}}})).await;
    stage.registered(other, "stranger").await;
    stage.registered(team, "fits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_is_the_newest_and_a_changed_default_moves_nobody() {
    let stage = stage(2, json!({"operator": {"resync": "2s"}})).await;
    let (team, other) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    let at = async |namespace: &str, name: &str| {
        let link = stage.registered(namespace, name).await;
        link.status.and_then(|s| s.provider).map(|p| p.name).unwrap_or_default()
    };
    stage.apply_object(team, &machine("first", json!({}))).await;
    let bundled = stage.provider_name.clone();
    assert_eq!(at(team, "first").await, bundled);
    // A creation time counts in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let newer = format!("newer-{}", stage.system);
    let mut object = provider(&stage, "ClusterLinkProvider", &newer, "applink-operator-admin-token");
    object["metadata"]["annotations"] = json!({"applink-operator.io/is-default-provider": "true"});
    stage.apply_object(team, &object).await;
    stage.put_secret(team, "provider", &[("token", &stage.admin_token().await)]).await;
    let mut own = provider(&stage, "LinkProvider", "own", "provider");
    own["metadata"]["annotations"] = json!({"applink-operator.io/is-default-provider": "true"});
    stage.apply_object(team, &own).await;
    stage.until_ready("LinkProvider", team, "own").await;
    stage.until_ready("ClusterLinkProvider", "", &newer).await;
    stage.apply_object(team, &machine("second", json!({}))).await;
    stage.apply_object(other, &machine("third", json!({}))).await;
    assert_eq!(at(team, "second").await, "own");
    assert_eq!(at(other, "third").await, newer);
    assert_eq!(at(team, "first").await, bundled);
    stays("the first link's place", async || at(team, "first").await == bundled).await;
    // Another object of the platform team's for the same service: the same client, which works all the while.
    let data = stage.data(team, "first-oauth").await;
    patch_link(&stage, team, "first", json!({"spec": {"providerRef": {"name": newer}}})).await;
    eventually(SOON, "the move", async || at(team, "first").await == newer).await;
    stays("the credentials", async || authenticates(&stage, &data).await).await;
    assert_eq!(stage.data(team, "first-oauth").await, data);
    // One of the namespace may be anybody's server: the same client, with a secret that is for it alone.
    let own = json!({"spec": {"providerRef": {"kind": "LinkProvider", "name": "own"}}});
    patch_link(&stage, team, "first", own).await;
    eventually(SOON, "the move", async || at(team, "first").await == "own").await;
    let moved = stage.data(team, "first-oauth").await;
    assert_eq!(moved["client-id"], data["client-id"]);
    assert!(authenticates(&stage, &moved).await && !authenticates(&stage, &data).await);
    assert_eq!(stage.clients().await.len(), 3);
    for (namespace, name) in [(team, "first"), (team, "second"), (other, "third")] {
        stage.delete(namespace, name).await;
    }
    stage.remove("ClusterLinkProvider", "", &newer).await;
    assert!(stage.clients().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_moves_to_another_service_without_a_gap() {
    let (mut here, there) = tokio::join!(stage(1, json!({})), stage(1, json!({})));
    let team = here.team().to_owned();
    here.apply_object(&team, &machine("ci", json!({}))).await;
    here.registered(&team, "ci").await;
    let old = here.data(&team, "ci-oauth").await;
    let name = format!("there-{}", here.system);
    here.put_secret(&here.system, "there", &[("token", &there.admin_token().await)]).await;
    let mut object = provider(&there, "ClusterLinkProvider", &name, "there");
    object["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": here.system});
    object["spec"]["allow"] = json!({"namespaces": {"all": {}}});
    here.apply_object(&team, &object).await;

    // The one that it leaves is down: the link is well at the new one, and says what is left to do.
    here.provider.stop().await;
    patch_link(&here, &team, "ci", json!({"spec": {"providerRef": {"name": name}}})).await;
    here.condition(&team, "ci", "Reconciling", "True", "ProviderUnreachable").await;
    here.registered(&team, "ci").await;
    let new = here.data(&team, "ci-oauth").await;
    assert_ne!(new["client-id"], old["client-id"]);
    assert!(authenticates(&there, &new).await);
    here.provider.start().await;
    here.provider.until_ready(SOON).await;
    eventually(SOON, "the old client gone", async || here.clients().await.is_empty()).await;
    // Without a name it stays where it is.
    patch_link(&here, &team, "ci", json!({"spec": {"providerRef": null}})).await;
    here.registered(&team, "ci").await;
    stays("the new place", async || authenticates(&there, &new).await && here.clients().await.is_empty())
        .await;
    here.delete(&team, "ci").await;
    assert!(there.clients().await.is_empty());
    here.remove("ClusterLinkProvider", "", &name).await;
}
