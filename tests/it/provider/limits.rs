//! What a peer may cost: sizes, times, connections; and that other peers don't notice.

use super::http::{Reply, Request};
use super::service::{DERIVED, Service};
use crate::support::wait::{SOON, eventually};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// All that comes until the peer closes, or nothing when it has reset the connection.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    bytes
}

#[tokio::test]
async fn large_requests_are_refused_on_both_listeners() {
    let service = Service::start(&[]).await;
    service.register("c", json!({})).await;
    let large = format!("grant_type={}", "x".repeat(65_536));
    let reply = service.post("/oauth2/token").basic("c", DERIVED).form(&large).send().await;
    reply.must_be_error(413, "invalid_request");
    // It is as large as it is, whatever it says of itself.
    let mut stream = TcpStream::connect(("127.0.0.1", service.public)).await.expect("connected");
    let head = "POST /oauth2/token HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..2 {
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    let reply = Reply::parse(&rest(&mut stream).await).expect("a reply");
    reply.must_be_error(413, "invalid_request");

    for port in [service.public, service.admin] {
        let request = Request::new(port, "GET", "/healthz");
        // Fewer than hyper itself would refuse.
        let many = (0..70).fold(request.clone(), |r, i| r.header(&format!("x-{i}"), "1"));
        many.send().await.must(431);
        request.header("x-large", "x".repeat(20_000)).send().await.must(431);
        let address = format!("/{}", "x".repeat(20_000));
        let reply = Request::new(port, "GET", &address).send().await;
        assert!([414, 431].contains(&reply.status), "{reply:?}");
    }
    assert_eq!(service.access("c").await.len(), 43);
}

#[tokio::test]
async fn a_client_that_asks_without_end_is_told_to_wait_and_others_go_on() {
    let flags = ["--client-tokens-per-second", "1", "--client-live-tokens", "100"];
    let service = Service::start(&flags).await;
    for id in ["greedy", "modest"] {
        service.register(id, json!({})).await;
    }
    let ask = async || {
        let request = service.post("/oauth2/token").basic("greedy", DERIVED);
        request.form("grant_type=client_credentials").send().await
    };
    let refused = eventually(SOON, "a refusal", async || Some(ask().await).filter(|r| r.status != 200)).await;
    refused.must_be_error(429, "temporarily_unavailable");
    let wait: u64 = refused.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
    // Others go on, and so does what isn't counted.
    service.access("modest").await;
    let grant = service.grant("greedy").await;
    service.refresh("greedy", &grant).await.must(200);
    let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200);
    assert!(metrics.body.contains("applink_provider_token_requests_over_budget_total"), "{}", metrics.body);
    // Once it has waited, it gets one.
    eventually(SOON, "another token", async || ask().await.status == 200).await;
}

#[tokio::test]
async fn slow_peers_are_cut_off() {
    let service = Service::start(&["--header-timeout", "1s", "--request-timeout", "4s"]).await;
    service.register("c", json!({})).await;
    for port in [service.public, service.admin] {
        let started = Instant::now();
        // One that says nothing, one that stops in its head, one that stops after a request.
        for said in ["", "GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
            stream.write_all(said.as_bytes()).await.expect("sent");
            let done = tokio::time::timeout(SOON, rest(&mut stream)).await;
            assert!(done.is_ok(), "{said:?} was kept for {:?}", started.elapsed());
        }
    }
    // A body that doesn't come.
    let mut stream = TcpStream::connect(("127.0.0.1", service.public)).await.expect("connected");
    let head = "POST /oauth2/token HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\
                content-type: application/x-www-form-urlencoded\r\n\r\ngrant";
    stream.write_all(head.as_bytes()).await.expect("sent");
    let bytes = tokio::time::timeout(SOON, rest(&mut stream)).await.expect("cut off");
    Reply::parse(&bytes).expect("a reply").must_be_error(503, "temporarily_unavailable");
    assert_eq!(service.access("c").await.len(), 43);
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_their_turn() {
    let service = Service::start(&["--max-connections", "2", "--header-timeout", "60s"]).await;
    let connect = async || TcpStream::connect(("127.0.0.1", service.public)).await.expect("connected");
    let (first, second) = (connect().await, connect().await);
    eventually(SOON, "two connections to be counted", async || {
        let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200);
        metrics.body.contains("applink_provider_connections{listener=\"public\"} 2\n")
    })
    .await;
    let request = Request::new(service.public, "GET", "/.well-known/oauth-authorization-server");
    let third = request.send();
    tokio::pin!(third);
    // There is no event to await for what must not happen.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut third).await.is_err());
    drop(first);
    tokio::time::timeout(SOON, third).await.expect("its turn").must(200);
    drop(second);
}

/// Idle connections to a listener, more than it takes; they are open while this is held.
async fn idle(port: u16, number: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for n in 0..number {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        // Some have begun a request, and some have ended one.
        let said = ["", "GET /healthz HTTP/1.1\r\nhost:", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"][n % 3];
        let _ = stream.write_all(said.as_bytes()).await;
        all.push(stream);
    }
    all
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let (health, metrics) = (crate::support::ports::free(), crate::support::ports::free());
    let (at_health, at_metrics) = (format!("127.0.0.1:{health}"), format!("127.0.0.1:{metrics}"));
    let flags = ["--health-listen", &at_health, "--metrics-listen", &at_metrics];
    // None of them ends by itself.
    let more = ["--max-connections", "50", "--header-timeout", "1h"];
    let service = Service::start(&[flags, more].concat()).await;
    let answers =
        async |port, path| Request::new(port, "GET", path).try_send().await.is_ok_and(|r| r.status == 200);
    for (port, path) in [(health, "/readyz"), (metrics, "/metrics")] {
        eventually(SOON, "the listener", async || answers(port, path).await).await;
    }
    let mut held = Vec::new();
    for port in [service.public, service.admin, health, metrics] {
        held.push(idle(port, 100).await);
    }
    let all = async {
        for _ in 0..6 {
            for port in [service.admin, health] {
                for path in ["/healthz", "/readyz"] {
                    Request::new(port, "GET", path).send().await.must(200);
                }
            }
            Request::new(metrics, "GET", "/metrics").send().await.must(200);
            service.admin("GET", "/admin/clients").send().await.must(200);
        }
        // Here each is left alone for a while first.
        Request::new(service.public, "GET", "/.well-known/oauth-authorization-server").send().await.must(200);
    };
    tokio::time::timeout(SOON, all).await.expect("idle connections make room");
    // Each has its own alone.
    for (port, path) in
        [(health, "/metrics"), (health, "/admin/info"), (metrics, "/readyz"), (metrics, "/admin/info")]
    {
        Request::new(port, "GET", path).send().await.must(404);
    }
    drop(held);
}

#[tokio::test]
async fn a_port_for_metrics_that_is_taken_keeps_no_service_from_its_work() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let service = Service::start(&["--metrics-listen", &address, "--health-listen", &address]).await;
    service.register("c", json!({})).await;
    assert_eq!(service.access("c").await.len(), 43);
    service.process().terminate();
    assert!(service.process().wait(SOON).await.success());
}
