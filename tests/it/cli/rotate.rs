//! `applink rotate`: the tool's half. What the operator makes of it has tests of its own.

use applink_operator::api::ApplicationLink;
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::{binary, json_of, machine, user, with};
use crate::support::objects;
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, crds, merge};
use crate::support::wait::{SOON, eventually};

/// A namespace that no operator watches, with these links in it.
async fn desk(links: &[serde_json::Value]) -> (&'static ControlPlane, String) {
    let plane = ControlPlane::shared().await;
    crds(plane).await;
    let namespace = plane.namespace("rotate").await;
    for link in links {
        objects::apply(plane.access(), None, &namespace, &link.to_string()).await.ok();
    }
    (plane, namespace)
}

async fn annotation(plane: &ControlPlane, namespace: &str, name: &str, key: &str) -> String {
    let link = objects::get(plane.access(), "ApplicationLink", namespace, name).await.expect("it is there");
    let value = &link["metadata"]["annotations"][format!("applink-operator.io/{key}")];
    value.as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_by_an_annotation_and_waits_in_vain_for_nobody() {
    let (plane, namespace) = desk(&[machine("ci", json!({}))]).await;
    let admin = plane.kubeconfig();
    let asked = with(admin, &["rotate", "ci", "-n", &namespace, "--wait=false", "-o", "json"]).await;
    assert_eq!((asked.code, asked.stderr.as_str()), (Some(0), ""), "{asked:?}");
    let outcome = json_of(&asked);
    let request = outcome["request"].as_str().expect("a request").to_owned();
    assert_eq!(outcome["done"], false);
    assert!(
        request.parse::<Timestamp>().is_ok() && request.len() == "2026-11-22T10:00:00.000Z".len(),
        "{request}"
    );
    assert_eq!(annotation(plane, &namespace, "ci", "rotate").await, request);
    assert_eq!(annotation(plane, &namespace, "ci", "rotate-now").await, "");

    let late = with(admin, &["rotate", "ci", "-n", &namespace, "--now", "--timeout", "1s"]).await;
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(
        late.stdout.contains("no new client secret within 1s") && late.stdout.contains("NotObserved"),
        "{late:?}"
    );
    assert!(annotation(plane, &namespace, "ci", "rotate-now").await > request);
    assert_eq!(annotation(plane, &namespace, "ci", "rotate").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_a_secret_of_ours_is_refused_before_anything_is_written() {
    let outgoing = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": "out"},
        "spec": {"application": {"name": "CI"}, "outgoing": {"oauth2": {
            "server": {"custom": {"tokenEndpoint": "https://ci.example.com/token"}},
            "grant": {"clientCredentials": {}}, "client": {"secretRef": {"name": "client"}},
        }}},
    });
    let public = machine(
        "public",
        json!({"incoming": {"oauth2": {"grantTypes": ["authorization_code"],
            "redirectUris": ["https://a.example.com/"], "tokenEndpointAuthMethod": "none"}}}),
    );
    let asleep = machine("asleep", json!({"suspend": true}));
    let (plane, namespace) = desk(&[outgoing, public, asleep]).await;
    for (name, says) in [
        ("out", "no incoming part"),
        ("public", "a public one"),
        ("asleep", "suspended"),
        ("missing", "doesn't exist"),
    ] {
        let said = with(plane.kubeconfig(), &["rotate", name, "-n", &namespace]).await;
        assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
        assert!(said.stderr.contains(says), "{name}: {}", said.stderr);
        if name != "missing" {
            assert_eq!(annotation(plane, &namespace, name, "rotate").await, "", "{name}");
        }
    }
}

/// The status as an operator would leave it, of a link in two directions.
async fn says(plane: &ControlPlane, namespace: &str, [registered, authorized]: [bool; 2], more: Value) {
    let links: Api<ApplicationLink> = Api::namespaced(plane.client(), namespace);
    let generation = links.get("both").await.expect("the link").metadata.generation;
    let condition = |type_: &str, holds: bool, reason: &str| {
        json!({"type": type_, "status": if holds { "True" } else { "False" }, "reason": reason,
            "message": format!("what {reason} is"), "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let mut conditions = vec![
        condition("Registered", registered, if registered { "Registered" } else { "SecretConflict" }),
        condition("Authorized", authorized, if authorized { "Authorized" } else { "InvalidClient" }),
    ];
    if let Some(why) =
        [(registered, "SecretConflict"), (authorized, "InvalidClient")].iter().find(|(is, _)| !is)
    {
        conditions.extend([condition("Ready", false, why.1), condition("Stalled", true, why.1)]);
    } else {
        conditions.push(condition("Ready", true, "Connected"));
    }
    let mut status = json!({"observedGeneration": generation, "conditions": conditions});
    merge(&mut status, more);
    let status = json!({ "status": status });
    links.patch_status("both", &PatchParams::default(), &Patch::Merge(&status)).await.expect("a status");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_link_is_said_at_once_and_the_other_direction_is_in_nobody_s_way() {
    let both = machine(
        "both",
        json!({"outgoing": {"oauth2": {
            "server": {"custom": {"tokenEndpoint": "https://ci.example.com/token"}},
            "grant": {"clientCredentials": {}}, "client": {"secretRef": {"name": "client"}},
        }}}),
    );
    let (plane, namespace) = desk(&[both]).await;
    // Who waits for this would wait longer than the test does.
    let args = ["rotate", "both", "-n", namespace.as_str(), "--timeout", "1h"];
    let admin = plane.kubeconfig();
    says(plane, &namespace, [false, true], json!({})).await;
    let said = with(admin, &args).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(said.stderr.contains("(SecretConflict): what SecretConflict is"), "{said:?}");
    assert_eq!(annotation(plane, &namespace, "both", "rotate").await, "", "nothing was asked for");

    // While it waits: the operator finds what a person must mend.
    says(plane, &namespace, [true, true], json!({})).await;
    let (said, ()) = tokio::join!(with(admin, &args), async {
        asked(plane, &namespace, "").await;
        says(plane, &namespace, [false, true], json!({})).await;
    });
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("no new client secret (SecretConflict): what"), "{said:?}");

    // The other direction is stalled, and the secret is there.
    says(plane, &namespace, [true, false], json!({})).await;
    let before = annotation(plane, &namespace, "both", "rotate").await;
    let (said, ()) = tokio::join!(with(admin, &args), async {
        let request = asked(plane, &namespace, &before).await;
        let incoming =
            json!({"clientId": "c", "serial": 2, "secretName": "both-oauth", "lastRequest": request});
        says(plane, &namespace, [true, false], json!({ "incoming": incoming })).await;
    });
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("the client secret is new; Ready is False (InvalidClient)"), "{said:?}");
}

/// Waits for another request than `before`.
async fn asked(plane: &ControlPlane, namespace: &str, before: &str) -> String {
    eventually(SOON, "a request", async || {
        let request = annotation(plane, namespace, "both", "rotate").await;
        if request == before { Err("none yet") } else { Ok(request) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_write_the_link_is_told_so() {
    let (plane, namespace) = desk(&[machine("ci", json!({}))]).await;
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list"]}]);
    let reader = user(plane, &namespace, rules).await;
    let said = with(&reader, &["rotate", "ci"]).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{said:?}");
    assert!(
        said.stderr.contains("you aren't allowed to") && said.stderr.contains("patch"),
        "{}",
        said.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_answers_with_a_new_secret() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.ready(team, "ci").await;
    let before = stage.data(team, "ci-oauth").await;
    let said = with(plane.kubeconfig(), &["rotate", "ci", "-n", team, "-o", "json"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let outcome = json_of(&said);
    assert_eq!(
        (&outcome["done"], &outcome["ready"], &outcome["serial"]),
        (&json!(true), &json!("True"), &json!(2))
    );
    let after = stage.data(team, "ci-oauth").await;
    assert_ne!(before["client-secret"], after["client-secret"]);
    assert!(!said.stdout.contains(&after["client-secret"]));
    let opens = async |secret: &str| stage.token(&after["client-id"], secret, None).await.0;
    assert_eq!(opens(&after["client-secret"]).await, 200);
    let now = with(plane.kubeconfig(), &["rotate", "ci", "-n", team, "--now"]).await;
    assert_eq!(now.code, Some(0), "{now:?}");
    assert!(now.stdout.contains("the client secret is new"), "{}", now.stdout);
    assert_eq!(opens(&after["client-secret"]).await, 401);
    assert_eq!(opens(&stage.data(team, "ci-oauth").await["client-secret"]).await, 200);
}
