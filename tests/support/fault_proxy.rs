//! A proxy for the fault suite: it stands before a real provider service and does one request wrong, byte by byte as told.
//!
//! Addresses of the service in its answers are written as the proxy's, so that what a client discovers leads here too.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::stage::http;

/// What stands in every answer that the proxy makes up; it must get nowhere.
pub const CANARY: &str = "canary-words-of-the-server";

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// This status, with JSON that repeats the request.
    Status(u16),
    /// This status, with a page of HTML that repeats the request.
    Html(u16),
    /// This status, with `Retry-After`.
    Later(u16, u32),
    /// Success, with a page of HTML.
    Page,
    /// The connection is reset, and the request goes nowhere.
    ResetBefore,
    /// The request is passed on, and the connection reset in place of the answer.
    ResetAfter,
    /// The request is passed on, and the answer ends in its middle.
    Cut,
    /// The request is passed on, and of the answer's body comes half, as if that were all.
    Half,
    /// 10 MB.
    Large,
    /// No word, until the caller gives up.
    Silence,
    /// To another address of this proxy, where somebody waits for credentials.
    Redirect,
}

#[derive(Default)]
struct Plan {
    /// The request to be done wrong, counted from 1.
    at: usize,
    fault: Option<Fault>,
    requests: usize,
    struck: bool,
    redirected: usize,
}

struct Way {
    upstream: String,
    address: String,
    plan: Plans,
}

/// What proxies that stand before one service have in common: their requests are counted together.
#[derive(Clone, Default)]
pub struct Plans(Arc<Mutex<Plan>>);

impl Plans {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.0.lock().expect("no panic with the plan")
    }

    /// From now on all goes well but for one request.
    pub fn set(&self, at: usize, fault: Fault) {
        let redirected = self.plan().redirected;
        *self.plan() = Plan { at, fault: Some(fault), redirected, ..Plan::default() };
    }

    /// From now on all goes well. Says whether the fault was met.
    pub fn clear(&self) -> bool {
        let mut plan = self.plan();
        plan.fault = None;
        plan.struck
    }

    /// How many requests came since the plan was set.
    pub fn requests(&self) -> usize {
        self.plan().requests
    }

    /// How many requests followed a redirect.
    pub fn redirected(&self) -> usize {
        self.plan().redirected
    }

    fn next(&self) -> Option<Fault> {
        let mut plan = self.plan();
        plan.requests += 1;
        let fault = plan.fault.filter(|_| plan.requests == plan.at);
        plan.struck |= fault.is_some();
        fault
    }
}

/// Starts a proxy before a service and says its base address. It ends with the test's runtime.
pub async fn before(upstream: &str, plan: &Plans) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let way = Arc::new(Way { upstream: upstream.to_owned(), address: address.clone(), plan: plan.clone() });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, way.clone()));
        }
    });
    address
}

/// A port with TLS and a certificate that nobody vouches for, which notes whether a request came in.
pub async fn with_a_bad_certificate() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("names");
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
        )
        .expect("a configuration");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("https://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            let mut tls = rustls::ServerConnection::new(config.clone()).expect("a connection");
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            let mut request = [0; 1024];
            // The handshake ends with the client's alert, or the client is wrong to trust us.
            if std::io::Read::read(&mut stream, &mut request).is_ok_and(|n| n > 0) {
                let words = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{CANARY}", CANARY.len());
                let _ = std::io::Write::write_all(&mut stream, words.as_bytes());
            }
        }
    });
    address
}

/// A request as it came.
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// All of it as text, for a server that repeats what it is told.
    fn echo(&self) -> String {
        let headers: Vec<String> = self.headers.iter().map(|(n, v)| format!("{n}={v}")).collect();
        format!("{} {} {} {}", self.method, self.path, headers.join(" "), String::from_utf8_lossy(&self.body))
    }
}

async fn serve(mut stream: TcpStream, way: Arc<Way>) {
    while let Some(request) = read(&mut stream).await {
        if request.path.starts_with("/redirected") {
            way.plan.plan().redirected += 1;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
            continue;
        }
        let fault = way.plan.next();
        let echo =
            serde_json::json!({ "error": CANARY, "code": CANARY, "detail": request.echo() }).to_string();
        let html = format!("<html><h1>{CANARY}</h1>{}</html>", request.echo());
        let json = ("application/json", echo);
        let bytes = match fault {
            None => forward(&way, request).await,
            Some(Fault::Status(status)) => answer(status, "", json.0, json.1.as_bytes()),
            Some(Fault::Html(status)) => answer(status, "", "text/html", html.as_bytes()),
            Some(Fault::Later(status, s)) => {
                answer(status, &format!("Retry-After: {s}\r\n"), json.0, json.1.as_bytes())
            }
            Some(Fault::Page) => answer(200, "", "text/html", html.as_bytes()),
            Some(Fault::Large) => answer(200, "", json.0, &vec![b'['; 10_000_000]),
            Some(Fault::Redirect) => {
                let location = format!("Location: {}/redirected\r\n", way.address);
                answer(307, &location, json.0, json.1.as_bytes())
            }
            Some(Fault::ResetBefore) => return reset(stream),
            Some(Fault::ResetAfter) => {
                forward(&way, request).await;
                return reset(stream);
            }
            Some(Fault::Cut) => {
                let whole = forward(&way, request).await;
                let head = whole.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
                // In the middle of the body, or where there is none, of the head.
                let end = if head < whole.len() { (head + whole.len()) / 2 } else { head / 2 };
                let _ = stream.write_all(&whole[..end]).await;
                let _ = stream.shutdown().await;
                return;
            }
            Some(Fault::Half) => {
                let whole = forward(&way, request).await;
                let head = whole.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
                let body = &whole[head..];
                answer(200, "", "application/json", &body[..body.len() / 2])
            }
            Some(Fault::Silence) => {
                // Until the other side hangs up.
                while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
                return;
            }
        };
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("linger");
    drop(stream);
}

fn answer(status: u16, headers: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\n{headers}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// Passes a request on, and gives the answer as bytes.
async fn forward(way: &Way, request: Request) -> Vec<u8> {
    let method = reqwest::Method::from_bytes(request.method.as_bytes()).expect("a method");
    let mut onward = http().request(method, format!("{}{}", way.upstream, request.path)).body(request.body);
    for (name, value) in &request.headers {
        if !["host", "content-length", "connection"].contains(&name.as_str()) {
            onward = onward.header(name, value);
        }
    }
    let answer = onward.timeout(Duration::from_secs(60)).send().await.expect("the real service answers");
    let status = answer.status();
    let mut head = format!("HTTP/1.1 {} X\r\n", status.as_u16());
    for (name, value) in answer.headers() {
        if !["content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            head += &format!("{name}: {}\r\n", value.to_str().expect("text"));
        }
    }
    let body = answer.text().await.expect("a whole answer").replace(&way.upstream, &way.address);
    if status != reqwest::StatusCode::NO_CONTENT {
        head += &format!("content-length: {}\r\n", body.len());
    }
    format!("{head}\r\n{body}").into_bytes()
}

/// Reads one request; `None` at the end of the connection.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().expect("a length"));
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => body.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
    Some(Request { method, path, headers, body })
}
