//! Keycloak, the real one: realms without and with a policy that rotates secrets.

use std::collections::BTreeMap;

use applink_operator::domain::{ClientId, ExposeSecret as _, ScopeSet, SecretString};
use applink_operator::http::HttpClient;
use applink_operator::provider::keycloak::KeycloakProvider;
use applink_operator::provider::{ClientRef, Previous, Proof, Provider, ProviderError, PutSecret};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use url::Url;

use super::conformance::conformance;
use super::faults::faults;
use super::subject::{CALLBACK, Give, Known, Port, Subject, Tokens, http_client, new_secret};
use crate::support::keycloak::Realm;
use crate::support::stage::browser;
use crate::support::stage::http;
use crate::support::wait::{SOON, eventually};

const PASSWORD: &str = "only-for-tests-of-ada";

/// A subject that is a realm; `start` says which one a case gets.
macro_rules! realm {
    ($name:ident, $start:expr) => {
        struct $name(&'static Realm);

        impl Subject for $name {
            async fn start() -> Self {
                Self($start.await)
            }

            fn bases(&self) -> Vec<String> {
                vec![self.0.keycloak().url().to_owned()]
            }

            fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
                Box::new(adapter(self.0, http, &bases[0]))
            }

            fn issuer(&self) -> String {
                self.0.issuer()
            }

            fn scope_sets(&self) -> Vec<&'static str> {
                vec!["email", "", "openid", "offline_access openid phone profile"]
            }

            fn logs_in_anew(&self) -> bool {
                true
            }

            fn longest_uri(&self) -> usize {
                255
            }

            fn many(&self) -> usize {
                130
            }

            async fn make_by_hand(&self, id: &str, secret: &str) -> Option<()> {
                let body = json!({"clientId": id, "secret": secret, "attributes": {"foreign": "stays"}});
                let (status, answer) = self.0.admin(Method::POST, "/clients", Some(body)).await;
                assert_eq!(status, 201, "{answer}");
                Some(())
            }

            async fn rename_by_hand(&self, id: &ClientId, name: &str) -> Option<()> {
                edit(self.0, id.as_str(), json!({ "name": name })).await;
                Some(())
            }

            async fn tokens(&self, id: &ClientId, secret: &SecretString) -> Option<Tokens> {
                Some(person(self.0, id, secret).await)
            }

            async fn is_active(&self, _: &ClientId, _: &SecretString, token: &str) -> bool {
                let request = http()
                    .post(format!("{}/protocol/openid-connect/token/introspect", self.0.issuer()))
                    .basic_auth(&self.0.operator_id, Some(&self.0.operator_secret))
                    .form(&[("token", token)]);
                let answer: Value = request.send().await.expect("an answer").json().await.expect("JSON");
                answer["active"].as_bool().expect("active")
            }
        }
    };
}

