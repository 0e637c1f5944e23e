//! `applink import`: from clients of the days of clicking to links, on both services that run here.

use reqwest::Method;
use serde_json::{Value, json};

use super::{binary, fed, machine, with};
use crate::support::hydra::Hydra;
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, http};

const SECRET: &str = "a secret that somebody knows";

async fn import(stage: &Stage<'_>, provider: &str) -> crate::support::programs::Output {
    let args = ["import", "--provider", provider, "-n", stage.team(), "--operator-namespace", &stage.system];
    with(stage.plane.kubeconfig(), &args).await
}

/// The entries of the note at the top, as YAML.
fn adoptable(yaml: &str) -> Value {
    let notes = yaml.split("---\n").next().expect("a head");
    let spec: Vec<&str> = notes.lines().skip_while(|l| *l != "# spec:").map(|l| &l[2..]).collect();
    serde_yaml::from_str(&spec.join("\n")).expect("the note is YAML")
}

/// Applies what was imported, with what the notes ask for, and waits until all are adopted.
async fn adopt(stage: &Stage<'_>, provider: &str, yaml: &str, links: &[(&str, &str)]) {
    let lint = fed(&["lint", "-"], yaml).await;
    assert_eq!(lint.code, Some(0), "{}", lint.stdout);
    stage.patch("ClusterLinkProvider", "", provider, adoptable(yaml)).await;
    for (link, _) in links {
        stage.put_secret(stage.team(), &format!("{link}-adopted"), &[("client-secret", SECRET)]).await;
    }
    stage.apply(stage.team(), yaml).await.ok();
    for (link, id) in links {
        stage.registered(stage.team(), link).await;
        let data = stage.data(stage.team(), &format!("{link}-oauth")).await;
        assert_eq!((data["client-id"].as_str(), data["client-secret"].as_str()), (*id, SECRET), "{link}");
    }
    let again = import(stage, provider).await;
    assert!(again.stdout.starts_with("# 0 clients"), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_bundled_provider_become_links() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    stage.apply_object(stage.team(), &machine("wiki", json!({}))).await;
    stage.ready(stage.team(), "wiki").await;
    let put = async |id: &str, name: &str, more: Value| {
        let mut body = json!({"name": name, "grantTypes": ["client_credentials"],
            "tokenEndpointAuthMethod": "client_secret_basic", "secret": SECRET});
        crate::support::stage::merge(&mut body, more);
        let (status, said) = stage.admin(Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
        assert_eq!(status, 201, "{said}");
    };
    put("old-wiki", "Wiki", json!({"scopes": ["REPO_READ"]})).await;
    put(
        "old-ci",
        "CI (old): # \"quoted\" 📚",
        json!({"grantTypes": ["authorization_code", "refresh_token"],
        "redirectUris": ["https://ci.example.com/cb"], "tokenEndpointAuthMethod": "client_secret_post"}),
    )
    .await;
    let said = import(&stage, &stage.provider_name).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{said:?}");
    let yaml = &said.stdout;
    assert!(yaml.contains("put it into Secret wiki-2-adopted, key client-secret"), "{yaml}");
    assert!(!yaml.contains(SECRET), "{yaml}");
    adopt(&stage, &stage.provider_name, yaml, &[("wiki-2", "old-wiki"), ("ci-old-quoted", "old-ci")]).await;
    assert_eq!(stage.token("old-wiki", SECRET, Some("REPO_READ")).await.0, 200);
    assert_eq!(stage.clients().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_hydra_become_links_and_the_others_are_named() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let hydra = Hydra::start().await;
    let name = format!("hydra-{}", stage.system);
    stage.apply_object(&stage.system, &json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
        "metadata": {"name": name, "labels": {"applink-operator.io/operator-namespace": stage.system}},
        "spec": {"hydra": {"url": hydra.issuer(), "admin": {"url": hydra.admin_url()}},
                 "allow": {"namespaces": {"names": stage.teams}}},
    })).await;
    let make = async |id: &str, more: Value| {
        let mut body = json!({"client_id": id, "client_name": "Reports", "client_secret": SECRET, "scope": "REPO_READ",
            "grant_types": ["client_credentials"], "response_types": [], "token_endpoint_auth_method": "client_secret_basic"});
        crate::support::stage::merge(&mut body, more);
        let (status, said) = hydra.admin(Method::POST, "/admin/clients", Some(body)).await;
        assert_eq!(status, 201, "{said}");
    };
    make("reports", json!({})).await;
    make("strange", json!({"grant_types": ["implicit"]})).await;
    let said = import(&stage, &name).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains("client strange:") && said.stderr.contains("left out"), "{}", said.stderr);
    adopt(&stage, &name, &said.stdout, &[("reports", "reports")]).await;
    let answer = http()
        .post(format!("{}/oauth2/token", hydra.issuer()))
        .basic_auth("reports", Some(SECRET.replace(' ', "+")))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    // Only looked at.
    assert_eq!(hydra.admin(Method::GET, "/admin/clients/strange", None).await.0, 200);
}
