//! Ory Hydra 2.3: a browser, fewer scopes than asked, refresh tokens that rotate, and a link that is mailed on.

use reqwest::Method;
use serde_json::{Value, json};

use super::{authorize, link, nothing_left, redirect_uri, stage};
use crate::support::browser::Browser;
use crate::support::consent_app::ConsentApp;
use crate::support::hydra::Hydra;
use crate::support::stage::{SOON, Stage};
use crate::support::wait::eventually;

const SECRET: &str = "only-for-tests-links-0123456789";
const SCOPES: &str = "openid offline_access builds:read builds:write";

/// A Hydra with a client for the link, which it knows once the link shows its redirect URI.
async fn connected_to(stage: &Stage<'_>, name: &str) -> Hydra {
    let app = ConsentApp::start().await;
    let hydra = Hydra::with_people(&app.login_url(), &app.consent_url()).await;
    app.serves(hydra.admin_url());
    let team = stage.team().to_owned();
    let scopes: Vec<_> = SCOPES.split(' ').collect();
    let more = json!({"scopes": scopes});
    stage.apply_object(&team, &link(name, json!({"issuer": hydra.issuer()}), more)).await;
    let uri = redirect_uri(stage, name).await;
    let client = json!({
        "client_id": "links", "client_secret": SECRET, "redirect_uris": [uri], "scope": SCOPES,
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let (status, body) = hydra.admin(Method::POST, "/admin/clients", Some(client)).await;
    assert_eq!(status, 201, "{body}");
    stage
        .put_secret(&team, &format!("{name}-client"), &[("client-id", "links"), ("client-secret", SECRET)])
        .await;
    stage.condition(&team, name, "Ready", "False", "AuthorizationRequired").await;
    hydra
}

async fn sign_in(browser: &Browser, address: &str, name: &str, without: Option<&str>) {
    browser.goto(address).await;
    browser.click("button").await;
    browser.fill("#name", name).await;
    browser.click("#go").await;
    browser.find("input[type=checkbox]").await;
    if let Some(scope) = without {
        browser.click(&format!("input[name='scope-{scope}']")).await;
    }
    browser.click("#go").await;
    browser.shows("main", "One step is left").await;
}

async fn is_active(hydra: &Hydra, token: &str) -> Value {
    let form = format!("token={token}");
    let answer = crate::support::stage::http()
        .post(format!("{}/admin/oauth2/introspect", hydra.admin_url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .expect("an answer");
    let said: Value = answer.json().await.expect("JSON");
    said["active"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_a_link_with_less_than_it_asks_for() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let hydra = connected_to(&stage, "builds").await;
    let tool = authorize(&stage, "builds", &[]);
    let browser = Browser::start().await;
    sign_in(&browser, &tool.address().await, "ann", Some("builds:write")).await;
    let page = browser.text("main").await;
    assert!(page.contains("Less than asked for: without builds:write"), "{page}");
    browser.shot("consent-4-less").await;
    // By keyboard alone: the button has the focus.
    browser.press("\u{e007}").await;
    browser.shows("body", "Received").await;
    let (code, said) = tool.end().await;
    assert_eq!(code, Some(0), "{said}");
    let ready = stage.ready(&team, "builds").await;
    let connected =
        ready.status.and_then(|s| s.outgoing).and_then(|o| o.connected).expect("who connected it");
    assert_eq!(connected.subject.as_deref(), Some("ann"));
    let first = stage.data(&team, "builds-token").await;
    assert_eq!(is_active(&hydra, &first["access-token"]).await, true);
    assert!(!first["scope"].contains("builds:write"), "{}", first["scope"]);

    // The refresh token that was got is kept, and spent once it is due.
    let links = stage.links(&team);
    let sooner = json!({"spec": {"outgoing": {"refresh": {"every": "10s"}}}});
    links
        .patch("builds", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(sooner))
        .await
        .expect("a change");
    eventually(SOON, "another access token", async || {
        let now = stage.data(&team, "builds-token").await;
        if now["access-token"] == first["access-token"] { Err("the same") } else { Ok(()) }
    })
    .await;
    stage.ready(&team, "builds").await;
    let last = stage.data(&team, "builds-token").await;
    stage.delete(&team, "builds").await;
    eventually(SOON, "the grant revoked", async || {
        let active = is_active(&hydra, &last["access-token"]).await;
        if active == false { Ok(()) } else { Err(active) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_passed_on_connects_nothing() {
    let stage = stage().await;
    let hydra = connected_to(&stage, "mailed").await;
    let browser = Browser::start().await;
    let tool = authorize(&stage, "mailed", &["--timeout", "45s"]);
    // Somebody else opens it, and agrees. Their browser is on another machine: the button leads nowhere.
    sign_in(&browser, &tool.address().await, "victim", None).await;
    let links = stage.links(stage.team());
    let link = links.get("mailed").await.expect("the link");
    assert!(link.status.and_then(|s| s.outgoing).is_some_and(|o| o.connected.is_none()));
    let uid = link.metadata.uid.expect("a UID");
    let record = stage.data(&stage.system, &format!("applink-consent-{uid}")).await;
    let record: Value = serde_json::from_str(&record["record.json"]).expect("JSON");
    let token = record["grant"]["access"]["token"].as_str().expect("what was granted").to_owned();
    assert_eq!(is_active(&hydra, &token).await, true);
    let (code, said) = tool.end().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("nobody consented in time"), "{said}");
    nothing_left(&stage, "mailed").await;
    assert_eq!(is_active(&hydra, &token).await, false, "what was granted is given back");
    stage.condition(stage.team(), "mailed", "Ready", "False", "AuthorizationRequired").await;
    assert!(stage.secrets(stage.team()).get_opt("mailed-token").await.expect("an answer").is_none());
}
