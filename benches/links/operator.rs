//! The operator at work: links made, the operator started again, links deleted.

use std::time::{Duration, Instant};

use applink_operator::api::ApplicationLink;
use futures::StreamExt as _;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use crate::bare::Sample;
use crate::machine::{Usage, cpu_s, memory_mib};
use crate::service::Service;
use crate::support::audit::{AuditEvent, Mark};
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, condition, http, text};
use crate::support::wait::eventually;

/// How long anything may take: a busy machine is slow, and a slow operator is what is measured.
const LONG: Duration = Duration::from_secs(600);
/// More than the client keeps.
const KEPT_CONNECTIONS: usize = 64;
/// The counters are read so often; the operator answers from its memory.
const LOOK: Duration = Duration::from_millis(20);
const ACCOUNT: &str = "applink-operator";

pub struct Operator<'p> {
    plane: &'p ControlPlane,
    stage: Stage<'p>,
}

/// What came of making links.
pub struct Made {
    pub seconds: f64,
    pub usage: Usage,
    pub writes: usize,
    pub events: usize,
    pub reads: usize,
    pub provider_requests: u64,
    pub rss_mib: f64,
    pub peak_mib: f64,
    pub cpu_s: f64,
}

/// What came of a restart.
pub struct Restarted {
    pub writes: usize,
    pub reads: usize,
    pub seconds: f64,
    pub rss_mib: f64,
}

/// What came of deleting links.
pub struct Gone {
    pub deleted: usize,
    pub per_s: f64,
    pub clients: usize,
    pub secrets: usize,
}

fn spec(provider: &str) -> Value {
    json!({
        "application": {"name": "CI dashboard", "url": "https://ci.example.com"},
        "providerRef": {"kind": "ClusterLinkProvider", "name": provider},
        "incoming": {"oauth2": {"scopes": ["REPO_READ"], "grantTypes": ["client_credentials"]}},
    })
}

fn link(name: &str, provider: &str) -> ApplicationLink {
    serde_json::from_value(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name}, "spec": spec(provider),
    }))
    .expect("a link")
}

impl<'p> Operator<'p> {
    pub fn new(plane: &'p ControlPlane, stage: Stage<'p>) -> Self {
        Self { plane, stage }
    }

    /// Makes one link, and shows all that the operator wrote for it.
    pub async fn sample(&self, service: &Service) -> Sample {
        let Self { stage, .. } = self;
        let (team, name) = (stage.teams[0].clone(), "sample".to_owned());
        let links = stage.links(&team);
        links.create(&PostParams::default(), &link(&name, &service.provider)).await.expect("a link");
        let made = serde_json::to_value(stage.ready(&team, &name).await).expect("json");
        let secret = stage.secrets(&team).get(&format!("{name}-oauth")).await.expect("its Secret");
        let client_id = text(&secret)["client-id"].clone();
        let mut secret = serde_json::to_value(secret).expect("json");
        keep(&mut secret["metadata"], &["labels", "annotations", "ownerReferences"]);
        let events: Api<Event> = Api::namespaced(stage.client.clone(), &team);
        let event = eventually(LONG, "the sample's event", async || {
            events.list(&ListParams::default()).await.ok()?.items.into_iter().next()
        })
        .await;
        let mut event = serde_json::to_value(event).expect("json");
        event.as_object_mut().expect("an object").remove("metadata");
        Sample {
            spec: spec(&service.provider),
            finalizers: made["metadata"]["finalizers"].clone(),
            annotations: made["metadata"]["annotations"].clone(),
            status: made["status"].clone(),
            secret,
            event,
            client_id,
        }
    }

