//! The guard and its clients.

use super::resolve::{self, PolicyResolver, Refusal};
use super::url_policy::check_url;
use super::{
    AllowList, CaBundle, ClientIdentity, NoAnswer, NotSent, RefusedReason, Request, Response, SendError,
    Trust, classify, coding, connect, tls,
};
use hickory_resolver::TokioResolver;
use http::header::{self, HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};
use jiff::Timestamp;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::{Host, Url};

/// More built clients than this aren't kept; the one that was used longest ago goes first.
const MAX_CLIENTS: usize = 64;

const USER_AGENT: &str = concat!("applink-operator/", env!("CARGO_PKG_VERSION"));

/// The limits of every call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardOptions {
    /// How long resolving, connecting and the TLS handshake may take together.
    pub connect_timeout: Duration,
    /// How long the whole call may take, the body included.
    pub timeout: Duration,
    /// How many bytes of a body are read.
    pub max_body: usize,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(15),
            max_body: 256 * 1024,
        }
    }
}

/// Why no guard could be built.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The resolver.
    #[error("the name resolver can't be set up; check /etc/resolv.conf")]
    Resolver,
}

/// What outgoing calls share: the policy, the resolver and the clients that were built.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    allow: Arc<AllowList>,
    options: GuardOptions,
    /// Trusted in all calls.
    authorities: Option<CaBundle>,
    resolver: TokioResolver,
    /// In the order of use, the latest last.
    clients: Mutex<Vec<(Key, connect::Transport)>>,
}

