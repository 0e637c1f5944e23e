//! An HTTP proxy for tests that stands between the operator and what it calls. It keeps a journal of the writes, in one
//! order over all proxies that share a [`Journal`], and can kill the operator at one of them: before it is sent on, or
//! when it was done and the answer is on its way.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;

/// When the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The write never reaches anybody.
    Before,
    /// The write is done, and nobody hears of it.
    After,
}

/// What the API server does to the operator at a write, in place of its death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It answers this write and the next two with this status, and does nothing.
    Answers(u16),
    /// It can't be reached for so long.
    Cut(Duration),
    /// The operator is stopped for so long (SIGSTOP), as when its machine has no time for it.
    Stops(Duration),
}

/// A request that may change something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The proxy that it came by.
    pub by: String,
    pub method: Method,
    pub path: String,
}

impl std::fmt::Display for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} {}", self.by, self.method, self.path)
    }
}

impl Write {
    /// Whether it is a proof of credentials, which changes nothing.
    pub fn is_proof(&self) -> bool {
        self.path.ends_with("/oauth2/revoke")
    }
}

/// Where the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// At a write, counted from 1.
    Write(usize),
    /// At the first proof of credentials.
    Proof,
}

#[derive(Debug)]
struct Trap {
    victim: u32,
    proof: bool,
    /// Requests of that kind that are still let through.
    left: usize,
    death: Death,
}

#[derive(Debug, Default)]
struct Inner {
    writes: Vec<Write>,
    trap: Option<Trap>,
    /// The operator is dead or dying: nothing of it passes any more.
    shut: bool,
    /// The trouble that comes at a write to the API server, and how many are let through before; whether it
    /// came.
    trouble: Option<(Trouble, usize, u32)>,
    troubled: bool,
    /// Writes that are still answered with a status.
    answers: Option<(u16, usize)>,
    /// Until when the API server can't be reached.
    cut: Option<Instant>,
}

/// The proxy before the API server is called so.
pub const API_SERVER: &str = "api server";

/// What went through, and the trap. Leases and events aren't writes of a link. A proof of credentials (a token revoked
/// that can't exist) changes nothing, but it is a point where an operator can die.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Inner>>);

enum Verdict {
    Pass,
    /// Answered with this status, as the API server would.
    Answer(u16),
    Drop,
    /// To be sent on; the answer is dropped, and this process killed.
    KillAfter(u32),
}

impl Journal {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic while the journal was written")
    }

    /// The writes since the last [`Self::open`] or [`Self::arm`].
    pub fn writes(&self) -> Vec<Write> {
        self.inner().writes.clone()
    }

    /// Lets everything pass, and forgets the writes so far.
    pub fn open(&self) {
        *self.inner() = Inner::default();
    }

    /// Kills a process at a point, counted from now.
    pub fn arm(&self, victim: u32, at: Point, death: Death) {
        let (proof, left) = match at {
            Point::Write(n) => (false, n - 1),
            Point::Proof => (true, 0),
        };
        let trap = Trap { victim, proof, left, death };
        *self.inner() = Inner { trap: Some(trap), ..Inner::default() };
    }

    /// Whether the trap has closed.
    pub fn has_struck(&self) -> bool {
        self.inner().shut
    }

    /// Brings trouble at the nth write to the API server, counted from now.
    pub fn trouble(&self, victim: u32, at: usize, trouble: Trouble) {
        *self.inner() = Inner { trouble: Some((trouble, at - 1, victim)), ..Inner::default() };
    }

    /// Whether the trouble came, and is over.
    pub fn is_over(&self) -> bool {
        let inner = self.inner();
        inner.troubled && inner.cut.is_none_or(|until| until <= Instant::now())
    }

    /// What the trouble makes of a request to the API server.
    fn troubled(inner: &mut Inner, writes: bool) -> Option<Verdict> {
        if inner.cut.is_some_and(|until| until > Instant::now()) {
            return Some(Verdict::Drop);
        }
        if !writes {
            return None;
        }
        if let Some((status, left)) = inner.answers.filter(|(_, left)| *left > 0) {
            inner.answers = Some((status, left - 1));
            return Some(Verdict::Answer(status));
        }
        let (trouble, left, victim) = inner.trouble?;
        if left > 0 {
            inner.trouble = Some((trouble, left - 1, victim));
            return None;
        }
        (inner.trouble, inner.troubled) = (None, true);
        match trouble {
            Trouble::Answers(status) => {
                inner.answers = Some((status, 2));
                Some(Verdict::Answer(status))
            }
            Trouble::Cut(time) => {
                inner.cut = Some(Instant::now() + time);
                Some(Verdict::Drop)
            }
            Trouble::Stops(time) => {
                send(victim, Signal::SIGSTOP);
                inner.cut = Some(Instant::now() + time);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    send(victim, Signal::SIGCONT);
                });
                Some(Verdict::Drop)
            }
        }
    }

    fn judge(&self, by: &str, write: Option<Write>) -> Verdict {
        let mut inner = self.inner();
        if inner.shut {
            return Verdict::Drop;
        }
        if by == API_SERVER
            && let Some(verdict) = Self::troubled(&mut inner, write.is_some())
        {
            return verdict;
        }
        let Some(write) = write else { return Verdict::Pass };
        let proof = write.is_proof();
        inner.writes.push(write);
        match &mut inner.trap {
            None => Verdict::Pass,
            Some(trap) if trap.proof != proof => Verdict::Pass,
            Some(trap) if trap.left > 0 => {
                trap.left -= 1;
                Verdict::Pass
            }
            Some(trap) => {
                let (victim, death) = (trap.victim, trap.death);
                inner.shut = true;
                if death == Death::After {
                    return Verdict::KillAfter(victim);
                }
                end(victim);
                Verdict::Drop
            }
        }
    }
}

