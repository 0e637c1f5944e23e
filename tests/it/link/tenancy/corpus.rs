//! The corpus, case by case.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::fixtures::{machine, patch_link};
use super::super::watcher::at_rest;
use super::scene::{Scene, plane};
use crate::support::stage::{condition, merge};
use crate::support::wait::{SOON, eventually};

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    case: String,
    link: Option<Value>,
    apply: Option<Value>,
    status: Option<Value>,
    metadata: Option<Value>,
    named: Option<String>,
    namespace: Option<String>,
    by: Option<String>,
    #[serde(default)]
    refused: Vec<String>,
    condition: Option<Wanted>,
    #[serde(default)]
    registers: bool,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    collected: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(rename = "type", default = "ready")]
    type_: String,
    #[serde(default = "no")]
    status: String,
    reason: String,
    #[serde(default)]
    says: Vec<String>,
}

fn ready() -> String {
    "Ready".to_owned()
}

fn no() -> String {
    "False".to_owned()
}

/// An attempt with its object.
struct Attempt {
    case: Case,
    file: String,
    namespace: String,
    object: Value,
}

impl Attempt {
    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    fn title(&self) -> String {
        format!("{} ({}): {}", self.file, self.name(), self.case.case)
    }
}

/// Every case of the corpus.
fn attempts(scene: &Scene<'_>) -> Vec<Attempt> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/tenancy");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    let mut all = Vec::new();
    let mut titles = BTreeSet::new();
    for path in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a file of the corpus");
        let yaml: Vec<Value> = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        for raw in yaml {
            let name = format!("case-{}", all.len() + 1);
            let mut words = scene.words.clone();
            words.push(("$NAME", name.clone()));
            let filled = fill(&raw, &words);
            let case: Case = serde_json::from_value(filled).unwrap_or_else(|e| panic!("{file}: {e}: {raw}"));
            assert!(titles.insert(case.case.clone()), "{file}: twice: {}", case.case);
            assert!(case.refused.is_empty() == case.condition.is_some(), "{file}: {}", case.case);
            let name = case.named.clone().unwrap_or(name);
            let mut object = match (&case.link, &case.apply, &case.status) {
                (Some(spec), None, None) => machine(&name, spec.clone()),
                (None, Some(object), None) => object.clone(),
                (None, None, Some(_)) => json!({"metadata": {"name": "neighbour"}}),
                _ => panic!("{file}: one of link, apply and status: {}", case.case),
            };
            merge(&mut object["metadata"], case.metadata.clone().unwrap_or_else(|| json!({})));
            merge(&mut object["metadata"], json!({"labels": {"corpus": "yes"}}));
            let namespace = case.namespace.clone().unwrap_or_else(|| scene.tenant().to_owned());
            all.push(Attempt { case, file: file.clone(), namespace, object });
        }
    }
    all
}

