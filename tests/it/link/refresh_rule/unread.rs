//! A reply that can't be read and may have spent the refresh token isn't thrown away.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{CANARY, Link, shows_no_canary};
use crate::cli::{json_of, user, with};
use crate::link::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

/// A success in a coding that isn't known here.
fn coded(body: &str) -> Reply {
    Reply::http(200, "Content-Encoding: br\r\nContent-Type: application/json\r\n", body)
}

async fn doctor(stage: &Stage<'_>, name: &str, more: &[&str]) -> crate::support::programs::Output {
    let args = ["doctor", name, "-n", stage.team(), "--operator-namespace", &stage.system, "--reply"];
    with(stage.plane.kubeconfig(), &[&args[..], more].concat()).await
}

/// What the link says of itself.
async fn message(stage: &Stage<'_>, name: &str, reason: &str) -> String {
    let link = stage.condition(stage.team(), name, "Ready", "False", reason).await;
    let status = serde_json::to_value(&link.status).expect("JSON");
    condition(&status, "Ready").expect("Ready")["message"].as_str().expect("a message").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_cant_be_read_outlives_the_operator() {
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let server = TokenServer::start().await;
    let body = format!("{CANARY}, as if it were brotli\n");
    let link = Link::make(&stage, &server, "coded", true, coded(&body)).await;
    let path = link.path();
    let said = message(&stage, "coded", "MalformedReply").await;
    assert!(said.contains("content coding br") && said.contains("doctor coded -n"), "{said}");
    let healed = link.healed.clone();
    stage.operator.kill();

    // It is there, for who may read the operator's Secrets, and is sealed for all others.
    let shown = doctor(&stage, "coded", &[]).await;
    assert_eq!((shown.code, shown.stdout.as_str()), (Some(0), body.as_str()), "{shown:?}");
    assert!(shown.stderr.contains("Content-Encoding br") && shown.stderr.contains("status 200"), "{shown:?}");
    let object = json_of(&doctor(&stage, "coded", &["-o", "json"]).await);
    assert_eq!((&object["complete"], &object["contentEncoding"]), (&json!(true), &json!("br")), "{object}");
    let link = Link::of(&stage, &server, "coded");
    let kept = link.kept().await;
    assert!(kept["unread"]["sealed"].is_object(), "{kept}");
    assert!(!kept["unread"].to_string().contains(CANARY), "{kept}");
    let rules = json!([
        {"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]},
    ]);
    let tenant = user(stage.plane, stage.team(), rules).await;
    let args = ["doctor", "coded", "-n", stage.team(), "--operator-namespace", &stage.system, "--reply"];
    let refused = with(&tenant, &args).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");

    // A success ends it.
    healed.store(true, std::sync::atomic::Ordering::SeqCst);
    stage.operator.start().await;
    stage.ready(stage.team(), "coded").await;
    let link = Link::of(&stage, &server, "coded");
    assert!(link.kept().await["unread"].is_null());
    let none = doctor(&stage, "coded", &[]).await;
    assert_eq!((none.code, none.stdout.as_str()), (Some(1), ""), "{none:?}");
    assert!(server.asked(&path).iter().all(|a| a.header("accept-encoding") == Some("identity")));
    shows_no_canary(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_reply_is_kept_until_its_time_is_over() {
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let server = TokenServer::start().await;
    // Cut off, then in an unknown coding, a gateway's page, and the word that the token was spent.
    let link = Link::of(&stage, &server, "spent");
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let last = go.clone();
    server.on(&link.path(), move |nth, _| match nth {
        0 => Reply::cut("{\"access_token\":\"first"),
        1 => coded("newest"),
        2 => Reply::http(502, "", "<h1>no gateway</h1>"),
        _ => Reply::Hold(last.clone(), Box::new(Reply::json(400, &json!({"error": "invalid_grant"})))),
    });
    link.apply(&server.url(&link.path()), true).await;
    eventually(SOON, "the fourth request", async || link.asked().len() > 3).await;
    let shown = doctor(&stage, "spent", &[]).await;
    assert_eq!(shown.stdout, "newest", "{shown:?}");
    go.notify_waiters();
    go.notify_one();
    let said = message(&stage, "spent", "ReauthorizationRequired").await;
    assert!(said.contains("doctor spent -n") && said.contains("--reply"), "{said}");
    assert_eq!(doctor(&stage, "spent", &[]).await.stdout, "newest");

    // A month later.
    let uid = stage.links(stage.team()).get("spent").await.expect("the link").uid().expect("a UID");
    let mut kept = Link::of(&stage, &server, "spent").kept().await;
    let then = Timestamp::now() - SignedDuration::from_hours(30 * 24 + 1);
    kept["unread"]["at"] = json!(then.to_string());
    let patch = json!({"stringData": {"record.json": kept.to_string()}});
    stage.patch("Secret", &stage.system, &format!("applink-grant-{uid}"), patch).await;
    assert_eq!(doctor(&stage, "spent", &[]).await.code, Some(1));
    stage.operator.restart().await;
    let link = Link::of(&stage, &server, "spent");
    eventually(SOON, "the reply gone", async || {
        let kept = link.kept().await;
        if kept["unread"] == Value::Null { Ok(()) } else { Err(kept["unread"]["at"].clone()) }
    })
    .await;
    assert_eq!(link.kept().await["dead"], "invalid_grant");
}
