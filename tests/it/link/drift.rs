//! What others change behind a link's back, in its Secret and at the provider, is put right, with the same credentials; and
//! an event says what it was.

use std::collections::BTreeMap;
use std::path::Path;

use kube::api::DeleteParams;
use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{
    authenticates, client, client_is, data, machine, no_clients, patch_link, patch_secret, secret,
};
use super::watcher::{Prober, at_rest, events, incoming, told};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, merge, text};
use crate::support::wait::eventually;

async fn stage(more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), 1, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_put_right_at_once_and_what_is_foreign_in_it_stays() {
    // No look of its own comes in the time of this test: the watch alone does it.
    let stage = stage(json!({})).await;
    let team = stage.team();
    let shape = json!({"incoming": {"secret": {"labels": {"team": "a"}, "annotations": {"note": "n"}}}});
    stage.apply_object(team, &machine("ci", shape)).await;
    stage.registered(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    let foreign = json!({
        "stringData": {"theirs": "1"},
        "metadata": {"labels": {"theirs": "1"}, "annotations": {"theirs": "1"}},
    });
    patch_secret(&stage, team, "ci-oauth", foreign).await;
    at_rest(&stage).await;
    assert_eq!(events(&stage, team, "ci", "Repaired").await, Vec::<String>::new());

    let put_right = async |what: &str, foreign: bool| {
        let found = secret(&stage, team, "ci-oauth", what, |s| {
            let has = |all: &Option<BTreeMap<String, String>>, key: &str, value: &str| {
                all.as_ref().is_some_and(|m| m.get(key).map(String::as_str) == Some(value))
            };
            let (labels, annotations) = (&s.metadata.labels, &s.metadata.annotations);
            first.iter().all(|(k, v)| text(s).get(k) == Some(v))
                && has(labels, "app.kubernetes.io/managed-by", "applink-operator")
                && has(labels, "applink-operator.io/link", "ci")
                && has(labels, "team", "a")
                && has(annotations, "note", "n")
        })
        .await;
        assert_eq!(text(&found).contains_key("theirs"), foreign, "{what}");
        assert_eq!(found.metadata.labels.unwrap_or_default().contains_key("theirs"), foreign, "{what}");
        assert_eq!(found.metadata.annotations.unwrap_or_default().contains_key("theirs"), foreign, "{what}");
    };
    let emptied: Value =
        first.keys().map(|k| (k.clone(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
    let bare = json!({"app.kubernetes.io/managed-by": null, "applink-operator.io/link": null, "team": null});
    let steps = [
        ("edited", json!({"stringData": {"client-secret": "edited"}}), "(client-secret)"),
        (
            "edited elsewhere",
            json!({"stringData": {"token-endpoint": "https://evil.example"}}),
            "(token-endpoint)",
        ),
        ("emptied", json!({"data": emptied}), "(client-id, client-secret, issuer-uri"),
        ("relabelled", json!({"metadata": {"labels": {"team": "b"}}}), "(its labels or annotations)"),
        ("without our labels", json!({"metadata": {"labels": bare}}), "(its labels or annotations)"),
        ("annotated", json!({"metadata": {"annotations": {"note": "m"}}}), "(its labels or annotations)"),
    ];
    for (what, patch, says) in steps {
        patch_secret(&stage, team, "ci-oauth", patch).await;
        put_right(what, true).await;
        told(&stage, team, "ci", "Repaired", &["Secret ci-oauth was other than it should be", says]).await;
    }
    stage.secrets(team).delete("ci-oauth", &DeleteParams::default()).await.expect("delete");
    put_right("deleted", false).await;
    told(&stage, team, "ci", "Repaired", &["Secret ci-oauth was gone: written again"]).await;
    at_rest(&stage).await;
    stage.registered(team, "ci").await;
    let all = events(&stage, team, "ci", "Repaired").await;
    assert!(all.iter().all(|text| !text.contains(&first["client-secret"])), "no event shows a secret");
    assert_eq!(incoming(&stage, team, "ci").await["serial"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_put_right_within_resync_and_the_event_says_what_was_wrong() {
    let stage = stage(json!({"operator": {"resync": "2s"}})).await;
    let team = stage.team();
    let shape = json!({"incoming": {"oauth2": {
        "grantTypes": ["authorization_code", "refresh_token", "client_credentials"],
        "redirectUris": ["https://ci.example.com/cb"], "scopes": ["REPO_READ"],
    }}});
    stage.apply_object(team, &machine("ci", shape)).await;
    stage.registered(team, "ci").await;
    let credentials = stage.data(team, "ci-oauth").await;
    let id = credentials["client-id"].clone();
    let path = format!("/admin/clients/{id}");
    let before = client(&stage, &id).await.expect("registered");
    let shape_of = |c: &Value| {
        let mut c = c.clone();
        c.as_object_mut().expect("an object").retain(|k, _| k != "createdAt" && k != "updatedAt");
        c
    };
    let members = ["name", "uri", "redirectUris", "grantTypes", "scopes", "tokenEndpointAuthMethod", "owner"];
    let put = async |change: Value| {
        let all = members.iter().map(|m| ((*m).to_owned(), before[*m].clone()));
        let mut body: Value = all.collect::<serde_json::Map<_, _>>().into();
        merge(&mut body, change);
        let (status, answer) = stage.admin(Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    };
    let forged = {
        let mut owner = before["owner"].clone();
        owner["serial"] = json!(7);
        owner
    };
    let steps = [
        ("renamed", json!({"name": "mine now"}), "(application.name)"),
        ("another address", json!({"uri": "https://evil.example"}), "(application.url)"),
        ("another redirect", json!({"redirectUris": ["https://evil.example/cb"]}), "(redirectUris)"),
        ("more scopes", json!({"scopes": ["REPO_ADMIN", "REPO_READ"]}), "(scopes)"),
        ("fewer grants", json!({"grantTypes": ["client_credentials"]}), "(grantTypes)"),
        ("disabled", json!({"grantTypes": []}), "(grantTypes)"),
        (
            "another method",
            json!({"tokenEndpointAuthMethod": "client_secret_post"}),
            "(tokenEndpointAuthMethod)",
        ),
        (
            "another secret",
            json!({"secret": "somebody-elses-secret-of-some-length-0123456789"}),
            "(its secret)",
        ),
    ];
    for (what, change, says) in steps {
        put(change).await;
        let wanted = shape_of(&before);
        client_is(&stage, &id, what, |c| shape_of(c) == wanted).await;
        eventually(SOON, format!("{what}: the same credentials"), async || {
            authenticates(&stage, &credentials).await
        })
        .await;
        told(&stage, team, "ci", "Repaired", &[&format!("client {id} was other"), says, "put right"]).await;
    }
    assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
    let wanted = shape_of(&before);
    client_is(&stage, &id, "registered again", |c| shape_of(c) == wanted).await;
    told(&stage, team, "ci", "Repaired", &["was gone from ClusterLinkProvider", "registered again"]).await;
    stage.registered(team, "ci").await;
    assert_eq!(stage.data(team, "ci-oauth").await, credentials);
    assert!(authenticates(&stage, &credentials).await);
    at_rest(&stage).await;

    // A record that was edited is nobody's: that is said, and the client stays as it is.
    put(json!({"owner": forged})).await;
    stage.condition(team, "ci", "Stalled", "True", "ClientConflict").await;
    assert_eq!(client(&stage, &id).await.expect("the client")["owner"]["serial"], 7);
    stage.admin(Method::DELETE, &path, None).await;
    stage.registered(team, "ci").await;
    assert_eq!(stage.data(team, "ci-oauth").await, credentials);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the store") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
}

fn wipe(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the store") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_was_wiped_or_restored_gets_all_its_clients_back() {
    const LINKS: usize = 12;
    let mut stage = stage(json!({"operator": {"resync": "2s"}})).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    let names: Vec<_> = (0..LINKS).map(|n| format!("ci-{n}")).collect();
    let mut all = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let rotation = if n % 3 == 0 { json!({"every": "1h"}) } else { json!({"overlap": "0s"}) };
        all.push(machine(name, json!({"incoming": {"rotation": rotation}})));
    }
    stage.apply_object(team, &json!({"apiVersion": "v1", "kind": "List", "items": all})).await;
    let mut credentials = BTreeMap::new();
    for name in &names {
        stage.registered(team, name).await;
        credentials.insert(name.clone(), stage.data(team, &format!("{name}-oauth")).await);
    }
    let store = stage.provider.host_path("/var/lib/applink");
    let backup = stage.plane.run_dir().folder(format!("backup-{}", stage.system));
    stage.provider.stop().await;
    copy(&store, &backup);
    stage.provider.start().await;
    stage.provider.until_ready(SOON).await;

    // Every fourth is rotated after the backup, one is made and one is gone: the backup knows another truth.
    for name in names.iter().step_by(4) {
        let note = json!({"metadata": {"annotations": {"applink-operator.io/rotate": "after the backup"}}});
        patch_link(&stage, team, name, note).await;
    }
    for name in names.iter().step_by(4) {
        eventually(SOON, format!("{name} rotated"), async || {
            incoming(&stage, team, name).await["serial"] == 2
        })
        .await;
    }
    for name in &names {
        stage.registered(team, name).await;
        credentials.insert(name.clone(), stage.data(team, &format!("{name}-oauth")).await);
    }
    stage.apply_object(team, &machine("young", json!({}))).await;
    stage.registered(team, "young").await;
    credentials.insert("young".into(), stage.data(team, "young-oauth").await);

    for (what, from) in [("wiped", None), ("restored from the backup", Some(&backup))] {
        stage.provider.stop().await;
        wipe(&store);
        if let Some(backup) = from {
            copy(backup, &store);
        }
        stage.provider.start().await;
        stage.provider.until_ready(SOON).await;
        for (name, data) in &credentials {
            eventually(SOON, format!("{what}: the credentials of {name}"), async || {
                authenticates(&stage, data).await
            })
            .await;
        }
        for (name, before) in &credentials {
            stage.registered(team, name).await;
            assert_eq!(data(&stage, team, &format!("{name}-oauth")).await.as_ref(), Some(before), "{what}");
        }
        assert_eq!(stage.clients().await.len(), LINKS + 1, "{what}");
        at_rest(&stage).await;
    }
    told(&stage, team, "young", "Repaired", &["was gone from", "registered again"]).await;
    told(&stage, team, "ci-0", "Repaired", &["its secret", "its owner record", "put right"]).await;

    // All works on as if nothing had been: a rotation, and the end.
    let prober = Prober::start(&stage, team, &["ci-0-oauth"]);
    let note = json!({"metadata": {"annotations": {"applink-operator.io/rotate": "later"}}});
    patch_link(&stage, team, "ci-0", note).await;
    eventually(SOON, "rotated once more", async || incoming(&stage, team, "ci-0").await["serial"] == 3).await;
    prober.never_failed().await;
    for name in credentials.keys() {
        stage.links(team).delete(name, &DeleteParams::default()).await.expect("delete");
    }
    for name in credentials.keys() {
        stage.gone(team, name).await;
    }
    no_clients(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_change_at_the_bundled_provider_is_told_and_put_right_at_once() {
    // No look of its own comes in an hour: only what the provider tells can be why.
    let mut stage = stage(json!({"operator": {"resync": "1h"}})).await;
    let team = stage.team().to_owned();
    stage.apply_object(&team, &machine("ci", json!({}))).await;
    stage.registered(&team, "ci").await;
    let first = stage.data(&team, "ci-oauth").await;
    let path = format!("/admin/clients/{}", first["client-id"]);
    for restarted in [false, true] {
        if restarted {
            stage.operator.restart().await;
            stage.operator.until_ready(SOON).await;
            at_rest(&stage).await;
        }
        let began = std::time::Instant::now();
        assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
        eventually(SOON, "the deleted client again", async || authenticates(&stage, &first).await).await;
        eprintln!("drift: a deleted client authenticated again after {:.1?}", began.elapsed());
        at_rest(&stage).await;
    }
}