/// Puts what they stand for in the place of the words, in every text of a case.
pub(super) fn fill(value: &Value, words: &[(&str, String)]) -> Value {
    let text = |text: &String| words.iter().fold(text.clone(), |t, (word, is)| t.replace(word, is));
    match value {
        Value::String(s) => text(s).into(),
        Value::Array(all) => all.iter().map(|v| fill(v, words)).collect(),
        Value::Object(map) => {
            map.iter().map(|(k, v)| (text(k), fill(v, words))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

async fn try_it(scene: &Scene<'_>, attempt: &Attempt) -> Result<(), String> {
    let Attempt { case, namespace, object, .. } = attempt;
    let answer = if let Some(status) = &case.status {
        let patch = json!({"status": status}).to_string();
        let args = ["patch", "applicationlink", "neighbour", "-n", namespace, "--subresource=status"];
        scene.as_tenant(&[&args[..], &["--type=merge", "-p", &patch]].concat()).await
    } else if case.by.as_deref() == Some("admin") {
        scene.stage.apply(namespace, &object.to_string()).await
    } else {
        scene.apply(namespace, object).await
    };
    match (answer.is_ok(), case.refused.is_empty()) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("{}: taken", attempt.title())),
        (false, true) => Err(format!("{}: refused: {}", attempt.title(), answer.stderr)),
        (false, false) => match case.refused.iter().find(|part| !answer.stderr.contains(*part)) {
            None => Ok(()),
            Some(part) => Err(format!("{}: says nothing of {part:?}: {}", attempt.title(), answer.stderr)),
        },
    }
}

/// What isn't yet as the cases say.
async fn unmet(scene: &Scene<'_>, attempts: &[Attempt]) -> Vec<String> {
    let args = ["get", "applicationlinks,linkproviders", "-A", "-l", "corpus", "-o", "json"];
    let shown = scene.stage.plane.kubectl(&args).await;
    let Ok(list) = serde_json::from_str::<Value>(&shown.stdout) else { return vec![shown.stderr] };
    let key = |o: &Value| {
        let m = &o["metadata"];
        (o["kind"].to_string(), m["namespace"].to_string(), m["name"].to_string())
    };
    let found: BTreeMap<_, _> =
        list["items"].as_array().expect("items").iter().map(|o| (key(o), o)).collect();
    let mut unmet = Vec::new();
    for attempt in attempts {
        let Some(wanted) = &attempt.case.condition else { continue };
        let mut object = attempt.object.clone();
        object["metadata"]["namespace"] = json!(attempt.namespace);
        let Some(is) = found.get(&key(&object)) else {
            if !attempt.case.collected {
                unmet.push(format!("{}: isn't there", attempt.title()));
            }
            continue;
        };
        let met = is["status"]["observedGeneration"] == is["metadata"]["generation"]
            && condition(&is["status"], &wanted.type_).is_some_and(|c| {
                c["reason"] == wanted.reason
                    && c["status"] == wanted.status
                    && wanted.says.iter().all(|s| c["message"].as_str().is_some_and(|m| m.contains(s)))
            });
        if !met {
            unmet.push(format!("{}: {}", attempt.title(), is["status"]));
        }
    }
    unmet
}

/// All that was there is there and the same; gives back what is there beside it.
async fn unchanged(scene: &Scene<'_>, before: &[(String, String)], when: &str) -> BTreeSet<String> {
    let now: BTreeMap<_, _> = scene.everything().await.into_iter().collect();
    for (what, text) in before {
        assert_eq!(now.get(what), Some(text), "{when}: {what} isn't what it was");
    }
    let old: BTreeSet<_> = before.iter().map(|(what, _)| what.clone()).collect();
    now.into_keys().filter(|what| !old.contains(what)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reaches_what_is_not_theirs() {
    let plane = plane().await;
    let mut scene = Scene::set(&plane).await;
    scene.furnish().await;
    let scene = scene;
    let attempts = attempts(&scene);
    at_rest(&scene.stage).await;
    let before = scene.everything().await;

    let tried = futures::stream::iter(&attempts).map(|a| try_it(&scene, a)).buffer_unordered(4);
    let wrong: Vec<String> = tried.filter_map(async |r| r.err()).collect().await;
    assert!(wrong.is_empty(), "{} cases went otherwise:\n{}", wrong.len(), wrong.join("\n"));
    eventually(SOON, "every case's condition", async || {
        let left = unmet(&scene, &attempts).await;
        if left.is_empty() { Ok(()) } else { Err(format!("{} cases:\n{}", left.len(), left.join("\n"))) }
    })
    .await;

    // Only who may register has a client, and a Secret for it.
    let new = unchanged(&scene, &before, "after all attempts").await;
    let clients: Vec<_> = new.iter().filter_map(|w| w.strip_prefix("client ")).collect();
    let mut registering = 0;
    for attempt in &attempts {
        let id = format!("{}.{}.", attempt.namespace, attempt.name());
        let secret = format!("Secret {}/{}-oauth", attempt.namespace, attempt.name());
        let has = (clients.iter().filter(|c| c.starts_with(&id)).count(), new.contains(&secret));
        let wanted = usize::from(attempt.case.registers);
        assert_eq!(has, (wanted, attempt.case.registers), "{}", attempt.title());
        registering += wanted;
    }
    assert_eq!(clients.len(), registering, "{clients:?}");
    // And the operator keeps its own records, in its own namespace.
    let record = format!("Secret {}/applink-", scene.stage.system);
    let secrets = new.iter().filter(|w| w.starts_with("Secret ") && !w.starts_with(&record)).count();
    assert_eq!(secrets, registering, "{new:?}");
    for link in
        scene.stage.links(scene.tenant()).list(&kube::api::ListParams::default()).await.expect("links")
    {
        let request = link.status.and_then(|s| s.incoming?.last_request).unwrap_or_default();
        assert!(request.len() <= 128 && request.bytes().all(|b| b.is_ascii_graphic()), "{request}");
    }

    // All of it can go, and takes nothing along.
    for attempt in attempts.iter().filter(|a| a.case.force) {
        let force = json!({"metadata": {"annotations": {"applink-operator.io/force-delete": "true"}}});
        patch_link(&scene.stage, &attempt.namespace, attempt.name(), force).await;
    }
    for namespace in [scene.tenant(), &scene.stage.system] {
        let args = ["delete", "applicationlinks,linkproviders", "-n", namespace, "-l", "corpus=yes"];
        let args = [&args[..], &["--timeout=180s"]].concat();
        scene.stage.plane.kubectl(&args).await.ok();
    }
    eventually(SOON, "the clients gone", async || {
        let left = scene.stage.clients().await;
        let were = before.iter().filter(|(what, _)| what.starts_with("client ")).count();
        if left.len() == were { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let left = unchanged(&scene, &before, "after all was deleted").await;
    let grants = format!("Secret {}/applink-grant-", scene.stage.system);
    let left: Vec<_> =
        left.iter().filter(|w| w.starts_with(&grants) || w.starts_with("ApplicationLink")).collect();
    assert!(left.is_empty(), "{left:?}");
    let refused = attempts.iter().filter(|a| !a.case.refused.is_empty()).count();
    let vain =
        attempts.iter().filter(|a| a.case.condition.as_ref().is_some_and(|c| c.status == "True")).count();
    eprintln!(
        "tenancy: {} attempts: {refused} refused at apply, {} by a condition, {vain} without any effect; 0 got through",
        attempts.len(),
        attempts.len() - refused - vain
    );
}
