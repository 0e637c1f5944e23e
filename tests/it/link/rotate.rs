//! A client's secret gets old: it is replaced on a schedule, on request, and with the installation's key, and no
//! application notices.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine, message, patch_link, patch_secret, secret, stays};
use super::watcher::{Prober, at_rest, events, incoming, opens, told};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, http, text};
use crate::support::wait::eventually;

const ROTATE: &str = "applink-operator.io/rotate";
const ROTATE_NOW: &str = "applink-operator.io/rotate-now";

type Credentials = BTreeMap<String, String>;

async fn stage(more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, more).await
}

async fn annotate(stage: &Stage<'_>, name: &str, key: &str, value: &str) {
    let note = json!({"metadata": {"annotations": {key: value}}});
    patch_link(stage, stage.team(), name, note).await;
}

/// Waits until the link's secret has this serial, in the status, and gives back what the status says.
async fn serial(stage: &Stage<'_>, name: &str, serial: i64) -> Value {
    eventually(SOON, format!("serial {serial} of {name}"), async || {
        let status = incoming(stage, stage.team(), name).await;
        if status["serial"].as_i64() >= Some(serial) { Ok(status) } else { Err(status.to_string()) }
    })
    .await
}

fn seconds(time: &Value) -> i64 {
    let time: Timestamp = time.as_str().expect("a time").parse().expect("a time");
    time.as_second()
}

