//! What is taken for an ID token and what isn't; the signatures of `tests/corpus/jws.json` were made by joserfc.

use super::*;
use crate::domain::{AuthMethod, ClientId};
use crate::http::testing::{Act, Server, local};
use crate::outgoing::presets::{self, CUSTOM};
use serde_json::json;
use std::collections::BTreeSet;
use url::Url;

const NOW: i64 = 1_700_000_000;

fn read(issuers: &[&str], nonce: Option<&str>, claims: &Value) -> Result<(), IdTokenFault> {
    let now = Timestamp::from_second(NOW).expect("a time");
    let issuers = issuers.iter().map(|&i| i.to_owned()).collect();
    check(claims, &Wanted { client: "us", issuers, nonce, now })
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

#[test]
fn an_id_token_is_read_if_it_is_for_us() {
    use IdTokenFault as F;
    let good = json!({"iss": "https://a", "aud": "us", "sub": "1", "email": "a@b", "exp": NOW + 60});
    let read = |claims: &Value| read(&["https://a"], None, claims);
    assert_eq!(read(&good), Ok(()));
    for (name, value) in [
        ("aud", json!(["us"])),
        ("azp", json!("us")),
        ("azp", json!(null)),
        // Clocks differ a little.
        ("exp", json!(NOW - 299)),
        ("exp", json!(1_700_000_000.5)),
        ("iat", json!(NOW + 299)),
        ("nbf", json!(NOW + 299)),
        ("nonce", json!("of somebody else's making")),
    ] {
        let other = with(good.clone(), name, value);
        assert_eq!(read(&other), Ok(()), "{other}");
    }
    assert_eq!(read(&with(with(good.clone(), "aud", json!(["x", "us"])), "azp", json!("us"))), Ok(()));
    for (name, value, why) in [
        ("iss", json!("https://b"), F::Issuer),
        ("iss", json!("https://a/"), F::Issuer),
        ("iss", json!(null), F::Issuer),
        ("aud", json!("them"), F::Audience),
        ("aud", json!(["them"]), F::Audience),
        ("aud", json!(["x", "us"]), F::Audience),
        ("aud", json!([]), F::Audience),
        ("aud", json!(null), F::Audience),
        ("azp", json!("them"), F::Audience),
        ("azp", json!(7), F::Audience),
        ("exp", json!(NOW - 300), F::Ended),
        ("exp", json!(0), F::Ended),
        ("exp", json!("1800000000"), F::Ended),
        ("exp", json!(null), F::Ended),
        ("iat", json!(NOW + 301), F::NotYet),
        ("iat", json!("now"), F::NotYet),
        ("nbf", json!(NOW + 301), F::NotYet),
    ] {
        let other = with(good.clone(), name, value);
        assert_eq!(read(&other), Err(why), "{other}");
    }
    for name in ["iss", "aud", "exp"] {
        let mut other = good.clone();
        other.as_object_mut().expect("an object").remove(name);
        assert!(read(&other).is_err(), "without {name}");
    }
}

#[test]
fn a_nonce_that_was_sent_comes_back() {
    let good = json!({"iss": "https://a", "aud": "us", "sub": "1", "exp": NOW + 60, "nonce": "n"});
    assert_eq!(read(&[], Some("n"), &good), Ok(()));
    for other in [with(good.clone(), "nonce", json!("m")), with(good, "nonce", json!(null))] {
        assert_eq!(read(&[], Some("n"), &other), Err(IdTokenFault::Nonce), "{other}");
    }
}

#[test]
fn a_tenant_of_entra_issues_its_own_tokens() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let of = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
    let good = json!({"iss": of(TENANT), "tid": TENANT, "aud": "us", "oid": "1", "exp": NOW + 60});
    let read_at = |endpoints: &ServerEndpoints, claims: &Value| {
        let issuers = issuers(&presets::MICROSOFT, endpoints);
        read(&issuers.iter().map(String::as_str).collect::<Vec<_>>(), None, claims).is_ok()
    };
    for asked in ["common", "organizations", "consumers", TENANT, "contoso.example"] {
        let endpoints = presets::MICROSOFT.endpoints(None, asked).expect("endpoints");
        assert!(read_at(&endpoints, &good), "{asked}");
        for (name, value) in [
            ("iss", json!(of("another-tenant"))),
            ("iss", json!(of("common"))),
            ("iss", json!(format!("https://login.example.com/{TENANT}/v2.0"))),
            ("iss", json!(format!("{}/", of(TENANT)))),
            ("tid", json!("another-tenant")),
            ("tid", json!("")),
            ("tid", json!(null)),
        ] {
            let other = with(good.clone(), name, value);
            assert!(!read_at(&endpoints, &other), "{asked}: {other}");
        }
        let path = "x/../y";
        let other = with(with(good.clone(), "iss", json!(of(path))), "tid", json!(path));
        assert!(!read_at(&endpoints, &other), "{asked}: {other}");
    }
    // A national cloud has another host.
    let there = Url::parse("https://login.microsoftonline.us/common/oauth2/v2.0/token").expect("a URL");
    let endpoints = ServerEndpoints::new(there);
    assert!(!read_at(&endpoints, &good));
    let theirs = with(good, "iss", json!(format!("https://login.microsoftonline.us/{TENANT}/v2.0")));
    assert!(read_at(&endpoints, &theirs));
}

#[test]
fn google_is_named_with_and_without_its_scheme() {
    let endpoints = presets::GOOGLE.endpoints(None, "").expect("endpoints");
    assert_eq!(issuers(&presets::GOOGLE, &endpoints), ["https://accounts.google.com", "accounts.google.com"]);
    assert_eq!(issuers(&CUSTOM, &endpoints), ["https://accounts.google.com"]);
}

