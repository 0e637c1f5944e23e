//! Successes, odd and plain: what is taken, kept and published, and in which order.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{CANARY, Link, good};
use crate::link::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, merge};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

#[tokio::test(flavor = "multi_thread")]
async fn lifetimes_and_refresh_tokens() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let server = TokenServer::start().await;

    let lifetimes: [(&str, Value, i64); 8] = [
        ("zero", json!(0), HOUR),
        ("negative", json!(-5), HOUR),
        ("text", json!("7200"), 2 * HOUR),
        ("absurd", serde_json::from_str("1e30").expect("a number"), TEN_YEARS),
        ("null", Value::Null, HOUR),
        ("words", json!("an hour"), HOUR),
        ("list", json!([3600]), HOUR),
        ("missing", json!("(missing)"), HOUR),
    ];
    join_all(lifetimes.iter().map(async |(name, value, lifetime)| {
        let mut reply = good(60);
        reply["expires_in"] = value.clone();
        if *name == "missing" {
            reply.as_object_mut().expect("an object").remove("expires_in");
        }
        Link::make(&stage, &server, name, false, Reply::json(200, &reply)).await;
        stage.ready(stage.team(), name).await;
        let secret = stage.secrets(stage.team()).get(&format!("{name}-token")).await.expect("the Secret");
        let annotations = secret.metadata.annotations.expect("annotations");
        let time = |key: &str| annotations[&format!("applink-operator.io/{key}")].parse::<jiff::Timestamp>();
        let (from, to) = (time("issued-at").expect("a time"), time("expires-at").expect("a time"));
        assert_eq!(to.as_second() - from.as_second(), *lifetime, "{name}");
    }))
    .await;

    // A JWT that says by itself when it ends: earlier than the hour that is assumed, and than the reply says.
    for (name, expires_in) in [("own-end", Value::Null), ("own-end-beside", json!(7200))] {
        let end = jiff::Timestamp::now().as_second() + 1800;
        let mut reply = good(60);
        let claims = URL_SAFE_NO_PAD.encode(json!({ "exp": end }).to_string());
        merge(&mut reply, json!({"access_token": format!("e30.{claims}.x"), "expires_in": expires_in}));
        Link::make(&stage, &server, name, false, Reply::json(200, &reply)).await;
        let link = stage.ready(stage.team(), name).await;
        let said = link.status.and_then(|s| s.outgoing).and_then(|o| o.expires_at).expect("an end");
        let said = said.parse::<jiff::Timestamp>().expect("a time").as_second();
        // It lives from when it was asked for, and the request takes less than it may take at most.
        assert!((end - 15..=end).contains(&said), "{name}: {said} {end}");
    }

    // Left out of the reply, or said as nothing: the old one is kept, and sent again.
    let mut none = good(10);
    merge(&mut none, json!({"refresh_token": ""}));
    for (name, reply) in [("left-out", good(10)), ("said-empty", none)] {
        let link = Link::make(&stage, &server, name, true, Reply::json(200, &reply)).await;
        eventually(SOON, format!("{name}: the second refresh"), async || link.asked().len() > 1).await;
        assert!(link.asked().iter().all(|a| a.field("refresh_token") == link.seed()), "{name}");
        assert_eq!(link.kept().await["refreshToken"], json!(link.seed()));
    }

    // Rotated: each is sent once, and stored before the token is published.
    let mark = plane.audit_mark().await;
    let link = Link::make(&stage, &server, "rotated", true, Reply::Reset).await;
    server.on(&link.path(), |nth, _| {
        let mut reply = good(10);
        merge(
            &mut reply,
            json!({"access_token": format!("access-{nth}"), "refresh_token": format!("{CANARY}-{nth}")}),
        );
        Reply::json(200, &reply)
    });
    eventually(SOON, "three refreshes", async || link.asked().len() > 3).await;
    let sent: Vec<_> = link.asked().iter().map(|a| a.field("refresh_token").to_owned()).collect();
    let distinct: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(
        distinct.len(),
        sent.len() - repeats(&sent),
        "each only once but for a first that was reset: {sent:?}"
    );
    stage.ready(stage.team(), "rotated").await;
    let events = plane
        .audit_since(mark, |e| {
            e.is_write()
                && e.is_by(&stage.system, "applink-operator")
                && e.object_ref.resource == "secrets"
                && (e.object_ref.name.starts_with("applink-grant-") || e.object_ref.name == "rotated-token")
        })
        .await;
    let writes: Vec<_> = events.iter().map(|e| e.object_ref.name.as_str()).collect();
    // The record made with its intent, the reply; then the tenant's Secret.
    let first = writes.iter().position(|n| *n == "rotated-token").expect("published");
    let grant = writes[0];
    assert!(first >= 2 && writes[..first].iter().all(|n| *n == grant), "{writes:?}");
}

/// How often the first one was sent again.
fn repeats(sent: &[String]) -> usize {
    sent.iter().skip(1).filter(|s| **s == sent[0]).count()
}
