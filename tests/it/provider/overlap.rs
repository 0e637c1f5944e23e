//! Two secrets of a client at once: who may authenticate with which, and until when.

use super::http::Reply;
use super::service::{DERIVED, Service, client};
use crate::support::wait::{SOON, eventually};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const SECOND: &str = "second-canary-secret-0123456789-0123456789-0";
const THIRD: &str = "third-canary-secret-0123456789-0123456789-01";

/// A time this many seconds from now, as the service shows it.
fn ahead(seconds: i64) -> String {
    let then = Timestamp::now() + SignedDuration::from_secs(seconds);
    Timestamp::from_millisecond(then.as_millisecond()).expect("a time").to_string()
}

async fn works(service: &Service, secret: &str) -> bool {
    let request = service.post("/oauth2/token").basic("c", secret).form("grant_type=client_credentials");
    let reply = request.send().await;
    if reply.status != 200 {
        reply.must_be_error(401, "invalid_client");
        return false;
    }
    true
}

/// Which of the three secrets authenticate.
async fn working(service: &Service) -> [bool; 3] {
    [works(service, DERIVED).await, works(service, SECOND).await, works(service, THIRD).await]
}

async fn put(service: &Service, change: Value) -> Reply {
    service.put("c", &client(change)).send().await.must(200)
}

#[tokio::test]
async fn old_and_new_both_work_until_the_time_that_was_given() {
    let service = Service::start(&[]).await;
    let made = service.register("c", json!({"previousSecretExpiresAt": ahead(3600)})).await;
    assert_eq!(made.json().get("previousSecretExpiresAt"), None, "there was none before");

    let until = ahead(3600);
    let body = json!({"secret": SECOND, "previousSecretExpiresAt": until});
    let changed = put(&service, body.clone()).await;
    assert_ne!(changed.header("etag"), made.header("etag"));
    assert_eq!(changed.json()["previousSecretExpiresAt"], until);
    assert_eq!(working(&service).await, [true, true, false]);
    // The same PUT again, and one that leaves the secret as it is, write nothing.
    let silent = json!({"secret": null, "secretKind": null, "previousSecretExpiresAt": until});
    for body in [body, silent] {
        let again = put(&service, body).await;
        assert_eq!((again.header("etag"), again.json()), (changed.header("etag"), changed.json()));
    }
    let read = service.admin("GET", "/admin/clients/c").send().await.must(200);
    assert_eq!(read.json(), changed.json());
    let list = service.admin("GET", "/admin/clients").send().await.must(200);
    assert_eq!(list.json()["items"], json!([changed.json()]));

    // Of three, the oldest is dropped.
    put(&service, json!({"secret": THIRD, "previousSecretExpiresAt": ahead(3600)})).await;
    assert_eq!(working(&service).await, [false, true, true]);

    // Another time for the one before, and then that time comes.
    let soon = json!({"secret": THIRD, "previousSecretExpiresAt": ahead(5)});
    let shortened = put(&service, soon.clone()).await;
    assert_eq!(shortened.json()["previousSecretExpiresAt"], soon["previousSecretExpiresAt"]);
    eventually(SOON, "the second secret to end", async || !works(&service, SECOND).await).await;
    assert_eq!(working(&service).await, [false, false, true]);
    let over = service.admin("GET", "/admin/clients/c").send().await.must(200);
    assert_eq!(over.json().get("previousSecretExpiresAt"), None);
    // The same PUT still is one that changes nothing, and a longer time wakes no dead secret.
    let etag = shortened.header("etag");
    for body in [soon, json!({"secret": THIRD, "previousSecretExpiresAt": ahead(3600)})] {
        assert_eq!(put(&service, body).await.header("etag"), etag);
    }
    assert_eq!(working(&service).await, [false, false, true]);
}

#[tokio::test]
async fn without_the_field_the_old_secret_ends_at_once() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    put(&service, json!({"secret": SECOND})).await;
    assert_eq!(working(&service).await, [false, true, false]);

    // An overlap is ended early by a PUT without it.
    put(&service, json!({"secret": THIRD, "previousSecretExpiresAt": ahead(3600)})).await;
    assert_eq!(working(&service).await, [false, true, true]);
    let ended = put(&service, json!({"secret": THIRD})).await;
    assert_eq!(ended.json().get("previousSecretExpiresAt"), None);
    assert_eq!(working(&service).await, [false, false, true]);
    assert_eq!(put(&service, json!({"secret": THIRD})).await.header("etag"), ended.header("etag"));

    // A time that is over is no overlap either; and back to an old secret is a change like any other.
    put(&service, json!({"secret": DERIVED, "previousSecretExpiresAt": ahead(-1)})).await;
    assert_eq!(working(&service).await, [true, false, false]);
    put(&service, json!({"secret": THIRD, "previousSecretExpiresAt": ahead(3600)})).await;
    put(&service, json!({"secret": DERIVED, "previousSecretExpiresAt": ahead(3600)})).await;
    assert_eq!(working(&service).await, [true, false, true]);
}

#[tokio::test]
async fn a_public_client_has_neither() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    put(&service, json!({"secret": SECOND, "previousSecretExpiresAt": ahead(3600)})).await;
    let public = |more: Value| {
        let mut body = client(json!({
            "secret": null, "secretKind": null, "tokenEndpointAuthMethod": "none", "grantTypes": ["refresh_token"],
        }));
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        service.put("c", &body)
    };
    let refused = public(json!({"previousSecretExpiresAt": ahead(3600)})).send().await;
    refused.must_be_problem(400, "invalid-request", Some("previousSecretExpiresAt"));
    public(json!({})).send().await.must(200);
    // Confidential again, it has a secret of its own, and none of the old ones.
    put(&service, json!({"secret": THIRD, "previousSecretExpiresAt": ahead(3600)})).await;
    assert_eq!(working(&service).await, [false, false, true]);
}

#[tokio::test]
async fn chosen_secrets_overlap_too_and_a_restart_keeps_both() {
    let mut service = Service::start(&[]).await;
    service.register("c", json!({"secret": "canary chosen secret", "secretKind": "chosen"})).await;
    put(&service, json!({"secret": SECOND, "previousSecretExpiresAt": ahead(3600)})).await;
    // The same text kept in another way drops nothing and adds nothing.
    put(&service, json!({"secret": SECOND, "secretKind": "chosen", "previousSecretExpiresAt": ahead(3600)}))
        .await;
    service.process().kill();
    service.process().wait(SOON).await;
    service.start_again().await;
    assert!(works(&service, "canary chosen secret").await);
    assert_eq!(working(&service).await, [false, true, false]);
}

#[tokio::test]
async fn a_time_that_cant_be_is_refused_with_the_way_out() {
    let service = Service::start(&[]).await;
    for (odd, way_out) in [("soon", "RFC 3339"), (ahead(31 * 86_400).as_str(), "30 days")] {
        let refused = service.put("c", &client(json!({"previousSecretExpiresAt": odd}))).send().await;
        refused.must_be_problem(400, "invalid-request", Some("previousSecretExpiresAt"));
        let detail = refused.text("detail");
        assert!(detail.contains(odd) && detail.contains(way_out), "{detail}");
    }
}
