//! Connections of one listener: how many, how slow, how they end.

use super::peer::TrustedProxies;
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use std::future::Future;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
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
    /// Connections at a time. More wait in the system's queue.
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

/// How long connections may take to end when the operator stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves the operator's own pages until `stop` resolves.
pub async fn serve(
    name: &'static str,
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send,
) {
    let (tell, stopped) = watch::channel(false);
    let server = Server {
        name,
        listener,
        router,
        bounds: Bounds::default(),
        drain: DRAIN,
        open: Gauge::default(),
        proxies: Arc::default(),
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
        loop {
            let (stream, peer, place) = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                next = self.next(&places) => next,
            };
            // Without it an answer may wait for the peer's acknowledgement; failing costs only time.
            let _ = stream.set_nodelay(true);
            let proxies = self.proxies.clone();
            let service = self.router.clone().map_request(move |mut request: hyper::Request<_>| {
                let origin = proxies.origin(peer, request.headers());
                request.extensions_mut().insert(origin);
                request.map(Body::new)
            });
            let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
            let connection = graceful.watch(connection);
            let name = self.name;
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = connection.await {
                    tracing::trace!(listener = name, %error, "a connection ended");
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
    async fn next(&self, places: &Arc<Semaphore>) -> (TcpStream, IpAddr, Place) {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = places.clone().acquire_owned().await else { std::future::pending().await };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return (stream, peer.ip(), Place::take(self.open.clone(), permit));
                }
                Err(error) => {
                    let peers = [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset];
                    if !peers.contains(&error.kind()) {
                        // Out of file descriptors, most likely: nothing to wait for but other
                        // connections' ends.
                        tracing::warn!(listener = self.name, %error, "a connection can't be accepted");
                        sleep(Duration::from_millis(200)).await;
                    }
                }
            }
        }
    }
}
