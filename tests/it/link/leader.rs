//! Several operators of one release: one works, and the next one takes over at once when it is told to stop, and not
//! before its lease has ended when it dies.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::Api;
use serde_json::{Value, json};

use super::binary;
use crate::support::bench::{Kind, Scopes, check_nothing, link};
use crate::support::plane::ControlPlane;
use crate::support::pod::Pod;
use crate::support::proxy::{Journal, Proxy};
use crate::support::stage::{SOON, Stage, merge};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;
use tokio::sync::Notify;

const NAME: &str = "applink-operator";

/// Operators that share a lease, each with its own way to the API server.
struct Cast<'p> {
    stage: Stage<'p>,
    /// Those that stand by.
    others: Vec<Pod<'p>>,
    journal: Journal,
    /// The first is that of the stage's operator.
    proxies: Vec<Proxy>,
}

impl<'p> Cast<'p> {
    async fn set(plane: &'p ControlPlane, replicas: usize) -> Self {
        let journal = Journal::default();
        let mut stage = Stage::install(plane, binary(), 1, json!({})).await;
        let proxy = way(&stage, &journal, "first").await;
        stage.operator.reach_api_server_by(&proxy.url());
        stage.start().await;
        let mut cast = Self { stage, others: Vec::new(), journal, proxies: vec![proxy] };
        if replicas > 1 {
            cast.upgrade(json!({"operator": {"replicas": replicas}})).await;
        }
        assert_eq!(cast.others.len(), replicas - 1);
        cast
    }

    /// Upgrades the release, and starts the Pods that come of it.
    async fn upgrade(&mut self, more: Value) {
        let mut values = self.stage.values().clone();
        merge(&mut values, more);
        self.stage.release.upgrade(&values).await.ok();
        let first = self.stage.operator.name();
        for mut pod in self.stage.release.deployment_pods(NAME, binary()).await {
            if pod.name() == first {
                continue;
            }
            let number = self.proxies.len() + 1;
            let proxy = way(&self.stage, &self.journal, &format!("number {number}")).await;
            pod.reach_api_server_by(&proxy.url());
            pod.listen_on(&format!("127.0.0.{number}"));
            pod.start().await;
            pod.until_ready(SOON).await;
            self.others.push(pod);
            self.proxies.push(proxy);
        }
    }

    async fn lease(&self) -> LeaseSpec {
        let api: Api<Lease> = Api::namespaced(self.stage.client.clone(), &self.stage.system);
        api.get(NAME).await.expect("the lease").spec.expect("its spec")
    }

