//! Ready is honest: what ends, goes or is edited is said also while a pass waits for a server that doesn't answer, and
//! what only touches a link changes nothing.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::binary;
use super::refresh_rule::{Link, good};
use crate::support::bench::{Kind, Scopes, link, outside};
use crate::support::honesty::honesty;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::{always, eventually};

/// A stage whose links are refreshed every few seconds.
async fn quick(plane: &'static ControlPlane) -> Stage<'static> {
    Stage::set(plane, binary(), 1, json!({"operator": {"minRefreshInterval": "2s"}})).await
}

fn token(name: &str, lives: i64) -> Reply {
    let mut reply = good(lives);
    reply["access_token"] = json!(name);
    Reply::json(200, &reply)
}

async fn delete_secret(stage: &Stage<'_>, name: &str) {
    stage.secrets(stage.team()).delete(name, &DeleteParams::default()).await.expect("delete");
}

async fn shows(stage: &Stage<'_>, secret: &str, wanted: &str) {
    eventually(SOON, format!("{secret} to show {wanted}"), async || {
        let found = stage.secrets(stage.team()).get_opt(secret).await.map_err(|e| e.to_string())?;
        let data = found.and_then(|s| s.data).unwrap_or_default();
        let shown = data.get("access-token").map(|v| String::from_utf8_lossy(&v.0).into_owned());
        if shown.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("{shown:?}")) }
    })
    .await;
}

/// What happens to a link whose refresh has no answer yet.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    Deleted,
    Edited,
    Ended,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_beside_a_request_is_said_and_the_answer_is_kept() {
    let stage = quick(ControlPlane::shared().await).await;
    let server = TokenServer::start().await;
    let cases = [
        ("deleted", Mishap::Deleted, "SecretMissing"),
        ("edited", Mishap::Edited, "SecretChanged"),
        ("ended", Mishap::Ended, "TokenExpired"),
    ];
    let run = cases.map(|(name, mishap, reason)| {
        let (stage, server) = (&stage, &server);
        async move {
            let go = Arc::new(Notify::new());
            let held = Reply::Hold(go.clone(), Box::new(token("second", 3600)));
            let link = Link::of(stage, server, name);
            server.on(&link.path(), move |n, _| if n == 0 { token("first", 15) } else { held.clone() });
            link.apply(&server.url(&link.path()), false).await;
            stage.ready(stage.team(), name).await;
            eventually(SOON, format!("{name}: the refresh"), async || {
                if link.asked().len() == 2 { Ok(()) } else { Err(link.asked().len()) }
            })
            .await;
            let secret = format!("{name}-token");
            match mishap {
                Mishap::Deleted => delete_secret(stage, &secret).await,
                Mishap::Edited => {
                    link.edit_secret(&secret, json!({"stringData": {"access-token": "mine"}})).await;
                }
                Mishap::Ended => {}
            }
            let seen = stage.condition(stage.team(), name, "Ready", "False", reason).await;
            let status = serde_json::to_value(&seen.status).expect("json");
            assert_eq!(
                condition(&status, "TokenFresh").expect("TokenFresh")["status"],
                "False",
                "{name}: {status}"
            );
            assert!(condition(&status, "Reconciling").is_some(), "{name}: {status}");
            assert_eq!(link.asked().len(), 2, "{name}: all that beside the request");
            go.notify_one();
            stage.ready(stage.team(), name).await;
            shows(stage, &secret, "second").await;
            assert_eq!(link.asked().len(), 2, "{name}: the answer that was on its way isn't asked for again");
        }
    });
    futures::future::join_all(run).await;
}

