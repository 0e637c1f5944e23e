//! Clients whose link is gone without unregistering them: found, said, unregistered after a while, and never one that
//! was to stay or whose link came back.

use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine};
use super::turns::metrics;
use super::watcher::events;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

async fn stage(unregister_after: &str) -> Stage<'static> {
    let values = json!({"operator": {"resync": "2s"}, "orphans": {"unregisterAfter": unregister_after}});
    Stage::set(ControlPlane::shared().await, binary(), 1, values).await
}

/// Takes the finalizer off while the operator is away, and deletes the link. Gives back its client.
async fn abandon(stage: &Stage<'_>, name: &str) -> String {
    let team = stage.team();
    let id = stage.data(team, &format!("{name}-oauth")).await["client-id"].clone();
    stage.patch("ApplicationLink", team, name, json!({"metadata": {"finalizers": null}})).await;
    stage.remove("ApplicationLink", team, name).await;
    id
}

async fn orphans(stage: &Stage<'_>) -> Option<f64> {
    let name = format!("name=\"{}\"", stage.provider_name);
    let text = metrics(stage).await;
    let line = text.lines().find(|l| l.starts_with("applink_orphans{") && l.contains(&name))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_link_went_without_a_word_is_said_and_goes_after_a_while() {
    let mut stage = stage("6s").await;
    let team = stage.team().to_owned();
    let mut retained = machine("retained", json!({}));
    retained["spec"]["deletionPolicy"] = json!("Retain");
    stage.apply_object(&team, &retained).await;
    for name in ["kept", "lost", "before"] {
        stage.apply_object(&team, &machine(name, json!({}))).await;
    }
    for name in ["kept", "lost", "before", "retained"] {
        stage.ready(&team, name).await;
    }
    let works = stage.data(&team, "retained-oauth").await;
    stage.delete(&team, "retained").await;
    stage.operator.stop().await;
    let lost = abandon(&stage, "lost").await;
    // A record of the version before says nothing of the link's end.
    let before = abandon(&stage, "before").await;
    let mut body = client(&stage, &before).await.expect("the client");
    let path = format!("/admin/clients/{before}");
    assert_eq!(stage.admin(Method::DELETE, &path, None).await.0, 204);
    body["owner"].as_object_mut().expect("an owner").remove("deletion");
    let old = json!({
        "name": "old", "grantTypes": ["client_credentials"], "tokenEndpointAuthMethod": "client_secret_basic",
        "secret": "a secret of the version before", "owner": body["owner"],
    });
    assert_eq!(stage.admin(Method::PUT, &path, Some(old)).await.0, 201);
    stage.operator.start().await;

    eventually(SOON, "the events", async || {
        let said = events(&stage, &team, "lost", "OrphanFound").await;
        let old = events(&stage, &team, "before", "OrphanFound").await;
        match (&said[..], &old[..]) {
            ([said], [old]) if said.contains(&lost) && said.contains("it is unregistered in 6 s") => {
                assert!(old.contains("it stays until somebody removes it"), "{old}");
                Ok(())
            }
            _ => Err(format!("{said:?} {old:?}")),
        }
    })
    .await;
    eventually(SOON, "the orphan gone", async || client(&stage, &lost).await.is_none()).await;
    eventually(SOON, "the event", async || {
        let said = events(&stage, &team, "lost", "OrphanUnregistered").await;
        if said.len() == 1 { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    // What was to stay does, and what an older version made is a person's to remove.
    eventually(SOON, "the metric", async || match orphans(&stage).await {
        Some(1.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert!(metrics(&stage).await.contains("applink_orphans_unregistered_total 1"));
    assert!(authenticates(&stage, &works).await && client(&stage, &before).await.is_some());
    stage.ready(&team, "kept").await;
    assert_eq!(stage.clients().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_back_keeps_its_client_and_so_does_one_that_is_retained_at_the_last_moment() {
    let mut stage = stage("never").await;
    let team = stage.team().to_owned();
    for name in ["back", "late"] {
        stage.apply_object(&team, &machine(name, json!({}))).await;
        stage.ready(&team, name).await;
    }
    stage.operator.stop().await;
    let id = abandon(&stage, "back").await;
    stage.operator.start().await;
    eventually(SOON, "the event", async || {
        let said = events(&stage, &team, "back", "OrphanFound").await;
        if said.iter().any(|s| s.contains("until somebody removes it")) {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    })
    .await;
    stage.apply_object(&team, &machine("back", json!({}))).await;
    stage.ready(&team, "back").await;
    assert_eq!(stage.data(&team, "back-oauth").await["client-id"], id);
    eventually(SOON, "no orphan", async || match orphans(&stage).await {
        Some(0.0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    // The policy changes while nobody looks, and the link goes at once: its record says so before it is let go.
    let works = stage.data(&team, "late-oauth").await;
    let said = |client: &Value| client["owner"]["deletion"].clone();
    let goes = said(&client(&stage, &works["client-id"]).await.expect("the client"));
    stage.operator.stop().await;
    stage.patch("ApplicationLink", &team, "late", json!({"spec": {"deletionPolicy": "Retain"}})).await;
    stage.links(&team).delete("late", &kube::api::DeleteParams::default()).await.expect("delete");
    stage.operator.start().await;
    stage.gone(&team, "late").await;
    let stays = said(&client(&stage, &works["client-id"]).await.expect("the client"));
    assert!(stays.is_string() && stays != goes, "{stays} {goes}");
    assert!(authenticates(&stage, &works).await);
}
