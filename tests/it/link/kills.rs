//! Refresh tokens that rotate, and an operator that is killed at random moments, half of them while a refresh is begun:
//! 20 rotations and more of each link. Where the server lets a token be spent twice, no grant is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kube::api::ListParams;
use serde_json::{Value, json};

use super::binary;
use crate::support::keycloak::Realm;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition, http, text};
use crate::support::wait::eventually;

const LINKS: usize = 4;
const ROTATIONS: usize = 20;
/// Whatever happens, no more than this.
const MOST_KILLS: usize = 60;
const LONGEST: Duration = Duration::from_secs(400);

const CLIENT: (&str, &str) = ("us", "only-for-tests-0123456789abcdef");

/// What came of it.
#[derive(Debug, Default)]
struct Figures {
    rotations: usize,
    kills: usize,
    /// Refreshes that were begun when the operator was killed.
    in_flight: usize,
    lost: BTreeSet<String>,
}

/// Random numbers that are the same in each run (Numerical Recipes' generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn link(name: &str, issuer: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {"application": {"name": "App"}, "outgoing": {"oauth2": {
            "server": {"custom": {"issuer": issuer}},
            "grant": {"refreshToken": {"secretRef": {"name": format!("{name}-seed"), "key": "token"}}},
            "client": {"secretRef": {"name": "client"}},
        }}},
    })
}

/// The links whose record says that a refresh is begun.
async fn begun(stage: &Stage<'_>) -> usize {
    let all = stage.secrets(&stage.system).list(&ListParams::default()).await.expect("records");
    let records = all.items.iter().filter_map(|s| text(s).remove("record.json"));
    records.filter(|r| serde_json::from_str::<Value>(r).is_ok_and(|r| !r["intent"].is_null())).count()
}

/// Keeps links at a server, whose refresh tokens are `seeds`, and kills the operator again and again.
async fn run(issuer: &str, seeds: Vec<String>, dice: u64) -> Figures {
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    stage.put_secret(team, "client", &[("client-id", CLIENT.0), ("client-secret", CLIENT.1)]).await;
    let mut tokens = BTreeMap::new();
    for (i, seed) in seeds.iter().enumerate() {
        let name = format!("link-{i}");
        stage.put_secret(team, &format!("{name}-seed"), &[("token", seed)]).await;
        stage.apply_object(team, &link(&name, issuer)).await;
        tokens.insert(name, BTreeSet::new());
    }
    for name in tokens.keys() {
        stage.ready(team, name).await;
    }
    let mut figures = Figures::default();
    let mut dice = Dice(dice);
    let started = Instant::now();
    while figures.kills < MOST_KILLS && started.elapsed() < LONGEST {
        // Life until the next kill: random, since the moment is what is tested; or until a refresh is begun.
        let at_refresh = dice.below(2) == 0;
        let end = Instant::now() + Duration::from_millis(500 + dice.below(4000));
        while Instant::now() < end {
            for (name, seen) in &mut tokens {
                let secret = stage.secrets(team).get_opt(&format!("{name}-token")).await.expect("asked");
                seen.extend(secret.as_ref().map(text).and_then(|mut d| d.remove("access-token")));
            }
            if at_refresh && begun(&stage).await > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for link in stage.links(team).list(&ListParams::default()).await.expect("links") {
            let status = serde_json::to_value(&link.status).expect("json");
            if condition(&status, "Authorized").is_some_and(|c| c["reason"] == "ReauthorizationRequired") {
                figures.lost.extend(link.metadata.name);
            }
        }
        let is_done = |(name, seen): (&String, &BTreeSet<String>)| {
            seen.len() > ROTATIONS || figures.lost.contains(name)
        };
        if tokens.iter().all(is_done) {
            break;
        }
        stage.operator.kill();
        figures.kills += 1;
        figures.in_flight += begun(&stage).await;
        stage.operator.start().await;
    }
    // Nothing is in doubt: each link has a token that works on, or says that its grant is lost.
    stage.operator.until_ready(SOON).await;
    for name in tokens.keys() {
        eventually(SOON, format!("{name} to be Ready, or to say that its grant is lost"), async || {
            let link = stage.links(team).get(name).await.map_err(|e| e.to_string())?;
            let status = serde_json::to_value(&link.status).expect("json");
            let ready = condition(&status, "Ready").cloned().unwrap_or_default();
            if ready["reason"] == "ReauthorizationRequired" {
                assert_eq!(ready["status"], "False");
                figures.lost.insert(name.clone());
                return Ok(());
            }
            if ready["status"] == "True" { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
    figures.rotations = tokens.values().map(|seen| seen.len().saturating_sub(1)).sum();
    for (name, seen) in &tokens {
        assert!(seen.len() > ROTATIONS || figures.lost.contains(name), "{name}: {} {figures:?}", seen.len());
    }
    assert!(figures.kills > 0, "{figures:?}");
    figures
}

/// Keycloak with revocation of refresh tokens on, each of which may be spent again `reuse` times.
async fn keycloak(reuse: u32, dice: u64) -> Figures {
    let user = json!([{
        "username": "ann", "enabled": true, "email": "ann@example.com", "emailVerified": true, "firstName": "Ann",
        "lastName": "Example", "credentials": [{"type": "password", "value": "only-for-tests", "temporary": false}],
    }]);
    let realm = Realm::with(json!({
        "accessTokenLifespan": 4, "revokeRefreshToken": true, "refreshTokenMaxReuse": reuse, "users": user,
        "clients": [{
            "clientId": CLIENT.0, "secret": CLIENT.1, "standardFlowEnabled": false, "directAccessGrantsEnabled": true,
        }],
    }))
    .await;
    let mut seeds = Vec::new();
    for _ in 0..LINKS {
        let form = [("grant_type", "password"), ("username", "ann"), ("password", "only-for-tests")];
        let endpoint = format!("{}/protocol/openid-connect/token", realm.issuer());
        let asked = http().post(endpoint).basic_auth(CLIENT.0, Some(CLIENT.1)).form(&form);
        let reply: Value = asked.send().await.expect("an answer").json().await.expect("JSON");
        seeds.push(reply["refresh_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned());
    }
    run(&realm.issuer(), seeds, dice).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloak_with_one_reuse_loses_no_grant() {
    let figures = keycloak(1, 1).await;
    assert!(figures.lost.is_empty(), "{figures:?}");
}
