//! Discovery against servers that have one document, the other, none, or something else there.

use super::discovery::{oidc_url, rfc8414_url};
use super::*;
use crate::domain::AuthMethod;
use crate::http::testing::{Act, Server, guard, local};
use crate::http::{HttpClient, NoAnswer, RefusedReason, SendError, Trust};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const RFC8414: &str = "/.well-known/oauth-authorization-server";
const OIDC: &str = "/.well-known/openid-configuration";

/// A server whose two documents are made from its own address.
async fn server(
    rfc8414: impl Fn(&str) -> Act + Send + Sync + 'static,
    oidc: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| {
        let host = request.lines().find_map(|l| l.strip_prefix("host: ")).expect("host");
        let issuer = format!("http://{host}/t");
        let path = request.split(' ').nth(1).expect("path");
        if path == format!("{RFC8414}/t") {
            rfc8414(&issuer)
        } else if path == format!("/t{OIDC}") {
            oidc(&issuer)
        } else {
            Act::answer("404 Not Found", "", "")
        }
    })
    .await
}

fn issuer(server: &Server) -> Issuer {
    Issuer::parse(server.url("/t").as_str()).expect("issuer")
}

fn metadata(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{issuer}/token"),
        "revocation_endpoint": format!("{issuer}/revoke?x=y"),
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_post", 7],
        "authorization_response_iss_parameter_supported": true,
        "unknown": {"more": []},
    })
}

fn good(issuer: &str) -> Act {
    Act::json("200 OK", &metadata(issuer).to_string())
}

fn absent(_: &str) -> Act {
    Act::answer("404 Not Found", "", "canary")
}

#[test]
fn where_the_documents_are() {
    for (issuer, rfc8414, oidc) in [
        (
            "https://a.example",
            "https://a.example/.well-known/oauth-authorization-server",
            "https://a.example/.well-known/openid-configuration",
        ),
        (
            "https://a.example/",
            "https://a.example/.well-known/oauth-authorization-server",
            "https://a.example/.well-known/openid-configuration",
        ),
        (
            "https://a.example:8443/t/1",
            "https://a.example:8443/.well-known/oauth-authorization-server/t/1",
            "https://a.example:8443/t/1/.well-known/openid-configuration",
        ),
        (
            "https://a.example/t/",
            "https://a.example/.well-known/oauth-authorization-server/t",
            "https://a.example/t/.well-known/openid-configuration",
        ),
    ] {
        let issuer = Issuer::parse(issuer).expect("issuer");
        assert_eq!(rfc8414_url(&issuer).as_str(), rfc8414);
        assert_eq!(oidc_url(&issuer).as_str(), oidc);
    }
}

#[test]
fn texts_that_are_no_issuer() {
    for (text, why) in [
        ("", IssuerError::NotUrl),
        ("a.example", IssuerError::NotUrl),
        ("https:a.example", IssuerError::NotUrl),
        ("https://", IssuerError::NotUrl),
        ("https://a.exa\nmple", IssuerError::NotUrl),
        ("https://a.example\\b", IssuerError::NotUrl),
        (" https://a.example", IssuerError::NotUrl),
        ("ftp://a.example", IssuerError::Scheme),
        ("javascript:alert(1)", IssuerError::Scheme),
        ("https://u@a.example", IssuerError::UserInfo),
        ("https://a.example?x", IssuerError::Query),
        ("https://a.example#x", IssuerError::Fragment),
    ] {
        assert_eq!(Issuer::parse(text).err(), Some(why), "{text:?}");
    }
    assert_eq!(Issuer::parse(&format!("https://a/{}", "x".repeat(3000))).err(), Some(IssuerError::TooLong));
    assert_eq!(Issuer::parse("https://A.example").expect("issuer").as_str(), "https://A.example");
}

