//! A client secret changes only where the Secret can be written with the new one: at each moment something that
//! stands in the Secret authenticates.

use std::process::Command;

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine, message, patch_link, stays};
use super::watcher::incoming;
use crate::support::plane::{ControlPlane, Options};
use crate::support::programs::run;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

async fn rotate(stage: &Stage<'_>, how: &str, value: &str) {
    let patch = json!({"metadata": {"annotations": {format!("applink-operator.io/{how}"): value}}});
    patch_link(stage, stage.team(), "ci", patch).await;
}

async fn ready(stage: &Stage<'_>, spec: Value) -> std::collections::BTreeMap<String, String> {
    stage.apply_object(stage.team(), &machine("ci", spec)).await;
    stage.ready(stage.team(), "ci").await;
    stage.data(stage.team(), "ci-oauth").await
}

/// Refuses changes of the team's Secrets with this text where the condition holds.
pub async fn policy(stage: &Stage<'_>, name: &str, when: &str, says: &str) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.team()}},
                "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"]}],
            },
            "validations": [{"expression": format!("!({when})"), "message": says}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    for object in [policy, binding] {
        stage.apply_object(stage.team(), &object).await;
    }
    // It counts once the API server knows it.
    let probe = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "probe"}, "stringData": {"probe": "x"}});
    eventually(SOON, "the policy in force", async || {
        let answer = stage.apply(stage.team(), &probe.to_string()).await;
        if answer.stderr.contains(says) {
            return Ok(());
        }
        stage.plane.kubectl(&["delete", "secret", "probe", "-n", stage.team(), "--ignore-not-found"]).await;
        Err(answer.stderr)
    })
    .await;
}

pub async fn lift(stage: &Stage<'_>, name: &str) {
    let kinds = ["validatingadmissionpolicybinding", "validatingadmissionpolicy"];
    for kind in kinds {
        stage.plane.kubectl(&["delete", kind, name]).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_immutable_secret_is_left_working_and_the_way_out_works() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let old = ready(&stage, json!({})).await;
    stage.patch("Secret", &team, "ci-oauth", json!({"immutable": true})).await;
    for (how, value) in [("rotate-now", "a"), ("rotate", "b")] {
        rotate(&stage, how, value).await;
        stage.condition(&team, "ci", "Ready", "False", "SecretUnwritable").await;
        let said = message(&stage, &team, "ci", "Ready").await;
        assert!(said.contains("immutable") && said.contains("delete the Secret"), "{said}");
        assert!(!said.contains(&old["client-secret"]), "{said}");
        stays("the old secret", async || authenticates(&stage, &old).await).await;
    }
    assert_eq!(incoming(&stage, &team, "ci").await["serial"], 1);
    // What else changes reaches the provider all the same.
    patch_link(&stage, &team, "ci", json!({"spec": {"application": {"name": "Renamed"}}})).await;
    eventually(SOON, "the new name at the provider", async || {
        let client = client(&stage, &old["client-id"]).await.expect("the client");
        if client["name"] == "Renamed" { Ok(()) } else { Err(client["name"].to_string()) }
    })
    .await;
    stage.condition(&team, "ci", "Ready", "False", "SecretUnwritable").await;
    assert!(authenticates(&stage, &old).await);
    let mut doctor = Command::new(binary());
    doctor.env_clear().env("HOME", "/nonexistent").env("KUBECONFIG", stage.plane.kubeconfig());
    doctor.args(["doctor", "ci", "-n", &team, "--operator-namespace", &stage.system]);
    let said = run(doctor).await;
    assert!(said.stdout.contains("is immutable") && said.stdout.contains("delete the Secret"), "{said:?}");
    stage.remove("Secret", &team, "ci-oauth").await;
    stage.ready(&team, "ci").await;
    eventually(SOON, "the new secret", async || incoming(&stage, &team, "ci").await["serial"] == 2).await;
    let new = stage.data(&team, "ci-oauth").await;
    assert!(authenticates(&stage, &new).await && new["client-secret"] != old["client-secret"]);
    stage.delete(&team, "ci").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_refuses_is_said_in_its_words_and_nothing_changes() {
    let plane = ControlPlane::start(Options::default()).await;
    let stage = Stage::set(&plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let old = ready(&stage, json!({})).await;
    policy(&stage, "no-secrets", "true", "the house says no").await;
    rotate(&stage, "rotate", "a").await;
    stage.condition(&team, "ci", "Ready", "False", "SecretUnwritable").await;
    let said = message(&stage, &team, "ci", "Ready").await;
    assert!(said.contains("the house says no") && said.contains("change the policy"), "{said}");
    assert_eq!(incoming(&stage, &team, "ci").await["serial"], 1);
    assert!(authenticates(&stage, &old).await);
    lift(&stage, "no-secrets").await;
    eventually(SOON, "the rotation", async || incoming(&stage, &team, "ci").await["serial"] == 2).await;
    stage.ready(&team, "ci").await;
    assert!(authenticates(&stage, &stage.data(&team, "ci-oauth").await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_refused_after_all_leaves_what_stands_in_the_secret_working() {
    let plane = ControlPlane::start(Options::default()).await;
    let stage = Stage::set(&plane, binary(), 1, json!({"operator": {"resync": "5s"}})).await;
    let team = stage.team().to_owned();
    let old = ready(&stage, json!({"incoming": {"rotation": {"overlap": "10s"}}})).await;
    policy(&stage, "no-writes", "!request.dryRun", "not for real").await;
    // With an overlap, that goes on until the Secret is written; without one, the old secret is put back.
    rotate(&stage, "rotate", "a").await;
    stage.condition(&team, "ci", "Ready", "False", "RefusedByApiServer").await;
    let began = std::time::Instant::now();
    eventually(SOON, "twice the overlap gone by", async || {
        assert!(authenticates(&stage, &old).await, "after {:?}", began.elapsed());
        began.elapsed() > std::time::Duration::from_secs(25)
    })
    .await;
    lift(&stage, "no-writes").await;
    stage.ready(&team, "ci").await;
    let new = stage.data(&team, "ci-oauth").await;
    assert!(authenticates(&stage, &new).await && new["client-secret"] != old["client-secret"]);

    policy(&stage, "no-writes", "!request.dryRun", "not for real").await;
    rotate(&stage, "rotate-now", "b").await;
    stage.condition(&team, "ci", "Ready", "False", "RefusedByApiServer").await;
    eventually(SOON, "the secret put back", async || authenticates(&stage, &new).await).await;
    assert_eq!(stage.data(&team, "ci-oauth").await, new);
    lift(&stage, "no-writes").await;
    eventually(SOON, "the rotation", async || {
        let data = stage.data(&team, "ci-oauth").await;
        data["client-secret"] != new["client-secret"] && authenticates(&stage, &data).await
    })
    .await;
    stage.ready(&team, "ci").await;
}
