//! The victim: what it does while a neighbour makes noise, and what of it is measured. All times are taken from watches.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use applink_operator::api::ApplicationLink;
use applink_operator::domain::keyring::digest_hex;
use applink_operator::outgoing::schedule::{RefreshPolicy, next_refresh};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::Size;
use super::neighbour::{incoming, outgoing, refreshing};
use crate::support::process::Process;
use crate::support::stage::{SOON, Stage, condition, merge, no_tls, text};
use crate::support::token_server::{Reply, TokenServer};

const CLIENT: &str = "us";
/// So many clients with a secret that a person chose: each is used once, so that each time it is really checked.
const APPLICATIONS: usize = 30;
const CHOSEN: &str = "a secret that the victim chose";

/// What a run showed. Times are in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From a link's creation to `Ready`.
    pub ready: Vec<f64>,
    /// From when a token was due to when another one stood in the Secret.
    pub late: Vec<f64>,
    /// An application's way to a token at the provider, by a secret that isn't known yet.
    pub token: Vec<f64>,
    /// A page of the consents.
    pub page: Vec<f64>,
    /// A write of the victim's own to the API server: what the machine makes of the noise by itself.
    pub write: Vec<f64>,
    /// Tokens that had ended while they stood in a Secret.
    pub expired: usize,
    /// Probes that failed.
    pub probes: usize,
    /// The most that the operator and the provider held, in MiB.
    pub operator_mib: u64,
    pub provider_mib: u64,
    /// What else shouldn't be.
    pub wrong: Vec<String>,
}

struct Published {
    token: String,
    issued: Timestamp,
    expires: Timestamp,
    seen: Timestamp,
}

#[derive(Default)]
struct Seen {
    ready: Mutex<HashMap<String, Instant>>,
    more: Notify,
    /// The tokens of a link, in the order in which they came, by the Secret's name.
    tokens: Mutex<BTreeMap<String, Vec<Published>>>,
    /// When each token ends at the server that issued it.
    ends: Arc<Mutex<HashMap<String, Timestamp>>>,
}

/// The link's Ready is True for what its spec says now.
fn is_ready(link: &ApplicationLink) -> bool {
    let status = serde_json::to_value(&link.status).expect("JSON");
    status["observedGeneration"] == json!(link.metadata.generation)
        && condition(&status, "Ready").is_some_and(|c| c["status"] == "True")
}

fn published(secret: &Secret, seen: Timestamp) -> Option<Published> {
    let annotations = secret.metadata.annotations.as_ref()?;
    let time = |key: &str| annotations.get(&format!("applink-operator.io/{key}"))?.parse().ok();
    let token = text(secret).remove("access-token")?;
    Some(Published { token, issued: time("issued-at")?, expires: time("expires-at")?, seen })
}

impl Seen {
    fn link(&self, link: &ApplicationLink) {
        if is_ready(link) {
            let name = link.metadata.name.clone().expect("a name");
            self.ready.lock().expect("lock").entry(name).or_insert_with(Instant::now);
            self.more.notify_waiters();
        }
    }

    fn secret(&self, secret: &Secret) {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        if let Some(now) = published(secret, Timestamp::now()).filter(|_| name.starts_with("short-")) {
            let mut tokens = self.tokens.lock().expect("lock");
            let all = tokens.entry(name.to_owned()).or_default();
            if all.last().is_none_or(|last| last.token != now.token) {
                all.push(now);
            }
        }
    }

    /// When a link was first seen Ready, once it is.
    async fn when_ready(&self, name: &str) -> Option<Instant> {
        let wait = async {
            loop {
                let more = self.more.notified();
                if let Some(at) = self.ready.lock().expect("lock").get(name) {
                    return *at;
                }
                more.await;
            }
        };
        tokio::time::timeout(SOON, wait).await.ok()
    }

    /// Whether a token has ended, by the Secret or by the server that issued it.
    fn has_ended(&self, token: &Published, now: Timestamp) -> bool {
        let ends = self.ends.lock().expect("lock").get(&token.token).copied();
        token.expires < now || ends.is_some_and(|ends| ends < now)
    }
}

/// The victim, with its links in place.
pub struct Victim<'a> {
    stage: &'a Stage<'a>,
    team: &'a str,
    server: &'a TokenServer,
    size: Size,
    seen: Arc<Seen>,
    /// The numbers that spread the links' refreshes, by the Secret's name.
    jitter: BTreeMap<String, u64>,
    http: reqwest::Client,
    _watches: JoinSet<()>,
}

fn watch(stage: &Stage<'_>, team: &str, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (links, secrets) = (stage.links(team), stage.secrets(team));
    let of = seen.clone();
    tasks.spawn(async move {
        let all = watcher(links, watcher::Config::default()).default_backoff().applied_objects();
        all.for_each(async |link| link.iter().for_each(|l| of.link(l))).await;
    });
    let of = seen.clone();
    tasks.spawn(async move {
        let all = watcher(secrets, watcher::Config::default()).default_backoff().applied_objects();
        all.for_each(async |secret| secret.iter().for_each(|s| of.secret(s))).await;
    });
    tasks
}

