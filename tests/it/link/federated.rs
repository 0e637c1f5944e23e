//! Outgoing links whose client has no secret: a ServiceAccount's token is its assertion. Against the real Keycloak, which
//! trusts the test cluster's issuer and fetches its keys there. The operator's rights are those of the chart, and what
//! each test grants.

use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::binary;
use super::fixtures::{message, patch_link};
use super::outgoing::{access, another, record, with};
use crate::support::audit::{AuditEvent, Mark};
use crate::support::keycloak::Realm;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, http, unique};
use crate::support::wait::eventually;

const OPERATOR: &str = "applink-operator";

/// A stage, and a realm that trusts its cluster. Everybody may read the cluster's keys.
async fn stage(teams: usize) -> (Stage<'static>, Realm) {
    let plane = ControlPlane::shared().await;
    let (stage, realm) = tokio::join!(
        Stage::set(plane, binary(), teams, json!({})),
        Realm::with(json!({"accessTokenLifespan": 9}))
    );
    let discovery = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "issuer-discovery-for-all"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:service-account-issuer-discovery",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:unauthenticated"}],
    });
    stage.apply_object(stage.team(), &discovery).await;
    realm.trust_cluster(plane.url()).await;
    (stage, realm)
}

async fn account(stage: &Stage<'_>, namespace: &str, name: &str) {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    stage.apply_object(namespace, &account).await;
}

/// What the documentation tells the user to grant.
async fn grant(stage: &Stage<'_>, namespace: &str, account: &str) {
    let name = format!("{account}-token");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{
            "apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [account], "verbs": ["create"],
        }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": stage.system}],
    });
    stage
        .apply_object(namespace, &json!({"apiVersion": "v1", "kind": "List", "items": [role, binding]}))
        .await;
}

/// A link that authenticates with the ServiceAccount of its own name.
fn link(name: &str, realm: &Realm, audience: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {
            "application": {"name": "Build reports"},
            "outgoing": {"oauth2": {
                "server": {"custom": {"issuer": realm.issuer()}},
                "grant": {"clientCredentials": {}},
                "client": {"serviceAccount": {"name": name, "audience": audience}},
            }},
        },
    })
}

/// The link is looked at now, not when its back-off ends.
async fn touch(stage: &Stage<'_>, name: &str) {
    let note = json!({"metadata": {"annotations": {"note": unique().to_string()}}});
    patch_link(stage, stage.team(), name, note).await;
}

/// Waits until a link isn't Ready for this reason; gives back the message.
async fn refused(stage: &Stage<'_>, name: &str, reason: &str) -> String {
    stage.condition(stage.team(), name, "Ready", "False", reason).await;
    message(stage, stage.team(), name, "Ready").await
}

/// What the operator asked of a ServiceAccount's tokens since a mark: the API server's answers.
async fn asked(stage: &Stage<'_>, since: Mark, account: &str) -> Vec<u16> {
    let team = stage.team().to_owned();
    let is = |e: &AuditEvent| {
        e.is_by(&stage.system, OPERATOR)
            && e.object_ref.subresource == "token"
            && e.object_ref.namespace == team
            && e.object_ref.name == account
    };
    let events = stage.plane.audit_since(since, is).await;
    events.iter().map(|e| e.response_status.code).collect()
}

/// The claims of a JWT.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).expect("a JWT");
    let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).expect("base64url");
    serde_json::from_slice(&part).expect("claims")
}

