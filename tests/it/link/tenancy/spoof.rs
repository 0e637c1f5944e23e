//! A tenant that owns the provider service: its `LinkProvider` names the platform's address or one of its own, and has a
//! server called that hears and lies. The corpus is in `tests/corpus/hostile/*.yaml`, a list of cases a file; each is run
//! once for each service that it is on. To add one, add a case:
//!
//! | key | |
//! |---|---|
//! | `case`, `on` | what is tried; which services the tenant's server plays (see [`spec`]) |
//! | `lies` | how it lies from the start ([`Lies`]) |
//! | `link` | changes of the link's spec; a link for machines where there are none |
//! | `adoptable` | what the tenant's provider lists |
//! | `story` | steps: `own` and `platform` (the link names that provider; the first one makes it), `narrow` (another of the platform's), `shows REASON`, `patch: {…}` of the spec, `lie: {…}`, `remember` (the client's identifier, as `$ID`), `delete` |
//! | `registers` | at the end the link has a client at the platform's provider, and its Secret opens it |
//! | `hears` | the tenant's server was sent a secret of the link's at all; left out: either |
//!
//! After the story, and again after the link's end: nothing that the tenant's server heard opens any client at the
//! platform's provider; the victim's objects and clients are the same, byte by byte; and the platform's provider has a
//! client of the link only where the case says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::{FutureExt as _, StreamExt as _};
use kube::api::DeleteParams;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::fixtures::{authenticates, machine, patch_link};
use super::super::watcher::at_rest;
use super::corpus::fill;
use super::scene::{Scene, plane};
use crate::support::spoof::{Lies, Spoof};
use crate::support::stage::{SOON, condition, http, merge};
use crate::support::wait::eventually;

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    on: Vec<String>,
    #[serde(default)]
    lies: Value,
    #[serde(default)]
    link: Value,
    #[serde(default)]
    adoptable: Vec<String>,
    story: Vec<Value>,
    #[serde(default)]
    registers: bool,
    hears: Option<bool>,
}

/// The tenant's provider: which service it says that it is, with its server at `at`.
fn spec(service: &str, at: &str, platform: &str) -> Value {
    let token = json!({"name": "spoof", "key": "token"});
    match service {
        // The platform's address, and an admin API of the tenant's own.
        "front" => json!({"bundled": {"url": platform, "admin": {"url": at, "tokenSecretRef": token}}}),
        "bundled" => json!({"bundled": {"url": at, "admin": {"url": at, "tokenSecretRef": token}}}),
        "hydra" => {
            json!({"hydra": {"url": at, "admin": {"url": format!("{at}/h"), "tokenSecretRef": token}}})
        }
        "registration" => json!({"registration": {"issuer": at, "initialAccessTokenSecretRef": token}}),
        other => panic!("no service is called {other}"),
    }
}

struct Attempt {
    case: Case,
    title: String,
    name: String,
    service: String,
}

