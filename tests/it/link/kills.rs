//! Refresh tokens that rotate, and an operator that is killed at random moments, half of them within a refresh: 20
//! rotations of each link. Where the server lets a token be spent twice, or again for a while, no grant is lost.
//! Where it doesn't, a kill between its answer and our write loses one: the link says so at once, nothing else is lost,
//! and with another refresh token the link goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kube::api::ListParams;
use reqwest::Method;
use serde_json::{Value, json};

use super::binary;
use super::turns::{metrics, value};
use crate::support::hydra::Hydra;
use crate::support::keycloak::Realm;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition, http, text};
use crate::support::wait::eventually;

const LINKS: usize = 3;
const ROTATIONS: usize = 20;
/// Whatever happens, no more than this.
const MOST_KILLS: usize = 60;

const CLIENT: (&str, &str) = ("us", "only-for-tests-0123456789abcdef");
const REDIRECT: &str = "http://127.0.0.1/callback";
const LOST: &str = "ReauthorizationRequired";

/// What came of it.
#[derive(Debug, Default)]
struct Figures {
    rotations: usize,
    kills: usize,
    /// Refreshes that were begun and not ended when the operator was killed.
    in_flight: usize,
    lost: usize,
}

/// Random numbers that are the same in each run (Knuth's generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// An authorization server.
enum Server {
    Hydra(Box<Hydra>),
    Keycloak(Realm),
}

impl Server {
    /// Hydra, with this grace for refresh tokens that were spent.
    async fn hydra(grace: Option<&str>) -> Self {
        let mut settings = vec![("TTL_ACCESS_TOKEN", "3s")];
        settings.extend(grace.map(|grace| ("OAUTH2_GRANT_REFRESH_TOKEN_ROTATION_GRACE_PERIOD", grace)));
        let hydra = Hydra::with_settings(&settings).await;
        let client = json!({
            "client_id": CLIENT.0, "client_secret": CLIENT.1, "redirect_uris": [REDIRECT], "scope": "offline",
            "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
            "token_endpoint_auth_method": "client_secret_basic",
        });
        let (status, reply) = hydra.admin(Method::POST, "/admin/clients", Some(client)).await;
        assert_eq!(status, 201, "{reply}");
        Self::Hydra(Box::new(hydra))
    }

    /// Keycloak with revocation of refresh tokens on, each of which may be spent again `reuse` times.
    async fn keycloak(reuse: u32) -> Self {
        let user = json!([{
            "username": "ann", "enabled": true, "email": "ann@example.com", "emailVerified": true, "firstName": "Ann",
            "lastName": "Example",
            "credentials": [{"type": "password", "value": "only-for-tests", "temporary": false}],
        }]);
        let realm = Realm::with(json!({
            "accessTokenLifespan": 3, "revokeRefreshToken": true, "refreshTokenMaxReuse": reuse, "users": user,
            "clients": [{
                "clientId": CLIENT.0, "secret": CLIENT.1, "standardFlowEnabled": false,
                "directAccessGrantsEnabled": true,
            }],
        }));
        Self::Keycloak(realm.await)
    }

    fn issuer(&self) -> String {
        match self {
            Self::Hydra(hydra) => hydra.issuer(),
            Self::Keycloak(realm) => realm.issuer(),
        }
    }

