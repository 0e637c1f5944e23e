//! Names to addresses, with the policy in between.

use super::url_policy::{Trust, check_addresses};
use super::{AllowList, RefusedReason};
use futures::future::BoxFuture;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hyper_util::client::legacy::connect::dns::Name;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tower::{BoxError, Service};

/// More addresses than this aren't tried. All of them are checked.
const MAX_ADDRESSES: usize = 16;

/// Builds the resolver from `/etc/resolv.conf` and `/etc/hosts`. A static binary in an empty
/// image has no libc to ask; hickory knows `localhost` by itself.
pub(super) fn system() -> Result<TokioResolver, NetError> {
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
        // Names of the hosts file still work. No public resolver is asked instead: that would
        // tell a stranger the names that a cluster uses.
        tracing::warn!(%error, "/etc/resolv.conf can't be read, so no name server is asked");
        TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, vec![], vec![]),
            TokioRuntimeProvider::default(),
        )
    });
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    // Someone who just made a record shouldn't wait for an old answer.
    options.negative_max_ttl = Some(Duration::from_secs(10));
    options.positive_max_ttl = Some(Duration::from_secs(300));
    builder.build()
}

/// The resolver of one client, which knows what the client may connect to.
#[derive(Clone)]
pub(super) struct PolicyResolver {
    pub(super) inner: TokioResolver,
    pub(super) trust: Trust,
    pub(super) allow: Arc<AllowList>,
    pub(super) port: u16,
    pub(super) plain: bool,
}

/// The policy's refusal, on its way through the HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(super) struct Refusal(pub(super) RefusedReason);

/// No address; what the name server said stays here.
#[derive(Debug, thiserror::Error)]
#[error("no address")]
pub(super) struct NoAddress;

impl PolicyResolver {
    /// The addresses of a host, all of which may be called.
    ///
    /// # Errors
    /// [`Refusal`]; [`NoAddress`].
    pub(super) async fn resolve(&self, host: &str) -> Result<Vec<SocketAddr>, BoxError> {
        let relative = self.trust == Trust::Trusted || self.allow.permits_name(host, self.port, self.plain);
        // A name that a tenant gave is absolute: the search list would try it inside of the
        // cluster first.
        let question = if relative || host.ends_with('.') { host.to_owned() } else { format!("{host}.") };
        let addresses: Vec<IpAddr> = match self.inner.lookup_ip(question).await {
            Ok(answer) => answer.iter().collect(),
            Err(e) if !relative && has_no_address(&e) => vec![],
            Err(_) => return Err(NoAddress.into()),
        };
        if self.trust == Trust::Guarded {
            check_addresses(host, &addresses, self.port, self.plain, &self.allow).map_err(Refusal)?;
        }
        if addresses.is_empty() {
            return Err(NoAddress.into());
        }
        Ok(addresses.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

impl Service<Name> for PolicyResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.resolve(name.as_str()).await?.into_iter()) })
    }
}

/// Whether the answer is that there is no such name, or none with an address; a name that can't be
/// one counts too. A name server that is silent or in trouble says nothing of the name.
fn has_no_address(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::NoRecordsFound(_)) | NetError::Proto(_))
}
