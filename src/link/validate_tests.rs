//! What a spec may say: each fault names its field, in words for the one who wrote it.

use super::content::Slot;
use super::validate::rotation_request;
use super::validate::{ClientAuthGoal, ClientIdGoal, GrantGoal, SecretKey, ServerPlace, validate};
use crate::api::ApplicationLink;
use crate::api::names;
use crate::domain::AuthMethod;
use crate::outgoing::RefreshPolicy;
use serde_json::{Value, json};
use std::time::Duration;

fn link(outgoing: Value) -> ApplicationLink {
    let mut all = json!({
        "oauth2": {
            "server": {"custom": {"tokenEndpoint": "https://as.example/token"}},
            "grant": {"clientCredentials": {}}, "client": {"secretRef": {"name": "c"}},
        },
    });
    merge(&mut all, outgoing);
    serde_json::from_value(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"namespace": "team", "name": "l"},
        "spec": {"application": {"name": "App"}, "outgoing": all},
    }))
    .expect("a link")
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(a), Value::Object(b)) => {
            b.into_iter().for_each(|(k, v)| merge(a.entry(k).or_insert(Value::Null), v));
        }
        (a, b) => *a = b,
    }
}

#[test]
fn what_is_left_out() {
    let valid = validate(&link(json!({}))).expect("valid");
    let goal = valid.outgoing.expect("outgoing");
    assert_eq!((goal.secret.name.as_str(), goal.secret.type_.as_str()), ("l-token", "Opaque"));
    let at = |key: &str| SecretKey { secret: "c".into(), key: key.into() };
    let client = goal.client.expect("a client");
    assert_eq!(client.id, ClientIdGoal::Secret(at("client-id")));
    let auth = ClientAuthGoal::Secret {
        method: AuthMethod::ClientSecretBasic,
        named: false,
        at: at("client-secret"),
    };
    assert_eq!(client.auth, auth);
    assert_eq!((goal.refresh, goal.grant), (RefreshPolicy::Default, GrantGoal::ClientCredentials));
    let ServerPlace::Endpoints(endpoints) = goal.server.place else { panic!("{:?}", goal.server) };
    assert_eq!(endpoints.revocation_endpoint, None);
    assert_eq!(goal.secret.keys[&Slot::AccessToken], "access-token");
    let every = validate(&link(json!({"refresh": {"every": "1h"}}))).expect("valid");
    assert_eq!(every.outgoing.expect("outgoing").refresh, RefreshPolicy::Every(Duration::from_secs(3600)));
}

