//! Ory Hydra, the real one.

use std::collections::BTreeMap;

use applink_operator::domain::{ClientId, ExposeSecret as _, SecretString};
use applink_operator::http::HttpClient;
use applink_operator::provider::hydra::HydraProvider;
use applink_operator::provider::{Provider, ProviderError};
use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use url::Url;

use super::conformance::conformance;
use super::faults::faults;
use super::subject::{CALLBACK, Give, Port, Subject, Tokens, http_client, uris};
use crate::support::hydra::Hydra;
use crate::support::stage::browser;
use crate::support::stage::http;

/// One for each case: on SQLite, Hydra refuses what happens at the same moment.
struct TheHydra(Hydra);

impl Subject for TheHydra {
    async fn start() -> Self {
        Self(Hydra::start().await)
    }

    fn at_once(&self) -> usize {
        1
    }

    fn bases(&self) -> Vec<String> {
        vec![self.0.issuer(), self.0.admin_url()]
    }

    fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
        let [public, admin] = [0, 1].map(|i| Url::parse(&bases[i]).expect("a URL"));
        Box::new(HydraProvider::new(http, public, admin, Some("canary-token-of-a-proxy".into())))
    }

    fn issuer(&self) -> String {
        self.0.issuer()
    }

    fn scope_sets(&self) -> Vec<&'static str> {
        vec!["offline", "", "offline openid", "a:b c/d e!~ f"]
    }

    fn many(&self) -> usize {
        1200
    }

    async fn make_by_hand(&self, id: &str, secret: &str) -> Option<()> {
        let body = json!({"client_id": id, "client_secret": secret});
        assert_eq!(self.0.admin(Method::POST, "/admin/clients", Some(body)).await.0, 201);
        Some(())
    }

    async fn rename_by_hand(&self, id: &ClientId, name: &str) -> Option<()> {
        edit(&self.0, id, "/client_name", json!(name)).await;
        Some(())
    }

    async fn tokens(&self, id: &ClientId, secret: &SecretString) -> Option<Tokens> {
        Some(person(&self.0, id, secret).await)
    }

    async fn is_active(&self, _: &ClientId, _: &SecretString, token: &str) -> bool {
        let url = format!("{}/admin/oauth2/introspect", self.0.admin_url());
        let answer = http().post(url).form(&[("token", token)]).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["active"].as_bool().expect("active")
    }
}

conformance!(TheHydra);
faults!(TheHydra);

/// Changes one field of a client by hand.
async fn edit(hydra: &Hydra, id: &ClientId, pointer: &str, value: Value) {
    let patch = json!([{"op": "add", "path": pointer, "value": value}]);
    let (status, answer) = hydra.admin(Method::PATCH, &format!("/admin/clients/{id}"), Some(patch)).await;
    assert_eq!(status, 200, "{answer}");
}