/// Nothing that begins as a JWT does stands where people look: links, events, logs, metrics; nor in our records.
async fn shows_no_token(stage: &Stage<'_>) {
    let team = stage.team();
    let links = stage.plane.kubectl(&["get", "applicationlinks", "-n", team, "-o", "yaml"]).await.ok();
    let events = stage.plane.kubectl(&["get", "events", "-n", team, "-o", "yaml"]).await.ok();
    let port = stage.values()["operator"]["port"].as_u64().expect("a port");
    let metrics = http().get(format!("http://127.0.0.1:{port}/metrics")).send().await;
    let metrics = metrics.expect("metrics").text().await.expect("text");
    assert!(links.contains("serviceAccount") && metrics.contains("applink"), "{links}");
    let mut all = vec![("links", links), ("events", events), ("metrics", metrics)];
    all.push(("logs", stage.operator.logs()));
    for link in stage.links(team).list(&kube::api::ListParams::default()).await.expect("links") {
        let kept = record(stage, &link.uid().expect("uid")).await;
        all.push(("records", kept.unwrap_or_default().to_string()));
    }
    for (what, text) in all {
        let line = text.lines().find(|l| l.contains("eyJ"));
        assert!(line.is_none(), "{what}: {line:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_without_any_secret_gets_its_tokens_from_keycloak() {
    let (mut stage, realm) = stage(1).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    realm.federated_client("build-reports", &format!("{team}:ci")).await;
    let start = stage.plane.audit_mark().await;

    // Without the Role nothing goes, and what is missing is told so that it can be applied as it stands.
    stage.apply_object(team, &link("ci", &realm, &realm.issuer())).await;
    let told = refused(&stage, "ci", "ServiceAccountTokenForbidden").await;
    for part in [
        "ServiceAccount ci",
        "resources: [serviceaccounts/token], resourceNames: [ci], verbs: [create]",
        &format!("{{kind: ServiceAccount, name: {OPERATOR}, namespace: {}}}", stage.system),
        &format!("in namespace {team}"),
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    // With the Role, and without the ServiceAccount.
    grant(&stage, team, "ci").await;
    touch(&stage, "ci").await;
    let told = refused(&stage, "ci", "ServiceAccountMissing").await;
    assert!(told.contains("ServiceAccount ci doesn't exist"), "{told}");
    account(&stage, team, "ci").await;
    touch(&stage, "ci").await;
    stage.ready(team, "ci").await;

    // Keycloak knows the client by the assertion alone, and the token is a real one.
    let mut token = access(&stage, "ci-token").await;
    assert_eq!(claims(&token)["azp"], "build-reports");
    assert_eq!(claims(&token)["iss"], json!(realm.issuer()));
    let codes = asked(&stage, start, "ci").await;
    assert!(codes.contains(&403) && codes.contains(&404), "{codes:?}");
    // One for what the API server's own audiences are, and one that is used: also for the refreshes.
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 2, "{codes:?}");
    for _ in 0..3 {
        token = another(&stage, "ci", &token).await;
    }
    assert_eq!(asked(&stage, start, "ci").await, codes);
    // It is kept in memory alone: another life of the operator makes another, once one is due.
    stage.operator.restart().await;
    stage.operator.until_ready(SOON).await;
    token = another(&stage, "ci", &token).await;
    assert_eq!(claims(&token)["azp"], "build-reports");
    let made = asked(&stage, start, "ci").await.iter().filter(|c| **c == 201).count();
    assert_eq!(made, 4);
    shows_no_token(&stage).await;
    stage.delete(team, "ci").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_named_is_refused() {
    let (stage, realm) = stage(2).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    let start = stage.plane.audit_mark().await;

    // An audience of the API server's own: no token for it is made, and nothing is sent.
    account(&stage, team, "own").await;
    grant(&stage, team, "own").await;
    realm.federated_client("own", &format!("{team}:own")).await;
    stage.apply_object(team, &link("own", &realm, stage.plane.url())).await;
    let told = refused(&stage, "own", "AudienceForbidden").await;
    assert!(told.contains("serviceAccount.audience") && told.contains(stage.plane.url()), "{told}");
    stage.condition(team, "own", "Stalled", "True", "").await;
    assert_eq!(asked(&stage, start, "own").await, [201], "only what the API server's own audiences are");
    assert!(!realm.keycloak().log().contains(&format!("system:serviceaccount:{team}:own")));

    // Another namespace's ServiceAccount: there is no way to name it.
    let other = stage.teams[1].as_str();
    account(&stage, other, "theirs").await;
    grant(&stage, other, "theirs").await;
    for (name, change) in [
        ("path", json!({"name": format!("{other}/theirs")})),
        ("full", json!({"name": format!("system:serviceaccount:{other}:theirs")})),
        ("field", json!({"name": "theirs", "namespace": other})),
    ] {
        let account = json!({"spec": {"outgoing": {"oauth2": {"client": {"serviceAccount": change}}}}});
        let link = with(link(name, &realm, &realm.issuer()), account);
        let said = stage.apply(team, &link.to_string()).await;
        assert!(!said.is_ok() && said.stderr.contains("serviceAccount"), "{name}: {said:?}");
    }
    realm.federated_client("theirs", &format!("{other}:theirs")).await;
    stage.apply_object(team, &link("theirs", &realm, &realm.issuer())).await;
    refused(&stage, "theirs", "ServiceAccountTokenForbidden").await;
    grant(&stage, team, "theirs").await;
    touch(&stage, "theirs").await;
    refused(&stage, "theirs", "ServiceAccountMissing").await;

    // A server that doesn't trust it: said with what it has to trust, and tried again, since that is mended there.
    account(&stage, team, "late").await;
    grant(&stage, team, "late").await;
    stage.apply_object(team, &link("late", &realm, &realm.issuer())).await;
    let told = refused(&stage, "late", "AssertionRefused").await;
    for part in [stage.plane.url(), &format!("system:serviceaccount:{team}:late"), &realm.issuer()] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let refused_so_far = asked(&stage, start, "late").await;
    realm.federated_client("late", &format!("{team}:late")).await;
    stage.ready(team, "late").await;
    // A token that was refused isn't sent again.
    assert!(asked(&stage, start, "late").await.len() > refused_so_far.len());
    // The wrong audience, which isn't the API server's: the server says no, and so does the link.
    let change = json!({"spec": {"outgoing": {"oauth2": {"client": {"serviceAccount": {"audience": "https://else"}}}}}});
    patch_link(&stage, team, "late", change).await;
    refused(&stage, "late", "AssertionRefused").await;
    shows_no_token(&stage).await;
}

/// A namespace takes its links along, whose ServiceAccounts get no tokens any more: nothing waits for one.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_ends_isnt_held_up() {
    let (mut stage, realm) = stage(1).await;
    let team = stage.team().to_owned();
    let team = team.as_str();
    account(&stage, team, "ci").await;
    grant(&stage, team, "ci").await;
    realm.federated_client("build-reports", &format!("{team}:ci")).await;
    stage.apply_object(team, &link("ci", &realm, &realm.issuer())).await;
    stage.ready(team, "ci").await;
    // Without the token that it has in memory, it would have to ask for one to revoke with.
    stage.operator.stop().await;
    let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(stage.client.clone());
    namespaces.delete(team, &DeleteParams::default()).await.expect("delete");
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    eventually(SOON, "the end of the namespace", async || {
        match namespaces.get_opt(team).await.map_err(|e| e.to_string())? {
            None => Ok(()),
            Some(left) => Err(format!("{:?}", left.status)),
        }
    })
    .await;
}
