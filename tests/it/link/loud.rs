//! Providers whose servers say too much, or too often: they cost their own links, and those of nobody else.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{machine, message};
use crate::support::plane::ControlPlane;
use crate::support::spoof::{Lies, Spoof};
use crate::support::stage::{SOON, Stage, condition};
use crate::support::wait::{always, eventually};

async fn stage() -> Stage<'static> {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    stage.put_secret(stage.team(), "login", &[("token", "guess")]).await;
    stage
}

/// A provider of this kind at a server that lies so.
async fn provider(stage: &Stage<'_>, kind: &str, name: &str, lies: Lies) -> Spoof {
    let spoof = Spoof::start().await;
    spoof.lie(lies);
    let url = &spoof.url;
    let mut object = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": {"bundled": {"url": url, "admin": {"url": url, "tokenSecretRef": {"name": "login", "key": "token"}}}},
    });
    let mut namespace = stage.team();
    if kind == "ClusterLinkProvider" {
        object["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": stage.system});
        object["spec"]["allow"] = json!({"namespaces": {"names": stage.teams}});
        stage.put_secret(&stage.system, "login", &[("token", "guess")]).await;
        namespace = "";
    }
    stage.apply_object(stage.team(), &object).await;
    eventually(SOON, format!("{name} is taken up"), async || {
        let object = stage.object(kind, namespace, name).await.ok_or("gone")?;
        let ready = condition(&object["status"], "Ready").cloned().unwrap_or_default();
        if ready["status"] == "True" { Ok(()) } else { Err(ready.to_string()) }
    })
    .await;
    spoof
}

fn lies(said: Value) -> Lies {
    serde_json::from_value(said).expect("lies")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_never_at_rest_is_asked_ever_less_often() {
    let stage = stage().await;
    let quiet = provider(&stage, "LinkProvider", "quiet", lies(json!({"quiet": true}))).await;
    let loud = provider(&stage, "LinkProvider", "loud", lies(json!({}))).await;
    let (before, since) = (loud.asked_for_changes(), quiet.asked_for_changes());
    // Both answer at once. One that were asked as often would be near twenty.
    eventually(SOON, "the quiet one asked on and on", async || quiet.asked_for_changes() - since >= 20).await;
    let asked = loud.asked_for_changes() - before;
    assert!(asked <= 7, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_providers_of_a_namespace_are_asked_at_once() {
    let stage = stage().await;
    let mut all = Vec::new();
    for n in 0..12 {
        all.push(
            provider(&stage, "LinkProvider", &format!("silent-{n}"), lies(json!({"hangs": true}))).await,
        );
    }
    let asked = || all.iter().filter(|s| s.asked_for_changes() > 0).count();
    eventually(SOON, "as many as may be", async || asked() >= 8).await;
    always(std::time::Duration::from_secs(3), "no more than that", async || asked() == 8).await;
    // Those of another namespace wait for none of them.
    let team = stage.team().to_owned();
    stage.apply_object(&team, &machine("ci", json!({}))).await;
    stage.ready(&team, "ci").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_lists_makes_no_long_message() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let name = format!("wide-{}", stage.system);
    provider(&stage, "ClusterLinkProvider", &name, lies(json!({"scopes": 26_000}))).await;
    let link = machine(
        "ci",
        json!({"providerRef": {"name": name}, "incoming": {"oauth2": {"scopes": ["NO_SUCH"]}}}),
    );
    stage.apply_object(&team, &link).await;
    stage.condition(&team, "ci", "Stalled", "True", "UnknownScope").await;
    let said = message(&stage, &team, "ci", "Ready").await;
    assert!(
        said.ends_with(
            "it offers: REPO_READ, s0, s1, s10, s100, s1000, s10000, s10001, s10002, s10003, and 25991 more"
        ),
        "{said}"
    );
    let logs = stage.operator.logs();
    let longest = logs.lines().max_by_key(|l| l.len()).unwrap_or_default();
    assert!(longest.len() < 4096, "{} bytes: {}", longest.len(), &longest[..200]);
    stage.delete(&team, "ci").await;
    stage.remove("ClusterLinkProvider", "", &name).await;
}
