//! Failures: what the link says, whether it asks again, and with what.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::{CANARY, Link, good, shows_no_canary};
use crate::link::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, condition};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::{always, eventually};

/// What comes after a failure.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// Not asked again until a person acts.
    Stop,
    /// Not asked again until the server's time has come, whatever wakes the link.
    Hold,
    /// Asked again at times of its own, whatever wakes the link: who registers the client there may come after it.
    Known,
    /// The same again.
    Again,
    /// Said to be for a person, and asked again all the same: what is on the way may have answered.
    Later,
}

use Then::{Again, Hold, Known, Later, Stop};

struct Row {
    name: &'static str,
    refresh: bool,
    reply: Reply,
    reason: &'static str,
    then: Then,
}

impl Row {
    /// Whether the whole host is left alone after it.
    fn limits(&self) -> bool {
        self.reason == "RateLimited" || self.name == "maintenance"
    }

    /// The answer, in words.
    fn answer(&self) -> String {
        let Reply::Bytes(bytes) = &self.reply else {
            return if matches!(self.reply, Reply::Silence) {
                "none".into()
            } else {
                "the connection is reset".into()
            };
        };
        let text = String::from_utf8_lossy(bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return "not HTTP".into() };
        let status = head.split(' ').nth(1).expect("a status");
        let after = head.lines().find(|l| l.starts_with("Retry-After")).map(|l| format!(", `{l}`"));
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let what = match (self.name, body["error"].as_str()) {
            ("cut", _) => "cut off".to_owned(),
            ("not-json", _) => "not JSON".to_owned(),
            ("empty", _) => "empty".to_owned(),
            ("no-token", _) => "no `access_token`".to_owned(),
            ("null-token", _) => "`access_token` is null".to_owned(),
            ("newline", _) => "a line break in the token".to_owned(),
            ("long-token", _) => "a token of more than 64 KiB".to_owned(),
            ("megabyte", _) => "a megabyte".to_owned(),
            ("coding", _) => "`Content-Encoding: br`".to_owned(),
            ("ok-false", _) => "`ok: false`, an unknown error".to_owned(),
            (_, Some(code)) if code.contains(CANARY) => "an unknown error".to_owned(),
            (_, Some(code)) => format!("`{code}`"),
            _ => String::new(),
        };
        format!("{status} {what}{}", after.unwrap_or_default()).trim().replace(" ,", ",")
    }
}

/// The table as the documentation has it.
fn in_words() -> String {
    let mut text = String::from("| the answer | grant | `Ready` | then |\n|---|---|---|---|\n");
    for row in table() {
        let grant = if row.refresh { "refresh token" } else { "client credentials" };
        let then = match row.then {
            Stop if row.reason == "ReauthorizationRequired" => {
                "nothing is sent until there is another refresh token"
            }
            Stop => "nothing is sent until the Secret or the link changes",
            Hold => "nothing is sent before the server's time, an hour at most",
            Known => {
                "the same again after 15 and 30 s, 1, 2, 5 and 10 min, then hourly for a day; `Stalled` after ten minutes"
            }
            Again => "the same again, after a growing pause",
            Later => "for a person to mend; the same again, after a growing pause",
        };
        text += &format!("| {} | {grant} | `{}` | {then} |\n", row.answer(), row.reason);
    }
    text
}

#[test]
fn the_table_is_in_the_documentation() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/refresh.md");
    let page = std::fs::read_to_string(file).expect("docs/refresh.md");
    let wanted = in_words();
    assert!(page.contains(&wanted), "docs/refresh.md must have this table:\n{wanted}");
}

fn row(name: &'static str, reply: Reply, reason: &'static str, then: Then) -> Row {
    Row { name, refresh: true, reply, reason, then }
}

fn machine(name: &'static str, reply: Reply, reason: &'static str, then: Then) -> Row {
    Row { refresh: false, ..row(name, reply, reason, then) }
}

/// An error that says back all that a careless server might.
fn error(status: u16, code: &str) -> Reply {
    let echo = format!("{CANARY} client secret, {CANARY} refresh token");
    Reply::json(status, &json!({"error": code, "error_description": echo, "error_uri": echo, "hint": echo}))
}

fn with(status: u16, headers: &str) -> Reply {
    Reply::http(status, headers, &format!("<html>{CANARY}</html>"))
}