#[test]
fn each_fault_names_its_field() {
    let at = |f: &str| format!("spec.outgoing.oauth2.{f}");
    let custom = |v: Value| json!({"oauth2": {"server": {"custom": v}}});
    let preset = |mut server: Value| {
        server["custom"] = Value::Null;
        json!({"oauth2": {"server": server}})
    };
    let endpoint = |url: &str| custom(json!({ "tokenEndpoint": url }));
    let secret = |v: Value| json!({ "secret": v });
    let consent = |mut change: Value, grant: &str| {
        change["oauth2"]["grant"] = json!({"clientCredentials": null});
        change["oauth2"]["grant"][grant] = json!({});
        change
    };
    let cases: Vec<(Value, String)> = vec![
        (custom(json!({"issuer": "https://as.example"})), at("server.custom.issuer")),
        (custom(json!({"tokenEndpoint": null})), at("server.custom.issuer")),
        (custom(json!({"tokenEndpoint": null, "issuer": "as.example"})), at("server.custom.issuer")),
        (endpoint("/token"), at("server.custom.tokenEndpoint")),
        (endpoint("ftp://as.example/token"), at("server.custom.tokenEndpoint")),
        (endpoint("https://me:pw@as.example/token"), at("server.custom.tokenEndpoint")),
        (endpoint("https://as.example/token#x"), at("server.custom.tokenEndpoint")),
        (custom(json!({"revocationEndpoint": "nowhere"})), at("server.custom.revocationEndpoint")),
        (json!({"oauth2": {"grant": {"clientCredentials": null}}}), at("grant")),
        (json!({"oauth2": {"client": {"authMethod": "none"}}}), at("client.authMethod")),
        (json!({"oauth2": {"client": {"assertion": {"keyId": "k"}}}}), at("client.assertion")),
        (json!({"oauth2": {"client": {"clientId": "a\nb"}}}), at("client.clientId")),
        (json!({"oauth2": {"client": {"secretRef": null}}}), at("client.clientId")),
        (json!({"oauth2": {"client": {"secretRef": null, "clientId": "us"}}}), at("client.secretRef")),
        (json!({"oauth2": {"client": null}}), at("client")),
        (preset(json!({"google": {}})), at("grant.clientCredentials")),
        (preset(json!({"github": {"url": "https://g.example"}})), at("grant.clientCredentials")),
        (preset(json!({"gitlab": {"url": "g.example"}})), at("server.gitlab.url")),
        (preset(json!({"gitlab": {"url": "https://g.example?x"}})), at("server.gitlab.url")),
        (preset(json!({"microsoft": {"tenant": "../x"}})), at("server.microsoft.tenant")),
        (preset(json!({"microsoft": {"tenant": ""}})), at("server.microsoft.tenant")),
        (
            preset(json!({"gitlab": {"endpoints": {"userEndpoint": "x"}}})),
            at("server.gitlab.endpoints.userEndpoint"),
        ),
        (consent(custom(json!({})), "authorizationCode"), at("server.custom.authorizationEndpoint")),
        (consent(custom(json!({})), "deviceCode"), at("server.custom.deviceAuthorizationEndpoint")),
        (
            consent(preset(json!({"slack": {}})), "deviceCode"),
            at("server.slack.endpoints.deviceAuthorizationEndpoint"),
        ),
        (json!({"oauth2": {"server": {"gitlab": {}}}}), at("server")),
        (json!({"oauth2": {"scopes": ["a", "b c"]}}), at("scopes[1]")),
        (json!({"oauth2": {"scopes": [""]}}), at("scopes[0]")),
        (json!({"refresh": {"before": "soon"}}), "spec.outgoing.refresh.before".into()),
        (json!({"refresh": {"before": "1m", "every": "1h"}}), "spec.outgoing.refresh".into()),
        (json!({"refresh": {}}), "spec.outgoing.refresh".into()),
        (secret(json!({"name": "c"})), "spec.outgoing.secret.name".into()),
        (secret(json!({"name": "x".repeat(254)})), "spec.outgoing.secret.name".into()),
        (secret(json!({"type": "kubernetes.io/service-account-token"})), "spec.outgoing.secret.type".into()),
        (secret(json!({"type": "kubernetes.io/dockerconfigjson"})), "spec.outgoing.secret.type".into()),
        (secret(json!({"type": "kubernetes.io/basic-auth"})), "spec.outgoing.secret.type".into()),
        (
            secret(json!({"type": "kubernetes.io/tls", "template": {"tls.crt": "x"}})),
            "spec.outgoing.secret.type".into(),
        ),
        (secret(json!({"keys": {"accessToken": "type"}})), "spec.outgoing.secret.keys.accessToken".into()),
        (secret(json!({"keys": {"scope": "access-token"}})), "spec.outgoing.secret.keys.scope".into()),
        (secret(json!({"template": {"scope": "x"}})), "spec.outgoing.secret.template[\"scope\"]".into()),
        (
            secret(json!({"template": {"t": "{{ clientSecret }}"}})),
            "spec.outgoing.secret.template[\"t\"]".into(),
        ),
        (secret(json!({"template": {"t": "{{ accessToken"}})), "spec.outgoing.secret.template[\"t\"]".into()),
    ];
    for (change, field) in cases {
        let fault = validate(&link(change.clone())).err().unwrap_or_else(|| panic!("{change} is taken"));
        assert_eq!(fault.field, field, "{change}: {fault}");
        assert!(!fault.message.is_empty() && !fault.to_string().contains('\n'), "{fault}");
    }
}

