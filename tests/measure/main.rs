//! Measures what the project promises figures for, on a control plane of its own: the time from apply to a Secret that
//! authenticates, Kubernetes writes a link, memory at 1,000 links, and the writes after a restart. Prints, and asserts nothing:
//! machines differ. The program measured is `APPLINK`, else the one that was built beside this.

#![allow(clippy::print_stdout, reason = "it is here to print figures")]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use support::plane::{ControlPlane, Options};
use support::stage::{Stage, text};
use support::wait::eventually;

const LONG: Duration = Duration::from_secs(300);

fn binary() -> PathBuf {
    std::env::var_os("APPLINK").map_or_else(
        || {
            let me = std::env::current_exe().expect("a program");
            me.parent().and_then(Path::parent).expect("a target folder").join("applink")
        },
        PathBuf::from,
    )
}

fn link(name: &str) -> applink_operator::api::ApplicationLink {
    serde_json::from_value(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI dashboard", "url": "https://ci.example.com"},
            "incoming": {"oauth2": {"scopes": ["REPO_READ"], "grantTypes": ["client_credentials"]}},
        },
    }))
    .expect("a link")
}

fn rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

#[tokio::main]
async fn main() {
    let one_by_one = 200;
    let many = 1000;
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await));
    let mut stage = Stage::set(plane, &binary(), 1, json!({"log": {"level": "warn"}})).await;
    let team = stage.team().to_owned();
    let (links, secrets) = (stage.links(&team), stage.secrets(&team));

    let mut millis = Vec::new();
    for i in 0..one_by_one {
        let name = format!("one-{i}");
        let started = Instant::now();
        links.create(&PostParams::default(), &link(&name)).await.expect("create");
        let secret = loop {
            match secrets.get_opt(&format!("{name}-oauth")).await.expect("get") {
                Some(secret) => break text(&secret),
                // What is measured is the operator's time, so the look must not add much of its own.
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        let (status, reply) = stage.token(&secret["client-id"], &secret["client-secret"], None).await;
        assert_eq!(status, 200, "{reply}");
        millis.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    millis.sort_by(f64::total_cmp);
    let at = |p: f64| millis[((millis.len() - 1) as f64 * p) as usize];
    println!(
        "apply to a Secret that authenticates, {one_by_one} links one after another: median {:.0} ms, p99 {:.0} ms",
        at(0.5),
        at(0.99)
    );

    let mark = plane.audit_mark().await;
    let started = Instant::now();
    let rest = many - one_by_one;
    futures::stream::iter(0..rest)
        .for_each_concurrent(16, |i| {
            let links = links.clone();
            async move {
                drop(links.create(&PostParams::default(), &link(&format!("many-{i}"))).await.expect("create"))
            }
        })
        .await;
    all_ready(&stage, &team, many).await;
    println!("{rest} links at once: {:.0} links a second", rest as f64 / started.elapsed().as_secs_f64());
    let system = stage.system.clone();
    let account = "applink-operator";
    let ours = |e: &support::audit::AuditEvent| e.is_by(&system, account) && !e.is_lease();
    let events = plane.audit_since(mark, ours).await;
    let writes = events.iter().filter(|e| e.is_write() && e.object_ref.resource != "events").count();
    let all = events.len();
    println!(
        "Kubernetes writes a link: {:.2}; all requests a link: {:.2}",
        writes as f64 / rest as f64,
        all as f64 / rest as f64
    );
    println!(
        "memory at {many} links: operator {:.1} MiB, provider {:.1} MiB",
        rss_mib(stage.operator.process().pid()),
        rss_mib(stage.provider.process().pid())
    );

    let mark = plane.audit_mark().await;
    stage.operator.restart().await;
    stage.operator.until_ready(LONG).await;
    let by_gets = async || {
        let gets = plane.audit_since(mark, |e| ours(e) && e.verb == "get").await.len();
        if gets >= many { Ok(()) } else { Err(format!("{gets} reads")) }
    };
    eventually(LONG, "every link looked at after a restart", by_gets).await;
    let writes = plane.audit_since(mark, |e| ours(e) && e.is_write()).await;
    println!("writes after a restart with {many} links: {}", writes.len());
    for w in writes.iter().take(5) {
        println!("  {} {}", w.verb, w.request_uri);
    }
    println!("memory after the restart: operator {:.1} MiB", rss_mib(stage.operator.process().pid()));

    let started = Instant::now();
    links
        .delete_collection(&DeleteParams::default(), &kube::api::ListParams::default())
        .await
        .expect("delete");
    eventually(LONG, "all links gone", async || {
        let left = links
            .list_metadata(&kube::api::ListParams::default().limit(1))
            .await
            .map_err(|e| e.to_string())?;
        if left.items.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?} left", left.metadata.remaining_item_count))
        }
    })
    .await;
    println!(
        "{many} links deleted: {:.0} a second; clients left: {}",
        many as f64 / started.elapsed().as_secs_f64(),
        stage.clients().await.len()
    );
}

async fn all_ready(stage: &Stage<'_>, team: &str, count: usize) {
    let links = stage.links(team);
    eventually(LONG, format!("{count} links Ready"), async || {
        let all = links.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
        let ready = all.items.iter().filter(|l| {
            let status = serde_json::to_value(&l.status).unwrap_or_default();
            support::stage::condition(&status, "Ready").is_some_and(|c| c["status"] == "True")
        });
        let ready = ready.count();
        if ready == count { Ok(()) } else { Err(format!("{ready} of {count}")) }
    })
    .await;
}
