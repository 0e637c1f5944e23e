//! Against a double of the API server: its clock can't be moved, and its shortest token lives for ten minutes. With the
//! real one: `tests/it/link/federated.rs`.

use super::*;
use axum::http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

/// Answers with tokens `token-1`, `token-2`, …, and writes down for which audiences it was asked.
fn api_server(life: i64) -> (AccountTokens, Arc<Mutex<Vec<Value>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect_bytes().await.map_err(tower::BoxError::from)?;
            let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
            let (status, answer) = if path == "/api/v1/namespaces/team/serviceaccounts/ci/token" {
                let number = {
                    let mut seen = seen.lock().expect("no panic");
                    seen.push(answer["spec"]["audiences"].clone());
                    seen.len()
                };
                if answer["spec"]["audiences"] == json!([]) {
                    answer["spec"]["audiences"] = json!(["https://api", "https://api.other"]);
                }
                answer["spec"]["expirationSeconds"] = json!(life);
                answer["status"] = json!({
                    "token": format!("head.{}.token-{number}", URL_SAFE_NO_PAD.encode(r#"{"iss":"https://issuer"}"#)),
                    "expirationTimestamp": "2000-01-01T00:00:00Z",
                });
                (201, answer)
            } else {
                let status =
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
                (404, status)
            };
            let answer = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, tower::BoxError>(answer.expect("a response"))
        }
    });
    (AccountTokens::new(Client::new(service, "default")), asked)
}

fn of(name: &str, audience: &str) -> ServiceAccount {
    ServiceAccount { namespace: "team".to_owned(), name: name.to_owned(), audience: audience.to_owned() }
}

fn number(assertion: &Assertion) -> &str {
    assertion.token.expose_secret().rsplit('-').next().unwrap_or_default()
}

#[tokio::test]
async fn a_token_serves_until_a_third_of_its_life_is_left() {
    let (tokens, asked) = api_server(600);
    let (ci, start) = (of("ci", "https://server"), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    let first = tokens.get(&ci, start).await.expect("a token");
    assert_eq!((number(&first), first.issuer.as_str()), ("2", "\"https://issuer\""));
    assert_eq!(number(&tokens.get(&ci, at(399)).await.expect("a token")), "2");
    assert_eq!(number(&tokens.get(&ci, at(400)).await.expect("a token")), "3");
    // What the API server's own audiences are is asked again later.
    assert_eq!(number(&tokens.get(&ci, at(800)).await.expect("a token")), "5");
    let [none, ours] = [json!([]), json!(["https://server"])];
    assert_eq!(*asked.lock().expect("no panic"), [&none, &ours, &ours, &none, &ours].map(Clone::clone));
}

#[tokio::test]
async fn the_life_is_what_the_server_made_it() {
    let (tokens, _) = api_server(3600);
    let (ci, start) = (of("ci", "https://server"), Instant::now());
    let first = tokens.get(&ci, start).await.expect("a token");
    let later = tokens.get(&ci, start + Duration::from_secs(2399)).await.expect("a token");
    assert_eq!(number(&first), number(&later));
}

#[tokio::test]
async fn what_the_server_refused_is_made_anew() {
    let (tokens, _) = api_server(600);
    let (ci, now) = (of("ci", "https://server"), Instant::now());
    tokens.get(&ci, now).await.expect("a token");
    tokens.forget(&ci).await;
    assert_eq!(number(&tokens.get(&ci, now).await.expect("a token")), "3");
}

#[tokio::test]
async fn no_token_is_made_for_an_audience_of_the_api_server() {
    let (tokens, asked) = api_server(600);
    for audience in ["https://api", "https://api.other"] {
        let problem = tokens.get(&of("ci", audience), Instant::now()).await.expect_err("refused");
        assert_eq!(problem.reason, "AudienceForbidden");
        assert!(problem.message.contains(audience), "{}", problem.message);
    }
    // Only what its audiences are was asked, and once.
    assert_eq!(*asked.lock().expect("no panic"), [json!([])]);
}

#[tokio::test]
async fn a_missing_account_is_named() {
    let (tokens, _) = api_server(600);
    let problem = tokens.get(&of("none", "https://server"), Instant::now()).await.expect_err("missing");
    assert_eq!(problem.reason, "ServiceAccountMissing");
    assert!(problem.message.contains("none"), "{}", problem.message);
}

#[tokio::test]
async fn debug_shows_no_token() {
    let (tokens, _) = api_server(600);
    let assertion = tokens.get(&of("ci", "https://server"), Instant::now()).await.expect("a token");
    assert!(!format!("{assertion:?}").contains("token-"));
}

#[test]
fn the_grant_is_told_whole() {
    let us = ("system".to_owned(), "applink-operator".to_owned());
    let text = grant(&of("ci", "https://server"), Some(&us));
    for part in [
        "Role with rules: [{apiGroups: [\"\"], resources: [serviceaccounts/token], resourceNames: [ci], verbs: [create]}]",
        "subjects: [{kind: ServiceAccount, name: applink-operator, namespace: system}]",
        "in namespace team",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
