//! A cluster is restored or rebuilt, or its master key is lost: what `docs/runbook.md` says, done.

use std::path::Path;
use std::process::{Command, Stdio};

use kube::api::DeleteParams;
use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine, message, patch_link, provider, stays};
use crate::support::plane::ControlPlane;
use crate::support::programs::{Output, run};
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

const KEY: &str = "applink-operator-master-key";

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(done.success());
}

async fn tool(stage: &Stage<'_>, args: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", "/nonexistent").env("KUBECONFIG", stage.plane.kubeconfig());
    command.stdin(Stdio::null()).args(args).args(["--operator-namespace", &stage.system]);
    run(command).await
}

async fn serial(stage: &Stage<'_>, team: &str) -> i64 {
    let link = stage.links(team).get("ci").await.expect("the link");
    link.status.and_then(|s| s.incoming).map_or(0, |i| i.serial)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_of_yesterday_gets_the_credentials_of_today() {
    let plane = ControlPlane::start(Default::default()).await;
    let mut stage = Stage::set(&plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    stage.apply_object(&team, &machine("ci", json!({}))).await;
    stage.ready(&team, "ci").await;
    let yesterday = stage.data(&team, "ci-oauth").await;
    let backup = plane.run_dir().path().join("backup");
    stage.operator.stop().await;
    plane.with_etcd_stopped(|etcd| copy(etcd, &backup)).await;
    stage.operator.start().await;

    // After the backup the secret is rotated, twice, and the one of the backup is dead.
    for n in 2..4 {
        patch_link(
            &stage,
            &team,
            "ci",
            json!({"metadata": {"annotations": {"applink-operator.io/rotate-now": n.to_string()}}}),
        )
        .await;
        eventually(SOON, format!("serial {n}"), async || serial(&stage, &team).await == n).await;
        stage.ready(&team, "ci").await;
    }
    let today = stage.data(&team, "ci-oauth").await;
    assert!(authenticates(&stage, &today).await && !authenticates(&stage, &yesterday).await);

    stage.operator.stop().await;
    plane.with_etcd_stopped(|etcd| copy(&backup, etcd)).await;
    assert_eq!(stage.data(&team, "ci-oauth").await, yesterday);
    assert_eq!(serial(&stage, &team).await, 1);
    stage.operator.start().await;
    eventually(SOON, "today's credentials", async || stage.data(&team, "ci-oauth").await == today).await;
    stage.ready(&team, "ci").await;
    assert!(authenticates(&stage, &today).await && !authenticates(&stage, &yesterday).await);
    assert_eq!((serial(&stage, &team).await, stage.clients().await.len()), (3, 1));
    stage.delete(&team, "ci").await;
    assert!(stage.clients().await.is_empty());
}

/// The Secret with the installation's keys, as a manifest.
fn key_secret(data: &std::collections::BTreeMap<String, k8s_openapi::ByteString>) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_cluster_beside_the_old_one_then_in_its_place_then_without_its_key() {
    // The old cluster, with the provider service that outlives it.
    let mut old = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = old.team().to_owned();
    old.apply_object(&team, &machine("ci", json!({}))).await;
    old.ready(&team, "ci").await;
    let before = old.data(&team, "ci-oauth").await;
    let id = before["client-id"].clone();

    // The new cluster has a namespace of the same name, an installation of its own, and the same provider service.
    let plane = ControlPlane::start(Default::default()).await;
    plane.kubectl(&["create", "namespace", &team]).await.ok();
    let mut new = Stage::set(&plane, binary(), 0, json!({"watchNamespaces": [team]})).await;
    let token = old.admin_token().await;
    new.put_secret(&new.system, "old-token", &[("token", &token)]).await;
    let mut object = provider(&old, "ClusterLinkProvider", "shared", "old-token");
    object["metadata"]["labels"]["applink-operator.io/operator-namespace"] = json!(new.system);
    new.apply_object(&new.system, &object).await;
    let link = machine("ci", json!({"providerRef": {"name": "shared"}}));

    // Two installations, one provider: they don't see each other.
    new.apply_object(&team, &link).await;
    new.ready(&team, "ci").await;
    let beside = new.data(&team, "ci-oauth").await;
    assert_ne!(beside["client-id"], id);
    assert!(authenticates(&old, &before).await && authenticates(&old, &beside).await);
    let orphans = tool(&new, &["orphans", "--provider", "shared", "--delete", &id, "-o", "json"]).await;
    assert_eq!(orphans.code, Some(1), "{orphans:?}");
    let report: Value = serde_json::from_str(&orphans.stdout).expect("json");
    assert_eq!(
        (&report["ours"], &report["otherInstallations"], &report["orphans"]),
        (&json!(1), &json!(1), &json!([])),
        "{report}"
    );
    assert_eq!(report["refused"][0]["why"], "it belongs to another installation");
    let import = tool(&new, &["import", "--provider", "shared", "-n", &team]).await;
    assert!(import.stdout.starts_with("# 0 clients"), "{import:?}");
    new.delete(&team, "ci").await;
    assert_eq!(old.clients().await, std::slice::from_ref(&id));

    // The old cluster is lost; the new one gets its master key.
    old.operator.stop().await;
    new.operator.stop().await;
    let key = old.secrets(&old.system).get(KEY).await.expect("the master key").data.expect("data");
    new.secrets(&new.system).delete(KEY, &DeleteParams::default()).await.expect("deleted");
    new.apply_object(&new.system, &key_secret(&key)).await;
    new.operator.start().await;
    let orphans = tool(&new, &["orphans", "--provider", "shared"]).await;
    assert!(
        orphans.code == Some(1)
            && orphans.stdout.contains(&id)
            && orphans.stdout.contains("its link is gone"),
        "{orphans:?}"
    );
    new.apply_object(&team, &link).await;
    new.condition(&team, "ci", "Stalled", "True", "RebindNotAllowed").await;
    assert!(message(&new, &team, "ci", "Ready").await.contains("spec.allow.rebind"));
    assert!(authenticates(&old, &before).await);
    plane
        .kubectl(&[
            "patch",
            "clusterlinkprovider",
            "shared",
            "--type=merge",
            "-p",
            r#"{"spec":{"allow":{"rebind":true}}}"#,
        ])
        .await
        .ok();
    new.ready(&team, "ci").await;
    let bound = new.data(&team, "ci-oauth").await;
    assert_eq!((bound["client-id"].as_str(), old.clients().await.len()), (id.as_str(), 1));
    // A secret that nobody had before.
    assert!(authenticates(&old, &bound).await && !authenticates(&old, &before).await);
    let orphans = tool(&new, &["orphans", "--provider", "shared"]).await;
    assert_eq!(orphans.code, Some(0), "{orphans:?}");

    // The key is lost: nothing is made anew, and what works goes on working.
    new.secrets(&new.system).delete(KEY, &DeleteParams::default()).await.expect("deleted");
    new.condition(&team, "ci", "Stalled", "True", "MasterKeyMissing").await;
    stays("no key", async || new.secrets(&new.system).get_opt(KEY).await.is_ok_and(|s| s.is_none())).await;
    assert!(authenticates(&old, &bound).await);
    let said = tool(&new, &["orphans", "--provider", "shared"]).await;
    assert!(said.code == Some(2) && said.stderr.contains("MasterKeyMissing"), "{said:?}");
    // A new one by hand, under the old identity: the client's mark isn't its own.
    let mut data = key.clone();
    data.insert("key.1".into(), k8s_openapi::ByteString(vec![7; 32]));
    new.apply_object(&new.system, &key_secret(&data)).await;
    new.condition(&team, "ci", "Stalled", "True", "ClientConflict").await;
    assert!(authenticates(&old, &bound).await);
    let forged = tool(&new, &["orphans", "--provider", "shared", "--delete", &id]).await;
    assert!(forged.code == Some(1) && forged.stderr.contains("isn't genuine"), "{forged:?}");
    // Removed by hand at the provider, it is made again.
    assert_eq!(old.admin(Method::DELETE, &format!("/admin/clients/{id}"), None).await.0, 204);
    new.ready(&team, "ci").await;
    let fresh = new.data(&team, "ci-oauth").await;
    assert!(authenticates(&old, &fresh).await && fresh["client-secret"] != bound["client-secret"]);
    assert!(client(&old, &id).await.is_some());
    new.delete(&team, "ci").await;
    assert!(old.clients().await.is_empty());
}