/// The process is a child of this one and not reaped while it runs, so its number is still its own.
fn end(pid: u32) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a PID fits")), Signal::SIGKILL).expect("the operator runs");
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a PID fits")), signal).expect("the operator runs");
}

/// An answer of the API server, or of what is admitted there, that it did nothing.
fn refused(status: u16) -> Response {
    let reason = match status {
        403 => "Forbidden",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status,
        "message": "refused for a test",
    });
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    response.header(header::RETRY_AFTER, "1").body(Body::from(body.to_string())).expect("a response")
}

fn is_write(method: &Method, path: &str) -> bool {
    !method.is_safe() && !["/leases", "/events", "/oauth2/introspect"].iter().any(|p| path.contains(p))
}

struct Way {
    name: String,
    journal: Journal,
    upstream: Mutex<String>,
    client: reqwest::Client,
}

/// One proxy, at a free port of the loopback address, in plain HTTP.
pub struct Proxy {
    way: Arc<Way>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Starts one. `ca` is trusted beyond it, where that is HTTPS.
    ///
    /// # Panics
    /// When it can't listen, or the CA isn't one.
    pub async fn start(name: &str, journal: &Journal, ca: Option<&Path>) -> Self {
        let listener =
            tokio::net::TcpListener::bind(("127.0.0.1", super::ports::free())).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let way = Arc::new(Way {
            name: name.to_owned(),
            journal: journal.clone(),
            upstream: Mutex::default(),
            client: client(ca),
        });
        let router = Router::new().fallback(forward).with_state(way.clone());
        let serving = tokio::spawn(async move {
            // It is aborted in the end; a request that fails is the operator's to tell.
            let _ = axum::serve(listener, router).await;
        });
        Self { way, address, serving }
    }

    /// Where it sends what it gets, such as `http://127.0.0.1:8080`.
    pub fn forward_to(&self, upstream: &str) {
        upstream.clone_into(&mut self.way.upstream.lock().expect("no panic while it was set"));
    }

    /// Its own address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn client(ca: Option<&Path>) -> reqwest::Client {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(ca) = ca {
        let pem = std::fs::read(ca).expect("the CA");
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.expect("a certificate")).expect("a CA");
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        // Its peer may be killed and started again between two requests.
        .pool_max_idle_per_host(0)
        .build()
        .expect("a client")
}

/// What belongs to one connection, and isn't passed on.
const HOP: [header::HeaderName; 4] =
    [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH];

async fn forward(State(way): State<Arc<Way>>, request: Request) -> Response {
    let failed =
        |status: StatusCode| Response::builder().status(status).body(Body::empty()).expect("a response");
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 16 << 20).await else {
        return failed(StatusCode::BAD_REQUEST);
    };
    let path = parts.uri.path().to_owned();
    // What the API server is only asked about writes nothing.
    let rehearsal = parts.uri.query().is_some_and(|q| q.contains("dryRun=All"));
    let write = (is_write(&parts.method, &path) && !rehearsal).then(|| Write {
        by: way.name.clone(),
        method: parts.method.clone(),
        path: path.clone(),
    });
    let victim = match way.journal.judge(&way.name, write) {
        Verdict::Pass => None,
        Verdict::Answer(status) => return refused(status),
        Verdict::Drop => return failed(StatusCode::BAD_GATEWAY),
        Verdict::KillAfter(victim) => Some(victim),
    };
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let upstream = way.upstream.lock().expect("no panic while it was set").clone();
    let mut sent = way.client.request(parts.method, format!("{upstream}{target}")).body(body);
    for (name, value) in parts.headers.iter().filter(|(name, _)| !HOP.contains(name)) {
        sent = sent.header(name, value);
    }
    let answer = sent.send().await;
    if let Some(victim) = victim {
        if let Ok(answer) = answer {
            // Whoever answers has done it only when the whole answer is there.
            let _ = answer.bytes().await;
        }
        end(victim);
        return failed(StatusCode::BAD_GATEWAY);
    }
    let Ok(answer) = answer else { return failed(StatusCode::BAD_GATEWAY) };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers().iter().filter(|(name, _)| !HOP.contains(name)) {
        response = response.header(name, value);
    }
    // As it comes: a watch goes on for as long as both ends want it.
    let stream = futures::stream::unfold(answer, async |mut answer| match answer.chunk().await {
        Ok(Some(chunk)) => Some((Ok::<Bytes, reqwest::Error>(chunk), answer)),
        Ok(None) => None,
        Err(error) => Some((Err(error), answer)),
    });
    response.body(Body::from_stream(stream)).expect("a response")
}
