//! Providers that aren't there, come late, go, or answer what no provider should: each with its
//! reason, none in the way of anybody else, each recovery by itself.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{machine, message};
use crate::support::admin_double::{AdminDouble, Answer};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::wait::eventually;

async fn stage(more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, more).await
}

fn provider(stage: &Stage<'_>, name: &str, url: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
        "metadata": {"name": name, "labels": {"applink-operator.io/operator-namespace": stage.system}},
        "spec": {
            "bundled": {"url": url, "admin": {"url": url, "tokenSecretRef": {"name": "double", "key": "token"}}},
            "allow": {"namespaces": {"all": {}}},
        },
    })
}

fn at(name: &str, provider: &str) -> Value {
    machine(name, json!({"providerRef": {"name": provider}}))
}

async fn provider_reason(stage: &Stage<'_>, name: &str, status: &str, reason: &str) {
    eventually(SOON, format!("ClusterLinkProvider {name} Ready={status} {reason}"), async || {
        let object = stage.object("ClusterLinkProvider", "", name).await.ok_or("it isn't there")?;
        let found = condition(&object["status"], "Ready").cloned().unwrap_or_default();
        if found["status"] == status && (reason.is_empty() || found["reason"] == reason) {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_comes_late_goes_and_comes_back() {
    let mut stage = stage(json!({"operator": {"resync": "2s"}})).await;
    let team = stage.team().to_owned();
    let late = format!("late-{}", stage.system);
    stage.apply_object(&team, &at("ci", &late)).await;
    stage.condition(&team, "ci", "Reconciling", "True", "ProviderNotFound").await;
    let said = message(&stage, &team, "ci", "Ready").await;
    assert!(
        said.contains(&format!("ClusterLinkProvider {late} doesn't exist; create it, or name another one")),
        "{said}"
    );
    // It appears, without its credential at first.
    let mut object = super::fixtures::provider(&stage, "ClusterLinkProvider", &late, "late");
    object["metadata"]["name"] = json!(late);
    stage.apply_object(&team, &object).await;
    stage.condition(&team, "ci", "Reconciling", "True", "ProviderNotReady").await;
    assert!(message(&stage, &team, "ci", "Ready").await.contains("isn't taken up yet; see its conditions"));
    provider_reason(&stage, &late, "False", "ProviderCredentialMissing").await;
    stage.put_secret(&stage.system, "late", &[("token", "wrong")]).await;
    provider_reason(&stage, &late, "False", "ProviderUnauthorized").await;
    let token = stage.admin_token().await;
    stage.put_secret(&stage.system, "late", &[("token", &token)]).await;
    stage.ready(&team, "ci").await;
    // The service goes: what is Ready and can't be looked at any more is said, and mends itself.
    stage.provider.stop().await;
    stage.condition(&team, "ci", "Ready", "False", "ProviderUnreachable").await;
    stage.provider.start().await;
    stage.provider.until_ready(SOON).await;
    stage.ready(&team, "ci").await;
    stage.delete(&team, "ci").await;
    stage.remove("ClusterLinkProvider", "", &late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_its_reason_and_recovery_is_automatic() {
    let stage = stage(json!({"operator": {"resync": "2s"}})).await;
    let team = stage.team();
    let double = AdminDouble::start().await;
    let name = format!("double-{}", stage.system);
    stage.put_secret(&stage.system, "double", &[("token", "admin-token-canary")]).await;
    stage.apply_object(team, &provider(&stage, &name, &double.url)).await;
    provider_reason(&stage, &name, "True", "").await;
    let write = [
        (Answer::Status(401), "Reconciling", "ProviderUnauthorized"),
        (Answer::Status(403), "Reconciling", "ProviderUnauthorized"),
        (Answer::Status(409), "Reconciling", "Conflict"),
        (Answer::Status(412), "Reconciling", "Conflict"),
        (Answer::Status(413), "Stalled", "ClientRejected"),
        (Answer::Busy(1), "Reconciling", "ProviderBusy"),
        (Answer::Status(500), "Reconciling", "ProviderError"),
        (Answer::Status(302), "Reconciling", "ProviderError"),
    ];
    for (i, (answer, state, reason)) in write.into_iter().enumerate() {
        double.answer(Answer::Well, Answer::Well, answer.clone());
        let link = format!("write-{i}");
        stage.apply_object(team, &at(&link, &name)).await;
        stage.condition(team, &link, state, "True", reason).await;
        let said = message(&stage, team, &link, "Ready").await;
        assert!(!said.contains("canary") && !said.contains("foreign"), "{answer:?}: {said}");
        double.answer(Answer::Well, Answer::Well, Answer::Well);
        stage.ready(team, &link).await;
        stage.delete(team, &link).await;
    }
    stage.apply_object(team, &at("read", &name)).await;
    stage.ready(team, "read").await;
    for (answer, reason) in [
        (Answer::Status(500), "ProviderError"),
        (Answer::Garbage, "ProviderError"),
        (Answer::Busy(1), "ProviderBusy"),
    ] {
        double.answer(Answer::Well, answer, Answer::Well);
        stage.condition(team, "read", "Reconciling", "True", reason).await;
        double.answer(Answer::Well, Answer::Well, Answer::Well);
        stage.ready(team, "read").await;
    }
    stage.delete(team, "read").await;
    assert_eq!(double.clients(), 0);
    // Another issuer, or another service altogether, at the address.
    let other = AdminDouble::start().await;
    let wrong = format!("wrong-{}", stage.system);
    let mut object = provider(&stage, &wrong, &double.url);
    object["spec"]["bundled"]["admin"]["url"] = json!(other.url);
    stage.apply_object(team, &object).await;
    provider_reason(&stage, &wrong, "False", "IssuerMismatch").await;
    other.answer(Answer::Garbage, Answer::Garbage, Answer::Garbage);
    let garbage = format!("garbage-{}", stage.system);
    stage.apply_object(team, &provider(&stage, &garbage, &other.url)).await;
    provider_reason(&stage, &garbage, "False", "ProviderError").await;
    assert!(!stage.operator.logs().contains("canary"), "a secret in the log");
    assert!(!stage.operator.logs().contains("panicked"));
    for provider in [&name, &wrong, &garbage] {
        stage.remove("ClusterLinkProvider", "", provider).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_provider_holds_up_only_its_own_links() {
    let stage = stage(json!({"operator": {"concurrency": 8}})).await;
    let team = stage.team();
    let double = AdminDouble::start().await;
    let name = format!("silent-{}", stage.system);
    stage.put_secret(&stage.system, "double", &[("token", "t")]).await;
    stage.apply_object(team, &provider(&stage, &name, &double.url)).await;
    provider_reason(&stage, &name, "True", "").await;
    double.answer(Answer::Silence, Answer::Silence, Answer::Silence);
    let many: Vec<Value> = (0..50).map(|i| at(&format!("dead-{i}"), &name)).collect();
    stage.apply_object(team, &json!({"apiVersion": "v1", "kind": "List", "items": many})).await;
    // Their passes are at work and get no answer.
    let before = double.requests();
    eventually(SOON, "a request that waits", async || {
        double.requests() > before.saturating_sub(1) && double.requests() > 1
    })
    .await;
    stage.apply_object(team, &machine("well", json!({}))).await;
    stage.ready(team, "well").await;
    // It was faster than any of them was given up.
    let links = stage.links(team).list(&kube::api::ListParams::default()).await.expect("links");
    let told =
        links.items.iter().filter(|l| l.metadata.name.as_deref().is_some_and(|n| n.starts_with("dead-")));
    let told = told.filter(|l| l.status.as_ref().is_some_and(|s| !s.conditions.is_empty())).count();
    assert!(told < 50, "the healthy link came after all {told} dead ones");
    stage.condition(team, "dead-0", "Reconciling", "True", "ProviderUnreachable").await;
    // It speaks again, and all of them become Ready by themselves.
    double.answer(Answer::Well, Answer::Well, Answer::Well);
    let poke = json!({"metadata": {"annotations": {"poke": "1"}}});
    stage.patch("ClusterLinkProvider", "", &name, poke).await;
    for i in [0, 25, 49] {
        stage.ready(team, &format!("dead-{i}")).await;
    }
}
