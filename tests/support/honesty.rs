//! Whether Ready is honest: links under random edits, deletions, stops and faults, looked at once a second as an application
//! would. A stretch in which Ready is True and what stands in the Secret fails is a lie once it is longer than [`WINDOW`].
//! A seed gives the same deeds again; what comes of them also hangs on the clock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::bench::{OUTSIDE, outside};
use super::plane::ControlPlane;
use super::stage::{SOON, Stage, condition, http, text};
use super::token_server::{Reply, TokenServer};

/// How long Ready may be True over a Secret that fails: the bundled provider tells what changes within a second.
pub const WINDOW: Duration = Duration::from_secs(3);
/// How long the tokens of the double live, in seconds.
const LIVES: i64 = 12;

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub samples: usize,
    /// How many of them said Ready.
    pub ready: usize,
    pub deeds: usize,
    /// Each with its link, its length and what was done before.
    pub lies: Vec<String>,
}

/// Random numbers by a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(sides.max(1)).expect("few")).expect("few")
    }
}

/// How the double answers a link.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Well,
    /// After so many seconds.
    Slow(u64),
    Silent,
    Fails,
    DoesntKnowUs,
}

/// One link, and what is known of it.
struct Looked {
    name: String,
    incoming: bool,
    outgoing: bool,
    mood: Arc<Mutex<Mood>>,
    /// The tokens that the double gave, and until when they are good.
    given: Arc<Mutex<HashMap<String, Instant>>>,
}

impl Looked {
    fn object(&self, server: &TokenServer, secrets: &str) -> Value {
        let mut spec = json!({"application": {"name": self.name}});
        if self.incoming {
            spec["incoming"] = json!({
                "oauth2": {"grantTypes": ["client_credentials"]}, "secret": {"name": format!("{}-oauth{secrets}", self.name)},
            });
        }
        if self.outgoing {
            spec["outgoing"] = json!({
                "oauth2": {
                    "server": {"custom": {"tokenEndpoint": server.url(&self.path())}}, "grant": {"clientCredentials": {}},
                    "client": {"secretRef": {"name": OUTSIDE}},
                },
                "secret": {"name": format!("{}-token{secrets}", self.name)},
            });
        }
        json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
            "metadata": {"name": self.name}, "spec": spec,
        })
    }

    fn path(&self) -> String {
        format!("/{}/token", self.name)
    }

    /// Has the double answer as it is in the mood to.
    fn listen(&self, server: &TokenServer) {
        let (mood, given, name) = (self.mood.clone(), self.given.clone(), self.name.clone());
        let count = AtomicU64::new(0);
        server.on(&self.path(), move |_, _| {
            let token = format!("{name}-{}", count.fetch_add(1, Ordering::SeqCst));
            let good = Reply::json(
                200,
                &json!({"access_token": token, "token_type": "Bearer", "expires_in": LIVES}),
            );
            let lives = Duration::from_secs(LIVES.unsigned_abs());
            given.lock().expect("lock").insert(token, Instant::now() + lives);
            match *mood.lock().expect("lock") {
                Mood::Well => good,
                Mood::Slow(seconds) => {
                    let go = Arc::new(tokio::sync::Notify::new());
                    let then = go.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        then.notify_one();
                    });
                    Reply::Hold(go, Box::new(good))
                }
                Mood::Silent => Reply::Silence,
                Mood::Fails => Reply::http(500, "", ""),
                Mood::DoesntKnowUs => Reply::json(401, &json!({"error": "invalid_client"})),
            }
        });
    }
}

/// What those who look and those who act share.
struct World<'p> {
    stage: &'p Stage<'p>,
    server: TokenServer,
    links: Vec<Looked>,
    over: AtomicBool,
    samples: AtomicUsize,
    ready: AtomicUsize,
    deeds: Mutex<Vec<(Instant, String)>>,
    lies: Mutex<Vec<String>>,
}

