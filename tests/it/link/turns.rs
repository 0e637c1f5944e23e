//! What a host is sent: no more than its budget, nothing while it wants to be left alone, and what the metrics and
//! the alert rules make of it. The hosts are doubles, since no real server answers 429 when it is told to.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::binary;
use super::refresh_rule::{Link, good};
use crate::support::chart::chart;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::{always, eventually};

/// What the operator says on /metrics.
pub async fn metrics(stage: &Stage<'_>) -> String {
    let port = stage.values()["operator"]["port"].as_u64().expect("a port");
    let answer = crate::support::stage::http().get(format!("http://127.0.0.1:{port}/metrics")).send().await;
    answer.expect("metrics").text().await.expect("text")
}

/// The value of a series, by the beginning of its line.
pub fn value(metrics: &str, series: &str) -> Option<f64> {
    metrics.lines().find(|l| l.starts_with(series))?.rsplit(' ').next()?.parse().ok()
}

/// The names of our metrics in the expressions of the chart's alert rules.
async fn names_in_rules(plane: &ControlPlane) -> Vec<String> {
    let chart = chart();
    let set = "prometheusRule.enabled=true";
    let args =
        ["template", "r", &chart.to_string_lossy(), "--set", set, "-s", "templates/prometheusrule.yaml"];
    let rule: serde_json::Value = serde_yaml::from_str(&plane.helm(&args).await.ok()).expect("YAML");
    let rules = rule["spec"]["groups"][0]["rules"].as_array().expect("rules");
    assert!(
        rules.iter().all(|r| r["alert"].is_string() && r["annotations"]["summary"].is_string()),
        "{rule}"
    );
    let expressions: Vec<_> = rules.iter().map(|r| r["expr"].as_str().expect("expr")).collect();
    let words = expressions.iter().flat_map(|e| e.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words.filter(|w| w.starts_with("applink_")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_sent_no_more_than_its_budget() {
    const LINKS: usize = 20;
    let plane = ControlPlane::shared().await;
    let values = json!({"operator": {"tokenRequests": {"perSecond": 4, "inFlight": 2}}});
    let stage = Stage::set(plane, binary(), 1, values).await;
    let server = TokenServer::start().await;
    let times = Arc::new(Mutex::new(Vec::new()));
    let links: Vec<_> = (0..LINKS).map(|i| Link::of(&stage, &server, &format!("crowd-{i}"))).collect();
    for link in &links {
        let times = times.clone();
        server.on(&link.path(), move |_, _| {
            times.lock().expect("lock").push(Instant::now());
            Reply::json(200, &good(3600))
        });
    }
    join_all(links.iter().map(async |l| l.apply(&server.url(&l.path()), false).await)).await;
    join_all(links.iter().map(|l| stage.ready(stage.team(), &l.name))).await;
    let mut times = times.lock().expect("lock").clone();
    times.sort();
    assert_eq!(times.len(), LINKS, "each asks once");
    for (i, at) in times.iter().enumerate().skip(4) {
        // Four at once, then four a second; 3 s of grace for the way of the first.
        let least = Duration::from_millis(250 * (i as u64 - 3)).saturating_sub(Duration::from_secs(3));
        assert!(*at - times[0] >= least, "request {i} came after {:?}", *at - times[0]);
    }

    // What the metrics say of it, and that the alert rules ask for nothing else.
    Link::make(&stage, &server, "gone", true, Reply::json(400, &json!({"error": "invalid_grant"}))).await;
    stage.condition(stage.team(), "gone", "Ready", "False", "ReauthorizationRequired").await;
    let team = stage.team();
    let text = eventually(SOON, "the metrics", async || {
        let text = metrics(&stage).await;
        let series =
            format!("applink_links_not_ready{{namespace=\"{team}\",reason=\"ReauthorizationRequired\"}}");
        if value(&text, &series) == Some(1.0) { Ok(text) } else { Err(text) }
    })
    .await;
    assert_eq!(value(&text, "applink_leading"), Some(1.0));
    assert_eq!(value(&text, "applink_token_requests_total{result=\"success\"}"), Some(LINKS as f64));
    assert_eq!(value(&text, "applink_token_requests_total{result=\"ReauthorizationRequired\"}"), Some(1.0));
    let of = |metric: &str| format!("{metric}{{namespace=\"{team}\",name=\"crowd-7\"}}");
    let secret = stage.secrets(team).get("crowd-7-token").await.expect("the Secret");
    let ends = &secret.metadata.annotations.expect("annotations")["applink-operator.io/expires-at"];
    let ends: jiff::Timestamp = ends.parse().expect("a time");
    let expiration = value(&text, &of("applink_token_expiration_timestamp_seconds"));
    assert_eq!(expiration, Some(ends.as_second() as f64), "{text}");
    let refresh = value(&text, &of("applink_token_refresh_timestamp_seconds")).expect("a time");
    let left = ends.as_second() as f64 - refresh;
    assert!((1000.0..1400.0).contains(&left), "two thirds of an hour, give or take: {left}");
    let names = names_in_rules(plane).await;
    assert!(names.len() >= 7, "{names:?}");
    let provider = crate::support::stage::http().get(format!("{}/metrics", stage.admin_url)).send().await;
    let text = text + &provider.expect("metrics").text().await.expect("text");
    for name in names {
        assert!(text.contains(&format!("# TYPE {name} gauge")), "no metric is called {name}");
    }
    // A link that goes takes its series along.
    stage.delete(team, "crowd-7").await;
    let text = metrics(&stage).await;
    assert_eq!(value(&text, &of("applink_token_expiration_timestamp_seconds")), None);
}

/// Links whose refresh is due every ten seconds, of one namespace.
async fn well_in<'a>(stage: &'a Stage<'a>, server: &'a TokenServer, team: &'a str) -> Vec<Link<'a>> {
    let links: Vec<_> =
        (0..10).map(|i| Link { team, ..Link::of(stage, server, &format!("well-{i}")) }).collect();
    join_all(links.iter().map(async |link| {
        server.always(&link.path(), Reply::json(200, &good(45)));
        link.apply(&server.url(&link.path()), false).await;
        stage.ready(team, &link.name).await;
        let often = json!({"spec": {"outgoing": {"refresh": {"every": "10s"}}}});
        stage.patch("ApplicationLink", team, &link.name, often).await;
        stage.ready(team, &link.name).await;
    }))
    .await;
    links
}

/// Since when `Ready` and `TokenFresh` are as they are.
async fn since(link: &Link<'_>) -> Vec<serde_json::Value> {
    let found = link.stage.links(link.team).get(&link.name).await.expect("the link");
    let status = serde_json::to_value(&found.status).expect("json");
    let of = |type_| condition(&status, type_).map(|c| json!([c["status"], c["lastTransitionTime"]]));
    ["Ready", "TokenFresh"].map(|type_| of(type_).expect("the condition")).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_s_token_ends_because_some_are_told_to_wait() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 3, json!({})).await;
    let server = TokenServer::start().await;
    let [strict, harsh, good] = [0, 1, 2].map(|i| stage.teams[i].as_str());
    let well = well_in(&stage, &server, good).await;
    let before = join_all(well.iter().map(since)).await;
    // One namespace is told to wait, and then a second one, which puts the host's own time in doubt.
    for team in [strict, harsh] {
        let told: Vec<_> =
            (0..5).map(|i| Link { team, ..Link::of(&stage, &server, &format!("of-{team}-{i}")) }).collect();
        join_all(told.iter().map(async |link| {
            server.always(&link.path(), Reply::http(429, "Retry-After: 3600\r\n", ""));
            link.apply(&server.url(&link.path()), false).await;
        }))
        .await;
        let asked = || told.iter().map(|l| l.asked().len()).collect::<Vec<_>>();
        eventually(SOON, "one is told", async || asked().iter().any(|n| *n > 0)).await;
        let now: Vec<_> = well.iter().map(|l| l.asked().len()).collect();
        eventually(SOON, "the others' refreshes go on", async || {
            let more: Vec<_> = well.iter().zip(&now).map(|(l, n)| l.asked().len() - n).collect();
            if more.iter().all(|n| *n >= 2) { Ok(()) } else { Err(format!("{more:?}")) }
        })
        .await;
        assert!(asked().iter().all(|n| *n <= 1), "who was told isn't sent again: {:?}", asked());
    }
    assert_eq!(join_all(well.iter().map(since)).await, before, "no token ended meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_link_s_429_holds_back_its_client_there_and_no_other_host() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let (strict, kind) = (TokenServer::start().await, TokenServer::start().await);
    let limit = Reply::http(429, "Retry-After: 3600\r\n", "");
    let first = Link::make(&stage, &strict, "first", false, limit).await;
    stage.condition(stage.team(), "first", "Ready", "False", "RateLimited").await;
    first.heal();
    let well = Reply::json(200, &good(3600));
    let second = Link::make(&stage, &strict, "second", true, well.clone()).await;
    Link::make(&stage, &kind, "other", true, well).await;
    stage.ready(stage.team(), "other").await;
    let link = stage.condition(stage.team(), "second", "Ready", "False", "Queued").await;
    let status = serde_json::to_value(&link.status).expect("json");
    assert!(
        condition(&status, "Reconciling").is_some() && condition(&status, "Stalled").is_none(),
        "{status}"
    );
    // Also when something near it stirs.
    second.touch().await;
    always(Duration::from_secs(2), "neither is sent", async || {
        first.asked().len() == 1 && second.asked().is_empty()
    })
    .await;
    eventually(SOON, "the line in the metrics", async || {
        let text = metrics(&stage).await;
        let series = "applink_token_requests_waiting{controller=\"applicationlink\"}";
        if value(&text, series) == Some(1.0) { Ok(()) } else { Err(text) }
    })
    .await;
    // A deletion doesn't wait in line.
    stage.delete(stage.team(), "second").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_fails_takes_nothing_from_a_token_that_is_good() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let server = TokenServer::start().await;
    let busy = Reply::http(503, "", "");
    let lost = Reply::cut("{");
    // Whether there is a refresh token, the answer to the second request, and what Ready says then.
    let table = [
        ("busy", true, &busy, "True", "Connected"),
        ("lost", true, &lost, "False", "NoAnswer"),
        ("lost-by-its-own", false, &lost, "True", "Connected"),
    ];
    join_all(table.map(async |(name, refresh, reply, ready, reason)| {
        let link = Link::of(&stage, &server, name);
        let (reply, healed) = (reply.clone(), link.healed.clone());
        server.on(&link.path(), move |nth, _| {
            let well = nth == 0 || healed.load(std::sync::atomic::Ordering::SeqCst);
            if well { Reply::json(200, &good(45)) } else { reply.clone() }
        });
        link.apply(&server.url(&link.path()), refresh).await;
        stage.ready(&team, name).await;
        // As early as may be: after a third of its lifetime.
        let due = json!({"spec": {"outgoing": {"refresh": {"before": "44s"}}}});
        let links = stage.links(&team);
        links.patch(name, &PatchParams::default(), &Patch::Merge(due)).await.expect("a change");
        let failing = eventually(SOON, "the refresh that fails", async || {
            let status = serde_json::to_value(links.get(name).await.expect("the link").status).expect("json");
            let of =
                |type_: &str| condition(&status, type_).map(|c| (c["status"].clone(), c["reason"].clone()));
            let wanted = Some((json!(ready), json!(reason)));
            let fresh = if ready == "True" { "RefreshFailing" } else { "TokenFresh" };
            let is = of("Ready") == wanted && of("TokenFresh") == Some((json!("True"), json!(fresh)));
            if is { Ok(status) } else { Err(status.to_string()) }
        })
        .await;
        assert_eq!(condition(&failing, "Stalled"), None);
        assert_eq!(stage.data(&team, &format!("{name}-token")).await["access-token"], "good-token");
        let selector = format!("involvedObject.name={name},type=Warning");
        let args = ["get", "events", "-n", &team, "--field-selector", &selector, "-o", "json"];
        let said = if ready == "True" { "RefreshFailing" } else { "NoAnswer" };
        eventually(SOON, "the event", async || {
            let events = stage.plane.kubectl(&args).await.ok();
            if events.contains(&format!("\"reason\": \"{said}\"")) { Ok(()) } else { Err(events) }
        })
        .await;
        link.heal();
        stage.condition(&team, name, "TokenFresh", "True", "TokenFresh").await;
        stage.ready(&team, name).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_is_said_whatever_the_reason() {
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let server = TokenServer::start().await;
    // Good once, then away.
    let link = Link::of(&stage, &server, "server-down");
    server.on(&link.path(), |nth, _| match nth {
        0 => Reply::json(200, &good(20)),
        _ => Reply::http(503, "", ""),
    });
    link.apply(&server.url(&link.path()), true).await;
    stage.ready(&team, "server-down").await;
    stage.condition(&team, "server-down", "TokenFresh", "False", "TokenExpired").await;
    stage.condition(&team, "server-down", "Ready", "False", "ServerError").await;

    // The operator is away while the token ends.
    let link = Link::of(&stage, &server, "operator-down");
    let path = link.path();
    server.always(&path, Reply::json(200, &good(20)));
    link.apply(&server.url(&path), true).await;
    let fresh = |secret: &k8s_openapi::api::core::v1::Secret| {
        let ends = secret.metadata.annotations.clone().unwrap_or_default();
        ends["applink-operator.io/expires-at"].parse::<jiff::Timestamp>().expect("a time")
    };
    let secrets = stage.secrets(&team);
    let ends = async || fresh(&secrets.get("operator-down-token").await.expect("the Secret"));
    stage.ready(&team, "operator-down").await;
    stage.operator.stop().await;
    server.always(&path, Reply::http(503, "", ""));
    let last = ends().await;
    eventually(SOON, "the token's end", async || jiff::Timestamp::now() > last).await;
    stage.operator.start().await;
    let said = stage.condition(&team, "operator-down", "TokenFresh", "False", "TokenExpired").await;
    let status = serde_json::to_value(&said.status).expect("json");
    assert_eq!(condition(&status, "Ready").expect("Ready")["status"], "False", "{status}");
    assert_eq!(ends().await, last, "the same token");
}
