//! How often the operator writes to the API server for a link, by the audit log. Events and lease renewals are apart.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::binary;
use crate::support::audit::{AuditEvent, Mark};
use crate::support::bench::{Kind, Scopes, check, link, narrow, outside, seed};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::{always, eventually};

/// Whether the operator of this stage has written something for a link.
fn counts(stage: &Stage<'_>, event: &AuditEvent) -> bool {
    event.is_by(&stage.system, "applink-operator")
        && event.is_write()
        && !event.is_lease()
        && event.object_ref.resource != "events"
}

async fn writes(stage: &Stage<'_>, since: Mark) -> Vec<String> {
    let events = stage.plane.audit_since(since, |e| counts(stage, e)).await;
    let tell = |e: AuditEvent| {
        let o = e.object_ref;
        let sub = if o.subresource.is_empty() { String::new() } else { format!("/{}", o.subresource) };
        format!("{} {}{sub} {}/{} {}", e.verb, o.resource, o.namespace, o.name, e.response_status.code)
    };
    events.into_iter().map(tell).collect()
}

async fn nothing_since(stage: &Stage<'_>, since: Mark, what: &str) {
    let writes = writes(stage, since).await;
    assert!(writes.is_empty(), "{what}: {writes:#?}");
}

/// Counts what a deed costs, once it is done; the figure is printed and must be as said.
async fn must_cost(stage: &Stage<'_>, what: &str, since: Mark, most: usize) {
    let writes = writes(stage, since).await;
    eprintln!("{what}: {} writes: {}", writes.len(), writes.join(", "));
    assert!(
        !writes.is_empty() && writes.len() <= most,
        "{what}: {} writes, not at most {most}: {writes:#?}",
        writes.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_costs_few_writes() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    outside(&stage).await;
    let (team, tokens) = (stage.team(), stage.provider_url.clone());
    // A deletion says first that it is one.
    let kinds = [
        ("incoming", Kind::Incoming, 3, 2, 3),
        ("machine", Kind::Machine, 4, 2, 3),
        // Its first token is a refresh already: intent and grant in one write, then the reply, Secret and status.
        ("refreshing", Kind::Refreshing, 5, 4, 3),
        ("two-way", Kind::TwoWay, 5, 2, 3),
    ];
    for (name, kind, create, change, delete) in kinds {
        if kind == Kind::Refreshing {
            seed(&stage, team, name).await;
        }
        let mark = plane.audit_mark().await;
        stage.apply_object(team, &link(name, kind, Scopes::Wide, &tokens)).await;
        stage.ready(team, name).await;
        must_cost(&stage, &format!("create {name}"), mark, create).await;

        let mark = plane.audit_mark().await;
        narrow(&stage, team, name, kind).await;
        stage.ready(team, name).await;
        must_cost(&stage, &format!("change {name}"), mark, change).await;
        check(&stage, team, name, kind, Scopes::Narrow).await;

        let mark = plane.audit_mark().await;
        stage.delete(team, name).await;
        must_cost(&stage, &format!("delete {name}"), mark, delete).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_costs_two_writes_and_four_where_the_refresh_token_rotates() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({"provider": {"accessTokenLifetime": "9s"}})).await;
    outside(&stage).await;
    let (team, tokens) = (stage.team(), stage.provider_url.clone());
    for (name, kind, cost) in [("machine", Kind::Machine, 2), ("refreshing", Kind::Refreshing, 4)] {
        if kind == Kind::Refreshing {
            seed(&stage, team, name).await;
        }
        stage.apply_object(team, &link(name, kind, Scopes::Wide, &tokens)).await;
        let last = async || {
            let link = stage.links(team).get(name).await.map_err(|e| e.to_string())?;
            link.status.and_then(|s| s.outgoing?.last_refresh).ok_or_else(|| "no token yet".to_owned())
        };
        let first = eventually(SOON, "the first token", last).await;
        let before = stage.data(team, &format!("{name}-token")).await;
        let mark = plane.audit_mark().await;
        // The status is written last.
        eventually(SOON, "a refresh", async || {
            let now = last().await?;
            if now == first { Err(now) } else { Ok(()) }
        })
        .await;
        must_cost(&stage, &format!("refresh {name}"), mark, cost).await;
        let after = stage.data(team, &format!("{name}-token")).await;
        assert_ne!(before["access-token"], after["access-token"]);
        check(&stage, team, name, kind, Scopes::Wide).await;
        stage.delete(team, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_state_writes_nothing_and_neither_does_a_restart() {
    const LINKS: usize = 20;
    let plane = ControlPlane::shared().await;
    let mut stage = Stage::set(plane, binary(), 1, json!({"operator": {"resync": "2s"}})).await;
    outside(&stage).await;
    let (team, tokens) = (stage.team().to_owned(), stage.provider_url.clone());
    let kinds = [Kind::Incoming, Kind::Machine, Kind::Refreshing, Kind::TwoWay];
    let names: Vec<_> = (0..LINKS).map(|n| format!("link-{n}")).collect();
    let mut all = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let kind = kinds[n % kinds.len()];
        if kind == Kind::Refreshing {
            seed(&stage, &team, name).await;
        }
        all.push(link(name, kind, Scopes::Wide, &tokens));
    }
    stage.apply_object(&team, &json!({"apiVersion": "v1", "kind": "List", "items": all})).await;
    for name in &names {
        stage.ready(&team, name).await;
    }
    let versions = async || {
        let links = stage.links(&team).list(&kube::api::ListParams::default()).await.expect("the links");
        let versions = links.items.into_iter().map(|l| (l.metadata.name, l.metadata.resource_version));
        versions.collect::<BTreeMap<_, _>>()
    };
    let before = versions().await;
    let mark = plane.audit_mark().await;
    resyncs(&stage, LINKS, 3).await;
    nothing_since(&stage, mark, "three looks at every link write nothing").await;

    stage.operator.restart().await;
    resyncs(&stage, LINKS, 2).await;
    always(Duration::from_secs(1), "nothing is written", async || writes(&stage, mark).await.is_empty())
        .await;
    assert_eq!(versions_of(&stage, &team).await, before);
    // As after the death of a node.
    stage.operator.kill();
    stage.operator.process().wait(SOON).await;
    stage.operator.start().await;
    resyncs(&stage, LINKS, 2).await;
    nothing_since(&stage, mark, "an operator that starts again writes nothing").await;
    assert_eq!(versions_of(&stage, &team).await, before);
    let events = stage.plane.audit_since(mark, |e| {
        e.is_by(&stage.system, "applink-operator") && e.is_write() && e.object_ref.resource == "events"
    });
    assert_eq!(events.await.len(), 0, "and there is nothing to tell");
}

async fn versions_of(stage: &Stage<'_>, team: &str) -> BTreeMap<Option<String>, Option<String>> {
    let links = stage.links(team).list(&kube::api::ListParams::default()).await.expect("the links");
    links.items.into_iter().map(|l| (l.metadata.name, l.metadata.resource_version)).collect()
}

/// Waits until the operator that runs now has passed over all links this many times more, by its own count.
async fn resyncs(stage: &Stage<'_>, links: usize, times: usize) {
    let passes = async || {
        let url = format!("http://127.0.0.1:{}/metrics", stage.operator.port("http"));
        let text = crate::support::stage::http().get(url).send().await.ok()?.text().await.ok()?;
        let of_links = |l: &&str| {
            l.contains("reconcile") && l.contains("_total{") && l.contains("controller=\"applicationlink\"")
        };
        let counts = text.lines().filter(of_links).filter(|l| l.contains("result="));
        Some(counts.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>())
    };
    let begin = eventually(SOON, "the operator's metrics", passes).await;
    #[expect(clippy::cast_precision_loss, reason = "a few dozens")]
    let wanted = begin + (links * times) as f64;
    eventually(SOON, format!("{times} looks at {links} links"), async || {
        let now = passes().await.ok_or("no metrics")?;
        if now >= wanted { Ok(()) } else { Err(format!("{now} of {wanted}")) }
    })
    .await;
}