/// A token that is kept with its grant needs nobody to be put back.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_we_have_is_put_back_beside_a_request() {
    let stage = quick(ControlPlane::shared().await).await;
    let server = TokenServer::start().await;
    let go = Arc::new(Notify::new());
    let rotating = |token: &str, refresh: &str, lives: i64| {
        let mut reply = good(lives);
        (reply["access_token"], reply["refresh_token"]) = (json!(token), json!(refresh));
        Reply::json(200, &reply)
    };
    let held = Reply::Hold(go.clone(), Box::new(rotating("second", "canary-7f3a-two", 3600)));
    let link = Link::of(&stage, &server, "kept");
    let first = rotating("first", "canary-7f3a-one", 60);
    server.on(&link.path(), move |n, _| if n == 0 { first.clone() } else { held.clone() });
    link.apply(&server.url(&link.path()), true).await;
    stage.ready(stage.team(), "kept").await;
    eventually(SOON, "the refresh", async || if link.asked().len() == 2 { Ok(()) } else { Err("not yet") })
        .await;
    delete_secret(&stage, "kept-token").await;
    shows(&stage, "kept-token", "first").await;
    link.edit_secret("kept-token", json!({"stringData": {"access-token": "mine"}})).await;
    shows(&stage, "kept-token", "first").await;
    assert_eq!(link.asked().len(), 2, "beside the request");
    go.notify_one();
    shows(&stage, "kept-token", "second").await;
    stage.ready(stage.team(), "kept").await;
    assert_eq!(link.asked().len(), 2);
}

/// One direction that waits doesn't keep the other from being said.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_the_other_direction_waits_is_said() {
    let stage = quick(ControlPlane::shared().await).await;
    outside(&stage).await;
    let server = TokenServer::start().await;
    let go = Arc::new(Notify::new());
    let held = Reply::Hold(go.clone(), Box::new(token("second", 3600)));
    server.on("/both/token", move |n, _| if n == 0 { token("first", 20) } else { held.clone() });
    let mut object = link("both", Kind::TwoWay, Scopes::Wide, &stage.provider_url);
    object["spec"]["outgoing"]["oauth2"]["server"] =
        json!({"custom": {"tokenEndpoint": server.url("/both/token")}});
    stage.apply_object(stage.team(), &object).await;
    stage.ready(stage.team(), "both").await;
    let data = stage.data(stage.team(), "both-oauth").await;
    eventually(SOON, "the refresh", async || {
        if server.asked("/both/token").len() == 2 { Ok(()) } else { Err("not yet") }
    })
    .await;
    stage.delete_client(&data["client-id"]).await;
    stage.condition(stage.team(), "both", "Ready", "False", "ClientMissing").await;
    go.notify_one();
    stage.ready(stage.team(), "both").await;
    let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 200, "{reply}");
}

async fn annotate(stage: &Stage<'_>, name: &str, annotations: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    stage.links(stage.team()).patch(name, &PatchParams::default(), &patch).await.expect("annotate");
}

