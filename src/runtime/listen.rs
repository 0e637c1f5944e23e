//! Connections of one listener: how many, how slow, how they end.

use super::idle::{Idle, NoneIdle};
use super::peer::TrustedProxies;
use axum::Router;
use axum::body::Body;
use axum::http::HeaderMap;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};
use tower::ServiceExt as _;

/// What the connections of a listener may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of a request's head.
    pub head: usize,
    /// Number of a request's header fields.
    pub headers: usize,
    /// Time for a request's head to arrive; also how long an idle connection is kept.
    pub header_timeout: Duration,
    /// Connections at a time.
    pub connections: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { head: 16 * 1024, headers: 64, header_timeout: Duration::from_secs(10), connections: 1024 }
    }
}

/// One listener and what it serves.
pub struct Server {
    /// For logs and metrics.
    pub name: &'static str,
    /// Where connections come from.
    pub listener: TcpListener,
    /// What answers.
    pub router: Router,
    /// What its connections may cost.
    pub bounds: Bounds,
    /// For how long an idle connection is left alone when there are as many as there may be. Then the one that was idle
    /// for longest makes room, so that connections which say nothing keep nobody out; at once where one address has more
    /// than a quarter of them, which isn't a trusted proxy's. None at all for what must answer whoever asks, such as a kubelet.
    pub left_alone: Duration,
    /// How long connections may take to end.
    pub drain: Duration,
    /// The number of open connections.
    pub open: Gauge,
    /// Whose word counts on where a request comes from. Each request has that with it, as an [`Origin`](super::peer::Origin).
    pub proxies: Arc<TrustedProxies>,
}

/// An open connection's place; it is free again when this is dropped.
struct Place {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(open: Gauge, permit: OwnedSemaphorePermit) -> Self {
        open.inc();
        Self { open, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// How often an address that is taken is tried.
const AGAIN: Duration = Duration::from_secs(5);

/// So many connections of one address are no crowd, however few a listener takes.
const NO_CROWD: usize = 8;

/// How long connections may take to end when the operator stops.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Serves the operator's own pages until `stop` resolves, and what was begun for `drain` longer.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    proxies: Arc<TrustedProxies>,
    drain: Duration,
    stop: impl Future<Output = ()> + Send,
) {
    let (tell, stopped) = watch::channel(false);
    let server = Server {
        name,
        listener,
        router,
        bounds: Bounds::default(),
        left_alone: Duration::ZERO,
        drain,
        open: Gauge::default(),
        proxies,
    };
    let signal = async {
        stop.await;
        tell.send_replace(true);
    };
    tokio::join!(server.run(stopped), signal);
}

impl Server {
    /// Serves until `stopped` is true, then waits for requests in flight, for the drain timeout at
    /// most.
    pub async fn run(self, mut stopped: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.bounds.connections));
        let http = self.http();
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let idle = Arc::new(Idle::default());
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                next = self.next(&places, &idle) => next,
            };
            let entered = idle.enter(self.proxies.origin(peer, &HeaderMap::new()).nearest());
            // Without it an answer may wait for the peer's acknowledgement; failing costs only time.
            let _ = stream.set_nodelay(true);
            let proxies = self.proxies.clone();
            let router = self.router.clone().map_request(move |mut request: hyper::Request<_>| {
                let origin = proxies.origin(peer, request.headers());
                request.extensions_mut().insert(origin);
                request.map(Body::new)
            });
            let of = entered.clone();
            let service = router.map_future(move |answer| {
                let busy = of.busy();
                async move {
                    let _busy = busy;
                    answer.await
                }
            });
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            let connection = graceful.watch(connection);
            let name = self.name;
            connections.spawn(async move {
                let _place = place;
                tokio::select! {
                    done = connection => if let Err(error) = done {
                        tracing::trace!(listener = name, %error, "a connection ended");
                    },
                    () = entered.must_close() => {
                        tracing::trace!(listener = name, "an idle connection made room");
                    }
                }
            });
            while connections.try_join_next().is_some() {}
        }
        // Who comes now is refused at once, and tries elsewhere.
        drop(self.listener);
        if timeout(self.drain, graceful.shutdown()).await.is_err() {
            let left = connections.len();
            tracing::warn!(listener = self.name, left, "the drain timeout is over; closing what is left");
        }
        connections.shutdown().await;
    }

    /// So many idle connections one address may have when there is no room.
    fn crowd(&self) -> usize {
        (self.bounds.connections / 4).max(NO_CROWD)
    }

    fn http(&self) -> http1::Builder {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.bounds.header_timeout)
            .max_headers(self.bounds.headers)
            .max_header_size(self.bounds.head)
            .max_buf_size(self.bounds.head.max(8192) * 2);
        http
    }

    /// The next connection, once there is a place for it.
    async fn next(&self, places: &Arc<Semaphore>, idle: &Idle) -> (TcpStream, IpAddr, Place) {
        let (stream, peer) = self.accept(idle).await;
        let permit = self.make_room(places, idle).await;
        (stream, peer, Place::take(self.open.clone(), permit))
    }

    async fn accept(&self, idle: &Idle) -> (TcpStream, IpAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => return (stream, peer.ip()),
                Err(error) => {
                    let peers = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
                    if !peers.contains(&error.kind()) {
                        // Out of file descriptors, most likely: nothing to wait for but other
                        // connections' ends.
                        tracing::warn!(listener = self.name, %error, "a connection can't be accepted");
                        let _ = idle.close_one(self.left_alone, self.crowd());
                        sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        }
    }

    /// A permit for a connection that was accepted, if need be an idle one's.
    async fn make_room(&self, places: &Arc<Semaphore>, idle: &Idle) -> OwnedSemaphorePermit {
        loop {
            if let Ok(permit) = places.clone().try_acquire_owned() {
                return permit;
            }
            let later = async {
                match idle.close_one(self.left_alone, self.crowd()) {
                    // Its permit comes.
                    Ok(()) => std::future::pending().await,
                    Err(NoneIdle::All) => idle.one_more().await,
                    Err(NoneIdle::Until(at)) => sleep_until(at).await,
                }
            };
            tokio::select! {
                permit = permit(places) => return permit,
                () = later => {}
            }
        }
    }
}

