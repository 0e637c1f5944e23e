//! The operator's rights: all that it uses it has, and all that it has it uses. Both as the chart gives them: for a list
//! of namespaces, and cluster-wide; the one becomes the other by an upgrade, which changes no link and no secret.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject};
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::binary;
use crate::support::audit::{AuditEvent, Mark};
use crate::support::bench::{Kind, Scopes, grants, introspect, link, narrow, outside, seed};
use crate::support::plane::{ControlPlane, Options};
use crate::support::stage::{SOON, Stage, merge};
use crate::support::wait::eventually;

const ACCOUNT: &str = "applink-operator";

/// One right: where (a namespace, or empty for the whole cluster), on what, and which verb.
type Right = (String, String, String);

/// What is granted and can't be seen in use, and why it is granted.
const UNSEEN: [(&str, &str, &str); 2] = [
    // Asked for by the admission plugin OwnerReferencesPermissionEnforcement alone, which not every cluster has on.
    ("applink-operator.io/applicationlinks/finalizers", "update", "an owner reference that blocks deletion"),
    // An event that is told again within minutes becomes a series.
    ("events.k8s.io/events", "patch", "the same event again"),
];

fn expand(scope: &str, rules: &[PolicyRule], into: &mut BTreeSet<Right>) {
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                assert_ne!(resource, "*");
                for verb in &rule.verbs {
                    assert_ne!(verb, "*");
                    into.insert((scope.to_owned(), format!("{group}/{resource}"), verb.clone()));
                }
            }
        }
    }
}

/// What the API server lets the operator do, by the bindings of its ServiceAccount.
async fn granted(stage: &Stage<'_>) -> BTreeSet<Right> {
    let ours = |subjects: &Option<Vec<Subject>>| {
        let mut all = subjects.iter().flatten();
        all.any(|s| s.name == ACCOUNT && s.namespace.as_deref() == Some(&stage.system))
    };
    let mut rights = BTreeSet::new();
    let everything = ListParams::default();
    let client = || stage.client.clone();
    let bindings = Api::<ClusterRoleBinding>::all(client()).list(&everything).await.expect("bindings");
    for binding in bindings.items.iter().filter(|b| ours(&b.subjects)) {
        let role = Api::<ClusterRole>::all(client()).get(&binding.role_ref.name).await.expect("the role");
        expand("", role.rules.as_deref().unwrap_or_default(), &mut rights);
    }
    let bindings = Api::<RoleBinding>::all(client()).list(&everything).await.expect("bindings");
    for binding in bindings.items.iter().filter(|b| ours(&b.subjects)) {
        let namespace = binding.metadata.namespace.as_deref().expect("a namespace");
        let roles: Api<Role> = Api::namespaced(client(), namespace);
        let role = roles.get(&binding.role_ref.name).await.expect("the role");
        expand(namespace, role.rules.as_deref().unwrap_or_default(), &mut rights);
    }
    rights
}

/// Checks that nothing was refused since a mark, and that each right was used.
///
/// The API server decides by a cache of the bindings, so for some milliseconds it may refuse what it was just told to
/// allow. A refusal of what is granted is that, and no right that lacks.
async fn compare(stage: &Stage<'_>, granted: BTreeSet<Right>, now: &BTreeSet<Right>, since: Mark) {
    let right = |e: &AuditEvent| -> Right {
        let o = e.object_ref.clone();
        let sub = if o.subresource.is_empty() { String::new() } else { format!("/{}", o.subresource) };
        (o.namespace, format!("{}/{}{sub}", o.api_group, o.resource), e.verb.clone())
    };
    let covers = |rights: &BTreeSet<Right>, (ns, what, verb): &Right| {
        rights.iter().any(|(scope, w, v)| (scope.is_empty() || scope == ns) && w == what && v == verb)
    };
    let events = stage.plane.audit_since(since, |e| e.is_by(&stage.system, ACCOUNT)).await;
    let refused: Vec<_> = events
        .iter()
        .filter(|e| e.is_forbidden() && !covers(&granted, &right(e)) && !covers(now, &right(e)))
        .collect();
    assert!(refused.is_empty(), "refused: {refused:?}");
    let used: BTreeSet<Right> = events.iter().filter(|e| !e.is_forbidden()).map(right).collect();
    let is_used = |(scope, what, verb): &&Right| {
        used.iter().any(|(ns, w, v)| (scope.is_empty() || scope == ns) && w == what && v == verb)
    };
    let is_known = |(_, what, verb): &&Right| UNSEEN.iter().any(|(w, v, _)| w == what && v == verb);
    assert!(granted.len() > 20, "{granted:?}");
    let idle: Vec<_> = granted.iter().filter(|r| !is_used(r) && !is_known(r)).collect();
    assert!(idle.is_empty(), "granted and never used: {idle:?}");
}

fn provider(kind: &str, name: &str, stage: &Stage<'_>) -> Value {
    let mut provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": {"bundled": {
            "url": stage.provider_url,
            "admin": {"url": stage.admin_url, "tokenSecretRef": {"name": "their-admin-token", "key": "token"}},
        }},
    });
    if kind == "ClusterLinkProvider" {
        provider["spec"]["allow"] = json!({"namespaces": {"all": {}}});
    }
    provider
}

