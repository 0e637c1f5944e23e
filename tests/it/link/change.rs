//! Each field of an incoming link that can change, changed by itself: it converges, and the credentials work all the while.
//! And those that can't: `kubectl apply` says so.

use serde_json::{Value, json};

use super::binary;
use super::fixtures::{
    authenticates, client, client_is, data, machine, no_secret, patch_link, provider, secret, stays,
};
use super::watcher::{Prober, at_rest, events, incoming, opens};
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, merge, text};
use crate::support::wait::eventually;

async fn stage(teams: usize, more: Value) -> Stage<'static> {
    Stage::set(ControlPlane::shared().await, binary(), teams, more).await
}

/// A link that people and machines use.
fn full(name: &str) -> Value {
    machine(
        name,
        json!({"incoming": {"oauth2": {
            "grantTypes": ["authorization_code", "refresh_token", "client_credentials"],
            "redirectUris": ["https://ci.example.com/cb"], "scopes": ["REPO_READ"],
        }}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_knows_of_a_link_follows_it_field_by_field() {
    let stage = stage(1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &full("ci")).await;
    stage.registered(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    let id = first["client-id"].clone();
    let prober = Prober::start(&stage, team, &["ci-oauth"]);
    let oauth2 = |change: Value| json!({"incoming": {"oauth2": change}});
    let two = json!(["https://ci.example.com/cb", "https://ci.example.com/other"]);
    let steps = [
        (oauth2(json!({"redirectUris": two})), json!({"redirectUris": two})),
        (
            oauth2(json!({"redirectUris": ["https://b.example.com/"]})),
            json!({"redirectUris": ["https://b.example.com/"]}),
        ),
        (oauth2(json!({"scopes": ["REPO_WRITE"]})), json!({"scopes": ["REPO_WRITE"]})),
        (oauth2(json!({"scopes": null})), json!({"scopes": []})),
        (
            oauth2(json!({"grantTypes": ["client_credentials"]})),
            json!({"grantTypes": ["client_credentials"]}),
        ),
        (oauth2(json!({"redirectUris": null})), json!({"redirectUris": []})),
        (json!({"application": {"name": "Bücherei 📚"}}), json!({"name": "Bücherei 📚"})),
        (json!({"application": {"url": "https://b.example.com"}}), json!({"uri": "https://b.example.com"})),
        (json!({"application": {"url": null}}), json!({"uri": null})),
    ];
    let mut wanted = client(&stage, &id).await.expect("registered");
    for (change, then) in steps {
        patch_link(&stage, team, "ci", json!({"spec": change})).await;
        merge(&mut wanted, then);
        let bare = |c: &Value| {
            let mut c = c.clone();
            c.as_object_mut().expect("an object").retain(|k, _| k != "updatedAt");
            c
        };
        client_is(&stage, &id, &change.to_string(), |c| bare(c) == bare(&wanted)).await;
        stage.registered(team, "ci").await;
        assert_eq!(stage.data(team, "ci-oauth").await, first, "{change}");
    }
    prober.never_failed().await;

    // The method of authentication stands in the Secret too: it and the client change one after the other.
    let post = json!({"spec": oauth2(json!({"tokenEndpointAuthMethod": "client_secret_post"}))});
    patch_link(&stage, team, "ci", post).await;
    client_is(&stage, &id, "its method", |c| c["tokenEndpointAuthMethod"] == "client_secret_post").await;
    stage.registered(team, "ci").await;
    let mut posted = first.clone();
    posted.insert("token-endpoint-auth-method".into(), "client_secret_post".into());
    assert_eq!(stage.data(team, "ci-oauth").await, posted);
    assert!(authenticates(&stage, &posted).await);
    // What people change isn't told as if somebody had meddled.
    assert_eq!(events(&stage, team, "ci", "Repaired").await, Vec::<String>::new());
    assert_eq!(incoming(&stage, team, "ci").await["serial"], 1);
    at_rest(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_secret_follows_the_link_field_by_field() {
    let stage = stage(1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.registered(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    let there = client(&stage, &first["client-id"]).await;
    let prober = Prober::start(&stage, team, &["ci-oauth"]);
    let change = async |what: Value| {
        patch_link(&stage, team, "ci", json!({"spec": {"incoming": {"secret": what}}})).await;
    };
    let has = |all: &Option<std::collections::BTreeMap<String, String>>, key: &str| {
        all.as_ref().and_then(|m| m.get(key).cloned())
    };
    for (value, wanted) in [(json!("a"), Some("a")), (json!("b"), Some("b")), (Value::Null, None)] {
        change(json!({"labels": {"team": value}})).await;
        secret(&stage, team, "ci-oauth", "its label", |s| {
            has(&s.metadata.labels, "team").as_deref() == wanted
        })
        .await;
        change(json!({"annotations": {"note": value}})).await;
        secret(&stage, team, "ci-oauth", "its annotation", |s| {
            has(&s.metadata.annotations, "note").as_deref() == wanted
        })
        .await;
        change(json!({"template": {".env": wanted.map(|w| format!("{w}={{{{ clientId }}}}\n"))}})).await;
        secret(&stage, team, "ci-oauth", "its template", |s| {
            text(s).get(".env").cloned() == wanted.map(|w| format!("{w}={}\n", first["client-id"]))
        })
        .await;
        change(json!({"keys": {"issuerUri": wanted}})).await;
        secret(&stage, team, "ci-oauth", "its key", |s| {
            let key = wanted.unwrap_or("issuer-uri");
            text(s).get(key) == first.get("issuer-uri")
                && text(s).len() == first.len() + usize::from(wanted.is_some())
        })
        .await;
        stage.registered(team, "ci").await;
    }
    assert_eq!(stage.data(team, "ci-oauth").await, first);
    prober.never_failed().await;

    // Another name: while the one or the other is there, it works; the old one goes last.
    let prober = Prober::start(&stage, team, &["ci-oauth", "elsewhere"]);
    change(json!({"name": "elsewhere"})).await;
    no_secret(&stage, team, "ci-oauth").await;
    let moved = stage.data(team, "elsewhere").await;
    assert_eq!(moved, first);
    let link = stage.registered(team, "ci").await;
    assert_eq!(link.status.and_then(|s| s.binding).map(|b| b.name).as_deref(), Some("elsewhere"));
    assert_eq!(incoming(&stage, team, "ci").await["secretName"], "elsewhere");
    // Where the new name is somebody else's, the old Secret stays and works.
    stage.put_secret(team, "taken", &[("mine", "1")]).await;
    change(json!({"name": "taken"})).await;
    stage.condition(team, "ci", "Stalled", "True", "SecretConflict").await;
    stays("the old Secret", async || data(&stage, team, "elsewhere").await == Some(first.clone())).await;
    change(json!({"name": null})).await;
    no_secret(&stage, team, "elsewhere").await;
    stage.registered(team, "ci").await;
    prober.never_failed().await;
    // The type is fixed once the Secret is there; that is said.
    change(json!({"type": "servicebinding.io/oauth2"})).await;
    stage.condition(team, "ci", "Stalled", "True", "SecretTypeFixed").await;
    change(json!({"type": null})).await;
    stage.registered(team, "ci").await;
    assert_eq!(stage.data(team, "ci-oauth").await, first);
    // Nothing of this was the provider's business.
    assert_eq!(client(&stage, &first["client-id"]).await, there);
    assert_eq!(events(&stage, team, "ci", "Repaired").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_and_deletion_policy_change_nothing_until_their_time() {
    let stage = stage(1, json!({})).await;
    let team = stage.team();
    stage.apply_object(team, &machine("ci", json!({}))).await;
    stage.registered(team, "ci").await;
    let first = stage.data(team, "ci-oauth").await;
    let next = async |is: bool| {
        eventually(SOON, format!("a next rotation: {is}"), async || {
            let status = incoming(&stage, team, "ci").await;
            if status["nextRotation"].is_string() == is { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    };
    for (rotation, is) in [
        (json!({"every": "1h"}), true),
        (json!({"every": "2h", "overlap": "30m"}), true),
        (json!({"every": null}), false),
        (json!({"every": "3h"}), true),
        (Value::Null, false),
    ] {
        patch_link(&stage, team, "ci", json!({"spec": {"incoming": {"rotation": rotation}}})).await;
        stage.registered(team, "ci").await;
        next(is).await;
    }
    for policy in ["Retain", "Delete", "Retain"] {
        patch_link(&stage, team, "ci", json!({"spec": {"deletionPolicy": policy}})).await;
        stage.registered(team, "ci").await;
    }
    assert_eq!(stage.data(team, "ci-oauth").await, first);
    assert_eq!(incoming(&stage, team, "ci").await["serial"], 1);
    at_rest(&stage).await;
    stage.delete(team, "ci").await;
    stays("what is retained", async || data(&stage, team, "ci-oauth").await == Some(first.clone())).await;
    assert!(authenticates(&stage, &first).await);

    // A schedule that comes to a link that is older than its period is due at once.
    stage.apply_object(team, &machine("old", json!({}))).await;
    stage.registered(team, "old").await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    patch_link(&stage, team, "old", json!({"spec": {"incoming": {"rotation": {"every": "10s"}}}})).await;
    eventually(SOON, "a rotation", async || incoming(&stage, team, "old").await["serial"].as_i64() > Some(1))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_provider_is_proved_before_the_old_one_is_left() {
    let (here, there) = tokio::join!(stage(1, json!({})), stage(1, json!({})));
    let team = here.team();
    let name = format!("there-{}", here.system);
    here.put_secret(&here.system, "there", &[("token", &there.admin_token().await)]).await;
    let mut object = provider(&there, "ClusterLinkProvider", &name, "there");
    object["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": here.system});
    object["spec"]["allow"] = json!({"namespaces": {"all": {}}});
    here.apply_object(team, &object).await;
    here.apply_object(team, &machine("ci", json!({}))).await;
    here.registered(team, "ci").await;
    let first = here.data(team, "ci-oauth").await;
    let prober = Prober::start(&here, team, &["ci-oauth"]);
    for (to, from_stage, to_stage) in [(&name, &here, &there), (&here.provider_name, &there, &here)] {
        patch_link(&here, team, "ci", json!({"spec": {"providerRef": {"name": to}}})).await;
        eventually(SOON, "the move", async || {
            from_stage.clients().await.is_empty() && to_stage.clients().await.len() == 1
        })
        .await;
        let link = here.registered(team, "ci").await;
        assert_eq!(link.status.and_then(|s| s.provider).map(|p| p.name).as_ref(), Some(to));
        let data = here.data(team, "ci-oauth").await;
        assert_eq!(data["issuer-uri"], to_stage.provider_url);
        assert!(opens(&data).await);
        at_rest(&here).await;
    }
    let times = prober.never_failed().await;
    eprintln!("2 moves, {times} uses, none refused");
    // Back where it was; a secret of a place that was left doesn't come back by itself.
    let back = here.data(team, "ci-oauth").await;
    assert_eq!(back["client-id"], first["client-id"]);
    // A provider that doesn't take it: the old one stays, and works.
    let narrow = json!({"spec": {"allow": {"scopes": ["REPO_READ"]}}});
    here.patch("ClusterLinkProvider", "", &name, narrow).await;
    let wide =
        json!({"spec": {"providerRef": {"name": name}, "incoming": {"oauth2": {"scopes": ["REPO_WRITE"]}}}});
    patch_link(&here, team, "ci", wide).await;
    here.condition(team, "ci", "Stalled", "True", "ScopeNotAllowed").await;
    stays("the old place", async || {
        opens(&back).await
            && data(&here, team, "ci-oauth").await == Some(back.clone())
            && there.clients().await.is_empty()
    })
    .await;
    here.delete(team, "ci").await;
    assert!(here.clients().await.is_empty());
    here.remove("ClusterLinkProvider", "", &name).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_change_says_so_at_apply() {
    // No operator: it is the API server that refuses.
    let stage = Stage::install(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let refused = async |object: &Value, says: &[&str]| {
        let answer = stage.apply(team, &object.to_string()).await;
        assert!(!answer.is_ok(), "taken: {object}");
        for part in says {
            assert!(answer.stderr.contains(part), "{object}\nsays nothing of {part:?}:\n{}", answer.stderr);
        }
    };
    let adopting = |id: Value| machine("ci", json!({"incoming": {"adopt": id}}));
    let says = ["spec.incoming", "adopt can't change", "make another link for another client"];
    stage.apply_object(team, &adopting(json!({"clientId": "a"}))).await;
    refused(&adopting(json!({"clientId": "b"})), &says).await;
    refused(&machine("ci", json!({})), &says).await;
    // Where its secret stands may change.
    let secret_ref = json!({"clientId": "a", "secretRef": {"name": "s", "key": "k"}});
    stage.apply_object(team, &adopting(secret_ref)).await;
    stage.apply_object(team, &machine("made", json!({}))).await;
    let mut late = adopting(json!({"clientId": "a"}));
    late["metadata"]["name"] = json!("made");
    refused(&late, &says).await;

    let url = "is the provider's identity and can't change; make another provider, or delete this one first";
    let kind =
        "the kind of provider service can't change; make another provider and name that one in the links";
    let hydra = json!({"url": "https://h.example.com", "admin": {"url": "https://h.example.com:4445"}});
    let of = |spec: Value| {
        json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": "p"}, "spec": spec,
        })
    };
    let bundled = provider(&stage, "LinkProvider", "p", "t");
    stage.apply_object(team, &bundled).await;
    let mut moved = bundled.clone();
    moved["spec"]["bundled"]["url"] = json!("https://other.example.com");
    refused(&moved, &["spec.bundled.url", url]).await;
    refused(&of(json!({"hydra": hydra})), &[kind]).await;
    let mut both = bundled.clone();
    both["spec"]["hydra"] = hydra;
    refused(&both, &["exactly one of bundled, hydra, keycloak, registration and bitbucket must be set"])
        .await;
    // Where its admin API is may change for the platform team's alone: a tenant's would have what was made
    // for one server sent to another.
    let mut admin = bundled;
    admin["spec"]["bundled"]["admin"]["url"] = json!("https://admin.example.com");
    let part = "is part of the provider's identity and can't change; make another provider, name that one in the links";
    refused(&admin, &["spec.bundled.admin.url", part]).await;
    let name = format!("cluster-{}", stage.system);
    let mut cluster = provider(&stage, "ClusterLinkProvider", &name, "t");
    stage.apply_object(team, &cluster).await;
    cluster["spec"]["bundled"]["admin"]["url"] = json!("https://admin.example.com");
    stage.apply_object(team, &cluster).await;
    let mut path = of(json!({"bitbucket": {
        "url": "https://b.example.com", "apiPath": "/rest/oauth2/latest", "tokenSecretRef": {"name": "t", "key": "k"},
    }}));
    path["metadata"]["name"] = json!("path");
    stage.apply_object(team, &path).await;
    for other in [json!("/mine"), Value::Null] {
        path["spec"]["bitbucket"]["apiPath"] = other;
        refused(&path, &["spec.bitbucket.apiPath", part]).await;
    }
    stage.remove("ClusterLinkProvider", "", &name).await;
}
