//! What connects nothing: forged, swapped, late and repeated requests. Each ends in a page that says what happened,
//! and leaves the link as it was. Keycloak is real; nobody signs in there.

use applink_operator::link::consent::{Purpose, Ticket, digest};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use url::Url;

use super::{link, stage};
use crate::support::keycloak::Realm;
use crate::support::stage::{SOON, Stage, browser};
use crate::support::wait::eventually;

const TICKET: &str = "a-ticket-of-this-test-0123456789";

/// What a person's browser got when it began.
pub(super) struct Begun {
    cookie: String,
    state: String,
    redirect: Url,
}

pub async fn put_ticket(stage: &Stage<'_>, name: &str, ticket: &str, seconds: i64) {
    let expires_at = Timestamp::now() + SignedDuration::from_secs(seconds);
    let ticket = Ticket { ticket: digest(Purpose::Ticket, ticket), expires_at, port: None };
    let text = serde_json::to_string(&ticket).expect("JSON");
    let patch = json!({"metadata": {"annotations": {"applink-operator.io/authorize": text}}});
    stage
        .links(stage.team())
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .expect("a ticket");
}

pub async fn consent_uri(stage: &Stage<'_>, name: &str) -> String {
    let links = stage.links(stage.team());
    eventually(SOON, "a consent URI in the status", async || {
        let link = links.get(name).await.map_err(|e| e.to_string())?;
        let outgoing = link.status.and_then(|s| s.outgoing).ok_or("no status")?;
        outgoing.consent_uri.ok_or_else(|| "none yet".to_owned())
    })
    .await
}

async fn get(url: &str) -> (u16, String) {
    said(browser().get(url).send().await.expect("an answer")).await
}