impl World<'_> {
    fn did(&self, what: String) {
        self.deeds.lock().expect("lock").push((Instant::now(), what));
    }

    async fn says_ready(&self, link: &Looked) -> Option<(bool, Value)> {
        let found = self.stage.links(self.stage.team()).get_opt(&link.name).await.ok()??;
        let spec = serde_json::to_value(&found.spec).ok()?;
        let status = serde_json::to_value(&found.status).ok()?;
        Some((condition(&status, "Ready").is_some_and(|c| c["status"] == "True"), spec))
    }

    /// What fails of what stands in the Secrets that the spec names.
    async fn fails(&self, link: &Looked, spec: &Value) -> Option<String> {
        let data = async |direction: &str| {
            let name = spec[direction]["secret"]["name"].as_str()?.to_owned();
            let found = self.stage.secrets(self.stage.team()).get_opt(&name).await.ok()?;
            Some(found.map(|secret| text(&secret)))
        };
        if link.incoming {
            match data("incoming").await {
                Some(None) => return Some("the client's Secret is gone".into()),
                Some(Some(data)) => {
                    let field = |key: &str| data.get(key).cloned().unwrap_or_default();
                    let request = http()
                        .post(format!("{}/oauth2/revoke", self.stage.provider_url))
                        .basic_auth(field("client-id"), Some(field("client-secret")))
                        .form(&[("token", "none")]);
                    if let Ok(answer) = request.send().await
                        && answer.status() == 401
                    {
                        return Some("the client's Secret doesn't authenticate".into());
                    }
                }
                None => {}
            }
        }
        if link.outgoing {
            match data("outgoing").await {
                Some(None) => return Some("the token's Secret is gone".into()),
                Some(Some(data)) => {
                    let token = data.get("access-token").cloned().unwrap_or_default();
                    let until = link.given.lock().expect("lock").get(&token).copied();
                    if until.is_none_or(|until| until < Instant::now()) {
                        return Some(format!("the token in the Secret is none, or has ended: {until:?}"));
                    }
                }
                None => {}
            }
        }
        None
    }

    /// Looks at a link once a second, until it is over.
    async fn watch(&self, link: &Looked) {
        let mut second = tokio::time::interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut since: Option<(Instant, String)> = None;
        let mut told = false;
        while !self.over.load(Ordering::SeqCst) {
            second.tick().await;
            let before = self.says_ready(link).await;
            let fails = match &before {
                Some((true, spec)) => self.fails(link, spec).await,
                _ => None,
            };
            let still = self.says_ready(link).await;
            self.samples.fetch_add(1, Ordering::SeqCst);
            let ready = matches!((&before, &still), (Some((true, a)), Some((true, b))) if a == b);
            self.ready.fetch_add(usize::from(ready), Ordering::SeqCst);
            let Some(why) = fails.filter(|_| ready) else {
                (since, told) = (None, false);
                continue;
            };
            let (began, what) = since.get_or_insert_with(|| (Instant::now(), why));
            if began.elapsed() > WINDOW && !told {
                told = true;
                let deeds = self.deeds.lock().expect("lock");
                let about = |(at, deed): &&(Instant, String)| {
                    began.duration_since(*at) < Duration::from_secs(20)
                        && (deed.contains(&link.name) || deed.contains("the "))
                };
                let lately: Vec<_> = deeds
                    .iter()
                    .filter(about)
                    .map(|(at, deed)| {
                        format!("{:.1} s before: {deed}", began.duration_since(*at).as_secs_f64())
                    })
                    .collect();
                let lie = format!("{}: {what}; {}", link.name, lately.join("; "));
                eprintln!("LIE {lie}");
                self.lies.lock().expect("lock").push(lie);
            }
        }
    }

    async fn patch_link(&self, link: &Looked, patch: Value) {
        let links = self.stage.links(self.stage.team());
        // One that was deleted a moment ago isn't there.
        drop(links.patch(&link.name, &PatchParams::default(), &Patch::Merge(patch)).await);
    }

    async fn edit_secret(&self, name: &str, patch: Value) {
        let secrets = self.stage.secrets(self.stage.team());
        drop(secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await);
    }

    /// Does something to a link.
    async fn act(&self, dice: &mut Dice) {
        let link = &self.links[dice.roll(self.links.len())];
        let Some((_, spec)) = self.says_ready(link).await else {
            self.did(format!("{} is made again", link.name));
            self.stage.apply_object(self.stage.team(), &link.object(&self.server, "")).await;
            return;
        };
        let direction = match (link.incoming, link.outgoing) {
            (true, true) => ["incoming", "outgoing"][dice.roll(2)],
            (true, false) => "incoming",
            _ => "outgoing",
        };
        let secret = spec[direction]["secret"]["name"].as_str().unwrap_or_default().to_owned();
        match dice.roll(12) {
            0 | 1 => {
                self.did(format!("{}: Secret {secret} is deleted", link.name));
                drop(self.stage.secrets(self.stage.team()).delete(&secret, &DeleteParams::default()).await);
            }
            2 | 3 => {
                let key = if direction == "incoming" { "client-secret" } else { "access-token" };
                self.did(format!("{}: Secret {secret} is edited", link.name));
                self.edit_secret(&secret, json!({"stringData": {key: "edited by hand"}})).await;
            }
            4 => {
                self.did(format!("{}: Secret {secret} loses its marks", link.name));
                self.edit_secret(&secret, json!({"metadata": {"labels": null, "ownerReferences": null}}))
                    .await;
            }
            5 if link.incoming => {
                let all = self.stage.clients().await;
                if let Some(id) = all.iter().find(|id| id.contains(&format!(".{}.", link.name))) {
                    self.did(format!("{}: its client is deleted at the provider", link.name));
                    self.stage.delete_client(id).await;
                }
            }
            6 => {
                self.did(format!("{}: replaced without annotations", link.name));
                self.patch_link(link, json!({"metadata": {"annotations": null}})).await;
            }
            7 => {
                self.did(format!("{} is touched", link.name));
                let note = dice.roll(1000).to_string();
                self.patch_link(link, json!({"metadata": {"annotations": {"note": note}}})).await;
            }
            8 => {
                let suffix = ["", "-b"][dice.roll(2)];
                self.did(format!("{}: its Secrets are named …{suffix}", link.name));
                self.stage.apply_object(self.stage.team(), &link.object(&self.server, suffix)).await;
            }
            9 => {
                self.did(format!("{} is deleted", link.name));
                drop(self.stage.links(self.stage.team()).delete(&link.name, &DeleteParams::default()).await);
            }
            _ => {
                let moods = [
                    Mood::Well,
                    Mood::Slow(10),
                    Mood::Slow(3),
                    Mood::Silent,
                    Mood::Fails,
                    Mood::DoesntKnowUs,
                ];
                let mood = moods[dice.roll(moods.len())];
                self.did(format!("{}: its server is {mood:?}", link.name));
                *link.mood.lock().expect("lock") = mood;
            }
        }
    }
}

