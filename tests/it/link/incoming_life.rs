//! The life of an incoming link's Secret: what others do to it, and what its own link changes.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{
    authenticates, data, machine, message, no_secret, patch_link, patch_secret, secret, stays,
};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, text};
use crate::support::wait::eventually;

async fn stage(teams: usize) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), teams, json!({})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_somebody_touches_is_put_right_at_once() {
    let stage = stage(1).await;
    let team = stage.team();
    stage
        .apply_object(team, &machine("ci", json!({"incoming": {"secret": {"labels": {"team": "a"}}}})))
        .await;
    stage.ready(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    assert!(authenticates(&stage, &first).await);
    // Somebody's own key and label stay through all of this.
    patch_secret(
        &stage,
        team,
        "ci-oauth",
        json!({"stringData": {"theirs": "1"}, "metadata": {"labels": {"theirs": "1"}}}),
    )
    .await;

    // No resync comes in the time of this test: the watch alone does it.
    let put_right = async |what: &str, foreign: bool| {
        let found = secret(&stage, team, "ci-oauth", what, |s| {
            let labels = s.metadata.labels.clone().unwrap_or_default();
            let owner = s.metadata.owner_references.iter().flatten().next().map(|o| o.kind.clone());
            let data = text(s);
            first.iter().all(|(k, v)| data.get(k) == Some(v))
                && labels.get("app.kubernetes.io/managed-by").map(String::as_str) == Some("applink-operator")
                && labels.get("team").map(String::as_str) == Some("a")
                && owner.as_deref() == Some("ApplicationLink")
        })
        .await;
        assert_eq!(text(&found).contains_key("theirs"), foreign, "{what}");
        assert_eq!(found.metadata.labels.unwrap_or_default().contains_key("theirs"), foreign, "{what}");
    };
    patch_secret(&stage, team, "ci-oauth", json!({"stringData": {"client-secret": "edited"}})).await;
    put_right("edited", true).await;
    let emptied: Value =
        first.keys().map(|k| (k.clone(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
    patch_secret(&stage, team, "ci-oauth", json!({"data": emptied})).await;
    put_right("emptied", true).await;
    patch_secret(
        &stage,
        team,
        "ci-oauth",
        json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null, "team": "b"}}}),
    )
    .await;
    put_right("relabelled", true).await;
    patch_secret(&stage, team, "ci-oauth", json!({"metadata": {"ownerReferences": null}})).await;
    put_right("without its owner", true).await;
    patch_secret(
        &stage,
        team,
        "ci-oauth",
        json!({"metadata": {"annotations": {"applink-operator.io/serial": "9"}}}),
    )
    .await;
    secret(&stage, team, "ci-oauth", "its serial", |s| {
        s.metadata.annotations.as_ref().is_some_and(|a| a["applink-operator.io/serial"] == "1")
    })
    .await;
    stage.secrets(team).delete("ci-oauth", &kube::api::DeleteParams::default()).await.expect("delete");
    put_right("deleted", false).await;
    assert!(authenticates(&stage, &stage.data(team, "ci-oauth").await).await);

    // Keys with other names; a foreign key stays.
    patch_secret(&stage, team, "ci-oauth", json!({"stringData": {"theirs": "1"}})).await;
    patch_link(&stage, team, "ci", json!({"spec": {"incoming": {"secret": {"keys": {"clientId": "CLIENT_ID", "clientSecret": "CLIENT_SECRET"}}}}})).await;
    let renamed =
        secret(&stage, team, "ci-oauth", "renamed keys", |s| !text(s).contains_key("client-id")).await;
    let renamed = text(&renamed);
    assert_eq!((renamed["CLIENT_ID"].clone(), renamed["theirs"].as_str()), (first["client-id"].clone(), "1"));
    assert!(!renamed.contains_key("client-secret") && renamed.contains_key("CLIENT_SECRET"));

    // Another Secret: the old one goes.
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"secret": {"name": "other", "keys": null}}}}),
    )
    .await;
    no_secret(&stage, team, "ci-oauth").await;
    let other = stage.data(team, "other").await;
    assert_eq!(other["client-secret"], first["client-secret"]);
    let link = stage.ready(team, "ci").await;
    assert_eq!(link.status.and_then(|s| s.binding).map(|b| b.name).as_deref(), Some("other"));
    stage.delete(team, "ci").await;
    no_secret(&stage, team, "other").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_labels_and_types_are_the_users() {
    let stage = stage(1).await;
    let team = stage.team();
    let shape = json!({"incoming": {"secret": {
        "labels": {"app": "ci"}, "annotations": {"note": "für alle"}, "type": "servicebinding.io/oauth2",
        "template": {
            ".env": "ID={{ clientId }}\nSECRET={{ clientSecret }}\n",
            "client.json": "{\"id\": {{ clientId | json }}, \"uri\": {{ tokenEndpoint | json }}}",
        },
    }}});
    stage.apply_object(team, &machine("ci", shape)).await;
    stage.ready(team, "ci").await;
    let found = stage.secrets(team).get("ci-oauth").await.expect("the Secret");
    let data = text(&found);
    assert_eq!(data[".env"], format!("ID={}\nSECRET={}\n", data["client-id"], data["client-secret"]));
    let json: Value = serde_json::from_str(&data["client.json"]).expect("json");
    assert_eq!(
        (json["id"].as_str(), json["uri"].as_str()),
        (Some(data["client-id"].as_str()), Some(data["token-endpoint"].as_str()))
    );
    assert_eq!(found.type_.as_deref(), Some("servicebinding.io/oauth2"));
    assert_eq!(found.metadata.annotations.as_ref().map(|a| a["note"].as_str()), Some("für alle"));
    assert_eq!(found.metadata.labels.as_ref().map(|l| l["app"].as_str()), Some("ci"));

    // A label and a template that aren't wanted any more go.
    patch_link(
        &stage,
        team,
        "ci",
        json!({"spec": {"incoming": {"secret": {"labels": null, "template": {"client.json": null}}}}}),
    )
    .await;
    secret(&stage, team, "ci-oauth", "less in it", |s| {
        !text(s).contains_key("client.json")
            && text(s).contains_key(".env")
            && !s.metadata.labels.clone().unwrap_or_default().contains_key("app")
    })
    .await;

    // A type can't be changed in place; deleting the Secret is the way out that is named.
    patch_link(&stage, team, "ci", json!({"spec": {"incoming": {"secret": {"type": "Opaque"}}}})).await;
    stage.condition(team, "ci", "Stalled", "True", "SecretTypeFixed").await;
    assert!(
        message(&stage, team, "ci", "Ready")
            .await
            .contains("delete that Secret and it is made anew as Opaque")
    );
    stage.secrets(team).delete("ci-oauth", &kube::api::DeleteParams::default()).await.expect("delete");
    stage.ready(team, "ci").await;
    assert_eq!(
        stage.secrets(team).get("ci-oauth").await.expect("the Secret").type_.as_deref(),
        Some("Opaque")
    );

    for (source, says) in [
        ("{{ clientId", "doesn't parse (line 1)"),
        ("{{ nope }}", "names a value or filter that there isn't (line 1); there are clientId, clientSecret"),
        ("{% include 'x' %}", "spec.incoming.secret.template[\".env\"]"),
        ("{{ \"' $x\" }}", "write it with the filter for its file"),
        ("{{ clientSecret ~ \"x\" }}", "use values, filters and if alone"),
    ] {
        patch_link(
            &stage,
            team,
            "ci",
            json!({"spec": {"incoming": {"secret": {"template": {".env": source}}}}}),
        )
        .await;
        stage.condition(team, "ci", "Stalled", "True", "").await;
        let said = message(&stage, team, "ci", "Ready").await;
        assert!(
            said.contains(says) && said.contains("spec.incoming.secret.template[\".env\"]"),
            "{source}: {said}"
        );
        // The old content works on.
        assert!(authenticates(&stage, &stage.data(team, "ci-oauth").await).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_left_alone_until_its_owner_consents() {
    let stage = stage(1).await;
    let team = stage.team();
    stage.put_secret(team, "ci-oauth", &[("mine", "1")]).await;
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.condition(team, "ci", "Stalled", "True", "SecretConflict").await;
    let said = message(&stage, team, "ci", "Ready").await;
    assert!(said.contains("annotate the Secret with applink-operator.io/take-over-by=ci"), "{said}");
    assert_eq!(stage.data(team, "ci-oauth").await.into_keys().collect::<Vec<_>>(), ["mine"]);
    // A client that nobody could use isn't made.
    assert!(stage.clients().await.is_empty());
    patch_secret(
        &stage,
        team,
        "ci-oauth",
        json!({"metadata": {"annotations": {"applink-operator.io/take-over-by": "ci"}}}),
    )
    .await;
    stage.ready(team, "ci").await;
    let taken = stage.data(team, "ci-oauth").await;
    assert_eq!(taken["mine"], "1");
    assert!(authenticates(&stage, &taken).await);

    // What another object controls isn't taken over at all.
    stage
        .apply_object(team, &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "boss"}}))
        .await;
    let uid = stage.object("ConfigMap", team, "boss").await.expect("it is there")["metadata"]["uid"].clone();
    stage.apply_object(team, &json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"mine": "1"},
        "metadata": {
            "name": "owned", "annotations": {"applink-operator.io/take-over-by": "two"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "boss", "uid": uid, "controller": true}],
        },
    })).await;
    stage.apply_object(team, &machine("two", json!({"incoming": {"secret": {"name": "owned"}}}))).await;
    stage.condition(team, "two", "Stalled", "True", "SecretConflict").await;
    assert!(message(&stage, team, "two", "Ready").await.contains("belongs to ConfigMap boss"));
    // When it goes, the link goes on by itself.
    stage.remove("Secret", team, "owned").await;
    stage.ready(team, "two").await;
    // And a Secret that a Retain left, or a person's, isn't deleted with the link.
    stage.delete(team, "two").await;

    // Two links, one Secret: the first keeps it, the second goes on when the first is gone.
    for name in ["first", "second"] {
        stage.apply_object(team, &machine(name, json!({"incoming": {"secret": {"name": "shared"}}}))).await;
        if name == "first" {
            stage.ready(team, name).await;
        }
    }
    stage.condition(team, "second", "Stalled", "True", "SecretConflict").await;
    assert!(
        message(&stage, team, "second", "Ready")
            .await
            .contains("belongs to ApplicationLink first; give this link another Secret name")
    );
    let first = stage.data(team, "shared").await;
    stays("the first link's Secret", async || data(&stage, team, "shared").await == Some(first.clone()))
        .await;
    stage.delete(team, "first").await;
    stage.ready(team, "second").await;
    let second = stage.data(team, "shared").await;
    assert!(authenticates(&stage, &second).await && !authenticates(&stage, &first).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_made_between_look_and_write_is_left_alone() {
    let stage = stage(1).await;
    let team = stage.team();
    let mut lost = 0;
    for i in 0..12 {
        let name = format!("race-{i}");
        let object = machine(&name, json!({}));
        let theirs: k8s_openapi::api::core::v1::Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("{name}-oauth")}, "stringData": {"mine": "1"},
        }))
        .expect("a Secret");
        let link: applink_operator::api::ApplicationLink = serde_json::from_value(object).expect("a link");
        let params = kube::api::PostParams::default();
        stage.links(team).create(&params, &link).await.expect("created");
        // Somewhere in the pass that is running now.
        tokio::time::sleep(std::time::Duration::from_millis(i * 3)).await;
        let made = stage.secrets(team).create(&params, &theirs).await;
        if made.is_ok() {
            lost += 1;
            stage.condition(team, &name, "Stalled", "True", "SecretConflict").await;
            assert_eq!(
                stage.data(team, &format!("{name}-oauth")).await.into_keys().collect::<Vec<_>>(),
                ["mine"]
            );
        } else {
            stage.ready(team, &name).await;
        }
    }
    assert!(lost > 0, "the other side won never: begin it earlier");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_made_anew_under_its_old_name_has_new_credentials_and_a_suspended_one_rests() {
    let stage = stage(1).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci", json!({}))).await;
    let first = stage.ready(team, "ci").await;
    let old = stage.data(team, "ci-oauth").await;
    stage.delete(team, "ci").await;
    stage.apply_object(team, &machine("ci", json!({}))).await;
    let second = stage.ready(team, "ci").await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    let new = eventually(SOON, "the new credentials", async || {
        data(&stage, team, "ci-oauth").await.filter(|d| d["client-secret"] != old["client-secret"])
    })
    .await;
    assert_eq!(new["client-id"], old["client-id"]);
    assert!(authenticates(&stage, &new).await && !authenticates(&stage, &old).await);

    patch_link(&stage, team, "ci", json!({"spec": {"suspend": true}})).await;
    stage.condition(team, "ci", "Ready", "True", "Suspended").await;
    patch_secret(&stage, team, "ci-oauth", json!({"stringData": {"client-secret": "edited"}})).await;
    stage.condition(team, "ci", "Ready", "False", "Suspended").await;
    assert!(message(&stage, team, "ci", "Ready").await.contains("set spec.suspend to false"));
    stays("the edit", async || stage.data(team, "ci-oauth").await["client-secret"] == "edited").await;
    patch_link(&stage, team, "ci", json!({"spec": {"suspend": false}})).await;
    stage.condition(team, "ci", "Ready", "True", "Connected").await;
    assert_eq!(stage.data(team, "ci-oauth").await, new);
    // Deletion runs also while it rests.
    patch_link(&stage, team, "ci", json!({"spec": {"suspend": true}})).await;
    stage.delete(team, "ci").await;
    assert!(stage.clients().await.is_empty());
}