fn table() -> Vec<Row> {
    let token =
        |value: Value| Reply::json(200, &json!({"access_token": value, "expires_in": 3600, "note": CANARY}));
    let dead = "ReauthorizationRequired";
    vec![
        row("grant-400", error(400, "invalid_grant"), dead, Stop),
        row("grant-401", error(401, "invalid_grant"), dead, Stop),
        row("grant-403", error(403, "invalid_grant"), dead, Stop),
        row("interaction", error(400, "interaction_required"), dead, Stop),
        row("login", error(400, "login_required"), dead, Stop),
        row("consent", error(400, "consent_required"), dead, Stop),
        row("bad-refresh", error(200, "bad_refresh_token"), dead, Stop),
        row("client-401", error(401, "invalid_client"), "InvalidClient", Stop),
        row("client-400", error(400, "invalid_client"), "InvalidClient", Stop),
        machine("client-cc", error(401, "invalid_client"), "InvalidClient", Known),
        machine("bare-401-cc", with(401, ""), "InvalidClient", Known),
        row("bare-401", with(401, ""), "InvalidClient", Later),
        row("unauthorized", error(400, "unauthorized_client"), "UnauthorizedClient", Stop),
        row("scope", error(400, "invalid_scope"), "InvalidScope", Stop),
        machine("grant-cc", error(400, "invalid_grant"), "RequestRejected", Stop),
        row("echo-code", error(400, &format!("{CANARY}_as_a_code")), "RequestRejected", Later),
        row(
            "ok-false",
            Reply::json(200, &json!({"ok": false, "error": format!("{CANARY}_error")})),
            "RequestRejected",
            Later,
        ),
        row("gone-404", with(404, ""), "RequestRejected", Later),
        row("redirect", with(302, "Location: /elsewhere\r\n"), "Redirected", Later),
        row("limit", with(429, "Retry-After: 3600\r\n"), "RateLimited", Hold),
        row("limit-zero", with(429, "Retry-After: 0\r\n"), "RateLimited", Again),
        row("limit-long", with(429, "Retry-After: 999999999\r\n"), "RateLimited", Hold),
        row("limit-date", with(429, "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n"), "RateLimited", Hold),
        machine("limit-cc", with(429, "Retry-After: 3600\r\n"), "RateLimited", Hold),
        row("maintenance", with(503, "Retry-After: 3600\r\n"), "ServerError", Hold),
        row("limit-short", with(429, "Retry-After: 2\r\n"), "RateLimited", Again),
        row("limit-bare", with(429, ""), "RateLimited", Again),
        row("fault-500", with(500, ""), "ServerError", Again),
        row("fault-code", error(500, "server_error"), "ServerError", Again),
        row("fault-502", with(502, "Content-Type: text/html\r\n"), "ServerError", Again),
        row("fault-503", with(503, ""), "ServerError", Again),
        row("silence", Reply::Silence, "NoAnswer", Again),
        row("reset", Reply::Reset, "NoAnswer", Again),
        machine("reset-cc", Reply::Reset, "NoAnswer", Again),
        row("cut", Reply::cut("{\"access_token\":"), "NoAnswer", Again),
        row("not-http", Reply::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "NoAnswer", Again),
        row("not-json", Reply::http(200, "", &format!("<html>{CANARY}")), "MalformedReply", Again),
        row("empty", Reply::http(200, "", ""), "MalformedReply", Again),
        row(
            "no-token",
            Reply::json(200, &json!({"token_type": "Bearer", "refresh_token": CANARY})),
            "MalformedReply",
            Again,
        ),
        row("null-token", token(Value::Null), "MalformedReply", Again),
        row("newline", token(json!(format!("{CANARY}\nEVIL=1"))), "MalformedReply", Again),
        row("long-token", token(json!("x".repeat(70_000))), "MalformedReply", Again),
        row("coding", with(200, "Content-Encoding: br\r\n"), "MalformedReply", Again),
        row("megabyte", token(json!("x".repeat(1 << 20))), "ReplyTooLarge", Again),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refresh_rule() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let server = TokenServer::start().await;
    let rows = table();
    // Who asks to be left alone is left alone by all links: each of those is a host of its own.
    let own =
        join_all(rows.iter().map(async |r| if r.limits() { Some(TokenServer::start().await) } else { None }));
    let own = own.await;
    let links = join_all(rows.iter().zip(&own).map(|(r, own)| {
        Link::make(&stage, own.as_ref().unwrap_or(&server), r.name, r.refresh, r.reply.clone())
    }))
    .await;
    let all = || rows.iter().zip(&links);
    join_all(all().map(async |(row, link)| {
        let seen = stage.condition(stage.team(), row.name, "Ready", "False", row.reason).await;
        let status = serde_json::to_value(&seen.status).expect("json");
        assert_eq!(
            condition(&status, "Authorized").expect("Authorized")["reason"],
            row.reason,
            "{}",
            row.name
        );
        assert_eq!(condition(&status, "TokenFresh").expect("TokenFresh")["status"], "False", "{}", row.name);
        let (is, isnt) = if matches!(row.then, Stop | Later) {
            ("Stalled", "Reconciling")
        } else {
            ("Reconciling", "Stalled")
        };
        assert_eq!(
            condition(&status, is).unwrap_or_else(|| panic!("{}: {status}", row.name))["reason"],
            row.reason
        );
        assert!(condition(&status, isnt).is_none(), "{}: {status}", row.name);
        // Whatever was answered, the token in hand stays.
        if row.refresh {
            let kept = link.kept().await;
            assert_eq!(kept["refreshToken"], json!(link.seed()), "{}", row.name);
            assert_eq!(
                kept["dead"].is_string(),
                row.reason == "ReauthorizationRequired",
                "{}: {kept}",
                row.name
            );
        }
        // It answers well from now on: the pauses grow, and other rows take their time.
        if matches!(row.then, Again | Later) {
            link.heal();
        }
    }))
    .await;
    // Who may be asked again, is: with the same token, until it answers well.
    links.iter().for_each(Link::heal);
    join_all(all().filter(|(row, _)| matches!(row.then, Again | Known | Later)).map(async |(row, link)| {
        stage.ready(stage.team(), row.name).await;
        let asked = link.asked();
        assert!(asked.len() > 1, "{}", row.name);
        if row.refresh {
            assert!(asked.iter().all(|a| a.field("refresh_token") == link.seed()), "{}: {asked:?}", row.name);
            assert_eq!(link.kept().await["refreshToken"], json!(link.seed()), "{}", row.name);
        }
    }))
    .await;
    // Who may not, isn't: though the server would answer well by now, and though something stirs.
    let quiet: Vec<_> = all().filter(|(row, _)| !matches!(row.then, Again | Known | Later)).collect();
    join_all(quiet.iter().map(|(_, link)| link.touch())).await;
    always(Duration::from_secs(3), "each asked once", async || {
        let again: Vec<_> = quiet.iter().filter(|(_, l)| l.asked().len() != 1).map(|(r, _)| r.name).collect();
        if again.is_empty() { Ok(()) } else { Err(format!("asked again: {again:?}")) }
    })
    .await;
    assert!(server.asked("/elsewhere").is_empty(), "a redirect isn't followed");

    // What a person does is taken up: another client secret, or another seed where the grant is dead.
    join_all(quiet.iter().filter(|(row, _)| row.then == Stop).map(async |(row, link)| {
        let (secret, data) = if row.reason == "ReauthorizationRequired" {
            (format!("{}-seed", row.name), [("token", "canary-7f3a-another-seed")])
        } else {
            (format!("{}-client", row.name), [("client-secret", "canary-7f3a-another-secret")])
        };
        let data: std::collections::BTreeMap<_, _> = data.into();
        link.edit_secret(&secret, json!({ "stringData": data })).await;
        stage.ready(stage.team(), row.name).await;
        assert_eq!(link.asked().len(), 2, "{}", row.name);
    }))
    .await;
    shows_no_canary(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_yet() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let port = crate::support::ports::free();
    let elsewhere = TokenServer::start().await;
    let link = Link::of(&stage, &elsewhere, "closed");
    link.apply(&format!("http://127.0.0.1:{port}/token"), true).await;
    stage.condition(stage.team(), "closed", "Ready", "False", "Unreachable").await;
    let server = TokenServer::at(port).await;
    server.always("/token", Reply::json(200, &good(3600)));
    stage.ready(stage.team(), "closed").await;
    let asked = server.asked("/token");
    assert!(asked.len() == 1 && asked[0].field("refresh_token") == link.seed(), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_grant_is_dead_it_is_read_again() {
    use kube::ResourceExt as _;
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let server = TokenServer::start().await;
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let refused = Reply::Hold(go.clone(), Box::new(error(400, "invalid_grant")));
    let link = Link::make(&stage, &server, "other", true, refused).await;
    eventually(SOON, "the request", async || link.asked().len() == 1).await;
    // Meanwhile somebody else spends the token and stores its successor.
    let uid = stage.links(stage.team()).get("other").await.expect("the link").uid().expect("uid");
    let mut kept = link.kept().await;
    kept["refreshToken"] = json!("successor");
    let patch = json!({"stringData": {"record.json": kept.to_string()}});
    let name = format!("applink-grant-{uid}");
    stage.patch("Secret", &stage.system, &name, patch).await;
    link.heal();
    go.notify_one();
    stage.ready(stage.team(), "other").await;
    let tokens: Vec<_> = link.asked().iter().map(|a| a.field("refresh_token").to_owned()).collect();
    assert_eq!(tokens, [link.seed(), "successor".to_owned()]);
    assert!(link.kept().await["dead"].is_null());
}
