//! What people and programs see: columns, kstatus, events, names, the master key's state; and what
//! nobody sees.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine, message, patch_link, patch_secret, stays};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition, http, text};
use crate::support::wait::eventually;

const KEY: &str = "applink-operator-master-key";

async fn stage(more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, more).await
}

/// What kstatus makes of an object, as Flux, Helm and `kubectl wait` users rely on it.
fn kstatus(object: &Value) -> &'static str {
    let status = &object["status"];
    let is = |t: &str, s: &str| condition(status, t).is_some_and(|c| c["status"] == s);
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating";
    }
    if status["observedGeneration"] != object["metadata"]["generation"] {
        return "InProgress";
    }
    if is("Stalled", "True") {
        "Failed"
    } else if is("Reconciling", "True") || is("Ready", "False") {
        "InProgress"
    } else {
        "Current"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_names_events_and_kstatus() {
    let mut stage = stage(json!({"operator": {"resync": "1s"}})).await;
    let team = stage.team().to_owned();
    let get = async |stage: &Stage<'_>, args: &[&str]| {
        stage.plane.kubectl(&[&["get", "-n", &team], args].concat()).await.ok()
    };
    let object = async |stage: &Stage<'_>, name: &str| -> Value {
        serde_json::from_str(&get(stage, &["applicationlink", name, "-o", "json"]).await).expect("json")
    };
    // Nobody has looked at it yet: in progress, not current.
    stage.operator.stop().await;
    stage.apply_object(&team, &machine("ci", json!({"application": {"name": "CI dashboard"}}))).await;
    assert_eq!(kstatus(&object(&stage, "ci").await), "InProgress");
    stage.operator.start().await;
    stage
        .plane
        .kubectl(&["wait", "-n", &team, "--for=condition=Ready", "--timeout=180s", "al/ci"])
        .await
        .ok();
    assert_eq!(kstatus(&object(&stage, "ci").await), "Current");
    stage.apply_object(&team, &machine("waits", json!({"providerRef": {"name": "nowhere"}}))).await;
    stage.condition(&team, "waits", "Ready", "False", "ProviderNotFound").await;
    assert_eq!(kstatus(&object(&stage, "waits").await), "InProgress");
    stage.apply_object(&team, &machine("wrong", json!({"incoming": {"oauth2": {"scopes": ["NO"]}}}))).await;
    stage.condition(&team, "wrong", "Ready", "False", "UnknownScope").await;
    assert_eq!(kstatus(&object(&stage, "wrong").await), "Failed");

    let table = get(&stage, &["applicationlinks"]).await;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|l| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(
        rows[0],
        ["NAME", "APPLICATION", "DIRECTION", "PROVIDER", "READY", "STATUS", "EXPIRES", "AGE"],
        "{table}"
    );
    assert_eq!(
        rows[1][..6],
        ["ci", "CI dashboard", "Incoming", &stage.provider_name, "True", "Connected"],
        "{table}"
    );
    assert!(
        table.contains("ProviderNotFound") && table.contains("UnknownScope") && !table.contains("<invalid>"),
        "{table}"
    );
    for name in ["al", "applink", "applinks"] {
        assert!(get(&stage, &[name]).await.contains("ci"), "{name}");
    }
    let providers = get(&stage, &["clusterlinkprovider", &stage.provider_name]).await;
    let header: Vec<&str> = providers.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(header, ["NAME", "TYPE", "URL", "READY", "DEFAULT", "AGE"]);
    assert!(
        providers.contains("bundled") && providers.contains("True") && providers.contains("true"),
        "{providers}"
    );

    // One event says that it is Ready, and passes that change nothing say nothing.
    let events = async |stage: &Stage<'_>| {
        let args = ["events.events.k8s.io", "-o", "json"];
        let found: Value = serde_json::from_str(&get(stage, &args).await).expect("json");
        let items = found["items"].as_array().cloned().unwrap_or_default();
        let of = items
            .into_iter()
            .filter(|e| e["regarding"]["name"] == "ci" && e["regarding"]["kind"] == "ApplicationLink");
        of.map(|e| format!("{} {}", e["reason"], e["series"]["count"])).collect::<Vec<_>>()
    };
    eventually(SOON, "the event", async || events(&stage).await == ["\"Connected\" null"]).await;
    stays("no more events", async || events(&stage).await.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_master_key_is_made_once_and_never_anew() {
    let stage = stage(json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.ready(team, "ci").await;
    let data = stage.data(team, "ci-oauth").await;
    let secrets = stage.secrets(&stage.system);
    let key = secrets.get(KEY).await.expect("the master key");
    let value = key.data.clone().expect("data");
    assert_eq!(value["key.1"].0.len(), 32);

    secrets.delete(KEY, &kube::api::DeleteParams::default()).await.expect("delete");
    stage.condition(team, "ci", "Stalled", "True", "MasterKeyMissing").await;
    let said = message(&stage, team, "ci", "Ready").await;
    assert!(said.contains(KEY) && said.contains("restore it from the backup"), "{said}");
    stays("no new key", async || secrets.get_opt(KEY).await.is_ok_and(|s| s.is_none())).await;
    // A link that goes meanwhile waits: its client could not be told from others.
    stage.apply_object(team, &machine("new", json!({}))).await;
    stage.condition(team, "new", "Stalled", "True", "MasterKeyMissing").await;
    stage.links(team).delete("ci", &kube::api::DeleteParams::default()).await.expect("delete");
    eventually(SOON, "the deletion to say that it waits", async || {
        let said = message(&stage, team, "ci", "Ready").await;
        if said.starts_with("deletion waits:") { Ok(()) } else { Err(said) }
    })
    .await;
    assert!(client(&stage, &data["client-id"]).await.is_some());

    // A key of the user's own that is too short is said; the right one mends all of it.
    let restored = |key: &[u8]| {
        let mut values = value.clone();
        values.insert("key.1".into(), k8s_openapi::ByteString(key.to_vec()));
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEY}, "data": values})
    };
    stage.apply_object(&stage.system, &restored(&[7; 31])).await;
    stage.condition(team, "new", "Stalled", "True", "MasterKeyInvalid").await;
    let said = message(&stage, team, "new", "Ready").await;
    assert!(said.contains("key key.1 must be exactly 32 bytes, and is 31"), "{said}");
    stage.apply_object(&stage.system, &restored(&value["key.1"].0)).await;
    stage.ready(team, "new").await;
    stage.gone(team, "ci").await;
    assert!(client(&stage, &data["client-id"]).await.is_none());
    assert!(authenticates(&stage, &stage.data(team, "new-oauth").await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_run_is_seen_anywhere() {
    let mut stage = stage(json!({"log": {"level": "trace"}})).await;
    let team = stage.team().to_owned();
    let double = crate::support::admin_double::AdminDouble::start().await;
    let echo = format!("echo-{}", stage.system);
    stage.put_secret(&stage.system, "echo", &[("token", "canary-admin-token")]).await;
    stage.apply_object(&team, &json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
        "metadata": {"name": echo, "labels": {"applink-operator.io/operator-namespace": stage.system}},
        "spec": {
            "bundled": {"url": double.url, "admin": {"url": double.url, "tokenSecretRef": {"name": "echo", "key": "token"}}},
            "allow": {"namespaces": {"all": {}}},
        },
    })).await;
    stage.until_ready("ClusterLinkProvider", "", &echo).await;
    // A life with all that goes wrong in it.
    stage.apply_object(&team, &machine("ci", json!({}))).await;
    stage.ready(&team, "ci").await;
    let mut secrets = vec![stage.admin_token().await, "canary".to_owned()];
    secrets.push(stage.data(&team, "ci-oauth").await["client-secret"].clone());
    stage.apply_object(&team, &machine("echo", json!({"providerRef": {"name": echo}}))).await;
    stage.ready(&team, "echo").await;
    secrets.push(stage.data(&team, "echo-oauth").await["client-secret"].clone());
    use crate::support::admin_double::Answer;
    double.answer(Answer::Status(500), Answer::Well, Answer::Status(400));
    patch_link(&stage, &team, "echo", json!({"spec": {"application": {"name": "other"}}})).await;
    stage.condition(&team, "echo", "Stalled", "True", "ClientRejected").await;
    patch_secret(&stage, &team, "ci-oauth", json!({"stringData": {"client-secret": "canary-edited"}})).await;
    eventually(SOON, "the secret again", async || {
        stage.data(&team, "ci-oauth").await["client-secret"] == secrets[2]
    })
    .await;
    patch_link(
        &stage,
        &team,
        "ci",
        json!({"spec": {"incoming": {"secret": {"template": {"x": "{{ clientSecret ~ ' ' }}"}}}}}),
    )
    .await;
    stage.condition(&team, "ci", "Stalled", "True", "").await;
    stage.operator.restart().await;
    stage.operator.until_ready(SOON).await;
    let key = stage.secrets(&stage.system).get(KEY).await.expect("the master key");
    let key = key.data.expect("data")["key.1"].0.clone();
    use base64::Engine as _;
    secrets.push(base64::engine::general_purpose::STANDARD.encode(&key));
    secrets.push(key.iter().map(|b| format!("{b:02x}")).collect());

    let port = stage.values()["operator"]["port"].as_u64().expect("a port");
    let metrics = http()
        .get(format!("http://127.0.0.1:{port}/metrics"))
        .send()
        .await
        .expect("metrics")
        .text()
        .await
        .expect("text");
    assert!(metrics.contains("# TYPE"), "{metrics}");
    let mut seen = vec![
        ("operator's log", stage.operator.logs()),
        ("provider's log", stage.provider.logs()),
        ("metrics", metrics),
    ];
    for (what, kinds) in [
        ("statuses", "applicationlinks,linkproviders"),
        ("events", "events.events.k8s.io"),
        ("providers", "clusterlinkproviders"),
    ] {
        for namespace in [team.as_str(), "default"] {
            seen.push((what, stage.plane.kubectl(&["get", kinds, "-n", namespace, "-o", "yaml"]).await.ok()));
        }
    }
    for (place, text) in &seen {
        for (i, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret.as_str()), "secret {i} stands in the {place}");
        }
    }
    assert!(
        text(&stage.secrets(&team).get("ci-oauth").await.expect("the Secret")).contains_key("client-secret")
    );
    stage.delete(&team, "ci").await;
    double.answer(Answer::Well, Answer::Well, Answer::Well);
    stage.delete(&team, "echo").await;
    stage.remove("ClusterLinkProvider", "", &echo).await;
}