/// What a built client is good for. Port and scheme are in it because the resolver, which has
/// the last word on an address, is told a name and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    trust: Trust,
    port: u16,
    plain: bool,
    ca: Option<[u8; 32]>,
    identity: Option<[u8; 32]>,
    max_body: usize,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("allow", &self.0.allow)
            .field("options", &self.0.options)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard with the operator's policy. Names are resolved by `/etc/resolv.conf` and
    /// `/etc/hosts` as they are now.
    ///
    /// # Errors
    /// [`GuardError`] when the resolver can't be set up.
    pub fn new(allow: AllowList, options: GuardOptions) -> Result<Self, GuardError> {
        let resolver = resolve::system().map_err(|_| GuardError::Resolver)?;
        Ok(Self::with_resolver(allow, options, resolver))
    }

    pub(super) fn with_resolver(
        allow: AllowList,
        mut options: GuardOptions,
        resolver: TokioResolver,
    ) -> Self {
        // Connecting must time out first: then a call that runs out of time was surely sent.
        options.connect_timeout = options.connect_timeout.min(options.timeout.mul_f64(0.75));
        let (allow, authorities, clients) = (Arc::new(allow), None, Mutex::default());
        Self(Arc::new(Inner { allow, options, authorities, resolver, clients }))
    }

    /// The same guard, which trusts these authorities too, in all calls.
    #[must_use]
    pub fn trusting(&self, authorities: CaBundle) -> Self {
        Self(Arc::new(Inner {
            allow: self.0.allow.clone(),
            options: self.0.options,
            authorities: Some(authorities),
            resolver: self.0.resolver.clone(),
            clients: Mutex::default(),
        }))
    }

    /// A client for addresses of one trust. It is cheap to make and to clone.
    pub fn client(&self, trust: Trust, ca: Option<CaBundle>) -> HttpClient {
        HttpClient {
            guard: self.clone(),
            trust,
            ca: ca.map(Arc::new),
            identity: None,
            timeout: self.0.options.timeout,
            max_body: self.0.options.max_body,
        }
    }

    fn built(
        &self,
        key: Key,
        ca: Option<&CaBundle>,
        identity: Option<&ClientIdentity>,
    ) -> Result<connect::Transport, SendError> {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = clients.iter().position(|(k, _)| *k == key) {
            let entry = clients.remove(at);
            let client = entry.1.clone();
            clients.push(entry);
            return Ok(client);
        }
        let client = self.build(key, ca, identity).ok_or(SendError::NotSent(NotSent::Unbuildable))?;
        if clients.len() >= MAX_CLIENTS {
            clients.remove(0);
        }
        clients.push((key, client.clone()));
        Ok(client)
    }

    fn resolver(&self, key: Key) -> PolicyResolver {
        PolicyResolver {
            inner: self.0.resolver.clone(),
            trust: key.trust,
            allow: self.0.allow.clone(),
            port: key.port,
            plain: key.plain,
        }
    }

    fn build(
        &self,
        key: Key,
        ca: Option<&CaBundle>,
        identity: Option<&ClientIdentity>,
    ) -> Option<connect::Transport> {
        let resolver = self.resolver(key);
        // A kept connection that closes under a request leaves open whether it was read. Guarded
        // calls spend tokens that rotate, so each has a connection of its own.
        let kept = match key.trust {
            Trust::Guarded => 0,
            Trust::Trusted => 4,
        };
        let extra: Vec<_> = self.0.authorities.iter().chain(ca).collect();
        let terms =
            connect::Terms { connect_timeout: self.0.options.connect_timeout, max_body: key.max_body, kept };
        Some(connect::transport(resolver, tls::config(&extra, identity).ok()?, &terms))
    }

    #[cfg(test)]
    pub(super) fn built_clients(&self) -> usize {
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Sends requests to addresses of one trust.
#[derive(Clone)]
pub struct HttpClient {
    guard: Guard,
    trust: Trust,
    ca: Option<Arc<CaBundle>>,
    identity: Option<ClientIdentity>,
    timeout: Duration,
    max_body: usize,
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("trust", &self.trust)
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl HttpClient {
    /// The same client, which logs in with a certificate where a server asks for one.
    #[must_use]
    pub fn with_identity(mut self, identity: ClientIdentity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The same client with another bound on the whole call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same client with another bound on the body.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// How long the whole call may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Whose word the addresses are.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Whether an address may be called, by its text alone: nothing is resolved. A name may still turn
    /// out to lead where nothing may be called.
    ///
    /// # Errors
    /// [`RefusedReason`], as [`Self::send`] would give it.
    pub fn permits(&self, url: &Url) -> Result<(), RefusedReason> {
        check_url(url, self.trust, &self.guard.0.allow)
    }

    /// Whether an address may be called, its name resolved; nothing is sent.
    ///
    /// # Errors
    /// [`SendError`], as [`Self::send`] would give it.
    pub async fn reaches(&self, url: &Url) -> Result<(), SendError> {
        self.permits(url)?;
        let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
        let resolver = self.guard.resolver(self.key(url));
        let resolved = resolver.resolve(name);
        match tokio::time::timeout(self.guard.0.options.connect_timeout, resolved).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(match e.downcast_ref::<Refusal>() {
                Some(Refusal(reason)) => SendError::Refused(*reason),
                None => SendError::NotSent(NotSent::Dns),
            }),
            Err(_) => Err(SendError::NotSent(NotSent::Dns)),
        }
    }

    fn key(&self, url: &Url) -> Key {
        let guarded = self.trust == Trust::Guarded;
        Key {
            trust: self.trust,
            port: url.port_or_known_default().filter(|_| guarded).unwrap_or(0),
            plain: guarded && url.scheme() == "http",
            ca: self.ca.as_deref().map(CaBundle::digest),
            identity: self.identity.as_ref().map(ClientIdentity::digest),
            max_body: self.max_body,
        }
    }

    /// Sends a request and reads the whole answer. Every status is an answer, a redirect too.
    ///
    /// # Errors
    /// [`SendError`], which says how far the request came and never what the server said.
    pub async fn send(&self, request: Request) -> Result<Response, SendError> {
        let mut heard = Heard::default();
        let (status, headers) = self.hear(request, &mut heard).await?;
        Ok(Response::new(status, headers, heard.body, Timestamp::now()))
    }

    /// The same; what came of an answer is in `heard` also where it can't be read.
    ///
    /// # Errors
    /// As of [`Self::send`].
    pub async fn send_heard(&self, request: Request, heard: &mut Heard) -> Result<Response, SendError> {
        let (status, headers) = self.hear(request, heard).await?;
        Ok(Response::new(status, headers, heard.body.clone(), Timestamp::now()))
    }

    async fn hear(&self, request: Request, heard: &mut Heard) -> Result<(u16, HeaderMap), SendError> {
        self.permits(&request.url)?;
        let key = self.key(&request.url);
        let client = self.guard.built(key, self.ca.as_deref(), self.identity.as_ref())?;
        match tokio::time::timeout(self.timeout, exchange(&client, request, self.max_body, heard)).await {
            Ok(result) => result,
            Err(_) => Err(SendError::NoAnswer(NoAnswer::Timeout)),
        }
    }
}

/// The answer as far as it came: what is left of one that can't be read.
///
/// It may hold tokens, so its debug text doesn't show the body.
#[derive(Clone, Default)]
pub struct Heard {
    /// The status, once there is one.
    pub status: Option<u16>,
    /// `Content-Type`, as the server wrote it.
    pub content_type: Option<String>,
    /// `Content-Encoding`, as the server wrote it, of a body that couldn't be decoded.
    pub content_encoding: Option<String>,
    /// The server's time when it answered, where it said it.
    pub date: Option<Timestamp>,
    /// The body, decoded where that was possible.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heard")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

/// Whether the status alone says what there is to know, so that a body that can't be decoded is missed
/// by nobody.
const fn speaks_for_itself(status: u16) -> bool {
    !matches!(status, 200..=299 | 400 | 403)
}

async fn exchange(
    client: &connect::Transport,
    request: Request,
    max: usize,
    heard: &mut Heard,
) -> Result<(u16, HeaderMap), SendError> {
    let Request { method, url, mut headers, body } = request;
    headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    // Without it any coding would be right (RFC 9110 section 12.5.3).
    headers.entry(header::ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let mut call = http::Request::new(Full::from(body));
    *call.method_mut() = method;
    *call.uri_mut() = url.as_str().parse().map_err(|_| SendError::NotSent(NotSent::Unbuildable))?;
    *call.headers_mut() = headers;
    let mut answer = client.request(call).await.map_err(|e| classify::send_error(&e))?;
    let status = answer.status().as_u16();
    let text = |name| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    heard.status = Some(status);
    heard.date = text(header::DATE)
        .and_then(|d| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(d.trim()).ok());
    heard.content_type = text(header::CONTENT_TYPE);
    heard.content_encoding = text(header::CONTENT_ENCODING);
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|e| classify::body_error(&e))?;
        let Some(chunk) = frame.data_ref() else { continue };
        if heard.body.len() + chunk.len() > max {
            heard.body.extend_from_slice(&chunk[..max - heard.body.len()]);
            return Err(SendError::TooLarge);
        }
        heard.body.extend_from_slice(chunk);
    }
    heard.complete = true;
    let headers = std::mem::take(answer.headers_mut());
    match coding::decode(&headers, &heard.body, max) {
        Ok(None) => {}
        Ok(Some(decoded)) => heard.body = decoded,
        Err(SendError::Undecodable(_)) if speaks_for_itself(status) => heard.body.clear(),
        Err(e) => return Err(e),
    }
    heard.content_encoding = None;
    Ok((status, headers))
}
