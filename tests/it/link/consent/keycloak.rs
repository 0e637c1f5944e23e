//! Keycloak 26: a browser, a device code, the wrong account.

use kube::api::{Patch, PatchParams};
use reqwest::Method;
use serde_json::{Value, json};

use super::{authorize, link, nothing_left, redirect_uri, stage};
use crate::support::browser::{Browser, PHONE};
use crate::support::keycloak::Realm;
use crate::support::stage::{SOON, Stage, http};
use crate::support::wait::eventually;

const SECRET: &str = "only-for-tests-links-0123456789";

/// A realm with two people, and a client that needs their consent.
async fn realm(redirect_uri: &str) -> Realm {
    let person = |name: &str| {
        json!({
            "username": name, "enabled": true, "email": format!("{name}@example.com"), "emailVerified": true,
            "firstName": name, "lastName": "Tester",
            "credentials": [{"type": "password", "value": format!("{name}-password"), "temporary": false}],
            "requiredActions": [],
        })
    };
    let realm = Realm::with(json!({})).await;
    for name in ["ann", "bob"] {
        let (status, body) = realm.admin(Method::POST, "/users", Some(person(name))).await;
        assert_eq!(status, 201, "{body}");
    }
    let client = json!({
        "clientId": "links", "secret": SECRET, "redirectUris": [redirect_uri], "consentRequired": true,
        "standardFlowEnabled": true,
        "attributes": {"oauth2.device.authorization.grant.enabled": "true"},
    });
    let (status, body) = realm.admin(Method::POST, "/clients", Some(client)).await;
    assert_eq!(status, 201, "{body}");
    realm
}

/// A link to a realm that doesn't know the redirect URI before the link shows it.
async fn connected_to(stage: &Stage<'_>, name: &str, grant: Value) -> Realm {
    // The realm's name is known before its client is.
    let realm = realm("http://127.0.0.1/unknown").await;
    let team = stage.team().to_owned();
    let more = json!({"grant": grant, "scopes": ["openid", "profile", "email"]});
    let mut link = link(name, json!({"issuer": realm.issuer()}), more);
    link["spec"]["outgoing"]["oauth2"]["grant"].as_object_mut().expect("a grant").retain(|_, v| !v.is_null());
    stage.apply_object(&team, &link).await;
    if grant["authorizationCode"].is_object() {
        // Shown though the client's Secret isn't there yet, so that it can be registered first.
        let uri = redirect_uri(stage, name).await;
        let id = realm.client("links").await.expect("the client")["id"].clone();
        let path = format!("/clients/{}", id.as_str().expect("an ID"));
        let (status, body) =
            realm.admin(Method::PUT, &path, Some(json!({"clientId": "links", "redirectUris": [uri]}))).await;
        assert_eq!(status, 204, "{body}");
    }
    stage
        .put_secret(&team, &format!("{name}-client"), &[("client-id", "links"), ("client-secret", SECRET)])
        .await;
    stage.condition(&team, name, "Ready", "False", "AuthorizationRequired").await;
    realm
}