async fn crash(stage: &mut Stage<'_>) {
    stage.operator.kill();
    stage.operator.process().wait(SOON).await;
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_schedule_and_the_secret_always_opens_the_provider() {
    let stage = stage(json!({})).await;
    let team = stage.team();
    // The default overlap is half of it.
    stage.apply_object(team, &machine("ci", json!({"incoming": {"rotation": {"every": "10s"}}}))).await;
    stage.ready(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    let prober = Prober::start(&stage, team, &["ci-oauth"]);
    let before = incoming(&stage, team, "ci").await;
    assert_eq!(before["serial"], 1);
    assert_eq!(seconds(&before["nextRotation"]), seconds(&before["rotatedAt"]) + 10);
    assert_eq!(before["previousUntil"], Value::Null);

    let after = serial(&stage, "ci", 2).await;
    assert!(seconds(&after["rotatedAt"]) >= seconds(&before["nextRotation"]), "{before} {after}");
    assert_eq!(seconds(&after["nextRotation"]), seconds(&after["rotatedAt"]) + 10);
    serial(&stage, "ci", 4).await;
    assert!(!authenticates(&stage, &first).await, "a secret of three rotations ago");
    told(&stage, team, "ci", "Rotated", &["has a new secret", "rotation.every has passed"]).await;
    let times = prober.never_failed().await;
    stage.ready(team, "ci").await;
    eprintln!("3 rotations, {times} uses, none refused");
    assert_eq!(stage.clients().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_request_with_an_overlap_and_once_whatever_becomes_of_the_operator() {
    let mut stage = stage(json!({})).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    stage.apply_object(team, &machine("ci", json!({"incoming": {"rotation": {"overlap": "15s"}}}))).await;
    stage.ready(team, "ci").await;
    let old = stage.data(team, "ci-oauth").await;
    let prober = Prober::start(&stage, team, &["ci-oauth"]);
    annotate(&stage, "ci", ROTATE, "2026-11-22T10:00:00Z").await;
    let status = serial(&stage, "ci", 2).await;
    let new = stage.data(team, "ci-oauth").await;
    assert_ne!(new["client-secret"], old["client-secret"]);
    assert_eq!(new["client-id"], old["client-id"]);
    // Both work, until the time that the status says.
    assert!(authenticates(&stage, &new).await && authenticates(&stage, &old).await);
    assert_eq!(status["lastRequest"], "2026-11-22T10:00:00Z");
    assert_eq!(seconds(&status["previousUntil"]), seconds(&status["rotatedAt"]) + 15);
    assert_eq!(status["nextRotation"], Value::Null, "there is no schedule");
    told(&stage, team, "ci", "Rotated", &["number 2", "somebody asked for it"]).await;
    eventually(SOON, "the end of the old secret", async || !authenticates(&stage, &old).await).await;
    eventually(SOON, "no overlap in the status", async || {
        incoming(&stage, team, "ci").await["previousUntil"].is_null()
    })
    .await;
    assert!(Timestamp::now().as_second() >= seconds(&status["previousUntil"]));

    // A crash doesn't carry it out again; nor does taking the annotation off and on.
    crash(&mut stage).await;
    annotate(&stage, "ci", "note", "1").await;
    for value in [Value::Null, json!("2026-11-22T10:00:00Z")] {
        patch_link(&stage, team, "ci", json!({"metadata": {"annotations": {ROTATE: value}}})).await;
        stays("the serial", async || incoming(&stage, team, "ci").await["serial"] == 2).await;
    }
    // One that is made while nobody works is carried out once, whoever dies over it.
    stage.operator.stop().await;
    annotate(&stage, "ci", ROTATE, "second").await;
    stage.operator.start().await;
    eventually(SOON, "the request at the provider", async || {
        client(&stage, &old["client-id"]).await.is_some_and(|c| c["owner"]["serial"] == 3)
    })
    .await;
    crash(&mut stage).await;
    let status = serial(&stage, "ci", 3).await;
    assert_eq!((&status["serial"], &status["lastRequest"]), (&json!(3), &json!("second")));
    crash(&mut stage).await;
    stage.ready(team, "ci").await;
    stays("the serial", async || incoming(&stage, team, "ci").await["serial"] == 3).await;
    let times = prober.never_failed().await;
    eprintln!("2 rotations and 3 crashes, {times} uses, none refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_once_ends_the_old_secret_and_its_tokens() {
    let stage = stage(json!({})).await;
    let team = stage.team();
    let scopes = json!({"incoming": {"oauth2": {"scopes": ["REPO_READ"]}, "rotation": {"overlap": "1h"}}});
    stage.apply_object(team, &machine("ci", scopes)).await;
    stage.ready(team, "ci").await;
    let old = stage.data(team, "ci-oauth").await;
    let token = async |data: &Credentials| {
        let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
        assert_eq!(status, 200, "{reply}");
        reply["access_token"].as_str().expect("a token").to_owned()
    };
    // First with an overlap, then at once: nothing of before stays.
    annotate(&stage, "ci", ROTATE, "one").await;
    serial(&stage, "ci", 2).await;
    let middle = stage.data(team, "ci-oauth").await;
    let tokens = [token(&old).await, token(&middle).await];
    for token in &tokens {
        assert!(lives(&stage, &middle, token).await);
    }
    annotate(&stage, "ci", ROTATE_NOW, "two").await;
    let now = secret(&stage, team, "ci-oauth", "a new secret", |s| {
        text(s)["client-secret"] != middle["client-secret"]
    })
    .await;
    // By the time that it stands in the Secret, all that was before has ended.
    assert!(!authenticates(&stage, &old).await && !authenticates(&stage, &middle).await);
    for token in &tokens {
        assert!(!lives(&stage, &text(&now), token).await);
    }
    assert!(authenticates(&stage, &text(&now)).await);
    let status = serial(&stage, "ci", 3).await;
    assert_eq!((&status["serial"], &status["lastRequest"]), (&json!(3), &json!("one,two")));
    assert_eq!(status["previousUntil"], Value::Null);
    assert!(status["lastGap"].is_string(), "{status}");
    // One request, carried out once: its own tokens live.
    stage.ready(team, "ci").await;
    let live = token(&text(&now)).await;
    annotate(&stage, "ci", "note", "1").await;
    stays("the new token", async || lives(&stage, &text(&now), &live).await).await;
    assert_eq!(incoming(&stage, team, "ci").await["serial"], 3);
}

/// Whether a token of a client is good, by what the provider tells that client.
async fn lives(stage: &Stage<'_>, data: &Credentials, token: &str) -> bool {
    let ask = http()
        .post(format!("{}/oauth2/introspect", stage.provider_url))
        .basic_auth(&data["client-id"], Some(&data["client-secret"]))
        .form(&[("token", token)]);
    let answer = ask.send().await.expect("the provider answers");
    assert_eq!(answer.status(), 200);
    answer.json::<Value>().await.expect("JSON")["active"] == true
}

/// A client that somebody registered by hand.
async fn by_hand(stage: &Stage<'_>, id: &str, secret: &str) {
    let body = json!({
        "name": "from the days of clicking", "grantTypes": ["client_credentials"],
        "tokenEndpointAuthMethod": "client_secret_basic", "secret": secret,
    });
    let (status, reply) = stage.admin(Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
    assert_eq!(status, 201, "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_days_of_clicking_is_adopted_and_then_rotated() {
    const SECRET: &str = "a secret that somebody chose, 2019";
    let stage = stage(json!({"operator": {"resync": "2s"}})).await;
    let team = stage.team();
    by_hand(&stage, "legacy", SECRET).await;
    let untouched = client(&stage, "legacy").await;
    let adopt = json!({"clientId": "legacy", "secretRef": {"name": "legacy", "key": "secret"}});
    stage.apply_object(team, &machine("ci", json!({"incoming": {"adopt": adopt}}))).await;
    stage.condition(team, "ci", "Stalled", "True", "AdoptionNotAllowed").await;
    let said = message(&stage, team, "ci", "Ready").await;
    assert!(said.contains("spec.incoming.adopt.clientId") && said.contains(team), "{said}");
    assert_eq!(client(&stage, "legacy").await, untouched);

    let list = json!([{"op": "add", "path": "/spec/allow/adoptable",
                       "value": [{"clientId": "legacy", "namespace": team}]}]);
    stage.patch("ClusterLinkProvider", "", &stage.provider_name, list).await;
    stage.condition(team, "ci", "Ready", "False", "AdoptionSecretMissing").await;
    stage.put_secret(team, "legacy", &[("secret", "not this one")]).await;
    stage.condition(team, "ci", "Stalled", "True", "AdoptionSecretWrong").await;
    assert_eq!(client(&stage, "legacy").await, untouched);
    stage.put_secret(team, "legacy", &[("secret", SECRET)]).await;
    stage.ready(team, "ci").await;
    let data = stage.data(team, "ci-oauth").await;
    assert_eq!((data["client-id"].as_str(), data["client-secret"].as_str()), ("legacy", SECRET));
    assert!(authenticates(&stage, &data).await);
    let taken = client(&stage, "legacy").await.expect("the client");
    assert_eq!((&taken["owner"]["name"], &taken["name"]), (&json!("ci"), &json!("CI")));
    told(&stage, team, "ci", "Adopted", &["client legacy was adopted with its secret", "application.name"])
        .await;
    // From now on it needs neither the list nor the Secret that it came with.
    stage.remove("Secret", team, "legacy").await;
    let none = json!([{"op": "remove", "path": "/spec/allow/adoptable"}]);
    stage.patch("ClusterLinkProvider", "", &stage.provider_name, none).await;
    at_rest(&stage).await;
    stage.ready(team, "ci").await;

    let prober = Prober::start(&stage, team, &["ci-oauth"]);
    annotate(&stage, "ci", ROTATE, "now that it is ours").await;
    serial(&stage, "ci", 2).await;
    let new = stage.data(team, "ci-oauth").await;
    assert_eq!(new["client-secret"].len(), 43, "derived");
    assert!(authenticates(&stage, &new).await && authenticates(&stage, &data).await);
    prober.never_failed().await;
    annotate(&stage, "ci", ROTATE_NOW, "again").await;
    serial(&stage, "ci", 3).await;
    assert!(!authenticates(&stage, &data).await && !authenticates(&stage, &new).await);
    stage.delete(team, "ci").await;
    assert!(stage.clients().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_key_moves_every_link_with_an_overlap() {
    let stage = stage(json!({})).await;
    let team = stage.team();
    let names = ["a", "b", "c"];
    for name in names {
        stage.apply_object(team, &machine(name, json!({}))).await;
    }
    let mut old = Vec::new();
    for name in names {
        stage.ready(team, name).await;
        old.push(stage.data(team, &format!("{name}-oauth")).await);
    }
    let probers: Vec<_> =
        names.iter().map(|n| Prober::start(&stage, team, &[&format!("{n}-oauth")])).collect();
    let key = stage
        .secrets(&stage.system)
        .list(&kube::api::ListParams::default().labels("app.kubernetes.io/component=master-key"))
        .await
        .expect("the Secrets")
        .items
        .pop()
        .and_then(|s| s.metadata.name)
        .expect("the master key");
    let second = "k".repeat(32);
    patch_secret(
        &stage,
        &stage.system,
        &key,
        json!({"stringData": {"key.second": second, "active": "second"}}),
    )
    .await;
    for (name, old) in names.iter().zip(&old) {
        serial(&stage, name, 2).await;
        let new = stage.data(team, &format!("{name}-oauth")).await;
        assert_ne!(new["client-secret"], old["client-secret"]);
        assert_eq!(new["client-id"], old["client-id"]);
        assert!(opens(&new).await && opens(old).await, "{name}: old and new both work");
        told(&stage, team, name, "Rotated", &["the installation has a new master key"]).await;
    }
    for prober in probers {
        prober.never_failed().await;
    }
    at_rest(&stage).await;
    // The old key can go: nothing hangs on it any more.
    patch_secret(&stage, &stage.system, &key, json!({"data": {"key.1": null}})).await;
    annotate(&stage, "a", "note", "1").await;
    for name in names {
        stage.ready(team, name).await;
        assert_eq!(incoming(&stage, team, name).await["serial"], 2);
        assert_eq!(events(&stage, team, name, "Rotated").await.len(), 1);
    }
    at_rest(&stage).await;
    // Links that come now are made with the new key; those that go are let go.
    stage.apply_object(team, &machine("d", json!({}))).await;
    stage.ready(team, "d").await;
    stage.delete(team, "a").await;
    assert_eq!(stage.clients().await.len(), 3);
}