/// Looks for so long, with the deeds of a seed.
pub async fn honesty(plane: &ControlPlane, binary: &Path, seed: u64, span: Duration) -> Report {
    let values = json!({"operator": {"minRefreshInterval": "2s"}});
    let mut stage = Stage::set(plane, binary, 1, values).await;
    stage.operator.may_exit();
    outside(&stage).await;
    let mut links = Vec::new();
    for (kind, incoming, outgoing) in [("in", true, false), ("out", false, true), ("both", true, true)] {
        for n in 0..3 {
            let (mood, given) = (Arc::new(Mutex::new(Mood::Well)), Arc::default());
            links.push(Looked { name: format!("{kind}{n}"), incoming, outgoing, mood, given });
        }
    }
    let server = TokenServer::start().await;
    for link in &links {
        link.listen(&server);
        stage.apply_object(stage.team(), &link.object(&server, "")).await;
    }
    for link in &links {
        stage.ready(stage.team(), &link.name).await;
    }
    let mut dice = Dice(seed);
    let mut report = Report::default();
    let end = Instant::now() + span;
    // Between the stops of operator and provider all others act; those need the stage for themselves.
    let mut world_links = links;
    let mut server = server;
    while Instant::now() < end {
        let part =
            end.min(Instant::now() + Duration::from_secs(45 + u64::try_from(dice.roll(30)).expect("few")));
        let world = World {
            stage: &stage,
            server,
            links: world_links,
            over: AtomicBool::new(false),
            samples: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            deeds: Mutex::default(),
            lies: Mutex::default(),
        };
        let acting = async {
            while Instant::now() < part {
                world.act(&mut dice).await;
                tokio::time::sleep(Duration::from_millis(
                    300 + 100 * u64::try_from(dice.roll(15)).expect("few"),
                ))
                .await;
            }
            world.over.store(true, Ordering::SeqCst);
        };
        let watching = futures::future::join_all(world.links.iter().map(|link| world.watch(link)));
        futures::join!(acting, watching);
        report.samples += world.samples.into_inner();
        report.ready += world.ready.into_inner();
        report.deeds += world.deeds.into_inner().expect("lock").len();
        report.lies.extend(world.lies.into_inner().expect("lock"));
        (server, world_links) = (world.server, world.links);
        // A stop: what was true before must be said anew by who comes back.
        match dice.roll(3) {
            0 => {
                stage.operator.stop().await;
                stage.operator.start().await;
                stage.operator.until_ready(SOON).await;
            }
            1 => {
                stage.provider.stop().await;
                stage.provider.start().await;
                stage.provider.until_ready(SOON).await;
            }
            _ => {}
        }
    }
    report
}
