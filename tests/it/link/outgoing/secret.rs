//! The Secret of an outgoing link: as the user wants it, and put right when somebody changes it.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{access, is_active, issued, ready_machine, ready_person};
use crate::link::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, text};
use crate::support::wait::{always, eventually};

async fn patch(stage: &Stage<'_>, name: &str, patch: Value) {
    let secrets = stage.secrets(stage.team());
    secrets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patch");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_as_the_user_wants_it() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let secret = json!({"spec": {"outgoing": {"secret": {
        "name": "custom", "type": "servicebinding.io/oauth2",
        "keys": {"accessToken": "TOKEN", "expiresAt": "UNTIL"},
        "labels": {"team": "a"}, "annotations": {"note": "ours"},
        "template": {".env": "TOKEN={{ accessToken }}\nTYPE={{ tokenType }}\n", "j": "{{ scope | json }}"},
    }}}});
    let id = ready_machine(&stage, "a", secret).await;
    let found = stage.secrets(team).get("custom").await.expect("the Secret");
    let data = text(&found);
    let keys: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, [".env", "TOKEN", "UNTIL", "j", "provider", "scope", "token-type", "type"]);
    assert_eq!(data[".env"], format!("TOKEN={}\nTYPE=Bearer\n", data["TOKEN"]));
    assert_eq!((data["j"].as_str(), data["scope"].as_str()), ("\"REPO_READ\"", "REPO_READ"));
    assert_eq!((data["type"].as_str(), data["provider"].as_str()), ("oauth2", "custom"));
    assert_eq!(found.type_.as_deref(), Some("servicebinding.io/oauth2"));
    assert_eq!((found.labels()["team"].as_str(), found.annotations()["note"].as_str()), ("a", "ours"));
    assert!(is_active(&stage, &id, &data["TOKEN"]).await);
    assert!(stage.secrets(team).get_opt("a-token").await.expect("asked").is_none());

    // Another label, one template less: the same token, and what we wrote and isn't wanted goes.
    let asked = issued(&stage).await;
    let links = stage.links(team);
    let change = json!({"spec": {"outgoing": {"secret": {"labels": {"team": null, "tier": "b"}, "template": {"j": null}}}}});
    links.patch("a", &PatchParams::default(), &Patch::Merge(change)).await.expect("patch");
    eventually(SOON, "the new shape", async || {
        let found = stage.secrets(team).get("custom").await.map_err(|e| e.to_string())?;
        let is = found.labels().get("tier").is_some_and(|t| t == "b")
            && !found.labels().contains_key("team")
            && !text(&found).contains_key("j");
        if is { Ok(()) } else { Err(format!("{:?} {:?}", found.labels(), text(&found).keys())) }
    })
    .await;
    assert_eq!(stage.data(team, "custom").await["TOKEN"], data["TOKEN"]);
    assert_eq!(issued(&stage).await, asked, "no token is asked for");

    // Another name: the Secret moves.
    let change = json!({"spec": {"outgoing": {"secret": {"name": "moved"}}}});
    links.patch("a", &PatchParams::default(), &Patch::Merge(change)).await.expect("patch");
    eventually(SOON, "the old Secret gone", async || {
        stage.secrets(team).get_opt("custom").await.expect("asked").is_none()
    })
    .await;
    stage.ready(team, "a").await;
    assert!(is_active(&stage, &id, &stage.data(team, "moved").await["TOKEN"]).await);
    // No outgoing part any more: its Secret goes.
    let change =
        json!({"spec": {"outgoing": null, "incoming": {"oauth2": {"grantTypes": ["client_credentials"]}}}});
    links.patch("a", &PatchParams::default(), &Patch::Merge(change)).await.expect("patch");
    stage.ready(team, "a").await;
    eventually(SOON, "the token's Secret gone", async || {
        stage.secrets(team).get_opt("moved").await.expect("asked").is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_secret_is_undone() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let machine = ready_machine(&stage, "machine", json!({})).await;
    let (person, _) = ready_person(&stage, "person", json!({})).await;
    for (name, id) in [("machine", &machine), ("person", &person)] {
        let secret = format!("{name}-token");
        patch(
            &stage,
            &secret,
            json!({
                "stringData": {"theirs": "stays"},
                "metadata": {"labels": {"theirs": "stays"}, "annotations": {"theirs": "stays"}},
            }),
        )
        .await;
        let right = async |what: &str| {
            eventually(SOON, format!("{name}: {what} is put right"), async || {
                let found = stage.secrets(team).get_opt(&secret).await.map_err(|e| e.to_string())?;
                let found = found.ok_or("no Secret")?;
                let data = text(&found);
                let token = data.get("access-token").ok_or("no token")?;
                let is = found
                    .labels()
                    .get("app.kubernetes.io/managed-by")
                    .is_some_and(|v| v == "applink-operator")
                    && found.owner_references().len() == 1
                    && data.get("token-type").is_some_and(|t| t == "Bearer")
                    && data.get("type").is_some_and(|t| t == "oauth2")
                    && is_active(&stage, id, token).await;
                if is { Ok(()) } else { Err(format!("{:?} {:?}", data.keys(), found.labels())) }
            })
            .await;
        };
        let theirs = async || {
            let found = stage.secrets(team).get(&secret).await.expect("the Secret");
            assert_eq!(text(&found).get("theirs").map(String::as_str), Some("stays"), "{name}");
            assert!(
                found.labels().contains_key("theirs") && found.annotations().contains_key("theirs"),
                "{name}"
            );
        };
        patch(&stage, &secret, json!({"stringData": {"access-token": "forged"}})).await;
        right("an edited token").await;
        theirs().await;
        patch(&stage, &secret, json!({"stringData": {"token-type": "mac", "type": "x"}})).await;
        right("an edited value").await;
        patch(&stage, &secret, json!({"data": {"access-token": null, "expires-at": null, "type": null}}))
            .await;
        right("a removed value").await;
        patch(&stage, &secret, json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}})).await;
        right("a removed label").await;
        patch(&stage, &secret, json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}})).await;
        right("another's label").await;
        patch(&stage, &secret, json!({"metadata": {"ownerReferences": null}})).await;
        right("a removed owner").await;
        theirs().await;
        patch(&stage, &secret, json!({"data": null})).await;
        right("an emptied Secret").await;
        stage.secrets(team).delete(&secret, &DeleteParams::default()).await.expect("delete");
        right("a deleted Secret").await;
        stage.ready(team, name).await;
        // And then there is peace.
        let asked = issued(&stage).await;
        always(Duration::from_secs(1), "peace", async || issued(&stage).await == asked).await;
    }
    // A rotating grant remembers its token: what was done to its Secret cost no request.
    let before = access(&stage, "person-token").await;
    let asked = issued(&stage).await;
    stage.secrets(team).delete("person-token", &DeleteParams::default()).await.expect("delete");
    eventually(SOON, "the same token", async || {
        let found = stage.secrets(team).get_opt("person-token").await.expect("asked");
        found.is_some_and(|s| text(&s).get("access-token") == Some(&before))
    })
    .await;
    assert_eq!(issued(&stage).await, asked);
}
