//! Whose a Secret is: two links that swap names, marks that somebody took off, and what opens a namespace or closes it.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{authenticates, machine};
use super::unwritable::{lift, policy};
use crate::support::bench::{Kind, Scopes, link, outside};
use crate::support::plane::{ControlPlane, Options};
use crate::support::stage::{SOON, Stage};
use crate::support::wait::{always, eventually};

fn named(name: &str, secret: &str) -> Value {
    let mut object = machine(name, json!({}));
    object["spec"]["incoming"]["secret"] = json!({"name": secret});
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn two_links_swap_their_secrets_names() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    outside(&stage).await;
    let team = stage.team();
    let mut token = link("out", Kind::Machine, Scopes::Wide, &stage.provider_url);
    token["spec"]["outgoing"]["secret"] = json!({"name": "z"});
    for object in [named("one", "x"), named("two", "y"), token.clone()] {
        stage.apply_object(team, &object).await;
    }
    for name in ["one", "two", "out"] {
        stage.ready(team, name).await;
    }
    let mut uids = Vec::new();
    for secret in ["x", "y", "z"] {
        uids.push(stage.secrets(team).get(secret).await.expect("the Secret").uid());
    }
    // All three go round, in one apply.
    token["spec"]["outgoing"]["secret"] = json!({"name": "x"});
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": [named("one", "y"), named("two", "z"), token]});
    stage.apply_object(team, &list).await;
    for (name, secret) in [("one", "y"), ("two", "z")] {
        eventually(SOON, format!("{secret} of {name}"), async || {
            let found = stage.secrets(team).get(secret).await.map_err(|e| e.to_string())?;
            let owners: Vec<_> = found.owner_references().iter().map(|o| o.name.clone()).collect();
            if owners == [name] { Ok(()) } else { Err(format!("{owners:?}")) }
        })
        .await;
        stage.ready(team, name).await;
        let data = stage.data(team, secret).await;
        assert!(!data.contains_key("access-token"), "{secret}: {:?}", data.keys());
        let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
        assert_eq!(status, 200, "{reply}");
    }
    stage.ready(team, "out").await;
    let data = stage.data(team, "x").await;
    assert!(data.contains_key("access-token") && !data.contains_key("client-secret"), "{:?}", data.keys());
    let mut now = Vec::new();
    for secret in ["x", "y", "z"] {
        now.push(stage.secrets(team).get(secret).await.expect("the Secret").uid());
    }
    assert_eq!(now, uids, "none was deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_whose_marks_are_gone_is_still_its_link_s() {
    let mut stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let long = format!("long-{}", "n".repeat(70));
    for (name, away) in [("short", false), (long.as_str(), false), (long.as_str(), true)] {
        stage.apply_object(&team, &named(name, "marked")).await;
        stage.ready(&team, name).await;
        let before = stage.data(&team, "marked").await;
        // As a backup brings it back, where the operator is away; else as somebody's hand takes them off.
        if away {
            stage.operator.stop().await;
        }
        let bare = json!({"metadata": {"labels": null, "ownerReferences": null}});
        stage.patch("Secret", &team, "marked", bare).await;
        if away {
            stage.operator.start().await;
            stage.operator.until_ready(SOON).await;
        }
        eventually(SOON, format!("{name}: its marks are back"), async || {
            let found = stage.secrets(&team).get("marked").await.map_err(|e| e.to_string())?;
            if found.owner_references().len() == 1 && !found.labels().is_empty() {
                Ok(())
            } else {
                Err("bare".to_owned())
            }
        })
        .await;
        stage.ready(&team, name).await;
        let now = stage.data(&team, "marked").await;
        assert_eq!(now["client-secret"], before["client-secret"]);
        assert!(authenticates(&stage, &now).await);
        stage.delete(&team, name).await;
        eventually(SOON, "the Secret to go with its link", async || {
            match stage.secrets(&team).get_opt("marked").await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

async fn label(stage: &Stage<'_>, value: Value) {
    let spaces: Api<Namespace> = Api::all(stage.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"example.com/partner": value}}}));
    spaces.patch(stage.team(), &PatchParams::default(), &patch).await.expect("label");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_opens_a_provider_and_closes_it() {
    // A resync would find it out too, and is far away.
    let stage =
        Stage::set(ControlPlane::shared().await, binary(), 1, json!({"operator": {"resync": "1h"}})).await;
    let team = stage.team();
    let allow = json!({"spec": {"allow": {"namespaces": {"all": null, "matchLabels": {"example.com/partner": "true"}}}}});
    stage.patch("ClusterLinkProvider", "", &stage.provider_name, allow).await;
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.condition(team, "ci", "Ready", "False", "NamespaceNotAllowed").await;
    label(&stage, json!("true")).await;
    stage.ready(team, "ci").await;
    let data = stage.data(team, "ci-oauth").await;
    label(&stage, Value::Null).await;
    stage.condition(team, "ci", "Ready", "False", "NamespaceNotAllowed").await;
    // Nothing is repaired there any more.
    stage.delete_client(&data["client-id"]).await;
    always(std::time::Duration::from_secs(3), "nothing is repaired", async || {
        if authenticates(&stage, &data).await { Err("it is back") } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_went_is_noticed_by_one_try_of_a_namespace() {
    let plane = ControlPlane::start(Options::default()).await;
    let stage = Stage::set(&plane, binary(), 1, json!({"operator": {"resync": "1h"}})).await;
    outside(&stage).await;
    let team = stage.team();
    policy(&stage, "no-secrets", "true", "the house says no").await;
    let names: Vec<String> = (0..6).map(|n| format!("link-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let object = if n % 2 == 0 {
            machine(name, json!({}))
        } else {
            link(name, Kind::Machine, Scopes::Wide, &stage.provider_url)
        };
        stage.apply_object(team, &object).await;
    }
    for name in &names {
        eventually(SOON, format!("{name} to be refused"), async || {
            let status = stage.links(team).get(name).await.map_err(|e| e.to_string())?.status;
            let said = status
                .iter()
                .flat_map(|s| &s.conditions)
                .find(|c| c.type_ == "Ready")
                .map(|c| c.reason.clone());
            let refused = ["Forbidden", "RefusedByApiServer", "SecretUnwritable"];
            if said.as_deref().is_some_and(|s| refused.contains(&s)) {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        })
        .await;
    }
    // Their own pauses are long by now.
    let mark = plane.audit_mark().await;
    let tries = async || {
        let writes = plane
            .audit_since(mark, |e| e.is_write() && e.object_ref.resource == "secrets" && e.is_in(team))
            .await;
        writes.into_iter().filter(|e| e.is_by(&stage.system, "applink-operator")).count()
    };
    eventually(SOON, "some tries", async || {
        let tries = tries().await;
        if tries >= 3 { Ok(()) } else { Err(tries) }
    })
    .await;
    lift(&stage, "no-secrets").await;
    for name in &names {
        stage.ready(team, name).await;
    }
}
