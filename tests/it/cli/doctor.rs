//! `applink doctor`: each hop, as it is and broken.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{binary, json_of, machine, user, with};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

/// What the checks of a name came to.
fn results(report: &Value, check: &str) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .filter(|c| c["check"] == check)
        .map(|c| c["result"].as_str().expect("a word").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hop_of_a_working_link_is_ok_and_each_broken_one_is_found() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let (team, admin) = (stage.team().to_owned(), plane.kubeconfig());
    stage.apply_object(&team, &machine("ci", json!({}))).await;
    stage.ready(&team, "ci").await;
    let system = stage.system.clone();
    let ask = async |name: &str| {
        with(admin, &["doctor", name, "-n", &team, "--operator-namespace", &system, "-o", "json"]).await
    };

    stage.operator.report_ready(false).await;
    eventually(SOON, "a Deployment without a Pod that is ready", async || {
        let said = ask("ci").await;
        let found = results(&json_of(&said), "operator");
        if said.code == Some(1) && found == ["fail"] { Ok(()) } else { Err(said.stdout) }
    })
    .await;
    stage.operator.report_ready(true).await;
    let fine = eventually(SOON, "a doctor who finds nothing", async || {
        let said = ask("ci").await;
        if said.code == Some(0) { Ok(said) } else { Err(format!("{said:?}")) }
    })
    .await;
    let report = json_of(&fine);
    for (check, wanted) in [
        ("api-server", vec!["ok"]),
        ("crds", vec!["ok"; 3]),
        ("rights", vec!["ok"]),
        ("operator", vec!["ok"]),
        ("lease", vec!["ok"]),
        ("provider", vec!["ok"]),
        ("metadata", vec!["ok"]),
        ("link", vec!["ok"]),
        ("secret", vec!["ok"]),
        ("credentials", vec!["ok"]),
    ] {
        assert_eq!(results(&report, check), wanted, "{check}: {}", fine.stdout);
    }
    let secret = stage.data(&team, "ci-oauth").await["client-secret"].clone();
    assert!(!fine.stdout.contains(&secret) && !fine.stderr.contains(&secret));
    let people = with(admin, &["doctor", "ci", "-n", &team, "--operator-namespace", &system]).await;
    assert!(people.stdout.ends_with("12 ok, 0 warn, 0 failed, 0 skipped\n"), "{}", people.stdout);
    assert!(!people.stdout.contains('\x1b') && !people.stdout.contains(&secret), "{}", people.stdout);

    // A wrong secret in the Secret, while nobody is there to put it right.
    stage.operator.kill();
    let wrong = json!({"stringData": {"client-secret": "canary-wrong"}});
    stage
        .secrets(&team)
        .patch("ci-oauth", &PatchParams::default(), &Patch::Merge(&wrong))
        .await
        .expect("a patch");
    let said = ask("ci").await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(results(&json_of(&said), "credentials"), ["fail"], "{}", said.stdout);
    assert!(!said.stdout.contains("canary") && !said.stderr.contains("canary"));

    // The lease ends with its holder.
    eventually(SOON, "an ended lease", async || {
        let said = ask("ci").await;
        if results(&json_of(&said), "lease") == ["fail"] { Ok(()) } else { Err(said.stdout) }
    })
    .await;

    // The Secret gone.
    stage.secrets(&team).delete("ci-oauth", &kube::api::DeleteParams::default()).await.expect("deleted");
    assert_eq!(results(&json_of(&ask("ci").await), "secret"), ["fail"]);

    // The provider gone: it may be meant for the inside alone.
    stage.provider.kill();
    let said = ask("ci").await;
    assert_eq!(results(&json_of(&said), "metadata"), ["warn"], "{}", said.stdout);

    // A tenant with few rights still gets an answer, and is told which rights it lacks.
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks", "linkproviders"], "verbs": ["get", "list"]}]);
    let tenant = user(plane, &team, rules).await;
    let said = with(&tenant, &["doctor", "ci", "-o", "json"]).await;
    let report = json_of(&said);
    assert_eq!(
        (results(&report, "operator"), results(&report, "secret")),
        (vec!["skipped".to_owned()], vec!["skipped".to_owned()])
    );
    assert!(results(&report, "rights").contains(&"warn".to_owned()), "{}", said.stdout);
    assert_eq!(results(&report, "crds"), ["ok"; 3]);
}