/// A token without a signature that is good for long.
fn unsigned(header: &Value) -> SecretString {
    let claims = json!({"iss": "https://a", "aud": "us", "sub": "1", "exp": 4_000_000_000_u64});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(&claims)).into()
}

fn endpoints(token_endpoint: &str) -> ServerEndpoints {
    let url = Url::parse(token_endpoint).expect("a URL");
    ServerEndpoints { issuer: Some("https://a".into()), ..ServerEndpoints::new(url) }
}

async fn read_by(endpoints: &ServerEndpoints, token: &SecretString) -> Result<bool, IdTokenFault> {
    let client = ClientCredentials::by_secret(
        ClientId::parse("us").expect("an ID"),
        AuthMethod::ClientSecretBasic,
        "only-for-tests-0123456789-0123456789-0123456789-0123456789-0123456789".to_owned().into(),
    );
    Ok(read_id_token(&local(), &CUSTOM, endpoints, &client, token, None).await?.is_some())
}

#[tokio::test]
async fn over_tls_alone_may_a_signature_go_unchecked_and_none_be_there_where_the_server_says_so() {
    use IdTokenFault as F;
    let (tls, plain) = (endpoints("https://a/token"), endpoints("http://a/token"));
    let some = unsigned(&json!({"alg": "RS256"}));
    let none = unsigned(&json!({"alg": "none"}));
    assert_eq!(read_by(&tls, &some).await, Ok(true));
    assert_eq!(read_by(&tls, &none).await, Err(F::Unsigned));
    assert_eq!(read_by(&plain, &none).await, Err(F::Unsigned));
    assert_eq!(read_by(&plain, &some).await, Ok(false), "no keys are known, so it says nothing");
    let mut names = tls.clone();
    names.declared.id_token_algorithms = Some(BTreeSet::from(["none".into(), "RS256".into()]));
    assert_eq!(read_by(&names, &none).await, Ok(true));
    let mut names = plain;
    names.declared.id_token_algorithms = Some(BTreeSet::from(["none".into()]));
    assert_eq!(read_by(&names, &none).await, Err(F::Unsigned));
    for (token, why) in [
        ("", F::Unreadable),
        ("a.b.c", F::Unreadable),
        ("e30.bm8ganNvbg.", F::Unreadable),
        ("a.b.c.d.e", F::Encrypted),
    ] {
        assert_eq!(read_by(&tls, &token.to_owned().into()).await, Err(why), "{token}");
    }
    assert_eq!(read_by(&tls, &unsigned(&json!({"alg": "RS256", "crit": ["x"]}))).await, Err(F::Unreadable));
}

#[tokio::test]
async fn without_tls_the_signature_is_checked_with_the_server_s_keys() {
    use IdTokenFault as F;
    let corpus: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/corpus/jws.json")).expect("JSON");
    let keys: Vec<_> = corpus.iter().map(|c| c["key"].clone()).filter(Value::is_object).collect();
    let serving = |keys: Vec<Value>| async move {
        let body = json!({ "keys": keys }).to_string();
        let server = Server::start(move |_| Act::json("200 OK", &body)).await;
        let mut there = endpoints("http://a/token");
        there.declared.jwks_uri = Some(server.url("/keys"));
        (server, there)
    };
    let (_server, all) = serving(keys.clone()).await;
    let (_other_server, none) = serving(vec![]).await;
    for case in &corpus {
        let (algorithm, token) =
            (case["alg"].as_str().expect("alg"), case["token"].as_str().expect("a token"));
        let by_secret = algorithm.starts_with("HS");
        // The signature is right; the token has ended long since.
        assert_eq!(read_by(&all, &token.to_owned().into()).await, Err(F::Ended), "{algorithm}");
        let forged = token.replacen(".eyJ", ".eyK", 1);
        let forged = read_by(&all, &forged.into()).await;
        assert!(matches!(forged, Err(F::Signature(_) | F::Unreadable)), "{algorithm}: {forged:?}");
        let (body, signature) = token.rsplit_once('.').expect("a signature");
        let first = if signature.starts_with('A') { "B" } else { "A" };
        let wrong = format!("{body}.{first}{}", &signature[1..]);
        assert_eq!(
            read_by(&all, &wrong.into()).await,
            Err(F::Signature(SignatureFault::Wrong)),
            "{algorithm}"
        );
        if !by_secret {
            let gone = read_by(&none, &token.to_owned().into()).await;
            assert_eq!(gone, Err(F::Signature(SignatureFault::NoKey)), "{algorithm}");
        }
    }
    // A key of another name, or for another use, isn't tried.
    for (name, value) in [("kid", "other"), ("use", "enc"), ("alg", "ES512")] {
        let changed = keys.iter().map(|k| with(k.clone(), name, json!(value))).collect();
        let (_server, there) = serving(changed).await;
        let token = corpus[0]["token"].as_str().expect("a token").to_owned().into();
        assert_eq!(read_by(&there, &token).await, Err(F::Signature(SignatureFault::NoKey)), "{name}");
    }
    let odd = read_by(&all, &unsigned(&json!({"alg": "XS1"}))).await;
    assert_eq!(odd, Err(F::Signature(SignatureFault::Algorithm)));
    let broken = Server::start(|_| Act::json("500 X", "")).await;
    let mut there = endpoints("http://a/token");
    there.declared.jwks_uri = Some(broken.url("/keys"));
    assert_eq!(read_by(&there, &unsigned(&json!({"alg": "RS256"}))).await, Err(F::NoKeys));
}
