//! How often a link is refreshed at most, whatever a server says of its tokens, and whose refreshes wait for whose.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use serde_json::json;

use super::binary;
use super::refresh_rule::{Link, good};
use super::turns::metrics;
use super::watcher::at_rest;
use crate::support::neighbours::neighbour::outgoing;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

/// A server that says `expires_in: 2` and sends another refresh token each time: eighty links of it cost the API server 149
/// writes a second.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_live_for_seconds_are_no_storm_of_writes() {
    let values = json!({"operator": {"minRefreshInterval": "10s"}});
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let team = stage.team();
    let server = TokenServer::start().await;
    let links: Vec<_> = (0..20).map(|i| Link::of(&stage, &server, &format!("short-{i}"))).collect();
    join_all(links.iter().map(async |link| {
        server.on(&link.path(), |nth, _| {
            let token = format!("access-{nth}");
            let refresh = format!("refresh-{nth}");
            let reply = json!({"access_token": token, "token_type": "Bearer", "expires_in": 2, "refresh_token": refresh});
            Reply::json(200, &reply)
        });
        link.apply(&server.url(&link.path()), true).await;
        let found = stage.condition(team, &link.name, "Ready", "False", "TokenLifetimeTooShort").await;
        let status = serde_json::to_value(&found.status).expect("json");
        let ready = condition(&status, "Ready").expect("Ready")["message"].as_str().expect("text");
        for part in ["expires_in 2,", "every 10 s", "live 20 s", "operator.minRefreshInterval"] {
            assert!(ready.contains(part), "{ready}");
        }
        assert!(condition(&status, "Stalled").is_some(), "a person must mend it: {status}");
        // The token that there is stands in the Secret, and that it has ended is said.
        assert_eq!(stage.data(team, &format!("{}-token", link.name)).await["access-token"], "access-0");
        stage.condition(team, &link.name, "TokenFresh", "False", "TokenExpired").await;
    }))
    .await;
    at_rest(&stage).await;
    let asked: Vec<_> = links.iter().map(|l| l.asked().len()).collect();
    assert!(asked.iter().all(|n| *n == 1), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_much_is_written_a_namespace_keeps_to_its_budget_over_all_hosts() {
    const LINKS: usize = 20;
    let values = json!({"operator": {"tokenRequests": {"perNamespace": 2}, "apiWritesPerSecond": 1}});
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let servers = [TokenServer::start().await, TokenServer::start().await];
    let times = Arc::new(Mutex::new(Vec::new()));
    let links: Vec<_> =
        (0..LINKS).map(|i| Link::of(&stage, &servers[i % 2], &format!("crowd-{i}"))).collect();
    join_all(links.iter().map(async |link| {
        let times = times.clone();
        link.server.on(&link.path(), move |_, _| {
            times.lock().expect("lock").push(Instant::now());
            Reply::json(200, &good(3600))
        });
        link.apply(&link.server.url(&link.path()), false).await;
        stage.ready(stage.team(), &link.name).await;
    }))
    .await;
    let mut times = times.lock().expect("lock").clone();
    times.sort();
    assert_eq!(times.len(), LINKS, "each asks once");
    for (i, at) in times.iter().enumerate() {
        // A few before there was much to write, then two a second; 3 s of grace for the way of the first.
        let least =
            Duration::from_millis(500 * (i as u64).saturating_sub(8)).saturating_sub(Duration::from_secs(3));
        assert!(*at - times[0] >= least, "request {i} came after {:?}", *at - times[0]);
    }
}

/// Who may edit a Secret could have each link that uses it looked at as often as that is changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_many_links_use_wakes_them_once_a_second_at_most() {
    const LINKS: usize = 20;
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let (team, server) = (stage.team(), TokenServer::start().await);
    server.always("/token", Reply::json(200, &good(3600)));
    stage.put_secret(team, "client", &[("client-id", "us"), ("client-secret", "ours")]).await;
    join_all((0..LINKS).map(async |i| {
        let name = format!("user-{i}");
        let at = json!({"tokenEndpoint": server.url("/token")});
        stage.apply_object(team, &outgoing(&name, at, "client", json!({}))).await;
        stage.ready(team, &name).await;
    }))
    .await;
    at_rest(&stage).await;
    let passes = async || {
        let text = metrics(&stage).await;
        let ours =
            |l: &&str| l.starts_with("controller_runtime_reconcile_total{controller=\"applicationlink\"");
        let numbers = text.lines().filter(ours).filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        numbers.sum::<f64>()
    };
    let (before, began) = (passes().await, Instant::now());
    // At least three seconds of changes, ten a second or fewer.
    let mut changes = 0.0;
    while began.elapsed() < Duration::from_secs(3) {
        let note = json!({"metadata": {"annotations": {"note": changes.to_string()}}});
        stage.patch("Secret", team, "client", note).await;
        changes += 1.0;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What was changed last is acted on all the same.
    let newest = json!({"stringData": {"client-secret": "newest"}});
    stage.patch("Secret", team, "client", newest).await;
    let asked = || server.asked("/token");
    let newest = format!("Basic {}", STANDARD.encode("us:newest"));
    let all_asked = || asked().iter().filter(|a| a.header("authorization") == Some(&newest)).count() >= LINKS;
    eventually(SOON, "each link to ask with the newest secret", async || all_asked()).await;
    let (made, took) = (passes().await - before, began.elapsed().as_secs_f64());
    let links = LINKS as f64;
    // One wake a second, and what a link takes for its new token, with some to spare; each change would be twice as many.
    let most = links * (took + 6.0);
    assert!(made <= most, "{made} passes in {took:.1} s, for {changes} changes");
}
