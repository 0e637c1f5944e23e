//! The connections that calls are made over: resolved, connected and secured within one time, and read up to
//! a limit.
//!
//! The limit counts every byte that the server sends, below TLS. hyper bounds heads, trailers and chunk
//! extensions, but it reads any number of interim answers (`100 Continue`), of zeros before the size of a chunk
//! and of blanks after it, without an end and without a word to its caller.

use super::resolve::PolicyResolver;
use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::timeout::Timeout;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

/// The largest head of an answer, in bytes. Servers refuse requests with heads of a quarter of it.
const MAX_HEAD: usize = 64 * 1024;
/// What an exchange may have beside the body and what frames it: the head, interim answers, trailers, and the TLS
/// handshake with its certificates.
const BESIDE_BODY: usize = 256 * 1024;

/// How many bytes may come in an exchange whose body may have `max_body`. A body in small chunks, or in small
/// TLS records, is larger on the wire than it is.
const fn wire_limit(max_body: usize) -> usize {
    max_body.saturating_mul(2).saturating_add(BESIDE_BODY)
}

/// What requests are sent with.
pub(super) type Transport = Client<BoxCloneSyncService<Uri, Stream, BoxError>, Full<Bytes>>;
type Stream = MaybeHttpsStream<TokioIo<Metered<TcpStream>>>;

/// How connections are made and kept.
pub(super) struct Terms {
    /// How long resolving, connecting and the TLS handshake may take together.
    pub(super) connect_timeout: Duration,
    /// The largest body of an answer.
    pub(super) max_body: usize,
    /// How many connections to a host are kept for other calls; 0: each call has its own.
    pub(super) kept: usize,
}

/// A transport to the addresses that `resolver` gives.
pub(super) fn transport(resolver: PolicyResolver, tls: ClientConfig, terms: &Terms) -> Transport {
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    // TLS is added below.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let (limit, reused) = (wire_limit(terms.max_body), terms.kept > 0);
    let metered =
        tcp.map_response(move |tcp| TokioIo::new(Metered::new(TokioIo::into_inner(tcp), limit, reused)));
    let secured = HttpsConnector::from((metered, tls));
    let in_time = Timeout::new(secured, terms.connect_timeout);
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(15))
        .pool_max_idle_per_host(terms.kept)
        // Nothing is sent twice: it may have been read.
        .retry_canceled_requests(false)
        .http1_max_buf_size(MAX_HEAD)
        .build(BoxCloneSyncService::new(in_time))
}

/// The server sent more than an answer can have.
#[derive(Debug, thiserror::Error)]
#[error("more came than an answer has")]
pub(super) struct Exceeded;

/// A connection that fails where more comes over it than its limit.
pub(super) struct Metered<T> {
    io: T,
    limit: usize,
    left: usize,
    /// Whether it carries one exchange after another: then the limit counts from what was written last.
    reused: bool,
}

impl<T> Metered<T> {
    fn new(io: T, limit: usize, reused: bool) -> Self {
        Self { io, limit, left: limit, reused }
    }

    fn written(&mut self) {
        if self.reused {
            self.left = self.limit;
        }
    }
}

impl<T: Connection> Connection for Metered<T> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        match self.left.checked_sub(buf.filled().len() - before) {
            Some(left) => {
                self.left = left;
                read
            }
            None => Poll::Ready(Err(io::Error::other(Exceeded))),
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written();
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.written();
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    #[tokio::test]
    async fn a_connection_that_is_kept_has_the_limit_for_each_exchange() {
        for (reused, wanted) in [(true, [true; 4]), (false, [true, true, false, false])] {
            let (ours, mut theirs) = duplex(64);
            let mut metered = Metered::new(ours, 16, reused);
            for works in wanted {
                metered.write_all(b"?").await.expect("a pipe");
                theirs.write_all(&[b'x'; 8]).await.expect("a pipe");
                let read = metered.read_exact(&mut [0; 8]).await;
                assert_eq!(read.is_ok(), works, "{reused}");
            }
        }
    }
}
