//! What happens between operator and server: refreshes, new requests, and what is given back.

use std::time::Duration;

use applink_operator::api::ApplicationLink;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    CLIENT_SECRET, access, another, client, credentials, introspect, is_active, issued, machine, person,
    put_client, ready_machine, ready_person, record, seed, with,
};
use crate::link::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition, text};
use crate::support::wait::{always, eventually};

async fn patch(stage: &Stage<'_>, name: &str, patch: Value) {
    let links = stage.links(stage.team());
    links.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("patch");
}

/// A token, when it was issued and when it ends, as one version of its Secret says it: the next one may be there a moment
/// later.
async fn token(stage: &Stage<'_>, name: &str) -> (String, jiff::Timestamp, jiff::Timestamp) {
    let secret = stage.secrets(stage.team()).get(&format!("{name}-token")).await.expect("the Secret");
    let time =
        |key: &str| secret.annotations()[&format!("applink-operator.io/{key}")].parse().expect("a time");
    (text(&secret)["access-token"].clone(), time("issued-at"), time("expires-at"))
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_kept_fresh() {
    let values = json!({"provider": {"accessTokenLifetime": "24s"}});
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, values).await;
    let team = stage.team();
    // By an issuer and by endpoints; with the schedule of its own, and with each that a user can set.
    let endpoints = json!({"spec": {"outgoing": {"oauth2": {"server": {"custom": {
        "issuer": null, "tokenEndpoint": format!("{}/oauth2/token", stage.provider_url),
    }}}}}});
    let before = json!({"spec": {"outgoing": {"refresh": {"before": "10s"}}}});
    let every = json!({"spec": {"outgoing": {"refresh": {"every": "10s"}}}});
    let a = ready_machine(&stage, "a", json!({})).await;
    ready_machine(&stage, "b", endpoints).await;
    ready_machine(&stage, "c", before).await;
    let (d, first) = ready_person(&stage, "d", every).await;
    for name in ["a", "b", "c", "d"] {
        let (old, _, old_end) = token(&stage, name).await;
        let (new, issued_at, expires_at) = eventually(SOON, format!("another token of {name}"), async || {
            Some(token(&stage, name).await).filter(|(now, ..)| *now != old)
        })
        .await;
        assert!(issued_at < old_end, "{name}: refreshed at {issued_at}, after the end at {old_end}");
        let said = introspect(&stage, if name == "d" { &d } else { &a }, CLIENT_SECRET, &new).await;
        if name == "a" || name == "d" {
            assert_eq!(said["active"], true, "{name}: {said}");
            assert_eq!(said["scope"], "REPO_READ", "{name}");
            assert_eq!(
                said["exp"].as_i64().expect("exp") - expires_at.as_second(),
                0,
                "{name}: the end that it says"
            );
        }
        eventually(SOON, format!("the status of {name} to say the end of its token"), async || {
            let link = stage.ready(team, name).await;
            let said = link.status.expect("status").outgoing.expect("outgoing").expires_at;
            let is = stage.data(team, &format!("{name}-token")).await["expires-at"].clone();
            if said.as_ref() == Some(&is) { Ok(()) } else { Err(format!("{said:?} and not {is}")) }
        })
        .await;
    }
    // The refresh token was rotated and is nowhere but in the record.
    let uid = stage.links(team).get("d").await.expect("d").uid().expect("uid");
    let kept = record(&stage, &uid).await.expect("a record");
    assert_ne!(kept["refreshToken"], json!(first));

    // Suspended: nothing is asked for any more, and once the token has ended the link says so.
    patch(&stage, "a", json!({"spec": {"suspend": true}})).await;
    stage.condition(team, "a", "Ready", "True", "Suspended").await;
    let last = access(&stage, "a-token").await;
    let link = stage.condition(team, "a", "Ready", "False", "TokenExpired").await;
    let status = serde_json::to_value(&link.status).expect("json");
    assert_eq!(condition(&status, "TokenFresh").expect("TokenFresh")["reason"], "TokenExpired");
    assert_eq!(condition(&status, "Stalled").expect("Stalled")["status"], "True");
    assert_eq!(access(&stage, "a-token").await, last);
    // Deletion runs all the same; going on does too.
    stage.delete(team, "a").await;
    patch(&stage, "b", json!({"spec": {"suspend": true}})).await;
    stage.condition(team, "b", "Ready", "False", "TokenExpired").await;
    patch(&stage, "b", json!({"spec": {"suspend": false}})).await;
    stage.ready(team, "b").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_token_was_asked_with_changes() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let id = ready_machine(&stage, "a", json!({})).await;
    let first = access(&stage, "a-token").await;

    // Other scopes: another token.
    patch(&stage, "a", json!({"spec": {"outgoing": {"oauth2": {"scopes": ["PUBLIC_REPOS"]}}}})).await;
    let second = another(&stage, "a", &first).await;
    assert_eq!(introspect(&stage, &id, CLIENT_SECRET, &second).await["scope"], "PUBLIC_REPOS");
    stage.ready(team, "a").await;

    // A scope that the client may not have is said, and the spec that asks for less is taken up.
    patch(&stage, "a", json!({"spec": {"outgoing": {"oauth2": {"scopes": ["SYSTEM_ADMIN"]}}}})).await;
    stage.condition(team, "a", "Ready", "False", "InvalidScope").await;
    patch(&stage, "a", json!({"spec": {"outgoing": {"oauth2": {"scopes": ["REPO_READ"]}}}})).await;
    stage.ready(team, "a").await;

    // A wrong client secret is said; the right one is taken up by the watch, long before a retry.
    credentials(&stage, "b", &client(&stage).await, "not-the-right-secret").await;
    stage.apply_object(team, &machine("b", &stage.provider_url)).await;
    stage.condition(team, "b", "Ready", "False", "InvalidClient").await;
    let id = client(&stage).await;
    credentials(&stage, "b", &id, CLIENT_SECRET).await;
    stage.ready(team, "b").await;
    assert!(is_active(&stage, &id, &access(&stage, "b-token").await).await);

    // The client's secret is changed at the server and in the Secret: another token.
    let old = access(&stage, "b-token").await;
    put_client(&stage, &id, "outgoing-client-secret-2").await;
    credentials(&stage, "b", &id, "outgoing-client-secret-2").await;
    another(&stage, "b", &old).await;

    // What a link needs may come later.
    stage.apply_object(team, &person("late", &stage.provider_url)).await;
    stage.condition(team, "late", "Ready", "False", "ClientSecretMissing").await;
    let late = client(&stage).await;
    credentials(&stage, "late", &late, CLIENT_SECRET).await;
    stage.condition(team, "late", "Ready", "False", "SeedMissing").await;
    let token = seed(&stage, &late).await;
    stage.put_secret(team, "late-seed", &[("token", &token)]).await;
    let link = stage.ready(team, "late").await;
    let uid = link.uid().expect("uid");

    // The same seed again isn't taken; another one is a new grant.
    let before = record(&stage, &uid).await.expect("a record");
    stage.put_secret(team, "late-seed", &[("token", &token), ("note", "touched")]).await;
    let asked = issued(&stage).await;
    always(Duration::from_secs(2), "the same seed gives no new grant", async || {
        issued(&stage).await == asked
    })
    .await;
    assert_eq!(record(&stage, &uid).await.expect("a record"), before);
    let old = access(&stage, "late-token").await;
    stage.put_secret(team, "late-seed", &[("token", &seed(&stage, &late).await)]).await;
    another(&stage, "late", &old).await;
    let after = record(&stage, &uid).await.expect("a record");
    assert_ne!(after["seedDigest"], before["seedDigest"]);

    // The seed's Secret may go once the grant is in hand.
    stage.secrets(team).delete("late-seed", &DeleteParams::default()).await.expect("delete");
    always(Duration::from_secs(1), "Ready without the seed", async || ready_now(&stage, "late").await).await;
}

