//! What the tests of the network side share: guards with a made-up hosts file and servers that
//! say, byte by byte, what they are told to.

use super::{AllowList, Guard, GuardOptions, HttpClient, Trust, resolve};
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// Short enough for a test of silence, long enough for a slow machine to answer at all.
pub(crate) const OPTIONS: GuardOptions = GuardOptions {
    connect_timeout: Duration::from_secs(5),
    timeout: Duration::from_secs(10),
    max_body: 256 * 1024,
};

/// A guard by the system's own resolver.
pub(crate) fn guard(allow: &[&str]) -> Guard {
    Guard::with_resolver(allowed(allow), OPTIONS, resolve::system().expect("resolver"))
}

/// A guard whose resolver knows `hosts`, in the hosts file's format, has `search.test` in its
/// search list and asks nobody.
pub(crate) fn guard_with_hosts(allow: &[&str], hosts: &str) -> Guard {
    let config = ResolverConfig::from_parts(None, vec!["search.test.".parse().expect("name")], vec![]);
    let mut resolver = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .build()
        .expect("resolver");
    let mut table = Hosts::default();
    table.read_hosts_conf(hosts.as_bytes()).expect("hosts");
    resolver.set_hosts(Arc::new(table));
    Guard::with_resolver(allowed(allow), OPTIONS, resolver)
}

pub(crate) fn allowed(entries: &[&str]) -> AllowList {
    AllowList::parse(entries).expect("allow list")
}

/// A client that may call this machine.
pub(crate) fn local() -> HttpClient {
    guard(&[]).client(Trust::Trusted, None)
}

/// What a server does with a connection.
pub(crate) enum Act {
    /// Sends these bytes and closes.
    Say(Vec<u8>),
    /// Sends these bytes and keeps the connection open without another word.
    SayAndHang(Vec<u8>),
    /// Sends the first bytes, and then the second ones until nobody reads any more.
    Flood(Vec<u8>, Vec<u8>),
    /// Resets the connection.
    Reset,
}

impl Act {
    /// A whole answer.
    pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Say(
            format!(
                "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }

    /// A JSON answer.
    pub(crate) fn json(status: &str, body: &str) -> Self {
        Self::answer(status, "Content-Type: application/json\r\n", body)
    }
}

type Behaviour = Arc<dyn Fn(&str) -> Act + Send + Sync>;

/// A server on a port of its own, which ends with the test's runtime.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// Answers every request, which is read whole first.
    pub(crate) async fn start(act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        Self::listen(Some(Arc::new(act))).await
    }

    /// Accepts connections and resets them unread.
    pub(crate) async fn deaf() -> Self {
        Self::listen(None).await
    }

    /// Two servers that answer with 200: on 127.0.0.1 and, with the same port, on 127.0.0.2.
    pub(crate) async fn pair() -> (Self, Self) {
        let act: Behaviour = Arc::new(|_| Act::json("200 OK", "{}"));
        // The port that is free on the one may be taken on the other.
        for _ in 0..20 {
            let one = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let port = one.local_addr().expect("address").port();
            if let Ok(other) = TcpListener::bind(("127.0.0.2", port)).await {
                return (Self::serve(one, Some(act.clone())), Self::serve(other, Some(act)));
            }
        }
        panic!("no port is free on both");
    }

    async fn listen(act: Option<Behaviour>) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.expect("bind"), act)
    }

    fn serve(listener: TcpListener, act: Option<Behaviour>) -> Self {
        let address = listener.local_addr().expect("address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (seen, counted) = (requests.clone(), connections.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (act, seen) = (act.clone(), seen.clone());
                tokio::spawn(async move {
                    let Some(act) = act else { return reset(stream) };
                    let request = read_request(&mut stream).await;
                    seen.lock().expect("lock").push(request.clone());
                    match act(&request) {
                        Act::Say(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            let _ = stream.shutdown().await;
                        }
                        Act::SayAndHang(bytes) => {
                            let _ = stream.write_all(&bytes).await;
                            // Until the other side gives up.
                            let _ = stream.read(&mut [0; 16]).await;
                        }
                        Act::Flood(first, more) => {
                            let _ = stream.write_all(&first).await;
                            let more = more.repeat(64 * 1024 / more.len());
                            while stream.write_all(&more).await.is_ok() {}
                        }
                        Act::Reset => reset(stream),
                    }
                });
            }
        });
        Self { address, requests, connections }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// An address at this server.
    pub(crate) fn url(&self, path: &str) -> Url {
        Url::parse(&format!("http://{}{path}", self.address)).expect("url")
    }

    /// How many connections came, with or without a request.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The requests so far, whole.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("lock").clone()
    }
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("linger");
    drop(stream);
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|l| l.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, n)| n.trim().parse().expect("length"));
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return text,
        }
    }
}

/// A port that nobody listens on.
pub(crate) async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    listener.local_addr().expect("address").port()
}
