//! Refresh tokens that rotate: none is lost, whatever becomes of the operator or of an answer.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;

use super::binary;
use super::outgoing::{
    CLIENT_SECRET, access, another, client, credentials, introspect, is_active, issued, person, ready_person,
    record, seed, with,
};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, http};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

async fn metric(stage: &Stage<'_>, name: &str) -> u64 {
    let answer = http().get(format!("{}/metrics", stage.admin_url)).send().await.expect("metrics");
    let text = answer.text().await.expect("text");
    let line = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_grant_is_lost_when_the_operator_is_killed() {
    // Tokens so short that all are due whenever the operator comes up again.
    // A grant may stay in flight over several kills, on a busy machine for longer than the usual grace of 10 s.
    let values = json!({"provider": {"accessTokenLifetime": "5s", "refreshGrace": "60s"}});
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        ready_person(&stage, name, json!({})).await;
    }
    let before = issued(&stage).await;
    let mut kills = 0;
    while kills < 15 || issued(&stage).await < before + 15 {
        assert!(kills < 60, "fewer than 15 rotations between 60 kills");
        kills += 1;
        let starts = stage.operator.logs().matches("at work").count();
        stage.operator.kill();
        eventually(SOON, "the operator dead", async || !stage.operator.process().is_running()).await;
        stage.operator.start().await;
        eventually(SOON, "the operator at work", async || {
            stage.operator.process().must_run();
            stage.operator.logs().matches("at work").count() > starts
        })
        .await;
        // The moment is what the test is about: somewhere in the passes that now begin, and later on a machine that is slow
        // to come to them.
        let moment = RandomState::new().build_hasher().finish() % (250 + 10 * kills);
        tokio::time::sleep(Duration::from_millis(moment)).await;
    }
    for name in names {
        let old = access(&stage, &format!("{name}-token")).await;
        another(&stage, name, &old).await;
        let link = stage.links(stage.team()).get(name).await.expect("the link");
        let kept = record(&stage, &link.uid().expect("uid")).await.expect("a record");
        assert!(kept["dead"].is_null(), "{name}: lost after {kills} kills");
    }
    assert_eq!(metric(&stage, "applink_provider_refresh_reuses_total").await, 0);
    let replays = metric(&stage, "applink_provider_refresh_replays_total").await;
    eprintln!("{kills} kills, {} rotations, {replays} of them repeated", issued(&stage).await - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_loses_nothing() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let proxy = TokenServer::start().await;
    let to = format!("{}/oauth2/token", stage.provider_url);
    // The server commits, and its first answer never arrives.
    proxy.on("/token", move |nth, _| Reply::Forward { to: to.clone(), answer: nth > 0 });
    let id = client(&stage).await;
    let first = seed(&stage, &id).await;
    credentials(&stage, "lost", &id, CLIENT_SECRET).await;
    stage.put_secret(stage.team(), "lost-seed", &[("token", &first)]).await;
    let custom = json!({"issuer": null, "tokenEndpoint": proxy.url("/token")});
    let change = json!({"spec": {"outgoing": {"oauth2": {"server": {"custom": custom}}}}});
    stage.apply_object(stage.team(), &with(person("lost", &stage.provider_url), change)).await;
    let link = stage.ready(stage.team(), "lost").await;
    let tokens: Vec<_> = proxy.asked("/token").iter().map(|a| a.field("refresh_token").to_owned()).collect();
    assert_eq!(tokens, [first.clone(), first]);
    assert_eq!(metric(&stage, "applink_provider_refresh_replays_total").await, 1);
    assert!(is_active(&stage, &id, &access(&stage, "lost-token").await).await);
    let kept = record(&stage, &link.uid().expect("uid")).await.expect("a record");
    let successor = kept["refreshToken"].as_str().expect("a refresh token");
    assert_eq!(introspect(&stage, &id, CLIENT_SECRET, successor).await["active"], true);
}
