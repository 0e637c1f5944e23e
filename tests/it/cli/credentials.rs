//! `applink credentials`: what stands in a link's Secret, for who may read it.

use std::process::{Command, Stdio};

use serde_json::json;

use super::{binary, json_of, machine, user, with};
use crate::support::plane::ControlPlane;
use crate::support::programs::run;
use crate::support::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_the_secret_gets_working_credentials() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team();
    let renamed = json!({"incoming": {"secret": {"name": "mine", "keys": {"clientId": "ID", "clientSecret": "PASSWORD"}}}});
    stage.apply_object(team, &machine("ci", renamed)).await;
    stage.ready(team, "ci").await;
    let data = stage.data(team, "mine").await;

    let rules = json!([
        {"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"], "verbs": ["get"]},
    ]);
    let reader = user(plane, team, rules).await;
    let said = with(&reader, &["credentials", "ci", "-o", "json"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let found = json_of(&said);
    assert_eq!((&found["clientId"], &found["clientSecret"]), (&json!(data["ID"]), &json!(data["PASSWORD"])));
    assert_eq!(
        (&found["issuerUri"], &found["tokenEndpointAuthMethod"]),
        (&json!(stage.provider_url), &json!("client_secret_basic"))
    );
    let (status, _) = stage.token(&data["ID"], found["clientSecret"].as_str().expect("a secret"), None).await;
    assert_eq!(status, 200);

    let table = with(&reader, &["credentials", "ci"]).await.ok();
    assert!(
        table.lines().any(|l| l == format!("client-secret                {}", data["PASSWORD"])),
        "{table}"
    );
    // As a shell would use it.
    let mut shell = Command::new("sh");
    let line = format!(
        "eval \"$({} credentials ci -o env)\"; echo \"$CLIENT_ID $CLIENT_SECRET\"",
        binary().display()
    );
    shell
        .args(["-c", &line])
        .env_clear()
        .env("KUBECONFIG", &reader)
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null());
    assert_eq!(run(shell).await.ok(), format!("{} {}\n", data["ID"], data["PASSWORD"]));

    let outgoing = with(&reader, &["credentials", "ci", "--outgoing"]).await;
    assert_eq!((outgoing.code, outgoing.stdout.as_str()), (Some(2), ""), "{outgoing:?}");
    assert!(outgoing.stderr.contains("no outgoing part"), "{}", outgoing.stderr);

    // Who may see the link alone gets a way out and no secret.
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list"]}]);
    let onlooker = user(plane, team, rules).await;
    let denied = with(&onlooker, &["credentials", "ci"]).await;
    assert_eq!((denied.code, denied.stdout.as_str()), (Some(2), ""), "{denied:?}");
    let says = format!(
        "Secret {team}/mine: you may not read it; ask for the verb get on secrets in namespace {team}"
    );
    assert!(denied.stderr.contains(&says), "{}", denied.stderr);

    // A Secret by that name that isn't the link's isn't shown as if it were.
    stage
        .put_secret(team, "theirs-oauth", &[("client-id", "x"), ("client-secret", "canary-of-theirs")])
        .await;
    stage.apply_object(team, &machine("theirs", json!({}))).await;
    stage.condition(team, "theirs", "Ready", "False", "").await;
    let foreign = with(plane.kubeconfig(), &["credentials", "theirs", "-n", team]).await;
    assert_eq!((foreign.code, foreign.stdout.as_str()), (Some(2), ""), "{foreign:?}");
    assert!(
        foreign.stderr.contains("isn't this link's") && !foreign.stderr.contains("canary"),
        "{}",
        foreign.stderr
    );

    // Not there yet is another answer than may not.
    stage.apply_object(team, &machine("stray", json!({"providerRef": {"name": "nowhere"}}))).await;
    stage.condition(team, "stray", "Ready", "False", "ProviderNotFound").await;
    let absent = with(plane.kubeconfig(), &["credentials", "stray", "-n", team]).await;
    assert_eq!((absent.code, absent.stdout.as_str()), (Some(1), ""), "{absent:?}");
    assert!(
        absent.stderr.contains("isn't there yet") && absent.stderr.contains("ProviderNotFound"),
        "{}",
        absent.stderr
    );
}
