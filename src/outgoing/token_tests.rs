//! Token requests and revocation against servers that say all kinds of things.

use super::error::{Asked, classify_parts};
use super::reply::read;
use super::*;
use crate::domain::{AuthMethod, ClientId, Lifetime, ScopeSet, TokenReply};
use crate::http::testing::{Act, Server, closed_port, guard, local};
use crate::http::{HttpClient, NoAnswer, NotSent, RefusedReason, SendError, Trust};
use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::time::Duration;
use url::Url;

const ID: &str = "team a/ci:1";
const SECRET: &str = "canary-s3:cr/et %+";
const REFRESH: &str = "canary-refresh+token";

fn credentials(auth_method: AuthMethod) -> ClientCredentials {
    ClientCredentials::by_secret(ClientId::parse(ID).expect("id"), auth_method, SECRET.to_owned().into())
}

fn request(endpoint: Url, refresh: bool) -> TokenRequest {
    TokenRequest {
        endpoint,
        client: Some(credentials(AuthMethod::ClientSecretBasic)),
        grant: if refresh {
            Grant::RefreshToken(REFRESH.to_owned().into())
        } else {
            Grant::ClientCredentials
        },
        scopes: ScopeSet::parse("b a").expect("scopes"),
        dialect: Dialect::STANDARD,
    }
}

fn asked(refresh: bool) -> Asked {
    if refresh { Asked::WithRefreshToken } else { Asked::Otherwise }
}

async fn ask(server: &Server, refresh: bool) -> Result<TokenReply, TokenError> {
    request_token(&local(), &request(server.url("/token"), refresh)).await
}

async fn ask_once(
    act: impl Fn(&str) -> Act + Send + Sync + 'static,
    refresh: bool,
) -> Result<TokenReply, TokenError> {
    ask(&Server::start(act).await, refresh).await
}

