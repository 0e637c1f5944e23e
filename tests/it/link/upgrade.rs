//! What an earlier version made goes on after an upgrade: the same clients, the same Secrets, and no orphan. Only where a
//! tenant's provider shares type and address with another one does a client get a new secret, once.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kube::api::ListParams;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, client, machine, provider};
use super::watcher::{at_rest, events};
use crate::support::plane::{ControlPlane, Options};
use crate::support::programs::run;
use crate::support::spoof::{Lies, Spoof};
use crate::support::stage::{SOON, Stage};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

/// The earlier operator; `None` where the history doesn't reach back to it.
async fn before() -> Option<PathBuf> {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/upgrade/before.sh"));
    command.stderr(Stdio::inherit());
    let built = run(command).await;
    if built.code == Some(3) {
        return None;
    }
    Some(PathBuf::from(built.ok().trim()))
}

/// The earlier operator under today's arguments: it doesn't know the newer ones.
fn under_new_arguments(folder: &Path, old: &Path) -> PathBuf {
    const NEWER: &str = "--unregister-orphans-after=*|--min-refresh-interval=*|--token-requests-per-namespace=*|\
        --api-writes-per-second=*|--metrics-listen=*|--health-alone|--trusted-proxies=*";
    let script = folder.join("before");
    let text = format!(
        "#!/bin/bash\nargs=()\nfor a in \"$@\"; do case $a in {NEWER}) ;; *) args+=(\"$a\") ;; esac; done\nexec {} \"${{args[@]}}\"\n",
        old.display()
    );
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    script
}

fn outgoing(name: &str, server: &str, grant: Value) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI"},
            "outgoing": {"oauth2": {
                "server": {"custom": {"tokenEndpoint": server}}, "grant": grant,
                "client": {"secretRef": {"name": "client"}},
            }},
        },
    })
}