async fn ready_now(stage: &Stage<'_>, name: &str) -> bool {
    let link = stage.links(stage.team()).get(name).await.expect("the link");
    let status = serde_json::to_value(&link.status).expect("json");
    condition(&status, "Ready").is_some_and(|c| c["status"] == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let retain = json!({"spec": {"deletionPolicy": "Retain"}});
    let machine_id = ready_machine(&stage, "machine", json!({})).await;
    let (person_id, _) = ready_person(&stage, "person", json!({})).await;
    let (kept_id, _) = ready_person(&stage, "kept", retain).await;
    let (hand_id, _) = ready_person(&stage, "hand", json!({})).await;
    let uid = async |name: &str| stage.links(team).get(name).await.expect("the link").uid().expect("uid");
    let (person_uid, kept_uid, hand_uid) = (uid("person").await, uid("kept").await, uid("hand").await);

    // A deletion revokes, removes the Secret, and then the record.
    for (name, id) in [("machine", &machine_id), ("person", &person_id)] {
        let token = access(&stage, &format!("{name}-token")).await;
        let grant = record(&stage, &uid(name).await).await;
        assert!(is_active(&stage, id, &token).await);
        stage.delete(team, name).await;
        assert!(!is_active(&stage, id, &token).await, "{name}: its token is revoked");
        if let Some(refresh) = grant.and_then(|g| g["refreshToken"].as_str().map(str::to_owned)) {
            assert!(!is_active(&stage, id, &refresh).await, "{name}: its grant is revoked");
        }
        eventually(SOON, "the Secret gone", async || {
            stage.secrets(team).get_opt(&format!("{name}-token")).await.expect("asked").is_none()
        })
        .await;
    }
    assert!(record(&stage, &person_uid).await.is_none());

    // Retain: the token works on, and nobody keeps it any more.
    let token = access(&stage, "kept-token").await;
    stage.delete(team, "kept").await;
    assert!(is_active(&stage, &kept_id, &token).await);
    let secret = stage.secrets(team).get("kept-token").await.expect("the Secret stays");
    assert!(secret.owner_references().is_empty(), "{:?}", secret.owner_references());
    assert!(!secret.labels().contains_key("app.kubernetes.io/managed-by"), "{:?}", secret.labels());
    assert!(record(&stage, &kept_uid).await.is_none());

    // Somebody takes the finalizer off by hand: the grant is revoked and removed all the same.
    let token = access(&stage, "hand-token").await;
    let links = stage.links(team);
    stage.operator.terminate();
    eventually(SOON, "the operator ends", async || !stage.operator.process().is_running()).await;
    links.delete("hand", &DeleteParams::default()).await.expect("delete");
    patch(&stage, "hand", json!({"metadata": {"finalizers": []}})).await;
    stage.gone(team, "hand").await;
    let mut stage = stage;
    stage.operator.start().await;
    eventually(SOON, "the grant of a link that is gone goes", async || {
        record(&stage, &hand_uid).await.is_none()
    })
    .await;
    assert!(!is_active(&stage, &hand_id, &token).await);

    // The same while the operator runs.
    let (id, _) = ready_person(&stage, "hand", json!({})).await;
    let hand_uid = stage.links(stage.team()).get("hand").await.expect("hand").uid().expect("uid");
    let token = access(&stage, "hand-token").await;
    patch(&stage, "hand", json!({"metadata": {"finalizers": []}})).await;
    let links: kube::Api<ApplicationLink> = stage.links(stage.team());
    let _ = links.delete("hand", &DeleteParams::default()).await;
    eventually(SOON, "the grant gone", async || record(&stage, &hand_uid).await.is_none()).await;
    assert!(!is_active(&stage, &id, &token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_asks_for_nothing_that_is_not_due() {
    let plane = ControlPlane::shared().await;
    let mut stage = Stage::set(plane, binary(), 1, json!({})).await;
    ready_machine(&stage, "a", json!({})).await;
    ready_person(&stage, "b", json!({})).await;
    // Both directions in one link.
    let both = json!({"spec": {"incoming": {"oauth2": {"scopes": ["REPO_READ"], "grantTypes": ["client_credentials"]}}}});
    ready_machine(&stage, "both", both).await;
    let link = stage.ready(stage.team(), "both").await;
    let status = serde_json::to_value(&link.status).expect("json");
    assert_eq!(status["direction"], "Two-way");
    assert_eq!(status["binding"]["name"], "both-oauth");
    for part in ["Registered", "Authorized", "TokenFresh"] {
        assert_eq!(condition(&status, part).expect(part)["status"], "True");
    }
    let data = stage.data(stage.team(), "both-oauth").await;
    let (code, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(code, 200, "{reply}");

    stage.operator.stop().await;
    let (mark, asked) = (plane.audit_mark().await, issued(&stage).await);
    let starts = stage.operator.logs().matches("at work").count();
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    eventually(SOON, "the operator at work", async || {
        stage.operator.logs().matches("at work").count() > starts
    })
    .await;
    always(Duration::from_secs(3), "nothing is asked for", async || issued(&stage).await == asked).await;
    let (system, team) = (stage.system.clone(), stage.team().to_owned());
    let writes = plane
        .audit_since(mark, |e| {
            e.is_write()
                && !e.is_lease()
                && e.is_by(&system, "applink-operator")
                && e.object_ref.resource != "events"
        })
        .await;
    assert!(writes.is_empty(), "{team}: {writes:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_asked_for_as_its_client_authenticates() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let body = json!({
        "name": "post", "grantTypes": ["client_credentials"], "scopes": ["REPO_READ"],
        "tokenEndpointAuthMethod": "client_secret_post", "secret": CLIENT_SECRET,
    });
    let (status, reply) = stage.admin(reqwest::Method::PUT, "/admin/clients/by-post", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    credentials(&stage, "post", "by-post", CLIENT_SECRET).await;
    let method = json!({"spec": {"outgoing": {"oauth2": {"client": {"authMethod": "client_secret_post"}}}}});
    stage.apply_object(team, &with(machine("post", &stage.provider_url), method)).await;
    stage.ready(team, "post").await;

    let body = json!({
        "name": "public", "grantTypes": ["refresh_token"], "scopes": ["REPO_READ"], "tokenEndpointAuthMethod": "none",
    });
    let (status, reply) = stage.admin(reqwest::Method::PUT, "/admin/clients/public", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    let token = seed(&stage, "public").await;
    stage.put_secret(team, "public-client", &[("client-id", "public")]).await;
    stage.put_secret(team, "public-seed", &[("token", &token)]).await;
    let method = json!({"spec": {"outgoing": {"oauth2": {"client": {"authMethod": "none"}}}}});
    stage.apply_object(team, &with(person("public", &stage.provider_url), method)).await;
    stage.ready(team, "public").await;
    stage.delete(team, "public").await;
}
