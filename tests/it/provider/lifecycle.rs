//! Start, stop, start again; and what is in the log and in the metrics meanwhile.

use super::http::{Reply, Request};
use super::service::{ADMIN_TOKEN, DERIVED, Service};
use crate::support::process::{Program, RunDir};
use crate::support::wait::{SOON, eventually};
use nix::sys::signal::Signal;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const FORM: &str = "grant_type=client_credentials";

/// A token request whose last byte isn't sent yet.
async fn unfinished(service: &Service) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", service.public)).await.expect("connected");
    let head = service.post("/oauth2/token").basic("c", DERIVED).form(FORM).head();
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream.write_all(&FORM.as_bytes()[..FORM.len() - 1]).await.expect("sent");
    // The service has taken the connection when it counts it.
    eventually(SOON, "the connection to be counted", async || {
        let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200);
        metrics.body.contains("applink_provider_connections{listener=\"public\"} 1\n")
    })
    .await;
    stream
}

async fn refuses(service: &Service) {
    eventually(SOON, "new connections to be refused", async || {
        TcpStream::connect(("127.0.0.1", service.public)).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_finish() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let service = Service::start(&[]).await;
        service.register("c", json!({})).await;
        let mut stream = unfinished(&service).await;
        service.process().signal(signal);
        refuses(&service).await;
        assert!(service.process().is_running());
        stream.write_all(&FORM.as_bytes()[FORM.len() - 1..]).await.expect("sent");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.expect("answered");
        Reply::parse(&bytes).expect("a reply").must(200).text("access_token");
        assert!(service.process().wait(SOON).await.success());
        assert!(service.process().log().contains("the provider service has stopped"));
        let left = std::fs::metadata(service.dir.path().join("db-wal")).map(|m| m.len());
        assert!(left.is_err() || left.is_ok_and(|l| l == 0), "the log is folded into the file");
    }
}

#[tokio::test]
async fn draining_has_an_end() {
    let service = Service::start(&["--drain-timeout", "1s"]).await;
    service.register("c", json!({})).await;
    let _stream = unfinished(&service).await;
    let started = Instant::now();
    service.process().terminate();
    assert!(service.process().wait(SOON).await.success());
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(service.process().log().contains("the drain timeout is over"));
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut service = Service::start(&["--refresh-grace", "300s"]).await;
    let made = service.register("c", json!({})).await;
    let (access, token) = (service.access("c").await, service.grant("c").await);
    let reply = service.refresh("c", &token).await.must(200);
    let instance = service.admin("GET", "/admin/info").send().await.text("instance");
    // The second time without a chance to tidy up.
    for kill in [false, true] {
        if kill {
            service.process().kill();
        } else {
            service.process().terminate();
        }
        service.process().wait(SOON).await;
        service.start_again().await;
        let read = service.admin("GET", "/admin/clients/c").send().await.must(200);
        assert_eq!((read.header("etag"), read.json()), (made.header("etag"), made.json()));
        assert!(service.is_active("c", &access).await);
        // The lost answer can still be fetched.
        assert_eq!(service.refresh("c", &token).await.must(200).body, reply.body);
    }
    assert_ne!(service.admin("GET", "/admin/info").send().await.text("instance"), instance);
}

#[tokio::test]
async fn no_secret_is_in_the_log_the_metrics_or_the_file() {
    for format in ["human", "json"] {
        let service = Service::start(&["--log-level", "trace", "--log-format", format]).await;
        service.register("c", json!({})).await;
        let chosen = "canary chosen secret";
        service.register("chosen", json!({"secret": chosen, "secretKind": "chosen"})).await;
        let made_up = service.register("made-up", json!({"secret": null})).await.text("clientSecret");
        let access = service.access("c").await;
        let first = service.grant("c").await;
        let reply = service.refresh("c", &first).await.must(200);
        service.refresh("c", &first).await.must(200);
        service.post("/oauth2/token").basic("c", "canary wrong secret").form(FORM).send().await.must(401);
        service.post("/oauth2/token?canary=query").basic("chosen", chosen).form(FORM).send().await.must(200);
        service.post("/canary/path").form("canary=form").send().await.must(404);
        let odd = "{\"secret\": \"canary body\", \"name\": 1}";
        service.admin("PUT", "/admin/clients/c").body("application/json", odd).send().await.must(422);
        let revoke = service.post("/oauth2/revoke").basic("c", DERIVED);
        revoke.form(&format!("token={}", reply.text("access_token"))).send().await.must(200);
        service.admin("DELETE", "/admin/clients/chosen").send().await.must(204);
        let metrics = Request::new(service.admin, "GET", "/metrics").send().await.must(200).body;
        assert!(
            metrics.contains("applink_provider_tokens_issued_total{grant=\"client_credentials\"} 2\n"),
            "{metrics}"
        );
        service.process().terminate();
        service.process().wait(SOON).await;

        let log = service.process().log();
        for event in ["token issued", "access token revoked", "client deleted", "request", "grant issued"] {
            assert!(log.contains(event), "{event} isn't in the log:\n{log}");
        }
        let file = std::fs::read(service.dir.path().join("db")).expect("the file");
        let file = String::from_utf8_lossy(&file);
        let tokens = [access, first, reply.text("access_token"), reply.text("refresh_token"), made_up];
        let secrets = tokens.iter().map(String::as_str).chain(["canary", ADMIN_TOKEN, DERIVED, chosen]);
        for secret in secrets {
            for (place, text) in [("log", log.as_str()), ("metrics", &metrics), ("file", &file)] {
                assert!(!text.contains(secret), "{secret} is in the {place}:\n{text}");
            }
        }
        if format == "json" {
            for line in log.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_bad_flag_is_one_sentence_and_exit_code_1() {
    let dir = RunDir::new("applink-provider-");
    let token = dir.write("token", ADMIN_TOKEN).display().to_string();
    let database = dir.path().join("db").display().to_string();
    let missing = dir.path().join("no/such/db").display().to_string();
    let good =
        ["provider", "--issuer", "https://p.example", "--admin-token-file", &token, "--database", &database];
    for (i, (flag, value, code)) in [
        ("--issuer", "ftp://p", 1),
        ("--database", missing.as_str(), 1),
        ("--refresh-grace", "long", 1),
        ("--log-level", "loud", 1),
        ("--listen", "192.0.2.1:80", 1),
        ("--log-format", "xml", 2),
        ("--no-such-flag", "x", 2),
    ]
    .into_iter()
    .enumerate()
    {
        let mut args: Vec<&str> = good.to_vec();
        match args.iter().position(|a| *a == flag) {
            Some(at) => args[at + 1] = value,
            None => args.extend([flag, value]),
        }
        let log = dir.path().join(format!("log-{i}"));
        let process = Program::new(env!("CARGO_BIN_EXE_applink"), log).args(args).start();
        let status = process.wait(SOON).await;
        let said = process.log();
        assert_eq!(status.code(), Some(code), "{flag}: {said}");
        if code == 1 {
            assert_eq!(said.lines().count(), 1, "{said}");
            assert!(said.starts_with("error: ") && said.contains(flag) && said.contains(value), "{said}");
        }
    }
}
