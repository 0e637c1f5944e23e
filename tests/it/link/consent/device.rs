//! A device grant at a server that says what no real one can be brought to say: what ends it, and how often it is
//! asked meanwhile (RFC 8628 section 3.5).

use serde_json::{Value, json};

use super::refusals::{consent_uri, put_ticket};
use super::{link, stage};
use crate::support::stage::{Stage, browser};
use crate::support::token_server::{Reply, TokenServer};

async fn post(uri: &str, what: &str, ticket: &str) -> (u16, Value) {
    let answer = browser().post(format!("{uri}/{what}")).json(&json!({ "ticket": ticket })).send().await;
    let answer = answer.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// Begins one with a ticket of its own.
async fn begin(stage: &Stage<'_>, name: &str, ticket: &str) -> String {
    let uri = consent_uri(stage, name).await;
    put_ticket(stage, name, ticket, 300).await;
    let (status, said) = post(&uri, "device", ticket).await;
    assert_eq!((status, &said["userCode"]), (200, &json!("AB-CD")), "{said}");
    uri
}

/// Asks until it may be asked again: what the pages said last.
async fn poll(uri: &str, ticket: &str) -> (u16, Value) {
    loop {
        let (status, said) = post(uri, "poll", ticket).await;
        match said["pending"].as_f64() {
            // A fraction is what is left of a pause; nothing was asked.
            Some(secs) if secs.fract() != 0.0 => {
                tokio::time::sleep(std::time::Duration::from_secs_f64(secs)).await;
            }
            _ => return (status, said),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_code_ends_it_and_silence_makes_the_pauses_longer() {
    let stage = stage().await;
    let team = stage.team().to_owned();
    let server = TokenServer::start().await;
    server.always(
        "/device",
        Reply::json(
            200,
            &json!({
                "device_code": "d", "user_code": "AB-CD", "verification_uri": "https://id.example.com/device",
                "interval": 1, "expires_in": 600,
            }),
        ),
    );
    stage.put_secret(&team, "tv-client", &[("client-id", "a"), ("client-secret", "b")]).await;
    let more = json!({"grant": {"authorizationCode": null, "deviceCode": {}}});
    let at =
        json!({"tokenEndpoint": server.url("/token"), "deviceAuthorizationEndpoint": server.url("/device")});
    stage.apply_object(&team, &link("tv", at, more)).await;
    stage.condition(&team, "tv", "Ready", "False", "AuthorizationRequired").await;

    let code = |status: u16, code: &str| Reply::json(status, &json!({ "error": code }));
    for (number, (reply, status, reason, part)) in [
        (code(400, "server_error"), 403, "Denied", "server_error"),
        (code(503, "temporarily_unavailable"), 403, "Denied", "temporarily_unavailable"),
        (code(400, "access_denied"), 403, "Denied", "access_denied"),
        (code(400, "expired_token"), 403, "Denied", "expired_token"),
        (code(400, "invalid_grant"), 502, "NoToken", "invalid_grant"),
        (code(401, "invalid_client"), 502, "NoToken", "credentials"),
        (code(400, "made-up"), 502, "NoToken", "refuses the request"),
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = format!("ticket-number-{number}-0123456789");
        let before = server.asked("/token").len();
        server.always("/token", reply);
        let uri = begin(&stage, "tv", &ticket).await;
        let (got, said) = poll(&uri, &ticket).await;
        assert_eq!((got, &said["reason"]), (status, &json!(reason)), "{said}");
        let message = said["message"].as_str().expect("text");
        assert!(message.contains(part) && !message.contains("made-up"), "{message}");
        assert_eq!(server.asked("/token").len(), before + 1);
        assert_eq!(poll(&uri, &ticket).await.0, 404, "the ticket is off the link");
    }

    // No answer: twice as long each time. Slower: five seconds more. Then the person declines.
    let ticket = "ticket-of-the-pauses-0123456789";
    server.on("/token", move |before, _| match before {
        0..7 => unreachable!("answered above"),
        7 => Reply::Reset,
        8 => Reply::http(502, "", "<html>"),
        9 => code(400, "authorization_pending"),
        _ => code(400, "slow_down"),
    });
    let uri = begin(&stage, "tv", ticket).await;
    for pause in [2.0, 4.0, 4.0, 9.0] {
        let (status, said) = poll(&uri, ticket).await;
        assert_eq!((status, said["pending"].as_f64()), (200, Some(pause)), "{said}");
    }
    stage.condition(&team, "tv", "Ready", "False", "AuthorizationRequired").await;
}
