//! A value of a Secret goes only where that Secret says, whoever names it: a link, a provider, a reply or a metadata
//! document. The tenant's server hears what it is sent.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::machine;
use crate::support::plane::ControlPlane;
use crate::support::spoof::{Lies, Spoof};
use crate::support::stage::{SOON, Stage, condition, merge};
use crate::support::wait::eventually;

const ALLOWED: &str = "applink-operator.io/allowed-hosts";

async fn stage(required: bool) -> Stage<'static> {
    let values = json!({"outbound": {"requireAllowedHosts": required}});
    Stage::set(ControlPlane::shared().await, binary(), 1, values).await
}

/// A Secret with a token, with these changes of its metadata and of its type.
async fn secret(stage: &Stage<'_>, name: &str, more: Value) {
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"token": "the-precious-token", "client-id": "x", "client-secret": "the-precious-token"},
    });
    merge(&mut object, more);
    stage.apply_object(stage.team(), &object).await;
}

fn allowed(hosts: &str) -> Value {
    json!({"metadata": {"annotations": {ALLOWED: hosts}}})
}

async fn provider(stage: &Stage<'_>, kind: &str, name: &str, spec: Value) {
    let mut object = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    if kind == "ClusterLinkProvider" {
        object["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": stage.system});
        object["spec"]["allow"] = json!({"namespaces": {"names": stage.teams}});
    }
    stage.apply_object(stage.team(), &object).await;
}

fn hydra(spoof: &Spoof) -> Value {
    let url = &spoof.url;
    json!({"hydra": {"url": url, "admin": {"url": format!("{url}/h"), "tokenSecretRef": {"name": "login", "key": "token"}}}})
}

fn registration(spoof: &Spoof) -> Value {
    json!({"registration": {"issuer": spoof.url, "initialAccessTokenSecretRef": {"name": "login", "key": "token"}}})
}

async fn shows(stage: &Stage<'_>, kind: &str, name: &str, reason: &str, says: &str) {
    let namespace = if kind == "ClusterLinkProvider" { "" } else { stage.team() };
    eventually(SOON, format!("{kind} {name}: {reason}"), async || {
        let object = stage.object(kind, namespace, name).await.ok_or("gone")?;
        let ready = condition(&object["status"], "Ready").cloned().unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default();
        if ready["reason"] == reason && message.contains(says) {
            Ok(())
        } else {
            Err(object["status"].to_string())
        }
    })
    .await;
}

fn host(spoof: &Spoof) -> String {
    spoof.url.trim_start_matches("http://").to_owned()
}