    async fn token(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let path = match self {
            Self::Hydra(_) => "oauth2/token",
            Self::Keycloak(_) => "protocol/openid-connect/token",
        };
        let url = format!("{}/{path}", self.issuer());
        let asked = http().post(url).basic_auth(CLIENT.0, Some(CLIENT.1)).form(form).send();
        let answer = asked.await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// A refresh token to start with.
    async fn seed(&self) -> String {
        if let Self::Hydra(hydra) = self {
            return hydra.consent(CLIENT.0, CLIENT.1, REDIRECT, &["offline"]).await;
        }
        let form = [("grant_type", "password"), ("username", "ann"), ("password", "only-for-tests")];
        let (_, reply) = self.token(&form).await;
        reply["refresh_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// Spends a refresh token in the operator's place.
    async fn spend(&self, refresh_token: &str) -> (u16, Value) {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", refresh_token)]).await
    }
}

/// Links at a server, and an operator that is killed.
struct Scene<'p> {
    stage: Stage<'p>,
    server: Server,
    dice: Dice,
    /// The access tokens that were seen of each link, and how many grants it lost.
    links: BTreeMap<String, (BTreeSet<String>, usize)>,
    /// The refresh tokens that were being spent at a kill of which the outcome isn't known yet, by link.
    doubt: BTreeMap<String, String>,
    figures: Figures,
}

impl Scene<'_> {
    async fn set(server: Server, dice: u64) -> Self {
        let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
        let team = stage.team().to_owned();
        stage.put_secret(&team, "client", &[("client-id", CLIENT.0), ("client-secret", CLIENT.1)]).await;
        let links = (0..LINKS).map(|i| (format!("link-{i}"), Default::default())).collect();
        let (doubt, figures) = Default::default();
        let scene = Self { stage, server, dice: Dice(dice), links, doubt, figures };
        for name in scene.links.keys() {
            scene.sow(name).await;
            let link = json!({
                "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
                "metadata": {"name": name},
                "spec": {"application": {"name": "App"}, "outgoing": {"oauth2": {
                    "server": {"custom": {"issuer": scene.server.issuer()}},
                    "grant": {"refreshToken": {"secretRef": {"name": format!("{name}-seed"), "key": "token"}}},
                    "client": {"secretRef": {"name": "client"}},
                }}},
            });
            scene.stage.apply_object(&team, &link).await;
        }
        for name in scene.links.keys() {
            scene.stage.ready(&team, name).await;
        }
        scene
    }

    /// Gives a link a refresh token to start with.
    async fn sow(&self, name: &str) {
        let seed = self.server.seed().await;
        self.stage.put_secret(self.stage.team(), &format!("{name}-seed"), &[("token", &seed)]).await;
    }

    /// What the operator has kept of each link's grant.
    async fn records(&self) -> BTreeMap<String, Value> {
        let all = self.stage.secrets(&self.stage.system).list(&ListParams::default()).await.expect("records");
        let records = all.items.iter().filter_map(|secret| text(secret).remove("record.json"));
        let records = records.map(|r| serde_json::from_str::<Value>(&r).expect("JSON"));
        // There are records of other kinds too.
        records.filter_map(|r| Some((r["link"]["name"].as_str()?.to_owned(), r))).collect()
    }

    /// Notes the access tokens that are there now.
    async fn look(&mut self) {
        let all = self.stage.secrets(self.stage.team()).list(&ListParams::default()).await.expect("Secrets");
        for secret in &all.items {
            let of = secret.metadata.name.as_deref().and_then(|name| name.strip_suffix("-token"));
            if let Some((seen, _)) = of.and_then(|name| self.links.get_mut(name)) {
                seen.extend(text(secret).remove("access-token"));
            }
        }
    }

    fn is_done(&self) -> bool {
        // The first token of a grant isn't the fruit of a rotation.
        self.links.values().all(|(seen, lost)| seen.len() > ROTATIONS + lost)
    }

    /// Life until the next kill: of random length, or until some moment within a refresh.
    async fn live(&mut self) {
        let within = self.doubt.is_empty() && self.dice.below(2) == 0;
        let end = Instant::now() + Duration::from_millis(500 + self.dice.below(2500));
        while Instant::now() < end {
            self.look().await;
            if within && self.records().await.values().any(|r| !r["intent"].is_null()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if within {
            tokio::time::sleep(Duration::from_millis(self.dice.below(60))).await;
        }
    }

    async fn kill(&mut self) {
        self.stage.operator.kill();
        self.stage.operator.process().wait(SOON).await;
        self.figures.kills += 1;
        for (name, record) in self.records().await {
            if !record["intent"].is_null() {
                self.figures.in_flight += 1;
                self.doubt.insert(name, record["refreshToken"].as_str().expect("a token").to_owned());
            }
        }
        self.stage.operator.start().await;
        self.stage.operator.until_ready(SOON).await;
    }

    /// Waits until nothing is in doubt any more: each grant whose token was being spent at a kill goes on, or its link
    /// says that it is lost. Nothing else is lost.
    async fn settle(&mut self) {
        let mut lost = Vec::new();
        for (name, token) in std::mem::take(&mut self.doubt) {
            let record = eventually(SOON, format!("{name} to know of its refresh"), async || {
                let record = self.records().await.remove(&name).expect("a record");
                if record["intent"].is_null() { Ok(record) } else { Err("it is still open") }
            })
            .await;
            if record["dead"].is_null() {
                continue;
            }
            assert_eq!(record["refreshToken"], json!(token), "{name} is lost by what no kill interrupted");
            for type_ in ["Ready", "Authorized"] {
                let link = self.stage.condition(self.stage.team(), &name, type_, "False", LOST).await;
                let status = serde_json::to_value(&link.status).expect("JSON");
                let said = condition(&status, type_).expect("a condition")["message"].clone();
                let way_out = format!("(invalid_grant); put a new one into Secret {name}-seed");
                assert!(said.as_str().is_some_and(|said| said.contains(&way_out)), "{said}");
            }
            // The server says the same.
            let (status, reply) = self.server.spend(&token).await;
            assert_eq!((status, &reply["error"]), (400, &json!("invalid_grant")), "{name}: {reply}");
            lost.push(name);
        }
        let links = self.stage.links(self.stage.team()).list(&ListParams::default()).await.expect("links");
        for link in links {
            let name = link.metadata.name.expect("a name");
            let status = serde_json::to_value(&link.status).expect("JSON");
            let says_so = condition(&status, "Authorized").is_some_and(|c| c["reason"] == LOST);
            assert_eq!(says_so, lost.contains(&name), "{name} says what isn't so: {status}");
        }
        // At once: it was the first such answer of the server that was believed, and no other one came.
        let answers =
            value(&metrics(&self.stage).await, &format!("applink_token_requests_total{{result=\"{LOST}\"}}"));
        assert_eq!(answers.unwrap_or_default(), lost.len() as f64, "answers of this kind, and {lost:?}");
        for name in lost {
            self.figures.lost += 1;
            self.links.get_mut(&name).expect("a link").1 += 1;
            self.sow(&name).await;
            self.stage.ready(self.stage.team(), &name).await;
        }
    }
}

/// Kills the operator again and again. `forgives`: the server takes a spent token as often as it is sent within a
/// minute, so the operator may also be killed while it finds out what became of a refresh.
#[allow(clippy::print_stdout, reason = "the figures are noted from --nocapture")]
async fn run(what: &str, server: Server, forgives: bool, dice: u64) -> Figures {
    let mut scene = Scene::set(server, dice).await;
    while !scene.is_done() {
        if scene.figures.kills == MOST_KILLS {
            eventually(2 * SOON, "the last rotations", async || {
                scene.look().await;
                if scene.is_done() { Ok(()) } else { Err("not all rotated so often") }
            })
            .await;
            break;
        }
        let open = !scene.doubt.is_empty();
        scene.live().await;
        scene.kill().await;
        // No refresh stays open for longer than two lives.
        if open || !forgives || scene.dice.below(4) > 0 {
            scene.settle().await;
        }
    }
    if !scene.doubt.is_empty() {
        scene.settle().await;
    }
    // Each grant that isn't said to be lost is good, and what is kept of it is what the server takes.
    for name in scene.links.keys() {
        scene.stage.ready(scene.stage.team(), name).await;
    }
    scene.stage.operator.stop().await;
    let records = scene.records().await;
    assert_eq!(records.len(), LINKS);
    for (name, record) in records {
        assert!(record["intent"].is_null(), "{name}: who is asked to end ends a refresh first");
        let (status, reply) = scene.server.spend(record["refreshToken"].as_str().expect("a token")).await;
        assert_eq!(status, 200, "{name}: {reply}");
    }
    let rotations = scene.links.values().map(|(seen, lost)| seen.len() - 1 - lost);
    scene.figures.rotations = rotations.sum();
    println!("{what}: {:?}", scene.figures);
    scene.figures
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_with_one_reuse_loses_no_grant() {
    let figures = run("Keycloak, reuse 1", Server::keycloak(1).await, false, 1).await;
    assert_eq!(figures.lost, 0, "{figures:?}");
}

#[ignore = "minutes; run by make kills"]
#[tokio::test(flavor = "multi_thread")]
async fn keycloak_without_reuse_loses_what_was_in_flight_and_each_is_said() {
    let figures = run("Keycloak, reuse 0", Server::keycloak(0).await, false, 2).await;
    assert!((1..=figures.in_flight).contains(&figures.lost), "{figures:?}");
}

#[ignore = "minutes; run by make kills"]
#[tokio::test(flavor = "multi_thread")]
async fn hydra_with_a_grace_of_a_minute_loses_no_grant() {
    let figures = run("Hydra, a minute", Server::hydra(Some("60s")).await, true, 3).await;
    assert_eq!(figures.lost, 0, "{figures:?}");
}

#[ignore = "minutes; run by make kills"]
#[tokio::test(flavor = "multi_thread")]
async fn hydra_without_grace_loses_what_was_in_flight_and_each_is_said() {
    let figures = run("Hydra, no grace", Server::hydra(None).await, false, 4).await;
    assert!((1..=figures.in_flight).contains(&figures.lost), "{figures:?}");
}
