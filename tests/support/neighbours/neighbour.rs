//! The neighbour: what it can reach, and the thread that it runs on, so that its own work is in nobody's way in this
//! process.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Way;
use crate::support::access::Access;
use crate::support::objects;
use crate::support::stage::{SOON, Stage};
use crate::support::token_server::TokenServer;

/// Clients that the platform registered for the neighbour: one with a secret that a person chose, and one whose secret is
/// as long as ours are.
pub const CHOSEN: &str = "neighbour-chosen";
pub const DERIVED: &str = "neighbour-derived";
pub const DERIVED_SECRET: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// What the neighbour has.
pub struct Neighbour {
    access: Access,
    pub namespace: String,
    /// The authorization server that the victim's links ask too.
    pub shared: Arc<TokenServer>,
    pub provider_url: String,
    /// The pages of consents.
    pub consent_url: String,
    /// The listeners that anybody reaches: the provider's OAuth endpoints and probes, the operator's probes and pages.
    pub listeners: [u16; 4],
    done: Arc<AtomicUsize>,
    tilt: watch::Sender<bool>,
}

impl Neighbour {
    pub fn of(stage: &Stage<'_>, shared: &Arc<TokenServer>, consent_url: &str) -> Self {
        let listeners = [
            stage.provider.port("http"),
            stage.provider.port("health"),
            stage.operator.port("http"),
            stage.operator.port("consent"),
        ];
        Self {
            access: stage.plane.access().clone(),
            namespace: stage.teams[1].clone(),
            shared: shared.clone(),
            provider_url: stage.provider_url.clone(),
            consent_url: consent_url.to_owned(),
            listeners,
            done: Arc::default(),
            tilt: watch::Sender::new(false),
        }
    }

    /// All of the load is on.
    pub fn full_tilt(&self) {
        self.tilt.send_replace(true);
    }

    /// One more was done of what makes the noise.
    pub fn did(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts for a server's behaviour what was done.
    pub fn counter(&self) -> impl Fn() + Send + Sync + 'static {
        let done = self.done.clone();
        move || {
            done.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A client of the API server, on the neighbour's runtime.
    pub fn client(&self) -> kube::Client {
        self.access.client()
    }

    /// Applies an object, or a list of them.
    pub async fn apply(&self, object: &Value) {
        objects::apply(&self.access, None, &self.namespace, &object.to_string()).await.ok();
    }

    /// Applies some of them at once.
    pub async fn apply_all(&self, objects: impl IntoIterator<Item = Value>) {
        futures::stream::iter(objects).for_each_concurrent(4, async |object| self.apply(&object).await).await;
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) {
        objects::patch(&self.access, kind, &self.namespace, name, patch).await;
    }

    /// Has an object deleted, and doesn't wait for its end.
    pub async fn begin_deletion(&self, kind: &str, name: &str) {
        objects::begin_deletion(&self.access, kind, &self.namespace, name).await;
    }

    /// Does something this often at most, one after another, and counts it. From the first one on all of the load is on.
    pub async fn every(&self, period: Duration, mut act: impl AsyncFnMut(usize)) {
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for nth in 0.. {
            tick.tick().await;
            act(nth).await;
            self.did();
            self.full_tilt();
        }
    }

    /// Does the same in so many places at once, over and over, and counts it; from then on all of the load is on.
    pub async fn at_once(&self, places: usize, act: impl AsyncFn(usize)) {
        let place = async |n| {
            loop {
                act(n).await;
                self.did();
            }
        };
        let places: Vec<_> = (0..places).map(place).collect();
        self.full_tilt();
        join_all(places).await;
    }

    /// Nothing more to do: what was applied makes the noise.
    pub async fn watches(&self) {
        self.full_tilt();
        std::future::pending().await
    }
}

/// An incoming link; `more` is merged into its spec.
pub fn incoming(name: &str, more: Value) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI"},
            "incoming": {"oauth2": {"grantTypes": ["client_credentials"], "scopes": ["REPO_READ"]}},
        },
    });
    crate::support::stage::merge(&mut link["spec"], more);
    link
}

/// A Secret with these values.
pub fn secret(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// An outgoing link by client credentials, with the client's Secret `client`; `more` is merged into `oauth2`.
pub fn outgoing(name: &str, server: Value, client: &str, more: Value) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {"application": {"name": "CI"}, "outgoing": {"oauth2": {
            "server": {"custom": server}, "grant": {"clientCredentials": {}},
            "client": {"secretRef": {"name": client}}, "scopes": ["builds:read"],
        }}},
    });
    crate::support::stage::merge(&mut link["spec"]["outgoing"]["oauth2"], more);
    link
}

/// What has a link begin with a refresh token: merged into `oauth2`, and the Secret that goes with it.
pub fn refreshing(name: &str) -> (Value, Value) {
    let seed = format!("{name}-seed");
    let grant = json!({
        "clientCredentials": null, "refreshToken": {"secretRef": {"name": seed, "key": "refresh-token"}},
    });
    (json!({ "grant": grant }), secret(&seed, json!({"refresh-token": "first"})))
}

/// Registers the neighbour's clients at the provider.
pub async fn register(stage: &Stage<'_>) {
    let client = |secret: &str, kind: &str| {
        json!({
            "name": "a neighbour", "redirectUris": [], "grantTypes": ["client_credentials"], "scopes": ["REPO_READ"],
            "tokenEndpointAuthMethod": "client_secret_basic", "secret": secret, "secretKind": kind,
        })
    };
    for (id, body) in
        [(CHOSEN, client("a secret that I chose", "chosen")), (DERIVED, client(DERIVED_SECRET, "derived"))]
    {
        let (status, reply) =
            stage.admin(reqwest::Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
        assert_eq!(status, 201, "{reply}");
    }
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// A neighbour at it, on a thread and a runtime of its own.
pub struct Noise {
    thread: JoinHandle<()>,
    stop: watch::Sender<bool>,
    tilt: watch::Receiver<bool>,
    done: Arc<AtomicUsize>,
}

impl Noise {
    pub fn begin(way: &Way, neighbour: Neighbour) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (tilt, done, act) = (neighbour.tilt.subscribe(), neighbour.done.clone(), way.act);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                tokio::select! {
                    // An error means that nobody measures any more.
                    _ = stopped.wait_for(|stop| *stop) => {}
                    () = act(&neighbour) => {}
                }
            });
        });
        Self { thread, stop, tilt, done }
    }

    /// Waits until all of the load is on.
    ///
    /// # Errors
    /// When it ended, or took too long.
    pub async fn full_tilt(&self) -> Result<(), String> {
        let mut tilt = self.tilt.clone();
        match tokio::time::timeout(SOON, tilt.wait_for(|tilt| *tilt)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("the neighbour ended before all of its load was on".to_owned()),
            Err(_) => Err("the neighbour's load wasn't on in time".to_owned()),
        }
    }

    /// Ends it, and says how much it did.
    ///
    /// # Errors
    /// What it panicked with.
    pub fn end(self) -> Result<usize, String> {
        self.stop.send_replace(true);
        let done = self.done.clone();
        self.thread.join().map_err(|panic| format!("the neighbour: {}", said(panic.as_ref())))?;
        Ok(done.load(Ordering::SeqCst))
    }
}
