//! What the tests of a link's years look at all the while: whether its Secret opens the provider, what was told of it, and
//! what was written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, Secret};
use kube::api::{Api, ListParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::support::audit::Mark;
use crate::support::stage::{SOON, Stage, http, text};
use crate::support::wait::eventually;

/// Whether credentials open the service that stands in the Secret beside them.
pub async fn opens(data: &BTreeMap<String, String>) -> bool {
    let field = |k: &str| data.get(k).cloned().unwrap_or_default();
    let (id, secret) = (field("client-id"), field("client-secret"));
    let mut form = vec![("token", "none".to_owned())];
    let mut request = http().post(field("token-endpoint").replace("/oauth2/token", "/oauth2/revoke"));
    if field("token-endpoint-auth-method") == "client_secret_post" {
        form.extend([("client_id", id), ("client_secret", secret)]);
    } else {
        request = request.basic_auth(id, Some(secret));
    }
    request.form(&form).send().await.is_ok_and(|r| r.status() == 200)
}

/// Uses whatever a Secret says, again and again, as an application does that reads it each time.
pub struct Prober {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl Prober {
    /// Begins. Each of `names` is a Secret that may hold the credentials: one of those that are there must work.
    pub fn start(stage: &Stage<'_>, namespace: &str, names: &[&str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let api: Api<Secret> = Api::namespaced(stage.client.clone(), namespace);
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut times, mut failures) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                let before = read(&api, &names).await;
                let mut works = false;
                for data in &before {
                    works |= opens(data).await;
                }
                times += 1;
                // What was replaced after it was read, an application would read again.
                if !works && read(&api, &names).await == before {
                    failures.push(format!("use {times} of {} Secrets: refused", before.len()));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (times, failures)
        });
        Self { stop, task }
    }

    /// Ends, and checks that it was never refused; says how often it asked.
    pub async fn never_failed(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let (times, failures) = self.task.await.expect("no panic");
        assert!(failures.is_empty(), "{} of {times} uses failed: {failures:?}", failures.len());
        assert!(times > 0);
        times
    }
}

async fn read(api: &Api<Secret>, names: &[String]) -> Vec<BTreeMap<String, String>> {
    let mut found = Vec::new();
    for name in names {
        found.extend(api.get_opt(name).await.expect("an answer").as_ref().map(text));
    }
    found
}

/// What `kubectl get events` says of a link, for one reason.
pub async fn events(stage: &Stage<'_>, namespace: &str, link: &str, reason: &str) -> Vec<String> {
    let selector = format!("involvedObject.name={link},reason={reason}");
    let api: Api<Event> = Api::namespaced(stage.client.clone(), namespace);
    let list = api.list(&ListParams::default().fields(&selector)).await.expect("the events");
    list.items.into_iter().map(|event| event.message.unwrap_or_default()).collect()
}

/// Waits until an event of a link says all of these.
pub async fn told(stage: &Stage<'_>, namespace: &str, link: &str, reason: &str, says: &[&str]) {
    eventually(SOON, format!("an event {reason} of {link} with {says:?}"), async || {
        let all = events(stage, namespace, link, reason).await;
        let found = all.iter().any(|text| says.iter().all(|s| text.contains(s)));
        if found { Ok(()) } else { Err(format!("{all:#?}")) }
    })
    .await;
}

/// The status of a link's incoming part.
pub async fn incoming(stage: &Stage<'_>, namespace: &str, name: &str) -> Value {
    let link = stage.links(namespace).get(name).await.expect("the link");
    serde_json::to_value(link.status.and_then(|s| s.incoming)).expect("json")
}

/// What the operator has written since, but for its lease.
pub async fn written(stage: &Stage<'_>, since: Mark) -> Vec<String> {
    let ours = |e: &crate::support::audit::AuditEvent| {
        e.is_by(&stage.system, "applink-operator") && e.is_write() && !e.is_lease()
    };
    let all = stage.plane.audit_since(since, ours).await;
    let tell = |e: crate::support::audit::AuditEvent| {
        let o = e.object_ref;
        let sub = if o.subresource.is_empty() { String::new() } else { format!("/{}", o.subresource) };
        format!("{} {}{sub} {} {}", e.verb, o.resource, o.name, e.response_status.code)
    };
    all.into_iter().map(tell).collect()
}

/// Longer than the operator takes between two looks where a test has it look often.
const QUIET: Duration = Duration::from_secs(3);

/// Waits until the operator has come to rest: several looks in a row that write nothing.
pub async fn at_rest(stage: &Stage<'_>) {
    eventually(2 * SOON, "the operator at rest", async || {
        let mark = stage.plane.audit_mark().await;
        tokio::time::sleep(QUIET).await;
        match written(stage, mark).await {
            all if all.is_empty() => Ok(()),
            all => Err(format!("{all:?}")),
        }
    })
    .await;
}