    /// Waits until one of those that stood by has the lease.
    async fn succession(&self) -> LeaseSpec {
        let first = self.stage.operator.name();
        eventually(SOON, "another holder of the lease", async || {
            let lease = self.lease().await;
            match &lease.holder_identity {
                Some(holder) if !holder.is_empty() && *holder != first => Ok(lease),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    async fn links(&self, range: std::ops::Range<usize>) {
        let links = range.map(|n| link(&format!("link-{n}"), Kind::Incoming, Scopes::Wide, ""));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": links.collect::<Vec<_>>()});
        self.stage.apply_object(self.stage.team(), &list).await;
    }

    async fn ready(&self, range: std::ops::Range<usize>) {
        for n in range {
            self.stage.ready(self.stage.team(), &format!("link-{n}")).await;
        }
    }

    /// Checks that whoever wrote after another wrote did so to the end.
    fn one_at_a_time(&self) {
        let mut order: Vec<String> = self.journal.writes().into_iter().map(|w| w.by).collect();
        let all = order.len();
        order.dedup();
        let mut writers = order.clone();
        writers.sort();
        writers.dedup();
        assert_eq!(order.len(), writers.len(), "of {all} writes, in turns: {order:?}");
    }
}

async fn way(stage: &Stage<'_>, journal: &Journal, name: &str) -> Proxy {
    let proxy = Proxy::start(name, journal, Some(stage.plane.ca())).await;
    proxy.forward_to(stage.plane.url());
    proxy
}

fn renewed(lease: &LeaseSpec) -> jiff::Timestamp {
    lease.renew_time.as_ref().expect("a time").0
}

fn acquired(lease: &LeaseSpec) -> jiff::Timestamp {
    lease.acquire_time.as_ref().expect("a time").0
}

fn lasts(lease: &LeaseSpec) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(lease.lease_duration_seconds.expect("a duration").into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_told_to_stop_hands_over_at_once() {
    let plane = ControlPlane::shared().await;
    let mut cast = Cast::set(plane, 2).await;
    cast.links(0..1).await;
    cast.ready(0..1).await;
    // In the middle of its work.
    cast.links(1..12).await;
    let before = cast.lease().await;
    assert_eq!(before.holder_identity, Some(cast.stage.operator.name()));
    assert!(cast.stage.operator.stop().await.success());
    let after = cast.succession().await;
    assert_eq!(after.holder_identity, Some(cast.others[0].name()));
    assert_eq!(after.lease_transitions, before.lease_transitions.map(|n| n + 1));
    assert!(
        acquired(&after) < renewed(&before) + lasts(&before),
        "it wasn't waited out: {before:?} {after:?}"
    );
    cast.ready(0..12).await;
    cast.links(12..14).await;
    cast.ready(12..14).await;
    cast.one_at_a_time();
    for n in 0..14 {
        cast.stage.delete(cast.stage.team(), &format!("link-{n}")).await;
    }
    check_nothing(&cast.stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_dies_is_followed_by_one_when_its_lease_has_ended() {
    let plane = ControlPlane::shared().await;
    let cast = Cast::set(plane, 3).await;
    cast.links(0..1).await;
    cast.ready(0..1).await;
    cast.stage.operator.kill();
    cast.stage.operator.process().wait(SOON).await;
    let before = cast.lease().await;
    cast.links(1..4).await;
    let after = cast.succession().await;
    assert!(
        acquired(&after) >= renewed(&before) + lasts(&before),
        "not a moment earlier: {before:?} {after:?}"
    );
    assert_eq!(after.lease_transitions, before.lease_transitions.map(|n| n + 1));
    cast.ready(0..4).await;
    cast.one_at_a_time();
    let leading = cast.others.iter().filter(|p| p.logs().contains("at work")).count();
    assert_eq!(leading, 1, "of two that waited, one has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_starts_again_takes_its_own_lease_up_at_once() {
    let plane = ControlPlane::shared().await;
    let mut cast = Cast::set(plane, 2).await;
    let before = cast.lease().await;
    cast.stage.operator.kill();
    cast.stage.operator.process().wait(SOON).await;
    cast.stage.operator.start().await;
    cast.links(0..1).await;
    cast.ready(0..1).await;
    let after = cast.lease().await;
    assert_eq!(after.holder_identity, Some(cast.stage.operator.name()));
    assert_eq!(
        (after.lease_transitions, &after.acquire_time),
        (before.lease_transitions, &before.acquire_time)
    );
    assert!(!cast.others[0].logs().contains("at work"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_stops_before_another_begins() {
    let plane = ControlPlane::shared().await;
    let cast = Cast::set(plane, 2).await;
    cast.stage.operator.stays_dead();
    // Nobody listens there.
    cast.proxies[0].forward_to(&format!("http://127.0.0.1:{}", crate::support::ports::free()));
    let status = cast.stage.operator.process().wait(SOON).await;
    assert!(!status.success());
    assert_eq!(
        cast.lease().await.holder_identity,
        Some(cast.stage.operator.name()),
        "it ended before its lease"
    );
    assert!(cast.stage.operator.logs().contains("the lease was lost"));
    cast.succession().await;
    cast.links(0..1).await;
    cast.ready(0..1).await;
    cast.one_at_a_time();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_never_has_two_at_work() {
    let plane = ControlPlane::shared().await;
    let mut cast = Cast::set(plane, 1).await;
    cast.links(0..3).await;
    cast.ready(0..3).await;
    let before = cast.lease().await;
    cast.upgrade(json!({"operator": {"podAnnotations": {"example.com/new": "yes"}}})).await;
    let [new] = &cast.others[..] else { panic!("one new Pod") };
    let new = new.name();
    assert_eq!(cast.lease().await.holder_identity, before.holder_identity, "the new one stands by");
    // The new one is ready, so the old one's Pod is deleted; the kubelet's part of that is ours.
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(cast.stage.client.clone(), &cast.stage.system);
    let old = cast.stage.operator.name();
    eventually(SOON, "the end of the old Pod", async || {
        let pod = pods.get_opt(&old).await.map_err(|e| e.to_string())?;
        let stands = pod.is_some_and(|p| p.metadata.deletion_timestamp.is_none());
        if stands { Err("it stands".to_owned()) } else { Ok(()) }
    })
    .await;
    cast.links(3..9).await;
    assert!(cast.stage.operator.stop().await.success());
    let after = cast.succession().await;
    assert_eq!(after.holder_identity, Some(new));
    cast.ready(0..9).await;
    cast.one_at_a_time();
    // Whoever took over found everything in order.
    let count = cast.journal.writes().len();
    crate::support::wait::always(Duration::from_millis(500), "nothing more to write", async || {
        cast.journal.writes().len() == count
    })
    .await;
}

/// A rotating refresh token is spent, and the API server goes away before the answer comes: the answer is kept until it
/// can be stored, though the lease is lost meanwhile, and another operator doesn't spend the token once more.
async fn an_answer_outlives_the_lease(replicas: usize) {
    let cast = Cast::set(ControlPlane::shared().await, replicas).await;
    let team = cast.stage.team().to_owned();
    let server = TokenServer::start().await;
    // A server without grace: a token that is sent twice is refused. The second answer waits.
    let answer = Arc::new(Notify::new());
    let (spent, held) = (AtomicUsize::new(0), answer.clone());
    server.on("/token", move |_, asked| {
        let before = spent.load(Ordering::SeqCst);
        if asked.field("refresh_token") != format!("refresh-{before}") {
            return Reply::json(400, &json!({"error": "invalid_grant"}));
        }
        let n = before + 1;
        spent.store(n, Ordering::SeqCst);
        let reply = Reply::json(
            200,
            &json!({
                "access_token": format!("token-{n}"), "token_type": "Bearer", "expires_in": 12,
                "refresh_token": format!("refresh-{n}"),
            }),
        );
        if n == 2 { Reply::Hold(held.clone(), Box::new(reply)) } else { reply }
    });
    cast.stage.put_secret(&team, "client", &[("client-id", "a"), ("client-secret", "b")]).await;
    cast.stage.put_secret(&team, "seed", &[("refresh-token", "refresh-0")]).await;
    let link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": "ci"},
        "spec": {
            "application": {"name": "CI"},
            "outgoing": {"oauth2": {
                "server": {"custom": {"tokenEndpoint": server.url("/token")}},
                "grant": {"refreshToken": {"secretRef": {"name": "seed", "key": "refresh-token"}}}, "client": {"secretRef": {"name": "client"}},
            }},
        },
    });
    cast.stage.apply_object(&team, &link).await;
    cast.stage.ready(&team, "ci").await;
    eventually(SOON, "a refresh under way", async || server.asked("/token").len() == 2).await;
    cast.stage.operator.may_exit();
    cast.proxies[0].forward_to(&format!("http://127.0.0.1:{}", crate::support::ports::free()));
    let logs = async |says: &str, times: usize| {
        eventually(SOON, format!("{says} in the log"), async || {
            let found = cast.stage.operator.logs().matches(says).count();
            if found >= times { Ok(()) } else { Err(found) }
        })
        .await;
    };
    logs("the lease is lost", 1).await;
    answer.notify_one();
    // The answer is there, and can't be stored yet.
    logs("effect=\"KeepReply\"", 2).await;
    if replicas > 1 {
        cast.succession().await;
    }
    cast.proxies[0].forward_to(cast.stage.plane.url());
    eventually(SOON, "a newer token in the Secret", async || {
        let token = cast.stage.data(&team, "ci-token").await["access-token"].clone();
        if token == "token-1" { Err(token) } else { Ok(()) }
    })
    .await;
    cast.stage.ready(&team, "ci").await;
    let again = server.asked("/token").iter().filter(|a| a.field("refresh_token") == "refresh-1").count();
    assert_eq!(again, 1, "the token that was spent was sent once more");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outlives_the_lease_of_one_that_is_alone() {
    an_answer_outlives_the_lease(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_outlives_the_lease_beside_another() {
    an_answer_outlives_the_lease(2).await;
}
