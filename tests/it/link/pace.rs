//! How often a link is refreshed at most, whatever a server says of its tokens, and whose refreshes wait for whose.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use super::binary;
use super::refresh_rule::{Link, good};
use super::watcher::at_rest;
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, condition};
use crate::support::token_server::{Reply, TokenServer};

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