#[test]
fn no_advice_on_grants_leads_to_another_refusal() {
    let seed = json!({"secretRef": {"name": "s", "key": "k"}});
    let grants = [
        ("authorizationCode", json!({})),
        ("deviceCode", json!({})),
        ("clientCredentials", json!({})),
        ("refreshToken", seed.clone()),
        ("jwtBearer", seed),
    ];
    let asked = |server: &Value, grant: &str, value: &Value| {
        let mut change = json!({"oauth2": {"server": server, "grant": {"clientCredentials": null}}});
        change["oauth2"]["grant"][grant] = value.clone();
        validate(&link(change)).map_err(|e| e.message)
    };
    let mut refused = 0;
    for name in ["google", "microsoft", "github", "gitlab", "slack", "atlassian"] {
        let mut server = json!({"custom": null});
        server[name] = if name == "microsoft" { json!({"tenant": "common"}) } else { json!({}) };
        for (grant, value) in &grants {
            let Err(said) = asked(&server, grant, value) else { continue };
            refused += 1;
            let (_, advice) = said.rsplit_once("use ").expect("an advice");
            let named: Vec<_> = grants.iter().filter(|(other, _)| advice.contains(other)).collect();
            assert!(!named.is_empty(), "{name} {grant}: {said}");
            for (other, value) in named {
                assert!(asked(&server, other, value).is_ok(), "{name} {grant}: {said}: {other}");
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[test]
fn a_secret_of_a_type_has_the_keys_of_it() {
    for secret in [
        json!({"type": "kubernetes.io/basic-auth", "keys": {"accessToken": "password"}}),
        json!({"type": "kubernetes.io/basic-auth", "template": {"username": "oauth2"}}),
        json!({"type": "kubernetes.io/dockerconfigjson", "template": {".dockerconfigjson": "{}"}}),
        json!({"type": "servicebinding.io/http"}),
    ] {
        let fault = validate(&link(json!({ "secret": secret }))).err();
        assert_eq!(fault, None, "{secret}");
    }
    let fault = validate(&link(json!({"secret": {"type": "kubernetes.io/dockerconfigjson"}})));
    assert!(fault.expect_err("refused").message.contains("the key .dockerconfigjson"));
}

#[test]
fn the_two_directions_have_two_secrets() {
    let mut both = link(json!({"secret": {"name": "l-oauth"}}));
    both.spec.incoming = serde_json::from_value(json!({"oauth2": {}})).expect("incoming");
    assert_eq!(validate(&both).expect_err("one name").field, "spec.outgoing.secret.name");
    both.spec.outgoing = None;
    assert!(validate(&both).is_ok());
    both.spec.incoming = None;
    assert_eq!(validate(&both).expect_err("nothing to do").field, "spec");
}

#[test]
fn incoming_faults_name_their_field() {
    let cases = [
        (json!({"redirectUris": ["https://a.example/cb", "http://a.example/cb"]}), "redirectUris[1]"),
        (json!({"redirectUris": ["https://a.example/*#x"]}), "redirectUris[0]"),
        (json!({"grantTypes": []}), "grantTypes"),
        (json!({"grantTypes": ["authorization_code"]}), "redirectUris"),
        (json!({"tokenEndpointAuthMethod": "none"}), "tokenEndpointAuthMethod"),
        (json!({"scopes": ["a\"b"]}), "scopes[0]"),
    ];
    for (oauth2, field) in cases {
        let mut one = link(json!({}));
        one.spec.outgoing = None;
        one.spec.incoming = serde_json::from_value(json!({ "oauth2": oauth2 })).expect("incoming");
        let fault = validate(&one).expect_err("refused");
        assert_eq!(fault.field, format!("spec.incoming.oauth2.{field}"), "{fault}");
    }
}

#[test]
fn the_two_annotations_of_a_rotation_are_one_request() {
    let request = |rotate: Option<&str>, now: Option<&str>| {
        let pairs = [(names::ROTATE, rotate), (names::ROTATE_NOW, now)];
        let all = pairs.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        rotation_request(&all)
    };
    assert_eq!(request(None, Some(" ")), None);
    let both = request(Some("a"), Some("b")).expect("a request");
    assert_eq!(both.value, "a,b");
    // Only the part that is new counts: an old `rotate-now` doesn't cut off the overlap of a new `rotate`.
    for (last, now) in [("", true), ("b", false), ("x,b", false), ("a", true), ("bb", true)] {
        assert_eq!(both.is_now(last), now, "{last}");
    }
    let long = request(Some(&"x".repeat(500)), None).expect("a request");
    assert_eq!(long.value.len(), 64);
    assert_eq!(request(Some("a\nb"), None).expect("a request").value.len(), 64);
}

#[test]
fn a_preset_fills_and_the_spec_overrides() {
    let goal = |server: Value, scopes: Value| {
        let seed = json!({"secretRef": {"name": "s", "key": "k"}});
        let mut server = server;
        server["custom"] = Value::Null;
        let grant = json!({"clientCredentials": null, "refreshToken": seed});
        let change = json!({"oauth2": {"server": server, "grant": grant, "scopes": scopes}});
        validate(&link(change)).expect("valid").outgoing.expect("outgoing")
    };
    let microsoft = goal(json!({"microsoft": {"tenant": "common"}}), json!(["a"]));
    assert_eq!((microsoft.server.preset.name, microsoft.server.named), ("microsoft", false));
    assert_eq!(microsoft.scopes.to_string(), "a offline_access", "else the refresh token would end");
    assert_eq!(goal(json!({"microsoft": {"tenant": "common"}}), Value::Null).scopes.to_string(), "");
    let client = microsoft.client.expect("a client");
    assert!(matches!(client.auth, ClientAuthGoal::Secret { method: AuthMethod::ClientSecretPost, .. }));
    let own = goal(
        json!({"gitlab": {"url": "https://g.example", "endpoints": {"revocationEndpoint": "https://r.example/r"}}}),
        Value::Null,
    );
    assert!(own.server.named);
    let ServerPlace::Endpoints(endpoints) = own.server.place else { panic!("endpoints") };
    assert_eq!(endpoints.token_endpoint.as_str(), "https://g.example/oauth/token");
    assert_eq!(endpoints.revocation_endpoint.expect("one").as_str(), "https://r.example/r");
}