impl<'a> Victim<'a> {
    /// Makes the links whose tokens are refreshed, and waits until they are Ready.
    pub async fn settle(stage: &'a Stage<'a>, server: &'a TokenServer, size: Size) -> Self {
        let team = stage.team();
        let seen = Arc::<Seen>::default();
        let watches = watch(stage, team, &seen);
        stage.put_secret(team, CLIENT, &[("client-id", CLIENT), ("client-secret", CHOSEN)]).await;
        stage
            .apply_object(
                team,
                &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "note"}}),
            )
            .await;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(no_tls())
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(60));
        let http = http.build().expect("a client");
        let mut victim =
            Self { stage, team, server, size, seen, jitter: BTreeMap::new(), http, _watches: watches };
        let mut tick = tokio::time::interval(size.every / u32::try_from(size.refreshed).expect("few") / 2);
        for i in 0..size.refreshed {
            // So that they aren't due all at once.
            tick.tick().await;
            victim.make_short(i).await;
        }
        for i in 0..size.refreshed {
            let link = stage.ready(team, &format!("short-{i}")).await;
            let uid = link.metadata.uid.expect("a UID");
            let digest = u64::from_str_radix(&digest_hex(&uid)[..16], 16).expect("hexadecimal");
            victim.jitter.insert(format!("short-{i}-token"), digest);
        }
        victim
    }

    /// A link whose tokens live for a short time; every other one has a refresh token that rotates.
    async fn make_short(&self, i: usize) {
        let (name, lifetime) = (format!("short-{i}"), self.size.lifetime.as_secs());
        let path = format!("/victim/{name}");
        let ends = self.seen.ends.clone();
        let of = name.clone();
        self.server.on(&path, move |nth, _| {
            let token = format!("{of}-{nth}");
            let until = Timestamp::now() + Duration::from_secs(lifetime);
            ends.lock().expect("lock").insert(token.clone(), until);
            let mut reply = json!({"access_token": token, "token_type": "Bearer", "expires_in": lifetime});
            if i % 2 == 1 {
                reply["refresh_token"] = json!(format!("refresh-{of}-{nth}"));
            }
            Reply::json(200, &reply)
        });
        let mut more = json!({});
        if i % 2 == 1 {
            let (grant, seed) = refreshing(&name);
            more = grant;
            self.stage.apply_object(self.team, &seed).await;
        }
        let server = json!({"tokenEndpoint": self.server.url(&path)});
        let mut link = outgoing(&name, server, CLIENT, more);
        let every = format!("{}s", self.size.every.as_secs());
        merge(&mut link, json!({"spec": {"outgoing": {"refresh": {"every": every}}}}));
        self.stage.apply_object(self.team, &link).await;
    }

    /// A run: what the victim does for the span, and what came of it. `run` names what it makes.
    pub async fn measure(&self, run: &str) -> Measured {
        self.register_applications(run).await;
        let processes = [self.stage.operator.process(), self.stage.provider.process()];
        processes.iter().for_each(|p| p.forget_peak_memory());
        let (from, over) = (Timestamp::now(), AtomicBool::new(false));
        let links = async {
            let made = self.apply_links(run).await;
            over.store(true, Ordering::SeqCst);
            made
        };
        let (links, visits, probes, expired) =
            tokio::join!(links, self.visits(run, &over), self.probes(&over), self.expired(&over));
        let [operator_mib, provider_mib] = processes.map(|p: Arc<Process>| p.memory("VmHWM") >> 10);
        let mut measured = Measured { operator_mib, provider_mib, probes, expired, ..visits };
        measured.ready = links.0;
        measured.wrong.extend(links.1);
        self.lateness(from, &mut measured);
        measured
    }

    async fn register_applications(&self, run: &str) {
        for n in 0..APPLICATIONS {
            let body = json!({
                "name": "an application", "redirectUris": [], "grantTypes": ["client_credentials"],
                "scopes": ["REPO_READ"], "tokenEndpointAuthMethod": "client_secret_basic",
                "secret": CHOSEN, "secretKind": "chosen",
            });
            let path = format!("/admin/clients/{run}-{n}");
            let (status, reply) = self.stage.admin(reqwest::Method::PUT, &path, Some(body)).await;
            assert_eq!(status, 201, "{reply}");
        }
    }

    /// Applies links one after another: how long each took to be Ready, and which didn't become so.
    async fn apply_links(&self, run: &str) -> (Vec<f64>, Vec<String>) {
        let links = self.stage.links(self.team);
        let (mut took, mut wrong) = (Vec::new(), Vec::new());
        let started = Instant::now();
        let pause = self.size.span / u32::try_from(self.size.applied).expect("few");
        let mut tick = tokio::time::interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for i in 0..self.size.applied {
            tick.tick().await;
            if started.elapsed() > self.size.span {
                break;
            }
            let name = format!("{run}-{i}");
            let link = if i % 2 == 0 { incoming(&name, json!({})) } else { self.lasting(&name) };
            let link: ApplicationLink = serde_json::from_value(link).expect("a link");
            let created = Instant::now();
            links.create(&PostParams::default(), &link).await.expect("the link is created");
            match self.seen.when_ready(&name).await {
                Some(at) => took.push(millis(at.saturating_duration_since(created))),
                None => {
                    let found = links.get(&name).await.expect("the link").status;
                    wrong.push(format!("{name} didn't become Ready: {}", json!(found)));
                }
            }
        }
        tokio::time::sleep(self.size.span.saturating_sub(started.elapsed())).await;
        (took, wrong)
    }

    /// An outgoing link whose token lasts.
    fn lasting(&self, name: &str) -> Value {
        let path = format!("/victim/{name}");
        let reply = json!({"access_token": "lasting", "token_type": "Bearer", "expires_in": 3600});
        self.server.always(&path, Reply::json(200, &reply));
        outgoing(name, json!({"tokenEndpoint": self.server.url(&path)}), CLIENT, json!({}))
    }

    /// Once a second: a token at the provider, a page of the consents, a write of one's own.
    async fn visits(&self, run: &str, over: &AtomicBool) -> Measured {
        let mut found = Measured::default();
        let notes: Api<ConfigMap> = Api::namespaced(self.stage.client.clone(), self.team);
        let values = self.stage.values();
        let page = format!(
            "{}/authorize/{}/nobody?ticket=made-up",
            values["consent"]["url"].as_str().unwrap_or_default(),
            self.team
        );
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for nth in 0.. {
            tick.tick().await;
            if over.load(Ordering::SeqCst) {
                break;
            }
            let form = [("grant_type", "client_credentials")];
            let id = format!("{run}-{}", nth % APPLICATIONS);
            let token = self.http.post(format!("{}/oauth2/token", self.stage.provider_url));
            let token = token.basic_auth(id, Some(CHOSEN)).form(&form);
            timed(&mut found.token, &mut found.wrong, token, 200).await;
            timed(&mut found.page, &mut found.wrong, self.http.get(&page), 404).await;
            let began = Instant::now();
            let patch = Patch::Merge(json!({"data": {"n": nth.to_string()}}));
            notes.patch("note", &PatchParams::default(), &patch).await.expect("the victim's own write");
            found.write.push(millis(began.elapsed()));
        }
        found
    }

    /// How many probes failed, of four each half second.
    async fn probes(&self, over: &AtomicBool) -> usize {
        let mut failed = 0;
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !over.load(Ordering::SeqCst) {
            tick.tick().await;
            let (operator, provider) = (&self.stage.operator, &self.stage.provider);
            let found = tokio::join!(
                operator.liveness(),
                operator.readiness(),
                provider.liveness(),
                provider.readiness()
            );
            for probe in [found.0, found.1, found.2, found.3] {
                failed += usize::from(probe.is_err());
            }
        }
        failed
    }

    /// How many tokens had ended while they stood in a Secret. What the watch says is asked of the API server again: it may
    /// be late.
    async fn expired(&self, over: &AtomicBool) -> usize {
        let mut found = BTreeSet::new();
        let secrets = self.stage.secrets(self.team);
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !over.load(Ordering::SeqCst) {
            tick.tick().await;
            let now = Timestamp::now();
            let suspects: Vec<_> = {
                let tokens = self.seen.tokens.lock().expect("lock");
                let ended = |all: &&Vec<Published>| all.last().is_some_and(|t| self.seen.has_ended(t, now));
                tokens.iter().filter(|(_, all)| ended(all)).map(|(name, _)| name.clone()).collect()
            };
            for name in suspects {
                let secret = secrets.get(&name).await.expect("the Secret");
                if let Some(token) = published(&secret, now).filter(|t| self.seen.has_ended(t, now)) {
                    found.insert(token.token);
                }
            }
        }
        found.len()
    }

    /// How late the tokens were that were due in the run.
    fn lateness(&self, from: Timestamp, measured: &mut Measured) {
        // What was due a moment ago may still be on its way.
        let until = Timestamp::now() - Duration::from_secs(1);
        let late = |seen: Timestamp, due: Timestamp| seen.duration_since(due).as_secs_f64() * 1000.0;
        for (name, all) in self.seen.tokens.lock().expect("lock").iter() {
            for (n, token) in all.iter().enumerate() {
                let policy = RefreshPolicy::Every(self.size.every);
                let due = next_refresh(token.issued, token.expires, policy, self.jitter[name]);
                if due < from || due > until {
                    continue;
                }
                let seen = all.get(n + 1).map_or_else(Timestamp::now, |next| next.seen);
                let late = late(seen, due);
                if late < 0.0 {
                    measured.wrong.push(format!("{name}: refreshed {late} ms after it was due"));
                }
                measured.late.push(late);
            }
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn timed(into: &mut Vec<f64>, wrong: &mut Vec<String>, ask: reqwest::RequestBuilder, wanted: u16) {
    let began = Instant::now();
    let answer = ask.send().await;
    into.push(millis(began.elapsed()));
    match answer {
        Ok(answer) if answer.status().as_u16() == wanted => {}
        Ok(answer) => wrong.push(format!("{}: {}", answer.url().path(), answer.status())),
        Err(error) => wrong.push(error.without_url().to_string()),
    }
}