fn assert_quiet(error: &TokenError) {
    let text = format!("{error} {error:?} {} {:?}", error.reason(), error.class());
    assert!(!text.contains("canary"), "{text}");
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn basic() -> String {
    use base64::Engine as _;
    // In a header a space is %20, which is one to every reader.
    let pair = format!("{}:{}", encoded(ID), encoded(SECRET)).replace('+', "%20");
    format!("authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

const GOOD: &str =
    r#"{"access_token":"at","token_type":"bearer","expires_in":60,"refresh_token":"rt","scope":"x y"}"#;

#[tokio::test]
async fn both_grants_with_every_method() {
    for (method, refresh) in [
        (AuthMethod::ClientSecretBasic, false),
        (AuthMethod::ClientSecretBasic, true),
        (AuthMethod::ClientSecretPost, false),
        (AuthMethod::ClientSecretPost, true),
        (AuthMethod::None, true),
    ] {
        let server = Server::start(|_| Act::json("200 OK", GOOD)).await;
        let mut request = request(server.url("/token?tenant=1"), refresh);
        request.client = Some(credentials(method));
        let reply = request_token(&local(), &request).await.expect("token");
        assert_eq!(reply.access_token.expose_secret(), "at");
        assert_eq!(reply.refresh_token.expect("refresh").expose_secret(), "rt");
        assert_eq!(reply.token_type, "bearer");
        assert_eq!(reply.lifetime, Lifetime::from_secs(60));
        assert_eq!(reply.scopes, Some(ScopeSet::parse("x y").expect("scopes")));

        let seen = server.requests().remove(0);
        let (head, body) = seen.split_once("\r\n\r\n").expect("body");
        assert!(head.starts_with("POST /token?tenant=1 HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("accept: application/json"), "{head}");
        assert!(head.contains("content-type: application/x-www-form-urlencoded"), "{head}");
        let grant = if refresh { "refresh_token" } else { "client_credentials" };
        assert!(body.contains(&format!("grant_type={grant}")), "{body}");
        assert_eq!(body.contains(&format!("refresh_token={}", encoded(REFRESH))), refresh, "{body}");
        assert!(body.contains("scope=a+b"), "{body}");
        let in_basic = method == AuthMethod::ClientSecretBasic;
        assert_eq!(head.contains(&basic()), in_basic, "{head}");
        assert_eq!(head.contains("authorization"), in_basic, "{head}");
        assert_eq!(body.contains(&format!("client_id={}", encoded(ID))), !in_basic, "{body}");
        let in_body = method == AuthMethod::ClientSecretPost;
        assert_eq!(body.contains(&format!("client_secret={}", encoded(SECRET))), in_body, "{body}");
    }
}

#[tokio::test]
async fn no_scope_is_no_parameter() {
    let server = Server::start(|_| Act::json("200 OK", GOOD)).await;
    let mut request = request(server.url("/"), true);
    request.scopes = ScopeSet::default();
    request_token(&local(), &request).await.expect("token");
    assert!(!server.requests()[0].contains("scope="));
}

#[test]
fn what_answers_mean() {
    use ErrorClass as C;
    // status, code, refresh, class, reason, unknown outcome
    for (status, code, refresh, class, reason, unknown) in [
        (400, Some("invalid_grant"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (401, Some("invalid_grant"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (403, Some("invalid_grant"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (200, Some("bad_refresh_token"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (400, Some("interaction_required"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (400, Some("consent_required"), true, C::DeadGrant, "ReauthorizationRequired", false),
        (400, Some("invalid_grant"), false, C::NeedsEdit, "RequestRejected", false),
        (401, Some("invalid_grant"), false, C::NeedsEdit, "RequestRejected", false),
        (500, Some("invalid_grant"), true, C::BackOff, "ServerError", false),
        (429, Some("invalid_grant"), true, C::BackOff, "RateLimited", false),
        (400, Some("invalid_client"), true, C::BadClient, "InvalidClient", false),
        (401, Some("invalid_client"), false, C::BadClient, "InvalidClient", false),
        (403, Some("invalid_client"), true, C::BadClient, "InvalidClient", false),
        (200, Some("incorrect_client_credentials"), false, C::BadClient, "InvalidClient", false),
        (401, Some("unauthorized_client"), false, C::BadClient, "InvalidClient", false),
        (401, None, true, C::BadClient, "InvalidClient", false),
        (400, Some("unauthorized_client"), false, C::NeedsEdit, "UnauthorizedClient", false),
        (400, Some("invalid_scope"), true, C::NeedsEdit, "InvalidScope", false),
        (401, Some("invalid_scope"), true, C::NeedsEdit, "InvalidScope", false),
        (400, Some("unsupported_grant_type"), false, C::NeedsEdit, "UnsupportedGrantType", false),
        (403, Some("access_denied"), false, C::NeedsEdit, "AccessDenied", false),
        (403, None, true, C::NeedsEdit, "RequestRejected", false),
        (404, None, true, C::NeedsEdit, "RequestRejected", false),
        (200, None, true, C::NeedsEdit, "RequestRejected", false),
        (301, None, true, C::NeedsEdit, "Redirected", false),
        (307, None, true, C::NeedsEdit, "Redirected", false),
        (429, None, true, C::BackOff, "RateLimited", false),
        (400, Some("slow_down"), true, C::BackOff, "RateLimited", false),
        (400, Some("temporarily_unavailable"), true, C::BackOff, "ServerError", false),
        (200, Some("server_error"), true, C::BackOff, "ServerError", false),
        (408, None, true, C::BackOff, "ServerError", false),
        (500, None, true, C::BackOff, "ServerError", true),
        (500, Some("server_error"), true, C::BackOff, "ServerError", false),
        (502, None, true, C::BackOff, "ServerError", true),
        (503, None, true, C::BackOff, "ServerError", false),
        (504, None, true, C::BackOff, "ServerError", true),
        (599, None, true, C::BackOff, "ServerError", true),
    ] {
        let error = classify_parts(status, code, None, asked(refresh), Dialect::STANDARD);
        assert_eq!(
            (error.class(), error.reason(), error.outcome_unknown()),
            (class, reason, unknown),
            "{status} {code:?} {refresh}"
        );
        assert!(!error.to_string().is_empty());
    }
    for (error, class, reason, unknown) in [
        (TokenError::NotSent(NotSent::Dns), C::NotSent, "Unreachable", false),
        (TokenError::Refused(RefusedReason::NotPublic), C::NeedsEdit, "AddressRefused", false),
        (TokenError::NoAnswer(NoAnswer::Timeout), C::Unanswered, "NoAnswer", true),
        (TokenError::TooLarge, C::Unanswered, "ReplyTooLarge", true),
        (TokenError::Malformed(Malformed::NotJson), C::Unanswered, "MalformedReply", true),
    ] {
        assert_eq!((error.class(), error.reason(), error.outcome_unknown()), (class, reason, unknown));
    }
}

#[tokio::test]
async fn faults_on_the_wire() {
    // A gateway's page.
    let page = |status: &'static str| {
        move |_: &str| Act::answer(status, "Content-Type: text/html\r\n", "<h1>x</h1>")
    };
    let error = ask_once(page("502 Bad Gateway"), true).await.expect_err("502");
    assert_eq!(error, TokenError::ServerFault { status: 502, code: None, retry_after: None });
    assert!(error.outcome_unknown());
    assert_eq!(
        ask_once(page("403 Forbidden"), true).await.err(),
        Some(TokenError::Rejected { code: None, status: 403 })
    );
    assert_eq!(
        ask_once(page("401 Unauthorized"), true).await.err(),
        Some(TokenError::BadClient { code: None, assertion: false })
    );
    assert_eq!(ask_once(page("200 OK"), true).await.err(), Some(TokenError::Malformed(Malformed::NotJson)));
    assert_eq!(
        ask_once(|_| Act::answer("200 OK", "", ""), true).await.err(),
        Some(TokenError::Malformed(Malformed::NotJson))
    );

    for (headers, wait) in [("Retry-After: 17\r\n", 17), ("Retry-After: 99999\r\n", 3600)] {
        let error = ask_once(move |_| Act::answer("429 Too Many Requests", headers, ""), true)
            .await
            .expect_err("429");
        assert_eq!(error.retry_after(), Some(Duration::from_secs(wait)));
    }
    let date = "Retry-After: Tue, 31 Dec 2999 23:59:59 GMT\r\n";
    let error = ask_once(move |_| Act::answer("503 Unavailable", date, ""), true).await.expect_err("503");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));

    assert_eq!(ask_once(|_| Act::Reset, true).await.err(), Some(TokenError::NoAnswer(NoAnswer::Reset)));
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"access_token\":\"a".to_vec();
    assert_eq!(
        ask_once(move |_| Act::Say(half.clone()), true).await.err(),
        Some(TokenError::NoAnswer(NoAnswer::Reset))
    );
    let large = "x".repeat(1_000_000);
    assert_eq!(ask_once(move |_| Act::json("200 OK", &large), true).await.err(), Some(TokenError::TooLarge));
    let error =
        ask_once(|_| Act::answer("302 Found", "Location: /login\r\n", ""), true).await.expect_err("302");
    assert_eq!(error, TokenError::Redirected { status: 302 });

    let silent = Server::start(|_| Act::SayAndHang(Vec::new())).await;
    let client = local().with_timeout(Duration::from_millis(300));
    let error = request_token(&client, &request(silent.url("/"), true)).await.expect_err("silence");
    assert_eq!(error, TokenError::NoAnswer(NoAnswer::Timeout));

    let nobody = Url::parse(&format!("http://127.0.0.1:{}/", closed_port().await)).expect("url");
    let error = request_token(&local(), &request(nobody.clone(), true)).await.expect_err("nobody");
    assert_eq!(error, TokenError::NotSent(NotSent::Connect));
    let guarded = guard(&[]).client(Trust::Guarded, None);
    let error = request_token(&guarded, &request(nobody, true)).await.expect_err("guarded");
    assert_eq!(error, TokenError::Refused(RefusedReason::PlainHttp));
}

#[tokio::test]
async fn an_echo_stays_out_of_every_error() {
    for status in [
        "200 OK",
        "302 Found",
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "429 Slow",
        "500 Oops",
    ] {
        for refresh in [false, true] {
            let echoes: [fn(&str) -> String; 6] = [
                |seen| json!({"error": seen, "error_description": seen, "error_uri": seen}).to_string(),
                |seen| json!({"error": "invalid_grant", "error_description": seen}).to_string(),
                |seen| json!({"error": [seen], "access_token": null}).to_string(),
                |seen| json!({"access_token": format!("{seen}\n"), "token_type": seen}).to_string(),
                |seen| {
                    json!({"access_token": "a", "token_type": seen, "refresh_token": [format!("{seen}\n")]})
                        .to_string()
                },
                |seen| format!("{{\"canary\": {seen}"),
            ];
            for echo in echoes {
                let act = move |seen: &str| {
                    // As it was sent, and as it was before it was encoded.
                    let seen = format!("{seen} {SECRET} {REFRESH}");
                    Act::answer(status, "X-Echo: canary\r\nContent-Type: text/canary\r\n", &echo(&seen))
                };
                assert_quiet(&ask_once(act, refresh).await.expect_err(status));
            }
        }
    }
    let request = request(Url::parse("https://ci.example.com/canary-path").expect("url"), true);
    assert!(!format!("{:?} {:?}", request.client, request.grant).contains("canary"));
}

#[tokio::test]
async fn errors_with_status_200_are_errors() {
    let error = |body: &'static str, refresh| ask_once(move |_| Act::json("200 OK", body), refresh);
    assert_eq!(
        error(r#"{"error":"bad_refresh_token","error_description":"x"}"#, true).await.err(),
        Some(TokenError::DeadGrant { code: "bad_refresh_token" })
    );
    assert_eq!(
        error(r#"{"ok":false,"error":"invalid_refresh_token"}"#, true).await.err(),
        Some(TokenError::Rejected { code: Some("invalid_refresh_token"), status: 200 })
    );
    assert_eq!(
        error(r#"{"ok":false,"error":"canary"}"#, true).await.err(),
        Some(TokenError::Rejected { code: None, status: 200 })
    );
    // A token is a token, whatever stands beside it.
    assert!(error(r#"{"access_token":"a","token_type":"Bearer","error":""}"#, true).await.is_ok());
    // Not 200, but a success.
    assert!(ask_once(|_| Act::json("201 Created", GOOD), true).await.is_ok());
    // The media type doesn't matter.
    assert!(ask_once(|_| Act::answer("200 OK", "Content-Type: text/plain\r\n", GOOD), true).await.is_ok());
}

#[test]
fn replies_that_cant_be_used() {
    let long = "x".repeat(64 * 1024 + 1);
    for (reply, why) in [
        (json!([]), Malformed::NotAnObject),
        (json!("at"), Malformed::NotAnObject),
        (json!(null), Malformed::NotAnObject),
        (json!({}), Malformed::NoAccessToken),
        (json!({"access_token": null}), Malformed::NoAccessToken),
        (json!({"access_token": ""}), Malformed::BadAccessToken),
        (json!({"access_token": 7.5}), Malformed::BadAccessToken),
        (json!({"access_token": -7}), Malformed::BadAccessToken),
        (json!({"access_token": true}), Malformed::BadAccessToken),
        (json!({"access_token": ["a"]}), Malformed::BadAccessToken),
        (json!({"access_token": "a\nb"}), Malformed::BadAccessToken),
        (json!({"access_token": "a\u{0}"}), Malformed::BadAccessToken),
        (json!({"access_token": "ä"}), Malformed::BadAccessToken),
        (json!({"access_token": long}), Malformed::BadAccessToken),
        (json!({"access_token": "a", "refresh_token": {}}), Malformed::BadRefreshToken),
        (json!({"access_token": "a", "refresh_token": 1.5}), Malformed::BadRefreshToken),
        (json!({"access_token": "a", "refresh_token": long}), Malformed::BadRefreshToken),
    ] {
        assert_eq!(read(&reply).err(), Some(why), "{reply}");
    }
}

#[test]
fn what_is_missing_or_odd_but_harmless_is_taken() {
    let reply = read(&json!({"access_token": "a b", "refresh_token": "", "scope": null, "x": {"y": []}}))
        .expect("reply");
    assert_eq!(reply.token_type, "Bearer");
    assert!(reply.refresh_token.is_none() && reply.lifetime.is_none() && reply.scopes.is_none());
    for odd in [json!("a b"), json!("a\r\nb"), json!(""), json!(1), json!([]), json!("ä")] {
        let reply =
            read(&json!({"access_token": 7, "refresh_token": "a\r\nä", "token_type": odd})).expect("reply");
        assert_eq!((reply.token_type.as_str(), reply.access_token.expose_secret()), ("Bearer", "7"), "{odd}");
        assert_eq!(reply.refresh_token.expect("a token").expose_secret(), "a\r\nä");
    }
    let scopes = |scope: Value| {
        read(&json!({"access_token": "a", "scope": scope})).expect("reply").scopes.map(|s| s.to_string())
    };
    assert_eq!(scopes(json!("b  a\n\"c\" ü")).as_deref(), Some("a b"));
    assert_eq!(scopes(json!(["a", "b", 3])).as_deref(), Some("a b"));
    assert_eq!(scopes(json!("")).as_deref(), Some(""));
    assert_eq!(scopes(json!(3)), None);
}

#[test]
fn lifetimes_in_every_form() {
    const TEN_YEARS: i64 = 315_360_000;
    let lifetime = |v: Value| {
        read(&json!({"access_token": "a", "expires_in": v})).expect("reply").lifetime.map(Lifetime::as_secs)
    };
    for (value, secs) in [
        (json!(3600), Some(3600)),
        (json!("3600"), Some(3600)),
        (json!(" 3600 "), Some(3600)),
        (json!(3599.9), Some(3599)),
        (json!("3599.9"), Some(3599)),
        (json!(3.6e3), Some(3600)),
        (json!(0), None),
        (json!(0.5), None),
        (json!(-1), None),
        (json!("-1"), None),
        (json!(u64::MAX), Some(TEN_YEARS)),
        (json!(1e300), Some(TEN_YEARS)),
        (json!(-1e300), None),
        (json!("99999999999999999999999"), Some(TEN_YEARS)),
        (json!("NaN"), None),
        (json!("inf"), None),
        (json!("soon"), None),
        (json!(""), None),
        (json!(null), None),
        (json!(true), None),
        (json!({}), None),
        (json!([3600]), None),
    ] {
        assert_eq!(lifetime(value.clone()), secs, "{value}");
    }
}

#[tokio::test]
async fn a_form_is_a_reply_and_an_error() {
    let form = |kind: &'static str, body: &'static str| {
        ask_once(move |_| Act::answer("200 OK", &format!("Content-Type: {kind}\r\n"), body), true)
    };
    let body =
        "access_token=a%2Bt&token_type=bearer&expires_in=60&refresh_token=r+t&scope=x+y&access_token=b\n";
    for kind in ["application/x-www-form-urlencoded; charset=UTF-8", "text/plain"] {
        let reply = form(kind, body).await.expect(kind);
        assert_eq!(reply.access_token.expose_secret(), "a+t");
        assert_eq!(reply.refresh_token.expect("one").expose_secret(), "r t");
        assert_eq!((reply.lifetime, reply.token_type.as_str()), (Lifetime::from_secs(60), "bearer"));
        assert_eq!(reply.scopes, ScopeSet::parse("x y").ok());
        let error = form(kind, "error=bad_refresh_token&error_description=canary").await.expect_err(kind);
        assert_eq!(error, TokenError::DeadGrant { code: "bad_refresh_token" });
        assert_eq!(form(kind, "nothing here").await.err(), Some(TokenError::Malformed(Malformed::NotJson)));
    }
    assert_eq!(form("text/html", body).await.err(), Some(TokenError::Malformed(Malformed::NotJson)));
}

#[tokio::test]
async fn a_token_s_own_end_takes_time_away_and_gives_none() {
    use base64::Engine as _;
    let jwt = |claims: &str| {
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.sig", part(r#"{"alg":"none"}"#), part(claims))
    };
    // The server's clock is at 2000-01-01, which is 946684800.
    const DATE: &str = "Date: Sat, 01 Jan 2000 00:00:00 GMT\r\n";
    let then = 1_577_836_800; // 2020-01-01
    let soon = jiff::Timestamp::now().as_second() + 600;
    let at_2020 = "Date: Wed, 01 Jan 2020 00:00:00 GMT\r\n";
    for (headers, token, expires_in, wanted) in [
        (at_2020, jwt(&format!("{{\"exp\":{}}}", then + 300)), json!(null), Some(300)),
        (at_2020, jwt(&format!("{{\"exp\":{}}}", then + 300)), json!(3600), Some(300)),
        (at_2020, jwt(&format!("{{\"exp\":{}.5}}", then + 300)), json!(3600), Some(300)),
        (at_2020, jwt(&format!("{{\"exp\":{}}}", then + 7200)), json!(3600), Some(3600)),
        // It has ended by the clock of the server that sent it.
        (at_2020, jwt(&format!("{{\"exp\":{then}}}")), json!(3600), Some(1)),
        // Without the server's time ours is taken, unless it says that the token has ended: one is wrong.
        ("", jwt(&format!("{{\"exp\":{then}}}")), json!(3600), Some(3600)),
        ("Date: soon\r\n", jwt(&format!("{{\"exp\":{then}}}")), json!(null), None),
        // What says nothing.
        (DATE, jwt(r#"{"exp":3600}"#), json!(60), Some(60)),
        (DATE, jwt(r#"{"exp":"1577836800"}"#), json!(60), Some(60)),
        (DATE, jwt(r#"{"exp":1e300}"#), json!(60), Some(60)),
        (DATE, jwt(r#"{"iat":1577836800}"#), json!(60), Some(60)),
        (DATE, jwt("no JSON"), json!(60), Some(60)),
        (DATE, format!("{}.e", jwt(r#"{"exp":1577836800}"#)), json!(60), Some(60)),
        (DATE, "opaque.and.dotted".to_owned(), json!(60), Some(60)),
    ] {
        let body = json!({"access_token": token, "expires_in": expires_in}).to_string();
        let got = ask_once(move |_| Act::answer("200 OK", headers, &body), true).await.expect("a reply");
        assert_eq!(got.lifetime.map(Lifetime::as_secs), wanted, "{headers}{token}");
    }
    let body = json!({"access_token": jwt(&format!("{{\"exp\":{soon}}}")), "expires_in": 3600}).to_string();
    let got = ask_once(move |_| Act::answer("200 OK", "", &body), true).await.expect("a reply");
    let left = got.lifetime.expect("one").as_secs();
    assert!((1..=600).contains(&left), "{left}");
}

#[tokio::test]
async fn who_sent_an_assertion_is_told_of_clock_and_key() {
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let key = SigningKey::parse(&key.into(), None, SigningAlgorithm::RS256).expect("a key");
    let by_key = ClientCredentials {
        id: ClientId::parse(ID).expect("id"),
        auth: ClientAuth::PrivateKey { key, audience: None },
    };
    for (client, assertion) in [(by_key, true), (credentials(AuthMethod::ClientSecretPost), false)] {
        let act = |_: &str| Act::json("401 Unauthorized", r#"{"error":"invalid_client"}"#);
        let server = Server::start(act).await;
        let mut request = request(server.url("/token"), false);
        request.client = Some(client);
        let error = request_token(&local(), &request).await.expect_err("refused");
        assert_eq!(error, TokenError::BadClient { code: Some("invalid_client"), assertion });
        let says = error.to_string();
        assert_eq!(says.contains("clock") && says.contains("key"), assertion, "{says}");
        assert_eq!(says.contains("secret"), !assertion, "{says}");
    }
}

proptest! {
    #[test]
    fn no_reply_panics(text in "\\PC{0,200}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = read(&value);
        }
        let reply = read(&json!({
            "access_token": text, "token_type": text, "refresh_token": text, "expires_in": text, "scope": text,
        }));
        if let Ok(reply) = reply {
            prop_assert!(reply.access_token.expose_secret().bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert!(reply.token_type.bytes().all(|b| (0x21..=0x7e).contains(&b)));
        }
    }
}

async fn revoke(client: &HttpClient, server: &Server, method: AuthMethod) -> Result<Revoked, SendError> {
    let token = REFRESH.to_owned().into();
    let endpoint = server.url("/revoke");
    revoke_token(client, &endpoint, &credentials(method), &token, Some(TokenHint::RefreshToken)).await
}

#[tokio::test]
async fn revocation_authenticates_as_a_token_request_does() {
    for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None] {
        let server = Server::start(|_| Act::json("200 OK", GOOD)).await;
        assert_eq!(revoke(&local(), &server, method).await, Ok(Revoked::Authenticated));
        let mut request = request(server.url("/token"), true);
        request.client = Some(credentials(method));
        request_token(&local(), &request).await.expect("token");
        let seen = server.requests();
        assert!(seen[0].contains(&format!("token={}&token_type_hint=refresh_token", encoded(REFRESH))));
        let authenticates = |s: &str| {
            let (head, body) = s.split_once("\r\n\r\n").expect("body");
            let header = head.lines().find(|l| l.starts_with("authorization")).map(str::to_owned);
            let body: Vec<_> =
                body.split('&').filter(|p| p.starts_with("client_")).map(str::to_owned).collect();
            (header, body)
        };
        assert_eq!(authenticates(&seen[0]), authenticates(&seen[1]), "{method}");
    }
}

#[tokio::test]
async fn what_revocation_proves() {
    for (status, body, proof) in [
        ("200 OK", "", Some(Revoked::Authenticated)),
        ("200 OK", "<h1>canary</h1>", Some(Revoked::Authenticated)),
        ("401 Unauthorized", "", Some(Revoked::WrongCredentials)),
        ("401 Unauthorized", r#"{"error":"unauthorized_client"}"#, Some(Revoked::WrongCredentials)),
        ("401 Unauthorized", r#"{"error":"invalid_client"}"#, Some(Revoked::WrongCredentials)),
        ("400 Bad Request", r#"{"error":"invalid_client"}"#, Some(Revoked::WrongCredentials)),
        ("400 Bad Request", r#"{"error":"unauthorized_client"}"#, None),
        ("400 Bad Request", r#"{"error":"canary"}"#, None),
        ("403 Forbidden", "", None),
        ("404 Not Found", "", None),
        ("204 No Content", "", None),
        ("302 Found", "", None),
        ("500 Oops", r#"{"error":"invalid_client"}"#, None),
        ("503 Unavailable", "", None),
    ] {
        let server = Server::start(move |_| Act::answer(status, "Retry-After: 3\r\n", body)).await;
        let got = revoke(&local(), &server, AuthMethod::ClientSecretBasic).await.expect("answer");
        match proof {
            Some(proof) => assert_eq!(got, proof, "{status} {body}"),
            None => {
                let Revoked::Unproved(why) = got else { panic!("{status} {body}: {got:?}") };
                assert!(!format!("{why} {why:?}").contains("canary"));
                assert_eq!(why.retry_after, Some(Duration::from_secs(3)));
            }
        }
    }
    let server = Server::start(|_| Act::Reset).await;
    let got = revoke(&local(), &server, AuthMethod::ClientSecretPost).await;
    assert_eq!(got, Err(SendError::NoAnswer(NoAnswer::Reset)));
}

#[test]
fn the_futures_may_move_between_threads() {
    fn is_send<T: Send>(_: T) {}
    let request = request(Url::parse("https://ci.example.com/").expect("url"), true);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let _in_it = runtime.enter();
    let client = local();
    is_send(request_token(&client, &request));
    is_send(discover(&client, &Issuer::parse("https://ci.example.com").expect("issuer")));
}
