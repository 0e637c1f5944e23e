//! What handlers share.

use super::changes::Changes;
use super::client_budget::ClientBudget;
use super::health::Writing;
use super::metrics::Metrics;
use super::secret::SecretHasher;
use super::store::{Client, Store};
use super::{Config, Issuer, ServerError, TokenPolicy, random};
use crate::domain::ScopeSet;
use jiff::Timestamp;
use std::path::PathBuf;
use std::thread::available_parallelism;
use tokio::sync::{Semaphore, watch};

/// Argon2 computations at a time, at most: each takes 19 MiB and a core.
const MOST_ARGON2: usize = 4;
/// Callers that wait for changes at a time, at most. An operator is one.
const MOST_WAITERS: usize = 64;

/// The service: its settings, its store, its instruments.
pub struct App {
    /// Who it says it is.
    pub issuer: Issuer,
    /// The scopes there are.
    pub scopes: ScopeSet,
    /// How long tokens live.
    pub tokens: TokenPolicy,
    /// Whether applications may register themselves.
    pub registration: bool,
    /// Bytes of a request body, at most.
    pub body_limit: usize,
    /// Time for a request, at most.
    pub request_timeout: std::time::Duration,
    /// The file with the admin token.
    pub admin_token_file: PathBuf,
    /// Random for each start, so that a caller can tell a new start from the old one.
    pub instance: String,
    /// Clients and tokens.
    pub store: Store,
    /// What each client was issued lately.
    pub budget: ClientBudget,
    /// Whether the store can be written.
    pub writing: Writing,
    /// Checks client secrets.
    pub secrets: SecretHasher,
    /// Counters.
    pub metrics: Metrics,
    /// Places for those who wait for changes.
    pub waiters: Semaphore,
    stop: watch::Sender<bool>,
    clock: fn() -> Timestamp,
}

impl App {
    /// Opens the store and sets up the rest.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn open(config: &Config) -> Result<Self, ServerError> {
        let random = |_| ServerError::Randomness;
        let changes = Changes::beginning_at(random::bytes().map_err(random)?);
        let store = Store::open(&config.database, changes).await;
        let store = store.map_err(|e| ServerError::Database {
            path: config.database.clone(),
            reason: e.to_string(),
            way_out: e.way_out(),
        })?;
        let cores = available_parallelism().map_or(1, usize::from);
        Ok(Self {
            issuer: config.issuer.clone(),
            scopes: config.scopes.clone(),
            tokens: config.tokens,
            registration: config.registration,
            body_limit: config.limits.body,
            request_timeout: config.limits.request_timeout,
            admin_token_file: config.admin_token_file.clone(),
            instance: random::name().map_err(random)?,
            store,
            budget: ClientBudget::new(config.clients),
            writing: Writing::default(),
            secrets: SecretHasher::new(cores.min(MOST_ARGON2)).map_err(ServerError::Hashing)?,
            metrics: Metrics::new(),
            waiters: Semaphore::new(MOST_WAITERS),
            stop: watch::Sender::new(false),
            clock: Timestamp::now,
        })
    }

    /// Becomes true when the service is to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Says that the service is to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// What a client may have of `scopes`, now: never more than it is registered with now, and
    /// never a scope that the service doesn't have any more. So a token that was issued before a
    /// client lost a scope doesn't keep it.
    pub fn within(&self, client: &Client, scopes: &ScopeSet) -> ScopeSet {
        let may = |s: &&crate::domain::Scope| client.metadata.scopes.contains(s) && self.scopes.contains(s);
        scopes.iter().filter(may).cloned().collect()
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;
    use crate::domain::Lifetime;
    use crate::runtime::peer::TrustedProxies;
    use crate::server::Limits;
    use crate::server::config::DEFAULT_SCOPES;
    use std::time::Duration;

    /// A service with all defaults, in a folder of its own.
    pub async fn app(limits: Limits) -> (tempfile::TempDir, std::sync::Arc<App>) {
        let dir = tempfile::tempdir().expect("a folder");
        let config = Config {
            issuer: Issuer::parse("https://p.example").expect("an issuer"),
            listen: ([127, 0, 0, 1], 0).into(),
            admin_listen: ([127, 0, 0, 1], 0).into(),
            health_listen: None,
            metrics_listen: None,
            admin_token_file: dir.path().join("token"),
            database: dir.path().join("db"),
            scopes: ScopeSet::parse(DEFAULT_SCOPES).expect("scopes"),
            tokens: TokenPolicy {
                access_lifetime: Lifetime::from_secs(3600).expect("a lifetime"),
                refresh_lifetime: Lifetime::from_secs(3600).expect("a lifetime"),
                refresh_grace: Duration::from_secs(10),
            },
            registration: true,
            limits,
            clients: crate::server::ClientLimits::default(),
            proxies: TrustedProxies::default(),
            drain_timeout: Duration::from_secs(1),
        };
        let app = App::open(&config).await.expect("a service");
        (dir, std::sync::Arc::new(app))
    }
}