fn heard(spoof: &Spoof) -> bool {
    spoof.heard().iter().any(|s| s == "the-precious-token")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_s_credential_goes_where_its_secret_says() {
    let stage = stage(true).await;
    let (spoof, other) = (Spoof::start().await, Spoof::start().await);
    secret(&stage, "login", json!({})).await;
    for (name, spec) in [("hydra", hydra(&spoof)), ("registration", registration(&spoof))] {
        provider(&stage, "LinkProvider", name, spec).await;
        shows(&stage, "LinkProvider", name, "AllowedHostsMissing", &host(&spoof)).await;
    }
    secret(&stage, "login", allowed(&host(&other))).await;
    for (name, what) in [("hydra", "admin API"), ("registration", "registration endpoint")] {
        shows(&stage, "LinkProvider", name, "HostNotAllowed", what).await;
    }
    assert!(!heard(&spoof));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_metadata_names_is_held_to_the_same() {
    let stage = stage(false).await;
    let (spoof, other) = (Spoof::start().await, Spoof::start().await);
    let metadata = json!({"registration_endpoint": format!("{}/register", other.url)});
    spoof.lie(Lies { metadata, ..Lies::default() });
    secret(&stage, "login", allowed(&host(&spoof))).await;
    provider(&stage, "LinkProvider", "named", registration(&spoof)).await;
    shows(&stage, "LinkProvider", "named", "HostNotAllowed", "registration endpoint").await;
    assert!(!heard(&spoof) && !heard(&other));
    // Without an annotation it goes where it is sent.
    let clear = json!({"metadata": {"annotations": {ALLOWED: null}}});
    stage.patch("Secret", stage.team(), "login", clear).await;
    shows(&stage, "LinkProvider", "named", "Connected", "").await;
    stage
        .apply_object(
            stage.team(),
            &machine("ci", json!({"providerRef": {"kind": "LinkProvider", "name": "named"}})),
        )
        .await;
    eventually(SOON, "the registration", async || heard(&other)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_to_adopt_a_client_with_goes_where_it_says() {
    let stage = stage(true).await;
    let team = stage.team().to_owned();
    let spoof = Spoof::start().await;
    let plant = vec![json!({"id": "clicked", "secret": "the-precious-token"})];
    spoof.lie(Lies { plant, ..Lies::default() });
    stage.put_secret(&team, "plain", &[("token", "guess")]).await;
    stage.patch("Secret", &team, "plain", allowed(&host(&spoof))).await;
    let url = &spoof.url;
    let spec = json!({
        "hydra": {"url": url, "admin": {"url": format!("{url}/h"), "tokenSecretRef": {"name": "plain", "key": "token"}}},
        "adoptable": ["clicked"],
    });
    provider(&stage, "LinkProvider", "own", spec).await;
    shows(&stage, "LinkProvider", "own", "Connected", "").await;
    secret(&stage, "login", json!({})).await;
    let adopting = machine(
        "ci",
        json!({
            "providerRef": {"kind": "LinkProvider", "name": "own"},
            "incoming": {"adopt": {"clientId": "clicked", "secretRef": {"name": "login", "key": "client-secret"}}},
        }),
    );
    stage.apply_object(&team, &adopting).await;
    shows(&stage, "ApplicationLink", "ci", "AllowedHostsMissing", &host(&spoof)).await;
    secret(&stage, "login", allowed("elsewhere.example")).await;
    shows(&stage, "ApplicationLink", "ci", "HostNotAllowed", "elsewhere.example").await;
    assert!(!heard(&spoof));
    secret(&stage, "login", allowed(&host(&spoof))).await;
    shows(&stage, "ApplicationLink", "ci", "Connected", "").await;
    assert!(heard(&spoof));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_the_cluster_is_never_sent() {
    let stage = stage(false).await;
    let spoof = Spoof::start().await;
    for (n, type_) in ["helm.sh/release.v1", "bootstrap.kubernetes.io/token"].into_iter().enumerate() {
        let name = format!("login-{n}");
        secret(&stage, &name, json!({"type": type_})).await;
        let mut spec = hydra(&spoof);
        spec["hydra"]["admin"]["tokenSecretRef"]["name"] = json!(name);
        provider(&stage, "LinkProvider", &format!("own-{n}"), spec).await;
        shows(&stage, "LinkProvider", &format!("own-{n}"), "SecretTypeRefused", type_).await;
        let link = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
            "spec": {
                "application": {"name": "CI"},
                "outgoing": {"oauth2": {
                    "server": {"custom": {"issuer": spoof.url}}, "grant": {"clientCredentials": {}},
                    "client": {"secretRef": {"name": name}},
                }},
            },
        });
        stage.apply_object(stage.team(), &link).await;
        shows(&stage, "ApplicationLink", &name, "SecretTypeRefused", type_).await;
    }
    assert!(!heard(&spoof));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platform_team_s_annotation_counts_where_it_stands_and_is_never_demanded() {
    let stage = stage(true).await;
    let spoof = Spoof::start().await;
    let name = format!("cluster-{}", stage.system);
    stage.put_secret(&stage.system, "login", &[("token", "the-precious-token")]).await;
    stage.patch("Secret", &stage.system, "login", allowed("elsewhere.example")).await;
    provider(&stage, "ClusterLinkProvider", &name, hydra(&spoof)).await;
    shows(&stage, "ClusterLinkProvider", &name, "HostNotAllowed", "elsewhere.example").await;
    assert!(!heard(&spoof));
    let clear = json!({"metadata": {"annotations": {ALLOWED: null}}});
    stage.patch("Secret", &stage.system, "login", clear).await;
    shows(&stage, "ClusterLinkProvider", &name, "Connected", "").await;
    stage.remove("ClusterLinkProvider", "", &name).await;
}