#[tokio::test]
async fn the_first_document_will_do() {
    let server = server(good, |_| panic!("not asked")).await;
    let issuer = issuer(&server);
    let found = discover(&local(), &issuer).await.expect("found");
    assert_eq!(found.issuer.as_deref(), Some(issuer.as_str()));
    assert_eq!(found.token_endpoint.path(), "/t/token");
    assert_eq!(found.revocation_endpoint.expect("revocation").query(), Some("x=y"));
    assert_eq!(found.authorization_endpoint.expect("authorization").path(), "/t/authorize");
    assert_eq!(found.device_authorization_endpoint, None);
    assert_eq!(found.declared.auth_methods, Some(BTreeSet::from([AuthMethod::ClientSecretPost])));
    assert!(found.declared.sends_iss);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_means_elsewhere_leads_to_the_second_document() {
    let elsewhere: [fn(&str) -> Act; 9] = [
        absent,
        |_| Act::answer("400 Bad Request", "", ""),
        |_| Act::answer("401 Unauthorized", "", ""),
        |_| Act::answer("403 Forbidden", "", ""),
        |_| Act::answer("405 Method Not Allowed", "", ""),
        |_| Act::answer("302 Found", "Location: https://elsewhere.example/\r\n", ""),
        |_| Act::answer("200 OK", "Content-Type: text/html\r\n", "<html>start page</html>"),
        |_| {
            Act::json(
                "200 OK",
                r#"{"issuer":"https://other.example","token_endpoint":"https://other.example/token"}"#,
            )
        },
        |issuer| Act::json("200 OK", &json!({"issuer": issuer}).to_string()),
    ];
    for first in elsewhere {
        let server = server(first, good).await;
        assert!(discover(&local(), &issuer(&server)).await.is_ok());
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn trouble_is_reported_and_not_passed_over() {
    let trouble = |client: HttpClient, act: fn(&str) -> Act| async move {
        let server = server(act, good).await;
        let error = discover(&client, &issuer(&server)).await.expect_err("trouble");
        assert!(server.requests().len() <= 1);
        assert!(error.is_transient());
        error
    };
    assert_eq!(
        trouble(local(), |_| Act::answer("503 Unavailable", "Retry-After: 9\r\n", "canary")).await,
        DiscoveryError::ServerFault { status: 503, retry_after: Some(Duration::from_secs(9)) }
    );
    let limited = trouble(local(), |_| Act::answer("429 Too Many Requests", "", "")).await;
    assert_eq!(limited.reason(), "RateLimited");
    assert_eq!(
        trouble(local().with_timeout(Duration::from_millis(300)), |_| Act::SayAndHang(Vec::new())).await,
        DiscoveryError::Send(SendError::NoAnswer(NoAnswer::Timeout))
    );
    assert_eq!(
        trouble(local(), |_| Act::Reset).await,
        DiscoveryError::Send(SendError::NoAnswer(NoAnswer::Reset))
    );
    assert_eq!(
        trouble(local(), |_| Act::json("200 OK", &"x".repeat(300_000))).await,
        DiscoveryError::Send(SendError::TooLarge)
    );
}

#[tokio::test]
async fn the_more_telling_answer_is_reported() {
    let none = server(absent, absent).await;
    assert_eq!(discover(&local(), &issuer(&none)).await, Err(DiscoveryError::NotFound { status: 404 }));
    let other = server(|_| Act::json("200 OK", r#"{"issuer":"https://canary.example"}"#), absent).await;
    let error = discover(&local(), &issuer(&other)).await.expect_err("mismatch");
    assert_eq!(error, DiscoveryError::IssuerMismatch);
    assert!(!format!("{error} {error:?}").contains("canary"));
    let slash =
        server(absent, |issuer| Act::json("200 OK", &metadata(&format!("{issuer}/")).to_string())).await;
    assert_eq!(discover(&local(), &issuer(&slash)).await, Err(DiscoveryError::IssuerSlash));
}

#[tokio::test]
async fn endpoints_that_cant_be_used() {
    for (field, value, fault) in [
        ("token_endpoint", json!("canary"), IssuerError::NotUrl),
        ("token_endpoint", json!(7), IssuerError::NotUrl),
        ("token_endpoint", json!("ftp://canary.example/"), IssuerError::Scheme),
        ("token_endpoint", json!("https://canary:x@a.example/"), IssuerError::UserInfo),
        ("revocation_endpoint", json!("https://a.example/#canary"), IssuerError::Fragment),
        ("authorization_endpoint", json!("javascript:alert(1)"), IssuerError::Scheme),
    ] {
        let patched = value.clone();
        let act = move |issuer: &str| {
            let mut document = metadata(issuer);
            document[field] = patched.clone();
            Act::json("200 OK", &document.to_string())
        };
        let server = server(act, good).await;
        let error = discover(&local(), &issuer(&server)).await.expect_err("refused");
        assert_eq!(error, DiscoveryError::BadEndpoint { field, fault }, "{value}");
        assert!(!format!("{error} {error:?}").contains("canary"));
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_tenants_issuer_is_guarded() {
    let server = server(good, good).await;
    let guarded = guard(&[]).client(Trust::Guarded, None);
    let refused = Err(DiscoveryError::Send(SendError::Refused(RefusedReason::PlainHttp)));
    assert_eq!(discover(&guarded, &issuer(&server)).await, refused);
    let inside = Issuer::parse("https://169.254.169.254/").expect("issuer");
    let refused = DiscoveryError::Send(SendError::Refused(RefusedReason::NotPublic));
    assert_eq!(discover(&guarded, &inside).await.expect_err("refused"), refused);
    assert!(!refused.is_transient());
    assert_eq!(refused.reason(), "AddressRefused");
    assert!(server.requests().is_empty());
}
