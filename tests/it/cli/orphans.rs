//! `applink orphans`: what a provider has of ours whose link is gone, and how it goes.

use reqwest::Method;
use serde_json::{Value, json};

use super::{binary, json_of, machine, with};
use crate::support::plane::ControlPlane;
use crate::support::stage::Stage;

/// The same installation's client, without a link: the link's finalizer is torn off while the
/// operator is away.
async fn orphan(stage: &Stage<'_>, name: &str) -> String {
    let team = stage.team().to_owned();
    let id = stage.data(&team, &format!("{name}-oauth")).await["client-id"].clone();
    stage.patch("ApplicationLink", &team, name, json!({"metadata": {"finalizers": null}})).await;
    stage.remove("ApplicationLink", &team, name).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_ours_and_has_no_link_goes_and_only_by_its_name() {
    let plane = ControlPlane::shared().await;
    let mut stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    for name in ["kept", "lost", "anew"] {
        stage.apply_object(&team, &machine(name, json!({}))).await;
        stage.ready(&team, name).await;
    }
    let kept = stage.data(&team, "kept-oauth").await["client-id"].clone();
    stage.operator.stop().await;
    let lost = orphan(&stage, "lost").await;
    let anew = orphan(&stage, "anew").await;
    stage.apply_object(&team, &machine("anew", json!({}))).await;
    // Of another installation, of nobody, and forged.
    let put = async |id: &str, owner: Value| {
        let mut body = json!({"name": id, "grantTypes": ["client_credentials"],
            "tokenEndpointAuthMethod": "client_secret_basic", "secret": "a secret that somebody knows"});
        if !owner.is_null() {
            body["owner"] = owner;
        }
        let (status, said) = stage.admin(Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
        assert_eq!(status, 201, "{said}");
    };
    let (_, genuine) = stage.admin(Method::GET, &format!("/admin/clients/{lost}"), None).await;
    let mut theirs = genuine["owner"].clone();
    theirs["installation"] = json!("somebody-elses");
    put("theirs", theirs).await;
    put("nobodys", Value::Null).await;
    // A genuine record under another identifier proves nothing.
    put("forged", genuine["owner"].clone()).await;

    let run = async |more: &[&str]| {
        let mut args =
            vec!["orphans", "--provider", &stage.provider_name, "--operator-namespace", &stage.system];
        args.extend(more);
        with(plane.kubeconfig(), &args).await
    };
    let said = run(&["-o", "json"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(1), ""), "{said:?}");
    let report = json_of(&said);
    let found: Vec<_> = report["orphans"]
        .as_array()
        .expect("orphans")
        .iter()
        .map(|o| (o["clientId"].as_str().expect("an id"), o["why"].as_str().expect("why")))
        .collect();
    assert_eq!(found, [(anew.as_str(), "its link was made anew"), (lost.as_str(), "its link is gone")]);
    let counts =
        |r: &Value| ["ours", "otherInstallations", "nobodys", "forged"].map(|k| r[k].as_i64().unwrap_or(-1));
    assert_eq!(counts(&report), [1, 1, 1, 1], "{report}");
    let table = run(&[]).await;
    assert!(
        table.stdout.contains("1 of other installations, 1 of nobody")
            && table.stdout.contains("1 with a mark"),
        "{}",
        table.stdout
    );

    // Nothing but an orphan, by its whole name.
    let refused = run(&[
        "--delete",
        &kept,
        "--delete",
        "theirs",
        "--delete",
        "nobodys",
        "--delete",
        "forged",
        "--delete",
        &lost[..9],
    ])
    .await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for says in [
        "its link is there",
        "belongs to another installation",
        "it is nobody's",
        "isn't genuine",
        "no client of this identifier",
    ] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    assert_eq!(stage.clients().await.len(), 6);
    let done = run(&["--delete", &lost, "-o", "json"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let left = stage.clients().await;
    assert!(left.len() == 5 && !left.contains(&lost), "{left:?}");
    // The operator binds the one that was made anew by itself.
    stage.operator.start().await;
    stage.ready(&team, "anew").await;
    let none = run(&[]).await;
    assert_eq!(none.code, Some(0), "{none:?}");
    assert!(none.stdout.contains("no orphans"), "{}", none.stdout);
}