/// All that the operator does, once.
async fn exercise(stage: &mut Stage<'_>, round: &str) {
    let team = stage.team().to_owned();
    let team = team.as_str();
    let tokens = stage.provider_url.clone();
    let name = |what: &str| format!("{what}-{round}");

    // Create, change and delete, of each kind.
    for kind in [Kind::TwoWay, Kind::Refreshing] {
        let name = name(if kind == Kind::TwoWay { "two-way" } else { "refreshing" });
        if kind == Kind::Refreshing {
            seed(stage, team, &name).await;
        }
        stage.apply_object(team, &link(&name, kind, Scopes::Wide, &tokens)).await;
        stage.ready(team, &name).await;
        narrow(stage, team, &name, kind).await;
        stage.ready(team, &name).await;
        stage.delete(team, &name).await;
    }
    // A Secret that gets another name; and one that is kept.
    let moved = name("moved");
    let mut object = link(&moved, Kind::Incoming, Scopes::Wide, &tokens);
    stage.apply_object(team, &object).await;
    stage.ready(team, &moved).await;
    object["spec"]["incoming"]["secret"] = json!({"name": name("elsewhere")});
    object["spec"]["deletionPolicy"] = json!("Retain");
    stage.apply_object(team, &object).await;
    stage.ready(team, &moved).await;
    eventually(SOON, "the end of the old Secret", async || {
        let old = stage.secrets(team).get_opt(&format!("{moved}-oauth")).await.map_err(|e| e.to_string())?;
        if old.is_none() { Ok(()) } else { Err("it stands".to_owned()) }
    })
    .await;
    stage.delete(team, &moved).await;

    // Providers of others, deleted while they are in use.
    let token = stage.admin_token().await;
    for (kind, at) in [("LinkProvider", team.to_owned()), ("ClusterLinkProvider", stage.system.clone())] {
        stage.put_secret(&at, "their-admin-token", &[("token", &token)]).await;
        let theirs = format!("{}-{}", name("theirs"), kind.to_lowercase());
        stage.apply_object(team, &provider(kind, &theirs, stage)).await;
        let user = format!("{}-{}", name("user"), kind.to_lowercase());
        let mut object = link(&user, Kind::Incoming, Scopes::Wide, &tokens);
        object["spec"]["providerRef"] = json!({"kind": kind, "name": theirs});
        stage.apply_object(team, &object).await;
        stage.ready(team, &user).await;
        stage.plane.kubectl(&["delete", kind, &theirs, "-n", team, "--wait=false"]).await.ok();
        stage.delete(team, &user).await;
        let reference = format!("{kind}/{theirs}");
        stage.plane.kubectl(&["wait", "--for=delete", &reference, "-n", team, "--timeout=180s"]).await.ok();
    }

    // A link whose finalizer somebody took off by hand: its grant is swept.
    let torn = name("torn");
    stage.apply_object(team, &link(&torn, Kind::Machine, Scopes::Wide, &tokens)).await;
    stage.ready(team, &torn).await;
    let before = grants(stage).await;
    stage.operator.stop().await;
    stage.links(team).delete(&torn, &kube::api::DeleteParams::default()).await.expect("delete");
    let bare = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    stage.links(team).patch(&torn, &PatchParams::default(), &bare).await.expect("no finalizer");
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    eventually(SOON, "the end of the grant without a link", async || {
        let left = grants(stage).await;
        if left.len() < before.len() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_has_the_rights_that_it_uses_and_no_others() {
    let plane = ControlPlane::start(Options::default()).await;
    let start = plane.audit_mark().await;
    let mut stage = Stage::set(&plane, binary(), 1, json!({})).await;
    outside(&stage).await;
    let (team, tokens) = (stage.team().to_owned(), stage.provider_url.clone());
    stage.apply_object(&team, &link("stays", Kind::TwoWay, Scopes::Wide, &tokens)).await;
    let before = stage.ready(&team, "stays").await;
    let data = stage.data(&team, "stays-oauth").await;
    let token = stage.data(&team, "stays-token").await;
    exercise(&mut stage, "a").await;
    let narrow = granted(&stage).await;

    // From a list of namespaces to all of them, as a rolling update does it: the new one stands by first.
    let mut values = stage.values().clone();
    merge(&mut values, json!({"watchNamespaces": []}));
    stage.release.upgrade(&values).await.ok();
    let mut new = stage.release.deployment_pods("applink-operator", binary()).await;
    let mut new = new.pop().expect("a new Pod");
    new.listen_on("127.0.0.2");
    new.start().await;
    new.until_ready(SOON).await;
    eventually(SOON, "the new one to wait for the lease", async || {
        let watches = |e: &AuditEvent| e.verb == "watch" && e.is_lease() && e.is_in(&stage.system);
        !plane.audit_since(start, watches).await.is_empty()
    })
    .await;
    compare(&stage, narrow, &granted(&stage).await, start).await;
    stage.operator.stop().await;
    stage.operator = new;
    exercise(&mut stage, "b").await;
    // What is made once an installation isn't made again after an upgrade.
    let wide = granted(&stage).await;
    compare(&stage, wide.clone(), &wide, start).await;

    let after = stage.ready(&team, "stays").await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "nothing was written");
    assert_eq!(stage.data(&team, "stays-oauth").await, data);
    assert_eq!(stage.data(&team, "stays-token").await, token);
    let (status, reply) = stage.token(&data["client-id"], &data["client-secret"], None).await;
    assert_eq!(status, 200, "{reply}");
    assert_eq!(introspect(&stage, &token["access-token"]).await["active"], true);
}
