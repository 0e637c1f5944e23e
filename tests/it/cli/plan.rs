//! `applink plan`: what would change, and not one write.

use serde_json::{Value, json};

use super::{assert_harmless, binary, json_of, machine, user, with};
use crate::support::plane::ControlPlane;
use crate::support::programs::Output;
use crate::support::stage::{Stage, unique};

async fn plan(stage: &Stage<'_>, objects: &[Value], more: &[&str]) -> Output {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let file = stage.plane.run_dir().write(format!("plan-{}.json", unique()), list.to_string());
    let mut args = vec![
        "plan",
        file.to_str().expect("a path"),
        "-n",
        stage.team(),
        "--operator-namespace",
        &stage.system,
    ];
    args.extend(more);
    with(stage.plane.kubeconfig(), &args).await
}

fn effects(link: &Value) -> Vec<&str> {
    link["effects"]
        .as_array()
        .expect("effects")
        .iter()
        .map(|e| e["effect"].as_str().expect("a name"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_the_operator_would_do_and_does_nothing() {
    let plane = ControlPlane::shared().await;
    let mut stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    stage
        .apply_object(&team, &machine("old", json!({"incoming": {"oauth2": {"scopes": ["REPO_READ"]}}})))
        .await;
    stage.apply_object(&team, &machine("same", json!({}))).await;
    stage.ready(&team, "old").await;
    stage.ready(&team, "same").await;
    let credentials = stage.data(&team, "old-oauth").await;
    let consent = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"client-id": "by-hand", "other": "stays"},
        "metadata": {"name": "by-hand", "annotations": {"applink-operator.io/take-over-by": "heir"}},
    });
    stage.apply_object(&team, &consent).await;
    // Nobody but the tool is there to write.
    stage.operator.stop().await;
    let clients = stage.clients().await;
    let old = machine(
        "old",
        json!({"incoming": {"oauth2": {"scopes": ["REPO_READ", "REPO_WRITE"]},
        "secret": {"keys": {"clientSecret": "PASSWORD"}}}}),
    );
    let new = machine("new", json!({"incoming": {"oauth2": {"scopes": ["REPO_READ"]}}}));
    let same = machine("same", json!({}));

    let mark = plane.audit_mark().await;
    let none = plan(&stage, std::slice::from_ref(&same), &["-o", "json"]).await;
    assert_eq!((none.code, none.stderr.as_str()), (Some(0), ""), "{none:?}");
    assert_eq!(json_of(&none)["links"][0]["looked"], true, "{}", none.stdout);
    let said = plan(&stage, &[old.clone(), new.clone(), same.clone()], &["-o", "json"]).await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(2), ""), "{said:?}");
    let report = json_of(&said);
    let [a, b, c] = report["links"].as_array().expect("links").as_slice() else { panic!("{report}") };
    assert_eq!(
        (&a["action"], &b["action"], &c["action"]),
        (&json!("change"), &json!("create"), &json!("none"))
    );
    assert_eq!(effects(a), ["PutClient", "WriteSecret"], "{a}");
    assert!(
        a["effects"][0]["text"]
            .as_str()
            .is_some_and(|t| t.contains("scopes REPO_READ → REPO_READ, REPO_WRITE; its secret stays")),
        "{a}"
    );
    assert!(
        a["effects"][1]["text"].as_str().is_some_and(|t| t.contains("keys PASSWORD; without client-secret")),
        "{a}"
    );
    assert_eq!(effects(b), ["Claim", "PutClient", "WriteSecret"], "{b}");
    assert!(effects(c).is_empty(), "{c}");
    let people = plan(&stage, &[old.clone(), new.clone(), same.clone()], &[]).await;
    assert_eq!(people.code, Some(2), "{people:?}");
    assert_harmless(&people.stdout);
    assert!(
        people.stdout.contains("register client") && people.stdout.contains("1 new, 1 changed"),
        "{}",
        people.stdout
    );
    for out in [&said.stdout, &people.stdout] {
        assert!(!out.contains(&credentials["client-secret"]), "{out}");
    }
    // What drifted is found too, also of links that stand in no file.
    stage.admin(reqwest::Method::DELETE, &format!("/admin/clients/{}", credentials["client-id"]), None).await;
    let drift = plan(&stage, &[same], &["--all", "-o", "json"]).await;
    assert_eq!(drift.code, Some(2), "{drift:?}");
    let report = json_of(&drift);
    let of_old = report["links"].as_array().expect("links").iter().find(|l| l["name"] == "old").expect("old");
    assert_eq!(effects(of_old), ["PutClient"], "{of_old}");
    // A Secret that a link is to take over, whose values go.
    let heir = machine("heir", json!({"incoming": {"secret": {"name": "by-hand"}}}));
    let taken = plan(&stage, &[heir], &["-o", "json"]).await;
    let steps = json_of(&taken)["links"][0]["effects"].clone();
    let told = |s: &Value| {
        let text = s["text"].as_str().unwrap_or_default();
        text.starts_with("take over Secret by-hand: keys client-id")
            && text.contains("whose values are replaced")
    };
    assert!(steps.as_array().is_some_and(|all| all.iter().any(told)), "{taken:?}");
    // A spec that never becomes Ready, and one that the API server refuses.
    let nowhere = machine("nowhere", json!({"providerRef": {"name": "nothing-here"}}));
    let bad = machine("bad", json!({"incoming": {"oauth2": {"scopes": ["a b"]}}}));
    let failed = plan(&stage, &[nowhere, bad], &["-o", "json"]).await;
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let links = json_of(&failed)["links"].clone();
    assert_eq!(
        (&links[0]["problems"][0]["reason"], &links[1]["problems"][0]["reason"]),
        (&json!("ProviderNotFound"), &json!("Refused"))
    );

    let writes = plane
        .audit_since(mark, |e| {
            e.is_write()
                && e.user.username == "admin"
                && !e.request_uri.contains("dryRun=All")
                && e.is_in(&team)
        })
        .await;
    assert!(writes.is_empty(), "{writes:?}");
    assert_eq!(stage.clients().await.len(), clients.len() - 1);
    let links = stage.links(&team).list(&kube::api::ListParams::default()).await.expect("links");
    assert_eq!(links.items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_little_is_told_the_kubernetes_side() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let rules = json!([{"apiGroups": ["applink-operator.io"], "resources": ["applicationlinks"], "verbs": ["get", "list"]}]);
    let reader = user(plane, stage.team(), rules).await;
    let file = plane.run_dir().write(format!("plan-{}.json", unique()), machine("ci", json!({})).to_string());
    let said = with(
        &reader,
        &["plan", file.to_str().expect("a path"), "--operator-namespace", &stage.system, "-o", "json"],
    )
    .await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(2), ""), "{said:?}");
    let link = json_of(&said)["links"][0].clone();
    assert_eq!(
        (&link["action"], &link["checked"], &link["looked"]),
        (&json!("create"), &json!("locally"), &json!(false)),
        "{link}"
    );
    assert!(link["notLooked"].as_str().is_some_and(|t| t.contains("platform team's rights")), "{link}");

    // Of links that stay as they are, what the operator said of them; it isn't known to be still so.
    let team = stage.team();
    let stray = machine("stray", json!({"providerRef": {"name": "nothing-here"}}));
    for link in [&machine("good", json!({})), &stray] {
        stage.apply_object(team, link).await;
    }
    stage.ready(team, "good").await;
    stage.condition(team, "stray", "Ready", "False", "ProviderNotFound").await;
    let all = ["plan", "--all", "--operator-namespace", &stage.system];
    let said = with(&reader, &all).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stdout.contains("! ProviderNotFound: ")
            && said.stdout.contains("0 as they should be, 1 not looked at, 1 in trouble"),
        "{said:?}"
    );
    stage.delete(team, "stray").await;
    let said = with(&reader, &all).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.stdout.contains("0 as they should be, 1 not looked at, 0 in trouble"), "{said:?}");
}
