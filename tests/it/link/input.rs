//! What `kubectl apply` refuses, and in which words: the field, the value where it helps, the way out. The words are the API
//! server's, so all but one case ask it without a kubectl between.

use serde_json::{Value, json};

use crate::support::objects;
use crate::support::plane::ControlPlane;
use crate::support::programs::Output;
use crate::support::stage::{crds, merge};
use crate::support::wait::{SOON, eventually};

/// A namespace with the CRDs and no operator.
struct Desk {
    plane: &'static ControlPlane,
    namespace: String,
}

impl Desk {
    async fn new() -> Self {
        let plane = ControlPlane::shared().await;
        crds(plane).await;
        Self { plane, namespace: plane.namespace("input").await }
    }

    async fn apply(&self, object: &Value) -> Output {
        objects::apply(self.plane.access(), None, &self.namespace, &object.to_string()).await
    }

    /// Refused, and the text has all of `says`.
    async fn refused(&self, object: &Value, says: &[&str]) {
        let answer = self.apply(object).await;
        assert!(!answer.is_ok(), "taken: {object}");
        for part in says {
            assert!(answer.stderr.contains(part), "{object}\nsays nothing of {part:?}:\n{}", answer.stderr);
        }
    }

    /// Taken; gives back what the API server made of it.
    async fn taken(&self, object: &Value) -> Value {
        self.apply(object).await.ok();
        let kind = object["kind"].as_str().expect("a kind");
        let name = object["metadata"]["name"].as_str().expect("a name");
        objects::get(self.plane.access(), kind, &self.namespace, name).await.expect("it is there")
    }
}

fn link(name: &str, more: Value) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {"application": {"name": "CI"}},
    });
    merge(&mut link["spec"], more);
    link
}

/// An incoming link with these members of `oauth2`.
fn client(oauth2: Value) -> Value {
    link("bad", json!({"incoming": {"oauth2": oauth2}}))
}

/// An incoming link with this Secret.
fn secret(secret: Value) -> Value {
    link("bad", json!({"incoming": {"oauth2": {}, "secret": secret}}))
}

/// An outgoing link with these changes.
fn outgoing(more: Value) -> Value {
    let mut spec = json!({"outgoing": {"oauth2": {
        "server": {"custom": {"tokenEndpoint": "https://ci.example.com/token"}},
        "grant": {"clientCredentials": {}},
        "client": {"secretRef": {"name": "client"}},
    }}});
    merge(&mut spec["outgoing"], more);
    link("bad", spec)
}

