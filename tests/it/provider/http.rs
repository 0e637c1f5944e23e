//! Raw HTTP/1.1 requests, so that tests see exactly what goes over the wire.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// A request to be sent on a connection of its own.
#[derive(Clone)]
pub struct Request {
    port: u16,
    from: Ipv4Addr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn new(port: u16, method: &str, path: &str) -> Self {
        let (method, path, from) = (method.to_owned(), path.to_owned(), Ipv4Addr::LOCALHOST);
        Self { port, from, method, path, headers: Vec::new(), body: Vec::new() }
    }

    /// From another address of the loopback network.
    pub fn from(mut self, address: [u8; 4]) -> Self {
        self.from = address.into();
        self
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// HTTP Basic, as RFC 6749 section 2.3.1 wants it: both parts form-encoded first.
    pub fn basic(self, id: &str, secret: &str) -> Self {
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let plain = format!("{}:{}", encode(id), encode(secret));
        self.header("authorization", format!("Basic {}", STANDARD.encode(plain)))
    }

    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", kind)
    }

    pub fn form(self, text: &str) -> Self {
        self.body("application/x-www-form-urlencoded", text)
    }

    pub fn json(self, value: &Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// The bytes of its head.
    pub fn head(&self) -> String {
        let mut head =
            format!("{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").expect("text");
        }
        if !self.body.is_empty() || self.method != "GET" {
            write!(head, "content-length: {}\r\n", self.body.len()).expect("text");
        }
        head + "\r\n"
    }

    /// Sends it and reads until the service closes the connection.
    ///
    /// # Panics
    /// When there is no good reply.
    pub async fn send(&self) -> Reply {
        self.try_send().await.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path))
    }

    pub async fn try_send(&self) -> std::io::Result<Reply> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let mut stream = socket.connect((Ipv4Addr::LOCALHOST, self.port).into()).await?;
        stream.write_all(self.head().as_bytes()).await?;
        // The service may answer and close before it has read all of a large body.
        let sent = stream.write_all(&self.body).await;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes).await;
        match Reply::parse(&bytes) {
            Some(reply) => Ok(reply),
            None => {
                sent?;
                read?;
                Err(std::io::Error::other(format!("no reply in {:?}", String::from_utf8_lossy(&bytes))))
            }
        }
    }
}

impl Reply {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: body.to_owned() })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// # Panics
    /// When the body is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A text member of its JSON.
    pub fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member} in {self:?}")).to_owned()
    }

    /// # Panics
    /// When it has another status.
    #[track_caller]
    pub fn must(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// # Panics
    /// When it isn't this error of RFC 6749 section 5.2, with all that belongs to it.
    #[track_caller]
    pub fn must_be_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert_eq!(self.header("pragma"), Some("no-cache"), "{self:?}");
        let challenge = self.header("www-authenticate");
        assert_eq!(challenge.is_some_and(|c| c.starts_with("Basic realm=")), status == 401, "{self:?}");
        let json = self.json();
        let members: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(members, ["error", "error_description"], "{self:?}");
        assert_eq!(json["error"], code, "{self:?}");
    }

    /// # Panics
    /// When it isn't this problem of RFC 9457, with all that belongs to it.
    #[track_caller]
    pub fn must_be_problem(&self, status: u16, code: &str, field: Option<&str>) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:applink:problem:{code}"), "{self:?}");
        assert_eq!(json["code"], code, "{self:?}");
        assert_eq!(json["status"], status, "{self:?}");
        assert_eq!(json["field"].as_str(), field, "{self:?}");
        assert!(json["title"].as_str().is_some_and(|t| !t.is_empty()), "{self:?}");
        assert!(json["detail"].as_str().is_some_and(|t| t.len() > 10), "{self:?}");
    }
}
