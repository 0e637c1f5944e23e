//! A double of an authorization server: raw HTTP/1.1, byte by byte what a test tells it to say. Only for what no
//! real server can be brought to say: faults, odd replies, silence. All else is tested against real ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the double does with a request.
#[derive(Clone)]
pub enum Reply {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Reads the request and never answers.
    Silence,
    /// Resets the connection once the request is read.
    Reset,
    /// Answers when it is told to.
    Hold(Arc<Notify>, Box<Reply>),
    /// Has a real token endpoint answer; gives the answer on, or drops it.
    Forward { to: String, answer: bool },
}

impl Reply {
    pub fn http(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::Bytes(
            format!(
                "HTTP/1.1 {status} X\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            )
            .into_bytes(),
        )
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::http(status, "Content-Type: application/json\r\n", &body.to_string())
    }

    /// An answer that promises more than comes.
    pub fn cut(body: &str) -> Self {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4096\r\n\r\n";
        Self::Bytes(format!("{head}{body}").into_bytes())
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub head: String,
    pub form: BTreeMap<String, String>,
    body: String,
}

impl Asked {
    /// A field of the form, or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.form.get(name).map_or("", String::as_str)
    }

    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The body, where it is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(':'));
        lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim())
    }
}

type Behaviour = Arc<dyn Fn(usize, &Asked) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    behaviours: Mutex<HashMap<String, Behaviour>>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
}

pub struct TokenServer {
    port: u16,
    state: Arc<State>,
}

impl TokenServer {
    pub async fn start() -> Self {
        Self::at(super::ports::free()).await
    }

    /// Begins to listen at a port.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("bind");
        let state = Arc::<State>::default();
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        Self { port, state }
    }

    /// Says what becomes of the requests to a path; the number is how many came there before.
    pub fn on(&self, path: &str, behaviour: impl Fn(usize, &Asked) -> Reply + Send + Sync + 'static) {
        self.state.behaviours.lock().expect("lock").insert(path.to_owned(), Arc::new(behaviour));
    }

    /// The same for every request to a path.
    pub fn always(&self, path: &str, reply: Reply) {
        self.on(path, move |_, _| reply.clone());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The requests to a path so far.
    pub fn asked(&self, path: &str) -> Vec<Asked> {
        self.state.asked.lock().expect("lock").iter().filter(|a| a.path == path).cloned().collect()
    }

    /// How many connections came, whether a request came with them or not.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn serve(state: Arc<State>, mut stream: TcpStream) {
    let Some(asked) = read(&mut stream).await else { return };
    let behaviour = state.behaviours.lock().expect("lock").get(&asked.path).cloned();
    let before = {
        let mut all = state.asked.lock().expect("lock");
        let before = all.iter().filter(|a| a.path == asked.path).count();
        all.push(asked.clone());
        before
    };
    let mut reply = behaviour.map_or_else(|| Reply::http(404, "", ""), |b| b(before, &asked));
    while let Reply::Hold(until, then) = reply {
        until.notified().await;
        reply = *then;
    }
    let bytes = match reply {
        Reply::Bytes(bytes) => Some(bytes),
        Reply::Forward { to, answer } => forward(&asked, &to).await.filter(|_| answer),
        // Until the other side gives up.
        Reply::Silence => {
            let _ = stream.read(&mut [0; 16]).await;
            return;
        }
        Reply::Reset | Reply::Hold(..) => None,
    };
    match bytes {
        Some(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        None => stream.set_zero_linger().expect("linger"),
    }
}

async fn forward(asked: &Asked, to: &str) -> Option<Vec<u8>> {
    let mut request = super::stage::http().post(to).body(asked.body.clone());
    for name in ["authorization", "content-type"] {
        if let Some(value) = asked.header(name) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.ok()?;
    let status = answer.status().as_u16();
    let body = answer.text().await.ok()?;
    match Reply::http(status, "Content-Type: application/json\r\n", &body) {
        Reply::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().filter_map(|l| l.split_once(':'));
            let length = length.into_iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
            if body.len() >= length.map_or(0, |(_, n)| n.trim().parse().expect("length")) {
                let path = head.split(' ').nth(1)?.to_owned();
                let form = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
                return Some(Asked { path, head: head.to_owned(), form, body: body.to_owned() });
            }
        }
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&chunk[..n]),
            _ => return None,
        }
    }
}