async fn permit(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    match places.clone().acquire_owned().await {
        Ok(permit) => permit,
        // The semaphore is never closed.
        Err(_) => std::future::pending().await,
    }
}

/// Listens at an address, once it can: for what the process can do without for a while.
pub async fn bind(name: &'static str, address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::error!(listener = name, %address, %error, "can't listen there; trying again every few seconds");
                sleep(AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;

    const LONG: Duration = Duration::from_secs(600);

    async fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
    }

    async fn answer(mut stream: TcpStream) -> String {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said).await;
        String::from_utf8_lossy(&said).into_owned()
    }

    #[tokio::test]
    async fn an_idle_connection_makes_room_and_one_with_a_request_under_way_does_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (told, waits) = (begun.clone(), go_on.clone());
        let held = move || {
            let (told, waits) = (told.clone(), waits.clone());
            async move {
                told.notify_one();
                waits.notified().await;
                "held"
            }
        };
        let server = Server {
            name: "test",
            listener,
            router: Router::new().route("/held", get(held)).route("/", get(|| async { "answered" })),
            bounds: Bounds { connections: 2, header_timeout: LONG, ..Bounds::default() },
            left_alone: Duration::ZERO,
            drain: Duration::ZERO,
            open: Gauge::default(),
            proxies: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server.run(stopped));
        let connect = async || TcpStream::connect(address).await.expect("connected");
        let mut working = connect().await;
        ask(&mut working, "/held").await;
        begun.notified().await;
        let silent: Vec<_> = [connect().await, connect().await, connect().await].into();
        for _ in 0..5 {
            let mut next = connect().await;
            ask(&mut next, "/").await;
            assert!(answer(next).await.ends_with("answered"));
        }
        for stream in silent {
            assert_eq!(answer(stream).await, "");
        }
        go_on.notify_one();
        assert!(answer(working).await.ends_with("held"));
        stop.send_replace(true);
        serving.await.expect("an end");
    }

    #[tokio::test]
    async fn one_address_s_idle_connections_keep_no_other_one_out() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Server {
            name: "test",
            listener,
            router: Router::new().route("/", get(|| async { "answered" })),
            bounds: Bounds { connections: 16, header_timeout: LONG, ..Bounds::default() },
            left_alone: LONG,
            drain: Duration::ZERO,
            open: Gauge::default(),
            proxies: Arc::default(),
        };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(server.run(stopped));
        let connect = async |from: [u8; 4]| {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind((from, 0).into()).expect("an address");
            socket.connect(address).await.expect("connected")
        };
        let mut many = Vec::new();
        for _ in 0..40 {
            many.push(connect([127, 0, 0, 2]).await);
        }
        let mut other = connect([127, 0, 0, 3]).await;
        ask(&mut other, "/").await;
        let answered =
            timeout(LONG / 10, answer(other)).await.expect("an answer, and before any was idle for long");
        assert!(answered.ends_with("answered"));
        drop(many);
        stop.send_replace(true);
        serving.await.expect("an end");
    }
}