async fn user_info(realm: &Realm, token: &str) -> (u16, Value) {
    let url = format!("{}/protocol/openid-connect/userinfo", realm.issuer());
    let answer = http().get(url).bearer_auth(token).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

async fn sign_in(browser: &Browser, name: &str) {
    browser.fill("#username", name).await;
    browser.fill("#password", &format!("{name}-password")).await;
    browser.click("#kc-login").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_a_link_in_a_browser() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let realm = connected_to(&stage, "tracker", json!({"authorizationCode": {}})).await;

    let tool = authorize(&stage, "tracker", &[]);
    let address = tool.address().await;
    let browser = Browser::start().await;
    browser.goto(&address).await;
    let page = browser.shows("main", "Issue tracker").await;
    for part in [format!("{team}/tracker").as_str(), "openid", "profile", "email", "127.0.0.1"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    browser.shot("consent-1-invitation").await;
    browser.click("button").await;
    sign_in(&browser, "ann").await;
    // Keycloak's own page of consent.
    browser.click("#kc-login[name=accept], input[name=accept], button[name=accept]").await;
    let page = browser.shows("main", "One step is left").await;
    assert!(page.contains("ann") && page.contains("profile"), "{page}");
    browser.shot("consent-2-granted").await;
    browser.resize(PHONE).await;
    assert!(browser.overflow().await <= 0, "wider than a phone");
    browser.shot("consent-2-granted-phone").await;
    assert!(!tool.said().contains("connected"), "it isn't active before the code is back: {}", tool.said());
    let before = stage.links(&team).get("tracker").await.expect("the link").status.and_then(|s| s.outgoing);
    assert!(before.is_some_and(|o| o.connected.is_none() && o.expires_at.is_none()));
    browser.click("button").await;
    browser.shows("body", "Received").await;
    let (code, said) = tool.end().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("connected as "), "{said}");

    let ready = stage.ready(&team, "tracker").await;
    let connected =
        ready.status.and_then(|s| s.outgoing).and_then(|o| o.connected).expect("who connected it");
    assert_eq!(connected.issuer, Some(realm.issuer()));
    let data = stage.data(&team, "tracker-token").await;
    let (status, who) = user_info(&realm, &data["access-token"]).await;
    assert_eq!((status, &who["preferred_username"]), (200, &json!("ann")), "{who}");
    assert_eq!(connected.subject.as_deref(), who["sub"].as_str());
    assert!(!data.values().any(|v| v.contains("refresh")), "no refresh token in a tenant's Secret");
    nothing_left(&stage, "tracker").await;

    // It is kept fresh like any other: asked for anew where the Secret is gone.
    kube::Api::delete(&stage.secrets(&team), "tracker-token", &kube::api::DeleteParams::default())
        .await
        .expect("deleted");
    eventually(SOON, "the token's Secret again", async || {
        stage.secrets(&team).get("tracker-token").await.map(drop).map_err(|e| e.to_string())
    })
    .await;
    stage.delete(&team, "tracker").await;
    let (status, _) = user_info(&realm, &data["access-token"]).await;
    assert_eq!(status, 401, "revoked with the link");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_is_typed_connects_too_also_at_another_replica_and_a_slip_does_not() {
    let mut stage = stage().await;
    let realm = connected_to(&stage, "typed", json!({"authorizationCode": {}})).await;
    let mut tool = authorize(&stage, "typed", &["--no-browser"]);
    let address = tool.address().await;
    // Without scripts, in the dark.
    let options = crate::support::browser::Options { javascript: false, dark: true, ..Default::default() };
    let browser = Browser::with(options).await;
    browser.goto(&address).await;
    browser.shot("consent-1-invitation-dark").await;
    browser.click("button").await;
    browser.shows("body", "Sign in").await;
    // Whoever takes the answer, and later the code, isn't the one that began.
    stage.operator.stop().await;
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    sign_in(&browser, "ann").await;
    browser.click("#kc-login[name=accept], input[name=accept], button[name=accept]").await;
    let code = browser.text(".code code").await;
    assert!(!browser.has("form").await, "nothing listens here");
    stage.operator.stop().await;
    stage.operator.start().await;
    stage.operator.until_ready(SOON).await;
    let slip = if code.starts_with('A') { code.replacen('A', "B", 1) } else { format!("A{}", &code[1..]) };
    tool.type_in(&slip).await;
    tool.line("isn't a code").await;
    tool.type_in(&code.to_lowercase()).await;
    let (exit, said) = tool.end().await;
    assert_eq!(exit, Some(0), "{said}");
    stage.ready(stage.team(), "typed").await;
    drop(realm);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_expected_account_is_connected() {
    let stage = stage().await;
    let realm =
        connected_to(&stage, "picky", json!({"authorizationCode": {"expectedAccount": {"subject": "x"}}}))
            .await;
    let tool = authorize(&stage, "picky", &[]);
    let address = tool.address().await;
    let browser = Browser::start().await;
    browser.goto(&address).await;
    browser.click("button").await;
    sign_in(&browser, "bob").await;
    browser.click("#kc-login[name=accept], input[name=accept], button[name=accept]").await;
    let page = browser.shows("main", "another account").await;
    assert!(page.contains("OtherAccount"), "{page}");
    browser.shot("consent-3-other-account").await;
    let (exit, said) = tool.end().await;
    assert!(exit == Some(1) && said.contains("came to nothing"), "{said}");
    stage.condition(stage.team(), "picky", "Ready", "False", "AuthorizationRequired").await;
    nothing_left(&stage, "picky").await;
    // What bob granted was given back.
    let (status, sessions) = realm.admin(Method::GET, "/client-session-stats", None).await;
    assert_eq!(status, 200, "{sessions}");
    assert!(
        !sessions.as_array().expect("a list").iter().any(|s| s["clientId"] == "links" && s["active"] != "0"),
        "{sessions}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_code_connects_a_link() {
    let stage = stage().await;
    let realm = connected_to(&stage, "device", json!({"authorizationCode": null, "deviceCode": {}})).await;
    let mut tool = authorize(&stage, "device", &[]);
    let address = tool.line("user_code=").await;
    let links = stage.links(stage.team());
    let shown = serde_json::to_string(&links.get("device").await.expect("the link")).expect("JSON");
    let code = address.split("user_code=").nth(1).expect("a code").to_owned();
    assert!(!shown.contains(&code), "the code is for who runs the tool alone");
    let browser = Browser::start().await;
    browser.goto(&address).await;
    sign_in(&browser, "ann").await;
    browser.click("#kc-login[name=accept], input[name=accept], button[name=accept]").await;
    tool.line("Granted by ann").await;
    stage.condition(stage.team(), "device", "Ready", "False", "AuthorizationRequired").await;
    tool.type_in("y").await;
    let (exit, said) = tool.end().await;
    assert_eq!(exit, Some(0), "{said}");
    stage.ready(stage.team(), "device").await;
    let data = stage.data(stage.team(), "device-token").await;
    assert_eq!(user_info(&realm, &data["access-token"]).await.0, 200);
    nothing_left(&stage, "device").await;

    // The account that a link names is held to also when the name is younger than the grant.
    for (expected, ready) in [(json!({"subject": "somebody-else"}), false), (Value::Null, true)] {
        let grant = json!({"deviceCode": {"expectedAccount": expected}});
        let patch = json!({"spec": {"outgoing": {"oauth2": {"grant": grant}}}});
        links.patch("device", &PatchParams::default(), &Patch::Merge(patch)).await.expect("a change");
        match ready {
            true => drop(stage.ready(stage.team(), "device").await),
            false => drop(stage.condition(stage.team(), "device", "Ready", "False", "OtherAccount").await),
        }
    }
}
