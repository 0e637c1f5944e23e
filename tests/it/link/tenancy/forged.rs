//! What takes more than a manifest: marks forged at the provider, owners forged on Secrets, a namespace made anew, names that
//! look alike.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use reqwest::Method;
use serde_json::{Value, json};

use super::super::binary;
use super::super::fixtures::{authenticates, machine, message, patch_link, stays};
use super::super::watcher::at_rest;
use super::scene::{Scene, plane};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, merge};
use crate::support::wait::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_was_forged_at_the_provider_is_refused() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 2, json!({})).await;
    let (tenant, victim) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    stage.apply_object(victim, &machine("ci", json!({}))).await;
    stage.ready(victim, "ci").await;
    let theirs = stage.data(victim, "ci-oauth").await;
    let get = async |id: &str| stage.admin(Method::GET, &format!("/admin/clients/{id}"), None).await.1;
    let before = get(&theirs["client-id"]).await;
    // The identifier and the record that the tenant's own client would have.
    stage.apply_object(tenant, &machine("ci", json!({}))).await;
    stage.ready(tenant, "ci").await;
    let id = stage.data(tenant, "ci-oauth").await["client-id"].clone();
    let genuine = get(&id).await["owner"].clone();
    stage.delete(tenant, "ci").await;
    let with = |more: Value| {
        let mut owner = genuine.clone();
        merge(&mut owner, more);
        owner
    };
    let records = [
        ("nobody's", Value::Null),
        ("the victim's record", before["owner"].clone()),
        ("the victim's mark on a record of one's own", with(json!({"mark": before["owner"]["mark"]}))),
        ("a mark that is made up", with(json!({"mark": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE"}))),
        ("a higher serial under a genuine mark", with(json!({"serial": 99}))),
        ("another request under a genuine mark", with(json!({"request": "x"}))),
        ("another link's UID under a genuine mark", with(json!({"uid": before["owner"]["uid"]}))),
        ("another installation", with(json!({"installation": "somebody-elses"}))),
        ("a mark of no length", with(json!({"mark": "-"}))),
    ];
    let count = records.len();
    for (what, owner) in records {
        let mut body = json!({
            "name": "forged", "grantTypes": ["client_credentials"],
            "tokenEndpointAuthMethod": "client_secret_basic", "secret": "a secret that somebody knows",
        });
        if !owner.is_null() {
            body["owner"] = owner;
        }
        let path = format!("/admin/clients/{id}");
        let (status, reply) = stage.admin(Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 201, "{what}: {reply}");
        let forged = get(&id).await;
        stage.apply_object(tenant, &machine("ci", json!({}))).await;
        stage.condition(tenant, "ci", "Stalled", "True", "ClientConflict").await;
        let said = message(&stage, tenant, "ci", "Ready").await;
        assert!(said.contains(&id) && said.contains("it is left alone"), "{what}: {said}");
        assert!(stage.secrets(tenant).get_opt("ci-oauth").await.expect("an answer").is_none(), "{what}");
        assert_eq!(get(&id).await, forged, "{what}");
        stage.delete(tenant, "ci").await;
        assert_eq!(get(&id).await, forged, "{what}: after the link's end");
        assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
    }
    assert_eq!(get(&theirs["client-id"]).await, before);
    assert!(authenticates(&stage, &theirs).await);
    eprintln!("tenancy: {count} forged owner records, none believed");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_look_alike_are_different_clients() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 2, json!({})).await;
    let (a, b) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    // The readable part of an identifier ends at 80 characters; dots stand in names of links, not of namespaces.
    let long = "x".repeat(100);
    let names = [
        "ci".to_owned(),
        "ci.oauth".into(),
        "ci-oauth".into(),
        format!("{long}-1"),
        format!("{long}-2"),
        format!("{a}.ci"),
    ];
    for team in [a, b] {
        for name in &names {
            stage
                .apply_object(
                    team,
                    &machine(name, json!({"incoming": {"secret": {"name": format!("s.{name}")}}})),
                )
                .await;
        }
    }
    let mut seen = std::collections::BTreeMap::new();
    for team in [a, b] {
        for name in &names {
            stage.ready(team, name).await;
            let data = stage.data(team, &format!("s.{name}")).await;
            assert!(authenticates(&stage, &data).await);
            assert_eq!(seen.insert(data["client-id"].clone(), data["client-secret"].clone()), None, "{name}");
        }
    }
    let secrets: std::collections::BTreeSet<_> = seen.values().collect();
    assert_eq!((secrets.len(), stage.clients().await.len()), (2 * names.len(), 2 * names.len()));
    for name in &names {
        stage.delete(a, name).await;
    }
    assert!(stage.clients().await.iter().all(|c| c.starts_with(&format!("{b}."))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_with_a_forged_owner_does_nothing_to_the_owner() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 2, json!({})).await;
    let (tenant, victim) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    for policy in ["Delete", "Retain"] {
        let name = policy.to_lowercase();
        stage.apply_object(victim, &machine(&name, json!({"deletionPolicy": policy}))).await;
        let link = stage.ready(victim, &name).await;
        let owner = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "name": name,
            "uid": link.metadata.uid, "controller": true, "blockOwnerDeletion": true,
        });
        let forged = json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": {"client-id": "forged", "client-secret": "forged"},
            "metadata": {
                "name": format!("{name}-oauth"), "ownerReferences": [owner],
                "labels": {
                    "app.kubernetes.io/managed-by": "applink-operator", "app.kubernetes.io/component": "oauth-client",
                    "applink-operator.io/link": name,
                },
            },
        });
        let before = stage.secrets(victim).get(&format!("{name}-oauth")).await.expect("the Secret");
        stage.apply_object(tenant, &forged).await;
        at_rest(&stage).await;
        assert_eq!(stage.secrets(victim).get(&format!("{name}-oauth")).await.expect("the Secret"), before);
        let now = stage.links(victim).get(&name).await.expect("the link");
        assert_eq!(now.metadata.resource_version, link.metadata.resource_version, "nothing was written");
        // Nor is the forged one touched by the operator, also at the link's end. (A garbage collector may remove it.)
        let mark = stage.plane.audit_mark().await;
        stage.delete(victim, &name).await;
        let touched = |e: &crate::support::audit::AuditEvent| {
            e.is_by(&stage.system, "applink-operator") && e.is_write() && e.object_ref.namespace == tenant
        };
        assert!(stage.plane.audit_since(mark, touched).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_made_anew_inherits_nothing_unless_it_may() {
    let plane = plane().await;
    let scene = Scene::set(&plane).await;
    let stage = &scene.stage;
    let team = scene.tenant();
    stage.apply_object(team, &machine("ci", json!({"deletionPolicy": "Retain"}))).await;
    stage.ready(team, "ci").await;
    let old = stage.data(team, "ci-oauth").await;
    let before = scene.client(&old["client-id"]).await;
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    namespaces.delete(team, &DeleteParams::default()).await.expect("delete");
    eventually(SOON, "the namespace gone", async || {
        namespaces.get_opt(team).await.map_err(|e| e.to_string()).and_then(|n| match n {
            None => Ok(()),
            Some(n) => Err(format!("{:?}", n.status)),
        })
    })
    .await;
    // What was to be retained works on, for whoever has its credentials.
    assert!(authenticates(stage, &old).await);
    let anew = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}});
    stage.apply_object("default", &anew).await;
    scene.grant(team).await;
    let made = scene.apply(team, &machine("ci", json!({}))).await;
    made.ok();
    stage.condition(team, "ci", "Stalled", "True", "RebindNotAllowed").await;
    let said = message(stage, team, "ci", "Ready").await;
    assert!(
        said.contains("an earlier namespace of this name") && said.contains("spec.allow.rebind"),
        "{said}"
    );
    stays("the client of before", async || scene.client(&old["client-id"]).await == before).await;
    assert!(stage.secrets(team).get_opt("ci-oauth").await.expect("an answer").is_none());
    // Its end takes nothing along either.
    stage.delete(team, "ci").await;
    assert_eq!(scene.client(&old["client-id"]).await, before);
    assert!(authenticates(stage, &old).await);

    // Where the platform team says so, the client is bound again, to a secret that nobody of before knows.
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.condition(team, "ci", "Stalled", "True", "RebindNotAllowed").await;
    let rebind = json!({"spec": {"allow": {"rebind": true}}});
    stage.patch("ClusterLinkProvider", "", &stage.provider_name, rebind).await;
    stage.ready(team, "ci").await;
    let new = stage.data(team, "ci-oauth").await;
    assert_eq!(new["client-id"], old["client-id"]);
    assert!(authenticates(stage, &new).await && !authenticates(stage, &old).await);
    patch_link(stage, team, "ci", json!({"spec": {"deletionPolicy": "Delete"}})).await;
    stage.delete(team, "ci").await;
    assert!(stage.clients().await.is_empty());
}