async fn said(answer: Response) -> (u16, String) {
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

async fn post(uri: &str, ticket: &str, origin: Option<&str>) -> Response {
    let mut request = browser().post(uri).form(&[("ticket", ticket)]);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    request.send().await.expect("an answer")
}

pub(super) async fn begin(uri: &str, ticket: &str) -> Begun {
    let answer = post(uri, ticket, None).await;
    let cookie = answer.headers()["set-cookie"].to_str().expect("text").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let (status, page) = said(answer).await;
    assert_eq!(status, 200, "{page}");
    let to = page.split("href=\"http").nth(1).and_then(|r| r.split('"').next()).expect("where to go");
    let to = Url::parse(&format!("http{}", to.replace("&amp;", "&"))).expect("an address");
    let query = |name: &str| to.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
    assert_eq!(query("code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(query("response_type").as_deref(), Some("code"));
    assert_eq!(query("prompt").as_deref(), Some("login"), "a parameter of the link's own");
    Begun {
        cookie: cookie.split(';').next().expect("a cookie").to_owned(),
        state: query("state").expect("a state"),
        redirect: Url::parse(&query("redirect_uri").expect("a redirect URI")).expect("an address"),
    }
}

impl Begun {
    pub(super) async fn answer(&self, more: &[(&str, &str)]) -> (u16, String) {
        self.answer_to(&self.redirect, &self.cookie, more).await
    }

    async fn answer_to(&self, redirect: &Url, cookie: &str, more: &[(&str, &str)]) -> (u16, String) {
        let mut url = redirect.clone();
        url.query_pairs_mut().append_pair("state", &self.state).extend_pairs(more);
        said(browser().get(url).header("cookie", cookie).send().await.expect("an answer")).await
    }
}

fn refused((status, page): (u16, String), wanted: u16, reason: &str) {
    assert_eq!(status, wanted, "{page}");
    assert!(page.contains(&format!("<code>{reason}</code>")), "{reason} in {page}");
}

async fn has_record(stage: &Stage<'_>, name: &str) -> bool {
    let uid = stage.links(stage.team()).get(name).await.expect("the link").metadata.uid.expect("a UID");
    stage
        .secrets(&stage.system)
        .get_opt(&format!("applink-consent-{uid}"))
        .await
        .expect("an answer")
        .is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_whole_way_connects_a_link() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let realm = Realm::new().await;
    let client =
        json!({"clientId": "links", "secret": "only-for-tests", "redirectUris": ["http://127.0.0.1/"]});
    assert_eq!(realm.admin(Method::POST, "/clients", Some(client)).await.0, 201);
    for name in ["one", "two"] {
        stage
            .put_secret(
                &team,
                &format!("{name}-client"),
                &[("client-id", "links"), ("client-secret", "only-for-tests")],
            )
            .await;
        let more = json!({
            "grant": {"authorizationCode": {"parameters": {"prompt": "login"}}}, "scopes": ["openid"],
        });
        stage.apply_object(&team, &link(name, json!({"issuer": realm.issuer()}), more)).await;
        stage.condition(&team, name, "Ready", "False", "AuthorizationRequired").await;
    }
    let (one, two) = (consent_uri(&stage, "one").await, consent_uri(&stage, "two").await);
    let issuer = realm.issuer();
    let iss = ("iss", issuer.as_str());

    // Without a ticket on it, with another's, with one that is over: nobody learns which links there are.
    refused(get(&format!("{one}?ticket={TICKET}")).await, 404, "NoTicket");
    refused(get(&format!("{one}-not?ticket={TICKET}")).await, 404, "NoTicket");
    refused(get(&one).await, 404, "NoTicket");
    put_ticket(&stage, "one", TICKET, -1).await;
    refused(get(&format!("{one}?ticket={TICKET}")).await, 404, "NoTicket");
    put_ticket(&stage, "one", TICKET, 3600).await;
    refused(get(&format!("{one}?ticket={TICKET}")).await, 404, "NoTicket");
    put_ticket(&stage, "one", TICKET, 300).await;
    refused(get(&format!("{one}?ticket=x{TICKET}")).await, 404, "NoTicket");
    refused(get(&format!("{two}?ticket={TICKET}")).await, 404, "NoTicket");

    // A look changes nothing, and may be repeated.
    for _ in 0..2 {
        let answer = browser().get(format!("{one}?ticket={TICKET}")).send().await.expect("an answer");
        let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(answer.headers()["referrer-policy"], "same-origin");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.status().as_u16(), 200);
    }
    assert!(!has_record(&stage, "one").await);
    for foreign in ["https://evil.example.com", "null"] {
        refused(said(post(&one, TICKET, Some(foreign)).await).await, 404, "NoTicket");
    }
    assert!(!has_record(&stage, "one").await);

    // The ticket is used once.
    let first = begin(&one, TICKET).await;
    refused(said(post(&one, TICKET, None).await).await, 409, "TicketUsed");
    refused(get(&format!("{one}?ticket={TICKET}")).await, 409, "TicketUsed");
    put_ticket(&stage, "two", "another-ticket-0123456789", 300).await;
    let second = begin(&two, "another-ticket-0123456789").await;

    // Forged, swapped, at another place, in another browser.
    let forged = Begun {
        state: format!("{}x", first.state),
        cookie: first.cookie.clone(),
        redirect: first.redirect.clone(),
    };
    refused(forged.answer(&[("code", "c"), iss]).await, 409, "Unasked");
    let nobody = Begun { state: "00000000-0000-0000-0000-000000000000.x".into(), ..forged };
    refused(nobody.answer(&[("code", "c"), iss]).await, 409, "Unasked");
    let elsewhere =
        Url::parse(&first.redirect.as_str().replace("/callback/", "/callback/0")).expect("an address");
    refused(first.answer_to(&elsewhere, &first.cookie, &[("code", "c"), iss]).await, 409, "Unasked");
    refused(
        first.answer_to(&first.redirect, &second.cookie, &[("code", "c"), iss]).await,
        403,
        "OtherBrowser",
    );
    refused(first.answer_to(&first.redirect, "", &[("code", "c"), iss]).await, 403, "OtherBrowser");
    refused(get(first.redirect.as_str()).await, 409, "Unasked");

    // Another issuer, or none where one is promised (RFC 9207). The state is used up by it.
    refused(first.answer(&[("code", "c"), ("iss", "https://evil.example.com")]).await, 403, "WrongIssuer");
    refused(first.answer(&[("code", "c"), iss]).await, 409, "Unasked");
    refused(second.answer(&[("code", "c")]).await, 403, "WrongIssuer");

    // The server says no; only codes that are known are repeated. And again: nothing.
    put_ticket(&stage, "one", "third-ticket-0123456789", 300).await;
    let third = begin(&one, "third-ticket-0123456789").await;
    let no = third.answer(&[("error", "access_denied"), ("error_description", "<b>echo</b>"), iss]).await;
    assert!(!no.1.contains("echo"), "{}", no.1);
    refused(no, 403, "Denied");
    refused(third.answer(&[("error", "access_denied"), iss]).await, 409, "Unasked");

    // A code that the server never gave.
    put_ticket(&stage, "one", "fourth-ticket-0123456789", 300).await;
    let fourth = begin(&one, "fourth-ticket-0123456789").await;
    refused(fourth.answer(&[("code", "made-up"), iss]).await, 502, "NoToken");

    // A link that was changed, and one that was deleted, since it began.
    put_ticket(&stage, "one", "fifth-ticket-0123456789", 300).await;
    let fifth = begin(&one, "fifth-ticket-0123456789").await;
    let more = json!({"spec": {"outgoing": {"oauth2": {"scopes": ["openid", "email"]}}}});
    stage.links(&team).patch("one", &PatchParams::default(), &Patch::Merge(more)).await.expect("a change");
    refused(fifth.answer(&[("code", "c"), iss]).await, 409, "LinkChanged");
    put_ticket(&stage, "two", "sixth-ticket-0123456789", 300).await;
    let sixth = begin(&two, "sixth-ticket-0123456789").await;
    stage.delete(&team, "two").await;
    refused(sixth.answer(&[("code", "c"), iss]).await, 409, "Unasked");

    // The link is as it was, and what is left of a consent goes when its time is over.
    stage.condition(&team, "one", "Ready", "False", "AuthorizationRequired").await;
    put_ticket(&stage, "one", "last-ticket-0123456789", 6).await;
    begin(&one, "last-ticket-0123456789").await;
    assert!(has_record(&stage, "one").await);
    eventually(SOON, "the record of a consent that is over gone", async || {
        if has_record(&stage, "one").await {
            let logs = stage.operator.logs();
            Err(logs[logs.len().saturating_sub(6000)..].to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    let logs = stage.operator.logs();
    for secret in [TICKET, first.state.as_str(), first.cookie.as_str(), "made-up"] {
        assert!(!logs.contains(secret), "a log line with {secret}");
    }
    let status: Value =
        serde_json::to_value(stage.links(&team).get("one").await.expect("the link").status).expect("JSON");
    assert!(status["outgoing"]["connected"].is_null(), "{status}");
}