fn attempts(words: &[(&'static str, String)]) -> Vec<Attempt> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/hostile");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let mut all: Vec<Attempt> = Vec::new();
    let mut titles = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a file of the corpus");
        let yaml: Vec<Value> =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for raw in yaml {
            let case: Case =
                serde_json::from_value(fill(&raw, words)).unwrap_or_else(|e| panic!("{e}: {raw}"));
            assert!(titles.insert(case.case.clone()), "twice: {}", case.case);
            for service in &case.on {
                let name = format!("spoof-{}", all.len() + 1);
                let title = format!("{name} ({service}): {}", case.case);
                all.push(Attempt { case: case.clone(), title, name, service: service.clone() });
            }
        }
    }
    all
}

/// The condition Ready of a link once its generation was looked at.
async fn shows(scene: &Scene<'_>, attempt: &Attempt, reason: &str) {
    let links = scene.stage.links(scene.tenant());
    eventually(SOON, format!("{}: {reason}", attempt.title), async || {
        let link = links.get(&attempt.name).await.map_err(|e| e.to_string())?;
        let object = serde_json::to_value(&link).map_err(|e| e.to_string())?;
        let current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
        let is = condition(&object["status"], "Ready").is_some_and(|c| c["reason"] == reason);
        if current && is { Ok(()) } else { Err(object["status"].to_string()) }
    })
    .await;
}

/// Whether a secret opens a client at the platform's provider.
async fn opens(scene: &Scene<'_>, id: &str, secret: &str) -> bool {
    let request = http().post(format!("{}/oauth2/revoke", scene.stage.provider_url));
    let request = request.basic_auth(id, Some(secret)).form(&[("token", "none")]);
    request.send().await.expect("the platform's provider answers").status() == 200
}

/// What must hold whatever the tenant's server does; says which clients of the link the platform's provider has.
async fn holds(scene: &Scene<'_>, attempt: &Attempt, spoof: &Spoof) -> Vec<String> {
    let mine = format!("{}.{}.", scene.tenant(), attempt.name);
    let clients = scene.stage.clients().await;
    let heard: BTreeSet<String> = spoof.heard().into_iter().filter(|s| !s.is_empty()).collect();
    let others = format!("{}.spoof-", scene.tenant());
    let worth = |id: &&String| id.starts_with(&mine) || !id.starts_with(&others);
    for id in clients.iter().filter(worth) {
        for secret in &heard {
            assert!(!opens(scene, id, secret).await, "{}: it heard what opens {id}", attempt.title);
        }
    }
    clients.into_iter().filter(|id| id.starts_with(&mine)).collect()
}

/// The lies that a case tells, beside those that its service lives by.
fn lies(scene: &Scene<'_>, service: &str, told: &Value) -> Lies {
    let issuer = if service == "front" { json!({"issuer": scene.stage.provider_url}) } else { json!({}) };
    let mut all = json!({"metadata": issuer});
    if !told.is_null() {
        merge(&mut all, told.clone());
    }
    serde_json::from_value(all).expect("lies")
}

async fn tell(scene: &Scene<'_>, attempt: &Attempt, spoof: &Spoof) {
    let Attempt { case, name, .. } = attempt;
    let (stage, tenant) = (&scene.stage, scene.tenant());
    let (mut made, mut id) = (false, String::new());
    for step in &case.story {
        let text = step.as_str().unwrap_or_default();
        let provider = match text {
            "own" => Some(json!({"kind": "LinkProvider", "name": name})),
            "platform" => Some(json!({"kind": "ClusterLinkProvider", "name": stage.provider_name})),
            "narrow" => Some(json!({"kind": "ClusterLinkProvider", "name": "narrow"})),
            _ => None,
        };
        match (provider, text.strip_prefix("shows ")) {
            (Some(provider), _) if !made => {
                let mut link = machine(name, json!({"providerRef": provider}));
                if !case.link.is_null() {
                    merge(&mut link["spec"], case.link.clone());
                }
                scene.apply(tenant, &link).await.ok();
                made = true;
            }
            (Some(provider), _) => {
                patch_link(stage, tenant, name, json!({"spec": {"providerRef": provider}})).await;
            }
            (None, Some(reason)) => shows(scene, attempt, reason).await,
            (None, None) if text == "remember" => {
                id = stage.data(tenant, &format!("{name}-oauth")).await["client-id"].clone();
            }
            (None, None) if text == "delete" => {
                stage.delete(tenant, name).await;
                made = false;
            }
            (None, None) => {
                let words = [("$ID", id.clone())];
                let step = fill(step, &words);
                if let Some(lies) = step.get("lie") {
                    spoof.lie(self::lies(scene, &attempt.service, lies));
                } else if let Some(patch) = step.get("patch") {
                    patch_link(stage, tenant, name, json!({"spec": patch})).await;
                } else {
                    panic!("{}: no step is called {step}", attempt.title);
                }
            }
        }
    }
}

async fn run(scene: &Scene<'_>, attempt: &Attempt) {
    let Attempt { case, name, service, title } = attempt;
    let (stage, tenant) = (&scene.stage, scene.tenant());
    let spoof = Spoof::start().await;
    spoof.lie(lies(scene, service, &case.lies));
    let mut provider = spec(service, &spoof.url, &stage.provider_url);
    provider["adoptable"] = json!(case.adoptable);
    let provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider",
        "metadata": {"name": name, "labels": {"corpus": "yes"}}, "spec": provider,
    });
    scene.apply(tenant, &provider).await.ok();
    tell(scene, attempt, &spoof).await;
    let has = holds(scene, attempt, &spoof).await;
    assert_eq!(has.len(), usize::from(case.registers), "{title}: {has:?}");
    if case.registers {
        let data = stage.data(tenant, &format!("{name}-oauth")).await;
        assert!(authenticates(stage, &data).await, "{title}");
    }
    if let Some(hears) = case.hears {
        let token: BTreeSet<String> = ["guess".to_owned()].into();
        let secrets = spoof.heard().into_iter().any(|s| !token.contains(&s));
        assert_eq!(secrets, hears, "{title}: {:?}", spoof.heard());
    }
    assert!(spoof.requests() > 0, "{title}: it wasn't even asked");

    let _ = stage.links(tenant).delete(name, &DeleteParams::default()).await;
    // A server that lies may keep a deletion waiting, and only its own.
    let force = json!({"metadata": {"annotations": {"applink-operator.io/force-delete": "true"}}});
    if stage.links(tenant).get_opt(name).await.expect("an answer").is_some() {
        let waits = eventually_gone(scene, name).await;
        if !waits {
            patch_link(stage, tenant, name, force).await;
        }
        stage.gone(tenant, name).await;
    }
    let left = holds(scene, attempt, &spoof).await;
    assert!(left.is_empty(), "{title}: after the link's end: {left:?}");
    let args = ["delete", "linkprovider", name, "-n", tenant, "--timeout=120s"];
    stage.plane.kubectl(&args).await.ok();
}

