//! Who sends half a request, or made-up words, makes nobody else wait at the pages of a consent.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use super::stage;
use crate::support::stage::{SOON, browser};

/// More than are worked on at once.
const MANY: usize = 100;

/// Begins a request and never ends it, over and over.
async fn half(port: u16, path: String) {
    loop {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes()).await;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        let said = String::from_utf8_lossy(&said);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_requests_make_nobody_wait() {
    let stage = stage().await;
    let pod = stage.operator.object();
    let args = pod.spec.as_ref().expect("a spec").containers[0].args.clone().unwrap_or_default();
    let url = args.iter().find_map(|a| a.strip_prefix("--consent-url=")).expect("an address");
    let url = Url::parse(url).expect("an address");
    let port = url.port().expect("a port");
    let page = format!("{}/authorize/{}/nobody", url.path(), stage.team());
    let mut halves = JoinSet::new();
    for _ in 0..MANY {
        halves.spawn(half(port, page.clone()));
    }
    // Each of these would wait for a minute if a half request were worked on.
    let all = async {
        for n in 0..10 {
            let ticket = format!("a-ticket-of-this-test-{n}");
            let asked = format!("http://127.0.0.1:{port}{page}?ticket={ticket}");
            let answer = browser().get(asked).send().await.expect("an answer");
            assert_eq!(answer.status().as_u16(), 404);
            let style = format!("http://127.0.0.1:{port}{}/style.css", url.path());
            assert_eq!(browser().get(style).send().await.expect("an answer").status().as_u16(), 200);
        }
    };
    tokio::time::timeout(SOON, all).await.expect("nobody waits for half requests");
    halves.shutdown().await;
}