/// All Secrets of these namespaces, with their versions.
async fn secrets(stage: &Stage<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for namespace in [stage.team(), &stage.system] {
        for secret in stage.secrets(namespace).list(&ListParams::default()).await.expect("the Secrets") {
            let meta = secret.metadata;
            let name = format!("{namespace}/{}", meta.name.unwrap_or_default());
            all.insert(name, meta.resource_version.unwrap_or_default());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_made_goes_on() {
    let Some(old) = before().await else {
        eprintln!("upgrade: NOT TRIED: the history doesn't reach back to the earlier version");
        return;
    };
    let plane = ControlPlane::start(Options::default()).await;
    let mut stage = Stage::install(&plane, binary(), 1, json!({})).await;
    let script = under_new_arguments(plane.run_dir().path(), &old);
    stage.operator.run_binary(&script);
    stage.start().await;
    let team = stage.team().to_owned();
    let (spoof, server) = (Spoof::start().await, TokenServer::start().await);
    server.on("/token", |n, _| {
        Reply::json(
            200,
            &json!({"access_token": format!("token-{n}"), "token_type": "Bearer", "expires_in": 3600}),
        )
    });

    // A tenant's provider for the same service, and one for a service of its own.
    stage.put_secret(&team, "login", &[("token", &stage.admin_token().await)]).await;
    stage.apply_object(&team, &provider(&stage, "LinkProvider", "same", "login")).await;
    let own = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": "own"},
        "spec": {
            "hydra": {"url": spoof.url, "admin": {"url": format!("{}/h", spoof.url)}}, "adoptable": ["clicked"],
        },
    });
    spoof.lie(Lies { plant: vec![json!({"id": "clicked", "secret": "clicked-secret"})], ..Lies::default() });
    stage.apply_object(&team, &own).await;
    let picked = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": "picked"},
        "spec": {"registration": {"issuer": spoof.url}},
    });
    stage.apply_object(&team, &picked).await;
    for name in ["same", "own", "picked"] {
        stage.until_ready("LinkProvider", &team, name).await;
    }
    let at = |name: &str| json!({"providerRef": {"kind": "LinkProvider", "name": name}});
    stage.put_secret(&team, "clicked", &[("secret", "clicked-secret")]).await;
    stage.put_secret(&team, "client", &[("client-id", "a"), ("client-secret", "b")]).await;
    stage.put_secret(&team, "seed", &[("refresh-token", "seed")]).await;
    let mut adopted = at("own");
    adopted["incoming"] =
        json!({"adopt": {"clientId": "clicked", "secretRef": {"name": "clicked", "key": "secret"}}});
    let links = [
        machine("bundled", json!({})),
        machine("rotated", json!({"incoming": {"rotation": {"every": "24h", "overlap": "1h"}}})),
        machine("retained", json!({"deletionPolicy": "Retain"})),
        machine("suspended", json!({})),
        machine("same", at("same")),
        machine("own", at("own")),
        machine("adopted", adopted),
        machine("picked", at("picked")),
        outgoing("credentials", &server.url("/token"), json!({"clientCredentials": {}})),
        outgoing(
            "refresh",
            &server.url("/token"),
            json!({"refreshToken": {"secretRef": {"name": "seed", "key": "refresh-token"}}}),
        ),
    ];
    let names: Vec<String> =
        links.iter().map(|l| l["metadata"]["name"].as_str().expect("a name").to_owned()).collect();
    for link in &links {
        stage.apply_object(&team, link).await;
    }
    for name in &names {
        stage.ready(&team, name).await;
    }
    let patch = json!({"spec": {"suspend": true}});
    stage.patch("ApplicationLink", &team, "suspended", patch).await;
    at_rest(&stage).await;
    let ids = |all: &[applink_operator::api::ApplicationLink]| -> BTreeMap<String, String> {
        let id = |l: &applink_operator::api::ApplicationLink| {
            Some(l.status.as_ref()?.incoming.as_ref()?.client_id.clone())
        };
        all.iter().filter_map(|l| Some((l.metadata.name.clone()?, id(l)?))).collect()
    };
    let all_links = stage.links(&team);
    let list = async || all_links.list(&ListParams::default()).await.expect("links").items;
    let (ids_before, secrets_before, clients) =
        (ids(&list().await), secrets(&stage).await, stage.clients().await);
    let claim = |l: &applink_operator::api::ApplicationLink| {
        l.metadata.annotations.clone().unwrap_or_default().remove("applink-operator.io/registered-at")
    };
    assert!(
        list().await.iter().filter_map(claim).all(|c| !c.contains("proof")),
        "it isn't the earlier version"
    );
    let same = stage.data(&team, "same-oauth").await;

    stage.operator.stop().await;
    stage.operator.run_binary(binary());
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    eventually(SOON, "every claim proven", async || {
        let all = list().await;
        let bare: Vec<_> = all.iter().filter(|l| claim(l).is_some_and(|c| !c.contains("proof"))).collect();
        if bare.is_empty() { Ok(()) } else { Err(format!("{} aren't", bare.len())) }
    })
    .await;
    eventually(SOON, "the one that shares its address rotated", async || {
        let said = events(&stage, &team, "same", "Rotated").await;
        if said.len() == 1 { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    for name in names.iter().filter(|n| *n != "suspended") {
        stage.ready(&team, name).await;
    }
    at_rest(&stage).await;

    assert_eq!(ids(&list().await), ids_before);
    assert_eq!(stage.clients().await, clients);
    let now = stage.data(&team, "same-oauth").await;
    assert!(authenticates(&stage, &now).await && !authenticates(&stage, &same).await);
    let rotated = format!("{team}/same-oauth");
    let written: Vec<_> = secrets(&stage)
        .await
        .into_iter()
        .filter(|(name, version)| secrets_before.get(name) != Some(version) && *name != rotated)
        .collect();
    assert!(written.is_empty(), "{written:?}");
    // The record of what is retained says so from now on; of the others it says what it said.
    let deletion = async |name: &str| {
        let client = client(&stage, &ids_before[name]).await.expect("the client");
        client["owner"]["deletion"].clone()
    };
    assert!(deletion("retained").await.is_string() && deletion("bundled").await.is_null());
    let mut tool = Command::new(binary());
    tool.env_clear().env("HOME", "/nonexistent").env("KUBECONFIG", plane.kubeconfig());
    tool.args(["orphans", "--provider", &stage.provider_name, "--operator-namespace", &stage.system]);
    let orphans = run(tool).await;
    assert_eq!(orphans.code, Some(0), "{orphans:?}");

    // And all of it can go.
    for name in &names {
        stage.delete(&team, name).await;
    }
    let left = stage.clients().await;
    assert_eq!(left, [ids_before["retained"].clone()]);
}
