//! Secrets that a person chose, which cost Argon2 to check: who tries many makes nobody else wait, and costs no memory.

use super::http::Request;
use super::service::{Service, client};
use futures::stream::{self, StreamExt as _};
use serde_json::json;

const GRANT: &str = "grant_type=client_credentials";
const RIGHT: &str = "a chosen secret, canary";
/// What one client may cost besides: the threads that hash have 19 MiB each, and there are four at most.
const MOST_MEMORY: u64 = 160 << 10;

async fn with_chosen(id: &str) -> Service {
    let service = Service::start(&[]).await;
    service.register(id, json!({"secret": RIGHT, "secretKind": "chosen"})).await;
    service
}

fn ask(service: &Service, id: &str, secret: &str) -> Request {
    service.post("/oauth2/token").basic(id, secret).form(GRANT)
}

/// How many of so many wrong secrets got which answer, this many at a time, from this address.
async fn try_wrong(service: &Service, number: usize, at_once: usize, from: [u8; 4]) -> (usize, usize) {
    let tries = stream::iter(0..number).map(async |n| {
        let reply = ask(service, "c", &format!("a wrong secret, {n}")).from(from).send().await;
        if reply.status == 429 {
            reply.must_be_error(429, "temporarily_unavailable");
            let wait: u64 = reply.header("retry-after").expect("Retry-After").parse().expect("seconds");
            assert!((1..=3).contains(&wait), "{wait}");
        } else {
            reply.must_be_error(401, "invalid_client");
        }
        reply.status
    });
    let found: Vec<u16> = tries.buffer_unordered(at_once).collect().await;
    let of = |status| found.iter().filter(|s| **s == status).count();
    (of(401), of(429))
}

#[tokio::test]
async fn wrong_secrets_are_limited_where_they_come_from_and_a_right_one_isn_t_held_up() {
    let service = with_chosen("c").await;
    let started = std::time::Instant::now();
    let wrong = try_wrong(&service, 800, 100, [127, 0, 0, 2]);
    let right = async {
        let reply = ask(&service, "c", RIGHT).from([127, 0, 0, 3]).send().await;
        (reply.must(200), started.elapsed())
    };
    let ((unauthorized, told_to_wait), (_, took)) = tokio::join!(wrong, right);
    eprintln!("{unauthorized} looked at, {told_to_wait} told to wait; the right one took {took:?}");
    assert!(unauthorized >= 20 && told_to_wait > 600, "{unauthorized} {told_to_wait}");
    // It is known now, and counts where the wrong ones came from too; at each endpoint there.
    ask(&service, "c", RIGHT).from([127, 0, 0, 2]).send().await.must(200);
    for path in ["/oauth2/introspect", "/oauth2/revoke", "/oauth2/token"] {
        let wrong = service.post(path).basic("c", "a wrong secret, canary").form("token=x");
        wrong.clone().from([127, 0, 0, 2]).send().await.must_be_error(429, "temporarily_unavailable");
        wrong.from([127, 0, 0, 3]).send().await.must_be_error(401, "invalid_client");
    }
    // Other clients of that address go on.
    service.register("d", json!({"secret": "another chosen secret", "secretKind": "chosen"})).await;
    ask(&service, "d", "another chosen secret").from([127, 0, 0, 2]).send().await.must(200);
    let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200).body;
    assert!(metrics.contains("applink_provider_client_secrets_not_checked_total"), "{metrics}");
}

#[tokio::test]
async fn hashing_has_its_memory_once() {
    let service = with_chosen("c").await;
    let kib = |field: &str| service.process().memory(field);
    let before = kib("VmRSS");
    for place in 2..22 {
        try_wrong(&service, 20, 8, [127, 0, 0, place]).await;
    }
    let all_right = stream::iter(0..200).map(async |_| ask(&service, "c", RIGHT).send().await.must(200));
    all_right.buffer_unordered(8).for_each(async |_| ()).await;
    let (after, most) = (kib("VmRSS"), kib("VmHWM"));
    eprintln!("{} MiB before, {} after, {} at most", before >> 10, after >> 10, most >> 10);
    assert!(most < MOST_MEMORY, "{} MiB", most >> 10);
}

#[tokio::test]
async fn a_secret_that_is_remembered_ends_with_the_client_s_change() {
    let service = with_chosen("c").await;
    for _ in 0..2 {
        ask(&service, "c", RIGHT).send().await.must(200);
    }
    let newer = "another chosen secret";
    let put = async |body| service.put("c", &client(body)).send().await.must(200);
    put(json!({"secret": newer, "secretKind": "chosen"})).await;
    ask(&service, "c", RIGHT).send().await.must_be_error(401, "invalid_client");
    ask(&service, "c", newer).send().await.must(200);
    // With an overlap both are good, and both are remembered; it ends all the same.
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
    put(json!({"secret": RIGHT, "secretKind": "chosen", "previousSecretExpiresAt": until.to_string()})).await;
    for _ in 0..30 {
        ask(&service, "c", newer).send().await.must(200);
        ask(&service, "c", RIGHT).send().await.must(200);
    }
    put(json!({"secret": RIGHT, "secretKind": "chosen"})).await;
    ask(&service, "c", newer).send().await.must_be_error(401, "invalid_client");
    ask(&service, "c", RIGHT).send().await.must(200);
    service.admin("DELETE", "/admin/clients/c").send().await.must(204);
    ask(&service, "c", RIGHT).send().await.must_be_error(401, "invalid_client");
}

#[tokio::test]
async fn tries_count_by_the_address_that_a_trusted_proxy_tells_and_a_spoofed_header_changes_nothing() {
    let service = Service::start(&["--trusted-proxies", "127.0.0.1/32,10.0.0.0/8"]).await;
    service.register("c", json!({"secret": RIGHT, "secretKind": "chosen"})).await;
    let wrong = async |from: [u8; 4], told: &str, n: usize| {
        let request = ask(&service, "c", &format!("a wrong secret, {n}")).from(from);
        request.header("x-forwarded-for", told).send().await.status
    };
    // Whatever stands left of the client's address was written by the client.
    let mut n = 0;
    while wrong([127, 0, 0, 1], &format!("192.0.2.{}, 203.0.113.7, 10.0.0.1", n % 250), n).await == 401 {
        n += 1;
    }
    assert!(n < 100, "{n}");
    assert_eq!(wrong([127, 0, 0, 1], "203.0.113.8", 0).await, 401);
    // A peer that isn't trusted is the client itself.
    let mut n = 0;
    while wrong([127, 0, 0, 2], &format!("203.0.113.{}", n % 250), n).await == 401 {
        n += 1;
    }
    assert!(n < 100, "{n}");
    assert_eq!(wrong([127, 0, 0, 3], "127.0.0.2", 0).await, 401);
}
