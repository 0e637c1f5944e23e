//! What the client makes of names, and of servers that misbehave.

use super::testing::{Act, Server, closed_port, guard, guard_with_hosts, local};
use super::*;
use std::time::{Duration, Instant};
use url::Url;

#[tokio::test]
async fn an_answer_is_taken_whole() {
    let headers =
        "Content-Type: Application/JSON; charset=utf-8\r\nETag: \"a1\"\r\nRetry-After: 7\r\nX-Y: z\r\n";
    let server = Server::start(move |_| Act::answer("201 Created", headers, "{}")).await;
    let request = Request::post(server.url("/a?b=c")).form([("k", "v w&")]);
    let response = local().send(request).await.expect("answer");
    assert_eq!((response.status, response.body.as_slice()), (201, b"{}".as_slice()));
    assert!(response.is_json() && response.is_success());
    assert_eq!(response.etag.as_deref(), Some("\"a1\""));
    assert_eq!(response.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(response.header("x-y"), Some("z"));
    let seen = server.requests().remove(0).to_lowercase();
    assert!(seen.starts_with("post /a?b=c http/1.1\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\nk=v+w%26"), "{seen}");
    assert!(seen.contains("user-agent: applink-operator/"), "{seen}");
    assert!(seen.contains("accept-encoding: identity\r\n"), "{seen}");
}

#[tokio::test]
async fn localhost_works_where_it_is_allowed_and_nowhere_else() {
    let server = Server::start(|_| Act::json("200 OK", "{}")).await;
    let url = Url::parse(&format!("http://localhost:{}/", server.port())).expect("url");
    let entry = format!("http://localhost:{}", server.port());
    let allowed = guard(&[&entry]).client(Trust::Guarded, None);
    assert_eq!(allowed.send(Request::get(url.clone())).await.expect("answer").status, 200);
    let trusted = guard(&[]).client(Trust::Trusted, None);
    assert_eq!(trusted.send(Request::get(url.clone())).await.expect("answer").status, 200);
    for client in [
        guard(&[]).client(Trust::Guarded, None),
        guard(&["http://localhost:1"]).client(Trust::Guarded, None),
        guard(&["localhost"]).client(Trust::Guarded, None),
    ] {
        let error = client.send(Request::get(url.clone())).await.expect_err("refused");
        assert_eq!(error, SendError::Refused(RefusedReason::PlainHttp));
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_name_is_judged_by_its_addresses_when_it_is_connected_to() {
    let server = Server::start(|_| Act::json("200 OK", "{}")).await;
    let port = server.port();
    let hosts =
        "127.0.0.1 inside.example.com\n10.0.0.1 private.example.com\n169.254.169.254 meta.example.com\n";
    let send = async |allow: &[&str], url: String| {
        let client = guard_with_hosts(allow, hosts).client(Trust::Guarded, None);
        let url = Url::parse(&url).expect("url");
        let told = client.reaches(&url).await;
        let sent = client.send(Request::get(url)).await.map(|r| r.status);
        assert_eq!(told, sent.map(drop), "told without a call");
        sent
    };
    let refused = Err(SendError::Refused(RefusedReason::NotPublic));
    let open = format!(":{port}");
    for name in ["inside", "private", "meta"] {
        assert_eq!(send(&[&open], format!("https://{name}.example.com:{port}/")).await, refused, "{name}");
        // A range that is allowed elsewhere changes nothing.
        assert_eq!(
            send(&["10.9.0.0/16"], format!("https://{name}.example.com:{port}/")).await,
            refused,
            "{name}"
        );
    }
    assert_eq!(send(&["http://127.0.0.0/8"], format!("http://inside.example.com:{port}/")).await, Ok(200));
    assert_eq!(
        send(&["http://127.0.0.0/8:1"], format!("http://inside.example.com:{port}/")).await,
        Err(SendError::Refused(RefusedReason::PlainHttp))
    );
    assert_eq!(send(&["http://10.0.0.0/8"], format!("http://inside.example.com:{port}/")).await, refused);
    assert_eq!(
        send(&[&open], format!("https://nowhere.example.com:{port}/")).await,
        Err(SendError::NotSent(NotSent::Dns))
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let elsewhere = Server::start(|_| Act::json("200 OK", "{}")).await;
    let to = format!("Location: {}\r\n", elsewhere.url("/"));
    let server = Server::start(move |_| Act::answer("307 Temporary Redirect", &to, "")).await;
    let response = local().send(Request::post(server.url("/")).form([("a", "b")])).await.expect("answer");
    assert_eq!(response.status, 307);
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn nothing_is_sent_without_a_connection() {
    let url = format!("http://127.0.0.1:{}/", closed_port().await);
    let error = local().send(Request::get(Url::parse(&url).expect("url"))).await.expect_err("closed");
    assert_eq!(error, SendError::NotSent(NotSent::Connect));
    assert!(!error.outcome_unknown());
}

#[tokio::test]
async fn a_reset_after_the_request_leaves_the_outcome_open() {
    let server = Server::start(|_| Act::Reset).await;
    let error = local().send(Request::post(server.url("/")).form([("a", "b")])).await.expect_err("reset");
    assert_eq!(error, SendError::NoAnswer(NoAnswer::Reset));
    assert!(error.outcome_unknown());
    // And it isn't sent again behind our back.
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_reset_before_the_request_is_never_called_an_answer() {
    let server = Server::deaf().await;
    let error = local().send(Request::post(server.url("/")).form([("a", "b")])).await.expect_err("reset");
    // Who notices first is a race; only "unknown" or a sure "not sent" will do.
    assert!(
        matches!(
            error,
            SendError::NoAnswer(NoAnswer::Reset) | SendError::NotSent(NotSent::Closed | NotSent::Connect)
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn half_a_body_is_no_answer() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"access_token\":".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"acc\r\n".to_vec();
    for bytes in [half, chunked] {
        let server = Server::start(move |_| Act::Say(bytes.clone())).await;
        let error = local().send(Request::get(server.url("/"))).await.expect_err("cut");
        assert_eq!(error, SendError::NoAnswer(NoAnswer::Reset));
    }
}

#[tokio::test]
async fn silence_times_out() {
    for words in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"] {
        let server = Server::start(move |_| Act::SayAndHang(words.as_bytes().to_vec())).await;
        let started = Instant::now();
        let client = local().with_timeout(Duration::from_millis(300));
        let error = client.send(Request::get(server.url("/"))).await.expect_err("silence");
        assert_eq!(error, SendError::NoAnswer(NoAnswer::Timeout));
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_large_body_is_left() {
    let body = "x".repeat(10 * 1024 * 1024);
    let announced = Server::start({
        let body = body.clone();
        move |_| Act::answer("200 OK", "", &body)
    })
    .await;
    let until_close =
        Server::start(move |_| Act::Say(format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes())).await;
    for server in [announced, until_close] {
        assert_eq!(local().send(Request::get(server.url("/"))).await.err(), Some(SendError::TooLarge));
    }
    let server = Server::start(|_| Act::answer("200 OK", "", &"x".repeat(256 * 1024))).await;
    assert_eq!(local().send(Request::get(server.url("/"))).await.expect("fits").body.len(), 256 * 1024);
    let small = local().with_max_body(10);
    assert_eq!(small.send(Request::get(server.url("/"))).await.err(), Some(SendError::TooLarge));
}

#[tokio::test]
async fn what_isnt_http_is_no_answer() {
    let garbage = ["SSH-2.0-OpenSSH_9.6\r\n".to_owned(), "\0\u{1}\u{2}\u{3}".repeat(100)];
    for bytes in garbage {
        let server = Server::start(move |_| Act::Say(bytes.clone().into_bytes())).await;
        let error = local().send(Request::get(server.url("/"))).await.expect_err("garbage");
        assert!(matches!(error, SendError::NoAnswer(_)), "{error:?}");
    }
}

#[tokio::test]
async fn the_search_list_is_for_names_that_the_platform_team_gave() {
    let server = Server::start(|_| Act::json("200 OK", "{}")).await;
    let url = Url::parse(&format!("http://ci.example.com:{}/", server.port())).expect("url");
    // What a tenant's name would find inside of the cluster, were it not absolute.
    let guard = |allow: &[&str]| guard_with_hosts(allow, "127.0.0.1 ci.example.com.search.test\n");
    let guarded = guard(&["http://127.0.0.0/8"]).client(Trust::Guarded, None);
    let error = guarded.send(Request::get(url.clone())).await.expect_err("absolute");
    assert_eq!(error, SendError::NotSent(NotSent::Dns));
    for client in [
        guard(&[]).client(Trust::Trusted, None),
        guard(&["http://ci.example.com"]).client(Trust::Guarded, None),
    ] {
        assert_eq!(client.send(Request::get(url.clone())).await.expect("answer").status, 200);
    }
}

#[tokio::test]
async fn the_clients_are_kept_and_bounded() {
    let guard = guard_with_hosts(&["nowhere.example.com"], "");
    let client = guard.client(Trust::Guarded, None);
    let send = async |port: u16| {
        let url = Url::parse(&format!("https://nowhere.example.com:{port}/")).expect("url");
        assert_eq!(client.send(Request::get(url)).await.err(), Some(SendError::NotSent(NotSent::Dns)));
    };
    for _ in 0..3 {
        send(443).await;
    }
    assert_eq!(guard.built_clients(), 1);
    for port in 2000..2080 {
        send(port).await;
    }
    assert_eq!(guard.built_clients(), 64);
}

#[tokio::test]
async fn debug_texts_and_errors_hold_no_secret() {
    let secret = "canary-7f3a".to_owned();
    let url = Url::parse(&format!("http://127.0.0.1:{}/canary-7f3a?canary-7f3a", closed_port().await))
        .expect("url");
    let request = Request::post(url)
        .form([("client_secret", secret.as_str())])
        .basic("id", &secret.clone().into())
        .expect("header");
    assert!(!format!("{request:?}").contains("canary"));
    assert!(!format!("{:?}", request.headers).contains("canary"));
    let error = local().send(request).await.expect_err("closed");
    assert!(!format!("{error:?} {error}").contains("canary"));

    let server = Server::start(|_| Act::answer("200 OK", "X-A: canary\r\n", "canary")).await;
    let response = local().send(Request::get(server.url("/"))).await.expect("answer");
    assert!(!format!("{response:?}").contains("canary"));
}

#[test]
fn a_header_cant_be_broken_out_of() {
    let url = Url::parse("https://ci.example.com/").expect("url");
    assert!(Request::get(url.clone()).bearer(&"a\r\nX: y".to_owned().into()).is_err());
    assert!(Request::get(url.clone()).basic("a:b", &"c".to_owned().into()).is_err());
    assert!(Request::get(url).basic("a", &"c\n".to_owned().into()).is_err());
}

#[tokio::test]
async fn a_body_that_is_compressed_unasked_is_read() {
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;
    let answer = |status: &str, coding: &str, text: &[u8]| {
        let mut to = GzEncoder::new(Vec::new(), Compression::default());
        to.write_all(text).expect("memory");
        let body = to.finish().expect("memory");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Encoding: {coding}\r\nRetry-After: 7\r\nContent-Length: {length}\r\n\r\n"
        );
        [head.into_bytes(), body].concat()
    };
    let unknown = SendError::Undecodable(CodingError::Unknown("br"));
    let megabyte = vec![b'x'; 1 << 20];
    // The status, the coding, the text, what came of it, and what is left of an answer that can't be read.
    for (status, coding, text, wanted) in [
        ("200 OK", "gzip", &b"{}"[..], Ok(&b"{}"[..])),
        ("200 OK", "br", b"{}", Err(unknown)),
        ("400 Bad Request", "br", b"{}", Err(unknown)),
        // The status says it all, and its headers may say more.
        ("429 Slow", "br", b"{}", Ok(b"")),
        ("200 OK", "gzip", &megabyte, Err(SendError::TooLarge)),
    ] {
        let bytes = answer(status, coding, text);
        let raw = bytes.split(|b| *b == b'\n').next_back().map(<[u8]>::to_vec);
        let server = Server::start(move |_| Act::Say(bytes.clone())).await;
        let mut heard = Heard::default();
        let got = local().send_heard(Request::get(server.url("/")), &mut heard).await;
        match wanted {
            Ok(body) => {
                let got = got.expect("an answer");
                assert_eq!((got.body.as_slice(), got.retry_after), (body, Some(Duration::from_secs(7))));
                assert_eq!((heard.body.as_slice(), heard.content_encoding), (body, None));
            }
            Err(error) => {
                assert_eq!(got.err(), Some(error));
                assert_eq!(heard.content_encoding.as_deref(), Some(coding));
                assert!(raw.is_some_and(|r| heard.body.ends_with(&r)) && heard.complete, "{heard:?}");
            }
        }
        assert_eq!(heard.status.map(|s| s.to_string()).as_deref(), status.split(' ').next());
    }
}

#[tokio::test]
async fn what_came_of_an_answer_that_was_cut_off_is_left() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Type: text/x\r\nContent-Length: 900\r\n\r\n{\"canary\":".to_vec();
    let (reset, silent) = (half.clone(), half);
    let servers = [
        Server::start(move |_| Act::Say(reset.clone())).await,
        Server::start(move |_| Act::SayAndHang(silent.clone())).await,
    ];
    for (server, why) in servers.iter().zip([NoAnswer::Reset, NoAnswer::Timeout]) {
        let mut heard = Heard::default();
        let client = local().with_timeout(Duration::from_secs(3));
        let got = client.send_heard(Request::get(server.url("/")), &mut heard).await;
        assert_eq!(got.err(), Some(SendError::NoAnswer(why)));
        assert_eq!((heard.body.as_slice(), heard.complete), (&b"{\"canary\":"[..], false));
        assert_eq!(heard.content_type.as_deref(), Some("text/x"));
        assert!(!format!("{heard:?}").contains("canary"));
    }
}

#[tokio::test]
async fn what_never_ends_is_left() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let ending = &format!("{chunked}2\r\n{{}}\r\n0\r\n");
    // What comes first, and what comes without end after it.
    for (first, more) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX-A: ", "a"),
        (chunked, "0"),
        (&format!("{chunked}2"), " "),
        (&format!("{chunked}2\r\n{{}}\r\n"), "1\r\nx\r\n"),
        ("HTTP/1.1 200 OK\r\n\r\n", "a"),
    ] {
        let (a, b) = (first.as_bytes().to_vec(), more.as_bytes().to_vec());
        let server = Server::start(move |_| Act::Flood(a.clone(), b.clone())).await;
        for client in [local(), guard(&["http://127.0.0.1"]).client(Trust::Guarded, None)] {
            // Without a limit it goes on until the time is over.
            let got = client.send(Request::get(server.url("/"))).await;
            assert_eq!(got.err(), Some(SendError::TooLarge), "{first:?} {more:?}");
        }
    }
    // Of these the connection is given up by what reads HTTP.
    for (first, more) in [
        ("HTTP/1.1 200 OK\r\n", "X-A: a\r\n"),
        (&format!("{chunked}2;"), "a"),
        (ending, "X-A: a\r\n"),
        ("", "\r\n"),
    ] {
        let (a, b) = (first.as_bytes().to_vec(), more.as_bytes().to_vec());
        let server = Server::start(move |_| Act::Flood(a.clone(), b.clone())).await;
        let got = local().send(Request::get(server.url("/"))).await.expect_err("no answer");
        assert_ne!(got, SendError::NoAnswer(NoAnswer::Timeout), "{first:?} {more:?}");
    }
}