/// One realm for all the cases of a subject.
async fn shared(cell: &'static OnceCell<Realm>, make: impl Future<Output = Realm>) -> &'static Realm {
    cell.get_or_init(async || with_ada(make.await).await).await
}

static PLAIN: OnceCell<Realm> = OnceCell::const_new();
static ROTATING: OnceCell<Realm> = OnceCell::const_new();

realm!(Plain, shared(&PLAIN, Realm::new()));
realm!(Rotating, shared(&ROTATING, Realm::rotating()));
// How many requests a call makes depends on what others do in the realm meanwhile.
realm!(Apart, async { &*Box::leak(Box::new(with_ada(Realm::rotating().await).await)) });

mod plain {
    use super::*;
    conformance!(Plain);
}

mod rotating {
    use super::*;
    conformance!(Rotating);
    faults!(Apart);
}

fn adapter(realm: &Realm, http: HttpClient, base: &str) -> KeycloakProvider {
    as_client(realm, http, base, &realm.name, &realm.operator_id, &realm.operator_secret)
}

fn as_client(
    _: &Realm,
    http: HttpClient,
    base: &str,
    realm: &str,
    id: &str,
    secret: &str,
) -> KeycloakProvider {
    let base = Url::parse(base).expect("a URL");
    KeycloakProvider::new(http, base, realm, ClientId::parse(id).expect("an ID"), secret.into())
}

async fn with_ada(realm: Realm) -> Realm {
    let ada = json!({
        "username": "ada", "enabled": true, "email": "ada@example.com", "firstName": "Ada", "lastName": "L",
        "credentials": [{"type": "password", "value": PASSWORD, "temporary": false}],
    });
    let (status, answer) = realm.admin(Method::POST, "/users", Some(ada)).await;
    assert_eq!(status, 201, "{answer}");
    realm
}

/// Changes fields of a client by hand.
async fn edit(realm: &Realm, id: &str, mut change: Value) {
    let there = realm.client(id).await.expect("the client");
    if change["attributes"].is_null() {
        change["attributes"] = json!({});
    }
    let path = format!("/clients/{}", there["id"].as_str().expect("a key"));
    let (status, answer) = realm.admin(Method::PUT, &path, Some(change)).await;
    assert_eq!(status, 204, "{answer}");
}

async fn visit(cookies: &mut BTreeMap<String, String>, request: RequestBuilder) -> Response {
    let jar: Vec<_> = cookies.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let answer = request.header(COOKIE, jar.join("; ")).send().await.expect("a page");
    for cookie in answer.headers().get_all(SET_COOKIE) {
        let pair = cookie.to_str().expect("text").split(';').next().expect("a pair");
        let (name, value) = pair.split_once('=').expect("a name");
        cookies.insert(name.to_owned(), value.to_owned());
    }
    answer
}

/// A person logs in, and the client gets its tokens for the code.
async fn person(realm: &Realm, id: &ClientId, secret: &SecretString) -> Tokens {
    let browser = browser();
    let mut cookies = BTreeMap::new();
    let mut at = Url::parse(&format!("{}/protocol/openid-connect/auth", realm.issuer())).expect("a URL");
    at.query_pairs_mut()
        .append_pair("client_id", id.as_str())
        .append_pair("response_type", "code")
        .append_pair("scope", "openid")
        .append_pair("redirect_uri", CALLBACK);
    let page = visit(&mut cookies, browser.get(at)).await.text().await.expect("a page");
    let (_, rest) = page.split_once("action=\"").unwrap_or_else(|| panic!("no form: {page}"));
    let action = rest.split('"').next().expect("an address").replace("&amp;", "&");
    let login = browser.post(action).form(&[("username", "ada"), ("password", PASSWORD)]);
    let answer = visit(&mut cookies, login).await;
    let to = answer.headers().get(LOCATION).expect("a redirect").to_str().expect("text");
    let to = Url::parse(to).expect("a URL");
    let (_, code) = to.query_pairs().find(|(k, _)| k == "code").unwrap_or_else(|| panic!("no code: {to}"));
    let answer: Value = http()
        .post(format!("{}/protocol/openid-connect/token", realm.issuer()))
        .basic_auth(id.as_str(), Some(secret.expose_secret()))
        .form(&[("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)])
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    // Keycloak dates in seconds, and can't tell a token of this one from one of a later client.
    let second = jiff::Timestamp::now().as_second();
    eventually(SOON, "the next second", async || jiff::Timestamp::now().as_second() > second).await;
    let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Tokens { access: text("access_token"), refresh: text("refresh_token") }
}

fn at(id: &str) -> ClientRef {
    ClientRef { id: ClientId::parse(id).expect("an identifier"), handle: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_secrets_are_promised_where_a_policy_rotates_them_and_the_look_leaves_nothing() {
    let (plain, rotating) = (Plain::start().await, Rotating::start().await);
    assert!(!Port::of(&plain).await.can.overlaps);
    assert!(Port::of(&rotating).await.can.overlaps);
    let probe = "applink-operator-probe";
    for realm in [plain.0, rotating.0] {
        assert!(realm.client(probe).await.is_none());
    }

    // A client of somebody who has that name is left alone, and seen as no client of a link.
    let realm = Realm::rotating().await;
    let (status, _) = realm.admin(Method::POST, "/clients", Some(json!({"clientId": probe}))).await;
    assert_eq!(status, 201);
    let there = realm.client(probe).await;
    let provider = adapter(&realm, http_client(), realm.keycloak().url());
    provider.info().await.expect("it answers");
    assert!(!provider.capabilities().overlaps, "nobody knows");
    assert_eq!(realm.client(probe).await, there);
    assert!(provider.get(&at(probe)).await.expect("seen").expect("there").protected);

    // A policy that goes is noticed before the old secret is lost.
    let subject = Gone(&realm);
    let port = Port { provider: Box::new(provider), ..subject.port().await };
    let (mut client, metadata) = port.register("policy").await;
    let old = client.secret.clone().expect("a secret");
    port.put(&mut client, &metadata, Give::Same).await;
    let none = json!({"policies": []});
    let (status, answer) = realm.admin(Method::PUT, "/client-policies/policies", Some(none)).await;
    assert_eq!(status, 204, "{answer}");
    let refused = port.try_put(&mut client, &metadata, Give::NewBeside).await;
    assert!(matches!(refused, Err(ProviderError::Unsupported { .. })), "{refused:?}");
    port.is(&client, &old, metadata.auth_method, Proof::Authenticated).await;
    assert!(!port.provider.capabilities().overlaps);
}

/// A realm that isn't shared.
struct Gone<'r>(&'r Realm);

impl<'r> Gone<'r> {
    async fn port(&self) -> Port<'static, Plain> {
        let plain: &'static Plain = Box::leak(Box::new(Plain::start().await));
        let provider = adapter(self.0, http_client(), self.0.keycloak().url());
        let info = provider.info().await.expect("it answers");
        let can = applink_operator::provider::Capabilities { overlaps: true, ..provider.capabilities() };
        Port { subject: plain, provider: Box::new(provider), info, can }
    }
}

/// Steps of a rotation, each of them twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_keeps_exactly_the_secrets_that_it_says() {
    let subject = Rotating::start().await;
    let port = Port::of(&subject).await;
    let (mut client, metadata) = port.register("steps").await;
    let [a, b, c] = [client.secret.clone().expect("a secret"), new_secret(), new_secret()];
    let until = jiff::Timestamp::now().as_second() + 3600;
    let beside = |s: &SecretString| Some(Previous { secret: s.clone(), until });
    let steps = [
        (&b, beside(&a), vec![&a, &b], vec![&c]),
        (&b, None, vec![&b], vec![&a, &c]),
        (&c, beside(&b), vec![&b, &c], vec![&a]),
        // Before its overlap has ended, one more: of three, the last two.
        (&a, beside(&c), vec![&a, &c], vec![&b]),
        (&a, None, vec![&a], vec![&b, &c]),
        (&b, None, vec![&b], vec![&a, &c]),
    ];
    for (i, (secret, previous, good, bad)) in steps.into_iter().enumerate() {
        for repeat in [false, true] {
            let mut put = port.request(&client, &metadata, Give::Kept);
            put.secret =
                PutSecret::Chosen { secret: secret.clone(), derived: true, previous: previous.clone() };
            port.provider.put(&put).await.unwrap_or_else(|e| panic!("step {i}, {repeat}: {e}"));
            let seen = port.look(&mut client).await.expect("there");
            assert_eq!(seen.has_previous, previous.is_some(), "step {i}");
            assert_eq!(
                seen.secret.map(|s| s.expose_secret().to_owned()).as_deref(),
                Some(secret.expose_secret())
            );
            assert!(seen.secret_expires_at > Some(until), "the policy's year begins");
            for good in &good {
                port.is(&client, good, metadata.auth_method, Proof::Authenticated).await;
            }
            for bad in &bad {
                port.is(&client, bad, metadata.auth_method, Proof::Refused).await;
            }
        }
    }
    // A client that was deleted amid an overlap comes back with both.
    port.provider.delete(&client.at, None).await.expect("deleted");
    port.look(&mut client).await;
    let mut put = port.request(&client, &metadata, Give::Kept);
    put.secret = PutSecret::Chosen { secret: c.clone(), derived: true, previous: beside(&b) };
    port.provider.put(&put).await.expect("made again");
    assert!(port.look(&mut client).await.expect("there").has_previous);
    for good in [&b, &c] {
        port.is(&client, good, metadata.auth_method, Proof::Authenticated).await;
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_has_ended_is_put_right_with_ours() {
    let subject = Rotating::start().await;
    let port = Port::of(&subject).await;
    for give in [Give::Same, Give::Kept, Give::New, Give::NewBeside] {
        let (mut client, metadata) = port.register("ended").await;
        let old = client.secret.clone().expect("a secret");
        let end = jiff::Timestamp::now().as_second() + 2;
        let change = json!({"attributes": {"client.secret.expiration.time": end.to_string()}});
        edit(subject.0, client.id.as_str(), change).await;
        eventually(SOON, "the secret to end", async || {
            port.prove(&client, &old, metadata.auth_method).await == Proof::Refused
        })
        .await;
        assert_eq!(port.look(&mut client).await.expect("there").secret_expires_at, Some(end));
        let seen = match give {
            Give::NewBeside => {
                port.try_put(&mut client, &metadata, give).await.expect("put");
                port.look(&mut client).await.expect("there")
            }
            _ => port.put(&mut client, &metadata, give).await,
        };
        assert!(seen.secret_expires_at > Some(end), "{give:?}");
        let secret = client.secret.clone().expect("a secret");
        assert_eq!(seen.secret.expect("readable").expose_secret(), secret.expose_secret(), "{give:?}");
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
        port.provider.delete(&client.at, None).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_own_clients_and_the_operators_are_never_touched() {
    let subject = Plain::start().await;
    let port = Port::of(&subject).await;
    let metadata = port.metadata("mine");
    let own =
        ["account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console"];
    let page = port.provider.list(None).await.expect("a page");
    for id in own.into_iter().chain([subject.0.operator_id.as_str()]) {
        let before = subject.0.client(id).await.expect("there");
        let mut client = Known { secret: Some(new_secret()), ..port.unknown("own") };
        (client.at, client.id) = (at(id), at(id).id);
        let seen = port.look(&mut client).await.expect("there");
        assert!(seen.protected, "{id}");
        let listed = page.clients.iter().find(|c| c.id.as_str() == id);
        assert!(listed.is_none_or(|c| c.protected), "{id}");
        for (exists, version) in [(true, seen.version.clone()), (true, None), (false, None)] {
            (client.exists, client.version) = (exists, version);
            for give in [Give::Same, Give::Kept] {
                let refused = port.try_put(&mut client, &metadata, give).await;
                assert_eq!(refused.err(), Some(ProviderError::ForeignOwner), "{id}");
            }
        }
        let refused = port.provider.delete(&client.at, None).await;
        assert_eq!(refused, Err(ProviderError::ForeignOwner), "{id}");
        assert_eq!(subject.0.client(id).await, Some(before));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_by_hand_are_seen_and_put_right_and_the_rest_stays() {
    let subject = Plain::start().await;
    let port = Port::of(&subject).await;
    let (mut client, metadata) = port.register("edited").await;
    let id = client.id.as_str().to_owned();
    for (change, has_metadata) in [
        (json!({"enabled": false}), false),
        (json!({"directAccessGrantsEnabled": true}), false),
        (json!({"implicitFlowEnabled": true}), false),
        (json!({"redirectUris": ["*"]}), false),
        (json!({"clientAuthenticatorType": "client-jwt"}), false),
        (json!({"attributes": {"oauth2.device.authorization.grant.enabled": "true"}}), false),
        (json!({"standardFlowEnabled": false}), true),
        (json!({"name": "other", "baseUrl": ""}), true),
        (json!({"publicClient": true}), true),
        (json!({"attributes": {"use.refresh.tokens": "false"}}), true),
        (json!({"secret": "by-hand"}), true),
    ] {
        edit(subject.0, &id, change.clone()).await;
        let seen = port.look(&mut client).await.expect("there");
        assert_eq!(seen.metadata.is_some(), has_metadata, "{change}");
        let secret = seen.secret.as_ref().map(|s| s.expose_secret().to_owned());
        let is_ours = secret.as_deref() == client.secret.as_ref().map(|s| s.expose_secret());
        assert!(seen.metadata.as_ref() != Some(&metadata) || !is_ours, "{change}");
        port.put(&mut client, &metadata, Give::Same).await;
        let secret = client.secret.clone().expect("a secret");
        port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    }
    // What a link doesn't speak of.
    let foreign = json!({"description": "by hand", "consentRequired": true, "attributes": {"foreign": "x"}});
    edit(subject.0, &id, foreign).await;
    port.look(&mut client).await.expect("there");
    port.put(&mut client, &metadata, Give::New).await;
    let there = subject.0.client(&id).await.expect("there");
    assert_eq!((&there["description"], &there["consentRequired"]), (&json!("by hand"), &json!(true)));
    assert_eq!(there["attributes"]["foreign"], "x");
    assert_eq!(there["fullScopeAllowed"], false);
    assert!(there["attributes"]["applink-operator.io/owner"].is_string());

    // One that was renamed is found, and one that then has its name is another's.
    edit(subject.0, &id, json!({"clientId": format!("{id}-away")})).await;
    let seen = port.look(&mut client).await.expect("found by its key");
    assert!(seen.metadata.is_none() && seen.owner.is_some());
    let (status, _) = subject.0.admin(Method::POST, "/clients", Some(json!({ "clientId": id }))).await;
    assert_eq!(status, 201);
    let taken = port.look(&mut client).await.expect("there");
    assert_eq!(taken.owner, None);
    let refused = port.try_put(&mut Known { version: None, ..client.clone() }, &metadata, Give::New).await;
    assert_eq!(refused.err(), Some(ProviderError::ForeignOwner));
    port.provider.delete(&client.at, taken.version.as_deref()).await.expect("deleted");
    port.look(&mut client).await.expect("found by its key");
    port.put(&mut client, &metadata, Give::Same).await;
    port.provider.delete(&client.at, None).await.expect("deleted");
    assert!(subject.0.client(&id).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_those_that_a_token_names() {
    let subject = Plain::start().await;
    let port = Port::of(&subject).await;
    let offered = port.info.scopes.clone().expect("scopes");
    let named = offered.iter().map(|s| s.as_str()).collect::<Vec<_>>();
    for scope in ["openid", "email", "offline_access"] {
        assert!(named.contains(&scope), "{named:?}");
    }
    for claims in ["basic", "roles", "acr", "web-origins", "role_list", "service_account"] {
        assert!(!named.contains(&claims), "{named:?}");
    }
    let (mut client, mut metadata) = port.register("scopes").await;
    for unknown in ["nope", "basic", "role_list"] {
        let mut other = metadata.clone();
        other.scopes = ScopeSet::parse(&format!("email {unknown}")).expect("scopes");
        for exists in [true, false] {
            let mut attempt = if exists { client.clone() } else { port.unknown("unknown-scope") };
            let refused = port.try_put(&mut attempt, &other, Give::New).await;
            assert!(
                matches!(refused, Err(ProviderError::Rejected { code: "invalid-scope", .. })),
                "{unknown}: {refused:?}"
            );
        }
    }
    let secret = client.secret.clone().expect("a secret");
    port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
    // One that the realm just got is known at once.
    let scope = json!({"name": "builds:read", "protocol": "openid-connect"});
    let (status, answer) = subject.0.admin(Method::POST, "/client-scopes", Some(scope)).await;
    assert_eq!(status, 201, "{answer}");
    metadata.scopes = ScopeSet::parse("builds:read openid").expect("scopes");
    port.put(&mut client, &metadata, Give::Same).await;
    let there = subject.0.client(client.id.as_str()).await.expect("there");
    assert_eq!(there["optionalClientScopes"], json!(["builds:read"]));
    let given = there["defaultClientScopes"].as_array().expect("a list");
    assert!(given.contains(&json!("basic")) && !given.contains(&json!("profile")), "{given:?}");
    port.provider.delete(&client.at, None).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ended_or_was_forgotten_is_replaced() {
    let realm = Realm::with(json!({"accessTokenLifespan": 2})).await;
    let provider = adapter(&realm, http_client(), realm.keycloak().url());
    provider.info().await.expect("it answers");
    let old = realm.operator_token().await;
    let url = format!("{}/admin/realms/{}/clients", realm.keycloak().url(), realm.name);
    eventually(SOON, "the token to end", async || {
        http().get(&url).bearer_auth(&old).send().await.expect("an answer").status() == 401
    })
    .await;
    assert!(provider.get(&at("nobody")).await.expect("a new token").is_none());

    // The realm gets other keys: the token that is kept is nothing to it now.
    let subject = Plain::start().await;
    let realm = Realm::new().await;
    let provider = adapter(&realm, http_client(), realm.keycloak().url());
    provider.info().await.expect("it answers");
    let (_, keys) = realm.admin(Method::GET, "/components?type=org.keycloak.keys.KeyProvider", None).await;
    let mut gone = 0;
    for key in keys.as_array().expect("a list").iter().filter(|k| k["providerId"] == "rsa-generated") {
        let path = format!("/components/{}", key["id"].as_str().expect("an ID"));
        assert_eq!(realm.admin(Method::DELETE, &path, None).await.0, 204);
        gone += 1;
    }
    assert_eq!(gone, 1);
    let client = Port::of(&subject).await.unknown("nobody");
    assert!(provider.get(&client.at).await.expect("a new token").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keycloak_has_against_us_is_said() {
    let realm = &Plain::start().await.0;
    let url = realm.keycloak().url();
    let without_role = json!({"clientId": "no-role", "secret": "no-role", "serviceAccountsEnabled": true});
    let without_account = json!({"clientId": "no-account", "secret": "no-account"});
    for body in [without_role, without_account] {
        assert_eq!(realm.admin(Method::POST, "/clients", Some(body)).await.0, 201);
    }
    for (id, secret, status) in [
        (realm.operator_id.as_str(), "canary-of-a-wrong-secret", 401),
        ("canary-of-an-unknown-client", "x", 401),
        ("no-role", "no-role", 403),
        ("no-account", "no-account", 401),
    ] {
        let provider = as_client(realm, http_client(), url, &realm.name, id, secret);
        let error = provider.info().await.expect_err("refused");
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(
            matches!(error, ProviderError::Unauthorized { status: s, .. } if s == status),
            "{id}: {error}"
        );
    }
    for (base, name) in [(url.to_owned(), "nowhere"), (format!("{url}/auth"), realm.name.as_str())] {
        let provider =
            as_client(realm, http_client(), &base, name, &realm.operator_id, &realm.operator_secret);
        let error = provider.info().await.expect_err("not there").to_string();
        assert!(error.contains("spec.keycloak.realm"), "{error}");
    }
    // What Keycloak would answer 500 to isn't sent.
    let subject = Plain::start().await;
    let port = Port::of(&subject).await;
    let mut client = port.unknown("long");
    let mut metadata = port.metadata("long");
    metadata.name = "ü".repeat(256);
    let refused = port.try_put(&mut client, &metadata, Give::New).await;
    assert!(matches!(refused, Err(ProviderError::Rejected { code: "too-large", .. })), "{refused:?}");
    metadata.name = "ü".repeat(255);
    port.put(&mut client, &metadata, Give::New).await;
    port.provider.delete(&client.at, None).await.expect("deleted");
}