/// Whether a link's deletion ends, or says that it waits.
async fn eventually_gone(scene: &Scene<'_>, name: &str) -> bool {
    let links = scene.stage.links(scene.tenant());
    eventually(SOON, format!("{name} gone, or a reason why not"), async || {
        let Some(link) = links.get_opt(name).await.map_err(|e| e.to_string())? else { return Ok(true) };
        let status = serde_json::to_value(link.status).map_err(|e| e.to_string())?;
        let waits = condition(&status, "Ready")
            .is_some_and(|c| c["message"].as_str().is_some_and(|m| m.starts_with("deletion waits")));
        if waits { Ok(false) } else { Err(status.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_owns_the_provider_s_server_gets_nothing_but_its_own() {
    let plane = plane().await;
    let mut scene = Scene::set(&plane).await;
    scene.furnish().await;
    scene.stage.put_secret(scene.tenant(), "spoof", &[("token", "guess")]).await;
    let scene = scene;
    at_rest(&scene.stage).await;
    let before = scene.everything().await;
    let attempts = attempts(&scene.words);
    let tried = futures::stream::iter(&attempts).map(async |a| {
        // All that fail are told, not the first one alone.
        std::panic::AssertUnwindSafe(run(&scene, a)).catch_unwind().await.err().map(|_| a.title.clone())
    });
    let failed: Vec<String> = tried.buffer_unordered(8).filter_map(async |failed| failed).collect().await;
    assert!(failed.is_empty(), "{} attempts went otherwise:\n{}", failed.len(), failed.join("\n"));
    let orphans = format!("Secret {}/applink-orphans", scene.stage.system);
    let old: BTreeSet<_> = before.iter().map(|(what, _)| what.clone()).collect();
    // The garbage collector takes its time with the Secrets.
    let now = eventually(SOON, "nothing left behind", async || {
        let now: BTreeMap<_, _> = scene.everything().await.into_iter().collect();
        let new: Vec<_> = now.keys().filter(|w| !old.contains(*w) && !w.starts_with(&orphans)).collect();
        if new.is_empty() { Ok(now) } else { Err(format!("{new:?}")) }
    })
    .await;
    for (what, text) in &before {
        assert_eq!(now.get(what), Some(text), "{what} isn't what it was");
    }
    let services: BTreeSet<_> = attempts.iter().map(|a| a.service.as_str()).collect();
    eprintln!(
        "tenancy: {} attempts by tenants that own the server, of {} kinds; 0 got through",
        attempts.len(),
        services.len()
    );
    assert!(attempts.len() >= 60, "{}", attempts.len());
}
