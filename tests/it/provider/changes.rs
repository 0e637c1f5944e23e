//! The stream of changes: told once, told at once, and never to who made them.

use super::http::Request;
use super::service::{Service, client, owner};
use crate::support::wait::{SOON, eventually};
use serde_json::{Value, json};

fn changes(service: &Service, query: &str) -> Request {
    service.admin("GET", &format!("/admin/changes{query}"))
}

async fn now(service: &Service) -> u64 {
    let answer = changes(service, "").send().await.must(200).json();
    assert_eq!((&answer["reset"], &answer["changes"]), (&json!(false), &json!([])));
    answer["next"].as_u64().expect("a number")
}

fn change(id: &str, deleted: bool) -> Value {
    json!({"id": id, "owner": null, "deleted": deleted})
}

/// Waits until so many requests wait: they are connections, beside the one that asks.
async fn waiting(service: &Service, many: usize) {
    eventually(SOON, "the requests to be there", async || {
        let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200).body;
        metrics.contains(&format!("applink_provider_connections{{listener=\"admin\"}} {}\n", many + 1))
    })
    .await;
}

#[tokio::test]
async fn every_write_is_told_in_order_and_nothing_else() {
    let service = Service::start(&[]).await;
    service.register("before", json!({})).await;
    let start = now(&service).await;
    let mine = owner(json!({}));
    service.register("a", json!({"owner": mine})).await;
    service.put("a", &client(json!({"owner": mine}))).send().await.must(200);
    service.register("team%20a%2Fb", json!({})).await;
    service.put("a", &client(json!({"owner": mine, "revokeTokens": true}))).send().await.must(200);
    service.put("a", &client(json!({"owner": mine, "name": "New"}))).send().await.must(200);
    service.admin("DELETE", "/admin/clients/a").send().await.must(204);
    service.admin("DELETE", "/admin/clients/a").send().await.must(404);
    service.put("before", &client(json!({}))).header("if-none-match", "*").send().await.must(412);

    let answer = changes(&service, &format!("?after={start}")).send().await.must(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let owned = |deleted| json!({"id": "a", "owner": mine, "deleted": deleted});
    let instance = service.admin("GET", "/admin/info").send().await.text("instance");
    let expected = json!({
        "instance": instance, "next": start + 4, "reset": false,
        "changes": [owned(false), change("team a/b", false), owned(false), owned(true)],
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(now(&service).await, start + 4);
    let rest = changes(&service, &format!("?after={}", start + 3)).send().await.must(200).json();
    assert_eq!(rest["changes"], json!([owned(true)]));
    let none = changes(&service, &format!("?after={}", start + 4)).send().await.must(200).json();
    assert_eq!((&none["changes"], &none["reset"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn who_waits_is_told_at_once_but_not_what_they_did() {
    let service = Service::start(&[]).await;
    let start = now(&service).await;
    let by = |actor: &str, id: &str| service.put(id, &client(json!({}))).header("applink-actor", actor);
    let all = changes(&service, &format!("?after={start}&wait=60"));
    let others = changes(&service, &format!("?after={start}&wait=60&except=op-1.a_B"));
    let (all, others) =
        (tokio::spawn(async move { all.send().await }), tokio::spawn(async move { others.send().await }));
    waiting(&service, 2).await;

    by("op-1.a_B", "mine").send().await.must(201);
    let told = tokio::time::timeout(SOON, all).await.expect("told at once").expect("told");
    assert_eq!(told.must(200).json()["changes"], json!([change("mine", false)]));
    service.admin("DELETE", "/admin/clients/mine").header("applink-actor", "op-1.a_B").send().await.must(204);
    assert!(!others.is_finished());
    by("op-2", "theirs").send().await.must(201);
    let told =
        tokio::time::timeout(SOON, others).await.expect("told at once").expect("told").must(200).json();
    assert_eq!((&told["changes"], &told["next"]), (&json!([change("theirs", false)]), &json!(start + 3)));
    // Who has nothing to be told still goes on.
    let none = changes(&service, &format!("?after={start}&except=op-1.a_B")).send().await.must(200).json();
    assert_eq!(none["next"], start + 3);
    let none = changes(&service, &format!("?after={}&except=op-2", start + 2)).send().await.must(200).json();
    assert_eq!((&none["changes"], &none["next"]), (&json!([]), &json!(start + 3)));
}

#[tokio::test]
async fn a_number_of_another_start_is_a_reset() {
    let mut service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    let old = now(&service).await;
    service.process().kill();
    service.process().wait(SOON).await;
    service.start_again().await;
    for after in [old, old - 1, 0, u64::MAX] {
        let answer = changes(&service, &format!("?after={after}&wait=60")).send().await.must(200).json();
        assert_eq!((&answer["reset"], &answer["changes"]), (&json!(true), &json!([])));
        assert_eq!(answer["next"], now(&service).await);
    }
}

#[tokio::test]
async fn the_request_timeout_doesnt_cut_a_wait() {
    let service = Service::start(&["--request-timeout", "2s", "--header-timeout", "1s"]).await;
    let start = now(&service).await;
    let answer = changes(&service, &format!("?after={start}&wait=3")).send().await.must(200).json();
    assert_eq!((&answer["next"], &answer["changes"]), (&json!(start), &json!([])));
}

#[tokio::test]
async fn who_waits_doesnt_hold_up_a_shutdown() {
    let service = Service::start(&[]).await;
    let start = now(&service).await;
    let request = changes(&service, &format!("?after={start}&wait=60"));
    let waiter = tokio::spawn(async move { request.send().await });
    waiting(&service, 1).await;
    service.process().terminate();
    let answer = waiter.await.expect("answered").must(200).json();
    assert_eq!((&answer["next"], &answer["changes"]), (&json!(start), &json!([])));
    assert!(service.process().wait(SOON).await.success());
    assert!(!service.process().log().contains("the drain timeout is over"));
}

#[tokio::test]
async fn only_so_many_may_wait_and_who_leaves_makes_room() {
    let service = Service::start(&[]).await;
    let start = now(&service).await;
    let request = changes(&service, &format!("?after={start}&wait=60"));
    let waiters = (0..65).map(|_| {
        let request = request.clone();
        tokio::spawn(async move { request.send().await })
    });
    // The first answer is to the one that found no place.
    let (refused, _, mut waiters) = futures::future::select_all(waiters).await;
    refused.expect("answered").must_be_problem(503, "too-many-waiters", None);
    let short = changes(&service, &format!("?after={start}&wait=1"));
    short.send().await.must_be_problem(503, "too-many-waiters", None);
    // Asking without waiting needs no place.
    changes(&service, &format!("?after={start}")).send().await.must(200);
    waiters.pop().expect("one of them").abort();
    eventually(SOON, "a place to be free again", async || short.send().await.status == 200).await;
    service.register("c", json!({})).await;
    for waiter in waiters {
        let told = tokio::time::timeout(SOON, waiter).await.expect("told at once").expect("told");
        assert_eq!(told.must(200).json()["changes"], json!([change("c", false)]));
    }
}

#[tokio::test]
async fn odd_questions_are_refused() {
    let service = Service::start(&[]).await;
    let start = now(&service).await;
    changes(&service, &format!("?after={start}&wait=61")).send().await.must_be_problem(
        400,
        "invalid-request",
        Some("wait"),
    );
    for odd in ["a%20b", "", &"x".repeat(65)] {
        let refused = changes(&service, &format!("?after={start}&except={odd}")).send().await;
        refused.must_be_problem(400, "invalid-request", Some("except"));
    }
    for odd in ["?after=x", "?after=-1", "?since=1"] {
        changes(&service, odd).send().await.must_be_problem(400, "invalid-request", None);
    }
    for odd in ["a b", "", &"x".repeat(65)] {
        for request in [service.put("c", &client(json!({}))), service.admin("DELETE", "/admin/clients/c")] {
            let refused = request.header("applink-actor", odd).send().await;
            refused.must_be_problem(400, "invalid-request", Some("Applink-Actor"));
        }
    }
    let twice =
        service.put("c", &client(json!({}))).header("applink-actor", "a").header("applink-actor", "b");
    twice.send().await.must_be_problem(400, "invalid-request", Some("Applink-Actor"));
    Request::new(service.admin, "GET", "/admin/changes").send().await.must_be_problem(
        401,
        "unauthorized",
        None,
    );
    service.admin("POST", "/admin/changes").send().await.must_be_problem(405, "method-not-allowed", None);
    assert_eq!(now(&service).await, start);
}

#[tokio::test]
async fn nothing_is_missed_between_the_number_and_the_list() {
    let service = Service::start(&[]).await;
    let start = now(&service).await;
    let writes = futures::future::join_all((0..60).map(|i| {
        let request = service.put(&format!("c{i}"), &client(json!({})));
        async move { request.send().await.must(201) }
    }));
    let follow = async {
        let (mut after, mut seen) = (start, Vec::new());
        while seen.len() < 60 {
            let query = format!("?after={after}&wait=20");
            let answer = changes(&service, &query).send().await.must(200).json();
            assert_eq!(answer["reset"], false);
            after = answer["next"].as_u64().expect("a number");
            let ids = answer["changes"].as_array().expect("a list").iter();
            seen.extend(ids.map(|c| c["id"].as_str().expect("an ID").to_owned()));
        }
        seen
    };
    let (_, mut seen) =
        tokio::time::timeout(3 * SOON, futures::future::join(writes, follow)).await.expect("all");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 60);
    assert_eq!(now(&service).await, start + 60);
}