fn provider(kind: &str, name: &str) -> Value {
    let mut provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": kind,
        "metadata": {"name": name},
        "spec": {"bundled": {
            "url": "https://p.example.com",
            "admin": {"url": "https://p.example.com:8081", "tokenSecretRef": {"name": "t", "key": "token"}},
        }},
    });
    if kind == "ClusterLinkProvider" {
        // No operator of another test is to take it up.
        provider["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": "nobody"});
    }
    provider
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_fields_and_wrong_types_are_refused() {
    let desk = Desk::new().await;
    // kubectl shows the API server's words as they are, and what follows is about those.
    let bad = link("bad", json!({"incoming": {"oauth2": {"scope": ["A"]}}}));
    let file = desk.plane.run_dir().write(format!("{}.json", desk.namespace), bad.to_string());
    let said = desk.plane.kubectl(&["apply", "-n", &desk.namespace, "-f", &file.to_string_lossy()]).await;
    assert!(
        !said.is_ok() && said.stderr.contains("unknown field \"spec.incoming.oauth2.scope\""),
        "{said:?}"
    );
    for (spec, says) in [
        (json!({"incoming": {"oauth2": {"scope": ["A"]}}}), "unknown field \"spec.incoming.oauth2.scope\""),
        (json!({"incoming": {"oauth1": {}, "oauth2": {}}}), "unknown field \"spec.incoming.oauth1\""),
        (json!({"rotation": {}, "incoming": {"oauth2": {}}}), "unknown field \"spec.rotation\""),
    ] {
        desk.refused(&link("bad", spec), &[says]).await;
    }
    for (spec, says) in [
        (
            json!({"incoming": {"oauth2": {"scopes": "A"}}}),
            ["spec.incoming.oauth2.scopes", "must be of type array"],
        ),
        (json!({"incoming": {"oauth2": {}}, "suspend": "yes"}), ["spec.suspend", "must be of type boolean"]),
        (json!({"incoming": {}}), ["spec.incoming.oauth2", "Required value"]),
        (
            json!({"incoming": {"oauth2": {}}, "application": {"name": ""}}),
            ["spec.application.name", "at least 1"],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "application": {"name": "a\nb"}}),
            ["spec.application.name", "must have no control characters"],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "application": {"name": "a\u{202e}b"}}),
            ["spec.application.name", "turn the direction of text"],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "application": {"url": "ci"}}),
            ["spec.application.url", "such as https://"],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "providerRef": {"name": "Not A Name"}}),
            ["spec.providerRef.name", "Not A Name"],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "providerRef": {"name": "p", "kind": "Secret"}}),
            ["spec.providerRef.kind", "\"ClusterLinkProvider\""],
        ),
        (
            json!({"incoming": {"oauth2": {}}, "deletionPolicy": "Keep"}),
            ["spec.deletionPolicy", "\"Retain\""],
        ),
    ] {
        desk.refused(&link("bad", spec), &says).await;
    }
    desk.refused(&link("bad", json!({})), &["at least one of incoming and outgoing must be set"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redirect_uris_are_refused_one_by_one() {
    let desk = Desk::new().await;
    let long = format!("https://a.example.com/{}", "x".repeat(451 - 22));
    assert_eq!(long.len(), 451);
    for (uri, says) in [
        ("https://a.example.com/#top", "must have no fragment (#…)"),
        (
            "https://*.example.com/cb",
            "must have no wildcard (*): redirect URIs are matched exactly, so list each one",
        ),
        ("https://user:pw@a.example.com/", "must have no user information before the host"),
        (
            "http://a.example.com/cb",
            "may be plain http on loopback alone (localhost, 127.0.0.1, [::1]); use https",
        ),
        ("http://localhost.evil.example/", "use https"),
        ("com.example.app://cb", "must be an absolute https URI"),
        ("/callback", "must be an absolute https URI, such as https://app.example.com/callback"),
        ("", "at least 1"),
        (long.as_str(), "450"),
    ] {
        desk.refused(
            &client(json!({"redirectUris": ["https://ok.example.com/cb", uri]})),
            &["spec.incoming.oauth2.redirectUris[1]", says],
        )
        .await;
    }
    let twice = client(json!({"redirectUris": ["https://a.example.com/", "https://a.example.com/"]}));
    desk.refused(
        &twice,
        &["spec.incoming.oauth2.redirectUris[1]", "Duplicate value", "https://a.example.com/"],
    )
    .await;
    let good = [
        "http://localhost:8080/cb",
        "http://127.0.0.1/cb",
        "http://127.8.8.8:1/cb",
        "http://[::1]:9/cb",
        "https://xn--bcher-kva.example/cb?a=b",
        &long[..450],
    ];
    desk.taken(&client(json!({"redirectUris": good}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_grants_and_methods_that_do_not_fit_are_refused() {
    let desk = Desk::new().await;
    for (oauth2, says) in [
        (json!({"scopes": []}), vec!["spec.incoming.oauth2.scopes", "at least 1"]),
        (json!({"scopes": ["A", "A"]}), vec!["spec.incoming.oauth2.scopes[1]", "Duplicate value: \"A\""]),
        (json!({"scopes": [""]}), vec!["spec.incoming.oauth2.scopes[0]"]),
        (json!({"scopes": ["a b"]}), vec!["spec.incoming.oauth2.scopes[0]", "a b"]),
        (json!({"scopes": ["lesen-ü"]}), vec!["spec.incoming.oauth2.scopes[0]", "lesen-ü"]),
        (json!({"grantTypes": []}), vec!["spec.incoming.oauth2.grantTypes", "at least 1"]),
        (
            json!({"grantTypes": ["password"]}),
            vec!["spec.incoming.oauth2.grantTypes[0]", "\"client_credentials\""],
        ),
        (
            json!({"grantTypes": ["authorization_code"]}),
            vec![
                "spec.incoming.oauth2",
                "redirectUris must have at least one entry for the grant type authorization_code",
            ],
        ),
        (
            json!({"grantTypes": ["client_credentials"], "tokenEndpointAuthMethod": "none"}),
            vec![
                "spec.incoming.oauth2",
                "a public client (tokenEndpointAuthMethod: none) can't use the grant type client_credentials",
            ],
        ),
        (
            json!({"tokenEndpointAuthMethod": "none"}),
            vec!["give it redirectUris, or another tokenEndpointAuthMethod"],
        ),
        (
            json!({"tokenEndpointAuthMethod": "private_key_jwt"}),
            vec!["tokenEndpointAuthMethod", "private_key_jwt", "\"client_secret_post\""],
        ),
    ] {
        desk.refused(&client(oauth2), &says).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_that_a_link_may_not_write_are_refused() {
    let desk = Desk::new().await;
    for (value, says) in [
        (
            json!({"type": "kubernetes.io/service-account-token"}),
            ["spec.incoming.secret.type", "must be Opaque, kubernetes.io/basic-auth"],
        ),
        (json!({"type": "bootstrap.kubernetes.io/token"}), ["spec.incoming.secret.type", "must be Opaque"]),
        (
            json!({"labels": {"app.kubernetes.io/managed-by": "me"}}),
            ["spec.incoming.secret.labels", "app.kubernetes.io/managed-by"],
        ),
        (
            json!({"labels": {"applink-operator.io/link": "me"}}),
            ["spec.incoming.secret.labels", "applink-operator.io/…"],
        ),
        (
            json!({"annotations": {"applink-operator.io/serial": "9"}}),
            ["spec.incoming.secret.annotations", "applink-operator.io/"],
        ),
        (
            json!({"annotations": {"kubernetes.io/service-account.name": "default"}}),
            ["spec.incoming.secret.annotations", "kubernetes.io/service-account"],
        ),
        (
            json!({"template": {"../evil": "x"}}),
            ["spec.incoming.secret.template", "letters, digits, -, _ and ."],
        ),
        (json!({"keys": {"clientId": "a/b"}}), ["spec.incoming.secret.keys.clientId", "a/b"]),
        (json!({"keys": {"clientSecret": ""}}), ["spec.incoming.secret.keys.clientSecret", "at least 1"]),
        (json!({"name": "No"}), ["spec.incoming.secret.name", "No"]),
    ] {
        desk.refused(&secret(value), &says).await;
    }
    let mut both = outgoing(json!({"secret": {"name": "same"}}));
    both["spec"]["incoming"] = json!({"oauth2": {}, "secret": {"name": "same"}});
    desk.refused(&both, &["spec.incoming.secret.name and spec.outgoing.secret.name must differ"]).await;
    // Also where one of them is a default.
    let mut both = outgoing(json!({"secret": {"name": "bad-oauth"}}));
    both["spec"]["incoming"] = json!({"oauth2": {}});
    desk.refused(&both, &["must differ"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_parts_that_do_not_fit_are_refused() {
    let desk = Desk::new().await;
    for (more, says) in [
        (json!({"refresh": {"before": "soon"}}), vec!["spec.outgoing.refresh.before", "soon"]),
        (
            json!({"refresh": {"every": "1s"}}),
            vec![
                "spec.outgoing.refresh.every",
                "must be a duration between 10s and 365d, such as 10m, 1h30m or 30d",
            ],
        ),
        (json!({"refresh": {"every": ""}}), vec!["spec.outgoing.refresh.every", "between 10s and 365d"]),
        (json!({"refresh": {"every": "9000h"}}), vec!["between 10s and 365d"]),
        (
            json!({"refresh": {"every": "1h", "before": "10m"}}),
            vec!["spec.outgoing.refresh", "exactly one of before and every must be set"],
        ),
        (json!({"refresh": {}}), vec!["exactly one of before and every must be set"]),
        (
            json!({"oauth2": {"server": {"custom": {"issuer": "https://ci.example.com"}}}}),
            vec!["spec.outgoing.oauth2.server.custom", "exactly one of issuer and tokenEndpoint must be set"],
        ),
        (
            json!({"oauth2": {"server": {"custom": {"tokenEndpoint": "https://u:p@ci.example.com"}}}}),
            vec!["tokenEndpoint", "must have no user information before the host"],
        ),
        (
            json!({"oauth2": {"server": {"custom": {"tokenEndpoint": "ftp://ci.example.com"}}}}),
            vec!["tokenEndpoint", "must be an absolute http or https URL"],
        ),
        (
            json!({"oauth2": {"grant": {"refreshToken": {"secretRef": {"name": "s", "key": "k"}}}}}),
            vec![
                "spec.outgoing.oauth2.grant",
                "exactly one of authorizationCode, deviceCode, clientCredentials, refreshToken and jwtBearer must be set",
            ],
        ),
        (
            json!({"oauth2": {"grant": {"clientCredentials": null}}}),
            vec![
                "exactly one of authorizationCode, deviceCode, clientCredentials, refreshToken and jwtBearer must be set",
            ],
        ),
    ] {
        desk.refused(&outgoing(more), &says).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_served_with_its_defaults() {
    let desk = Desk::new().await;
    let unicode = link(
        "unicode",
        json!({"incoming": {"oauth2": {}}, "application": {"name": "Bücherei 図書館 📚", "url": "https://ci.example.com"}}),
    );
    let served = desk.taken(&unicode).await;
    assert_eq!(served["spec"]["application"]["name"], "Bücherei 図書館 📚");
    // An object without a status would read as current.
    assert_eq!(served["status"], json!({"observedGeneration": -1}));
    assert_eq!(served["spec"]["deletionPolicy"], "Delete");
    assert_eq!(served["spec"]["suspend"], false);
    assert_eq!(served["spec"]["incoming"]["oauth2"]["tokenEndpointAuthMethod"], "client_secret_basic");

    let long = "n".repeat(253);
    desk.refused(
        &link(&long, json!({"incoming": {"oauth2": {}}})),
        &["spec.incoming.secret.name must be given, since this link's name is too long for NAME-oauth"],
    )
    .await;
    let named = link(&long, json!({"incoming": {"oauth2": {}, "secret": {"name": "short"}}}));
    assert_eq!(desk.taken(&named).await["metadata"]["name"], long);
    let mut out = outgoing(json!({}));
    out["metadata"]["name"] = json!(long);
    desk.refused(&out, &["spec.outgoing.secret.name must be given", "NAME-token"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_keeps_its_identity() {
    let desk = Desk::new().await;
    let cluster = format!("input-{}", std::process::id());
    for (kind, name) in [("LinkProvider", "p"), ("ClusterLinkProvider", cluster.as_str())] {
        let mut object = provider(kind, name);
        let served = desk.taken(&object).await;
        assert_eq!(served["status"], json!({"observedGeneration": -1}));
        object["spec"]["bundled"]["url"] = json!("https://q.example.com");
        desk.refused(&object, &["spec.bundled.url", "is the provider's identity and can't change; make another provider, or delete this one first"]).await;
        object["spec"]["bundled"]["url"] = json!("https://p.example.com/#x");
        desk.refused(&object, &["must have no fragment"]).await;
        object["spec"]["bundled"]["url"] = json!("https://p.example.com");
        object["spec"]["bundled"]["caBundle"] = json!("no certificate");
        desk.refused(&object, &["spec.bundled.caBundle"]).await;
    }
    let mut object = provider("ClusterLinkProvider", &cluster);
    for (allow, says) in [
        (
            json!({"namespaces": {"all": {}, "names": ["a"]}}),
            vec!["spec.allow.namespaces", "exactly one of all, names and matchLabels must be set"],
        ),
        (json!({"namespaces": {}}), vec!["exactly one of all, names and matchLabels must be set"]),
        (json!({"scopes": ["A"]}), vec!["spec.allow.namespaces", "Required value"]),
        (
            json!({"namespaces": {"names": ["Not_A_Namespace"]}}),
            vec!["spec.allow.namespaces.names[0]", "Not_A_Namespace"],
        ),
        (
            json!({"namespaces": {"all": {}}, "redirectHosts": ["https://a.example.com"]}),
            vec!["spec.allow.redirectHosts[0]", "https://a.example.com"],
        ),
    ] {
        object["spec"]["allow"] = allow;
        desk.refused(&object, &says).await;
    }
    objects::delete(desk.plane.access(), "ClusterLinkProvider", "", &cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_explain_says_values_formats_and_limits() {
    let desk = Desk::new().await;
    let incoming = "applicationlinks.spec.incoming";
    for (field, says) in [
        (
            format!("{incoming}.rotation.every"),
            "between 10s and 365d, such as 10m, 1h30m or 30d: whole numbers with d",
        ),
        (
            format!("{incoming}.oauth2.grantTypes"),
            "One of: authorization_code, refresh_token, client_credentials.",
        ),
        (format!("{incoming}.oauth2.redirectUris"), "At most 32."),
        (format!("{incoming}.oauth2"), "One of: client_secret_basic, client_secret_post, none."),
    ] {
        // A CRD that was applied just now is explained once the API server publishes its schema.
        eventually(SOON, format!("{field}: {says}"), async || {
            let said = desk.plane.kubectl(&["explain", &field]).await;
            let words = said.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
            if words.contains(says) { Ok(()) } else { Err(format!("{words} {}", said.stderr)) }
        })
        .await;
    }
}