    /// Makes links one after another: the time from the create until there is a Secret that authenticates, in ms; the
    /// median and the worst but one in twenty.
    pub async fn one_by_one(&self, service: &Service, links: usize) -> (f64, f64) {
        let team = &self.stage.teams[0];
        let (api, secrets) = (self.stage.links(team), self.stage.secrets(team));
        let mut took = Vec::new();
        for i in 0..links {
            let name = format!("one-{i}");
            let started = Instant::now();
            api.create(&PostParams::default(), &link(&name, &service.provider)).await.expect("the link");
            let secret = loop {
                match secrets.get_opt(&format!("{name}-oauth")).await.expect("an answer") {
                    Some(secret) => break text(&secret),
                    // What is measured is the operator's time, so the look must not add much of its own.
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            };
            service.prove(&secret["client-id"], &secret["client-secret"]).await;
            took.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        took.sort_by(f64::total_cmp);
        self.rests().await;
        let at = |p: f64| took[((took.len() - 1) as f64 * p) as usize];
        (at(0.5), at(0.95))
    }

    /// How many links there are beside those that are measured.
    async fn others(&self) -> usize {
        let links = self.stage.links(&self.stage.teams[0]);
        links.list_metadata(&ListParams::default()).await.expect("the links").items.len()
    }

    /// Makes links, and measures until the last one is Ready and the operator rests.
    pub async fn create(
        &self,
        service: &Service,
        namespace: usize,
        links: usize,
        concurrency: usize,
    ) -> Made {
        let team = &self.stage.teams[namespace];
        let api = self.stage.links(team);
        let pid = self.stage.operator.process().pid();
        let ready = self.counter("applink_links_ready").await;
        let mark = self.plane.audit_mark().await;
        let requests = service.requests().await;
        let (usage, cpu) = (Usage::now(), cpu_s(pid));

        let started = Instant::now();
        let making = futures::stream::iter(0..links).for_each_concurrent(concurrency, |i| {
            let (api, object) = (api.clone(), link(&format!("link-{i:05}"), &service.provider));
            async move { drop(api.create(&PostParams::default(), &object).await.expect("the link")) }
        });
        let all_ready = self
            .until("links Ready", async || self.counter("applink_links_ready").await >= ready + links as f64);
        futures::join!(making, all_ready);
        let seconds = started.elapsed().as_secs_f64();

        self.rests().await;
        let usage = Usage::now().since(&usage);
        let cpu = cpu_s(pid) - cpu;
        let (rss_mib, peak_mib) = memory_mib(pid);
        let provider_requests = service.requests().await - requests;
        let asked = self.asked(mark).await;
        let (writes, events) = writes(&asked);
        println!("  asked of the API server: {}", tally(&asked));
        self.verify(service, team, links).await;
        Made {
            seconds,
            usage,
            writes,
            events,
            reads: asked.len() - writes,
            provider_requests,
            rss_mib,
            peak_mib,
            cpu_s: cpu,
        }
    }

    /// What the operator says of itself isn't taken on trust: the API server shows so many Ready links, and the
    /// credentials of some of them authenticate.
    async fn verify(&self, service: &Service, team: &str, links: usize) {
        let all = self.stage.links(team).list(&ListParams::default()).await.expect("the links");
        let ready = all.items.iter().filter(|l| {
            let status = serde_json::to_value(&l.status).unwrap_or_default();
            condition(&status, "Ready").is_some_and(|c| c["status"] == "True")
        });
        assert_eq!(ready.count(), links, "links Ready");
        for i in (0..links).step_by(links.div_ceil(20)) {
            let secret = self.stage.secrets(team).get(&format!("link-{i:05}-oauth")).await.expect("a Secret");
            let data = text(&secret);
            service.prove(&data["client-id"], &data["client-secret"]).await;
        }
    }

    /// Stops the operator, starts it again, and measures until it has looked at every link and rests.
    pub async fn restart(&mut self, links: usize) -> Restarted {
        self.stage.operator.stop().await;
        let mark = self.plane.audit_mark().await;
        self.stage.operator.start().await;
        let started = Instant::now();
        self.until("links looked at again", async || {
            self.counter(
                r#"controller_runtime_reconcile_total{controller="applicationlink",result="success"}"#,
            )
            .await
                >= links as f64
        })
        .await;
        let seconds = started.elapsed().as_secs_f64();
        self.rests().await;
        let (rss_mib, _) = memory_mib(self.stage.operator.process().pid());
        let asked = self.asked(mark).await;
        let (writes, _) = writes(&asked);
        println!("  asked after the restart: {}", tally(&asked));
        for write in asked.iter().filter(|e| e.is_write()).take(5) {
            println!("  written after the restart: {} {}", write.verb, write.request_uri);
        }
        Restarted { writes, reads: asked.len() - writes, seconds, rss_mib }
    }

    /// Deletes `count` links one by one against the clock, then the others; says what is left.
    pub async fn delete(
        &self,
        service: &Service,
        namespace: usize,
        links: usize,
        count: usize,
        concurrency: usize,
    ) -> Gone {
        let team = &self.stage.teams[namespace];
        let api = self.stage.links(team);
        let there = self.counter("applink_links").await;
        let started = Instant::now();
        let deleting = futures::stream::iter(0..count).for_each_concurrent(concurrency, |i| {
            let api = api.clone();
            async move {
                let name = format!("link-{i:05}");
                // The API server closed the connections that lay idle while the operator was started again. Each
                // that is still kept fails once; what was sent on one all the same is gone then.
                for left in (0..KEPT_CONNECTIONS).rev() {
                    match api.delete(&name, &DeleteParams::default()).await {
                        Ok(_) => return,
                        Err(kube::Error::Api(s)) if s.code == 404 => return,
                        Err(kube::Error::Service(_)) if left > 0 => {}
                        Err(e) => panic!("{name} isn't deleted: {e}"),
                    }
                }
            }
        });
        let gone =
            self.until("links gone", async || self.counter("applink_links").await <= there - count as f64);
        futures::join!(deleting, gone);
        let per_s = count as f64 / started.elapsed().as_secs_f64();

        api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
        self.until("all links gone", async || self.counter("applink_links").await <= there - links as f64)
            .await;
        let left = api.list_metadata(&ListParams::default()).await.expect("the links").items.len();
        assert_eq!(left, 0, "links left");
        let clients = service.count().await.saturating_sub(self.others().await);
        // Kubernetes' garbage collector takes the Secrets, in its own time.
        let secrets = self.stage.secrets(team);
        let deadline = Instant::now() + Duration::from_secs(60);
        let secrets = loop {
            let left = secrets.list_metadata(&ListParams::default()).await.expect("Secrets").items.len();
            if left == 0 || Instant::now() > deadline {
                break left;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        };
        Gone { deleted: count, per_s, clients, secrets }
    }

    /// Looks often, with little work: what is measured goes on meanwhile.
    async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + LONG;
        while !look().await {
            self.stage.operator.process().must_run();
            assert!(Instant::now() < deadline, "{what}: not in {} s", LONG.as_secs());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until no pass is due or under way, seen five times in a row.
    async fn rests(&self) {
        let mut quiet = 0;
        self.until("rest", async || {
            let text = self.counters().await;
            let of = |name: &str| value(&text, &format!(r#"{name}{{controller="applicationlink"}}"#));
            let still = of("workqueue_depth") == 0.0 && of("controller_runtime_active_workers") == 0.0;
            quiet = if still { quiet + 1 } else { 0 };
            quiet == 5
        })
        .await;
    }

    async fn counter(&self, name: &str) -> f64 {
        value(&self.counters().await, name)
    }

    async fn counters(&self) -> String {
        let port = &self.stage.values()["operator"]["port"];
        let Ok(answer) = http().get(format!("http://127.0.0.1:{port}/metrics")).send().await else {
            // It is just starting.
            return String::new();
        };
        answer.text().await.unwrap_or_default()
    }

    /// What the operator asked the API server since then, but for its lease.
    async fn asked(&self, mark: Mark) -> Vec<AuditEvent> {
        let ours = |e: &AuditEvent| e.is_by(&self.stage.system, ACCOUNT) && !e.is_lease();
        self.plane.audit_since(mark, ours).await
    }
}

/// How often what was asked.
fn tally(asked: &[AuditEvent]) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for e in asked {
        let of = &e.object_ref;
        let part = if of.subresource.is_empty() { String::new() } else { format!("/{}", of.subresource) };
        *counts.entry(format!("{} {}{part}", e.verb, of.resource)).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts.iter().map(|(what, n)| format!("{what} {n}")).collect::<Vec<_>>().join(", ")
}

/// All writes, and the events among them.
fn writes(asked: &[AuditEvent]) -> (usize, usize) {
    let writes = asked.iter().filter(|e| e.is_write());
    (writes.clone().count(), writes.filter(|e| e.object_ref.resource == "events").count())
}

fn value(counters: &str, name: &str) -> f64 {
    let line = counters.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0.0)
}

/// Takes away all but these.
fn keep(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|name, _| fields.contains(&name.as_str()));
    }
}
