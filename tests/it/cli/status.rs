//! `applink status` on a cluster with an operator, and on one that is lied to.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{assert_harmless, binary, json_of, machine, user, with};
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, crds, unique};

fn row<'v>(report: &'v Value, name: &str) -> &'v Value {
    report["links"].as_array().expect("links").iter().find(|l| l["name"] == name).expect("the link")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_goes_from_provider_to_link_to_secret() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let (team, admin) = (stage.team(), plane.kubeconfig());
    stage.apply_object(team, &machine("good", json!({}))).await;
    stage.ready(team, "good").await;

    let one = with(admin, &["status", "good", "-n", team]).await;
    assert_eq!((one.code, one.stderr.as_str()), (Some(0), ""), "{one:?}");
    let lines: Vec<&str> = one.stdout.lines().collect();
    assert!(
        lines[0].starts_with(&format!("ClusterLinkProvider {}  Ready (", stage.provider_name)),
        "{}",
        one.stdout
    );
    assert!(lines[0].ends_with(&format!("bundled  {}", stage.provider_url)), "{}", one.stdout);
    assert!(lines[1].starts_with(&format!("└─ ApplicationLink {team}/good  Ready (")), "{}", one.stdout);
    assert!(lines[2].starts_with("   └─ Secret good-oauth  present  client "), "{}", one.stdout);
    assert!(
        lines[1].contains(" ago  CI  Incoming") || lines[1].contains("just now  CI  Incoming"),
        "{}",
        one.stdout
    );

    let stray = machine("stray", json!({"providerRef": {"name": "nowhere"}}));
    stage.apply_object(team, &stray).await;
    stage.condition(team, "stray", "Ready", "False", "ProviderNotFound").await;
    let all = with(admin, &["status", "-n", team, "-o", "json"]).await;
    assert_eq!((all.code, all.stderr.as_str()), (Some(1), ""), "{all:?}");
    let report = json_of(&all);
    assert_eq!(report["ready"], false);
    assert_eq!(
        (&row(&report, "good")["ready"], &row(&report, "stray")["reason"]),
        (&json!("True"), &json!("ProviderNotFound"))
    );
    assert_eq!(row(&report, "good")["incoming"]["secret"], json!({"name": "good-oauth", "state": "present"}));
    let text = with(admin, &["status", "-n", team]).await;
    assert!(
        text.stdout.contains("Not ready (ProviderNotFound)") && text.stdout.contains("nowhere doesn't exist"),
        "{text:?}"
    );
    let yaml = with(admin, &["status", "-n", team, "-o", "yaml"]).await;
    assert!(yaml.stdout.contains("ready: false"), "{yaml:?}");
    let everywhere = json_of(&with(admin, &["status", "-A", "-o", "json"]).await);
    // Another test's link may have the same name elsewhere.
    let links = everywhere["links"].as_array().expect("links");
    assert!(links.iter().any(|l| l["name"] == "good" && l["namespace"] == team), "{everywhere}");

    // The Secret's content is nobody's business here.
    let secret = stage.data(team, "good-oauth").await["client-secret"].clone();
    for output in [&one, &all, &text, &yaml] {
        assert!(!output.stdout.contains(&secret) && !output.stderr.contains(&secret));
    }

    // A tenant who sees neither the cluster's providers nor Secrets still sees their links.
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks", "linkproviders"], "verbs": ["get", "list"]}]);
    let tenant = user(plane, team, rules).await;
    let seen = with(&tenant, &["status", "good"]).await;
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stderr.contains("warning: ClusterLinkProviders: you aren't allowed to"), "{}", seen.stderr);
    assert!(
        seen.stdout.contains("(not visible to you, or gone)")
            && seen.stdout.contains("Secret good-oauth  unknown"),
        "{}",
        seen.stdout
    );
    let denied = with(&tenant, &["status", "-A"]).await;
    assert_eq!((denied.code, denied.stdout.as_str()), (Some(2), ""), "{denied:?}");
    let empty = with(admin, &["status", "-n", &plane.namespace("empty").await]).await;
    assert!(empty.stderr.contains("; -A looks in all namespaces"), "{empty:?}");
    let missing = with(admin, &["status", "missing", "-n", team]).await;
    assert_eq!(missing.code, Some(2));
    assert!(missing.stderr.contains("doesn't exist"), "{}", missing.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_words_in_a_link_don_t_reach_the_terminal() {
    let plane = ControlPlane::shared().await;
    crds(plane).await;
    let namespace = plane.namespace("status").await;
    // What the CRD lets through: a control character of the upper half.
    let link = machine("evil", json!({"application": {"name": "CI\u{9b}31m"}}));
    let file = plane.run_dir().write(format!("status-{}.json", unique()), link.to_string());
    plane.kubectl(&["apply", "-n", &namespace, "-f", &file.to_string_lossy()]).await.ok();
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\nfake: line\u{9b}\u{202e}gnp";
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": evil, "message": evil, "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
    let status = json!({"status": {
        "observedGeneration": 1, "direction": "\u{1b}[31mIn",
        "incoming": {"clientId": evil, "serial": 1, "secretName": evil},
        "outgoing": {"secretName": evil, "expiresAt": evil},
        "conditions": [condition("Ready", "False"), condition("Registered", "False"), condition(evil, "True")],
    }});
    let api: kube::Api<applink_operator::api::ApplicationLink> =
        kube::Api::namespaced(plane.client(), &namespace);
    api.patch_status("evil", &PatchParams::default(), &Patch::Merge(&status)).await.expect("a status");
    for tool in ["status", "doctor"] {
        for format in ["table", "json", "yaml"] {
            let said = with(plane.kubeconfig(), &[tool, "evil", "-n", &namespace, "-o", format]).await;
            assert_eq!(said.code, Some(1), "{said:?}");
            assert_harmless(&said.stderr);
            if format == "table" {
                assert_harmless(&said.stdout);
                assert!(!said.stdout.lines().any(|l| l.starts_with("fake")), "{}", said.stdout);
            } else {
                assert!(!said.stdout.contains('\u{1b}'), "{}", said.stdout);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_can_t_be_asked_is_said_in_one_line() {
    let plane = ControlPlane::shared().await;
    let nobody = plane.run_dir().path().join(format!("nobody-{}.kubeconfig", unique()));
    plane.write_kubeconfig(&nobody, "default", &crate::support::access::Credential::Token("wrong"));
    let dead = plane.run_dir().path().join(format!("dead-{}.kubeconfig", unique()));
    let url = format!("https://127.0.0.1:{}", crate::support::ports::free());
    plane.access().write_kubeconfig_at(
        &dead,
        &url,
        "default",
        &crate::support::access::Credential::Token("x"),
    );
    for tool in ["status", "doctor"] {
        for (config, says) in [(&nobody, "log in again"), (&dead, "can't be reached")] {
            let said = with(config, &[tool]).await;
            assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""), "{tool}: {said:?}");
            assert!(
                said.stderr.contains(says) && said.stderr.lines().count() == 1,
                "{tool}: {}",
                said.stderr
            );
        }
        let said = with(&nobody, &[tool, "--kubeconfig", "/does/not/exist"]).await;
        assert!(said.code == Some(2) && said.stderr.contains("there is no cluster to ask"), "{said:?}");
        let said = with(&nobody, &[tool, "--context", "other"]).await;
        assert!(said.code == Some(2) && said.stderr.contains("other"), "{said:?}");
    }
}
