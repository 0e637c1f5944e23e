//! The end of links, providers and namespaces: nothing hangs, nothing stays, nobody else's goes.

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::json;

use super::binary;
use super::fixtures::{client, data, machine, message, no_clients, no_secret, patch_link, provider, stays};
use crate::support::objects;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::wait::eventually;

async fn stage(teams: usize) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), teams, json!({})).await
}

/// Waits until a provider object is Ready.
async fn provider_ready(stage: &Stage<'_>, kind: &str, namespace: &str, name: &str) {
    eventually(SOON, format!("{kind} {name} ready"), async || {
        let object = stage.object(kind, namespace, name).await.ok_or("it isn't there")?;
        let ready = condition(&object["status"], "Ready").is_some_and(|c| c["status"] == "True");
        if ready && object["metadata"]["finalizers"][0].is_string() {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    })
    .await;
}

/// The kept records of providers in the operator's namespace.
async fn records(stage: &Stage<'_>) -> Vec<String> {
    let params = ListParams::default().labels("app.kubernetes.io/component=provider");
    let all = stage.secrets(&stage.system).list(&params).await.expect("the Secrets of the operator");
    all.items.into_iter().filter_map(|secret| secret.metadata.name).collect()
}

async fn no_object(stage: &Stage<'_>, kind: &str, namespace: &str, name: &str) {
    eventually(SOON, format!("no {kind} {namespace}/{name}"), async || {
        match stage.object(kind, namespace, name).await {
            None => Ok(()),
            Some(left) => Err(left.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_its_provider_and_can_be_forced() {
    let resync = json!({"operator": {"resync": "2s"}});
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, resync).await;
    let team = stage.team().to_owned();
    for name in ["waits", "forced"] {
        stage.apply_object(&team, &machine(name, json!({}))).await;
        stage.ready(&team, name).await;
    }
    stage.provider.stop().await;
    stage.provider_ready(false).await;
    for name in ["waits", "forced"] {
        stage.links(&team).delete(name, &DeleteParams::default()).await.expect("delete");
        let links = stage.links(&team);
        eventually(SOON, "the reason why it waits", async || {
            let link = links.get(name).await.map_err(|e| e.to_string())?;
            let status = serde_json::to_value(&link.status).expect("json");
            let says = |t: &str| {
                condition(&status, t).is_some_and(|c| {
                    c["reason"] == "ProviderUnreachable"
                        && c["message"].as_str().is_some_and(|m| {
                            m.starts_with("deletion waits:")
                                && m.contains("annotate the link with applink-operator.io/force-delete=true")
                        })
                })
            };
            if says("Ready") && says("Reconciling") { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    patch_link(
        &stage,
        &team,
        "forced",
        json!({"metadata": {"annotations": {"applink-operator.io/force-delete": "true"}}}),
    )
    .await;
    stage.gone(&team, "forced").await;
    stays("the other one waits", async || {
        stage.links(&team).get_opt("waits").await.is_ok_and(|l| l.is_some())
    })
    .await;
    stage.provider.start().await;
    stage.provider.until_ready(SOON).await;
    stage.gone(&team, "waits").await;
    // What was forced is left there.
    let left = stage.clients().await;
    assert!(left.len() == 1 && left[0].contains(".forced."), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_its_secret_and_its_link_go_in_any_order() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let stage = stage(1).await;
    let team = stage.team();
    let token = stage.admin_token().await;
    let before = records(&stage).await;
    for kind in ["LinkProvider", "ClusterLinkProvider"] {
        // What a ClusterLinkProvider refers to stands in the operator's namespace.
        let home = if kind == "LinkProvider" { team } else { stage.system.as_str() };
        let name = |i: usize| format!("{}-{i}-{}", kind.to_lowercase(), std::process::id());
        for i in 0..ORDERS.len() {
            let name = name(i);
            stage.put_secret(home, &name, &[("token", &token)]).await;
            stage.apply_object(team, &provider(&stage, kind, &name, &name)).await;
            stage
                .apply_object(team, &machine(&name, json!({"providerRef": {"kind": kind, "name": name}})))
                .await;
        }
        for i in 0..ORDERS.len() {
            stage.ready(team, &name(i)).await;
        }
        assert_eq!(records(&stage).await.len(), before.len() + ORDERS.len());
        for (i, order) in ORDERS.iter().enumerate() {
            let name = name(i);
            for part in order {
                let (what, namespace) = [(kind, team), ("secret", home), ("applicationlink", team)][*part];
                objects::begin_deletion(stage.plane.access(), what, namespace, &name).await;
            }
        }
        for i in 0..ORDERS.len() {
            stage.gone(team, &name(i)).await;
            no_object(&stage, kind, team, &name(i)).await;
        }
        no_clients(&stage).await;
        assert_eq!(records(&stage).await, before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_whole_also_with_the_operator_killed_midway() {
    let mut stage = stage(3).await;
    let token = stage.admin_token().await;
    let before = records(&stage).await;
    for team in stage.teams.clone() {
        stage.put_secret(&team, "provider", &[("token", &token)]).await;
        stage.apply_object(&team, &provider(&stage, "LinkProvider", "own", "provider")).await;
        provider_ready(&stage, "linkprovider", &team, "own").await;
        for i in 0..5 {
            let own = json!({"providerRef": {"kind": "LinkProvider", "name": "own"}});
            let more = if i % 2 == 0 { own } else { json!({}) };
            stage.apply_object(&team, &machine(&format!("ci-{i}"), more)).await;
        }
        for i in 0..5 {
            stage.ready(&team, &format!("ci-{i}")).await;
        }
    }
    assert_eq!(stage.clients().await.len(), 15);
    let namespaces: Api<Namespace> = Api::all(stage.client.clone());
    let gone = async |team: &str| {
        eventually(SOON, format!("namespace {team} gone"), async || match namespaces.get_opt(team).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|n| n.and_then(|n| n.status)))),
        })
        .await;
    };
    // Whole.
    let teams = stage.teams.clone();
    namespaces.delete(&teams[0], &DeleteParams::default()).await.expect("delete");
    gone(&teams[0]).await;
    // With the operator killed as soon as the first link is gone.
    namespaces.delete(&teams[1], &DeleteParams::default()).await.expect("delete");
    let links = stage.links(&teams[1]);
    eventually(SOON, "the first link gone", async || {
        links.list(&kube::api::ListParams::default()).await.map(|l| l.items.len() < 5).unwrap_or(true)
    })
    .await;
    stage.operator.kill();
    stage.operator.start().await;
    gone(&teams[1]).await;
    // Without an operator until all that can go by itself is gone.
    stage.operator.stop().await;
    namespaces.delete(&teams[2], &DeleteParams::default()).await.expect("delete");
    no_secret(&stage, &teams[2], "provider").await;
    stage.operator.start().await;
    gone(&teams[2]).await;
    no_clients(&stage).await;
    eventually(SOON, "the kept records gone", async || {
        let left = records(&stage).await;
        if left == before { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_reads_no_spec_believes_no_annotation_and_can_leave_all_as_it_is() {
    let stage = stage(2).await;
    let (team, other) = (stage.teams[0].as_str(), stage.teams[1].as_str());
    for (namespace, name) in [(team, "ci"), (other, "theirs")] {
        stage.apply_object(namespace, &machine(name, json!({}))).await;
        stage.ready(namespace, name).await;
    }
    // A spec that only the operator can refuse.
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"secret": {"template": {"x": "{{ nope }}"}}}}}),
    )
    .await;
    stage.condition(team, "ci", "Stalled", "True", "InvalidSpec").await;
    stage.delete(team, "ci").await;
    let left = stage.clients().await;
    assert!(left.len() == 1 && left[0].starts_with(&format!("{other}.theirs.")), "{left:?}");

    // A claim that somebody forged: a namespace of others, a provider that isn't theirs to use.
    let token = stage.admin_token().await;
    stage.put_secret(other, "provider", &[("token", &token)]).await;
    stage.apply_object(other, &provider(&stage, "LinkProvider", "own", "provider")).await;
    provider_ready(&stage, "linkprovider", other, "own").await;
    let uid =
        stage.object("LinkProvider", other, "own").await.expect("it is there")["metadata"]["uid"].clone();
    let forged = json!([{"kind": "LinkProvider", "name": "own", "uid": uid}]).to_string();
    let mut link = machine("theirs", json!({}));
    link["metadata"]["annotations"] = json!({"applink-operator.io/registered-at": forged});
    link["metadata"]["finalizers"] = json!(["applink-operator.io/link"]);
    stage.apply_object(team, &link).await;
    stage.links(team).delete("theirs", &DeleteParams::default()).await.expect("delete");
    patch_link(
        &stage,
        team,
        "theirs",
        json!({"metadata": {"annotations": {"applink-operator.io/force-delete": "true"}}}),
    )
    .await;
    stage.gone(team, "theirs").await;
    assert!(client(&stage, &left[0]).await.is_some());
    let works = stage.data(other, "theirs-oauth").await;
    assert!(super::fixtures::authenticates(&stage, &works).await);

    // The annotation and the finalizer that were taken off come back, and nothing is left over.
    patch_link(
        &stage,
        other,
        "theirs",
        json!({"metadata": {"finalizers": null, "annotations": {"applink-operator.io/registered-at": null}}}),
    )
    .await;
    eventually(SOON, "finalizer and annotation", async || {
        let link = stage.links(other).get(stringify!(theirs)).await.map_err(|e| e.to_string())?;
        let claimed = link
            .metadata
            .annotations
            .clone()
            .unwrap_or_default()
            .contains_key("applink-operator.io/registered-at");
        if claimed && link.metadata.finalizers.is_some() {
            Ok(())
        } else {
            Err(format!("{:?}", link.metadata))
        }
    })
    .await;

    // Retain: client and Secret stay and work, without our mark.
    patch_link(&stage, other, "theirs", json!({"spec": {"deletionPolicy": "Retain"}})).await;
    stage.condition(other, "theirs", "Ready", "True", "").await;
    stage.delete(other, "theirs").await;
    stays("what is retained", async || data(&stage, other, "theirs-oauth").await == Some(works.clone()))
        .await;
    let kept = stage.secrets(other).get("theirs-oauth").await.expect("the Secret");
    assert!(kept.metadata.owner_references.unwrap_or_default().is_empty());
    assert!(!kept.metadata.labels.unwrap_or_default().contains_key("app.kubernetes.io/managed-by"));
    assert!(super::fixtures::authenticates(&stage, &works).await);
    // A link that comes back finds a Secret that isn't its own, and says how to go on.
    stage.apply_object(other, &machine("theirs", json!({}))).await;
    stage.condition(other, "theirs", "Stalled", "True", "SecretConflict").await;
    assert!(message(&stage, other, "theirs", "Ready").await.contains("take-over-by=theirs"));
}

/// `kubectl replace` with a manifest of one's own takes the finalizer and the annotation off. No client stays behind
/// for that: not of a link that moves with it, and not of one that is suspended or whose spec isn't valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_manifest_leaves_no_client_behind() {
    let stage = stage(1).await;
    let team = stage.team();
    let bare =
        json!({"metadata": {"finalizers": null, "annotations": {"applink-operator.io/registered-at": null}}});
    let held = async |name: &str| {
        eventually(SOON, format!("{name} held"), async || {
            let link = stage.links(team).get(name).await.map_err(|e| e.to_string())?.metadata;
            let claimed =
                link.annotations.iter().flatten().any(|(k, _)| k == "applink-operator.io/registered-at");
            if claimed && link.finalizers.is_some_and(|f| f.len() == 1) {
                Ok(())
            } else {
                Err("not held".to_owned())
            }
        })
        .await;
    };
    let cases = [
        ("suspended", json!({"suspend": true})),
        ("invalid", json!({"incoming": {"secret": {"template": {"x": "{{ nope }}"}}}})),
        ("nowhere", json!({"providerRef": {"kind": "LinkProvider", "name": "nowhere"}})),
    ];
    for (name, spec) in cases {
        stage.apply_object(team, &machine(name, json!({}))).await;
        stage.condition(team, name, "Ready", "True", "").await;
        patch_link(&stage, team, name, json!({"spec": spec})).await;
        eventually(SOON, "the new spec was looked at", async || {
            let link = stage.links(team).get(name).await.map_err(|e| e.to_string())?;
            let seen = link.status.map(|s| s.observed_generation);
            if seen == link.metadata.generation { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        patch_link(&stage, team, name, bare.clone()).await;
        held(name).await;
        stage.delete(team, name).await;
    }
    no_clients(&stage).await;

    // In one write with another provider: the old one's client goes all the same.
    stage.apply_object(team, &machine("moves", json!({}))).await;
    stage.condition(team, "moves", "Ready", "True", "").await;
    let mut moved = bare.clone();
    moved["spec"] = json!({"providerRef": {"kind": "LinkProvider", "name": "nowhere"}});
    patch_link(&stage, team, "moves", moved).await;
    held("moves").await;
    stage.delete(team, "moves").await;
    no_clients(&stage).await;
}