#[tokio::test(flavor = "multi_thread")]
async fn touching_a_link_postpones_no_retry() {
    let stage = quick(ControlPlane::shared().await).await;
    let server = TokenServer::start().await;
    let link = Link::make(&stage, &server, "failing", false, Reply::http(500, "", "")).await;
    let next = async || {
        let status = stage.links(stage.team()).get("failing").await.expect("the link").status;
        let next = status.and_then(|s| s.next_retry);
        next.map(|t| t.parse::<jiff::Timestamp>().expect("a time"))
    };
    // The pauses grow; one of them is long enough to touch the link in it.
    let due = eventually(SOON, "a pause of 30 s", async || {
        let next = next().await.ok_or("none yet")?;
        let left = next.duration_since(jiff::Timestamp::now()).as_secs();
        if left >= 20 { Ok(next) } else { Err("shorter") }
    })
    .await;
    let asked = link.asked().len();
    for n in 0..4 {
        annotate(&stage, "failing", json!({"note": n.to_string()})).await;
        link.touch().await;
    }
    always(std::time::Duration::from_secs(2), "nobody is asked", async || {
        if link.asked().len() == asked { Ok(()) } else { Err(link.asked().len()) }
    })
    .await;
    assert_eq!(next().await, Some(due), "the retry comes when it would have come");
    link.heal();
    // Somebody who wants it now says so.
    annotate(&stage, "failing", json!({"applink-operator.io/retry": "now"})).await;
    let ready = stage.ready(stage.team(), "failing").await;
    assert_eq!(ready.status.and_then(|s| s.next_retry), None);
    assert_eq!(link.asked().len(), asked + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_registered_after_the_link_is_waited_for() {
    let stage = quick(ControlPlane::shared().await).await;
    let server = TokenServer::start().await;
    let unknown = Reply::json(401, &json!({"error": "invalid_client"}));
    let link = Link::make(&stage, &server, "early", false, unknown).await;
    let seen = stage.condition(stage.team(), "early", "Ready", "False", "InvalidClient").await;
    let status = serde_json::to_value(&seen.status).expect("json");
    assert!(
        condition(&status, "Reconciling").is_some() && condition(&status, "Stalled").is_none(),
        "{status}"
    );
    assert!(status["nextRetry"].is_string(), "{status}");
    link.touch().await;
    annotate(&stage, "early", json!({"note": "a touch"})).await;
    assert_eq!(link.asked().len(), 1, "a touch asks nobody");
    // Now somebody registers it.
    link.heal();
    stage.ready(stage.team(), "early").await;
    assert_eq!(link.asked().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_others_hold_says_that_it_goes() {
    let stage = quick(ControlPlane::shared().await).await;
    outside(&stage).await;
    let team = stage.team();
    let mut object = link("held", Kind::Incoming, Scopes::Wide, &stage.provider_url);
    object["metadata"]["finalizers"] = json!(["example.com/theirs"]);
    stage.apply_object(team, &object).await;
    stage.ready(team, "held").await;
    let data = stage.data(team, "held-oauth").await;
    stage.links(team).delete("held", &DeleteParams::default()).await.expect("delete");
    stage.condition(team, "held", "Ready", "False", "Terminating").await;
    let left = eventually(SOON, "only their finalizer", async || {
        let link = stage.links(team).get("held").await.map_err(|e| e.to_string())?;
        let ours = link.finalizers().iter().any(|f| f.starts_with("applink-operator.io/"));
        let said = link.status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == "Ready").cloned();
        let said = said.map(|c| (c.reason, c.message)).unwrap_or_default();
        if !ours && said.1.contains("example.com/theirs") { Ok(said) } else { Err(format!("{said:?}")) }
    })
    .await;
    assert_eq!(left.0, "Terminating");
    let (status, _) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 401, "its client is gone");
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    stage.links(team).patch("held", &PatchParams::default(), &patch).await.expect("let go");
    stage.gone(team, "held").await;
}

/// `kubectl replace` takes the claim off; at that moment somebody deletes the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_at_the_provider_isnt_lost_while_the_claim_is_missing() {
    let stage = quick(ControlPlane::shared().await).await;
    outside(&stage).await;
    let team = stage.team();
    stage.apply_object(team, &link("replaced", Kind::Incoming, Scopes::Wide, &stage.provider_url)).await;
    stage.ready(team, "replaced").await;
    let data = stage.data(team, "replaced-oauth").await;
    for round in 0..5 {
        annotate(&stage, "replaced", json!({"applink-operator.io/registered-at": null})).await;
        stage.delete_client(&data["client-id"]).await;
        eventually(SOON, format!("round {round}: the client is back"), async || {
            let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
            if status == 200 { Ok(()) } else { Err(format!("{status} {reply}")) }
        })
        .await;
    }
    stage.ready(team, "replaced").await;
}

/// A share of what `make sweep` does for half an hour.
#[tokio::test(flavor = "multi_thread")]
async fn ready_is_true_over_nothing_that_fails_for_long() {
    let span = std::time::Duration::from_secs(40);
    let report = honesty(ControlPlane::shared().await, binary(), 7, span).await;
    assert!(report.samples > 30 && report.ready > 0 && report.deeds > 5, "{report:?}");
    assert!(report.lies.is_empty(), "{report:#?}");
}