/// A person logs in, consents, and the client gets its tokens for the code.
async fn person(hydra: &Hydra, id: &ClientId, secret: &SecretString) -> Tokens {
    let browser = browser();
    let mut cookies = BTreeMap::new();
    let mut at = Url::parse(&format!("{}/oauth2/auth", hydra.issuer())).expect("a URL");
    at.query_pairs_mut()
        .append_pair("client_id", id.as_str())
        .append_pair("response_type", "code")
        .append_pair("scope", "offline")
        .append_pair("redirect_uri", CALLBACK)
        .append_pair("state", "state-of-the-browser");
    let accepted = [("login", json!({"subject": "ada"})), ("consent", json!({"grant_scope": ["offline"]}))];
    for (step, body) in accepted {
        let next = visit(&browser, &mut cookies, at).await;
        let name = format!("{step}_challenge");
        let challenge = query(&next, &name);
        let path = format!("/admin/oauth2/auth/requests/{step}/accept?{name}={challenge}");
        let (status, answer) = hydra.admin(Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        at = answer["redirect_to"].as_str().and_then(|u| Url::parse(u).ok()).expect("a redirect");
    }
    let code = query(&visit(&browser, &mut cookies, at).await, "code");
    let form = [("grant_type", "authorization_code"), ("code", &code), ("redirect_uri", CALLBACK)];
    let request = http().post(format!("{}/oauth2/token", hydra.issuer())).form(&form);
    let answer = request.basic_auth(id, Some(secret.expose_secret())).send().await.expect("an answer");
    let tokens: Value = answer.json().await.expect("JSON");
    let text = |name: &str| tokens[name].as_str().unwrap_or_else(|| panic!("{tokens}")).to_owned();
    Tokens { access: text("access_token"), refresh: text("refresh_token") }
}

/// Goes where a browser is sent, and says where that sends it.
async fn visit(browser: &reqwest::Client, cookies: &mut BTreeMap<String, String>, at: Url) -> Url {
    let all: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let answer = browser.get(at).header(COOKIE, all.join("; ")).send().await.expect("an answer");
    for cookie in answer.headers().get_all(SET_COOKIE) {
        let cookie = cookie.to_str().expect("text").split(';').next().expect("a cookie");
        let (name, value) = cookie.split_once('=').expect("a cookie");
        cookies.insert(name.to_owned(), value.to_owned());
    }
    let next = answer.headers().get(LOCATION).expect("a redirect").to_str().expect("text");
    Url::parse(next).expect("a URL")
}

fn query(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(n, _)| n == name);
    found.unwrap_or_else(|| panic!("{url} has no {name}")).1.into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_link_doesnt_speak_of_stays() {
    let subject = TheHydra::start().await;
    let port = Port::of(&subject).await;
    let (mut client, mut metadata) = port.register("foreign-fields").await;
    for (pointer, value) in [
        ("/metadata/team", json!({"name": "ä", "on-call": [1, 2]})),
        ("/audience", json!(["https://api.example.com"])),
        ("/skip_consent", json!(true)),
        ("/logo_uri", json!("https://ci.example.com/logo.png")),
    ] {
        edit(&subject.0, &client.id, pointer, value).await;
    }
    let lifespans = json!({"client_credentials_grant_access_token_lifespan": "17m0s"});
    let path = format!("/admin/clients/{}/lifespans", client.id);
    assert_eq!(subject.0.admin(Method::PUT, &path, Some(lifespans)).await.0, 200);
    let seen = port.look(&mut client).await.expect("it is there");
    assert_eq!(seen.metadata.as_ref(), Some(&metadata), "nothing that a link speaks of is otherwise");
    metadata.redirect_uris = uris(&["https://ci.example.com/new"]);
    // A change, and one that makes the client anew.
    for revoke in [false, true] {
        let mut put = port.request(&client, &metadata, Give::New);
        put.revoke_tokens = revoke;
        let got = port.provider.put(&put).await.expect("changed");
        port.note(&mut client, &put, &got);
        let seen = port.look(&mut client).await.expect("it is there");
        port.stands(&client, &metadata, &seen, "after a change");
        let (_, there) = subject.0.admin(Method::GET, &format!("/admin/clients/{}", client.id), None).await;
        assert_eq!(there["metadata"]["team"], json!({"name": "ä", "on-call": [1, 2]}));
        assert_eq!(there["audience"], json!(["https://api.example.com"]));
        assert_eq!(there["skip_consent"], json!(true));
        assert_eq!(there["logo_uri"], json!("https://ci.example.com/logo.png"));
        assert_eq!(there["client_credentials_grant_access_token_lifespan"], json!("17m0s"), "{there}");
    }
    port.provider.delete(&client.at, None).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_edited_reads_as_another_client_and_is_put_right() {
    let subject = TheHydra::start().await;
    let port = Port::of(&subject).await;
    let (mut client, metadata) = port.register("edited").await;
    for (pointer, value, ours) in [
        ("/client_name", json!("edited"), true),
        ("/scope", json!("offline openid"), true),
        ("/redirect_uris", json!(["https://evil.example.com/"]), true),
        ("/redirect_uris", json!(["http://evil.example.com/", "app://x"]), false),
        ("/grant_types", json!(["implicit"]), false),
        ("/grant_types", json!(["client_credentials"]), true),
        ("/response_types", json!(["token", "code"]), false),
        ("/token_endpoint_auth_method", json!("none"), true),
        ("/token_endpoint_auth_method", json!("client_secret_post"), true),
        ("/client_uri", json!("https://evil.example.com/"), true),
    ] {
        edit(&subject.0, &client.id, pointer, value.clone()).await;
        let seen = port.look(&mut client).await.expect("it is there");
        assert_ne!(seen.metadata.as_ref(), Some(&metadata), "{pointer} {value}");
        assert_eq!(seen.metadata.is_some(), ours, "{pointer} {value}");
        assert_eq!(seen.owner.as_ref(), Some(&client.owner));
        port.put(&mut client, &metadata, Give::Same).await;
    }
    // An owner's record that can't be read is somebody else's.
    edit(&subject.0, &client.id, "/metadata/applink-operator.io~1owner", json!({"installation": 7})).await;
    assert_eq!(port.look(&mut client).await.expect("it is there").owner, None);
    let refused = port.try_put(&mut client, &metadata, Give::Same).await;
    assert_eq!(refused.err(), Some(ProviderError::ForeignOwner));
    // Metadata that isn't an object has no owner, and is nothing that could be kept.
    edit(&subject.0, &client.id, "/metadata", json!(["a list"])).await;
    assert_eq!(port.look(&mut client).await.expect("it is there").owner, None);
    port.put(&mut client, &metadata, Give::Same).await;
    port.provider.delete(&client.at, None).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_address_is_said_to_be_wrong() {
    let subject = TheHydra::start().await;
    let (public, admin) = (subject.0.issuer(), subject.0.admin_url());
    for (bases, word) in [
        ([public.clone(), public.clone()], "spec.hydra.admin.url"),
        ([admin.clone(), admin.clone()], "spec.hydra.url"),
        ([public.clone(), format!("{admin}/admin")], "spec.hydra.admin.url"),
    ] {
        let adapter = subject.adapter(http_client(), &bases);
        let Err(e) = adapter.info().await else { panic!("{bases:?} is taken for Hydra") };
        assert!(e.to_string().contains(word), "{e}");
    }
    // The admin API's 404 alone means that there is no such client.
    let adapter = subject.adapter(http_client(), &[public.clone(), public]);
    let port = Port::of(&subject).await;
    let client = port.unknown("nobody");
    assert!(matches!(adapter.get(&client.at).await, Err(ProviderError::Unexpected { status: 404, .. })));
    let deleted = adapter.delete(&client.at, None).await;
    assert!(matches!(deleted, Err(ProviderError::Unexpected { status: 404, .. })), "{deleted:?}");
}
