//! `applink rotate-key`: a new master key, all links moved to it, the old one gone.

use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::{binary, command, json_of, machine, with};
use crate::support::plane::ControlPlane;
use crate::support::programs::Output;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

const KEY: &str = "applink-operator-master-key";

async fn run(stage: &Stage<'_>, more: &[&str]) -> Output {
    let mut args = vec!["rotate-key", "--operator-namespace", &stage.system];
    args.extend(more);
    with(stage.plane.kubeconfig(), &args).await
}

/// The names of the keys, and the active one.
async fn ring(stage: &Stage<'_>) -> (Vec<String>, String) {
    let data = stage.data(&stage.system, KEY).await;
    let keys = data.keys().filter_map(|k| k.strip_prefix("key.")).map(str::to_owned).collect();
    (keys, data["active"].clone())
}

/// A plane of its own: the tool waits for the links of the whole cluster.
async fn stage(plane: &'static ControlPlane) -> Stage<'static> {
    let stage = Stage::set(plane, binary(), 2, json!({})).await;
    for team in &stage.teams {
        for name in ["a", "b"] {
            stage.apply_object(team, &machine(name, json!({}))).await;
        }
    }
    for team in &stage.teams {
        for name in ["a", "b"] {
            stage.ready(team, name).await;
        }
    }
    stage
}

#[tokio::test(flavor = "multi_thread")]
async fn all_links_move_with_an_overlap_and_the_old_key_goes() {
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(Default::default()).await));
    let mut stage = stage(plane).await;
    let team = stage.team().to_owned();
    let before = stage.data(&team, "a-oauth").await;
    let rehearsed = run(&stage, &["--dry-run"]).await;
    assert_eq!(rehearsed.code, Some(0), "{rehearsed:?}");
    assert!(
        rehearsed.stdout.contains("4 of 4 incoming links would get a new client secret"),
        "{}",
        rehearsed.stdout
    );
    assert_eq!(ring(&stage).await, (vec!["1".into()], "1".into()));

    // The tool dies once the key is there, while no operator is there to move a link.
    stage.operator.stop().await;
    let mut killed = command(["rotate-key", "--operator-namespace", &stage.system, "--finish"]);
    killed
        .env("KUBECONFIG", plane.kubeconfig())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let mut child = killed.spawn().expect("the tool");
    eventually(SOON, "a second key", async || ring(&stage).await.0.len() == 2).await;
    child.kill().expect("killed");
    child.wait().expect("reaped");
    let (keys, active) = ring(&stage).await;
    assert!(keys.len() == 2 && active.starts_with("2-"), "{keys:?} {active}");
    // Not all have moved: nothing is removed, and no third key is added.
    let early = run(&stage, &["--finish", "--timeout", "1s", "-o", "json"]).await;
    assert_eq!(early.code, Some(1), "{early:?}");
    let said = json_of(&early);
    assert_eq!((said["waiting"].as_array().map(Vec::len), &said["added"]), (Some(4), &Value::Null), "{said}");
    assert_eq!(ring(&stage).await, (keys.clone(), active.clone()));

    stage.operator.start().await;
    let moved = run(&stage, &["-o", "json"]).await;
    assert_eq!((moved.code, moved.stderr.as_str()), (Some(0), ""), "{moved:?}");
    let said = json_of(&moved);
    assert_eq!(
        (&said["moved"], &said["active"], &said["removed"]),
        (&json!(4), &json!(active), &json!([])),
        "{said}"
    );
    let after = stage.data(&team, "a-oauth").await;
    assert_ne!(before["client-secret"], after["client-secret"]);
    let opens = async |secret: &str| stage.token(&after["client-id"], secret, None).await.0;
    assert_eq!((opens(&before["client-secret"]).await, opens(&after["client-secret"]).await), (200, 200));

    let finished = run(&stage, &["--finish"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(
        finished.stdout.contains("the older keys are gone (1)")
            && finished.stdout.contains("back the Secret up"),
        "{}",
        finished.stdout
    );
    assert_eq!(ring(&stage).await, (vec![active.clone()], active));
    // With the shorter ring nothing is written.
    let versions = async || {
        let mut all = Vec::new();
        for team in &stage.teams {
            for name in ["a", "b"] {
                let link = stage.ready(team, name).await;
                let secret = stage.secrets(team).get(&format!("{name}-oauth")).await.expect("the Secret");
                all.push((link.resource_version(), secret.resource_version()));
            }
        }
        all
    };
    let rested = versions().await;
    let key = stage.data(&stage.system, KEY).await;
    let said = [&finished.stdout, &moved.stdout, &early.stdout, &rehearsed.stdout];
    assert!(!said.iter().any(|t| t.contains(&after["client-secret"])
        || key.iter().any(|(k, v)| k.starts_with("key.") && t.contains(v))));
    crate::support::wait::always(std::time::Duration::from_secs(2), "no writes", async || {
        versions().await == rested
    })
    .await;
    assert_eq!(opens(&after["client-secret"]).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_left_alone() {
    let plane = ControlPlane::shared().await;
    crate::support::stage::crds(plane).await;
    let system = plane.namespace("system").await;
    let args = ["rotate-key", "--operator-namespace", &system];
    let missing = with(plane.kubeconfig(), &args).await;
    assert_eq!((missing.code, missing.stdout.as_str()), (Some(2), ""), "{missing:?}");
    assert!(missing.stderr.contains("restore it from the backup"), "{}", missing.stderr);
}
